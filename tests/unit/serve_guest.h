/* Shared by the tests of the disk server: a chain whose content is known, and a guest on it that writes. */
#ifndef TESTS_SERVE_GUEST_H
#define TESTS_SERVE_GUEST_H

#include <stdatomic.h>

#include "tests/unit/serve_world.h"

#define SECTORS 4096u
#define SIZE	(SECTORS * COW_SECTOR_SIZE)
#define SOCKET	"s0"

static uint8_t model[SIZE], buffer[SIZE];

static inline void print_finding(void *arg, enum cow_finding finding, const char *text)
{
	(void)arg;
	fprintf(stderr, "finding %d: %s\n", finding, text);
}

/* What uml-cow check says of a disk: the number of things that are wrong. */
static inline int findings(const char *path)
{
	return cow_check(path, false, NULL, print_finding, NULL, NULL);
}

/* A base of random sectors and holes, and `depth` - 1 files over it, each with sectors of its own; model is what it shows. */
static inline void make_chain(int depth)
{
	char name[16], below[16] = "base";

	world_empty();
	world_fill(model, SIZE / 2);
	memset(model + SIZE / 2, 0, SIZE / 2);
	world_write_file("base", model, SIZE);
	world_age("base", 1000000000);
	for (int i = 1; i < depth; i++) {
		const struct cow_open_options o = {.writable = true};
		struct cow_chain *c;

		snprintf(name, sizeof(name), i == depth - 1 ? "top" : "layer%d", i);
		OK(cow_create(name, below, NULL, err));
		c = cow_chain_open(name, &o, NULL);
		for (int k = 0; k < 10; k++) {
			size_t n = (size_t)(world_random(16) + 1) * COW_SECTOR_SIZE;
			uint64_t at = world_random((SIZE - n) / COW_SECTOR_SIZE) * COW_SECTOR_SIZE;

			world_fill(model + at, n);
			CU_ASSERT_EQUAL(cow_chain_write(c, model + at, n, at), 0);
		}
		CU_ASSERT_EQUAL(cow_chain_flush(c), 0);
		cow_chain_close(c);
		world_age(name, 1000000000 + i);
		strcpy(below, name);
	}
}

static inline bool shows(const char *path, const uint8_t *content)
{
	struct error err = ERROR_INIT;
	struct cow_chain *c = cow_chain_open(path, NULL, &err);
	bool same = c && !cow_chain_read(c, buffer, SIZE, 0) && !memcmp(buffer, content, SIZE);

	if (!c)
		fprintf(stderr, "%s\n", err.message);
	cow_chain_close(c);
	return same;
}

/* A server for `top` on SOCKET, and a guest on it. */
static inline void begin(struct server *s, struct front *f)
{
	if (s->options.count == 0) {
		s->disks[0] = (struct cow_serve_disk){SOCKET, "top", NULL};
		s->options.count = 1;
	}
	CU_ASSERT_TRUE_FATAL(server_start(s));
	CU_ASSERT_TRUE_FATAL(front_connect(f, SOCKET));
}

static inline void end(struct server *s, struct front *f)
{
	front_close(f);
	CU_ASSERT_EQUAL(server_stop(s), 0);
	CU_ASSERT_NOT_EQUAL(access(SOCKET, F_OK), 0);
}

/* Writes a run of sectors through the guest, and into the model. */
static inline void write_random(struct front *f, unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		uint32_t n = (uint32_t)(world_random(40) + 1) * COW_SECTOR_SIZE;
		uint64_t sector = world_random(SECTORS - n / COW_SECTOR_SIZE);

		world_fill(model + sector * COW_SECTOR_SIZE, n);
		CU_ASSERT_EQUAL(front_write(f, sector, model + sector * COW_SECTOR_SIZE, n), VIRTIO_BLK_S_OK);
	}
}

static inline bool guest_sees(struct front *f)
{
	for (uint64_t at = 0; at < SIZE; at += 65536)
		if (front_read(f, at / COW_SECTOR_SIZE, buffer + at, 65536) != VIRTIO_BLK_S_OK)
			return false;
	return memcmp(buffer, model, SIZE) == 0;
}

/* Writes on in a thread while the disk is changed under it. */
struct writer {
	struct front *f;
	pthread_t thread;
	atomic_bool stop;
	atomic_uint written;
};

static inline void *write_on(void *arg)
{
	struct writer *w = arg;

	while (!atomic_load(&w->stop)) {
		write_random(w->f, 1);
		if (++w->written % 16 == 0)
			CU_ASSERT_EQUAL(front_flush(w->f), VIRTIO_BLK_S_OK);
	}
	return NULL;
}

static inline void writer_start(struct writer *w, struct front *f)
{
	*w = (struct writer){.f = f};
	if (pthread_create(&w->thread, NULL, write_on, w))
		abort();
}

static inline void writer_stop(struct writer *w)
{
	atomic_store(&w->stop, true);
	pthread_join(w->thread, NULL);
}

/* Waits until it has written so often more. */
static inline void writer_await(const struct writer *w, unsigned more)
{
	unsigned begin = atomic_load(&w->written);
	int i = 0;

	while (atomic_load(&w->written) - begin < more && i++ < FRONT_WAIT_MS * 10)
		usleep(100);
	CU_ASSERT_TRUE(atomic_load(&w->written) - begin >= more);
}

static inline char *path_of(const char *name)
{
	static char path[512];

	snprintf(path, sizeof(path), "%s/%s", world_dir, name);
	return path;
}

/* Runs the cases in a folder of their own. */
static inline int serve_guest_run(const char *name, const struct unit_case *cases, size_t count)
{
	int ret;

	log_setup("test", LOG_LEVEL_ERROR);
	world_enter();
	ret = unit_run(name, cases, count);
	world_leave();
	return ret;
}

#endif
