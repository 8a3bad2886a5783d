/*
 * The guest's connection by vhost-user: a virtio network device (virtio 1.2, 5.1) whose queues lie in the guest's
 * memory. Checksums and TCP segmentation are ours, so the guest handles 64 KiB at a time in either direction.
 *
 * From the guest (queue 1): each frame is copied out of the guest's memory, which the guest may change at any time; then
 * its checksum is completed. A super-frame goes on whole where the port wants that (SLIRP), else it is cut into
 * the segments that the guest meant. A bounded number of bytes a turn, so that other guests keep their share.
 *
 * To the guest (queue 0): a frame goes straight into buffers of the guest's. TCP segments that follow each other in a flow
 * are joined there to one super-frame (as Linux' own GRO does, with its conditions), after their checksums were
 * found right. So packets grow in the guest's memory before the guest knows of them: `packets` are those, `used` their
 * buffers in the order in which they were taken. commit() finishes their headers and makes all of them known by one store
 * of the ring's index. Therefore that index always stands for the buffers used first, whatever order the packets have, and tells a
 * plug that takes the place of a killed one where to go on (vring_resume()).
 *
 * When the guest has no buffers, frames wait in a bounded queue, and the port is told (link->congested).
 *
 * The connection is the supervisor's relay, which keeps the guest's and sets up a new plug as the last was (machine/vhost_relay.c). An
 * interface that is down in the guest is not seen here: its buffers fill up, and no more is taken.
 */
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "netplug/netplug_internal.h"
#include "netplug/offload.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"
#include "uml-lab/base/vhost_user.h"

#define RX 0				/* of the guest's, as in the standard */
#define TX 1
#define QUEUES 2
#define BIT(n) (UINT64_C(1) << (n))

#define HEADER sizeof(struct virtio_net_hdr_v1)
#define TURN_BYTES (512 * 1024)		/* taken from the guest in one turn */
#define TURN_FRAMES 256
#define QUEUE_BYTES (1024 * 1024)
#define CONGESTED_BYTES (QUEUE_BYTES / 4)
#define PACKETS_MAX 64			/* not yet made known */
#define FLOWS_MAX 4			/* of them may still grow */
#define PIECES_MAX 64			/* of one buffer; Linux' mergeable ones have one */
#define SUPER_MAX 65535			/* bytes of an IP packet */
#define PROMPT_BYTES 4096		/* told to the guest at once, which works on them while more come */

#define TCP_FIN 0x01
#define TCP_PSH 0x08
#define TCP_ACK 0x10
#define IPV4_DF 0x40

/* A packet that is being written into the guest's buffers. */
struct packet {
	uint8_t *start;			/* its first piece: the headers go there, … */
	size_t start_room;		/* … if it has so many bytes */
	unsigned first, last, buffers;	/* in used[]: its first, its latest, how many */
	struct iovec room[PIECES_MAX];	/* what is left of the buffer taken last */
	unsigned room_count;
	bool open;			/* may still grow */
	bool verified;
	unsigned segments;
	size_t mss;
	struct offload_tcp tcp;		/* of the first segment; length: of the whole */
	uint32_t sequence;		/* that would follow */
	uint8_t header[OFFLOAD_HEADER_MAX];
};

struct used_buffer {
	uint16_t head;
	uint32_t written;
	unsigned packet;
};

struct vnet {
	struct link link;		/* first */
	struct loop *loop;
	struct vhost_user_device device;
	struct vhost_user *u;		/* NULL: no connection */
	struct loop_fd *source, *kicks[QUEUES];
	struct virtio_net_config config;
	bool trusted;			/* checksums of what goes to the guest are right */
	bool held;
	bool waiting;			/* frames of the guest's may be there: kicks are not wanted meanwhile */
	bool bad;			/* the guest's buffers can't be used: its connection is to be ended */

	struct packet packets[PACKETS_MAX];
	unsigned packet_count;
	struct used_buffer used[VRING_SIZE_MAX];
	unsigned used_count;
	struct frame_queue out;		/* frames that found no buffer */
	struct iovec iov[VRING_CHAIN_MAX];
	uint8_t frame[HEADER + OFFLOAD_FRAME_MAX];
};

static bool agreed(const struct vnet *v, unsigned feature)
{
	return vhost_user_features(v->u) & BIT(feature);
}

