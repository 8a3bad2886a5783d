/*
 * How the supervisor of a machine talks to its uml-netplug.
 *
 * Start: a SOCK_SEQPACKET socketpair; the plug gets one end as
 *	uml-netplug --control-fd N
 * (child_spawn(): fds = {{plug_end, 3}}, argv "--control-fd", "3"). It answers
 * READY once it can take messages. It ends by itself, leaving nothing behind,
 * when the other end of the control socket is closed, and with its parent
 * (PR_SET_PDEATHSIG).
 *
 * Messages: one packet each, a header and a payload of the fixed size that goes
 * with the type; host byte order but for addresses, which are in network order
 * as everywhere. A packet of another size, version or magic number, or with
 * descriptors that its type does not have, is answered with an error REPLY (or
 * dropped when not even the header is whole), never acted on.
 *
 * Requests, each answered by exactly one message with the same sequence number:
 *	ADD_PORT	one guest interface, of SLIRP or on a VDE network. A port id that
 *			is there is an error. A network that is not there (yet) is none: the
 *			plug goes on trying, STATS tell how that goes.
 *	CONNECT		a guest's connection for a port, of the transport that ADD_PORT said, with the descriptor
 *			in SCM_RIGHTS. Replaces an earlier one, which is closed.
 *	FORWARD_ADD	a port of the host that leads into the guest. REPLY's text is
 *			the forward as it is now, in full ("auto" replaced by the port):
 *			keep that text and replay it to the next plug.
 *	FORWARD_REMOVE	named by host address, port and protocol; the rest is not looked at.
 *	GET_STATS	answered by STATS, or by an error REPLY.
 *	ALLOW		one more destination that a restricted interface may reach: text
 *			form of netplug_allow_parse(). Send them before CONNECT.
 *	IMPAIR		what is wrong with the port's line from now on. On a VDE network it
 *			befalls what the guest sends, on SLIRP both directions.
 *	CAPTURE		a connected SEQPACKET socket, in SCM_RIGHTS, that gets a copy of each
 *			frame as it goes on its way: a message of struct netplug_capture_record and the
 *			frame's bytes. What its reader does not take in time is left out and counted. Ends
 *			when the reader closes it.
 *	JOIN		a joiner's descriptor (join.h), in SCM_RIGHTS, for a port on a VDE network.
 *
 * What the plug says unasked, with sequence 0: READY, and
 *	WANT_JOIN	a port on a VDE network is apart. The supervisor starts a joiner and sends JOIN. The
 *			plug asks again, ever less often, while that leads nowhere. It names no locator: a
 *			plug that a guest has taken over can join nothing but what its ports were on.
 *
 * The guest's connections (why: uml-facts.md, "bess"): UML connect()s at each
 * ifup to a SEQPACKET socket that the *supervisor* listens on
 * (netplug_listen()). The supervisor accepts, keeps that descriptor, and sends
 * CONNECT, which hands the plug a duplicate. While the supervisor's descriptor
 * is open the guest never sees the connection end, whatever becomes of the
 * plug. The supervisor watches its descriptor for EPOLLHUP or EPOLLRDHUP (never
 * EPOLLIN: frames are the plug's) and closes it when the guest has closed its
 * end; the plug notices by itself. When a new connection is accepted for the same
 * interface the old descriptor is closed.
 *
 * A virtio network device (NETPLUG_VHOST_USER) has one connection, made when the kernel starts; the guest's end of it stays
 * with the supervisor, which passes messages on and says again to the next plug what was said to one that died. Queues are
 * resumed from what the guest's memory tells (vnet.c): nothing else needs to be handed over.
 *
 * After the plug died: start another, replay ADD_PORT, CONNECT (with the kept
 * descriptor) and FORWARD_ADD for what there was. Host ports can be bound again
 * at once. TCP flows through libslirp are lost; the guest sees resets.
 */
#ifndef NETPLUG_CONTROL_H
#define NETPLUG_CONTROL_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "netplug/netplug.h"
#include "uml-lab/base/error.h"
#include "uml-lab/base/message.h"

#define NETPLUG_CONTROL_MAGIC 0x554e5031u	/* "UNP1" */
#define NETPLUG_CONTROL_VERSION 1

/* Port ids are chosen by the supervisor: 0 … NETPLUG_PORTS_MAX - 1. */
#define NETPLUG_PORTS_MAX 32

