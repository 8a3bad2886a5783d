/*
 * From a lab to a session on disk: the folder, session.yml, the overlays.
 *
 * `up` describes the session anew from lab.yml each time, so that an instructor's correction reaches students
 * who already have a session; what they changed lives in the overlays and stays. Only a changed
 * base does not go together with an overlay that was made over the old one.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "cow/cow.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/image/image.h"
#include "uml-lab/session/session_internal.h"

static char *fresh_seed(struct error *err)
{
	uint64_t words[2];

	if (getrandom(words, sizeof(words), 0) != sizeof(words)) {
		error_errno(err, errno, "cannot get random bytes");
		return NULL;
	}
	return str_printf(err, "%016" PRIx64 "%016" PRIx64, words[0], words[1]);
}

/* The name of the lab alone, without a session's seed, to find the session it belongs to. */
static char *lab_name(const char *lab, const struct strv *params, struct error *err)
{
	struct lab *loaded = lab_load(lab, &(struct lab_load_options){.params = params}, err);
	char *name = loaded ? str_dup(loaded->name, err) : NULL;

	lab_free(loaded);
	return name;
}

/* Hands what is known of the machines that the new description still has from the old session to the new one. */
static int carry_over(struct session *s, struct session *old, struct error *err)
{
	if (session_add_machines(s, err) < 0)
		return -1;
	for (size_t i = 0; old && i < s->machine_count; i++) {
		struct session_machine *before = session_find_machine(old, s->machines[i].name);

		if (!before)
			continue;
		free(s->machines[i].name);
		s->machines[i] = *before;
		*before = (struct session_machine){0};
	}
	for (size_t i = 0; old && i < old->machine_count; i++)
		if (session_machine_runs(&old->machines[i]) && old->machines[i].name)
			return error_set(err, ERROR_STATE, "machine %s is running but is no longer in %s",
					 old->machines[i].name, s->lab_file),
			       error_hint(err, "stop it first: uml-lab down %s", s->name);
	if (session_networks_carry_over(s, old, err) < 0)
		return -1;
	/* Snapshots hold also machines that the lab has no more: it may get them back. */
	if (old) {
		s->snapshots = steal_ptr(&old->snapshots);
		s->snapshot_count = old->snapshot_count;
		old->snapshot_count = 0;
	}
	return 0;
}

static int check_same_lab(const struct session *old, const struct lab *lab, struct error *err)
{
	if (!old || str_eq(old->lab_file, lab->file) || !file_exists(old->lab_file))
		return 0;
	error_set(err, ERROR_STATE, "session %s was made from another lab, %s", old->name, old->lab_file);
	return error_hint(err, "give this one a name of its own: --name SESSION");
}

static struct session *describe(const char *lab, const char *name, const struct strv *params, struct session *old,
				struct error *err)
{
	cleanup_session struct session *s = calloc(1, sizeof(*s));
	struct lab_load_options options = {.params = params};

	if (!s) {
		error_oom(err);
		return NULL;
	}
	s->name = str_dup(name, err);
	s->seed = old && old->seed ? str_dup(old->seed, err) : fresh_seed(err);
	s->created = old && old->created ? str_dup(old->created, err) : session_now(err);
	s->ends = old && old->ends ? str_dup(old->ends, err) : NULL;
	if (!s->name || !s->seed || !s->created || (old && old->ends && !s->ends))
		return NULL;
	/* Parameters given once hold for the session's life, unless given anew. */
	if (old && params && !params->count)
		options.params = &old->params;
	options.random_seed = s->seed;
	s->lab = lab_load(lab, &options, err);
	if (!s->lab || check_same_lab(old, s->lab, err) < 0)
		return NULL;
	for (size_t i = 0; options.params && i < options.params->count; i++)
		if (strv_add(&s->params, options.params->items[i], err) < 0)
			return NULL;
	s->lab_file = str_dup(s->lab->file, err);
	if (!s->lab_file || carry_over(s, old, err) < 0)
		return NULL;
	return steal_ptr(&s);
}

