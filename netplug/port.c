/*
 * One guest interface: its link on one side, what it is joined to on the other.
 *
 *	guest ⇄ link ⇄ port ⇄ backend: slirp_port.c or vde.c
 *
 * Every frame passes here, in either direction: from_guest() and to_guest().
 * While the guest does not read (link_congested()) the backend is paused;
 * while the backend takes nothing, the link is held.
 */
#include <stdlib.h>
#include <string.h>

#include "netplug/netplug_internal.h"

struct port {
	struct netplug_port_config config;
	struct link *link;
	struct backend *backend;
	struct netplug_stats stats;
};

static void from_guest(void *arg, const uint8_t *frame, size_t length)
{
	struct port *port = arg;

	port->backend->ops->input(port->backend, frame, length);
}

static void to_guest(void *arg, const uint8_t *frame, size_t length)
{
	struct port *port = arg;

	link_send(port->link, frame, length);
}

static void on_link_changed(void *arg)
{
	struct port *port = arg;

	if (port->backend)
		port->backend->ops->pause(port->backend, link_congested(port->link));
}

static void on_hold(void *arg, bool held)
{
	struct port *port = arg;

	link_hold(port->link, held);
}

static int check_config(const struct netplug_port_config *c, struct error *err)
{
	if (c->ipv6 > 1 || c->restrict_access > 1 || c->host_access > 1)
		return error_set(err, ERROR_FAILED, "port %u: a switch is neither 0 nor 1", c->port);
	if (c->mtu < NETPLUG_MTU_MIN || c->mtu > NETPLUG_MTU_MAX)
		return error_set(err, ERROR_USAGE, "MTU %u is not within %d and %d", c->mtu, NETPLUG_MTU_MIN,
				 NETPLUG_MTU_MAX);
	return 0;
}

static struct backend *new_backend(struct port *port, struct loop *loop, struct error *err)
{
	const struct backend_env env = {
		.loop = loop, .stats = &port->stats, .send = to_guest, .hold = on_hold, .arg = port,
	};

	switch (port->config.kind) {
	case NETPLUG_KIND_SLIRP:
		return slirp_port_new(&env, &port->config, err);
	default:
		error_set(err, ERROR_FAILED, "port %u: unknown kind %u", port->config.port, port->config.kind);
		return NULL;
	}
}

struct port *port_new(struct loop *loop, const struct netplug_port_config *config, struct error *err)
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
	port->stats.port = config->port;
	events.arg = port;
	port->link = link_new(loop, config->mtu, &events, &port->stats, err);
	if (port->link)
		port->backend = new_backend(port, loop, err);
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

int port_allow(struct port *port, const struct netplug_allow *rule, struct error *err)
{
	if (!port->backend->ops->allow)
		return error_set(err, ERROR_USAGE, "only SLIRP interfaces have allowed destinations");
	return port->backend->ops->allow(port->backend, rule, err);
}

void port_stats(const struct port *port, struct netplug_stats *stats)
{
	*stats = port->stats;
	stats->connected = link_connected(port->link);
	port->backend->ops->stats(port->backend, stats);
}

int port_prepare(struct port *port)
{
	return port->backend->ops->prepare ? port->backend->ops->prepare(port->backend) : -1;
}

void port_finish(struct port *port)
{
	if (port->backend->ops->finish)
		port->backend->ops->finish(port->backend);
	link_flush(port->link);
}
