/*
 * Check: everything about a COW file that can be told wrong, and the repairs
 * that can't do harm.
 *
 * Repairs change how the disk is described (its length, the header's path and
 * time, bits past its end), complete a commit that was interrupted, or remove
 * what killed processes left. None of them changes what the guest sees. What
 * would need a guess is left to a person.
 */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cow/internal.h"
#include "cow/ops.h"
#include "uml-lab/base/file.h"

struct check {
	const struct cow_open_options *options;
	struct cow_chain *chain;
	struct cow_file *file;
	bool repair;
	cow_finding_fn fn;
	void *arg;
	int wrong;
};

static void __attribute__((format(printf, 3, 4)))
report(struct check *c, enum cow_finding finding, const char *fmt, ...)
{
	char text[ERROR_MESSAGE_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (finding == COW_FINDING_REPAIRABLE || finding == COW_FINDING_ERROR)
		c->wrong++;
	c->fn(c->arg, finding, text);
}

/* What was found and, with `repair`, mended. */
static enum cow_finding mended(const struct check *c)
{
	return c->repair ? COW_FINDING_REPAIRED : COW_FINDING_REPAIRABLE;
}

static int check_length(struct check *c, struct error *err)
{
	uint64_t expected = cow_file_length(&c->file->header), actual = (uint64_t)c->file->stat.st_size;

	if (actual >= expected)
		return 0;
	if (c->repair && ftruncate(c->file->fd, (off_t)expected))
		return error_errno(err, errno, "cannot extend %s", c->file->path);
	report(c, mended(c),
	       "the file is cut off: %" PRIu64 " of %" PRIu64 " bytes; what is missing reads as zeroes",
	       actual, expected);
	return 0;
}

/* Bits of the bitmap's last byte for which there is no sector. */
static int check_spare_bits(struct check *c, struct error *err)
{
	struct cow_file *f = c->file;
	unsigned int used = f->sectors % 8;
	uint8_t last, spare;
	int ret;

	if (f->header.format != COW_V3 || used == 0)
		return 0;
	last = f->bitmap[f->header.bitmap_length - 1];
	spare = (uint8_t)(last >> used);
	if (!spare)
		return 0;
	if (c->repair) {
		cow_file_set(f, f->sectors, 8 - used, false);
		ret = cow_file_flush(f);
		if (ret)
			return error_errno(err, -ret, "cannot write the bitmap of %s", f->path);
	}
	report(c, mended(c), "the bitmap marks sectors past the end of the disk");
	return 0;
}

/* Owned sectors without data: discarded by the guest, or lost when the host went down under the kernel's
 * driver. */
static void check_holes(struct check *c)
{
	uint64_t holes = 0;

	for (uint64_t s = 0; s < c->file->sectors;) {
		bool owned, is_data;
		uint64_t run = cow_file_run(c->file, s, c->file->sectors - s, &owned), n;

		for (uint64_t at = s, end = s + run; owned && at < end; at += n) {
			n = cow_data_run(c->file->fd, cow_file_place(c->file, at << COW_SECTOR_SHIFT),
					 (end - at) << COW_SECTOR_SHIFT, &is_data);
			n = (n + COW_SECTOR_SIZE - 1) >> COW_SECTOR_SHIFT;
			holes += is_data ? 0 : n;
		}
		s += run;
	}
	if (holes)
		report(c, COW_FINDING_NOTE,
		       "%" PRIu64 " stored sectors are holes: discarded, zeroed or claimed ahead, or, if the host "
		       "lost power while a guest ran on the kernel's own driver, lost",
		       holes);
}

static int rewrite_header(struct check *c, const struct cow_file *backing, struct error *err)
{
	cleanup_free struct cow_header *h = malloc(sizeof(*h));
	char digest[COW_DIGEST_MAX];

	if (!h)
		return error_oom(err);
	if (cow_header_for(h, backing->path, false, digest, err))
		return -1;
	return cow_header_rewrite(c->file, h, digest, err);
}

/* Found, but not as the header says. */
static int check_backing(struct check *c, struct error *err)
{
	const struct cow_file *backing = c->chain->count > 1 ? c->chain->files[1] : NULL;
	const struct error *problem = c->chain->problem;
	enum cow_match match;
	struct stat named;
	bool moved;

	if (problem)
		report(c, COW_FINDING_ERROR, "%s%s%s", problem->message, problem->hint[0] ? "; " : "",
		       problem->hint);
	if (!backing)
		return 0;
	if (cow_match(c->file, backing, &match, err))
		return -1;
	if (match == COW_MATCH_COMMIT) /* check_commits() has dealt with it, or told */
		return 0;
	moved = stat(c->file->header.backing, &named) || named.st_ino != backing->stat.st_ino ||
		named.st_dev != backing->stat.st_dev;
	if (match == COW_MATCH && !moved)
		return 0;
	if (c->repair && rewrite_header(c, backing, err))
		return -1;
	if (moved)
		report(c, mended(c), "the backing file is not at %s, but at %s", c->file->header.backing,
		       backing->path);
	else
		report(c, mended(c),
		       "the backing file %s is a copy with another time; its content is the same by digest",
		       backing->path);
	return 0;
}

/* A commit from this file, or into it, that was interrupted. Leaves it to cow_commit(), before anything is
 * open. */
static int check_commits(struct check *c, const char *path, struct error *err)
{
	struct cow_open_options o = c->options ? *c->options : (struct cow_open_options){0};
	cleanup_chain struct cow_chain *chain = NULL;
	cleanup_free char *overlay = NULL;
	struct cow_journal j;

	o.partial = true;
	chain = cow_chain_open(path, &o, err);
	if (!chain)
		return -1;
	for (size_t i = 0; i < chain->count && i < 3; i++) {
		if (cow_journal_get(chain->files[i], &j, err))
			return -1;
		if (j.state == COW_JOURNAL_COPYING || (i > 0 && cow_journal_names(&j, chain->files[i - 1])))
			break;
		j.state = COW_JOURNAL_NONE;
	}
	if (chain->count == 0 || j.state == COW_JOURNAL_NONE)
		return 0;
	overlay = str_dup(j.overlay, err);
	cow_chain_close(steal_ptr(&chain));
	if (!overlay || (c->repair && cow_commit(overlay, c->options, err)))
		return -1;
	report(c, mended(c), "the commit of %s was interrupted", overlay);
	return 0;
}

static bool is_left_behind(const char *path)
{
	cleanup_close int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	return fd >= 0 && !cow_lock(fd, path, COW_LOCK_WRITE, NULL);
}

/* Temporary files of processes that were killed (temp.c); those still being made are locked. */
static int check_leftovers(struct check *c, struct error *err)
{
	cleanup_free char *a = str_dup(c->file->path, err), *b = str_dup(c->file->path, err), *prefix = NULL;
	cleanup_dir DIR *dir = NULL;
	const char *folder;
	struct dirent *entry;

	if (!a || !b)
		return -1;
	folder = dirname(a);
	prefix = str_printf(err, ".%.200s.uml-cow-", basename(b));
	if (!prefix)
		return -1;
	dir = opendir(folder);
	while (dir && (entry = readdir(dir))) {
		cleanup_free char *path = NULL;

		if (!str_starts(entry->d_name, prefix) || strlen(entry->d_name) != strlen(prefix) + 6)
			continue;
		path = file_join(err, folder, entry->d_name);
		if (!path)
			return -1;
		if (!is_left_behind(path))
			continue;
		if (c->repair && unlink(path))
			return error_errno(err, errno, "cannot remove %s", path);
		report(c, mended(c), "%s was left by a process that was killed", path);
	}
	return 0;
}

static int check_all(struct check *c, struct error *err)
{
	if (!c->file->bitmap) {
		report(c, COW_FINDING_NOTE, "a raw image: any content is right");
		return check_leftovers(c, err);
	}
	if (c->file->header.format != COW_V3)
		report(c, COW_FINDING_NOTE,
		       "format %s: can be read, not written; uml-cow convert makes a V3 file",
		       cow_format_name(c->file->header.format));
	if (check_length(c, err) || check_spare_bits(c, err))
		return -1;
	check_holes(c);
	if (check_backing(c, err) || check_leftovers(c, err))
		return -1;
	return c->repair ? cow_file_restore_time(c->file, err) : 0;
}

int cow_check(const char *path, bool repair, const struct cow_open_options *options, cow_finding_fn fn,
	      void *arg, struct error *err)
{
	struct cow_open_options o = options ? *options : (struct cow_open_options){0};
	struct check c = {.options = options, .repair = repair, .fn = fn, .arg = arg};
	cleanup_chain struct cow_chain *chain = NULL;

	if (check_commits(&c, path, err))
		return -1;
	o.partial = true;
	o.writable = repair;
	chain = cow_chain_open(path, &o, err);
	if (!chain)
		return -1;
	c.chain = chain;
	c.file = chain->files[0];
	return check_all(&c, err) ? -1 : c.wrong;
}
