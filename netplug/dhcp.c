/*
 * libslirp's DHCP answers do not tell the MTU; it is put in here.
 *
 * How it works: libslirp 4.7 sends an answer as a BOOTP message of a fixed
 * size with room after the last option (bootp.c:bootp_reply, struct bootp_t).
 * The option goes in the place of the end mark. Where an answer has no room,
 * it is made longer by the option's size. Lengths and checksums are
 * written anew. Everything is checked all the same, as if a guest had sent it.
 */
#include <string.h>

#include <net/ethernet.h>

#include "netplug/netplug_internal.h"

#define IPV4_HEADER 20
#define UDP_HEADER 8
#define BOOTP_HEADER 236	/* RFC 951, up to the options' magic cookie */
#define OPTIONS (BOOTP_HEADER + 4)
#define SERVER_PORT 67
#define CLIENT_PORT 68
#define OPTION_PAD 0		/* RFC 2132 section 3 */
#define OPTION_END 255
#define OPTION_MTU 26		/* RFC 2132 section 5.1 */
#define OPTION_SIZE 4

/* Where the end mark is; 0 when the options are damaged or tell an MTU already. */
static size_t find_end(const uint8_t *bootp, size_t length)
{
	static const uint8_t cookie[] = { 99, 130, 83, 99 };
	size_t at = OPTIONS;

	if (length < OPTIONS || memcmp(bootp + BOOTP_HEADER, cookie, sizeof(cookie)))
		return 0;
	while (at < length && bootp[at] != OPTION_END) {
		if (bootp[at] == OPTION_PAD) {
			at++;
			continue;
		}
		if (bootp[at] == OPTION_MTU || at + 1 >= length)
			return 0;
		at += 2 + (size_t)bootp[at + 1];
	}
	return at < length ? at : 0;
}

struct written {
	uint8_t *out;
	size_t length;
};

static void keep(void *arg, const uint8_t *frame, size_t length)
{
	struct written *w = arg;

	memcpy(w->out, frame, length);
	w->length = length;
}

size_t dhcp_add_mtu(const uint8_t *frame, size_t length, uint32_t mtu, uint8_t out[static DHCP_FRAME_MAX])
{
	const size_t before = ETHERNET_HEADER + IPV4_HEADER + UDP_HEADER;
	struct written written = { .out = out };
	struct frame_info info;
	struct frame_datagram d;
	uint8_t bootp[DHCP_FRAME_MAX];
	size_t end;

	if (frame_inspect(frame, length, &info) != FRAME_PASS || !info.udp4 || info.source_port != SERVER_PORT ||
	    info.destination_port != CLIENT_PORT || info.payload_length + OPTION_SIZE + before > DHCP_FRAME_MAX)
		return 0;
	memcpy(bootp, info.payload, info.payload_length);
	end = find_end(bootp, info.payload_length);
	if (!end)
		return 0;
	memcpy(bootp + end, (const uint8_t[]){ OPTION_MTU, 2, (uint8_t)(mtu >> 8), (uint8_t)mtu, OPTION_END },
	       OPTION_SIZE + 1);
	d = (struct frame_datagram){
		.source = info.source,
		.destination = info.destination,
		.source_port = info.source_port,
		.destination_port = info.destination_port,
		.payload = bootp,
		.payload_length = end + OPTION_SIZE + 1 > info.payload_length ? end + OPTION_SIZE + 1 :
										info.payload_length,
	};
	memcpy(d.to, frame, 6);
	memcpy(d.from, frame + 6, 6);
	frame_build_datagram(&d, DHCP_FRAME_MAX, keep, &written);
	return written.length;
}
