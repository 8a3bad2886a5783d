/*
 * The other side of vhost-user, for tests: a front-end and a small virtio driver, as UML has them. Memory is one memfd; guest and
 * front-end addresses differ, so that mixing them up shows.
 */
#ifndef TESTS_VHOST_FRONT_H
#define TESTS_VHOST_FRONT_H

#include <errno.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "uml-lab/base/vhost_user_wire.h"

#define FRONT_MEMORY	(16u << 20)
#define FRONT_GUEST	0x1000000ull
#define FRONT_USER	0x700000000000ull
#define FRONT_ENTRIES	256u
#define FRONT_AVAIL	0x4000u
#define FRONT_USED	0x8000u
#define FRONT_HEADERS	0x10000u  /* 64 bytes for each entry */
#define FRONT_INDIRECT	0x20000u  /* 64 descriptors for each entry */
#define FRONT_DATA	0x100000u /* the tests' */
#define FRONT_WAIT_MS	20000

struct front {
	int fd, memfd, kick, call, requests; /* call, requests: our ends */
	uint8_t *memory;
	uint64_t features;
	bool event_idx;
	uint16_t next_avail, seen_used;
	unsigned free_slot;
};

static inline void front_send_fds(struct front *f, const struct vhost_user_message *m, const int *fds, unsigned n)
{
	union {
		struct cmsghdr align;
		char data[CMSG_SPACE(8 * sizeof(int))];
	} ancillary = {0};
	struct iovec iov = {(void *)m, sizeof(m->header) + m->header.size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (n) {
		msg.msg_control = ancillary.data;
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
		*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){CMSG_LEN(n * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), fds, n * sizeof(int));
	}
	if (sendmsg(f->fd, &msg, MSG_NOSIGNAL) != (ssize_t)iov.iov_len)
		fprintf(stderr, "front: send: %s\n", strerror(errno));
}

/* Waits for a reply. false: the connection ended, or it is none. */
static inline bool front_receive(struct front *f, struct vhost_user_message *m)
{
	struct pollfd p = {.fd = f->fd, .events = POLLIN};
	size_t have = 0, whole = sizeof(m->header);

	while (have < whole) {
		ssize_t n;

		if (poll(&p, 1, FRONT_WAIT_MS) <= 0)
			return false;
		n = recv(f->fd, (char *)m + have, whole - have, 0);
		if (n <= 0)
			return false;
		have += (size_t)n;
		if (have == sizeof(m->header)) {
			if (m->header.size > sizeof(m->u))
				return false;
			whole += m->header.size;
		}
	}
	return true;
}

/* Sends a message of `size` bytes of payload; with `ack` waits for its acknowledgement. 0, 1 (refused) or -1. */
static inline int front_message(struct front *f, uint32_t request, const void *payload, uint32_t size, const int *fds, unsigned n,
				bool ack)
{
	struct vhost_user_message m = {
		.header = {request, VHOST_USER_VERSION | (ack ? VHOST_USER_NEED_REPLY : 0), size}};

	if (size)
		memcpy(&m.u, payload, size);
	front_send_fds(f, &m, fds, n);
	if (!ack)
		return 0;
	return front_receive(f, &m) && m.header.request == request ? (int)m.u.u64 : -1;
}

static inline int front_u64(struct front *f, uint32_t request, uint64_t value, bool ack)
{
	return front_message(f, request, &value, sizeof(value), NULL, 0, ack);
}

/* A request whose answer is data. */
static inline bool front_ask(struct front *f, uint32_t request, struct vhost_user_message *m)
{
	m->header.request = request;
	m->header.flags = VHOST_USER_VERSION;
	front_send_fds(f, m, NULL, 0);
	return front_receive(f, m) && m->header.request == request &&
	       m->header.flags == (VHOST_USER_VERSION | VHOST_USER_REPLY);
}

static inline int front_state(struct front *f, uint32_t request, uint32_t index, uint32_t num)
{
	const struct vhost_user_vring_state s = {index, num};

	return front_message(f, request, &s, sizeof(s), NULL, 0, true);
}

static inline int front_fd(struct front *f, uint32_t request, uint64_t index, int fd)
{
	return front_message(f, request, &index, sizeof(index), &fd, 1, true);
}

static inline int front_mem_table(struct front *f)
{
	const struct vhost_user_mem_table t = {
		.count = 1, .regions = {{FRONT_GUEST, FRONT_MEMORY, FRONT_USER, 0}}};

	return front_message(f, VHOST_USER_SET_MEM_TABLE, &t, sizeof(t), &f->memfd, 1, true);
}

