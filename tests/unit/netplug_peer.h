/*
 * The guest's side of a plug, for tests: a real uml-netplug (its control loop
 * in a child process) with a SEQPACKET connection that speaks raw Ethernet.
 * Nothing of libslirp is replaced.
 */
#ifndef TESTS_UNIT_NETPLUG_PEER_H
#define TESTS_UNIT_NETPLUG_PEER_H

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "netplug/control.h"
#include "netplug/join.h"
#include "netplug/netplug_internal.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"

#define PEER_WAIT_MS 5000	/* bound of every wait for something that must come */
#define PEER_QUIET_MS 300	/* how long to look for something that must not come */

static const uint8_t peer_mac[6] = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 };
static const uint8_t peer_broadcast[6] = { 255, 255, 255, 255, 255, 255 };

struct peer {
	pid_t pid;		/* the plug */
	int control;
	int guest;		/* the guest's end */
	int kept;		/* the plug's end, as the supervisor keeps it */
	uint32_t sequence;
	struct netplug_message answer;	/* the last one */
	const char *locator;		/* of its network, when it is on one */
	struct child joiner;
};

#define PEER_JOIN_SEQUENCE UINT32_MAX

/* What the supervisor does when the plug wants to be joined. */
static inline void peer_join(struct peer *p)
{
	cleanup_free char *program = dirs_own("../uml-netplug", NULL);
	cleanup_close int fd = -1;

	netplug_join_end(&p->joiner);
	fd = netplug_join(&p->joiner, program, p->locator, "peer", NULL);
	netplug_control_send_join(p->control, PEER_JOIN_SEQUENCE, 0, fd, NULL);
}

/* Waits for one message, and starts joiners meanwhile. Whether it came. */
static inline bool peer_receive(struct peer *p)
{
	struct pollfd pfd = { .fd = p->control, .events = POLLIN };
	struct error err = ERROR_INIT;

	while (poll(&pfd, 1, PEER_WAIT_MS) > 0 && netplug_control_receive(p->control, &p->answer, &err) == 1) {
		if (p->answer.header.type == NETPLUG_WANT_JOIN)
			peer_join(p);
		else if (p->answer.header.sequence != PEER_JOIN_SEQUENCE)
			return true;
	}
	return false;
}

/* Waits for the answer of the request just sent: its status, or -1 when none came. */
static inline int peer_status(struct peer *p)
{
	if (!peer_receive(p) || p->answer.header.sequence != p->sequence || p->answer.header.type != NETPLUG_REPLY)
		return -1;
	return p->answer.u.reply.status;
}

static inline bool peer_start(struct peer *p)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		return false;
	p->pid = fork();
	if (p->pid == 0) {
		struct error err = ERROR_INIT;
		int rc;

		close(pair[0]);
		if (p->guest >= 0)
			close(p->guest);
		if (p->kept >= 0)
			close(p->kept);
		rc = serve_control(pair[1], p->locator ? WALLS_CLOSED : WALLS_SOCKETS, &err);
		if (rc)
			error_print("plug", &err);
		_exit(rc ? 1 : 0);
	}
	close(pair[1]);
	p->control = pair[0];
	return peer_receive(p) && p->answer.header.type == NETPLUG_READY;
}

static inline int peer_add_port(struct peer *p, const struct netplug_port_config *config)
{
	netplug_control_send_add_port(p->control, ++p->sequence, config, NULL);
	return peer_status(p);
}

static inline int peer_connect(struct peer *p)
{
	netplug_control_send_connect(p->control, ++p->sequence, 0, p->kept, NULL);
	return peer_status(p);
}

static inline int peer_forward(struct peer *p, bool add, const char *spec)
{
	netplug_control_send_forward(p->control, ++p->sequence, 0, add, spec, NULL);
	return peer_status(p);
}

static inline struct netplug_stats peer_stats(struct peer *p)
{
	netplug_control_send_get_stats(p->control, ++p->sequence, 0, NULL);
	if (!peer_receive(p) || p->answer.header.type != NETPLUG_STATS)
		return (struct netplug_stats){ .port = UINT32_MAX };
	return p->answer.u.stats;
}

