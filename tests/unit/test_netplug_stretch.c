/* Wider windows: a guest that uses all it is offered, and a receiver with libslirp's window that reads when it likes. */
#include <poll.h>

#include "netplug/stretch.h"
#include "tests/unit/tcp_frame.h"
#include "tests/unit/unit.h"

#define GUEST_START 0xfffffff0u /* numbers run over */
#define HOST_START  5000u
#define GUEST_SHIFT 7
#define SHIFT	    2
#define WINDOW	    65535u
#define PORT	    1234
#define SEGMENT	    16000

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

static struct stretch *s;
static bool v6;
static uint32_t state = 1;

/* The receiver, as libslirp is one. */
static struct {
	uint32_t next, told_edge; /* the guest's stream */
	uint32_t sent;		  /* its own */
	size_t unread, frames;
	uint32_t ack, window; /* what the guest said last */
	bool fin, reset, silent;
} host;

/* What the guest was told last. */
static struct {
	uint32_t ack, sequence;
	uint16_t window;
	uint8_t flags;
	int scale;
	size_t frames;
	uint32_t next; /* the host's stream, as far as it has it */
	unsigned lose; /* so many of the next segments */
} guest;

static uint32_t random_below(uint32_t n)
{
	state = state * 1103515245 + 12345;
	return (state >> 8) % n;
}

static void answer(uint8_t flags, size_t payload)
{
	static uint8_t frame[OFFLOAD_FRAME_MAX];
	const struct segment a = {.v6 = v6, .to_guest = true, .port = PORT, .sequence = host.sent, .ack = host.next,
				  .window = (uint16_t)(WINDOW - host.unread), .flags = flags, .scale = -1, .payload = payload};

	host.told_edge = host.next + a.window;
	host.sent += (uint32_t)payload + (flags & (SYN | FIN) ? 1 : 0);
	stretch_to_guest(s, frame, segment_make(frame, &a));
}

static void feed(void *arg, const uint8_t *frame, size_t length)
{
	struct offload_tcp t;
	const uint8_t *tcp;
	size_t n;

	(void)arg;
	CU_ASSERT_TRUE_FATAL(offload_parse(frame, length, &t) && offload_verify(frame, &t));
	tcp = frame + t.tcp;
	n = t.length - t.payload;
	host.frames++;
	host.ack = get32(tcp + 8);
	host.window = get16(tcp + 14);
	host.reset |= tcp[13] & RST;
	if (tcp[13] & (SYN | RST))
		return;
	CU_ASSERT_EQUAL(get32(tcp + 4), host.next);
	CU_ASSERT_TRUE_FATAL(n <= WINDOW - host.unread && (int32_t)(host.told_edge - host.next - n) >= 0);
	for (size_t i = 0; i < n; i++)
		if (frame[t.payload + i] != (uint8_t)((host.next + i) * 7 >> 3))
			CU_FAIL_FATAL("not what was sent");
	host.next += (uint32_t)n + (tcp[13] & FIN);
	host.unread += n;
	host.fin |= tcp[13] & FIN;
	if ((n || tcp[13] & FIN) && !host.silent)
		answer(ACK, 0);
}

static void send_guest(void *arg, const uint8_t *frame, size_t length)
{
	struct offload_tcp t;
	const uint8_t *tcp;

	(void)arg;
	CU_ASSERT_TRUE_FATAL(offload_parse(frame, length, &t) && offload_verify(frame, &t));
	tcp = frame + t.tcp;
	guest.frames++;
	guest.sequence = get32(tcp + 4);
	guest.ack = get32(tcp + 8);
	guest.window = get16(tcp + 14);
	guest.flags = tcp[13];
	guest.scale = -1;
	if (t.length > t.payload && guest.lose) {
		guest.lose--;
	} else if (guest.sequence == guest.next) {
		for (size_t i = t.payload; i < t.length; i++)
			if (frame[i] != (uint8_t)((guest.next + i - t.payload) * 7 >> 3))
				CU_FAIL_FATAL("not what the host sent");
		guest.next += (uint32_t)(t.length - t.payload) + (guest.flags & FIN);
	}
	for (size_t i = t.tcp + 20; i + 2 < t.payload; i++)
		if (frame[i] == 3 && frame[i + 1] == 3)
			guest.scale = frame[i + 2];
}