static inline int front_addresses(struct front *f)
{
	const struct vhost_user_vring_addr a = {
		.desc = FRONT_USER, .avail = FRONT_USER + FRONT_AVAIL, .used = FRONT_USER + FRONT_USED};

	return front_message(f, VHOST_USER_SET_VRING_ADDR, &a, sizeof(a), NULL, 0, true);
}

/* Takes over a connected socket: memory and eventfds, no message yet. */
static inline void front_init(struct front *f, int fd)
{
	int pair[2];

	*f = (struct front){.fd = fd, .requests = -1};
	f->memfd = memfd_create("guest", MFD_CLOEXEC);
	f->kick = eventfd(0, EFD_CLOEXEC);
	if (f->memfd < 0 || f->kick < 0 || ftruncate(f->memfd, FRONT_MEMORY) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		abort();
	f->call = pair[0];
	close(pair[1]);
	f->memory = mmap(NULL, FRONT_MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, f->memfd, 0);
	if (f->memory == MAP_FAILED)
		abort();
}

/* Features and protocol features, as UML agrees on them. */
static inline bool front_negotiate(struct front *f, uint64_t not_wanted)
{
	struct vhost_user_message m = {0};

	if (front_message(f, VHOST_USER_SET_OWNER, NULL, 0, NULL, 0, false) ||
	    !front_ask(f, VHOST_USER_GET_FEATURES, &m))
		return false;
	f->features = m.u.u64 & ~not_wanted;
	f->event_idx = f->features >> VIRTIO_RING_F_EVENT_IDX & 1;
	m.header.size = 0;
	if (!front_ask(f, VHOST_USER_GET_PROTOCOL_FEATURES, &m))
		return false;
	return front_u64(f, VHOST_USER_SET_PROTOCOL_FEATURES, m.u.u64, true) == 0 &&
	       front_u64(f, VHOST_USER_SET_FEATURES, f->features, true) == 0;
}

/* Memory and queue 0, in UML's order. */
static inline bool front_start(struct front *f)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		abort();
	close(f->call);
	f->call = pair[0];
	memset(f->memory, 0, FRONT_HEADERS);
	f->next_avail = f->seen_used = 0;
	if (front_mem_table(f) || front_fd(f, VHOST_USER_SET_VRING_CALL, 0, pair[1]) ||
	    front_state(f, VHOST_USER_SET_VRING_NUM, 0, FRONT_ENTRIES) ||
	    front_state(f, VHOST_USER_SET_VRING_BASE, 0, 0) || front_addresses(f) ||
	    front_fd(f, VHOST_USER_SET_VRING_KICK, 0, f->kick) ||
	    front_state(f, VHOST_USER_SET_VRING_ENABLE, 0, 1)) {
		close(pair[1]);
		return false;
	}
	close(pair[1]);
	if (f->requests < 0) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
			abort();
		f->requests = pair[0];
		if (front_message(f, VHOST_USER_SET_BACKEND_REQ_FD, NULL, 0, &pair[1], 1, true))
			return false;
		close(pair[1]);
	}
	return true;
}

/* Waits for a request of the device's. Its number, or -1. */
static inline int front_backend_request(struct front *f)
{
	struct pollfd p = {.fd = f->requests, .events = POLLIN};
	struct vhost_user_header h;

	return poll(&p, 1, FRONT_WAIT_MS) == 1 && recv(f->requests, &h, sizeof(h), 0) == sizeof(h) && h.size == 0
		       ? (int)h.request
		       : -1;
}

static inline bool front_connect(struct front *f, const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a))) {
		close(fd);
		return false;
	}
	front_init(f, fd);
	return front_negotiate(f, 0) && front_start(f);
}

static inline void front_close(struct front *f)
{
	munmap(f->memory, FRONT_MEMORY);
	close(f->memfd);
	close(f->kick);
	close(f->call);
	if (f->requests >= 0)
		close(f->requests);
	close(f->fd);
}

/* ---- The driver ---- */

static inline struct vring_desc *front_desc(struct front *f, unsigned i)
{
	return (struct vring_desc *)f->memory + i;
}

static inline struct vring_avail *front_avail(struct front *f)
{
	return (struct vring_avail *)(f->memory + FRONT_AVAIL);
}

static inline struct vring_used *front_used(struct front *f)
{
	return (struct vring_used *)(f->memory + FRONT_USED);
}

static inline uint8_t *front_status(struct front *f, unsigned slot)
{
	return f->memory + FRONT_HEADERS + slot * 64 + 32;
}

/* Puts descriptor `head` into the available ring; the device learns of it by front_kick(). */
static inline void front_publish(struct front *f, uint16_t head)
{
	struct vring_avail *a = front_avail(f);

	a->ring[f->next_avail++ % FRONT_ENTRIES] = head;
	__atomic_store_n(&a->idx, f->next_avail, __ATOMIC_RELEASE);
}

