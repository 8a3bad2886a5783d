/*
 * The guest's connection: a SEQPACKET socket (UML's bess transport), one bare
 * Ethernet frame per message.
 *
 * How it works: frames are received in batches. Frames to the guest are
 * copied into a queue of bounded size and sent in batches; what the socket
 * does not take stays queued until it is writable. When the guest stops reading,
 * the queue fills, the port is told (link_congested()) and stops reading what
 * is for it; what comes all the same (answers to the guest's own frames) is
 * dropped and counted. The other way round link_hold() lets the guest wait: its
 * frames stay in the socket, and then in its own queue.
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

#define BATCHES_PER_TURN 4		/* then the sockets get their turn */
#define QUEUE_BYTES (1024 * 1024)
#define CONGESTED_BYTES (QUEUE_BYTES / 4)	/* the rest is room for what comes all the same */
#define SEND_BUFFER (1024 * 1024)	/* the kernel cuts it to net.core.wmem_max */

struct link {
	struct loop *loop;
	struct loop_fd *source;
	int fd;				/* -1: no connection */
	struct link_events events;
	struct netplug_stats *stats;

	size_t frame_max;		/* longest frame taken */
	struct frame_batch in;
	struct frame_queue out;
	bool held;			/* nothing is read from the guest */
	bool waiting;			/* for room in the socket: EPOLLOUT is watched */
	bool congested;
};

struct link *link_new(struct loop *loop, size_t mtu, const struct link_events *events,
		      struct netplug_stats *stats, struct error *err)
{
	struct link *link = calloc(1, sizeof(*link));
	size_t size = ETHERNET_HEADER + VLAN_TAG + mtu;

	if (!link) {
		error_oom(err);
		return NULL;
	}
	link->fd = -1;
	link->loop = loop;
	link->events = *events;
	link->stats = stats;
	link->frame_max = size;
	if (frame_batch_init(&link->in, size, err) || frame_queue_init(&link->out, QUEUE_BYTES, err)) {
		link_free(link);
		return NULL;
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
	link->stats->out_dropped += frame_queue_clear(&link->out);
}

static void watch(struct link *link)
{
	if (link->source)
		loop_set_events(link->source, (link->held ? 0 : EPOLLIN) | (link->waiting ? EPOLLOUT : 0));
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
	int n = frame_batch_receive(&link->in, link->fd);

	for (int i = 0; i < n; i++) {
		/* At the end of the connection every buffer of the batch comes back empty. */
		if (link->in.msg[i].msg_len == 0 && netplug_socket_ended(link->fd))
			return -1;
		take_frame(link, link->in.iov[i].iov_base, link->in.msg[i].msg_len);
	}
	return n;
}

static void on_event(void *arg, int fd, uint32_t events)
{
	struct link *link = arg;
	int n = FRAME_BATCH;

	(void)fd;
	if (events & EPOLLOUT)
		link_flush(link);
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	/* Held: only the end is of interest, which comes after the frames. */
	for (int i = 0; i < BATCHES_PER_TURN && n == FRAME_BATCH && (!link->held || events & EPOLLHUP); i++)
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
	watch(link);
	link->stats->connections++;
	return 0;
}

void link_hold(struct link *link, bool held)
{
	link->held = held;
	watch(link);
}

void link_send(struct link *link, const uint8_t *frame, size_t length)
{
	uint8_t *room = NULL;

	if (link->fd >= 0 && length <= link->frame_max)
		room = frame_queue_add(&link->out, length);
	if (!room) {
		link->stats->out_dropped++;
		return;
	}
	memcpy(room, frame, length);
	if (frame_queue_count(&link->out) >= FRAME_BATCH && !link->congested)
		link_flush(link);
}

void link_flush(struct link *link)
{
	struct frame_count sent = { 0 };
	bool waiting;
	int rc;

	if (link->fd < 0 || !frame_queue_count(&link->out))
		return;
	rc = frame_queue_send(&link->out, link->fd, &sent);
	link->stats->out_frames += sent.frames;
	link->stats->out_bytes += sent.bytes;
	waiting = rc > 0;
	if (rc < 0)	/* the end of the connection comes as EPOLLHUP */
		forget_queue(link);
	if (link->waiting != waiting) {
		link->waiting = waiting;
		watch(link);
	}
	if (frame_queue_bytes(&link->out) > CONGESTED_BYTES || frame_queue_count(&link->out) > FRAME_QUEUE_MAX / 4)
		set_congested(link, true);
	else if (!waiting)
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
	frame_batch_free(&link->in);
	frame_queue_free(&link->out);
	free(link);
}
