/*
 * The joiner: a process that joins a VDE network for a plug (join.h). libvdeplug loads
 * modules, opens sockets and may start programs, all of which the plug's walls forbid; and it
 * blocks: opening waits for the switch's answer, sending to a command for room in its pipe.
 *
 * How it works: the first message on its descriptor is struct vde_joined: how the attempt
 * went. A network that turns out to be a pair of connected datagram sockets (vde://, a
 * vde_switch) is handed over with that message, and the joiner ends: vde_recv() and
 * vde_send() of that module are recv() and send() on vde_datafd() (libvdeplug 4.0.1
 * libvdeplug_vde.c), which the plug's loop can do in batches without blocking. For every other
 * module the joiner stays, puts up walls, and carries frames, until either end closes.
 *
 * Of those walls: modules that need nothing more than what vde_open() opened are left nothing
 * more. A program that cmd:// started was there before them, and has none but no_new_privs.
 */
#include <libvdeplug.h>

#include <dlfcn.h>
#include <errno.h>
#include <libgen.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netplug/netplug_internal.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/str.h"

#ifdef __SANITIZE_ADDRESS__
/* libvdeplug loads its modules with RTLD_DEEPBIND, at which the sanitizer's runtime ends the process. */
void *dlopen(const char *file, int mode)
{
	void *(*next)(const char *, int) = (void *(*)(const char *, int))dlsym(RTLD_NEXT, "dlopen");

	return next(file, mode & ~RTLD_DEEPBIND);
}
#endif

/* Whether frames may be sent and received on the data descriptor itself. */
static bool is_direct(const char *locator, VDECONN *conn)
{
	int domain = 0, type = 0, fd = vde_datafd(conn);
	socklen_t size = sizeof(int);

	if (strstr(locator, "://") && !str_starts(locator, "vde://"))
		return false;
	return vde_ctlfd(conn) >= 0 && !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) &&
	       !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) && domain == AF_UNIX && type == SOCK_DGRAM;
}

/* A frame from the network to the pair. False: the network is at its end. */
static bool carry_in(VDECONN *conn, int fd, uint8_t *frame, bool hung_up)
{
	ssize_t n = vde_recv(conn, frame, VDE_ETHBUFSIZE, 0);

	if (n < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
	/* libvdeplug_cmd.c forgets its descriptors when the command has ended; an empty datagram is nothing. */
	if (n == 0)
		return !hung_up && vde_datafd(conn) >= 0;
	if (n >= ETHERNET_HEADER)	/* 1: "a packet that must be dropped", vde_recv(3) */
		send(fd, frame, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
	return true;
}

/* A frame from the pair to the network. False: the port closed its end. */
static bool carry_out(VDECONN *conn, int fd, uint8_t *frame)
{
	ssize_t n = recv(fd, frame, VDE_ETHBUFSIZE, MSG_DONTWAIT);

	if (n > 0)
		vde_send(conn, frame, (size_t)n, 0);	/* a network may lose frames */
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static void carry(VDECONN *conn, int fd)
{
	uint8_t frame[VDE_ETHBUFSIZE];

	for (;;) {
		struct pollfd p[] = {
			{ .fd = fd, .events = POLLIN },
			{ .fd = vde_datafd(conn), .events = POLLIN },
			{ .fd = vde_ctlfd(conn), .events = POLLIN },	/* silent but for its end */
			{ .fd = fd, .events = POLLOUT },
		};

		/* While the guest does not read, neither do we: the network's own queue is the bounded one. */
		if (poll(p, 3, -1) < 0 && errno != EINTR)
			return;
		if (p[0].revents && !carry_out(conn, fd, frame))
			return;
		if (p[1].revents) {
			if (!(p[1].revents & POLLHUP) && (poll(&p[3], 1, -1) < 0 || p[3].revents & POLLHUP))
				return;
			if (!carry_in(conn, fd, frame, p[1].revents & POLLHUP))
				return;
		}
		if (p[2].revents & (POLLIN | POLLHUP | POLLERR))
			return;
	}
}

/* Modules that open all they need in vde_open() (their sources in libvdeplug2 4.0.1, and what they import). */
static bool is_complete(const char *locator)
{
	static const char *const modules[] = { "cmd://", "null://", "seqpacket://", "tap://", "udp://", "vde://",
					       "vxlan://", "vxvde://", "/" };

	for (size_t i = 0; i < ARRAY_SIZE(modules); i++) {
		if (str_starts(locator, modules[i]))
			return true;
	}
	return false;
}

/* ptp, hub, switch and multi make and remove sockets in the folder that their locator's path is in. */
static int raise_walls(const char *locator, struct error *err)
{
	cleanup_free char *path = NULL;
	const char *rest = strstr(locator, "://");

	if (is_complete(locator))
		return walls_raise(WALLS_CARRIER, NULL, err);
	path = rest && rest[3] == '/' ? str_printf(err, "%.*s", (int)strcspn(rest + 3, "["), rest + 3) : NULL;
	return walls_raise(WALLS_MODULE, path ? dirname(path) : NULL, err);
}

/* Tells how it went, with the network's two descriptors if it is direct. 0, or -1: the plug is gone. */
static int tell(int fd, const struct vde_joined *joined, VDECONN *conn)
{
	int fds[VDE_JOINED_FDS] = { -1, -1 };
	union {
		struct cmsghdr align;
		char data[CMSG_SPACE(sizeof(fds))];
	} ancillary = { 0 };
	struct iovec iov = { (void *)joined, sizeof(*joined) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (joined->direct) {
		fds[0] = vde_datafd(conn);
		fds[1] = vde_ctlfd(conn);
		msg.msg_control = ancillary.data;
		msg.msg_controllen = sizeof(ancillary.data);
		*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){ CMSG_LEN(sizeof(fds)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), fds, sizeof(fds));
	}
	return sendmsg(fd, &msg, MSG_NOSIGNAL) == sizeof(*joined) ? 0 : -1;
}

int vde_join(int fd, const char *locator, const char *label, struct error *err)
{
	/* vde_open() takes parameters off its argument, in place. */
	cleanup_free char *open_locator = str_dup(locator, err), *open_label = str_dup(label, err);
	struct vde_joined joined = { .error = ENOMEM };
	/* Of the process, not of this call: where it is not closed below, the sanitizers see it reachable until the end. */
	static VDECONN *conn;

	if (open_locator && open_label) {
		errno = 0;
		conn = vde_open(open_locator, open_label, NULL);
		joined.error = conn ? 0 : errno ? errno : EINVAL;
	}
	joined.direct = conn && is_direct(locator, conn);
	if (conn && !joined.direct && raise_walls(locator, err))
		return -1;
	if (tell(fd, &joined, conn) == 0 && conn && !joined.direct)
		carry(conn, fd);
	/* The plug sees the end of fd; what the module has open ends with this process, without waiting for anybody. */
	if (conn && !joined.direct && !is_complete(locator))
		vde_close(conn);
	return 0;
}
