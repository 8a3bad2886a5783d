/*
 * Runs in a guest: writes pieces of 512 bytes up to 64 KiB all over a part of a block device, then reads it back in
 * large pieces and compares with what it must hold. Everything goes past the page cache, so that the sizes of
 * requests are those below.
 *
 *	disk_mixed DEVICE OFFSET LENGTH SEED	all bytes a multiple of 4096; prints "N of M sectors wrong", ends with 1 if any
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECTOR 512
#define PAGE 4096
#define WRITES 300
#define READ (256 * 1024)

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static void *buffer(size_t size)
{
	void *p;

	if (posix_memalign(&p, PAGE, size))
		die("memory");
	return p;
}

/* Page by page: no request holds more than one, whatever the driver does to the others. */
static void read_first(int fd, uint8_t *model, off_t offset, size_t length)
{
	for (size_t at = 0; at < length; at += PAGE)
		if (pread(fd, model + at, PAGE, offset + (off_t)at) != PAGE)
			die("read");
}

static void write_some(int fd, uint8_t *model, uint8_t *piece, off_t offset, size_t length)
{
	size_t sectors = rand() % 2 ? 1 + (size_t)rand() % 7 : 8 * (1 + (size_t)rand() % 16);
	size_t at = (size_t)rand() % (length / SECTOR - sectors) * SECTOR, size = sectors * SECTOR;

	for (size_t i = 0; i < size; i++)
		piece[i] = (uint8_t)rand();
	memcpy(model + at, piece, size);
	if (pwrite(fd, piece, size, offset + (off_t)at) != (ssize_t)size)
		die("write");
}

static size_t wrong_sectors(int fd, const uint8_t *model, uint8_t *piece, off_t offset, size_t length)
{
	size_t wrong = 0;

	for (size_t at = 0; at < length; at += READ) {
		size_t size = length - at < READ ? length - at : READ;

		if (pread(fd, piece, size, offset + (off_t)at) != (ssize_t)size)
			die("read");
		for (size_t i = 0; i < size; i += SECTOR)
			wrong += memcmp(piece + i, model + at + i, SECTOR) != 0;
	}
	return wrong;
}

int main(int argc, char **argv)
{
	int fd = argc == 5 ? open(argv[1], O_RDWR | O_DIRECT) : -1;
	off_t offset = argc == 5 ? atoll(argv[2]) : 0;
	size_t length = argc == 5 ? (size_t)atoll(argv[3]) : 0, wrong;
	uint8_t *model, *piece;

	if (fd < 0)
		die("disk_mixed DEVICE OFFSET LENGTH SEED");
	srand((unsigned int)atoi(argv[4]));
	model = buffer(length);
	piece = buffer(READ);
	read_first(fd, model, offset, length);
	for (int i = 0; i < WRITES; i++)
		write_some(fd, model, piece, offset, length);
	wrong = wrong_sectors(fd, model, piece, offset, length);
	printf("%zu of %zu sectors wrong\n", wrong, length / SECTOR);
	return wrong != 0;
}
