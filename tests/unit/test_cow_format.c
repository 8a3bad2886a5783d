/*
 * COW headers: the golden file of each version (made by tests/fuzz/cow/golden.py,
 * not by libcow), what cow_create() writes, and headers that cannot be right.
 */
#include <endian.h>

#include "tests/unit/cow_world.h"

#define SECTORS   41
#define SIZE      (SECTORS * COW_SECTOR_SIZE)
#define BASE_TIME 1000000000

static const struct golden {
	const char *name;
	enum cow_format format;
	bool little_endian;
	uint64_t bitmap_offset, bitmap_length, data_offset;
} goldens[] = {
	{"v1-le.cow", COW_V1, true, 280, 5, 512},
	{"v1-be.cow", COW_V1, false, 280, 5, 512},
	{"v2.cow", COW_V2, false, 4120, 5, 4608},
	{"v3.cow", COW_V3, false, 8192, 6, 12288},
	{"v3-broken.cow", COW_V3_BROKEN, false, 8192, 6, 12288},
};
#define GOLDENS (sizeof(goldens) / sizeof(goldens[0]))

static char corpus[512];

static bool owns(size_t sector)
{
	return sector == 1 || sector == 3 || sector == 8 || sector == 39;
}

/* Brings the golden files and their base into the test's folder. */
static void enter(void)
{
	uint8_t base[SIZE];

	world_enter();
	for (size_t i = 0; i < SIZE; i++)
		base[i] = (uint8_t)(0x80 + i / COW_SECTOR_SIZE);
	world_write_file("base.img", base, SIZE);
	world_age("base.img", BASE_TIME);
	for (size_t i = 0; i < GOLDENS; i++) {
		char path[600];
		char *data;
		size_t n;

		snprintf(path, sizeof(path), "%s/%s", corpus, goldens[i].name);
		OK(file_read_all(path, 1 << 20, &data, &n, err));
		world_write_file(goldens[i].name, data, n);
		free(data);
	}
}

static void test_golden_headers(void)
{
	enter();
	for (size_t i = 0; i < GOLDENS; i++) {
		const struct golden *g = &goldens[i];
		struct cow_header h;
		int fd = open(g->name, O_RDONLY);
		int is_cow = 0;

		OK(is_cow = cow_header_read(fd, &h, err));
		CU_ASSERT_EQUAL(is_cow, 1);
		CU_ASSERT_EQUAL(h.format, g->format);
		CU_ASSERT_EQUAL(h.little_endian, g->little_endian);
		CU_ASSERT_EQUAL(h.mtime, BASE_TIME);
		CU_ASSERT_EQUAL(h.size, SIZE);
		CU_ASSERT_EQUAL(h.bitmap_offset, g->bitmap_offset);
		CU_ASSERT_EQUAL(h.bitmap_length, g->bitmap_length);
		CU_ASSERT_EQUAL(h.data_offset, g->data_offset);
		CU_ASSERT_STRING_EQUAL(h.backing, "base.img");
		close(fd);
	}
	world_leave();
}

static void check_content(const char *path)
{
	uint8_t data[SIZE];
	struct cow_chain *c = NULL;

	OK((c = cow_chain_open(path, NULL, err)) ? 0 : -1);
	CU_ASSERT_EQUAL(cow_chain_depth(c), 2);
	CU_ASSERT_EQUAL_FATAL(cow_chain_size(c), SIZE);
	CU_ASSERT_EQUAL(cow_chain_read(c, data, SIZE, 0), 0);
	for (size_t s = 0; s < SECTORS; s++)
		CU_ASSERT_EQUAL(data[s * COW_SECTOR_SIZE + 7], owns(s) ? s : 0x80 + s);
	cow_chain_close(c);
}

static void test_golden_content(void)
{
	enter();
	for (size_t i = 0; i < GOLDENS; i++)
		check_content(goldens[i].name);
	world_leave();
}

static void test_golden_convert(void)
{
	enter();
	for (size_t i = 0; i < GOLDENS; i++) {
		struct cow_header h;
		int fd, is_cow = 0;

		OK(cow_convert(goldens[i].name, "new.cow", true, NULL, err));
		check_content("new.cow");
		fd = open("new.cow", O_RDONLY);
		OK(is_cow = cow_header_read(fd, &h, err));
		CU_ASSERT_EQUAL(h.format, COW_V3);
		close(fd);
	}
	world_leave();
}

