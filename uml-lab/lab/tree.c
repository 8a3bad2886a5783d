/*
 * lab.yml's text as a tree of nodes, each with its position, built from
 * libyaml's events.
 *
 * Hostile input: nesting, nodes and anchors are bounded. An alias yields the
 * node it names a second time, so a "billion laughs" file costs little here but
 * everything to whoever walks the tree; that is why each node knows its weight
 * (the nodes below it, aliases counted as often as they stand) and the sum is
 * bounded like the nodes themselves. An alias inside the value it names is
 * refused, so the tree has no cycles. Nothing here recurses: the open lists and
 * mappings are a stack of LAB_DEPTH_MAX.
 *
 * Left out on purpose: several documents, tags (a value's type comes from the
 * field it stands in, never from how it looks), merge keys.
 */
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/lab/lab_internal.h"

struct anchor {
	char *name;
	struct node *node;
	bool open; /* its value has not ended yet */
};

struct builder {
	struct tree *tree;
	struct lab_problems *problems;
	struct node *stack[LAB_DEPTH_MAX];
	struct node *pending_key[LAB_DEPTH_MAX]; /* of maps: a key that waits for its value */
	int depth;
	struct anchor *anchors;
	size_t anchor_count;
	size_t weight;
	bool stop; /* a mistake was added, or memory is out */
};

static void fail(struct builder *b, struct lab_mark mark, const char *text)
{
	lab_problem_add(b->problems, mark, "", "%s", text);
	b->stop = true;
}

static struct lab_mark mark_of(const yaml_mark_t *mark)
{
	return (struct lab_mark){(int)mark->line + 1, (int)mark->column + 1};
}

/* Appends to an array that doubles; NULL when memory is out (the array is as before then). */
static bool append(struct node ***array, size_t count, struct node *node)
{
	struct node **bigger;

	if ((count & (count - 1)) == 0) {
		bigger = reallocarray(*array, count ? count * 2 : 1, sizeof(node));
		if (!bigger)
			return false;
		*array = bigger;
	}
	(*array)[count] = node;
	return true;
}

static struct node *new_node(struct builder *b, enum node_kind kind, const yaml_event_t *event)
{
	struct node *node = calloc(1, sizeof(*node));

	if (!node || !append(&b->tree->nodes, b->tree->count, node)) {
		free(node);
		fail(b, mark_of(&event->start_mark), "out of memory");
		return NULL;
	}
	b->tree->count++;
	node->kind = kind;
	node->mark = mark_of(&event->start_mark);
	node->start = event->start_mark.index;
	node->end = event->end_mark.index;
	node->weight = 1;
	return node;
}

/* Puts a finished node (or an alias's) under the list or mapping that is open. */
static void attach(struct builder *b, struct node *node)
{
	struct node *parent = b->depth ? b->stack[b->depth - 1] : NULL;
	struct node **pending;
	bool good = true;

	b->weight += node->weight;
	if (b->weight > LAB_NODES_MAX) {
		fail(b, node->mark, "the file, with its aliases repeated, holds too many values");
		return;
	}
	if (!parent) {
		b->tree->root = node;
		return;
	}
	parent->weight += node->weight;
	if (parent->kind == NODE_LIST) {
		good = append(&parent->items, parent->count, node);
		parent->count += good;
	} else if (!*(pending = &b->pending_key[b->depth - 1])) {
		*pending = node;
	} else {
		good = append(&parent->keys, parent->count, *pending) &&
		       append(&parent->items, parent->count, node);
		parent->count += good;
		*pending = NULL;
	}
	if (!good)
		fail(b, node->mark, "out of memory");
}

/* Remembers a node under its anchor; a later anchor of the same name hides an earlier one (YAML 1.1
 * section 4.2.1). */
static void remember(struct builder *b, struct node *node, const yaml_char_t *name, bool open)
{
	struct anchor *anchors;
	char *copy;

	if (!name || b->stop)
		return;
	if (b->anchor_count == LAB_ANCHORS_MAX) {
		fail(b, node->mark, "there are too many anchors");
		return;
	}
	copy = strdup((const char *)name);
	anchors = reallocarray(b->anchors, b->anchor_count + 1, sizeof(*anchors));
	if (anchors)
		b->anchors = anchors;
	if (!copy || !anchors) {
		free(copy);
		fail(b, node->mark, "out of memory");
		return;
	}
	b->anchors[b->anchor_count++] = (struct anchor){copy, node, open};
}

