/*
 * A real plug against a guest that speaks raw Ethernet (netplug_peer.h). All
 * of it happens in a network namespace of its own, so that ports and name
 * servers are ours alone; the first case makes it.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>

#include "tests/unit/netplug_peer.h"
#include "tests/unit/unit.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"

static uint8_t frame[65536];

static void write_text(const char *path, const char *text)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

	CU_ASSERT_TRUE_FATAL(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

/* A file of ours in the place of /etc/resolv.conf, in a mount namespace. */
static void set_resolver(const char *text)
{
	char path[] = "/tmp/netplug-test-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);

	CU_ASSERT_TRUE_FATAL(fd >= 0);
	CU_ASSERT_EQUAL(file_write_full(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	CU_ASSERT_EQUAL_FATAL(mount(path, "/etc/resolv.conf", NULL, MS_BIND, NULL), 0);
	unlink(path);
}

static void test_isolation(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	char map[64];
	unsigned uid = getuid(), gid = getgid();
	cleanup_close int fd = -1;

	CU_ASSERT_EQUAL_FATAL(unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS), 0);
	write_text("/proc/self/setgroups", "deny");
	snprintf(map, sizeof(map), "0 %u 1", uid);
	write_text("/proc/self/uid_map", map);
	snprintf(map, sizeof(map), "0 %u 1", gid);
	write_text("/proc/self/gid_map", map);
	CU_ASSERT_EQUAL(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	CU_ASSERT_EQUAL_FATAL(ioctl(fd, SIOCSIFFLAGS, &lo), 0);
	set_resolver("nameserver 127.0.0.1\n");
}

static struct netplug_port_config default_config(void)
{
	struct netplug_port_config c;

	netplug_port_config_init(&c, 0);
	memcpy(c.mac, peer_mac, 6);
	strcpy(c.hostname, "guest-1");
	strcpy(c.domain, "lab.test");
	strcpy(c.search, "lab.test other.test");
	return c;
}

static void open_default(struct peer *p)
{
	struct netplug_port_config c = default_config();

	CU_ASSERT_TRUE_FATAL(peer_open(p, &c));
}

/* The plug ends by itself, well, when the supervisor's end closes: checked at the end of every case. */
static void close_well(struct peer *p)
{
	CU_ASSERT_EQUAL(peer_close(p), 0);
}

/* A socket on 127.0.0.1:*port, a free one for 0. Listening when TCP. */
static int bind_host(int type, unsigned *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)*port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(a);
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	CU_ASSERT_EQUAL_FATAL(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	CU_ASSERT_EQUAL(getsockname(fd, (struct sockaddr *)&a, &size), 0);
	if (type == SOCK_STREAM)
		listen(fd, 5);
	*port = ntohs(a.sin_port);
	return fd;
}

static bool readable(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, ms) > 0;
}

static bool is_arp_reply(const uint8_t *f, size_t length, const void *arg)
{
	return length >= 42 && peer_get16(f + 12) == 0x0806 && peer_get16(f + 20) == 2 && !memcmp(f + 28, arg, 4);
}

static bool arp_works(struct peer *p)
{
	static const uint8_t gateway[] = { 10, 0, 2, 2 };

	peer_send_arp(p, 1, "10.0.2.15", "10.0.2.2");
	return peer_expect(p, PEER_WAIT_MS, frame, is_arp_reply, gateway);
}

static void test_arp(void)
{
	static const uint8_t dns[] = { 10, 0, 2, 3 };
	struct peer p;

	open_default(&p);
	CU_ASSERT_TRUE(arp_works(&p));
	peer_send_arp(&p, 1, "10.0.2.15", "10.0.2.3");
	CU_ASSERT_TRUE(peer_expect(&p, PEER_WAIT_MS, frame, is_arp_reply, dns) > 0);
	close_well(&p);
}

/* The value of a DHCP option in an answer, and its length; NULL when it is not there. */
static const uint8_t *dhcp_option(const uint8_t *f, size_t length, unsigned code, size_t *size)
{
	size_t at = 14 + 20 + 8 + 236 + 4;

	while (at + 1 < length && f[at] != 255) {
		*size = f[at + 1];
		if (f[at] == code && at + 2 + *size <= length)
			return f + at + 2;
		at += f[at] ? 2 + *size : 1;
	}
	return NULL;
}

static size_t dhcp_discover(struct peer *p)
{
	static const struct peer_flow reply = { .from_port = 67, .to_port = 68 };
	uint8_t m[300] = { 1, 1, 6, 0, 1, 2, 3, 4 };

	memcpy(m + 28, peer_mac, 6);
	memcpy(m + 236, (const uint8_t[]){ 99, 130, 83, 99, 53, 1, 1, 255 }, 8);
	peer_send_udp(p, "0.0.0.0", 68, "255.255.255.255", 67, m, sizeof(m));
	return peer_expect(p, PEER_WAIT_MS, frame, peer_match_udp, &reply);
}

static void test_dhcp(void)
{
	static const uint8_t offered[] = { 10, 0, 2, 15 }, router[] = { 10, 0, 2, 2 }, dns[] = { 10, 0, 2, 3 };
	struct peer p;
	size_t length, n = 0;
	const uint8_t *o;

	open_default(&p);
	length = dhcp_discover(&p);
	CU_ASSERT_TRUE_FATAL(length > 290);
	CU_ASSERT_FALSE(memcmp(frame + 14 + 28 + 16, offered, 4));
	o = dhcp_option(frame, length, 53, &n);
	CU_ASSERT_TRUE(o && n == 1 && *o == 2);
	o = dhcp_option(frame, length, 12, &n);
	CU_ASSERT_TRUE(o && n == 7 && !memcmp(o, "guest-1", n));
	o = dhcp_option(frame, length, 15, &n);
	CU_ASSERT_TRUE(o && n == 8 && !memcmp(o, "lab.test", n));
	o = dhcp_option(frame, length, 119, &n);
	CU_ASSERT_TRUE(o && n > 10);
	o = dhcp_option(frame, length, 3, &n);
	CU_ASSERT_TRUE(o && n == 4 && !memcmp(o, router, n));
	o = dhcp_option(frame, length, 26, &n);
	CU_ASSERT_TRUE(o && n == 2 && peer_get16(o) == NETPLUG_DEFAULT_MTU);
	o = dhcp_option(frame, length, 6, &n);
	CU_ASSERT_TRUE(o && n == 4 && !memcmp(o, dns, n));
	close_well(&p);
}

static void test_dns_follows_resolver(void)
{
	static const struct peer_flow reply = { .from_port = 53, .to_port = 40000 };
	unsigned port = 53;
	int server = bind_host(SOCK_DGRAM, &port);
	struct sockaddr_in from;
	socklen_t size = sizeof(from);
	struct peer p;
	char query[64];
	ssize_t n;

	open_default(&p);
	peer_send_udp(&p, "10.0.2.15", 40000, "10.0.2.3", 53, "query", 5);
	CU_ASSERT_TRUE_FATAL(readable(server, PEER_WAIT_MS));
	n = recvfrom(server, query, sizeof(query), 0, (struct sockaddr *)&from, &size);
	CU_ASSERT_TRUE(n == 5 && !memcmp(query, "query", 5));
	CU_ASSERT_EQUAL(sendto(server, "answer", 6, 0, (struct sockaddr *)&from, size), 6);
	CU_ASSERT_EQUAL(peer_expect(&p, PEER_WAIT_MS, frame, peer_match_udp, &reply), 42 + 6);
	CU_ASSERT_FALSE(memcmp(frame + 42, "answer", 6));
	close_well(&p);
	close(server);
}

static bool is_echo_reply(const uint8_t *f, size_t length, const void *arg)
{
	(void)arg;
	return length >= 42 && peer_get16(f + 12) == 0x0800 && f[23] == IPPROTO_ICMP && f[34] == 0;
}

static void test_ping_gateway(void)
{
	uint8_t echo[16] = { 8 }, f[64];
	struct peer p;

	open_default(&p);
	peer_put16(echo + 2, peer_fold(peer_sum(0, echo, sizeof(echo))));
	send(p.guest, f, peer_ipv4(f, IPPROTO_ICMP, "10.0.2.15", "10.0.2.2", echo, sizeof(echo)), 0);
	CU_ASSERT_TRUE(peer_expect(&p, PEER_WAIT_MS, frame, is_echo_reply, NULL) > 0);
	close_well(&p);
}

#define TCP_SYN 0x02
#define TCP_SYN_ACK 0x12

/* Whether the guest gets through to a host port at an address. */
static bool tcp_opens(struct peer *p, const char *to, unsigned port, int ms)
{
	static unsigned source = 30000;
	struct peer_flow answer = { .from_port = port, .to_port = ++source, .flags = TCP_SYN_ACK };

	peer_send_syn(p, to, port, source);
	return peer_expect(p, ms, frame, peer_match_tcp, &answer);
}

static void test_host_access(void)
{
	struct netplug_port_config c = default_config();
	unsigned port = 0;
	int server = bind_host(SOCK_STREAM, &port);
	struct peer p;

	c.host_access = 1;
	CU_ASSERT_TRUE_FATAL(peer_open(&p, &c));
	CU_ASSERT_TRUE(tcp_opens(&p, "10.0.2.2", port, PEER_WAIT_MS));
	CU_ASSERT_TRUE(readable(server, PEER_WAIT_MS));
	close_well(&p);
	close(server);
}

static bool is_data(const uint8_t *f, size_t length, const void *arg)
{
	const unsigned *port = arg;

	return length > 54 && f[23] == IPPROTO_TCP && peer_get16(f + 34) == *port && peer_get16(f + 16) > 40;
}

/*
 * A guest with a long MTU offers no more than half of the window from its first acknowledgement on, as Linux may: what comes then
 * does not wait for libslirp's timer of 5 seconds (slirp.c).
 */
static void test_half_a_window(void)
{
	static uint8_t data[200000];
	struct netplug_port_config c = default_config();
	struct peer_flow answer = { .to_port = 29999, .flags = TCP_SYN_ACK };
	unsigned port = 0;
	int server = bind_host(SOCK_STREAM, &port), client;
	uint32_t next, bytes;
	struct peer p;

	c.host_access = 1;
	c.mtu = NETPLUG_VIRTIO_MTU;
	CU_ASSERT_TRUE_FATAL(peer_open(&p, &c));
	peer_send_tcp(&p, "10.0.2.2", port, 29999, 0, 0, 0x02, 65481);
	CU_ASSERT_TRUE_FATAL(peer_expect(&p, PEER_WAIT_MS, frame, peer_match_tcp, &answer));
	next = (uint32_t)peer_get16(frame + 38) << 16 | peer_get16(frame + 40);
	peer_send_tcp(&p, "10.0.2.2", port, 29999, 1, ++next, 0x10, 65481);
	client = accept(server, NULL, NULL);
	CU_ASSERT_EQUAL(fcntl(client, F_SETFL, O_NONBLOCK), 0);
	CU_ASSERT_TRUE(write(client, data, sizeof(data)) > 100000);
	for (uint32_t got = 0; got < 100000; got += bytes) {
		bool came = peer_expect(&p, 3000, frame, is_data, &port);

		CU_ASSERT_TRUE_FATAL(came);
		bytes = peer_get16(frame + 16) - 40;
		next += bytes;
		peer_send_tcp(&p, "10.0.2.2", port, 29999, 1, next, 0x10, got + bytes < 32768 ? 65481 - got - bytes : 32713);
	}
	close_well(&p);
	close(client);
	close(server);
}

static void test_no_host_access(void)
{
	static const char *const ways[] = { "10.0.2.2", "127.0.0.1", "127.1.2.3", "0.0.0.0", "255.255.255.255" };
	unsigned port = 0, udp_port = 0;
	int server = bind_host(SOCK_STREAM, &port), udp = bind_host(SOCK_DGRAM, &udp_port);
	struct netplug_stats stats;
	struct peer p;

	open_default(&p);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		CU_ASSERT_FALSE(tcp_opens(&p, ways[i], port, PEER_QUIET_MS));
		peer_send_udp(&p, "10.0.2.15", 1234, ways[i], udp_port, "x", 1);
	}
	CU_ASSERT_FALSE(readable(server, PEER_QUIET_MS));
	CU_ASSERT_FALSE(readable(udp, 0));
	stats = peer_stats(&p);
	CU_ASSERT_EQUAL(stats.in_refused, 6);
	close_well(&p);
	close(server);
	close(udp);
}

