/*
 * Snapshots, and going back to them.
 *
 * create	Each disk gets a new, empty file over the present one, which is frozen
 *		thereby. What is written later goes into the new one.
 * restore	Each disk gets a new, empty file over the one that was frozen.
 * reset	The same over the base. Where no snapshot stands on anything, the overlay is
 *		replaced in its place: that is what most resets are.
 * remove	The name goes; what stood on the files still does (layers.c merges them).
 *
 * All new files are made first, under new names; then session.yml is rewritten,
 * once for all machines; then what is not needed any more goes. So a killed
 * verb leaves the old or the new state.
 *
 * The kernel's own driver (disk: ubd) opens chains of one layer only. There a
 * snapshot is a copy of all that was changed since the base, and so is what is restored.
 */
#include <stdlib.h>
#include <string.h>

#include "cow/ops.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/session/session_internal.h"

/* ---- the disks of one machine, under new names ---- */

static bool can_stack(const struct lab_machine *lm)
{
	return !str_eq(lm->disk_driver, "ubd");
}

/* The lowest file of a chain that lies in the machine's folder: above it is what was changed. */
static size_t lowest_of(const struct cow_chain *chain, const char *folder)
{
	size_t lowest = 0, n = strlen(folder);

	for (size_t i = 1; i < cow_chain_depth(chain); i++) {
		struct cow_file_info info;

		cow_chain_file(chain, i, &info);
		if (!str_starts(info.path, folder) || info.path[n] != '/')
			break;
		lowest = i;
	}
	return lowest;
}

int layers_copy(const struct session *s, const char *machine, const char *from, const char *out, struct error *err)
{
	cleanup_free char *folder = session_machine_folder(s, machine, err), *source = layer_path(s, machine, from, err);
	cleanup_free char *real = folder ? file_absolute(folder, false, err) : NULL;
	struct cow_chain *chain = real && source ? cow_chain_open(source, NULL, err) : NULL;
	struct cow_file_info lowest;
	size_t index;
	int result;

	if (!chain)
		return -1;
	index = lowest_of(chain, real);
	cow_chain_file(chain, index, &lowest);
	if (lowest.header.format == COW_RAW)
		result = cow_flatten(chain, out, false, true, err);
	else if (index == 0)
		result = cow_convert(source, out, false, NULL, err);
	else
		result = cow_merge(source, lowest.path, out, NULL, err);
	cow_chain_close(chain);
	return result;
}

/* The same into a new file of the machine's folder; *name becomes its name. The lowest file of an extra disk is raw. */
static int copy_disk(const struct session *s, const char *machine, size_t disk, const char *from, char **name,
		     struct error *err)
{
	cleanup_free char *new_name = layer_new_name(s, machine, disk, disk > 0, err);
	cleanup_free char *out = new_name ? layer_path(s, machine, new_name, err) : NULL;

	if (!out || layers_copy(s, machine, from, out, err) < 0)
		return -1;
	*name = steal_ptr(&new_name);
	return 0;
}

/* A new, empty file over another; *name becomes its name. */
static int stack_disk(const struct session *s, const char *machine, size_t disk, const char *backing, char **name,
		      struct error *err)
{
	cleanup_free char *new_name = layer_new_name(s, machine, disk, false, err);
	cleanup_free char *path = new_name ? layer_path(s, machine, new_name, err) : NULL;

	if (!path || cow_create(path, backing, &(struct cow_create_options){.durable = true}, err) < 0)
		return -1;
	*name = steal_ptr(&new_name);
	return 0;
}

static int fresh_extra(const struct session *s, const char *machine, size_t disk, uint64_t size, char **name,
		       struct error *err)
{
	cleanup_free char *new_name = layer_new_name(s, machine, disk, true, err);
	cleanup_free char *path = new_name ? layer_path(s, machine, new_name, err) : NULL;

	if (!path || session_fresh_extra_disk(path, size, err) < 0)
		return -1;
	*name = steal_ptr(&new_name);
	return 0;
}

/* The name that a disk's file has now. malloc'ed. */
static char *name_now(const struct session_machine *m, size_t disk, struct error *err)
{
	const char *now = layer_present_name(m, disk);

	return now ? str_dup(now, err) : layer_first_name(disk, err);
}

/* ---- create ---- */

