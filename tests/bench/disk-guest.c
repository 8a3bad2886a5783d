/*
 * /init of the guests of tests/bench/disk.sh: measures the disk dev=NAME of the kernel's command line and switches off.
 *
 * Prints "result NAME VALUE": MB/s, or operations a second. All but "cached" go around the guest's page cache
 * (O_DIRECT). Static, no library but libc; asynchronous I/O by system calls.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DEPTH_MAX 32
#define MIB	  (1u << 20)

#ifndef SECONDS
#define SECONDS	  0.6
#endif /* of each measurement */

static bool quick;	  /* not one block more, however few were written: for a disk that would take minutes */
static bool nosync;	  /* nothing with fsync: for a disk that keeps nothing */
static char only[256]; /* names of measurements with commas around them, for those alone; "" for all */
static int disk;
static uint64_t size;
static uint8_t *buffers[DEPTH_MAX];

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t next_random(void)
{
	static uint64_t state = 88172645463325252ull;

	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

static void fail(const char *what)
{
	printf("failed: %s: %s\n", what, strerror(errno));
	sync();
	reboot(RB_POWER_OFF);
}

/* A measurement: blocks, how many at once, where. */
struct pattern {
	const char *name;
	uint32_t block;
	int depth;
	bool write, random, sync;
	uint32_t from, span; /* MiB of the disk; span 0: all of it */
	uint64_t least;	     /* blocks, however long they take */
};

static uint64_t place(const struct pattern *p, uint64_t i)
{
	uint64_t blocks = (p->span ? (uint64_t)p->span * MIB : size) / p->block;

	return (uint64_t)p->from * MIB + (p->random ? next_random() % blocks : i % blocks) * p->block;
}

static void submit(aio_context_t ctx, const struct pattern *p, struct iocb *cb, int slot, uint64_t i)
{
	struct iocb *list = cb;

	*cb = (struct iocb){
		.aio_data = (uint64_t)slot,
		.aio_lio_opcode = p->write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
		.aio_fildes = (uint32_t)disk,
		.aio_buf = (uint64_t)(uintptr_t)buffers[slot],
		.aio_nbytes = p->block,
		.aio_offset = (int64_t)place(p, i),
	};
	if (syscall(SYS_io_submit, ctx, 1, &list) != 1)
		fail("io_submit");
}

static void measure(const struct pattern *p)
{
	struct iocb cbs[DEPTH_MAX];
	struct io_event events[DEPTH_MAX];
	aio_context_t ctx = 0;
	double begin, end;
	uint64_t done = 0, issued = 0;
	int in_flight = p->depth;

	if (syscall(SYS_io_setup, DEPTH_MAX, &ctx))
		fail("io_setup");
	/* what was written before is not of this measurement */
	if (p->sync && fdatasync(disk))
		fail("fdatasync");
	begin = now();
	for (int i = 0; i < p->depth; i++)
		submit(ctx, p, &cbs[i], i, issued++);
	while (in_flight > 0) {
		long n = syscall(SYS_io_getevents, ctx, 1, DEPTH_MAX, events, NULL);

		for (long i = 0; i < n; i++) {
			int slot = (int)events[i].data;

			if (events[i].res != p->block)
				fail(p->name);
			done++;
			if (p->sync && fdatasync(disk))
				fail("fdatasync");
			if (now() - begin < SECONDS || (!quick && issued < p->least))
				submit(ctx, p, &cbs[slot], slot, issued++);
			else
				in_flight--;
		}
	}
	end = now();
	if (p->block == MIB)
		printf("result %s %.1f\n", p->name, (double)done / (end - begin));
	else
		printf("result %s %.0f\n", p->name, (double)done / (end - begin));
	syscall(SYS_io_destroy, ctx);
}

/* Through the guest's page cache and its readahead, as programs read. */
static void measure_cached(const char *dev)
{
	int drop = open("/proc/sys/vm/drop_caches", O_WRONLY), fd = open(dev, O_RDONLY);
	double begin;
	uint64_t n = 0;

	if (drop < 0 || fd < 0 || write(drop, "3", 1) != 1)
		fail("drop_caches");
	begin = now();
	while (now() - begin < SECONDS && read(fd, buffers[0], 4096) == 4096)
		n += 4096;
	printf("result read-4k-cached %.1f\n", (double)n / MIB / (now() - begin));
	close(fd);
	close(drop);
}

static void load_module(void)
{
	int fd = open("/virtio_blk.ko", O_RDONLY);

	if (fd >= 0 && syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)
		fail("virtio_blk");
}

/* Whether a measurement is asked for. */
static bool is_wanted(const char *name)
{
	char quoted[64];

	snprintf(quoted, sizeof(quoted), ",%s,", name);
	return !only[0] || strstr(only, quoted);
}

/* The value of dev= in the command line, whether it says "quick" and "nosync", and only=. */
static void find_device(char *path, size_t n)
{
	char line[4096] = "", name[32] = "", list[200] = "";
	FILE *f = fopen("/proc/cmdline", "r");
	const char *at;

	if (f && fgets(line, sizeof(line), f) && (at = strstr(line, " dev=")))
		sscanf(at, " dev=%31s", name);
	if ((at = strstr(line, " only=")) && sscanf(at, " only=%199s", list) == 1)
		snprintf(only, sizeof(only), ",%s,", list);
	quick = strstr(line, " quick");
	nosync = strstr(line, " nosync");
	snprintf(path, n, "/dev/%s", name);
}

int main(void)
{
	static const struct pattern patterns[] = {
		{"read-1m", MIB, 4, false, false, false},	{"read-1m-random", MIB, 4, false, true, false},
		{"read-4k-random", 4096, 1, false, true, false}, {"read-4k-random-16", 4096, 16, false, true, false},
		/* so many that the overlay holds all that is rewritten below, whoever keeps it */
		{"write-1m", MIB, 4, true, false, false, 0, 128, 128},
		{"write-4k-random", 4096, 1, true, true, false, 0, 128, 0},
		{"write-4k-random-16", 4096, 16, true, true, false, 0, 128, 0},
		{"write-4k-fsync", 4096, 1, true, true, true, 0, 128, 0},
		{"write-4k-new-fsync", 4096, 1, true, true, true, 256, 256, 0},
	};
	char dev[64];

	setvbuf(stdout, NULL, _IOLBF, 0);
	mkdir("/proc", 0755);
	mkdir("/dev", 0755);
	mount("none", "/proc", "proc", 0, NULL);
	load_module();
	mount("none", "/dev", "devtmpfs", 0, NULL);
	find_device(dev, sizeof(dev));
	for (int i = 0; i < 100 && (disk = open(dev, O_RDWR | O_DIRECT)) < 0; i++)
		usleep(20000);
	if (disk < 0)
		fail(dev);
	size = (uint64_t)lseek(disk, 0, SEEK_END);
	for (int i = 0; i < DEPTH_MAX; i++) {
		if (posix_memalign((void **)&buffers[i], 4096, MIB))
			fail("memory");
		memset(buffers[i], i + 1, MIB);
	}
	printf("result boot 1\n");
	if (is_wanted("read-4k-cached"))
		measure_cached(dev);
	for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++)
		if (is_wanted(patterns[i].name) && !(nosync && patterns[i].sync))
			measure(&patterns[i]);
	printf("finished\n");
	sync();
	reboot(RB_POWER_OFF);
	return 0;
}
