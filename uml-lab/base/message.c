/* Packing, sending, receiving, and the one place where what arrives is checked: message.h. */
#include "uml-lab/base/message.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"

#define DESCRIPTORS_MAX 4	/* received, to be closed: a type has one at most */

_Static_assert(sizeof(struct message_header) == 16, "header of the control protocols");

static const struct message_type *find_type(const struct message_protocol *protocol, uint16_t type)
{
	for (size_t i = 0; i < protocol->type_count; i++) {
		if (protocol->types[i].type == type)
			return &protocol->types[i];
	}
	return NULL;
}

int message_send(int control, const struct message_protocol *protocol, uint16_t type, uint32_t sequence,
		 const void *payload, int fd, struct error *err)
{
	const struct message_type *t = find_type(protocol, type);
	struct message_header header = {
		.magic = protocol->magic,
		.version = protocol->version,
		.type = type,
		.sequence = sequence,
		.length = t ? (uint32_t)t->size : 0,
	};
	struct iovec iov[] = { { &header, sizeof(header) }, { (void *)payload, header.length } };
	union {
		struct cmsghdr align;
		char data[CMSG_SPACE(sizeof(int))];
	} ancillary = { 0 };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = header.length ? 2 : 1 };

	if (fd >= 0) {
		msg.msg_control = ancillary.data;
		msg.msg_controllen = sizeof(ancillary.data);
		*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){ CMSG_LEN(sizeof(fd)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &fd, sizeof(fd));
	}
	while (sendmsg(control, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
		if (errno != EINTR)
			return error_errno(err, errno, "send to the other end of %s", protocol->peer);
	}
	return 0;
}

/* Keeps the first descriptor of the message, closes all others. Returns it, -1 for none, -2 when there were several. */
static int take_descriptors(struct msghdr *msg)
{
	int taken = -1, count = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (count++ == 0)
				taken = fd;
			else
				close(fd);
		}
	}
	if (count <= 1)
		return taken;
	close(taken);
	return -2;
}

static bool texts_end(const struct message_type *t, const char *payload)
{
	for (size_t i = 0; i < MESSAGE_TEXTS_MAX && t->texts[i].size; i++) {
		if (!memchr(payload + t->texts[i].offset, '\0', t->texts[i].size))
			return false;
	}
	return true;
}

/* Checks a received message of `length` bytes that came with descriptor fd (as take_descriptors()). */
static int check(const struct message_protocol *protocol, const struct message_header *h, size_t length, bool cut, int fd,
		 struct error *err)
{
	const struct message_type *t;

	if (length < sizeof(*h) || h->magic != protocol->magic)
		return error_set(err, ERROR_FAILED, "a control message without a header (%zu bytes)", length);
	if (h->version != protocol->version)
		return error_set(err, ERROR_FAILED, "control protocol version %u, this is version %u", h->version,
				 protocol->version);
	t = find_type(protocol, h->type);
	if (!t)
		return error_set(err, ERROR_FAILED, "unknown control message %u", h->type);
	if (cut || h->length != t->size || length != sizeof(*h) + t->size)
		return error_set(err, ERROR_FAILED, "control message %u of %zu bytes, not %zu", h->type, length,
				 sizeof(*h) + t->size);
	if (fd == -2 || (fd >= 0) != t->descriptor)
		return error_set(err, ERROR_FAILED, "control message %u with a wrong number of descriptors", h->type);
	if (!texts_end(t, (const char *)(h + 1)))
		return error_set(err, ERROR_FAILED, "control message %u with a text without end", h->type);
	return 0;
}

/* Tells the end of the socket from an empty message. */
static bool has_ended(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	return poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLRDHUP | POLLERR | POLLNVAL);
}

int message_receive(int control, const struct message_protocol *protocol, void *message, size_t size, int *fd,
		    bool *answerable, struct error *err)
{
	const struct message_header *header = message;
	union {
		struct cmsghdr align;
		char data[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
	} ancillary;
	struct iovec iov = { message, size };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = ancillary.data, .msg_controllen = sizeof(ancillary.data),
	};
	ssize_t n;
	int taken;

	*answerable = false;
	memset(message, 0, size);
	do {
		n = recvmsg(control, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	if (n < 0 || (n == 0 && has_ended(control)))
		return error_set(err, ERROR_STATE, "the other end of %s is gone", protocol->peer);
	taken = take_descriptors(&msg);
	if (check(protocol, header, (size_t)n, msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC), taken, err)) {
		*answerable = (size_t)n >= sizeof(*header) && header->magic == protocol->magic;
		if (taken >= 0)
			close(taken);
		return -1;
	}
	*fd = taken;
	return 1;
}
