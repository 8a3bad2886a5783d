/*
 * The guest's connection by UML's bess transport: a SEQPACKET socket, one bare
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
#define PROMPT_BYTES 4096		/* go at once: libslirp's window is 64 KiB, few such frames are under way */
#define SEND_BUFFER (1024 * 1024)	/* the kernel cuts it to net.core.wmem_max */

struct bess {
	struct link link;		/* first */
	struct loop *loop;
	struct loop_fd *source;
	int fd;				/* -1: no connection */
	struct frame_batch in;
	struct frame_queue out;
	bool held;			/* nothing is read from the guest */
	bool waiting;			/* for room in the socket: EPOLLOUT is watched */
};

void link_set_congested(struct link *link, bool congested)
{
	if (link->congested == congested)
		return;
	link->congested = congested;
	link->events.changed(link->events.arg);
}

static void forget_queue(struct bess *bess)
{
	bess->link.stats->out_dropped += frame_queue_clear(&bess->out);
}

static void watch(struct bess *bess)
{
	if (bess->source)
		loop_set_events(bess->source, (bess->held ? 0 : EPOLLIN) | (bess->waiting ? EPOLLOUT : 0));
}

static void disconnect(struct bess *bess)
{
	if (bess->fd < 0)
		return;
	loop_remove_fd(bess->source);
	bess->source = NULL;
	close(bess->fd);
	bess->fd = -1;
	bess->waiting = false;
	forget_queue(bess);
	link_set_congested(&bess->link, false);
}

static void flush(struct bess *bess)
{
	struct frame_count sent = { 0 };
	bool waiting;
	int rc;

	if (bess->fd < 0 || !frame_queue_count(&bess->out))
		return;
	rc = frame_queue_send(&bess->out, bess->fd, &sent);
	bess->link.stats->out_frames += sent.frames;
	bess->link.stats->out_bytes += sent.bytes;
	waiting = rc > 0;
	if (rc < 0)	/* the end of the connection comes as EPOLLHUP */
		forget_queue(bess);
	if (bess->waiting != waiting) {
		bess->waiting = waiting;
		watch(bess);
	}
	if (frame_queue_bytes(&bess->out) > CONGESTED_BYTES || frame_queue_count(&bess->out) > FRAME_QUEUE_MAX / 4)
		link_set_congested(&bess->link, true);
	else if (!waiting)
		link_set_congested(&bess->link, false);
}

static void take_frame(struct bess *bess, const uint8_t *frame, size_t length)
{
	if (length < ETHERNET_HEADER) {
		bess->link.stats->in_runts++;
		return;
	}
	if (length > bess->link.frame_max) {
		bess->link.stats->in_giants++;
		return;
	}
	bess->link.stats->in_frames++;
	bess->link.stats->in_bytes += length;
	bess->link.events.frame(bess->link.events.arg, frame, length);
}

/* Receives one batch. Returns frames received; 0 when there are no more, -1 when the connection is at its end. */
static int receive_batch(struct bess *bess)
{
	int n = frame_batch_receive(&bess->in, bess->fd);

	for (int i = 0; i < n; i++) {
		/* At the end of the connection every buffer of the batch comes back empty. */
		if (bess->in.msg[i].msg_len == 0 && netplug_socket_ended(bess->fd))
			return -1;
		take_frame(bess, bess->in.iov[i].iov_base, bess->in.msg[i].msg_len);
		if (bess->in.msg[i].msg_len >= PROMPT_BYTES)
			flush(bess);	/* the acknowledgement */
	}
	return n;
}

static void on_event(void *arg, int fd, uint32_t events)
{
	struct bess *bess = arg;
	int n = FRAME_BATCH;

	(void)fd;
	if (events & EPOLLOUT)
		flush(bess);
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	/* Held: only the end is of interest, which comes after the frames. */
	for (int i = 0; i < BATCHES_PER_TURN && n == FRAME_BATCH && (!bess->held || events & EPOLLHUP); i++)
		n = receive_batch(bess);
	if (n < 0 || (n == 0 && events & (EPOLLHUP | EPOLLERR))) {
		log_debug("the guest's connection ended");
		disconnect(bess);
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

static int connect_link(struct link *link, int fd, struct error *err)
{
	struct bess *bess = (struct bess *)link;
	cleanup_close int owned = fd;
	struct loop_fd *source;

	if (check_connection(fd, err))
		return -1;
	source = loop_add_fd(bess->loop, fd, EPOLLIN, on_event, bess, err);
	if (!source)
		return -1;
	disconnect(bess);
	bess->fd = steal_fd(&owned);
	bess->source = source;
	watch(bess);
	link->stats->connections++;
	return 0;
}

static void hold_link(struct link *link, bool held)
{
	struct bess *bess = (struct bess *)link;

	bess->held = held;
	watch(bess);
}

static bool is_connected(const struct link *link)
{
	return ((const struct bess *)link)->fd >= 0;
}

static void send_frame(struct link *link, const uint8_t *frame, size_t length)
{
	struct bess *bess = (struct bess *)link;
	uint8_t *room = NULL;

	if (bess->fd >= 0 && length <= link->frame_max)
		room = frame_queue_add(&bess->out, length);
	if (!room) {
		link->stats->out_dropped++;
		return;
	}
	memcpy(room, frame, length);
	if (!link->congested && (length >= PROMPT_BYTES || frame_queue_count(&bess->out) >= FRAME_BATCH))
		flush(bess);
}

static void flush_link(struct link *link)
{
	flush((struct bess *)link);
}

static void free_link(struct link *link)
{
	struct bess *bess = (struct bess *)link;

	if (bess->fd >= 0) {
		loop_remove_fd(bess->source);
		close(bess->fd);
	}
	frame_batch_free(&bess->in);
	frame_queue_free(&bess->out);
	free(bess);
}

static const struct link_ops ops = {
	.connect = connect_link,
	.send = send_frame,
	.flush = flush_link,
	.connected = is_connected,
	.hold = hold_link,
	.free = free_link,
};

struct link *link_bess_new(struct loop *loop, const struct netplug_port_config *config,
			   const struct link_events *events, struct netplug_stats *stats, struct error *err)
{
	struct bess *bess = calloc(1, sizeof(*bess));
	size_t size = ETHERNET_HEADER + VLAN_TAG + config->mtu;

	if (!bess) {
		error_oom(err);
		return NULL;
	}
	bess->link = (struct link){ .ops = &ops, .events = *events, .stats = stats, .frame_max = size };
	bess->fd = -1;
	bess->loop = loop;
	if (frame_batch_init(&bess->in, size, err) || frame_queue_init(&bess->out, QUEUE_BYTES, err)) {
		free_link(&bess->link);
		return NULL;
	}
	return &bess->link;
}