/* What a machine that runs is frozen as: its disk server makes the new files, in snapshot_switch(). */
static int plan_running(const struct session *s, const struct lab_machine *lm, const struct session_machine *m,
			struct session_frozen *f, struct strv *disks, struct error *err)
{
	for (size_t i = 0; i < f->layer_count; i++) {
		cleanup_free char *name = layer_new_name(s, lm->name, i, false, err);

		f->layers[i].file = name_now(m, i, err);
		if (!name || !f->layers[i].file || strv_add(disks, name, err) < 0)
			return -1;
	}
	return 0;
}

/* A snapshot that is being made, and the files that its machines go on with. */
struct draft {
	struct session_snapshot snapshot;
	struct strv *disks;		/* one list a machine of the snapshot */
	size_t count;			/* of them, also when the snapshot was handed over */
};

static void draft_free(struct draft *d)
{
	for (size_t i = 0; d->disks && i < d->count; i++)
		strv_free(&d->disks[i]);
	free(d->disks);
	snapshot_free(&d->snapshot);
}

/* Nobody writes to a stopped machine's disk behind our back: `uml-cow mount` might. */
static int check_unused(const char *path, struct error *err)
{
	struct cow_chain *chain = cow_chain_open(path, NULL, err);

	cow_chain_close(chain);
	return chain ? 0 : -1;
}

static int freeze_disk(const struct session *s, const struct lab_machine *lm, const struct session_machine *m, size_t disk,
		       struct session_layer *layer, struct strv *disks, struct error *err)
{
	cleanup_free char *now = name_now(m, disk, err), *path = now ? layer_path(s, lm->name, now, err) : NULL;
	cleanup_free char *new_name = NULL;

	if (!path || check_unused(path, err) < 0)
		return -1;
	if (can_stack(lm)) {
		if (stack_disk(s, lm->name, disk, path, &new_name, err) < 0 || strv_add(disks, new_name, err) < 0)
			return -1;
		layer->file = steal_ptr(&now);
		return 0;
	}
	if (copy_disk(s, lm->name, disk, now, &new_name, err) < 0 || strv_add(disks, now, err) < 0)
		return -1;
	layer->file = steal_ptr(&new_name);
	return 0;
}

static int describe_frozen(const struct session_machine *m, size_t disks, struct session_frozen *f, struct error *err)
{
	f->layers = calloc(disks, sizeof(*f->layers));
	if (!f->layers)
		return error_oom(err);
	f->layer_count = disks;
	f->base_size = m->base_size;
	f->base_mtime = m->base_mtime;
	f->set_up = m->set_up;
	f->machine = str_dup(m->name, err);
	f->base = m->base ? str_dup(m->base, err) : NULL;
	f->parent = m->snapshot ? str_dup(m->snapshot, err) : NULL;
	return f->machine && (f->base || !m->base) && (f->parent || !m->snapshot) ? 0 : -1;
}

static int freeze_machine(struct session *s, const struct lab_machine *lm, struct draft *d, struct error *err)
{
	const struct session_machine *m = session_find_machine(s, lm->name);
	struct session_frozen *f = &d->snapshot.machines[d->snapshot.machine_count];
	struct strv *disks = &d->disks[d->snapshot.machine_count++];

	if (describe_frozen(m, lm->disk_count + 1, f, err) < 0)
		return -1;
	if (session_machine_runs(m))
		return plan_running(s, lm, m, f, disks, err);
	for (size_t i = 0; i < f->layer_count; i++)
		if (freeze_disk(s, lm, m, i, &f->layers[i], disks, err) < 0)
			return error_prefix(err, "cannot freeze disk %zu of machine %s", i, lm->name);
	return 0;
}

static int replace_text(char **text, const char *with, struct error *err)
{
	char *copy = with ? str_dup(with, err) : NULL;

	if (with && !copy)
		return -1;
	free(*text);
	*text = copy;
	return 0;
}

/* The one moment of change. */
static int note_snapshot(struct session *s, void *arg, struct error *err)
{
	struct draft *d = arg;
	struct session_snapshot *snapshots = reallocarray(s->snapshots, s->snapshot_count + 1, sizeof(*snapshots));

	if (!snapshots)
		return error_oom(err);
	s->snapshots = snapshots;
	for (size_t i = 0; i < d->snapshot.machine_count; i++) {
		struct session_machine *m = session_find_machine(s, d->snapshot.machines[i].machine);

		if (replace_text(&m->snapshot, d->snapshot.name, err) < 0 || layers_set_disks(m, &d->disks[i], err) < 0)
			return -1;
	}
	snapshots[s->snapshot_count++] = d->snapshot;
	d->snapshot = (struct session_snapshot){0};
	return 0;
}

