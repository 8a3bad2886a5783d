/*
 * The table of lab.yml for others: as JSON Schema (draft 2020-12), by which
 * editors complete and underline, and as the reference page.
 *
 * The schema is as strict as a schema can be and never stricter than the
 * loader: where the loader takes text, a value may be whatever type a YAML
 * reader makes of it, and every pattern also admits a {{parameter}}. What holds
 * between fields (references, duplicates) is left to `uml-lab validate`.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/lab/lab_internal.h"

#define NAME_PATTERN  "^[a-z0-9]([a-z0-9-]{0,29}[a-z0-9])?$"
#define PARAM_PATTERN "^[a-zA-Z][a-zA-Z0-9_-]{0,31}$"

static void decref(json_t **json)
{
	json_decref(*json);
}

/* "a b" as ["a", "b"], or "a" alone; with "null" at the end when it may be. */
static json_t *json_types(const char *types, bool null)
{
	json_t *list = json_array();

	while (*types) {
		size_t n = strcspn(types, " ");

		json_array_append_new(list, json_stringn(types, n));
		types += n + (types[n] == ' ');
	}
	if (null)
		json_array_append_new(list, json_string("null"));
	if (json_array_size(list) == 1) {
		json_t *only = json_incref(json_array_get(list, 0));

		json_decref(list);
		return only;
	}
	return list;
}

/* The pattern of a field's text, with parameters admitted; NULL when any text will do. */
static json_t *json_pattern(const struct field *field)
{
	const char *pattern = field->choices ? field->choices : field->type->pattern;

	if (!pattern)
		return NULL;
	return json_sprintf(field->flags & FIELD_NO_PARAMS ? "^(%s)$" : "^(%s)$|\\{\\{", pattern);
}

static json_t *json_scalar(const struct field *field)
{
	const struct scalar_type *type = field->type;
	json_t *schema = json_object(), *pattern = json_pattern(field);

	json_object_set_new(schema, "type", json_types(type->json_type, false));
	if (pattern)
		json_object_set_new(schema, "pattern", pattern);
	if (type == &scalar_int) {
		json_object_set_new(schema, "minimum", json_integer(field->min));
		json_object_set_new(schema, "maximum", json_integer(field->max));
	}
	return schema;
}

static json_t *json_reference(const struct object *object)
{
	return json_pack("{s:o}", "$ref", json_sprintf("#/$defs/%s", object->name));
}

static json_t *json_list(const struct field *field)
{
	json_t *item = field->object ? json_reference(field->object) : json_scalar(field);
	json_t *list = json_pack("{s:o, s:O, s:I}", "type", json_types("array", true), "items", item,
				 "maxItems", (json_int_t)field->max_count);

	if (field->object) {
		json_decref(item);
		return list;
	}
	return json_pack("{s:[o, o]}", "anyOf", item, list); /* one alone will do */
}

static json_t *json_map(const struct field *field)
{
	const struct object *object = field->object;
	json_t *item = object->scalar ? json_scalar(object->scalar) : json_reference(object);

	return json_pack("{s:o, s:o, s:{s:s}, s:I}", "type",
			 json_types("object", !(field->flags & FIELD_REQUIRED)), "additionalProperties", item,
			 "propertyNames", "pattern", object->scalar ? PARAM_PATTERN : NAME_PATTERN,
			 "maxProperties", (json_int_t)field->max_count);
}

static void describe_field(const struct field *field, json_t *schema)
{
	cleanup_strbuf struct strbuf allowed = STRBUF_INIT, text = STRBUF_INIT;

	if (field->type)
		lab_field_allowed(field, &allowed);
	strbuf_puts(&text, field->help);
	if (allowed.length)
		strbuf_printf(&text, " Allowed: %s.", allowed.data);
	if (text.data)
		json_object_set_new(schema, "description", json_string(text.data));
	if (field->fallback)
		json_object_set_new(schema, "default", json_string(field->fallback));
}

static json_t *json_field(const struct field *field)
{
	json_t *schema = field->kind == FIELD_SCALAR   ? json_scalar(field)
			 : field->kind == FIELD_OBJECT ? json_reference(field->object)
			 : field->kind == FIELD_LIST   ? json_list(field)
						       : json_map(field);

	describe_field(field, schema);
	return schema;
}