/* Calls of a guest that is gone need not be told: its connection ends. */
static void call(struct vnet *v, struct vring_queue *q)
{
	vhost_user_call(v->u, q, NULL);
}

/* ---- To the guest ---- */

static struct vring_queue *receive_queue(struct vnet *v)
{
	return v->u && agreed(v, VIRTIO_F_VERSION_1) ? vhost_user_queue(v->u, RX) : NULL;
}

static void forget_packets(struct vnet *v)
{
	v->packet_count = v->used_count = 0;
}

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

/* The headers of a packet of several segments: lengths, and the pseudo-header's sum in place of the checksum. */
static void finish_joined(struct packet *p, struct virtio_net_hdr_v1 *h)
{
	const struct offload_tcp *t = &p->tcp;
	uint16_t sum;

	offload_set_length(p->header, t, t->length - t->ip);
	sum = offload_pseudo(p->header, t, t->length - t->tcp);
	memcpy(p->header + t->tcp + 16, &sum, 2);
	memcpy(p->start + HEADER, p->header, t->payload);
	h->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	h->gso_type = t->v6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
	h->hdr_len = (uint16_t)t->payload;
	h->gso_size = (uint16_t)p->mss;
	h->csum_start = (uint16_t)t->tcp;
	h->csum_offset = 16;
}

/* Makes all packets known to the guest, which vhost_user_call() tells. */
static void commit(struct vnet *v)
{
	struct vring_queue *q = receive_queue(v);
	unsigned n = 0;

	if (!q || !v->packet_count) {
		forget_packets(v);
		return;
	}
	for (unsigned i = 0; i < v->packet_count; i++) {
		struct packet *p = &v->packets[i];
		struct virtio_net_hdr_v1 h = { .num_buffers = (uint16_t)p->buffers };

		if (p->segments > 1)
			finish_joined(p, &h);
		else if (p->verified && agreed(v, VIRTIO_NET_F_GUEST_CSUM))
			h.flags = VIRTIO_NET_HDR_F_DATA_VALID;
		memcpy(p->start, &h, sizeof(h));
		for (unsigned j = p->first; j <= p->last; j++) {
			if (v->used[j].packet == i)
				vring_fill(q, n++, v->used[j].head, v->used[j].written);
		}
	}
	vring_publish(q, n);
	forget_packets(v);
}

/* Takes one more buffer for a packet. false: there is none now, or the ring broke. */
static bool take_buffer(struct vnet *v, struct vring_queue *q, struct packet *p)
{
	struct vring_chain chain;
	struct error err = ERROR_INIT;
	int got = v->used_count < VRING_SIZE_MAX ? vring_pop(q, &chain, v->iov, VRING_CHAIN_MAX, &err) : 0;

	if (got < 0)
		log_warn("eth%u: %s", v->link.stats->port, err.message);
	if (got <= 0)
		return false;
	p->room_count = 0;
	for (int i = 0; i < chain.in_count && i < PIECES_MAX; i++)
		p->room[p->room_count++] = chain.iov[chain.out_count + i];
	p->last = v->used_count++;
	v->used[p->last] = (struct used_buffer){ .head = chain.head, .packet = (unsigned)(p - v->packets) };
	p->buffers++;
	return true;
}

/* Writes bytes into the packet, taking buffers as it needs them. false: they did not all fit; the packet is damaged. */
static bool append(struct vnet *v, struct vring_queue *q, struct packet *p, const uint8_t *data, size_t length)
{
	while (length) {
		struct iovec *room = &p->room[0];
		size_t n;

		if (p->room_count == 0) {
			if ((p->buffers && !agreed(v, VIRTIO_NET_F_MRG_RXBUF)) || !take_buffer(v, q, p))
				return false;
			continue;
		}
		n = room->iov_len < length ? room->iov_len : length;
		memcpy(room->iov_base, data, n);
		*room = (struct iovec){ (uint8_t *)room->iov_base + n, room->iov_len - n };
		v->used[p->last].written += (uint32_t)n;
		data += n;
		length -= n;
		if (room->iov_len == 0)
			memmove(p->room, p->room + 1, --p->room_count * sizeof(p->room[0]));
	}
	return true;
}

