/* Checksums, segments cut and joined, and a plug that goes on in the middle of another's queues. */
#include <netinet/in.h>
#include <poll.h>

#include "tests/unit/unit.h"
#include "tests/unit/vnet_world.h"

#define MSS	 1428
#define BUFFER	 2048u
#define BUFFERS	 0x10000u /* in the guest's memory */
#define MEMORY	 0x80000u
#define FRAMES	 128
#define FEATURES                                                                                                       \
	(UINT64_C(1) << VIRTIO_F_VERSION_1 | 1u << VIRTIO_NET_F_CSUM | 1u << VIRTIO_NET_F_GUEST_CSUM |                 \
	 1u << VIRTIO_NET_F_GUEST_TSO4 | 1u << VIRTIO_NET_F_GUEST_TSO6 | 1u << VIRTIO_NET_F_HOST_TSO4 |                \
	 1u << VIRTIO_NET_F_HOST_TSO6 | 1u << VIRTIO_NET_F_MRG_RXBUF)

static uint8_t seen[FRAMES][OFFLOAD_FRAME_MAX];
static size_t seen_length[FRAMES], seen_count;

static void see(void *arg, const uint8_t *frame, size_t length)
{
	(void)arg;
	if (seen_count < FRAMES) {
		memcpy(seen[seen_count], frame, length);
		seen_length[seen_count] = length;
	}
	seen_count++;
}

static void nothing(void *arg)
{
	(void)arg;
}

static const struct link_events events = {see, nothing, NULL};

/* A TCP frame with `payload` bytes of a pattern, without checksums. Its length. */
static size_t make_frame(uint8_t *f, bool v6, bool vlan, size_t payload)
{
	size_t ip = vlan ? 18 : 14, tcp = ip + (v6 ? 40 : 20), packet = tcp - ip + 32 + payload;
	uint16_t type = v6 ? 0x86dd : 0x0800;

	memset(f, 0, tcp + 32);
	memset(f, 2, 12);
	if (vlan)
		memcpy(f + 12, "\x81\x00\x00\x07", 4);
	f[ip - 2] = (uint8_t)(type >> 8);
	f[ip - 1] = (uint8_t)type;
	f[ip] = v6 ? 0x60 : 0x45;
	if (v6) {
		f[ip + 4] = (uint8_t)((packet - 40) >> 8);
		f[ip + 5] = (uint8_t)(packet - 40);
		f[ip + 6] = IPPROTO_TCP;
		f[ip + 8] = f[ip + 24] = 0xfd;
		f[ip + 39] = 9;
	} else {
		f[ip + 2] = (uint8_t)(packet >> 8);
		f[ip + 3] = (uint8_t)packet;
		f[ip + 4] = 0xff; /* so that the identification overflows */
		f[ip + 5] = 0xfe;
		f[ip + 8] = 64;
		f[ip + 9] = IPPROTO_TCP;
		memcpy(f + ip + 12, "\x0a\x06\x00\x01\x0a\x06\x00\x02", 8);
	}
	memcpy(f + tcp, "\x12\x34\x00\x50\xff\xff\xff\x00\x01\x02\x03\x04\x80\x10\x02\x00", 16);
	memset(f + tcp + 20, 1, 12);
	for (size_t i = 0; i < payload; i++)
		f[tcp + 32 + i] = (uint8_t)(i * 7 + i / 251);
	return tcp + 32 + payload;
}

/* Cut into segments; they are in seen[]. */
static void cut(uint8_t *f, size_t length, uint8_t flags)
{
	struct offload_tcp t;

	seen_count = 0;
	CU_ASSERT_TRUE_FATAL(offload_parse(f, length, &t));
	f[t.tcp + 13] = flags;
	offload_cut(f, &t, MSS, see, NULL);
}

static void test_sum(void)
{
	uint8_t data[300];

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 131 + 255);
	for (size_t at = 0; at < 17; at++)
		for (size_t n = 0; n + at < sizeof(data); n++) {
			uint64_t sum = 0;
			uint16_t folded = offload_fold(offload_sum(data + at, n));

			for (size_t i = 0; i < n; i++)
				sum += i % 2 ? data[at + i] : (uint64_t)data[at + i] << 8;
			while (sum >> 16)
				sum = (sum & 0xffff) + (sum >> 16);
			CU_ASSERT_EQUAL(ntohs(folded), sum);
		}
}

