/*
 * Owners, modes and device numbers that the student's account could not give a
 * file: kept in the attributes that QEMU's 9p server uses (security_model=mapped-xattr),
 *
 *	user.virtfs.uid, .gid, .mode (32 bits), .rdev (64 bits), little-endian
 *
 * or, where the file system has none, or for what cannot carry them (symbolic links),
 * in QEMU's sidecar files (security_model=mapped-file): .virtfs_metadata/NAME
 * beside NAME, .virtfs_metadata_root in the share's root, lines "virtfs.uid=0".
 *
 * Device nodes, FIFOs and sockets are empty regular files with such a mode. For
 * the rest the host's file has the permissions that the guest gave it, without
 * set-id bits and writing by others, and always its owner's own; the attribute holds
 * the mode when that differs. It counts as long as the host's permissions
 * are those that were given with it: a chmod on the host later wins.
 *
 * Anybody who may write the folder may have made these attributes: sizes are
 * checked, and none turns a folder into something else.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "hostfs/internal.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"

#define PREFIX	     "user.virtfs."
#define LIST_MAX     4096 /* bytes of attribute names: a file with more has all of ours looked for */
#define SIDECAR_MAX  512  /* bytes of a sidecar */
#define SIDECAR_NEW  ".new"
#define ID_NONE	     UINT32_MAX
#define HOST_BITS    0755 /* of the guest's permissions, on the host */

bool ids_use_sidecar(const struct source *s, mode_t host_mode)
{
	return !s->xattrs || !(S_ISREG(host_mode) || S_ISDIR(host_mode));
}

mode_t ids_host_mode(mode_t mode, bool has_acl)
{
	if (has_acl)
		return S_ISDIR(mode) ? 0700 : 0600;
	return (mode & HOST_BITS) | (S_ISDIR(mode) ? 0700 : 0600);
}

const char *place_path(const struct place *p, char path[PLACE_PATH_MAX])
{
	if (p->name)
		snprintf(path, PLACE_PATH_MAX, "%d/%s", p->dir, p->name);
	else
		snprintf(path, PLACE_PATH_MAX, "%d", p->dir);
	return path;
}

/* ---- extended attributes ---- */

static ssize_t get(const struct place *p, const char *path, const char *name, void *value, size_t size)
{
	return p->name ? lgetxattr(path, name, value, size) : getxattr(path, name, value, size);
}

static bool get32(const struct place *p, const char *path, const char *name, uint32_t *value)
{
	uint32_t raw;

	if (get(p, path, name, &raw, sizeof(raw)) != sizeof(raw) || le32toh(raw) == ID_NONE)
		return false;
	*value = le32toh(raw);
	return true;
}

static void read_xattrs(const struct place *p, struct ids *ids)
{
	char path[PLACE_PATH_MAX], names[LIST_MAX];
	uint64_t raw;
	ssize_t n;

	place_path(p, path);
	n = p->name ? llistxattr(path, names, sizeof(names)) : listxattr(path, names, sizeof(names));
	if (n == 0 || (n < 0 && errno != ERANGE))
		return;
	if (n > 0 && !memmem(names, (size_t)n, PREFIX, strlen(PREFIX)))
		return;
	ids->any = true;
	ids->has_uid = get32(p, path, PREFIX "uid", &ids->uid);
	ids->has_gid = get32(p, path, PREFIX "gid", &ids->gid);
	ids->has_mode = get32(p, path, PREFIX "mode", &ids->mode);
	ids->has_capability = n < 0 || memmem(names, (size_t)n, PREFIX "security.capability",
					      sizeof(PREFIX "security.capability"));
	ids->has_acl = n < 0 || acl_is_listed(names, (size_t)n);
	if (!ids->has_mode || !(S_ISCHR(ids->mode) || S_ISBLK(ids->mode)) ||
	    get(p, path, PREFIX "rdev", &raw, sizeof(raw)) != sizeof(raw))
		return;
	ids->has_rdev = true;
	ids->rdev = le64toh(raw);
}

static int set(const struct place *p, const char *name, const void *value, size_t size)
{
	char path[PLACE_PATH_MAX];

	place_path(p, path);
	if ((p->name ? lsetxattr(path, name, value, size, 0) : setxattr(path, name, value, size, 0)) == 0)
		return 0;
	return -errno;
}

static int set32(const struct place *p, const char *name, uint32_t value)
{
	uint32_t raw = htole32(value);

	return set(p, name, &raw, sizeof(raw));
}

static int write_xattrs(const struct place *p, const struct ids *wanted)
{
	uint64_t rdev = htole64(wanted->rdev);
	int result = 0;

	if (wanted->has_uid)
		result = set32(p, PREFIX "uid", wanted->uid);
	if (result == 0 && wanted->has_gid)
		result = set32(p, PREFIX "gid", wanted->gid);
	if (result == 0 && wanted->has_mode)
		result = set32(p, PREFIX "mode", wanted->mode);
	if (result == 0 && wanted->has_rdev)
		result = set(p, PREFIX "rdev", &rdev, sizeof(rdev));
	return result;
}

