/*
 * Joiners: uml-netplug cannot open a VDE network from behind its walls, so it asks us (WANT_JOIN, netplug/control.h) and
 * gets a descriptor of a process that does (netplug/join.h).
 *
 * A plug that a guest has taken over may ask without end: a port has one joiner at a time, and START_MS lie between two.
 */
#include <unistd.h>

#include "netplug/join.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"
#include "uml-lab/machine/plug_internal.h"

#define START_MS 15	/* less than the plug's own first delay (netplug/vde.c) */

static void forget(struct plug_port *port)
{
	loop_remove_fd(port->joiner_source);
	port->joiner_source = NULL;
	netplug_join_end(&port->joiner);
}

static void on_end(void *arg, int fd, uint32_t events)
{
	(void)fd;
	(void)events;
	forget(arg);
}

static void start(void *arg)
{
	struct plug_port *port = arg;
	struct supervisor *sv = port->sv;
	size_t i = (size_t)(port - sv->plug.ports);
	struct plug_request *request = NULL;
	struct error err = ERROR_INIT;
	cleanup_free char *label = str_printf(&err, "%s/%s eth%zu", sv->spec->session, sv->spec->name, i);
	cleanup_close int fd = -1;

	forget(port);
	if (!sv->plug.ready)	/* the next one will ask */
		return;
	port->joined_ms = loop_now_ms();
	if (label)
		fd = netplug_join(&port->joiner, sv->plug.daemon.program, sv->spec->interfaces[i].locator, label, &err);
	if (fd >= 0)
		port->joiner_source = loop_add_fd(sv->loop, port->joiner.pidfd, EPOLLIN, on_end, port, &err);
	if (port->joiner_source)
		request = plug_remember(&sv->plug, NETPLUG_JOIN, i, NULL, 0);
	/* The plug asks again after a while. */
	if (!request || netplug_control_send_join(sv->plug.daemon.control, request->sequence, (uint32_t)i, fd, &err) < 0)
		log_warn("eth%zu cannot be joined to its network now: %s", i, err.message);
}

void plug_join(struct supervisor *sv, uint32_t index)
{
	struct plug_port *port = index < sv->plug.port_count ? &sv->plug.ports[index] : NULL;
	int64_t wait_ms;

	if (!port || sv->spec->interfaces[index].slirp)
		return;
	if (!port->join_timer)
		port->join_timer = loop_add_timer(sv->loop, -1, start, port, NULL);
	wait_ms = port->joined_ms ? port->joined_ms + START_MS - loop_now_ms() : 0;
	if (wait_ms <= 0)
		start(port);
	else if (port->join_timer)
		loop_arm_timer(port->join_timer, wait_ms);
}

void plug_join_end(struct plug_port *port)
{
	loop_remove_timer(port->join_timer);
	port->join_timer = NULL;
	forget(port);
}
