/*
 * The guest's connection by vhost-user: a virtio network device (virtio 1.2, 5.1) whose queues lie in the guest's
 * memory. Checksums and TCP segmentation are ours, so the guest handles 64 KiB at a time in either direction.
 *
 * From the guest (queue 1): each frame is copied out of the guest's memory, which the guest may change at any time; then
 * its checksum is completed. A super-frame goes on whole where the port wants that (SLIRP), else it is cut into
 * the segments that the guest meant. A bounded number of bytes a turn, so that other guests keep their share.
 *
 * To the guest (queue 0): straight into buffers of the guest's, TCP segments joined to super-frames: vnet_join.c.
 *
 * Of requests that are done the guest wants to know after each one (virtqueue_enable_cb_delayed() with one pending), and an
 * interrupt costs UML more than an acknowledgement does. It looks for itself whenever frames come for it
 * (virtio_net.c: virtnet_poll_cleantx()). So it is told of small frames taken only after a while, when most often it knows.
 *
 * When the guest has no buffers, frames wait in a bounded queue, and the port is told (link->congested).
 *
 * The connection is the supervisor's relay, which keeps the guest's and sets up a new plug as the last was
 * (machine/vhost_relay.c). An interface that is down in the guest is not seen here: its buffers fill up, and
 * no more is taken.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "netplug/vnet_internal.h"
#include "uml-lab/base/log.h"
#include "uml-lab/base/vhost_recall.h"

#define TURN_BYTES (512 * 1024)		/* taken from the guest in one turn */
#define TURN_FRAMES 256
#define QUEUE_BYTES (1024 * 1024)
#define CONGESTED_BYTES (QUEUE_BYTES / 4)
#define PROMPT_BYTES 60000		/* told to the guest at once, which works on them while more come */
#define ANSWER_BYTES (128 * 1024)	/* taken before the guest is told of answers: half of what it may have under way */
#define DRAINS 4			/* tries in one turn to get rid of what waits, while the guest adds buffers */

#define LAZY_BYTES 256			/* of a turn's frames on average: acknowledgements and the like */
#define LAZY_FRAMES 32
#define LAZY_MS 1

/* Calls of a guest that is gone need not be told: its connection ends. */
static void call(struct vnet *v, struct vring_queue *q)
{
	vhost_user_call(v->u, q, NULL);
}

/* ---- To the guest ---- */

static bool deliver_counted(struct vnet *v, struct vring_queue *q, const uint8_t *frame, size_t length)
{
	if (!vnet_deliver(v, q, frame, length))
		return false;
	v->link.stats->out_frames++;
	v->link.stats->out_bytes += length;
	return true;
}

static void tell_guest(struct vnet *v)
{
	struct vring_queue *q;

	v->unanswered = v->untold_bytes = 0;
	vnet_commit(v);
	q = vnet_receive_queue(v);
	if (q)
		call(v, q);
}

/* Frames that wait go before all others. */
static void drain(struct vnet *v, struct vring_queue *q)
{
	struct frame_queue *out = &v->out;

	while (out->first < out->last) {
		const struct queued_frame *f = &out->frames[out->first];

		if (!deliver_counted(v, q, out->data + f->offset, f->length)) {
			/* more than all of its buffers hold: it will never fit */
			if (v->packet_count || vring_waiting(q) < q->size)
				break;
			v->link.stats->out_dropped++;
		}
		out->first++;
	}
	if (out->first == out->last)
		frame_queue_clear(out);
}

static void send_frame(struct link *link, const uint8_t *frame, size_t length)
{
	struct vnet *v = (struct vnet *)link;
	struct vring_queue *q = vnet_receive_queue(v);
	uint8_t *room;

	if (!q || length > link->frame_max) {
		link->stats->out_dropped++;
		return;
	}
	if (!frame_queue_count(&v->out) && deliver_counted(v, q, frame, length)) {
		v->untold_bytes += length;
		if (v->untold_bytes >= PROMPT_BYTES && v->trusted)
			tell_guest(v);
		return;
	}
	room = frame_queue_add(&v->out, length);
	if (room)
		memcpy(room, frame, length);
	else
		link->stats->out_dropped++;
	if (frame_queue_bytes(&v->out) > CONGESTED_BYTES || frame_queue_count(&v->out) > FRAME_QUEUE_MAX / 4)
		link_set_congested(link, true);
}

