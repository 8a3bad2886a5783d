/*
 * Locks on files (fcntl(2), flock(2)) of shares that may be written: taken on the host's files, so machines that have one share,
 * and programs on the host, see each other's.
 *
 * The guest's kernel names an owner with each lock: a process (fcntl) or an open file (flock). Here each owner has a descriptor of
 * its own for each file, a holder: open file description locks (F_OFD_SETLK) and flock() are bound to those. fcntl's locks go when
 * their owner closes the file (FLUSH), flock's with the last close (RELEASE), and all when the guest has the file open no more.
 *
 * A lock that has to be waited for is tried again every HOSTFS_WAIT_MS (the device's timer); other requests go on. virtiofs
 * does not tell of signals to those who wait (fs/fuse/virtio_fs.c, "TODO interrupts"): the supervisor has the guest's agent look
 * (machine/share_waits.c), and hostfs_interrupt() ends the wait with EINTR, of which the guest's kernel makes a restart or an
 * interrupted call (fs/fuse/file.c, fuse_setlk()). Nobody waits longer than LOCK_WAIT_MS: EDEADLK then.
 * Owners of one guest who wait for each other in a circle get it at once (fcntl only, as the kernel's own): for that we keep
 * account of what each has. A circle through another machine or the host is not seen.
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
#define RANGES_MAX   4096   /* of one holder */
#define LOCK_WAIT_MS 30000

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
	free(holder->ranges);
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

/* The holder, made if there is none. 0 or -errno. */
static int hold(struct hostfs *fs, struct node *node, uint64_t owner, bool flock, struct lock_holder **out)
{
	struct lock_holder **p = find(node, owner, flock), *holder;
	int fd;

	*out = *p;
	if (*p)
		return 0;
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
	*out = *p = holder;
	fs->holder_count++;
	return 0;
}

/* ---- what they have ---- */

/* Room for what a change of one range may make of the others. 0 or -ENOLCK. */
static int make_room(struct lock_holder *holder)
{
	struct lock_range *ranges;

	if (holder->range_count >= RANGES_MAX)
		return -ENOLCK;
	ranges = reallocarray(holder->ranges, holder->range_count + 2, sizeof(*ranges));
	if (!ranges)
		return -ENOLCK;
	holder->ranges = ranges;
	return 0;
}

/* A range was locked or unlocked: it is cut out of the others, and joined to its like. After make_room(). */
static void note_range(struct lock_holder *holder, const struct fuse_file_lock *lk)
{
	struct lock_range fresh = {lk->start, lk->end, lk->type == F_WRLCK}, split = {0};
	size_t kept = 0;

	for (size_t i = 0; i < holder->range_count; i++) {
		struct lock_range r = holder->ranges[i];

		if (lk->type != F_UNLCK && r.write == fresh.write && r.end + 1 >= fresh.start && r.start <= fresh.end + 1) {
			fresh.start = r.start < fresh.start ? r.start : fresh.start;
			fresh.end = r.end > fresh.end ? r.end : fresh.end;
		} else if (r.end < lk->start || r.start > lk->end) {
			holder->ranges[kept++] = r;
		} else if (r.start < lk->start) { /* at most one reaches over both ends: there is room for its second half */
			holder->ranges[kept++] = (struct lock_range){r.start, lk->start - 1, r.write};
			if (r.end > lk->end)
				split = (struct lock_range){lk->end + 1, r.end, r.write};
		} else if (r.end > lk->end) {
			holder->ranges[kept++] = (struct lock_range){lk->end + 1, r.end, r.write};
		}
	}
	if (split.end)
		holder->ranges[kept++] = split;
	if (lk->type != F_UNLCK)
		holder->ranges[kept++] = fresh;
	holder->range_count = kept;
}

static bool is_in_the_way(const struct lock_holder *holder, const struct fuse_lk_in *in)
{
	if (holder->flock || holder->owner == in->owner)
		return false;
	for (size_t i = 0; i < holder->range_count; i++)
		if (holder->ranges[i].start <= in->lk.end && in->lk.start <= holder->ranges[i].end &&
		    (holder->ranges[i].write || in->lk.type == F_WRLCK))
			return true;
	return false;
}

