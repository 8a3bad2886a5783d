/*
 * libslirp on the loop.
 *
 * How it works: libslirp was made for poll(): before each sleep it lists the
 * sockets it wants watched (slirp_pollfds_fill), after it asks what became of
 * each (slirp_pollfds_poll). Here the descriptors stay registered with epoll
 * from one turn to the next. A slot per descriptor remembers what is watched;
 * fill marks what is wanted, and only differences cost a system call:
 *
 *	prepare:  fill → slots.wanted → loop_add_fd/loop_set_events/loop_remove_fd where it differs
 *	sleep:    ready descriptors note their events in slots.ready
 *	finish:   poll, if anything is ready or due → the port flushes its frames
 *
 * A turn in which nothing happened to this interface does neither. A socket
 * that libslirp does not want watched is removed altogether, since epoll
 * reports a hang-up even when asked for nothing, and would not sleep again.
 * For the same reason a hang-up or error is passed on as what libslirp
 * asked for: told of one on a socket it only wants to write to, it
 * would read into a full buffer and abort (socket.c:soread, assert(buf_len != 0)).
 *
 * Time: libslirp's clock moves only in slirp_pollfds_poll(); it is called once
 * without sockets before frames are taken after a longer sleep, or a new UDP
 * flow would be born expired. How long it may sleep: slirp_idle.c.
 *
 * TCP segments are no longer than SEGMENT_MAX, whatever the interface's MTU is. libslirp goes by its own MTU and MRU, for both
 * directions, when it sends a SYN (tcp_subr.c: tcp_mss()); what the guest's SYN says it does not look at where the
 * connection to the host takes a turn. libslirp scales no windows, so 65535 bytes are all that it lets be under way (to a
 * guest; a guest may have more: stretch.h), and longer segments make TCP stand still: a guest that got 32 KiB and
 * acknowledges before its program has read them offers the other half, and no more afterwards, since Linux offers whole
 * segments (tcp_output.c: __tcp_select_window()); libslirp in turn sends neither half a segment nor less than half of the
 * largest window it saw (tcp_output.c, silly window avoidance) before 5 seconds are over; and so on for each 32 KiB.
 * Several segments also let the guest work on one while the next is made. A guest with segmentation offload sends all four
 * in one frame.
 *
 * Limits: sockets per process are bounded by RLIMIT_NOFILE (set in plug.c).
 * When they run out, libslirp refuses the guest's new flows; forwards are not
 * watched then, or accept() would fail in a busy loop.
 */
#include <libslirp.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "netplug/netplug_internal.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"
#include "uml-lab/base/str.h"

#define SEGMENT_MAX 16328	/* with its headers: four fill the window, or one of Linux' super-frames (tcp_tso_autosize()) */
#define FORWARD_BACKLOG 64	/* libslirp listens with 1, and parallel clients would wait for SYN retransmits */
#define QUIET_MS 2000		/* after this long without traffic the table of connections is worth a look */
#define CLOCK_MAX_AGE_MS 50	/* libslirp's ticks are 500 ms apart */
#define SPARE_FDS 32		/* kept free for the plug itself and its forwards */
#define FAST_TIMEOUT_MS 2	/* libslirp's TIMEOUT_FAST: an acknowledgement is due */

struct slot {
	struct slirp_backend *backend;
	struct loop_fd *source;	/* NULL: not watched */
	uint32_t watched;	/* events registered */
	uint32_t wanted;	/* events of the latest fill; 0: not in it */
	uint32_t ready;		/* events since */
	bool open;		/* a socket of libslirp's, forwards left out */
	bool seen;		/* was looked at: a forward or not */
	bool forward;
};

struct slirp_timer {
	struct slirp_backend *backend;
	SlirpTimerId id;
	void *opaque;
	struct loop_timer *timer;
};

struct slirp_backend {
	struct loop *loop;
	struct slirp_events events;
	Slirp *slirp;
	struct slot *slots;	/* by descriptor */
	size_t slot_count;
	size_t open;		/* slots with .open */
	size_t highest;		/* no slot beyond is in use */
	bool dirty;		/* something happened: poll, then fill */
	bool paused;
	int64_t deadline;	/* of libslirp's timeout, in loop_now_ms(); -1: none */
	int64_t clock;		/* when libslirp last learned the time */
	int64_t last_traffic;
};

