/*
 * Frames on their way into the guest's buffers.
 *
 * A frame goes straight into buffers of the guest's. TCP segments that follow each other in a flow
 * are joined there to one super-frame (as Linux' own GRO does, with its conditions), after their checksums were
 * found right. So packets grow in the guest's memory before the guest knows of them: `packets` are those, `used` their
 * buffers in the order in which they were taken. commit() finishes their headers and makes all of them known by one store
 * of the ring's index. Therefore that index always stands for the buffers used first, whatever order the packets have, and tells a
 * plug that takes the place of a killed one where to go on (vring_resume()).
 */
#include <linux/virtio_ring.h>
#include <string.h>

#include "netplug/bytes.h"
#include "netplug/vnet_internal.h"
#include "uml-lab/base/log.h"

#define FLOWS_MAX 4	/* packets that may still grow */
#define SUPER_MAX 65535	/* bytes of an IP packet */

#define TCP_FIN 0x01
#define TCP_PSH 0x08
#define TCP_ACK 0x10
#define IPV4_DF 0x40

struct vring_queue *vnet_receive_queue(struct vnet *v)
{
	return v->u && vnet_agreed(v, VIRTIO_F_VERSION_1) ? vhost_user_queue(v->u, VNET_RX) : NULL;
}

void vnet_forget(struct vnet *v)
{
	v->packet_count = v->used_count = 0;
}

/* The headers of a packet of several segments: lengths, and the pseudo-header's sum in place of the checksum. */
static void finish_joined(struct vnet_packet *p, struct virtio_net_hdr_v1 *h)
{
	const struct offload_tcp *t = &p->tcp;
	uint16_t sum;

	offload_set_length(p->header, t, t->length - t->ip);
	sum = offload_pseudo(p->header, t, t->length - t->tcp);
	memcpy(p->header + t->tcp + OFFLOAD_TCP_CHECKSUM, &sum, 2);
	memcpy(p->start + VNET_HEADER, p->header, t->payload);
	h->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	h->gso_type = t->v6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
	h->hdr_len = (uint16_t)t->payload;
	h->gso_size = (uint16_t)p->mss;
	h->csum_start = (uint16_t)t->tcp;
	h->csum_offset = OFFLOAD_TCP_CHECKSUM;
}

void vnet_commit(struct vnet *v)
{
	struct vring_queue *q = vnet_receive_queue(v);
	unsigned n = 0;

	if (!q || !v->packet_count) {
		vnet_forget(v);
		return;
	}
	for (unsigned i = 0; i < v->packet_count; i++) {
		struct vnet_packet *p = &v->packets[i];
		struct virtio_net_hdr_v1 h = { .num_buffers = (uint16_t)p->buffers };

		if (p->segments > 1)
			finish_joined(p, &h);
		else if (p->verified && vnet_agreed(v, VIRTIO_NET_F_GUEST_CSUM))
			h.flags = VIRTIO_NET_HDR_F_DATA_VALID;
		memcpy(p->start, &h, sizeof(h));
		for (unsigned j = p->first; j <= p->last; j++) {
			if (v->used[j].packet == i)
				vring_fill(q, n++, v->used[j].head, v->used[j].written);
		}
	}
	vring_publish(q, n);
	vnet_forget(v);
}

bool vnet_pop(struct vnet *v, struct vring_queue *q, struct vring_chain *chain)
{
	struct error err; /* cleared, not zeroed: its text is as long as the guest's buffers are */
	int got;

	error_clear(&err);
	got = vring_pop(q, chain, v->iov, VRING_CHAIN_MAX, &err);
	if (got < 0)
		log_warn("eth%u: %s", v->link.stats->port, err.message);
	return got > 0;
}

/* Takes one more buffer for a packet. false: there is none now, or the ring broke. */
static bool take_buffer(struct vnet *v, struct vring_queue *q, struct vnet_packet *p)
{
	struct vring_chain chain;

	if (v->used_count == VRING_SIZE_MAX || !vnet_pop(v, q, &chain))
		return false;
	p->room_count = 0;
	for (int i = 0; i < chain.in_count && i < VNET_PIECES_MAX; i++)
		p->room[p->room_count++] = chain.iov[chain.out_count + i];
	p->last = v->used_count++;
	v->used[p->last] = (struct vnet_buffer){ .head = chain.head, .packet = (unsigned)(p - v->packets) };
	p->buffers++;
	return true;
}

