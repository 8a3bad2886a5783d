/*
 * From the tree of a lab.yml to struct lab, guided by the table (schema.c).
 *
 * One walk down the tree. Every object first gets the defaults of its fields;
 * then each key that is written finds its field and is read over the default. A
 * value that is wrong leaves the default in place, so later checks meet a
 * struct that is whole. What later checks need to know of the file — where a
 * value stood, whether it was written, whether it was told to be wrong already —
 * is kept beside the struct as "places", found by the value's address. For that,
 * arrays are allocated once at their final size and never move.
 *
 * One mistake is told once: an unknown key that is nearly the name of a field
 * counts as that field, so that it is not missed as well.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/lab/lab_internal.h"

#define VALUE_MAX 128 /* bytes of the largest scalar type */

/* Adds a mistake at a path. */
__attribute__((format(printf, 4, 5))) static void complain(struct loader *loader, struct lab_mark mark,
							   const struct path *path, const char *fmt, ...)
{
	cleanup_free char *where = lab_path_format(path), *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	text = str_vprintf(fmt, ap);
	va_end(ap);
	if (!where || !text)
		loader->out_of_memory = true;
	else
		lab_problem_add(loader->problems, mark, where, "%s", text);
}

/* ---- scalars ---- */

static const char *kind_name(enum node_kind kind)
{
	return kind == NODE_SCALAR ? "a single value" : kind == NODE_LIST ? "a list" : "a mapping";
}

/* Why a node that should be a single value is none. */
static void complain_not_scalar(struct loader *loader, const struct field *field, const struct node *node,
				const struct path *path)
{
	cleanup_strbuf struct strbuf allowed = STRBUF_INIT;
	const char *remedy = "";

	lab_field_allowed(field, &allowed);
	if (node->kind == NODE_MAP && node->count && node->keys[0]->kind != NODE_SCALAR)
		remedy = "; a value that begins with {{ must be quoted";
	else if (node->kind == NODE_MAP)
		remedy = "; a text that holds ': ' must be quoted";
	complain(loader, node->mark, path, "is %s, not a single value%s; allowed: %s", kind_name(node->kind),
		 remedy, allowed.data ? allowed.data : "text");
}

/* Reads text into a scalar field, over what is there. On false the mistake was added. */
static bool set_scalar(struct loader *loader, const struct field *field, const char *text, char *value,
		       struct lab_mark mark, const struct path *path)
{
	cleanup_strbuf struct strbuf why = STRBUF_INIT, allowed = STRBUF_INIT;
	_Alignas(max_align_t) char fresh[VALUE_MAX] = {0};

	if (!field->type->parse(field, text, fresh, &why)) {
		lab_field_allowed(field, &allowed);
		if (!why.data || why.failed || allowed.failed)
			loader->out_of_memory = true;
		else if (strstr(why.data, "; allowed:") || !allowed.length)
			complain(loader, mark, path, "%s", why.data);
		else
			complain(loader, mark, path, "%s; allowed: %s", why.data, allowed.data);
		return false;
	}
	if (field->type->release)
		field->type->release(value);
	memcpy(value, fresh, field->type->size);
	return true;
}

/* A node without a value, "key:". */
static void complain_no_value(struct loader *loader, const struct field *field, const struct node *node,
			      struct lab_mark mark, const struct path *path)
{
	cleanup_strbuf struct strbuf allowed = STRBUF_INIT;

	lab_field_allowed(field, &allowed);
	complain(loader, mark, path, "%s; allowed: %s",
		 *node->text == '~' ? "a lone ~ means nothing in YAML; write ~/ for the home folder"
				    : "has no value; give one or leave the key out",
		 allowed.data ? allowed.data : "text");
}

/* key_mark: where the key stands, for values that are not there. */
static void read_scalar(struct loader *loader, const struct field *field, const struct node *node,
			struct lab_mark key_mark, char *value, const struct path *path)
{
	struct lab_mark mark = node->mark;
	bool good = false;

	_Static_assert(sizeof(struct lab_forward) <= VALUE_MAX, "the largest scalar fits");
	if (lab_node_is_null(node)) {
		mark = key_mark;
		complain_no_value(loader, field, node, mark, path);
	} else if (node->kind != NODE_SCALAR) {
		complain_not_scalar(loader, field, node, path);
	} else if (strlen(node->text) != node->length) {
		complain(loader, mark, path, "holds a zero byte");
	} else if (field->flags & FIELD_NO_PARAMS) {
		good = set_scalar(loader, field, node->text, value, mark, path);
	} else {
		cleanup_free char *text = lab_params_expand(loader, node, path);

		good = text && set_scalar(loader, field, text, value, mark, path);
	}
	lab_add_place(loader, value, false, !good, mark, path);
}

