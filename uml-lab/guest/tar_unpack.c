/*
 * Unpacking a tar stream into a folder of the guest. Symbolic links on the way
 * are followed: it is the guest's own root, and /lib is a link in most images.
 * Folders get their times at the end, since what is unpacked into them changes them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "uml-lab/guest/tar.h"

/* Folders that we made, whose time is set at the end. */
struct late {
	struct late *next;
	struct timespec mtime;
	char name[];
};

struct unpack {
	struct tar_reader *tar;
	int folder;
	const char *rename;
	struct late *late;
};

static bool has_dotdot(const char *name)
{
	const char *p = name;

	while (*p) {
		if (p[0] == '.' && p[1] == '.' && (!p[2] || p[2] == '/'))
			return true;
		p = strchrnul(p, '/');
		p += *p == '/';
	}
	return false;
}

/* The name to use below the folder: no leading "/" or "./", no trailing "/", the first component renamed. "" is the folder. */
static int clean_name(const struct unpack *u, char *name, struct fault *f)
{
	char copy[PATH_MAX];
	const char *p = name, *rest;
	size_t n;

	if (has_dotdot(name))
		return fault_set(f, "the archive's member '%s' would leave the folder: refused", name);
	while (*p == '/' || (p[0] == '.' && (p[1] == '/' || !p[1])))
		p++;
	strcpy(copy, p);
	for (n = strlen(copy); n && copy[n - 1] == '/'; n--)
		copy[n - 1] = '\0';
	if (!u->rename || !*copy) {
		strcpy(name, copy);
		return 0;
	}
	rest = strchrnul(copy, '/');
	if (snprintf(name, PATH_MAX, "%s%s", u->rename, rest) >= PATH_MAX)
		return fault_errno(f, ENAMETOOLONG, "cannot unpack %s", copy);
	return 0;
}

/* Makes the folders above a member that the archive didn't list. */
static void make_parents(int folder, const char *name)
{
	char copy[PATH_MAX];
	char *slash = copy;

	strcpy(copy, name);
	while ((slash = strchr(slash, '/'))) {
		*slash = '\0';
		mkdirat(folder, copy, 0755);
		*slash++ = '/';
	}
}

