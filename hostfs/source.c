/*
 * An open share. Nothing is kept open below its root for long but what the guest has
 * open (kept.c): requests resolve their paths anew from the root by openat2(), so what was moved
 * out of the share is out, whatever descriptors there were before, and no `..`,
 * symbolic link, magic link or mount on the way is followed (openat2(2), RESOLVE_*).
 * Kernels before 5.6 walk one name at a time with the same rules.
 *
 * The path within a share is built from names the guest asked for one by one, none
 * of which holds a slash or is `.` or `..` (request.c checks).
 */
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "hostfs/internal.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"
#include "uml-lab/base/loop.h"

#define RETRIES    16   /* of a walk that a rename on the host disturbed */
#define LOOK_MS    1000 /* how often a source is looked for at its path, at most */
#define PROBE_NAME "user.virtfs.probe"

/* Whether user.* attributes work there. Reading one that is missing tells, without writing anything. */
static bool has_xattrs(int root)
{
	char path[32], value[8];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", root);
	return getxattr(path, PROBE_NAME, value, sizeof(value)) >= 0 || errno == ENODATA;
}

static int open_root(struct source *s, struct error *err)
{
	struct statx st;

	s->root = open(s->share->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (s->root < 0)
		return error_errno(err, errno, "share %s: cannot open its folder %s", s->share->name,
				   s->share->path);
	if (statx(s->root, "", AT_EMPTY_PATH, STATX_WANTED, &st) < 0)
		return error_errno(err, errno, "share %s: cannot look at %s", s->share->name, s->share->path);
	s->mount = st.stx_mask & STATX_MNT_ID ? st.stx_mnt_id : 0;
	s->xattrs = has_xattrs(s->root);
	return 0;
}

int source_open(struct source *s, const struct hostfs_share *share, struct error *err)
{
	*s = (struct source){.share = share, .root = -1};
	if (open_root(s, err) == 0)
		return 0;
	source_close(s);
	return -1;
}

void source_close(struct source *s)
{
	if (s->root >= 0)
		close(s->root);
	s->root = -1;
}

static int same_mount(const struct source *s, int fd)
{
	struct statx st;

	if (!s->mount)
		return 0;
	if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &st) < 0)
		return -errno;
	return st.stx_mnt_id == s->mount ? 0 : -EXDEV;
}

/* One name after the other, each opened without following; the last with the flags asked for. */
static int walk(struct source *s, const char *path, int flags)
{
	int at = openat(s->root, ".", O_PATH | O_DIRECTORY | O_CLOEXEC), result;
	char name[HOSTFS_NAME_MAX + 1];

	while (at >= 0 && *path) {
		size_t n = strcspn(path, "/");
		bool last = !path[n];
		int next;

		if (n > HOSTFS_NAME_MAX) {
			close(at);
			return -ENAMETOOLONG;
		}
		memcpy(name, path, n);
		name[n] = '\0';
		next = openat(at, name, last ? flags : O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		result = next < 0 ? -errno : same_mount(s, next);
		close(at);
		if (result < 0) {
			if (next >= 0)
				close(next);
			return result;
		}
		if (last)
			return next;
		at = next;
		path += n + 1;
	}
	if (at < 0)
		return -errno;
	/* The root itself. */
	result = openat(at, ".", flags & ~O_NOFOLLOW);
	result = result < 0 ? -errno : result;
	close(at);
	return result;
}

int source_resolve(struct source *s, const char *path, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned int)flags | O_CLOEXEC | O_NOFOLLOW,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
	};
	static bool no_openat2;

	if (s->root < 0)
		return -ENOENT;
	if (__atomic_load_n(&no_openat2, __ATOMIC_RELAXED))
		return walk(s, path, (int)how.flags);
	for (int i = 0; i < RETRIES; i++) {
		int fd = (int)syscall(SYS_openat2, s->root, *path ? path : ".", &how, sizeof(how));

		if (fd >= 0)
			return fd;
		if (errno == ENOSYS) {
			__atomic_store_n(&no_openat2, true, __ATOMIC_RELAXED);
			return walk(s, path, (int)how.flags);
		}
		/* A folder on the way became a link: for the guest, its folder is gone. */
		if (errno == ELOOP)
			return -ESTALE;
		if (errno != EAGAIN)
			return -errno;
	}
	return -EAGAIN;
}

bool source_hides(const struct source *s, const char *name)
{
	if (strncmp(name, SIDECAR_FOLDER, strlen(SIDECAR_FOLDER)) == 0)
		return true;
	for (size_t i = 0; i < s->share->hide.count; i++)
		if (fnmatch(s->share->hide.items[i], name, 0) == 0)
			return true;
	return false;
}

static void tell(struct hostfs *fs, struct source *s, enum hostfs_note note, const char *text)
{
	s->told_gone = note != HOSTFS_BACK;
	log_warn("share %s: %s", s->share->name, text);
	if (fs->note)
		fs->note(fs->note_arg, s->share->name, note, text);
}

/* Landlock has let this process into the folder that was there at the start, not into another of the same
 * name. */
static bool may_enter(const struct source *s)
{
	cleanup_close int fd = openat(s->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd >= 0;
}

/* The folder at the path is another now (or there again): served from here on. */
static void look_again(struct hostfs *fs, struct source *s)
{
	struct source fresh = {.share = s->share, .root = -1};
	struct error err = ERROR_INIT;

	if (loop_now_ms() - s->looked_ms < LOOK_MS)
		return;
	s->looked_ms = loop_now_ms();
	if (open_root(&fresh, &err) < 0) {
		source_close(&fresh);
		return;
	}
	if (!may_enter(&fresh)) {
		source_close(&fresh);
		tell(fs, s, HOSTFS_RESTART, "its folder is another now");
		return;
	}
	source_close(s);
	s->root = fresh.root;
	s->mount = fresh.mount;
	s->xattrs = fresh.xattrs;
	s->counted = false;
	tell(fs, s, HOSTFS_BACK, "its folder is there again");
}

/*
 * Whether the path leads elsewhere now: who moves a new folder there means its files, as whoever opens them
 * by their names on the host.
 */
static bool is_moved(struct source *s, const struct stat *root)
{
	struct stat now;

	if (loop_now_ms() - s->looked_ms < LOOK_MS)
		return false;
	s->looked_ms = loop_now_ms();
	if (stat(s->share->path, &now) < 0)
		return errno == ENOENT || errno == ENOTDIR;
	return now.st_dev != root->st_dev || now.st_ino != root->st_ino;
}

int source_alive(struct hostfs *fs, struct source *s, int fd)
{
	struct stat st;
	char text[300];

	if (fd >= 0 && !s->told_gone && fstat(fd, &st) == 0 && st.st_nlink > 0 && !is_moved(s, &st))
		return fd;
	if (fd >= 0)
		close(fd);
	else if (s->root >= 0 && fd != -ESTALE && fd != -ENOENT)
		return fd;
	if (!s->told_gone) {
		snprintf(text, sizeof(text), "its folder %.200s is gone", s->share->path);
		tell(fs, s, HOSTFS_GONE, text);
		s->looked_ms = 0;
	}
	look_again(fs, s);
	return -ESTALE;
}