static ssize_t on_send(const void *frame, size_t length, void *opaque)
{
	struct slirp_backend *b = opaque;

	b->events.send(b->events.arg, frame, length);
	return (ssize_t)length;
}

static void on_guest_error(const char *message, void *opaque)
{
	(void)opaque;
	log_debug("guest: %s", message);
}

static int64_t on_clock(void *opaque)
{
	struct timespec t;

	(void)opaque;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void on_timer(void *arg)
{
	struct slirp_timer *t = arg;

	slirp_handle_timer(t->backend->slirp, t->id, t->opaque);
	t->backend->dirty = true;
}

/* libslirp does not check for NULL; out of memory it aborts by itself (GLib), so do we. */
static void *on_timer_new(SlirpTimerId id, void *cb_opaque, void *opaque)
{
	struct slirp_timer *t = calloc(1, sizeof(*t));

	if (!t)
		abort();
	*t = (struct slirp_timer){ .backend = opaque, .id = id, .opaque = cb_opaque };
	t->timer = loop_add_timer(t->backend->loop, -1, on_timer, t, NULL);
	if (!t->timer)
		abort();
	return t;
}

static void on_timer_free(void *timer, void *opaque)
{
	struct slirp_timer *t = timer;

	(void)opaque;
	loop_remove_timer(t->timer);
	free(t);
}

static void on_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
	struct slirp_timer *t = timer;
	int64_t ms = expire_ms - on_clock(opaque) / 1000000;

	loop_arm_timer(t->timer, ms > 0 ? ms : 0);
}

static struct slot *slot_of(struct slirp_backend *b, int fd)
{
	if (fd < 0 || (size_t)fd >= b->slot_count)
		return NULL;
	if ((size_t)fd > b->highest)
		b->highest = (size_t)fd;
	return &b->slots[fd];
}

static void slot_forget(struct slirp_backend *b, struct slot *s)
{
	loop_remove_fd(s->source);
	b->open -= s->open;
	*s = (struct slot){ .backend = b };
}

/* A socket was opened: whatever the slot held belonged to an earlier one of that number. */
static void on_register(int fd, void *opaque)
{
	struct slirp_backend *b = opaque;
	struct slot *s = slot_of(b, fd);

	if (!s)
		return;
	slot_forget(b, s);
	s->open = true;
	b->open++;
}

/* A socket is about to be closed. */
static void on_unregister(int fd, void *opaque)
{
	struct slirp_backend *b = opaque;
	struct slot *s = slot_of(b, fd);

	if (s)
		slot_forget(b, s);
	b->dirty = true;
}

/* A buffer has room again: fill at the next turn, which follows every change anyway. */
static void on_notify(void *opaque)
{
	((struct slirp_backend *)opaque)->dirty = true;
}

static const SlirpCb callbacks = {
	.send_packet = on_send,
	.guest_error = on_guest_error,
	.clock_get_ns = on_clock,
	.timer_new_opaque = on_timer_new,
	.timer_free = on_timer_free,
	.timer_mod = on_timer_mod,
	.register_poll_fd = on_register,
	.unregister_poll_fd = on_unregister,
	.notify = on_notify,
};

static void fill_config(SlirpConfig *c, const struct netplug_port_config *config)
{
	*c = (SlirpConfig){
		.version = 4,
		.restricted = false,	/* allow.c does it, with exceptions */
		.in_enabled = true,
		.vnetwork = config->network,
		.vnetmask.s_addr = htonl(~0u << (32 - config->prefix_length)),
		.vhost = config->host,
		.in6_enabled = config->ipv6,
		.vprefix_len = 64,
		.vhostname = config->hostname[0] ? config->hostname : NULL,
		.vdhcp_start = config->dhcp_start,
		.vnameserver = config->dns,
		.vdomainname = config->domain[0] ? config->domain : NULL,
		.if_mtu = config->mtu,
		.if_mru = config->mtu < SEGMENT_MAX ? config->mtu : SEGMENT_MAX,
		.disable_host_loopback = !config->host_access,
	};
	/* QEMU's defaults for user networking, which people know. */
	inet_pton(AF_INET6, "fec0::", &c->vprefix_addr6);
	inet_pton(AF_INET6, "fec0::2", &c->vhost6);
	inet_pton(AF_INET6, "fec0::3", &c->vnameserver6);
}

