/* The disk server, driven by a virtio driver of our own over its real socket, and by its control socket. */
#include <sys/wait.h>

#include "tests/unit/serve_guest.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/loop.h"

static void test_model(void)
{
	struct server s = {0};
	struct front f;

	make_chain(5);
	begin(&s, &f);
	for (int i = 0; i < 300; i++) {
		uint32_t sectors = (uint32_t)world_random(64) + 1;
		uint64_t sector = world_random(SECTORS - sectors);
		uint8_t *at = model + sector * COW_SECTOR_SIZE;

		switch (world_random(5)) {
		case 0:
			CU_ASSERT_EQUAL(front_zero(&f, VIRTIO_BLK_T_WRITE_ZEROES, sector, sectors, (uint32_t)world_random(2)), 0);
			memset(at, 0, sectors * COW_SECTOR_SIZE);
			break;
		case 1:
			CU_ASSERT_EQUAL(front_flush(&f), VIRTIO_BLK_S_OK);
			break;
		case 2:
			CU_ASSERT_EQUAL(front_read(&f, sector, buffer, sectors * COW_SECTOR_SIZE), VIRTIO_BLK_S_OK);
			CU_ASSERT_EQUAL(memcmp(buffer, at, sectors * COW_SECTOR_SIZE), 0);
			break;
		default:
			write_random(&f, 1);
		}
	}
	CU_ASSERT_TRUE(guest_sees(&f));
	end(&s, &f);
	CU_ASSERT_TRUE(shows("top", model));
	CU_ASSERT_EQUAL(findings("top"), 0);
}

/* Many requests at once: writes that follow each other are joined, all of them come back. */
static void test_batches(void)
{
	struct cow_serve_message m;
	struct server s = {0};
	struct front f;
	unsigned slots[200];

	make_chain(2);
	begin(&s, &f);
	world_fill(f.memory + FRONT_DATA, 200 * 8192);
	for (unsigned i = 0; i < 200; i++)
		slots[i] = front_submit(&f, VIRTIO_BLK_T_OUT, 16 * i, FRONT_DATA + 8192 * i, 8192, false,
					i % 4 + 1 == 3 ? 2 : i % 4 + 1);
	front_kick(&f);
	CU_ASSERT_TRUE_FATAL(front_wait(&f));
	for (unsigned i = 0; i < 200; i++)
		CU_ASSERT_EQUAL(*front_status(&f, slots[i]), VIRTIO_BLK_S_OK);
	memcpy(model, f.memory + FRONT_DATA, 200 * 8192);
	CU_ASSERT_TRUE(guest_sees(&f));
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_GET_STATS, 0, NULL, &m), 0);
	CU_ASSERT_EQUAL(m.u.stats.written_bytes, 200 * 8192);
	CU_ASSERT_EQUAL(m.u.stats.read_bytes, SIZE);
	CU_ASSERT_EQUAL(m.u.stats.connected, 1);
	CU_ASSERT_EQUAL(m.u.stats.depth, 2);
	CU_ASSERT_EQUAL(m.u.stats.size, SIZE);
	CU_ASSERT_TRUE(m.u.stats.allocated >= 200 * 8192);
	CU_ASSERT_TRUE(m.u.stats.requests >= 200 && m.u.stats.batches < m.u.stats.requests);
	end(&s, &f);
	CU_ASSERT_TRUE(shows("top", model));
}

/* Writes sector 0 and on from an address of the guest, whatever lies there. */
static uint8_t write_from(struct front *f, uint64_t at, uint32_t length)
{
	unsigned slot = front_prepare(f, VIRTIO_BLK_T_OUT, 0, FRONT_DATA, length, false, 1);
	struct vring_desc *t = (struct vring_desc *)(f->memory + FRONT_INDIRECT + slot * 1024);

	t[1].addr = at;
	front_publish(f, (uint16_t)slot);
	front_kick(f);
	CU_ASSERT_TRUE(front_wait(f));
	return *front_status(f, slot);
}

