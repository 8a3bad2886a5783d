/*
 * uml-cow serve: the disks of one machine, offered to its kernel over
 * vhost-user-blk, and how the supervisor talks to that server.
 *
 * Start: a SOCK_SEQPACKET socketpair; the server gets one end as
 *	uml-cow serve --control-fd N … --socket S FILE [--socket S FILE]…
 * (child_spawn(): fds = {{server_end, 3}}, argv "--control-fd", "3"). READY is
 * sent once every disk is open, locked, and its socket can be connected to; a
 * disk that can't be opened ends the server with status 1 and the reason on
 * stderr. The server ends by itself when the other end of the control socket is
 * closed, on SIGTERM, and with its parent (PR_SET_PDEATHSIG); what guests wrote is
 * made durable first, and the sockets are unlinked. Killed by SIGKILL, it leaves the
 * sockets (replaced by the next server) and a disk that holds all that was
 * flushed.
 *
 * The kernel is started with virtio_uml.device=S:2 for each disk. A guest that
 * ends is followed by the next one on the same socket: the server needs no
 * restart for a reboot. One guest at a time for each socket.
 *
 * Messages: one packet each, a header and a payload of the fixed size that goes
 * with the type; host byte order. A packet of another size, version or magic
 * number, or with descriptors, is answered with an error REPLY (or dropped when
 * not even the header is whole), never acted on.
 *
 * Requests, each answered by exactly one message with the same sequence number;
 * a disk is named by its index on the command line, the first is 0:
 *	SNAPSHOT	a new top overlay at `path` (absolute; must not exist) over the
 *			present one, which is frozen and only read from then on. What the
 *			guest had flushed is in the frozen file; writes that come meanwhile
 *			wait. REPLY's microseconds: how long they did. After a failure
 *			the disk goes on as before, and nothing is at `path`.
 *	MERGE		the layer at `path`, below the top, is to go: what it stores is
 *			put into the layer above it, in the background, while the guest
 *			runs. REPLY comes when it is done and durable, maybe minutes later:
 *			nothing stands on the file any more and it can be unlinked. The layer
 *			above keeps its name and mtime (but the top's mtime, which
 *			nothing stands on). One MERGE or FOLD at a time for each disk;
 *			SNAPSHOT is refused meanwhile (ERROR_STATE). Killed in the middle: the
 *			disk is as before, and MERGE can be asked for again.
 *	FOLD		the raw file at `path`, with which the chain ends, is to take in what the
 *			overlay right above it stores, and then that one's place and name (as
 *			cow_fold()), in the background. It has to lie beside the overlay: a base
 *			image is no such file. REPLY as of MERGE; so is what holds after a kill.
 *	INSERT		the disk at `path` into a place that is empty (--socket S -): the
 *			guest sees its size change from 0. With walls it has to lie in
 *			the folder of a disk that was there at the start.
 *	EJECT		flushes, closes and unlocks the disk; the guest sees its size
 *			become 0, and errors for what it still asks for.
 *	GET_STATS	answered by STATS, or by an error REPLY.
 */
#ifndef COW_SERVE_H
#define COW_SERVE_H

#include <stdbool.h>
#include <stdint.h>

#include "uml-lab/base/error.h"
#include "uml-lab/base/message.h"
#include "uml-lab/base/str.h"

#define COW_SERVE_MAGIC      0x55435331u /* "UCS1" */
#define COW_SERVE_VERSION    1
#define COW_SERVE_DISKS_MAX  64
#define COW_SERVE_SERIAL_MAX 20 /* bytes of a serial number: VIRTIO_BLK_ID_BYTES */

enum cow_serve_type {
	COW_SERVE_SNAPSHOT = 1,  /* struct cow_serve_path */
	COW_SERVE_MERGE = 2,     /* struct cow_serve_path */
	COW_SERVE_INSERT = 3,    /* struct cow_serve_path */
	COW_SERVE_EJECT = 4,     /* struct cow_serve_ref */
	COW_SERVE_GET_STATS = 5, /* struct cow_serve_ref */
	COW_SERVE_FOLD = 6,      /* struct cow_serve_path */
	COW_SERVE_READY = 128,   /* no payload, sequence 0 */
	COW_SERVE_REPLY = 129,   /* struct cow_serve_reply */
	COW_SERVE_STATS = 130,   /* struct cow_serve_stats */
};

