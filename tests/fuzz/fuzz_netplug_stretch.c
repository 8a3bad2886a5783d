/*
 * A guest's TCP between it and libslirp (netplug/stretch.c): any segments in any order, from both sides, also while libslirp is
 * fed. Nothing is read or written out of bounds, what is held stays within its bounds, and libslirp gets whole segments only.
 * Input: records of 8 bytes: what (bits 0: to the guest, 1: IPv6, 2-3: port, 4: right after the next feed, 5-6: how far off,
 * 7: scale), flags, sequence (2), acknowledgement, window, payload (2).
 */
#include <stdlib.h>

#include "netplug/stretch.h"
#include "tests/unit/tcp_frame.h"

#define RECORD 8

static struct stretch *stretch;
static uint8_t later[OFFLOAD_FRAME_MAX];
static size_t later_length;

static void check(const uint8_t *frame, size_t length)
{
	struct offload_tcp t;

	if (!offload_parse(frame, length, &t) || t.length > length || !offload_verify(frame, &t))
		abort();
}

static void feed(void *arg, const uint8_t *frame, size_t length)
{
	size_t n = later_length;

	(void)arg;
	check(frame, length);
	later_length = 0;
	if (n)
		stretch_to_guest(stretch, later, n);
}

static void send_guest(void *arg, const uint8_t *frame, size_t length)
{
	(void)arg;
	check(frame, length);
}

static void one(const uint8_t *r)
{
	static const uint32_t far[] = {0, 65536, 0x7fff0000, 0xfffff000};
	static uint8_t frame[OFFLOAD_FRAME_MAX];
	const struct segment s = {
		.to_guest = r[0] & 1, .v6 = r[0] & 2, .port = r[0] >> 2 & 3, .flags = r[1],
		.sequence = get16(r + 2) + far[r[0] >> 5 & 3], .ack = (uint32_t)r[4] << 8, .window = (uint16_t)(r[5] << 8 | r[4]),
		.scale = r[0] & 0x80 ? r[5] : -1, .payload = get16(r + 6) % 65000,
	};

	if (s.to_guest && r[0] & 0x10) {
		later_length = segment_make(later, &s);
		return;
	}
	if (s.to_guest)
		stretch_to_guest(stretch, frame, segment_make(frame, &s));
	else
		stretch_from_guest(stretch, frame, segment_make(frame, &s));
	if (r[1] & 0x40)
		stretch_pump(stretch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	stretch = stretch_new(feed, send_guest, NULL, NULL);
	if (!stretch)
		abort();
	later_length = 0;
	for (; size >= RECORD; data += RECORD, size -= RECORD)
		one(data);
	stretch_pump(stretch);
	stretch_free(stretch);
	return 0;
}
