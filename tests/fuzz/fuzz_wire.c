/*
 * Frames come from guests and from any process of the user. However the bytes
 * are cut into reads, the same frames come out, none larger than allowed, and
 * texts taken from them are clean.
 */
#include <stdlib.h>
#include <string.h>

#include "uml-lab/machine/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_texts(const struct wire_frame *frame)
{
	uint32_t code;
	char *text = wire_text(frame), *failure = wire_failure(frame, &code);

	for (const char *p = text; p && *p; p++)
		if ((*p > 0 && *p < 0x20 && *p != '\n' && *p != '\t') || *p == 0x7f)
			abort();
	free(text);
	free(failure);
}

/* Takes all frames, fed in pieces of `step` bytes; returns a hash of them. */
static uint64_t take_all(const uint8_t *data, size_t size, size_t step, bool resync)
{
	struct wire wire;
	struct wire_frame frame;
	uint64_t hash = 14695981039346656037u;

	wire_init(&wire, 1 << 20, resync);
	for (size_t at = 0; at < size; at += step) {
		int got;

		wire_feed(&wire, data + at, size - at < step ? size - at : step);
		while ((got = wire_next(&wire, &frame, NULL)) == 1) {
			if (frame.length > FRAME_PAYLOAD_MAX)
				abort();
			check_texts(&frame);
			hash = (hash ^ frame.type ^ frame.channel) * 1099511628211u;
			for (size_t i = 0; i < frame.length; i++)
				hash = (hash ^ frame.payload[i]) * 1099511628211u;
		}
		if (got < 0 && resync)
			abort();
		if (got < 0)
			break;
	}
	wire_free(&wire);
	return hash;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (take_all(data, size, size ? size : 1, true) != take_all(data, size, 7, true) ||
	    take_all(data, size, size ? size : 1, false) != take_all(data, size, 3, false))
		abort();
	return 0;
}