static Slirp *new_slirp(struct slirp_backend *b, const struct netplug_port_config *config, struct error *err)
{
	cleanup_strv struct strv search = STRV_INIT;
	SlirpConfig c;

	fill_config(&c, config);
	if (config->search[0]) {
		if (strv_split(&search, config->search, ' ', err))
			return NULL;
		c.vdnssearch = (const char **)search.items;
	}
	return slirp_new(&c, &callbacks, b);
}

struct slirp_backend *slirp_backend_new(struct loop *loop, const struct netplug_port_config *config,
					const struct slirp_events *events, struct error *err)
{
	struct slirp_backend *b = calloc(1, sizeof(*b));
	struct rlimit limit;

	if (!b || getrlimit(RLIMIT_NOFILE, &limit))
		goto failed;
	b->loop = loop;
	b->events = *events;
	b->slot_count = limit.rlim_cur;
	b->slots = calloc(b->slot_count, sizeof(*b->slots));
	if (!b->slots)
		goto failed;
	for (size_t i = 0; i < b->slot_count; i++)
		b->slots[i].backend = b;
	b->dirty = true;
	b->deadline = -1;
	b->last_traffic = loop_now_ms();
	b->slirp = new_slirp(b, config, err);
	if (b->slirp)
		return b;
	slirp_backend_free(b);
	return NULL;
failed:
	slirp_backend_free(b);
	error_oom(err);
	return NULL;
}

void slirp_backend_free(struct slirp_backend *b)
{
	if (!b)
		return;
	if (b->slirp)
		slirp_cleanup(b->slirp);
	for (size_t i = 0; i < b->slot_count && b->slots; i++)
		slot_forget(b, &b->slots[i]);
	free(b->slots);
	free(b);
}

static void poll_without_sockets(struct slirp_backend *b)
{
	slirp_pollfds_poll(b->slirp, 1, NULL, b);
	b->clock = loop_now_ms();
}

void slirp_backend_input(struct slirp_backend *b, const uint8_t *frame, size_t length)
{
	int64_t now = loop_now_ms();

	if (now - b->clock > CLOCK_MAX_AGE_MS)
		poll_without_sockets(b);
	b->last_traffic = now;
	b->dirty = true;
	slirp_input(b->slirp, frame, (int)length);
}

/* A forward's socket is seen here for the first time: libslirp does not register those. */
static void look_at_new(struct slot *s, int fd)
{
	int listening = 0;
	socklen_t length = sizeof(listening);

	s->seen = true;
	if (!getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) && listening) {
		s->forward = true;
		listen(fd, FORWARD_BACKLOG);
	}
}

/* What to watch the socket for: nothing to read for a guest that does not, no clients there are no sockets for. */
static uint32_t wanted_events(const struct slirp_backend *b, const struct slot *s, int events)
{
	uint32_t wanted = 0;

	if (s->forward && b->open + SPARE_FDS >= b->slot_count)
		return 0;
	if (events & SLIRP_POLL_OUT)
		wanted |= EPOLLOUT;
	if (events & SLIRP_POLL_IN && !b->paused)
		wanted |= EPOLLIN | (events & SLIRP_POLL_PRI ? EPOLLPRI : 0);
	return wanted;
}

static int on_add_poll(int fd, int events, void *opaque)
{
	struct slirp_backend *b = opaque;
	struct slot *s = slot_of(b, fd);

	if (!s)
		return -1;
	if (!s->seen)
		look_at_new(s, fd);
	s->wanted = wanted_events(b, s, events);
	return fd;
}