/* ---- sidecars ---- */

/* The folder of the sidecars of what lies in dir. Descriptor or -1. */
static int sidecar_folder(int dir, bool make)
{
	int fd = openat(dir, SIDECAR_FOLDER, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT && make && mkdirat(dir, SIDECAR_FOLDER, 0700) == 0)
		fd = openat(dir, SIDECAR_FOLDER, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd;
}

static void take_line(char *line, struct ids *ids)
{
	char *value = strchr(line, '=');
	int64_t number;

	if (!value)
		return;
	*value++ = '\0';
	if (str_to_i64(value, 0, UINT32_MAX - 1, &number) < 0)
		return;
	if (str_eq(line, "virtfs.uid")) {
		ids->has_uid = true;
		ids->uid = (uint32_t)number;
	} else if (str_eq(line, "virtfs.gid")) {
		ids->has_gid = true;
		ids->gid = (uint32_t)number;
	} else if (str_eq(line, "virtfs.mode")) {
		ids->has_mode = true;
		ids->mode = (uint32_t)number;
	} else if (str_eq(line, "virtfs.rdev")) {
		ids->has_rdev = true;
		ids->rdev = (uint64_t)number;
	}
}

static void read_sidecar(const struct place *p, struct ids *ids)
{
	cleanup_close int folder = p->root ? dup(p->dir) : p->name ? sidecar_folder(p->dir, false) : -1;
	cleanup_close int fd = -1;
	char text[SIDECAR_MAX + 1], *line, *rest = text;
	struct stat st;
	ssize_t n;

	if (folder < 0)
		return;
	fd = openat(folder, p->root ? SIDECAR_ROOT : p->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return;
	n = file_read_full(fd, text, SIDECAR_MAX);
	if (n < 0)
		return;
	text[n] = '\0';
	ids->any = true;
	while ((line = strsep(&rest, "\n")))
		take_line(line, ids);
}

static int write_sidecar(const struct place *p, const struct ids *wanted)
{
	cleanup_close int folder = p->root ? dup(p->dir) : p->name ? sidecar_folder(p->dir, true) : -1;
	cleanup_close int fd = -1;
	struct ids ids = {0};
	char text[SIDECAR_MAX];
	int n = 0;

	if (folder < 0)
		return p->name || p->root ? -errno : 0; /* of what lost its name nobody asks again */
	read_sidecar(p, &ids);
	ids = (struct ids){
		.has_uid = ids.has_uid || wanted->has_uid,
		.uid = wanted->has_uid ? wanted->uid : ids.uid,
		.has_gid = ids.has_gid || wanted->has_gid,
		.gid = wanted->has_gid ? wanted->gid : ids.gid,
		.has_mode = ids.has_mode || wanted->has_mode,
		.mode = wanted->has_mode ? wanted->mode : ids.mode,
		.has_rdev = ids.has_rdev || wanted->has_rdev,
		.rdev = wanted->has_rdev ? wanted->rdev : ids.rdev,
	};
	if (ids.has_uid)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "virtfs.uid=%u\n", ids.uid);
	if (ids.has_gid)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "virtfs.gid=%u\n", ids.gid);
	if (ids.has_mode)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "virtfs.mode=%u\n", ids.mode);
	if (ids.has_rdev)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "virtfs.rdev=%llu\n", (unsigned long long)ids.rdev);
	unlinkat(folder, SIDECAR_NEW, 0);
	fd = openat(folder, SIDECAR_NEW, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || file_write_full(fd, text, (size_t)n) < 0 ||
	    renameat(folder, SIDECAR_NEW, folder, p->root ? SIDECAR_ROOT : p->name) < 0)
		return -errno;
	return 0;
}

static void drop_folder(int dir)
{
	unlinkat(dir, SIDECAR_FOLDER, AT_REMOVEDIR);
}

void sidecar_remove(int dir, const char *name)
{
	cleanup_close int folder = sidecar_folder(dir, false);

	if (folder >= 0 && unlinkat(folder, name, 0) == 0)
		drop_folder(dir);
}

