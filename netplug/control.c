/*
 * Messages between supervisor and plug (control.h): packing, sending, and the
 * one place where what arrives is checked.
 *
 * Each type has one payload size and a list of texts that must end; a message
 * that fails any check never reaches its handler. Descriptors are received
 * close-on-exec, at most one, and closed here when the type has none.
 */
#include "netplug/control.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "netplug/netplug_internal.h"
#include "uml-lab/base/cleanup.h"

/* UML and libslirp agree on these in the design page. */
#define DEFAULT_NETWORK 0x0a000200u	/* 10.0.2.0 */
#define DEFAULT_PREFIX_LENGTH 24
#define DEFAULT_HOST_OFFSET 2
#define DEFAULT_DNS_OFFSET 3
#define DEFAULT_DHCP_OFFSET 15

_Static_assert(sizeof(struct netplug_header) == 16, "header of the control protocol");
_Static_assert(sizeof(struct netplug_port_config) == 1068, "ADD_PORT of the control protocol");
_Static_assert(sizeof(struct netplug_forward_request) == 132, "FORWARD of the control protocol");
_Static_assert(sizeof(struct netplug_reply) == 1024, "REPLY of the control protocol");
_Static_assert(sizeof(struct netplug_impair_request) == 44, "IMPAIR of the control protocol");
_Static_assert(sizeof(struct netplug_capture_request) == 12, "CAPTURE of the control protocol");
_Static_assert(sizeof(struct netplug_stats) == 304, "STATS of the control protocol");

void netplug_port_config_init(struct netplug_port_config *config, uint32_t port)
{
	*config = (struct netplug_port_config){
		.port = port,
		.kind = NETPLUG_KIND_SLIRP,
		.ipv6 = 1,
		.mtu = NETPLUG_DEFAULT_MTU,
		.network.s_addr = htonl(DEFAULT_NETWORK),
		.prefix_length = DEFAULT_PREFIX_LENGTH,
		.host.s_addr = htonl(DEFAULT_NETWORK + DEFAULT_HOST_OFFSET),
		.dns.s_addr = htonl(DEFAULT_NETWORK + DEFAULT_DNS_OFFSET),
		.dhcp_start.s_addr = htonl(DEFAULT_NETWORK + DEFAULT_DHCP_OFFSET),
	};
}

int netplug_port_config_vde(struct netplug_port_config *config, const char *locator, struct error *err)
{
	if (strlen(locator) >= sizeof(config->locator))
		return error_set(err, ERROR_USAGE, "VDE locator '%.32s…' is longer than %zu bytes", locator,
				 sizeof(config->locator) - 1);
	config->kind = NETPLUG_KIND_VDE;
	config->mtu = NETPLUG_VDE_MTU;
	strcpy(config->locator, locator);
	return 0;
}

static int payload_size(uint16_t type)
{
	switch (type) {
	case NETPLUG_ADD_PORT:
		return sizeof(struct netplug_port_config);
	case NETPLUG_CONNECT:
	case NETPLUG_GET_STATS:
	case NETPLUG_JOIN:
	case NETPLUG_WANT_JOIN:
		return sizeof(struct netplug_port_ref);
	case NETPLUG_FORWARD_ADD:
	case NETPLUG_FORWARD_REMOVE:
	case NETPLUG_ALLOW:
		return sizeof(struct netplug_forward_request);
	case NETPLUG_IMPAIR:
		return sizeof(struct netplug_impair_request);
	case NETPLUG_CAPTURE:
		return sizeof(struct netplug_capture_request);
	case NETPLUG_READY:
		return 0;
	case NETPLUG_REPLY:
		return sizeof(struct netplug_reply);
	case NETPLUG_STATS:
		return sizeof(struct netplug_stats);
	default:
		return -1;
	}
}