enum netplug_type {
	NETPLUG_ADD_PORT = 1,		/* struct netplug_port_config */
	NETPLUG_CONNECT = 2,		/* struct netplug_port_ref, one descriptor */
	NETPLUG_FORWARD_ADD = 3,	/* struct netplug_forward_request */
	NETPLUG_FORWARD_REMOVE = 4,	/* struct netplug_forward_request */
	NETPLUG_GET_STATS = 5,		/* struct netplug_port_ref */
	NETPLUG_ALLOW = 16,		/* struct netplug_forward_request: the destination in spec */
	NETPLUG_IMPAIR = 17,		/* struct netplug_impair_request */
	NETPLUG_CAPTURE = 18,		/* struct netplug_capture_request, one descriptor */
	NETPLUG_JOIN = 19,		/* struct netplug_port_ref, one descriptor */
	NETPLUG_READY = 128,		/* no payload, sequence 0 */
	NETPLUG_REPLY = 129,		/* struct netplug_reply */
	NETPLUG_STATS = 130,		/* struct netplug_stats */
	NETPLUG_WANT_JOIN = 131,	/* struct netplug_port_ref, sequence 0 */
};

/* How the guest's interface talks to the plug. */
enum netplug_transport {
	NETPLUG_BESS = 0,	/* UML's bess transport: CONNECT has a SEQPACKET socket, a bare frame a message */
	NETPLUG_VHOST_USER = 1,	/* vhost-user: CONNECT has a stream socket, on which the guest's front-end speaks */
};

enum netplug_kind { NETPLUG_KIND_SLIRP = 1, NETPLUG_KIND_VDE = 2 };

/* One guest interface. Fill with netplug_port_config_init(), then change what differs. Texts are NUL-terminated. */
struct netplug_port_config {
	uint32_t port;
	uint32_t kind;			/* enum netplug_kind */
	uint8_t mac[6];			/* the guest's; all zero: learned from its frames */
	uint8_t ipv6;			/* 0 or 1, as the two below */
	uint8_t restrict_access;	/* only forwards and what ALLOW names pass: no host, no DNS, no outside */
	uint8_t host_access;		/* the address `host` is the host's loopback; else nothing answers there */
	uint8_t port_security;		/* frames from another MAC than the guest's own are dropped */
	uint8_t transport;		/* enum netplug_transport */
	uint8_t reserved;		/* 0 */
	uint32_t mtu;			/* NETPLUG_MTU_MIN … NETPLUG_MTU_MAX; the same as UML's mtu= */
	char label[64];			/* VDE: what to call the port, in the switch and in logs; "" for its number */
	char locator[NETPLUG_LOCATOR_MAX];	/* VDE: MODULE://… or an absolute path */
	/* SLIRP: */
	struct in_addr network;		/* 10.0.2.0 */
	uint32_t prefix_length;		/* 24; 8 … 29 */
	struct in_addr host;		/* gateway: 10.0.2.2 */
	struct in_addr dns;		/* name server: 10.0.2.3, passed on to the host's */
	struct in_addr dhcp_start;	/* 10.0.2.15, the default guest address of forwards */
	char hostname[64];		/* DHCP host name, "" for none */
	char domain[128];		/* DHCP domain name, "" for none */
	char search[256];		/* DHCP search domains, separated by spaces, "" for none */
} __attribute__((packed));

struct netplug_port_ref {
	uint32_t port;
} __attribute__((packed));

struct netplug_forward_request {
	uint32_t port;
	char spec[NETPLUG_FORWARD_TEXT_MAX];	/* text form of netplug.h */
} __attribute__((packed));

struct netplug_impair_request {
	uint32_t port;
	struct netplug_impair impair;
} __attribute__((packed));

#define NETPLUG_SNAPLEN_MIN 14
struct netplug_capture_request {
	uint32_t port;
	uint32_t snaplen;	/* bytes of each frame, at least NETPLUG_SNAPLEN_MIN; 0: all */
	uint32_t received;	/* 1: frames to the guest too, not only those it sends */
} __attribute__((packed));

/* Before each captured frame. */
struct netplug_capture_record {
	uint64_t time_ns;	/* CLOCK_REALTIME */
	uint64_t seen, dropped;	/* frames so far, this one included; those left out of them */
	uint32_t length;	/* of the frame; as many bytes follow, but for the snaplen */
	uint32_t sent;		/* 1: by the guest, 0: to it */
} __attribute__((packed));

