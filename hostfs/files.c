/* Files that are open: OPEN, READ, WRITE, RELEASE, FSYNC, FALLOCATE, LSEEK, COPY_FILE_RANGE. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "hostfs/internal.h"
#include "uml-lab/base/cleanup.h"

#define COPY_MAX   ((size_t)16 << 20) /* bytes copied for one request */
#define PIECES_MAX (HOSTFS_IO_MAX / 4096 + 8)
#define GUEST_FLAGS (O_ACCMODE | O_APPEND) /* of an open: the rest is the guest kernel's affair */

/* Gives the owner of a file on the host what the guest's root has anyway. 0 or -errno. */
static int make_accessible(struct hostfs *fs, struct node *node)
{
	cleanup_place struct place p = PLACE_INIT;
	cleanup_close int fd = -1;
	struct ids ids = {0}, fresh;
	struct place direct;
	char path[PLACE_PATH_MAX];
	struct fuse_attr shown;
	struct statx st;
	mode_t host;
	int result = node_place(fs, node, &p, &st);

	if (result < 0)
		return result;
	if (st.stx_uid != geteuid() || !S_ISREG(st.stx_mode))
		return -EACCES;
	ids_read(node->source, &p, st.stx_mode, &ids);
	ids_show(node->source, &st, &ids, &shown);
	host = ids_host_mode(shown.mode, ids.has_acl);
	if (host == (st.stx_mode & 07777))
		return -EACCES;
	fd = p.name ? openat(p.dir, p.name, O_PATH | O_NOFOLLOW | O_CLOEXEC) : -1;
	direct = (struct place){.dir = p.name ? fd : p.dir};
	if (direct.dir < 0 || chmod(place_path(&direct, path), host) < 0)
		return -errno;
	fresh = (struct ids){.has_mode = true, .mode = shown.mode};
	return ids_write(node->source, &p, st.stx_mode, &fresh);
}

int open_with_force(struct hostfs *fs, struct node *node, int flags)
{
	int fd = node_open(fs, node, flags | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd == -EACCES && node->source->share->writable && make_accessible(fs, node) == 0)
		fd = node_open(fs, node, flags | O_NONBLOCK | O_NOCTTY);
	if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))) {
		close(fd);
		return -ENXIO;
	}
	return fd;
}

int op_open(struct request *rq)
{
	const struct fuse_open_in *in = ARGS(rq, fuse_open_in);
	int flags = (int)in->flags & GUEST_FLAGS;
	struct fuse_open_out out = {.open_flags = FOPEN_KEEP_CACHE};
	struct handle *h;
	int fd;

	if (rq->fs->no_open)
		return -ENOSYS;
	if (!rq->node->source || S_ISDIR(rq->node->mode))
		return -EISDIR;
	if ((flags & O_ACCMODE) != O_RDONLY && may_write(rq->node) < 0)
		return -EROFS;
	fd = open_with_force(rq->fs, rq->node, flags);
	if (fd < 0)
		return fd;
	h = handle_new(rq->fs, rq->node, fd, false);
	if (!h)
		return -ENOMEM;
	h->writes = (flags & O_ACCMODE) != O_RDONLY;
	out.fh = table_id(&rq->fs->handles, h->index);
	return reply(rq, &out, sizeof(out));
}

/* The open file of a request: by its handle, or where the guest opens none by its node. Descriptor or -errno. */
static int file_of(struct request *rq, struct node *node, uint64_t fh, bool writes)
{
	struct handle *h = fh ? handle_get(rq->fs, fh) : NULL;

	if (!fh)
		return node_file(rq->fs, node, writes);
	return h && !h->folder && h->node == node && (h->writes || !writes) ? h->fd : -EBADF;
}

int op_read(struct request *rq)
{
	const struct fuse_read_in *in = ARGS(rq, fuse_read_in);
	size_t header = sizeof(struct fuse_out_header);
	int fd = file_of(rq, rq->node, in->fh, false), count;
	struct iovec pieces[PIECES_MAX];
	size_t room = rq->in_bytes > header ? rq->in_bytes - header : 0;
	size_t want = in->size < room ? in->size : room;
	ssize_t n;

	if (fd < 0)
		return fd;
	if (in->offset > INT64_MAX - HOSTFS_IO_MAX)
		return -EINVAL;
	want = want > HOSTFS_IO_MAX ? HOSTFS_IO_MAX : want;
	count = iov_slice(rq->io->in, rq->io->in_count, header, want, pieces, PIECES_MAX);
	do
		n = preadv(fd, pieces, count, (off_t)in->offset);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : (int)n;
}