static void test_old_versions_are_not_written(void)
{
	const struct cow_open_options o = {.writable = true};
	struct error err = ERROR_INIT;

	enter();
	for (size_t i = 0; i < GOLDENS; i++) {
		struct cow_chain *c = cow_chain_open(goldens[i].name, &o, &err);

		CU_ASSERT_EQUAL(c != NULL, goldens[i].format == COW_V3);
		cow_chain_close(c);
	}
	world_leave();
}

/* ---- What is written: the layout of V3, byte by byte ---- */

static void test_create(void)
{
	uint8_t expected[12288 + SIZE] = {0};
	uint32_t words[] = {htobe32(0x4f4f4f4d), htobe32(3), htobe32(BASE_TIME)};
	uint32_t rest[] = {htobe32(512), htobe32(4096), 0};
	uint64_t size = htobe64(SIZE);
	struct stat st;
	size_t n;
	char *data;

	enter();
	OK(cow_create("new.cow", "base.img", NULL, err));
	OK(file_read_all("new.cow", 1 << 20, &data, &n, err));
	memcpy(expected, words, 12);
	memcpy(expected + 12, &size, 8);
	memcpy(expected + 20, rest, 12);
	snprintf((char *)expected + 32, 4096, "%s/base.img", world_dir);
	CU_ASSERT_EQUAL_FATAL(n, sizeof(expected));
	CU_ASSERT_TRUE(memcmp(data, expected, n) == 0);
	CU_ASSERT_EQUAL(stat("new.cow", &st), 0);
	CU_ASSERT_EQUAL(st.st_mode & 07777, 0600);
	CU_ASSERT_TRUE(st.st_blocks * 512 <= 16384);
	free(data);
	/* it is there: refused, and still what it was */
	CU_ASSERT_EQUAL(cow_create("new.cow", "v3.cow", NULL, NULL), -1);
	check_content("v3.cow");
	world_leave();
}

static void test_sizes(void)
{
	/* bitmaps that end in the middle of, at and just past a block; disks that end within a sector */
	static const uint64_t sizes[] = {
		1, 511, 512, 513, 4096, 16 << 20, (16 << 20) + 512, 134217728, 134217729, 8ull << 30};
	struct cow_header h;

	enter();
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t sectors = (sizes[i] + 511) / 512;
		int fd = open("big", O_RDWR | O_CREAT, 0600);
		struct cow_chain *c;
		struct stat st;

		CU_ASSERT_EQUAL_FATAL(ftruncate(fd, (off_t)sizes[i]), 0);
		close(fd);
		unlink("new.cow");
		OK(cow_create("new.cow", "big", NULL, err));
		fd = open("new.cow", O_RDONLY);
		OK(cow_header_read(fd, &h, err));
		CU_ASSERT_EQUAL(fstat(fd, &st), 0);
		close(fd);
		CU_ASSERT_EQUAL(h.bitmap_length, (sectors + 7) / 8);
		CU_ASSERT_EQUAL(h.data_offset, (8192 + h.bitmap_length + 4095) / 4096 * 4096);
		CU_ASSERT_EQUAL(st.st_size, (off_t)(h.data_offset + sizes[i]));
		c = cow_chain_open("new.cow", NULL, NULL);
		CU_ASSERT_PTR_NOT_NULL_FATAL(c);
		CU_ASSERT_EQUAL(cow_chain_size(c), sectors * 512);
		cow_chain_close(c);
	}
	world_leave();
}

/* ---- Headers that cannot be right ---- */

/* Parses a V3 header with some bytes replaced. */
static int parse_with(size_t at, const void *bytes, size_t n)
{
	static uint8_t data[33280];
	static bool loaded;
	struct cow_header h;
	uint8_t copy[4136];

	if (!loaded) {
		int fd = open("v3.cow", O_RDONLY);

		loaded = file_pread_full(fd, data, sizeof(data), 0) == sizeof(data);
		close(fd);
	}
	memcpy(copy, data, sizeof(copy));
	memcpy(copy + at, bytes, n);
	return cow_header_parse(copy, sizeof(copy), sizeof(data), &h, NULL);
}