/* ---- From the guest ---- */

static void pass_on(void *arg, const uint8_t *frame, size_t length)
{
	struct vnet *v = arg;

	v->link.stats->in_frames++;
	v->link.stats->in_bytes += length;
	v->link.events.frame(v->link.events.arg, frame, length);
}

/* A super-frame: whole, or as the segments it stands for. */
static void take_super(struct vnet *v, const struct virtio_net_hdr_v1 *h, uint8_t *frame, size_t length)
{
	struct offload_tcp t;

	if (!offload_parse(frame, length, &t) ||
	    h->gso_type != (t.v6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4) || h->gso_size < OFFLOAD_MSS_MIN) {
		v->link.stats->in_refused++;
		return;
	}
	if (t.payload + h->gso_size > v->link.frame_max) {
		v->link.stats->in_giants++;
		return;
	}
	if (!v->link.super)
		offload_cut(frame, &t, h->gso_size, pass_on, v);
	else if (h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM && h->csum_start == t.tcp && h->csum_offset == OFFLOAD_TCP_CHECKSUM &&
		 offload_complete(frame, t.length, t.tcp, OFFLOAD_TCP_CHECKSUM))
		pass_on(v, frame, t.length);
	else
		v->link.stats->in_refused++;
}

/* A copy of what the guest sent: header and frame. */
static void take_frame(struct vnet *v, uint8_t *data, size_t length)
{
	struct virtio_net_hdr_v1 h;
	uint8_t *frame = data + VNET_HEADER;

	if (length < VNET_HEADER + ETHERNET_HEADER) {
		v->link.stats->in_runts++;
		return;
	}
	memcpy(&h, data, sizeof(h));
	length -= VNET_HEADER;
	if (h.gso_type != VIRTIO_NET_HDR_GSO_NONE)
		take_super(v, &h, frame, length);
	else if (length > v->link.frame_max)
		v->link.stats->in_giants++;
	else if (h.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM && !offload_complete(frame, length, h.csum_start, h.csum_offset))
		v->link.stats->in_refused++;
	else
		pass_on(v, frame, length);
}

/* Copies a request; a longer one than any frame comes back as too long. */
static size_t gather(struct vnet *v, const struct vring_chain *chain)
{
	size_t length = 0;

	if (chain->out_bytes > sizeof(v->frame))
		return sizeof(v->frame) + 1;
	for (int i = 0; i < chain->out_count; i++) {
		memcpy(v->frame + length, chain->iov[i].iov_base, chain->iov[i].iov_len);
		length += chain->iov[i].iov_len;
	}
	return length;
}

/* Takes the next frame. Its bytes, 0: there is none. */
static size_t take_next(struct vnet *v, struct vring_queue *q)
{
	struct vring_chain chain;
	size_t length;

	if (!vnet_pop(v, q, &chain))
		return 0;
	length = gather(v, &chain);
	vring_push(q, chain.head, 0);
	if (length > sizeof(v->frame))
		v->link.stats->in_giants++;
	else
		take_frame(v, v->frame, length);
	v->unanswered += length;
	if (v->unanswered >= ANSWER_BYTES && v->trusted)
		tell_guest(v);
	return length + 1;
}

static struct vring_queue *transmit_queue(struct vnet *v)
{
	return v->u && vnet_agreed(v, VIRTIO_F_VERSION_1) ? vhost_user_queue(v->u, VNET_TX) : NULL;
}

static void tell_taken(struct vnet *v, struct vring_queue *q)
{
	loop_arm_timer(v->lazy, -1);
	v->untold = 0;
	call(v, q);
}

static void on_lazy(void *arg)
{
	struct vnet *v = arg;
	struct vring_queue *q = transmit_queue(v);

	if (q)
		tell_taken(v, q);
}

/* The guest gets to know of frames that were taken: now, or soon. */
static void note_taken(struct vnet *v, struct vring_queue *q, unsigned frames, size_t bytes)
{
	v->untold += frames;
	if (bytes > (size_t)frames * LAZY_BYTES || v->untold > LAZY_FRAMES || v->untold > q->size / 4)
		tell_taken(v, q);
	else if (v->untold == frames)
		loop_arm_timer(v->lazy, LAZY_MS);
}

