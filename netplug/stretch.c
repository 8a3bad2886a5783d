/*
 * How it works: a connection is found by its addresses and ports, known from its SYN on. Numbers of a flow, all of the guest's
 * stream (sequence numbers, compared as RFC 9293, 3.4, does):
 *
 *	fed ──────────── edge          libslirp has all before `fed`, and room up to `edge`
 *	fed ── held ── taken           held is what lies between `fed` and `taken`; nothing: taken == fed
 *	edge + WIDTH                   what the guest is offered
 *
 * edge never goes back: libslirp does not shrink its window (tcp_output.c), and WIDTH is constant. So a window that libslirp
 * tells in full needs no translation at all: WIDTH is three times the largest, and the scale four. Such segments go to the guest
 * uncopied.
 *
 * Several segments with the same acknowledgement would make libslirp believe that one of its own was lost (tcp_input.c, t_dupacks):
 * it is told only what is new. For the same reason what is held is fed with the latest that the guest said.
 *
 * libslirp tells of room only when there is much more of it, two segments or half of its buffer. What it has room for is fed in
 * pieces, therefore, or a long segment and a window a little shorter would wait for each other.
 */
#include "netplug/stretch.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "netplug/bytes.h"
#include "netplug/offload.h"
#include "uml-lab/base/cleanup.h"

#define SHIFT	   2
#define WINDOW_MAX 65535u
#define WIDTH	   ((WINDOW_MAX << SHIFT) - WINDOW_MAX)
#define PIECE_MIN  4096u /* fed at least, unless it is all: libslirp tells when there is more */

#define BUCKETS	 64u
#define ETHERNET 14
#define TCP	 20
#define KEY_MAX	 36 /* two IPv6 addresses, two ports */

enum { OPTION_END, OPTION_NOP, OPTION_SCALE = 3 }; /* RFC 9293, 3.1; RFC 7323, 2.2 */
#define SCALE_LENGTH 3
#define SHIFT_MAX    14

enum { FIN = 0x01, SYN = 0x02, RST = 0x04, PSH = 0x08, ACK = 0x10 };

/* Where they are in a TCP header. */
enum { AT_SEQUENCE = 4, AT_ACK = 8, AT_OFFSET = 12, AT_FLAGS = 13, AT_WINDOW = 14, AT_SUM = 16 };

/* A segment of the guest's. */
struct held {
	struct held *next;
	struct offload_tcp t;
	size_t done; /* bytes of its payload that were fed */
	uint8_t frame[];
};

enum state {
	ASKED,	 /* the guest's SYN offers to scale */
	OFFERED, /* we do, in libslirp's SYN */
	OPEN,	 /* both do */
};

enum { GUEST_ENDED = 1, HOST_ENDED = 2, BOTH_ENDED = 3, RESET = 4 };

struct flow {
	struct flow *next; /* in its bucket */
	uint8_t key[KEY_MAX];
	size_t key_length;
	enum state state;
	uint8_t shift; /* of the guest's windows */
	uint8_t ended;
	uint32_t fed, taken, edge;
	uint32_t sent;	     /* the host's stream: libslirp's next byte */
	uint32_t ack, window; /* what the guest last said of it, as libslirp was told */
	struct held *first, **last;
	struct offload_tcp t;
	uint8_t header[OFFLOAD_HEADER_MAX]; /* of an acknowledgement to the guest */
};

struct stretch {
	struct flow *buckets[BUCKETS];
	size_t flows, held; /* held: bytes of all */
	bool stale;	    /* there may be flows that have ended */
	stretch_fn feed, send;
	void *arg;
	uint8_t piece[OFFLOAD_FRAME_MAX];
};

/* ---- Flows ---- */

/* As the guest's own segments have it; back: the frame goes to the guest. */
static size_t make_key(const uint8_t *frame, const struct offload_tcp *t, bool back, uint8_t key[KEY_MAX])
{
	const uint8_t *address = frame + t->ip + (t->v6 ? 8 : 12), *port = frame + t->tcp;
	size_t n = t->v6 ? 16 : 4;

	memcpy(key, address + (back ? n : 0), n);
	memcpy(key + n, address + (back ? 0 : n), n);
	memcpy(key + 2 * n, port + (back ? 2 : 0), 2);
	memcpy(key + 2 * n + 2, port + (back ? 0 : 2), 2);
	return 2 * n + 4;
}

