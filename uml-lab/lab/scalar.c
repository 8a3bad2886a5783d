/*
 * The types that single values have: how text becomes C and back, what is
 * allowed, and the pattern that JSON Schema gives editors.
 *
 * A value's type comes from its field and its text, never from what YAML would
 * make of it: `restart: no` is the word "no", `8080:80` is not a number to the
 * base 60, 010 is not eight. Quotes make no difference. Addresses, forwards and
 * the like are in scalar_net.c.
 */
#include <ctype.h>
#include <inttypes.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/lab/lab_internal.h"

#define LINE_MAX_BYTES  1024 /* of a one-line text */
#define REGEX_MAX_BYTES 512
#define REGEX_COST_MAX  1024 /* bytes times repetitions, which regcomp() unfolds: up to 10 ms, 6 MiB */

bool lab_is_not(struct strbuf *why, const char *text, const char *what)
{
	char quoted[LAB_QUOTE_MAX];

	strbuf_printf(why, "is %s, not %s", lab_quote(text, quoted), what);
	return false;
}

/* ---- texts: char * ---- */

bool lab_string_keep(const char *text, void *value, struct strbuf *why)
{
	char *copy = strdup(text);

	if (!copy) {
		strbuf_puts(why, "out of memory");
		return false;
	}
	*(char **)value = copy;
	return true;
}

void lab_string_write(const struct field *field, const void *value, struct strbuf *out)
{
	(void)field;
	strbuf_puts(out, *(char *const *)value);
}

void lab_string_release(void *value)
{
	free(*(char **)value);
	*(char **)value = NULL;
}

/* Whether text has control characters other than those in `but`; C1 ones and line separators included. */
static bool has_controls(const char *text, const char *but)
{
	size_t left = strlen(text);

	while (left) {
		uint32_t c = 0;
		size_t n = str_utf8_decode(text, left, &c);

		if (!n || (c < ' ' && !strchr(but, (int)c)) || (c >= 0x7f && c < 0xa0) || c == 0x2028 ||
		    c == 0x2029)
			return true;
		text += n;
		left -= n;
	}
	return false;
}

static bool parse_line(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	(void)field;
	if (!*text)
		strbuf_puts(why, "is empty");
	else if (strchr(text, '\n'))
		strbuf_puts(why, "has several lines");
	else if (has_controls(text, ""))
		strbuf_puts(why, "holds a control character");
	else if (strlen(text) > LINE_MAX_BYTES)
		strbuf_printf(why, "is %zu bytes long", strlen(text));
	else
		return lab_string_keep(text, value, why);
	return false;
}

static bool parse_text(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	(void)field;
	if (has_controls(text, "\n\t")) {
		strbuf_puts(why, "holds a control character");
		return false;
	}
	return lab_string_keep(text, value, why);
}

static bool parse_lab_name(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	(void)field;
	return str_is_name(text, LAB_NAME_MAX) ? lab_string_keep(text, value, why)
					       : lab_is_not(why, text, "a name");
}

static bool parse_param(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	return parse_text(field, text, value, why);
}

/* ---- choices ---- */

/* The index of text among "a|b|c", or -1. */
static int choice_index(const char *choices, const char *text)
{
	size_t length = strlen(text);

	for (int i = 0; *choices; i++) {
		size_t n = strcspn(choices, "|");

		if (n == length && memcmp(choices, text, n) == 0)
			return i;
		choices += n + (choices[n] == '|');
	}
	return -1;
}

static bool no_choice(const struct field *field, const char *text, struct strbuf *why)
{
	cleanup_strv struct strv words = STRV_INIT;
	char quoted[LAB_QUOTE_MAX];
	const char *nearest = NULL;

	strbuf_printf(why, "is %s", lab_quote(text, quoted));
	if (strv_split(&words, field->choices, '|', NULL) == 0)
		nearest = str_nearest(text, (const char *const *)words.items);
	if (nearest)
		strbuf_printf(why, "; did you mean %s?", nearest);
	return false;
}

static bool parse_choice(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	int index = choice_index(field->choices, text);

	if (index < 0)
		return no_choice(field, text, why);
	*(int *)value = index;
	return true;
}

