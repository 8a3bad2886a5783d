/*
 * Between a guest's virtio_uml front-end and a daemon of ours, uml-hostfs or uml-netplug: vhost-user
 * messages pass here, one by one, with their descriptors. (What files and frames hold does not: that is
 * in the guest's memory, which the daemon maps.)
 *
 * virtio_uml.c takes a device away for good when its connection closes. So the
 * connection is kept here; what set the device up (memory, queues, descriptors) is
 * remembered, and said again to a daemon that takes the place of one that died. The
 * guest's requests meanwhile wait in its queues. A question that was under way is
 * asked again last.
 *
 * The guest is hostile: sizes and numbers of descriptors are bounded, and one that does
 * not read its answers or sends nonsense loses its connection.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"
#include "uml-lab/base/vhost_user_wire.h"
#include "uml-lab/machine/supervisor.h"

#define NEED_REPLY (1u << 3) /* in a header's flags (vhost-user, "Header") */

static void free_message(struct vhost_message *m)
{
	for (size_t i = 0; i < m->fd_count; i++)
		close(m->fds[i]);
	free(m);
}

static void forget(struct vhost_relay *d)
{
	for (size_t i = 0; i < d->said_count; i++)
		free_message(d->said[i]);
	d->said_count = 0;
	if (d->kind->guest_gone)
		d->kind->guest_gone(d);
	if (d->asked)
		free_message(steal_ptr(&d->asked));
	for (size_t i = 0; i < d->in.fd_count; i++)
		close(d->in.fds[i]);
	d->in.fd_count = d->in.length = 0;
}

static void drop_guest(struct vhost_relay *d)
{
	loop_remove_fd(d->guest_source);
	d->guest_source = NULL;
	if (d->guest >= 0)
		close(steal_fd(&d->guest));
	vhost_relay_part(d);
	forget(d);
}

void vhost_relay_part(struct vhost_relay *d)
{
	if (!d->kind)
		return;
	loop_remove_fd(d->server_source);
	d->server_source = NULL;
	if (d->server >= 0)
		close(steal_fd(&d->server));
	if (d->guest_source)
		loop_set_events(d->guest_source, 0);
}

/* ---- messages ---- */

static struct vhost_user_header header_of(const struct vhost_message *m)
{
	struct vhost_user_header header;

	memcpy(&header, m->data, sizeof(header));
	return header;
}

static int send_message(int fd, const struct vhost_message *m, bool quietly)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * VHOST_FDS_MAX)];
	} space = {0};
	struct vhost_message copy = *m;
	struct vhost_user_header header = header_of(m);
	struct iovec iov = {copy.data, copy.length};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;

	if (quietly) {
		header.flags &= ~NEED_REPLY;
		memcpy(copy.data, &header, sizeof(header));
	}
	if (m->fd_count) {
		message.msg_control = &space;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * m->fd_count);
		c = CMSG_FIRSTHDR(&message);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * m->fd_count);
		memcpy(CMSG_DATA(c), m->fds, sizeof(int) * m->fd_count);
	}
	return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)m->length ? 0 : -1;
}

/* Which of the messages that set a device up replaces which: those of one kind, and for queues of one queue. */
static bool is_setting(const struct vhost_message *m, uint64_t *key)
{
	struct vhost_user_header header = header_of(m);
	uint32_t first = 0;

	if (m->length >= sizeof(header) + sizeof(first))
		memcpy(&first, m->data + sizeof(header), sizeof(first));
	switch (header.request) {
	case VHOST_USER_SET_OWNER:
	case VHOST_USER_SET_FEATURES:
	case VHOST_USER_SET_PROTOCOL_FEATURES:
	case VHOST_USER_SET_MEM_TABLE:
	case VHOST_USER_SET_BACKEND_REQ_FD:
		*key = header.request;
		return true;
	case VHOST_USER_SET_VRING_KICK:
	case VHOST_USER_SET_VRING_CALL:
	case VHOST_USER_SET_VRING_ERR:
		first &= 0xff; /* the rest says whether a descriptor came along */
		/* fall through */
	case VHOST_USER_SET_VRING_NUM:
	case VHOST_USER_SET_VRING_ADDR:
	case VHOST_USER_SET_VRING_ENABLE:
		*key = header.request | (uint64_t)first << 32;
		return true;
	default:
		return false;
	}
}

static bool wants_answer(const struct vhost_message *m)
{
	struct vhost_user_header header = header_of(m);

	switch (header.request) {
	case VHOST_USER_GET_FEATURES:
	case VHOST_USER_GET_PROTOCOL_FEATURES:
	case VHOST_USER_GET_QUEUE_NUM:
	case VHOST_USER_GET_VRING_BASE:
	case VHOST_USER_GET_CONFIG:
		return true;
	default:
		return header.flags & NEED_REPLY;
	}
}

/* Remembers what was said. Takes the message's descriptors over. False: it can't be remembered. */
static bool remember(struct vhost_relay *d)
{
	struct vhost_message *m = malloc(sizeof(*m));
	uint64_t key, other;
	size_t i = 0;

	if (!m)
		return false;
	*m = d->in;
	d->in.fd_count = d->in.length = 0;
	if (!is_setting(m, &key)) {
		if (d->asked)
			free_message(d->asked);
		d->asked = wants_answer(m) ? m : NULL;
		if (!d->asked)
			free_message(m);
		return true;
	}
	while (i < d->said_count && !(is_setting(d->said[i], &other) && other == key))
		i++;
	if (i == VHOST_RELAY_MESSAGES_MAX) {
		free_message(m);
		return false;
	}
	if (i < d->said_count) {
		free_message(d->said[i]);
		memmove(&d->said[i], &d->said[i + 1], (d->said_count - i - 1) * sizeof(d->said[0]));
		d->said_count--;
	}
	d->said[d->said_count++] = m;
	return true;
}