/* Where the pointer to the flow is, or would be. */
static struct flow **find(struct stretch *s, const uint8_t *key, size_t length)
{
	struct flow **at = &s->buckets[(get16(key + length - 4) ^ get16(key + length - 2)) % BUCKETS];

	while (*at && ((*at)->key_length != length || memcmp((*at)->key, key, length)))
		at = &(*at)->next;
	return at;
}

static void drop_held(struct stretch *s, struct flow *f)
{
	while (f->first) {
		struct held *h = f->first;

		f->first = h->next;
		s->held -= h->t.length;
		free(h);
	}
	f->last = &f->first;
}

static void drop_flow(struct stretch *s, struct flow **at)
{
	struct flow *f = *at;

	drop_held(s, f);
	*at = f->next;
	s->flows--;
	free(f);
}

/* Both ends are through, and the guest has it all; or one has reset it. */
static bool has_ended(const struct flow *f)
{
	return f->ended & RESET || (f->ended == BOTH_ENDED && !f->first && f->ack == f->sent);
}

/* Those that have ended; also those that have not begun. */
static void sweep(struct stretch *s, bool unopened)
{
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct flow **at = &s->buckets[i]; *at;) {
			if (has_ended(*at) || (unopened && (*at)->state != OPEN))
				drop_flow(s, at);
			else
				at = &(*at)->next;
		}
	s->stale = false;
}

/* NULL: there are too many, or there is no memory; then this one has no wider window. */
static struct flow *add_flow(struct stretch *s, const uint8_t *key, size_t length, enum state state)
{
	struct flow *f, **at;

	if (s->flows == STRETCH_FLOWS_MAX)
		sweep(s, true);
	f = s->flows < STRETCH_FLOWS_MAX ? calloc(1, sizeof(*f)) : NULL;
	if (!f)
		return NULL;
	memcpy(f->key, key, length);
	f->key_length = length;
	f->state = state;
	f->last = &f->first;
	at = find(s, key, length);
	f->next = *at;
	*at = f;
	s->flows++;
	return f;
}

static bool is_before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

/* ---- Headers ---- */

static size_t payload_of(const struct offload_tcp *t)
{
	return t->length - t->payload;
}

/* Writes 16 bits of a TCP header at an even offset, and mends the checksum (RFC 1624). */
static void set16(uint8_t *tcp, size_t at, uint16_t value)
{
	uint16_t was, is, sum;

	memcpy(&was, tcp + at, 2);
	put16(tcp + at, value);
	memcpy(&is, tcp + at, 2);
	memcpy(&sum, tcp + AT_SUM, 2);
	offload_put_sum(tcp + AT_SUM, (uint64_t)(uint16_t)~sum + (uint16_t)~was + is);
}

static void set32(uint8_t *tcp, size_t at, uint32_t value)
{
	set16(tcp, at, (uint16_t)(value >> 16));
	set16(tcp, at + 2, (uint16_t)value);
}

/* Lengths and checksums of a frame whose headers are as long as t says, with n bytes of payload. Returns the frame's length. */
static size_t finish_frame(uint8_t *frame, const struct offload_tcp *t, size_t n)
{
	uint8_t *tcp = frame + t->tcp;
	size_t length = t->payload - t->tcp + n;

	offload_set_length(frame, t, t->payload - t->ip + n);
	put16(tcp + AT_SUM, 0);
	offload_put_sum(tcp + AT_SUM, offload_pseudo(frame, t, length) + offload_sum(tcp, length));
	return t->payload + n;
}

/* The shift of a SYN's window scale option; -1: it has none. */
static int scale_of(const uint8_t *frame, const struct offload_tcp *t)
{
	for (size_t i = t->tcp + TCP; i < t->payload && frame[i] != OPTION_END;) {
		size_t left = t->payload - i;

		if (frame[i] == OPTION_NOP) {
			i++;
			continue;
		}
		if (left < 2 || frame[i + 1] < 2 || frame[i + 1] > left)
			return -1;
		if (frame[i] == OPTION_SCALE && frame[i + 1] == SCALE_LENGTH)
			return frame[i + 2] < SHIFT_MAX ? frame[i + 2] : SHIFT_MAX;
		i += frame[i + 1];
	}
	return -1;
}

