/*
 * Packing a file or folder of the guest as a tar stream. The tree is walked
 * through directory descriptors, links are never followed. A file that changes
 * its size while it is read is cut or filled up to what its header promised.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "uml-lab/guest/tar.h"

#define DEPTH_MAX 200	/* folders within folders: a descriptor and a stack frame each */

/* Files with several names, by what identifies them. */
struct linked {
	struct linked *next;
	dev_t device;
	ino_t inode;
	char name[];
};

struct pack {
	tar_write_fn write;
	void *arg;
	struct linked *linked;
	bool incomplete;
	struct fault *first;	/* the first thing that could not be read */
	char name[PATH_MAX];	/* of the present entry */
};

static void leave_out(struct pack *p, int errnum)
{
	if (!p->incomplete)
		fault_errno(p->first, errnum, "not everything could be read: %s", p->name);
	p->incomplete = true;
}

static int broken(struct fault *f)
{
	return fault_errno(f, errno, "cannot send the archive");
}

static bool is_pseudo(int fd)
{
	struct statfs s;

	if (fstatfs(fd, &s) < 0)
		return true;
	switch ((unsigned long)s.f_type) {
	case PROC_SUPER_MAGIC:
	case SYSFS_MAGIC:
	case DEVPTS_SUPER_MAGIC:
	case CGROUP_SUPER_MAGIC:
	case CGROUP2_SUPER_MAGIC:
	case DEBUGFS_MAGIC:
	case TRACEFS_MAGIC:
	case SECURITYFS_MAGIC:
	case BPF_FS_MAGIC:
		return true;
	}
	return false;
}

/* The name under which this file was packed already, or NULL and it is remembered. */
static const char *packed_as(struct pack *p, const struct stat *st)
{
	struct linked *l;

	for (l = p->linked; l; l = l->next)
		if (l->inode == st->st_ino && l->device == st->st_dev)
			return l->name;
	l = malloc(sizeof(*l) + strlen(p->name) + 1);
	if (!l)
		return NULL;
	l->device = st->st_dev;
	l->inode = st->st_ino;
	strcpy(l->name, p->name);
	l->next = p->linked;
	p->linked = l;
	return NULL;
}

/* 0, or -1 for what tar can't hold (sockets). */
static int kind_of(mode_t mode, enum tar_kind *out)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		*out = TAR_FILE;
		return 0;
	case S_IFDIR:
		*out = TAR_FOLDER;
		return 0;
	case S_IFLNK:
		*out = TAR_SYMLINK;
		return 0;
	case S_IFCHR:
		*out = TAR_CHARACTER;
		return 0;
	case S_IFBLK:
		*out = TAR_BLOCK_DEVICE;
		return 0;
	case S_IFIFO:
		*out = TAR_FIFO;
		return 0;
	}
	return -1;
}

static int pack_content(struct pack *p, int fd, uint64_t size, struct fault *f)
{
	static uint8_t buf[65536];
	uint64_t left = size;
	ssize_t got;
	size_t n;

	while (left) {
		n = left < sizeof(buf) ? left : sizeof(buf);
		got = guest_read_full(fd, buf, n);
		if (got < 0)
			leave_out(p, errno);
		if (got < (ssize_t)n)
			memset(buf + (got > 0 ? got : 0), 0, n - (got > 0 ? got : 0));
		if (p->write(p->arg, buf, n) < 0)
			return broken(f);
		left -= n;
	}
	return tar_write_padding(p->write, p->arg, size) < 0 ? broken(f) : 0;
}

static int pack_file(struct pack *p, int parent, const char *name, struct tar_entry *e, struct fault *f)
{
	int fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	int result;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		leave_out(p, fd < 0 ? errno : EIO);
		if (fd >= 0)
			close(fd);
		return 0;
	}
	e->size = st.st_size;
	result = tar_write_header(p->write, p->arg, e) < 0 ? broken(f) : pack_content(p, fd, e->size, f);
	close(fd);
	return result;
}

static int pack_entry(struct pack *p, int parent, const char *name, int depth, struct fault *f);

