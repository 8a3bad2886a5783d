/*
 * Inside uml-netplug.
 *
 *	guest ⇄ link ⇄ port ⇄ slirp_port ⇄ slirp (libslirp) ⇄ host sockets
 *	                                 ⇄ udp_forward      ⇄ host sockets
 *
 * link: the guest's connection, frames in batches (link.c: bess, vnet.c: vhost-user). port: one interface; all its
 * frames pass there. backend: what it is joined to, by its kind. plug: the
 * process's ports and its loop. serve: what a control socket or a stand-alone
 * listening socket tells the plug to do.
 */
#ifndef NETPLUG_NETPLUG_INTERNAL_H
#define NETPLUG_NETPLUG_INTERNAL_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "netplug/control.h"
#include "netplug/netplug.h"
#include "uml-lab/base/error.h"
#include "uml-lab/base/loop.h"
#include "uml-lab/base/patience.h"

#define ETHERNET_HEADER 14
#define VLAN_TAG 4

/* control.c */

/* Sends any message; payload has the size that goes with the type, fd is -1 for none. 0, or -1 + err. Never blocks. */
int netplug_control_send(int control, uint16_t type, uint32_t sequence, const void *payload, int fd,
			 struct error *err);
/*
 * As netplug_control_receive(), with the descriptor that came along in *fd (-1
 * for none; the caller's). After a damaged message *answerable tells whether
 * its sequence number could be read.
 */
int netplug_control_receive_fd(int control, struct netplug_message *message, int *fd, bool *answerable,
			       struct error *err);
/* Whether the peer of a connected socket is gone; tells end of file from an empty message. */
bool netplug_socket_ended(int fd);

/* frame.c: what a frame from the guest is */

enum frame_verdict {
	FRAME_PASS,	/* goes on to libslirp */
	FRAME_REFUSED,	/* not ARP or IP, cut short, a fragment, or to an address that would reach the host's loopback */
};

/* What the plug wants to know of a frame; the rest is libslirp's business. Ports in host order, 0 where there are none. */
struct frame_info {
	bool arp;
	int family;			/* AF_INET, AF_INET6, or 0: no packet; the fields below are valid with the first two */
	uint8_t protocol;		/* of the header that follows IP's own: IPv6 extension headers are not followed */
	bool whole;			/* that header is there: ports, flags and type are valid */
	struct in_addr source, destination;	/* AF_INET */
	struct in6_addr destination6;		/* AF_INET6 */
	uint16_t source_port, destination_port;	/* TCP, UDP */
	uint8_t tcp_flags;
	uint8_t icmp_type;		/* ICMP, ICMPv6 */
	bool udp4;			/* a whole IPv4 UDP datagram, with the two below */
	const uint8_t *payload;		/* into the frame */
	size_t payload_length;
};

/* Looks at a frame of at least ETHERNET_HEADER bytes. Fills *info in any case. */
enum frame_verdict frame_inspect(const uint8_t *frame, size_t length, struct frame_info *info);

/* An IPv4 UDP datagram for the guest. Addresses in network, ports in host order. */
struct frame_datagram {
	uint8_t to[6], from[6];		/* MACs */
	struct in_addr source, destination;
	uint16_t source_port, destination_port;
	const uint8_t *payload;
	size_t payload_length;		/* ≤ 65507 */
	uint16_t id;			/* IPv4 identification, unique among those in flight */
};

/* Calls fn with each frame (Ethernet header included) that the datagram makes at this MTU: fragments if it must (RFC 791). */
void frame_build_datagram(const struct frame_datagram *d, size_t mtu,
			  void (*fn)(void *arg, const uint8_t *frame, size_t length), void *arg);

/* frames.c: frames in batches, one frame a message */

#define FRAME_BATCH 32
#define FRAME_QUEUE_MAX 1024

struct frame_batch {
	uint8_t *data;
	struct iovec iov[FRAME_BATCH];		/* frame i: iov[i].iov_base, … */
	struct mmsghdr msg[FRAME_BATCH];	/* … msg[i].msg_len bytes */
};

/* Buffers for frames of up to frame_max bytes; of a longer one frame_max + 1 bytes are received. 0, or -1 + err. */
int frame_batch_init(struct frame_batch *batch, size_t frame_max, struct error *err);
void frame_batch_free(struct frame_batch *batch);
/* Receives without blocking. Frames received, 0 when there are none now, -1 with errno. */
int frame_batch_receive(struct frame_batch *batch, int fd);

struct queued_frame {
	size_t offset, length;
};