/* What no driver does is answered with an error, and harms nothing. */
static void test_wrong_requests(void)
{
	struct server s = {0};
	struct front f;
	struct vring_desc *t;
	char serial[20];
	unsigned slot;

	make_chain(2);
	s.disks[0] = (struct cow_serve_disk){SOCKET, "top", "a serial number of 20+"};
	s.options.count = 1;
	begin(&s, &f);
	CU_ASSERT_EQUAL(front_do(&f, VIRTIO_BLK_T_GET_ID, 0, FRONT_DATA, 20, true), VIRTIO_BLK_S_OK);
	memcpy(serial, f.memory + FRONT_DATA, 20);
	CU_ASSERT_EQUAL(memcmp(serial, "a serial number of 20+", 20), 0);
	CU_ASSERT_EQUAL(front_do(&f, VIRTIO_BLK_T_IN, SECTORS, FRONT_DATA, 512, true), VIRTIO_BLK_S_IOERR);
	CU_ASSERT_EQUAL(front_do(&f, VIRTIO_BLK_T_IN, SECTORS - 1, FRONT_DATA, 1024, true), VIRTIO_BLK_S_IOERR);
	CU_ASSERT_EQUAL(front_do(&f, VIRTIO_BLK_T_OUT, UINT64_MAX, FRONT_DATA, 512, false), VIRTIO_BLK_S_IOERR);
	CU_ASSERT_EQUAL(front_do(&f, VIRTIO_BLK_T_OUT, UINT64_MAX / 512, FRONT_DATA, 512, false), VIRTIO_BLK_S_IOERR);
	CU_ASSERT_EQUAL(front_do(&f, VIRTIO_BLK_T_OUT, 0, FRONT_DATA, 511, false), VIRTIO_BLK_S_IOERR);
	CU_ASSERT_EQUAL(front_do(&f, VIRTIO_BLK_T_OUT, 0, FRONT_DATA, 512, true), VIRTIO_BLK_S_IOERR);
	CU_ASSERT_EQUAL(front_do(&f, VIRTIO_BLK_T_IN, 0, FRONT_DATA, 512, false), VIRTIO_BLK_S_IOERR);
	CU_ASSERT_EQUAL(front_do(&f, 77, 0, 0, 0, false), VIRTIO_BLK_S_UNSUPP);
	CU_ASSERT_EQUAL(front_zero(&f, VIRTIO_BLK_T_DISCARD, SECTORS, 1, 0), VIRTIO_BLK_S_IOERR);
	CU_ASSERT_EQUAL(front_zero(&f, VIRTIO_BLK_T_DISCARD, 0, UINT32_MAX, 0), VIRTIO_BLK_S_IOERR);
	CU_ASSERT_EQUAL(front_zero(&f, VIRTIO_BLK_T_DISCARD, 0, 1, 1), VIRTIO_BLK_S_UNSUPP);
	CU_ASSERT_EQUAL(front_zero(&f, VIRTIO_BLK_T_WRITE_ZEROES, 0, 1, 2), VIRTIO_BLK_S_UNSUPP);
	CU_ASSERT_EQUAL(front_do(&f, VIRTIO_BLK_T_DISCARD, 0, FRONT_DATA, 15, false), VIRTIO_BLK_S_IOERR);
	/* data outside the memory */
	CU_ASSERT_EQUAL(write_from(&f, FRONT_GUEST + FRONT_MEMORY, 4096), VIRTIO_BLK_S_IOERR);
	CU_ASSERT_EQUAL(write_from(&f, 4096 + 512, 4096), VIRTIO_BLK_S_IOERR);
	/* one page of UML's kernel image, which it can't share, is that of zeroes: all that is ever written from there */
	CU_ASSERT_EQUAL(write_from(&f, 4096, 4096), VIRTIO_BLK_S_OK);
	memset(model, 0, 4096);
	CU_ASSERT_EQUAL(write_from(&f, 4096 + 512, 1024), VIRTIO_BLK_S_OK);
	CU_ASSERT_EQUAL(write_from(&f, 8192, 4096), VIRTIO_BLK_S_IOERR);
	/* its status outside: given back unanswered */
	slot = front_prepare(&f, VIRTIO_BLK_T_OUT, 0, FRONT_DATA, 4096, false, 1);
	t = (struct vring_desc *)(f.memory + FRONT_INDIRECT + slot * 1024);
	t[2].addr = FRONT_GUEST + FRONT_MEMORY;
	front_publish(&f, (uint16_t)slot);
	front_kick(&f);
	CU_ASSERT_TRUE(front_wait(&f));
	CU_ASSERT_TRUE(guest_sees(&f));
	end(&s, &f);
	CU_ASSERT_TRUE(shows("top", model));
}