/* ---- defaults ---- */

static void set_defaults(struct loader *loader, const struct object *object, char *value)
{
	static const struct path nowhere;

	for (const struct field *field = object->fields; field && field->key; field++) {
		if (field->kind == FIELD_OBJECT)
			set_defaults(loader, field->object, value + field->offset);
		else if (field->kind == FIELD_SCALAR && field->fallback)
			set_scalar(loader, field, field->fallback, value + field->offset,
				   (struct lab_mark){1, 1}, &nowhere);
	}
}

/* ---- objects, lists, maps ---- */

struct key_order {
	const struct node *key;
	size_t index;
};

static int compare_keys(const void *a, const void *b)
{
	const struct key_order *x = a, *y = b;
	int order = strcmp(x->key->text, y->key->text);

	return order ? order : (x->index > y->index) - (x->index < y->index);
}

/*
 * Tells keys that are no text, or written before. Returns for each of the
 * mapping's entries whether it may be read; NULL when memory is out.
 */
static bool *check_keys(struct loader *loader, const struct node *node, const struct path *path)
{
	bool *good = calloc(node->count + 1, sizeof(*good));
	cleanup_free struct key_order *order = calloc(node->count + 1, sizeof(*order));
	size_t count = 0;

	if (!good || !order) {
		loader->out_of_memory = true;
		free(good);
		return NULL;
	}
	for (size_t i = 0; i < node->count; i++) {
		const struct node *key = node->keys[i];

		good[i] = key->kind == NODE_SCALAR && strlen(key->text) == key->length;
		if (good[i])
			order[count++] = (struct key_order){key, i};
		else
			complain(loader, key->mark, path, "a key must be a plain text%s",
				 key->kind == NODE_MAP ? "; a value that begins with {{ must be quoted" : "");
	}
	qsort(order, count, sizeof(*order), compare_keys);
	for (size_t i = 1; i < count; i++) {
		struct path step = {path, order[i].key->text, 0};

		if (!str_eq(order[i].key->text, order[i - 1].key->text))
			continue;
		good[order[i].index] = false;
		complain(loader, order[i].key->mark, &step, "is written twice; before on line %d",
			 order[i - 1].key->mark.line);
	}
	return good;
}

static void read_field(struct loader *loader, const struct field *field, const struct node *node,
		       struct lab_mark key_mark, char *value, const struct path *path);

static size_t count_fields(const struct object *object)
{
	size_t count = 0;

	while (object->fields[count].key)
		count++;
	return count;
}

/* Tells an unknown key. Returns the index of the field that was meant, or -1. */
static int complain_unknown(struct loader *loader, const struct object *object, const struct node *key,
			    const struct path *path)
{
	const char *names[64] = {0}, *nearest;
	cleanup_strbuf struct strbuf allowed = STRBUF_INIT;
	struct path step = {path, key->text, 0};
	size_t count = count_fields(object);

	for (size_t i = 0; i < count; i++) {
		names[i] = object->fields[i].key;
		strbuf_printf(&allowed, "%s%s", i ? ", " : "", names[i]);
	}
	nearest = str_nearest(key->text, names);
	complain(loader, key->mark, &step, "unknown key%s%s%s; allowed: %s", nearest ? "; did you mean " : "",
		 nearest ? nearest : "", nearest ? "?" : "", allowed.data ? allowed.data : "");
	for (size_t i = 0; nearest && i < count; i++)
		if (names[i] == nearest)
			return (int)i;
	return -1;
}

static int find_field(const struct object *object, const char *key)
{
	for (int i = 0; object->fields[i].key; i++)
		if (str_eq(object->fields[i].key, key))
			return i;
	return -1;
}

/* Reads the fields of a mapping; those marked FIELD_FIRST before the others. seen gets a bit per field. */
static void read_keys(struct loader *loader, const struct object *object, const struct node *node,
		      char *value, const struct path *path, uint64_t *seen)
{
	cleanup_free bool *good = check_keys(loader, node, path);

	for (int pass = 0; good && pass < 2; pass++) {
		for (size_t i = 0; i < node->count; i++) {
			int index = good[i] ? find_field(object, node->keys[i]->text) : -1;
			struct path step = {path, node->keys[i]->text, 0};

			if (index < 0 || (object->fields[index].flags & FIELD_FIRST ? 0 : 1) != pass)
				continue;
			*seen |= UINT64_C(1) << index;
			read_field(loader, &object->fields[index], node->items[i], node->keys[i]->mark, value,
				   &step);
		}
	}
	for (size_t i = 0; good && i < node->count; i++) {
		int meant;

		if (!good[i] || find_field(object, node->keys[i]->text) >= 0)
			continue;
		meant = complain_unknown(loader, object, node->keys[i], path);
		if (meant < 0 || (*seen & UINT64_C(1) << meant))
			continue;
		*seen |= UINT64_C(1) << meant;
		if (object->fields[meant].kind != FIELD_OBJECT) /* which has no place of its own */
			lab_add_place(loader, value + object->fields[meant].offset, false, true,
				      node->keys[i]->mark, path);
	}
}

