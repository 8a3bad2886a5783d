/*
 * The SLIRP kind of port: libslirp, and the forwards.
 *
 * A frame from the guest is inspected (frame.c); a datagram that answers a
 * client of a UDP forward goes back to that client, anything else to libslirp.
 * While the guest does not read, nothing is read for it from the host's
 * sockets: they fill up, and their senders wait.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <arpa/inet.h>

#include "netplug/netplug_internal.h"
#include "netplug/stretch.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"

#define FORWARDS_MAX 64
#define AUTO_TRIES 16		/* a port found free may be taken before it is bound again */
#define HOSTNAME_MAX 32		/* libslirp cuts longer ones (slirp.h: client_hostname) */

struct forward_entry {
	struct netplug_forward forward;
	struct udp_forward *udp;	/* NULL: TCP, in libslirp */
};

struct slirp_port {
	struct backend backend;		/* first */
	struct netplug_port_config config;
	uint8_t guest_mac[6];		/* as last seen; all zero: unknown */
	struct slirp_backend *slirp;
	struct udp_forward_env udp_env;
	struct forward_entry forwards[FORWARDS_MAX];
	size_t forward_count;
	struct allow_list allow;
	struct stretch *stretch;
};

/* Whether the frame was an answer to a client of a UDP forward, and is on its way. */
static bool answers_udp(struct slirp_port *port, const struct frame_info *info)
{
	for (size_t i = 0; info->udp4 && i < port->forward_count; i++) {
		if (port->forwards[i].udp && udp_forward_answer(port->forwards[i].udp, info))
			return true;
	}
	return false;
}

static void on_input(struct backend *backend, uint8_t *frame, size_t length)
{
	struct slirp_port *port = (struct slirp_port *)backend;
	struct frame_info info;

	if (frame_inspect(frame, length, &info) != FRAME_PASS) {
		backend->env.stats->in_refused++;
		return;
	}
	/* A guest may change its MAC at any time (ip link set address); multicast is no source (IEEE 802.3). */
	if (!(frame[6] & 1))
		memcpy(port->guest_mac, frame + 6, sizeof(port->guest_mac));
	if (answers_udp(port, &info))
		return;
	if (port->config.restrict_access && !allow_passes(&port->allow, &port->config, &info)) {
		backend->env.stats->in_refused++;
		return;
	}
	stretch_from_guest(port->stretch, frame, length);
}



static void on_pause(struct backend *backend, bool paused)
{
	struct slirp_port *port = (struct slirp_port *)backend;

	slirp_backend_pause(port->slirp, paused);
	stretch_pause(port->stretch, paused);
	for (size_t i = 0; i < port->forward_count; i++) {
		if (port->forwards[i].udp)
			udp_forward_pause(port->forwards[i].udp, paused);
	}
}

static void on_impaired(struct backend *backend)
{
	stretch_slow(((struct slirp_port *)backend)->stretch, true);
}

static void feed_slirp(void *arg, const uint8_t *frame, size_t length)
{
	slirp_backend_input(((struct slirp_port *)arg)->slirp, frame, length);
}

static void send_guest(void *arg, const uint8_t *frame, size_t length)
{
	const struct backend_env *env = &((struct slirp_port *)arg)->backend.env;

	env->send(env->arg, frame, length);
}

static void on_slirp_send(void *arg, const uint8_t *frame, size_t length)
{
	struct slirp_port *port = arg;
	uint8_t with_mtu[DHCP_FRAME_MAX];
	size_t longer = dhcp_add_mtu(frame, length, port->config.mtu, with_mtu);

	if (longer)
		send_guest(port, with_mtu, longer);
	else
		stretch_to_guest(port->stretch, frame, length);
}

static bool in_network(const struct netplug_port_config *c, struct in_addr a)
{
	uint32_t mask = htonl(~0u << (32 - c->prefix_length));

	return (a.s_addr & mask) == c->network.s_addr && a.s_addr != c->network.s_addr;
}

