/*
 * Reading and writing the disk that a chain holds.
 *
 * A request is cut into extents, each of one file, and each extent is one
 * preadv(), or pwritev()s of WRITE_MAX: however deep the chain, a read that lies in one
 * file costs one system call. Whole sectors are the unit of ownership; a write that
 * begins or ends within a sector that the top does not own fills the rest of it
 * from below first.
 */
#include <fcntl.h>
#include <string.h>

#include "cow/internal.h"
#include "uml-lab/base/file.h"

#define PIECES 256 /* iovecs given to one system call: a guest's request of 1 MiB in pages */

/*
 * Bytes written by one system call, and a multiple of them is its end. The page cache of Linux 6.16 and later makes folios as
 * large as the write; each small write into one then walks all its blocks (ext4_block_write_begin()), which took longer than
 * all else that a guest's random writes of 4 KiB cost us.
 */
#define WRITE_MAX (64u << 10)

/* A position in an iovec array. */
struct cursor {
	const struct iovec *iov;
	int count;
	size_t done; /* bytes of iov[0] */
};

/* Fills out[PIECES] with the next at most n bytes; *taken of them fit. Returns the number of pieces. */
static int take(struct cursor *c, size_t n, struct iovec *out, size_t *taken)
{
	int pieces = 0;

	*taken = 0;
	while (n > 0 && pieces < PIECES && c->count > 0) {
		size_t left = c->iov->iov_len - c->done;

		if (left > n)
			left = n;
		if (left > 0)
			out[pieces++] = (struct iovec){(char *)c->iov->iov_base + c->done, left};
		c->done += left;
		n -= left;
		*taken += left;
		if (c->done == c->iov->iov_len) {
			c->iov++;
			c->count--;
			c->done = 0;
		}
	}
	return pieces;
}

/* Drops the first n bytes of pieces that a system call has dealt with. */
static void advance(struct iovec **iov, int *count, size_t n)
{
	while (*count > 0 && n >= (*iov)->iov_len) {
		n -= (*iov)->iov_len;
		(*iov)++;
		(*count)--;
	}
	if (*count > 0) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + n;
		(*iov)->iov_len -= n;
	}
}

/* Reads all; what lies past the end of the file is zero. */
static int read_pieces(int fd, struct iovec *iov, int count, uint64_t at)
{
	while (count > 0) {
		ssize_t n = preadv(fd, iov, count, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0) {
			for (int i = 0; i < count; i++)
				memset(iov[i].iov_base, 0, iov[i].iov_len);
			return 0;
		}
		at += (uint64_t)n;
		advance(&iov, &count, (size_t)n);
	}
	return 0;
}

