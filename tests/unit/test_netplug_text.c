/* The parts of netplug without a process: forwards as text, frames, libslirp's table of connections. */
#include <arpa/inet.h>
#include <string.h>

#include "netplug/netplug_internal.h"
#include "tests/unit/unit.h"

static void test_forward_accepted(void)
{
	static const struct {
		const char *text, *full;
	} cases[] = {
		{ "8080:80", "127.0.0.1:8080:0.0.0.0:80/tcp" },
		{ "5353:53/udp", "127.0.0.1:5353:0.0.0.0:53/udp" },
		{ "127.0.0.1:2222:22", "127.0.0.1:2222:0.0.0.0:22/tcp" },
		{ "0.0.0.0:2222:10.0.2.16:22/tcp", "0.0.0.0:2222:10.0.2.16:22/tcp" },
		{ "2222:10.0.2.16:22", "127.0.0.1:2222:10.0.2.16:22/tcp" },
		{ "auto:80", "127.0.0.1:auto:0.0.0.0:80/tcp" },
		{ "[::1]:8080:80", "[::1]:8080:[::]:80/tcp" },
		{ "8080:[fec0::15]:80", "[::1]:8080:[fec0::15]:80/tcp" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char once[NETPLUG_FORWARD_TEXT_MAX] = "", again[NETPLUG_FORWARD_TEXT_MAX] = "";
		struct netplug_forward f;
		struct error err = ERROR_INIT;

		CU_ASSERT_EQUAL(netplug_forward_parse(cases[i].text, &f, &err), 0);
		CU_ASSERT_STRING_EQUAL(netplug_forward_format(&f, once), cases[i].full);
		CU_ASSERT_EQUAL(netplug_forward_parse(once, &f, &err), 0);
		CU_ASSERT_STRING_EQUAL(netplug_forward_format(&f, again), once);
	}
}

static void test_forward_refused(void)
{
	static const char *const cases[] = {
		"", "80", ":80", "80:", "80:80/sctp", "0:80", "65536:80", "80:0", "80:65536", "a:80", "80:auto",
		"1.2.3:80:80", "1.2.3.4.5:80:80", "::1:80:80", "[::1:80:80", "[]:80:80", "[::1]:80:10.0.2.15:80",
		"[::1]:80:80/udp", "80::80", "1:2:3:4:5", "127.0.0.1::80", "-1:80", "80:80/", "80:80/tcp/udp", "[[::1]]:1:2",
		"[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]:1:2",
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct netplug_forward f;
		struct error err = ERROR_INIT;

		CU_ASSERT_EQUAL(netplug_forward_parse(cases[i], &f, &err), -1);
		CU_ASSERT_EQUAL(err.kind, ERROR_USAGE);
		CU_ASSERT_PTR_NOT_NULL(strstr(err.message, cases[i]));
	}
}

static void test_forward_key(void)
{
	struct netplug_forward a, b;

	netplug_forward_parse("127.0.0.1:80:80", &a, NULL);
	netplug_forward_parse("80:10.0.2.99:8080", &b, NULL);
	CU_ASSERT_TRUE(netplug_forward_same_host(&a, &b));
	netplug_forward_parse("80:80/udp", &b, NULL);
	CU_ASSERT_FALSE(netplug_forward_same_host(&a, &b));
	netplug_forward_parse("0.0.0.0:80:80", &b, NULL);
	CU_ASSERT_FALSE(netplug_forward_same_host(&a, &b));
}

/* A frame with an IPv4 header to the given address, or an IPv6 one. */
static size_t frame_to(uint8_t frame[static 64], const char *address)
{
	bool v6 = strchr(address, ':');

	memset(frame, 0, 64);
	frame[12] = v6 ? 0x86 : 0x08;
	frame[13] = v6 ? 0xdd : 0x00;
	frame[14] = v6 ? 0x60 : 0x45;
	frame[17] = 20;
	inet_pton(v6 ? AF_INET6 : AF_INET, address, frame + (v6 ? 38 : 30));
	return v6 ? 54 : 34;
}

static void test_frame_loopback(void)
{
	static const char *const refused[] = { "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "::1", "::",
					       "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1" };
	static const char *const passed[] = { "10.0.2.2", "8.8.8.8", "255.255.255.255", "fec0::2", "2001:db8::1",
					      "ff02::1", "fe80::2" };
	struct frame_info info;
	uint8_t frame[64];

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		CU_ASSERT_EQUAL(frame_inspect(frame, frame_to(frame, refused[i]), &info), FRAME_REFUSED);
	for (size_t i = 0; i < sizeof(passed) / sizeof(passed[0]); i++)
		CU_ASSERT_EQUAL(frame_inspect(frame, frame_to(frame, passed[i]), &info), FRAME_PASS);
	frame_to(frame, "10.0.2.2");
	for (size_t length = ETHERNET_HEADER; length < 34; length++)
		CU_ASSERT_EQUAL(frame_inspect(frame, length, &info), FRAME_REFUSED);
	frame_to(frame, "fec0::2");
	for (size_t length = ETHERNET_HEADER; length < 54; length++)
		CU_ASSERT_EQUAL(frame_inspect(frame, length, &info), FRAME_REFUSED);
	frame[12] = 0x88;
	frame[13] = 0xf8;
	CU_ASSERT_EQUAL(frame_inspect(frame, 54, &info), FRAME_REFUSED);
}

struct pieces {
	uint8_t data[65536];
	size_t length, count;
	bool last;
};

static void take_piece(void *arg, const uint8_t *frame, size_t length)
{
	struct pieces *p = arg;
	size_t offset = ((size_t)(frame[20] & 0x1f) << 8 | frame[21]) * 8;
	struct frame_info info;
	bool whole = !(frame[20] & 0x20) && !offset;

	/* A guest's own pieces are refused. */
	CU_ASSERT_EQUAL(frame_inspect(frame, length, &info), whole ? FRAME_PASS : FRAME_REFUSED);
	CU_ASSERT_EQUAL(info.udp4, whole);
	CU_ASSERT_EQUAL(offset, p->length);
	CU_ASSERT_TRUE(length <= ETHERNET_HEADER + 1500);
	memcpy(p->data + offset, frame + 34, length - 34);
	p->length = offset + length - 34;
	p->last = !(frame[20] & 0x20);
	p->count++;
}

static void test_frame_fragments(void)
{
	static uint8_t payload[65507];
	static struct pieces p;
	static const size_t lengths[] = { 0, 1, 1471, 1472, 1473, 9000, 65507 };

	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)(i * 31 >> 3);
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct frame_datagram d = { .payload = payload, .payload_length = lengths[i], .source_port = 53 };

		inet_pton(AF_INET, "10.0.2.2", &d.source);
		inet_pton(AF_INET, "10.0.2.15", &d.destination);
		p.length = p.count = 0;
		frame_build_datagram(&d, 1500, take_piece, &p);
		CU_ASSERT_EQUAL(p.length, lengths[i] + 8);
		CU_ASSERT_TRUE(p.last);
		CU_ASSERT_EQUAL(p.count, (lengths[i] + 8 + 1479) / 1480);
		CU_ASSERT_FALSE(memcmp(p.data + 8, payload, lengths[i]));
	}
}