/* A new connection between guest and supervisor; the earlier one is closed on both ends. */
static inline void peer_new_connection(struct peer *p)
{
	int pair[2];

	if (p->guest >= 0)
		close(p->guest);
	if (p->kept >= 0)
		close(p->kept);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		abort();
	p->guest = pair[0];
	p->kept = pair[1];
}

/* A plug with one connected port. Whether all of it worked. config outlives it. */
static inline bool peer_open(struct peer *p, const struct netplug_port_config *config)
{
	*p = (struct peer){ .guest = -1, .kept = -1, .control = -1, .joiner = CHILD_INIT };
	if (config->kind == NETPLUG_KIND_VDE)
		p->locator = config->locator;
	if (!peer_start(p))
		return false;
	peer_new_connection(p);
	return peer_add_port(p, config) == 0 && peer_connect(p) == 0;
}

/* Closes the control socket: the plug must end by itself. Its wait status, or -1 when it had to be killed. */
static inline int peer_close(struct peer *p)
{
	int status = -1;

	if (p->control >= 0)
		close(p->control);
	netplug_join_end(&p->joiner);
	for (int ms = 0; ms < PEER_WAIT_MS; ms += 10) {
		if (waitpid(p->pid, &status, WNOHANG) == p->pid)
			break;
		poll(NULL, 0, 10);
		status = -1;
	}
	if (status == -1) {
		kill(p->pid, SIGKILL);
		waitpid(p->pid, NULL, 0);
	}
	if (p->guest >= 0)
		close(p->guest);
	if (p->kept >= 0)
		close(p->kept);
	return status;
}

/* A number of /proc/PID/status. */
static inline long peer_status_of(pid_t pid, const char *key)
{
	char path[64], line[256];
	cleanup_file FILE *f = NULL;
	size_t n = strlen(key);

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, key, n) && line[n] == ':')
			return strtol(line + n + 1, NULL, 10);
	}
	return -1;
}

/* Frames */

static inline void peer_put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static inline unsigned peer_get16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

static inline uint32_t peer_sum(uint32_t sum, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sum += i & 1 ? p[i] : (uint32_t)p[i] << 8;
	return sum;
}

static inline unsigned peer_fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum & 0xffff;
}

/* An IPv4 frame around data; the frame's length. */
static inline size_t peer_ipv4(uint8_t *f, uint8_t protocol, const char *from, const char *to, const uint8_t *data,
			       size_t length)
{
	uint8_t *ip = f + 14;

	memcpy(f, peer_broadcast, 6);
	memcpy(f + 6, peer_mac, 6);
	peer_put16(f + 12, 0x0800);
	memset(ip, 0, 20);
	ip[0] = 0x45;
	peer_put16(ip + 2, (unsigned)(20 + length));
	ip[8] = 64;
	ip[9] = protocol;
	inet_pton(AF_INET, from, ip + 12);
	inet_pton(AF_INET, to, ip + 16);
	peer_put16(ip + 10, peer_fold(peer_sum(0, ip, 20)));
	memcpy(ip + 20, data, length);
	return 34 + length;
}

static inline void peer_send_udp(struct peer *p, const char *from, unsigned from_port, const char *to,
				 unsigned to_port, const void *data, size_t length)
{
	uint8_t udp[8 + 2048], frame[2200];

	peer_put16(udp, from_port);
	peer_put16(udp + 2, to_port);
	peer_put16(udp + 4, (unsigned)(8 + length));
	peer_put16(udp + 6, 0);	/* none */
	memcpy(udp + 8, data, length);
	send(p->guest, frame, peer_ipv4(frame, IPPROTO_UDP, from, to, udp, 8 + length), 0);
}

