/*
 * The guest's connection: a SEQPACKET socket (UML's bess transport), one bare
 * Ethernet frame per message.
 *
 * How it works: frames are received BATCH at a time. Frames to the guest are
 * copied into a queue of bounded size and sent in batches; what the socket
 * does not take stays queued until it is writable. The queue is one buffer used from
 * front to back: sent frames leave a gap at its start, closed when room is
 * needed. When the guest stops reading, the queue fills, the port is told
 * (link_congested()) and stops reading its host sockets; what comes all the
 * same (answers to the guest's own frames) is dropped and counted.
 *
 * A SEQPACKET socket reads 0 bytes both for an empty message and at the end;
 * only the poll flags tell which. An empty message is a runt like another.
 *
 * The supervisor holds a duplicate of the connection: closing it here does not
 * end it for the guest (control.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netplug/netplug_internal.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"

#define BATCH 32
#define BATCHES_PER_TURN 4		/* then the sockets get their turn */
#define QUEUE_FRAMES 1024
#define QUEUE_BYTES (1024 * 1024)
#define CONGESTED_BYTES (QUEUE_BYTES / 4)	/* the rest is room for what comes all the same */
#define SEND_BUFFER (1024 * 1024)	/* the kernel cuts it to net.core.wmem_max */

struct queued {
	size_t offset, length;
};

struct link {
	struct loop *loop;
	struct loop_fd *source;
	int fd;				/* -1: no connection */
	struct link_events events;
	struct netplug_stats *stats;

	size_t frame_max;		/* longest frame taken */
	uint8_t *in;			/* BATCH buffers of frame_max + 1 bytes */
	struct iovec in_iov[BATCH];
	struct mmsghdr in_msg[BATCH];

	uint8_t *out;			/* QUEUE_BYTES */
	size_t out_end;			/* bytes used, the gap at the start included */
	struct queued queue[QUEUE_FRAMES];
	size_t first, last;		/* queued frames: first … last - 1 */
	bool waiting;			/* for room in the socket: EPOLLOUT is watched */
	bool congested;
};

struct link *link_new(struct loop *loop, size_t mtu, const struct link_events *events,
		      struct netplug_stats *stats, struct error *err)
{
	struct link *link = calloc(1, sizeof(*link));
	size_t size = ETHERNET_HEADER + VLAN_TAG + mtu;

	if (link) {
		link->fd = -1;
		link->in = malloc(BATCH * (size + 1));
		link->out = malloc(QUEUE_BYTES);
	}
	if (!link || !link->in || !link->out) {
		link_free(link);
		error_oom(err);
		return NULL;
	}
	link->loop = loop;
	link->events = *events;
	link->stats = stats;
	link->frame_max = size;
	for (size_t i = 0; i < BATCH; i++) {
		link->in_iov[i] = (struct iovec){ link->in + i * (size + 1), size + 1 };
		link->in_msg[i].msg_hdr.msg_iov = &link->in_iov[i];
		link->in_msg[i].msg_hdr.msg_iovlen = 1;
	}
	return link;
}

bool link_connected(const struct link *link)
{
	return link->fd >= 0;
}

bool link_congested(const struct link *link)
{
	return link->congested;
}

static void set_congested(struct link *link, bool congested)
{
	if (link->congested == congested)
		return;
	link->congested = congested;
	link->events.changed(link->events.arg);
}

static void forget_queue(struct link *link)
{
	link->stats->out_dropped += link->last - link->first;
	link->first = link->last = link->out_end = 0;
}

static void disconnect(struct link *link)
{
	if (link->fd < 0)
		return;
	loop_remove_fd(link->source);
	link->source = NULL;
	close(link->fd);
	link->fd = -1;
	link->waiting = false;
	forget_queue(link);
	set_congested(link, false);
}

static void take_frame(struct link *link, const uint8_t *frame, size_t length)
{
	if (length < ETHERNET_HEADER) {
		link->stats->in_runts++;
		return;
	}
	if (length > link->frame_max) {
		link->stats->in_giants++;
		return;
	}
	link->stats->in_frames++;
	link->stats->in_bytes += length;
	link->events.frame(link->events.arg, frame, length);
}