/* Machines that never started have no disks yet: as they would start, so they are frozen. */
static int make_missing(struct session *s, void *arg, struct error *err)
{
	(void)arg;
	for (size_t i = 0; i < s->lab->machine_count; i++) {
		const struct lab_machine *lm = &s->lab->machines[i];
		cleanup_free char *overlay = session_overlay(s, lm->name, err);

		if (!overlay)
			return -1;
		if ((!file_exists(overlay) || !session_find_machine(s, lm->name)->base) &&
		    session_fresh_disks(s, lm, err) < 0)
			return error_prefix(err, "cannot make the disks of %s", lm->name);
	}
	return 0;
}

int session_make_disks(struct session *session, struct error *err)
{
	return session_update(session->name, make_missing, NULL, err) < 0 ? -1 : session_reload(session, err);
}

static int check_new_name(const struct session *s, const char *name, struct error *err)
{
	if (!str_is_name(name, SESSION_NAME_MAX)) {
		error_set(err, ERROR_USAGE, "'%s' cannot be the name of a snapshot", name);
		return error_hint(err, "allowed: up to %d of a-z, 0-9 and -, not starting with -", SESSION_NAME_MAX);
	}
	if (!session_find_snapshot(s, name))
		return 0;
	error_set(err, ERROR_FAILED, "session %s has a snapshot %s already", s->name, name);
	return error_hint(err, "choose another name, or remove it first: uml-lab snapshot remove %s %s", s->name, name);
}

static int take_digests(struct session *s, void *arg, struct error *err)
{
	(void)arg;
	for (size_t i = 0; i < s->snapshot_count; i++) {
		for (size_t j = 0; j < s->snapshots[i].machine_count; j++) {
			struct session_frozen *f = &s->snapshots[i].machines[j];

			for (size_t k = 0; k < f->layer_count; k++) {
				cleanup_free char *path = layer_path(s, f->machine, f->layers[k].file, err);
				char digest[COW_DIGEST_MAX];

				if (!path || cow_file_digest(path, digest, err) < 0 ||
				    replace_text(&f->layers[k].digest, digest, err) < 0)
					return -1;
			}
		}
	}
	return 0;
}

/*
 * Digests are taken when all is done, since reading takes its time; libcow notes them. So there is nothing left to read
 * when session.yml is locked, for which supervisors wait.
 */
static int note_digests(struct session *session, struct error *err)
{
	return take_digests(session, NULL, err) < 0 ? -1 : session_update(session->name, take_digests, NULL, err);
}

static int freeze_all(struct session *s, struct draft *d, struct error *err)
{
	d->snapshot.created = session_now(err);
	d->snapshot.machines = calloc(s->lab->machine_count, sizeof(*d->snapshot.machines));
	d->disks = calloc(s->lab->machine_count, sizeof(*d->disks));
	if (!d->snapshot.created || !d->snapshot.machines || !d->disks)
		return error_oom(err);
	d->count = s->lab->machine_count;
	for (size_t i = 0; i < s->lab->machine_count; i++)
		if (freeze_machine(s, &s->lab->machines[i], d, err) < 0)
			return -1;
	return 0;
}

/* With the kernel's own driver nothing can be switched under a guest. */
static int check_drivers(const struct session *s, struct error *err)
{
	for (size_t i = 0; i < s->lab->machine_count; i++) {
		const struct lab_machine *lm = &s->lab->machines[i];

		if (can_stack(lm) || !session_machine_runs(session_find_machine((struct session *)s, lm->name)))
			continue;
		error_set(err, ERROR_STATE, "machine %s runs with disk: ubd, whose disk cannot be frozen while it runs", lm->name);
		return error_hint(err, "stop the session first (uml-lab down %s), or leave out disk: ubd", s->name);
	}
	return 0;
}