static void test_complete(void)
{
	static uint8_t f[OFFLOAD_FRAME_MAX];
	struct offload_tcp t;
	size_t length = make_frame(f, false, false, 1000);
	uint16_t pseudo;

	CU_ASSERT_TRUE_FATAL(offload_parse(f, length, &t));
	offload_set_length(f, &t, length - t.ip);
	pseudo = offload_pseudo(f, &t, length - t.tcp);
	memcpy(f + t.tcp + 16, &pseudo, 2);
	CU_ASSERT_FALSE(offload_verify(f, &t));
	CU_ASSERT_TRUE(offload_complete(f, length, t.tcp, 16));
	CU_ASSERT_TRUE(offload_verify(f, &t));
	f[t.payload + 500] ^= 1;
	CU_ASSERT_FALSE(offload_verify(f, &t));
	CU_ASSERT_FALSE(offload_complete(f, length, length, 0));
	CU_ASSERT_FALSE(offload_complete(f, length, length - 1, 0));
	CU_ASSERT_FALSE(offload_complete(f, length, 0, length - 1));
	CU_ASSERT_FALSE(offload_complete(f, length, length + 1, 65535));
	/* a sum of 0 stays that, but for UDP: RFC 1624 */
	for (unsigned i = 0; i < 65536; i++) {
		memcpy(f + t.payload + 500, &i, 2);
		memcpy(f + t.tcp + 16, &pseudo, 2);
		offload_complete(f, length, t.tcp, 16);
		if (f[t.tcp + 16] == 0xff && f[t.tcp + 17] == 0xff)
			CU_FAIL_FATAL("0xffff for 0");
	}
}

static void test_cut(void)
{
	static uint8_t f[OFFLOAD_FRAME_MAX];
	struct offload_tcp t;

	for (int kind = 0; kind < 4; kind++) {
		size_t length = make_frame(f, kind & 1, kind & 2, 10 * MSS + 17), at = 0;

		cut(f, length, 0x99); /* CWR, ACK, PSH, FIN */
		CU_ASSERT_EQUAL_FATAL(seen_count, 11);
		for (size_t i = 0; i < seen_count; i++) {
			CU_ASSERT_TRUE_FATAL(offload_parse(seen[i], seen_length[i], &t));
			CU_ASSERT_TRUE(offload_verify(seen[i], &t));
			CU_ASSERT_EQUAL(t.length, seen_length[i]);
			CU_ASSERT_EQUAL(seen[i][t.tcp + 13], i == 0 ? 0x90 : i == 10 ? 0x19 : 0x10);
			CU_ASSERT_EQUAL(memcmp(seen[i] + t.payload, f + t.payload + at, t.length - t.payload), 0);
			if (!t.v6)
				CU_ASSERT_EQUAL((uint16_t)(seen[i][t.ip + 4] << 8 | seen[i][t.ip + 5]), (uint16_t)(0xfffe + i));
			at += t.length - t.payload;
		}
		CU_ASSERT_EQUAL(at, 10 * MSS + 17);
	}
}

static void test_parse(void)
{
	static uint8_t f[OFFLOAD_FRAME_MAX];
	size_t length = make_frame(f, false, false, 100);
	struct offload_tcp t;

	CU_ASSERT_TRUE(offload_parse(f, length + 6, &t)); /* padding */
	CU_ASSERT_EQUAL(t.length, length);
	for (size_t n = 0; n < length; n++)
		CU_ASSERT_FALSE(offload_parse(f, n, &t));
	f[14 + 6] = 0x20; /* a fragment */
	CU_ASSERT_FALSE(offload_parse(f, length, &t));
	f[14 + 6] = 0x40;
	CU_ASSERT_TRUE(offload_parse(f, length, &t));
	f[14 + 20 + 12] = 0x40; /* a TCP header of 16 bytes */
	CU_ASSERT_FALSE(offload_parse(f, length, &t));
	f[14 + 20 + 12] = 0xf0; /* of 60, which go into the payload */
	CU_ASSERT_TRUE(offload_parse(f, length, &t));
	f[14] = 0x4f;
	CU_ASSERT_FALSE(offload_parse(f, 80, &t));
}

