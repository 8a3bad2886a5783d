/*
 * gc: what killed processes, old versions and removed things left.
 *
 * Each kind has its own proof that nobody needs a thing: the locks that its maker holds
 * while it lives (runtime folders, unfinished images, files libcow makes), what session.yml
 * and COW headers name (layers.c), a newer cache file for the same kernel. Where the proof
 * needs a session to stand still, its lock is taken without waiting.
 */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/file.h"
#include "uml-lab/session/session_internal.h"

#define YOUNG_S 600 /* a cache file younger than this may just be about to be used */
#define GONE    ".gone" /* a session that is being removed: ".NAME.gone" */

struct gc {
	bool dry_run;
	session_gc_fn tell;
	void *arg;
};

static _Thread_local uint64_t tree_bytes; /* nftw() hands nothing on */

static int add_bytes(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)path;
	(void)type;
	(void)ftw;
	tree_bytes += (uint64_t)st->st_blocks * 512;
	return 0;
}

/* What a file, or a folder with all in it, takes. */
static uint64_t bytes_of(const char *path)
{
	tree_bytes = 0;
	nftw(path, add_bytes, 16, FTW_PHYS);
	return tree_bytes;
}

static int discard(const struct gc *gc, const char *what, const char *path, struct error *err)
{
	uint64_t bytes = bytes_of(path);

	if (!gc->dry_run && file_remove_tree(path, err) < 0)
		return -1;
	gc->tell(gc->arg, what, path, bytes);
	return 0;
}

/* Calls fn for each name in a folder; one that is not there has none. */
static int each(const struct gc *gc, const char *folder,
		int (*fn)(const struct gc *gc, const char *folder, const char *name, struct error *err), struct error *err)
{
	cleanup_dir DIR *dir = opendir(folder);
	cleanup_strv struct strv names = STRV_INIT;
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (!str_eq(entry->d_name, ".") && !str_eq(entry->d_name, "..") && strv_add(&names, entry->d_name, err) < 0)
			return -1;
	for (size_t i = 0; i < names.count; i++)
		if (fn(gc, folder, names.items[i], err) < 0)
			return -1;
	return 0;
}

/* ---- sessions ---- */

/* What a killed rewrite of session.yml left. Under its lock. */
static int gc_folder_entry(const struct gc *gc, const char *folder, const char *name, struct error *err)
{
	cleanup_free char *path = file_join(err, folder, name);

	if (!path)
		return -1;
	return str_starts(name, "session.yml.tmp-") || str_eq(name, SESSION_EXPORT) ? discard(gc, "unfinished file", path, err) : 0;
}

static int gc_machine(const struct gc *gc, const struct session *s, const char *machine, struct error *err)
{
	cleanup_strv struct strv unneeded = STRV_INIT;

	if (layers_unneeded(s, machine, &unneeded, err) < 0)
		return -1;
	for (size_t i = 0; i < unneeded.count; i++)
		if (discard(gc, "file of no snapshot", unneeded.items[i], err) < 0)
			return -1;
	/* What can be merged now. */
	return gc->dry_run ? 0 : layers_tidy(s, machine, NULL, err);
}

/* A damaged session is left to people, and one that is at work to its verb. */
static int gc_session(const struct gc *gc, const char *name, struct error *err)
{
	cleanup_close int lock = session_lock(name, 0, NULL), yml = -1;
	cleanup_session struct session *s = lock < 0 ? NULL : session_load(name, NULL);

	if (!s)
		return 0;
	if (!gc->dry_run && (session_settle(s, err) < 0 || layers_repair(s, err) < 0))
		return error_prefix(err, "session %s", name);
	for (size_t i = 0; i < s->machine_count; i++)
		if (gc_machine(gc, s, s->machines[i].name, err) < 0)
			return error_prefix(err, "session %s", name);
	yml = session_yml_lock(name, err);
	return yml < 0 ? -1 : each(gc, s->folder, gc_folder_entry, err);
}

/* The rest of a session whose removal was interrupted. */
static int gc_gone(const struct gc *gc, const char *folder, const char *name, struct error *err)
{
	cleanup_free char *path = file_join(err, folder, name);

	if (!path)
		return -1;
	return name[0] == '.' && str_ends(name, GONE) ? discard(gc, "removed session", path, err) : 0;
}