/* A client of the host on a port: its connected socket, or -1. */
static int host_client(int type, unsigned port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);

	if (!connect(fd, (struct sockaddr *)&a, sizeof(a)))
		return fd;
	close(fd);
	return -1;
}

/* The host port that an answer to FORWARD_ADD tells. */
static unsigned forwarded_port(const struct peer *p)
{
	struct netplug_forward f;

	CU_ASSERT_EQUAL_FATAL(netplug_forward_parse(p->answer.u.reply.text, &f, NULL), 0);
	return ntohs(((struct sockaddr_in *)&f.host)->sin_port);
}

static void check_forward_tcp(struct peer *p, unsigned port)
{
	struct peer_flow syn = { .to_port = 80, .flags = TCP_SYN };
	int client = host_client(SOCK_STREAM, port);

	CU_ASSERT_TRUE(client >= 0);
	CU_ASSERT_TRUE(peer_expect(p, PEER_WAIT_MS, frame, peer_match_tcp, &syn) > 0);
	close(client);
}

static void test_forward_tcp(void)
{
	char spec[64], expected[96];
	unsigned port;
	struct peer p;

	open_default(&p);
	CU_ASSERT_TRUE(arp_works(&p));
	CU_ASSERT_EQUAL(peer_forward(&p, true, "auto:80"), 0);
	port = forwarded_port(&p);
	snprintf(expected, sizeof(expected), "127.0.0.1:%u:10.0.2.15:80/tcp", port);
	CU_ASSERT_STRING_EQUAL(p.answer.u.reply.text, expected);
	check_forward_tcp(&p, port);
	CU_ASSERT_EQUAL(peer_stats(&p).forwards, 1);

	snprintf(spec, sizeof(spec), "%u:80", port);
	CU_ASSERT_NOT_EQUAL(peer_forward(&p, true, spec), 0);
	snprintf(expected, sizeof(expected), "127.0.0.1:%u" NETPLUG_IN_USE, port);
	CU_ASSERT_STRING_EQUAL(p.answer.u.reply.text, expected);
	snprintf(expected, sizeof(expected), " by process %d, ", (int)p.pid);
	CU_ASSERT_PTR_NOT_NULL(strstr(netplug_owner_of_port(false, (uint16_t)port, spec, sizeof(spec)), expected));
	snprintf(spec, sizeof(spec), "%u:80", port);

	CU_ASSERT_EQUAL(peer_forward(&p, false, spec), 0);
	CU_ASSERT_EQUAL(host_client(SOCK_STREAM, port), -1);
	CU_ASSERT_NOT_EQUAL(peer_forward(&p, false, spec), 0);
	CU_ASSERT_EQUAL(peer_forward(&p, true, spec), 0);
	CU_ASSERT_NOT_EQUAL(peer_forward(&p, true, "nonsense"), 0);
	close_well(&p);
}

