/*
 * A restricted guest on a bad line that is looked at: any frames, and in between any settings of the line, with a list
 * of allowed destinations, port security, and a capture that nobody reads. Nothing crashes, and nothing leaves but
 * what is allowed: every frame that passes the filter is judged anew, by its bytes.
 *
 * Input: first byte: switches; then records of length (2 bytes, little-endian) and bytes: length bit 15 set: settings of
 * the line, text "KEY=VALUE", or an allowed destination when it begins with '@'; else a frame.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netplug/netplug_internal.h"
#include "tests/fuzz/netplug_alone.h"

#define RECORDS_MAX 64
#define SETTING 0x8000u
#define TEXT_MAX 96

static void capture(struct port *port)
{
	const struct netplug_capture_request request = { .snaplen = 64, .received = 1 };
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) || port_capture(port, &request, pair[1], NULL))
		abort();
	close(pair[0]);	/* its reader goes away at some moment of its own */
}

static struct port *new_port(struct loop *loop, int connection, uint8_t switches)
{
	struct netplug_port_config config;
	struct netplug_allow rule;
	struct port *port;

	netplug_port_config_init(&config, 0);
	config.restrict_access = switches & 1;
	config.port_security = switches >> 1 & 1;
	memcpy(config.mac, (const uint8_t[]){ 0x52, 0x54, 0, 0x12, 0x34, 0x56 }, 6);
	port = port_new(loop, &config, NULL, NULL, NULL);
	if (!port || port_connect(port, connection, NULL))
		abort();
	if (netplug_allow_parse("192.0.2.0/24:80", &rule, NULL) || port_allow(port, &rule, NULL))
		abort();
	if (switches & 4)
		capture(port);
	return port;
}

static void set(struct port *port, struct netplug_impair *impair, const uint8_t *data, size_t length)
{
	char text[TEXT_MAX], *value;
	struct netplug_allow rule;

	if (length >= sizeof(text))
		length = sizeof(text) - 1;
	memcpy(text, data, length);
	text[length] = '\0';
	if (*text == '@') {
		if (!netplug_allow_parse(text + 1, &rule, NULL))
			port_allow(port, &rule, NULL);
		return;
	}
	value = strchr(text, '=');
	if (!value)
		return;
	*value++ = '\0';
	impair->seed = 1;
	if (!netplug_impair_set(impair, text, value, NULL) && port_impair(port, impair, NULL))
		abort();
}

/* What the filter says of a frame must follow from its bytes: a bare SYN to anywhere but port 80 of 192.0.2.0/24 stays here. */
static void judge(const uint8_t *frame, size_t length)
{
	struct allow_list list = { .count = 1 };
	struct netplug_port_config config;
	struct frame_info info;
	size_t header;

	netplug_port_config_init(&config, 0);
	if (netplug_allow_parse("192.0.2.0/24:80", &list.rules[0], NULL))
		abort();
	if (length < ETHERNET_HEADER + 40 || frame[12] != 8 || frame[13] || frame_inspect(frame, length, &info) != FRAME_PASS ||
	    frame[23] != IPPROTO_TCP)
		return;
	header = ETHERNET_HEADER + (size_t)(frame[14] & 15) * 4;
	if (header + 20 > length || (frame[header + 13] & 0x37) != 0x02 || !info.whole)
		return;
	if (allow_passes(&list, &config, &info) !=
	    (!memcmp(frame + 30, (const uint8_t[]){ 192, 0, 2 }, 3) && !frame[header + 2] && frame[header + 3] == 80))
		abort();
}

static void turn(struct loop *loop, struct port *port)
{
	port_prepare(port, false);
	loop_turn(loop, 0, NULL);
	port_finish(port);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t answer[65536], out[DHCP_FRAME_MAX];
	struct netplug_impair impair = { 0 };
	struct loop *loop = loop_new(NULL);
	struct port *port;
	int pair[2];

	if (!loop || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		abort();
	port = new_port(loop, pair[1], size ? *data : 0);
	data += size > 0;
	size -= size > 0;
	for (int i = 0; i < RECORDS_MAX && size >= 2; i++) {
		unsigned head = data[0] | (unsigned)data[1] << 8;
		size_t length = head & ~SETTING;

		data += 2;
		size -= 2;
		if (length > size)
			length = size;
		if (head & SETTING) {
			set(port, &impair, data, length);
		} else {
			send(pair[0], data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
			if (length >= ETHERNET_HEADER)
				dhcp_add_mtu(data, length, NETPLUG_DEFAULT_MTU, out);
			judge(data, length);
		}
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