static int parse_with_be32(size_t at, uint32_t value)
{
	value = htobe32(value);
	return parse_with(at, &value, 4);
}

static int parse_with_size(uint64_t value)
{
	value = htobe64(value);
	return parse_with(12, &value, 8);
}

static void test_impossible_headers(void)
{
	static const uint32_t bad_alignments[] = {0, 1, 3, 256, 4095, 4097, 1u << 21, 1u << 31, UINT32_MAX};
	static const uint64_t bad_sizes[] = {0, 1ull << 33, (8ull << 40) + 1, 1ull << 63, UINT64_MAX};
	char path[4096];

	enter();
	CU_ASSERT_EQUAL(parse_with(0, "", 0), 1);
	CU_ASSERT_EQUAL(parse_with_be32(0, 0x12345678), 0);
	for (uint32_t version = 4; version < 300; version++)
		CU_ASSERT_EQUAL(parse_with_be32(4, version), -1);
	for (size_t i = 0; i < sizeof(bad_alignments) / sizeof(bad_alignments[0]); i++)
		CU_ASSERT_EQUAL(parse_with_be32(24, bad_alignments[i]), -1);
	for (size_t i = 0; i < sizeof(bad_sizes) / sizeof(bad_sizes[0]); i++)
		CU_ASSERT_EQUAL(parse_with_size(bad_sizes[i]), -1);
	CU_ASSERT_EQUAL(parse_with_be32(20, 1024), -1); /* sector size */
	CU_ASSERT_EQUAL(parse_with_be32(20, 0), -1);
	CU_ASSERT_EQUAL(parse_with_be32(28, 1), -1); /* bitmap format */
	memset(path, 'a', sizeof(path));
	CU_ASSERT_EQUAL(parse_with(32, path, sizeof(path)), -1);
	CU_ASSERT_EQUAL(parse_with(32, "\0abc", 4), -1);
	CU_ASSERT_EQUAL(parse_with(32, "a\nb", 4), -1);
	CU_ASSERT_EQUAL(parse_with(32, "a\033b", 4), -1);
	world_leave();
}

static void test_cut_off(void)
{
	struct cow_header h;

	enter();
	for (size_t i = 0; i < GOLDENS; i++) {
		uint64_t needed = goldens[i].bitmap_offset + goldens[i].bitmap_length;
		uint8_t data[4136] = {0};
		int fd = open(goldens[i].name, O_RDONLY);
		ssize_t n = file_pread_full(fd, data, sizeof(data), 0);
		size_t header = goldens[i].format == COW_V1   ? 280
				: goldens[i].format == COW_V2 ? 4120
				: goldens[i].format == COW_V3 ? 4128
							      : 4136;

		close(fd);
		for (size_t cut = 8; cut < (size_t)n; cut += cut < 300 ? 1 : 97)
			CU_ASSERT_EQUAL(cow_header_parse(data, cut, 1 << 20, &h, NULL),
					cut < header ? -1 : 1);
		CU_ASSERT_EQUAL(cow_header_parse(data, (size_t)n, needed - 1, &h, NULL), -1);
		CU_ASSERT_EQUAL(cow_header_parse(data, (size_t)n, needed, &h, NULL), 1);
	}
	world_leave();
}

static void choose_corpus(void)
{
	const char *source = getenv("UML_LAB_SOURCE");
	char *real;

	snprintf(corpus, sizeof(corpus), "%s/tests/fuzz/cow/corpus", source ? source : ".");
	real = realpath(corpus, NULL);
	CU_ASSERT_PTR_NOT_NULL_FATAL(real);
	snprintf(corpus, sizeof(corpus), "%s", real);
	free(real);
}

UNIT_MAIN("cow format", UNIT_CASE(choose_corpus), UNIT_CASE(test_golden_headers),
	  UNIT_CASE(test_golden_content), UNIT_CASE(test_golden_convert),
	  UNIT_CASE(test_old_versions_are_not_written), UNIT_CASE(test_create), UNIT_CASE(test_sizes),
	  UNIT_CASE(test_impossible_headers), UNIT_CASE(test_cut_off))
