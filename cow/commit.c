/*
 * Commit: what an overlay stores goes into the file below it.
 *
 * The lower file is changed in place, however large it is, and the overlay is the
 * journal: nothing in it is given up before the lower file holds all of it.
 *
 *  1. the lower file gets the note "copying OVERLAY", durably
 *  2. space is reserved for everything: ENOSPC is found while no content has
 *     changed, and undone (after the note, since reserving changes the mtime)
 *  3. data is copied, made durable, and a layer's bitmap after it
 *  4. the note becomes "copied"
 *  5. an empty overlay is renamed over the old one
 *  6. the note is removed
 *
 * Before 1 the old state is there. Between 1 and 4 the overlay shows what it
 * always did, and the lower file opened by itself is read through it (chain.c);
 * a second commit copies again from the start. From 4 on the lower file holds
 * the new content, and a second commit does 5 and 6.
 *
 * Others that stand on the lower file would see it change under them. The kernel
 * and we find that by its mtime in whole seconds; so a lower file that was
 * modified in this very second is not touched before the next.
 *
 * Fold: 1 to 3, then the lower file, a raw one, gets the overlay's time and is renamed over it. Before the rename the
 * overlay shows what it always did; those that stand on it see no change either way. So "copied" is never
 * noted: an overlay that is written to meanwhile (a fold that failed) is copied again.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cow/internal.h"
#include "cow/ops.h"

struct commit {
	struct cow_chain *chain;
	struct cow_file *upper, *lower;
	struct cow_ahead ahead;
};

/* What is done with n bytes of the disk, from `at` on; the copier is for those that copy. */
typedef int (*range_fn)(struct commit *c, struct cow_copier *copier, uint64_t at, uint64_t n, struct error *err);

/* Calls fn for each run that the overlay owns among some sectors, cut to the lower file's size. */
static int for_each_owned(struct commit *c, struct cow_copier *copier, uint64_t start, uint64_t end, range_fn fn,
			  struct error *err)
{
	for (uint64_t s = start; s < end;) {
		bool owned;
		uint64_t run = cow_file_run(c->upper, s, end - s, &owned);
		uint64_t at = s << COW_SECTOR_SHIFT, n = run << COW_SECTOR_SHIFT;

		if (!c->lower->bitmap && n > c->lower->header.size - at)
			n = c->lower->header.size - at;
		if (owned && fn(c, copier, at, n, err))
			return -1;
		s += run;
	}
	return 0;
}

/* Space where the overlay has data; its zeroes will be holes. */
static int reserve(struct commit *c, struct cow_copier *copier, uint64_t at, uint64_t n, struct error *err)
{
	(void)copier;
	while (n > 0) {
		bool is_data;
		uint64_t run = cow_data_run(c->upper->fd, cow_file_place(c->upper, at), n, &is_data);

		if (is_data &&
		    fallocate(c->lower->fd, FALLOC_FL_KEEP_SIZE, (off_t)cow_file_place(c->lower, at),
			      (off_t)run) &&
		    errno != EOPNOTSUPP)
			return error_errno(err, errno, "cannot reserve space in %s", c->lower->path);
		at += run;
		n -= run;
	}
	return 0;
}

/* Gives back what was reserved: holes, which is what unwritten space reads as, become holes again. */
static int unreserve(struct commit *c, struct cow_copier *copier, uint64_t at, uint64_t n, struct error *err)
{
	(void)copier, (void)err;
	while (n > 0) {
		bool is_data;
		uint64_t place = cow_file_place(c->lower, at);
		uint64_t run = cow_data_run(c->lower->fd, place, n, &is_data);

		if (!is_data)
			fallocate(c->lower->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)place,
				  (off_t)run);
		at += run;
		n -= run;
	}
	return 0;
}

static int read_ahead(struct commit *c, struct cow_copier *copier, uint64_t at, uint64_t n, struct error *err)
{
	(void)err;
	cow_read_ahead(copier, c->upper->fd, cow_file_place(c->upper, at), n);
	return 0;
}

