/*
 * What the files of uml-lab/lab share:
 *
 *   source.c   lab.yml's bytes → checked text, positions in it
 *   tree.c     text → a tree of nodes that know their position (libyaml)
 *   syntax.c   what libyaml cannot read, told with a remedy
 *   scalar*.c  the types of single values: text ↔ C, JSON Schema pattern
 *   schema.c   the one table of all fields
 *   load.c     tree + table → struct lab
 *   place.c    where values of struct lab stood in the file
 *   params.c   {{parameters}}
 *   check.c    what holds between fields: references, duplicates
 *   paths.c    paths on the host
 *   find.c     folders, names, the list of labs
 *   write.c    struct lab + table → YAML
 *   describe.c table → JSON Schema, Markdown
 *   problem.c  the list of mistakes
 */
#ifndef UML_LAB_LAB_LAB_INTERNAL_H
#define UML_LAB_LAB_LAB_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "uml-lab/base/error.h"
#include "uml-lab/base/str.h"
#include "uml-lab/lab/lab.h"

/* Limits of what is read: a description of a hundred machines stays far below all of them. */
#define LAB_FILE_MAX      (1u << 20) /* bytes of a lab.yml */
#define LAB_DEPTH_MAX     32         /* of nesting; the schema needs 7 */
#define LAB_NODES_MAX     100000     /* nodes, those that aliases repeat included */
#define LAB_ANCHORS_MAX   1000
#define LAB_EXPANSION_MAX (1u << 20) /* bytes that parameters may add up to */
#define LAB_PROBLEMS_MAX  1000       /* mistakes kept; more are counted */

/* ---- problem.c ---- */

/* Sorts by position, in the order of adding where that is the same. */
void lab_problems_sort(struct lab_problems *problems);
/* Fills err with one line each. Returns -1. */
int lab_problems_to_error(const struct lab_problems *problems, struct error *err);
/* One mistake as the line people see, "file:1:2: path: message", without newline. */
void lab_problem_format(const struct lab_problems *problems, size_t index, struct strbuf *out);
/* "text" in quotes for a message: control characters escaped, cut at about 60 bytes. buf is returned. */
#define LAB_QUOTE_MAX 96
char *lab_quote(const char *text, char buf[static LAB_QUOTE_MAX]);

/* ---- source.c ---- */

struct lab_source {
	const char *text; /* UTF-8 without byte order mark, not NUL-terminated */
	size_t length;    /* bytes */
};

/* Checks size, encoding and characters; on false the mistake has been added. */
bool lab_source_init(struct lab_source *source, const char *text, size_t length,
		     struct lab_problems *problems);
/*
 * The position of the nth (from 0) "{{" between two of libyaml's indices
 * (characters from the start), or `fallback` when there is none as such.
 */
struct lab_mark lab_source_find_braces(const struct lab_source *source, size_t start, size_t end, int nth,
				       struct lab_mark fallback);
/* The line'th line (from 1), without its end, and its length; an empty one when there is none. */
const char *lab_source_line(const struct lab_source *source, int line, size_t *length);
/* Whether text is valid UTF-8. */
bool lab_is_utf8(const char *text, size_t length);

/* ---- tree.c ---- */

enum node_kind { NODE_SCALAR, NODE_LIST, NODE_MAP };

/* A value of the file. An alias yields the same node again, so nodes belong to the tree, not to their
 * parents. */
struct node {
	enum node_kind kind;
	struct lab_mark mark;
	char *text; /* scalar: NUL-terminated, may hold NULs before that */
	size_t length;
	bool plain;         /* scalar: written without quotes */
	size_t start, end;  /* scalar: libyaml's indices of its source */
	struct node **keys; /* map: keys[i] belongs to items[i] */
	struct node **items;
	size_t count;
	size_t weight; /* nodes below and with this one, aliases counted as often as they stand */
};

struct tree {
	struct node *root; /* NULL: the file holds nothing */
	struct node **nodes;
	size_t count;
};

