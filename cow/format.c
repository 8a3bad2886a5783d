/*
 * Headers of COW files: four layouts in, one out.
 *
 * The kernel trusts what it reads ("XXX Need to sanity-check the values read
 * from the header", cow_user.c); here every field is checked first, because
 * sizes and offsets end up in mmap() and pread() and the path in open():
 * - sector size: 512. The kernel's driver counts in 512-byte sectors whatever
 *   the header says, so another value describes no file that works.
 * - alignment: a power of two from 512 to 1 MiB; kernels write their page size.
 * - size: 1 byte to 8 TiB, the driver's own limit, so no sum below overflows.
 * - path: not empty, ended by a NUL inside the field, no control characters.
 * - the file must reach to the end of its bitmap. That it may be shorter than
 *   its data is left to `check`: sectors it does not own need not be there.
 *
 * V1 and V2 files count bitmap bytes as (size + 511) / 4096, which forgets up to
 * seven sectors at the end of the disk when that does not divide; the driver
 * reads no more than that, so those sectors are never owned.
 */
#include <endian.h>
#include <inttypes.h>
#include <string.h>

#include "cow/format.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"

#define COW_MAGIC      0x4f4f4f4du
#define V1_PATH_MAX    256
#define ALIGNMENT_MIN  512u
#define ALIGNMENT_MAX  (1u << 20)
#define SIZE_MAX_BYTES (8ull << 40)

struct disk_v1 {
	uint32_t magic, version;
	char backing[V1_PATH_MAX];
	uint32_t mtime;
	uint64_t size;
	uint32_t sector_size;
} __attribute__((packed));

struct disk_v2 {
	uint32_t magic, version;
	char backing[COW_PATH_MAX];
	uint32_t mtime;
	uint64_t size;
	uint32_t sector_size;
} __attribute__((packed));

struct disk_v3 {
	uint32_t magic, version, mtime;
	uint64_t size;
	uint32_t sector_size, alignment, cow_format;
	char backing[COW_PATH_MAX];
} __attribute__((packed));

/* mtime is 64 bits wide, yet the programs that wrote it swapped 32: its first four bytes count. */
struct disk_v3_broken {
	uint32_t magic, version, mtime, mtime_rest;
	uint64_t size;
	uint32_t sector_size, alignment, cow_format;
	char backing[COW_PATH_MAX];
	uint32_t padding;
} __attribute__((packed));

_Static_assert(sizeof(struct disk_v1) == 280, "V1 as the kernel packs it");
_Static_assert(offsetof(struct disk_v1, mtime) == 264, "V1");
_Static_assert(sizeof(struct disk_v2) == 4120, "V2 as the kernel packs it");
_Static_assert(offsetof(struct disk_v2, mtime) == 4104, "V2");
_Static_assert(sizeof(struct disk_v3) == COW_V3_SIZE, "V3 as the kernel packs it");
_Static_assert(offsetof(struct disk_v3, backing) == 32, "V3");
_Static_assert(sizeof(struct disk_v3_broken) == COW_HEADER_MAX, "broken V3 as x86-64 pads it");
_Static_assert(offsetof(struct disk_v3_broken, size) == 16, "broken V3");
_Static_assert(offsetof(struct disk_v3_broken, backing) == 36, "broken V3");

const char *cow_format_name(enum cow_format format)
{
	switch (format) {
	case COW_RAW:
		return "raw";
	case COW_V1:
		return "V1";
	case COW_V2:
		return "V2";
	case COW_V3:
		return "V3";
	case COW_V3_BROKEN:
		return "V3 (broken 64-bit layout)";
	}
	return "unknown";
}

static uint64_t round_up(uint64_t x, uint64_t align)
{
	return (x + align - 1) / align * align;
}

/* cow_sizes() of cow_user.c. header_size: bytes before the bitmap or its alignment. */
static void set_places(struct cow_header *h, uint64_t header_size)
{
	if (h->format == COW_V1 || h->format == COW_V2) {
		h->bitmap_offset = header_size;
		h->bitmap_length = (h->size + COW_SECTOR_SIZE - 1) / (8 * COW_SECTOR_SIZE);
		h->data_offset = round_up(h->bitmap_offset + h->bitmap_length, COW_SECTOR_SIZE);
	} else {
		h->bitmap_offset = round_up(header_size, h->alignment);
		h->bitmap_length = (cow_sectors(h->size) + 7) / 8;
		h->data_offset = round_up(h->bitmap_offset + h->bitmap_length, h->alignment);
	}
}

