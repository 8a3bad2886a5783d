/* Making, removing and renaming: everything that changes a folder. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hostfs/internal.h"
#include "uml-lab/base/cleanup.h"

#define RENAME_FLAGS (1u | 2u) /* RENAME_NOREPLACE, RENAME_EXCHANGE */
#define BLOCK	     512

/* The folder that a name is to be made in or taken out of. A descriptor of node_folder(), or -errno. */
static int open_folder(struct request *rq, struct node *folder, const char *name, bool create)
{
	int result = may_name(folder, name, create);

	if (result == 0)
		result = may_write(folder);
	if (result == 0 && create)
		result = quota_check(folder->source, 0);
	return result < 0 ? result : node_folder(rq->fs, folder);
}

/* The group that files in a folder with the set-group-id bit get. */
static uint32_t group_of(struct request *rq, struct node *parent)
{
	cleanup_place struct place p = PLACE_INIT;
	struct fuse_attr attr;
	struct statx st;
	struct ids ids;

	if (node_place(rq->fs, parent, &p, &st) < 0)
		return rq->in.gid;
	ids_read(parent->source, &p, st.stx_mode, &ids);
	ids_show(parent->source, &st, &ids, &attr);
	return attr.mode & S_ISGID ? attr.gid : rq->in.gid;
}

/* What is about to be made in the request's folder. */
struct birth {
	mode_t mode;	/* as the guest sees it */
	uint64_t rdev;
	struct acl acl; /* of the folder, for what is made in it */
	mode_t host;	/* permissions on the host */
};

static void plan_birth(struct request *rq, int dir, mode_t mode, mode_t umask, uint64_t rdev, struct birth *b)
{
	bool special = !S_ISREG(mode) && !S_ISDIR(mode);

	b->rdev = rdev;
	b->mode = acl_inherit(rq->fs, rq->node, dir, mode, umask, &b->acl);
	if (S_ISDIR(mode) && rq->node->mode & S_ISGID)
		b->mode |= S_ISGID;
	b->host = special ? 0600 : ids_host_mode(b->mode, acl_says_more(&b->acl));
}

/* Places the guest's owner, mode and list on what was made in the request's folder. *given tells them. 0 or -errno. */
static int give_ids(struct request *rq, const struct place *p, const struct birth *b, struct ids *given)
{
	const struct source *s = rq->node->source;
	bool special = !S_ISREG(b->mode) && !S_ISDIR(b->mode) && !S_ISLNK(b->mode);
	uint32_t gid = rq->node->mode & S_ISGID ? group_of(rq, rq->node) : rq->in.gid;
	struct ids ids = {.uid = rq->in.uid, .gid = gid, .mode = b->mode, .rdev = b->rdev};
	int result;

	ids.has_uid = ids.uid != (s->share->owner_host ? geteuid() : s->share->uid);
	ids.has_gid = ids.gid != (s->share->owner_host ? getegid() : s->share->gid);
	ids.has_mode = special || (!S_ISLNK(b->mode) && b->host != (b->mode & 07777));
	ids.has_rdev = S_ISCHR(b->mode) || S_ISBLK(b->mode);
	ids.has_acl = !S_ISLNK(b->mode) && acl_says_more(&b->acl);
	*given = ids;
	result = ids_write(s, p, special ? S_IFREG : b->mode, &ids);
	return result < 0 || S_ISLNK(b->mode) ? result : acl_give(p, b->mode, &b->acl);
}

/* What is read of a file just made is what was given to it. (A sidecar may have been there.) */
static const struct ids *known(const struct request *rq, const struct birth *b, const struct ids *ids)
{
	bool special = !S_ISREG(b->mode) && !S_ISDIR(b->mode);

	return ids_use_sidecar(rq->node->source, special ? S_IFREG : b->mode) || S_ISLNK(b->mode) ? NULL : ids;
}

/*
 * What was made gets its owner and is told; if that fails it is removed. fd: of a
 * file, for the writes that will follow; -1: none.
 */
