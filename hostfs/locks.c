/*
 * Locks on files (fcntl(2), flock(2)) of shares that may be written: taken on the host's files, so machines that have one share,
 * and programs on the host, see each other's.
 *
 * The guest's kernel names an owner with each lock: a process (fcntl) or an open file (flock). Here each owner has a descriptor of
 * its own for each file, a holder: open file description locks (F_OFD_SETLK) and flock() are bound to those. fcntl's locks go when
 * their owner closes the file (FLUSH), flock's with the last close (RELEASE), and all when the guest has the file open no more.
 *
 * A lock that has to be waited for is tried again every WAIT_TICK_MS (the device's timer); other requests go on. virtiofs does not
 * tell of signals to those who wait (fs/fuse/virtio_fs.c, "TODO interrupts"), so they wait for LOCK_WAIT_MS at most: EDEADLK then.
 *
 * Locks of a process that dies, ours, are gone: files are unlocked, and the guest is not told (as with NFS servers).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "hostfs/internal.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/loop.h"

#define HOLDERS_MAX  4096   /* descriptors for locks, of a share */
#define LOCK_WAIT_MS 300000 /* nobody can be killed meanwhile */

/* ---- holders ---- */

static struct lock_holder **find(struct node *node, uint64_t owner, bool flock)
{
	struct lock_holder **p = &node->holders;

	while (*p && ((*p)->owner != owner || (*p)->flock != flock))
		p = &(*p)->next;
	return p;
}

/* Closing the descriptor unlocks. */
static void drop(struct hostfs *fs, struct lock_holder **p)
{
	struct lock_holder *holder = *p;

	*p = holder->next;
	close(holder->fd);
	free(holder);
	fs->holder_count--;
}

void locks_drop(struct hostfs *fs, struct node *node, uint64_t owner, bool flock)
{
	struct lock_holder **p = find(node, owner, flock);

	if (*p)
		drop(fs, p);
}

void locks_drop_all(struct hostfs *fs, struct node *node)
{
	while (node->holders)
		drop(fs, &node->holders);
}

/* The holder's descriptor, made if there is none. -errno. */
static int hold(struct hostfs *fs, struct node *node, uint64_t owner, bool flock)
{
	struct lock_holder **p = find(node, owner, flock), *holder;
	int fd;

	if (*p)
		return (*p)->fd;
	if (fs->holder_count >= HOLDERS_MAX)
		return -ENOLCK;
	if (!node->handles) /* nothing would ever drop it */
		return -EBADF;
	fd = open_with_force(fs, node, O_RDWR);
	holder = fd < 0 ? NULL : malloc(sizeof(*holder));
	if (!holder) {
		if (fd >= 0)
			close(fd);
		return fd < 0 ? fd : -ENOLCK;
	}
	*holder = (struct lock_holder){.owner = owner, .flock = flock, .fd = fd};
	*p = holder;
	fs->holder_count++;
	return fd;
}

/* ---- locks ---- */

static int to_range(const struct fuse_file_lock *lk, struct flock *range)
{
	if ((lk->type != F_RDLCK && lk->type != F_WRLCK && lk->type != F_UNLCK) || lk->start > lk->end || lk->end > INT64_MAX)
		return -EINVAL;
	*range = (struct flock){.l_type = (short)lk->type,
				.l_whence = SEEK_SET,
				.l_start = (off_t)lk->start,
				/* 0: to the end, wherever that will be */
				.l_len = lk->end == INT64_MAX ? 0 : (off_t)(lk->end - lk->start + 1)};
	return 0;
}

