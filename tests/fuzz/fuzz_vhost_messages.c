/*
 * vhost-user messages: any bytes, in any pieces, with any descriptors, leave the back-end whole.
 * Input: a byte that tells how many bytes follow and (its two top bits) which descriptors come with them, those bytes, and so on.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "uml-lab/base/vhost_user.h"

#define MEMORY 65536
#define PIECES 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct vhost_user *u;

static void get_config(void *arg, void *out)
{
	(void)arg;
	memset(out, 1, VHOST_USER_CONFIG_MAX);
}

static int set_config(void *arg, uint32_t offset, const void *data, uint32_t length)
{
	volatile uint8_t sum = 0;

	(void)arg;
	for (uint32_t i = 0; i < length; i++)
		sum = (uint8_t)(sum + ((const uint8_t *)data)[i]);
	return offset + length <= VHOST_USER_CONFIG_MAX ? 0 : -1;
}

/* What a device does with a queue that starts: takes all there is. */
static void drain(void *arg, unsigned index)
{
	static struct iovec iov[VRING_CHAIN_MAX];
	struct vring_queue *q = vhost_user_queue(u, index);
	struct vring_chain c;

	(void)arg;
	for (int i = 0; q && i < 64 && vring_pop(q, &c, iov, VRING_CHAIN_MAX, NULL) == 1; i++) {
		for (int k = 0; k < c.in_count; k++)
			memset(c.iov[c.out_count + k].iov_base, 1, c.iov[c.out_count + k].iov_len);
		vring_push(q, c.head, (uint32_t)c.in_bytes);
		vhost_user_call(u, q, NULL);
	}
}

static void send_piece(int fd, const uint8_t *data, size_t n, const int *fds, unsigned count)
{
	union {
		struct cmsghdr align;
		char data[CMSG_SPACE(10 * sizeof(int))];
	} ancillary = {0};
	struct iovec iov = {(void *)data, n};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (count) {
		msg.msg_control = ancillary.data;
		msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
		*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){CMSG_LEN(count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), fds, count * sizeof(int));
	}
	sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const unsigned counts[] = {0, 1, 2, 10};
	const struct vhost_user_device device = {
		.features = 1,
		.queues = 2,
		.in_band = size & 1,
		.config_length = VHOST_USER_CONFIG_MAX,
		.get_config = get_config,
		.set_config = set_config,
		.queue_changed = drain,
		.kicked = drain,
	};
	int pair[2], fds[10], ret = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		abort();
	for (unsigned i = 0; i < 10; i++)
		fds[i] = i % 3 == 0 ? memfd_create("guest", MFD_CLOEXEC) : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ftruncate(fds[0], MEMORY) || ftruncate(fds[3], MEMORY))
		abort();
	/* memory that says something, for queues that lie in it */
	if (size && pwrite(fds[0], data, size < MEMORY ? size : MEMORY, 0) < 0)
		abort();
	u = vhost_user_new(pair[1], &device, NULL);
	for (int i = 0; u && i < PIECES && size > 0 && ret >= 0; i++) {
		size_t n = data[0] & 0x3f;
		unsigned count = counts[data[0] >> 6];

		data++;
		size--;
		if (n > size)
			n = size;
		send_piece(pair[0], data, n, fds, count);
		data += n;
		size -= n;
		while ((ret = vhost_user_receive(u, NULL)) > 0)
			drain(NULL, 0);
		vhost_user_config_changed(u, NULL);
	}
	vhost_user_free(u);
	close(pair[0]);
	for (unsigned i = 0; i < 10; i++)
		close(fds[i]);
	return 0;
}