/* What the guest says when it gets something. */
static void hears(uint16_t window)
{
	static uint8_t frame[OFFLOAD_FRAME_MAX];
	const struct segment a = {.v6 = v6, .port = PORT, .sequence = host.next, .ack = guest.next, .window = window, .flags = ACK,
				  .scale = -1};

	stretch_from_guest(s, frame, segment_make(frame, &a));
}

/* A segment of the guest's, which acknowledges all of the host's. */
static void segment(uint32_t sequence, uint8_t flags, size_t payload, int scale)
{
	static uint8_t frame[OFFLOAD_FRAME_MAX];
	const struct segment a = {.v6 = v6, .port = PORT, .sequence = sequence, .ack = host.sent, .window = 600, .flags = flags,
				  .scale = scale, .payload = payload};

	stretch_from_guest(s, frame, segment_make(frame, &a));
}

static void begin(int scale)
{
	memset(&host, 0, sizeof(host));
	memset(&guest, 0, sizeof(guest));
	host.next = GUEST_START + 1;
	host.sent = HOST_START;
	segment(GUEST_START, SYN, 0, scale);
	answer(SYN | ACK, 0);
	guest.next = HOST_START + 1;
	segment(GUEST_START + 1, ACK, 0, -1);
}

static uint32_t right_edge(void)
{
	return guest.ack + ((uint32_t)guest.window << SHIFT);
}

/* As libslirp: when there is much more room than it told of. */
static void reads(size_t n)
{
	host.unread -= n < host.unread ? n : host.unread;
	if (host.next + WINDOW - host.unread - host.told_edge >= 32768)
		answer(ACK, 0);
	stretch_pump(s);
}

static void stream(void)
{
	uint32_t next = GUEST_START + 1, end = next + (20u << 20), edge;

	begin(GUEST_SHIFT);
	CU_ASSERT_EQUAL(guest.scale, SHIFT);
	CU_ASSERT_EQUAL(host.window, 65535); /* 600 << 7 is more */
	while (next != end) {
		uint32_t room = right_edge() - next, n = random_below(3) ? 65160 : 1 + random_below(5000);

		if (!guest.window && !(guest.flags & SYN))
			room = 0;
		if (guest.flags & SYN)
			room = WINDOW;
		n = n < end - next ? n : end - next;
		if (random_below(8) && n <= room) {
			edge = right_edge();
			segment(next, ACK | (random_below(2) ? PSH : 0), n, -1);
			next += n;
			CU_ASSERT_TRUE((int32_t)(right_edge() - edge) >= -(1 << SHIFT) || edge == guest.ack);
		} else {
			reads(random_below(200000));
		}
		CU_ASSERT_TRUE((int32_t)(next - guest.ack) >= 0);
	}
	segment(next, ACK | FIN, 0, -1);
	for (int i = 0; i < 100; i++)
		reads(65536);
	CU_ASSERT_EQUAL(host.next, end + 1);
	CU_ASSERT_TRUE(host.fin);
	CU_ASSERT_EQUAL(guest.ack, end + 1);
}

static void test_stream(void)
{
	for (int i = 0; i < 2; i++) {
		v6 = i;
		CU_ASSERT_PTR_NOT_NULL_FATAL(s = stretch_new(feed, send_guest, NULL, NULL));
		stream();
		stretch_free(s);
	}
	v6 = false;
}

