/*
 * Copies of a port's frames for those who look on (`uml-lab capture`).
 *
 * How it works: each capture is a SEQPACKET socket; a frame goes into it as one
 * message, at once, or not at all. The queue is the socket's own buffer, bounded by the
 * kernel; when its reader is slow, frames are left out and counted, and the
 * next record that gets through tells how many. The plug never waits.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "netplug/netplug_internal.h"
#include "uml-lab/base/cleanup.h"

#define SEND_BUFFER (4 * 1024 * 1024)	/* the kernel cuts it to net.core.wmem_max */
#define NS_PER_S UINT64_C(1000000000)

struct capture {
	struct capture_list *list;
	int fd;
	struct loop_fd *source;
	uint32_t snaplen;
	bool received;
	uint64_t seen, dropped;
};

static void capture_end(struct capture *c)
{
	struct capture_list *list = c->list;

	for (size_t i = 0; i < list->count; i++) {
		if (list->items[i] == c)
			list->items[i] = list->items[--list->count];
	}
	loop_remove_fd(c->source);
	close(c->fd);
	free(c);
}

/* The reader went away: it never sends anything. */
static void on_end(void *arg, int fd, uint32_t events)
{
	(void)fd;
	if (events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR))
		capture_end(arg);
}

int capture_add(struct capture_list *list, const struct netplug_capture_request *request, int fd, struct error *err)
{
	cleanup_close int owned = fd;
	int type = 0, size = SEND_BUFFER;
	socklen_t length = sizeof(type);
	struct capture *c;

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) || type != SOCK_SEQPACKET)
		return error_set(err, ERROR_FAILED, "a capture wants a SEQPACKET socket");
	if (list->count == CAPTURES_MAX)
		return error_set(err, ERROR_FAILED, "%d captures of this interface run already", CAPTURES_MAX);
	if (request->received > 1 || (request->snaplen && request->snaplen < NETPLUG_SNAPLEN_MIN))
		return error_set(err, ERROR_USAGE, "a capture takes at least %d bytes of each frame", NETPLUG_SNAPLEN_MIN);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	c = calloc(1, sizeof(*c));
	if (!c)
		return error_oom(err);
	*c = (struct capture){ .list = list, .snaplen = request->snaplen ? request->snaplen : UINT32_MAX,
			       .received = request->received };
	c->source = loop_add_fd(list->loop, fd, EPOLLRDHUP, on_end, c, err);
	if (!c->source) {
		free(c);
		return -1;
	}
	c->fd = steal_fd(&owned);
	list->items[list->count++] = c;
	return 0;
}

/* Sends one record. False when the reader is gone. */
static bool tell(struct capture *c, bool sent, const uint8_t *frame, size_t length)
{
	struct netplug_capture_record record = { .length = (uint32_t)length, .sent = sent };
	size_t kept = length < c->snaplen ? length : c->snaplen;
	struct iovec iov[] = { { &record, sizeof(record) }, { (void *)frame, kept } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	record.time_ns = (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
	record.seen = ++c->seen;
	record.dropped = c->dropped;
	if (sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
		return true;
	c->dropped++;
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ENOBUFS || errno == ENOMEM;
}

void capture_frame(struct capture_list *list, bool sent, const uint8_t *frame, size_t length)
{
	for (size_t i = 0; i < list->count;) {
		struct capture *c = list->items[i];

		/* One that ends leaves its place to the last. */
		if ((sent || c->received) && !tell(c, sent, frame, length))
			capture_end(c);
		else
			i++;
	}
}

void capture_free_all(struct capture_list *list)
{
	while (list->count)
		capture_end(list->items[0]);
}