static int finish(struct request *rq, int dir, const struct birth *b, int *fd)
{
	struct place p = {.dir = dir, .name = rq->name};
	struct fuse_entry_out out;
	struct node *node;
	struct ids ids;
	int result = give_ids(rq, &p, b, &ids);

	if (result < 0) {
		unlinkat(dir, rq->name, S_ISDIR(b->mode) ? AT_REMOVEDIR : 0);
		return result;
	}
	result = entry_fill(rq->fs, rq->node, dir, rq->name, known(rq, b, &ids), &out, &node);
	if (result < 0)
		return result;
	if (fd && S_ISREG(node->mode) && node->file < 0)
		node_keep_file(rq->fs, node, steal_fd(fd), true);
	quota_add(rq->node->source, (int64_t)out.attr.blocks * BLOCK);
	return reply(rq, &out, sizeof(out));
}

int op_mknod(struct request *rq)
{
	const struct fuse_mknod_in *in = ARGS(rq, fuse_mknod_in);
	mode_t type = in->mode & S_IFMT, mode = (in->mode & 07777) | (type ? type : S_IFREG);
	int dir = open_folder(rq, rq->node, rq->name, true);
	cleanup_close int fd = -1;
	struct birth b;

	if (dir < 0)
		return dir;
	if (!S_ISREG(mode) && !S_ISCHR(mode) && !S_ISBLK(mode) && !S_ISFIFO(mode) && !S_ISSOCK(mode))
		return -EINVAL;
	plan_birth(rq, dir, mode, in->umask, in->rdev, &b);
	fd = openat(dir, rq->name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, b.host);
	return fd < 0 ? -errno : finish(rq, dir, &b, S_ISREG(mode) && rq->fs->no_open ? &fd : NULL);
}

int op_mkdir(struct request *rq)
{
	const struct fuse_mkdir_in *in = ARGS(rq, fuse_mkdir_in);
	int dir = open_folder(rq, rq->node, rq->name, true);
	struct birth b;

	if (dir < 0)
		return dir;
	plan_birth(rq, dir, S_IFDIR | (in->mode & 07777), in->umask, 0, &b);
	/* As mkdirat() ignores set-id bits, and the host's folder may hand down its own. */
	return mkdirat(dir, rq->name, b.host) < 0 ? -errno : finish(rq, dir, &b, NULL);
}

int op_symlink(struct request *rq)
{
	int dir = open_folder(rq, rq->node, rq->name, true);
	struct birth b = {.mode = S_IFLNK | 0777};

	if (dir < 0)
		return dir;
	return symlinkat(rq->name2, dir, rq->name) < 0 ? -errno : finish(rq, dir, &b, NULL);
}

/* An entry and an open file: the answer to CREATE and TMPFILE. */
struct created {
	struct fuse_entry_out entry;
	struct fuse_open_out open;
};

/* Takes fd over. */
static int reply_created(struct request *rq, struct node *node, int fd, struct created *out)
{
	struct handle *h = handle_new(rq->fs, node, fd, false);

	if (!h) {
		node_forget(rq->fs, node, 1);
		return -ENOMEM;
	}
	h->writes = (ARGS(rq, fuse_create_in)->flags & O_ACCMODE) != O_RDONLY;
	out->open.fh = table_id(&rq->fs->handles, h->index);
	out->open.open_flags = FOPEN_KEEP_CACHE;
	return reply(rq, out, sizeof(*out));
}

int op_create(struct request *rq)
{
	const struct fuse_create_in *in = ARGS(rq, fuse_create_in);
	int flags = (int)in->flags & (O_ACCMODE | O_APPEND);
	int dir = open_folder(rq, rq->node, rq->name, true);
	struct place p = {.dir = dir, .name = rq->name};
	cleanup_close int fd = -1;
	struct created out = {0};
	struct node *node;
	struct birth b;
	struct ids ids;
	int result = 0;
	bool made;

	if (dir < 0)
		return dir;
	if (rq->fs->no_open) /* it would be the only one to open: MKNOD does it */
		return -ENOSYS;
	plan_birth(rq, dir, S_IFREG | (in->mode & 07777), in->umask, 0, &b);
	fd = openat(dir, rq->name, flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, b.host);
	made = fd >= 0;
	if (fd < 0 && (errno != EEXIST || in->flags & O_EXCL))
		return -errno;
	if (made)
		result = give_ids(rq, &p, &b, &ids);
	if (result < 0) {
		unlinkat(dir, rq->name, 0);
		return result;
	}
	result = entry_fill(rq->fs, rq->node, dir, rq->name, made ? known(rq, &b, &ids) : NULL, &out.entry, &node);
	if (result < 0)
		return result;
	/* Somebody on the host made it just now: then it is only opened. */
	if (!made)
		fd = S_ISREG(node->mode) ? open_with_force(rq->fs, node, flags) : -EACCES;
	if (fd < 0) {
		result = fd;
		fd = -1;
		node_forget(rq->fs, node, 1);
		return result;
	}
	return reply_created(rq, node, steal_fd(&fd), &out);
}