/* What the guest is offered, as a header has it, if it is told of all up to `ack`. */
static uint16_t offer(const struct flow *f, uint32_t ack)
{
	uint32_t right = f->edge + WIDTH, room = is_before(ack, right) ? (right - ack) >> SHIFT : 0;

	return (uint16_t)(room < WINDOW_MAX ? room : WINDOW_MAX);
}

/* ---- To libslirp ---- */

static void feed_on(struct stretch *s, const uint8_t *frame, size_t length)
{
	s->feed(s->arg, frame, length);
}

/* The next n bytes of what is held. */
static void feed_piece(struct stretch *s, struct flow *f, struct held *h, size_t n)
{
	const struct offload_tcp *t = &h->t;
	bool whole = h->done == 0 && n == payload_of(t), last = h->done + n == payload_of(t);
	uint8_t *frame = whole ? h->frame : s->piece, *tcp = frame + t->tcp;

	if (!whole) {
		memcpy(frame, h->frame, t->payload);
		memcpy(frame + t->payload, h->frame + t->payload + h->done, n);
		put32(tcp + AT_SEQUENCE, f->fed);
		if (!last)
			tcp[AT_FLAGS] &= (uint8_t)~(FIN | PSH);
		finish_frame(frame, t, n);
	}
	set32(tcp, AT_ACK, f->ack);
	set16(tcp, AT_WINDOW, (uint16_t)f->window);
	h->done += n;
	f->fed += (uint32_t)n + (last && tcp[AT_FLAGS] & FIN);
	feed_on(s, frame, t->payload + n);
}

static void pump(struct stretch *s, struct flow *f)
{
	/* feeding may tell of more room, or end it all */
	while (f->first && !(f->ended & RESET) && !is_before(f->edge, f->fed)) {
		struct held *h = f->first;
		size_t left = payload_of(&h->t) - h->done, room = f->edge - f->fed, n = left < room ? left : room;

		if (n < left && n < PIECE_MIN)
			return;
		feed_piece(s, f, h, n);
		if (n < left)
			continue;
		f->first = h->next;
		if (!f->first)
			f->last = &f->first;
		s->held -= h->t.length;
		free(h);
	}
}

/* What a segment that is not fed (yet) says of the host's stream. */
static void tell_ack(struct stretch *s, struct flow *f, const uint8_t *frame, const struct offload_tcp *t)
{
	uint8_t copy[OFFLOAD_HEADER_MAX], *tcp = copy + t->tcp;

	memcpy(copy, frame, t->payload);
	put32(tcp + AT_SEQUENCE, f->fed);
	tcp[AT_FLAGS] = ACK;
	feed_on(s, copy, finish_frame(copy, t, 0));
}

/* ---- To the guest ---- */

static void acknowledge(struct stretch *s, struct flow *f)
{
	uint8_t frame[OFFLOAD_HEADER_MAX], *tcp = frame + f->t.tcp;

	memcpy(frame, f->header, f->t.payload);
	put32(tcp + AT_SEQUENCE, f->sent);
	put32(tcp + AT_ACK, f->taken);
	put16(tcp + AT_WINDOW, offer(f, f->taken));
	s->send(s->arg, frame, finish_frame(frame, &f->t, 0));
}

/* ---- From the guest ---- */

/* false: there is no memory for it, and the guest has to send it again. */
static bool hold(struct stretch *s, struct flow *f, const uint8_t *frame, const struct offload_tcp *t)
{
	struct held *h = s->held + t->length <= STRETCH_HELD_MAX ? malloc(sizeof(*h) + t->length) : NULL;

	if (!h)
		return false;
	*h = (struct held){.t = *t};
	memcpy(h->frame, frame, t->length);
	*f->last = h;
	f->last = &h->next;
	s->held += t->length;
	return true;
}

/* A segment that libslirp has no room for, or not before what came earlier. */
static void take_early(struct stretch *s, struct flow *f, const uint8_t *frame, const struct offload_tcp *t, bool news)
{
	const uint8_t *tcp = frame + t->tcp;
	uint32_t sequence = get32(tcp + AT_SEQUENCE), bytes = (uint32_t)payload_of(t) + (tcp[AT_FLAGS] & FIN);
	bool expected = sequence == f->taken;
	bool taken = expected && bytes && !is_before(f->edge + WIDTH, sequence + (uint32_t)payload_of(t)) && hold(s, f, frame, t);

	if (taken) {
		f->taken += bytes;
		pump(s, f);
	}
	if (f->first && news)
		tell_ack(s, f, frame, t);
	/* who sent something, or probes, wants to know where we are; of what was fed at once libslirp has told */
	if ((f->first || !taken) && (bytes || !expected))
		acknowledge(s, f);
}

