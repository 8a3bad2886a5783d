#include "uml-lab/base/str.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "uml-lab/base/cleanup.h"

/* ---- growing buffers ---- */

void strbuf_free(struct strbuf *b)
{
	int saved = errno;

	free(b->data);
	*b = (struct strbuf)STRBUF_INIT;
	errno = saved;
}

/* Makes room for `more` bytes and the NUL. */
static bool reserve(struct strbuf *b, size_t more)
{
	size_t size = b->size ? b->size : 64;
	char *data;

	if (b->failed)
		return false;
	if (more >= SIZE_MAX / 2 - b->length) {
		b->failed = true;
		return false;
	}
	if (b->length + more < b->size)
		return true;
	while (size <= b->length + more)
		size *= 2;
	data = realloc(b->data, size);
	if (!data) {
		b->failed = true;
		return false;
	}
	b->data = data;
	b->size = size;
	return true;
}

void strbuf_add(struct strbuf *b, const void *data, size_t length)
{
	if (!reserve(b, length))
		return;
	if (length)
		memcpy(b->data + b->length, data, length);
	b->length += length;
	b->data[b->length] = '\0';
}

void strbuf_puts(struct strbuf *b, const char *s)
{
	strbuf_add(b, s, strlen(s));
}

void strbuf_putc(struct strbuf *b, char c)
{
	strbuf_add(b, &c, 1);
}

void strbuf_vprintf(struct strbuf *b, const char *fmt, va_list ap)
{
	va_list again;
	int n;

	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, again);
	va_end(again);
	if (n < 0) {
		b->failed = true;
		return;
	}
	if (!reserve(b, (size_t)n))
		return;
	vsnprintf(b->data + b->length, (size_t)n + 1, fmt, ap);
	b->length += (size_t)n;
}

void strbuf_printf(struct strbuf *b, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	strbuf_vprintf(b, fmt, ap);
	va_end(ap);
}

void strbuf_consume(struct strbuf *b, size_t n)
{
	if (n > b->length)
		n = b->length;
	if (!n)
		return;
	memmove(b->data, b->data + n, b->length - n);
	b->length -= n;
	b->data[b->length] = '\0';
}

int strbuf_check(const struct strbuf *b, struct error *err)
{
	return b->failed ? error_oom(err) : 0;
}

char *strbuf_steal(struct strbuf *b, struct error *err)
{
	char *data;

	if (!b->data)
		strbuf_add(b, "", 0);
	if (strbuf_check(b, err) < 0) {
		strbuf_free(b);
		return NULL;
	}
	data = b->data;
	*b = (struct strbuf)STRBUF_INIT;
	return data;
}

/* ---- vectors of strings ---- */

void strv_free(struct strv *v)
{
	int saved = errno;

	for (size_t i = 0; i < v->count; i++)
		free(v->items[i]);
	free(v->items);
	*v = (struct strv)STRV_INIT;
	errno = saved;
}

/* Takes ownership of s, also on failure. */
static int strv_take(struct strv *v, char *s, struct error *err)
{
	char **items;

	if (!s)
		return error_oom(err);
	items = realloc(v->items, (v->count + 2) * sizeof(*items));
	if (!items) {
		free(s);
		return error_oom(err);
	}
	v->items = items;
	v->items[v->count++] = s;
	v->items[v->count] = NULL;
	return 0;
}

int strv_add(struct strv *v, const char *s, struct error *err)
{
	return strv_take(v, strdup(s), err);
}

int strv_addf(struct strv *v, struct error *err, const char *fmt, ...)
{
	va_list ap;
	char *s;

	va_start(ap, fmt);
	s = str_vprintf(fmt, ap);
	va_end(ap);
	return strv_take(v, s, err);
}

int strv_split(struct strv *v, const char *s, char separator, struct error *err)
{
	for (;;) {
		const char *end = strchrnul(s, separator);

		if (strv_take(v, strndup(s, (size_t)(end - s)), err) < 0)
			return -1;
		if (!*end)
			return 0;
		s = end + 1;
	}
}

/* ---- single strings ---- */

char *str_vprintf(const char *fmt, va_list ap)
{
	char *s;

	return vasprintf(&s, fmt, ap) < 0 ? NULL : s;
}

char *str_printf(struct error *err, const char *fmt, ...)
{
	va_list ap;
	char *s;

	va_start(ap, fmt);
	s = str_vprintf(fmt, ap);
	va_end(ap);
	if (!s)
		error_oom(err);
	return s;
}

char *str_dup(const char *s, struct error *err)
{
	char *copy = strdup(s);

	if (!copy)
		error_oom(err);
	return copy;
}

bool str_eq(const char *a, const char *b)
{
	if (!a || !b)
		return a == b;
	return strcmp(a, b) == 0;
}

bool str_starts(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *s, const char *suffix)
{
	size_t n = strlen(s), m = strlen(suffix);

	return n >= m && strcmp(s + n - m, suffix) == 0;
}

bool str_is_name(const char *s, size_t max)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
	size_t n = strlen(s);

	return n >= 1 && n <= max && s[0] != '-' && strspn(s, letters) == n;
}

int str_to_i64(const char *s, int64_t min, int64_t max, int64_t *out)
{
	char *end;
	long long value;

	if (!isdigit((unsigned char)*s) && !(*s == '-' && isdigit((unsigned char)s[1])))
		return -1;
	errno = 0;
	value = strtoll(s, &end, 10);
	if (errno || *end || value < min || value > max)
		return -1;
	*out = value;
	return 0;
}

