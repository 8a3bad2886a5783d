/*
 * A virtio network device of the plug's (netplug/vnet.c) with a guest's memory of our own, in one thread: the messages that set
 * it up are sent without waiting for answers. Guest, front-end and file offsets are the same.
 */
#ifndef TESTS_VNET_WORLD_H
#define TESTS_VNET_WORLD_H

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netplug/netplug_internal.h"
#include "netplug/offload.h"
#include "uml-lab/base/vhost_user_wire.h"

#define VNET_ENTRIES 64u
#define VNET_DESC    0x0000u /* of queue 0; 0x1000 further those of queue 1 */
#define VNET_AVAIL   0x0400u
#define VNET_USED    0x0800u
#define VNET_RINGS   0x2000u /* bytes of both queues */

struct vnet_world {
	struct loop *loop;
	struct link *link;
	struct netplug_stats stats;
	uint8_t *memory;
	size_t size;
	int memfd, fd, kicks[2], call;
};

static inline void vnet_say(struct vnet_world *w, uint32_t request, const void *payload, uint32_t size, int passed)
{
	struct vhost_user_message m = {.header = {request, VHOST_USER_VERSION, size}};
	union {
		struct cmsghdr align;
		char data[CMSG_SPACE(sizeof(int))];
	} ancillary = {0};
	struct iovec iov = {&m, sizeof(m.header) + size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (size)
		memcpy(&m.u, payload, size);
	if (passed >= 0) {
		msg.msg_control = ancillary.data;
		msg.msg_controllen = sizeof(ancillary.data);
		*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &passed, sizeof(int));
	}
	if (sendmsg(w->fd, &msg, MSG_NOSIGNAL) < 0)
		abort();
}

static inline void vnet_turn(struct vnet_world *w)
{
	loop_turn(w->loop, 0, NULL);
	link_receive(w->link);
	link_flush(w->link);
}

/* Says all that sets the device up with the memory as it is: to a first plug, or to one that takes the place of another. */
static inline void vnet_attach(struct vnet_world *w, const struct link_events *events, enum netplug_kind kind, uint64_t features)
{
	const struct vhost_user_mem_table table = {.count = 1, .regions = {{0, w->size, 0, 0}}};
	struct netplug_port_config config;
	int pair[2], call[2];

	netplug_port_config_init(&config, 0);
	config.kind = kind;
	config.mtu = kind == NETPLUG_KIND_SLIRP ? NETPLUG_VIRTIO_MTU : NETPLUG_VDE_MTU;
	w->loop = loop_new(NULL);
	w->link = w->loop ? link_vnet_new(w->loop, &config, events, &w->stats, NULL) : NULL;
	if (!w->link || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, call) || link_connect(w->link, pair[1], NULL))
		abort();
	w->fd = pair[0];
	w->call = call[0];
	vnet_say(w, VHOST_USER_SET_FEATURES, &features, sizeof(features), -1);
	vnet_say(w, VHOST_USER_SET_MEM_TABLE, &table, sizeof(table), w->memfd);
	for (uint32_t i = 0; i < 2; i++) {
		const struct vhost_user_vring_state size = {i, VNET_ENTRIES};
		const uint64_t base = i * 0x1000, index = i;
		const struct vhost_user_vring_addr at = {
			.index = i, .desc = base + VNET_DESC, .avail = base + VNET_AVAIL, .used = base + VNET_USED};

		vnet_say(w, VHOST_USER_SET_VRING_CALL, &index, sizeof(index), call[1]);
		vnet_say(w, VHOST_USER_SET_VRING_NUM, &size, sizeof(size), -1);
		vnet_say(w, VHOST_USER_SET_VRING_ADDR, &at, sizeof(at), -1);
		vnet_say(w, VHOST_USER_SET_VRING_KICK, &index, sizeof(index), w->kicks[i]);
	}
	close(call[1]);
	for (int i = 0; i < 3; i++)
		vnet_turn(w);
}

/* The plug is gone; the guest's memory stays. */
static inline void vnet_detach(struct vnet_world *w)
{
	link_free(w->link);
	loop_free(w->loop);
	close(w->fd);
	close(w->call);
}

static inline void vnet_open(struct vnet_world *w, size_t size)
{
	*w = (struct vnet_world){.size = size, .memfd = memfd_create("guest", MFD_CLOEXEC)};
	for (int i = 0; i < 2; i++)
		w->kicks[i] = eventfd(0, EFD_CLOEXEC);
	if (w->memfd < 0 || ftruncate(w->memfd, (off_t)size) || w->kicks[0] < 0 || w->kicks[1] < 0)
		abort();
	w->memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, w->memfd, 0);
	if (w->memory == MAP_FAILED)
		abort();
}

static inline void vnet_close(struct vnet_world *w)
{
	munmap(w->memory, w->size);
	close(w->memfd);
	for (int i = 0; i < 2; i++)
		close(w->kicks[i]);
}

static inline void vnet_kick(struct vnet_world *w, int queue)
{
	static const uint64_t one = 1;

	if (write(w->kicks[queue], &one, sizeof(one)) != sizeof(one))
		abort();
}

#endif
