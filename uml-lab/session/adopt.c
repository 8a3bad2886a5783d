/*
 * Sessions of disks that come from elsewhere: an opened submission.
 *
 * The folder is made as .NAME.opening and gets its name by one rename when all is in it, session.yml
 * included; so there is no session that is half made. What a killed verb leaves is removed by gc, or by the
 * next one of that name, under the session's lock.
 *
 * The disks are never written: they are the layers of a snapshot, and the machines' own files are empty ones
 * that stand on them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "cow/ops.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/session/session_internal.h"

/* ---- session.yml ---- */

void session_origin_free(struct session_origin *origin)
{
	free(origin->file);
	free(origin->student);
	free(origin->time);
	*origin = (struct session_origin){0};
}

int session_origin_read(yaml_document_t *document, yaml_node_t *node, struct session_origin *origin,
			struct error *err)
{
	origin->network = str_eq(yaml_get_text(document, node, "network"), "true");
	origin->weak = str_eq(yaml_get_text(document, node, "weak"), "true");
	if (yaml_copy_text(document, node, "file", &origin->file, err) < 0 ||
	    yaml_copy_text(document, node, "student", &origin->student, err) < 0)
		return -1;
	return yaml_copy_text(document, node, "time", &origin->time, err);
}

void session_origin_write(struct yaml_out *out, const struct session_origin *origin)
{
	if (!origin->file)
		return;
	yaml_out_map(out, "submission", false);
	yaml_out_text(out, "file", origin->file);
	yaml_out_text(out, "student", origin->student);
	yaml_out_text(out, "time", origin->time);
	yaml_out_plain(out, "network", origin->network ? "true" : "false");
	yaml_out_plain(out, "weak", origin->weak ? "true" : "false");
	yaml_out_close_map(out);
}

/* ---- the folder ---- */

static int check_free(const char *name, const char *folder, struct error *err)
{
	cleanup_free char *yml = file_join(err, folder, "session.yml");

	if (!yml)
		return -1;
	if (!file_exists(yml))
		return file_remove_tree(folder, err); /* what a killed `up` left */
	error_set(err, ERROR_STATE, "there is a session %s already", name);
	return error_hint(err, "give this one a name: --name SESSION; or remove that one: uml-lab gc %s",
			  name);
}

int session_adopt_begin(const char *name, char **folder, int *lock, struct error *err)
{
	cleanup_free char *root = session_root(err), *final = NULL, *path = NULL;
	cleanup_close int held = -1;

	if (!str_is_name(name, SESSION_NAME_MAX)) {
		error_set(err, ERROR_USAGE, "'%s' cannot be the name of a session", name);
		return error_hint(err, "allowed: up to %d of a-z, 0-9 and -, not starting with -",
				  SESSION_NAME_MAX);
	}
	final = root ? file_join(err, root, name) : NULL;
	path = final ? str_printf(err, "%s/.%s" SESSION_OPENING, root, name) : NULL;
	held = path ? session_lock(name, SESSION_LOCK_MS, err) : -1;
	if (held < 0 || check_free(name, final, err) < 0 || file_remove_tree(path, err) < 0)
		return -1;
	if (mkdir(path, 0700) < 0)
		return error_errno(err, errno, "cannot make the folder %s", path);
	*folder = steal_ptr(&path);
	*lock = steal_fd(&held);
	return 0;
}

void session_adopt_abort(char *folder)
{
	if (folder)
		file_remove_tree(folder, NULL);
	free(folder);
}

/* ---- the session ---- */

/* Puts an empty file over a disk, and notes both. */
static int stack(const struct session *s, const char *machine, size_t disk, struct session_layer *layer,
		 struct strv *disks, struct error *err)
{
	cleanup_free char *first = layer_first_name(disk, err),
			  *below = first ? layer_path(s, machine, first, err) : NULL;
	cleanup_free char *name = below ? layer_new_name(s, machine, disk, false, err) : NULL, *top = NULL;

	top = name ? layer_path(s, machine, name, err) : NULL;
	if (!top || cow_create(top, below, &(struct cow_create_options){.durable = true}, err) < 0)
		return -1;
	layer->file = steal_ptr(&first);
	return strv_add(disks, name, err);
}

static int freeze_machine(const struct session *s, struct session_machine *m, size_t disk_count,
			  const char *snapshot, struct session_frozen *f, struct error *err)
{
	cleanup_strv struct strv disks = STRV_INIT;

	*f = (struct session_frozen){
		.base_size = m->base_size, .base_mtime = m->base_mtime, .set_up = m->set_up};
	f->machine = str_dup(m->name, err);
	f->base = str_dup(m->base, err);
	m->snapshot = str_dup(snapshot, err);
	f->layers = calloc(disk_count, sizeof(*f->layers));
	if (!f->machine || !f->base || !m->snapshot || !f->layers)
		return error_oom(err);
	f->layer_count = disk_count;
	for (size_t i = 0; i < disk_count; i++)
		if (stack(s, m->name, i, &f->layers[i], &disks, err) < 0)
			return error_prefix(err, "machine %s", m->name);
	return layers_set_disks(m, &disks, err);
}

static int freeze_all(struct session *s, const char *snapshot, struct error *err)
{
	s->snapshots = calloc(1, sizeof(*s->snapshots));
	if (!s->snapshots)
		return error_oom(err);
	s->snapshot_count = 1;
	s->snapshots->name = str_dup(snapshot, err);
	s->snapshots->created = str_dup(s->created, err);
	s->snapshots->machines = calloc(s->machine_count, sizeof(*s->snapshots->machines));
	if (!s->snapshots->name || !s->snapshots->created || !s->snapshots->machines)
		return error_oom(err);
	for (size_t i = 0; i < s->machine_count; i++) {
		struct session_frozen *f = &s->snapshots->machines[s->snapshots->machine_count++];

		if (freeze_machine(s, &s->machines[i], s->lab->machines[i].disk_count + 1, snapshot, f, err) <
		    0)
			return -1;
	}
	return 0;
}

/* The tops' headers name the folder as it was called before; libcow finds their layers beside them anyway. */
static void rename_tops(const struct session *s)
{
	for (size_t i = 0; i < s->machine_count; i++)
		for (size_t j = 0; j < s->machines[i].disks.count; j++) {
			const struct session_machine *m = &s->machines[i];
			cleanup_free char *top = layer_path(s, m->name, m->disks.items[j], NULL);
			cleanup_free char *first = layer_first_name(j, NULL), *below = NULL;

			below = first ? layer_path(s, m->name, first, NULL) : NULL;
			if (top && below)
				cow_rebase(top, below, true, NULL, NULL);
		}
}

int session_adopt_finish(struct session *draft, const char *folder, const char *snapshot, struct error *err)
{
	cleanup_free char *root = session_root(err), *final = root ? file_join(err, root, draft->name) : NULL;

	free(draft->folder);
	free(draft->created);
	draft->folder = str_dup(folder, err);
	draft->created = session_now(err);
	if (!final || !draft->folder || !draft->created ||
	    session_networks_carry_over(draft, NULL, err) < 0 || freeze_all(draft, snapshot, err) < 0 ||
	    session_write(draft, err) < 0)
		return -1;
	if (rename(folder, final) < 0)
		return error_errno(err, errno, "cannot make the folder %s", final);
	free(draft->folder);
	draft->folder = steal_ptr(&final);
	rename_tops(draft);
	return 0;
}
