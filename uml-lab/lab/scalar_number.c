/*
 * The types of values that measure: numbers, percentages, sizes, times, and the
 * traffic of a network. They are read from their text (scalar.c says why) and
 * written by the largest unit that loses nothing.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "netplug/netplug.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/lab/lab_internal.h"

static void out_of_range(struct strbuf *why, const char *text)
{
	strbuf_printf(why, "is %s: out of range", text);
}

/* Decimal digits, no leading zero: 010 would be eight for some readers of YAML, ten for others. */
static bool parse_number(const struct field *field, const char *text, const char *what, int *value,
			 struct strbuf *why)
{
	int64_t number;

	if (str_to_i64(text, INT64_MIN, INT64_MAX, &number) < 0)
		return lab_is_not(why, text, what);
	if ((text[0] == '0' && text[1]) || text[0] == '-') {
		strbuf_printf(why, "is %.20s: %s", text,
			      text[0] == '-' ? "negative" : "a leading zero may mean octal; leave it out");
		return false;
	}
	if (number < field->min || number > field->max) {
		out_of_range(why, text);
		return false;
	}
	*value = (int)number;
	return true;
}

static bool parse_int(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	return parse_number(field, text, "a whole number", value, why);
}

static void write_int(const struct field *field, const void *value, struct strbuf *out)
{
	(void)field;
	strbuf_printf(out, "%d", *(const int *)value);
}

static bool parse_percent(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	size_t length = strlen(text);
	char digits[16];

	if (length < 2 || length > sizeof(digits) || text[length - 1] != '%')
		return lab_is_not(why, text, "a percentage like 50%");
	memcpy(digits, text, length - 1);
	digits[length - 1] = '\0';
	return parse_number(field, digits, "a percentage like 50%", value, why);
}

static void write_percent(const struct field *field, const void *value, struct strbuf *out)
{
	(void)field;
	strbuf_printf(out, "%d%%", *(const int *)value);
}

/* A size as people write it, by the largest unit that divides it: 134217728 → "128M". */
static void put_size(uint64_t bytes, struct strbuf *out)
{
	static const char units[] = "KMGT";
	char unit = '\0';

	for (size_t i = 0; bytes && bytes % 1024 == 0 && units[i]; i++) {
		bytes /= 1024;
		unit = units[i];
	}
	strbuf_printf(out, "%" PRIu64, bytes);
	if (unit)
		strbuf_putc(out, unit);
}

static bool parse_size(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	bool bare = *text && strspn(text, "0123456789") == strlen(text);
	char quoted[LAB_QUOTE_MAX];
	uint64_t bytes;

	if (str_to_size(text, &bytes) < 0)
		return lab_is_not(why, text, "a size");
	if (bytes < (uint64_t)field->min || bytes > (uint64_t)field->max) {
		bool small = bytes < (uint64_t)field->min;

		strbuf_printf(why, "is %s%s: too %s", lab_quote(text, quoted), bare ? " bytes" : "",
			      small ? "small" : "large");
		if (small && field->min_reason)
			strbuf_printf(why, ", %s", field->min_reason);
		if (small && bare && bytes << 20 >= (uint64_t)field->min)
			strbuf_printf(why, "; did you mean %sM?", text);
		return false;
	}
	*(uint64_t *)value = bytes;
	return true;
}

static void write_size(const struct field *field, const void *value, struct strbuf *out)
{
	(void)field;
	put_size(*(const uint64_t *)value, out);
}

static void put_duration(int64_t ms, struct strbuf *out)
{
	static const struct {
		int64_t ms;
		const char *unit;
	} units[] = {{3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}};
	size_t i = 0;

	while (ms % units[i].ms)
		i++;
	strbuf_printf(out, "%" PRId64 "%s", ms / units[i].ms, ms ? units[i].unit : "s");
}

static bool parse_duration(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	char quoted[LAB_QUOTE_MAX];
	int64_t ms;

	if (str_to_duration_ms(text, &ms) < 0)
		return lab_is_not(why, text, "a time");
	if (ms < field->min || ms > field->max) {
		out_of_range(why, lab_quote(text, quoted));
		return false;
	}
	*(int64_t *)value = ms;
	return true;
}

static void write_duration(const struct field *field, const void *value, struct strbuf *out)
{
	(void)field;
	put_duration(*(const int64_t *)value, out);
}

/* ---- traffic of a network: kept as written ---- */

/* A value that netplug has to understand too, so it is asked. */
static bool parse_traffic(const char *key, const char *what, const char *text, void *value, struct strbuf *why)
{
	struct netplug_impair impair = {0};

	if (strspn(text, "0123456789.KMG%ms") != strlen(text) || netplug_impair_set(&impair, key, text, NULL) < 0)
		return lab_is_not(why, text, what);
	return lab_string_keep(text, value, why);
}

static bool parse_interval(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	int64_t ms;

	if (!parse_duration(field, text, &ms, why))
		return false;
	return parse_traffic("delay", "a time with ms or s", text, value, why);
}

static bool parse_rate(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	(void)field;
	if (strspn(text, "0.KMG") == strlen(text)) {
		out_of_range(why, text);
		return false;
	}
	return parse_traffic("rate", "a rate in bits a second", text, value, why);
}

static bool parse_loss(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	(void)field;
	return parse_traffic("loss", "a percentage like 2%", text, value, why);
}

/* ---- the types ---- */

void lab_put_limit(const struct scalar_type *type, int64_t limit, struct strbuf *out)
{
	if (type == &scalar_size)
		put_size((uint64_t)limit, out);
	else
		put_duration(limit, out);
}

const struct scalar_type scalar_int = {
	.name = "number",
	.json_type = "integer string",
	.pattern = "0|[1-9][0-9]*",
	.size = sizeof(int),
	.parse = parse_int,
	.write = write_int,
};
const struct scalar_type scalar_percent = {
	.name = "percentage",
	.json_type = "string",
	.pattern = "[1-9][0-9]*%",
	.size = sizeof(int),
	.parse = parse_percent,
	.write = write_percent,
};
const struct scalar_type scalar_size = {
	.name = "size",
	.allowed = "a number with K, M, G or T",
	.json_type = "string integer",
	.pattern = "[0-9]+(\\.[0-9]+)?([KMGTkmgt](iB|B)?|B)?",
	.size = sizeof(uint64_t),
	.parse = parse_size,
	.write = write_size,
};
const struct scalar_type scalar_duration = {
	.name = "time",
	.allowed = "a number with ms, s, m, h or d",
	.json_type = "string number",
	.pattern = "[0-9]+(\\.[0-9]+)?(ms|s|m|min|h|d)?",
	.size = sizeof(int64_t),
	.parse = parse_duration,
	.write = write_duration,
};
const struct scalar_type scalar_interval = {
	.name = "time",
	.allowed = "a number with ms or s",
	.json_type = "string number",
	.pattern = "[0-9]+(\\.[0-9]+)?(ms|s)?",
	.parse = parse_interval,
	LAB_STRING_TYPE,
};
const struct scalar_type scalar_rate = {
	.name = "rate",
	.allowed = "bits a second, like 64K, 10M or 1G; at least 1K",
	.json_type = "string integer",
	.pattern = "[0-9]+(\\.[0-9]+)?[KMG]?",
	.parse = parse_rate,
	LAB_STRING_TYPE,
};
const struct scalar_type scalar_loss = {
	.name = "percentage",
	.allowed = "0% to 100%",
	.json_type = "string",
	.pattern = "[0-9]+(\\.[0-9]*)?%",
	.parse = parse_loss,
	LAB_STRING_TYPE,
};
