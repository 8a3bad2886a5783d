/*
 * A FUSE mount of this host: libfuse mounts (with fusermount3 where that needs
 * privilege), requests are read and answered here, one after the other.
 *
 * A descriptor that was mounted already, by whoever may (a user namespace's root), comes
 * by number: a daemon that takes it over from one that died finds the mount as it
 * is, and the kernel's requests that the other had read are answered by nobody: those
 * who wait for them are freed when the connection ends.
 */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hostfs/internal.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"

#define REQUEST_MAX (HOSTFS_IO_MAX + 4096) /* bytes: the kernel wants room for a whole write and its header */

/* Reads one request and answers it. 1; 0: unmounted; -1 + err. */
static int serve_one(struct hostfs *fs, int fd, char *request, char *room, struct error *err)
{
	struct iovec out = {.iov_base = request}, in = {room, REQUEST_MAX};
	struct hostfs_request rq = {&out, 1, &in, 1};
	ssize_t n = read(fd, request, REQUEST_MAX);
	size_t answer;

	if (n < 0 && errno == ENODEV)
		return 0;
	if (n < 0)
		return errno == EINTR || errno == EAGAIN || errno == ENOENT
			       ? 1
			       : error_errno(err, errno, "cannot read a request from /dev/fuse");
	out.iov_len = (size_t)n;
	answer = hostfs_handle(fs, &rq);
	/* ENOENT: whoever asked was interrupted, and does not wait any more. */
	if (answer && write(fd, room, answer) < 0 && errno != ENOENT)
		return error_errno(err, errno, "cannot answer a request on /dev/fuse");
	return 1;
}

static int serve(struct hostfs *fs, int fd, int stop, struct error *err)
{
	cleanup_free char *request = malloc(REQUEST_MAX), *room = malloc(REQUEST_MAX);
	struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = stop, .events = POLLIN}};
	int more = 1;

	if (!request || !room)
		return error_oom(err);
	while (more > 0) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return error_errno(err, errno, "cannot wait for requests");
		if (p[1].revents)
			return 0;
		if (p[0].revents)
			more = serve_one(fs, fd, request, room, err);
	}
	return more;
}

int hostfs_mount_serve(struct hostfs *fs, const char *mountpoint, int fd, int stop, struct error *err)
{
	static const struct fuse_lowlevel_ops none;
	char *argv[] = {(char *)"uml-hostfs", (char *)"-ofsname=uml-hostfs,subtype=uml-hostfs", NULL};
	struct fuse_args args = FUSE_ARGS_INIT(2, argv);
	struct fuse_session *session;
	int result = -1;

	if (fd >= 0)
		return serve(fs, fd, stop, err);
	session = fuse_session_new(&args, &none, sizeof(none), NULL);
	if (!session) {
		fuse_opt_free_args(&args);
		return error_set(err, ERROR_FAILED, "libfuse cannot start");
	}
	if (fuse_session_mount(session, mountpoint) < 0) {
		error_set(err, ERROR_FAILED, "cannot mount at %s", mountpoint);
		error_hint(err, "see what libfuse said above; is /dev/fuse there, and fuse3 installed?");
	} else {
		result = serve(fs, fuse_session_fd(session), stop, err);
		fuse_session_unmount(session);
	}
	fuse_session_destroy(session);
	fuse_opt_free_args(&args); /* fuse_session_new() has put its own copy there */
	return result;
}
