/*
 * One guest interface: its link on one side, what it is joined to on the other.
 *
 *	guest ⇄ link ⇄ port ⇄ backend: slirp_port.c or vde.c
 *
 * Every frame passes here, in either direction: from_guest() and to_guest().
 * While the guest does not read (link->congested) the backend is paused;
 * while the backend takes nothing, the link is held.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "netplug/netplug_internal.h"

struct port {
	struct netplug_port_config config;
	struct loop *loop;
	struct link *link;
	struct backend *backend;
	struct impair *sent, *received;	/* the line, each way; NULL: a good one */
	bool down;
	want_join_fn want_join;
	void *want_join_arg;
	struct capture_list captures;
	struct netplug_stats stats;
};

/* A frame of the guest's that the line has let through. */
static void leave(void *arg, const uint8_t *frame, size_t length)
{
	struct port *port = arg;

	if (port->captures.count)
		capture_frame(&port->captures, true, frame, length);
	/* it lies in a buffer of the link's, or of the line's, which is done with it */
	port->backend->ops->input(port->backend, (uint8_t *)(uintptr_t)frame, length);
}

static void arrive(void *arg, const uint8_t *frame, size_t length)
{
	struct port *port = arg;

	if (port->captures.count)
		capture_frame(&port->captures, false, frame, length);
	link_send(port->link, frame, length);
}

static void from_guest(void *arg, const uint8_t *frame, size_t length)
{
	struct port *port = arg;

	if (port->config.port_security && memcmp(frame + 6, port->config.mac, sizeof(port->config.mac)))
		port->stats.in_spoofed++;
	else if (port->down)
		port->stats.impair_down++;
	else if (port->sent)
		impair_send(port->sent, frame, length);
	else
		leave(port, frame, length);
}

static void to_guest(void *arg, const uint8_t *frame, size_t length)
{
	struct port *port = arg;

	if (port->down)
		port->stats.impair_down++;
	else if (port->received)
		impair_send(port->received, frame, length);
	else
		arrive(port, frame, length);
}

static void on_link_changed(void *arg)
{
	struct port *port = arg;

	if (port->backend && port->backend->ops->pause)
		port->backend->ops->pause(port->backend, port->link->congested);
}

static void on_hold(void *arg, bool held)
{
	struct port *port = arg;

	link_hold(port->link, held);
}

static int on_want_join(void *arg, struct error *err)
{
	struct port *port = arg;

	if (!port->want_join)
		return error_set(err, ERROR_STATE, "nobody joins networks for port %u", port->config.port);
	return port->want_join(port->want_join_arg, port->config.port, err);
}

static int check_config(const struct netplug_port_config *c, struct error *err)
{
	unsigned mtu_min = c->kind == NETPLUG_KIND_VDE ? NETPLUG_VDE_MTU_MIN : NETPLUG_MTU_MIN;

	if (c->port_security > 1 || c->ipv6 > 1 || c->restrict_access > 1 || c->host_access > 1)
		return error_set(err, ERROR_FAILED, "port %u: a switch is neither 0 nor 1", c->port);
	if (c->transport != NETPLUG_BESS && c->transport != NETPLUG_VHOST_USER)
		return error_set(err, ERROR_FAILED, "port %u: unknown transport %u", c->port, c->transport);
	if (c->mtu < mtu_min || c->mtu > NETPLUG_MTU_MAX)
		return error_set(err, ERROR_USAGE, "MTU %u is not within %u and %d", c->mtu, mtu_min,
				 NETPLUG_MTU_MAX);
	return 0;
}

/* libslirp takes TCP as long as it gets it. A network, and a line that loses or delays, are to see what the guest meant to send. */
static void set_super(struct port *port)
{
	link_set_super(port->link, port->config.kind == NETPLUG_KIND_SLIRP && !port->sent);
}

static struct backend *new_backend(struct port *port, struct loop *loop, struct error *err)
{
	const struct backend_env env = {
		.loop = loop, .stats = &port->stats, .send = to_guest, .hold = on_hold,
		.want_join = on_want_join, .arg = port,
	};

	switch (port->config.kind) {
	case NETPLUG_KIND_SLIRP:
		return slirp_port_new(&env, &port->config, err);
	case NETPLUG_KIND_VDE:
		return vde_port_new(&env, &port->config, err);
	default:
		error_set(err, ERROR_FAILED, "port %u: unknown kind %u", port->config.port, port->config.kind);
		return NULL;
	}
}

struct port *port_new(struct loop *loop, const struct netplug_port_config *config, want_join_fn want_join, void *arg,
		      struct error *err)
{
	struct link_events events = { from_guest, on_link_changed, NULL };
	struct port *port;