static void from_open(struct stretch *s, struct flow *f, uint8_t *frame, const struct offload_tcp *t)
{
	uint8_t *tcp = frame + t->tcp, flags = tcp[AT_FLAGS];
	uint32_t end = get32(tcp + AT_SEQUENCE) + (uint32_t)payload_of(t) + (flags & FIN);
	uint32_t window = (uint32_t)get16(tcp + AT_WINDOW) << f->shift, ack = get32(tcp + AT_ACK);
	bool news;

	if (window > WINDOW_MAX)
		window = WINDOW_MAX;
	set16(tcp, AT_WINDOW, (uint16_t)window);
	news = !is_before(ack, f->ack) && (ack != f->ack || window != f->window);
	if (news) {
		f->ack = ack;
		f->window = window;
	}
	if (flags & RST) {
		if (f->first)
			set32(tcp, AT_SEQUENCE, f->fed);
		f->ended |= RESET;
		s->stale = true;
		feed_on(s, frame, t->length);
		return;
	}
	s->stale |= f->ended;
	if (flags & FIN)
		f->ended |= GUEST_ENDED;
	if (f->first || is_before(f->edge, end - (flags & FIN))) {
		take_early(s, f, frame, t, news);
		return;
	}
	/* in order; what is not, libslirp sorts, and its acknowledgements say how far it is */
	if (!is_before(f->taken, get32(tcp + AT_SEQUENCE)) && is_before(f->taken, end))
		f->fed = f->taken = end;
	feed_on(s, frame, t->length);
}

/* Begins a connection, or answers ours. */
static void from_syn(struct stretch *s, struct flow **at, const uint8_t *frame, const struct offload_tcp *t)
{
	int shift = scale_of(frame, t);
	struct flow *f = *at;
	bool answer = frame[t->tcp + AT_FLAGS] & ACK;
	uint8_t key[KEY_MAX];

	if (answer && f && f->state == OFFERED && shift >= 0) {
		f->state = OPEN;
		f->shift = (uint8_t)shift;
		f->fed = f->taken = f->edge = get32(frame + t->tcp + AT_SEQUENCE) + 1;
		return;
	}
	if (answer && f && f->state == OPEN)
		return; /* once more */
	if (f)
		drop_flow(s, at);
	if (answer || shift < 0)
		return;
	f = add_flow(s, key, make_key(frame, t, false, key), ASKED);
	if (f)
		f->shift = (uint8_t)shift;
}

void stretch_from_guest(struct stretch *s, uint8_t *frame, size_t length)
{
	struct offload_tcp t;
	uint8_t key[KEY_MAX];
	struct flow **at;

	if (!offload_parse(frame, length, &t) || t.ip != ETHERNET) {
		feed_on(s, frame, length);
		return;
	}
	at = find(s, key, make_key(frame, &t, false, key));
	if (*at && (*at)->state == OPEN && !(frame[t.tcp + AT_FLAGS] & SYN)) {
		from_open(s, *at, frame, &t);
		return;
	}
	if (frame[t.tcp + AT_FLAGS] & SYN)
		from_syn(s, at, frame, &t);
	feed_on(s, frame, length);
}

/* ---- From libslirp ---- */

/* libslirp's own options are few: there is room for one more. */
static void offer_scale(struct stretch *s, struct flow *f, const uint8_t *frame, const struct offload_tcp *t)
{
	static const uint8_t scale[] = {OPTION_NOP, OPTION_SCALE, SCALE_LENGTH, SHIFT};
	uint8_t copy[OFFLOAD_HEADER_MAX], *tcp = copy + t->tcp;
	struct offload_tcp longer = *t;

	f->t = *t;
	f->t.payload = t->tcp + TCP;
	f->sent = f->ack = get32(frame + t->tcp + AT_SEQUENCE) + 1;
	memcpy(f->header, frame, f->t.payload);
	f->header[t->tcp + AT_OFFSET] = TCP / 4 << 4;
	f->header[t->tcp + AT_FLAGS] = ACK;

	memcpy(copy, frame, t->payload);
	memcpy(copy + t->payload, scale, sizeof(scale));
	longer.payload += sizeof(scale);
	tcp[AT_OFFSET] = (uint8_t)((longer.payload - t->tcp) / 4 << 4);
	s->send(s->arg, copy, finish_frame(copy, &longer, 0));
}