/* Whether somebody who is in the way of a lock waits, himself or by others, for the owner. */
static bool leads_to(struct hostfs *fs, struct node *node, const struct fuse_lk_in *in, uint64_t owner, int depth)
{
	for (const struct lock_holder *h = node->holders; h && depth <= HOSTFS_WAITS_MAX; h = h->next) {
		if (!is_in_the_way(h, in))
			continue;
		if (h->owner == owner)
			return true;
		for (int i = 0; i < HOSTFS_WAITS_MAX; i++) {
			const struct lock_wait *w = &fs->waits[i];
			struct node *other = w->used ? node_get(fs, w->in.nodeid) : NULL;

			if (other && w->lock.owner == h->owner && !(w->lock.lk_flags & FUSE_LK_FLOCK) &&
			    leads_to(fs, other, &w->lock, owner, depth + 1))
				return true;
		}
	}
	return false;
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
	struct lock_holder *holder;
	struct flock range;
	int result = to_range(&in->lk, &range);

	if (result < 0)
		return result;
	if (!node->source || !S_ISREG(node->mode))
		return -EBADF;
	if (in->lk.type == F_UNLCK && !*find(node, in->owner, is_flock))
		return 0;
	result = hold(fs, node, in->owner, is_flock, &holder);
	if (result == 0 && !is_flock)
		result = make_room(holder);
	if (result < 0)
		return result;
	if (is_flock)
		result = flock(holder->fd, LOCK_NB | (in->lk.type == F_UNLCK ? LOCK_UN :
						      in->lk.type == F_RDLCK ? LOCK_SH : LOCK_EX));
	else
		result = fcntl(holder->fd, F_OFD_SETLK, &range);
	if (result < 0)
		return errno == EACCES || errno == EWOULDBLOCK ? -EAGAIN : -errno;
	if (!is_flock)
		note_range(holder, &in->lk);
	if (in->lk.type == F_UNLCK && in->lk.start == 0 && in->lk.end == INT64_MAX)
		locks_drop(fs, node, in->owner, is_flock);
	return 0;
}

int op_getlk(struct request *rq)
{
	const struct fuse_lk_in *in = ARGS(rq, fuse_lk_in);
	struct fuse_lk_out out = {.lk = {.type = F_UNLCK}};
	struct lock_holder *holder;
	struct flock range;
	int result = to_range(&in->lk, &range);

	if (result < 0)
		return result;
	if (!rq->node->source || !S_ISREG(rq->node->mode))
		return -EBADF;
	result = hold(rq->fs, rq->node, in->owner, false, &holder);
	if (result < 0)
		return result;
	if (fcntl(holder->fd, F_OFD_GETLK, &range) < 0)
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
	const struct fuse_lk_in *in = ARGS(rq, fuse_lk_in);
	int result = op_setlk(rq);

	if (result != -EAGAIN)
		return result;
	if (!(in->lk_flags & FUSE_LK_FLOCK) && leads_to(rq->fs, rq->node, in, in->owner, 0))
		return -EDEADLK;
	for (int i = 0; rq->fs->may_wait && i < HOSTFS_WAITS_MAX; i++) {
		struct lock_wait *w = &rq->fs->waits[i];

		if (w->used)
			continue;
		*w = (struct lock_wait){
			.used = true, .in = rq->in, .lock = *in, .until_ms = loop_now_ms() + LOCK_WAIT_MS};
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

void hostfs_wait_who(const struct hostfs *fs, int wait, uint64_t *unique, uint32_t *pid)
{
	*unique = fs->waits[wait].in.unique;
	*pid = fs->waits[wait].in.pid;
}

/* One that was never looked at is of a wait that has ended: it may be written over. */
void hostfs_interrupt(struct hostfs *fs, uint64_t unique)
{
	fs->interrupts[fs->interrupt_next++ % HOSTFS_WAITS_MAX] = unique;
}

static bool was_interrupted(struct hostfs *fs, const struct lock_wait *w)
{
	for (int i = 0; i < HOSTFS_WAITS_MAX; i++)
		if (fs->interrupts[i] == w->in.unique)
			return true;
	return w->interrupted;
}

bool hostfs_wait_try(struct hostfs *fs, int wait, struct hostfs_answer *answer)
{
	struct lock_wait *w = &fs->waits[wait];
	struct node *node = node_get(fs, w->in.nodeid);
	int result = !node ? -ESTALE : was_interrupted(fs, w) ? -EINTR : set_lock(fs, node, &w->lock);

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
