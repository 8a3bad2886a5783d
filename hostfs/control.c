/*
 * Who brings the guest's connections: a supervisor over a control socket (device.h), or,
 * for people and tests, sockets to listen on.
 *
 * A share's folder that is gone is no end: it is told, and looked for when the guest
 * asks for it. Only a share that was never there keeps the process from starting.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "hostfs/device.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/confine.h"
#include "uml-lab/base/log.h"

struct slot {
	struct hostfs *fs;
	struct hostfs_device *device;
	const char *name;
	int listener;
	char *path; /* of the listener */
	int control, again;
};

struct server {
	int again; /* eventfd: another process has to take over */
	struct slot *slots;
	size_t count;
};

static void close_server(struct server *s)
{
	for (size_t i = 0; i < s->count; i++) {
		struct slot *slot = &s->slots[i];

		hostfs_device_stop(slot->device);
		hostfs_free(slot->fs);
		if (slot->listener >= 0) {
			unlink(slot->path);
			close(slot->listener);
		}
		free(slot->path);
	}
	free(s->slots);
	if (s->again >= 0)
		close(s->again);
}

static bool say(int control, const char *text)
{
	return send(control, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)strlen(text);
}

static void on_note(void *arg, const char *share, enum hostfs_note note, const char *text)
{
	static const uint64_t one = 1;
	const struct slot *slot = arg;
	char packet[HOSTFS_CONTROL_MAX];

	snprintf(packet, sizeof(packet), "%s %s %s", note == HOSTFS_GONE ? "gone" : "back", share, text);
	if (slot->control >= 0)
		say(slot->control, packet);
	if (note == HOSTFS_RESTART && write(slot->again, &one, sizeof(one)) < 0)
		log_warn("cannot ask for another start");
}

static int open_server(struct server *s, const struct hostfs_share *shares, size_t count, int control,
		       struct error *err)
{
	s->slots = calloc(count, sizeof(*s->slots));
	s->again = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!s->slots || s->again < 0)
		return error_errno(err, errno, "cannot begin to serve");
	for (; s->count < count; s->count++) {
		struct slot *slot = &s->slots[s->count];

		*slot = (struct slot){.name = shares[s->count].name, .listener = -1, .control = control, .again = s->again};
		slot->fs = hostfs_new(&shares[s->count], 1, false, control >= 0, err);
		if (!slot->fs)
			return -1;
		hostfs_on_note(slot->fs, on_note, slot);
	}
	return 0;
}

/* Alone nobody takes over, so nobody needs to know. */
static bool on_pending(void *arg, const struct hostfs_pending *p)
{
	const struct slot *slot = arg;
	char packet[HOSTFS_CONTROL_MAX];

	if (p->answering)
		snprintf(packet, sizeof(packet), "answers %s %u %u", slot->name, p->head, p->at);
	else
		snprintf(packet, sizeof(packet), "waits %s %u %" PRIu64 " %" PRIu32, slot->name, p->head, p->unique, p->pid);
	return slot->control < 0 || say(slot->control, packet);
}

/* The guest connected anew: its device before, if there was one, is over. */
static int connect_slot(struct slot *slot, int connection, const struct hostfs_start *start, struct error *err)
{
	hostfs_device_stop(slot->device);
	slot->device = hostfs_device_start(slot->fs, slot->name, connection, start, on_pending, slot, err);
	return slot->device ? 0 : -1;
}

/* ---- with a supervisor ---- */

/* Receives one packet. Its length, 0 at the end of the socket, -1 when there is none. *fd: what came along, or -1. */
static ssize_t receive(int control, char text[HOSTFS_CONTROL_MAX], int *fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} space;
	struct iovec iov = {text, HOSTFS_CONTROL_MAX - 1};
	struct msghdr m = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &space, .msg_controllen = sizeof(space)};
	ssize_t n = recvmsg(control, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;

	*fd = -1;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(fd, CMSG_DATA(c), sizeof(int));
	text[n > 0 ? n : 0] = '\0';
	return n;
}

/* " HEAD" or " HEAD:AT", any number of times. */
static int parse_pending(const char *text, struct hostfs_start *start)
{
	unsigned int head, at;
	int length;

	for (; *text; text += length) {
		struct hostfs_pending *p = &start->pending[start->pending_count];

		if (start->pending_count == ARRAY_SIZE(start->pending) ||
		    sscanf(text, " %u%n", &head, &length) != 1 || head > UINT16_MAX)
			return -1;
		*p = (struct hostfs_pending){.head = (uint16_t)head};
		if (text[length] == ':') {
			text += length;
			if (sscanf(text, ":%u%n", &at, &length) != 1 || at > UINT16_MAX)
				return -1;
			p->answering = true;
			p->at = (uint16_t)at;
		}
		start->pending_count++;
	}
	return 0;
}

