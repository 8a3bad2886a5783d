/*
 * What a guest sends is hostile. Any frames, in any order, through the port and libslirp, with a TCP and a UDP forward: nothing
 * crashes or aborts. Input: length (2 bytes, little-endian), frame, and so on.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netplug/netplug_internal.h"
#include "tests/fuzz/netplug_alone.h"

#define FRAMES_MAX 64

static void add_forward(struct port *port, const char *text)
{
	struct netplug_forward f;

	if (netplug_forward_parse(text, &f, NULL) || port_add_forward(port, &f, NULL))
		abort();
}

static struct port *new_port(struct loop *loop, int connection)
{
	struct netplug_port_config config;
	struct port *port;

	netplug_port_config_init(&config, 0);
	config.host_access = 1;
	strcpy(config.hostname, "fuzz");
	port = port_new(loop, &config, NULL, NULL, NULL);
	if (!port || port_connect(port, connection, NULL))
		abort();
	add_forward(port, "auto:80");
	add_forward(port, "auto:53/udp");
	return port;
}

static void turn(struct loop *loop, struct port *port)
{
	port_prepare(port, false);
	loop_turn(loop, 0, NULL);
	port_finish(port);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t answer[65536];
	struct loop *loop = loop_new(NULL);
	struct port *port;
	int pair[2];

	if (!loop || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		abort();
	port = new_port(loop, pair[1]);
	for (int i = 0; i < FRAMES_MAX && size >= 2; i++) {
		size_t length = data[0] | (size_t)data[1] << 8;

		data += 2;
		size -= 2;
		if (length > size)
			length = size;
		send(pair[0], data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
		data += length;
		size -= length;
		turn(loop, port);
		while (recv(pair[0], answer, sizeof(answer), MSG_DONTWAIT) > 0)
			;
	}
	turn(loop, port);
	port_free(port);
	close(pair[0]);
	loop_free(loop);
	return 0;
}
