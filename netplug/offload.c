/*
 * Checksums and TCP segmentation.
 *
 * How it works: sums are taken over words as they lie in memory; the one's complement sum does not depend on the byte
 * order as long as it is written back the same way (RFC 1071, 2 (B)). 32-bit words are added into 64-bit registers,
 * which do not overflow for anything shorter than 16 GiB; four of them, so that the additions do not wait for each other.
 *
 * Cutting (as Linux' tcp_gso_segment() and inet_gso_segment() do): each segment has the headers of the whole, with its own
 * length, sequence number, IPv4 identification (counted up) and checksums. FIN and PSH belong to the last, CWR to the first.
 */
#include "netplug/offload.h"

#include <net/ethernet.h>
#include <netinet/in.h>
#include <string.h>

#include "netplug/bytes.h"

#define ETHERNET 14
#define VLAN	 4
#define IPV4	 20
#define IPV6	 40
#define TCP	 20
#define UDP_CHECKSUM 6 /* where it stands in the header; no other protocol has its own there */

#define TCP_FIN 0x01
#define TCP_PSH 0x08
#define TCP_CWR 0x80

uint64_t offload_sum(const void *data, size_t length)
{
	const uint8_t *p = data;
	uint64_t sum[4] = { 0 };
	uint16_t half;

	for (; length >= 16; p += 16, length -= 16) {
		uint32_t w[4];

		memcpy(w, p, sizeof(w));
		for (int i = 0; i < 4; i++)
			sum[i] += w[i];
	}
	for (; length >= 2; p += 2, length -= 2) {
		memcpy(&half, p, 2);
		sum[0] += half;
	}
	if (length) {
		half = 0;
		memcpy(&half, p, 1);
		sum[0] += half;
	}
	return sum[0] + sum[1] + sum[2] + sum[3];
}

