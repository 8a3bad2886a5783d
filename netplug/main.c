/* uml-netplug: the command line. */
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>

#include "netplug/netplug_internal.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/cli.h"
#include "uml-lab/base/log.h"

struct options {
	const char *control_fd;
	bool slirp;
	const char *vde, *label;
	bool check;
	const char *socket;
	struct strv forwards, allow;
	const char *join_fd;
	bool no_sockets;
	bool host, restrict_access, no_ipv6, vhost_user;
	const char *hostname, *domain, *search;
	const char *mtu;
};

#define OPTION(field) offsetof(struct options, field)

static const struct cli_option option_table[] = {
	{ "control-fd", 0, CLI_STRING, OPTION(control_fd), "N", "obey the control socket that is descriptor N" },
	{ "no-sockets", 0, CLI_FLAG, OPTION(no_sockets), NULL, "with --control-fd: no interface will be of SLIRP" },
	{ "slirp", 0, CLI_FLAG, OPTION(slirp), NULL, "serve one interface to the outside, through libslirp" },
	{ "vde", 0, CLI_STRING, OPTION(vde), "LOCATOR", "join one interface to a VDE network, through libvdeplug" },
	{ "check", 0, CLI_FLAG, OPTION(check), NULL, "with --vde: only tell whether such a locator can be joined" },
	{ "join-fd", 0, CLI_STRING, OPTION(join_fd), "N", "with --vde: join it for another uml-netplug, told on descriptor N" },
	{ "label", 0, CLI_STRING, OPTION(label), "TEXT", "what the interface is called in the switch's list of ports" },
	{ "socket", 0, CLI_STRING, OPTION(socket), "PATH", "listen here for the guest's bess transport" },
	{ "vhost-user", 0, CLI_FLAG, OPTION(vhost_user), NULL, "listen for vhost-user instead: a virtio network device" },
	{ "forward", 0, CLI_LIST, OPTION(forwards), "[ADDRESS:]PORT:[GUEST:]GUESTPORT[/udp]",
	  "lead a port of the host, or auto, into the guest" },
	{ "host", 0, CLI_FLAG, OPTION(host), NULL, "let the guest reach the host's loopback as 10.0.2.2" },
	{ "restrict", 0, CLI_FLAG, OPTION(restrict_access), NULL, "let nothing through but the forwards" },
	{ "allow", 0, CLI_LIST, OPTION(allow), "ADDRESS[/BITS][:PORT[/udp]]", "what may still be reached with --restrict" },
	{ "no-ipv6", 0, CLI_FLAG, OPTION(no_ipv6), NULL, "IPv4 only" },
	{ "hostname", 0, CLI_STRING, OPTION(hostname), "NAME", "host name given by DHCP" },
	{ "domain", 0, CLI_STRING, OPTION(domain), "NAME", "domain name given by DHCP" },
	{ "search", 0, CLI_STRING, OPTION(search), "DOMAINS", "search domains given by DHCP, separated by spaces" },
	{ "mtu", 0, CLI_STRING, OPTION(mtu), "BYTES", "MTU of the interface, the same as UML's mtu=" },
	{ 0 },
};

static int copy_text(char *to, size_t size, const char *from, const char *option, struct error *err)
{
	if (!from)
		return 0;
	if (strlen(from) >= size)
		return error_set(err, ERROR_USAGE, "--%s is longer than %zu characters", option, size - 1);
	strcpy(to, from);
	return 0;
}