static inline void front_kick(struct front *f)
{
	static const uint64_t one = 1;

	if (write(f->kick, &one, sizeof(one)) != sizeof(one))
		abort();
}

/*
 * Makes a request in an indirect table: header, `pieces` equal pieces of data at offset `data` of our memory, status. Returns its
 * slot. in: the device fills the data. Not published yet: the device may look at what is, kicked or not.
 */
static inline unsigned front_prepare(struct front *f, uint32_t type, uint64_t sector, uint32_t data, uint32_t bytes, bool in,
				    unsigned pieces)
{
	unsigned slot = f->free_slot++ % FRONT_ENTRIES, n = 0;
	struct vring_desc *t = (struct vring_desc *)(f->memory + FRONT_INDIRECT + slot * 1024);
	uint32_t header = FRONT_HEADERS + slot * 64;

	*(struct virtio_blk_outhdr *)(f->memory + header) = (struct virtio_blk_outhdr){.type = type, .sector = sector};
	*front_status(f, slot) = 0xee;
	t[n++] = (struct vring_desc){FRONT_GUEST + header, 16, VRING_DESC_F_NEXT, 1};
	for (unsigned i = 0; bytes && i < pieces; i++, n++)
		t[n] = (struct vring_desc){FRONT_GUEST + data + i * (bytes / pieces), bytes / pieces,
					   (uint16_t)(VRING_DESC_F_NEXT | (in ? VRING_DESC_F_WRITE : 0)), (uint16_t)(n + 1)};
	t[n++] = (struct vring_desc){FRONT_GUEST + header + 32, 1, VRING_DESC_F_WRITE, 0};
	*front_desc(f, slot) =
		(struct vring_desc){FRONT_GUEST + FRONT_INDIRECT + slot * 1024, n * 16, VRING_DESC_F_INDIRECT, 0};
	return slot;
}

/* The same, queued. */
static inline unsigned front_submit(struct front *f, uint32_t type, uint64_t sector, uint32_t data, uint32_t bytes, bool in,
				    unsigned pieces)
{
	unsigned slot = front_prepare(f, type, sector, data, bytes, in, pieces);

	front_publish(f, (uint16_t)slot);
	return slot;
}

/* Waits until all that was queued is answered. */
static inline bool front_wait(struct front *f)
{
	struct pollfd p[] = {{.fd = f->call, .events = POLLIN}, {.fd = f->fd, .events = POLLIN}};
	uint64_t count;

	for (;;) {
		uint16_t used = __atomic_load_n(&front_used(f)->idx, __ATOMIC_ACQUIRE);

		if (used == f->next_avail) {
			f->seen_used = used;
			return true;
		}
		if (f->event_idx) /* used_event: tell us of the last one */
			front_avail(f)->ring[FRONT_ENTRIES] = (uint16_t)(f->next_avail - 1);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (__atomic_load_n(&front_used(f)->idx, __ATOMIC_ACQUIRE) == f->next_avail)
			continue;
		if (poll(p, 2, FRONT_WAIT_MS) <= 0 || p[1].revents)
			return false;
		if (p[0].revents && recv(f->call, &count, sizeof(count), 0) <= 0)
			return false;
	}
}

/* One request, waited for. Its status, or -1 when there was no answer. */
static inline int front_do(struct front *f, uint32_t type, uint64_t sector, uint32_t data, uint32_t bytes, bool in)
{
	unsigned pieces = bytes % 8192 || !bytes ? 1 : bytes / 4096 > 60 ? 2 : bytes / 4096;
	unsigned slot = front_submit(f, type, sector, data, bytes, in, pieces);

	front_kick(f);
	return front_wait(f) ? *front_status(f, slot) : -1;
}

static inline int front_read(struct front *f, uint64_t sector, void *out, uint32_t bytes)
{
	int ret = front_do(f, VIRTIO_BLK_T_IN, sector, FRONT_DATA, bytes, true);

	memcpy(out, f->memory + FRONT_DATA, bytes);
	return ret;
}

static inline int front_write(struct front *f, uint64_t sector, const void *data, uint32_t bytes)
{
	memcpy(f->memory + FRONT_DATA, data, bytes);
	return front_do(f, VIRTIO_BLK_T_OUT, sector, FRONT_DATA, bytes, false);
}

static inline int front_flush(struct front *f)
{
	return front_do(f, VIRTIO_BLK_T_FLUSH, 0, 0, 0, false);
}

/* DISCARD or WRITE_ZEROES of one range. */
static inline int front_zero(struct front *f, uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes r = {sector, sectors, flags};

	memcpy(f->memory + FRONT_DATA, &r, sizeof(r));
	return front_do(f, type, 0, FRONT_DATA, sizeof(r), false);
}

#endif
