/* Shared by the tests of libcow: a private folder, random numbers that can be repeated, small disks. */
#ifndef TESTS_COW_WORLD_H
#define TESTS_COW_WORLD_H

#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cow/ops.h"
#include "tests/unit/unit.h"
#include "uml-lab/base/file.h"

static char world_dir[256];

/*
 * Makes the folder and goes there: in memory where that is to be had, since libcow makes everything durable.
 * COW_TEST_DIR chooses another file system.
 */
static inline void world_enter(void)
{
	const char *tmp = getenv("COW_TEST_DIR");
	char *real;

	if (!tmp)
		tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : getenv("TMPDIR");
	snprintf(world_dir, sizeof(world_dir), "%s/cow-test.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(world_dir) || chdir(world_dir))
		abort();
	real = realpath(".", NULL);
	snprintf(world_dir, sizeof(world_dir), "%s", real);
	free(real);
}

static inline void world_empty(void)
{
	if (chdir("/") || file_remove_tree(world_dir, NULL) || mkdir(world_dir, 0700) || chdir(world_dir))
		abort();
}

static inline void world_leave(void)
{
	if (chdir("/") || file_remove_tree(world_dir, NULL))
		abort();
}

/* splitmix64: the same numbers from the same seed everywhere. */
static uint64_t world_seed = 1;

static inline uint64_t world_random(uint64_t below)
{
	uint64_t z = (world_seed += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return below ? (z ^ (z >> 31)) % below : 0;
}

static inline void world_fill(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(world_random(255) + 1);
}

static inline void world_write_file(const char *path, const void *data, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || file_write_full(fd, data, n) < 0 || close(fd))
		abort();
}

/* Makes a hole in a file. */
static inline void world_punch(const char *path, uint64_t at, uint64_t n)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)n) || close(fd))
		abort();
}

/* Gives a file a time well in the past, so that changes made now are seen in whole seconds. */
static inline void world_age(const char *path, time_t when)
{
	const struct timespec times[2] = {{.tv_sec = when}, {.tv_sec = when}};

	if (utimensat(AT_FDCWD, path, times, 0))
		abort();
}

/* Asserts that a call went well, and says why not. */
#define OK(call)                                                                                             \
	do {                                                                                                 \
		struct error e_ = ERROR_INIT;                                                                \
		struct error *err = &e_;                                                                     \
		bool ok_ = (call) >= 0;                                                                      \
		if (!ok_)                                                                                    \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, e_.message);                      \
		CU_ASSERT_TRUE_FATAL(ok_);                                                                   \
	} while (0)

#endif