/* While the loop does not sleep, neither kicks are wanted nor the clock for lost interrupts. */
static void look(struct vnet *v, struct vring_queue *q)
{
	if (!v->u)
		return;
	if (v->looking != v->link.look) {
		v->looking = v->link.look;
		v->recalled_at = loop_now_ns();
		vhost_user_look(v->u, v->looking);
	}
	if (!v->looking)
		return;
	if (q && !v->waiting) {
		vring_want_kicks(q, false);
		v->waiting = true;
	}
	if (loop_now_ns() - v->recalled_at >= RECALL_FIRST_NS) {
		v->recalled_at = loop_now_ns();
		vhost_user_call_again(v->u, NULL);	/* one that is gone is found by its messages' reader */
	}
}

static void receive_frames(struct link *link)
{
	struct vnet *v = (struct vnet *)link;
	struct vring_queue *q = transmit_queue(v);
	size_t bytes = 0, n;
	unsigned taken = 0;

	look(v, q);
	for (int frames = 0; q && v->waiting && !v->held && frames < TURN_FRAMES && bytes < TURN_BYTES; frames++) {
		n = take_next(v, q);
		bytes += n;
		taken += n > 0;
		if (n)
			continue;
		if (link->look)
			break;
		vring_want_kicks(q, true);
		if (vring_waiting(q))
			vring_want_kicks(q, false);
		else
			v->waiting = false;
	}
	if (taken)
		note_taken(v, q, taken, bytes);
	if (!q)
		v->waiting = false;
	link->more = v->waiting && !v->held;
}

/* ---- Its life ---- */

static bool is_connected(const struct link *link)
{
	struct vnet *v = (struct vnet *)link;

	return v->u && vhost_user_queue(v->u, VNET_RX) && vhost_user_queue(v->u, VNET_TX);
}

static void disconnect(struct vnet *v)
{
	if (!v->u)
		return;
	for (unsigned i = 0; i < VNET_QUEUES; i++) {
		loop_remove_fd(v->kicks[i]);
		v->kicks[i] = NULL;
	}
	loop_remove_fd(v->source);
	v->source = NULL;
	vnet_forget(v);
	loop_arm_timer(v->lazy, -1);
	v->untold = 0;
	vhost_user_free(v->u);
	v->u = NULL;
	v->waiting = v->bad = v->link.more = v->looking = false;
	v->link.stats->out_dropped += frame_queue_clear(&v->out);
	link_set_congested(&v->link, false);
}

/*
 * Frames that wait go as far as there are buffers; then a kick is asked for when there are more, also if some are left that are too
 * few for the first frame.
 */
static void drain_all(struct vnet *v, struct vring_queue *q)
{
	bool more = true;

	for (int i = 0; more && i < DRAINS; i++) {
		uint16_t seen = vring_seen(q);

		drain(v, q);
		tell_guest(v);
		if (!frame_queue_count(&v->out)) {
			vring_want_kicks(q, false);
			link_set_congested(&v->link, false);
			return;
		}
		more = vring_want_more(q, seen);
	}
	v->link.more |= more;
}

static void flush_link(struct link *link)
{
	struct vnet *v = (struct vnet *)link;
	struct vring_queue *q = vnet_receive_queue(v);

	if (q && frame_queue_count(&v->out))
		drain_all(v, q);
	if (v->packet_count)
		tell_guest(v);
	if (v->bad) {
		log_warn("eth%u: the guest's buffers are too small for a header", link->stats->port);
		disconnect(v);
	}
}

static void on_kick(void *arg, int fd, uint32_t events)
{
	struct vnet *v = arg;

	(void)events;
	for (unsigned i = 0; i < VNET_QUEUES; i++) {
		struct vring_queue *q = vhost_user_queue(v->u, i);

		if (!q || q->kick != fd)
			continue;
		vring_want_kicks(q, false);
		if (i == VNET_TX)
			v->waiting = true;	/* the rest is done at the end of the turn, as for VNET_RX */
	}
}