/* Returns whether it was sent. */
static bool to_syn(struct stretch *s, struct flow **at, const uint8_t *frame, const struct offload_tcp *t)
{
	const uint8_t *tcp = frame + t->tcp;
	struct flow *f = *at;
	uint8_t key[KEY_MAX];

	if (t->payload + 4 > t->tcp + 60 || payload_of(t))
		return false;
	if (tcp[AT_FLAGS] & ACK) {
		if (!f || f->state == OFFERED)
			return false;
		if (f->state == ASKED) {
			f->fed = f->taken = get32(tcp + AT_ACK);
			f->edge = f->fed + get16(tcp + AT_WINDOW);
			f->state = OPEN;
		}
	} else {
		if (f && f->state != OFFERED)
			drop_flow(s, at);
		f = *at ?: add_flow(s, key, make_key(frame, t, true, key), OFFERED);
		if (!f)
			return false;
	}
	offer_scale(s, f, frame, t);
	return true;
}

/* What libslirp says of the guest's stream, and how far it is with its own. */
static void learn(struct flow *f, const uint8_t *tcp, const struct offload_tcp *t)
{
	uint32_t ack = get32(tcp + AT_ACK), edge = ack + get16(tcp + AT_WINDOW);
	uint32_t end = get32(tcp + AT_SEQUENCE) + (uint32_t)payload_of(t) + (tcp[AT_FLAGS] & FIN);

	if (is_before(f->sent, end))
		f->sent = end;
	f->ended |= (tcp[AT_FLAGS] & FIN ? HOST_ENDED : 0) | (tcp[AT_FLAGS] & RST ? RESET : 0);
	if (!(tcp[AT_FLAGS] & ACK))
		return;
	if (!f->first && is_before(f->taken, ack))
		f->fed = f->taken = ack;
	if (is_before(f->edge, edge))
		f->edge = edge;
}

static void to_open(struct stretch *s, struct flow *f, const uint8_t *frame, const struct offload_tcp *t)
{
	const uint8_t *tcp = frame + t->tcp;
	uint32_t ack = get32(tcp + AT_ACK);

	learn(f, tcp, t);
	s->stale |= f->ended;
	if (f->first)
		ack = f->taken;
	if (tcp[AT_FLAGS] & RST || (!f->first && get16(tcp + AT_WINDOW) == WINDOW_MAX)) {
		s->send(s->arg, frame, t->length);
	} else {
		uint8_t *copy = s->piece;

		memcpy(copy, frame, t->length);
		set32(copy + t->tcp, AT_ACK, ack);
		set16(copy + t->tcp, AT_WINDOW, offer(f, ack));
		s->send(s->arg, copy, t->length);
	}
}

void stretch_to_guest(struct stretch *s, const uint8_t *frame, size_t length)
{
	struct offload_tcp t;
	uint8_t key[KEY_MAX];
	struct flow **at;

	if (!offload_parse(frame, length, &t) || t.ip != ETHERNET) {
		s->send(s->arg, frame, length);
		return;
	}
	at = find(s, key, make_key(frame, &t, true, key));
	if (frame[t.tcp + AT_FLAGS] & SYN && to_syn(s, at, frame, &t))
		return;
	if (*at && (*at)->state == OPEN) {
		to_open(s, *at, frame, &t);
		return;
	}
	if (*at && frame[t.tcp + AT_FLAGS] & RST) {
		(*at)->ended |= RESET;
		s->stale = true;
	}
	s->send(s->arg, frame, length);
}

/* ---- The whole ---- */

void stretch_pump(struct stretch *s)
{
	for (size_t i = 0; s->held && i < BUCKETS; i++)
		for (struct flow *f = s->buckets[i]; f; f = f->next)
			pump(s, f);
	if (s->stale)
		sweep(s, false);
}

struct stretch *stretch_new(stretch_fn feed, stretch_fn send, void *arg, struct error *err)
{
	struct stretch *s = calloc(1, sizeof(*s));

	if (!s) {
		error_oom(err);
		return NULL;
	}
	s->feed = feed;
	s->send = send;
	s->arg = arg;
	return s;
}

void stretch_free(struct stretch *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < BUCKETS; i++)
		while (s->buckets[i])
			drop_flow(s, &s->buckets[i]);
	free(s);
}