static bool may_be_object(const struct node *node)
{
	return node->kind == NODE_MAP || lab_node_is_null(node);
}

/* mark: where a mistake of the object as a whole is told, like a key that is missing. */
static void read_object(struct loader *loader, const struct object *object, const struct node *node,
			struct lab_mark mark, char *value, const struct path *path)
{
	uint64_t seen = 0;

	set_defaults(loader, object, value);
	if (!may_be_object(node)) {
		complain(
			loader, node->mark, path,
			"is %s, not a mapping of keys; allowed: {KEY: VALUE, …} or indented lines KEY: VALUE",
			kind_name(node->kind));
		return;
	}
	read_keys(loader, object, node, value, path, &seen);
	for (size_t i = 0; object->fields[i].key; i++) {
		const struct field *field = &object->fields[i];
		struct path step = {path, field->key, 0};

		if (!(field->flags & FIELD_REQUIRED) || (seen & UINT64_C(1) << i))
			continue;
		complain(loader, mark, &step, "is missing%s%s", field->example ? "; write it like " : "",
			 field->example ? field->example : "");
		lab_add_place(loader, value + field->offset, false, true, mark, &step);
	}
}

/* Makes room for an array of a list or map, a zero element after its end (a strv's NULL). */
static char *make_array(struct loader *loader, const struct field *field, char *value, size_t count)
{
	char *items = calloc(count + 1, lab_element_size(field));

	if (!items)
		loader->out_of_memory = true;
	*(char **)(value + field->offset) = items;
	return items;
}

/* Cuts the number of elements to what is allowed, and tells it. */
static size_t bounded_count(struct loader *loader, const struct field *field, const struct node *node,
			    const struct path *path)
{
	if (node->count <= field->max_count)
		return node->count;
	complain(loader, node->items[field->max_count]->mark, path, "has %zu entries; allowed: at most %zu",
		 node->count, field->max_count);
	return field->max_count;
}

/* Returns false when the node is no list, which was told then. */
static bool read_list(struct loader *loader, const struct field *field, const struct node *node, char *value,
		      const struct path *path)
{
	bool alone = !field->object && node->kind == NODE_SCALAR; /* one scalar instead of a list of one */
	size_t size = lab_element_size(field), count, *number = (size_t *)(value + field->count_offset);
	char *items;

	if (!alone && node->kind != NODE_LIST) {
		complain(loader, node->mark, path,
			 "is %s, not a list; allowed: [A, B] or lines that begin with \"- \"%s",
			 kind_name(node->kind), field->object ? "" : ", each with a single value");
		return false;
	}
	count = alone ? 1 : bounded_count(loader, field, node, path);
	items = make_array(loader, field, value, count);
	for (size_t i = 0; items && i < count; i++) {
		const struct node *item = alone ? node : node->items[i];
		struct path step = {path, NULL, i};

		++*number;
		if (!field->object) {
			read_scalar(loader, field, item, item->mark, items + i * size, alone ? path : &step);
			continue;
		}
		if (field->object->mark_offset != NO_OFFSET)
			*(struct lab_mark *)(items + i * size + field->object->mark_offset) = item->mark;
		lab_add_place(loader, items + i * size, true, !may_be_object(item), item->mark, &step);
		read_object(loader, field->object, item, item->mark, items + i * size, &step);
	}
	return true;
}

/* Tells a key of a map that cannot be a name. */
static void check_name(struct loader *loader, const struct object *object, const struct node *key,
		       const struct path *path)
{
	char lower[LAB_NAME_MAX + 1] = "";
	size_t length = strlen(key->text);

	if (object->scalar) {
		if (!lab_params_is_name(key->text))
			complain(loader, key->mark, path,
				 "is no name for a parameter; allowed: a letter, then up to 31 "
				 "letters, digits, _ and -; not user or random");
		return;
	}
	if (str_is_name(key->text, LAB_NAME_MAX) && key->text[length - 1] != '-' &&
	    !str_eq(key->text, "localhost"))
		return;
	for (size_t i = 0; length <= LAB_NAME_MAX && i < length; i++) {
		char c = key->text[i];

		lower[i] = c >= 'A' && c <= 'Z'               ? (char)(c + 'a' - 'A')
			   : c == '_' || c == '.' || c == ' ' ? '-'
							      : c;
	}
	complain(loader, key->mark, path,
		 "is no name for a %s%s%s%s; allowed: 1 to 31 of a-z, 0-9 and -, neither beginning nor "
		 "ending with -, not localhost",
		 object->name,
		 str_is_name(lower, LAB_NAME_MAX) && !str_eq(lower, key->text) ? "; did you mean " : "",
		 str_is_name(lower, LAB_NAME_MAX) && !str_eq(lower, key->text) ? lower : "",
		 str_is_name(lower, LAB_NAME_MAX) && !str_eq(lower, key->text) ? "?" : "");
}