static int copy_path(struct cow_header *h, const char *path, size_t field, struct error *err)
{
	size_t length = strnlen(path, field);

	if (length == field)
		return error_set(err, ERROR_FAILED, "COW header: the backing file's path has no end");
	if (length == 0)
		return error_set(err, ERROR_FAILED, "COW header: the backing file's path is empty");
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)path[i] < ' ' || path[i] == 0x7f)
			return error_set(err, ERROR_FAILED,
					 "COW header: control character in the backing file's path");
	memset(h->backing, 0, sizeof(h->backing));
	memcpy(h->backing, path, length);
	return 0;
}

static int check_fields(const struct cow_header *h, uint32_t sector_size, uint32_t cow_format,
			struct error *err)
{
	if (sector_size != COW_SECTOR_SIZE)
		return error_set(err, ERROR_FAILED, "COW header: sector size %" PRIu32 ", expected 512",
				 sector_size);
	if (h->alignment < ALIGNMENT_MIN || h->alignment > ALIGNMENT_MAX ||
	    (h->alignment & (h->alignment - 1)))
		return error_set(err, ERROR_FAILED, "COW header: impossible alignment %" PRIu32,
				 h->alignment);
	if (cow_format != 0)
		return error_set(err, ERROR_FAILED, "COW header: unknown bitmap format %" PRIu32, cow_format);
	if (h->size == 0 || h->size > SIZE_MAX_BYTES)
		return error_set(err, ERROR_FAILED, "COW header: impossible disk size %" PRIu64, h->size);
	return 0;
}

/* Where a layout has its fields, bytes from the start of the file. */
struct layout {
	enum cow_format format;
	size_t size; /* of the header */
	size_t mtime, disk_size, sector_size, path, path_size;
	size_t alignment, cow_format; /* 0: none, it is the sector size, and 0 */
};

#define PLACES(type)                                                                                         \
	.size = sizeof(struct type), .mtime = offsetof(struct type, mtime),                                  \
	.disk_size = offsetof(struct type, size), .sector_size = offsetof(struct type, sector_size),         \
	.path = offsetof(struct type, backing), .path_size = sizeof(((struct type *)0)->backing)
#define PLACES_V3(type)                                                                                      \
	PLACES(type), .alignment = offsetof(struct type, alignment),                                         \
		.cow_format = offsetof(struct type, cow_format)

static const struct layout layout_v1 = {.format = COW_V1, PLACES(disk_v1)};
static const struct layout layout_v2 = {.format = COW_V2, PLACES(disk_v2)};
static const struct layout layout_v3 = {.format = COW_V3, PLACES_V3(disk_v3)};
static const struct layout layout_v3_broken = {.format = COW_V3_BROKEN, PLACES_V3(disk_v3_broken)};

static uint32_t word32(const uint8_t *p, bool little)
{
	uint32_t w;

	memcpy(&w, p, sizeof(w));
	return little ? le32toh(w) : be32toh(w);
}

static uint64_t word64(const uint8_t *p, bool little)
{
	uint64_t w;

	memcpy(&w, p, sizeof(w));
	return little ? le64toh(w) : be64toh(w);
}

/* Decodes and checks the fields of n bytes, and works out the places. */
static int decode(const struct layout *l, const uint8_t *data, size_t n, bool little, struct cow_header *h,
		  struct error *err)
{
	uint32_t cow_format = 0;

	if (n < l->size)
		return error_set(err, ERROR_FAILED, "COW header: the file ends within it");
	h->format = l->format;
	h->little_endian = little;
	h->mtime = word32(data + l->mtime, little);
	h->size = word64(data + l->disk_size, little);
	h->alignment = l->alignment ? word32(data + l->alignment, little) : COW_SECTOR_SIZE;
	if (l->cow_format)
		cow_format = word32(data + l->cow_format, little);
	if (check_fields(h, word32(data + l->sector_size, little), cow_format, err) ||
	    copy_path(h, (const char *)data + l->path, l->path_size, err))
		return -1;
	set_places(h, l->size);
	return 0;
}