static int check_config(const struct netplug_port_config *c, struct error *err)
{
	if (c->mtu < NETPLUG_MTU_MIN || c->mtu > NETPLUG_MTU_MAX)
		return error_set(err, ERROR_USAGE, "MTU %u is not within %d and %d", c->mtu, NETPLUG_MTU_MIN,
				 NETPLUG_MTU_MAX);
	if (c->prefix_length < 8 || c->prefix_length > 29 ||
	    ntohl(c->network.s_addr) & (~0u >> c->prefix_length))
		return error_set(err, ERROR_USAGE, "port %u: the network is not an address with a prefix of 8 to 29",
				 c->port);
	if (!in_network(c, c->host) || !in_network(c, c->dns) || !in_network(c, c->dhcp_start) ||
	    c->host.s_addr == c->dns.s_addr)
		return error_set(err, ERROR_USAGE, "port %u: host, name server and guest are not within the network",
				 c->port);
	if (strlen(c->hostname) > HOSTNAME_MAX)
		return error_set(err, ERROR_USAGE, "host name '%s' is longer than %d characters", c->hostname,
				 HOSTNAME_MAX);
	return 0;
}

static uint16_t *port_field(struct sockaddr_storage *address)
{
	return address->ss_family == AF_INET6 ? &((struct sockaddr_in6 *)address)->sin6_port :
						&((struct sockaddr_in *)address)->sin_port;
}

