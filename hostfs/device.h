/* A share as a virtio file system of a guest, over a vhost-user connection. */
#ifndef HOSTFS_DEVICE_H
#define HOSTFS_DEVICE_H

#include "hostfs/hostfs.h"

struct hostfs_device;

/*
 * Serves fs (of one share, no tree) in a thread of its own until the guest closes the
 * connection, which is taken over. tag is what the guest mounts it by. fs and tag must
 * outlive the device. NULL + err.
 */
enum hostfs_begin {
	HOSTFS_FRESH,	    /* a guest that starts */
	HOSTFS_RESUMED,	    /* the connection's set-up is a repetition, the guest goes on with requests of before */
	HOSTFS_AFTER_DEATH, /* the same, and the first of them may have been begun */
};

/* A request that waits for a lock, by its place in the guest's queue. */
struct hostfs_pending {
	uint16_t head;
	bool answering; /* its answer makes the queue's used index `at` */
	uint16_t at;
	uint64_t unique; /* of one that waits: the request's number, and the guest's thread */
	uint32_t pid;
};

/* How a device begins, and what the one before left waiting. */
struct hostfs_start {
	enum hostfs_begin how;
	struct hostfs_pending pending[HOSTFS_WAITS_MAX + 1]; /* one may be just answered */
	size_t pending_count;
};

/*
 * Told before a request begins to wait, and before it is answered: whoever takes over from a process that was killed has to know.
 * False: it cannot be told now. Called from the device's thread.
 */
typedef bool (*hostfs_pending_fn)(void *arg, const struct hostfs_pending *pending);

struct hostfs_device *hostfs_device_start(struct hostfs *fs, const char *tag, int connection, const struct hostfs_start *start,
					  hostfs_pending_fn pending, void *arg, struct error *err);
/* Ends the thread, after the request at hand. NULL is fine. */
void hostfs_device_stop(struct hostfs_device *device);

/*
 * Puts up walls around the process: only the shares' folders are within. walls has
 * CONFINE_WALLS_MAX bytes. 0, or -1 + err.
 */
int hostfs_confine(const struct hostfs_share *shares, size_t count, char *walls, struct error *err);

/* ---- control.c ---- */

/*
 * What a supervisor and uml-hostfs say over a SOCK_SEQPACKET socket, one text a packet:
 *
 *	to uml-hostfs	"connect INDEX fresh|resumed|after-death" with the connected socket of the guest's device;
 *			"resumed" after a uml-hostfs that said "bye", "after-death" after one that did not; then
 *			" HEAD" or " HEAD:AT" for each request that waited for a lock there;
 *			"interrupt INDEX UNIQUE": a signal waits for the thread that asked so
 *	from it		"ready WALLS"; "gone NAME TEXT", "back NAME TEXT" of a share's folder; "failed TEXT";
 *			"waits NAME HEAD UNIQUE PID", "answers NAME HEAD AT": struct hostfs_pending of a share's device;
 *			"bye": it ends in order and wants to be started again
 *
 * Its end ends the process.
 */
#define HOSTFS_CONTROL_MAX 1024 /* bytes of a packet */

/* Serves all shares until the control socket is closed. 0, or -1 + err. */
int hostfs_control_serve(const struct hostfs_share *shares, size_t count, int control, int stop, struct error *err);

/* Listens at FOLDER/NAME for each share, for people and tests. Until `stop` becomes readable. */
int hostfs_listen_serve(const struct hostfs_share *shares, size_t count, const char *folder, int stop,
			struct error *err);

#endif