/* A datagram to a UDP forward reaches the guest, and its answer the client. */
static void check_forward_udp(struct peer *p, unsigned port)
{
	struct peer_flow flow = { .to_port = 53 };
	int client = host_client(SOCK_DGRAM, port);
	char answer[16];
	size_t length;

	CU_ASSERT_EQUAL(send(client, "ping", 4, 0), 4);
	length = peer_expect(p, PEER_WAIT_MS, frame, peer_match_udp, &flow);
	CU_ASSERT_TRUE(length == 46 && !memcmp(frame + 42, "ping", 4));
	peer_send_udp(p, "10.0.2.15", 53, "10.0.2.2", peer_get16(frame + 34), "pong", 4);
	CU_ASSERT_TRUE(readable(client, PEER_WAIT_MS));
	CU_ASSERT_TRUE(recv(client, answer, sizeof(answer), MSG_DONTWAIT) == 4 && !memcmp(answer, "pong", 4));
	close(client);
}

static void test_forward_udp(void)
{
	unsigned port, other_port = 0;
	int other = bind_host(SOCK_DGRAM, &other_port);
	char spec[64];
	struct peer p;

	open_default(&p);
	CU_ASSERT_EQUAL(peer_forward(&p, true, "auto:53/udp"), 0);
	port = forwarded_port(&p);
	check_forward_udp(&p, port);
	/* Not a client: the forwarded port is no way to the host's loopback. */
	peer_send_udp(&p, "10.0.2.15", 53, "10.0.2.2", other_port, "x", 1);
	CU_ASSERT_FALSE(readable(other, PEER_QUIET_MS));
	snprintf(spec, sizeof(spec), "%u:53/udp", other_port);
	CU_ASSERT_NOT_EQUAL(peer_forward(&p, true, spec), 0);
	CU_ASSERT_PTR_NOT_NULL(strstr(p.answer.u.reply.text, NETPLUG_IN_USE));
	snprintf(spec, sizeof(spec), "%u:53/udp", port);
	CU_ASSERT_EQUAL(peer_forward(&p, false, spec), 0);
	CU_ASSERT_EQUAL(peer_forward(&p, true, spec), 0);
	check_forward_udp(&p, port);
	close_well(&p);
	close(other);
}