/* Before a disk is switched: whoever comes after us must know of the new files. */
static int note_next(struct session *s, void *arg, struct error *err)
{
	const struct draft *d = arg;

	for (size_t i = 0; i < d->snapshot.machine_count; i++) {
		struct session_machine *m = session_find_machine(s, d->snapshot.machines[i].machine);

		if (!session_machine_runs(m))
			continue;
		strv_free(&m->next_disks);
		for (size_t j = 0; j < d->disks[i].count; j++)
			if (strv_add(&m->next_disks, d->disks[i].items[j], err) < 0)
				return -1;
	}
	return 0;
}

static int switch_running(struct session *s, const struct draft *d, struct session_snapshot_result *result,
			  struct error *err)
{
	cleanup_free struct live_switch *wanted = calloc(d->snapshot.machine_count + 1, sizeof(*wanted));
	size_t count = 0;

	if (!wanted)
		return error_oom(err);
	for (size_t i = 0; i < d->snapshot.machine_count; i++) {
		const struct session_machine *m = session_find_machine(s, d->snapshot.machines[i].machine);

		if (session_machine_runs(m))
			wanted[count++] = (struct live_switch){m->name, &d->disks[i]};
	}
	if (!count)
		return 0;
	return session_update(s->name, note_next, (void *)d, err) < 0 ? -1 : snapshot_switch(s, wanted, count, result, err);
}

int session_snapshot_create(struct session *session, const char *name, struct session_snapshot_result *result,
			    struct error *err)
{
	struct draft d = {.snapshot.name = str_dup(name, err)};
	int done = -1;

	*result = (struct session_snapshot_result){0};
	if (d.snapshot.name && check_new_name(session, name, err) == 0 && session_settle(session, err) == 0 &&
	    check_drivers(session, err) == 0 && layers_repair(session, err) == 0 &&
	    session_make_disks(session, err) == 0 && freeze_all(session, &d, err) == 0 &&
	    switch_running(session, &d, result, err) == 0)
		done = session_update(session->name, note_snapshot, &d, err);
	draft_free(&d);
	if (done == 0 && session_reload(session, err) == 0)
		done = note_digests(session, err);
	/* After a failure: takes away what was made for nothing. */
	session_reload(session, NULL);
	layers_repair(session, NULL);
	return done;
}

/* ---- back ---- */

struct way_back {
	const char *to;			/* name of the snapshot; NULL: the base */
	const struct strv *names;
};

static int put_back_disk(const struct session *s, const struct lab_machine *lm, size_t disk,
			 const struct session_frozen *f, const struct image *image, char **name, struct error *err)
{
	cleanup_free char *frozen = NULL;

	if (f && disk < f->layer_count) {
		if (!can_stack(lm))
			return copy_disk(s, lm->name, disk, f->layers[disk].file, name, err);
		frozen = layer_path(s, lm->name, f->layers[disk].file, err);
		return frozen ? stack_disk(s, lm->name, disk, frozen, name, err) : -1;
	}
	return disk ? fresh_extra(s, lm->name, disk, lm->disks[disk - 1].size, name, err)
		    : stack_disk(s, lm->name, 0, image->path, name, err);
}

static int put_back_machine(struct session *s, const struct lab_machine *lm, const struct way_back *way,
			    struct strv *disks, struct error *err)
{
	const struct session_snapshot *snapshot = way->to ? session_find_snapshot(s, way->to) : NULL;
	const struct session_frozen *f = snapshot ? session_find_frozen(snapshot, lm->name) : NULL;
	struct session_machine *m = session_find_machine(s, lm->name);
	cleanup_free char *folder = session_machine_folder(s, lm->name, err);
	cleanup_image struct image image = IMAGE_INIT;

	if (!folder || file_mkdir_p(folder, 0700, err) < 0 || (!f && image_find(lm->base, &image, err) < 0))
		return -1;
	for (size_t i = 0; i <= lm->disk_count; i++) {
		cleanup_free char *name = NULL;

		if (put_back_disk(s, lm, i, f, &image, &name, err) < 0 || strv_add(disks, name, err) < 0)
			return -1;
	}
	if (f ? replace_text(&m->base, f->base, err) : session_remember_base(m, &image, err))
		return -1;
	if (f) {
		m->base_size = f->base_size;
		m->base_mtime = f->base_mtime;
		m->set_up = f->set_up;
	}
	return replace_text(&m->snapshot, f ? snapshot->name : NULL, err);
}

