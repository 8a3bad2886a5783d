/*
 * Archives into the importer: whatever the bytes are, it ends with an image
 * that is whole or an error, and touches nothing but its own memory.
 *
 * One empty file system is made at the start; each run fills a private copy of
 * it in memory. With FUZZ_IMAGE_CHECK set, e2fsck has to be content with each
 * image that was finished (slow: for the corpus).
 */
#include <archive.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/fuzz/tar_mutator.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/image/image_internal.h"

#define IMAGE_SIZE (16 * IMAGE_MIB)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int empty = -1;

static void die(const char *what, const struct error *err)
{
	fprintf(stderr, "%s: %s\n", what, err ? err->message : "");
	abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct error err = ERROR_INIT;
	char path[64];

	(void)argc;
	(void)argv;
	empty = memfd_create("empty", MFD_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), empty);
	if (image_fs_format(path, IMAGE_SIZE, 1, &err))
		die("mke2fs", &err);
	return 0;
}

/* Copies what is data of the empty file system; the rest stays a hole. */
static int copy_empty(void)
{
	static char buffer[65536];
	int fd = memfd_create("image", MFD_CLOEXEC);
	off_t at = 0, end;
	ssize_t n;

	if (fd < 0 || ftruncate(fd, IMAGE_SIZE))
		die("memfd", NULL);
	while ((at = lseek(empty, at, SEEK_DATA)) >= 0) {
		for (end = lseek(empty, at, SEEK_HOLE); at < end; at += n) {
			size_t part =
				(size_t)(end - at) < sizeof(buffer) ? (size_t)(end - at) : sizeof(buffer);

			n = pread(empty, buffer, part, at);
			if (n <= 0 || pwrite(fd, buffer, (size_t)n, at) != n)
				die("copy", NULL);
		}
	}
	return fd;
}

static void check(const char *path)
{
	char command[128];

	snprintf(command, sizeof(command), "/sbin/e2fsck -fn %s >/dev/null", path);
	if (getenv("FUZZ_IMAGE_CHECK") && system(command))
		die("e2fsck finds fault", NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct image_options options;
	struct error err = ERROR_INIT;
	cleanup_archive struct archive *a = image_archive_new(&err);
	cleanup_close int fd = copy_empty();
	struct image_fs *fs;
	char path[64];
	int result;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), fd);
	fs = image_fs_open(path, 1, &err);
	if (!a || !fs)
		die("setting up", &err);
	result = archive_read_open_memory(a, data, size) != ARCHIVE_OK ||
		 image_archive_extract(a, fs, &options, &err) || image_fs_finish(fs, &err);
	if (!result)
		image_fs_has_file(fs, "/sbin/init");
	image_fs_close(fs);
	if (!result)
		check(path);
	return 0;
}
