/*
 * The control socket: any messages, in any order, are acted on or refused, and what is answered is well-formed.
 * Input: length (2 bytes, little-endian), message, and so on; a message of odd length comes with a descriptor.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netplug/netplug_internal.h"
#include "tests/fuzz/netplug_alone.h"

#define MESSAGES_MAX 32

/* Forwards bind ports: not the host's. */
static void send_message(int fd, const uint8_t *data, size_t length)
{
	union {
		struct cmsghdr align;
		char data[CMSG_SPACE(sizeof(int))];
	} ancillary = { 0 };
	struct iovec iov = { (void *)data, length };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (length & 1) {
		msg.msg_control = ancillary.data;
		msg.msg_controllen = sizeof(ancillary.data);
		*CMSG_FIRSTHDR(&msg) = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &fd, sizeof(fd));
	}
	sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct netplug_message answer;
	struct error err = ERROR_INIT;
	struct server server;
	int pair[2], rc;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) || server_init(&server, pair[1], NULL))
		abort();
	for (int i = 0; i < MESSAGES_MAX && size >= 2; i++) {
		size_t length = data[0] | (size_t)data[1] << 8;

		data += 2;
		size -= 2;
		if (length > size)
			length = size;
		send_message(pair[0], data, length);
		data += length;
		size -= length;
		serve_pending(&server);
		while ((rc = netplug_control_receive(pair[0], &answer, &err)) == 1)
			;
		if (rc < 0)
			abort();
	}
	plug_free(&server.plug);
	close(pair[0]);
	close(pair[1]);
	return 0;
}