/* Writes bytes into the packet, taking buffers as it needs them. false: they did not all fit; the packet is damaged. */
static bool append(struct vnet *v, struct vring_queue *q, struct vnet_packet *p, const uint8_t *data, size_t length)
{
	while (length) {
		struct iovec *room = &p->room[0];
		size_t n;

		if (p->room_count == 0) {
			if ((p->buffers && !vnet_agreed(v, VIRTIO_NET_F_MRG_RXBUF)) || !take_buffer(v, q, p))
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
static bool write_packet(struct vnet *v, struct vring_queue *q, struct vnet_packet *p, const uint8_t *data, size_t length)
{
	unsigned used = v->used_count, last = p->last, buffers = p->buffers, pieces = p->room_count;
	uint32_t written = buffers ? v->used[last].written : 0;
	struct iovec room[VNET_PIECES_MAX];

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
static struct vnet_packet *add_packet(struct vnet *v, struct vring_queue *q, const uint8_t *frame, size_t length)
{
	static const uint8_t header[VNET_HEADER];
	struct vnet_packet *p;
	unsigned used = v->used_count;

	if (v->packet_count == VNET_PACKETS_MAX) {
		vnet_commit(v);
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
	if (p->room_count == 0 || p->room[0].iov_len < VNET_HEADER) {
		v->bad = true;
		return NULL;
	}
	p->start = p->room[0].iov_base;
	p->start_room = p->room[0].iov_len;
	if (!append(v, q, p, header, VNET_HEADER) || !append(v, q, p, frame, length)) {
		vring_unpop(q, v->used_count - used);
		v->used_count = used;
		return NULL;
	}
	v->packet_count++;
	return p;
}

/* Whether both are of one flow, in one direction. */
static bool same_flow(const struct vnet_packet *p, const uint8_t *frame, const struct offload_tcp *t)
{
	size_t addresses = t->v6 ? 8 : 12, length = t->v6 ? 32 : 8;

	return p->tcp.v6 == t->v6 && p->tcp.ip == t->ip &&
	       !memcmp(p->header + p->tcp.tcp, frame + t->tcp, 4) &&
	       !memcmp(p->header + t->ip + addresses, frame + t->ip + addresses, length);
}

/* Whether a segment goes on where the packet ends, and differs in nothing that a joined one could not tell. */
static bool follows(const struct vnet_packet *p, const uint8_t *frame, const struct offload_tcp *t)
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

static bool join(struct vnet *v, struct vring_queue *q, struct vnet_packet *p, const uint8_t *frame,
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

/* Lets the packet grow, if more like it could follow, and if nothing stands behind it in the buffer (padding). */
static void open_packet(struct vnet *v, struct vnet_packet *p, const uint8_t *frame, size_t length, const struct offload_tcp *t)
{
	size_t payload = t->length - t->payload;
	unsigned flows = 0;

	/* the headers are finished last, in one piece */
	if (payload < OFFLOAD_MSS_MIN || frame[t->tcp + 13] != TCP_ACK || t->length - t->ip + payload > SUPER_MAX ||
	    p->start_room < VNET_HEADER + t->payload || length > t->length)
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

bool vnet_deliver(struct vnet *v, struct vring_queue *q, const uint8_t *frame, size_t length)
{
	struct offload_tcp t;
	bool tcp = vnet_agreed(v, VIRTIO_NET_F_GUEST_CSUM) && vnet_agreed(v, VIRTIO_NET_F_MRG_RXBUF) &&
		   offload_parse(frame, length, &t) &&
		   vnet_agreed(v, t.v6 ? VIRTIO_NET_F_GUEST_TSO6 : VIRTIO_NET_F_GUEST_TSO4);
	bool verified = false;
	struct vnet_packet *p;

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
		open_packet(v, p, frame, length, &t);
	return true;
}