/* cow_user.c: where V3 has its path, the broken layout has its format word, always 0. */
static bool is_broken_v3(const uint8_t *data, size_t n)
{
	static const uint8_t zero[4];
	size_t at = offsetof(struct disk_v3, backing);

	return n >= at + sizeof(zero) && memcmp(data + at, zero, sizeof(zero)) == 0;
}

/* The magic number tells the byte order of a V1 file: it was written as the machine had it. */
static int parse_version(const uint8_t *data, size_t n, bool little, struct cow_header *h, struct error *err)
{
	uint32_t version = word32(data + 4, little);

	if (version == 1)
		return decode(&layout_v1, data, n, little, h, err);
	if (little)
		return error_set(err, ERROR_FAILED, "COW header: version %" PRIu32 " in little-endian order",
				 version);
	if (version == 2)
		return decode(&layout_v2, data, n, little, h, err);
	if (version == 3)
		return decode(is_broken_v3(data, n) ? &layout_v3_broken : &layout_v3, data, n, little, h, err);
	return error_set(err, ERROR_FAILED, "COW header: unknown version %" PRIu32, version);
}

int cow_header_parse(const void *data, size_t n, uint64_t file_size, struct cow_header *out,
		     struct error *err)
{
	cleanup_free struct cow_header *h = NULL;
	uint32_t magic;

	if (n < 8)
		return 0;
	memcpy(&magic, data, sizeof(magic));
	if (be32toh(magic) != COW_MAGIC && le32toh(magic) != COW_MAGIC)
		return 0;
	h = calloc(1, sizeof(*h));
	if (!h)
		return error_oom(err);
	if (parse_version(data, n, le32toh(magic) == COW_MAGIC, h, err))
		return -1;
	if (h->bitmap_offset + h->bitmap_length > file_size)
		return error_set(err, ERROR_FAILED,
				 "COW file is cut off within its bitmap (%" PRIu64 " of %" PRIu64 " bytes)",
				 file_size, h->bitmap_offset + h->bitmap_length);
	*out = *h;
	return 1;
}

int cow_header_read(int fd, struct cow_header *out, struct error *err)
{
	uint8_t data[COW_HEADER_MAX];
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st))
		return error_errno(err, errno, "cannot read the COW header");
	n = file_pread_full(fd, data, sizeof(data), 0);
	if (n < 0)
		return error_errno(err, errno, "cannot read the COW header");
	return cow_header_parse(data, (size_t)n, (uint64_t)st.st_size, out, err);
}

bool cow_header_matches(const struct cow_header *h, uint64_t backing_size, const struct stat *backing)
{
	return h->size == backing_size && h->mtime == (uint32_t)backing->st_mtime;
}

int cow_header_init(struct cow_header *h, const char *backing, uint64_t size, uint32_t mtime,
		    struct error *err)
{
	if (strlen(backing) >= COW_PATH_MAX)
		return error_set(err, ERROR_FAILED, "the backing file's path is too long for a COW header");
	memset(h, 0, sizeof(*h));
	h->format = COW_V3;
	h->mtime = mtime;
	h->size = size;
	h->alignment = COW_ALIGNMENT;
	if (check_fields(h, COW_SECTOR_SIZE, 0, err) || copy_path(h, backing, COW_PATH_MAX, err))
		return -1;
	set_places(h, sizeof(struct disk_v3));
	return 0;
}

void cow_header_encode(const struct cow_header *h, uint8_t *out)
{
	struct disk_v3 d = {
		.magic = htobe32(COW_MAGIC),
		.version = htobe32(3),
		.mtime = htobe32(h->mtime),
		.size = htobe64(h->size),
		.sector_size = htobe32(COW_SECTOR_SIZE),
		.alignment = htobe32(h->alignment),
	};

	memcpy(d.backing, h->backing, sizeof(d.backing));
	memcpy(out, &d, sizeof(d));
}