/* Puts a described session on disk: its folder and session.yml. */
static int settle_down(const struct session *s, struct error *err)
{
	cleanup_close int yml = -1;

	if (file_mkdir_p(s->folder, 0700, err) < 0)
		return -1;
	yml = session_yml_lock(s->name, err);
	return yml < 0 ? -1 : session_write(s, err);
}

struct session *session_prepare(const char *lab, const char *name, const struct strv *params, bool dry_run, int *lock,
				struct error *err)
{
	cleanup_session struct session *s = NULL, *old = NULL;
	cleanup_free char *own_name = name ? str_dup(name, err) : lab_name(lab, params, err);
	cleanup_free char *root = session_root(err);
	cleanup_close int held = -1;
	struct error missing = ERROR_INIT;

	if (!own_name || !root)
		return NULL;
	if (!str_is_name(own_name, SESSION_NAME_MAX)) {
		error_set(err, ERROR_USAGE, "'%s' cannot be the name of a session", own_name);
		error_hint(err, "allowed: up to %d of a-z, 0-9 and -, not starting with -", SESSION_NAME_MAX);
		return NULL;
	}
	held = session_lock(own_name, SESSION_LOCK_MS, err);
	if (held < 0)
		return NULL;
	old = session_load(own_name, &missing);
	if (!old && missing.kind != ERROR_NOT_FOUND) {
		error_copy(err, &missing);
		return NULL;
	}
	if (old && old->origin.file) {
		error_set(err, ERROR_STATE, "session %s is the opened submission of %s", own_name, old->origin.student);
		error_hint(err, "start it with `uml-lab restart %s`; for a session of the lab's own: --name SESSION", own_name);
		return NULL;
	}
	s = describe(lab, own_name, params, old, err);
	if (!s || !(s->folder = file_join(err, root, own_name)) || (!dry_run && settle_down(s, err) < 0))
		return NULL;
	*lock = steal_fd(&held);
	return steal_ptr(&s);
}

/* ---- disks ---- */

int session_fresh_extra_disk(const char *path, uint64_t size, struct error *err)
{
	cleanup_free char *temporary = str_printf(err, "%s.new", path);
	cleanup_close int fd = -1;

	if (!temporary)
		return -1;
	fd = open(temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd >= 0 && cow_note_raw(fd, path, err) < 0) {
		unlink(temporary);
		return -1;
	}
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0 || rename(temporary, path) < 0) {
		error_errno(err, errno, "cannot make disk %s", path);
		unlink(temporary);
		return -1;
	}
	return 0;
}

int session_remember_base(struct session_machine *m, const struct image *image, struct error *err)
{
	char *path = str_dup(image->path, err);

	if (!path)
		return -1;
	free(m->base);
	m->base = path;
	m->base_size = image->size;
	m->base_mtime = image->mtime.tv_sec;
	m->set_up = false;
	return 0;
}

int session_fresh_disks(struct session *session, const struct lab_machine *machine, struct error *err)
{
	cleanup_free char *folder = session_machine_folder(session, machine->name, err), *overlay = NULL;
	cleanup_image struct image image = IMAGE_INIT;

	overlay = session_overlay(session, machine->name, err);
	if (!folder || !overlay || file_mkdir_p(folder, 0700, err) < 0 || image_find(machine->base, &image, err) < 0)
		return -1;
	if (cow_create(overlay, image.path, &(struct cow_create_options){.replace = true}, err) < 0)
		return -1;
	for (size_t i = 0; i < machine->disk_count; i++) {
		cleanup_free char *path = session_disk(session, machine->name, i + 1, err);

		if (!path || session_fresh_extra_disk(path, machine->disks[i].size, err) < 0)
			return -1;
	}
	return session_remember_base(session_find_machine(session, machine->name), &image, err);
}
