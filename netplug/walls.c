/*
 * The walls around the plug: what a guest that took it over could still do.
 *
 * Before the first frame of a guest the process gives up capabilities and new privileges, and confines itself
 * (uml-lab/base/confine.h) to the system calls of an event loop with sockets and threads, and to the files it
 * still has to open: the host's resolver's, which may be replaced at any time, libraries that libc's resolver or
 * libvdeplug load, and folders in which VDE networks have their sockets. It can start no
 * program, see no other process, and open none of the user's files.
 *
 * It does have the network: that is what it is for.
 */
#include <sys/socket.h>

#include "netplug/netplug_internal.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/confine.h"
#include "uml-lab/base/log.h"

#define PATHS_MAX 32

/* Sockets of any kind the families allow, files, threads (libvdeplug's calls block: vde_join.c), directories of its plugins. */
static const char *const calls[] = {
	"socket", "socketpair", "bind", "listen", "connect", "accept", "accept4", "setsockopt", "ioctl",
	"open", "openat", "stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2", "readlink", "readlinkat",
	"getdents64", "getcwd", "unlink", "unlinkat", "chmod", "fchmod", "fchmodat", "umask",
	"threads", "clone3", "sched_setscheduler", "sched_getparam", "sched_getscheduler",
	NULL,
};
static const int families[] = { AF_INET, AF_INET6, AF_UNIX, AF_NETLINK, 0 };

static const char *const readable[] = {
	/* resolv.conf may be replaced there at any time, or be a link into the others. */
	"/etc", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/mnt/wsl",
	"/lib", "/lib64", "/usr/lib", "/usr/lib64",
};

int walls_raise(const char *const *folders, struct error *err)
{
	struct confine_path paths[PATHS_MAX] = { 0 };
	struct confine_spec spec = {
		.paths = paths, .tcp = true, .calls = calls, .families = families,
	};
	char walls[CONFINE_WALLS_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(readable); i++)
		paths[spec.path_count++] = (struct confine_path){ .path = readable[i], .access = CONFINE_READ };
	for (; *folders; folders++) {
		if (spec.path_count == PATHS_MAX)
			return error_set(err, ERROR_USAGE, "too many folders");
		paths[spec.path_count++] = (struct confine_path){
			.path = *folders, .access = CONFINE_READ | CONFINE_WRITE | CONFINE_CREATE };
	}
	if (confine_self(&spec, walls, err))
		return -1;
	log_debug("walls: %s", walls);
	return 0;
}