static int on_get_revents(int index, void *opaque)
{
	struct slirp_backend *b = opaque;
	struct slot *s = slot_of(b, index);
	uint32_t ready = s ? s->ready : 0;

	/* Trouble counts as whatever was waited for, and will be met there. */
	if (ready & (EPOLLHUP | EPOLLERR))
		ready |= s->watched & (EPOLLIN | EPOLLOUT);
	return (ready & EPOLLIN ? SLIRP_POLL_IN : 0) | (ready & EPOLLOUT ? SLIRP_POLL_OUT : 0) |
	       (ready & EPOLLPRI ? SLIRP_POLL_PRI : 0);
}

static void on_ready(void *arg, int fd, uint32_t events)
{
	struct slot *s = arg;

	(void)fd;
	s->ready |= events;
	s->backend->dirty = true;
	s->backend->last_traffic = loop_now_ms();
}

/* Makes epoll watch what is wanted. */
static void slot_apply(struct slirp_backend *b, struct slot *s)
{
	int fd = (int)(s - b->slots);

	s->ready = 0;
	if (s->wanted == s->watched)
		return;
	if (!s->wanted) {
		loop_remove_fd(s->source);
		s->source = NULL;
	} else if (s->source) {
		loop_set_events(s->source, s->wanted);
	} else {
		s->source = loop_add_fd(b->loop, fd, s->wanted, on_ready, s, NULL);
		if (!s->source)
			return;
	}
	s->watched = s->wanted;
}

/* Milliseconds libslirp may be left alone when it itself asked for `wish`. -1: for ever. */
static int64_t patience(struct slirp_backend *b, uint32_t wish)
{
	int64_t now = loop_now_ms(), idle;
	char *connections;

	if (wish <= FAST_TIMEOUT_MS || now - b->last_traffic < QUIET_MS)
		return wish;
	connections = slirp_connection_info(b->slirp);
	idle = slirp_idle_ms(connections);
	free(connections);	/* g_malloc() is malloc() since GLib 2.46 */
	return idle ? idle : wish;
}

int slirp_backend_prepare(struct slirp_backend *b)
{
	int64_t left;

	if (b->dirty) {
		uint32_t timeout = UINT32_MAX;
		int64_t ms;

		for (size_t i = 0; i <= b->highest && i < b->slot_count; i++)
			b->slots[i].wanted = 0;
		slirp_pollfds_fill(b->slirp, &timeout, on_add_poll, b);
		for (size_t i = 0; i <= b->highest && i < b->slot_count; i++)
			slot_apply(b, &b->slots[i]);
		ms = patience(b, timeout);
		b->deadline = ms < 0 ? -1 : loop_now_ms() + ms;
		b->dirty = false;
	}
	if (b->deadline < 0)
		return -1;
	left = b->deadline - loop_now_ms();
	return left > 0 ? (int)left : 0;
}

void slirp_backend_finish(struct slirp_backend *b)
{
	if (b->deadline >= 0 && loop_now_ms() >= b->deadline)
		b->dirty = true;
	if (!b->dirty)
		return;
	slirp_pollfds_poll(b->slirp, 0, on_get_revents, b);
	b->clock = loop_now_ms();
}

void slirp_backend_pause(struct slirp_backend *b, bool paused)
{
	b->paused = paused;
	b->dirty = true;
}

size_t slirp_backend_sockets(const struct slirp_backend *b)
{
	return b->open;
}

int slirp_backend_add_forward(struct slirp_backend *b, const struct netplug_forward *f)
{
	b->dirty = true;
	return slirp_add_hostxfwd(b->slirp, (const struct sockaddr *)&f->host, sizeof(f->host),
				  (const struct sockaddr *)&f->guest, sizeof(f->guest), SLIRP_HOSTFWD_V6ONLY);
}

int slirp_backend_remove_forward(struct slirp_backend *b, const struct netplug_forward *f)
{
	b->dirty = true;
	return slirp_remove_hostxfwd(b->slirp, (const struct sockaddr *)&f->host, sizeof(f->host), 0);
}
