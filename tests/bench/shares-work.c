/*
 * The work that tests/bench/shares.sh measures in a guest: files in the folder given.
 *
 *	shares-work FOLDER FILES MEGABYTES
 *
 * Prints "NAME MILLISECONDS" a line. Before each step but the first the guest's caches are dropped.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (1 << 20)

static char chunk[CHUNK];

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void drop_caches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);

	sync();
	if (fd < 0 || write(fd, "3", 1) != 1)
		fail("drop_caches");
	close(fd);
}

static char *file(int i)
{
	static char name[32];

	snprintf(name, sizeof(name), "file-%05d", i);
	return name;
}

static void create(int n)
{
	for (int i = 0; i < n; i++) {
		int fd = open(file(i), O_CREAT | O_EXCL | O_WRONLY, 0644);

		if (fd < 0 || write(fd, chunk, 1000) != 1000 || close(fd) < 0)
			fail("create");
	}
}

static void stat_all(int n)
{
	struct stat st;

	for (int i = 0; i < n; i++)
		if (stat(file(i), &st) < 0)
			fail("stat");
}

/* As ls -l and find do it. */
static void list(int n)
{
	DIR *d = opendir(".");
	struct dirent *e;
	struct stat st;
	int seen = 0;

	while (d && (e = readdir(d)))
		seen += lstat(e->d_name, &st) == 0 && S_ISREG(st.st_mode);
	if (seen != n)
		fail("list");
	closedir(d);
}

static void read_all(int n)
{
	for (int i = 0; i < n; i++) {
		int fd = open(file(i), O_RDONLY);

		if (fd < 0 || read(fd, chunk, CHUNK) != 1000 || close(fd) < 0)
			fail("read");
	}
}

static void remove_all(int n)
{
	for (int i = 0; i < n; i++)
		if (unlink(file(i)) < 0)
			fail("remove");
}

static void write_big(int megabytes)
{
	int fd = open("big", O_CREAT | O_TRUNC | O_WRONLY, 0644);

	for (int i = 0; i < megabytes; i++)
		if (write(fd, chunk, CHUNK) != CHUNK)
			fail("write");
	if (fsync(fd) < 0 || close(fd) < 0)
		fail("fsync");
}

static void read_big(int megabytes)
{
	int fd = open("big", O_RDONLY);

	for (int i = 0; i < megabytes; i++)
		if (read(fd, chunk, CHUNK) <= 0)
			fail("read");
	close(fd);
	unlink("big");
}

static void step(const char *name, void (*work)(int), int n)
{
	double begin;

	drop_caches();
	begin = now();
	work(n);
	printf("%s %.1f\n", name, now() - begin);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	int n, megabytes;

	if (argc != 4 || chdir(argv[1]) < 0)
		fail("usage: shares-work FOLDER FILES MEGABYTES");
	n = atoi(argv[2]);
	megabytes = atoi(argv[3]);
	memset(chunk, 'x', CHUNK);
	step("create", create, n);
	step("stat", stat_all, n);
	step("list", list, n);
	step("read", read_all, n);
	step("remove", remove_all, n);
	step("write-1M", write_big, megabytes);
	step("read-1M", read_big, megabytes);
	return 0;
}
