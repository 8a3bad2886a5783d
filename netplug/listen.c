/* The socket that a guest's bess transport connects to (control.h). */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "netplug/control.h"
#include "uml-lab/base/cleanup.h"

/* Whether a socket file is left over: nobody listens on it. Anything but a socket is not ours to remove. */
static bool is_stale(const char *path, int type, const struct sockaddr_un *address)
{
	cleanup_close int fd = -1;
	struct stat st;

	if (lstat(path, &st) || !S_ISSOCK(st.st_mode))
		return false;
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) && errno == ECONNREFUSED;
}

int netplug_listen(const char *path, enum netplug_transport transport, struct error *err)
{
	int type = transport == NETPLUG_VHOST_USER ? SOCK_STREAM : SOCK_SEQPACKET;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	cleanup_close int fd = -1;
	mode_t mask;
	int rc;

	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(err, ERROR_USAGE, "socket path '%s' is longer than %zu bytes", path,
				 sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_errno(err, errno, "make a socket");
	if (is_stale(path, type, &address))
		unlink(path);
	mask = umask(0177);
	rc = bind(fd, (struct sockaddr *)&address, sizeof(address));
	umask(mask);
	if (rc && errno == EADDRINUSE)
		return error_set(err, ERROR_STATE, "%s is in use", path);
	if (rc)
		return error_errno(err, errno, "bind %s", path);
	if (listen(fd, 8))
		return error_errno(err, errno, "listen on %s", path);
	return steal_fd(&fd);
}
