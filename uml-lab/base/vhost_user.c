/*
 * The back-end side of vhost-user: the connection.
 *
 * Receiving is a state: the bytes of the message that is coming in, and the
 * descriptors that came with them. A read asks for no more than the rest of the
 * header, then the rest of the payload, so that descriptors are always those of
 * this message. What a message does is in vhost_user_messages.c.
 *
 * UML (arch/um/drivers/virtio_uml.c): up to 6.12 it needs the channel for back-end
 * requests even if nothing is ever sent there, or its interrupts have no number.
 */
#include "uml-lab/base/vhost_user.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/vhost_user_internal.h"

void vhost_user_close_fds(struct vhost_user *u)
{
	for (unsigned i = 0; i < u->fd_count; i++)
		vhost_user_replace_fd(&u->fds[i], -1);
	u->fd_count = 0;
}

void vhost_user_unmap(struct vring_memory *m)
{
	for (unsigned i = 0; i < m->count; i++)
		munmap(m->regions[i].map, m->regions[i].map_length);
	m->count = 0;
}

struct vhost_user *vhost_user_new(int fd, const struct vhost_user_device *device, struct error *err)
{
	struct vhost_user *u = calloc(1, sizeof(*u));

	if (!u || fcntl(fd, F_SETFL, O_NONBLOCK)) {
		error_errno(err, errno, "set up a vhost-user connection");
		free(u);
		close(fd);
		return NULL;
	}
	u->recall = (struct vhost_recall)VHOST_RECALL_INIT;
	if (vhost_recall_open(&u->recall, fd, err)) {
		free(u);
		close(fd);
		return NULL;
	}
	u->fd = fd;
	u->device = device;
	u->requests = -1;
	u->offered = device->features | BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_RING_F_INDIRECT_DESC) |
		     BIT(VIRTIO_RING_F_EVENT_IDX) | BIT(VHOST_USER_F_PROTOCOL_FEATURES);
	for (unsigned i = 0; i < VHOST_USER_QUEUES_MAX; i++)
		u->queues[i] = (struct vring_queue){
			.index = i, .kick = -1, .call = -1, .error = -1, .memory = &u->memory};
	return u;
}

void vhost_user_free(struct vhost_user *u)
{
	if (!u)
		return;
	vhost_user_close_fds(u);
	for (unsigned i = 0; i < VHOST_USER_QUEUES_MAX; i++) {
		vhost_user_replace_fd(&u->queues[i].kick, -1);
		vhost_user_replace_fd(&u->queues[i].call, -1);
		vhost_user_replace_fd(&u->queues[i].error, -1);
	}
	vhost_user_replace_fd(&u->requests, -1);
	vhost_user_unmap(&u->memory);
	vhost_recall_close(&u->recall);
	close(u->fd);
	free(u);
}

int vhost_user_fd(const struct vhost_user *u)
{
	return u->recall.poll;
}

uint64_t vhost_user_features(const struct vhost_user *u)
{
	return u->acked;
}

void vhost_user_let_go(struct vhost_user *u)
{
	/* of a shared mapping: the content stays with the file. Failure leaves all as it was */
	for (unsigned i = 0; i < u->memory.count; i++)
		madvise(u->memory.regions[i].map, u->memory.regions[i].map_length, MADV_DONTNEED);
}

struct vring_queue *vhost_user_queue(struct vhost_user *u, unsigned index)
{
	return index < u->device->queues && u->queues[index].usable ? &u->queues[index] : NULL;
}

/* ---- Sending ---- */

/* Small messages to a peer that waits for them: one that does not take them at once does not follow the
 * protocol. */
