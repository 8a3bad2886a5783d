/*
 * One file of a chain: lock, header, bitmap.
 *
 * Locks are open file description locks over the whole file: they conflict with
 * the POSIX locks that the kernel takes (arch/um/os-Linux/file.c,
 * os_lock_file()), and unlike those are not lost when the process closes another
 * descriptor of the same file.
 *
 * The bitmap is mapped MAP_PRIVATE. Bits that are set stay in memory until the
 * flush: fdatasync() of the data, then the changed blocks of the bitmap, then
 * fdatasync() again. So at no time does the file claim a sector whose data a
 * crash could still lose. After a failed fdatasync() the page cache may have
 * dropped what it could not write and will not say so again; therefore a failure
 * is remembered and no later flush claims success.
 */
#include <endian.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#include "cow/internal.h"
#include "uml-lab/base/file.h"

int cow_lock(int fd, const char *path, enum cow_lock lock, struct error *err)
{
	struct flock fl = {.l_type = lock == COW_LOCK_WRITE ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};

	if (lock == COW_LOCK_NONE || fcntl(fd, F_OFD_SETLK, &fl) == 0)
		return 0;
	if (errno == EAGAIN || errno == EACCES) {
		error_set(err, ERROR_STATE, "%s is in use by a guest or another program", path);
		return error_hint(err, "stop the machine that uses it first");
	}
	/* ENOLCK, EINVAL: a file system without locks; the kernel would not get one either */
	return error_errno(err, errno, "cannot lock %s", path);
}

/* A file that was replaced between open() and the lock is not the one its name means any more. */
static int check_still_named(const struct cow_file *f, struct error *err)
{
	struct stat now;

	if (stat(f->path, &now))
		return error_errno(err, errno, "cannot open %s", f->path);
	if (now.st_dev != f->stat.st_dev || now.st_ino != f->stat.st_ino)
		return error_set(err, ERROR_STATE, "%s was replaced while it was opened", f->path);
	return 0;
}

static int map_bitmap(struct cow_file *f, struct error *err)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t skew = f->header.bitmap_offset % page;
	int prot = PROT_READ | (f->writable ? PROT_WRITE : 0);

	if (f->header.bitmap_length == 0) { /* V1 and V2 of a few sectors */
		f->bitmap = (uint8_t *)"";
		return 0;
	}
	f->map_length = f->header.bitmap_length + skew;
	f->map = mmap(NULL, f->map_length, prot, MAP_PRIVATE | MAP_NORESERVE, f->fd,
		      (off_t)(f->header.bitmap_offset - skew));
	if (f->map == MAP_FAILED) {
		f->map = NULL;
		return error_errno(err, errno, "cannot map the bitmap of %s", f->path);
	}
	f->bitmap = (uint8_t *)f->map + skew;
	f->bitmap_bits = f->header.bitmap_length * 8;
	if (f->bitmap_bits > f->sectors)
		f->bitmap_bits = f->sectors;
	if (!f->writable)
		return 0;
	f->dirty_blocks = (f->header.bitmap_length + COW_BITMAP_BLOCK - 1) / COW_BITMAP_BLOCK;
	f->dirty = calloc(1, f->dirty_blocks / 8 + 1);
	return f->dirty ? 0 : error_oom(err);
}

static int attach(struct cow_file *f, enum cow_lock lock, struct error *err)
{
	int is_cow;
	off_t size;

	if (fstat(f->fd, &f->stat))
		return error_errno(err, errno, "cannot read %s", f->path);
	if (!S_ISREG(f->stat.st_mode) && !S_ISBLK(f->stat.st_mode))
		return error_set(err, ERROR_FAILED, "%s is neither a regular file nor a block device",
				 f->path);
	if (cow_lock(f->fd, f->path, lock, err) || check_still_named(f, err))
		return -1;
	/* once more, now that nobody who keeps the locks can change it */
	size = lseek(f->fd, 0, SEEK_END);
	if (size < 0 || fstat(f->fd, &f->stat))
		return error_errno(err, errno, "cannot read %s", f->path);
	is_cow = cow_header_of(f->fd, f->path, &f->header, err);
	if (is_cow < 0)
		return error_prefix(err, "%s", f->path);
	if (!is_cow)
		f->header = (struct cow_header){.size = (uint64_t)size};
	f->sectors = cow_sectors(f->header.size);
	if (!is_cow)
		return 0;
	if (f->writable && f->header.format != COW_V3) {
		error_set(err, ERROR_FAILED, "%s is a %s COW file, which is read but not written", f->path,
			  cow_format_name(f->header.format));
		return error_hint(err, "make a V3 file of it: uml-cow convert %s NEW", f->path);
	}
	return map_bitmap(f, err);
}

struct cow_file *cow_file_attach(int fd, const char *path, enum cow_lock lock, struct error *err)
{
	struct cow_file *f = calloc(1, sizeof(*f));

