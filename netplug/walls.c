/*
 * The walls around the plug: what a guest that took it over could still do.
 *
 * Before the first frame of a guest the process gives up capabilities and new privileges, and
 * confines itself (uml-lab/base/confine.h) to the system calls of an event loop. It can start no
 * program, see no other process, and open none of the user's files.
 *
 * One whose interfaces are all on VDE networks gets their descriptors from outside (join.h) and
 * can make no socket at all. One that serves SLIRP has IPv4 and IPv6: that is what it is for;
 * but no AF_UNIX, behind which other programs of the user would take orders, and of files
 * the host's resolver's, which may be replaced at any time, and libraries.
 */
#include <string.h>
#include <sys/socket.h>

#include "netplug/netplug_internal.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/confine.h"
#include "uml-lab/base/log.h"

/* Forwards listen; the rest is libslirp's and the resolver's. */
static const char *const socket_calls[] = {
	"socket", "bind", "listen", "connect", "accept", "accept4", "setsockopt", "ioctl",
	"open", "openat", "stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat",
	"getdents64", "getcwd", "mkdir", "rmdir", "unlink", "unlinkat", "chmod", "fchmod", "fchmodat", "umask",
	"threads", "clone3", "sched_setscheduler", "sched_getparam", "sched_getscheduler",
	NULL,
};
static const int families[] = { AF_INET, AF_INET6, AF_NETLINK, 0 };
static const int module_families[] = { AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, 0 };

/*
 * Descriptors come from outside; whether a plugin for a locator is there is looked up by access(). fstat() of
 * a guest's memory is newfstatat() in libc.
 */
static const char *const closed_calls[] = { "accept4", "setsockopt", "newfstatat", "access", "faccessat", "faccessat2", NULL };
/* udp:// connects the socket it has with its first frame (libvdeplug_udp.c). */
static const char *const carrier_calls[] = { "connect", NULL };

static const struct confine_path resolver[] = {
	/* resolv.conf may be replaced there at any time, or be a link into the others. */
	{ .path = "/etc", .access = CONFINE_READ },
	{ .path = "/run/systemd/resolve", .access = CONFINE_READ },
	{ .path = "/run/resolvconf", .access = CONFINE_READ },
	{ .path = "/run/NetworkManager", .access = CONFINE_READ },
	{ .path = "/mnt/wsl", .access = CONFINE_READ },
	{ .path = "/lib", .access = CONFINE_READ },
	{ .path = "/lib64", .access = CONFINE_READ },
	{ .path = "/usr/lib", .access = CONFINE_READ },
	{ .path = "/usr/lib64", .access = CONFINE_READ },
};

static bool has_sockets(enum walls walls)
{
	return walls == WALLS_SOCKETS || walls == WALLS_MODULE;
}

static const char *const *calls_of(enum walls walls)
{
	if (has_sockets(walls))
		return socket_calls;
	return walls == WALLS_CARRIER ? carrier_calls : closed_calls;
}

int walls_raise(enum walls walls, const char *folder, struct error *err)
{
	struct confine_path paths[ARRAY_SIZE(resolver) + 1];
	struct confine_spec spec = {
		.paths = paths,
		.tcp = has_sockets(walls),
		.calls = calls_of(walls),
		.families = walls == WALLS_MODULE ? module_families : families,
	};
	char stand[CONFINE_WALLS_MAX];

	if (has_sockets(walls)) {
		memcpy(paths, resolver, sizeof(resolver));
		spec.path_count = ARRAY_SIZE(resolver);
	}
	if (folder)
		paths[spec.path_count++] = (struct confine_path){
			.path = folder, .access = CONFINE_READ | CONFINE_WRITE | CONFINE_CREATE };
	if (confine_self(&spec, stand, err))
		return -1;
	log_debug("walls: %s", stand);
	return 0;
}
