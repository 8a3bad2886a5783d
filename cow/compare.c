/*
 * Comparing two disks sector by sector, reading as little as can be: where both
 * get their sectors from the same place of the same file, or both from holes,
 * they are equal.
 */
#include <string.h>

#include "cow/compare.h"
#include "uml-lab/base/file.h"

#define PIECE_SECTORS 2048u /* 1 MiB at a time */

/* A range that grows as long as what is found adjoins it, and is told when it ends. */
struct sink {
	uint64_t start, length;
	cow_range_fn fn;
	void *arg;
};

static int flush(struct sink *s, struct error *err)
{
	int ret = s->length ? s->fn(s->arg, s->start, s->length, err) : 0;

	s->length = 0;
	return ret;
}

static int add(struct sink *s, uint64_t start, uint64_t length, struct error *err)
{
	int ret = 0;

	if (s->length && s->start + s->length != start)
		ret = flush(s, err);
	if (!s->length)
		s->start = start;
	s->length += length;
	return ret;
}

/* One side of the comparison. */
struct side {
	const struct cow_chain *chain;
	const struct cow_file *file; /* where the sectors at hand come from */
	struct cow_extent extent;
	uint64_t place; /* bytes into that file */
	bool is_data;   /* else a hole: zeroes */
	uint8_t *data;
};

/* Finds the run of sectors, at most max, that comes from one place. */
static uint64_t locate(struct side *s, uint64_t start, uint64_t max)
{
	cow_chain_extent(s->chain, start, max, &s->extent);
	s->file = s->chain->files[s->extent.owner];
	s->place = cow_chain_offset(s->chain, &s->extent);
	return s->extent.length;
}

static bool is_same_place(const struct side *a, const struct side *b)
{
	return a->place == b->place && a->file->stat.st_dev == b->file->stat.st_dev &&
	       a->file->stat.st_ino == b->file->stat.st_ino;
}

static int load(struct side *s, uint64_t sectors, struct error *err)
{
	size_t n = (size_t)sectors << COW_SECTOR_SHIFT;
	ssize_t got = s->is_data ? file_pread_full(s->file->fd, s->data, n, (off_t)s->place) : 0;

	if (got < 0)
		return error_errno(err, errno, "cannot read %s", s->file->path);
	memset(s->data + got, 0, n - (size_t)got);
	return 0;
}

struct comparison {
	struct side a, b;
	bool differ;
	struct sink sink;
};

static int compare_loaded(struct comparison *c, uint64_t start, uint64_t sectors, struct error *err)
{
	if (memcmp(c->a.data, c->b.data, (size_t)sectors << COW_SECTOR_SHIFT) == 0)
		return c->differ ? 0 : add(&c->sink, start, sectors, err);
	for (uint64_t i = 0; i < sectors; i++) {
		size_t at = (size_t)i << COW_SECTOR_SHIFT;
		bool is_different = memcmp(c->a.data + at, c->b.data + at, COW_SECTOR_SIZE) != 0;
		int ret = is_different == c->differ ? add(&c->sink, start + i, 1, err) : 0;

		if (ret)
			return ret;
	}
	return 0;
}

/* Compares what can be at once, *n sectors of at most that many. */
static int compare_next(struct comparison *c, uint64_t start, uint64_t *n, struct error *err)
{
	*n = locate(&c->a, start, *n);
	*n = locate(&c->b, start, *n);
	if (!is_same_place(&c->a, &c->b)) {
		c->a.extent.length = *n;
		*n = c->b.extent.length = cow_chain_is_data(c->a.chain, &c->a.extent, &c->a.is_data);
		*n = cow_chain_is_data(c->b.chain, &c->b.extent, &c->b.is_data);
		if (c->a.is_data || c->b.is_data) {
			if (*n > PIECE_SECTORS)
				*n = PIECE_SECTORS;
			return load(&c->a, *n, err) || load(&c->b, *n, err)
				       ? -1
				       : compare_loaded(c, start, *n, err);
		}
	}
	return c->differ ? 0 : add(&c->sink, start, *n, err);
}

int cow_compare(const struct cow_chain *a, const struct cow_chain *b, uint64_t start, uint64_t n, bool differ,
		cow_range_fn fn, void *arg, struct error *err)
{
	cleanup_free uint8_t *buffer = malloc(2 * PIECE_SECTORS * COW_SECTOR_SIZE);
	struct comparison c = {.differ = differ, .sink = {.fn = fn, .arg = arg}};
	int ret = 0;

	if (!buffer)
		return error_oom(err);
	c.a = (struct side){.chain = a, .data = buffer};
	c.b = (struct side){.chain = b, .data = buffer + PIECE_SECTORS * COW_SECTOR_SIZE};
	while (n > 0 && !ret) {
		uint64_t done = n;

		ret = compare_next(&c, start, &done, err);
		start += done;
		n -= done;
	}
	return ret ? ret : flush(&c.sink, err);
}

int cow_diff(struct cow_chain *a, struct cow_chain *b, cow_range_fn fn, void *arg, struct error *err)
{
	uint64_t shorter = a->sectors < b->sectors ? a->sectors : b->sectors;
	uint64_t longer = a->sectors < b->sectors ? b->sectors : a->sectors;
	int ret = cow_compare(a, b, 0, shorter, true, fn, arg, err);

	return ret || shorter == longer ? ret : fn(arg, shorter, longer - shorter, err);
}