static int put_back_all(struct session *s, void *arg, struct error *err)
{
	struct way_back *way = arg;

	last_check_free(&s->last_check); /* what was graded is gone */
	for (size_t i = 0; i < s->lab->machine_count; i++) {
		const struct lab_machine *lm = &s->lab->machines[i];
		struct session_machine *m = session_find_machine(s, lm->name);
		cleanup_strv struct strv disks = STRV_INIT;

		if (!session_is_named(way->names, lm->name))
			continue;
		if (session_machine_runs(m))
			return error_set(err, ERROR_STATE, "machine %s was started again meanwhile", lm->name);
		if (put_back_machine(s, lm, way, &disks, err) < 0)
			return error_prefix(err, "cannot put back machine %s", lm->name);
		if (layers_set_disks(m, &disks, err) < 0)
			return -1;
		free(m->cause);
		m->cause = NULL;
		m->ever_started = false;
	}
	return 0;
}

int session_check_snapshot(const struct session *session, const char *name, struct error *err)
{
	const struct session_snapshot *snapshot = session_find_snapshot(session, name);
	cleanup_strbuf struct strbuf all = STRBUF_INIT;

	for (size_t i = 0; snapshot && i < snapshot->machine_count; i++) {
		const struct session_frozen *f = &snapshot->machines[i];

		for (size_t j = 0; j < f->layer_count; j++) {
			cleanup_free char *path = layer_path(session, f->machine, f->layers[j].file, err);
			struct cow_chain *chain = path ? cow_chain_open(path, NULL, err) : NULL;

			cow_chain_close(chain);
			if (!chain)
				return error_prefix(err, "snapshot %s, machine %s", name, f->machine);
		}
	}
	if (snapshot)
		return 0;
	for (size_t i = 0; i < session->snapshot_count; i++)
		strbuf_printf(&all, "%s%s", i ? ", " : "", session->snapshots[i].name);
	error_set(err, ERROR_NOT_FOUND, "session %s has no snapshot %s", session->name, name);
	return all.length ? error_hint(err, "it has: %s", all.data)
			  : error_hint(err, "uml-lab snapshot create %s NAME makes one", session->name);
}

int session_put_back(struct session *session, const char *to, const struct strv *names, struct error *err)
{
	struct way_back way = {.to = to, .names = names};
	int result = layers_repair(session, err);

	if (result == 0)
		result = session_update(session->name, put_back_all, &way, err);
	session_reload(session, NULL);
	layers_repair(session, NULL);
	return result;
}

/* ---- remove ---- */

static int forget(struct session *s, void *arg, struct error *err)
{
	const char *name = arg;
	struct session_snapshot *gone = session_find_snapshot(s, name);
	size_t index = (size_t)(gone - s->snapshots);

	/* What stood on it stands on what it stood on. */
	for (size_t i = 0; i < s->machine_count; i++) {
		struct session_frozen *f = session_find_frozen(gone, s->machines[i].name);

		if (str_eq(s->machines[i].snapshot, name) && replace_text(&s->machines[i].snapshot, f ? f->parent : NULL, err) < 0)
			return -1;
	}
	for (size_t i = 0; i < s->snapshot_count; i++) {
		for (size_t j = 0; j < s->snapshots[i].machine_count; j++) {
			struct session_frozen *child = &s->snapshots[i].machines[j];
			struct session_frozen *f = session_find_frozen(gone, child->machine);

			if (str_eq(child->parent, name) && replace_text(&child->parent, f ? f->parent : NULL, err) < 0)
				return -1;
		}
	}
	snapshot_free(gone);
	memmove(gone, gone + 1, (s->snapshot_count - index - 1) * sizeof(*gone));
	s->snapshot_count--;
	return 0;
}

int session_snapshot_remove(struct session *session, const char *name, struct error *err)
{
	if (!session_find_snapshot(session, name))
		return session_check_snapshot(session, name, err);
	if (session_settle(session, err) < 0 || session_update(session->name, forget, (void *)name, err) < 0 ||
	    session_reload(session, err) < 0 || layers_repair(session, err) < 0)
		return -1;
	for (size_t i = 0; i < session->machine_count; i++)
		if (session_machine_runs(&session->machines[i]) &&
		    snapshot_merge_running(session, session->machines[i].name, err) < 0)
			return -1;
	/* Merging gave files another content. */
	return note_digests(session, err) < 0 ? -1 : session_reload(session, err);
}