	if (check_config(config, err))
		return NULL;
	port = calloc(1, sizeof(*port));
	if (!port) {
		error_oom(err);
		return NULL;
	}
	port->config = *config;
	port->loop = port->captures.loop = loop;
	port->want_join = want_join;
	port->want_join_arg = arg;
	port->stats.port = config->port;
	events.arg = port;
	port->link = (config->transport == NETPLUG_VHOST_USER ? link_vnet_new : link_bess_new)(loop, config, &events,
											       &port->stats, err);
	if (port->link) {
		set_super(port);
		port->backend = new_backend(port, loop, err);
	}
	if (!port->backend) {
		port_free(port);
		return NULL;
	}
	return port;
}

void port_free(struct port *port)
{
	if (!port)
		return;
	if (port->backend)
		port->backend->ops->free(port->backend);
	impair_free(port->sent);
	impair_free(port->received);
	capture_free_all(&port->captures);
	link_free(port->link);
	free(port);
}

int port_connect(struct port *port, int fd, struct error *err)
{
	return link_connect(port->link, fd, err);
}

int port_add_forward(struct port *port, struct netplug_forward *forward, struct error *err)
{
	if (!port->backend->ops->add_forward)
		return error_set(err, ERROR_USAGE, "only SLIRP interfaces have forwards");
	return port->backend->ops->add_forward(port->backend, forward, err);
}

int port_remove_forward(struct port *port, const struct netplug_forward *forward, struct error *err)
{
	if (!port->backend->ops->remove_forward)
		return error_set(err, ERROR_USAGE, "only SLIRP interfaces have forwards");
	return port->backend->ops->remove_forward(port->backend, forward, err);
}

int port_join(struct port *port, int fd, struct error *err)
{
	if (port->backend->ops->join) {
		port->backend->ops->join(port->backend, fd);
		return 0;
	}
	close(fd);
	return error_set(err, ERROR_USAGE, "only interfaces on VDE networks are joined to one");
}

int port_allow(struct port *port, const struct netplug_allow *rule, struct error *err)
{
	if (!port->backend->ops->allow)
		return error_set(err, ERROR_USAGE, "only SLIRP interfaces have allowed destinations");
	return port->backend->ops->allow(port->backend, rule, err);
}

/* One direction of the line, made when it is first wanted. */
static int set_line(struct port *port, struct impair **line, impair_fn out, const struct netplug_impair *settings,
		    struct error *err)
{
	static const struct netplug_impair none;

	if (!*line && !memcmp(settings, &none, sizeof(none)))
		return 0;
	if (!*line)
		*line = impair_new(port->loop, ETHERNET_HEADER + VLAN_TAG + port->config.mtu, out, port, &port->stats, err);
	if (!*line)
		return -1;
	impair_set(*line, settings);
	return 0;
}

int port_impair(struct port *port, const struct netplug_impair *settings, struct error *err)
{
	struct netplug_impair line = *settings;

	if (line.down > 1 || line.loss_ppm > NETPLUG_PPM || line.duplicate_ppm > NETPLUG_PPM ||
	    line.reorder_ppm > NETPLUG_PPM || line.delay_us > NETPLUG_DELAY_MAX_US ||
	    line.jitter_us > NETPLUG_DELAY_MAX_US || (line.rate && line.rate < NETPLUG_RATE_MIN) ||
	    line.rate > NETPLUG_RATE_MAX)
		return error_set(err, ERROR_USAGE, "port %u: an impairment is out of its range", port->config.port);
	line.down = 0;
	if (set_line(port, &port->sent, leave, &line, err))
		return -1;
	if (line.seed)
		line.seed++;	/* each way its own numbers */
	/* On a VDE network the one who sends impairs; SLIRP's side has nobody else. */
	if (port->config.kind == NETPLUG_KIND_SLIRP && set_line(port, &port->received, arrive, &line, err))
		return -1;
	if (port->received && port->backend->ops->impaired)
		port->backend->ops->impaired(port->backend);
	port->down = settings->down;
	set_super(port);
	return 0;
}

int port_capture(struct port *port, const struct netplug_capture_request *request, int fd, struct error *err)
{
	return capture_add(&port->captures, request, fd, err);
}

void port_stats(const struct port *port, struct netplug_stats *stats)
{
	*stats = port->stats;
	stats->connected = link_connected(port->link);
	if (port->backend->ops->stats)
		port->backend->ops->stats(port->backend, stats);
}

uint64_t port_moved(const struct port *port)
{
	return port->config.kind == NETPLUG_KIND_SLIRP ? port->stats.in_frames + port->stats.out_frames : 0;
}

int port_prepare(struct port *port, bool look)
{
	int ms = port->backend->ops->prepare ? port->backend->ops->prepare(port->backend) : -1;

	port->link->look = look;
	return look || port->link->more ? 0 : ms;
}

void port_finish(struct port *port)
{
	link_receive(port->link);
	if (port->backend->ops->finish)
		port->backend->ops->finish(port->backend);
	link_flush(port->link);
}
