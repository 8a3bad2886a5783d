/*
 * A UDP port of the host that leads into the guest.
 *
 * Why not libslirp's own: its forwards carry answers to clients on the host's
 * loopback through the same check that guards the loopback from the guest, so
 * with disable_host_loopback they are never sent, and in restricted mode all
 * UDP from the guest is dropped (libslirp 4.7 socket.c:sosendto, udp.c:udp_input).
 *
 * How it works: a datagram from a client is put into a frame for the guest. A
 * client on the loopback appears there as gateway:PORT, another one as itself.
 * Who wrote lately is remembered; a datagram from the guest's forwarded port to
 * one of them leaves through the same host socket, anything else is not
 * ours. So the guest can answer, and reach nothing else this way.
 *
 * Limits: CLIENTS clients at a time per forward, the one silent for longest
 * makes room; they do not expire, since an answer may come at any time. An
 * answer longer than the guest's MTU comes in fragments, and is refused (frame.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <arpa/inet.h>

#include "netplug/netplug_internal.h"
#include "uml-lab/base/cleanup.h"

#define CLIENTS 64
#define PER_TURN 32
#define DATAGRAM_MAX 65507	/* RFC 768 over IPv4: 65535 - 20 - 8 */

struct client {
	struct sockaddr_in address;	/* on the host's side; family 0: free */
	struct in_addr seen_as;		/* in the guest */
	uint64_t used;			/* count of datagrams when it last wrote or was answered */
};

struct udp_forward {
	struct udp_forward_env *env;
	int fd;
	struct loop_fd *source;
	struct in_addr guest;
	uint16_t guest_port;
	struct client clients[CLIENTS];
	uint64_t count;
	uint16_t id;
};

static bool is_loopback(struct in_addr a)
{
	return ntohl(a.s_addr) >> 24 == IN_LOOPBACKNET;
}

/* The entry of a client: its own, or a free one, or that of the client silent for longest. */
static struct client *client_of(struct udp_forward *f, const struct sockaddr_in *address)
{
	struct client *oldest = &f->clients[0];

	for (struct client *c = f->clients; c < f->clients + CLIENTS; c++) {
		if (c->address.sin_family && c->address.sin_addr.s_addr == address->sin_addr.s_addr &&
		    c->address.sin_port == address->sin_port)
			return c;
		if (c->used < oldest->used)
			oldest = c;
	}
	oldest->address = *address;
	oldest->seen_as = is_loopback(address->sin_addr) ? f->env->gateway : address->sin_addr;
	return oldest;
}

static void into_guest(struct udp_forward *f, const struct sockaddr_in *from, const uint8_t *data, size_t length)
{
	static const uint8_t unknown[6], broadcast[6] = { 255, 255, 255, 255, 255, 255 };
	struct client *c = client_of(f, from);
	bool known = memcmp(f->env->guest_mac, unknown, 6);
	struct frame_datagram d = {
		.source = c->seen_as,
		.destination = f->guest,
		.source_port = ntohs(from->sin_port),
		.destination_port = f->guest_port,
		.payload = data,
		.payload_length = length,
		.id = f->id++,
	};

	c->used = ++f->count;
	memcpy(d.to, known ? f->env->guest_mac : broadcast, 6);
	memcpy(d.from, f->env->gateway_mac, 6);
	frame_build_datagram(&d, f->env->mtu, f->env->port->send, f->env->port->arg);
}

static void on_readable(void *arg, int fd, uint32_t events)
{
	static uint8_t data[DATAGRAM_MAX + 1];
	struct udp_forward *f = arg;

	(void)events;
	/* A datagram may fill the guest's queue: then we are paused. */
	for (int i = 0; i < PER_TURN && f->source; i++) {
		struct sockaddr_in from;
		socklen_t size = sizeof(from);
		ssize_t n = recvfrom(fd, data, sizeof(data), MSG_DONTWAIT, (struct sockaddr *)&from, &size);

		if (n < 0)
			return;
		if (n <= DATAGRAM_MAX && size == sizeof(from) && from.sin_family == AF_INET)
			into_guest(f, &from, data, (size_t)n);
	}
}

struct udp_forward *udp_forward_new(struct udp_forward_env *env, const struct netplug_forward *forward,
				    struct error *err)
{
	const struct sockaddr_in *guest = (const struct sockaddr_in *)&forward->guest;
	struct udp_forward *f = calloc(1, sizeof(*f));

	if (!f) {
		error_oom(err);
		return NULL;
	}
	f->env = env;
	f->guest = guest->sin_addr;
	f->guest_port = ntohs(guest->sin_port);
	f->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (f->fd < 0 || bind(f->fd, (const struct sockaddr *)&forward->host, sizeof(struct sockaddr_in))) {
		error_errno(err, errno, "bind a UDP port");
		udp_forward_free(f);
		return NULL;
	}
	f->source = loop_add_fd(env->port->loop, f->fd, EPOLLIN, on_readable, f, err);
	if (!f->source) {
		udp_forward_free(f);
		return NULL;
	}
	return f;
}

bool udp_forward_answer(struct udp_forward *f, const struct frame_info *info)
{
	if (info->source.s_addr != f->guest.s_addr || info->source_port != f->guest_port)
		return false;
	for (struct client *c = f->clients; c < f->clients + CLIENTS; c++) {
		if (!c->address.sin_family || c->seen_as.s_addr != info->destination.s_addr ||
		    ntohs(c->address.sin_port) != info->destination_port)
			continue;
		c->used = ++f->count;
		/* A client that is gone, a full socket: UDP may lose datagrams. */
		sendto(f->fd, info->payload, info->payload_length, MSG_DONTWAIT | MSG_NOSIGNAL,
		       (const struct sockaddr *)&c->address, sizeof(c->address));
		return true;
	}
	return false;
}

void udp_forward_pause(struct udp_forward *f, bool paused)
{
	/* Not watched at all: epoll would go on reporting errors. */
	if (paused) {
		loop_remove_fd(f->source);
		f->source = NULL;
	} else if (!f->source) {
		f->source = loop_add_fd(f->env->port->loop, f->fd, EPOLLIN, on_readable, f, NULL);
	}
}

void udp_forward_free(struct udp_forward *f)
{
	if (!f)
		return;
	loop_remove_fd(f->source);
	if (f->fd >= 0)
		close(f->fd);
	free(f);
}