/* ---- The device ---- */

static struct vring_used *used_ring(struct vnet_world *w, int queue)
{
	return (struct vring_used *)(w->memory + queue * 0x1000 + VNET_USED);
}

/* Gives the device `count` buffers to receive into. */
static void give_buffers(struct vnet_world *w, unsigned count)
{
	struct vring_desc *d = (struct vring_desc *)(w->memory + VNET_DESC);
	struct vring_avail *a = (struct vring_avail *)(w->memory + VNET_AVAIL);

	for (unsigned i = 0; i < count; i++) {
		unsigned entry = (a->idx + i) % VNET_ENTRIES;

		d[entry] = (struct vring_desc){BUFFERS + entry * BUFFER, BUFFER, VRING_DESC_F_WRITE, 0};
		a->ring[entry] = (uint16_t)entry;
	}
	a->idx = (uint16_t)(a->idx + count);
}

/* The packet that begins with the first-th used buffer, put together. Its length, header included. */
static size_t packet_at(struct vnet_world *w, unsigned first, struct virtio_net_hdr_v1 *h, uint8_t *out)
{
	const struct vring_used_elem *e = used_ring(w, 0)->ring;
	size_t length = 0;

	memcpy(h, w->memory + BUFFERS + e[first].id * BUFFER, sizeof(*h));
	for (unsigned i = 0; i < h->num_buffers; i++) {
		memcpy(out + length, w->memory + BUFFERS + e[first + i].id * BUFFER, e[first + i].len);
		length += e[first + i].len;
	}
	return length;
}

/* A world with all buffers, where segments that follow each other are joined. */
static void open_joining(struct vnet_world *w)
{
	vnet_open(w, MEMORY);
	give_buffers(w, VNET_ENTRIES);
	vnet_attach(w, &events, NETPLUG_KIND_VDE, FEATURES);
}