/* Frames that wait to be sent: at most FRAME_QUEUE_MAX, and `size` bytes. */
struct frame_queue {
	uint8_t *data;
	size_t size;
	size_t end;		/* bytes used, the gap at the start included */
	struct queued_frame frames[FRAME_QUEUE_MAX];
	size_t first, last;	/* queued: first … last - 1 */
};

int frame_queue_init(struct frame_queue *queue, size_t bytes, struct error *err);
void frame_queue_free(struct frame_queue *queue);
/* Room for one more frame at the end, to be filled by the caller at once; NULL when the queue is full. */
uint8_t *frame_queue_add(struct frame_queue *queue, size_t length);
struct frame_count {
	uint64_t frames, bytes;
};

/* Sends what the socket takes, adding it to *sent. 0: all; 1: the rest has to wait for room; -1 with errno: it never goes. */
int frame_queue_send(struct frame_queue *queue, int fd, struct frame_count *sent);
/* Empties the queue. How many frames were in it. */
size_t frame_queue_clear(struct frame_queue *queue);
size_t frame_queue_bytes(const struct frame_queue *queue);
size_t frame_queue_count(const struct frame_queue *queue);

/* allow.c: what a restricted guest may still reach */

#define ALLOW_MAX 64

struct allow_list {
	struct netplug_allow rules[ALLOW_MAX];
	size_t count;
};

/*
 * Whether a frame of a restricted guest may go on to libslirp: to what the list
 * names, to the plug's own ARP, DHCP and neighbour discovery, and as an answer
 * within a forward's connection.
 */
bool allow_passes(const struct allow_list *list, const struct netplug_port_config *config,
		  const struct frame_info *info);

/* dhcp.c */

#define DHCP_FRAME_MAX 1024
/*
 * If the frame is libslirp's DHCP answer: writes it to out with the interface's
 * MTU added (RFC 2132 section 5.1) and returns its length. 0: it is something else.
 */
size_t dhcp_add_mtu(const uint8_t *frame, size_t length, uint32_t mtu, uint8_t out[static DHCP_FRAME_MAX]);

/* The guest's connection, of either kind: link.c and vnet.c */

struct link;

struct link_events {
	/*
	 * A frame came, valid during the call: ETHERNET_HEADER … ETHERNET_HEADER + VLAN_TAG + mtu bytes, or a super-frame
	 * (offload.h) while link_set_super() lets those pass.
	 */
	void (*frame)(void *arg, const uint8_t *frame, size_t length);
	/* The queue to the guest went from full to empty, or the guest went away: link_congested() has changed. */
	void (*changed)(void *arg);
	void *arg;
};

struct link_ops {
	int (*connect)(struct link *link, int fd, struct error *err);
	void (*send)(struct link *link, const uint8_t *frame, size_t length);
	void (*receive)(struct link *link);
	void (*flush)(struct link *link);
	bool (*connected)(const struct link *link);
	void (*hold)(struct link *link, bool held);
	void (*free)(struct link *link);
};

/* What both kinds have in common; first in theirs. */
struct link {
	const struct link_ops *ops;
	struct link_events events;
	struct netplug_stats *stats;
	size_t frame_max;	/* longest frame taken, super-frames apart */
	bool congested;		/* the guest does not read what is queued: those who feed it should wait for changed() */
	bool super;		/* super-frames pass whole */
	bool more;		/* frames of the guest's wait for link_receive(): the loop must not sleep */
	bool look;		/* link_receive() is called again at once: the guest need not tell of new ones */
};

/* A link without a connection. Counts into *stats. NULL + err. link.c: UML's bess transport. */
struct link *link_bess_new(struct loop *loop, const struct netplug_port_config *config,
			   const struct link_events *events, struct netplug_stats *stats, struct error *err);
/* vnet.c: vhost-user. */
struct link *link_vnet_new(struct loop *loop, const struct netplug_port_config *config,
			   const struct link_events *events, struct netplug_stats *stats, struct error *err);
void link_set_congested(struct link *link, bool congested);

/* Takes a connection over (also after a failure), closing the one before. 0, or -1 + err. */
static inline int link_connect(struct link *link, int fd, struct error *err)
{
	return link->ops->connect(link, fd, err);
}

/* Hands a frame to the guest, or queues it; a full queue or no connection drops and counts it. */
static inline void link_send(struct link *link, const uint8_t *frame, size_t length)
{
	link->ops->send(link, frame, length);
}

/* Takes frames that wait from the guest, a bounded number; called in each turn of the loop. */
static inline void link_receive(struct link *link)
{
	if (link->ops->receive)
		link->ops->receive(link);
}

/* Tells the guest of what was sent; called at the end of each turn of the loop. */
static inline void link_flush(struct link *link)
{
	link->ops->flush(link);
}

