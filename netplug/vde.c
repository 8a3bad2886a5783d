/*
 * The VDE kind of port: joined to a network through libvdeplug.
 *
 * States:	apart → joining → joined → apart …
 *
 * How it works: the port asks for a joiner (join.h); what comes of it is one socket
 * that carries a frame a message, the switch's own (with `control`, whose end is the switch's) or
 * the pair to the joiner that carries them. Frames go both ways in batches. When
 * the network ends (its switch was killed), the port is apart and tries
 * again after FIRST_MS, later ever less often; frames of the guest are dropped
 * and counted meanwhile: to the guest it is a cable that leads nowhere.
 *
 * A network that takes nothing for the moment makes the guest wait (hold), as
 * a full transmit ring does. Frames for a guest that does not read are fetched all the same, and
 * dropped and counted when its queue is full: in the network's socket they would vanish uncounted.
 *
 * Frames are padded to Ethernet's minimum here: vde_switch does it too, but with
 * what its buffer held before (vde2 2.3.2 port.c: handle_in_packet()).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netplug/netplug_internal.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"
#include "uml-lab/base/str.h"

#define FRAME_MIN 60			/* IEEE 802.3: 64 with the checksum, which is not here */
#define QUEUE_BYTES (512 * 1024)
#define HOLD_FRAMES 128
#define HOLD_BYTES (QUEUE_BYTES / 4)
#define BATCHES_PER_TURN 4
#define SEND_BUFFER (1024 * 1024)	/* the kernel cuts it to net.core.wmem_max */
#define FIRST_MS 20			/* until the second attempt; doubled up to … */
#define LAST_MS 2000
#define ASK_MS 5000			/* for a joiner to be there; one that is may take its time */

struct vde_port {
	struct backend backend;		/* first */
	char *locator, *label;
	size_t frame_max;

	int joining;			/* where the joiner will tell; -1: none is there */
	struct loop_fd *joining_source;
	struct loop_timer *timer;	/* to ask for a joiner */
	int64_t delay_ms;		/* before the next attempt */

	int fd;				/* frames; -1: apart */
	int control;			/* the switch's; -1: carried by a joiner, or apart */
	struct loop_fd *source, *end_source;
	struct frame_batch in;
	struct frame_queue out;
	bool waiting, held;
};

static void set_trouble(struct vde_port *port, const char *text)
{
	struct netplug_stats *stats = port->backend.env.stats;

	if (text[0] && !str_eq(stats->trouble, text))
		log_warn("%s: %s", port->label, text);
	snprintf(stats->trouble, sizeof(stats->trouble), "%s", text);
}

/* The guest waits while more is queued than a socket that takes frames would leave. */
static void balance(struct vde_port *port)
{
	bool held = frame_queue_count(&port->out) > HOLD_FRAMES || frame_queue_bytes(&port->out) > HOLD_BYTES;

	if (port->held == held)
		return;
	port->held = held;
	port->backend.env.hold(port->backend.env.arg, held);
}

static void watch(struct vde_port *port)
{
	if (port->source)
		loop_set_events(port->source, EPOLLIN | (port->waiting ? EPOLLOUT : 0));
}

static void try_later(struct vde_port *port)
{
	loop_arm_timer(port->timer, port->delay_ms);
	port->delay_ms *= 2;
	if (port->delay_ms > LAST_MS)
		port->delay_ms = LAST_MS;
}

/* Lets go of the network, if it is joined. */
static void part(struct vde_port *port)
{
	if (port->fd < 0)
		return;
	loop_remove_fd(port->source);
	loop_remove_fd(port->end_source);
	port->source = port->end_source = NULL;
	close(steal_fd(&port->fd));
	if (port->control >= 0)
		close(steal_fd(&port->control));
	port->waiting = false;
	port->backend.env.stats->joined = 0;
	port->backend.env.stats->in_dropped += frame_queue_clear(&port->out);
	balance(port);
}

static void on_network_end(struct vde_port *port)
{
	part(port);
	set_trouble(port, "the network has gone away");
	try_later(port);
}