/* Splits "12abc" or "1.5abc" into a number and its unit; -1 when there is no number. */
static int number_and_unit(const char *s, double *number, const char **unit)
{
	char digits[32];
	size_t n = strspn(s, "0123456789.");

	if (!isdigit((unsigned char)*s) || n >= sizeof(digits))
		return -1;
	memcpy(digits, s, n);
	digits[n] = '\0';
	if (strchr(digits, '.') != strrchr(digits, '.'))
		return -1;
	*number = strtod(digits, NULL);
	*unit = s + n;
	return 0;
}

int str_to_size(const char *s, uint64_t *out)
{
	static const char letters[] = "KMGT";
	const char *unit, *letter;
	double number, factor = 1;

	if (number_and_unit(s, &number, &unit) < 0)
		return -1;
	if (*unit && (letter = strchr(letters, toupper((unsigned char)*unit)))) {
		factor = (double)(1ull << (10 * (letter - letters + 1)));
		unit++;
		if (strcmp(unit, "iB") == 0)
			unit += 2;
	}
	if (*unit == 'B')
		unit++;
	if (*unit || number * factor >= 9.2e18)
		return -1;
	*out = (uint64_t)(number * factor);
	return 0;
}

int str_to_duration_ms(const char *s, int64_t *out)
{
	static const struct {
		const char *unit;
		double ms;
	} units[] = {{"", 1e3}, {"ms", 1}, {"s", 1e3}, {"m", 6e4}, {"min", 6e4}, {"h", 3.6e6}, {"d", 8.64e7}};
	const char *unit;
	double number;

	if (number_and_unit(s, &number, &unit) < 0)
		return -1;
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (strcmp(unit, units[i].unit) != 0)
			continue;
		if (number * units[i].ms > 9e15)
			return -1;
		*out = (int64_t)(number * units[i].ms);
		return 0;
	}
	return -1;
}

char *str_human_size(uint64_t bytes, char *buf, size_t size)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1023.5 && unit + 1 < ARRAY_SIZE(units)) {
		value /= 1024;
		unit++;
	}
	snprintf(buf, size, value < 9.95 && unit > 0 ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return buf;
}

size_t str_utf8_decode(const char *text, size_t length, uint32_t *character)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800,
					 0x10000}; /* RFC 3629 section 3: no overlong forms */
	const unsigned char *s = (const unsigned char *)text;
	size_t n = s[0] < 0x80 ? 1 : (s[0] >> 5) == 6 ? 2 : (s[0] >> 4) == 14 ? 3 : (s[0] >> 3) == 30 ? 4 : 0;
	uint32_t c;

	if (!n || n > length)
		return 0;
	c = n == 1 ? s[0] : s[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return 0;
	*character = c;
	return n;
}

/* Whether a character of n bytes, 0 for what is none, may be shown as it is. */
static bool is_clean(uint32_t c, size_t n)
{
	return n && (c >= ' ' || c == '\n' || c == '\t') && (c < 0x7f || c >= 0xa0) && c != 0xfffe && c != 0xffff;
}

void str_clean_chars(char *text)
{
	size_t length = strlen(text), out = 0, n;

	for (size_t i = 0; i < length; i += n ?: 1) {
		uint32_t c = 0;

		n = str_utf8_decode(text + i, length - i, &c);
		if (is_clean(c, n))
			memmove(text + out, text + i, n);
		else
			text[out] = '?';
		out += is_clean(c, n) ? n : 1;
	}
	text[out] = '\0';
}

void str_clean(struct strbuf *text)
{
	cleanup_strbuf struct strbuf clean = STRBUF_INIT;
	size_t n;

	for (size_t i = 0; i < text->length; i += n ?: 1) {
		uint32_t c = 0;

		n = str_utf8_decode(text->data + i, text->length - i, &c);
		if (c == '\r' && i + 1 < text->length && text->data[i + 1] == '\n')
			continue;
		if (is_clean(c, n))
			strbuf_add(&clean, text->data + i, n);
		else
			strbuf_putc(&clean, '?');
	}
	clean.failed |= text->failed;
	struct strbuf old = *text;
	*text = clean;
	clean = old;
}

/* Damerau-Levenshtein distance (adjacent transpositions count one), words cut at 63 characters. */
static size_t edit_distance(const char *a, const char *b)
{
	size_t n = strnlen(a, 63), m = strnlen(b, 63);
	size_t rows[3][64];

	for (size_t j = 0; j <= m; j++)
		rows[0][j] = j;
	for (size_t i = 1; i <= n; i++) {
		size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];

		row[0] = i;
		for (size_t j = 1; j <= m; j++) {
			size_t best = above[j - 1] + (a[i - 1] != b[j - 1]);

			if (above[j] + 1 < best)
				best = above[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    above2[j - 2] + 1 < best)
				best = above2[j - 2] + 1;
			row[j] = best;
		}
	}
	return rows[n % 3][m];
}

const char *str_nearest(const char *word, const char *const *candidates)
{
	const char *nearest = NULL;
	size_t limit = strlen(word) / 3 + 1, best = limit + 1;

	for (; *candidates; candidates++) {
		size_t distance = edit_distance(word, *candidates);

		if (distance < best) {
			best = distance;
			nearest = *candidates;
		}
	}
	return nearest;
}