	if (!f) {
		close(fd);
		error_oom(err);
		return NULL;
	}
	f->fd = fd;
	f->writable = lock == COW_LOCK_WRITE;
	f->path = str_dup(path, err);
	if (!f->path || attach(f, lock, err)) {
		cow_file_free(f);
		return NULL;
	}
	return f;
}

void cow_file_free(struct cow_file *f)
{
	if (!f)
		return;
	if (f->map)
		munmap(f->map, f->map_length);
	if (f->fd >= 0)
		file_close_behind(f->fd); /* one that was replaced meanwhile: its space */
	free(f->dirty);
	free(f->path);
	free(f);
}

/* 64 bits of the bitmap: the sector order is that of the bits, lowest first. */
static uint64_t word_at(const uint8_t *p)
{
	uint64_t w;

	memcpy(&w, p, sizeof(w));
	return le64toh(w);
}

uint64_t cow_file_run(const struct cow_file *f, uint64_t start, uint64_t max, bool *owned)
{
	uint64_t s = start, end, bytes;
	uint64_t same;

	if (!f->bitmap || start >= f->bitmap_bits) {
		*owned = !f->bitmap;
		return max;
	}
	*owned = cow_file_owns(f, start);
	same = *owned ? UINT64_MAX : 0;
	end = start + max < f->bitmap_bits ? start + max : f->bitmap_bits;
	bytes = f->header.bitmap_length;
	while (s < end) {
		uint64_t word = s >> 6, differ;

		if (word * 8 + 8 > bytes) { /* the last bytes */
			if (cow_file_owns(f, s) != *owned)
				break;
			s++;
			continue;
		}
		differ = (word_at(f->bitmap + word * 8) ^ same) >> (s & 63);
		if (differ) {
			s += (uint64_t)__builtin_ctzll(differ);
			break;
		}
		s = (word + 1) << 6;
	}
	if (s >= end) /* the sectors that V1 and V2 bitmaps forget are not owned either */
		s = end == f->bitmap_bits && !*owned ? start + max : end;
	return s - start;
}

uint64_t cow_file_owned_sectors(const struct cow_file *f)
{
	uint64_t n = 0, s = 0;

	if (!f->bitmap)
		return f->sectors;
	for (; s + 64 <= f->bitmap_bits; s += 64)
		n += (uint64_t)__builtin_popcountll(word_at(f->bitmap + s / 8));
	for (; s < f->bitmap_bits; s++)
		n += cow_file_owns(f, s);
	return n;
}

void cow_file_set(struct cow_file *f, uint64_t start, uint64_t n, bool owned)
{
	for (uint64_t s = start; s < start + n;) {
		uint64_t byte = s >> 3, block = byte / COW_BITMAP_BLOCK;
		uint8_t mask = (uint8_t)(1u << (s & 7));
		uint64_t step = 1;

		if ((s & 7) == 0 && s + 8 <= start + n) {
			mask = 0xff;
			step = 8;
		}
		if ((f->bitmap[byte] & mask) != (owned ? mask : 0)) {
			f->bitmap[byte] = owned ? f->bitmap[byte] | mask : f->bitmap[byte] & (uint8_t)~mask;
			f->dirty[block >> 3] |= (uint8_t)(1u << (block & 7));
			f->bitmap_dirty = true;
		}
		s += step;
	}
}

int cow_file_write_bitmap(const struct cow_file *f)
{
	for (uint64_t b = 0; b < f->dirty_blocks; b++) {
		uint64_t at = b * COW_BITMAP_BLOCK, n = f->header.bitmap_length - at;

		if (!f->dirty[b >> 3]) {
			b |= 7;
			continue;
		}
		if (!(f->dirty[b >> 3] >> (b & 7) & 1))
			continue;
		if (n > COW_BITMAP_BLOCK)
			n = COW_BITMAP_BLOCK;
		if (file_pwrite_full(f->fd, f->bitmap + at, n, (off_t)(f->header.bitmap_offset + at)) < 0)
			return -errno;
	}
	return 0;
}

int cow_file_flush(struct cow_file *f)
{
	int ret = 0;

	if (f->failed)
		return f->failed;
	if ((f->data_dirty || f->bitmap_dirty) && fdatasync(f->fd))
		return f->failed = -errno;
	f->data_dirty = false;
	if (!f->bitmap_dirty)
		return 0;
	ret = cow_file_write_bitmap(f);
	if (ret)
		return ret;
	if (fdatasync(f->fd))
		return f->failed = -errno;
	memset(f->dirty, 0, f->dirty_blocks / 8 + 1);
	f->bitmap_dirty = false;
	return 0;
}

int cow_file_restore_time(const struct cow_file *f, struct error *err)
{
	const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, f->stat.st_mtim};

	if (futimens(f->fd, times))
		return error_errno(err, errno, "cannot set the time of %s", f->path);
	return fsync(f->fd) ? error_errno(err, errno, "cannot write %s", f->path) : 0;
}
