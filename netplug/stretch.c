/*
 * How it works: a connection is found by its addresses and ports, known from its SYN on. This file is about what the guest sends;
 * stretch_ahead.c about what it gets. Numbers of a flow, all of the guest's stream (sequence numbers, compared as RFC 9293, 3.4,
 * does):
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
#include <stdlib.h>
#include <string.h>

#include "netplug/bytes.h"
#include "netplug/stretch_internal.h"
#include "uml-lab/base/cleanup.h"

#define PIECE_MIN 4096u /* fed at least, unless it is all: libslirp tells when there is more */
#define ETHERNET  14
#define TCP	  20

enum { OPTION_END, OPTION_NOP, OPTION_SCALE = 3 }; /* RFC 9293, 3.1; RFC 7323, 2.2 */
#define SCALE_LENGTH 3
#define SHIFT_MAX    14

/* ---- Flows ---- */

/* As the guest's own segments have it; back: the frame goes to the guest. */
static struct key key_of(const uint8_t *frame, const struct offload_tcp *t, bool back)
{
	const uint8_t *address = frame + t->ip + (t->v6 ? 8 : 12), *port = frame + t->tcp;
	size_t n = t->v6 ? 16 : 4;
	struct key key = {.length = 2 * n + 4};
	uint8_t *ports = key.bytes + 2 * n;

	memcpy(key.bytes, address + (back ? n : 0), n);
	memcpy(key.bytes + n, address + (back ? 0 : n), n);
	memcpy(ports, port + (back ? 2 : 0), 2);
	memcpy(ports + 2, port + (back ? 0 : 2), 2);
	return key;
}

/* Where the pointer to the flow is, or would be. */
static struct flow **find(struct stretch *s, const struct key *key)
{
	const uint8_t *ports = key->bytes + key->length - 4;
	struct flow **at = &s->buckets[(get16(ports) ^ get16(ports + 2)) % BUCKETS];

	while (*at && ((*at)->key.length != key->length || memcmp((*at)->key.bytes, key->bytes, key->length)))
		at = &(*at)->next;
	return at;
}

static void drop_flow(struct stretch *s, struct flow **at)
{
	struct flow *f = *at;

	copies_drop(&f->held, &s->held);
	copies_drop(&f->kept, &s->kept);
	*at = f->next;
	s->flows--;
	free(f);
}