static void test_snapshot(void)
{
	static uint8_t frozen[SIZE];
	struct cow_serve_message m;
	struct server s = {0};
	struct front f;
	struct writer w;

	make_chain(2);
	begin(&s, &f);
	write_random(&f, 20);
	memcpy(frozen, model, SIZE);
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_SNAPSHOT, 0, path_of("top2"), &m), 0);
	printf("a snapshot took %u us\n", m.u.reply.microseconds);
	write_random(&f, 20);
	CU_ASSERT_TRUE(guest_sees(&f));
	/* what is there is not replaced, a name that can't be is told, and the disk goes on */
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_SNAPSHOT, 0, path_of("top2"), &m), ERROR_FAILED);
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_SNAPSHOT, 0, path_of("no/such"), &m), ERROR_FAILED);
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_SNAPSHOT, 0, "relative", &m), ERROR_USAGE);
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_SNAPSHOT, 7, path_of("x"), &m), ERROR_NOT_FOUND);
	/* the frozen one may be read by others, and not written; the new one neither */
	CU_ASSERT_TRUE(shows("top", frozen));
	CU_ASSERT_PTR_NULL(cow_chain_open("top", &(struct cow_open_options){.writable = true}, NULL));
	CU_ASSERT_PTR_NULL(cow_chain_open("top2", NULL, NULL));
	writer_start(&w, &f);
	for (int i = 3; i < 8; i++) {
		char name[16];

		snprintf(name, sizeof(name), "top%d", i);
		CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_SNAPSHOT, 0, path_of(name), &m), 0);
	}
	writer_stop(&w);
	CU_ASSERT_TRUE(guest_sees(&f));
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_GET_STATS, 0, NULL, &m), 0);
	CU_ASSERT_EQUAL(m.u.stats.depth, 8);
	CU_ASSERT_EQUAL(front_flush(&f), VIRTIO_BLK_S_OK);
	end(&s, &f);
	CU_ASSERT_TRUE(shows("top7", model));
	CU_ASSERT_TRUE(shows("top", frozen));
	CU_ASSERT_EQUAL(findings("top7"), 0);
}

/* Merges each layer, also those just frozen, while the guest writes. What those above see never changes. */
static void test_merge(void)
{
	static const char *const gone[] = {"layer1", "layer2", "top", "layer3"};
	struct cow_serve_message m;
	struct server s = {0};
	struct front f;
	struct writer w;

	make_chain(5);
	begin(&s, &f);
	write_random(&f, 20);
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_SNAPSHOT, 0, path_of("top2"), &m), 0);
	writer_start(&w, &f);
	for (size_t i = 0; i < ARRAY_SIZE(gone); i++) {
		int ret = server_ask(&s, COW_SERVE_MERGE, 0, path_of(gone[i]), &m);

		if (ret)
			fprintf(stderr, "merge %s: %s\n", gone[i], m.u.reply.text);
		CU_ASSERT_EQUAL(ret, 0);
		CU_ASSERT_EQUAL(unlink(gone[i]), 0);
	}
	writer_stop(&w);
	CU_ASSERT_TRUE(guest_sees(&f));
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_GET_STATS, 0, NULL, &m), 0);
	CU_ASSERT_EQUAL(m.u.stats.depth, 2);
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_MERGE, 0, path_of("base"), &m), ERROR_NOT_FOUND);
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_MERGE, 0, path_of("top2"), &m), ERROR_NOT_FOUND);
	end(&s, &f);
	CU_ASSERT_TRUE(shows("top2", model));
	CU_ASSERT_EQUAL(findings("top2"), 0);
}

