/*
 * A struct lab as YAML again, guided by the table: what was filled in from
 * parameters and defaults is written out, so that the text means the same to a
 * later version with other defaults. What is not there (no title, no limits) and
 * booleans that are false are left out.
 *
 * The text also reads right for other YAML readers: whatever YAML 1.1 would
 * take for a number or a boolean but is a text here is quoted. Scripts become
 * literal blocks where YAML can carry them unchanged. Braces that look like a
 * parameter are written \{{.
 */
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/lab/lab_internal.h"

#define INDENT 2

static void put_indent(struct strbuf *out, int indent)
{
	while (indent-- > 0)
		strbuf_putc(out, ' ');
}

static bool is_reserved(const char *text)
{
	static const char *const words[] = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (strcasecmp(text, words[i]) == 0)
			return true;
	return false;
}

/* Whether every YAML reader takes the bare text for the same. value: it is a number, a size and the like. */
static bool may_be_plain(const char *text, bool value)
{
	static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./%-";

	if (!*text || strspn(text, safe) != strlen(text))
		return false;
	return isalpha((unsigned char)*text) ? !is_reserved(text)
					     : *text == '/' || (value && isdigit((unsigned char)*text));
}

/* Whether a literal block ("|") carries the text unchanged. */
static bool may_be_literal(const char *text)
{
	size_t length = strlen(text), left = length;

	if (!strchr(text, '\n') || *text == ' ' || *text == '\n' || *text == '\t' ||
	    (length > 1 && str_ends(text, "\n\n")))
		return false;
	while (left) {
		uint32_t c = 0;
		size_t n = str_utf8_decode(text, left, &c);

		if (!n || (c < ' ' && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0) || c == 0x2028 ||
		    c == 0x2029 || c == 0xfeff || c == 0xfffe || c == 0xffff)
			return false;
		text += n;
		left -= n;
	}
	return true;
}

static void put_literal(struct strbuf *out, const char *text, int indent)
{
	strbuf_puts(out, str_ends(text, "\n") ? "|\n" : "|-\n");
	while (*text) {
		size_t n = strcspn(text, "\n");

		if (n)
			put_indent(out, indent);
		strbuf_add(out, text, n);
		strbuf_putc(out, '\n');
		text += n + (text[n] == '\n');
	}
}

static void put_quoted(struct strbuf *out, const char *text)
{
	size_t left = strlen(text);

	strbuf_putc(out, '"');
	while (left) {
		uint32_t c = 0;
		size_t n = str_utf8_decode(text, left, &c);

		if (c == '"' || c == '\\')
			strbuf_printf(out, "\\%c", (int)c);
		else if (c == '\n')
			strbuf_puts(out, "\\n");
		else if (c == '\t')
			strbuf_puts(out, "\\t");
		else if (!n || c < ' ' || (c >= 0x7f && c <= 0xa0) || c == 0x2028 || c == 0x2029 ||
			 c == 0xfeff || c == 0xfffe || c == 0xffff)
			strbuf_printf(out, "\\u%04x", n ? c : 0xfffdu);
		else
			strbuf_add(out, text, n);
		text += n ? n : 1;
		left -= n ? n : 1;
	}
	strbuf_putc(out, '"');
}

/* Ends with a newline. indent: of the lines of a block. */
static void put_text(struct strbuf *out, const char *text, bool value, int indent)
{
	cleanup_strbuf struct strbuf escaped = STRBUF_INIT;

	for (; *text; text++) {
		if (str_starts(text, "{{")) {
			strbuf_puts(&escaped, "\\{{");
			text++;
		} else {
			strbuf_putc(&escaped, *text);
		}
	}
	text = escaped.data ? escaped.data : "";
	out->failed = out->failed || escaped.failed;
	if (may_be_literal(text)) {
		put_literal(out, text, indent);
		return;
	}
	if (may_be_plain(text, value))
		strbuf_puts(out, text);
	else
		put_quoted(out, text);
	strbuf_putc(out, '\n');
}

static void put_key(struct strbuf *out, const char *key, int indent)
{
	put_indent(out, indent);
	if (may_be_plain(key, false))
		strbuf_puts(out, key);
	else
		put_quoted(out, key);
	strbuf_putc(out, ':');
}

/* The text of a scalar after "key: " or "- ". */
static void put_scalar(struct strbuf *out, const struct field *field, const void *value, int indent)
{
	cleanup_strbuf struct strbuf text = STRBUF_INIT;

	field->type->write(field, value, &text);
	out->failed = out->failed || text.failed;
	if (field->type == &scalar_bool) {
		strbuf_printf(out, "%s\n", text.data ? text.data : "");
		return;
	}
	put_text(out, text.data ? text.data : "", !field->type->release, indent);
}

/* Whether a scalar is not there at all. */
static bool is_absent(const struct field *field, const char *value)
{
	for (size_t i = 0; i < field->type->size; i++)
		if (value[i])
			return false;
	return !field->fallback || (field->type == &scalar_bool && !field->choices);
}

static void put_object(struct strbuf *out, const struct object *object, const char *value, int indent);

/* What stands below "key:" of a list or map. */
static void put_elements(struct strbuf *out, const struct field *field, const char *items, size_t count,
			 int indent)
{
	const struct object *object = field->object;
	size_t size = lab_element_size(field);

	for (size_t i = 0; i < count; i++) {
		const char *element = items + i * size;
		size_t start = out->length, before;

		if (field->kind == FIELD_MAP)
			put_key(out, *(char *const *)(element + object->name_offset), indent);
		if (!object || object->scalar) {
			if (!object)
				put_indent(out, indent);
			strbuf_puts(out, object ? " " : "- ");
			put_scalar(out, object ? object->scalar : field,
				   element + (object ? object->scalar->offset : 0), indent + INDENT);
			continue;
		}
		if (field->kind == FIELD_MAP)
			strbuf_putc(out, '\n');
		before = out->length;
		put_object(out, object, element, indent + INDENT);
		if (out->failed)
			return;
		if (field->kind == FIELD_LIST)
			out->data[start + (size_t)indent] = '-'; /* before its first key */
		else if (out->length == before)
			out->length--, strbuf_puts(out, " {}\n");
	}
}

static void put_field(struct strbuf *out, const struct field *field, const char *value, int indent)
{
	size_t start = out->length, before, count;

	switch (field->kind) {
	case FIELD_SCALAR:
		if (is_absent(field, value + field->offset))
			return;
		put_key(out, field->key, indent);
		strbuf_putc(out, ' ');
		put_scalar(out, field, value + field->offset, indent + INDENT);
		return;
	case FIELD_OBJECT:
		put_key(out, field->key, indent);
		strbuf_putc(out, '\n');
		before = out->length;
		put_object(out, field->object, value + field->offset, indent + INDENT);
		if (out->length == before && !out->failed)
			out->data[out->length = start] = '\0'; /* holds nothing */
		return;
	case FIELD_LIST:
	case FIELD_MAP:
		count = *(const size_t *)(value + field->count_offset);
		if (!count)
			return;
		put_key(out, field->key, indent);
		strbuf_putc(out, '\n');
		put_elements(out, field, *(char *const *)(value + field->offset), count, indent + INDENT);
		return;
	}
}

static void put_object(struct strbuf *out, const struct object *object, const char *value, int indent)
{
	for (const struct field *field = object->fields; field->key; field++)
		put_field(out, field, value, indent);
}

int lab_write_effective(const struct lab *lab, struct strbuf *out, struct error *err)
{
	put_object(out, &lab_schema, (const char *)lab, 0);
	return strbuf_check(out, err);
}
