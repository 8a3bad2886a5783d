/* The settings of an impaired line as people write them: "delay", "50ms". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "netplug/netplug.h"
#include "uml-lab/base/str.h"

static int read_time(const char *text, uint32_t *us)
{
	char *end;
	double number = strtod(text, &end), scale = str_eq(end, "us") ? 1 : str_eq(end, "ms") ? 1e3 : 1e6;

	/* A plain number is seconds, as in lab.yml. */
	if (end == text || !(number >= 0) || (*end && !str_eq(end, "us") && !str_eq(end, "ms") && !str_eq(end, "s")) ||
	    number * scale > NETPLUG_DELAY_MAX_US)
		return -1;
	*us = (uint32_t)(number * scale + 0.5);
	return 0;
}

static int read_share(const char *text, uint32_t *ppm)
{
	char *end;
	double percent = strtod(text, &end);

	if (end == text || !str_eq(end, "%") || !(percent >= 0 && percent <= 100))
		return -1;
	*ppm = (uint32_t)(percent * (NETPLUG_PPM / 100) + 0.5);
	return 0;
}

static int read_rate(const char *text, uint64_t *rate)
{
	static const char units[] = "KMG";
	char *end;
	double number = strtod(text, &end);
	const char *unit = *end ? strchr(units, *end) : NULL;

	if (end == text || (*end && (!unit || end[1])) || !(number >= 0))
		return -1;
	for (; unit && unit >= units; unit--)
		number *= 1000;
	if (number != 0 && (number < NETPLUG_RATE_MIN || number > NETPLUG_RATE_MAX))
		return -1;
	*rate = (uint64_t)(number + 0.5);
	return 0;
}

int netplug_impair_set(struct netplug_impair *impair, const char *key, const char *text, struct error *err)
{
	const char *allowed = "0% to 100%";
	int rc;

	if (str_eq(key, "delay") || str_eq(key, "jitter")) {
		rc = read_time(text, *key == 'd' ? &impair->delay_us : &impair->jitter_us);
		allowed = "a time like 50ms, at most 60s";
	} else if (str_eq(key, "rate")) {
		rc = read_rate(text, &impair->rate);
		allowed = "bits a second like 64K, 10M or 1G, at least 1K; 0: no limit";
	} else if (str_eq(key, "loss")) {
		rc = read_share(text, &impair->loss_ppm);
	} else if (str_eq(key, "duplicate")) {
		rc = read_share(text, &impair->duplicate_ppm);
	} else if (str_eq(key, "reorder")) {
		rc = read_share(text, &impair->reorder_ppm);
	} else {
		return error_set(err, ERROR_USAGE, "'%.32s' is no impairment; allowed: delay, jitter, loss, duplicate, reorder, "
				 "rate", key);
	}
	return rc ? error_set(err, ERROR_USAGE, "%s '%.32s' is wrong; allowed: %s", key, text, allowed) : 0;
}

static size_t put(char *buf, size_t size, size_t at, const char *fmt, double number, const char *unit)
{
	int n = at < size ? snprintf(buf + at, size - at, fmt, number, unit) : 0;

	return at + (size_t)(n > 0 ? n : 0);
}

/* 5000000 is 5M: what read_rate() takes. */
static size_t put_rate(char *buf, size_t size, size_t at, uint64_t rate)
{
	static const struct {
		double bits;
		const char *unit;
	} units[] = {{1e9, "G "}, {1e6, "M "}, {1e3, "K "}};
	size_t i = 0;

	while (i < 2 && (double)rate < units[i].bits)
		i++;
	return put(buf, size, at, "rate=%.12g%s", (double)rate / units[i].bits, units[i].unit);
}

char *netplug_impair_format(const struct netplug_impair *impair, char buf[static NETPLUG_IMPAIR_TEXT_MAX])
{
	const size_t size = NETPLUG_IMPAIR_TEXT_MAX;
	size_t at = 0;

	buf[0] = '\0';
	if (impair->delay_us)
		at = put(buf, size, at, "delay=%.9g%s ", impair->delay_us / 1e3, "ms");
	if (impair->jitter_us)
		at = put(buf, size, at, "jitter=%.9g%s ", impair->jitter_us / 1e3, "ms");
	if (impair->loss_ppm)
		at = put(buf, size, at, "loss=%.9g%s ", impair->loss_ppm / 1e4, "%");
	if (impair->duplicate_ppm)
		at = put(buf, size, at, "duplicate=%.9g%s ", impair->duplicate_ppm / 1e4, "%");
	if (impair->reorder_ppm)
		at = put(buf, size, at, "reorder=%.9g%s ", impair->reorder_ppm / 1e4, "%");
	if (impair->rate)
		at = put_rate(buf, size, at, impair->rate);
	if (impair->down)
		at += (size_t)snprintf(buf + at, size - at, "down ");
	if (at)
		buf[at - 1] = '\0';
	return buf;
}