void sidecar_rename(int from, const char *name, int to, const char *new_name)
{
	cleanup_close int old = sidecar_folder(from, false);
	struct stat st;

	if (old < 0 || fstatat(old, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		sidecar_remove(to, new_name);
		return;
	}
	cleanup_close int fresh = sidecar_folder(to, true);

	if (fresh >= 0 && renameat(old, name, fresh, new_name) == 0)
		drop_folder(from);
}

void sidecar_copy(int from, const char *name, int to, const char *new_name)
{
	struct place source = {.dir = from, .name = name}, target = {.dir = to, .name = new_name};
	struct ids ids = {0};

	read_sidecar(&source, &ids);
	if (ids.any)
		write_sidecar(&target, &ids);
}

bool sidecar_clear(int dir)
{
	cleanup_close int list = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_dir DIR *d = list >= 0 ? fdopendir(dup(list)) : NULL;
	cleanup_close int folder = -1;
	cleanup_dir DIR *inside = NULL;
	bool found = false;
	struct dirent *e;

	while (d && (e = readdir(d))) {
		if (str_eq(e->d_name, ".") || str_eq(e->d_name, ".."))
			continue;
		if (!str_eq(e->d_name, SIDECAR_FOLDER))
			return false;
		found = true;
	}
	folder = found ? openat(dir, SIDECAR_FOLDER, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
	inside = folder >= 0 ? fdopendir(dup(folder)) : NULL;
	while (inside && (e = readdir(inside)))
		if (!str_eq(e->d_name, ".") && !str_eq(e->d_name, ".."))
			unlinkat(folder, e->d_name, 0);
	return found && unlinkat(dir, SIDECAR_FOLDER, AT_REMOVEDIR) == 0;
}

/* ---- what it means ---- */

void ids_read(const struct source *s, const struct place *p, mode_t host_mode, struct ids *ids)
{
	*ids = (struct ids){0};
	if (ids_use_sidecar(s, host_mode))
		read_sidecar(p, ids);
	else
		read_xattrs(p, ids);
}

int ids_write(const struct source *s, const struct place *p, mode_t host_mode, const struct ids *wanted)
{
	if (!wanted->has_uid && !wanted->has_gid && !wanted->has_mode && !wanted->has_rdev)
		return 0;
	return ids_use_sidecar(s, host_mode) ? write_sidecar(p, wanted) : write_xattrs(p, wanted);
}

void ids_drop_capability(const struct place *p, const struct ids *ids)
{
	char path[PLACE_PATH_MAX];

	if (!ids->has_capability)
		return;
	place_path(p, path);
	if (p->name)
		lremovexattr(path, PREFIX "security.capability");
	else
		removexattr(path, PREFIX "security.capability");
}

static mode_t shown_mode(mode_t host, const struct ids *ids)
{
	mode_t permissions = host & 07777, type = ids->mode & S_IFMT;

	if (!ids->has_mode)
		return host;
	if (S_ISREG(host) &&
	    (S_ISCHR(type) || S_ISBLK(type) || S_ISFIFO(type) || S_ISSOCK(type) || S_ISLNK(type)))
		return type | (ids->mode & 07777);
	if (!S_ISREG(host) && !S_ISDIR(host))
		return host;
	/* The second is what QEMU leaves on the host. */
	if (permissions != ids_host_mode((host & S_IFMT) | (ids->mode & 07777), ids->has_acl) &&
	    permissions != (S_ISDIR(host) ? 0700u : 0600u))
		return host;
	return (host & S_IFMT) | (ids->mode & 07777);
}

/* As mknod(2)'s argument was encoded: 12 bits of major, 20 of minor number. */
static uint32_t encode_dev(uint32_t major_number, uint32_t minor_number)
{
	return (minor_number & 0xff) | (major_number & 0xfff) << 8 | (minor_number & ~0xffu) << 12;
}

void ids_show(const struct source *s, const struct statx *st, const struct ids *ids, struct fuse_attr *attr)
{
	const struct hostfs_share *share = s->share;

	*attr = (struct fuse_attr){
		.ino = st->stx_ino,
		.size = st->stx_size,
		.blocks = st->stx_blocks,
		.atime = (uint64_t)st->stx_atime.tv_sec,
		.mtime = (uint64_t)st->stx_mtime.tv_sec,
		.ctime = (uint64_t)st->stx_ctime.tv_sec,
		.atimensec = st->stx_atime.tv_nsec,
		.mtimensec = st->stx_mtime.tv_nsec,
		.ctimensec = st->stx_ctime.tv_nsec,
		.mode = shown_mode(st->stx_mode, ids),
		.nlink = st->stx_nlink,
		.uid = ids->has_uid ? ids->uid : share->owner_host ? st->stx_uid : share->uid,
		.gid = ids->has_gid ? ids->gid : share->owner_host ? st->stx_gid : share->gid,
		.rdev = encode_dev(st->stx_rdev_major, st->stx_rdev_minor),
		.blksize = st->stx_blksize,
	};
	if (S_ISCHR(attr->mode) || S_ISBLK(attr->mode))
		attr->rdev = ids->has_rdev ? (uint32_t)ids->rdev : attr->rdev;
	/* A size no file has would be an overflow for the guest, which makes all of the inode bad. */
	if (attr->size > INT64_MAX)
		attr->size = INT64_MAX;
}