/* The same, or nothing: then the packet is as it was, and the buffers taken are put back. */
static bool write_packet(struct vnet *v, struct vring_queue *q, struct packet *p, const uint8_t *data, size_t length)
{
	unsigned used = v->used_count, last = p->last, buffers = p->buffers, pieces = p->room_count;
	uint32_t written = buffers ? v->used[last].written : 0;
	struct iovec room[PIECES_MAX];

	memcpy(room, p->room, pieces * sizeof(room[0]));
	if (append(v, q, p, data, length))
		return true;
	vring_unpop(q, v->used_count - used);
	v->used_count = used;
	p->last = last;
	p->buffers = buffers;
	p->room_count = pieces;
	memcpy(p->room, room, pieces * sizeof(room[0]));
	if (buffers)
		v->used[last].written = written;
	return false;
}

/* A packet of one frame. NULL: there are no buffers for it. */
static struct packet *add_packet(struct vnet *v, struct vring_queue *q, const uint8_t *frame, size_t length)
{
	static const uint8_t header[HEADER];
	struct packet *p;
	unsigned used = v->used_count;

	if (v->packet_count == PACKETS_MAX) {
		commit(v);
		used = 0;
	}
	p = &v->packets[v->packet_count];
	p->buffers = p->room_count = 0;
	p->first = used;
	p->segments = 1;
	p->open = false;
	p->verified = v->trusted;
	if (!take_buffer(v, q, p))
		return NULL;
	if (p->room_count == 0 || p->room[0].iov_len < HEADER) {
		v->bad = true;
		return NULL;
	}
	p->start = p->room[0].iov_base;
	p->start_room = p->room[0].iov_len;
	if (!append(v, q, p, header, HEADER) || !append(v, q, p, frame, length)) {
		vring_unpop(q, v->used_count - used);
		v->used_count = used;
		return NULL;
	}
	v->packet_count++;
	return p;
}

/* Whether both are of one flow, in one direction. */
static bool same_flow(const struct packet *p, const uint8_t *frame, const struct offload_tcp *t)
{
	size_t addresses = t->v6 ? 8 : 12, length = t->v6 ? 32 : 8;

	return p->tcp.v6 == t->v6 && p->tcp.ip == t->ip &&
	       !memcmp(p->header + p->tcp.tcp, frame + t->tcp, 4) &&
	       !memcmp(p->header + t->ip + addresses, frame + t->ip + addresses, length);
}

/* Whether a segment goes on where the packet ends, and differs in nothing that a joined one could not tell. */
static bool follows(const struct packet *p, const uint8_t *frame, const struct offload_tcp *t)
{
	const uint8_t *a = p->header, *b = frame;
	size_t ip = t->ip, tcp = t->tcp, payload = t->length - t->payload;

	if (p->tcp.tcp != tcp || p->tcp.payload != t->payload || payload == 0 || payload > p->mss ||
	    p->tcp.length - ip + payload > SUPER_MAX || get32(b + tcp + 4) != p->sequence)
		return false;
	if (memcmp(a, b, ip) || memcmp(a + tcp + 8, b + tcp + 8, 5) || b[tcp + 13] & ~(TCP_ACK | TCP_PSH | TCP_FIN) ||
	    memcmp(a + tcp + 14, b + tcp + 14, 2) || memcmp(a + tcp + 18, b + tcp + 18, t->payload - tcp - 18))
		return false;
	if (t->v6)
		return !memcmp(a + ip, b + ip, 4) && !memcmp(a + ip + 6, b + ip + 6, 2);
	/* Cut again, the segments get identifications that count up (RFC 6864: they mean nothing with DF). */
	return !memcmp(a + ip, b + ip, 2) && !memcmp(a + ip + 6, b + ip + 6, 4) &&
	       !memcmp(a + ip + 20, b + ip + 20, tcp - ip - 20) &&
	       (b[ip + 6] & IPV4_DF || get16(b + ip + 4) == (uint16_t)(get16(a + ip + 4) + p->segments));
}

static bool join(struct vnet *v, struct vring_queue *q, struct packet *p, const uint8_t *frame,
		 const struct offload_tcp *t)
{
	size_t payload = t->length - t->payload;
	uint8_t last = frame[t->tcp + 13] & (TCP_PSH | TCP_FIN);

	if (!write_packet(v, q, p, frame + t->payload, payload))
		return false;
	p->segments++;
	p->tcp.length += payload;
	p->sequence += (uint32_t)payload;
	p->header[t->tcp + 13] |= last;
	p->open = !last && payload == p->mss;
	return true;
}