static inline bool link_connected(const struct link *link)
{
	return link->ops->connected(link);
}

/* While held nothing is read from the guest: its frames wait. */
static inline void link_hold(struct link *link, bool held)
{
	link->ops->hold(link, held);
}

/* Whether TCP super-frames pass as they are; else each is cut into the segments that the guest meant. */
static inline void link_set_super(struct link *link, bool super)
{
	link->super = super;
}

/* NULL is fine. */
static inline void link_free(struct link *link)
{
	if (link)
		link->ops->free(link);
}

/* wheel.c: what becomes due when */

#define WHEEL_LEVELS 4
#define WHEEL_SLOTS 256
#define WHEEL_HORIZON (UINT64_C(1) << 31)	/* ticks: nothing is due later than this from now */

struct wheel_entry {
	struct wheel_entry *next;
	uint64_t due;		/* tick */
};

struct wheel_slot {
	struct wheel_entry *first, *last;
};

struct wheel {
	uint64_t now;		/* all due before are gone */
	size_t count;
	struct wheel_slot slots[WHEEL_LEVELS][WHEEL_SLOTS];
	uint64_t used[WHEEL_LEVELS][WHEEL_SLOTS / 64];
};

void wheel_init(struct wheel *wheel, uint64_t now);
/* Adds an entry with its due set (one that is past: now; beyond the horizon: there). It stays the caller's memory. */
void wheel_add(struct wheel *wheel, struct wheel_entry *entry);
/* When to look again: not later than the first entry's tick. False: nothing waits. */
bool wheel_next(const struct wheel *wheel, uint64_t *tick);
/* Takes out the entries of the next tick that is due by now, linked by next; NULL when there are no more: then now is now. */
struct wheel_entry *wheel_advance(struct wheel *wheel, uint64_t now);

/* impair.c: a bad line */

struct impair;
typedef void (*impair_fn)(void *arg, const uint8_t *frame, size_t length);

/* A good line at first. out gets the frames that arrive. Counts into *stats. NULL + err. */
struct impair *impair_new(struct loop *loop, size_t frame_max, impair_fn out, void *arg, struct netplug_stats *stats,
			  struct error *err);
/* What waits goes out at once; `down` is the caller's business. */
void impair_set(struct impair *impair, const struct netplug_impair *settings);
void impair_send(struct impair *impair, const uint8_t *frame, size_t length);
/* What waits is lost. NULL is fine. */
void impair_free(struct impair *impair);

/* capture.c: copies of a port's frames for those who look on */

#define CAPTURES_MAX 8

struct capture;
struct capture_list {
	struct loop *loop;
	struct capture *items[CAPTURES_MAX];
	size_t count;
};

/* Takes the socket over, also after a failure. 0, or -1 + err. */
int capture_add(struct capture_list *list, const struct netplug_capture_request *request, int fd, struct error *err);
/* A frame passed: sent by the guest, or to it. */
void capture_frame(struct capture_list *list, bool sent, const uint8_t *frame, size_t length);
void capture_free_all(struct capture_list *list);

/* backend: what a port is joined to. One file for each kind: slirp_port.c, vde.c */

/* The port, as its backend sees it; all of it outlives the backend. */
struct backend_env {
	struct loop *loop;
	struct netplug_stats *stats;
	/* A frame for the guest. */
	void (*send)(void *arg, const uint8_t *frame, size_t length);
	/* The backend takes no frames for now (true), or again: the guest waits, nothing is dropped. */
	void (*hold)(void *arg, bool held);
	/* Asks for a joiner's descriptor (join.h); backend_ops.join gets it. 0, or -1 + err: nobody can be asked now. */
	int (*want_join)(void *arg, struct error *err);
	void *arg;
};

struct backend {
	const struct backend_ops *ops;
	struct backend_env env;
};

/* NULL where a kind has nothing to do, but for input and free. */
struct backend_ops {
	/* A frame from the guest: length as link.c lets it pass; valid during the call, when it may be changed. */
	void (*input)(struct backend *backend, uint8_t *frame, size_t length);
	/* The guest does not read (true), or again: fetch nothing for it meanwhile. */
	void (*pause)(struct backend *backend, bool paused);
	/* The line to the guest is a bad one from now on (impair.c). */
	void (*impaired)(struct backend *backend);
	/* Before the loop sleeps: milliseconds it may sleep at most, -1 without bound. */
	int (*prepare)(struct backend *backend);
	/* After the loop slept. */
	void (*finish)(struct backend *backend);
	/* Fills in the backend's own of the counters. */
	void (*stats)(const struct backend *backend, struct netplug_stats *stats);
	/* As port_add_forward() and port_remove_forward(). */
	int (*add_forward)(struct backend *backend, struct netplug_forward *forward, struct error *err);
	int (*remove_forward)(struct backend *backend, const struct netplug_forward *forward, struct error *err);
	/* A joiner's descriptor, taken over. */
	void (*join)(struct backend *backend, int fd);
	/* As port_allow(). */
	int (*allow)(struct backend *backend, const struct netplug_allow *rule, struct error *err);
	void (*free)(struct backend *backend);
};