/* A packet of a restricted guest, as frame_inspect() describes it. */
static struct frame_info packet(uint8_t protocol, const char *to, uint16_t port, uint8_t flags)
{
	struct frame_info info = { .protocol = protocol, .whole = true, .destination_port = port };

	info.family = strchr(to, ':') ? AF_INET6 : AF_INET;
	inet_pton(info.family, to, info.family == AF_INET ? (void *)&info.destination : &info.destination6);
	if (protocol == IPPROTO_TCP)
		info.tcp_flags = flags;
	else
		info.icmp_type = flags;
	return info;
}

static void test_allow(void)
{
	static const char *const good[] = { "192.0.2.10:443", "192.0.2.64/26", "[2001:db8::]:80/tcp", "2001:db8:1::/48",
					    "10.0.2.3:53/udp" };
	static const char *const bad[] = { "", "192.0.2.10:0", "192.0.2.10:65536", "192.0.2.10/33", "[::1", "2001:db8::/129",
					   "host:80", "192.0.2.10:80/icmp", "1.2.3.4/-1" };
	struct allow_list list = { 0 };
	struct netplug_port_config c;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		CU_ASSERT_EQUAL(netplug_allow_parse(good[i], &list.rules[list.count++], NULL), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CU_ASSERT_EQUAL(netplug_allow_parse(bad[i], &list.rules[ALLOW_MAX - 1], NULL), -1);
	netplug_port_config_init(&c, 0);
	static const struct {
		bool passes;
		uint8_t protocol;
		const char *to;
		uint16_t port;
		uint8_t flags;
	} cases[] = {
		{ true, IPPROTO_TCP, "192.0.2.10", 443, 0x02 },	/* a bare SYN */
		{ false, IPPROTO_TCP, "192.0.2.10", 444, 0x02 },
		{ false, IPPROTO_TCP, "192.0.2.10", 444, 0xc2 },	/* ECN's bits change nothing */
		{ false, IPPROTO_TCP, "192.0.2.10", 444, 0x0a },	/* nor does PSH */
		{ true, IPPROTO_TCP, "192.0.2.10", 444, 0x10 },	/* opens nothing */
		{ false, IPPROTO_UDP, "192.0.2.10", 443, 0 },
		{ true, IPPROTO_UDP, "192.0.2.127", 9, 0 },
		{ true, IPPROTO_ICMP, "192.0.2.64", 0, 8 },
		{ false, IPPROTO_ICMP, "192.0.2.128", 0, 8 },
		{ true, IPPROTO_TCP, "2001:db8::", 80, 0x02 },
		{ true, IPPROTO_TCP, "2001:db8:1:2::3", 99, 0x02 },
		{ false, IPPROTO_TCP, "2001:db8:2::3", 99, 0x02 },
		{ true, IPPROTO_UDP, "10.0.2.3", 53, 0 },
		{ false, IPPROTO_TCP, "10.0.2.3", 53, 0x02 },
		{ true, IPPROTO_UDP, "255.255.255.255", 67, 0 },
		{ true, IPPROTO_ICMP, "10.0.2.2", 0, 8 },
		{ false, IPPROTO_UDP, "10.0.2.2", 69, 0 },
		{ true, IPPROTO_ICMPV6, "ff02::2", 0, 133 },
		{ false, IPPROTO_ICMPV6, "2001:db8::9", 0, 128 },
		{ false, IPPROTO_HOPOPTS, "2001:db8:1::1", 0, 0 },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct frame_info info = packet(cases[i].protocol, cases[i].to, cases[i].port, cases[i].flags);

		info.whole = cases[i].protocol != IPPROTO_HOPOPTS;
		if (allow_passes(&list, &c, &info) != cases[i].passes)
			CU_FAIL(cases[i].to);
	}
}

static void test_idle(void)
{
#define HEADER "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n"
#define FORWARD "  TCP[HOST_FORWARD]  11       127.0.0.1  8080       10.0.2.15    80     0     0\n"
#define QUIET "  TCP[ESTABLISHED]   12       10.0.2.15 44556        10.0.2.2    80     0     0\n"
	CU_ASSERT_EQUAL(slirp_idle_ms(""), -1);
	CU_ASSERT_EQUAL(slirp_idle_ms(HEADER), -1);
	CU_ASSERT_EQUAL(slirp_idle_ms(HEADER FORWARD QUIET), -1);
	CU_ASSERT_EQUAL(slirp_idle_ms(HEADER FORWARD
				      "  TCP[ESTABLISHED]   12       10.0.2.15 44556        10.0.2.2    80     0    10\n"), 0);
	CU_ASSERT_EQUAL(slirp_idle_ms(HEADER
				      "  TCP[ESTABLISHED]   12       10.0.2.15 44556        10.0.2.2    80     7     0\n"), 0);
	CU_ASSERT_EQUAL(slirp_idle_ms(HEADER QUIET
				      "  TCP[TIME_WAIT]     12       10.0.2.15 44556        10.0.2.2    80     0     0\n"), 0);
	CU_ASSERT_EQUAL(slirp_idle_ms(HEADER "  UDP[236 sec]       13       10.0.2.15 33333        10.0.2.3    53     0     0\n"
				      "  ICMP[9 sec]        14       10.0.2.15  -           8.8.8.8  -        0     0\n"), 10000);
	CU_ASSERT_EQUAL(slirp_idle_ms("something else\n"), 0);
}

UNIT_MAIN("netplug text", UNIT_CASE(test_forward_accepted), UNIT_CASE(test_forward_refused),
	  UNIT_CASE(test_forward_key), UNIT_CASE(test_frame_loopback), UNIT_CASE(test_frame_fragments),
	  UNIT_CASE(test_allow), UNIT_CASE(test_idle))
