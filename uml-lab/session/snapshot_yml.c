/* The snapshots' part of session.yml: `snapshots:` under `session:`, read and written. */
#include <stdlib.h>
#include <string.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/session/session_internal.h"

/* A session.yml that was tampered with must not name files elsewhere. */
static bool is_file_name(const char *name)
{
	return name && name[0] && name[0] != '.' && !strchr(name, '/');
}

static void frozen_free(struct session_frozen *f)
{
	for (size_t i = 0; i < f->layer_count; i++) {
		free(f->layers[i].file);
		free(f->layers[i].digest);
	}
	free(f->layers);
	free(f->machine);
	free(f->parent);
	free(f->base);
}

void snapshot_free(struct session_snapshot *snapshot)
{
	for (size_t i = 0; i < snapshot->machine_count; i++)
		frozen_free(&snapshot->machines[i]);
	free(snapshot->machines);
	free(snapshot->name);
	free(snapshot->created);
	*snapshot = (struct session_snapshot){0};
}

void snapshots_free(struct session *session)
{
	for (size_t i = 0; i < session->snapshot_count; i++)
		snapshot_free(&session->snapshots[i]);
	free(session->snapshots);
	session->snapshots = NULL;
	session->snapshot_count = 0;
}

struct session_snapshot *session_find_snapshot(const struct session *session, const char *name)
{
	for (size_t i = 0; i < session->snapshot_count; i++)
		if (str_eq(session->snapshots[i].name, name))
			return &session->snapshots[i];
	return NULL;
}

struct session_frozen *session_find_frozen(const struct session_snapshot *snapshot, const char *machine)
{
	for (size_t i = 0; i < snapshot->machine_count; i++)
		if (str_eq(snapshot->machines[i].machine, machine))
			return &snapshot->machines[i];
	return NULL;
}

/* ---- reading ---- */

static size_t pairs(const yaml_node_t *node)
{
	return node && node->type == YAML_MAPPING_NODE
		       ? (size_t)(node->data.mapping.pairs.top - node->data.mapping.pairs.start)
		       : 0;
}

static const char *key_of(yaml_document_t *doc, const yaml_node_t *node, size_t index)
{
	yaml_node_t *key = yaml_document_get_node(doc, node->data.mapping.pairs.start[index].key);

	return key && key->type == YAML_SCALAR_NODE ? (char *)key->data.scalar.value : "";
}

static yaml_node_t *value_of(yaml_document_t *doc, const yaml_node_t *node, size_t index)
{
	return yaml_document_get_node(doc, node->data.mapping.pairs.start[index].value);
}

static int read_layers(yaml_document_t *doc, yaml_node_t *list, struct session_frozen *f, struct error *err)
{
	size_t count = list && list->type == YAML_SEQUENCE_NODE
			       ? (size_t)(list->data.sequence.items.top - list->data.sequence.items.start)
			       : 0;

	f->layers = calloc(count + 1, sizeof(*f->layers));
	if (!f->layers)
		return error_oom(err);
	for (size_t i = 0; i < count; i++) {
		yaml_node_t *item = yaml_document_get_node(doc, list->data.sequence.items.start[i]);
		struct session_layer *layer = &f->layers[f->layer_count++];

		if (yaml_copy_text(doc, item, "file", &layer->file, err) < 0 ||
		    yaml_copy_text(doc, item, "digest", &layer->digest, err) < 0)
			return -1;
		if (!is_file_name(layer->file))
			return error_set(err, ERROR_FAILED, "a layer of machine %s has no name of a file", f->machine);
	}
	return 0;
}

static int read_frozen(yaml_document_t *doc, yaml_node_t *node, struct session_frozen *f, struct error *err)
{
	yaml_node_t *base = yaml_get(doc, node, "base");

	f->base_size = (uint64_t)yaml_get_number(doc, base, "size", 0);
	f->base_mtime = yaml_get_number(doc, base, "mtime", 0);
	f->set_up = str_eq(yaml_get_text(doc, node, "set-up"), "true");
	if (yaml_copy_text(doc, base, "path", &f->base, err) < 0 ||
	    yaml_copy_text(doc, node, "parent", &f->parent, err) < 0)
		return -1;
	return read_layers(doc, yaml_get(doc, node, "layers"), f, err);
}