/* Each copies env and what it needs of config. NULL + err. */
struct backend *slirp_port_new(const struct backend_env *env, const struct netplug_port_config *config,
			       struct error *err);
/* Begins to join; a network that is not there yet is no error, a locator that can never be joined is. */
struct backend *vde_port_new(const struct backend_env *env, const struct netplug_port_config *config,
			     struct error *err);

/* vde_locator.c: 0, or -1 + err: not a locator, or libvdeplug lacks its plugin; then the hint says where it is. */
int vde_locator_check(const char *locator, struct error *err);

/* vde_join.c */

/* The first message of a joiner. */
struct vde_joined {
	int32_t error;		/* 0, or errno of vde_open() */
	uint32_t direct;	/* 1: VDE_JOINED_FDS descriptors come along, of the network's data and control; it ends now */
};
#define VDE_JOINED_FDS 2

/*
 * The joiner's work (netplug/join.h): joins, tells so on fd, and unless it was direct carries frames, a message each,
 * between fd and the network behind walls of its own, until either ends. May block for long. 0, or -1 + err.
 */
int vde_join(int fd, const char *locator, const char *label, struct error *err);

/* slirp.c: libslirp on the loop */

struct slirp_backend;

/* Where frames to the guest go. */
struct slirp_events {
	void (*send)(void *arg, const uint8_t *frame, size_t length);
	void *arg;
};

/* NULL + err. config is read during the call only. */
struct slirp_backend *slirp_backend_new(struct loop *loop, const struct netplug_port_config *config,
					const struct slirp_events *events, struct error *err);
/* A frame from the guest, inspected before. */
void slirp_backend_input(struct slirp_backend *backend, const uint8_t *frame, size_t length);
/* Before the loop sleeps: says what to wait for. Milliseconds it may sleep at most, -1 without bound. */
int slirp_backend_prepare(struct slirp_backend *backend);
/* After the loop slept: lets libslirp act on what became ready or due. */
void slirp_backend_finish(struct slirp_backend *backend);
/* While paused no host socket is read, so nothing piles up for a guest that does not read. */
void slirp_backend_pause(struct slirp_backend *backend, bool paused);
/* Host sockets open now, forwards left out. */
size_t slirp_backend_sockets(const struct slirp_backend *backend);
/* TCP forwards, host port and guest address given. 0, or -1 with errno. */
int slirp_backend_add_forward(struct slirp_backend *backend, const struct netplug_forward *forward);
int slirp_backend_remove_forward(struct slirp_backend *backend, const struct netplug_forward *forward);
/* NULL is fine. */
void slirp_backend_free(struct slirp_backend *backend);

/* slirp_idle.c */

/*
 * How long libslirp may be left alone, from its own table of connections
 * (slirp_connection_info()): -1 for ever, 0 not beyond its own wish, else milliseconds.
 */
int64_t slirp_idle_ms(const char *connections);

/* udp_forward.c: one UDP forward */

struct udp_forward;

/* What the forwards of a port share; must outlive them. */
struct udp_forward_env {
	const struct backend_env *port;
	size_t mtu;
	struct in_addr gateway;		/* stands for clients on the host's loopback */
	uint8_t gateway_mac[6];
	const uint8_t *guest_mac;	/* all zero while unknown */
};

/* Binds the host port. NULL with errno in err->sys_errno. */
struct udp_forward *udp_forward_new(struct udp_forward_env *env, const struct netplug_forward *forward,
				    struct error *err);
/* Takes a datagram from the guest if it answers a client of this forward. */
bool udp_forward_answer(struct udp_forward *forward, const struct frame_info *info);
/* While paused the host socket is not read. */
void udp_forward_pause(struct udp_forward *forward, bool paused);
/* NULL is fine. */
void udp_forward_free(struct udp_forward *forward);

/* port.c: one interface */

struct port;

/* Asks whoever has no walls for a joiner's descriptor for a port. 0, or -1 + err. */
typedef int (*want_join_fn)(void *arg, uint32_t port, struct error *err);

