/*
 * Frames: what the guest may send, and UDP datagrams made for it.
 *
 * How it works: a guest's root writes any frame it likes. libslirp checks
 * lengths and checksums itself, but it connects to the destination address as
 * written unless that is one of its own (libslirp 4.7 socket.c:sotranslate_out4,
 * sotranslate_out6). On Linux some addresses lead back to the host's own
 * services: 127.0.0.0/8, 0.0.0.0/8 (connect() to 0.0.0.0 is loopback), ::1, ::,
 * and IPv4 addresses mapped into IPv6. They stop here; the only way to the
 * host's loopback is the address `host`, which libslirp guards.
 *
 * What is neither ARP nor IP stops here too: libslirp would answer NC-SI. And
 * so do pieces of IPv4 datagrams: two frames of them make Debian's libslirp 4.7
 * follow a pointer into the guest's data (ip_input.c:ip_reass; found by
 * fuzz_netplug_frames, kept as corpus/netplug_frames/fragments-crash). A
 * guest's datagrams are whole up to its MTU; longer ones do not get out.
 */
#include <string.h>

#include <arpa/inet.h>
#include <net/ethernet.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>

#include "netplug/bytes.h"
#include "netplug/netplug_internal.h"
#include "netplug/offload.h"

#define IPV4_HEADER 20
#define UDP_HEADER 8
#define TCP_HEADER 20
#define ICMP_HEADER 8
#define IPV4_MAX 65535
#define DEFAULT_TTL 64

/* A whole UDP datagram: notes its ends. `length` is that of header and payload. */
static void inspect_udp(const uint8_t *udp, size_t length, struct frame_info *info)
{
	size_t said = get16(udp + 4);

	if (said < UDP_HEADER || said > length)
		return;
	info->udp4 = true;
	info->payload = udp + UDP_HEADER;
	info->payload_length = said - UDP_HEADER;
}

/* What follows the IP header. */
static void inspect_transport(const uint8_t *data, size_t length, struct frame_info *info)
{
	switch (info->protocol) {
	case IPPROTO_TCP:
		info->whole = length >= TCP_HEADER;
		break;
	case IPPROTO_UDP:
		info->whole = length >= UDP_HEADER;
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		info->whole = length >= ICMP_HEADER;
		info->icmp_type = info->whole ? data[0] : 0;
		return;
	}
	if (!info->whole)
		return;
	info->source_port = get16(data);
	info->destination_port = get16(data + 2);
	if (info->protocol == IPPROTO_TCP)
		info->tcp_flags = data[13];
	else if (info->family == AF_INET)
		inspect_udp(data, length, info);
}

static enum frame_verdict inspect_ipv4(const uint8_t *ip, size_t length, struct frame_info *info)
{
	size_t header, total;
	uint8_t first;

	if (length < IPV4_HEADER)
		return FRAME_REFUSED;
	header = (size_t)(ip[0] & 15) * 4;
	total = get16(ip + 2);
	if (ip[0] >> 4 != 4 || header < IPV4_HEADER || total < header || total > length)
		return FRAME_REFUSED;
	memcpy(&info->source, ip + 12, 4);
	memcpy(&info->destination, ip + 16, 4);
	first = ip[16];
	if (first == 0 || first == IN_LOOPBACKNET)
		return FRAME_REFUSED;
	if (get16(ip + 6) & (IP_MF | IP_OFFMASK))
		return FRAME_REFUSED;
	info->family = AF_INET;
	info->protocol = ip[9];
	inspect_transport(ip + header, total - header, info);
	return FRAME_PASS;
}

static enum frame_verdict inspect_ipv6(const uint8_t *ip, size_t length, struct frame_info *info)
{
	struct in6_addr *to = &info->destination6;
	size_t payload;