/* Reads the one document of the source. On false a mistake has been added; free the tree in either case. */
bool lab_tree_read(struct tree *tree, const struct lab_source *source, struct lab_problems *problems);
void lab_tree_free(struct tree *tree);
/* Whether the node stands for "nothing": empty, ~ or null, unquoted. */
bool lab_node_is_null(const struct node *node);

/* ---- syntax.c ---- */

struct yaml_parser_s;
/* Adds the mistake that stopped libyaml, with a remedy for the common ones. */
void lab_syntax_problem(const struct yaml_parser_s *parser, const struct lab_source *source,
			struct lab_problems *problems);

/* ---- scalar.c, schema.c ---- */

struct field;

/* How one type of value is read, written and described. */
struct scalar_type {
	const char *name;      /* in the reference: "size" */
	const char *allowed;   /* for messages and the reference; NULL: made from choices or range */
	const char *json_type; /* JSON types a YAML parser may make of it: "string", "string integer", … */
	const char *pattern;   /* ECMA regular expression of the text, NULL: any */
	size_t size;           /* bytes of the C value */
	/*
	 * Reads text into *value, which is zero before. On false *why says what
	 * is wrong: `is "x", not a size`; a why that holds "; allowed:" is complete.
	 */
	bool (*parse)(const struct field *field, const char *text, void *value, struct strbuf *why);
	void (*write)(const struct field *field, const void *value, struct strbuf *out);
	void (*release)(void *value); /* NULL: holds no memory */
};

extern const struct scalar_type scalar_line, scalar_text, scalar_lab_name, scalar_bool, scalar_int,
	scalar_percent, scalar_size, scalar_duration, scalar_choice, scalar_word, scalar_interval,
	scalar_rate, scalar_loss, scalar_address, scalar_mac, scalar_forward, scalar_destination,
	scalar_regex, scalar_image, scalar_kernel, scalar_owner, scalar_param;

/* Writes `is "text", not WHAT` into why. Returns false. */
bool lab_is_not(struct strbuf *why, const char *text, const char *what);
/* A limit of a size or time, as it would be written. */
void lab_put_limit(const struct scalar_type *type, int64_t limit, struct strbuf *out);
/* For the types whose value is a char *: stores a copy (false: out of memory), write and release. */
bool lab_string_keep(const char *text, void *value, struct strbuf *why);
void lab_string_write(const struct field *field, const void *value, struct strbuf *out);
void lab_string_release(void *value);

#define LAB_STRING_TYPE .size = sizeof(char *), .write = lab_string_write, .release = lab_string_release

/* What a field allows, for messages and the reference; "" when there is nothing to say. */
void lab_field_allowed(const struct field *field, struct strbuf *out);

enum field_kind {
	FIELD_SCALAR,
	FIELD_OBJECT, /* a mapping with fields of its own, stored at offset */
	FIELD_LIST, /* of scalars (also one alone) or of objects: pointer at offset, count at count_offset */
	FIELD_MAP,  /* of name → object, or name → scalar: stored like a list */
};

#define FIELD_REQUIRED  1 /* must be written */
#define FIELD_NO_PARAMS 2 /* {{…}} is not filled in */
#define FIELD_FIRST     4 /* read before its neighbours, which need it */

struct field {
	const char *key;
	enum field_kind kind;
	unsigned flags;
	const struct scalar_type *type; /* FIELD_SCALAR; FIELD_LIST of scalars */
	const struct object *object;    /* otherwise */
	size_t offset, count_offset;
	size_t max_count;       /* of elements */
	const char *fallback;   /* the default, as it would be written; NULL: none (zero) */
	const char *choices;    /* "a|b", for bool (false|true), choice and word */
	int64_t min, max;       /* int, percent; bytes, milliseconds; both 0: no limits */
	const char *min_reason; /* why there is a least size; may be NULL */
	const char *help;       /* a sentence or more */
	const char *example;    /* as YAML; may be NULL */
};

