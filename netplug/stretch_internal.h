/* What stretch.c, stretch_ahead.c and stretch_copies.c share. */
#ifndef NETPLUG_STRETCH_INTERNAL_H
#define NETPLUG_STRETCH_INTERNAL_H

#include <stdbool.h>

#include "netplug/offload.h"
#include "netplug/stretch.h"

#define SHIFT	   2
#define WINDOW_MAX 65535u
#define WIDTH	   ((WINDOW_MAX << SHIFT) - WINDOW_MAX)
#define BUCKETS	   64u
#define KEY_MAX	   36 /* two IPv6 addresses, two ports */

enum { FIN = 0x01, SYN = 0x02, RST = 0x04, PSH = 0x08, ACK = 0x10, URG = 0x20 };

/* Where they are in a TCP header. */
enum { AT_SEQUENCE = 4, AT_ACK = 8, AT_OFFSET = 12, AT_FLAGS = 13, AT_WINDOW = 14 };

/* The addresses and ports of a connection, the guest's first. */
struct key {
	size_t length;
	uint8_t bytes[KEY_MAX];
};

/* A segment that one end has been told that the other has it. */
struct copy {
	struct copy *next;
	struct offload_tcp t;
	size_t done; /* bytes of its payload that were fed, of the guest's */
	uint8_t frame[];
};

/* In the order of the stream; first is NULL: there are none, and last is nothing. */
struct copies {
	struct copy *first, *last;
};

/* Of an acknowledgement without options. */
struct ack_header {
	struct offload_tcp t;
	uint8_t bytes[OFFLOAD_HEADER_MAX];
};

enum state {
	ASKED,	 /* the guest's SYN offers to scale */
	OFFERED, /* we do, in libslirp's SYN */
	OPEN,	 /* both do */
};

enum { GUEST_ENDED = 1, HOST_ENDED = 2, BOTH_ENDED = 3, RESET = 4 };

struct flow {
	struct flow *next; /* in its bucket */
	struct key key;
	enum state state;
	uint8_t shift; /* of the guest's windows */
	uint8_t ended;

	/* the guest's stream: stretch.c */
	uint32_t fed, taken, edge;
	struct copies held;

	/* the host's stream: stretch_ahead.c */
	uint32_t heard, right, early, kept_end;
	uint32_t sent;	      /* libslirp's next byte */
	uint32_t ack, window; /* what libslirp was told last */
	bool asks;	      /* it wants to be told again */
	unsigned repeats;     /* acknowledgements that said nothing new */
	unsigned tries;	      /* how often the first of what is kept was sent again */
	uint64_t due;	      /* to be sent again, in loop_now_ns() */
	struct copies kept;

	struct ack_header to_guest, to_host;
};

struct stretch {
	struct flow *buckets[BUCKETS];
	size_t flows;
	size_t held, kept; /* what the copies of all flows take */
	bool stale;	   /* there may be flows that have ended */
	bool paused, slow; /* stretch_pause(), stretch_slow() */
	stretch_fn feed, send;
	void *arg;
	uint8_t piece[OFFLOAD_FRAME_MAX];
};

static inline bool is_before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static inline size_t payload_of(const struct offload_tcp *t)
{
	return t->length - t->payload;
}

/* What the guest is offered, as a header has it, if it is told of all up to `ack`. */
static inline uint16_t stretch_offer(const struct flow *f, uint32_t ack)
{
	uint32_t right = f->edge + WIDTH, room = is_before(ack, right) ? (right - ack) >> SHIFT : 0;

	return (uint16_t)(room < WINDOW_MAX ? room : WINDOW_MAX);
}

/* An acknowledgement of `ack`, in room for OFFLOAD_HEADER_MAX bytes. Its length. */
size_t ack_make(uint8_t *frame, const struct ack_header *h, uint32_t sequence, uint32_t ack, uint16_t window);

/* stretch_copies.c: `taken` counts the memory of all that are in lists of one kind. */

/* Copies a frame of t->length bytes to the end. false: that would take more than `max`, or there is no memory. */
bool copies_add(struct copies *c, size_t *taken, size_t max, const uint8_t *frame, const struct offload_tcp *t);
void copies_drop_first(struct copies *c, size_t *taken);
/* All of them. */
void copies_drop(struct copies *c, size_t *taken);

/* stretch_ahead.c */

/* The host's stream begins. */
void ahead_begin(struct flow *f, uint32_t next);
/* A segment for the guest, before learn() has seen it: keeps a copy, if it may. */
void ahead_keep(struct stretch *s, struct flow *f, const uint8_t *frame, const struct offload_tcp *t);
/*
 * A segment of the guest's: learns what it says of the host's stream, and puts there what libslirp is to know instead. Whether that
 * is something new.
 */
bool ahead_hear(struct stretch *s, struct flow *f, uint8_t *tcp, const struct offload_tcp *t);
/* When libslirp may be fed: tells it of what is kept, and sends again what is due. */
void ahead_look(struct stretch *s, struct flow *f);

#endif