static int obey(struct server *s, const char *text, int *fd, struct error *err)
{
	static const char *const begins[] = {
		[HOSTFS_FRESH] = "fresh", [HOSTFS_RESUMED] = "resumed", [HOSTFS_AFTER_DEATH] = "after-death"};
	struct hostfs_start start = {0};
	unsigned int index;
	uint64_t unique;
	char how[16];
	int length;

	if (sscanf(text, "interrupt %u %" SCNu64, &index, &unique) == 2 && index < s->count) {
		hostfs_interrupt(s->slots[index].fs, unique);
		return 0;
	}
	if (*fd >= 0 && sscanf(text, "connect %u %15s%n", &index, how, &length) == 2 && index < s->count &&
	    parse_pending(text + length, &start) == 0)
		for (size_t i = 0; i < ARRAY_SIZE(begins); i++) {
			start.how = (enum hostfs_begin)i;
			if (str_eq(how, begins[i]))
				return connect_slot(&s->slots[index], steal_fd(fd), &start, err);
		}
	return error_set(err, ERROR_FAILED, "'%.100s' is nothing to be obeyed", text);
}

static void obey_all(struct server *s, int control, bool *done)
{
	char text[HOSTFS_CONTROL_MAX], packet[HOSTFS_CONTROL_MAX];
	ssize_t n;
	int fd;

	while ((n = receive(control, text, &fd)) > 0) {
		struct error err = ERROR_INIT;

		if (obey(s, text, &fd, &err) < 0) {
			log_error(&err);
			snprintf(packet, sizeof(packet), "failed %.900s", err.message);
			say(control, packet);
		}
		if (fd >= 0)
			close(fd);
	}
	*done = n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

int hostfs_control_serve(const struct hostfs_share *shares, size_t count, int control, int stop, struct error *err)
{
	__attribute__((cleanup(close_server))) struct server s = {.again = -1};
	struct pollfd p[3] = {{.fd = control, .events = POLLIN}, {.fd = stop, .events = POLLIN}};
	char packet[CONFINE_WALLS_MAX + 16], walls[CONFINE_WALLS_MAX];
	bool done = false;

	if (open_server(&s, shares, count, control, err) < 0 || hostfs_confine(shares, count, walls, err) < 0)
		return -1;
	p[2] = (struct pollfd){.fd = s.again, .events = POLLIN};
	snprintf(packet, sizeof(packet), "ready %s", walls);
	say(control, packet);
	while (!done) {
		if (poll(p, 3, -1) < 0 && errno != EINTR)
			return error_errno(err, errno, "cannot wait for the supervisor");
		if (p[1].revents || p[2].revents) {
			/* Every request at hand is answered before the others hear of it. */
			for (size_t i = 0; i < s.count; i++)
				hostfs_device_stop(steal_ptr(&s.slots[i].device));
			say(control, "bye");
			return 0;
		}
		if (p[0].revents)
			obey_all(&s, control, &done);
	}
	return 0;
}

/* ---- alone ---- */

static int listen_at(struct slot *slot, const char *folder, struct error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	slot->path = str_printf(err, "%s/%s", folder, slot->name);
	if (!slot->path)
		return -1;
	if (strlen(slot->path) >= sizeof(address.sun_path))
		return error_set(err, ERROR_FAILED, "the path %s is too long for a socket", slot->path);
	strcpy(address.sun_path, slot->path);
	slot->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unlink(slot->path);
	if (slot->listener < 0 || bind(slot->listener, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(slot->listener, 1) < 0)
		return error_errno(err, errno, "cannot listen at %s", slot->path);
	return 0;
}

static int accept_one(struct slot *slot, struct error *err)
{
	int fd = accept4(slot->listener, NULL, NULL, SOCK_CLOEXEC);

	return fd < 0 ? 0 : connect_slot(slot, fd, &(struct hostfs_start){.how = HOSTFS_FRESH}, err);
}

static int serve_listeners(struct server *s, int stop, struct error *err)
{
	cleanup_free struct pollfd *p = calloc(s->count + 1, sizeof(*p));

	if (!p)
		return error_oom(err);
	for (size_t i = 0; i < s->count; i++)
		p[i] = (struct pollfd){.fd = s->slots[i].listener, .events = POLLIN};
	p[s->count] = (struct pollfd){.fd = stop, .events = POLLIN};
	for (;;) {
		if (poll(p, s->count + 1, -1) < 0 && errno != EINTR)
			return error_errno(err, errno, "cannot wait for guests");
		if (p[s->count].revents)
			return 0;
		for (size_t i = 0; i < s->count; i++)
			if (p[i].revents && accept_one(&s->slots[i], err) < 0)
				return -1;
	}
}

int hostfs_listen_serve(const struct hostfs_share *shares, size_t count, const char *folder, int stop,
			struct error *err)
{
	__attribute__((cleanup(close_server))) struct server s = {.again = -1};
	char walls[CONFINE_WALLS_MAX];

	if (open_server(&s, shares, count, -1, err) < 0)
		return -1;
	for (size_t i = 0; i < s.count; i++)
		if (listen_at(&s.slots[i], folder, err) < 0)
			return -1;
	return hostfs_confine(shares, count, walls, err) < 0 ? -1 : serve_listeners(&s, stop, err);
}