/* Finds a port that is free now. */
static int choose_port(struct netplug_forward *f, struct error *err)
{
	cleanup_close int fd = socket(f->host.ss_family, (f->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	struct sockaddr_storage bound;
	socklen_t size = sizeof(bound);

	if (fd < 0 || bind(fd, (const struct sockaddr *)&f->host, sizeof(f->host)) ||
	    getsockname(fd, (struct sockaddr *)&bound, &size))
		return error_errno(err, errno, "find a free port");
	*port_field(&f->host) = *port_field(&bound);
	return 0;
}

/* Binds the host port. 0, or -1 with errno in err->sys_errno. */
static int bind_forward(struct slirp_port *port, const struct netplug_forward *f, struct udp_forward **udp,
			struct error *err)
{
	if (f->udp) {
		*udp = udp_forward_new(&port->udp_env, f, err);
		return *udp ? 0 : -1;
	}
	*udp = NULL;
	if (slirp_backend_add_forward(port->slirp, f))
		return error_errno(err, errno, "bind a TCP port");
	return 0;
}

/* Says of a failed bind what a person needs to know. */
static int tell_bind_failure(struct netplug_forward *f, int sys_errno, struct error *err)
{
	char text[NETPLUG_FORWARD_TEXT_MAX], owner[64];
	uint16_t host_port = ntohs(*port_field(&f->host));
	size_t address;

	/* The host's part of the text: up to the port. */
	netplug_forward_format(f, text);
	address = text[0] == '[' ? (size_t)(strchr(text, ']') - text) + 1 : strcspn(text, ":");
	text[address] = '\0';
	if (sys_errno == EADDRINUSE)
		error_set(err, ERROR_FAILED, "%s:%u%s" NETPLUG_IN_USE "%s", text, host_port, f->udp ? "/udp" : "",
			  netplug_owner_of_port(f->udp, host_port, owner, sizeof(owner)));
	else
		error_errno(err, sys_errno, "listen on %s:%u%s", text, host_port, f->udp ? "/udp" : "");
	if (sys_errno == EACCES)
		error_hint(err, "ports below 1024 belong to root; choose a higher one, or auto");
	return -1;
}

static struct forward_entry *find_forward(struct slirp_port *port, const struct netplug_forward *f)
{
	for (size_t i = 0; i < port->forward_count; i++) {
		if (netplug_forward_same_host(&port->forwards[i].forward, f))
			return &port->forwards[i];
	}
	return NULL;
}

/* An IPv4 guest address left out is the first that DHCP hands out; libslirp finds IPv6 ones by itself. */
static void fill_guest(const struct slirp_port *port, struct netplug_forward *f)
{
	struct sockaddr_in *guest = (struct sockaddr_in *)&f->guest;

	if (guest->sin_family == AF_INET && guest->sin_addr.s_addr == INADDR_ANY)
		guest->sin_addr = port->config.dhcp_start;
}

static int add_forward(struct backend *backend, struct netplug_forward *forward, struct error *err)
{
	struct slirp_port *port = (struct slirp_port *)backend;
	struct netplug_forward f = *forward;
	bool choose = *port_field(&f.host) == 0;
	struct udp_forward *udp = NULL;
	struct error cause = ERROR_INIT;
	int tries = choose ? AUTO_TRIES : 1;

	if (port->forward_count == FORWARDS_MAX)
		return error_set(err, ERROR_FAILED, "an interface has at most %d forwards", FORWARDS_MAX);
	if (f.host.ss_family == AF_INET6 && !port->config.ipv6)
		return error_set(err, ERROR_USAGE, "the interface has no IPv6 to forward to");
	fill_guest(port, &f);
	while (tries--) {
		if (choose && choose_port(&f, err))
			return -1;
		if (!bind_forward(port, &f, &udp, &cause)) {
			port->forwards[port->forward_count++] = (struct forward_entry){ f, udp };
			*forward = f;
			return 0;
		}
		if (cause.sys_errno != EADDRINUSE)
			break;
	}
	return tell_bind_failure(&f, cause.sys_errno, err);
}

static int remove_forward(struct backend *backend, const struct netplug_forward *forward, struct error *err)
{
	struct slirp_port *port = (struct slirp_port *)backend;
	struct forward_entry *e = find_forward(port, forward);
	char text[NETPLUG_FORWARD_TEXT_MAX];

	if (!e)
		return error_set(err, ERROR_NOT_FOUND, "there is no forward %s", netplug_forward_format(forward, text));
	if (e->udp)
		udp_forward_free(e->udp);
	else if (slirp_backend_remove_forward(port->slirp, &e->forward))
		log_warn("libslirp does not know forward %s", netplug_forward_format(&e->forward, text));
	*e = port->forwards[--port->forward_count];
	return 0;
}

static int allow(struct backend *backend, const struct netplug_allow *rule, struct error *err)
{
	struct slirp_port *port = (struct slirp_port *)backend;

	if (port->allow.count == ALLOW_MAX)
		return error_set(err, ERROR_FAILED, "an interface has at most %d allowed destinations", ALLOW_MAX);
	port->allow.rules[port->allow.count++] = *rule;
	return 0;
}

static void fill_stats(const struct backend *backend, struct netplug_stats *stats)
{
	const struct slirp_port *port = (const struct slirp_port *)backend;

	stats->sockets = slirp_backend_sockets(port->slirp);
	stats->forwards = port->forward_count;
}

static int prepare(struct backend *backend)
{
	struct slirp_port *port = (struct slirp_port *)backend;
	int ms = slirp_backend_prepare(port->slirp), again = stretch_wait_ms(port->stretch);

	return ms < 0 || (again >= 0 && again < ms) ? again : ms;
}

static void finish(struct backend *backend)
{
	struct slirp_port *port = (struct slirp_port *)backend;

	slirp_backend_finish(port->slirp);
	stretch_pump(port->stretch);
}

static void free_port(struct backend *backend)
{
	struct slirp_port *port = (struct slirp_port *)backend;

	for (size_t i = 0; i < port->forward_count; i++)
		udp_forward_free(port->forwards[i].udp);
	slirp_backend_free(port->slirp);
	stretch_free(port->stretch);
	free(port);
}

static const struct backend_ops ops = {
	.input = on_input,
	.pause = on_pause,
	.impaired = on_impaired,
	.prepare = prepare,
	.finish = finish,
	.stats = fill_stats,
	.add_forward = add_forward,
	.remove_forward = remove_forward,
	.allow = allow,
	.free = free_port,
};

struct backend *slirp_port_new(const struct backend_env *env, const struct netplug_port_config *config,
			       struct error *err)
{
	struct slirp_port *port;
	struct slirp_events events = { on_slirp_send, NULL };

	if (check_config(config, err))
		return NULL;
	port = calloc(1, sizeof(*port));
	if (!port) {
		error_oom(err);
		return NULL;
	}
	port->backend = (struct backend){ &ops, *env };
	port->config = *config;
	memcpy(port->guest_mac, config->mac, sizeof(port->guest_mac));
	events.arg = port;
	port->stretch = stretch_new(feed_slirp, send_guest, port, err);
	if (port->stretch)
		port->slirp = slirp_backend_new(env->loop, &port->config, &events, err);
	if (!port->slirp) {
		free_port(&port->backend);
		return NULL;
	}
	port->udp_env = (struct udp_forward_env){
		.port = &port->backend.env,
		.mtu = config->mtu,
		.gateway = config->host,
		.gateway_mac = { 0x52, 0x55 },	/* libslirp's own scheme: 52:55:IP (slirp.c: special_ethaddr) */
		.guest_mac = port->guest_mac,
	};
	memcpy(port->udp_env.gateway_mac + 2, &config->host, 4);
	return &port->backend;
}
