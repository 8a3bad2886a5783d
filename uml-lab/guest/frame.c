/*
 * Frames in memory. A stream that lost its step is brought back by looking
 * for the next FRAME_START byte by byte: on a serial line that is all one can do.
 */
#include <endian.h>
#include <string.h>

#include "uml-lab/guest/frame.h"

uint16_t frame_u16(const uint8_t *p)
{
	return p[0] | p[1] << 8;
}

uint32_t frame_u32(const uint8_t *p)
{
	return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

int frame_next(struct buffer *in, struct frame_view *view, size_t *skipped)
{
	const uint8_t *p;

	while (in->length >= sizeof(struct frame)) {
		p = in->data + in->start;
		view->type = frame_u16(p + 4);
		view->length = frame_u16(p + 6);
		view->channel = frame_u32(p + 8);
		view->payload = p + sizeof(struct frame);
		if (frame_u32(p) == FRAME_START && view->length <= FRAME_PAYLOAD_MAX)
			return in->length >= sizeof(struct frame) + view->length;
		buffer_consume(in, 1);
		++*skipped;
	}
	return 0;
}

void frame_drop(struct buffer *in, const struct frame_view *view)
{
	buffer_consume(in, sizeof(struct frame) + view->length);
}

uint8_t *frame_room(struct buffer *out, size_t max)
{
	uint8_t *p = buffer_reserve(out, sizeof(struct frame) + max);

	return p ? p + sizeof(struct frame) : NULL;
}

void frame_commit(struct buffer *out, uint16_t type, uint32_t channel, size_t length)
{
	struct frame header = {
		.start = htole32(FRAME_START),
		.type = htole16(type),
		.length = htole16(length),
		.channel = htole32(channel),
	};

	memcpy(out->data + out->start + out->length, &header, sizeof(header));
	buffer_grow(out, sizeof(header) + length);
}

int frame_put(struct buffer *out, uint16_t type, uint32_t channel, const void *payload, size_t length)
{
	uint8_t *to = length <= FRAME_PAYLOAD_MAX ? frame_room(out, length) : NULL;

	if (!to)
		return -1;
	if (length)
		memcpy(to, payload, length);
	frame_commit(out, type, channel, length);
	return 0;
}