static void test_quota(void)
{
	const struct cow_create_options replace = {.replace = true};
	struct cow_serve_message m;
	struct server s = {.options.quota = 1 << 20};
	struct front f;
	unsigned ok = 0;

	make_chain(1);
	OK(cow_create("top", "base", &replace, err));
	memset(buffer, 7, 65536);
	world_write_file("other", buffer, 65536);
	s.options.quota_with = (struct strv){(char *[]){(char *)"other", (char *)"not there"}, 2};
	begin(&s, &f);
	for (unsigned i = 0; i < SECTORS / 64; i++) {
		uint8_t data[64 * COW_SECTOR_SIZE];
		int status;

		world_fill(data, sizeof(data));
		status = front_write(&f, i * 64, data, sizeof(data));
		CU_ASSERT_TRUE(status == VIRTIO_BLK_S_OK || status == VIRTIO_BLK_S_IOERR);
		if (status == VIRTIO_BLK_S_OK) {
			memcpy(model + i * sizeof(data), data, sizeof(data));
			ok++;
		}
	}
	CU_ASSERT_TRUE(ok >= 22 && ok < 32);
	CU_ASSERT_EQUAL(front_flush(&f), VIRTIO_BLK_S_OK);
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_GET_STATS, 0, NULL, &m), 0);
	CU_ASSERT_EQUAL(m.u.stats.quota_state, COW_SERVE_QUOTA_FULL);
	CU_ASSERT_EQUAL(m.u.stats.quota, 1 << 20);
	CU_ASSERT_TRUE(m.u.stats.quota_used <= 1 << 20 && m.u.stats.quota_used > 800000);
	CU_ASSERT_TRUE(m.u.stats.quota_refused > 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(m.u.stats.last_error, "quota"));
	/* reads and rewrites go on; discard gives space back */
	CU_ASSERT_TRUE(guest_sees(&f));
	world_fill(model, 65536);
	CU_ASSERT_EQUAL(front_write(&f, 0, model, 65536), VIRTIO_BLK_S_OK);
	CU_ASSERT_EQUAL(front_write(&f, 3968, model, 65536), VIRTIO_BLK_S_IOERR);
	CU_ASSERT_EQUAL(front_zero(&f, VIRTIO_BLK_T_DISCARD, 128, 640, 0), VIRTIO_BLK_S_OK);
	memset(model + 65536, 0, 640 * COW_SECTOR_SIZE);
	CU_ASSERT_EQUAL(front_write(&f, 3968, model, 65536), VIRTIO_BLK_S_OK);
	memcpy(model + 3968 * COW_SECTOR_SIZE, model, 65536);
	CU_ASSERT_TRUE(guest_sees(&f));
	end(&s, &f);
	CU_ASSERT_TRUE(shows("top", model));
}