int netplug_control_send(int control, uint16_t type, uint32_t sequence, const void *payload, int fd,
			 struct error *err)
{
	struct netplug_header header = {
		.magic = NETPLUG_CONTROL_MAGIC,
		.version = NETPLUG_CONTROL_VERSION,
		.type = type,
		.sequence = sequence,
		.length = (uint32_t)payload_size(type),
	};
	struct iovec iov[] = {
		{ &header, sizeof(header) },
		{ (void *)payload, header.length },
	};
	union {
		struct cmsghdr align;
		char data[CMSG_SPACE(sizeof(int))];
	} ancillary = { 0 };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = header.length ? 2 : 1 };

	if (fd >= 0) {
		struct cmsghdr *cmsg;

		msg.msg_control = ancillary.data;
		msg.msg_controllen = sizeof(ancillary.data);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	}
	while (sendmsg(control, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
		if (errno != EINTR)
			return error_errno(err, errno, "send to the other end of the netplug control socket");
	}
	return 0;
}

int netplug_control_send_add_port(int control, uint32_t sequence, const struct netplug_port_config *config,
				  struct error *err)
{
	return netplug_control_send(control, NETPLUG_ADD_PORT, sequence, config, -1, err);
}

int netplug_control_send_connect(int control, uint32_t sequence, uint32_t port, int connection, struct error *err)
{
	struct netplug_port_ref ref = { .port = port };

	return netplug_control_send(control, NETPLUG_CONNECT, sequence, &ref, connection, err);
}

/* A request that names a port and holds a text. */
static int send_text(int control, uint16_t type, uint32_t sequence, uint32_t port, const char *text, struct error *err)
{
	struct netplug_forward_request request = { .port = port };

	if (strlen(text) >= sizeof(request.spec))
		return error_set(err, ERROR_USAGE, "'%.32s…' is too long", text);
	strcpy(request.spec, text);
	return netplug_control_send(control, type, sequence, &request, -1, err);
}

int netplug_control_send_forward(int control, uint32_t sequence, uint32_t port, bool add, const char *spec,
				 struct error *err)
{
	return send_text(control, add ? NETPLUG_FORWARD_ADD : NETPLUG_FORWARD_REMOVE, sequence, port, spec, err);
}

int netplug_control_send_allow(int control, uint32_t sequence, uint32_t port, const char *destination,
			       struct error *err)
{
	return send_text(control, NETPLUG_ALLOW, sequence, port, destination, err);
}

int netplug_control_send_impair(int control, uint32_t sequence, uint32_t port, const struct netplug_impair *impair,
				struct error *err)
{
	struct netplug_impair_request request = { .port = port, .impair = *impair };

	return netplug_control_send(control, NETPLUG_IMPAIR, sequence, &request, -1, err);
}

int netplug_control_send_capture(int control, uint32_t sequence, const struct netplug_capture_request *request,
				 int connection, struct error *err)
{
	return netplug_control_send(control, NETPLUG_CAPTURE, sequence, request, connection, err);
}

int netplug_control_send_join(int control, uint32_t sequence, uint32_t port, int joiner, struct error *err)
{
	struct netplug_port_ref ref = { .port = port };

	return netplug_control_send(control, NETPLUG_JOIN, sequence, &ref, joiner, err);
}

int netplug_control_send_get_stats(int control, uint32_t sequence, uint32_t port, struct error *err)
{
	struct netplug_port_ref ref = { .port = port };

	return netplug_control_send(control, NETPLUG_GET_STATS, sequence, &ref, -1, err);
}

bool netplug_socket_ended(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	return poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLRDHUP | POLLERR | POLLNVAL);
}

/* Keeps the first descriptor of the message, closes all others. Returns it, -1 for none, -2 when there were several. */
static int take_descriptors(struct msghdr *msg)
{
	int taken = -1, count = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(fd));
			if (count++ == 0)
				taken = fd;
			else
				close(fd);
		}
	}
	if (count <= 1)
		return taken;
	close(taken);
	return -2;
}

static bool ends(const char *text, size_t size)
{
	return memchr(text, '\0', size);
}