/* The fields of one kind of mapping. */
struct object {
	const char *name; /* "machine": what an element is called, and its JSON Schema definition */
	const char *help;
	const struct field *fields; /* ends with a NULL key; NULL for a map of scalars */
	const struct field *scalar; /* of a map of scalars: where its value goes; otherwise NULL */
	size_t size;                /* of the element's struct */
	size_t name_offset;         /* maps: where the key goes (char *) */
	size_t mark_offset;         /* of its struct lab_mark, or NO_OFFSET */
	bool host_name; /* maps: a key must do as a host name; otherwise, with scalars, as a parameter's name
			 */
};

#define NO_OFFSET ((size_t)-1)

extern const struct object lab_schema; /* lab.yml as a whole; its struct is struct lab */

/* Bytes of one element of a list or map. */
size_t lab_element_size(const struct field *field);
/* Frees all that the fields of an object hold, not the object itself. */
void lab_release_object(const struct object *object, void *value);

/* ---- load.c ---- */

/* A path of fields, kept on the stack while walking down. */
struct path {
	const struct path *parent; /* NULL for the file as a whole */
	const char *key;           /* NULL: index */
	size_t index;
};

/* Where in the file a value of the struct came from; looked up by its address. */
struct place {
	const void *value;
	bool is_object; /* an element of a list or map, whose first field has the same address */
	bool bad;       /* told already: the value is a default */
	struct lab_mark mark;
	char *path;
};

struct loader {
	const struct lab_source *source;
	const struct lab_load_options *options;
	struct lab *lab;
	struct lab_problems *problems;
	struct lab_mark root_mark;
	struct place *places; /* sorted once all is loaded */
	size_t place_count, place_size;
	char *user;       /* {{user}} */
	uint64_t seed[2]; /* of {{random:N}} */
	size_t expanded;  /* bytes so far, against LAB_EXPANSION_MAX */
	bool out_of_memory;
};

/* Fills loader->lab, whose struct is zero, from the tree; mistakes are added. Releases nothing. */
void lab_read_tree(struct loader *loader, const struct tree *tree);

/* ---- place.c ---- */

/* Remembers where a value came from; path is that of the value. */
void lab_add_place(struct loader *loader, const void *value, bool is_object, bool bad, struct lab_mark mark,
		   const struct path *path);
/* Once all are added, before the first is looked up. */
void lab_places_sort(struct loader *loader);
void lab_places_free(struct loader *loader);

/* Where a value was written, NULL when it was not. Only after loading. */
const struct place *lab_place(const struct loader *loader, const void *value);
const struct place *lab_place_of_object(const struct loader *loader, const void *value);
/* Whether it was written at all; whether it was written and is right. */
bool lab_given(const struct loader *loader, const void *value);
bool lab_given_well(const struct loader *loader, const void *value);
/* Adds a mistake at the place of a value, or of an object. */
void lab_blame(const struct loader *loader, const struct place *place, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* "machines.r1.interfaces[0]", malloc'ed; NULL when memory is out. */
char *lab_path_format(const struct path *path);

/* ---- params.c ---- */

/* Sets up {{user}} and the seed. 0, or -1 + err. */
int lab_params_init(struct loader *loader, struct error *err);
/* Whether all of options->params exist in the lab, once loaded. 0, or -1 + ERROR_USAGE. */
int lab_params_check(const struct loader *loader, struct error *err);
/* The value that --param gives, or NULL. */
const char *lab_params_given(const struct loader *loader, const char *name);
/*
 * The node's text with its parameters filled in, malloc'ed; NULL when a mistake
 * was added (or memory is out). path is that of the field.
 */
char *lab_params_expand(struct loader *loader, const struct node *node, const struct path *path);
/* Whether the text may name a parameter: a letter, then up to 31 letters, digits, _ and -; not user or
 * random. */
bool lab_params_is_name(const char *text);

/* ---- check.c, paths.c ---- */

/* Adds the mistakes between fields. */
void lab_check(struct loader *loader);
/* Makes the paths absolute, and adds the mistakes: missing, of the wrong kind, leading out of the lab's
 * folder. */
int lab_resolve_paths(struct loader *loader, struct error *err);

#endif