static void flush(struct vde_port *port)
{
	struct frame_count sent = { 0 };
	int rc;

	if (port->fd < 0 || !frame_queue_count(&port->out))
		return;
	rc = frame_queue_send(&port->out, port->fd, &sent);
	if (rc < 0) {	/* ECONNREFUSED and its like: the end is told by the control connection, if it is one */
		port->backend.env.stats->in_dropped += frame_queue_clear(&port->out);
		rc = 0;
	}
	if (port->waiting != (rc > 0)) {
		port->waiting = rc > 0;
		watch(port);
	}
	balance(port);
}

static int receive_batch(struct vde_port *port)
{
	const struct backend_env *env = &port->backend.env;
	int n = frame_batch_receive(&port->in, port->fd);

	for (int i = 0; i < n; i++) {
		size_t length = port->in.msg[i].msg_len;

		/* The joiner's end, seen as empty messages. */
		if (!length && netplug_socket_ended(port->fd))
			return -1;
		if (length >= ETHERNET_HEADER && length <= port->frame_max)
			env->send(env->arg, port->in.iov[i].iov_base, length);
		else
			env->stats->out_dropped++;
	}
	return n;
}

static void on_event(void *arg, int fd, uint32_t events)
{
	struct vde_port *port = arg;
	int n = FRAME_BATCH;

	(void)fd;
	if (events & EPOLLOUT)
		flush(port);
	for (int i = 0; i < BATCHES_PER_TURN && n == FRAME_BATCH; i++)
		n = receive_batch(port);
	if (n < 0 || (n == 0 && events & (EPOLLHUP | EPOLLERR)))
		on_network_end(port);
}

/* The switch's control connection says nothing, and then that it ended. */
static void on_control(void *arg, int fd, uint32_t events)
{
	char byte;
	ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);

	(void)events;
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		on_network_end(arg);
}

static int take_over(struct vde_port *port, struct error *err)
{
	int size = SEND_BUFFER;

	if (setsockopt(port->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)))
		log_warn("%s: cannot set the send buffer: %s", port->label, strerror(errno));
	port->source = loop_add_fd(port->backend.env.loop, port->fd, EPOLLIN, on_event, port, err);
	if (!port->source)
		return -1;
	if (port->control >= 0) {
		port->end_source = loop_add_fd(port->backend.env.loop, port->control, EPOLLIN | EPOLLRDHUP,
					       on_control, port, err);
		if (!port->end_source)
			return -1;
	}
	watch(port);
	return 0;
}

static void forget_joiner(struct vde_port *port)
{
	loop_remove_fd(port->joining_source);
	port->joining_source = NULL;
	if (port->joining >= 0)
		close(steal_fd(&port->joining));
}

/* fds: what came with the message, taken over. */
static void on_joined(struct vde_port *port, const struct vde_joined *joined, const int fds[VDE_JOINED_FDS])
{
	struct error err = ERROR_INIT;

	if (joined->direct) {
		port->fd = fds[0];
		port->control = fds[1];
	} else {
		port->fd = steal_fd(&port->joining);
	}
	forget_joiner(port);
	if (take_over(port, &err)) {
		part(port);
		set_trouble(port, err.message);
		try_later(port);
		return;
	}
	loop_arm_timer(port->timer, -1);
	port->delay_ms = FIRST_MS;
	port->backend.env.stats->joined = 1;
	port->backend.env.stats->joins++;
	set_trouble(port, "");
	log_info("%s: joined %s", port->label, port->locator);
}

static void on_join_failed(struct vde_port *port, const char *why)
{
	char text[sizeof(port->backend.env.stats->trouble)];

	forget_joiner(port);
	port->backend.env.stats->join_failures++;
	snprintf(text, sizeof(text), "cannot join %.80s: %.30s", port->locator, why);
	set_trouble(port, text);
	try_later(port);
}

/* The joiner's first message. Its size, or -1 with errno; fds are -1 unless both came. */
static ssize_t receive_joined(int fd, struct vde_joined *joined, int fds[VDE_JOINED_FDS])
{
	union {
		struct cmsghdr align;
		char data[CMSG_SPACE(VDE_JOINED_FDS * sizeof(int))];
	} ancillary;
	struct iovec iov = { joined, sizeof(*joined) };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = ancillary.data, .msg_controllen = sizeof(ancillary.data),
	};
	ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n >= 0 ? CMSG_FIRSTHDR(&msg) : NULL;

	fds[0] = fds[1] = -1;
	if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(VDE_JOINED_FDS * sizeof(int)))
		memcpy(fds, CMSG_DATA(c), VDE_JOINED_FDS * sizeof(int));
	return n;
}