/* The host does not read: the guest is offered WIDTH more, then nothing; its probes are answered. */
static void test_full(void)
{
	uint32_t next = GUEST_START + 1;
	size_t frames;

	s = stretch_new(feed, send_guest, NULL, NULL);
	begin(GUEST_SHIFT);
	segment(next, ACK, 60000, -1);
	next += 60000;
	while (right_edge() - next >= 10000) {
		segment(next, ACK, 10000, -1);
		next += 10000;
	}
	CU_ASSERT_TRUE(next - GUEST_START > 240000 && next - GUEST_START < 5 * WINDOW);
	CU_ASSERT_EQUAL(guest.ack, next); /* so the guest will not send it again */
	CU_ASSERT_EQUAL(host.next, GUEST_START + 1 + WINDOW);
	segment(next, ACK, right_edge() - next, -1);
	next = guest.ack;
	CU_ASSERT_EQUAL(guest.window, 0);
	frames = guest.frames;
	segment(next - 1, ACK, 0, -1); /* a probe */
	segment(next, ACK, 1, -1);     /* another kind */
	segment(next - 5000, ACK, 1000, -1);
	CU_ASSERT_EQUAL(guest.frames, frames + 3);
	CU_ASSERT_EQUAL(guest.ack, next);
	/* what the guest says of the other direction goes on at once, and once */
	answer(ACK | PSH, 1000);
	CU_ASSERT_EQUAL(guest.ack, next);
	frames = host.frames;
	segment(next, ACK, 0, -1);
	segment(next, ACK, 0, -1);
	CU_ASSERT_EQUAL(host.frames, frames + 1);
	CU_ASSERT_EQUAL(host.ack, host.sent);
	/* and a reset finds its way */
	segment(next, RST, 0, -1);
	CU_ASSERT_TRUE(host.reset);
	stretch_pump(s);
	frames = host.frames;
	reads(WINDOW);
	CU_ASSERT_EQUAL(host.frames, frames);
	stretch_free(s);
}

/* As libslirp: what its window allows. Bytes sent. */
static size_t sends(size_t most)
{
	size_t n = 0;

	while (n < most && host.sent + SEGMENT - host.ack <= host.window) {
		answer(ACK, SEGMENT);
		n += SEGMENT;
	}
	stretch_pump(s);
	return n;
}

/* The host need not wait for the guest, within bounds; the guest gets all, though it loses some. */
static void test_ahead(void)
{
	size_t n, frames;

	s = stretch_new(feed, send_guest, NULL, NULL);
	begin(GUEST_SHIFT);
	hears(60000);
	CU_ASSERT_EQUAL(sends(SEGMENT), SEGMENT);
	CU_ASSERT_EQUAL(host.ack, host.sent);
	frames = host.frames;
	hears(60000);
	CU_ASSERT_EQUAL(host.frames, frames); /* told already */
	CU_ASSERT_EQUAL(stretch_wait_ms(s), -1);

	/* not more than 512 KiB, and what libslirp keeps itself */
	for (n = 0; n < (4u << 20); n += SEGMENT)
		if (!sends(SEGMENT))
			break;
	CU_ASSERT_TRUE(n > (512u << 10) - SEGMENT && n <= (512u << 10) + WINDOW);
	CU_ASSERT_TRUE(host.ack != host.sent);
	hears(60000);
	CU_ASSERT_EQUAL(host.ack, host.sent);
	CU_ASSERT_EQUAL(guest.next, host.sent);

	/* one is lost: three that say so, or time */
	guest.lose = 1;
	sends(2 * SEGMENT);
	CU_ASSERT_EQUAL(guest.next, host.sent - 2 * SEGMENT);
	for (int i = 0; i < 3; i++)
		hears(60000);
	CU_ASSERT_EQUAL(guest.next, host.sent - SEGMENT);
	hears(60000);
	n = (size_t)stretch_wait_ms(s);
	CU_ASSERT_TRUE_FATAL(n > 200 && n < 400);
	poll(NULL, 0, (int)n);
	stretch_pump(s);
	CU_ASSERT_EQUAL(guest.next, host.sent);
	hears(60000);
	CU_ASSERT_EQUAL(stretch_wait_ms(s), -1);

	/* the guest has room for one and a half: libslirp keeps the rest */
	hears((SEGMENT + SEGMENT / 2) >> GUEST_SHIFT);
	CU_ASSERT_TRUE(host.window < 2 * SEGMENT);
	host.window = WINDOW;
	sends(2 * SEGMENT);
	CU_ASSERT_EQUAL(host.ack, host.sent - SEGMENT);
	guest.next = host.sent;
	hears(60000);
	CU_ASSERT_EQUAL(host.ack, host.sent);
	CU_ASSERT_EQUAL(host.window, WINDOW);

	/* while it does not read, nothing is told early; the end never is */
	stretch_pause(s, true);
	sends(SEGMENT);
	CU_ASSERT_EQUAL(host.ack, host.sent - SEGMENT);
	hears(60000);
	stretch_pause(s, false);
	stretch_slow(s, true);
	sends(SEGMENT);
	CU_ASSERT_EQUAL(host.ack, host.sent - SEGMENT);
	hears(60000);
	stretch_slow(s, false);
	answer(ACK | FIN, 100);
	stretch_pump(s);
	CU_ASSERT_EQUAL(host.ack, host.sent - 1);
	hears(60000);
	CU_ASSERT_EQUAL(host.ack, host.sent);
	stretch_free(s);
}

