/*
 * The process: its ports around one loop.
 *
 * A turn: each port says how long it may sleep, the loop sleeps and
 * dispatches, each port finishes (slirp.c). While much happens it does not sleep (look.c). While nothing happens
 * and libslirp has nothing to age, the process sleeps without a timeout.
 */
#include <errno.h>
#include <sched.h>
#include <sys/resource.h>

#include "netplug/netplug_internal.h"
#include "uml-lab/base/log.h"

/*
 * Host sockets of the whole process: a guest can open no more flows than this. libslirp
 * keeps up to 256 KiB for each TCP flow (tcp.h: TCP_SNDSPACE, TCP_RCVSPACE).
 */
#define DESCRIPTORS_MAX 1024

static int bound_descriptors(struct error *err)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return error_errno(err, errno, "read the limit of open files");
	if (limit.rlim_cur <= DESCRIPTORS_MAX)
		return 0;
	limit.rlim_cur = DESCRIPTORS_MAX;
	return setrlimit(RLIMIT_NOFILE, &limit) ? error_errno(err, errno, "lower the limit of open files") : 0;
}

int plug_init(struct plug *plug, struct error *err)
{
	*plug = (struct plug){ 0 };
	if (bound_descriptors(err))
		return -1;
	look_init(&plug->look);
	plug->loop = loop_new(err);
	return plug->loop ? 0 : -1;
}

struct port *plug_port(struct plug *plug, uint32_t id, struct error *err)
{
	if (id < NETPLUG_PORTS_MAX && plug->ports[id])
		return plug->ports[id];
	error_set(err, ERROR_NOT_FOUND, "there is no port %u", id);
	return NULL;
}

int plug_add_port(struct plug *plug, const struct netplug_port_config *config, struct error *err)
{
	if (config->port >= NETPLUG_PORTS_MAX)
		return error_set(err, ERROR_FAILED, "port %u is not below %d", config->port, NETPLUG_PORTS_MAX);
	if (plug->ports[config->port])
		return error_set(err, ERROR_STATE, "there is a port %u already", config->port);
	plug->ports[config->port] = port_new(plug->loop, config, plug->want_join, plug->want_join_arg, err);
	return plug->ports[config->port] ? 0 : -1;
}

/* Frames that have passed. */
static uint64_t moved(const struct plug *plug)
{
	uint64_t frames = 0;

	for (size_t i = 0; i < NETPLUG_PORTS_MAX; i++)
		frames += plug->ports[i] ? port_moved(plug->ports[i]) : 0;
	return frames;
}

static int turn(struct plug *plug, struct error *err)
{
	uint64_t before = moved(plug);
	int timeout = -1;

	for (size_t i = 0; i < NETPLUG_PORTS_MAX; i++) {
		int ms = plug->ports[i] ? port_prepare(plug->ports[i], plug->look.patience.looking) : -1;

		if (ms >= 0 && (timeout < 0 || ms < timeout))
			timeout = ms;
	}
	if (loop_turn(plug->loop, timeout, err))
		return -1;
	for (size_t i = 0; i < NETPLUG_PORTS_MAX; i++) {
		if (plug->ports[i])
			port_finish(plug->ports[i]);
	}
	look_turned(&plug->look, moved(plug) != before, timeout != 0, loop_now_ns());
	if (plug->look.patience.looking && moved(plug) == before)
		sched_yield();	/* to a guest, or the server it talks to, that waits for this processor */
	return 0;
}

int plug_run(struct plug *plug, struct error *err)
{
	while (!plug->stopped) {
		if (turn(plug, err))
			return -1;
	}
	return 0;
}

void plug_free(struct plug *plug)
{
	for (size_t i = 0; i < NETPLUG_PORTS_MAX; i++)
		port_free(plug->ports[i]);
	loop_free(plug->loop);
}
