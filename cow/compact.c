/*
 * Compact: an overlay gives up what it need not store.
 *
 * In place, and in an order in which each step leaves the content as it was:
 * sectors equal to what lies below are disowned and the bitmap made durable;
 * then the space of sectors not owned, and of blocks that hold zeroes only, is
 * given back. A hole reads as the zeroes it replaces.
 */
#include <fcntl.h>
#include <string.h>

#include "cow/compare.h"
#include "uml-lab/base/file.h"

#define BUFFER (1u << 20)
#define BLOCK  4096u

struct compaction {
	struct cow_chain *chain;
	struct cow_file *file;
	uint8_t *buffer;
	uint64_t dropped;
};

static int disown(void *arg, uint64_t start, uint64_t length, struct error *err)
{
	struct compaction *c = arg;

	(void)err;
	cow_file_set(c->file, start, length, false);
	c->dropped += length;
	return 0;
}

static int drop_equal(struct compaction *c, struct error *err)
{
	const struct cow_chain below = cow_chain_below(c->chain, 1);
	int ret;

	for (uint64_t s = 0; s < c->file->sectors;) {
		bool owned;
		uint64_t run = cow_file_run(c->file, s, c->file->sectors - s, &owned);

		if (owned && cow_compare(c->chain, &below, s, run, false, disown, c, err))
			return -1;
		s += run;
	}
	if (!c->file->bitmap_dirty)
		return 0;
	/* the digest noted was that of the file as it was, and its mtime will be put back */
	if (cow_note_set(c->file->fd, c->file->path, "digest", NULL, err))
		return -1;
	ret = cow_file_flush(c->file);
	return ret ? error_errno(err, -ret, "cannot write the bitmap of %s", c->file->path) : 0;
}

/* Whether a block of the disk needs no space: each of its sectors is not owned or zero. */
static bool is_needless(const struct compaction *c, const uint8_t *data, uint64_t at, size_t n)
{
	if (cow_is_zero(data, n))
		return true;
	for (size_t i = 0; i < n; i += COW_SECTOR_SIZE)
		if (cow_file_owns(c->file, (at + i) >> COW_SECTOR_SHIFT) &&
		    !cow_is_zero(data + i, n - i < COW_SECTOR_SIZE ? n - i : COW_SECTOR_SIZE))
			return false;
	return true;
}

/* Punches the needless blocks among n bytes of the disk, read into the buffer. */
static int punch(const struct compaction *c, uint64_t at, size_t n, struct error *err)
{
	for (size_t i = 0; i < n;) {
		size_t run = 0;

		while (i + run < n) {
			size_t block = n - i - run < BLOCK ? n - i - run : BLOCK;

			if (!is_needless(c, c->buffer + i + run, at + i + run, block))
				break;
			run += block;
		}
		/* a file system without holes has no space to give back */
		if (run &&
		    fallocate(c->file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			      (off_t)cow_file_place(c->file, at + i), (off_t)run) &&
		    errno != EOPNOTSUPP)
			return error_errno(err, errno, "cannot give back space of %s", c->file->path);
		i += run ? run : BLOCK;
	}
	return 0;
}

static int free_space(struct compaction *c, struct error *err)
{
	uint64_t at = 0, size = c->file->header.size;

	while (at < size) {
		uint64_t place = cow_file_place(c->file, at), run;
		bool is_data;
		ssize_t n;

		run = cow_data_run(c->file->fd, place, size - at, &is_data);
		if (is_data) {
			n = file_pread_full(c->file->fd, c->buffer, run < BUFFER ? (size_t)run : BUFFER,
					    (off_t)place);
			if (n < 0)
				return error_errno(err, errno, "cannot read %s", c->file->path);
			if (n == 0)
				return 0;
			if (punch(c, at, (size_t)n, err))
				return -1;
			run = (uint64_t)n;
		}
		at += run;
	}
	return 0;
}

static uint64_t allocated(int fd)
{
	struct stat st;

	return fstat(fd, &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

int cow_compact(const char *path, const struct cow_open_options *options, struct cow_compact_result *result,
		struct error *err)
{
	cleanup_chain struct cow_chain *chain = cow_chain_open_writable(path, options, 1, err);
	cleanup_free uint8_t *buffer = malloc(BUFFER);
	struct compaction c = {.chain = chain, .buffer = buffer};
	uint64_t before;
	int ret;

	if (!chain)
		return -1;
	if (!buffer)
		return error_oom(err);
	c.file = chain->files[0];
	before = allocated(c.file->fd);
	ret = (c.file->bitmap && drop_equal(&c, err)) || free_space(&c, err);
	/* also after a failure: what was done so far did not change the content */
	if (cow_file_restore_time(c.file, ret ? NULL : err) || ret)
		return -1;
	if (result)
		*result = (struct cow_compact_result){c.dropped, before, allocated(c.file->fd)};
	return 0;
}
