/* The vhost-user back-end against a front-end of our own: what UML sends, what others may, and what nobody should. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>

#include "tests/unit/unit.h"
#include "tests/unit/vhost_front.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/vhost_recall.h"
#include "uml-lab/base/vhost_user.h"

/* A device with two queues whose configuration is 16 bytes, the last of which can be set. */
static struct {
	uint8_t config[16];
	unsigned changed, kicked;
} state;

static void get_config(void *arg, void *out)
{
	(void)arg;
	memcpy(out, state.config, sizeof(state.config));
}

static int set_config(void *arg, uint32_t offset, const void *data, uint32_t length)
{
	(void)arg;
	if (offset != 15 || length != 1)
		return -1;
	state.config[15] = *(const uint8_t *)data;
	return 0;
}

static void queue_changed(void *arg, unsigned index)
{
	(void)arg;
	(void)index;
	state.changed++;
}

static void kicked(void *arg, unsigned index)
{
	(void)arg;
	state.kicked += index + 1;
}

static struct vhost_user_device device = {
	.features = 1ull << 9,
	.queues = 2,
	.config_length = 16,
	.get_config = get_config,
	.set_config = set_config,
	.queue_changed = queue_changed,
	.kicked = kicked,
};

static struct vhost_user *u;
static struct error last;
static pthread_t thread;
static int connection; /* u's */

/* Receives until the connection ends. */
static void *pump(void *arg)
{
	struct pollfd p = {.fd = vhost_user_fd(u), .events = POLLIN};
	int ret;

	(void)arg;
	do {
		poll(&p, 1, -1);
		ret = vhost_user_receive(u, &last);
	} while (ret >= 0);
	/* as a server does; the front-end learns of it */
	shutdown(connection, SHUT_RDWR);
	return NULL;
}

static void begin(struct front *f)
{
	int pair[2];

	memset(&state, 0, sizeof(state));
	error_clear(&last);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		abort();
	connection = pair[1];
	u = vhost_user_new(connection, &device, NULL);
	front_init(f, pair[0]);
	if (!u || pthread_create(&thread, NULL, pump, NULL))
		abort();
}

/* Returns how the connection ended. */
static enum error_kind end(struct front *f)
{
	shutdown(f->fd, SHUT_WR);
	pthread_join(thread, NULL);
	vhost_user_free(u);
	front_close(f);
	return last.kind;
}

