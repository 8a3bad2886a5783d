/*
 * What the rest of uml-lab needs to know of netplug: the defaults of a SLIRP
 * interface and the text form of a port forwarding. The way the supervisor
 * talks to a running uml-netplug is in control.h.
 */
#ifndef NETPLUG_NETPLUG_H
#define NETPLUG_NETPLUG_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "uml-lab/base/error.h"

/*
 * The MTU a SLIRP interface gets unless the lab says otherwise: the best one measured (tests/bench/net.sh). Frames of the bess
 * transport carry one TCP segment each, which are no longer than this in any case (slirp.c).
 * libslirp's DHCP does not tell the MTU, so it must be given to UML when the
 * interface is created: vec0:transport=bess,mtu=…
 */
#define NETPLUG_DEFAULT_MTU 16384
/* The same of a virtio network device, whose frames are as long as libslirp's window of 64 KiB, whatever the segments are. */
#define NETPLUG_VIRTIO_MTU 65521
/* What libslirp 4.7 takes, with IPv6's own minimum as the lower bound (RFC 8200 section 5). */
#define NETPLUG_MTU_MIN 1280
#define NETPLUG_MTU_MAX 65521

/*
 * On VDE networks: vde_switch cuts frames after 1518 bytes, silently (vde2 2.3.2
 * port.h: VDE_MTU), and 4 of them belong to
 * an 802.1Q tag. Another MTU is for locators whose networks carry more; libvdeplug's own limit is
 * VDE_MAXMTU.
 */
#define NETPLUG_VDE_MTU 1500
#define NETPLUG_VDE_MTU_MAX 9216
#define NETPLUG_VDE_MTU_MIN 576		/* UML's own (arch/um/drivers/vector_kern.c); for labs about fragments */

/* The longest locator of a VDE network, its NUL included. */
#define NETPLUG_LOCATOR_MAX 512

/* A forward written out: "[2001:db8::1]:65535:[2001:db8::2]:65535/tcp" and the like. */
#define NETPLUG_FORWARD_TEXT_MAX 128

/*
 * One port of the host that leads into the guest.
 *
 * Text form: [ADDRESS:]PORT:[GUEST:]GUESTPORT[/tcp|/udp]. ADDRESS is the
 * host's, 127.0.0.1 when it is left out; PORT may be "auto". GUEST is the
 * guest's address, the first one DHCP hands out when left out. IPv6 addresses
 * stand in brackets, on both sides or on none, and only for TCP.
 */
struct netplug_forward {
	bool udp;
	struct sockaddr_storage host;	/* AF_INET or AF_INET6; port 0 for "auto" */
	struct sockaddr_storage guest;	/* same family; the unspecified address: found by the plug */
};

/*
 * Reads the text form. 0, or -1 with an error of kind ERROR_USAGE that says
 * what is wrong and what is allowed; *forward is left alone then.
 */
int netplug_forward_parse(const char *text, struct netplug_forward *forward, struct error *err);

/* Writes all parts out, so that parsing the result yields the same forward. Returns buf. */
char *netplug_forward_format(const struct netplug_forward *forward, char buf[static NETPLUG_FORWARD_TEXT_MAX]);

/* Whether both listen on the same host address, port and protocol: the key by which a forward is removed. */
bool netplug_forward_same_host(const struct netplug_forward *a, const struct netplug_forward *b);

/* What is wrong with a line, for the frames of one direction. All zero: nothing. Shares are parts of a million. */
#define NETPLUG_PPM 1000000
#define NETPLUG_DELAY_MAX_US 60000000
#define NETPLUG_RATE_MIN UINT64_C(1000)
#define NETPLUG_RATE_MAX UINT64_C(1000000000000)
struct netplug_impair {
	uint64_t rate;			/* bits a second, Ethernet header included; 0: no limit */
	uint64_t seed;			/* of the random numbers, for tests; 0: a fresh one */
	uint32_t delay_us, jitter_us;	/* each frame arrives delay ± jitter later */
	uint32_t loss_ppm, duplicate_ppm, reorder_ppm;
	uint8_t down;			/* 1: nothing passes, in either direction */
	uint8_t reserved[3];		/* 0 */
};

/*
 * Sets one of delay, jitter, loss, duplicate, reorder, rate from its text ("50ms", "2%", "10M": decimal). 0, or -1
 * with an error of kind ERROR_USAGE that says what is allowed; *impair is left alone then.
 */
int netplug_impair_set(struct netplug_impair *impair, const char *key, const char *text, struct error *err);

#define NETPLUG_IMPAIR_TEXT_MAX 256
/* "delay=50ms loss=2% down", "" for none; for people and scripts. Returns buf. */
char *netplug_impair_format(const struct netplug_impair *impair, char buf[static NETPLUG_IMPAIR_TEXT_MAX]);

/*
 * Writes " by process PID, COMM" for a process that listens on the port into buf, as far
 * as /proc lets this user look; "" when it does not. Returns buf. IPv4 and IPv6 are
 * both looked at, since a socket on [::] takes both. The plug behind its walls sees no
 * other process: its answer ends with NETPLUG_IN_USE, and the supervisor may add this.
 */
char *netplug_owner_of_port(bool udp, uint16_t port, char *buf, size_t size);
#define NETPLUG_IN_USE " is in use"

/* An allowed destination, written out: shorter than this. */
#define NETPLUG_ALLOW_TEXT_MAX 80

/* What a restricted interface may still reach. Text form: ADDRESS[/BITS][:PORT[/tcp|/udp]], IPv6 with a port in brackets. */
struct netplug_allow {
	int family;			/* AF_INET or AF_INET6 */
	struct in6_addr address;	/* IPv4 in its first four bytes; bits beyond the prefix are 0 */
	unsigned prefix;
	uint16_t port;			/* host order; 0: any, and what has no ports (ping) */
	uint8_t protocol;		/* with a port: IPPROTO_TCP or IPPROTO_UDP */
};

/* Reads the text form. 0, or -1 with an error of kind ERROR_USAGE that says what is wrong; *allow is left alone then. */
int netplug_allow_parse(const char *text, struct netplug_allow *allow, struct error *err);

#endif