static int copy(struct commit *c, struct cow_copier *copier, uint64_t at, uint64_t n, struct error *err)
{
	if (cow_copy(copier, c->upper->fd, cow_file_place(c->upper, at), cow_file_place(c->lower, at), n, err))
		return error_prefix(err, "committing %s to %s", c->upper->path, c->lower->path);
	return 0;
}

static int own(struct commit *c, struct cow_copier *copier, uint64_t at, uint64_t n, struct error *err)
{
	(void)copier, (void)err;
	cow_file_set(c->lower, at >> COW_SECTOR_SHIFT, n >> COW_SECTOR_SHIFT, true);
	return 0;
}

void cow_leave_second(const struct cow_file *f)
{
	const struct timespec step = {.tv_nsec = 10 * 1000 * 1000};
	struct timespec now;

	/* the coarse clock is the one that file times are taken from */
	while (clock_gettime(CLOCK_REALTIME_COARSE, &now) == 0 && now.tv_sec == f->stat.st_mtime)
		nanosleep(&step, NULL);
}

/* Reserves space for all of it, or leaves the lower file as it was: time, holes and no note. */
static int reserve_all(struct commit *c, bool resumed, struct error *err)
{
	if (!for_each_owned(c, NULL, 0, c->upper->sectors, reserve, err))
		return 0;
	for_each_owned(c, NULL, 0, c->upper->sectors, unreserve, NULL);
	/* an earlier attempt may have written some: then the note has to stay */
	if (!resumed && !cow_file_restore_time(c->lower, NULL) && !cow_journal_end(c->lower, NULL))
		fsync(c->lower->fd);
	return -1;
}

/* The disk reads the next pieces and writes the last ones, while we are at this one. */
static int copy_piece(void *arg, struct cow_copier *copier, uint64_t start, uint64_t end, struct error *err)
{
	struct commit *c = arg;
	uint64_t begin, until;

	copier->out = c->lower->fd;
	if (copier->no_clone && cow_ahead(&c->ahead, start, c->upper->sectors, &begin, &until))
		for_each_owned(c, copier, begin, until, read_ahead, NULL); /* blocks that are shared are not read */
	if (for_each_owned(c, copier, start, end, copy, err))
		return -1;
	/* begun, not waited for; that is for the flush, which also finds what went wrong */
	sync_file_range(c->lower->fd, (off_t)cow_file_place(c->lower, start << COW_SECTOR_SHIFT),
			(off_t)((end - start) << COW_SECTOR_SHIFT), SYNC_FILE_RANGE_WRITE);
	return 0;
}

static int copy_owned(struct commit *c, struct error *err)
{
	if (cow_in_pieces(c->upper->sectors, copy_piece, c, err))
		return -1;
	return c->lower->bitmap ? for_each_owned(c, NULL, 0, c->upper->sectors, own, err) : 0;
}

static int copy_all(struct commit *c, bool resumed, struct error *err)
{
	int ret;

	/* resumed: what others see, who read the lower file through its journal, does not change any more */
	if (!resumed)
		cow_leave_second(c->lower);
	if (cow_journal_set(c->lower, COW_JOURNAL_COPYING, c->upper, err) || reserve_all(c, resumed, err) ||
	    copy_owned(c, err))
		return -1;
	c->lower->data_dirty = true;
	ret = cow_file_flush(c->lower);
	return ret ? error_errno(err, -ret, "cannot write %s", c->lower->path) : 0;
}

/* An empty overlay in place of the old one. */
static int empty_overlay(struct commit *c, struct error *err)
{
	cleanup_build struct cow_build b = COW_BUILD_INIT;

	if (cow_build_begin(&b, c->upper->path, c->lower->path, err))
		return -1;
	return cow_build_finish(&b, c->upper, true, err);
}