static int read_snapshot(yaml_document_t *doc, yaml_node_t *node, struct session_snapshot *snapshot, struct error *err)
{
	yaml_node_t *machines = yaml_get(doc, node, "machines");
	size_t count = pairs(machines);

	snapshot->machines = calloc(count + 1, sizeof(*snapshot->machines));
	if (!snapshot->machines)
		return error_oom(err);
	if (yaml_copy_text(doc, node, "created", &snapshot->created, err) < 0)
		return -1;
	for (size_t i = 0; i < count; i++) {
		struct session_frozen *f = &snapshot->machines[snapshot->machine_count++];

		f->machine = str_dup(key_of(doc, machines, i), err);
		if (!f->machine || read_frozen(doc, value_of(doc, machines, i), f, err) < 0)
			return -1;
		if (!is_file_name(f->machine))
			return error_set(err, ERROR_FAILED, "'%s' is no name of a machine", f->machine);
	}
	return 0;
}

int snapshots_read(struct session *session, yaml_document_t *document, yaml_node_t *part, struct error *err)
{
	yaml_node_t *snapshots = yaml_get(document, part, "snapshots");
	size_t count = pairs(snapshots);

	session->snapshots = calloc(count + 1, sizeof(*session->snapshots));
	if (!session->snapshots)
		return error_oom(err);
	for (size_t i = 0; i < count; i++) {
		struct session_snapshot *snapshot = &session->snapshots[session->snapshot_count++];

		snapshot->name = str_dup(key_of(document, snapshots, i), err);
		if (!snapshot->name || read_snapshot(document, value_of(document, snapshots, i), snapshot, err) < 0)
			return error_prefix(err, "snapshot %s", snapshot->name ?: "?");
	}
	for (size_t i = 0; i < session->machine_count; i++) {
		const struct session_machine *m = &session->machines[i];

		for (size_t j = 0; j < m->disks.count + m->next_disks.count; j++)
			if (!is_file_name(j < m->disks.count ? m->disks.items[j] : m->next_disks.items[j - m->disks.count]))
				return error_set(err, ERROR_FAILED, "a disk of machine %s has no name of a file", m->name);
	}
	return 0;
}

/* ---- writing ---- */

void base_write(struct yaml_out *out, const char *path, uint64_t size, int64_t mtime)
{
	if (!path)
		return;
	yaml_out_map(out, "base", false);
	yaml_out_text(out, "path", path);
	yaml_out_number(out, "size", (int64_t)size);
	yaml_out_number(out, "mtime", mtime);
	yaml_out_close_map(out);
}

static void write_frozen(struct yaml_out *out, const struct session_frozen *f)
{
	yaml_out_map(out, f->machine, false);
	yaml_out_list(out, "layers");
	for (size_t i = 0; i < f->layer_count; i++) {
		yaml_out_map(out, NULL, false);
		yaml_out_text(out, "file", f->layers[i].file);
		yaml_out_text(out, "digest", f->layers[i].digest);
		yaml_out_close_map(out);
	}
	yaml_out_close_list(out);
	yaml_out_text(out, "parent", f->parent);
	base_write(out, f->base, f->base_size, f->base_mtime);
	yaml_out_plain(out, "set-up", f->set_up ? "true" : "false");
	yaml_out_close_map(out);
}

void snapshots_write(struct yaml_out *out, const struct session *session)
{
	if (!session->snapshot_count)
		return;
	yaml_out_map(out, "snapshots", false);
	for (size_t i = 0; i < session->snapshot_count; i++) {
		const struct session_snapshot *snapshot = &session->snapshots[i];

		yaml_out_map(out, snapshot->name, false);
		yaml_out_text(out, "created", snapshot->created);
		yaml_out_map(out, "machines", false);
		for (size_t j = 0; j < snapshot->machine_count; j++)
			write_frozen(out, &snapshot->machines[j]);
		yaml_out_close_map(out);
		yaml_out_close_map(out);
	}
	yaml_out_close_map(out);
}