static void write_choice_index(const char *choices, int index, struct strbuf *out)
{
	while (index-- > 0)
		choices += strcspn(choices, "|") + 1;
	strbuf_add(out, choices, strcspn(choices, "|"));
}

static void write_choice(const struct field *field, const void *value, struct strbuf *out)
{
	write_choice_index(field->choices, *(const int *)value, out);
}

static bool parse_word(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	if (choice_index(field->choices, text) < 0)
		return no_choice(field, text, why);
	return lab_string_keep(text, value, why);
}

/* A boolean is YAML 1.1's words in lower case, or the two words of the field ("ro|rw": false, true). */
static bool parse_bool(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	int index = choice_index(field->choices ? field->choices : "false|true|no|yes|off|on", text);

	if (index < 0)
		return field->choices ? no_choice(field, text, why) : lab_is_not(why, text, "true or false");
	*(bool *)value = index % 2;
	return true;
}

static void write_bool(const struct field *field, const void *value, struct strbuf *out)
{
	write_choice_index(field->choices ? field->choices : "false|true", *(const bool *)value, out);
}

/* ---- regular expressions ---- */

/*
 * An upper bound of how often regcomp() unfolds a part of the pattern: the
 * product of its {m,n} counts. glibc builds the unfolded pattern in memory,
 * so ((a{255}){255}){255} would take it all.
 */
static uint64_t repetitions(const char *pattern)
{
	uint64_t product = 1;

	while ((pattern = strchr(pattern, '{'))) {
		uint64_t most = 1;

		for (pattern++; isdigit((unsigned char)*pattern) || *pattern == ','; pattern++) {
			char *end;
			uint64_t n = *pattern == ',' ? 1 : strtoull(pattern, &end, 10);

			if (*pattern != ',')
				pattern = end - 1;
			most = n > most ? n : most;
		}
		if (most > REGEX_COST_MAX || (product *= most) > REGEX_COST_MAX)
			return REGEX_COST_MAX + 1;
	}
	return product;
}

static bool parse_regex(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	regex_t regex;
	char reason[128];
	int status;

	(void)field;
	if (!*text || strlen(text) > REGEX_MAX_BYTES || repetitions(text) * strlen(text) > REGEX_COST_MAX) {
		strbuf_puts(why, *text ? "is too large a regular expression" : "is empty");
		return false;
	}
	if (has_controls(text, "\n\t"))
		return lab_is_not(why, text, "a regular expression");
	status = regcomp(&regex, text, REG_EXTENDED | REG_NOSUB | REG_NEWLINE);
	if (status) {
		regerror(status, &regex, reason, sizeof(reason));
		lab_is_not(why, text, "a regular expression: ");
		strbuf_puts(why, reason);
		return false;
	}
	regfree(&regex);
	return lab_string_keep(text, value, why);
}

/* ---- words with a form of their own ---- */

static bool parse_image(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	if (strchr(text, '/'))
		return parse_line(field, text, value, why);
	return str_is_name(text, 64) ? lab_string_keep(text, value, why)
				     : lab_is_not(why, text, "an image's name or a path");
}

/* "6.12", "6.12.101": two or three numbers. */
static bool is_version(const char *text)
{
	int dots = 0;

	for (; isdigit((unsigned char)*text); text++) {
		text += strspn(text, "0123456789");
		if (!*text)
			return dots == 1 || dots == 2;
		if (*text != '.')
			return false;
		dots++;
	}
	return false;
}

static bool parse_kernel(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	if (strchr(text, '/'))
		return parse_line(field, text, value, why);
	if (!str_eq(text, "auto") && (!is_version(text) || strlen(text) > 20))
		return lab_is_not(why, text, "a kernel");
	return lab_string_keep(text, value, why);
}

/* Whether text is a user or group number that chown() takes (-1 means "leave alone" there). */
static bool is_id(const char *text, size_t length)
{
	char digits[12];
	int64_t id;

	if (length >= sizeof(digits))
		return false;
	memcpy(digits, text, length);
	digits[length] = '\0';
	return digits[0] != '-' && str_to_i64(digits, 0, UINT32_MAX - 1, &id) == 0;
}