/* Fills schema with the fields of an object, and defs with those of the objects below. */
static void json_fields(const struct object *object, json_t *schema, json_t *defs)
{
	json_t *properties = json_object(), *required = json_array();

	for (const struct field *field = object->fields; field->key; field++) {
		json_object_set_new(properties, field->key, json_field(field));
		if (field->flags & FIELD_REQUIRED)
			json_array_append_new(required, json_string(field->key));
		if (field->object && !field->object->scalar && !json_object_get(defs, field->object->name)) {
			json_t *below = json_object();

			json_object_set(defs, field->object->name, below);
			json_fields(field->object, below, defs);
			json_decref(below);
		}
	}
	json_object_set_new(schema, "description", json_string(object->help));
	json_object_set_new(schema, "type", json_types("object", !json_array_size(required)));
	json_object_set_new(schema, "properties", properties);
	if (json_array_size(required))
		json_object_set(schema, "required", required);
	json_decref(required);
	json_object_set_new(schema, "additionalProperties", json_false());
}

int lab_write_json_schema(FILE *out, struct error *err)
{
	cleanup_with(decref) json_t *schema = json_object(), *defs = json_object();

	json_object_set_new(schema, "$schema", json_string("https://json-schema.org/draft/2020-12/schema"));
	json_object_set_new(schema, "title", json_string("lab.yml of uml-lab"));
	json_fields(&lab_schema, schema, defs);
	json_object_set(schema, "$defs", defs);
	if (json_dumpf(schema, out, JSON_INDENT(2)) < 0 || fputc('\n', out) == EOF || fflush(out))
		return error_errno(err, errno, "cannot write the JSON Schema");
	return 0;
}

/* ---- the reference page ---- */

/* Text in a table cell: bars would end it. */
static void put_cell(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '|')
			fputc('\\', out);
		fputc(*text, out);
	}
}

static const char *kind_of(const struct field *field)
{
	switch (field->kind) {
	case FIELD_SCALAR:
		return field->type->name;
	case FIELD_OBJECT:
		return "keys";
	case FIELD_LIST:
		return field->object ? "list" : "one or a list";
	case FIELD_MAP:
		return "by name";
	}
	return "";
}

static void write_row(const struct field *field, FILE *out)
{
	cleanup_strbuf struct strbuf allowed = STRBUF_INIT;

	if (field->type)
		lab_field_allowed(field, &allowed);
	fprintf(out, "| `%s` | ", field->key);
	put_cell(out, kind_of(field));
	if (field->kind == FIELD_LIST && field->type) {
		fputs(": ", out);
		put_cell(out, field->type->name);
	}
	if (field->object)
		fprintf(out, ", see [%s](#%s)", field->object->name, field->object->name);
	fprintf(out, " | %s%s%s | ", field->fallback ? "`" : "",
		field->flags & FIELD_REQUIRED ? "required"
		: field->fallback             ? field->fallback
					      : "",
		field->fallback ? "`" : "");
	put_cell(out, field->help);
	if (allowed.length) {
		fputs(" Allowed: ", out);
		put_cell(out, allowed.data);
		fputc('.', out);
	}
	if (field->example && !field->fallback) {
		fputs(" Example: `", out);
		put_cell(out, field->example);
		fputc('`', out);
	}
	fputs(" |\n", out);
}

static void write_section(const struct object *object, FILE *out)
{
	fprintf(out, "\n## %s\n\n%s\n", object->name, object->help);
	if (object->fields) {
		fputs("\n| key | value | default | meaning |\n|---|---|---|---|\n", out);
		for (const struct field *field = object->fields; field->key; field++)
			write_row(field, out);
	}
	for (const struct field *field = object->fields; field && field->key; field++)
		if (field->object)
			write_section(field->object, out);
}

int lab_write_reference(FILE *out, struct error *err)
{
	fputs("# lab.yml\n\nEvery key of a lab description. Values are read by what their key expects, never "
	      "by how they look: quotes\n"
	      "make no difference, `8080:80` and `no` need none. Only a text that begins with one of `{ [ * "
	      "& ! % @ |` or `>`, or holds\n"
	      "`: ` or ` #`, must be quoted, as YAML wants it.\n",
	      out);
	write_section(&lab_schema, out);
	if (fflush(out) || ferror(out))
		return error_errno(err, errno, "cannot write the reference");
	return 0;
}