/* Reads what is missing of the message that is coming in. 1: it is whole; 0: not yet; -1: the guest is gone, or mad. */
static int receive(struct vhost_relay *d)
{
	struct vhost_message *m = &d->in;
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * VHOST_FDS_MAX)];
	} space;
	size_t whole = m->length < sizeof(struct vhost_user_header) ? sizeof(struct vhost_user_header)
								    : sizeof(struct vhost_user_header) +
									      header_of(m).size;
	struct iovec iov = {m->data + m->length, whole - m->length};
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &space, .msg_controllen = sizeof(space)};
	ssize_t n = recvmsg(d->guest, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
		size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (m->fd_count + count > VHOST_FDS_MAX) {
			for (size_t i = 0; i < count; i++)
				close(((int *)CMSG_DATA(c))[i]);
			return -1;
		}
		memcpy(m->fds + m->fd_count, CMSG_DATA(c), count * sizeof(int));
		m->fd_count += count;
	}
	if (n == 0)
		return -1;
	m->length += (size_t)n;
	if (m->length < sizeof(struct vhost_user_header))
		return 0;
	if (header_of(m).size > sizeof(m->data) - sizeof(struct vhost_user_header))
		return -1;
	return m->length == sizeof(struct vhost_user_header) + header_of(m).size;
}

static void on_guest(void *arg, int fd, uint32_t events)
{
	struct vhost_relay *d = arg;
	int got = 1;

	(void)fd;
	if (d->server < 0 && !(events & (EPOLLHUP | EPOLLERR)))
		return;
	while (got == 1 && d->server >= 0) {
		size_t before = d->in.length;

		got = receive(d);
		if (got == 1 && (send_message(d->server, &d->in, false) < 0 || !remember(d)))
			got = -1;
		else if (got == 0 && d->in.length > before)
			got = 1; /* the header; its payload may be there */
	}
	if (got < 0 || (d->server < 0 && events & (EPOLLHUP | EPOLLERR)))
		drop_guest(d);
}

/* Answers go as they come. */
static void on_server(void *arg, int fd, uint32_t events)
{
	struct vhost_relay *d = arg;
	char data[1024];
	ssize_t n = recv(fd, data, sizeof(data), MSG_DONTWAIT);

	(void)events;
	if (n > 0) {
		if (d->asked)
			free_message(steal_ptr(&d->asked));
		if (send(d->guest, data, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) != n)
			drop_guest(d);
	} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
		/* It died, which its pidfd tells too; or it found the guest's messages wrong. */
		vhost_relay_part(d);
	}
}

/* ---- joining ---- */

static int repeat(struct vhost_relay *d)
{
	for (size_t i = 0; i < d->said_count; i++)
		if (send_message(d->server, d->said[i], true) < 0)
			return -1;
	return d->asked ? send_message(d->server, d->asked, false) : 0;
}

void vhost_relay_join(struct vhost_relay *d)
{
	cleanup_close int theirs = -1;
	int pair[2];

	if (!d->kind || d->guest < 0 || !d->kind->ready(d))
		return;
	vhost_relay_part(d);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return;
	d->server = pair[0];
	theirs = pair[1];
	d->server_source = loop_add_fd(d->sv->loop, d->server, EPOLLIN, on_server, d, NULL);
	if (!d->server_source || d->kind->announce(d, theirs) < 0 || repeat(d) < 0) {
		log_warn("%s: cannot hand the guest's connection to %s", d->path, d->kind->daemon);
		vhost_relay_part(d);
		return;
	}
	loop_set_events(d->guest_source, EPOLLIN);
}

static void on_connect(void *arg, int listener, uint32_t events)
{
	struct vhost_relay *d = arg;
	cleanup_close int fd = sandbox_accept(&d->sv->sandbox, listener, d->path);

	(void)events;
	if (fd < 0)
		return;
	drop_guest(d);
	d->guest_source = loop_add_fd(d->sv->loop, fd, 0, on_guest, d, NULL);
	if (!d->guest_source)
		return;
	d->guest = steal_fd(&fd);
	vhost_relay_join(d);
}

int vhost_relay_listen(struct vhost_relay *d, struct supervisor *sv, const struct vhost_relay_kind *kind, size_t index,
		       const char *name, struct error *err)
{
	*d = (struct vhost_relay){
		.sv = sv, .kind = kind, .index = index, .listener = -1, .guest = -1, .server = -1};
	d->path = guest_path(sv->spec, name, err);
	if (!d->path)
		return -1;
	d->listener = control_listen(d->path, err);
	if (d->listener < 0)
		return -1;
	d->listener_source = loop_add_fd(sv->loop, d->listener, EPOLLIN, on_connect, d, err);
	return d->listener_source ? 0 : -1;
}

void vhost_relay_close(struct vhost_relay *d)
{
	if (!d->kind)
		return;
	drop_guest(d);
	loop_remove_fd(d->listener_source);
	if (d->listener >= 0) {
		unlink(d->path);
		close(d->listener);
	}
	free(d->path);
}