static bool parse_owner(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	const char *colon = strchr(text, ':');

	(void)field;
	if (!str_eq(text, "root") && !str_eq(text, "host") &&
	    !(colon && is_id(text, (size_t)(colon - text)) && is_id(colon + 1, strlen(colon + 1))))
		return lab_is_not(why, text, "an owner");
	return lab_string_keep(text, value, why);
}

/* ---- what is allowed, in words ---- */

static void put_choices(const char *choices, struct strbuf *out)
{
	for (const char *c = choices; *c; c++)
		if (*c == '|')
			strbuf_puts(out, ", ");
		else
			strbuf_putc(out, *c);
}

void lab_field_allowed(const struct field *field, struct strbuf *out)
{
	const struct scalar_type *type = field->type;

	if (field->choices) {
		put_choices(field->choices, out);
		return;
	}
	if (type->allowed)
		strbuf_puts(out, type->allowed);
	if (!field->min && !field->max)
		return;
	if (type->allowed)
		strbuf_puts(out, ", ");
	if (type->size == sizeof(int)) {
		const char *unit = type == &scalar_percent ? "%" : "";

		strbuf_printf(out, "%" PRId64 "%s to %" PRId64 "%s", field->min, unit, field->max, unit);
		return;
	}
	lab_put_limit(type, field->min, out);
	strbuf_puts(out, " to ");
	lab_put_limit(type, field->max, out);
}

/* ---- the types ---- */

const struct scalar_type scalar_line = {
	.name = "text",
	.allowed = "one line of text",
	.json_type = "string number boolean",
	.parse = parse_line,
	LAB_STRING_TYPE,
};
const struct scalar_type scalar_text = {
	.name = "lines",
	.allowed = "text, also of several lines",
	.json_type = "string number boolean",
	.parse = parse_text,
	LAB_STRING_TYPE,
};
const struct scalar_type scalar_param = {
	.name = "text",
	.allowed = "text",
	.json_type = "string number boolean",
	.parse = parse_param,
	LAB_STRING_TYPE,
};
const struct scalar_type scalar_lab_name = {
	.name = "name",
	.allowed = "1 to 31 of a-z, 0-9 and -, not beginning with -",
	.json_type = "string integer",
	.pattern = "[a-z0-9][a-z0-9-]{0,30}",
	.parse = parse_lab_name,
	LAB_STRING_TYPE,
};
const struct scalar_type scalar_bool = {
	.name = "true or false",
	.allowed = "true, false (also yes, no, on, off)",
	.json_type = "boolean string",
	.pattern = "true|false|yes|no|on|off",
	.size = sizeof(bool),
	.parse = parse_bool,
	.write = write_bool,
};
const struct scalar_type scalar_choice = {
	.name = "choice",
	.json_type = "string boolean",
	.size = sizeof(int),
	.parse = parse_choice,
	.write = write_choice,
};
const struct scalar_type scalar_word = {
	.name = "choice",
	.json_type = "string",
	.parse = parse_word,
	LAB_STRING_TYPE,
};
const struct scalar_type scalar_regex = {
	.name = "regular expression",
	.allowed = "a POSIX extended regular expression of at most 512 bytes",
	.json_type = "string number boolean",
	.parse = parse_regex,
	LAB_STRING_TYPE,
};
const struct scalar_type scalar_image = {
	.name = "image",
	.allowed = "an image's name (a-z, 0-9, -), or a path with a slash (./base.img)",
	.json_type = "string",
	.pattern = "[a-z0-9][a-z0-9-]{0,63}|.*/.*",
	.parse = parse_image,
	LAB_STRING_TYPE,
};
const struct scalar_type scalar_kernel = {
	.name = "kernel",
	.allowed = "auto, a version like 6.12, or a path with a slash",
	.json_type = "string number",
	.pattern = "auto|[0-9]+(\\.[0-9]+){1,2}|.*/.*",
	.parse = parse_kernel,
	LAB_STRING_TYPE,
};
const struct scalar_type scalar_owner = {
	.name = "owner",
	.allowed = "root, host, or numbers UID:GID",
	.json_type = "string",
	.pattern = "root|host|[0-9]+:[0-9]+",
	.parse = parse_owner,
	LAB_STRING_TYPE,
};
