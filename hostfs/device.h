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
struct hostfs_device *hostfs_device_start(struct hostfs *fs, const char *tag, int connection,
					  enum hostfs_begin begin, struct error *err);
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
 *			"resumed" after a uml-hostfs that said "bye", "after-death" after one that did not
 *	from it		"ready WALLS"; "gone NAME TEXT", "back NAME TEXT" of a share's folder; "failed TEXT";
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
