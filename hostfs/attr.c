/* Looking names up, and attributes: LOOKUP, GETATTR, SETATTR, READLINK, STATFS. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "hostfs/internal.h"
#include "uml-lab/base/cleanup.h"

#define CACHE_NS (CACHE_MS * 1000000u)

int may_write(const struct node *node)
{
	return node->source && node->source->share->writable ? 0 : -EROFS;
}

int may_name(const struct node *parent, const char *name, bool create)
{
	if (!parent->source)
		return create ? -EROFS : 0;
	if (!S_ISDIR(parent->mode))
		return -ENOTDIR;
	if (source_hides(parent->source, name))
		return create ? -EPERM : -ENOENT;
	return 0;
}

static void show(const struct hostfs *fs, struct node *node, const struct statx *st, const struct ids *ids,
		 struct fuse_attr *attr)
{
	ids_show(node->source, st, ids, attr);
	node->mode = attr->mode;
	node->has_capability = ids->has_capability;
	node->shown_ms = fs->now_ms;
}

int entry_fill(struct hostfs *fs, struct node *parent, int dir, const char *name, const struct ids *known,
	       struct fuse_entry_out *out, struct node **found)
{
	struct place p = {.dir = dir, .name = name};
	struct source *s = parent->source;
	struct node *node;
	struct statx st;
	struct ids ids;

	if (statx(dir, name, AT_SYMLINK_NOFOLLOW, STATX_WANTED, &st) < 0)
		return -errno;
	if (s->mount && st.stx_mnt_id != s->mount)
		return -EXDEV;
	node = node_intern(fs, parent, name, &st);
	if (!node)
		return -ENOMEM;
	if (known)
		ids = *known;
	else
		ids_read(s, &p, st.stx_mode, &ids);
	*out = (struct fuse_entry_out){
		.nodeid = node_id(fs, node), .entry_valid_nsec = CACHE_NS, .attr_valid_nsec = CACHE_NS};
	show(fs, node, &st, &ids, &out->attr);
	if (found)
		*found = node;
	return 0;
}

int entry_fill_nameless(struct hostfs *fs, struct source *s, int fd, struct fuse_entry_out *out, struct node **found)
{
	struct place p = {.dir = fd};
	struct node *node;
	struct statx st;
	struct ids ids;

	if (place_stat(&p, &st) < 0)
		return -errno;
	node = node_intern_nameless(fs, s, fd, &st);
	if (!node)
		return -ENOMEM;
	ids_read(s, &p, st.stx_mode, &ids);
	*out = (struct fuse_entry_out){
		.nodeid = node_id(fs, node), .entry_valid_nsec = CACHE_NS, .attr_valid_nsec = CACHE_NS};
	show(fs, node, &st, &ids, &out->attr);
	*found = node;
	return 0;
}

/* The tree's root itself: a folder of nobody's with a folder for each share. */
static void tree_attr(const struct hostfs *fs, struct fuse_attr *attr)
{
	*attr = (struct fuse_attr){
		.ino = 1, .mode = S_IFDIR | 0755, .nlink = 2 + (uint32_t)fs->source_count, .blksize = 4096};
}

static int share_attr(struct hostfs *fs, struct node *node, struct fuse_attr *attr)
{
	cleanup_place struct place p = PLACE_INIT;
	struct statx st;
	struct ids ids;
	int result;

	result = node_place(fs, node, &p, &st);
	if (result < 0)
		return result;
	ids_read(node->source, &p, st.stx_mode, &ids);
	show(fs, node, &st, &ids, attr);
	return 0;
}

static int lookup_share(struct request *rq)
{
	struct fuse_entry_out out = {.entry_valid_nsec = CACHE_NS, .attr_valid_nsec = CACHE_NS};

	for (size_t i = 0; i < rq->fs->source_count; i++) {
		struct node *node = rq->fs->share_roots[i];
		int result;

		if (!str_eq(rq->fs->sources[i].share->name, rq->name))
			continue;
		result = share_attr(rq->fs, node, &out.attr);
		if (result < 0)
			return result;
		out.nodeid = node_id(rq->fs, node);
		return reply(rq, &out, sizeof(out));
	}
	return -ENOENT;
}

int op_lookup(struct request *rq)
{
	struct fuse_entry_out out;
	int dir, result = may_name(rq->node, rq->name, false);

	if (!rq->node->source)
		return lookup_share(rq);
	if (result == 0) {
		dir = node_folder(rq->fs, rq->node);
		result = dir < 0 ? dir : entry_fill(rq->fs, rq->node, dir, rq->name, NULL, &out, NULL);
	}
	if (result == -ENOENT) {
		/* That it is not there may be believed for a while, too. */
		out = (struct fuse_entry_out){.entry_valid_nsec = CACHE_NS};
		result = 0;
	}
	return result < 0 ? result : reply(rq, &out, sizeof(out));
}

