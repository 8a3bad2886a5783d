/*
 * Fuzzer for what a COW file from elsewhere can do to us: its header is parsed,
 * the chain opened (over a base of its size if that is small), all of its map
 * walked, and parts of the disk read; with the first byte of the input as a
 * choice, the file system on it is listed and compared.
 *
 * Built with clang -fsanitize=fuzzer it is a libFuzzer target. Built with gcc and
 * -DCOW_FUZZ_MAIN it drives itself: cow_fuzz CORPUS SECONDS [SEED] mutates the
 * files of the corpus.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cow/fs.h"
#include "cow/ops.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"

#define SIZE_MAX_TRIED (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[64];

static void remove_folder(void)
{
	if (chdir("/") == 0)
		file_remove_tree(folder, NULL);
}

static void enter_folder(void)
{
	strcpy(folder, "/dev/shm/cow-fuzz.XXXXXX");
	if (!mkdtemp(folder) || chdir(folder))
		abort();
	atexit(remove_folder);
}

static void write_file(const char *path, const void *data, size_t n, uint64_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	if (fd < 0 || (n && file_write_full(fd, data, n) < 0) || ftruncate(fd, (off_t)size))
		abort();
	close(fd);
}

/* The base it wants: what its own data area holds, with some bytes changed, so that there is something to
 * compare. */
static void write_base(const struct cow_header *h, const uint8_t *data, size_t size)
{
	const struct timespec times[2] = {{.tv_sec = h->mtime}, {.tv_sec = h->mtime}};
	size_t n = size > h->data_offset ? size - (size_t)h->data_offset : 0;
	uint8_t *copy;

	if (n > h->size)
		n = (size_t)h->size;
	copy = malloc(n + 1);
	if (!copy)
		abort();
	memcpy(copy, data + (n ? h->data_offset : 0), n);
	for (size_t i = 4000; i < n; i += 4093)
		copy[i]++;
	write_file("base.img", copy, n, h->size);
	free(copy);
	utimensat(AT_FDCWD, "base.img", times, 0);
}

/* What must hold of each header that is accepted. */
static void check_header(const struct cow_header *h, size_t file_size)
{
	uint64_t bits = h->bitmap_length * 8;

	if (h->size == 0 || h->bitmap_offset + h->bitmap_length > file_size ||
	    h->data_offset < h->bitmap_offset + h->bitmap_length || h->data_offset + h->size < h->size ||
	    strnlen(h->backing, sizeof(h->backing)) == sizeof(h->backing))
		abort();
	if (h->format != COW_V1 && h->format != COW_V2 && bits < (h->size + 511) / 512)
		abort();
}

static int ignore_range(void *arg, uint64_t start, uint64_t length, struct error *err)
{
	(void)err;
	(void)arg;
	return start + length < start;
}

static void ignore_finding(void *arg, enum cow_finding finding, const char *text)
{
	(void)arg;
	(void)finding;
	(void)text;
}

static int ignore_difference(void *arg, const struct cow_fs_difference *d, struct error *err)
{
	(void)arg;
	(void)d;
	(void)err;
	return 0;
}

static void walk(struct cow_chain *chain)
{
	uint64_t end = (cow_chain_size(chain) + 511) / 512, steps = 0;
	uint8_t buffer[4096];
	struct cow_extent e;

	for (uint64_t s = 0; s < end && steps < 2000; s += e.length, steps++) {
		uint64_t at = s * 512, n = cow_chain_size(chain) - at;

		cow_chain_extent(chain, s, end - s, &e);
		if (e.length == 0 || e.length > end - s || e.owner >= cow_chain_depth(chain))
			abort();
		if (cow_chain_read(chain, buffer, n < sizeof(buffer) ? (size_t)n : sizeof(buffer), at))
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cow_header h;
	struct cow_chain *chain, *base;
	int is_cow;

	if (!folder[0])
		enter_folder();
	is_cow = cow_header_parse(data, size, size, &h, NULL);
	if (is_cow > 0)
		check_header(&h, size);
	if (is_cow < 0)
		return 0;
	write_file("o.cow", data, size, size);
	if (is_cow && h.size <= SIZE_MAX_TRIED)
		write_base(&h, data, size);
	cow_check("o.cow", false, NULL, ignore_finding, NULL, NULL);
	chain = cow_chain_open("o.cow", NULL, NULL);
	if (!chain)
		return 0;
	walk(chain);
	base = cow_chain_open("base.img", NULL, NULL);
	if (base)
		cow_diff(chain, base, ignore_range, NULL, NULL);
	cow_chain_close(base);
	if (cow_chain_depth(chain) > 1)
		cow_fs_diff(chain, 1, ignore_difference, NULL, NULL);
	cow_chain_close(chain);
	return 0;
}

#ifdef COW_FUZZ_MAIN

struct input {
	uint8_t *data;
	size_t n;
};

static uint64_t seed;

static uint64_t rnd(uint64_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed % below;
}

/* Most mutations in the header, and with values at the edges. */
static void mutate(struct input *in)
{
	static const uint8_t edges[] = {0, 1, 2, 3, 0x7f, 0x80, 0xff, 'O', 'M'};
	unsigned int times = 1 + (unsigned int)rnd(6);

	while (times--) {
		size_t range = rnd(4) ? (in->n < 48 ? in->n : 48) : in->n;
		size_t at = (size_t)rnd(range);

		switch (rnd(4)) {
		case 0:
			in->data[at] = (uint8_t)rnd(256);
			break;
		case 1:
			in->data[at] = edges[rnd(sizeof(edges))];
			break;
		case 2:
			in->data[at] ^= (uint8_t)(1u << rnd(8));
			break;
		default:
			if (rnd(8) == 0)
				in->n = 1 + (size_t)rnd(in->n);
		}
	}
}

static size_t load(const char *path, struct input *inputs, size_t max)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	size_t count = 0;

	while (dir && count < max && (entry = readdir(dir))) {
		char *file = file_join(NULL, path, entry->d_name);

		if (entry->d_type == DT_REG &&
		    !file_read_all(file, 4 << 20, (char **)&inputs[count].data, &inputs[count].n, NULL))
			count++;
		free(file);
	}
	if (dir)
		closedir(dir);
	return count;
}

int main(int argc, char **argv)
{
	struct input inputs[1000];
	size_t count = argc > 2 ? load(argv[1], inputs, ARRAY_SIZE(inputs)) : 0;
	time_t end = argc > 2 ? time(NULL) + atoi(argv[2]) : 0;
	unsigned long runs = 0;

	if (!count) {
		fprintf(stderr, "usage: cow_fuzz CORPUS SECONDS [SEED]\n");
		return 2;
	}
	seed = argc > 3 ? strtoull(argv[3], NULL, 10) : (uint64_t)time(NULL);
	printf("%zu files, seed %llu\n", count, (unsigned long long)seed);
	for (size_t i = 0; i < count; i++)
		LLVMFuzzerTestOneInput(inputs[i].data, inputs[i].n);
	for (; time(NULL) < end; runs++) {
		const struct input *from = &inputs[rnd(count)];
		struct input in = {malloc(from->n + 1), from->n};

		memcpy(in.data, from->data, from->n);
		mutate(&in);
		LLVMFuzzerTestOneInput(in.data, in.n);
		free(in.data);
	}
	printf("%lu runs without a finding\n", runs);
	for (size_t i = 0; i < count; i++)
		free(inputs[i].data);
	return 0;
}

#endif