/* Lets the packet grow, if more like it could follow. */
static void open_packet(struct vnet *v, struct packet *p, const uint8_t *frame, const struct offload_tcp *t)
{
	size_t payload = t->length - t->payload;
	unsigned flows = 0;

	/* the headers are finished last, in one piece */
	if (payload < OFFLOAD_MSS_MIN || frame[t->tcp + 13] != TCP_ACK || t->length - t->ip + payload > SUPER_MAX ||
	    p->start_room < HEADER + t->payload)
		return;
	for (unsigned i = v->packet_count - 1; i-- > 0;) {
		if (v->packets[i].open && ++flows >= FLOWS_MAX)
			v->packets[i].open = false;
	}
	p->open = true;
	p->tcp = *t;
	p->mss = payload;
	p->sequence = get32(frame + t->tcp + 4) + (uint32_t)payload;
	memcpy(p->header, frame, t->payload);
}

/* Writes a frame into the guest's buffers. false: there are none for it now. */
static bool deliver(struct vnet *v, struct vring_queue *q, const uint8_t *frame, size_t length)
{
	struct offload_tcp t;
	bool tcp = agreed(v, VIRTIO_NET_F_GUEST_CSUM) && agreed(v, VIRTIO_NET_F_MRG_RXBUF) &&
		   offload_parse(frame, length, &t) &&
		   agreed(v, t.v6 ? VIRTIO_NET_F_GUEST_TSO6 : VIRTIO_NET_F_GUEST_TSO4);
	bool verified = false;
	struct packet *p;

	for (unsigned i = tcp ? v->packet_count : 0; i-- > 0;) {
		p = &v->packets[i];
		if (!p->open || !same_flow(p, frame, &t))
			continue;
		verified = v->trusted || offload_verify(frame, &t);
		if (verified && follows(p, frame, &t))
			return join(v, q, p, frame, &t);
		p->open = false;
		break;
	}
	p = add_packet(v, q, frame, length);
	if (!p)
		return false;
	if (tcp && (verified || v->trusted || offload_verify(frame, &t)))
		open_packet(v, p, frame, &t);
	return true;
}

static bool deliver_counted(struct vnet *v, struct vring_queue *q, const uint8_t *frame, size_t length)
{
	if (!deliver(v, q, frame, length))
		return false;
	v->link.stats->out_frames++;
	v->link.stats->out_bytes += length;
	return true;
}