int op_write(struct request *rq)
{
	const struct fuse_write_in *in = ARGS(rq, fuse_write_in);
	int fd = file_of(rq, rq->node, in->fh, true), count, result;
	struct fuse_write_out out = {0};
	struct iovec pieces[PIECES_MAX];
	struct node *node = rq->node;
	struct source *s = node->source;
	uint64_t before;
	ssize_t n;

	if (fd < 0)
		return fd;
	if (in->size != rq->data_length || in->size > HOSTFS_IO_MAX || in->offset > INT64_MAX - HOSTFS_IO_MAX)
		return -EINVAL;
	result = quota_check_write(s, fd, in->offset, in->size);
	if (result < 0)
		return result;
	before = quota_size(s, fd);
	count = iov_slice(rq->io->out, rq->io->out_count, rq->data_at, rq->data_length, pieces, PIECES_MAX);
	do
		n = pwritev(fd, pieces, count, (off_t)in->offset);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	quota_add(s, (int64_t)quota_size(s, fd) - (int64_t)before);
	if (in->write_flags & FUSE_WRITE_KILL_SUIDGID || node->has_capability)
		drop_privileges_of(rq->fs, node, fd, in->write_flags & FUSE_WRITE_KILL_SUIDGID);
	out.size = (uint32_t)n;
	return reply(rq, &out, sizeof(out));
}

int op_release(struct request *rq)
{
	const struct fuse_release_in *in = ARGS(rq, fuse_release_in);
	struct handle *h = handle_get(rq->fs, in->fh);

	if (!h || h->folder)
		return -EBADF;
	if (in->release_flags & FUSE_RELEASE_FLOCK_UNLOCK)
		locks_drop(rq->fs, h->node, in->lock_owner, true);
	handle_close(rq->fs, h);
	return 0;
}

int op_fsync(struct request *rq)
{
	const struct fuse_fsync_in *in = ARGS(rq, fuse_fsync_in);
	int fd = file_of(rq, rq->node, in->fh, false);

	if (fd < 0)
		return fd;
	return (in->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(fd) : fsync(fd)) < 0 ? -errno : 0;
}

int op_fallocate(struct request *rq)
{
	const struct fuse_fallocate_in *in = ARGS(rq, fuse_fallocate_in);
	int fd = file_of(rq, rq->node, in->fh, true), result = 0;
	struct source *s = rq->node->source;
	uint64_t before;

	if (fd < 0)
		return fd;
	if (in->offset > INT64_MAX || in->length > INT64_MAX - in->offset)
		return -EFBIG;
	if (!(in->mode & FALLOC_FL_PUNCH_HOLE))
		result = quota_check_write(s, fd, in->offset, in->length);
	if (result < 0)
		return result;
	before = quota_size(s, fd);
	if (fallocate(fd, (int)in->mode, (off_t)in->offset, (off_t)in->length) < 0)
		return -errno;
	quota_add(s, (int64_t)quota_size(s, fd) - (int64_t)before);
	return 0;
}

int op_lseek(struct request *rq)
{
	const struct fuse_lseek_in *in = ARGS(rq, fuse_lseek_in);
	int fd = file_of(rq, rq->node, in->fh, false);
	struct fuse_lseek_out out;
	off_t at;

	if (fd < 0)
		return fd;
	if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)
		return -EINVAL;
	at = lseek(fd, (off_t)in->offset, (int)in->whence);
	if (at < 0)
		return -errno;
	out.offset = (uint64_t)at;
	return reply(rq, &out, sizeof(out));
}

int op_copy_file_range(struct request *rq)
{
	const struct fuse_copy_file_range_in *in = ARGS(rq, fuse_copy_file_range_in);
	struct node *target = node_get(rq->fs, in->nodeid_out);
	loff_t at_in = (loff_t)in->off_in, at_out = (loff_t)in->off_out;
	size_t want = in->len < COPY_MAX ? (size_t)in->len : COPY_MAX;
	struct fuse_write_out out = {0};
	uint64_t before;
	ssize_t n;
	int from, to, result;

	if (!target)
		return -ESTALE;
	/* In this order: opening the second must not close the first, which it does only when it is much older. */
	from = file_of(rq, rq->node, in->fh_in, false);
	to = from < 0 ? from : file_of(rq, target, in->fh_out, true);
	if (to >= 0) /* it may be one file, opened anew for writing */
		from = file_of(rq, rq->node, in->fh_in, false);
	if (to < 0 || from < 0)
		return to < 0 ? to : from;
	if (in->off_in > INT64_MAX - want || in->off_out > INT64_MAX - want)
		return -EINVAL;
	result = quota_check_write(target->source, to, in->off_out, want);
	if (result < 0)
		return result;
	before = quota_size(target->source, to);
	n = copy_file_range(from, &at_in, to, &at_out, want, (unsigned int)in->flags);
	if (n < 0)
		return errno == EXDEV ? -EOPNOTSUPP : -errno;
	quota_add(target->source, (int64_t)quota_size(target->source, to) - (int64_t)before);
	out.size = (uint32_t)n;
	return reply(rq, &out, sizeof(out));
}

int op_syncfs(struct request *rq)
{
	cleanup_close int fd = -1;

	if (may_write(rq->node) < 0)
		return 0;
	fd = node_open(rq->fs, rq->node, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return fd;
	return syncfs(fd) < 0 ? -errno : 0;
}
