/*
 * The quota: what the top overlays of this server, and files that other machines
 * of the session write (--quota-with), may take together on the host's disk.
 *
 * What they take is looked up with fstat() (st_blocks; file systems that allocate
 * late count what they promised). Between two looks what is written is added up:
 * a look far from the limit is good for an eighth of what is left; near the limit
 * each write looks. Others look too, so together they can go over by no more than
 * that eighth each, which shrinks to nothing.
 *
 * Raw disks are refused a little sooner than overlays: one of those holds the guest's root file system, which loses its
 * journal with the first write that is refused.
 *
 * A write that would go over is still allowed where the top has the space
 * already: rewriting costs nothing. Bitmap blocks not yet written are counted too;
 * a flush is never refused.
 */
#include <fcntl.h>

#include "cow/serve_internal.h"

#define BLOCK 4096u  /* what a host's file system gives out */
#define SHARE 8u     /* of what is left is good until the next look */
#define KEPT  16u    /* one part in so many is for overlays alone */
#define SLACK 65536u /* kept for the file system's own blocks and the bitmap's */

struct serve_quota {
	pthread_mutex_t lock;
	uint64_t limit, used; /* as looked up last */
	uint64_t good_for;    /* bytes that may be written before the next look */
	bool full;
	int tops[COW_SERVE_DISKS_MAX]; /* duplicates; -1 for none */
	const char *const *with;
	size_t with_count;
};

struct serve_quota *serve_quota_new(const struct cow_serve_options *o, struct error *err)
{
	struct serve_quota *q = calloc(1, sizeof(*q));

	if (!q) {
		error_oom(err);
		return NULL;
	}
	pthread_mutex_init(&q->lock, NULL);
	q->limit = o->quota;
	q->with = (const char *const *)o->quota_with.items;
	q->with_count = o->quota_with.count;
	for (size_t i = 0; i < COW_SERVE_DISKS_MAX; i++)
		q->tops[i] = -1;
	return q;
}

void serve_quota_free(struct serve_quota *q)
{
	if (!q)
		return;
	for (size_t i = 0; i < COW_SERVE_DISKS_MAX; i++)
		if (q->tops[i] >= 0)
			close(q->tops[i]);
	pthread_mutex_destroy(&q->lock);
	free(q);
}

static void look(struct serve_quota *q)
{
	struct stat st;

	q->used = 0;
	for (size_t i = 0; i < COW_SERVE_DISKS_MAX; i++)
		if (q->tops[i] >= 0 && !fstat(q->tops[i], &st))
			q->used += (uint64_t)st.st_blocks * 512;
	/* by name: a reset, or a snapshot, puts another file there; one that is gone takes nothing */
	for (size_t i = 0; i < q->with_count; i++)
		if (!stat(q->with[i], &st))
			q->used += (uint64_t)st.st_blocks * 512;
	q->good_for = q->used + SLACK < q->limit ? (q->limit - q->used - SLACK) / SHARE : 0;
}

void serve_quota_set_top(struct serve_quota *q, uint32_t disk, const struct cow_file *top)
{
	pthread_mutex_lock(&q->lock);
	if (q->tops[disk] >= 0)
		close(q->tops[disk]);
	q->tops[disk] = top ? fcntl(top->fd, F_DUPFD_CLOEXEC, 0) : -1;
	q->full = false;
	look(q);
	pthread_mutex_unlock(&q->lock);
}

/* Bitmap blocks that the next flush writes, as bytes; some of them are allocated already. */
static uint64_t pending_bitmap(const struct cow_file *top)
{
	uint64_t n = 0;

	if (!top->bitmap || !top->bitmap_dirty)
		return 0;
	for (uint64_t i = 0; i < top->dirty_blocks / 8 + 1; i++)
		n += (uint64_t)__builtin_popcount(top->dirty[i]);
	return n * COW_BITMAP_BLOCK;
}

/* Whether all of a range is stored in blocks that the file has already. */
static bool is_allocated(const struct cow_file *top, uint64_t at, uint64_t n)
{
	uint64_t place = cow_file_place(top, at);
	bool is_data;

	return cow_data_run(top->fd, place, n, &is_data) == n && is_data;
}

bool serve_quota_allows(struct serve_quota *q, const struct cow_file *top, uint64_t at, uint64_t n)
{
	uint64_t need = (n + 2 * BLOCK - 1) / BLOCK * BLOCK; /* its ends may lie within blocks */
	uint64_t kept = top->bitmap ? 0 : q->limit / KEPT;
	bool ok = true;

	if (!q->limit)
		return true;
	pthread_mutex_lock(&q->lock);
	if (need > q->good_for || q->good_for * SHARE < kept) {
		look(q);
		if (need > q->good_for || q->good_for * SHARE < kept) {
			ok = q->used + pending_bitmap(top) + SLACK + need + kept <= q->limit;
			q->good_for = ok ? need : 0;
		}
	}
	if (ok)
		q->good_for -= need;
	else
		ok = is_allocated(top, at, n);
	q->full = !ok;
	pthread_mutex_unlock(&q->lock);
	return ok;
}

void serve_quota_stats(struct serve_quota *q, struct cow_serve_stats *out)
{
	struct stat st;

	pthread_mutex_lock(&q->lock);
	if (q->tops[out->disk] >= 0 && !fstat(q->tops[out->disk], &st))
		out->allocated = (uint64_t)st.st_blocks * 512;
	look(q);
	if (q->good_for >= SLACK) /* space was given back */
		q->full = false;
	out->quota = q->limit;
	out->quota_used = q->used;
	if (q->limit)
		out->quota_state = q->full ? COW_SERVE_QUOTA_FULL : COW_SERVE_QUOTA_OK;
	pthread_mutex_unlock(&q->lock);
}