/* A session that was being made, unless its maker lives. */
static int gc_opening(const struct gc *gc, const char *folder, const char *name, struct error *err)
{
	cleanup_free char *path = file_join(err, folder, name), *session = NULL;
	cleanup_close int lock = -1;

	if (!path)
		return -1;
	if (name[0] != '.' || !str_ends(name, SESSION_OPENING))
		return 0;
	session = str_printf(err, "%.*s", (int)(strlen(name) - 1 - strlen(SESSION_OPENING)), name + 1);
	if (!session)
		return -1;
	lock = session_lock(session, 0, NULL);
	return lock < 0 ? 0 : discard(gc, "unfinished session", path, err);
}

static int gc_sessions(const struct gc *gc, struct error *err)
{
	cleanup_strv struct strv names = STRV_INIT;
	cleanup_free char *root = session_root(err);

	if (!root || session_names(&names, err) < 0)
		return -1;
	for (size_t i = 0; i < names.count; i++)
		if (gc_session(gc, names.items[i], err) < 0)
			return -1;
	return each(gc, root, gc_opening, err) < 0 ? -1 : each(gc, root, gc_gone, err);
}

/* ---- runtime folders ---- */

/* The runtime folders that machines of sessions have, or may get. */
static int known_runtimes(struct strv *out, struct error *err)
{
	cleanup_strv struct strv names = STRV_INIT;

	if (session_names(&names, err) < 0)
		return -1;
	for (size_t i = 0; i < names.count; i++) {
		cleanup_session struct session *s = session_load(names.items[i], NULL);

		for (size_t j = 0; s && j < s->machine_count; j++) {
			cleanup_free char *runtime = session_runtime(s->name, s->machines[j].name, err);

			if (!runtime || strv_add(out, runtime, err) < 0)
				return -1;
		}
	}
	return 0;
}

/* Sixteen hexadecimal digits: session_runtime(). */
static bool is_runtime_name(const char *name)
{
	return strlen(name) == 16 && strspn(name, "0123456789abcdef") == 16;
}

static int gc_runtime(const struct gc *gc, const char *folder, const char *name, struct error *err)
{
	cleanup_free char *path = file_join(err, folder, name);
	uint64_t bytes;
	struct stat st;

	if (!path)
		return -1;
	/* A folder this young may belong to a session that is just being made. */
	if (!is_runtime_name(name) || lstat(path, &st) < 0 || !S_ISDIR(st.st_mode) || time(NULL) - st.st_mtime < YOUNG_S)
		return 0;
	bytes = bytes_of(path);
	if (gc->dry_run) {
		cleanup_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

		if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
			return 0;
	} else if (machine_sweep(path, NULL, 0, NULL) < 0 || rmdir(path) < 0) {
		return 0;
	}
	gc->tell(gc->arg, "folder of a dead machine", path, bytes);
	return 0;
}

static int gc_runtimes(const struct gc *gc, struct error *err)
{
	cleanup_free char *runtime = dirs_runtime(err);
	cleanup_strv struct strv known = STRV_INIT, there = STRV_INIT;
	cleanup_dir DIR *dir = NULL;
	struct dirent *entry;

	if (!runtime)
		return -1;
	/* Looked at before the sessions: a folder that is made later has a session that is seen. */
	dir = opendir(runtime);
	while (dir && (entry = readdir(dir)))
		if (strv_add(&there, entry->d_name, err) < 0)
			return -1;
	if (known_runtimes(&known, err) < 0)
		return -1;
	for (size_t i = 0; i < there.count; i++) {
		cleanup_free char *path = file_join(err, runtime, there.items[i]);
		bool is_known = false;

		for (size_t j = 0; path && j < known.count; j++)
			is_known |= str_eq(known.items[j], path);
		if (!path || (!is_known && gc_runtime(gc, runtime, there.items[i], err) < 0))
			return -1;
	}
	return 0;
}

/* ---- caches ---- */

/* "RELEASE-HASH.cpio": the length of RELEASE, 0 for other files. */
static size_t release_length(const char *name)
{
	const char *dash = strrchr(name, '-');

	return dash && str_ends(name, ".cpio") ? (size_t)(dash - name) : 0;
}