static void test_restrict(void)
{
	struct netplug_port_config c = default_config();
	unsigned port = 0, dns_port = 53;
	int server = bind_host(SOCK_STREAM, &port), dns = bind_host(SOCK_DGRAM, &dns_port);
	struct peer p;
	size_t length, n;

	c.restrict_access = 1;
	c.host_access = 1;
	CU_ASSERT_TRUE_FATAL(peer_open(&p, &c));
	length = dhcp_discover(&p);
	CU_ASSERT_TRUE(length > 290);
	/* The route is told all the same: clients of forwards may be anywhere. */
	CU_ASSERT_PTR_NOT_NULL(dhcp_option(frame, length, 3, &n));
	CU_ASSERT_FALSE(tcp_opens(&p, "10.0.2.2", port, PEER_QUIET_MS));
	peer_send_udp(&p, "10.0.2.15", 40000, "10.0.2.3", 53, "query", 5);
	CU_ASSERT_FALSE(readable(dns, PEER_QUIET_MS));
	CU_ASSERT_FALSE(readable(server, 0));
	CU_ASSERT_EQUAL(peer_stats(&p).in_refused, 2);
	netplug_control_send_allow(p.control, ++p.sequence, 0, "10.0.2.3:53/udp", NULL);
	CU_ASSERT_EQUAL(peer_status(&p), 0);
	netplug_control_send_allow(p.control, ++p.sequence, 0, "nowhere", NULL);
	CU_ASSERT_EQUAL(peer_status(&p), ERROR_USAGE);
	peer_send_udp(&p, "10.0.2.15", 40000, "10.0.2.3", 53, "query", 5);
	CU_ASSERT_TRUE(readable(dns, PEER_WAIT_MS));
	CU_ASSERT_EQUAL(recv(dns, frame, sizeof(frame), 0), 5);
	CU_ASSERT_EQUAL(peer_forward(&p, true, "auto:80"), 0);
	CU_ASSERT_TRUE(arp_works(&p));
	check_forward_tcp(&p, forwarded_port(&p));
	CU_ASSERT_EQUAL(peer_forward(&p, true, "auto:53/udp"), 0);
	check_forward_udp(&p, forwarded_port(&p));
	close_well(&p);
	close(server);
	close(dns);
}