static unsigned open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void test_start(void)
{
	struct vhost_user_message m = {.header.size = 8, .u.state.index = 0};
	struct front f;

	begin(&f);
	CU_ASSERT_TRUE_FATAL(front_negotiate(&f, 0));
	CU_ASSERT_TRUE(front_start(&f));
	CU_ASSERT_EQUAL(state.changed, 1);
	CU_ASSERT_PTR_NOT_NULL(vhost_user_queue(u, 0));
	CU_ASSERT_PTR_NULL(vhost_user_queue(u, 1));
	CU_ASSERT_PTR_NULL(vhost_user_queue(u, 2));
	CU_ASSERT_EQUAL(vhost_user_features(u), f.features);
	/* stopped, it tells where it was; started again, it goes on from there */
	vhost_user_queue(u, 0)->next_avail = 77;
	CU_ASSERT_TRUE(front_ask(&f, VHOST_USER_GET_VRING_BASE, &m));
	CU_ASSERT_EQUAL(m.u.state.num, 77);
	CU_ASSERT_PTR_NULL(vhost_user_queue(u, 0));
	CU_ASSERT_EQUAL(front_fd(&f, VHOST_USER_SET_VRING_KICK, 0, f.kick), 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(vhost_user_queue(u, 0));
	CU_ASSERT_EQUAL(vhost_user_queue(u, 0)->next_avail, 77);
	/* new memory: the queue goes on in it */
	CU_ASSERT_EQUAL(front_mem_table(&f), 0);
	CU_ASSERT_PTR_NOT_NULL(vhost_user_queue(u, 0));
	CU_ASSERT_EQUAL(front_state(&f, VHOST_USER_SET_VRING_ENABLE, 0, 0), 0);
	CU_ASSERT_PTR_NULL(vhost_user_queue(u, 0));
	m.header.size = 0;
	CU_ASSERT_TRUE(front_ask(&f, VHOST_USER_GET_QUEUE_NUM, &m));
	CU_ASSERT_EQUAL(m.u.u64, 2);
	CU_ASSERT_EQUAL(end(&f), ERROR_STATE);
}

static void test_config(void)
{
	struct vhost_user_message m = {.header.size = 12 + 16, .u.config = {.offset = 0, .size = 16}};
	struct vhost_user_config c = {.offset = 15, .size = 1, .data = {9}};
	struct front f;

	begin(&f);
	memset(state.config, 3, 16);
	CU_ASSERT_TRUE_FATAL(front_negotiate(&f, 0));
	CU_ASSERT_EQUAL(front_message(&f, VHOST_USER_SET_CONFIG, &c, 13, NULL, 0, true), 0);
	CU_ASSERT_TRUE(front_ask(&f, VHOST_USER_GET_CONFIG, &m));
	CU_ASSERT_EQUAL(m.header.size, 28);
	CU_ASSERT_EQUAL(m.u.config.data[0], 3);
	CU_ASSERT_EQUAL(m.u.config.data[15], 9);
	/* more than there is reads as zeroes */
	m = (struct vhost_user_message){.header.size = 12 + 200, .u.config = {.offset = 15, .size = 200}};
	CU_ASSERT_TRUE(front_ask(&f, VHOST_USER_GET_CONFIG, &m));
	CU_ASSERT_EQUAL(m.u.config.data[0], 9);
	CU_ASSERT_EQUAL(m.u.config.data[1], 0);
	c.offset = 14;
	CU_ASSERT_EQUAL(front_message(&f, VHOST_USER_SET_CONFIG, &c, 13, NULL, 0, true), 1);
	c = (struct vhost_user_config){.offset = UINT32_MAX, .size = 1};
	CU_ASSERT_EQUAL(front_message(&f, VHOST_USER_SET_CONFIG, &c, 13, NULL, 0, true), 1);
	c = (struct vhost_user_config){.offset = 0, .size = UINT32_MAX};
	CU_ASSERT_EQUAL(front_message(&f, VHOST_USER_SET_CONFIG, &c, 13, NULL, 0, true), 1);
	/* one that waits for data can't be told: that ends it */
	m = (struct vhost_user_message){.header.size = 12 + 16, .u.config = {.offset = 250, .size = 16}};
	CU_ASSERT_FALSE(front_ask(&f, VHOST_USER_GET_CONFIG, &m));
	CU_ASSERT_EQUAL(end(&f), ERROR_FAILED);
}

/* Each of these is refused, and the connection goes on; no descriptor is lost. */
static void test_refused(void)
{
	const struct vhost_user_region good = {FRONT_GUEST, FRONT_MEMORY, FRONT_USER, 0};
	struct vhost_user_mem_table t = {.count = 1};
	struct vhost_user_vring_addr a = {.desc = FRONT_USER + FRONT_MEMORY, .avail = FRONT_USER, .used = FRONT_USER};
	struct front f;
	int pair[2], two[2];
	unsigned before = open_fds();

	begin(&f);
	CU_ASSERT_TRUE_FATAL(front_negotiate(&f, 0));
	if (pipe2(pair, O_CLOEXEC))
		abort();
	CU_ASSERT_EQUAL(front_u64(&f, VHOST_USER_SET_FEATURES, 1ull << 34, true), 1);
	CU_ASSERT_EQUAL(front_u64(&f, VHOST_USER_SET_PROTOCOL_FEATURES, 1ull << 14, true), 1);
	CU_ASSERT_EQUAL(front_u64(&f, 99, 0, true), 1);
	CU_ASSERT_EQUAL(front_u64(&f, UINT32_MAX, 0, true), 1);
	CU_ASSERT_EQUAL(front_message(&f, VHOST_USER_SET_FEATURES, "", 0, NULL, 0, true), 1);
	/* memory */
	CU_ASSERT_EQUAL(front_message(&f, VHOST_USER_SET_MEM_TABLE, &t, sizeof(t), NULL, 0, true), 1);
	t.regions[0] = good;
	CU_ASSERT_EQUAL(front_message(&f, VHOST_USER_SET_MEM_TABLE, &t, 8, &f.memfd, 1, true), 1);
	CU_ASSERT_EQUAL(front_message(&f, VHOST_USER_SET_MEM_TABLE, &t, sizeof(t), &pair[0], 1, true), 1);
	t.regions[0].size = FRONT_MEMORY + 1;
	CU_ASSERT_EQUAL(front_message(&f, VHOST_USER_SET_MEM_TABLE, &t, sizeof(t), &f.memfd, 1, true), 1);
	t.regions[0].size = UINT64_MAX;
	CU_ASSERT_EQUAL(front_message(&f, VHOST_USER_SET_MEM_TABLE, &t, sizeof(t), &f.memfd, 1, true), 1);
	t.regions[0] = good;
	t.regions[0].mmap_offset = UINT64_MAX - 4095;
	CU_ASSERT_EQUAL(front_message(&f, VHOST_USER_SET_MEM_TABLE, &t, sizeof(t), &f.memfd, 1, true), 1);
	t.regions[0] = good;
	t.regions[0].guest = UINT64_MAX - 4095;
	CU_ASSERT_EQUAL(front_message(&f, VHOST_USER_SET_MEM_TABLE, &t, sizeof(t), &f.memfd, 1, true), 1);
	t.count = 2;
	t.regions[0] = t.regions[1] = good;
	two[0] = two[1] = f.memfd;
	CU_ASSERT_EQUAL(front_message(&f, VHOST_USER_SET_MEM_TABLE, &t, sizeof(t), two, 2, true), 1);
	t.count = UINT32_MAX;
	CU_ASSERT_EQUAL(front_message(&f, VHOST_USER_SET_MEM_TABLE, &t, sizeof(t), two, 2, true), 1);
	/* queues */
	CU_ASSERT_EQUAL(front_state(&f, VHOST_USER_SET_VRING_NUM, 2, 256), 1);
	CU_ASSERT_EQUAL(front_state(&f, VHOST_USER_SET_VRING_NUM, 0, 0), 1);
	CU_ASSERT_EQUAL(front_state(&f, VHOST_USER_SET_VRING_NUM, 0, 255), 1);
	CU_ASSERT_EQUAL(front_state(&f, VHOST_USER_SET_VRING_NUM, 0, 1u << 31), 1);
	CU_ASSERT_EQUAL(front_state(&f, VHOST_USER_SET_VRING_BASE, 0, 65536), 1);
	CU_ASSERT_EQUAL(front_state(&f, VHOST_USER_SET_VRING_ENABLE, 0, 2), 1);
	CU_ASSERT_EQUAL(front_u64(&f, VHOST_USER_SET_VRING_KICK, VHOST_USER_NO_FD, true), 1);
	CU_ASSERT_EQUAL(front_u64(&f, VHOST_USER_SET_VRING_CALL, 0, true), 1);
	CU_ASSERT_EQUAL(front_fd(&f, VHOST_USER_SET_VRING_CALL, VHOST_USER_NO_FD, pair[1]), 1);
	CU_ASSERT_EQUAL(front_fd(&f, VHOST_USER_SET_VRING_CALL, 2, pair[1]), 1);
	CU_ASSERT_EQUAL(front_fd(&f, VHOST_USER_SET_VRING_CALL, 1 << 9, pair[1]), 1);
	CU_ASSERT_EQUAL(front_state(&f, VHOST_USER_VRING_KICK, 0, 0), 1);
	CU_ASSERT_TRUE(front_start(&f));
	CU_ASSERT_EQUAL(front_state(&f, VHOST_USER_SET_VRING_NUM, 0, 128), 1); /* it runs */
	CU_ASSERT_EQUAL(front_message(&f, VHOST_USER_SET_VRING_ADDR, &a, sizeof(a), NULL, 0, true), 1);
	CU_ASSERT_PTR_NULL(vhost_user_queue(u, 0));
	CU_ASSERT_EQUAL(front_addresses(&f), 0);
	CU_ASSERT_PTR_NOT_NULL(vhost_user_queue(u, 0));
	close(pair[0]);
	close(pair[1]);
	CU_ASSERT_EQUAL(end(&f), ERROR_STATE);
	CU_ASSERT_EQUAL(open_fds(), before);
}

/* These end the connection at once. */
static void test_breaches(void)
{
	static const struct vhost_user_header wrong[] = {
		{VHOST_USER_GET_FEATURES, 0, 0},
		{VHOST_USER_GET_FEATURES, 2, 0},
		{VHOST_USER_GET_FEATURES, VHOST_USER_VERSION | VHOST_USER_REPLY, 0},
		{VHOST_USER_GET_FEATURES, VHOST_USER_VERSION, 1 << 20},
		{VHOST_USER_SET_MEM_TABLE, VHOST_USER_VERSION, UINT32_MAX},
		{99, VHOST_USER_VERSION, 0},
	};
	unsigned before = open_fds();
	struct front f;

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		begin(&f);
		CU_ASSERT_EQUAL(send(f.fd, &wrong[i], sizeof(wrong[i]), 0), sizeof(wrong[i]));
		pthread_join(thread, NULL);
		CU_ASSERT_EQUAL(last.kind, ERROR_FAILED);
		vhost_user_free(u);
		front_close(&f);
	}
	CU_ASSERT_EQUAL(open_fds(), before);
}