static void tell_guest(struct vnet *v)
{
	struct vring_queue *q;

	commit(v);
	q = receive_queue(v);
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
	struct vring_queue *q = receive_queue(v);
	uint8_t *room;

	if (!q || length > link->frame_max) {
		link->stats->out_dropped++;
		return;
	}
	if (!frame_queue_count(&v->out) && deliver_counted(v, q, frame, length)) {
		if (v->trusted && length >= PROMPT_BYTES)
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
	else if (h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM && h->csum_start == t.tcp && h->csum_offset == 16 &&
		 offload_complete(frame, t.length, t.tcp, 16))
		pass_on(v, frame, t.length);
	else
		v->link.stats->in_refused++;
}

/* A copy of what the guest sent: header and frame. */
static void take_frame(struct vnet *v, uint8_t *data, size_t length)
{
	struct virtio_net_hdr_v1 h;
	uint8_t *frame = data + HEADER;

	if (length < HEADER + ETHERNET_HEADER) {
		v->link.stats->in_runts++;
		return;
	}
	memcpy(&h, data, sizeof(h));
	length -= HEADER;
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
	struct error err = ERROR_INIT;
	int got = vring_pop(q, &chain, v->iov, VRING_CHAIN_MAX, &err);
	size_t length;

	if (got < 0)
		log_warn("eth%u: %s", v->link.stats->port, err.message);
	if (got <= 0)
		return 0;
	length = gather(v, &chain);
	vring_push(q, chain.head, 0);
	if (length > sizeof(v->frame))
		v->link.stats->in_giants++;
	else
		take_frame(v, v->frame, length);
	if (length >= PROMPT_BYTES && v->trusted)
		tell_guest(v);	/* the acknowledgement */
	return length + 1;
}

static void receive_frames(struct link *link)
{
	struct vnet *v = (struct vnet *)link;
	struct vring_queue *q = v->u && agreed(v, VIRTIO_F_VERSION_1) ? vhost_user_queue(v->u, TX) : NULL;
	size_t bytes = 0, n;

	for (int frames = 0; q && v->waiting && !v->held && frames < TURN_FRAMES && bytes < TURN_BYTES; frames++) {
		n = take_next(v, q);
		bytes += n;
		if (n)
			continue;
		vring_want_kicks(q, true);
		if (vring_waiting(q))
			vring_want_kicks(q, false);
		else
			v->waiting = false;
	}
	if (bytes)
		call(v, q);
	if (!q)
		v->waiting = false;
	link->more = v->waiting && !v->held;
}

/* ---- Its life ---- */

static bool is_connected(const struct link *link)
{
	struct vnet *v = (struct vnet *)link;

	return v->u && vhost_user_queue(v->u, RX) && vhost_user_queue(v->u, TX);
}

static void disconnect(struct vnet *v)
{
	if (!v->u)
		return;
	for (unsigned i = 0; i < QUEUES; i++) {
		loop_remove_fd(v->kicks[i]);
		v->kicks[i] = NULL;
	}
	loop_remove_fd(v->source);
	v->source = NULL;
	forget_packets(v);
	vhost_user_free(v->u);
	v->u = NULL;
	v->waiting = v->bad = v->link.more = false;
	v->link.stats->out_dropped += frame_queue_clear(&v->out);
	link_set_congested(&v->link, false);
}

static void flush_link(struct link *link)
{
	struct vnet *v = (struct vnet *)link;
	struct vring_queue *q = receive_queue(v);

	if (q && frame_queue_count(&v->out)) {
		drain(v, q);
		tell_guest(v);
		vring_want_kicks(q, frame_queue_count(&v->out) > 0);
		if (frame_queue_count(&v->out) && vring_waiting(q) > 0) {
			drain(v, q);	/* a kick may have just been missed */
		}
		if (!frame_queue_count(&v->out))
			link_set_congested(link, false);
	}
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
	for (unsigned i = 0; i < QUEUES; i++) {
		struct vring_queue *q = vhost_user_queue(v->u, i);

		if (!q || q->kick != fd)
			continue;
		vhost_user_take_kick(q);
		vring_want_kicks(q, false);
		if (i == TX)
			v->waiting = true;	/* the rest is done at the end of the turn, as for RX */
	}
}

static void queue_changed(void *arg, unsigned index)
{
	struct vnet *v = arg;
	struct vring_queue *q = v->u ? vhost_user_queue(v->u, index) : NULL;
	struct error err = ERROR_INIT;

	loop_remove_fd(v->kicks[index]);
	v->kicks[index] = NULL;
	if (index == RX)
		forget_packets(v);
	if (!q)
		return;
	vring_resume(q);
	v->kicks[index] = loop_add_fd(v->loop, q->kick, EPOLLIN, on_kick, v, &err);
	if (!v->kicks[index])
		log_error(&err);
	vring_want_kicks(q, false);
	call(v, q);
	if (index == TX)
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
	v->link = (struct link){
		.ops = &ops, .events = *events, .stats = stats,
		.frame_max = ETHERNET_HEADER + VLAN_TAG + config->mtu,
	};
	v->loop = loop;
	v->trusted = config->kind == NETPLUG_KIND_SLIRP;
	v->config.mtu = (uint16_t)config->mtu;
	memcpy(v->config.mac, config->mac, sizeof(v->config.mac));
	v->device = (struct vhost_user_device){
		.features = (memcmp(config->mac, no_mac, sizeof(no_mac)) ? BIT(VIRTIO_NET_F_MAC) : 0) |
			    BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_MTU) |
			    BIT(VIRTIO_NET_F_GUEST_TSO4) | BIT(VIRTIO_NET_F_GUEST_TSO6) |
			    BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) | BIT(VIRTIO_NET_F_MRG_RXBUF),
		.queues = QUEUES,
		.config_length = offsetof(struct virtio_net_config, speed),
		.get_config = get_config,
		.queue_changed = queue_changed,
		.arg = v,
	};
	return &v->link;
}