static void test_reconnect(void)
{
	struct peer p;

	open_default(&p);
	for (int i = 0; i < 20; i++) {
		CU_ASSERT_TRUE(arp_works(&p));
		peer_new_connection(&p);
		CU_ASSERT_EQUAL(peer_connect(&p), 0);
	}
	CU_ASSERT_TRUE(arp_works(&p));
	CU_ASSERT_EQUAL(peer_stats(&p).connections, 21);
	close(p.guest);
	p.guest = -1;
	for (int ms = 0; ms < PEER_WAIT_MS && peer_stats(&p).connected; ms += 10)
		poll(NULL, 0, 10);
	CU_ASSERT_EQUAL(peer_stats(&p).connected, 0);
	close_well(&p);
}

/* A plug killed at once: another one goes on with the same connection and the same ports. */
static void test_killed(void)
{
	struct netplug_port_config c = default_config();
	char tcp[NETPLUG_FORWARD_TEXT_MAX], udp[NETPLUG_FORWARD_TEXT_MAX];
	struct pollfd guest = { .events = POLLIN };
	struct peer p;

	open_default(&p);
	CU_ASSERT_EQUAL(peer_forward(&p, true, "auto:80"), 0);
	snprintf(tcp, sizeof(tcp), "%.100s", p.answer.u.reply.text);
	CU_ASSERT_EQUAL(peer_forward(&p, true, "auto:53/udp"), 0);
	snprintf(udp, sizeof(udp), "%.100s", p.answer.u.reply.text);
	for (int i = 0; i < 20; i++) {
		CU_ASSERT_TRUE(arp_works(&p));
		check_forward_tcp(&p, 0 + (unsigned)strtoul(tcp + strlen("127.0.0.1:"), NULL, 10));
		kill(p.pid, SIGKILL);
		waitpid(p.pid, NULL, 0);
		close(p.control);
		/* The guest sees no end. */
		guest.fd = p.guest;
		CU_ASSERT_TRUE(poll(&guest, 1, 0) == 0 || !(guest.revents & (POLLHUP | POLLERR)));
		CU_ASSERT_TRUE_FATAL(peer_start(&p));
		CU_ASSERT_EQUAL(peer_add_port(&p, &c), 0);
		CU_ASSERT_EQUAL(peer_connect(&p), 0);
		CU_ASSERT_EQUAL(peer_forward(&p, true, tcp), 0);
		CU_ASSERT_EQUAL(peer_forward(&p, true, udp), 0);
	}
	CU_ASSERT_TRUE(arp_works(&p));
	close_well(&p);
}

