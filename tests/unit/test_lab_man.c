/*
 * The fields in uml-lab-lab(5) are those of the table, word for word. The part
 * of the page between the markers is rendered here and compared; with
 * UML_LAB_UPDATE=1 it is written into the page instead, which is how to change it.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/unit.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/lab/lab_internal.h"

#define PAGE  "uml-lab/lab/uml-lab-lab.5"
#define BEGIN ".\\\" fields: begin (from the table; UML_LAB_UPDATE=1 test_lab_man writes them)\n"
#define END   ".\\\" fields: end\n"

/* Text as roff: backslashes, hyphens and a dot or quote at the start of a line would mean something. */
static void put_roff(struct strbuf *out, const char *text)
{
	if (*text == '.' || *text == '\'')
		strbuf_puts(out, "\\&");
	for (; *text; text++) {
		if (*text == '\\')
			strbuf_puts(out, "\\e");
		else if (*text == '-')
			strbuf_puts(out, "\\-");
		else if (str_starts(text, "…"))
			strbuf_puts(out, "..."), text += strlen("…") - 1;
		else
			strbuf_putc(out, *text);
	}
}

static void put_kind(struct strbuf *out, const struct field *field)
{
	if (field->kind == FIELD_LIST && field->type)
		strbuf_printf(out, "%s, or a list", field->type->name);
	else if (field->kind == FIELD_SCALAR)
		strbuf_puts(out, field->type->name);
	else
		strbuf_printf(out,
			      field->kind == FIELD_OBJECT ? "%s"
			      : field->kind == FIELD_LIST ? "list of %s"
							  : "%s by name",
			      field->object->name);
	if (field->flags & FIELD_REQUIRED)
		strbuf_puts(out, "; required");
	if (field->fallback)
		strbuf_printf(out, "; default %s", field->fallback);
}

static void put_field(struct strbuf *out, const struct field *field)
{
	cleanup_strbuf struct strbuf kind = STRBUF_INIT, allowed = STRBUF_INIT;

	put_kind(&kind, field);
	strbuf_printf(out, ".TP\n.BR %s \" (", field->key);
	put_roff(out, kind.data);
	strbuf_puts(out, ")\"\n");
	put_roff(out, field->help);
	if (field->type)
		lab_field_allowed(field, &allowed);
	if (allowed.length) {
		strbuf_puts(out, "\nAllowed: ");
		put_roff(out, allowed.data);
		strbuf_putc(out, '.');
	}
	if (field->example && !field->fallback) {
		strbuf_puts(out, "\nExample: ");
		put_roff(out, field->example);
	}
	strbuf_putc(out, '\n');
}

static void put_object(struct strbuf *out, const struct object *object)
{
	strbuf_printf(out, ".SS %s\n", object->name);
	put_roff(out, object->help);
	strbuf_putc(out, '\n');
	for (const struct field *field = object->fields; field && field->key; field++)
		put_field(out, field);
	for (const struct field *field = object->fields; field && field->key; field++)
		if (field->object)
			put_object(out, field->object);
}

static void test_fields(void)
{
	const char *source = getenv("UML_LAB_SOURCE");
	cleanup_free char *path = file_join(NULL, source ? source : ".", PAGE), *page = NULL;
	cleanup_strbuf struct strbuf fields = STRBUF_INIT, fresh = STRBUF_INIT;
	struct error err = ERROR_INIT;
	char *begin, *end;

	CU_ASSERT_EQUAL_FATAL(file_read_all(path, 1 << 20, &page, NULL, &err), 0);
	begin = strstr(page, BEGIN);
	end = strstr(page, END);
	CU_ASSERT_FATAL(begin && end && begin < end);
	begin += strlen(BEGIN);
	put_object(&fields, &lab_schema);
	if (getenv("UML_LAB_UPDATE")) {
		strbuf_add(&fresh, page, (size_t)(begin - page));
		strbuf_puts(&fresh, fields.data);
		strbuf_puts(&fresh, end);
		CU_ASSERT_EQUAL(file_write_atomic(path, fresh.data, fresh.length, 0644, &err), 0);
		return;
	}
	CU_ASSERT_EQUAL((size_t)(end - begin), fields.length);
	CU_ASSERT(strncmp(begin, fields.data, fields.length) == 0);
}

UNIT_MAIN("lab-man", UNIT_CASE(test_fields))
