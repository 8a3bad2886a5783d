/* Frames in memory: taken out of a stream of bytes, and put into a queue of bytes to send. */
#ifndef UML_LAB_GUEST_FRAME_H
#define UML_LAB_GUEST_FRAME_H

#include "uml-lab/guest/guest.h"
#include "uml-lab/guest/protocol.h"

/* A frame that was taken out; payload points into the buffer and lives until the buffer changes. */
struct frame_view {
	uint16_t type;
	uint16_t length;
	uint32_t channel;
	const uint8_t *payload;
};

/*
 * Takes the next whole frame out of `in`: 1 and *view; call frame_drop() when done with it. 0: more bytes are needed.
 * Bytes that can't start a frame (a line that lost or gained some) are dropped and counted in *skipped.
 */
int frame_next(struct buffer *in, struct frame_view *view, size_t *skipped);
/* Removes the frame that frame_next() gave. */
void frame_drop(struct buffer *in, const struct frame_view *view);

/* Appends a frame. 0; -1 without memory or when length exceeds FRAME_PAYLOAD_MAX. */
int frame_put(struct buffer *out, uint16_t type, uint32_t channel, const void *payload, size_t length);
/*
 * The same in two steps, so that bytes are read from a pipe right into the queue: room for a payload of max bytes, then the
 * frame with what came. NULL without memory.
 */
uint8_t *frame_room(struct buffer *out, size_t max);
void frame_commit(struct buffer *out, uint16_t type, uint32_t channel, size_t length);

/* Little-endian integers in payloads, whatever the alignment. */
uint16_t frame_u16(const uint8_t *p);
uint32_t frame_u32(const uint8_t *p);

#endif
