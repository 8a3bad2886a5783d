/*
 * Frames of protocol.h over a stream socket: cut out of what was read, and
 * queued for writing. Used by the supervisor (agent's line, clients) and by the
 * clients themselves.
 */
#ifndef UML_LAB_MACHINE_WIRE_H
#define UML_LAB_MACHINE_WIRE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "uml-lab/base/error.h"
#include "uml-lab/base/str.h"
#include "uml-lab/guest/protocol.h"

struct wire {
	struct strbuf in;	/* read, not yet taken; at most a frame and one read */
	size_t taken;		/* bytes of in that wire_next() has handed out */
	struct strbuf out;	/* queued, not yet written */
	size_t out_max;		/* bytes that may be queued */
	size_t allowance;	/* bytes that may be written before the reader has to say more: SIZE_MAX for no such limit */
	bool resync;		/* rubbish between frames is skipped (a tty anybody in the guest may write to) */
	uint64_t skipped;	/* bytes of rubbish so far */
};

/* A frame inside wire.in: payload is good until the next wire_read(). */
struct wire_frame {
	uint16_t type;
	uint32_t channel;
	const uint8_t *payload;
	uint16_t length;
};

void wire_init(struct wire *wire, size_t out_max, bool resync);
void wire_free(struct wire *wire);

/* Reads once what is there. Bytes read, 0 at end of file, -1 with errno (EAGAIN: nothing there). */
ssize_t wire_read(struct wire *wire, int fd);
/* Puts bytes in as if they had been read. */
void wire_feed(struct wire *wire, const void *data, size_t length);

/*
 * The next whole frame. 1 and *frame; 0: more must be read first; -1 + err when
 * the bytes are no frame (never with resync) or memory ran out.
 */
int wire_next(struct wire *wire, struct wire_frame *frame, struct error *err);

/* Queues a frame; length ≤ FRAME_PAYLOAD_MAX. 0, or -1 when out_max would be exceeded or memory is out: nothing is queued. */
int wire_queue(struct wire *wire, enum frame_type type, uint32_t channel, const void *payload, size_t length);
/* Queues text as one or more frames of the type (an empty text as one empty frame). */
int wire_queue_text(struct wire *wire, enum frame_type type, uint32_t channel, const char *text);
/* Queues u32 code + text, cut to fit one frame: FRAME_ERROR and FRAME_FAILED. */
int wire_queue_failure(struct wire *wire, enum frame_type type, uint32_t channel, uint32_t code, const char *text);

/* Writes what the socket takes and the allowance allows. 0: all is written, 1: some is left, -1 with errno. Raises no SIGPIPE. */
int wire_write(struct wire *wire, int fd);

/* The payload as a NUL-terminated copy, control characters but newline and tab replaced by '?'. malloc'ed or NULL. */
char *wire_text(const struct wire_frame *frame);
/* u32 code and text of FRAME_ERROR and FRAME_FAILED. Text malloc'ed; NULL when the frame is damaged or memory out. */
char *wire_failure(const struct wire_frame *frame, uint32_t *code);

#endif