uint16_t offload_fold(uint64_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

void offload_put_sum(uint8_t *at, uint64_t sum)
{
	uint16_t v = (uint16_t)~offload_fold(sum);

	memcpy(at, &v, 2);
}

void offload_put_udp_sum(uint8_t *at, uint64_t sum)
{
	offload_put_sum(at, sum);
	if (!at[0] && !at[1])
		at[0] = at[1] = 0xff;
}

bool offload_complete(uint8_t *frame, size_t length, size_t start, size_t offset)
{
	if (start > length || offset + 2 > length - start)
		return false;
	(offset == UDP_CHECKSUM ? offload_put_udp_sum : offload_put_sum)(frame + start + offset,
									 offload_sum(frame + start, length - start));
	return true;
}

static bool parse_ipv4(const uint8_t *ip, size_t left, struct offload_tcp *t, size_t *packet)
{
	size_t header;

	if (left < IPV4 || ip[0] >> 4 != 4)
		return false;
	header = (size_t)(ip[0] & 15) * 4;
	*packet = get16(ip + 2);
	/* neither a fragment nor reserved bits: only DF may be set */
	if (header < IPV4 || *packet < header || *packet > left || get16(ip + 6) & 0xbfff || ip[9] != IPPROTO_TCP)
		return false;
	t->tcp = t->ip + header;
	return true;
}

static bool parse_ipv6(const uint8_t *ip, size_t left, struct offload_tcp *t, size_t *packet)
{
	if (left < IPV6 || ip[0] >> 4 != 6 || ip[6] != IPPROTO_TCP)
		return false;
	*packet = IPV6 + (size_t)get16(ip + 4);
	t->v6 = true;
	t->tcp = t->ip + IPV6;
	return *packet <= left;
}

bool offload_parse(const uint8_t *frame, size_t length, struct offload_tcp *t)
{
	size_t packet, header;
	uint16_t type;

	*t = (struct offload_tcp){ .ip = ETHERNET };
	if (length < ETHERNET + VLAN)
		return false;
	type = get16(frame + 12);
	if (type == ETHERTYPE_VLAN) {
		type = get16(frame + 16);
		t->ip += VLAN;
	}
	if (type == ETHERTYPE_IP ? !parse_ipv4(frame + t->ip, length - t->ip, t, &packet)
				 : type != ETHERTYPE_IPV6 || !parse_ipv6(frame + t->ip, length - t->ip, t, &packet))
		return false;
	t->length = t->ip + packet;
	if (t->length < t->tcp + TCP)
		return false;
	header = (size_t)(frame[t->tcp + 12] >> 4) * 4;
	t->payload = t->tcp + header;
	return header >= TCP && t->payload <= t->length;
}

uint16_t offload_pseudo(const uint8_t *frame, const struct offload_tcp *t, size_t length)
{
	uint8_t rest[8] = { 0 };
	uint64_t sum = t->v6 ? offload_sum(frame + t->ip + 8, 32) : offload_sum(frame + t->ip + 12, 8);

	put32(rest, (uint32_t)length);
	rest[7] = IPPROTO_TCP;
	return offload_fold(sum + offload_sum(rest, sizeof(rest)));
}

bool offload_verify(const uint8_t *frame, const struct offload_tcp *t)
{
	size_t length = t->length - t->tcp;

	if (!t->v6 && offload_fold(offload_sum(frame + t->ip, t->tcp - t->ip)) != 0xffff)
		return false;
	return offload_fold(offload_pseudo(frame, t, length) + offload_sum(frame + t->tcp, length)) == 0xffff;
}

void offload_set_length(uint8_t *frame, const struct offload_tcp *t, size_t packet)
{
	uint8_t *ip = frame + t->ip;

	if (t->v6) {
		put16(ip + 4, (uint16_t)(packet - IPV6));
		return;
	}
	put16(ip + 2, (uint16_t)packet);
	put16(ip + 10, 0);
	offload_put_sum(ip + 10, offload_sum(ip, t->tcp - t->ip));
}

void offload_set16(uint8_t *tcp, size_t at, uint16_t value)
{
	uint16_t was, is, sum;

	memcpy(&was, tcp + at, 2);
	put16(tcp + at, value);
	memcpy(&is, tcp + at, 2);
	memcpy(&sum, tcp + OFFLOAD_TCP_CHECKSUM, 2);
	offload_put_sum(tcp + OFFLOAD_TCP_CHECKSUM, (uint64_t)(uint16_t)~sum + (uint16_t)~was + is);
}

void offload_set32(uint8_t *tcp, size_t at, uint32_t value)
{
	offload_set16(tcp, at, (uint16_t)(value >> 16));
	offload_set16(tcp, at + 2, (uint16_t)value);
}

size_t offload_finish(uint8_t *frame, const struct offload_tcp *t, size_t payload)
{
	uint8_t *tcp = frame + t->tcp;
	size_t length = t->payload - t->tcp + payload;

	offload_set_length(frame, t, t->payload - t->ip + payload);
	put16(tcp + OFFLOAD_TCP_CHECKSUM, 0);
	offload_put_sum(tcp + OFFLOAD_TCP_CHECKSUM, offload_pseudo(frame, t, length) + offload_sum(tcp, length));
	return t->payload + payload;
}

void offload_cut(const uint8_t *frame, const struct offload_tcp *t, size_t mss,
		 void (*fn)(void *arg, const uint8_t *frame, size_t length), void *arg)
{
	static uint8_t piece[OFFLOAD_FRAME_MAX];
	size_t header = t->payload, payload = t->length - t->payload, at = 0;
	uint32_t sequence = get32(frame + t->tcp + 4);
	uint16_t id = get16(frame + t->ip + 4);
	uint8_t flags = frame[t->tcp + 13];

	do {
		size_t n = payload - at < mss ? payload - at : mss;
		uint8_t *tcp = piece + t->tcp;

		memcpy(piece, frame, header);
		memcpy(piece + header, frame + header + at, n);
		if (!t->v6)
			put16(piece + t->ip + 4, id++);
		put32(tcp + 4, sequence + (uint32_t)at);
		tcp[13] = (uint8_t)(flags & ~((at + n < payload ? TCP_FIN | TCP_PSH : 0) | (at ? TCP_CWR : 0)));
		fn(arg, piece, offload_finish(piece, t, n));
		at += n;
	} while (at < payload);
}