/*
 * A file without a name, which the guest may give it one (LINK). Without OPEN there are no handles either: it is the node's
 * open file then.
 */
int op_tmpfile(struct request *rq)
{
	int dir = open_folder(rq, rq->node, "x", true);
	cleanup_close int fd = -1;
	const struct fuse_create_in *in = ARGS(rq, fuse_create_in);
	struct created out = {0};
	struct place p = PLACE_INIT;
	struct node *node;
	struct birth b;
	struct ids ids;
	int result;

	if (dir < 0)
		return dir;
	if (ids_use_sidecar(rq->node->source, S_IFREG)) /* nothing beside a name could say whose it is */
		return -EOPNOTSUPP;
	plan_birth(rq, dir, S_IFREG | (in->mode & 07777), in->umask, 0, &b);
	fd = openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, b.host);
	if (fd < 0)
		return -errno;
	p.dir = fd;
	result = give_ids(rq, &p, &b, &ids);
	if (result == 0)
		result = entry_fill_nameless(rq->fs, rq->node->source, fd, &out.entry, &node);
	if (result < 0)
		return result;
	if (!rq->fs->no_open)
		return reply_created(rq, node, steal_fd(&fd), &out);
	node_keep_file(rq->fs, node, steal_fd(&fd), true);
	out.open.open_flags = FOPEN_KEEP_CACHE;
	return reply(rq, &out, sizeof(out));
}

/* ---- names that go ---- */

/* What a name that is about to go stands for. */
struct going {
	struct node *node; /* NULL: the guest does not know it */
	int orphan;
	bool exists, last;
	mode_t mode;
	uint64_t bytes;
};