/* Takes or gives back a lock. 0, -EAGAIN: somebody else has it, or another -errno. */
static int set_lock(struct hostfs *fs, struct node *node, const struct fuse_lk_in *in)
{
	bool is_flock = in->lk_flags & FUSE_LK_FLOCK;
	struct flock range;
	int fd, result = to_range(&in->lk, &range);

	if (result < 0)
		return result;
	if (!node->source || !S_ISREG(node->mode))
		return -EBADF;
	if (in->lk.type == F_UNLCK && !*find(node, in->owner, is_flock))
		return 0;
	fd = hold(fs, node, in->owner, is_flock);
	if (fd < 0)
		return fd;
	if (is_flock)
		result = flock(fd, LOCK_NB | (in->lk.type == F_UNLCK ? LOCK_UN : in->lk.type == F_RDLCK ? LOCK_SH : LOCK_EX));
	else
		result = fcntl(fd, F_OFD_SETLK, &range);
	if (result == 0 && in->lk.type == F_UNLCK && in->lk.start == 0 && in->lk.end == INT64_MAX)
		locks_drop(fs, node, in->owner, is_flock);
	if (result < 0)
		return errno == EACCES || errno == EWOULDBLOCK ? -EAGAIN : -errno;
	return 0;
}

int op_getlk(struct request *rq)
{
	const struct fuse_lk_in *in = ARGS(rq, fuse_lk_in);
	struct fuse_lk_out out = {.lk = {.type = F_UNLCK}};
	struct flock range;
	int fd, result = to_range(&in->lk, &range);

	if (result < 0)
		return result;
	if (!rq->node->source || !S_ISREG(rq->node->mode))
		return -EBADF;
	fd = hold(rq->fs, rq->node, in->owner, false);
	if (fd < 0)
		return fd;
	if (fcntl(fd, F_OFD_GETLK, &range) < 0)
		return -errno;
	if (range.l_type != F_UNLCK)
		out.lk = (struct fuse_file_lock){.type = (uint32_t)range.l_type,
						 .start = (uint64_t)range.l_start,
						 .end = range.l_len ? (uint64_t)(range.l_start + range.l_len - 1) : INT64_MAX};
	return reply(rq, &out, sizeof(out));
}

int op_setlk(struct request *rq)
{
	return set_lock(rq->fs, rq->node, ARGS(rq, fuse_lk_in));
}

int op_flush(struct request *rq)
{
	/* Where files are not opened locks are the guest's own, and closing them needs no request. */
	if (rq->fs->no_open)
		return -ENOSYS;
	locks_drop(rq->fs, rq->node, ARGS(rq, fuse_flush_in)->lock_owner, false);
	return 0;
}

/* ---- waiting ---- */

int op_setlkw(struct request *rq)
{
	int result = op_setlk(rq);

	if (result != -EAGAIN)
		return result;
	for (int i = 0; rq->fs->may_wait && i < HOSTFS_WAITS_MAX; i++) {
		struct lock_wait *w = &rq->fs->waits[i];

		if (w->used)
			continue;
		*w = (struct lock_wait){
			.used = true, .in = rq->in, .lock = *ARGS(rq, fuse_lk_in), .until_ms = loop_now_ms() + LOCK_WAIT_MS};
		rq->fs->waits_last = i;
		return WAITS;
	}
	return -ENOLCK;
}

int op_interrupt(struct request *rq)
{
	for (int i = 0; i < HOSTFS_WAITS_MAX; i++)
		if (rq->fs->waits[i].used && rq->fs->waits[i].in.unique == ARGS(rq, fuse_interrupt_in)->unique)
			rq->fs->waits[i].interrupted = true;
	return 0;
}

bool hostfs_wait_try(struct hostfs *fs, int wait, struct hostfs_answer *answer)
{
	struct lock_wait *w = &fs->waits[wait];
	struct node *node = node_get(fs, w->in.nodeid);
	int result = !node ? -ESTALE : w->interrupted ? -EINTR : set_lock(fs, node, &w->lock);

	if (result == -EAGAIN && loop_now_ms() < w->until_ms)
		return false;
	if (result == -EAGAIN)
		result = -EDEADLK;
	*answer = (struct hostfs_answer){.unique = w->in.unique, .error = -result};
	return true;
}

void hostfs_wait_end(struct hostfs *fs, int wait)
{
	fs->waits[wait].used = false;
}
