/* What is known of a session's snapshots, as JSON. */
#include <sys/stat.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/session/session_internal.h"

static json_t *text_or_null(const char *text)
{
	return text ? json_string(text) : json_null();
}

static json_t *layer_json(const struct session *s, const struct session_frozen *f, const struct session_layer *layer,
			  json_int_t *total)
{
	cleanup_free char *path = layer_path(s, f->machine, layer->file, NULL);
	struct stat st;
	json_int_t bytes = path && stat(path, &st) == 0 ? (json_int_t)st.st_blocks * 512 : 0;

	*total += bytes;
	return json_pack("{s:s, s:I, s:o}", "file", layer->file, "bytes", bytes, "digest", text_or_null(layer->digest));
}

static json_t *frozen_json(const struct session *s, const struct session_frozen *f, json_int_t *total)
{
	json_t *layers = json_array();
	json_int_t bytes = 0;

	for (size_t i = 0; i < f->layer_count; i++)
		json_array_append_new(layers, layer_json(s, f, &f->layers[i], &bytes));
	*total += bytes;
	return json_pack("{s:s, s:I, s:o, s:o}", "machine", f->machine, "bytes", bytes, "parent", text_or_null(f->parent),
			 "layers", layers);
}

/* The snapshot that all machines of this one stood on; NULL: none, or not all the same. */
static const char *common_parent(const struct session_snapshot *snapshot)
{
	for (size_t i = 1; i < snapshot->machine_count; i++)
		if (!str_eq(snapshot->machines[i].parent, snapshot->machines[0].parent))
			return NULL;
	return snapshot->machine_count ? snapshot->machines[0].parent : NULL;
}

/* The machines whose disks stand on it now. */
static json_t *current_json(const struct session *s, const struct session_snapshot *snapshot)
{
	json_t *machines = json_array();

	for (size_t i = 0; i < s->machine_count; i++)
		if (str_eq(s->machines[i].snapshot, snapshot->name))
			json_array_append_new(machines, json_string(s->machines[i].name));
	return machines;
}

json_t *session_snapshot_list(const struct session *session, struct error *err)
{
	json_t *list = json_array();

	for (size_t i = 0; list && i < session->snapshot_count; i++) {
		const struct session_snapshot *snapshot = &session->snapshots[i];
		json_t *machines = json_array(), *current = current_json(session, snapshot);
		json_int_t bytes = 0;
		bool all = json_array_size(current) == session->machine_count;

		for (size_t j = 0; j < snapshot->machine_count; j++)
			json_array_append_new(machines, frozen_json(session, &snapshot->machines[j], &bytes));
		json_array_append_new(list, json_pack("{s:s, s:s?, s:o, s:b, s:o, s:I, s:o}", "name", snapshot->name, "created",
						      snapshot->created, "parent",
						      text_or_null(common_parent(snapshot)), "current", all,
						      "current_machines", current, "bytes", bytes, "machines", machines));
	}
	if (!list)
		error_oom(err);
	return list;
}