static void on_alias(struct builder *b, const yaml_event_t *event)
{
	const char *name = (const char *)event->data.alias.anchor;
	struct lab_mark mark = mark_of(&event->start_mark);
	char quoted[LAB_QUOTE_MAX];

	for (size_t i = b->anchor_count; i-- > 0;) {
		if (!str_eq(b->anchors[i].name, name))
			continue;
		if (b->anchors[i].open)
			fail(b, mark, "an alias stands inside the value it repeats");
		else
			attach(b, b->anchors[i].node);
		return;
	}
	lab_problem_add(b->problems, mark, "",
			"no anchor %s stands before this alias; a text that begins with * must be quoted",
			lab_quote(name, quoted));
	b->stop = true;
}

static bool has_tag(const yaml_event_t *event)
{
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		return event->data.scalar.tag;
	case YAML_SEQUENCE_START_EVENT:
		return event->data.sequence_start.tag;
	case YAML_MAPPING_START_EVENT:
		return event->data.mapping_start.tag;
	default:
		return false;
	}
}

static void on_scalar(struct builder *b, yaml_event_t *event)
{
	struct node *node = new_node(b, NODE_SCALAR, event);

	if (!node)
		return;
	node->length = event->data.scalar.length;
	node->text = malloc(node->length + 1);
	if (!node->text) {
		fail(b, node->mark, "out of memory");
		return;
	}
	memcpy(node->text, event->data.scalar.value, node->length + 1); /* libyaml ends it with a NUL */
	node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	remember(b, node, event->data.scalar.anchor, false);
	if (!b->stop)
		attach(b, node);
}

static void on_start(struct builder *b, const yaml_event_t *event)
{
	bool list = event->type == YAML_SEQUENCE_START_EVENT;
	struct node *node = new_node(b, list ? NODE_LIST : NODE_MAP, event);

	if (!node)
		return;
	if (b->depth == LAB_DEPTH_MAX) {
		fail(b, node->mark, "lists and mappings are nested too deeply");
		return;
	}
	remember(b, node, list ? event->data.sequence_start.anchor : event->data.mapping_start.anchor, true);
	b->pending_key[b->depth] = NULL;
	b->stack[b->depth++] = node;
}

static void on_end(struct builder *b)
{
	struct node *node = b->stack[--b->depth];

	for (size_t i = 0; i < b->anchor_count; i++)
		if (b->anchors[i].node == node)
			b->anchors[i].open = false;
	/* What lies below was counted when it was attached. */
	b->weight -= node->weight - 1;
	attach(b, node);
}

/* Takes one event. Returns false when there are no more, or no more are wanted. */
static bool on_event(struct builder *b, yaml_event_t *event)
{
	if (has_tag(event)) {
		fail(b, mark_of(&event->start_mark),
		     "tags (!…) are not used here; a text that begins with ! must be quoted");
		return false;
	}
	switch (event->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (b->tree->root)
			fail(b, mark_of(&event->start_mark),
			     "a second document begins here; a lab.yml holds one");
		break;
	case YAML_ALIAS_EVENT:
		on_alias(b, event);
		break;
	case YAML_SCALAR_EVENT:
		on_scalar(b, event);
		break;
	case YAML_SEQUENCE_START_EVENT:
	case YAML_MAPPING_START_EVENT:
		on_start(b, event);
		break;
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		on_end(b);
		break;
	case YAML_STREAM_END_EVENT:
		return false;
	default:
		break;
	}
	return !b->stop;
}

bool lab_tree_read(struct tree *tree, const struct lab_source *source, struct lab_problems *problems)
{
	struct builder b = {.tree = tree, .problems = problems};
	yaml_parser_t parser;
	yaml_event_t event;
	bool more = true;

	if (!yaml_parser_initialize(&parser)) {
		fail(&b, (struct lab_mark){1, 1}, "out of memory");
		return false;
	}
	yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&parser, (const unsigned char *)source->text, source->length);
	while (more) {
		if (!yaml_parser_parse(&parser, &event)) {
			lab_syntax_problem(&parser, source, problems);
			b.stop = true;
			break;
		}
		more = on_event(&b, &event);
		yaml_event_delete(&event);
	}
	yaml_parser_delete(&parser);
	for (size_t i = 0; i < b.anchor_count; i++)
		free(b.anchors[i].name);
	free(b.anchors);
	return !b.stop;
}

void lab_tree_free(struct tree *tree)
{
	for (size_t i = 0; i < tree->count; i++) {
		free(tree->nodes[i]->text);
		free(tree->nodes[i]->keys);
		free(tree->nodes[i]->items);
		free(tree->nodes[i]);
	}
	free(tree->nodes);
	*tree = (struct tree){0};
}

bool lab_node_is_null(const struct node *node)
{
	return node->kind == NODE_SCALAR && node->plain &&
	       (!*node->text || str_eq(node->text, "~") || str_eq(node->text, "null"));
}