struct cow_serve_ref {
	uint32_t disk;
} __attribute__((packed));

struct cow_serve_path {
	uint32_t disk;
	char path[4096]; /* NUL-terminated */
} __attribute__((packed));

struct cow_serve_reply {
	int32_t status;        /* 0: done; else an enum error_kind */
	uint32_t microseconds; /* SNAPSHOT: how long the guest's requests waited */
	char text[1016];       /* on failure what went wrong */
} __attribute__((packed));

enum cow_serve_quota {
	COW_SERVE_QUOTA_NONE, /* no --quota */
	COW_SERVE_QUOTA_OK,
	COW_SERVE_QUOTA_FULL, /* writes that need space are refused since the last look */
};

/* Counters of a disk since the server started. */
struct cow_serve_stats {
	uint32_t disk;
	uint32_t connected;   /* 1 while a guest has it */
	uint64_t connections; /* guests so far */
	uint64_t size;        /* of the disk, bytes; 0 for an empty place */
	uint64_t depth;       /* files of the chain, base included */
	uint64_t requests, batches;
	uint64_t read_bytes, written_bytes, discarded_bytes, flushes;
	uint64_t errors;            /* requests answered with an error, those over quota included */
	uint64_t quota_refused;     /* writes refused because of the quota */
	uint64_t allocated;         /* bytes that the top overlay takes on the host's disk */
	uint64_t quota, quota_used; /* of the server: bytes; all top overlays and --quota-with */
	uint32_t quota_state;       /* enum cow_serve_quota */
	uint32_t merging;           /* 1 while a MERGE is at work */
	char last_error[256];       /* why a request failed last, "" for never */
} __attribute__((packed));

/* Any message, as received. */
struct cow_serve_message {
	struct message_header header;
	union {
		struct cow_serve_ref ref;
		struct cow_serve_path path;
		struct cow_serve_reply reply;
		struct cow_serve_stats stats;
	} u;
};

/*
 * The supervisor's side. Each sends one request; the answer comes later, by
 * cow_serve_receive(), with the same sequence number. type: SNAPSHOT, MERGE,
 * FOLD or INSERT; EJECT or GET_STATS. 0, or -1 + err: the server is gone, or does not read
 * although the socket is full. They never block and raise no SIGPIPE.
 */
int cow_serve_send_path(int control, uint32_t sequence, enum cow_serve_type type, uint32_t disk,
			const char *path, struct error *err);
int cow_serve_send_ref(int control, uint32_t sequence, enum cow_serve_type type, uint32_t disk,
		       struct error *err);

/*
 * Receives one message without blocking. 1: *message is filled, and checked
 * (size, version; texts end). 0: nothing there now. -1 + err: a damaged
 * message (ERROR_FAILED), or the other end is gone (ERROR_STATE).
 */
int cow_serve_receive(int control, struct cow_serve_message *message, struct error *err);

/* ---- The server ---- */

struct cow_serve_disk {
	const char *socket; /* path to listen on, at most 107 bytes */
	const char *file;   /* the disk; "-" for an empty place */
	const char *serial; /* what the guest sees as its serial number; NULL: disk0, disk1, … */
};

struct cow_serve_options {
	const struct cow_serve_disk *disks;
	size_t count;   /* 1 … COW_SERVE_DISKS_MAX */
	int control_fd; /* -1 for none: until a signal */
	uint64_t quota; /* bytes that top overlays and quota_with may take together; 0: no limit */
	struct strv quota_with;
	const struct strv *folders; /* as in struct cow_open_options; may be NULL */
	bool any_backing;
	bool walls; /* the calling process confines itself for good, see serve_walls.c */
};

/* Serves until it is told to end; see above. 0, or -1 + err. */
int cow_serve(const struct cow_serve_options *options, struct error *err);

#endif