/* Reads a parameter: what --param gave, taken as it is, or else what is written. */
static void read_param(struct loader *loader, const struct object *object, const struct node *node,
		       const struct node *key, char *element, const struct path *path)
{
	const char *given = lab_params_given(loader, key->text);
	char *value = element + object->scalar->offset;

	if (!given) {
		read_scalar(loader, object->scalar, node, key->mark, value, path);
	} else if (set_scalar(loader, object->scalar, given, value, node->mark, path)) {
		lab_add_place(loader, value, false, false, node->mark, path);
	}
	/* Other values may use it, whatever was wrong with it. */
	if (!*(char **)value && !(*(char **)value = strdup("")))
		loader->out_of_memory = true;
}

static bool read_map(struct loader *loader, const struct field *field, const struct node *node, char *value,
		     const struct path *path)
{
	const struct object *object = field->object;
	size_t size = object->size, count, *number = (size_t *)(value + field->count_offset);
	cleanup_free bool *good = NULL;
	char *items;

	if (node->kind != NODE_MAP) {
		complain(loader, node->mark, path,
			 "is %s, not a mapping; allowed: the name of each %s and a colon, then its %s",
			 kind_name(node->kind), object->name, object->scalar ? "value" : "keys");
		return false;
	}
	good = check_keys(loader, node, path);
	count = bounded_count(loader, field, node, path);
	items = good ? make_array(loader, field, value, count) : NULL;
	for (size_t i = 0; items && i < count; i++) {
		struct path step = {path, node->keys[i]->text, 0};
		char *element = items + *number * size;

		if (!good[i])
			continue;
		check_name(loader, object, node->keys[i], &step);
		*(char **)(element + object->name_offset) = strdup(node->keys[i]->text);
		if (!*(char **)(element + object->name_offset)) {
			loader->out_of_memory = true;
			return true;
		}
		if (object->scalar) {
			read_param(loader, object, node->items[i], node->keys[i], element, &step);
		} else {
			*(struct lab_mark *)(element + object->mark_offset) = node->keys[i]->mark;
			lab_add_place(loader, element, true, !may_be_object(node->items[i]),
				      node->keys[i]->mark, &step);
			read_object(loader, object, node->items[i], node->keys[i]->mark, element, &step);
		}
		++*number;
	}
	return true;
}

static void read_field(struct loader *loader, const struct field *field, const struct node *node,
		       struct lab_mark key_mark, char *value, const struct path *path)
{
	bool good = true;

	switch (field->kind) {
	case FIELD_SCALAR:
		read_scalar(loader, field, node, key_mark, value + field->offset, path);
		return;
	case FIELD_OBJECT:
		read_object(loader, field->object, node, key_mark, value + field->offset, path);
		return;
	case FIELD_LIST:
		good = lab_node_is_null(node) || read_list(loader, field, node, value, path);
		break;
	case FIELD_MAP:
		good = lab_node_is_null(node) || read_map(loader, field, node, value, path);
		break;
	}
	lab_add_place(loader, value + field->offset, false, !good, key_mark, path);
}

void lab_read_tree(struct loader *loader, const struct tree *tree)
{
	static const struct path root;

	loader->root_mark = tree->root ? tree->root->mark : (struct lab_mark){1, 1};
	if (!tree->root || lab_node_is_null(tree->root))
		lab_problem_add(loader->problems, (struct lab_mark){1, 1}, "",
				"the file is empty; a lab needs at least lab: NAME, base: IMAGE and "
				"machines: {NAME: {}}");
	else if (tree->root->kind != NODE_MAP)
		lab_problem_add(loader->problems, tree->root->mark, "",
				"the file is %s, not a mapping of keys; begin with lab: NAME",
				kind_name(tree->root->kind));
	else
		read_object(loader, &lab_schema, tree->root, tree->root->mark, (char *)loader->lab, &root);
	lab_places_sort(loader);
}
