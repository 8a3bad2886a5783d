/* TCP segments between a guest and a host, made by hand. */
#ifndef TESTS_TCP_FRAME_H
#define TESTS_TCP_FRAME_H

#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

#include "netplug/bytes.h"
#include "netplug/offload.h"

struct segment {
	bool v6, to_guest;
	uint16_t port; /* the guest's */
	uint32_t sequence, ack;
	uint16_t window;
	uint8_t flags;
	int scale; /* of a window scale option; -1: none */
	size_t payload;
};

/* Its length; the payload's bytes are those of the sequence numbers. Checksums are right. */
static inline size_t segment_make(uint8_t *f, const struct segment *s)
{
	struct offload_tcp t = {.v6 = s->v6, .ip = 14, .tcp = s->v6 ? 54 : 34};
	size_t options = s->scale >= 0 ? 4 : 0, n;
	uint8_t *ip = f + 14, *tcp = f + t.tcp;

	t.payload = t.tcp + 20 + options;
	memset(f, 0, t.payload);
	memset(f, 2, 12);
	put16(f + 12, s->v6 ? 0x86dd : 0x0800);
	ip[0] = s->v6 ? 0x60 : 0x45;
	ip[s->v6 ? 6 : 9] = IPPROTO_TCP;
	n = s->v6 ? 16 : 4;
	ip[(s->v6 ? 8 : 12) + (s->to_guest ? n : 0)] = 10; /* the guest's */
	ip[(s->v6 ? 8 : 12) + (s->to_guest ? 0 : n)] = 11;
	put16(tcp + (s->to_guest ? 2 : 0), s->port);
	put16(tcp + (s->to_guest ? 0 : 2), 80);
	put32(tcp + 4, s->sequence);
	put32(tcp + 8, s->ack);
	tcp[12] = (uint8_t)((20 + options) / 4 << 4);
	tcp[13] = s->flags;
	put16(tcp + 14, s->window);
	if (options)
		memcpy(tcp + 20, (uint8_t[]){3, 3, (uint8_t)s->scale, 1}, 4);
	for (size_t i = 0; i < s->payload; i++)
		f[t.payload + i] = (uint8_t)((s->sequence + i) * 7 >> 3);
	t.length = t.payload + s->payload;
	offload_set_length(f, &t, t.length - t.ip);
	offload_put_sum(tcp + 16, offload_pseudo(f, &t, t.length - t.tcp) + offload_sum(tcp, t.length - t.tcp));
	return t.length;
}

#endif