/* Receives one batch. Returns frames received; 0 when there are no more, -1 when the connection is at its end. */
static int receive_batch(struct link *link)
{
	int n = recvmmsg(link->fd, link->in_msg, BATCH, MSG_DONTWAIT, NULL);

	if (n < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -1;
	for (int i = 0; i < n; i++) {
		/* At the end of the connection every buffer of the batch comes back empty. */
		if (link->in_msg[i].msg_len == 0 && netplug_socket_ended(link->fd))
			return -1;
		take_frame(link, link->in_iov[i].iov_base, link->in_msg[i].msg_len);
	}
	return n;
}

static void on_event(void *arg, int fd, uint32_t events)
{
	struct link *link = arg;
	int n = BATCH;

	(void)fd;
	if (events & EPOLLOUT)
		link_flush(link);
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	for (int i = 0; i < BATCHES_PER_TURN && n == BATCH; i++)
		n = receive_batch(link);
	if (n < 0 || (n == 0 && events & (EPOLLHUP | EPOLLERR))) {
		log_debug("the guest's connection ended");
		disconnect(link);
	}
}

static int check_connection(int fd, struct error *err)
{
	int type = 0, size = SEND_BUFFER;
	socklen_t length = sizeof(type);

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length))
		return error_errno(err, errno, "look at the guest's connection");
	if (type != SOCK_SEQPACKET)
		return error_set(err, ERROR_FAILED, "the guest's connection is not a SEQPACKET socket");
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)))
		return error_errno(err, errno, "set the send buffer of the guest's connection");
	return 0;
}

int link_connect(struct link *link, int fd, struct error *err)
{
	cleanup_close int owned = fd;
	struct loop_fd *source;

	if (check_connection(fd, err))
		return -1;
	source = loop_add_fd(link->loop, fd, EPOLLIN, on_event, link, err);
	if (!source)
		return -1;
	disconnect(link);
	link->fd = steal_fd(&owned);
	link->source = source;
	link->stats->connections++;
	return 0;
}

/* Makes room for length bytes by closing the gap at the start. Whether there is room now. */
static bool make_room(struct link *link, size_t length)
{
	size_t gap = link->first < link->last ? link->queue[link->first].offset : link->out_end;
	size_t count = link->last - link->first;

	if (link->out_end - gap + length > QUEUE_BYTES || count == QUEUE_FRAMES)
		return false;
	memmove(link->out, link->out + gap, link->out_end - gap);
	memmove(link->queue, link->queue + link->first, count * sizeof(link->queue[0]));
	for (size_t i = 0; i < count; i++)
		link->queue[i].offset -= gap;
	link->out_end -= gap;
	link->first = 0;
	link->last = count;
	return true;
}

void link_send(struct link *link, const uint8_t *frame, size_t length)
{
	bool full = link->last == QUEUE_FRAMES || link->out_end + length > QUEUE_BYTES;

	if (link->fd < 0 || length > link->frame_max || (full && !make_room(link, length))) {
		link->stats->out_dropped++;
		return;
	}
	memcpy(link->out + link->out_end, frame, length);
	link->queue[link->last++] = (struct queued){ link->out_end, length };
	link->out_end += length;
	if (link->last - link->first >= BATCH && !link->congested)
		link_flush(link);
}

/* Sends up to BATCH queued frames. Returns how many, or -1 with errno. */
static int send_batch(struct link *link)
{
	struct iovec iov[BATCH];
	struct mmsghdr msg[BATCH];
	size_t count = link->last - link->first;
	int sent;

	if (count > BATCH)
		count = BATCH;
	memset(msg, 0, count * sizeof(msg[0]));
	for (size_t i = 0; i < count; i++) {
		const struct queued *q = &link->queue[link->first + i];

		iov[i] = (struct iovec){ link->out + q->offset, q->length };
		msg[i].msg_hdr.msg_iov = &iov[i];
		msg[i].msg_hdr.msg_iovlen = 1;
	}
	sent = sendmmsg(link->fd, msg, (unsigned)count, MSG_DONTWAIT | MSG_NOSIGNAL);
	for (int i = 0; i < sent; i++) {
		link->stats->out_frames++;
		link->stats->out_bytes += link->queue[link->first++].length;
	}
	return sent;
}

void link_flush(struct link *link)
{
	size_t left;

	if (link->fd < 0 || link->first == link->last)
		return;
	while (link->first < link->last && send_batch(link) > 0)
		;
	/* No room is worth waiting for; anything else is not (the end of the connection comes as EPOLLHUP). */
	if (link->first < link->last && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
		forget_queue(link);
	left = link->first < link->last ? link->out_end - link->queue[link->first].offset : 0;
	if (!left)
		link->first = link->last = link->out_end = 0;
	if (link->waiting != (left > 0)) {
		link->waiting = left > 0;
		loop_set_events(link->source, left ? EPOLLIN | EPOLLOUT : EPOLLIN);
	}
	if (left > CONGESTED_BYTES || link->last - link->first > QUEUE_FRAMES / 4)
		set_congested(link, true);
	else if (!left)
		set_congested(link, false);
}

void link_free(struct link *link)
{
	if (!link)
		return;
	if (link->fd >= 0) {
		loop_remove_fd(link->source);
		close(link->fd);
	}
	free(link->in);
	free(link->out);
	free(link);
}
