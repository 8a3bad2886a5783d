/*
 * The quota: what the top overlays of this server, and what else belongs to the session (--quota-with), may take together on the
 * host's disk: files, and folders with all disks in them, among which are the layers that snapshots freeze and the tops that they
 * begin while this runs. Folders are opened at the start; later Landlock would not let us.
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
#include <dirent.h>
#include <fcntl.h>

#include "cow/serve_internal.h"

#define BLOCK 4096u  /* what a host's file system gives out */
#define SHARE 8u     /* of what is left is good until the next look */
#define KEPT  16u    /* one part in so many is for overlays alone */
#define SLACK 65536u /* kept for the file system's own blocks and the bitmap's */

/* What counts besides the tops. */
struct with {
	const char *path;
	DIR *folder; /* NULL: a file */
};

struct serve_quota {
	pthread_mutex_t lock;
	uint64_t limit, used; /* as looked up last */
	uint64_t good_for;    /* bytes that may be written before the next look */
	bool full;
	int tops[COW_SERVE_DISKS_MAX]; /* duplicates; -1 for none */
	struct with *with;
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
	for (size_t i = 0; i < COW_SERVE_DISKS_MAX; i++)
		q->tops[i] = -1;
	q->with = calloc(o->quota_with.count + 1, sizeof(*q->with));
	if (!q->with) {
		serve_quota_free(q);
		error_oom(err);
		return NULL;
	}
	q->with_count = o->quota_with.count;
	for (size_t i = 0; i < q->with_count; i++)
		q->with[i] = (struct with){o->quota_with.items[i], opendir(o->quota_with.items[i])};
	return q;
}

void serve_quota_free(struct serve_quota *q)
{
	if (!q)
		return;
	for (size_t i = 0; i < COW_SERVE_DISKS_MAX; i++)
		if (q->tops[i] >= 0)
			close(q->tops[i]);
	for (size_t i = 0; i < q->with_count; i++)
		if (q->with[i].folder)
			closedir(q->with[i].folder);
	free(q->with);
	pthread_mutex_destroy(&q->lock);
	free(q);
}

static bool is_top(const struct stat *tops, const struct stat *st)
{
	for (size_t i = 0; i < COW_SERVE_DISKS_MAX; i++)
		if (tops[i].st_ino == st->st_ino && tops[i].st_dev == st->st_dev)
			return true;
	return false;
}

/* What the disks in a folder take, but for our tops. */
static uint64_t count_folder(DIR *folder, const struct stat *tops)
{
	struct dirent *entry;
	uint64_t n = 0;

	rewinddir(folder);
	while ((entry = readdir(folder))) {
		struct stat st;

		if ((str_ends(entry->d_name, ".cow") || str_ends(entry->d_name, ".img")) &&
		    !fstatat(dirfd(folder), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode) &&
		    !is_top(tops, &st))
			n += (uint64_t)st.st_blocks * 512;
	}
	return n;
}

static void look(struct serve_quota *q)
{
	struct stat tops[COW_SERVE_DISKS_MAX] = {0}, st;

	q->used = 0;
	for (size_t i = 0; i < COW_SERVE_DISKS_MAX; i++)
		if (q->tops[i] >= 0 && !fstat(q->tops[i], &tops[i]))
			q->used += (uint64_t)tops[i].st_blocks * 512;
	for (size_t i = 0; i < q->with_count; i++) {
		if (q->with[i].folder)
			q->used += count_folder(q->with[i].folder, tops);
		/* by name: a reset, or a snapshot, puts another file there; one that is gone takes nothing */
		else if (!stat(q->with[i].path, &st))
			q->used += (uint64_t)st.st_blocks * 512;
	}
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
