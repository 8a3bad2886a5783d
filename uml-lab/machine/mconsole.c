/*
 * UML's management console (uml-facts.md; arch/um/drivers/mconsole_kern.c,
 * mconsole_user.c): datagrams over AF_UNIX, host byte order.
 *
 * The kernel tells us where its own socket is (a notification of type SOCKET)
 * and what a panic said (PANIC). Notifications are datagrams anybody of this
 * user could send; a false one can but spoil the text of a cause, or name a socket
 * that then gets a "cad".
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/log.h"
#include "uml-lab/machine/supervisor.h"

#define MCONSOLE_MAGIC    0xcafebabeu
#define MCONSOLE_VERSION  2u
#define MCONSOLE_MAX_DATA 512

enum notify_type { NOTIFY_SOCKET = 0, NOTIFY_PANIC = 1, NOTIFY_HANG = 2, NOTIFY_USER = 3 };

struct mconsole_notify {
	uint32_t magic;
	uint32_t version;
	uint32_t type;
	uint32_t length;
	char data[MCONSOLE_MAX_DATA];
};

struct mconsole_request {
	uint32_t magic;
	uint32_t version;
	uint32_t length;
	char data[MCONSOLE_MAX_DATA];
};

static int address_of(const char *path, struct sockaddr_un *address, struct error *err)
{
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(address->sun_path))
		return error_set(err, ERROR_FAILED, "the socket path %s is longer than %zu bytes", path,
				 sizeof(address->sun_path) - 1);
	memcpy(address->sun_path, path, strlen(path) + 1);
	return 0;
}

/*
 * The kernel names its socket relative to its current folder. One that lies elsewhere is not the kernel's. The namespaced sandbox
 * has the folder in a file system of its own, which is reached through the kernel's process.
 */
static void note_socket(struct supervisor *sv, const char *path)
{
	cleanup_free char *whole = NULL;

	if (sv->sandbox.namespaces)
		whole = str_printf(NULL, "/proc/%d/root" SANDBOX_FOLDER "/%s", sv->sandbox.kernel.pid, path);
	else
		whole = guest_path(sv->spec, path, NULL);
	sv->mconsole.socket[0] = '\0';
	if (whole && path[0] != '/' && !strstr(path, "..") && strlen(whole) < sizeof(sv->mconsole.socket))
		strcpy(sv->mconsole.socket, whole);
}

void mconsole_drain(struct supervisor *sv)
{
	struct mconsole_notify notify;
	ssize_t got;

	while (sv->mconsole.notify >= 0 &&
	       (got = recv(sv->mconsole.notify, &notify, sizeof(notify), MSG_DONTWAIT)) >= 0) {
		if (got <= (ssize_t)offsetof(struct mconsole_notify, data) ||
		    notify.magic != MCONSOLE_MAGIC || notify.version != MCONSOLE_VERSION)
			continue;
		/* `length` is the sender's; what counts is what came. */
		size_t room = (size_t)got - offsetof(struct mconsole_notify, data);

		notify.data[room < MCONSOLE_MAX_DATA ? room : MCONSOLE_MAX_DATA - 1] = '\0';
		if (notify.type == NOTIFY_SOCKET)
			note_socket(sv, notify.data);
		else if (notify.type == NOTIFY_PANIC)
			snprintf(sv->mconsole.panic, sizeof(sv->mconsole.panic), "%s", notify.data);
	}
}

static void on_notify(void *arg, int fd, uint32_t events)
{
	(void)fd;
	(void)events;
	mconsole_drain(arg);
}

void mconsole_reset(struct supervisor *sv)
{
	mconsole_drain(sv);
	sv->mconsole.socket[0] = sv->mconsole.panic[0] = '\0';
}

int mconsole_open(struct supervisor *sv, struct error *err)
{
	cleanup_free char *path = guest_path(sv->spec, "notify", err);
	struct sockaddr_un address;

	if (!path || address_of(path, &address, err) < 0)
		return -1;
	sv->mconsole.notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (sv->mconsole.notify < 0 || (unlink(path) < 0 && errno != ENOENT) ||
	    bind(sv->mconsole.notify, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    chmod(path, 0600) < 0)
		return error_errno(err, errno, "cannot listen on %s", path);
	sv->mconsole.source = loop_add_fd(sv->loop, sv->mconsole.notify, EPOLLIN, on_notify, sv, err);
	return sv->mconsole.source ? 0 : -1;
}

void mconsole_close(struct supervisor *sv)
{
	cleanup_free char *path = guest_path(sv->spec, "notify", NULL);

	loop_remove_fd(sv->mconsole.source);
	if (sv->mconsole.notify < 0)
		return;
	close(steal_fd(&sv->mconsole.notify));
	if (path)
		unlink(path);
}

/* The kernel answers to the sender's address, so the socket needs one; an abstract one leaves no file behind. */
int mconsole_send(struct supervisor *sv, const char *command, struct error *err)
{
	struct mconsole_request request = {
		.magic = MCONSOLE_MAGIC, .version = MCONSOLE_VERSION, .length = (uint32_t)strlen(command)};
	struct sockaddr_un address, own = {.sun_family = AF_UNIX};
	cleanup_close int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (!sv->mconsole.socket[0])
		return error_set(err, ERROR_STATE, "the kernel has no management console (yet)");
	if (address_of(sv->mconsole.socket, &address, err) < 0)
		return -1;
	snprintf(request.data, sizeof(request.data), "%s", command);
	if (fd < 0 || bind(fd, (struct sockaddr *)&own, sizeof(sa_family_t)) < 0 ||
	    sendto(fd, &request, sizeof(request), MSG_NOSIGNAL, (struct sockaddr *)&address,
		   sizeof(address)) < 0)
		return error_errno(err, errno, "cannot send '%s' to the management console", command);
	return 0;
}
