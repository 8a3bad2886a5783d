/*
 * Messages between supervisor and disk server (serve.h): packing, sending, and
 * the one place where what arrives is checked.
 *
 * Each type has one payload size, and texts that must end; a message that fails
 * any check never reaches its handler. No type has descriptors: the ancillary
 * buffer is left out, so that the kernel drops what is sent along.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "cow/serve_internal.h"

_Static_assert(sizeof(struct cow_serve_header) == 16, "header of the control protocol");
_Static_assert(sizeof(struct cow_serve_path) == 4100, "SNAPSHOT of the control protocol");
_Static_assert(sizeof(struct cow_serve_reply) == 1024, "REPLY of the control protocol");
_Static_assert(sizeof(struct cow_serve_stats) == 384, "STATS of the control protocol");

static int payload_size(uint16_t type)
{
	switch (type) {
	case COW_SERVE_SNAPSHOT:
	case COW_SERVE_MERGE:
	case COW_SERVE_INSERT:
		return sizeof(struct cow_serve_path);
	case COW_SERVE_EJECT:
	case COW_SERVE_GET_STATS:
		return sizeof(struct cow_serve_ref);
	case COW_SERVE_READY:
		return 0;
	case COW_SERVE_REPLY:
		return sizeof(struct cow_serve_reply);
	case COW_SERVE_STATS:
		return sizeof(struct cow_serve_stats);
	default:
		return -1;
	}
}

int cow_serve_send(int control, enum cow_serve_type type, uint32_t sequence, const void *payload,
		   struct error *err)
{
	struct cow_serve_header header = {
		.magic = COW_SERVE_MAGIC,
		.version = COW_SERVE_VERSION,
		.type = (uint16_t)type,
		.sequence = sequence,
		.length = (uint32_t)payload_size((uint16_t)type),
	};
	struct iovec iov[] = {{&header, sizeof(header)}, {(void *)payload, header.length}};
	const struct msghdr msg = {.msg_iov = iov, .msg_iovlen = header.length ? 2 : 1};

	while (sendmsg(control, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
		if (errno != EINTR)
			return error_errno(err, errno,
					   "send to the other end of the disk server's control socket");
	}
	return 0;
}

int cow_serve_send_path(int control, uint32_t sequence, enum cow_serve_type type, uint32_t disk,
			const char *path, struct error *err)
{
	struct cow_serve_path request = {.disk = disk};

	if (strlen(path) >= sizeof(request.path))
		return error_set(err, ERROR_USAGE, "the path '%.64s…' is too long", path);
	strcpy(request.path, path);
	return cow_serve_send(control, type, sequence, &request, err);
}

int cow_serve_send_ref(int control, uint32_t sequence, enum cow_serve_type type, uint32_t disk,
		       struct error *err)
{
	const struct cow_serve_ref request = {.disk = disk};

	return cow_serve_send(control, type, sequence, &request, err);
}

static bool texts_end(const struct cow_serve_message *m)
{
	switch (m->header.type) {
	case COW_SERVE_SNAPSHOT:
	case COW_SERVE_MERGE:
	case COW_SERVE_INSERT:
		return memchr(m->u.path.path, '\0', sizeof(m->u.path.path));
	case COW_SERVE_REPLY:
		return memchr(m->u.reply.text, '\0', sizeof(m->u.reply.text));
	case COW_SERVE_STATS:
		return memchr(m->u.stats.last_error, '\0', sizeof(m->u.stats.last_error));
	default:
		return true;
	}
}

/* Checks a received message of `length` bytes. */
static int check(const struct cow_serve_message *m, size_t length, int flags, struct error *err)
{
	int size;

	if (length < sizeof(m->header) || m->header.magic != COW_SERVE_MAGIC)
		return error_set(err, ERROR_FAILED, "a control message without a header (%zu bytes)", length);
	if (m->header.version != COW_SERVE_VERSION)
		return error_set(err, ERROR_FAILED, "control protocol version %u, this is version %d",
				 m->header.version, COW_SERVE_VERSION);
	size = payload_size(m->header.type);
	if (size < 0)
		return error_set(err, ERROR_FAILED, "unknown control message %u", m->header.type);
	if ((flags & MSG_TRUNC) || m->header.length != (uint32_t)size ||
	    length != sizeof(m->header) + (size_t)size)
		return error_set(err, ERROR_FAILED, "control message %u of %zu bytes, not %zu",
				 m->header.type, length, sizeof(m->header) + (size_t)size);
	if (flags & MSG_CTRUNC)
		return error_set(err, ERROR_FAILED, "control message %u with descriptors", m->header.type);
	if (!texts_end(m))
		return error_set(err, ERROR_FAILED, "control message %u with a text without end",
				 m->header.type);
	return 0;
}

int cow_serve_receive_checked(int control, struct cow_serve_message *message, bool *answerable,
			      struct error *err)
{
	struct iovec iov = {message, sizeof(*message)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	*answerable = false;
	memset(message, 0, sizeof(*message));
	do {
		n = recvmsg(control, &msg, MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	/* an empty packet says nothing either, and a supervisor sends none */
	if (n <= 0)
		return error_set(err, ERROR_STATE,
				 "the other end of the disk server's control socket is gone");
	if (check(message, (size_t)n, msg.msg_flags, err)) {
		*answerable =
			(size_t)n >= sizeof(message->header) && message->header.magic == COW_SERVE_MAGIC;
		return -1;
	}
	return 1;
}

int cow_serve_receive(int control, struct cow_serve_message *message, struct error *err)
{
	bool answerable;

	return cow_serve_receive_checked(control, message, &answerable, err);
}
