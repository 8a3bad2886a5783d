/*
 * What a guest gets: libslirp is told that the guest has what was only just sent to it, so that it fetches more of the host's
 * socket meanwhile. A copy is kept until the guest says so itself. Numbers of the host's stream:
 *
 *	heard ── kept ── kept_end       the guest has all before `heard`
 *	early                           what libslirp is told that it has: up to kept_end, when that can be told
 *	right                           up to which the guest has room
 *
 * Nothing is kept but what follows what libslirp was told of, nor more than the guest has room for; all else is between the guest
 * and libslirp alone, until the guest has it. A FIN is never acknowledged in the guest's place.
 *
 * Nothing is lost between here and a guest's kernel but what that kernel has no memory for: on a line that the lab file makes a
 * bad one (impair.c) nothing is kept. So the sending again is simple: what is missed is sent when the guest says three times
 * that it has no more (RFC 5681, 3.2), or nothing for AGAIN_NS, then after twice that time and so on. After TRIES the
 * connection is given up.
 */
#include "netplug/bytes.h"
#include "netplug/stretch_internal.h"
#include "uml-lab/base/loop.h"

#define AHEAD	    (512u << 10) /* bytes of a connection */
#define AGAIN_NS    300000000u	 /* far above what a busy guest takes to answer */
#define AGAIN_SHIFT 8u		 /* twice at most so often: 77 s */
#define TRIES	    12u
#define REPEATS	    3u
#define TURNS	    8 /* libslirp's buffer holds two windows */

void ahead_begin(struct flow *f, uint32_t next)
{
	f->heard = f->right = f->early = f->kept_end = f->sent = f->ack = next;
}

static uint32_t end_of(const struct copy *h)
{
	return get32(h->frame + h->t.tcp + AT_SEQUENCE) + (uint32_t)payload_of(&h->t);
}

void ahead_keep(struct stretch *s, struct flow *f, const uint8_t *frame, const struct offload_tcp *t)
{
	uint32_t end = f->sent + (uint32_t)payload_of(t);
	bool first = !f->kept.first;

	if (end == f->sent || get32(frame + t->tcp + AT_SEQUENCE) != f->sent || f->sent != f->kept_end || s->paused || s->slow ||
	    end - f->heard > AHEAD || is_before(f->right, end) || !copies_add(&f->kept, &s->kept, STRETCH_KEPT_MAX, frame, t))
		return;
	if (first)
		f->due = loop_now_ns() + AGAIN_NS;
	f->kept_end = end;
}

static void send_again(struct stretch *s, struct flow *f)
{
	struct copy *h = f->kept.first;
	uint8_t *tcp = h->frame + h->t.tcp;

	offload_set32(tcp, AT_ACK, f->taken);
	offload_set16(tcp, AT_WINDOW, stretch_offer(f, f->taken));
	f->due = loop_now_ns() + ((uint64_t)AGAIN_NS << (f->tries < AGAIN_SHIFT ? f->tries : AGAIN_SHIFT));
	s->send(s->arg, h->frame, h->t.length);
}

static uint32_t room_of(const struct flow *f)
{
	uint32_t room = is_before(f->early, f->right) ? f->right - f->early : 0;

	return room < WINDOW_MAX ? room : WINDOW_MAX;
}

bool ahead_hear(struct stretch *s, struct flow *f, uint8_t *tcp, const struct offload_tcp *t)
{
	uint32_t ack = get32(tcp + AT_ACK), right = ack + ((uint32_t)get16(tcp + AT_WINDOW) << f->shift);
	bool news;

	if (is_before(f->heard, ack)) {
		f->heard = ack;
		f->repeats = f->tries = 0;
		f->due = loop_now_ns() + AGAIN_NS;
		while (f->kept.first && !is_before(ack, end_of(f->kept.first)))
			copies_drop_first(&f->kept, &s->kept);
		if (is_before(f->early, ack))
			f->early = ack;
		if (is_before(f->kept_end, ack))
			f->kept_end = ack;
	} else if (ack == f->heard && right == f->right && f->kept.first && !payload_of(t) && ++f->repeats == REPEATS) {
		send_again(s, f);
	}
	if (!is_before(ack, f->heard))
		f->right = right;
	/* while there is something that libslirp itself keeps for the guest, it is told each word */
	news = f->early != f->ack || room_of(f) != f->window || f->asks || f->early != f->sent;
	f->ack = f->early;
	f->window = room_of(f);
	f->asks = false;
	if (ack != f->ack)
		offload_set32(tcp, AT_ACK, f->ack);
	offload_set16(tcp, AT_WINDOW, (uint16_t)f->window);
	return news;
}

/* libslirp may send more while it is told. */
static void tell(struct stretch *s, struct flow *f)
{
	uint8_t frame[OFFLOAD_HEADER_MAX];

	f->ack = f->early = f->kept_end;
	f->window = room_of(f);
	s->feed(s->arg, frame, ack_make(frame, &f->to_host, f->fed, f->ack, (uint16_t)f->window));
}

void ahead_look(struct stretch *s, struct flow *f)
{
	for (int i = 0; f->early != f->kept_end && !(f->ended & RESET) && i < TURNS; i++)
		tell(s, f);
	if (!f->kept.first || loop_now_ns() < f->due)
		return;
	if (f->tries++ < TRIES) {
		send_again(s, f);
		return;
	}
	f->ended |= RESET;
	s->stale = true;
}

int stretch_wait_ms(const struct stretch *s)
{
	uint64_t now = loop_now_ns(), first = UINT64_MAX;

	if (!s->kept)
		return -1;
	for (size_t i = 0; i < BUCKETS; i++)
		for (const struct flow *f = s->buckets[i]; f; f = f->next)
			if (f->kept.first && f->due < first)
				first = f->due;
	return first <= now ? 0 : (int)((first - now) / 1000000 + 1);
}