/* Sends bytes as they are and expects an error answer, or silence when there is no header to answer to. */
static void check_garbage(struct peer *p, const void *data, size_t length, bool answered)
{
	CU_ASSERT_EQUAL(send(p->control, data, length, 0), (ssize_t)length);
	if (!answered) {
		CU_ASSERT_FALSE(readable(p->control, 50));
		return;
	}
	CU_ASSERT_TRUE(peer_receive(p));
	CU_ASSERT_EQUAL(p->answer.header.type, NETPLUG_REPLY);
	CU_ASSERT_EQUAL(p->answer.header.sequence, 77);
	CU_ASSERT_NOT_EQUAL(p->answer.u.reply.status, 0);
}

static void test_control_garbage(void)
{
	struct netplug_message m = { .header = { NETPLUG_CONTROL_MAGIC, NETPLUG_CONTROL_VERSION, NETPLUG_FORWARD_ADD, 77,
						 sizeof(struct netplug_forward_request) } };
	size_t whole = sizeof(m.header) + sizeof(m.u.forward);
	struct netplug_port_config c = default_config();
	struct peer p;

	open_default(&p);
	check_garbage(&p, "", 0, false);
	check_garbage(&p, "garbage", 7, false);
	check_garbage(&p, &m, sizeof(m.header), true);
	check_garbage(&p, &m, whole - 1, true);
	check_garbage(&p, &m, sizeof(m), true);
	memset(m.u.forward.spec, 'x', sizeof(m.u.forward.spec));
	m.u.forward.port = 0;
	check_garbage(&p, &m, whole, true);
	m.header.version = 2;
	check_garbage(&p, &m, whole, true);
	m.header.version = 1;
	m.header.type = 99;
	check_garbage(&p, &m, whole, true);
	m.header.type = NETPLUG_CONNECT;	/* without its descriptor */
	m.header.length = sizeof(m.u.ref);
	check_garbage(&p, &m, sizeof(m.header) + sizeof(m.u.ref), true);
	m.header.type = NETPLUG_READY;
	m.header.length = 0;
	check_garbage(&p, &m, sizeof(m.header), true);
	/* Well-formed, and wrong. */
	CU_ASSERT_NOT_EQUAL(peer_add_port(&p, &c), 0);
	c.port = NETPLUG_PORTS_MAX;
	CU_ASSERT_NOT_EQUAL(peer_add_port(&p, &c), 0);
	c.port = 1;
	c.mtu = NETPLUG_MTU_MAX + 1;
	CU_ASSERT_NOT_EQUAL(peer_add_port(&p, &c), 0);
	c.mtu = NETPLUG_MTU_MAX;
	c.prefix_length = 33;
	CU_ASSERT_NOT_EQUAL(peer_add_port(&p, &c), 0);
	c.prefix_length = 24;
	c.host.s_addr = 0;
	CU_ASSERT_NOT_EQUAL(peer_add_port(&p, &c), 0);
	/* A descriptor that is no guest's connection. */
	netplug_control_send_connect(p.control, ++p.sequence, 0, STDIN_FILENO, NULL);
	CU_ASSERT_NOT_EQUAL(peer_status(&p), 0);
	CU_ASSERT_TRUE(arp_works(&p));
	close_well(&p);
}