static int fill_config(const struct options *o, struct netplug_port_config *c, struct error *err)
{
	int64_t mtu;

	netplug_port_config_init(c, 0);
	if (o->vde && netplug_port_config_vde(c, o->vde, err))
		return -1;
	c->host_access = o->host;
	c->restrict_access = o->restrict_access;
	c->ipv6 = !o->no_ipv6;
	c->transport = o->vhost_user ? NETPLUG_VHOST_USER : NETPLUG_BESS;
	if (o->mtu) {
		int min = o->vde ? NETPLUG_VDE_MTU_MIN : NETPLUG_MTU_MIN;
		int max = o->vde ? NETPLUG_VDE_MTU_MAX : NETPLUG_MTU_MAX;

		if (str_to_i64(o->mtu, min, max, &mtu))
			return error_set(err, ERROR_USAGE, "--mtu %s is not within %d and %d", o->mtu, min, max);
		c->mtu = (uint32_t)mtu;
	}
	if (copy_text(c->label, sizeof(c->label), o->label, "label", err) ||
	    copy_text(c->hostname, sizeof(c->hostname), o->hostname, "hostname", err) ||
	    copy_text(c->domain, sizeof(c->domain), o->domain, "domain", err) ||
	    copy_text(c->search, sizeof(c->search), o->search, "search", err))
		return -1;
	return 0;
}

static const char *const none[] = { NULL };

static const char *const *items_or_none(const struct strv *v)
{
	return v->count ? (const char *const *)v->items : none;
}

static int descriptor(const char *text, const char *option, struct error *err)
{
	int64_t fd;

	if (str_to_i64(text, 0, 1 << 20, &fd) || fcntl((int)fd, F_SETFD, FD_CLOEXEC))
		return error_set(err, ERROR_USAGE, "--%s %s is not an open descriptor", option, text);
	return (int)fd;
}

static int run_alone(const struct options *o, struct error *err)
{
	struct serve_alone alone = {
		.socket = o->socket,
		.forwards = items_or_none(&o->forwards),
		.allow = items_or_none(&o->allow),
	};

	if (o->vde && o->check)
		return vde_locator_check(o->vde, err);
	if (o->slirp == !!o->vde || !o->socket)
		return error_set(err, ERROR_USAGE,
				 "give --control-fd N, or --socket PATH with --slirp or with --vde LOCATOR");
	if (o->allow.count && !o->restrict_access)
		return error_set(err, ERROR_USAGE, "--allow works only with --restrict");
	if (fill_config(o, &alone.config, err))
		return -1;
	return serve_alone(&alone, err);
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct options *o = opaque;
	int fd;

	(void)operands;
	log_setup("uml-netplug", LOG_LEVEL_INFO);
	if (o->vde && o->join_fd) {
		fd = descriptor(o->join_fd, "join-fd", err);
		return fd < 0 ? -1 : vde_join(fd, o->vde, o->label ? o->label : "uml-netplug", err);
	}
	if (!o->control_fd)
		return run_alone(o, err);
	if (o->slirp || o->vde || o->socket || o->forwards.count)
		return error_set(err, ERROR_USAGE, "--control-fd stands alone: interfaces come through the socket");
	fd = descriptor(o->control_fd, "control-fd", err);
	return fd < 0 ? -1 : serve_control(fd, o->no_sockets ? WALLS_CLOSED : WALLS_SOCKETS, err);
}

static const struct cli_command command = {
	.name = "",
	.operands = "",
	.summary = "joins a UML guest's network interfaces to the outside, without privilege",
	.options = option_table,
	.options_size = sizeof(struct options),
	.run = run,
};

/*
 * Segments come and go by the hundred kilobytes, thousands of times a second: left to itself, the C library gives their pages back
 * to the kernel each time and faults them in again, zeroed (a fifth of the plug's time with one flow to the guest). Setting either
 * threshold ends their adapting (mallopt(3)), so both are set: what a few flows have under way is kept, and the buffers of
 * libslirp's connections come from the heap.
 */
static void keep_memory(void)
{
	mallopt(M_TRIM_THRESHOLD, 4 << 20);
	mallopt(M_MMAP_THRESHOLD, 512 << 10);
}

static const struct cli_command *const commands[] = { &command, NULL };

int main(int argc, char **argv)
{
	static const struct cli_program program = {
		.name = "uml-netplug",
		.summary = "a guest's network, without privilege",
		.version = UML_LAB_VERSION,
		.commands = commands,
	};

	keep_memory();
	return cli_main(&program, argc, argv);
}