/* Both ends are through, and the guest has it all; or one has reset it. */
static bool has_ended(const struct flow *f)
{
	return f->ended & RESET || (f->ended == BOTH_ENDED && !f->held.first && f->heard == f->sent);
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
static struct flow *add_flow(struct stretch *s, const struct key *key, enum state state)
{
	struct flow *f, **at;

	if (s->flows == STRETCH_FLOWS_MAX)
		sweep(s, true);
	f = s->flows < STRETCH_FLOWS_MAX ? calloc(1, sizeof(*f)) : NULL;
	if (!f)
		return NULL;
	f->key = *key;
	f->state = state;
	at = find(s, key);
	f->next = *at;
	*at = f;
	s->flows++;
	return f;
}

/* ---- Headers ---- */

/* From a SYN: of an acknowledgement in the same direction. */
static void keep_header(struct ack_header *h, const uint8_t *frame, const struct offload_tcp *t)
{
	h->t = *t;
	h->t.payload = t->tcp + TCP;
	memcpy(h->bytes, frame, h->t.payload);
	h->bytes[t->tcp + AT_OFFSET] = TCP / 4 << 4;
	h->bytes[t->tcp + AT_FLAGS] = ACK;
}

size_t ack_make(uint8_t *frame, const struct ack_header *h, uint32_t sequence, uint32_t ack, uint16_t window)
{
	uint8_t *tcp = frame + h->t.tcp;

	memcpy(frame, h->bytes, h->t.payload);
	put32(tcp + AT_SEQUENCE, sequence);
	put32(tcp + AT_ACK, ack);
	put16(tcp + AT_WINDOW, window);
	return offload_finish(frame, &h->t, 0);
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

/* ---- To libslirp ---- */

/* The next n bytes of what is held. */
static void feed_piece(struct stretch *s, struct flow *f, struct copy *h, size_t n)
{
	const struct offload_tcp *t = &h->t;
	bool whole = h->done == 0 && n == payload_of(t), last = h->done + n == payload_of(t);
	uint8_t *frame = whole ? h->frame : s->piece, *tcp = frame + t->tcp;

	if (!whole) {
		memcpy(frame, h->frame, t->payload);
		memcpy(frame + t->payload, h->frame + t->payload + h->done, n);
		put32(tcp + AT_SEQUENCE, f->fed);
		/* what is urgent is told from the beginning of the whole: it is only data here */
		tcp[AT_FLAGS] &= (uint8_t)~(last ? URG : URG | FIN | PSH);
		offload_finish(frame, t, n);
	}
	offload_set32(tcp, AT_ACK, f->ack);
	offload_set16(tcp, AT_WINDOW, (uint16_t)f->window);
	h->done += n;
	f->fed += (uint32_t)n + (last && tcp[AT_FLAGS] & FIN);
	s->feed(s->arg, frame, t->payload + n);
}

static void pump(struct stretch *s, struct flow *f)
{
	/* feeding may tell of more room, or end it all */
	while (f->held.first && !(f->ended & RESET) && !is_before(f->edge, f->fed)) {
		struct copy *h = f->held.first;
		size_t left = payload_of(&h->t) - h->done, room = f->edge - f->fed, n = left < room ? left : room;

		if (n < left && n < PIECE_MIN)
			return;
		feed_piece(s, f, h, n);
		if (n == left)
			copies_drop_first(&f->held, &s->held);
	}
}

/* What a segment that is not fed (yet) says of the host's stream. */
static void tell_ack(struct stretch *s, struct flow *f, const uint8_t *frame, const struct offload_tcp *t)
{
	uint8_t copy[OFFLOAD_HEADER_MAX], *tcp = copy + t->tcp;

	memcpy(copy, frame, t->payload);
	put32(tcp + AT_SEQUENCE, f->fed);
	tcp[AT_FLAGS] = ACK;
	s->feed(s->arg, copy, offload_finish(copy, t, 0));
}

/* ---- To the guest ---- */

static void acknowledge(struct stretch *s, struct flow *f)
{
	uint8_t frame[OFFLOAD_HEADER_MAX];

	s->send(s->arg, frame, ack_make(frame, &f->to_guest, f->sent, f->taken, stretch_offer(f, f->taken)));
}

/* ---- From the guest ---- */

/* A segment that libslirp has no room for, or not before what came earlier. */
static void take_early(struct stretch *s, struct flow *f, const uint8_t *frame, const struct offload_tcp *t, bool news)
{
	const uint8_t *tcp = frame + t->tcp;
	uint32_t sequence = get32(tcp + AT_SEQUENCE), bytes = (uint32_t)payload_of(t) + (tcp[AT_FLAGS] & FIN);
	bool expected = sequence == f->taken;
	bool fits = !is_before(f->edge + WIDTH, sequence + (uint32_t)payload_of(t));
	/* without memory for it, the guest has to send it again */
	bool taken = expected && bytes && fits && copies_add(&f->held, &s->held, STRETCH_HELD_MAX, frame, t);

	if (taken) {
		f->taken += bytes;
		pump(s, f);
	}
	if (f->held.first && news)
		tell_ack(s, f, frame, t);
	/* who sent something, or probes, wants to know where we are; of what was fed at once libslirp has told */
	if ((f->held.first || !taken) && (bytes || !expected))
		acknowledge(s, f);
}

static void from_open(struct stretch *s, struct flow *f, uint8_t *frame, const struct offload_tcp *t)
{
	uint8_t *tcp = frame + t->tcp, flags = tcp[AT_FLAGS];
	uint32_t end = get32(tcp + AT_SEQUENCE) + (uint32_t)payload_of(t) + (flags & FIN);
	bool news = ahead_hear(s, f, tcp, t);

	if (flags & RST) {
		if (f->held.first)
			offload_set32(tcp, AT_SEQUENCE, f->fed);
		f->ended |= RESET;
		s->stale = true;
		s->feed(s->arg, frame, t->length);
		return;
	}
	s->stale |= f->ended;
	if (flags & FIN)
		f->ended |= GUEST_ENDED;
	if (f->held.first || is_before(f->edge, end - (flags & FIN))) {
		take_early(s, f, frame, t, news);
		return;
	}
	if (!news && flags == ACK && get32(tcp + AT_SEQUENCE) == f->taken && end == f->taken)
		return; /* libslirp knows */
	/* in order; what is not, libslirp sorts, and its acknowledgements say how far it is */
	if (!is_before(f->taken, get32(tcp + AT_SEQUENCE)) && is_before(f->taken, end))
		f->fed = f->taken = end;
	s->feed(s->arg, frame, t->length);
}

/* Begins a connection, or answers ours. */
static void from_syn(struct stretch *s, const struct key *key, const uint8_t *frame, const struct offload_tcp *t)
{
	int shift = scale_of(frame, t);
	struct flow **at = find(s, key), *f = *at;
	bool answer = frame[t->tcp + AT_FLAGS] & ACK;

	if (answer && f && f->state == OFFERED && shift >= 0) {
		f->state = OPEN;
		f->shift = (uint8_t)shift;
		f->right = f->heard + get16(frame + t->tcp + AT_WINDOW);
		keep_header(&f->to_host, frame, t);
		f->fed = f->taken = f->edge = get32(frame + t->tcp + AT_SEQUENCE) + 1;
		return;
	}
	if (answer && f && f->state == OPEN)
		return; /* once more */
	if (f)
		drop_flow(s, at);
	if (answer || shift < 0)
		return;
	f = add_flow(s, key, ASKED);
	if (f) {
		f->shift = (uint8_t)shift;
		keep_header(&f->to_host, frame, t);
	}
}

void stretch_from_guest(struct stretch *s, uint8_t *frame, size_t length)
{
	struct offload_tcp t;
	struct key key;
	struct flow *f;

	if (!offload_parse(frame, length, &t) || t.ip != ETHERNET) {
		s->feed(s->arg, frame, length);
		return;
	}
	key = key_of(frame, &t, false);
	f = *find(s, &key);
	if (f && f->state == OPEN && !(frame[t.tcp + AT_FLAGS] & SYN)) {
		from_open(s, f, frame, &t);
		return;
	}
	if (frame[t.tcp + AT_FLAGS] & SYN)
		from_syn(s, &key, frame, &t);
	s->feed(s->arg, frame, length);
}

/* ---- From libslirp ---- */

/* libslirp's own options are few: there is room for one more. */
static void offer_scale(struct stretch *s, struct flow *f, const uint8_t *frame, const struct offload_tcp *t)
{
	static const uint8_t scale[] = {OPTION_NOP, OPTION_SCALE, SCALE_LENGTH, SHIFT};
	uint8_t copy[OFFLOAD_HEADER_MAX], *tcp = copy + t->tcp;
	struct offload_tcp longer = *t;

	keep_header(&f->to_guest, frame, t);
	memcpy(copy, frame, t->payload);
	memcpy(copy + t->payload, scale, sizeof(scale));
	longer.payload += sizeof(scale);
	tcp[AT_OFFSET] = (uint8_t)((longer.payload - t->tcp) / 4 << 4);
	s->send(s->arg, copy, offload_finish(copy, &longer, 0));
}

/* Returns whether it was sent. */
static bool to_syn(struct stretch *s, const struct key *key, const uint8_t *frame, const struct offload_tcp *t)
{
	const uint8_t *tcp = frame + t->tcp;
	struct flow **at = find(s, key), *f = *at;

	if (t->payload + 4 > t->tcp + 60 || payload_of(t))
		return false;
	if (tcp[AT_FLAGS] & ACK) {
		if (!f || f->state == OFFERED)
			return false;
		if (f->state == ASKED) {
			f->fed = f->taken = get32(tcp + AT_ACK);
			f->edge = f->fed + get16(tcp + AT_WINDOW);
			f->state = OPEN;
			ahead_begin(f, get32(tcp + AT_SEQUENCE) + 1);
		}
	} else {
		if (f && f->state != OFFERED)
			drop_flow(s, at);
		f = *at ?: add_flow(s, key, OFFERED);
		if (!f)
			return false;
		ahead_begin(f, get32(tcp + AT_SEQUENCE) + 1);
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
	if (!f->held.first && is_before(f->taken, ack))
		f->fed = f->taken = ack;
	if (is_before(f->edge, edge))
		f->edge = edge;
}

static void to_open(struct stretch *s, struct flow *f, const uint8_t *frame, const struct offload_tcp *t)
{
	const uint8_t *tcp = frame + t->tcp;
	uint32_t ack = get32(tcp + AT_ACK);

	if (payload_of(t) ? get32(tcp + AT_SEQUENCE) != f->sent : is_before(get32(tcp + AT_SEQUENCE), f->sent))
		f->asks = true;
	ahead_keep(s, f, frame, t);
	learn(f, tcp, t);
	s->stale |= f->ended;
	if (f->held.first)
		ack = f->taken;
	if (tcp[AT_FLAGS] & RST || (!f->held.first && get16(tcp + AT_WINDOW) == WINDOW_MAX)) {
		s->send(s->arg, frame, t->length);
	} else {
		uint8_t *copy = s->piece;

		memcpy(copy, frame, t->length);
		offload_set32(copy + t->tcp, AT_ACK, ack);
		offload_set16(copy + t->tcp, AT_WINDOW, stretch_offer(f, ack));
		s->send(s->arg, copy, t->length);
	}
}

void stretch_to_guest(struct stretch *s, const uint8_t *frame, size_t length)
{
	struct offload_tcp t;
	struct key key;
	struct flow *f;

	if (!offload_parse(frame, length, &t) || t.ip != ETHERNET) {
		s->send(s->arg, frame, length);
		return;
	}
	key = key_of(frame, &t, true);
	if (frame[t.tcp + AT_FLAGS] & SYN && to_syn(s, &key, frame, &t))
		return;
	f = *find(s, &key);
	if (f && f->state == OPEN) {
		to_open(s, f, frame, &t);
		return;
	}
	if (f && frame[t.tcp + AT_FLAGS] & RST) {
		f->ended |= RESET;
		s->stale = true;
	}
	s->send(s->arg, frame, length);
}

/* ---- The whole ---- */

void stretch_pump(struct stretch *s)
{
	for (size_t i = 0; (s->held || s->kept) && i < BUCKETS; i++)
		for (struct flow *f = s->buckets[i]; f; f = f->next) {
			pump(s, f);
			ahead_look(s, f);
		}
	if (s->stale)
		sweep(s, false);
}

void stretch_pause(struct stretch *s, bool paused)
{
	s->paused = paused;
}

void stretch_slow(struct stretch *s, bool slow)
{
	s->slow = slow;
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