	if (length < sizeof(struct ip6_hdr))
		return FRAME_REFUSED;
	memcpy(to, ip + offsetof(struct ip6_hdr, ip6_dst), sizeof(*to));
	/* ::/96 covers ::, ::1 and the IPv4-compatible addresses. */
	if (IN6_IS_ADDR_V4MAPPED(to) || (!to->s6_addr32[0] && !to->s6_addr32[1] && !to->s6_addr32[2]))
		return FRAME_REFUSED;
	info->family = AF_INET6;
	info->protocol = ip[offsetof(struct ip6_hdr, ip6_nxt)];
	payload = get16(ip + offsetof(struct ip6_hdr, ip6_plen));
	if (payload <= length - sizeof(struct ip6_hdr))
		inspect_transport(ip + sizeof(struct ip6_hdr), payload, info);
	return FRAME_PASS;
}

enum frame_verdict frame_inspect(const uint8_t *frame, size_t length, struct frame_info *info)
{
	const uint8_t *packet = frame + ETHERNET_HEADER;

	*info = (struct frame_info){ 0 };
	switch (get16(frame + 12)) {
	case ETHERTYPE_ARP:
		info->arp = true;
		return FRAME_PASS;
	case ETHERTYPE_IP:
		return inspect_ipv4(packet, length - ETHERNET_HEADER, info);
	case ETHERTYPE_IPV6:
		return inspect_ipv6(packet, length - ETHERNET_HEADER, info);
	default:
		return FRAME_REFUSED;
	}
}

/* UDP header over the IPv4 pseudo-header (RFC 768). */
static void write_udp(uint8_t *udp, const struct frame_datagram *d)
{
	uint16_t length = (uint16_t)(UDP_HEADER + d->payload_length);
	uint8_t pseudo[4] = { 0, IPPROTO_UDP };
	uint64_t sum;

	put16(pseudo + 2, length);
	put16(udp, d->source_port);
	put16(udp + 2, d->destination_port);
	put16(udp + 4, length);
	put16(udp + 6, 0);
	memcpy(udp + UDP_HEADER, d->payload, d->payload_length);
	sum = offload_sum(pseudo, sizeof(pseudo)) + offload_sum(&d->source, 4) + offload_sum(&d->destination, 4) +
	      offload_sum(udp, length);
	offload_put_udp_sum(udp + 6, sum);
}

/* IPv4 header of a piece that starts `offset` bytes into the datagram. */
static void write_ipv4(uint8_t *ip, const struct frame_datagram *d, size_t offset, size_t length, bool more)
{
	memset(ip, 0, IPV4_HEADER);
	ip[0] = 0x45;
	put16(ip + 2, (uint16_t)(IPV4_HEADER + length));
	put16(ip + 4, d->id);
	put16(ip + 6, (uint16_t)(offset / 8 | (more ? IP_MF : 0)));
	ip[8] = DEFAULT_TTL;
	ip[9] = IPPROTO_UDP;
	memcpy(ip + 12, &d->source, 4);
	memcpy(ip + 16, &d->destination, 4);
	offload_put_sum(ip + 10, offload_sum(ip, IPV4_HEADER));
}

void frame_build_datagram(const struct frame_datagram *d, size_t mtu,
			  void (*fn)(void *arg, const uint8_t *frame, size_t length), void *arg)
{
	static uint8_t datagram[IPV4_MAX], frame[ETHERNET_HEADER + IPV4_MAX];
	size_t total = UDP_HEADER + d->payload_length;
	size_t piece_max = (mtu - IPV4_HEADER) & ~(size_t)7;

	write_udp(datagram, d);
	memcpy(frame, d->to, 6);
	memcpy(frame + 6, d->from, 6);
	put16(frame + 12, ETHERTYPE_IP);
	for (size_t offset = 0; offset < total;) {
		size_t left = total - offset;
		size_t piece = left <= mtu - IPV4_HEADER ? left : piece_max;

		write_ipv4(frame + ETHERNET_HEADER, d, offset, piece, piece < left);
		memcpy(frame + ETHERNET_HEADER + IPV4_HEADER, datagram + offset, piece);
		fn(arg, frame, ETHERNET_HEADER + IPV4_HEADER + piece);
		offset += piece;
	}
}