static int pack_folder(struct pack *p, int parent, const char *name, int depth, struct fault *f)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), result = 0;
	DIR *d = fd >= 0 && depth < DEPTH_MAX ? fdopendir(fd) : NULL;
	size_t length = strlen(p->name);
	struct dirent *e;

	if (!d) {
		leave_out(p, fd < 0 ? errno : ELOOP);
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while (!is_pseudo(fd) && result == 0 && (e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (snprintf(p->name + length, PATH_MAX - length, "/%s", e->d_name) >= (int)(PATH_MAX - length))
			leave_out(p, ENAMETOOLONG);
		else
			result = pack_entry(p, fd, e->d_name, depth + 1, f);
		p->name[length] = '\0';
	}
	closedir(d);
	return result;
}

/* Fills the header's part that needs no reading. 0, or -1 when the entry is to be left out. */
static int describe(struct pack *p, int parent, const char *name, struct tar_entry *e)
{
	const char *before = NULL;
	struct stat st;
	ssize_t n = 0;

	if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		leave_out(p, errno);
		return -1;
	}
	memset(e, 0, offsetof(struct tar_entry, name));
	strcpy(e->name, p->name);
	e->link[0] = '\0';
	e->size = 0;
	e->mode = st.st_mode & 07777;
	e->uid = st.st_uid;
	e->gid = st.st_gid;
	e->mtime = st.st_mtim;
	e->major = major(st.st_rdev);
	e->minor = minor(st.st_rdev);
	if (kind_of(st.st_mode, &e->kind) < 0)
		return -1;
	if (e->kind == TAR_SYMLINK)
		n = readlinkat(parent, name, e->link, sizeof(e->link) - 1);
	if (n < 0 || n == sizeof(e->link) - 1) {
		leave_out(p, n < 0 ? errno : ENAMETOOLONG);
		return -1;
	}
	e->link[n] = '\0';
	if (e->kind != TAR_FOLDER && st.st_nlink > 1)
		before = packed_as(p, &st);
	if (before) {
		e->kind = TAR_HARDLINK;
		strcpy(e->link, before);
	}
	return 0;
}

static int pack_entry(struct pack *p, int parent, const char *name, int depth, struct fault *f)
{
	static struct tar_entry e;	/* used up before the walk goes deeper */

	if (describe(p, parent, name, &e) < 0)
		return 0;
	if (e.kind == TAR_FILE)
		return pack_file(p, parent, name, &e, f);
	if (tar_write_header(p->write, p->arg, &e) < 0)
		return broken(f);
	return e.kind == TAR_FOLDER ? pack_folder(p, parent, name, depth, f) : 0;
}

/* "/etc/ssh/" is "ssh" in "/etc"; "/" is "." in itself. */
static int split_path(const char *path, char *parent, char *name, struct fault *f)
{
	size_t n = strlen(path);
	const char *slash;

	if (path[0] != '/' || n >= PATH_MAX)
		return fault_set(f, "'%s' is not an absolute path", path);
	while (n > 1 && path[n - 1] == '/')
		n--;
	slash = memrchr(path, '/', n);
	snprintf(parent, PATH_MAX, "%.*s", slash == path ? 1 : (int)(slash - path), path);
	snprintf(name, PATH_MAX, "%.*s", (int)(path + n - slash - 1), slash + 1);
	if (!*name)
		strcpy(name, ".");
	return 0;
}

int tar_pack(tar_write_fn write, void *arg, const char *path, struct fault *f)
{
	static struct pack p;
	char parent[PATH_MAX], name[PATH_MAX];
	struct fault first;
	struct stat st;
	int fd, result;

	if (split_path(path, parent, name, f) < 0)
		return -1;
	fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
		fault_errno(f, errno, "cannot read %s", path);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	p = (struct pack){ .write = write, .arg = arg, .first = &first };
	strcpy(p.name, name);
	result = pack_entry(&p, fd, name, 0, f);
	if (result == 0 && tar_write_end(write, arg) < 0)
		result = broken(f);
	if (result == 0 && p.incomplete) {
		*f = first;
		result = -1;
	}
	close(fd);
	return result;
}
