/*
 * What a network card does for its driver: checksums, cutting TCP super-frames into segments, and what must be
 * known of a segment to join it to others. All of it works on frames in memory of our own.
 */
#ifndef NETPLUG_OFFLOAD_H
#define NETPLUG_OFFLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OFFLOAD_HEADER_MAX (14 + 4 + 60 + 60)	  /* Ethernet, a VLAN tag, IPv4 and TCP with all their options */
#define OFFLOAD_FRAME_MAX  (14 + 4 + 40 + 65535)  /* a super-frame: IPv6's length does not count its header */
#define OFFLOAD_TCP_CHECKSUM 16			  /* where it stands in the header */
#define OFFLOAD_MSS_MIN	   48			  /* Linux' own (net/ipv4/tcp.c: TCP_MIN_SND_MSS) */

/* The one's complement sum of 16-bit words (RFC 1071) as they lie in memory, not folded; an odd byte counts as the first of two. */
uint64_t offload_sum(const void *data, size_t length);
/* Folds it to 16 bits, still in memory order. */
uint16_t offload_fold(uint64_t sum);

/* Writes a sum as a checksum. */
void offload_put_sum(uint8_t *at, uint64_t sum);
/* As UDP's: never 0, which there means that there is none; 0xffff stands for it (RFC 768), and nowhere else (RFC 1624). */
void offload_put_udp_sum(uint8_t *at, uint64_t sum);

/*
 * Completes a checksum of which the sender has done the pseudo-header: over all from `start` on, into the two bytes at
 * start + offset (virtio 1.2, 5.1.6.2). false: they lie outside.
 */
bool offload_complete(uint8_t *frame, size_t length, size_t start, size_t offset);

/* A TCP segment that is whole, not a fragment, and has no IPv6 extension headers. Offsets into the frame. */
struct offload_tcp {
	bool v6;
	size_t ip, tcp, payload;
	size_t length; /* to the packet's end; what follows is padding */
};

/* false: the frame is something else. */
bool offload_parse(const uint8_t *frame, size_t length, struct offload_tcp *t);

/* Whether the segment's TCP checksum is right, and IPv4's own. */
bool offload_verify(const uint8_t *frame, const struct offload_tcp *t);

/* The folded sum of the pseudo-header of a segment of `length` bytes from its TCP header on (RFC 9293, 3.1; RFC 8200, 8.1). */
uint16_t offload_pseudo(const uint8_t *frame, const struct offload_tcp *t, size_t length);

/* Sets the length of an IP packet, and IPv4's checksum. */
void offload_set_length(uint8_t *frame, const struct offload_tcp *t, size_t packet);

/* Writes into a TCP header at an even offset, and mends its checksum, right or wrong as it is (RFC 1624). */
void offload_set16(uint8_t *tcp, size_t at, uint16_t value);
void offload_set32(uint8_t *tcp, size_t at, uint32_t value);

/*
 * Lengths and checksums of a frame with the headers that t tells of and that much payload; t->length is not looked at. The frame's
 * length.
 */
size_t offload_finish(uint8_t *frame, const struct offload_tcp *t, size_t payload);

/*
 * Cuts a frame into segments of mss bytes of payload, each with headers and checksums of its own, and calls fn with
 * each; the frame's TCP checksum is not looked at. The frame passed to fn is valid during the call. Frames no longer
 * than mss make one segment.
 */
void offload_cut(const uint8_t *frame, const struct offload_tcp *t, size_t mss,
		 void (*fn)(void *arg, const uint8_t *frame, size_t length), void *arg);

#endif