static void test_odd_frames(void)
{
	struct netplug_port_config c = default_config();
	static uint8_t giant[20000];
	struct netplug_stats stats;
	struct peer p;

	c.mtu = 1500;
	CU_ASSERT_TRUE_FATAL(peer_open(&p, &c));
	CU_ASSERT_EQUAL(send(p.guest, giant, 0, 0), 0);
	send(p.guest, giant, 1, 0);
	send(p.guest, giant, 13, 0);
	send(p.guest, giant, 1519, 0);
	send(p.guest, giant, sizeof(giant), 0);
	send(p.guest, giant, 14, 0);
	CU_ASSERT_TRUE(arp_works(&p));
	stats = peer_stats(&p);
	CU_ASSERT_EQUAL(stats.in_runts, 3);
	CU_ASSERT_EQUAL(stats.in_giants, 2);
	CU_ASSERT_EQUAL(stats.in_refused, 1);
	close_well(&p);
}

/* A guest that asks without ever reading the answers. */
static void test_guest_never_reads(void)
{
	struct netplug_stats stats;
	struct pollfd out = { .events = POLLOUT };
	long before;
	struct peer p;

	open_default(&p);
	before = peer_status_of(p.pid, "VmRSS");
	out.fd = p.guest;
	for (int i = 0; i < 100000; i++) {
		CU_ASSERT_TRUE_FATAL(poll(&out, 1, PEER_WAIT_MS) > 0);
		peer_send_arp(&p, 1, "10.0.2.15", "10.0.2.2");
	}
	stats = peer_stats(&p);
	CU_ASSERT_TRUE(stats.out_dropped > 1000);
	/* The plug's own queue is 1 MiB; sanitizers keep freed memory for a while. */
	CU_ASSERT_TRUE(peer_status_of(p.pid, "VmRSS") - before < 32 * 1024);
	/* It reads again: all goes on. */
	while (recv(p.guest, frame, sizeof(frame), MSG_DONTWAIT) > 0)
		;
	CU_ASSERT_TRUE(arp_works(&p));
	close_well(&p);
}

/* An idle plug, forwards and all, sleeps without waking. */
static void test_idle_sleeps(void)
{
	struct peer p;
	long last = -1, now;
	bool asleep = false;

	open_default(&p);
	CU_ASSERT_EQUAL(peer_forward(&p, true, "auto:80"), 0);
	CU_ASSERT_EQUAL(peer_forward(&p, true, "auto:53/udp"), 0);
	CU_ASSERT_TRUE(arp_works(&p));
	for (int tries = 0; tries < 6 && !asleep; tries++) {
		now = peer_status_of(p.pid, "voluntary_ctxt_switches");
		asleep = now == last;
		last = now;
		if (!asleep)
			poll(NULL, 0, 1500);
	}
	CU_ASSERT_TRUE(asleep);
	CU_ASSERT_TRUE(arp_works(&p));
	close_well(&p);
}

UNIT_MAIN("netplug plug", UNIT_CASE(test_isolation), UNIT_CASE(test_arp), UNIT_CASE(test_dhcp),
	  UNIT_CASE(test_dns_follows_resolver), UNIT_CASE(test_ping_gateway), UNIT_CASE(test_host_access),
	  UNIT_CASE(test_half_a_window), UNIT_CASE(test_no_host_access), UNIT_CASE(test_forward_tcp), UNIT_CASE(test_forward_udp),
	  UNIT_CASE(test_restrict), UNIT_CASE(test_reconnect), UNIT_CASE(test_killed),
	  UNIT_CASE(test_control_garbage), UNIT_CASE(test_odd_frames), UNIT_CASE(test_guest_never_reads),
	  UNIT_CASE(test_idle_sleeps))