/* The whole interface, no connection yet. want_join (with arg) may be NULL where no port is on VDE. NULL + err. */
struct port *port_new(struct loop *loop, const struct netplug_port_config *config, want_join_fn want_join, void *arg,
		      struct error *err);
/* A joiner's descriptor, asked for before; takes it over. 0, or -1 + err. */
int port_join(struct port *port, int fd, struct error *err);
/* Takes the guest's connection over, replacing an earlier one. 0, or -1 + err. */
int port_connect(struct port *port, int fd, struct error *err);
/* Adds a forward; on success *forward has its port and guest address filled in. 0, or -1 + err. */
int port_add_forward(struct port *port, struct netplug_forward *forward, struct error *err);
int port_remove_forward(struct port *port, const struct netplug_forward *forward, struct error *err);
/* One more destination that the restricted guest may reach. */
int port_allow(struct port *port, const struct netplug_allow *rule, struct error *err);
/* Sets what is wrong with the line. 0, or -1 + err. */
int port_impair(struct port *port, const struct netplug_impair *settings, struct error *err);
/* Sends copies of the frames to the socket from now on; takes it over. 0, or -1 + err. */
int port_capture(struct port *port, const struct netplug_capture_request *request, int fd, struct error *err);
void port_stats(const struct port *port, struct netplug_stats *stats);
/*
 * How many frames have passed, either way, after which the next is worth looking for: between a guest and the host. Between guests
 * there are a switch, another plug and another guest, who need the processors more.
 */
uint64_t port_moved(const struct port *port);
/* Around the sleep of the loop, as with slirp_backend_prepare() and …_finish(). look: the loop will not sleep (look.c). */
int port_prepare(struct port *port, bool look);
void port_finish(struct port *port);
/* NULL is fine. */
void port_free(struct port *port);

/* look.c: whether to sleep */

struct look {
	uint64_t moved_at;	/* the latest turn with frames: monotonic, ns */
	struct patience patience;	/* looking: do not sleep */
};

void look_init(struct look *look);
/* A turn of the loop is over, now, in which frames passed or none did; slept: it was free to sleep. */
void look_turned(struct look *look, bool moved, bool slept, uint64_t now);

/* plug.c: the ports of the process */

struct plug {
	struct loop *loop;
	struct look look;
	struct port *ports[NETPLUG_PORTS_MAX];
	want_join_fn want_join;	/* for ports added from now on */
	void *want_join_arg;
	bool stopped;
};

int plug_init(struct plug *plug, struct error *err);
/* The port of that id, or NULL + err. */
struct port *plug_port(struct plug *plug, uint32_t id, struct error *err);
int plug_add_port(struct plug *plug, const struct netplug_port_config *config, struct error *err);
/* Runs until plug->stopped. 0, or -1 + err when the loop fails. */
int plug_run(struct plug *plug, struct error *err);
void plug_free(struct plug *plug);

/* walls.c */

enum walls {
	WALLS_CLOSED,	/* descriptors that are open, and those that are passed to it: nothing else */
	WALLS_CARRIER,	/* likewise, and a socket that is open may be connected */
	WALLS_SOCKETS,	/* of IPv4 and IPv6, and the resolver's files */
	WALLS_MODULE,	/* AF_UNIX too: libvdeplug modules that serve others (hub://) or do what we do not know */
};

/*
 * Confines the process for good. folder: where it may make and remove files and sockets; NULL: nowhere. 0, or -1 + err: it
 * should not go on.
 */
int walls_raise(enum walls walls, const char *folder, struct error *err);

/* serve.c */

struct server {
	struct plug plug;
	int control;		/* -1: nobody tells us anything */
	struct loop_fd *source;
	int listener;		/* serve_alone() */
	struct loop_fd *listener_source;
};

/* A server without ports, whose control socket stays the caller's. 0, or -1 + err. */
int server_init(struct server *server, int control, struct error *err);
/* Acts on the requests that wait on the control socket, a bounded number of them, and answers each. */
void serve_pending(struct server *server);

/* Obeys the control socket until its other end closes, behind walls. Takes control over. Returns 0, or -1 + err. */
int serve_control(int control, enum walls walls, struct error *err);

/* A person's or a test's plug: one interface on a socket of its own. */
struct serve_alone {
	const char *socket;		/* path to listen on */
	struct netplug_port_config config;
	const char *const *forwards;	/* text forms, NULL-terminated */
	const char *const *allow;	/* likewise */
};

/* Runs until SIGTERM or SIGINT. Tells on stdout where it listens. Returns 0, or -1 + err. */
int serve_alone(const struct serve_alone *options, struct error *err);

#endif