static void look_at_going(struct hostfs *fs, struct node *parent, int dir, const char *name, struct going *g)
{
	struct statx st;

	*g = (struct going){.orphan = -1};
	if (statx(dir, name, AT_SYMLINK_NOFOLLOW, STATX_WANTED, &st) < 0)
		return;
	g->exists = true;
	g->mode = st.stx_mode;
	g->last = S_ISDIR(st.stx_mode) || st.stx_nlink == 1;
	g->bytes = st.stx_blocks * BLOCK;
	g->node = node_find(fs, parent->source, &st);
	/* It may be open, or be used on by another name, or as somebody's working folder. */
	if (g->node && g->node->orphan < 0)
		g->orphan = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

/* The name is gone. */
static void gone(struct hostfs *fs, struct node *parent, const char *name, struct going *g)
{
	struct node *node = g->node;

	if (g->exists && g->last && !node)
		quota_add(parent->source, -(int64_t)g->bytes);
	else if (g->exists && g->last)
		node->unlinked = true;
	if (node && node->parent == parent && str_eq(node->name, name)) {
		/* The caller's request still stands on the parent, which has lookups: neither is freed here. */
		node_move(fs, node, NULL, NULL);
		node->orphan = node->orphan < 0 ? steal_fd(&g->orphan) : node->orphan;
	}
}

static void stays(struct going *g)
{
	if (g->orphan >= 0)
		close(steal_fd(&g->orphan));
}

static int remove_name(struct request *rq, int flags)
{
	int dir = open_folder(rq, rq->node, rq->name, false);
	struct going g;
	int result;

	if (dir < 0)
		return dir;
	look_at_going(rq->fs, rq->node, dir, rq->name, &g);
	result = unlinkat(dir, rq->name, flags) < 0 ? -errno : 0;
	if (flags & AT_REMOVEDIR && (result == -ENOTEMPTY || result == -EEXIST)) {
		cleanup_close int folder = openat(dir, rq->name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

		if (folder >= 0 && sidecar_clear(folder))
			result = unlinkat(dir, rq->name, flags) < 0 ? -errno : 0;
		result = result == -EEXIST ? -ENOTEMPTY : result;
	}
	if (result == 0)
		gone(rq->fs, rq->node, rq->name, &g);
	stays(&g);
	if (result == 0 && g.exists && ids_use_sidecar(rq->node->source, g.mode))
		sidecar_remove(dir, rq->name);
	return result;
}

int op_unlink(struct request *rq)
{
	return remove_name(rq, 0);
}

int op_rmdir(struct request *rq)
{
	return remove_name(rq, AT_REMOVEDIR);
}

/* ---- RENAME, LINK ---- */

/* The node of what lies at dir/name now learns that it does. */
static void learn(struct hostfs *fs, struct node *parent, int dir, const char *name)
{
	struct statx st;
	struct node *node;

	if (statx(dir, name, AT_SYMLINK_NOFOLLOW, STATX_WANTED, &st) < 0)
		return;
	node = node_find(fs, parent->source, &st);
	if (node && !(node->parent == parent && str_eq(node->name, name)))
		node_move(fs, node, parent, name);
}

static int host_rename(int from, const char *name, int to, const char *new_name, unsigned int flags)
{
	int result = flags ? (int)syscall(SYS_renameat2, from, name, to, new_name, flags)
			   : renameat(from, name, to, new_name);

	if (result < 0 && (errno == ENOTEMPTY || errno == EEXIST) && !flags) {
		cleanup_close int folder = openat(to, new_name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

		if (folder >= 0 && sidecar_clear(folder))
			result = renameat(from, name, to, new_name);
		else
			errno = ENOTEMPTY;
	}
	return result < 0 ? -errno : 0;
}

static int do_rename(struct request *rq, uint64_t newdir, unsigned int flags)
{
	struct node *target = node_get(rq->fs, newdir);
	struct going replaced;
	struct statx st;
	int from, to, result;

	if (flags & ~RENAME_FLAGS)
		return -EINVAL;
	if (!target || target->source != rq->node->source)
		return target ? -EXDEV : -ESTALE;
	from = open_folder(rq, rq->node, rq->name, false);
	to = from < 0 ? from : open_folder(rq, target, rq->name2, false);
	if (to == -ENOENT && from >= 0) /* hidden */
		return -EPERM;
	if (to < 0)
		return to;
	if (statx(from, rq->name, AT_SYMLINK_NOFOLLOW, STATX_WANTED, &st) < 0)
		return -errno;
	look_at_going(rq->fs, target, to, rq->name2, &replaced);
	result = host_rename(from, rq->name, to, rq->name2, flags);
	/* Two names of one file: nothing happens (rename(2)). */
	if (result == 0 && !flags && replaced.node && replaced.node == node_find(rq->fs, target->source, &st) &&
	    faccessat(from, rq->name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		replaced.exists = false, replaced.node = NULL;
	if (result == 0 && !flags)
		gone(rq->fs, target, rq->name2, &replaced);
	stays(&replaced);
	if (result < 0)
		return result;
	learn(rq->fs, target, to, rq->name2);
	if (flags & 2)
		learn(rq->fs, rq->node, from, rq->name);
	else if (ids_use_sidecar(target->source, st.stx_mode) ||
		 (replaced.exists && ids_use_sidecar(target->source, replaced.mode)))
		sidecar_rename(from, rq->name, to, rq->name2);
	return 0;
}

int op_rename(struct request *rq)
{
	return do_rename(rq, ARGS(rq, fuse_rename_in)->newdir, 0);
}

int op_rename2(struct request *rq)
{
	const struct fuse_rename2_in *in = ARGS(rq, fuse_rename2_in);

	return do_rename(rq, in->newdir, in->flags);
}

int op_link(struct request *rq)
{
	struct node *old = node_get(rq->fs, ARGS(rq, fuse_link_in)->oldnodeid);
	cleanup_place struct place p = PLACE_INIT;
	char path[PLACE_PATH_MAX];
	struct fuse_entry_out out;
	struct statx st;
	int dir, result;

	if (!old || old->source != rq->node->source)
		return old ? -EXDEV : -ESTALE;
	dir = open_folder(rq, rq->node, rq->name, true);
	if (dir < 0)
		return dir;
	result = node_place(rq->fs, old, &p, &st);
	if (result < 0)
		return result;
	if (p.name ? linkat(p.dir, p.name, dir, rq->name, 0) < 0
		   : linkat(AT_FDCWD, place_path(&p, path), dir, rq->name, AT_SYMLINK_FOLLOW) < 0)
		return -errno;
	if (p.name && ids_use_sidecar(old->source, st.stx_mode))
		sidecar_copy(p.dir, p.name, dir, rq->name);
	result = entry_fill(rq->fs, rq->node, dir, rq->name, NULL, &out, NULL);
	return result < 0 ? result : reply(rq, &out, sizeof(out));
}