/* A segment without data. */
static inline void peer_send_tcp(struct peer *p, const char *to, unsigned to_port, unsigned from_port,
				 uint32_t sequence, uint32_t ack, uint8_t flags, unsigned window)
{
	uint8_t tcp[20] = { 0 }, frame[64], addresses[8];
	uint32_t sum;

	peer_put16(tcp, from_port);
	peer_put16(tcp + 2, to_port);
	peer_put16(tcp + 4, sequence >> 16);
	peer_put16(tcp + 6, sequence & 0xffff);
	peer_put16(tcp + 8, ack >> 16);
	peer_put16(tcp + 10, ack & 0xffff);
	tcp[12] = 5 << 4;
	tcp[13] = flags;
	peer_put16(tcp + 14, window);
	inet_pton(AF_INET, "10.0.2.15", addresses);
	inet_pton(AF_INET, to, addresses + 4);
	sum = peer_sum(IPPROTO_TCP + sizeof(tcp), addresses, 8);
	peer_put16(tcp + 16, peer_fold(peer_sum(sum, tcp, sizeof(tcp))));
	send(p->guest, frame, peer_ipv4(frame, IPPROTO_TCP, "10.0.2.15", to, tcp, sizeof(tcp)), 0);
}

static inline void peer_send_syn(struct peer *p, const char *to, unsigned to_port, unsigned from_port)
{
	peer_send_tcp(p, to, to_port, from_port, 0, 0, 0x02, 65535);
}

static inline void peer_send_arp(struct peer *p, unsigned operation, const char *from, const char *about)
{
	uint8_t f[42] = { 0 };

	memcpy(f, peer_broadcast, 6);
	memcpy(f + 6, peer_mac, 6);
	peer_put16(f + 12, 0x0806);
	memcpy(f + 14, (const uint8_t[]){ 0, 1, 8, 0, 6, 4 }, 6);
	peer_put16(f + 20, operation);
	memcpy(f + 22, peer_mac, 6);
	inet_pton(AF_INET, from, f + 28);
	inet_pton(AF_INET, about, f + 38);
	send(p->guest, f, sizeof(f), 0);
}

/* Whether a frame is the one waited for. */
typedef bool (*peer_match)(const uint8_t *frame, size_t length, const void *arg);

/*
 * Waits for a frame that matches, at most ms; answers ARP for 10.0.2.15
 * meanwhile. Its length, 0 when none came.
 */
static inline size_t peer_expect(struct peer *p, int ms, uint8_t frame[static 65536], peer_match match, const void *arg)
{
	int64_t end = loop_now_ms() + ms;

	for (;;) {
		struct pollfd pfd = { .fd = p->guest, .events = POLLIN };
		int64_t left = end - loop_now_ms();
		ssize_t n;

		if (left <= 0 || poll(&pfd, 1, (int)left) <= 0)
			return 0;
		n = recv(p->guest, frame, 65536, MSG_DONTWAIT);
		if (n <= 0)
			return 0;
		if (n >= 42 && peer_get16(frame + 12) == 0x0806 && peer_get16(frame + 20) == 1)
			peer_send_arp(p, 2, "10.0.2.15", "10.0.2.2");
		if (match(frame, (size_t)n, arg))
			return (size_t)n;
	}
}

/* What peer_match_tcp and peer_match_udp look for; 0 stands for any port. */
struct peer_flow {
	unsigned from_port, to_port;
	uint8_t flags;		/* TCP: exactly these */
};

static inline bool peer_match_tcp(const uint8_t *f, size_t length, const void *arg)
{
	const struct peer_flow *w = arg;

	return length >= 54 && peer_get16(f + 12) == 0x0800 && f[23] == IPPROTO_TCP && (f[47] & 0x17) == w->flags &&
	       (!w->from_port || peer_get16(f + 34) == w->from_port) &&
	       (!w->to_port || peer_get16(f + 36) == w->to_port);
}

static inline bool peer_match_udp(const uint8_t *f, size_t length, const void *arg)
{
	const struct peer_flow *w = arg;

	return length >= 42 && peer_get16(f + 12) == 0x0800 && f[23] == IPPROTO_UDP &&
	       (!w->from_port || peer_get16(f + 34) == w->from_port) &&
	       (!w->to_port || peer_get16(f + 36) == w->to_port);
}

#endif