static int check(const struct commit *c, struct cow_journal *j, struct error *err)
{
	if (cow_journal_get(c->lower, j, err))
		return -1;
	if (j->state == COW_JOURNAL_NONE || cow_journal_names(j, c->upper))
		return 0;
	if (j->state == COW_JOURNAL_COPIED) { /* that one is done, but for the note */
		j->state = COW_JOURNAL_NONE;
		return 0;
	}
	error_set(err, ERROR_STATE, "the commit of %s into %s was interrupted", j->overlay, c->lower->path);
	return error_hint(err, "complete it first: uml-cow commit %s", j->overlay);
}

/* Opens both for writing, and looks whether there was an attempt before. */
static int begin(struct commit *c, const char *overlay, const struct cow_open_options *options, struct cow_journal *j,
		 struct error *err)
{
	struct cow_chain *chain = c->chain = cow_chain_open_writable(overlay, options, 2, err);

	if (!chain)
		return -1;
	if (!chain->files[0]->bitmap)
		return error_set(err, ERROR_FAILED, "%s is not a COW file", overlay);
	c->upper = chain->files[0];
	c->lower = chain->files[1];
	return check(c, j, err);
}

static void end(struct commit *c)
{
	cow_chain_cleanup(&c->chain);
}

int cow_commit(const char *overlay, const struct cow_open_options *options, struct error *err)
{
	cleanup_with(end) struct commit c = {0};
	struct cow_journal j;

	if (begin(&c, overlay, options, &j, err))
		return -1;
	if (j.state != COW_JOURNAL_COPIED && cow_file_owned_sectors(c.upper) > 0 &&
	    (copy_all(&c, j.state == COW_JOURNAL_COPYING, err) ||
	     cow_journal_set(c.lower, COW_JOURNAL_COPIED, c.upper, err)))
		return -1;
	return empty_overlay(&c, err) ? -1 : cow_journal_end(c.lower, err);
}

/* ---- Fold ---- */

int cow_check_fold(const struct cow_file *upper, const struct cow_file *lower, struct error *err)
{
	if (!upper->bitmap || lower->bitmap)
		return error_set(err, ERROR_FAILED, "%s is no overlay over a raw image", upper->path);
	if (lower->header.size % COW_SECTOR_SIZE || upper->sectors != lower->sectors)
		return error_set(err, ERROR_FAILED, "%s is not as large as %s", lower->path, upper->path);
	return 0;
}

int cow_take_place(struct cow_file *lower, const struct cow_file *upper, struct error *err)
{
	const struct timespec times[2] = {upper->stat.st_atim, upper->stat.st_mtim};
	cleanup_free char *path = str_dup(upper->path, err), *notes = cow_note_sidecar(lower->path, err);

	if (!path || !notes || cow_note_set(lower->fd, lower->path, "digest", NULL, err) ||
	    cow_note_raw_at(lower->fd, path, err))
		return -1;
	if (futimens(lower->fd, times) || fsync(lower->fd))
		return error_errno(err, errno, "cannot set the time of %s", lower->path);
	if (rename(lower->path, path))
		return error_errno(err, errno, "cannot rename %s to %s", lower->path, path);
	unlink(notes);
	lower->stat.st_mtim = upper->stat.st_mtim;
	free(lower->path);
	lower->path = steal_ptr(&path);
	/* cow_journal_get() makes nothing of the note any more; it goes when no crash brings the overlay back */
	if (cow_sync_folder(lower->path, NULL))
		lower->failed = -EIO; /* and no flush claims success */
	else
		cow_journal_end(lower, NULL);
	return 0;
}

int cow_fold(const char *overlay, const struct cow_open_options *options, struct error *err)
{
	cleanup_with(end) struct commit c = {0};
	struct cow_journal j;

	if (begin(&c, overlay, options, &j, err) || cow_check_fold(c.upper, c.lower, err))
		return -1;
	if (cow_file_owned_sectors(c.upper) > 0 ? copy_all(&c, j.state == COW_JOURNAL_COPYING, err) :
						  cow_journal_set(c.lower, COW_JOURNAL_COPYING, c.upper, err))
		return -1;
	return cow_take_place(c.lower, c.upper, err);
}