static void test_join(void)
{
	static uint8_t f[OFFLOAD_FRAME_MAX], packet[OFFLOAD_FRAME_MAX + 64];
	struct virtio_net_hdr_v1 h;
	struct offload_tcp t;
	struct vnet_world w;
	size_t length;

	for (int v6 = 0; v6 < 2; v6++) {
		open_joining(&w);
		CU_ASSERT_TRUE(link_connected(w.link));
		length = make_frame(f, v6, false, 10 * MSS + 17);
		cut(f, length, 0x18);
		for (size_t i = 0; i < seen_count; i++)
			link_send(w.link, seen[i], seen_length[i]);
		/* not known to the guest before all of it is there */
		CU_ASSERT_EQUAL(used_ring(&w, 0)->idx, 0);
		link_flush(w.link);
		CU_ASSERT_EQUAL(used_ring(&w, 0)->idx, (length + sizeof(h) + BUFFER - 1) / BUFFER);
		CU_ASSERT_EQUAL(packet_at(&w, 0, &h, packet), length + sizeof(h));
		CU_ASSERT_EQUAL(h.gso_type, v6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4);
		CU_ASSERT_EQUAL(h.gso_size, MSS);
		CU_ASSERT_EQUAL(h.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
		CU_ASSERT_TRUE(offload_complete(packet + sizeof(h), length, h.csum_start, h.csum_offset));
		CU_ASSERT_TRUE_FATAL(offload_parse(packet + sizeof(h), length, &t));
		CU_ASSERT_TRUE(offload_verify(packet + sizeof(h), &t));
		CU_ASSERT_EQUAL(packet[sizeof(h) + t.tcp + 13], 0x18);
		CU_ASSERT_EQUAL(memcmp(packet + sizeof(h) + t.payload, f + t.payload, length - t.payload), 0);
		vnet_detach(&w);
		vnet_close(&w);
	}
}

/* A segment with a wrong checksum, and one that does not follow, are passed on as they are. */
static void test_not_joined(void)
{
	static uint8_t f[OFFLOAD_FRAME_MAX], packet[OFFLOAD_FRAME_MAX + 64];
	struct virtio_net_hdr_v1 h;
	struct vnet_world w;

	open_joining(&w);
	cut(f, make_frame(f, false, false, 6 * MSS), 0x10);
	seen[1][200] ^= 1;
	for (size_t i = 0; i < 6; i++)
		if (i != 4)
			link_send(w.link, seen[i], seen_length[i]);
	link_flush(w.link);
	/* 0 alone; 1 as it is; 2 and 3 joined (three buffers with what 4 left out: 5 alone) */
	CU_ASSERT_EQUAL(packet_at(&w, 0, &h, packet), seen_length[0] + sizeof(h));
	CU_ASSERT_EQUAL(h.gso_type, 0);
	CU_ASSERT_EQUAL(packet_at(&w, 1, &h, packet), seen_length[1] + sizeof(h));
	CU_ASSERT_EQUAL(h.flags, 0);
	CU_ASSERT_EQUAL(memcmp(packet + sizeof(h), seen[1], seen_length[1]), 0);
	CU_ASSERT_EQUAL(packet_at(&w, 2, &h, packet), seen_length[2] + MSS + sizeof(h));
	CU_ASSERT_EQUAL(h.num_buffers, 2);
	CU_ASSERT_EQUAL(packet_at(&w, 4, &h, packet), seen_length[5] + sizeof(h));
	CU_ASSERT_EQUAL(used_ring(&w, 0)->idx, 5);
	vnet_detach(&w);
	vnet_close(&w);
}

/* A segment with something behind it in its frame does not grow: the next one's bytes would come after that. */
static void test_padded(void)
{
	static uint8_t f[OFFLOAD_FRAME_MAX], packet[OFFLOAD_FRAME_MAX + 64];
	struct virtio_net_hdr_v1 h;
	struct vnet_world w;

	open_joining(&w);
	cut(f, make_frame(f, false, false, 2 * MSS), 0x10);
	memset(seen[0] + seen_length[0], 0x55, 4);
	link_send(w.link, seen[0], seen_length[0] + 4);
	link_send(w.link, seen[1], seen_length[1]);
	link_flush(w.link);
	CU_ASSERT_EQUAL(packet_at(&w, 0, &h, packet), seen_length[0] + 4 + sizeof(h));
	CU_ASSERT_EQUAL(h.gso_type, 0);
	CU_ASSERT_EQUAL(packet_at(&w, 1, &h, packet), seen_length[1] + sizeof(h));
	vnet_detach(&w);
	vnet_close(&w);
}

/* Segments that a killed plug had written, and not told, are written over; those told stay. */
static void test_resume(void)
{
	static uint8_t f[OFFLOAD_FRAME_MAX], packet[OFFLOAD_FRAME_MAX + 64];
	struct virtio_net_hdr_v1 h;
	struct vnet_world w;

	vnet_open(&w, MEMORY);
	give_buffers(&w, 8);
	vnet_attach(&w, &events, NETPLUG_KIND_VDE, FEATURES);
	cut(f, make_frame(f, false, false, 6 * MSS), 0x10);
	link_send(w.link, seen[0], seen_length[0]);
	link_flush(w.link);
	CU_ASSERT_EQUAL(used_ring(&w, 0)->idx, 1);
	link_send(w.link, seen[1], seen_length[1]);
	link_send(w.link, seen[2], seen_length[2]);
	vnet_detach(&w);
	vnet_attach(&w, &events, NETPLUG_KIND_VDE, FEATURES);
	link_send(w.link, seen[5], seen_length[5]);
	link_flush(w.link);
	CU_ASSERT_EQUAL(used_ring(&w, 0)->idx, 2);
	CU_ASSERT_EQUAL(used_ring(&w, 0)->ring[1].id, 1);
	CU_ASSERT_EQUAL(packet_at(&w, 1, &h, packet), seen_length[5] + sizeof(h));
	/* with no buffers left frames wait, and come when there are some */
	for (int i = 0; i < 8; i++)
		link_send(w.link, seen[i % 2 * 5], seen_length[0]);
	link_flush(w.link);
	CU_ASSERT_EQUAL(used_ring(&w, 0)->idx, 8);
	give_buffers(&w, 8);
	vnet_kick(&w, 0);
	vnet_turn(&w);
	CU_ASSERT_EQUAL(used_ring(&w, 0)->idx, 10);
	CU_ASSERT_EQUAL(w.stats.out_dropped, 0);
	vnet_detach(&w);
	vnet_close(&w);
}

/*
 * A frame that needs more buffers than there are waits, and the guest kicks when it adds some, as Linux decides it by the event
 * index: also when it has passed those that are there before the plug asked.
 */
static void test_too_few_buffers(void)
{
	static uint8_t f[OFFLOAD_FRAME_MAX], packet[OFFLOAD_FRAME_MAX + 64];
	struct virtio_net_hdr_v1 h;
	struct vnet_world w;
	uint16_t *event;
	size_t length = make_frame(f, false, false, 5 * MSS);

	vnet_open(&w, MEMORY);
	give_buffers(&w, 2);
	vnet_attach(&w, &events, NETPLUG_KIND_SLIRP, FEATURES | 1u << VIRTIO_RING_F_EVENT_IDX);
	event = (uint16_t *)&used_ring(&w, 0)->ring[VNET_ENTRIES];
	link_send(w.link, f, length);
	link_flush(w.link);
	CU_ASSERT_EQUAL(used_ring(&w, 0)->idx, 0);
	for (uint16_t idx = 2; idx < 4; idx++) {
		give_buffers(&w, 1);
		CU_ASSERT_TRUE(vring_need_event(*event, (uint16_t)(idx + 1), idx));
		vnet_kick(&w, 0);
		vnet_turn(&w);
	}
	CU_ASSERT_EQUAL(used_ring(&w, 0)->idx, 4);
	CU_ASSERT_EQUAL(packet_at(&w, 0, &h, packet), length + sizeof(h));
	CU_ASSERT_EQUAL(memcmp(packet + sizeof(h), f, length), 0);
	CU_ASSERT_FALSE(w.link->congested);
	/* nothing waits: no kick for each buffer */
	give_buffers(&w, 1);
	CU_ASSERT_FALSE(vring_need_event(*event, 5, 4));
	vnet_detach(&w);
	vnet_close(&w);
}

/* The guest sends a frame: header and bytes in one buffer. */
static void send_from_guest(struct vnet_world *w, const struct virtio_net_hdr_v1 *h, const uint8_t *frame, size_t length)
{
	struct vring_desc *d = (struct vring_desc *)(w->memory + 0x1000 + VNET_DESC);
	struct vring_avail *a = (struct vring_avail *)(w->memory + 0x1000 + VNET_AVAIL);
	uint32_t at = BUFFERS + VNET_ENTRIES * BUFFER;

	memcpy(w->memory + at, h, sizeof(*h));
	memcpy(w->memory + at + sizeof(*h), frame, length);
	d[0] = (struct vring_desc){at, (uint32_t)(sizeof(*h) + length), 0, 0};
	a->ring[a->idx % VNET_ENTRIES] = 0;
	a->idx++;
	seen_count = 0;
	vnet_kick(w, 1);
	vnet_turn(w);
}

static void test_from_guest(void)
{
	static uint8_t f[OFFLOAD_FRAME_MAX];
	struct virtio_net_hdr_v1 h = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .gso_type = VIRTIO_NET_HDR_GSO_TCPV4, .gso_size = MSS,
				      .csum_start = 34, .csum_offset = 16};
	struct vnet_world w;
	struct offload_tcp t;
	size_t length = make_frame(f, false, false, 20 * MSS);
	uint16_t sum;

	vnet_open(&w, MEMORY);
	vnet_attach(&w, &events, NETPLUG_KIND_VDE, FEATURES);
	CU_ASSERT_TRUE_FATAL(offload_parse(f, length, &t));
	offload_set_length(f, &t, length - t.ip);
	sum = offload_pseudo(f, &t, length - t.tcp);
	memcpy(f + t.tcp + 16, &sum, 2);
	send_from_guest(&w, &h, f, length);
	CU_ASSERT_EQUAL(seen_count, 20);
	CU_ASSERT_EQUAL(used_ring(&w, 1)->idx, 1);
	link_set_super(w.link, true);
	send_from_guest(&w, &h, f, length);
	CU_ASSERT_EQUAL(seen_count, 1);
	CU_ASSERT_TRUE(offload_parse(seen[0], seen_length[0], &t) && offload_verify(seen[0], &t));
	/* what can't be */
	h.gso_size = 3;
	send_from_guest(&w, &h, f, length);
	h.gso_size = 4000; /* more than the network carries */
	send_from_guest(&w, &h, f, length);
	h.gso_type = VIRTIO_NET_HDR_GSO_TCPV6;
	send_from_guest(&w, &h, f, length);
	h.gso_type = 77;
	send_from_guest(&w, &h, f, length);
	h.gso_type = 0; /* no super-frame, and too long */
	send_from_guest(&w, &h, f, length);
	h.csum_start = 65535;
	send_from_guest(&w, &h, f, 100);
	send_from_guest(&w, &h, f, 3);
	CU_ASSERT_EQUAL(seen_count, 0);
	CU_ASSERT_EQUAL(w.stats.in_refused + w.stats.in_giants + w.stats.in_runts, 7);
	CU_ASSERT_EQUAL(used_ring(&w, 1)->idx, 9);
	vnet_detach(&w);
	vnet_close(&w);
}

