/*
 * Messages between a supervisor and its daemons over a SOCK_SEQPACKET socketpair: one packet each, a
 * header and a payload whose size goes with its type, in host byte order. A protocol is a table of
 * types; a message that fails any check against it never reaches its handler.
 */
#ifndef UML_LAB_BASE_MESSAGE_H
#define UML_LAB_BASE_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "uml-lab/base/error.h"

struct message_header {
	uint32_t magic;
	uint16_t version;
	uint16_t type;
	uint32_t sequence;	/* the request's, repeated in its answer */
	uint32_t length;	/* bytes of the payload that follows */
} __attribute__((packed));

/* A text in a payload, which has to end within it. */
struct message_text {
	size_t offset, size;	/* size 0: no text */
};
#define MESSAGE_TEXT(type, member) { offsetof(type, member), sizeof(((type *)NULL)->member) }
#define MESSAGE_TEXTS_MAX 5

struct message_type {
	uint16_t type;
	bool descriptor;	/* has one, in SCM_RIGHTS; else none */
	size_t size;		/* of the payload */
	struct message_text texts[MESSAGE_TEXTS_MAX];
};

struct message_protocol {
	const char *peer;	/* "the netplug control socket", for errors */
	uint32_t magic;
	uint16_t version;
	const struct message_type *types;
	size_t type_count;
};

/*
 * Sends a message; payload has the size that goes with the type (NULL where that is 0), fd is -1 for
 * none and stays the caller's. 0, or -1 + err: the peer is gone, or does not read although the socket
 * is full. Never blocks, raises no SIGPIPE.
 */
int message_send(int control, const struct message_protocol *protocol, uint16_t type, uint32_t sequence,
		 const void *payload, int fd, struct error *err);

/*
 * Receives a message without blocking: a header and the payload right behind it, `size` bytes of room in
 * all; what was not received is 0. 1: it is there and checked, *fd is its descriptor, the caller's, or
 * -1. 0: nothing there now. -1 + err: ERROR_STATE, the other end is gone; else a damaged message:
 * *answerable tells whether its sequence number could be read.
 */
int message_receive(int control, const struct message_protocol *protocol, void *message, size_t size, int *fd,
		    bool *answerable, struct error *err);

#endif