static void on_joining(void *arg, int fd, uint32_t events)
{
	struct vde_port *port = arg;
	struct vde_joined joined = { 0 };
	int fds[VDE_JOINED_FDS];
	ssize_t n = receive_joined(fd, &joined, fds);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n != sizeof(joined))
		on_join_failed(port, "its joiner ended");
	else if (joined.error || joined.direct != (fds[1] >= 0))
		on_join_failed(port, strerror(joined.error ? joined.error : EPROTO));
	else
		on_joined(port, &joined, fds);
}

static void try_join(struct vde_port *port)
{
	struct error err = ERROR_INIT;

	if (port->backend.env.want_join(port->backend.env.arg, &err))
		on_join_failed(port, err.message);
	else
		loop_arm_timer(port->timer, ASK_MS);
}

static void join(struct backend *backend, int fd)
{
	struct vde_port *port = (struct vde_port *)backend;
	struct error err = ERROR_INIT;

	if (port->fd >= 0) {	/* it is joined */
		close(fd);
		return;
	}
	forget_joiner(port);
	loop_arm_timer(port->timer, -1);
	port->joining = fd;
	port->joining_source = loop_add_fd(backend->env.loop, fd, EPOLLIN, on_joining, port, &err);
	if (!port->joining_source)
		on_join_failed(port, err.message);
}

static void on_timer(void *arg)
{
	try_join(arg);
}

static void input(struct backend *backend, uint8_t *frame, size_t length)
{
	struct vde_port *port = (struct vde_port *)backend;
	size_t padded = length < FRAME_MIN ? FRAME_MIN : length;
	uint8_t *room = port->fd >= 0 ? frame_queue_add(&port->out, padded) : NULL;

	if (!room) {
		backend->env.stats->in_dropped++;
		return;
	}
	memcpy(room, frame, length);
	memset(room + length, 0, padded - length);
	if (port->waiting)
		balance(port);
	else if (frame_queue_count(&port->out) >= FRAME_BATCH)
		flush(port);
}

static void finish(struct backend *backend)
{
	struct vde_port *port = (struct vde_port *)backend;

	if (!port->waiting)
		flush(port);
}

static void free_port(struct backend *backend)
{
	struct vde_port *port = (struct vde_port *)backend;

	loop_remove_timer(port->timer);
	forget_joiner(port);
	part(port);
	frame_batch_free(&port->in);
	frame_queue_free(&port->out);
	free(port->locator);
	free(port->label);
	free(port);
}

static const struct backend_ops ops = {
	.input = input,
	.finish = finish,
	.join = join,
	.free = free_port,
};

/* The parts that may fail. 0, or -1 + err. */
static int set_up(struct vde_port *port, const struct netplug_port_config *config, struct error *err)
{
	port->locator = str_dup(config->locator, err);
	port->label = config->label[0] ? str_dup(config->label, err) : str_printf(err, "port %u", config->port);
	if (!port->locator || !port->label || frame_batch_init(&port->in, port->frame_max, err) ||
	    frame_queue_init(&port->out, QUEUE_BYTES, err))
		return -1;
	port->timer = loop_add_timer(port->backend.env.loop, -1, on_timer, port, err);
	return port->timer ? 0 : -1;
}

struct backend *vde_port_new(const struct backend_env *env, const struct netplug_port_config *config,
			     struct error *err)
{
	struct vde_port *port;

	if (config->mtu > NETPLUG_VDE_MTU_MAX) {
		error_set(err, ERROR_USAGE, "MTU %u is more than VDE's %d", config->mtu, NETPLUG_VDE_MTU_MAX);
		return NULL;
	}
	if (vde_locator_check(config->locator, err))
		return NULL;
	port = calloc(1, sizeof(*port));
	if (!port) {
		error_oom(err);
		return NULL;
	}
	port->backend = (struct backend){ &ops, *env };
	port->joining = port->fd = port->control = -1;
	port->delay_ms = FIRST_MS;
	port->frame_max = ETHERNET_HEADER + VLAN_TAG + config->mtu;
	if (set_up(port, config, err)) {
		free_port(&port->backend);
		return NULL;
	}
	try_join(port);
	return &port->backend;
}
