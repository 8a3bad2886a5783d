/*
 * Copying ranges between files. Holes are never read. Data is shared (reflink)
 * where the file system can; elsewhere it is read and written, not given to
 * copy_file_range(), which copies page by page too there and would write zeroes
 * that need not take space.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

#include "cow/internal.h"
#include "uml-lab/base/file.h"

#define BUFFER (256u << 10) /* stays in the processor's cache between read and write */
#define BLOCK  4096u        /* granularity of zeroes: smaller ones free nothing */

bool cow_is_zero(const void *data, size_t n)
{
	const uint8_t *p = data;

	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

uint64_t cow_data_run(int fd, uint64_t at, uint64_t n, bool *is_data)
{
	off_t data = lseek(fd, (off_t)at, SEEK_DATA), hole;

	*is_data = true;
	if (data < 0 && errno == ENXIO) {
		*is_data = false;
		return n;
	}
	if (data < 0) /* a device: all is data */
		return n;
	if ((uint64_t)data > at) {
		*is_data = false;
		return (uint64_t)data - at < n ? (uint64_t)data - at : n;
	}
	hole = lseek(fd, (off_t)at, SEEK_HOLE);
	return hole > (off_t)at && (uint64_t)hole - at < n ? (uint64_t)hole - at : n;
}

/* cow_data_run() for an input of the copier. */
static uint64_t input_run(struct cow_copier *c, int fd, uint64_t at, uint64_t n, bool *is_data)
{
	struct cow_seen *seen = &c->seen[fd % COW_SEEN];

	if (seen->fd != fd || at < seen->start || at >= seen->end) {
		uint64_t run = cow_data_run(fd, at, INT64_MAX - at, &seen->is_data);

		seen->fd = fd;
		seen->start = at;
		seen->end = at + run;
	}
	*is_data = seen->is_data;
	return seen->end - at < n ? seen->end - at : n;
}

/* Makes a range of the output zero. */
static int zero(const struct cow_copier *c, uint64_t at, uint64_t n)
{
	static const uint8_t zeroes[BLOCK * 16];

	if (c->fresh || !fallocate(c->out, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)n))
		return 0;
	if (errno != EOPNOTSUPP)
		return -1;
	for (; n > 0; n -= n < sizeof(zeroes) ? n : sizeof(zeroes), at += sizeof(zeroes))
		if (file_pwrite_full(c->out, zeroes, n < sizeof(zeroes) ? n : sizeof(zeroes), (off_t)at) < 0)
			return -1;
	return 0;
}

/* Bytes at data, at most n, that are alike: zero blocks, or blocks that are not zero. */
static size_t alike(const uint8_t *data, size_t n, bool *is_zero)
{
	size_t done = 0;

	while (done < n) {
		size_t block = n - done < BLOCK ? n - done : BLOCK;
		bool z = cow_is_zero(data + done, block);

		if (done == 0)
			*is_zero = z;
		else if (z != *is_zero)
			break;
		done += block;
	}
	return done;
}

static int put(const struct cow_copier *c, const uint8_t *data, size_t n, uint64_t at)
{
	while (n > 0) {
		bool is_zero;
		size_t run = alike(data, n, &is_zero);

		if (is_zero ? zero(c, at, run) : file_pwrite_full(c->out, data, run, (off_t)at) < 0)
			return -1;
		data += run;
		n -= run;
		at += run;
	}
	return 0;
}

static bool clone(struct cow_copier *c, int in, uint64_t from, uint64_t to, uint64_t n)
{
	struct file_clone_range r = {.src_fd = in, .src_offset = from, .src_length = n, .dest_offset = to};

	if (c->no_clone || ((from | to | n) & (BLOCK - 1)))
		return false;
	if (ioctl(c->out, FICLONERANGE, &r) == 0)
		return true;
	c->no_clone = true;
	return false;
}

static int copy_data(struct cow_copier *c, int in, uint64_t from, uint64_t to, uint64_t n, struct error *err)
{
	if (clone(c, in, from, to, n))
		return 0;
	if (!c->buffer) {
		c->buffer = malloc(BUFFER);
		if (!c->buffer)
			return error_oom(err);
	}
	while (n > 0) {
		/* up to a block's boundary of the output, so that its zero blocks are seen */
		size_t piece = BUFFER - (size_t)(to % BLOCK);
		ssize_t got;

		if (piece > n)
			piece = (size_t)n;
		got = file_pread_full(in, c->buffer, piece, (off_t)from);
		if (got < 0)
			return error_errno(err, errno, "cannot read");
		memset(c->buffer + got, 0, piece - (size_t)got);
		if (put(c, c->buffer, piece, to))
			return error_errno(err, errno, "cannot write");
		from += piece;
		to += piece;
		n -= piece;
	}
	return 0;
}

int cow_copy(struct cow_copier *c, int in, uint64_t from, uint64_t to, uint64_t n, struct error *err)
{
	while (n > 0) {
		bool is_data;
		uint64_t run = input_run(c, in, from, n, &is_data);

		if (is_data && copy_data(c, in, from, to, run, err))
			return -1;
		if (!is_data && zero(c, to, run))
			return error_errno(err, errno, "cannot write");
		from += run;
		to += run;
		n -= run;
	}
	return 0;
}

void cow_read_ahead(struct cow_copier *c, int in, uint64_t from, uint64_t n)
{
	while (n > 0) {
		bool is_data;
		uint64_t run = input_run(c, in, from, n, &is_data);

		if (is_data)
			posix_fadvise(in, (off_t)from, (off_t)run, POSIX_FADV_WILLNEED);
		from += run;
		n -= run;
	}
}

void cow_copier_free(struct cow_copier *c)
{
	free(c->buffer);
	c->buffer = NULL;
	memset(c->seen, 0, sizeof(c->seen));
}