/* Without scaling nothing is changed. A host that connects gets it too. */
static void test_handshakes(void)
{
	s = stretch_new(feed, send_guest, NULL, NULL);
	begin(-1);
	CU_ASSERT_EQUAL(guest.scale, -1);
	CU_ASSERT_EQUAL(host.window, 600);
	answer(ACK, 0);
	CU_ASSERT_EQUAL(guest.window, WINDOW);

	memset(&host, 0, sizeof(host));
	host.sent = HOST_START;
	answer(SYN, 0);
	CU_ASSERT_EQUAL(guest.scale, SHIFT);
	segment(GUEST_START, SYN | ACK, 0, GUEST_SHIFT);
	host.next = GUEST_START + 1;
	answer(ACK, 0);
	host.unread = 30000;
	answer(ACK, 0);
	CU_ASSERT_EQUAL(right_edge() & ~3u, (GUEST_START + 1 + (WINDOW << SHIFT)) & ~3u); /* what was told is not taken back */
	segment(GUEST_START + 1, ACK, 10, -1);
	CU_ASSERT_EQUAL(host.window, WINDOW);
	CU_ASSERT_EQUAL(host.next, GUEST_START + 11);

	/* one that does not know of it */
	memset(&host, 0, sizeof(host));
	host.sent = HOST_START;
	answer(SYN, 0);
	segment(GUEST_START, SYN | ACK, 0, -1);
	host.next = GUEST_START + 1;
	answer(ACK, 0);
	CU_ASSERT_EQUAL(guest.window, WINDOW);
	segment(GUEST_START + 1, ACK, 10, -1);
	CU_ASSERT_EQUAL(host.window, 600);
	stretch_free(s);
}

/* Connections come and go, more than there is room for; each ends in another way. */
static void test_many(void)
{
	s = stretch_new(feed, send_guest, NULL, NULL);
	for (unsigned i = 0; i < 3 * STRETCH_FLOWS_MAX; i++) {
		begin(GUEST_SHIFT);
		CU_ASSERT_EQUAL_FATAL(guest.scale, SHIFT);
		if (i % 3 == 0) {
			segment(GUEST_START + 1, ACK, 1000, -1);
			segment(GUEST_START + 1001, ACK | FIN, 0, -1);
			answer(ACK | FIN, 0);
			segment(GUEST_START + 1002, ACK, 0, -1);
		} else if (i % 3 == 1) {
			answer(RST, 0);
		} else {
			segment(GUEST_START + 1, RST, 0, -1);
		}
		stretch_pump(s);
	}
	stretch_free(s);
}

UNIT_MAIN("netplug stretch", UNIT_CASE(test_stream), UNIT_CASE(test_full), UNIT_CASE(test_ahead), UNIT_CASE(test_handshakes),
	  UNIT_CASE(test_many))