static void test_insert_eject(void)
{
	static uint8_t second[SIZE];
	struct cow_serve_message m;
	struct server s = {.disks = {{SOCKET, "top", NULL}, {"s1", "-", NULL}}, .options.count = 2};
	struct front f, g;
	struct vhost_user_message config = {.header.size = 12 + 8, .u.config.size = 8};
	struct pollfd answer = {.events = POLLIN};
	uint64_t capacity, begun;

	make_chain(1);
	memcpy(second, model, SIZE);
	OK(cow_create("top", "base", NULL, err));
	OK(cow_create("second", "base", NULL, err));
	begin(&s, &f);
	answer.fd = s.control;
	CU_ASSERT_TRUE_FATAL(front_connect(&g, "s1"));
	CU_ASSERT_EQUAL(front_do(&g, VIRTIO_BLK_T_IN, 0, FRONT_DATA, 512, true), VIRTIO_BLK_S_IOERR);
	CU_ASSERT_EQUAL(front_flush(&g), VIRTIO_BLK_S_IOERR);
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_EJECT, 1, NULL, &m), ERROR_STATE);
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_INSERT, 1, path_of("top"), &m), ERROR_STATE); /* in use */
	/* it is in when the guest has asked how large it is */
	OK(cow_serve_send_path(s.control, ++s.sequence, COW_SERVE_INSERT, 1, path_of("second"), err));
	CU_ASSERT_EQUAL(front_backend_request(&g), VHOST_USER_BACKEND_CONFIG_CHANGE);
	CU_ASSERT_EQUAL(poll(&answer, 1, 50), 0);
	CU_ASSERT_TRUE(front_ask(&g, VHOST_USER_GET_CONFIG, &config));
	memcpy(&capacity, config.u.config.data, 8);
	CU_ASSERT_EQUAL(capacity, SECTORS);
	CU_ASSERT_TRUE(server_receive(&s, &m) && m.header.sequence == s.sequence && m.u.reply.status == 0);
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_INSERT, 1, path_of("second"), &m), ERROR_STATE);
	memset(second + 9 * 512, 5, 512);
	CU_ASSERT_EQUAL(front_write(&g, 9, second + 9 * 512, 512), VIRTIO_BLK_S_OK);
	/* a guest that never asks is not waited for for ever, nor one that goes, nor none */
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_EJECT, 1, NULL, &m), 0);
	CU_ASSERT_EQUAL(front_write(&g, 9, second, 512), VIRTIO_BLK_S_IOERR);
	CU_ASSERT_TRUE(guest_sees(&f));
	OK(cow_serve_send_path(s.control, ++s.sequence, COW_SERVE_INSERT, 1, path_of("second"), err));
	CU_ASSERT_EQUAL(front_backend_request(&g), VHOST_USER_BACKEND_CONFIG_CHANGE); /* of the EJECT */
	CU_ASSERT_EQUAL(front_backend_request(&g), VHOST_USER_BACKEND_CONFIG_CHANGE);
	begun = loop_now_ns();
	front_close(&g);
	CU_ASSERT_TRUE(server_receive(&s, &m) && m.header.sequence == s.sequence && m.u.reply.status == 0);
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_EJECT, 1, NULL, &m), 0);
	CU_ASSERT_TRUE(loop_now_ns() - begun < 900000000);
	end(&s, &f);
	CU_ASSERT_TRUE(shows("second", second));
}

/* Guests come and go; what the last one wrote without a flush is there all the same. */
static void test_guests(void)
{
	struct server s = {0};
	struct front f;

	make_chain(3);
	begin(&s, &f);
	for (int i = 0; i < 3; i++) {
		write_random(&f, 5);
		front_close(&f);
		CU_ASSERT_TRUE_FATAL(front_connect(&f, SOCKET));
		CU_ASSERT_TRUE(guest_sees(&f));
	}
	end(&s, &f);
	CU_ASSERT_TRUE(shows("top", model));
}

static void test_control_nonsense(void)
{
	struct cow_serve_message m = {{COW_SERVE_MAGIC, COW_SERVE_VERSION, COW_SERVE_GET_STATS, 9, 4}, .u.ref.disk = 0};
	struct server s = {0};
	struct front f;

	make_chain(2);
	begin(&s, &f);
	CU_ASSERT_TRUE(send(s.control, "x", 1, 0) == 1);
	CU_ASSERT_TRUE(send(s.control, &m, sizeof(m.header), 0) > 0);
	CU_ASSERT_TRUE(server_receive(&s, &m));
	CU_ASSERT_EQUAL(m.header.type, COW_SERVE_REPLY);
	CU_ASSERT_EQUAL(m.header.sequence, 9);
	CU_ASSERT_EQUAL(m.u.reply.status, ERROR_FAILED);
	CU_ASSERT_EQUAL(server_ask(&s, COW_SERVE_GET_STATS, 1, NULL, &m), ERROR_NOT_FOUND);
	CU_ASSERT_TRUE(guest_sees(&f));
	end(&s, &f);
}