static void queue_changed(void *arg, unsigned index)
{
	struct vnet *v = arg;
	struct vring_queue *q = v->u ? vhost_user_queue(v->u, index) : NULL;
	struct error err = ERROR_INIT;

	loop_remove_fd(v->kicks[index]);
	v->kicks[index] = NULL;
	if (index == VNET_RX)
		vnet_forget(v);
	if (!q)
		return;
	vring_resume(q);
	v->kicks[index] = loop_add_fd(v->loop, q->kick, EPOLLIN | EPOLLET, on_kick, v, &err);
	if (!v->kicks[index])
		log_error(&err);
	vring_want_kicks(q, false);
	call(v, q);
	if (index == VNET_TX)
		v->waiting = true;
}

static void on_message(void *arg, int fd, uint32_t events)
{
	struct vnet *v = arg;
	struct error err = ERROR_INIT;
	int got;

	(void)fd;
	(void)events;
	while ((got = vhost_user_receive(v->u, &err)) == 1)
		;
	if (got == 0)
		return;
	if (err.kind != ERROR_STATE)
		log_error(&err);
	disconnect(v);
}

static void get_config(void *arg, void *out)
{
	struct vnet *v = arg;

	memcpy(out, &v->config, v->device.config_length);
}

static int connect_link(struct link *link, int fd, struct error *err)
{
	struct vnet *v = (struct vnet *)link;

	disconnect(v);
	v->u = vhost_user_new(fd, &v->device, err);
	if (!v->u)
		return -1;
	v->source = loop_add_fd(v->loop, vhost_user_fd(v->u), EPOLLIN, on_message, v, err);
	if (!v->source) {
		disconnect(v);
		return -1;
	}
	link->stats->connections++;
	return 0;
}

static void hold_link(struct link *link, bool held)
{
	struct vnet *v = (struct vnet *)link;

	v->held = held;
	link->more = v->waiting && !held;
}

static void free_link(struct link *link)
{
	struct vnet *v = (struct vnet *)link;

	disconnect(v);
	loop_remove_timer(v->lazy);
	frame_queue_free(&v->out);
	free(v);
}

static const struct link_ops ops = {
	.connect = connect_link,
	.send = send_frame,
	.receive = receive_frames,
	.flush = flush_link,
	.connected = is_connected,
	.hold = hold_link,
	.free = free_link,
};

struct link *link_vnet_new(struct loop *loop, const struct netplug_port_config *config,
			   const struct link_events *events, struct netplug_stats *stats, struct error *err)
{
	static const uint8_t no_mac[6];
	struct vnet *v = calloc(1, sizeof(*v));

	if (!v || frame_queue_init(&v->out, QUEUE_BYTES, NULL)) {
		free(v);
		error_oom(err);
		return NULL;
	}
	v->lazy = loop_add_timer(loop, -1, on_lazy, v, err);
	if (!v->lazy) {
		frame_queue_free(&v->out);
		free(v);
		return NULL;
	}
	v->link = (struct link){
		.ops = &ops, .events = *events, .stats = stats,
		.frame_max = ETHERNET_HEADER + VLAN_TAG + config->mtu,
	};
	v->loop = loop;
	v->trusted = config->kind == NETPLUG_KIND_SLIRP;
	v->config.mtu = (uint16_t)config->mtu;
	memcpy(v->config.mac, config->mac, sizeof(v->config.mac));
	v->device = (struct vhost_user_device){
		.features = (memcmp(config->mac, no_mac, sizeof(no_mac)) ? VNET_BIT(VIRTIO_NET_F_MAC) : 0) |
			    VNET_BIT(VIRTIO_NET_F_CSUM) | VNET_BIT(VIRTIO_NET_F_GUEST_CSUM) | VNET_BIT(VIRTIO_NET_F_MTU) |
			    VNET_BIT(VIRTIO_NET_F_GUEST_TSO4) | VNET_BIT(VIRTIO_NET_F_GUEST_TSO6) |
			    VNET_BIT(VIRTIO_NET_F_HOST_TSO4) | VNET_BIT(VIRTIO_NET_F_HOST_TSO6) | VNET_BIT(VIRTIO_NET_F_MRG_RXBUF),
		.queues = VNET_QUEUES,
		.config_length = offsetof(struct virtio_net_config, speed),
		.get_config = get_config,
		.queue_changed = queue_changed,
		.arg = v,
	};
	return &v->link;
}
