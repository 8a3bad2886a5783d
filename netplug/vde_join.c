/*
 * Joining a VDE network through libvdeplug, which blocks: opening waits for the
 * switch's answer, sending to a command for room in its pipe. So a thread of
 * its own does it.
 *
 * How it works: the thread gets one end of a SEQPACKET pair. Its first message
 * there is struct vde_joined: how the attempt went. A network that turns out to
 * be a pair of connected datagram sockets (vde://, a vde_switch) is handed over with that,
 * and the thread ends: vde_recv() and vde_send() of that module are recv() and
 * send() on vde_datafd() (libvdeplug 4.0.1 libvdeplug_vde.c), which the loop can do in
 * batches without blocking. For every other module the thread stays and carries
 * frames between the network and the pair, until either ends.
 *
 * Other modules may keep a thread waiting inside libvdeplug after its pair was closed; it
 * holds nothing of ours then, and ends with the process.
 */
#include <libvdeplug.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netplug/netplug_internal.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/str.h"

#define THREAD_STACK (512 * 1024)	/* name service and dlopen() run on it */

struct join {
	char *locator, *label;
	int fd;
};

static void join_free(struct join *join)
{
	if (join->fd >= 0)
		close(join->fd);
	free(join->locator);
	free(join->label);
	free(join);
}

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

static void *run(void *arg)
{
	struct join *join = arg;
	/* vde_open() takes parameters off its argument, in place. */
	cleanup_free char *locator = strdup(join->locator);
	struct vde_joined joined = { .error = ENOMEM };

	if (locator) {
		errno = 0;
		joined.conn = vde_open(locator, join->label, NULL);
		joined.error = joined.conn ? 0 : errno ? errno : EINVAL;
	}
	joined.direct = joined.conn && is_direct(join->locator, joined.conn);
	if (send(join->fd, &joined, sizeof(joined), MSG_NOSIGNAL) < 0)
		joined.direct = false;	/* the port is gone: nobody takes it over */
	else if (joined.conn && !joined.direct)
		carry(joined.conn, join->fd);
	if (joined.conn && !joined.direct) {
		/* First, so that the port knows: vde_close() may wait for a command to end. */
		close(steal_fd(&join->fd));
		vde_close(joined.conn);
	}
	join_free(join);
	return NULL;
}

static int start_thread(struct join *join, struct error *err)
{
	pthread_attr_t attributes;
	sigset_t all, before;
	pthread_t thread;
	int rc;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, THREAD_STACK);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	/* Signals are the loop's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&thread, &attributes, run, join);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return rc ? error_errno(err, rc, "start a thread") : 0;
}

int vde_join(const char *locator, const char *label, struct error *err)
{
	struct join *join = calloc(1, sizeof(*join));
	cleanup_close int ours = -1;
	int pair[2];

	if (!join)
		return error_oom(err);
	join->fd = -1;
	join->locator = str_dup(locator, err);
	join->label = str_dup(label, err);
	if (!join->locator || !join->label) {
		join_free(join);
		return -1;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair)) {
		join_free(join);
		return error_errno(err, errno, "make a socket pair");
	}
	ours = pair[0];
	join->fd = pair[1];
	if (start_thread(join, err)) {
		join_free(join);
		return -1;
	}
	return steal_fd(&ours);
}
