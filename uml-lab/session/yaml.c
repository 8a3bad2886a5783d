#include "uml-lab/session/session_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- reading ---- */

yaml_node_t *yaml_get(yaml_document_t *document, yaml_node_t *node, const char *key)
{
	if (!node || node->type != YAML_MAPPING_NODE)
		return NULL;
	for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
		yaml_node_t *name = yaml_document_get_node(document, p->key);

		if (name && name->type == YAML_SCALAR_NODE && str_eq((char *)name->data.scalar.value, key))
			return yaml_document_get_node(document, p->value);
	}
	return NULL;
}

const char *yaml_get_text(yaml_document_t *document, yaml_node_t *node, const char *key)
{
	yaml_node_t *value = yaml_get(document, node, key);

	return value && value->type == YAML_SCALAR_NODE ? (char *)value->data.scalar.value : NULL;
}

int64_t yaml_get_number(yaml_document_t *document, yaml_node_t *node, const char *key, int64_t fallback)
{
	const char *text = yaml_get_text(document, node, key);
	int64_t number;

	return text && str_to_i64(text, INT64_MIN, INT64_MAX, &number) == 0 ? number : fallback;
}

int yaml_copy_text(yaml_document_t *document, yaml_node_t *node, const char *key, char **out, struct error *err)
{
	const char *text = yaml_get_text(document, node, key);

	*out = text ? str_dup(text, err) : NULL;
	return text && !*out ? -1 : 0;
}

int yaml_copy_list(yaml_document_t *document, yaml_node_t *node, const char *key, struct strv *out, struct error *err)
{
	yaml_node_t *list = yaml_get(document, node, key);

	if (!list || list->type != YAML_SEQUENCE_NODE)
		return 0;
	for (yaml_node_item_t *i = list->data.sequence.items.start; i < list->data.sequence.items.top; i++) {
		yaml_node_t *item = yaml_document_get_node(document, *i);

		if (item && item->type == YAML_SCALAR_NODE &&
		    strv_add(out, (char *)item->data.scalar.value, err) < 0)
			return -1;
	}
	return 0;
}

/* ---- writing ---- */

static int collect(void *arg, unsigned char *data, size_t length)
{
	struct strbuf *text = arg;

	strbuf_add(text, data, length);
	return !text->failed;
}

static void emit(struct yaml_out *out, yaml_event_t *event, int initialised)
{
	if (!initialised || out->failed || !yaml_emitter_emit(&out->emitter, event))
		out->failed = true;
}

static void scalar(struct yaml_out *out, const char *text, yaml_scalar_style_t style)
{
	yaml_event_t event;

	emit(out, &event,
	     yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text, (int)strlen(text), 1, 1,
					  style));
}

int yaml_out_begin(struct yaml_out *out, struct error *err)
{
	yaml_event_t event;

	*out = (struct yaml_out){.text = STRBUF_INIT};
	if (!yaml_emitter_initialize(&out->emitter))
		return error_oom(err);
	yaml_emitter_set_output(&out->emitter, collect, &out->text);
	yaml_emitter_set_width(&out->emitter, -1);
	yaml_emitter_set_unicode(&out->emitter, 1);
	emit(out, &event, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING));
	emit(out, &event, yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1));
	return 0;
}

void yaml_out_map(struct yaml_out *out, const char *key, bool flow)
{
	yaml_event_t event;

	if (key)
		scalar(out, key, YAML_PLAIN_SCALAR_STYLE);
	emit(out, &event,
	     yaml_mapping_start_event_initialize(&event, NULL, NULL, 1,
						 flow ? YAML_FLOW_MAPPING_STYLE : YAML_BLOCK_MAPPING_STYLE));
}

void yaml_out_list(struct yaml_out *out, const char *key)
{
	yaml_event_t event;

	if (key)
		scalar(out, key, YAML_PLAIN_SCALAR_STYLE);
	emit(out, &event,
	     yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_SEQUENCE_STYLE));
}

void yaml_out_close_map(struct yaml_out *out)
{
	yaml_event_t event;

	emit(out, &event, yaml_mapping_end_event_initialize(&event));
}

void yaml_out_close_list(struct yaml_out *out)
{
	yaml_event_t event;

	emit(out, &event, yaml_sequence_end_event_initialize(&event));
}

void yaml_out_text(struct yaml_out *out, const char *key, const char *text)
{
	if (!text)
		return;
	if (key)
		scalar(out, key, YAML_PLAIN_SCALAR_STYLE);
	scalar(out, text, YAML_DOUBLE_QUOTED_SCALAR_STYLE);
}

void yaml_out_plain(struct yaml_out *out, const char *key, const char *word)
{
	scalar(out, key, YAML_PLAIN_SCALAR_STYLE);
	scalar(out, word, YAML_PLAIN_SCALAR_STYLE);
}

void yaml_out_number(struct yaml_out *out, const char *key, int64_t number)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRId64, number);
	yaml_out_plain(out, key, text);
}

void yaml_out_strings(struct yaml_out *out, const char *key, const struct strv *list)
{
	if (!list->count)
		return;
	yaml_out_list(out, key);
	for (size_t i = 0; i < list->count; i++)
		yaml_out_text(out, NULL, list->items[i]);
	yaml_out_close_list(out);
}

struct process_id yaml_get_process(yaml_document_t *document, yaml_node_t *node, const char *key)
{
	yaml_node_t *process = yaml_get(document, node, key);

	return (struct process_id){
		.pid = (pid_t)yaml_get_number(document, process, "pid", 0),
		.start = (uint64_t)yaml_get_number(document, process, "start", 0),
	};
}

void yaml_out_process(struct yaml_out *out, const char *key, const struct process_id *id)
{
	if (!id->pid)
		return;
	yaml_out_map(out, key, true);
	yaml_out_number(out, "pid", id->pid);
	yaml_out_number(out, "start", (int64_t)id->start);
	yaml_out_close_map(out);
}

char *yaml_out_end(struct yaml_out *out, struct error *err)
{
	char *text = NULL;
	yaml_event_t event;

	emit(out, &event, yaml_document_end_event_initialize(&event, 1));
	emit(out, &event, yaml_stream_end_event_initialize(&event));
	if (out->failed) {
		error_set(err, ERROR_FAILED, "cannot write YAML: %s", out->emitter.problem ?: "out of memory");
		strbuf_free(&out->text);
	} else {
		text = strbuf_steal(&out->text, err);
	}
	yaml_emitter_delete(&out->emitter);
	return text;
}