static int send_all(int fd, const void *data, size_t n, struct error *err)
{
	ssize_t sent;

	do {
		sent = send(fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (sent < 0 && errno == EINTR);
	if (sent == (ssize_t)n)
		return 0;
	return error_errno(err, sent < 0 ? errno : EAGAIN, "answer the guest's vhost-user front-end");
}

int vhost_user_reply(struct vhost_user *u, size_t n, struct error *err)
{
	u->in.header.flags = VHOST_USER_VERSION | VHOST_USER_REPLY;
	u->in.header.size = (uint32_t)n;
	return send_all(u->fd, &u->in, sizeof(u->in.header) + n, err);
}

int vhost_user_reply_u64(struct vhost_user *u, uint64_t value, struct error *err)
{
	u->in.u.u64 = value;
	return vhost_user_reply(u, sizeof(value), err);
}

static int send_backend_request(struct vhost_user *u, uint32_t request, unsigned index, size_t size,
				struct error *err)
{
	const struct vhost_user_message m = {
		.header = {.request = request, .flags = VHOST_USER_VERSION, .size = (uint32_t)size},
		.u.state.index = index,
	};

	if (u->requests < 0)
		return error_set(err, ERROR_STATE, "the guest has no channel for requests to it");
	return send_all(u->requests, &m, sizeof(m.header) + size, err);
}

int vhost_user_config_changed(struct vhost_user *u, struct error *err)
{
	return send_backend_request(u, VHOST_USER_BACKEND_CONFIG_CHANGE, 0, 0, err);
}

/* 1: interrupted, 0: it has no interrupt, -1 + err. */
static int interrupt(struct vhost_user *u, struct vring_queue *q, struct error *err)
{
	static const uint64_t one = 1;
	ssize_t n;

	if (q->call < 0 && vhost_user_has(u, VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS))
		return send_backend_request(u, VHOST_USER_BACKEND_VRING_CALL, q->index,
					    sizeof(struct vhost_user_vring_state), err) ? -1 : 1;
	if (q->call < 0)
		return 0; /* the guest polls */
	do {
		/* UML's is a socket, others' an eventfd */
		n = q->call_is_socket ? send(q->call, &one, sizeof(one), MSG_DONTWAIT | MSG_NOSIGNAL)
				      : write(q->call, &one, sizeof(one));
	} while (n < 0 && errno == EINTR);
	/* full: there are interrupts enough waiting. Closed: it is taking the device down, and tells us so
	 * itself */
	if (n < 0 && errno != EAGAIN && errno != EPIPE && errno != ECONNRESET)
		return error_errno(err, errno, "interrupt the guest");
	return 1;
}

int vhost_user_call(struct vhost_user *u, struct vring_queue *q, struct error *err)
{
	int done;

	if (!q->usable || !vring_wants_call(q))
		return 0;
	done = interrupt(u, q, err);
	/* a socket: UML, which may have slept through it */
	if (done > 0 && q->call_is_socket) {
		q->told = true;
		vhost_recall_called(&u->recall);
	}
	return done < 0 ? -1 : 0;
}

/* Whether the guest has not seen all that it was told. */
static bool unseen(struct vhost_user *u)
{
	bool any = false;

	for (unsigned i = 0; i < u->device->queues; i++) {
		struct vring_queue *q = &u->queues[i];

		q->told = q->told && q->usable && vring_unseen(q);
		any |= q->told;
	}
	return any;
}

int vhost_user_call_again(struct vhost_user *u, struct error *err)
{
	if (!unseen(u)) {
		vhost_recall_seen(&u->recall);
		return 0;
	}
	if (!vhost_recall_due(&u->recall) || !vhost_recall_unseen(&u->recall))
		return 0;
	for (unsigned i = 0; i < u->device->queues; i++)
		if (u->queues[i].told && interrupt(u, &u->queues[i], err) < 0)
			return -1;
	return 0;
}

void vhost_user_look(struct vhost_user *u, bool looking)
{
	vhost_recall_look(&u->recall, looking, !looking && unseen(u));
}

/* ---- Receiving ---- */

/* Keeps the descriptors of a message. More than there can be is a breach. */
static int keep_fds(struct vhost_user *u, struct msghdr *msg, struct error *err)
{
	bool many = msg->msg_flags & MSG_CTRUNC;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (u->fd_count < VHOST_USER_FDS_MAX) {
				u->fds[u->fd_count++] = fd;
			} else {
				close(fd);
				many = true;
			}
		}
	}
	return many ? error_set(err, ERROR_FAILED, "a vhost-user message with too many descriptors") : 0;
}

/* Reads up to n bytes of the message. 1: some came. 0: none there. -1 + err. */
static int receive_some(struct vhost_user *u, size_t n, struct error *err)
{
	union {
		struct cmsghdr align;
		char data[CMSG_SPACE(VHOST_USER_FDS_MAX * sizeof(int))];
	} ancillary;
	struct iovec iov = {(char *)&u->in + u->have, n};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = ancillary.data,
		.msg_controllen = sizeof(ancillary.data),
	};
	ssize_t got;

	do {
		got = recvmsg(u->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (got < 0 && errno == EINTR);
	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	if (got <= 0)
		return error_set(err, ERROR_STATE, "the guest is gone");
	u->have += (size_t)got;
	return keep_fds(u, &msg, err) ? -1 : 1;
}

/* Whether a header can be right. */
static int check_header(const struct vhost_user *u, struct error *err)
{
	const struct vhost_user_header *h = &u->in.header;

	if ((h->flags & ~VHOST_USER_NEED_REPLY) != VHOST_USER_VERSION || h->size > sizeof(u->in.u))
		return error_set(err, ERROR_FAILED, "a vhost-user message %u with flags %#x and %u bytes",
				 h->request, h->flags, h->size);
	return 0;
}

int vhost_user_receive(struct vhost_user *u, struct error *err)
{
	/* what else is there makes the descriptor readable once more */
	if (vhost_recall_struck(&u->recall))
		return vhost_user_call_again(u, err);
	for (;;) {
		size_t whole = sizeof(u->in.header);
		int ret;

		if (u->have >= whole) {
			if (check_header(u, err))
				return -1;
			whole += u->in.header.size;
		}
		if (u->have >= sizeof(u->in.header) && u->have == whole)
			break;
		ret = receive_some(u, whole - u->have, err);
		if (ret <= 0)
			return ret;
	}
	memset((char *)&u->in + u->have, 0, sizeof(u->in) - u->have);
	u->have = 0;
	return vhost_user_handle(u, err) ? -1 : 1;
}