/* Reads what the page cache holds: all, or -EAGAIN, or another error; pieces may be filled even then. */
static int read_pieces_now(int fd, const struct iovec *iov, int count, uint64_t at, size_t n)
{
	ssize_t got = preadv2(fd, iov, count, (off_t)at, RWF_NOWAIT);

	if (got < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	return (size_t)got == n ? 0 : -EAGAIN;
}

static int write_pieces(int fd, struct iovec *iov, int count, uint64_t at)
{
	while (count > 0) {
		ssize_t n = pwritev(fd, iov, count, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		at += (uint64_t)n;
		advance(&iov, &count, (size_t)n);
	}
	return 0;
}

static size_t total(const struct iovec *iov, int count)
{
	size_t n = 0;

	for (int i = 0; i < count; i++)
		n += iov[i].iov_len;
	return n;
}

static bool is_outside(const struct cow_chain *chain, uint64_t n, uint64_t at)
{
	return at > chain->size || n > chain->size - at;
}

static int readv_chain(struct cow_chain *chain, const struct iovec *iov, int count, uint64_t at, bool now)
{
	struct cursor c = {.iov = iov, .count = count};
	size_t n = total(iov, count);

	if (is_outside(chain, n, at))
		return -EINVAL;
	while (n > 0) {
		uint64_t first = at >> COW_SECTOR_SHIFT, skip = at & (COW_SECTOR_SIZE - 1), place;
		struct iovec pieces[PIECES];
		struct cow_extent e;
		size_t length, taken;
		int ret, used;

		cow_chain_extent(chain, first, cow_sectors(skip + n), &e);
		length = (e.length << COW_SECTOR_SHIFT) - skip;
		used = take(&c, length < n ? length : n, pieces, &taken);
		place = cow_file_place(chain->files[e.owner], at);
		ret = now ? read_pieces_now(chain->files[e.owner]->fd, pieces, used, place, taken)
			  : read_pieces(chain->files[e.owner]->fd, pieces, used, place);
		if (ret)
			return ret;
		at += taken;
		n -= taken;
	}
	return 0;
}

int cow_chain_readv(struct cow_chain *chain, const struct iovec *iov, int count, uint64_t at)
{
	return readv_chain(chain, iov, count, at, false);
}

int cow_chain_readv_now(struct cow_chain *chain, const struct iovec *iov, int count, uint64_t at)
{
	return readv_chain(chain, iov, count, at, true);
}

void cow_chain_read_ahead(const struct cow_chain *chain, size_t n, uint64_t at)
{
	uint64_t sector = at >> COW_SECTOR_SHIFT, end = cow_sectors(at + n);

	while (sector < end) {
		struct cow_extent e;

		cow_chain_extent(chain, sector, end - sector, &e);
		posix_fadvise(chain->files[e.owner]->fd, (off_t)cow_chain_offset(chain, &e),
			      (off_t)(e.length << COW_SECTOR_SHIFT), POSIX_FADV_WILLNEED);
		sector += e.length;
	}
}

int cow_chain_read(struct cow_chain *chain, void *buf, size_t n, uint64_t at)
{
	struct iovec iov = {buf, n};

	return cow_chain_readv(chain, &iov, 1, at);
}

/* A part of one sector. */
static int write_part(struct cow_chain *chain, struct cursor *c, size_t n, uint64_t at)
{
	struct cow_file *top = chain->files[0];
	uint64_t sector = at >> COW_SECTOR_SHIFT;
	uint8_t data[COW_SECTOR_SIZE];
	struct iovec pieces[PIECES];
	uint8_t *p = data + (at & (COW_SECTOR_SIZE - 1));
	size_t done = 0, taken;
	int ret = cow_chain_read(chain, data, sizeof(data), sector << COW_SECTOR_SHIFT);

	if (ret)
		return ret;
	while (done < n) {
		int used = take(c, n - done, pieces, &taken);

		for (int i = 0; i < used; i++) {
			memcpy(p + done, pieces[i].iov_base, pieces[i].iov_len);
			done += pieces[i].iov_len;
		}
	}
	if (file_pwrite_full(top->fd, data, sizeof(data),
			     (off_t)cow_file_place(top, sector << COW_SECTOR_SHIFT)) < 0)
		return -errno;
	cow_file_set(top, sector, 1, true);
	return 0;
}

/* Whole sectors: as many of n bytes as fit one call, told in *taken. */
static int write_whole(struct cow_chain *chain, struct cursor *c, size_t n, uint64_t at, size_t *taken)
{
	struct cow_file *top = chain->files[0];
	struct iovec pieces[PIECES];
	struct cursor before = *c;
	int used = take(c, n, pieces, taken);
	int ret;

	if (top->bitmap && *taken % COW_SECTOR_SIZE) {
		/* many small pieces that end within a sector: the rest is for the next call */
		size_t whole = *taken - *taken % COW_SECTOR_SIZE;

		*c = before;
		used = take(c, whole, pieces, taken);
	}
	ret = write_pieces(top->fd, pieces, used, cow_file_place(top, at));
	if (!ret && top->bitmap)
		cow_file_set(top, at >> COW_SECTOR_SHIFT, *taken >> COW_SECTOR_SHIFT, true);
	return ret;
}

int cow_chain_writev(struct cow_chain *chain, const struct iovec *iov, int count, uint64_t at)
{
	struct cursor c = {.iov = iov, .count = count};
	struct cow_file *top = chain->files[0];
	size_t n = total(iov, count);

	if (!top->writable)
		return -EROFS;
	if (is_outside(chain, n, at))
		return -EINVAL;
	top->data_dirty = true;
	while (n > 0) {
		size_t skip = at & (COW_SECTOR_SIZE - 1), taken = n;
		int ret;

		if (top->bitmap && (skip || n < COW_SECTOR_SIZE)) {
			if (taken > COW_SECTOR_SIZE - skip)
				taken = COW_SECTOR_SIZE - skip;
			ret = write_part(chain, &c, taken, at);
		} else {
			size_t whole = top->bitmap ? n - n % COW_SECTOR_SIZE : n;
			size_t room = WRITE_MAX - cow_file_place(top, at) % WRITE_MAX;

			whole = whole < room ? whole : room;
			ret = write_whole(chain, &c, whole, at, &taken);
			if (!ret && taken == 0) { /* pieces of less than a sector */
				taken = COW_SECTOR_SIZE;
				ret = write_part(chain, &c, taken, at);
			}
		}
		if (ret)
			return ret;
		at += taken;
		n -= taken;
	}
	return 0;
}

int cow_chain_write(struct cow_chain *chain, const void *buf, size_t n, uint64_t at)
{
	struct iovec iov = {(void *)buf, n};

	return cow_chain_writev(chain, &iov, 1, at);
}

static int write_zeroes(int fd, uint64_t n, uint64_t at)
{
	static const uint8_t zero[65536];

	while (n > 0) {
		size_t piece = n < sizeof(zero) ? (size_t)n : sizeof(zero);

		if (file_pwrite_full(fd, zero, piece, (off_t)at) < 0)
			return -errno;
		n -= piece;
		at += piece;
	}
	return 0;
}

int cow_chain_zero(struct cow_chain *chain, uint64_t n, uint64_t at, bool unmap)
{
	struct cow_file *top = chain->files[0];
	int mode = (unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE;
	uint64_t place = cow_file_place(top, at);
	int ret = 0;

	if (!top->writable)
		return -EROFS;
	if (is_outside(chain, n, at) || (at | n) % COW_SECTOR_SIZE)
		return -EINVAL;
	if (n == 0)
		return 0;
	top->data_dirty = true;
	if (fallocate(top->fd, mode, (off_t)place, (off_t)n))
		ret = errno == EOPNOTSUPP ? write_zeroes(top->fd, n, place) : -errno;
	if (!ret && top->bitmap)
		cow_file_set(top, at >> COW_SECTOR_SHIFT, n >> COW_SECTOR_SHIFT, true);
	return ret;
}

int cow_chain_flush(struct cow_chain *chain)
{
	return cow_file_flush(chain->files[0]);
}