static int unpack_file(struct unpack *u, const struct tar_entry *e, struct fault *f)
{
	static uint8_t buf[65536];
	struct timespec times[2] = { { .tv_nsec = UTIME_NOW }, e->mtime };
	int fd = openat(u->folder, e->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	ssize_t n;

	if (fd < 0)
		return fault_errno(f, errno, "cannot create %s", e->name);
	while ((n = tar_data(u->tar, buf, sizeof(buf), f)) > 0) {
		if (guest_write_full(fd, buf, n) < 0) {
			n = fault_errno(f, errno, "cannot write %s", e->name);
			break;
		}
	}
	/* The owner first: chown takes set-id bits away. */
	if (n == 0 && (fchown(fd, e->uid, e->gid) < 0 || fchmod(fd, e->mode) < 0 || futimens(fd, times) < 0))
		n = fault_errno(f, errno, "cannot set owner and mode of %s", e->name);
	if (close(fd) < 0 && n == 0)
		n = fault_errno(f, errno, "cannot write %s", e->name);
	return n;
}

static int remember_folder(struct unpack *u, const struct tar_entry *e, struct fault *f)
{
	struct late *l = malloc(sizeof(*l) + strlen(e->name) + 1);

	if (!l)
		return fault_errno(f, ENOMEM, "cannot unpack");
	strcpy(l->name, e->name);
	l->mtime = e->mtime;
	l->next = u->late;
	u->late = l;
	return 0;
}

/* A folder, or a link to one, that is there stays as it is. */
static int unpack_folder(struct unpack *u, const struct tar_entry *e, struct fault *f)
{
	struct stat st;

	if (fstatat(u->folder, e->name, &st, 0) == 0 && S_ISDIR(st.st_mode))
		return 0;
	if ((unlinkat(u->folder, e->name, 0) < 0 && errno != ENOENT) || mkdirat(u->folder, e->name, 0700) < 0 ||
	    fchownat(u->folder, e->name, e->uid, e->gid, AT_SYMLINK_NOFOLLOW) < 0 ||
	    fchmodat(u->folder, e->name, e->mode, 0) < 0)
		return fault_errno(f, errno, "cannot make the folder %s", e->name);
	return remember_folder(u, e, f);
}

static int unpack_node(struct unpack *u, const struct tar_entry *e, struct fault *f)
{
	static const mode_t types[] = {
		[TAR_CHARACTER] = S_IFCHR, [TAR_BLOCK_DEVICE] = S_IFBLK, [TAR_FIFO] = S_IFIFO,
	};
	struct timespec times[2] = { { .tv_nsec = UTIME_NOW }, e->mtime };

	if (mknodat(u->folder, e->name, types[e->kind] | 0600, makedev(e->major, e->minor)) < 0 ||
	    fchownat(u->folder, e->name, e->uid, e->gid, AT_SYMLINK_NOFOLLOW) < 0 ||
	    fchmodat(u->folder, e->name, e->mode, 0) < 0)
		return fault_errno(f, errno, "cannot make the node %s", e->name);
	utimensat(u->folder, e->name, times, AT_SYMLINK_NOFOLLOW);
	return 0;
}

static int unpack_symlink(struct unpack *u, const struct tar_entry *e, struct fault *f)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_NOW }, e->mtime };

	if (symlinkat(e->link, u->folder, e->name) < 0 ||
	    fchownat(u->folder, e->name, e->uid, e->gid, AT_SYMLINK_NOFOLLOW) < 0)
		return fault_errno(f, errno, "cannot make the link %s", e->name);
	utimensat(u->folder, e->name, times, AT_SYMLINK_NOFOLLOW);
	return 0;
}

static int unpack_hardlink(struct unpack *u, struct tar_entry *e, struct fault *f)
{
	if (clean_name(u, e->link, f) < 0)
		return -1;
	if (linkat(u->folder, e->link, u->folder, e->name, 0) < 0)
		return fault_errno(f, errno, "cannot link %s to %s", e->name, e->link);
	return 0;
}

static int unpack_entry(struct unpack *u, struct tar_entry *e, struct fault *f)
{
	if (clean_name(u, e->name, f) < 0)
		return -1;
	if (!*e->name)
		return e->kind == TAR_FOLDER ? 0 : fault_set(f, "the archive has a member without a name");
	make_parents(u->folder, e->name);
	if (e->kind == TAR_FOLDER)
		return unpack_folder(u, e, f);
	if (unlinkat(u->folder, e->name, 0) < 0 && errno != ENOENT)
		return fault_errno(f, errno == EISDIR ? EEXIST : errno, "cannot replace %s", e->name);
	switch (e->kind) {
	case TAR_FILE:
		return unpack_file(u, e, f);
	case TAR_SYMLINK:
		return unpack_symlink(u, e, f);
	case TAR_HARDLINK:
		return unpack_hardlink(u, e, f);
	default:
		return unpack_node(u, e, f);
	}
}

static void finish_folders(struct unpack *u)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_NOW } };
	struct late *l;

	while ((l = u->late)) {
		u->late = l->next;
		times[1] = l->mtime;
		utimensat(u->folder, l->name, times, 0);
		free(l);
	}
}

int tar_unpack(struct tar_reader *t, const char *folder, const char *rename, struct fault *f)
{
	static struct tar_entry e;
	struct unpack u = { .tar = t, .rename = rename };
	int result;

	u.folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (u.folder < 0)
		return fault_errno(f, errno, "cannot open the folder %s", folder);
	while ((result = tar_next(t, &e, f)) > 0)
		if (unpack_entry(&u, &e, f) < 0) {
			result = -1;
			break;
		}
	finish_folders(&u);
	close(u.folder);
	return result;
}