struct netplug_reply {
	int32_t status;		/* 0: done; else an enum error_kind */
	char text[1020];	/* FORWARD_ADD: the forward in full; on failure what went wrong */
} __attribute__((packed));

/* Counters since ADD_PORT. "in" is from the guest, "out" to it. */
struct netplug_stats {
	uint32_t port;
	uint32_t connected;		/* 1 while the guest's link is up */
	uint64_t connections;		/* CONNECTs taken */
	uint64_t in_frames, in_bytes;
	uint64_t out_frames, out_bytes;
	uint64_t in_runts;		/* shorter than an Ethernet header: dropped */
	uint64_t in_giants;		/* longer than the MTU allows: dropped */
	uint64_t in_refused;		/* to the host's loopback, fragments, unknown protocols, restricted: dropped */
	uint64_t in_dropped;		/* the VDE network takes none, or is not there */
	uint64_t out_dropped;		/* the guest did not read: queue full, or no link */
	uint64_t in_spoofed;		/* from a MAC that is not the guest's own, with port_security: dropped */
	uint64_t impair_lost, impair_duplicated, impair_reordered;	/* as the settings want it */
	uint64_t impair_dropped;	/* more waits for the rate or the delay than there is room for */
	uint64_t impair_down;		/* while the link was down */
	uint64_t sockets;		/* host sockets open now */
	uint64_t forwards;		/* forwards there are now */
	uint32_t joined;		/* 1 while the VDE network is joined */
	uint32_t reserved;
	uint64_t joins;			/* times it was joined */
	uint64_t join_failures;
	char trouble[128];		/* why it is not joined, "" when it is */
} __attribute__((packed));

/* Any message, as received. */
struct netplug_message {
	struct message_header header;
	union {
		struct netplug_port_config config;
		struct netplug_port_ref ref;
		struct netplug_forward_request forward;
		struct netplug_impair_request impair;
		struct netplug_capture_request capture;
		struct netplug_reply reply;
		struct netplug_stats stats;
	} u;
};

/* Fills a SLIRP port with the defaults named above: all off but IPv6, MTU NETPLUG_DEFAULT_MTU. */
void netplug_port_config_init(struct netplug_port_config *config, uint32_t port);
/* Makes that a port on a VDE network, with its default MTU. -1 + err: the locator is too long. */
int netplug_port_config_vde(struct netplug_port_config *config, const char *locator, struct error *err);

/*
 * The supervisor's side. Each sends one request; the answer comes later, by
 * netplug_control_receive(), with the same sequence number. 0, or -1 + err: the
 * plug is gone (its end closed), or does not read although the socket is full.
 * They never block and raise no SIGPIPE. connection stays the caller's.
 */
int netplug_control_send_add_port(int control, uint32_t sequence, const struct netplug_port_config *config,
				  struct error *err);
int netplug_control_send_connect(int control, uint32_t sequence, uint32_t port, int connection, struct error *err);
int netplug_control_send_forward(int control, uint32_t sequence, uint32_t port, bool add, const char *spec,
				 struct error *err);
int netplug_control_send_allow(int control, uint32_t sequence, uint32_t port, const char *destination,
			       struct error *err);
int netplug_control_send_impair(int control, uint32_t sequence, uint32_t port, const struct netplug_impair *impair,
				struct error *err);
int netplug_control_send_capture(int control, uint32_t sequence, const struct netplug_capture_request *request,
				 int connection, struct error *err);
int netplug_control_send_join(int control, uint32_t sequence, uint32_t port, int joiner, struct error *err);
int netplug_control_send_get_stats(int control, uint32_t sequence, uint32_t port, struct error *err);

/*
 * Receives one message without blocking. 1: *message is filled, and checked
 * (size, version; texts end). 0: nothing there now. -1 + err: a damaged
 * message (ERROR_FAILED), or the other end is gone (ERROR_STATE).
 */
int netplug_control_receive(int control, struct netplug_message *message, struct error *err);

/*
 * Makes the socket that a guest's interface connects to
 * (vecN:transport=bess,dst=PATH, or virtio_uml.device=PATH:1): SEQPACKET or a stream, mode 0600, non-blocking,
 * close-on-exec. A stale socket file at path is replaced; one that somebody
 * listens on is ERROR_STATE. Returns the listening descriptor, or -1 + err. The caller
 * unlinks path when done.
 */
int netplug_listen(const char *path, enum netplug_transport transport, struct error *err);

#endif