static bool texts_end(const struct netplug_message *m)
{
	switch (m->header.type) {
	case NETPLUG_ADD_PORT:
		return ends(m->u.config.hostname, sizeof(m->u.config.hostname)) &&
		       ends(m->u.config.domain, sizeof(m->u.config.domain)) &&
		       ends(m->u.config.search, sizeof(m->u.config.search)) &&
		       ends(m->u.config.label, sizeof(m->u.config.label)) &&
		       ends(m->u.config.locator, sizeof(m->u.config.locator));
	case NETPLUG_FORWARD_ADD:
	case NETPLUG_FORWARD_REMOVE:
	case NETPLUG_ALLOW:
		return ends(m->u.forward.spec, sizeof(m->u.forward.spec));
	case NETPLUG_REPLY:
		return ends(m->u.reply.text, sizeof(m->u.reply.text));
	case NETPLUG_STATS:
		return ends(m->u.stats.trouble, sizeof(m->u.stats.trouble));
	default:
		return true;
	}
}

static bool has_descriptor(uint16_t type)
{
	return type == NETPLUG_CONNECT || type == NETPLUG_CAPTURE || type == NETPLUG_JOIN;
}

/* Checks a received message of `length` bytes that came with descriptor fd (as take_descriptors()). */
static int check(const struct netplug_message *m, size_t length, bool cut, int fd, struct error *err)
{
	int size;

	if (length < sizeof(m->header) || m->header.magic != NETPLUG_CONTROL_MAGIC)
		return error_set(err, ERROR_FAILED, "a control message without a header (%zu bytes)", length);
	if (m->header.version != NETPLUG_CONTROL_VERSION)
		return error_set(err, ERROR_FAILED, "control protocol version %u, this is version %d",
				 m->header.version, NETPLUG_CONTROL_VERSION);
	size = payload_size(m->header.type);
	if (size < 0)
		return error_set(err, ERROR_FAILED, "unknown control message %u", m->header.type);
	if (cut || m->header.length != (uint32_t)size || length != sizeof(m->header) + (size_t)size)
		return error_set(err, ERROR_FAILED, "control message %u of %zu bytes, not %zu", m->header.type,
				 length, sizeof(m->header) + (size_t)size);
	if (fd == -2 || (fd >= 0) != has_descriptor(m->header.type))
		return error_set(err, ERROR_FAILED, "control message %u with a wrong number of descriptors",
				 m->header.type);
	if (!texts_end(m))
		return error_set(err, ERROR_FAILED, "control message %u with a text without end", m->header.type);
	return 0;
}

int netplug_control_receive_fd(int control, struct netplug_message *message, int *fd, bool *answerable,
			       struct error *err)
{
	union {
		struct cmsghdr align;
		char data[CMSG_SPACE(4 * sizeof(int))];
	} ancillary;
	struct iovec iov = { message, sizeof(*message) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = ancillary.data,
		.msg_controllen = sizeof(ancillary.data),
	};
	ssize_t n;
	int taken;

	*answerable = false;
	memset(message, 0, sizeof(*message));
	do {
		n = recvmsg(control, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	if (n < 0 || (n == 0 && netplug_socket_ended(control))) {
		error_set(err, ERROR_STATE, "the other end of the netplug control socket is gone");
		return -1;
	}
	taken = take_descriptors(&msg);
	if (check(message, (size_t)n, msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC), taken, err)) {
		*answerable = (size_t)n >= sizeof(message->header) &&
			      message->header.magic == NETPLUG_CONTROL_MAGIC;
		if (taken >= 0)
			close(taken);
		return -1;
	}
	*fd = taken;
	return 1;
}

int netplug_control_receive(int control, struct netplug_message *message, struct error *err)
{
	int fd = -1, rc;
	bool answerable;

	rc = netplug_control_receive_fd(control, message, &fd, &answerable, err);
	if (rc == 1 && fd >= 0)
		close(fd);
	return rc;
}