/* Whether there is a newer initramfs for the same kernel. */
static bool is_outdated(const char *folder, const char *name, const struct stat *st)
{
	cleanup_dir DIR *dir = opendir(folder);
	size_t n = release_length(name);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		cleanup_free char *path = file_join(NULL, folder, entry->d_name);
		struct stat other;

		if (path && release_length(entry->d_name) == n && !strncmp(entry->d_name, name, n) && lstat(path, &other) == 0 &&
		    (other.st_mtim.tv_sec > st->st_mtim.tv_sec ||
		     (other.st_mtim.tv_sec == st->st_mtim.tv_sec && other.st_mtim.tv_nsec > st->st_mtim.tv_nsec)))
			return true;
	}
	return false;
}

static int gc_initramfs(const struct gc *gc, const char *folder, const char *name, struct error *err)
{
	cleanup_free char *path = file_join(err, folder, name);
	struct stat st;

	if (!path)
		return -1;
	if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode) || time(NULL) - st.st_mtime < YOUNG_S)
		return 0;
	if (strstr(name, ".tmp-"))
		return discard(gc, "unfinished file", path, err);
	return release_length(name) && is_outdated(folder, name, &st) ? discard(gc, "old initramfs", path, err) : 0;
}

/* ---- the whole ---- */

static int gc_image(const struct gc *gc, const char *folder, const char *name, struct error *err)
{
	cleanup_free char *path = file_join(err, folder, name);
	cleanup_close int fd = -1;

	if (!path)
		return -1;
	if (name[0] != '.' || !str_ends(name, ".tmp"))
		return 0;
	/* Its builder holds a lock on it: image/draft.c, which also removes it. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) == 0)
		gc->tell(gc->arg, "unfinished image", path, bytes_of(path));
	return 0;
}

static int gc_images(const struct gc *gc, struct error *err)
{
	cleanup_image_list struct image_list list = IMAGE_LIST_INIT;
	cleanup_strv struct strv folders = STRV_INIT;

	if (dirs_images(&folders, err) < 0 || each(gc, folders.items[0], gc_image, err) < 0)
		return -1;
	return gc->dry_run ? 0 : image_list(&list, err);
}

int session_gc(bool dry_run, session_gc_fn tell, void *arg, struct error *err)
{
	const struct gc gc = {dry_run, tell, arg};
	cleanup_free char *cache = dirs_cache(err), *initramfs = NULL;

	initramfs = cache ? file_join(err, cache, "initramfs") : NULL;
	if (!initramfs || gc_sessions(&gc, err) < 0 || gc_runtimes(&gc, err) < 0 ||
	    each(&gc, initramfs, gc_initramfs, err) < 0)
		return -1;
	return gc_images(&gc, err);
}

int session_remove(const char *name, bool dry_run, session_gc_fn tell, void *arg, struct error *err)
{
	cleanup_close int lock = session_lock(name, SESSION_LOCK_MS, err);
	cleanup_session struct session *s = lock < 0 ? NULL : session_load(name, err);
	cleanup_free char *root = session_root(err), *gone = NULL;
	uint64_t bytes;

	if (!s || !root || session_settle(s, err) < 0)
		return -1;
	for (size_t i = 0; i < s->machine_count; i++) {
		if (!session_machine_runs(&s->machines[i]))
			continue;
		error_set(err, ERROR_STATE, "machine %s of session %s is running", s->machines[i].name, name);
		return error_hint(err, "stop it first: uml-lab down %s", name);
	}
	bytes = bytes_of(s->folder);
	gone = str_printf(err, "%s/.%s" GONE, root, name);
	if (!gone)
		return -1;
	/* By one rename it is no session any more; gc removes what a killed one leaves. */
	if (!dry_run && (file_remove_tree(gone, err) < 0 || (rename(s->folder, gone) < 0 &&
							     error_errno(err, errno, "cannot remove %s", s->folder) < 0) ||
			 file_remove_tree(gone, err) < 0))
		return -1;
	if (tell)
		tell(arg, "session", s->folder, bytes);
	return 0;
}
