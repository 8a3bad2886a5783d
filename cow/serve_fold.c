/*
 * FOLD: the raw file at the end of a chain takes in what the overlay right above it stores, and then that one's place and
 * name, while the guest runs.
 *
 * Nothing is given up in the overlay before the raw file holds all of it: the raw file's journal says so (journal.c), and a
 * server that is killed leaves the overlay as it was. Only sectors are written that the overlay owns, which nobody reads
 * from the raw file; so readers need not wait.
 *
 *  - The overlay is frozen: it is copied, then renamed over (cow_take_place()), then the chain drops it.
 *  - The overlay is the top: it is copied a piece at a time under the disk's lock, and what the guest writes meanwhile to
 *    sectors that were copied already is copied again at once. So when the last piece is done both hold the same, and one
 *    pass is enough however fast the guest writes. Under the lock the raw file becomes the top.
 *
 * A fold that fails gives back the space that it took: what the raw file holds where the overlay owns means nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "cow/serve_internal.h"

struct serve_fold {
	struct cow_file *upper, *lower;
	bool live; /* the upper one is the top */
	struct cow_copier copier;
	uint64_t at;	     /* up to here both hold the same, as far as the upper one owns it */
	struct error failed; /* what the guest wrote could not be copied again */
};

/* Holes need no space. */
static int copy_run(struct serve_disk *d, struct serve_fold *f, uint64_t at, uint64_t n, struct error *err)
{
	while (n > 0) {
		uint64_t from = cow_file_place(f->upper, at), run;
		bool is_data;

		run = cow_data_run(f->upper->fd, from, n, &is_data);
		if (is_data && !serve_quota_allows(d->serve->quota, f->lower, at, run))
			return error_set(err, ERROR_FAILED, "merging %s would go over the quota", f->upper->path);
		if (cow_copy(&f->copier, f->upper->fd, from, at, run, err))
			return error_prefix(err, "merging %s into %s", f->upper->path, f->lower->path);
		at += run;
		n -= run;
	}
	return 0;
}

static int copy_range(struct serve_disk *d, struct serve_fold *f, uint64_t start, uint64_t end, struct error *err)
{
	memset(f->copier.seen, 0, sizeof(f->copier.seen)); /* the guest changes the top */
	f->lower->data_dirty = true;
	for (uint64_t s = start; s < end;) {
		bool owned;
		uint64_t run = cow_file_run(f->upper, s, end - s, &owned);

		if (owned && copy_run(d, f, s << COW_SECTOR_SHIFT, run << COW_SECTOR_SHIFT, err))
			return -1;
		s += run;
	}
	return 0;
}

void serve_fold_written(struct serve_disk *d, uint64_t start, uint64_t sectors)
{
	struct serve_fold *f = d->fold;

	if (f && f->failed.kind == ERROR_NONE && start < f->at)
		copy_range(d, f, start, start + sectors < f->at ? start + sectors : f->at, &f->failed);
}

/* The next piece. Under the lock when the guest writes to the overlay. */
static int step(struct serve_disk *d, struct serve_fold *f, struct error *err)
{
	uint64_t end = f->at + SERVE_STEP_SECTORS < f->upper->sectors ? f->at + SERVE_STEP_SECTORS : f->upper->sectors;

	if (f->failed.kind != ERROR_NONE) {
		error_copy(err, &f->failed);
		return -1;
	}
	if (copy_range(d, f, f->at, end, err))
		return -1;
	f->at = end;
	return 0;
}

static int copy_all(struct serve_disk *d, struct serve_fold *f, struct error *err)
{
	int ret = 0;

	while (f->at < f->upper->sectors && !ret) {
		if (serve_job_given_up(d, err))
			return -1;
		if (f->live)
			serve_job_lock(d);
		ret = step(d, f, err);
		if (f->live)
			serve_job_unlock(d);
	}
	return ret;
}

/* What was copied is of no use. The overlay owns all of it: what the raw file has there is read by nobody. */
static void give_back(const struct serve_fold *f)
{
	for (uint64_t s = 0; s < f->at;) {
		bool owned;
		uint64_t run = cow_file_run(f->upper, s, f->at - s, &owned);

		if (owned)
			fallocate(f->lower->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				  (off_t)(s << COW_SECTOR_SHIFT), (off_t)(run << COW_SECTOR_SHIFT));
		s += run;
	}
}

/* The chain without the overlay, which is gone then. Under the lock. */
static void drop_upper(struct serve_disk *d)
{
	struct cow_chain *chain = d->chain;

	cow_file_free(chain->files[chain->count - 2]);
	chain->files[chain->count - 2] = chain->files[chain->count - 1];
	chain->count--;
	d->fold = NULL;
	serve_disk_set_chain(d, chain);
}