/* Interrupts since this was asked last. */
static unsigned calls(struct vnet_world *w)
{
	uint8_t data[8 * 256];
	ssize_t n = recv(w->call, data, sizeof(data), MSG_DONTWAIT);

	return n > 0 ? (unsigned)n / 8 : 0;
}

/* That small frames were taken is told after a while, once for all; of many, and of long ones, at once. */
static void test_told_lazily(void)
{
	static uint8_t f[OFFLOAD_FRAME_MAX];
	struct virtio_net_hdr_v1 none = {0};
	struct vnet_world w;
	size_t length = make_frame(f, false, false, 20);
	unsigned told = 0;

	vnet_open(&w, MEMORY);
	vnet_attach(&w, &events, NETPLUG_KIND_VDE, FEATURES);
	calls(&w);
	for (int i = 0; i < 3; i++)
		send_from_guest(&w, &none, f, length);
	CU_ASSERT_EQUAL(used_ring(&w, 1)->idx, 3);
	told = calls(&w);
	CU_ASSERT_TRUE(told < 3); /* 0, unless we were kept from running */
	for (int i = 0; i < 20; i++) {
		poll(NULL, 0, 2);
		vnet_turn(&w);
		told += calls(&w);
	}
	CU_ASSERT_TRUE(told > 0 && told < 3);
	send_from_guest(&w, &none, f, make_frame(f, false, false, 1000));
	CU_ASSERT_EQUAL(calls(&w), 1);
	make_frame(f, false, false, 20);
	for (unsigned i = told = 0; i < VNET_ENTRIES && !told; i++) {
		send_from_guest(&w, &none, f, length);
		told = calls(&w);
	}
	CU_ASSERT_EQUAL(told, 1);
	send_from_guest(&w, &none, f, length);
	vnet_detach(&w);
	/* a plug that is gone owes nothing to the guest, nor does its timer come */
	vnet_attach(&w, &events, NETPLUG_KIND_VDE, FEATURES);
	CU_ASSERT_EQUAL(calls(&w), 2); /* both queues: whatever the guest may have missed */
	vnet_detach(&w);
	vnet_close(&w);
}

UNIT_MAIN("netplug offload", UNIT_CASE(test_sum), UNIT_CASE(test_complete), UNIT_CASE(test_cut), UNIT_CASE(test_parse),
	  UNIT_CASE(test_join), UNIT_CASE(test_not_joined), UNIT_CASE(test_padded), UNIT_CASE(test_resume),
	  UNIT_CASE(test_too_few_buffers), UNIT_CASE(test_from_guest), UNIT_CASE(test_told_lazily))