int op_getattr(struct request *rq)
{
	struct fuse_attr_out out = {.attr_valid_nsec = CACHE_NS};
	int result = 0;

	if (rq->node->source)
		result = share_attr(rq->fs, rq->node, &out.attr);
	else
		tree_attr(rq->fs, &out.attr);
	return result < 0 ? result : reply(rq, &out, sizeof(out));
}

/* ---- SETATTR ---- */

int change_mode(struct source *s, const struct place *p, const struct statx *st, const struct ids *ids, mode_t shown,
		mode_t wanted)
{
	char path[PLACE_PATH_MAX];
	mode_t mode = (shown & S_IFMT) | (wanted & 07777);
	mode_t host = ids_host_mode((st->stx_mode & S_IFMT) | (wanted & 07777), ids->has_acl);
	struct ids fresh = {.mode = mode};

	if (S_ISLNK(st->stx_mode))
		return -EOPNOTSUPP;
	/* What is kept in an attribute alone has a file of nobody else's on the host. */
	if ((shown & S_IFMT) != (st->stx_mode & S_IFMT))
		host = 0600;
	else if (host == (st->stx_mode & 07777) && host == (wanted & 07777) && !ids->has_mode)
		return 0;
	/* The path's last part is a name that was not a link a moment ago; a link there now has to lead nowhere. */
	if (host != (st->stx_mode & 07777)) {
		cleanup_close int fd = p->name ? openat(p->dir, p->name, O_PATH | O_NOFOLLOW | O_CLOEXEC) : -1;
		struct place direct = {.dir = p->name ? fd : p->dir};

		if (direct.dir < 0 || chmod(place_path(&direct, path), host) < 0)
			return -errno;
	}
	fresh.has_mode = ids->has_mode || host != (wanted & 07777) || (shown & S_IFMT) != (st->stx_mode & S_IFMT);
	return ids_write(s, p, st->stx_mode, &fresh);
}

static int set_owner(struct source *s, const struct place *p, const struct statx *st, const struct fuse_attr *shown,
		     const struct fuse_setattr_in *in)
{
	struct ids fresh = {
		.has_uid = in->valid & FATTR_UID && in->uid != shown->uid,
		.uid = in->uid,
		.has_gid = in->valid & FATTR_GID && in->gid != shown->gid,
		.gid = in->gid,
	};

	if ((fresh.has_uid && in->uid == UINT32_MAX) || (fresh.has_gid && in->gid == UINT32_MAX))
		return -EINVAL;
	return ids_write(s, p, st->stx_mode, &fresh);
}

static struct timespec wanted_time(uint32_t valid, uint32_t set, uint32_t now, uint64_t sec, uint32_t nsec)
{
	if (!(valid & set))
		return (struct timespec){.tv_nsec = UTIME_OMIT};
	if (valid & now)
		return (struct timespec){.tv_nsec = UTIME_NOW};
	return (struct timespec){.tv_sec = (time_t)sec, .tv_nsec = nsec};
}