/* In pieces of one byte it is the same message. */
static void test_pieces(void)
{
	const struct vhost_user_message m = {{VHOST_USER_SET_FEATURES, VHOST_USER_VERSION, 8}, .u.u64 = 1ull << 9};
	struct vhost_user_message answer = {0};
	struct front f;

	begin(&f);
	for (size_t i = 0; i < 20; i++)
		CU_ASSERT_EQUAL(send(f.fd, (const char *)&m + i, 1, 0), 1);
	CU_ASSERT_TRUE(front_ask(&f, VHOST_USER_GET_FEATURES, &answer));
	CU_ASSERT_EQUAL(vhost_user_features(u), 1ull << 9);
	CU_ASSERT_EQUAL(end(&f), ERROR_STATE);
}

/* Kicks, calls and changes of configuration as messages. */
static void test_in_band(void)
{
	struct vhost_user_message answer = {.header.size = sizeof(struct vhost_user_vring_state)};
	struct front f;

	device.in_band = true;
	begin(&f);
	CU_ASSERT_EQUAL(vhost_user_config_changed(u, NULL), -1);
	CU_ASSERT_TRUE_FATAL(front_negotiate(&f, 1ull << VIRTIO_RING_F_EVENT_IDX));
	CU_ASSERT_TRUE(front_start(&f));
	CU_ASSERT_EQUAL(front_u64(&f, VHOST_USER_SET_VRING_KICK, VHOST_USER_NO_FD, true), 0);
	CU_ASSERT_EQUAL(front_u64(&f, VHOST_USER_SET_VRING_CALL, VHOST_USER_NO_FD, true), 0);
	CU_ASSERT_EQUAL(front_state(&f, VHOST_USER_VRING_KICK, 0, 0), 0);
	CU_ASSERT_EQUAL(state.kicked, 1);
	CU_ASSERT_PTR_NOT_NULL_FATAL(vhost_user_queue(u, 0));
	vring_push(vhost_user_queue(u, 0), 0, 0);
	CU_ASSERT_EQUAL(vhost_user_call(u, vhost_user_queue(u, 0), NULL), 0);
	{
		struct vhost_user_message m;

		CU_ASSERT_EQUAL(recv(f.requests, &m, sizeof(m), 0), 20);
		CU_ASSERT_EQUAL(m.header.request, VHOST_USER_BACKEND_VRING_CALL);
		CU_ASSERT_EQUAL(m.u.state.index, 0);
	}
	CU_ASSERT_EQUAL(vhost_user_config_changed(u, NULL), 0);
	CU_ASSERT_EQUAL(front_backend_request(&f), VHOST_USER_BACKEND_CONFIG_CHANGE);

	/* started again without SET_VRING_KICK, as UML does */
	CU_ASSERT_TRUE(front_ask(&f, VHOST_USER_GET_VRING_BASE, &answer));
	CU_ASSERT_PTR_NULL(vhost_user_queue(u, 0));
	CU_ASSERT_EQUAL(front_state(&f, VHOST_USER_SET_VRING_ENABLE, 0, 1), 0);
	CU_ASSERT_PTR_NOT_NULL(vhost_user_queue(u, 0));
	CU_ASSERT_EQUAL(end(&f), ERROR_STATE);
	device.in_band = false;
}