/* A second server on the same disk, or the same socket, is refused; a socket that a killed one left is not in the way. */
static void test_locks(void)
{
	struct server s = {0}, t = {.disks = {{"s1", "top", NULL}}, .options.count = 1};
	struct server u = {.disks = {{SOCKET, "second", NULL}}, .options.count = 1};
	struct front f;

	make_chain(2);
	OK(cow_create("second", "base", NULL, err));
	begin(&s, &f);
	CU_ASSERT_FALSE(server_start(&t));
	CU_ASSERT_EQUAL(server_stop(&t), -1);
	CU_ASSERT_EQUAL(t.err.kind, ERROR_STATE);
	CU_ASSERT_FALSE(server_start(&u));
	CU_ASSERT_EQUAL(server_stop(&u), -1);
	CU_ASSERT_TRUE(guest_sees(&f));
	end(&s, &f);
}

/* SIGKILL in the middle of writing, again and again: what was flushed is there, and the overlay is sound. */
static void test_killed(void)
{
	static uint8_t flushed[SIZE];

	make_chain(3);
	for (int round = 0; round < 10; round++) {
		struct server s = {.disks = {{SOCKET, "top", NULL}}, .options.count = 1};
		struct cow_chain *c;
		struct front f;
		pid_t pid;
		int go[2];
		char byte;

		if (pipe(go))
			abort();
		pid = fork();
		if (pid == 0) {
			bool ok = server_start(&s);

			if (!ok || write(go[1], "x", 1) != 1)
				_exit(1);
			for (;;)
				pause();
		}
		close(go[1]);
		CU_ASSERT_EQUAL_FATAL(read(go[0], &byte, 1), 1);
		close(go[0]);
		CU_ASSERT_TRUE_FATAL(front_connect(&f, SOCKET));
		for (unsigned i = 0; i < 8 + world_random(8); i++) {
			write_random(&f, 3);
			CU_ASSERT_EQUAL(front_flush(&f), VIRTIO_BLK_S_OK);
		}
		memcpy(flushed, model, SIZE);
		/* to sectors from the middle on, so that the first half is known */
		for (unsigned i = 0; i < 30; i++) {
			world_fill(f.memory + FRONT_DATA + i * 8192, 8192);
			front_submit(&f, VIRTIO_BLK_T_OUT, SECTORS / 2 + 16 * i, FRONT_DATA + i * 8192, 8192, false, 2);
			if (i % 10 == 9)
				front_submit(&f, VIRTIO_BLK_T_FLUSH, 0, 0, 0, false, 1);
		}
		front_kick(&f);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		front_close(&f);
		CU_ASSERT_EQUAL(findings("top"), 0);
		c = cow_chain_open("top", NULL, NULL);
		CU_ASSERT_PTR_NOT_NULL_FATAL(c);
		CU_ASSERT_EQUAL(cow_chain_read(c, model, SIZE, 0), 0);
		CU_ASSERT_EQUAL(memcmp(model, flushed, SIZE / 2), 0);
		cow_chain_close(c);
	}
}

int main(void)
{
	static const struct unit_case cases[] = {
		UNIT_CASE(test_model),	   UNIT_CASE(test_batches),	  UNIT_CASE(test_wrong_requests),
		UNIT_CASE(test_snapshot),  UNIT_CASE(test_merge),	  UNIT_CASE(test_quota),
		UNIT_CASE(test_insert_eject), UNIT_CASE(test_guests),	  UNIT_CASE(test_control_nonsense),
		UNIT_CASE(test_locks),	   UNIT_CASE(test_killed),
	};

	return serve_guest_run("cow serve", cases, ARRAY_SIZE(cases));
}