/* The raw file becomes the one that the guest writes to. Under the lock. */
static int replace_top(struct serve_disk *d, struct serve_fold *f, struct error *err)
{
	int ret;

	if (f->failed.kind != ERROR_NONE) {
		error_copy(err, &f->failed);
		return -1;
	}
	f->lower->data_dirty = true;
	ret = cow_file_flush(f->lower);
	if (ret)
		return error_errno(err, -ret, "cannot write %s", f->lower->path);
	/* on the same open file description: its read lock becomes a write lock, with no moment between */
	if (cow_lock(f->lower->fd, f->lower->path, COW_LOCK_WRITE, err))
		return -1;
	if (cow_take_place(f->lower, f->upper, err)) {
		cow_lock(f->lower->fd, f->lower->path, COW_LOCK_READ, NULL);
		return -1;
	}
	f->lower->writable = true;
	drop_upper(d);
	return 0;
}

static int replace_frozen(struct serve_disk *d, struct serve_fold *f, struct error *err)
{
	int ret = cow_file_flush(f->lower);

	if (ret)
		return error_errno(err, -ret, "cannot write %s", f->lower->path);
	if (cow_take_place(f->lower, f->upper, err))
		return -1;
	serve_job_lock(d);
	drop_upper(d);
	serve_job_unlock(d);
	return 0;
}

static int replace(struct serve_disk *d, struct serve_fold *f, struct error *err)
{
	int ret;

	if (!f->live)
		return replace_frozen(d, f, err);
	/* most of it now, so that little is left for when the guest waits */
	if (fdatasync(f->lower->fd))
		return error_errno(err, errno, "cannot write %s", f->lower->path);
	serve_job_lock(d);
	ret = replace_top(d, f, err);
	serve_job_unlock(d);
	return ret;
}

static bool same_folder(const char *a, const char *b)
{
	const char *slash = strrchr(a, '/');
	size_t n = (size_t)(slash - a) + 1;

	return strncmp(a, b, n) == 0 && !strchr(b + n, '/');
}

/* Whether path is the raw file that the chain ends with, of this disk alone as far as can be told: not some base image. */
static int check(const struct cow_chain *chain, const char *path, struct error *err)
{
	const struct cow_file *upper, *lower;
	struct cow_journal j;
	struct stat st;

	if (stat(path, &st))
		return error_errno(err, errno, "cannot find %s", path);
	lower = chain->files[chain->count - 1];
	if (chain->count < 2 || lower->stat.st_dev != st.st_dev || lower->stat.st_ino != st.st_ino)
		return error_set(err, ERROR_NOT_FOUND, "%s is not the lowest file of the disk", path);
	upper = chain->files[chain->count - 2];
	if (!same_folder(lower->path, upper->path))
		return error_set(err, ERROR_FAILED, "%s does not lie beside %s", lower->path, upper->path);
	if (cow_check_fold(upper, lower, err) || cow_journal_get(lower, &j, err))
		return -1;
	if (j.state == COW_JOURNAL_COPYING && !cow_journal_names(&j, upper))
		return error_set(err, ERROR_STATE, "the commit of %s into %s was interrupted", j.overlay, lower->path);
	return 0;
}

/* Opens the raw file for writing, in place of the descriptor that the chain reads it by. */
static int open_lower(struct serve_disk *d, struct serve_fold *f, struct error *err)
{
	struct cow_file **slot = &d->chain->files[d->chain->count - 1], *old = *slot;
	int fd = open(old->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct cow_file *file;

	if (fd < 0)
		return error_errno(err, errno, "cannot write to %s", old->path);
	file = cow_file_attach(fd, old->path, COW_LOCK_READ, err);
	if (!file)
		return -1;
	f->lower = file;
	f->copier.out = file->fd;
	serve_job_lock(d);
	*slot = file;
	d->fold = f->live ? f : NULL;
	serve_job_unlock(d);
	cow_file_free(old);
	return 0;
}

int serve_fold(struct serve_disk *d, const char *path, struct error *err)
{
	struct serve_fold f = {0};
	int ret;

	/* jobs alone change the chain */
	if (check(d->chain, path, err))
		return -1;
	f.upper = d->chain->files[d->chain->count - 2];
	f.live = d->chain->count == 2;
	if (open_lower(d, &f, err))
		return -1;
	cow_leave_second(f.lower);
	ret = cow_journal_set(f.lower, COW_JOURNAL_COPYING, f.upper, err);
	if (!ret)
		ret = copy_all(d, &f, err) || replace(d, &f, err) ? -1 : 0;
	serve_job_lock(d);
	d->fold = NULL;
	if (ret && !atomic_load(&d->stop))
		give_back(&f);
	serve_job_unlock(d);
	cow_copier_free(&f.copier);
	return ret;
}
