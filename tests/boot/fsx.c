/*
 * A file and a model of it in memory: random writes, reads, truncations, mappings, holes and copies; what is read must be what
 * the model has. The idea is that of Apple's and the kernel's fsx, written anew.
 *
 *	fsx FILE STEPS [SEED]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIZE_MAX_ (512 << 10)
#define PIECE_MAX (64 << 10)

static unsigned char model[SIZE_MAX_], buffer[SIZE_MAX_];
static long size;
static int fd;
static const char *path;
static unsigned long step;
static const char *doing = "";

static void fail(const char *what)
{
	printf("fsx: step %lu, %s: %s: %s\n", step, doing, what, strerror(errno));
	exit(1);
}

static long below(long n)
{
	return n > 0 ? random() % n : 0;
}

static void compare(const unsigned char *seen, long at, long n)
{
	for (long i = 0; i < n; i++)
		if (seen[i] != model[at + i]) {
			printf("fsx: step %lu, %s: byte %ld is %02x, not %02x (size %ld)\n", step, doing, at + i, seen[i],
			       model[at + i], size);
			exit(1);
		}
}

static void grow(long to)
{
	if (to > size) {
		memset(model + size, 0, (size_t)(to - size));
		size = to;
	}
}

static void do_write(void)
{
	long at = below(SIZE_MAX_ - PIECE_MAX), n = 1 + below(PIECE_MAX);

	for (long i = 0; i < n; i++)
		buffer[i] = (unsigned char)random();
	grow(at);
	if (pwrite(fd, buffer, (size_t)n, at) != n)
		fail("pwrite");
	grow(at + n);
	memcpy(model + at, buffer, (size_t)n);
}

static void do_read(void)
{
	long at = below(size), n = 1 + below(PIECE_MAX), want = n < size - at ? n : size - at;

	if (pread(fd, buffer, (size_t)n, at) != (want > 0 ? want : 0))
		fail("pread");
	compare(buffer, at, want);
}

static void do_truncate(void)
{
	long to = below(SIZE_MAX_);

	if (random() & 1 ? ftruncate(fd, to) : truncate(path, to))
		fail("truncate");
	if (to < size)
		size = to;
	grow(to);
}

static void do_map_read(void)
{
	unsigned char *map;

	if (!size)
		return;
	map = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		fail("mmap");
	compare(map, 0, size);
	munmap(map, (size_t)size);
}

static void do_map_write(void)
{
	long at = below(size), n = 1 + below(PIECE_MAX);
	unsigned char *map;

	if (!size)
		return;
	n = n < size - at ? n : size - at;
	map = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		fail("mmap");
	for (long i = 0; i < n; i++)
		model[at + i] = map[at + i] = (unsigned char)random();
	if (random() & 1 && msync(map, (size_t)size, MS_SYNC))
		fail("msync");
	munmap(map, (size_t)size);
}

static void do_punch(void)
{
	long at = below(size), n = 1 + below(PIECE_MAX);

	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, n))
		fail("punch");
	if (at < size)
		memset(model + at, 0, (size_t)(n < size - at ? n : size - at));
}

static void do_allocate(void)
{
	long at = below(SIZE_MAX_ - PIECE_MAX), n = 1 + below(PIECE_MAX);

	if (fallocate(fd, 0, at, n))
		fail("fallocate");
	grow(at + n);
}

static void do_copy(void)
{
	long from = below(size), n = 1 + below(PIECE_MAX), to;
	off_t in, out;
	ssize_t done;

	n = n < size - from ? n : size - from;
	to = below(SIZE_MAX_ - PIECE_MAX);
	if (n <= 0 || (to < from + n && from < to + n))
		return;
	in = from, out = to;
	done = copy_file_range(fd, &in, fd, &out, (size_t)n, 0);
	if (done < 0)
		fail("copy_file_range");
	grow(to + done);
	memcpy(model + to, model + from, (size_t)done);
}

static void do_reopen(void)
{
	struct stat st;

	if (random() & 1 && fsync(fd))
		fail("fsync");
	close(fd);
	fd = open(path, O_RDWR);
	if (fd < 0 || fstat(fd, &st))
		fail("reopen");
	if (st.st_size != size) {
		printf("fsx: step %lu: the size is %ld, not %ld\n", step, (long)st.st_size, size);
		exit(1);
	}
}

static const struct {
	const char *name;
	void (*act)(void);
} acts[] = {
	{"write", do_write},	   {"read", do_read},	      {"write", do_write}, {"read", do_read},
	{"truncate", do_truncate}, {"map-read", do_map_read}, {"punch", do_punch}, {"map-write", do_map_write},
	{"allocate", do_allocate}, {"copy", do_copy},	      {"reopen", do_reopen},
};

int main(int argc, char **argv)
{
	unsigned long steps = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;

	if (argc < 3)
		return 2;
	path = argv[1];
	srandom(argc > 3 ? (unsigned)atoi(argv[3]) : 1);
	fd = open(path, O_CREAT | O_TRUNC | O_RDWR, 0644);
	if (fd < 0)
		fail("open");
	for (step = 0; step < steps; step++) {
		size_t which = (size_t)below(sizeof(acts) / sizeof(acts[0]));

		doing = acts[which].name;
		acts[which].act();
	}
	doing = "end";
	do_map_read();
	unlink(path);
	printf("fsx: %lu steps\n", step);
	return 0;
}