/* How many interrupts came until none came for a while. */
static unsigned interrupts(struct front *f, int ms)
{
	struct pollfd p = {.fd = f->call, .events = POLLIN};
	unsigned n = 0;
	uint64_t one;

	while (poll(&p, 1, ms) > 0 && recv(f->call, &one, sizeof(one), 0) == (ssize_t)sizeof(one))
		n++;
	return n;
}

/* A guest that has not looked is interrupted again, not for ever; one that has looked is left alone. */
static void test_slept_through(void)
{
	struct vring_queue *q;
	struct front f;

	begin(&f);
	CU_ASSERT_TRUE_FATAL(front_negotiate(&f, 0));
	CU_ASSERT_TRUE(front_start(&f));
	q = vhost_user_queue(u, 0);
	CU_ASSERT_PTR_NOT_NULL_FATAL(q);
	for (unsigned round = 1; round <= 3; round++) {
		vring_push(q, 0, 0);
		CU_ASSERT_EQUAL(vhost_user_call(u, q, NULL), 0);
		CU_ASSERT_EQUAL(interrupts(&f, 300), 1 + RECALL_TRIES);
		front_avail(&f)->ring[FRONT_ENTRIES] = (uint16_t)round;
	}
	vring_push(q, 0, 0);
	CU_ASSERT_EQUAL(vhost_user_call(u, q, NULL), 0);
	CU_ASSERT_TRUE(interrupts(&f, 0) >= 1);
	front_avail(&f)->ring[FRONT_ENTRIES] = 4;
	CU_ASSERT_TRUE(interrupts(&f, 300) <= RECALL_TRIES);
	CU_ASSERT_EQUAL(interrupts(&f, 50), 0);
	CU_ASSERT_EQUAL(end(&f), ERROR_STATE);
}

UNIT_MAIN("vhost user", UNIT_CASE(test_start), UNIT_CASE(test_config), UNIT_CASE(test_refused), UNIT_CASE(test_breaches),
	  UNIT_CASE(test_pieces), UNIT_CASE(test_in_band), UNIT_CASE(test_slept_through))
