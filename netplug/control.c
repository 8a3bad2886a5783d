/* Messages between supervisor and plug (control.h): what each type has, and their sending. base/message.c checks what arrives. */
#include "netplug/control.h"

#include <arpa/inet.h>
#include <poll.h>
#include <string.h>

#include "netplug/netplug_internal.h"
#include "uml-lab/base/cleanup.h"

/* UML and libslirp agree on these in the design page. */
#define DEFAULT_NETWORK 0x0a000200u	/* 10.0.2.0 */
#define DEFAULT_PREFIX_LENGTH 24
#define DEFAULT_HOST_OFFSET 2
#define DEFAULT_DNS_OFFSET 3
#define DEFAULT_DHCP_OFFSET 15

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

#define TEXT(member) MESSAGE_TEXT(struct netplug_port_config, member)
#define SPEC MESSAGE_TEXT(struct netplug_forward_request, spec)

static const struct message_type types[] = {
	{ NETPLUG_ADD_PORT, .size = sizeof(struct netplug_port_config),
	  .texts = { TEXT(label), TEXT(locator), TEXT(hostname), TEXT(domain), TEXT(search) } },
	{ NETPLUG_CONNECT, .size = sizeof(struct netplug_port_ref), .descriptor = true },
	{ NETPLUG_FORWARD_ADD, .size = sizeof(struct netplug_forward_request), .texts = { SPEC } },
	{ NETPLUG_FORWARD_REMOVE, .size = sizeof(struct netplug_forward_request), .texts = { SPEC } },
	{ NETPLUG_GET_STATS, .size = sizeof(struct netplug_port_ref) },
	{ NETPLUG_ALLOW, .size = sizeof(struct netplug_forward_request), .texts = { SPEC } },
	{ NETPLUG_IMPAIR, .size = sizeof(struct netplug_impair_request) },
	{ NETPLUG_CAPTURE, .size = sizeof(struct netplug_capture_request), .descriptor = true },
	{ NETPLUG_JOIN, .size = sizeof(struct netplug_port_ref), .descriptor = true },
	{ NETPLUG_READY, .size = 0 },
	{ NETPLUG_REPLY, .size = sizeof(struct netplug_reply), .texts = { MESSAGE_TEXT(struct netplug_reply, text) } },
	{ NETPLUG_STATS, .size = sizeof(struct netplug_stats), .texts = { MESSAGE_TEXT(struct netplug_stats, trouble) } },
	{ NETPLUG_WANT_JOIN, .size = sizeof(struct netplug_port_ref) },
};

static const struct message_protocol protocol = {
	"the netplug control socket", NETPLUG_CONTROL_MAGIC, NETPLUG_CONTROL_VERSION, types, ARRAY_SIZE(types),
};

int netplug_control_send(int control, uint16_t type, uint32_t sequence, const void *payload, int fd,
			 struct error *err)
{
	return message_send(control, &protocol, type, sequence, payload, fd, err);
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

int netplug_control_receive_fd(int control, struct netplug_message *message, int *fd, bool *answerable,
			       struct error *err)
{
	return message_receive(control, &protocol, message, sizeof(*message), fd, answerable, err);
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