static int set_times(const struct place *p, const struct fuse_setattr_in *in)
{
	struct timespec times[2] = {
		wanted_time(in->valid, FATTR_ATIME, FATTR_ATIME_NOW, in->atime, in->atimensec),
		wanted_time(in->valid, FATTR_MTIME, FATTR_MTIME_NOW, in->mtime, in->mtimensec),
	};
	char path[PLACE_PATH_MAX];

	if (p->name)
		return utimensat(p->dir, p->name, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
	return utimensat(AT_FDCWD, place_path(p, path), times, 0) < 0 ? -errno : 0;
}

static int set_size(struct hostfs *fs, struct node *node, const struct fuse_setattr_in *in)
{
	struct handle *h = in->valid & FATTR_FH && in->fh ? handle_get(fs, in->fh) : NULL;
	struct source *s = node->source;
	uint64_t before, limit = s->share->max_file_size;
	int fd = h && !h->folder && h->writes ? h->fd : -1;

	if (limit && in->size > limit)
		return -EFBIG;
	if (fd < 0 && (S_ISDIR(node->mode) || !S_ISREG(node->mode)))
		return S_ISDIR(node->mode) ? -EISDIR : -EINVAL;
	if (fd < 0)
		fd = node_file(fs, node, true);
	if (fd < 0)
		return fd;
	before = quota_size(s, fd);
	if (ftruncate(fd, (off_t)in->size) < 0)
		return -errno;
	quota_add(s, (int64_t)quota_size(s, fd) - (int64_t)before);
	if (in->valid & FATTR_KILL_SUIDGID || node->has_capability)
		drop_privileges_of(fs, node, fd, in->valid & FATTR_KILL_SUIDGID);
	return 0;
}

/* The group's bit means something else where the group may not execute (mandatory locking, once). */
static mode_t without_set_ids(mode_t mode)
{
	return S_ISDIR(mode) ? mode : mode & ~(mode & S_IXGRP ? S_ISUID | S_ISGID : S_ISUID);
}

void drop_privileges_of(struct hostfs *fs, struct node *node, int fd, bool set_ids)
{
	cleanup_place struct place p = PLACE_INIT;
	struct place open_file = {.dir = fd};
	struct fuse_attr shown;
	struct statx st;
	struct ids ids = {.has_capability = node->has_capability};

	ids_drop_capability(&open_file, &ids);
	node->has_capability = false;
	if (!set_ids || !(node->mode & (S_ISUID | S_ISGID)) || node_place(fs, node, &p, &st) < 0)
		return;
	ids_read(node->source, &p, st.stx_mode, &ids);
	ids_show(node->source, &st, &ids, &shown);
	if (without_set_ids(shown.mode) != shown.mode)
		change_mode(node->source, &p, &st, &ids, shown.mode, without_set_ids(shown.mode));
	node->mode = without_set_ids(shown.mode);
}

int op_setattr(struct request *rq)
{
	const struct fuse_setattr_in *in = ARGS(rq, fuse_setattr_in);
	cleanup_place struct place p = PLACE_INIT;
	struct fuse_attr_out out = {.attr_valid_nsec = CACHE_NS};
	struct node *node = rq->node;
	struct fuse_attr shown;
	struct statx st;
	struct ids ids;
	int result = may_write(node);

	if (result == 0 && in->valid & FATTR_SIZE)
		result = set_size(rq->fs, node, in);
	if (result == 0)
		result = node_place(rq->fs, node, &p, &st);
	if (result < 0)
		return result;
	ids_read(node->source, &p, st.stx_mode, &ids);
	ids_show(node->source, &st, &ids, &shown);
	if (in->valid & (FATTR_UID | FATTR_GID)) {
		result = set_owner(node->source, &p, &st, &shown, in);
		ids_drop_capability(&p, &ids);
		/* As everywhere on Linux (chown(2)); the guest's kernel leaves it to us (FUSE_HANDLE_KILLPRIV_V2). */
		if (result == 0 && !(in->valid & FATTR_MODE) && without_set_ids(shown.mode) != shown.mode)
			result = change_mode(node->source, &p, &st, &ids, shown.mode, without_set_ids(shown.mode));
	}
	if (result == 0 && in->valid & FATTR_MODE)
		result = change_mode(node->source, &p, &st, &ids, shown.mode, in->mode);
	if (result == 0 && in->valid & (FATTR_ATIME | FATTR_MTIME))
		result = set_times(&p, in);
	if (result < 0)
		return result;
	place_close(&p);
	result = share_attr(rq->fs, node, &out.attr);
	return result < 0 ? result : reply(rq, &out, sizeof(out));
}

/* ---- the rest ---- */

int op_readlink(struct request *rq)
{
	cleanup_close int fd = node_open(rq->fs, rq->node, O_PATH);
	char text[PATH_MAX];
	ssize_t n;

	if (fd < 0)
		return fd;
	n = readlinkat(fd, "", text, sizeof(text));
	if (n < 0 && S_ISLNK(rq->node->mode)) { /* as QEMU keeps links: a file with the text */
		cleanup_close int file = node_open(rq->fs, rq->node, O_RDONLY | O_NONBLOCK);

		n = file < 0 ? -1 : pread(file, text, sizeof(text), 0);
	}
	return n < 0 ? -EINVAL : reply(rq, text, (size_t)n);
}

int op_statfs(struct request *rq)
{
	struct fuse_statfs_out out = {.st = {.bsize = 4096, .frsize = 4096, .namelen = HOSTFS_NAME_MAX}};
	cleanup_close int fd = -1;
	struct statvfs fs;

	if (!rq->node->source)
		return reply(rq, &out, sizeof(out));
	fd = node_open(rq->fs, rq->node, O_PATH);
	if (fd < 0)
		return fd;
	if (fstatvfs(fd, &fs) < 0)
		return -errno;
	out.st = (struct fuse_kstatfs){
		.blocks = fs.f_blocks,
		.bfree = fs.f_bfree,
		.bavail = fs.f_bavail,
		.files = fs.f_files,
		.ffree = fs.f_ffree,
		.bsize = (uint32_t)fs.f_bsize,
		.namelen = (uint32_t)(fs.f_namemax < HOSTFS_NAME_MAX ? fs.f_namemax : HOSTFS_NAME_MAX),
		.frsize = (uint32_t)fs.f_frsize,
	};
	quota_statfs(rq->node->source, &out.st);
	return reply(rq, &out, sizeof(out));
}
