/*
 * The vhost-user protocol, back-end side, on a connected stream socket: a guest's
 * kernel (the front-end: UML's virtio_uml.c, QEMU) hands over its memory and its
 * queues, and we serve a virtio device (QEMU's docs/interop/vhost-user.rst).
 *
 * One connection is one device; it is used by one thread, which watches
 * vhost_user_fd() and each queue's kick descriptor for readability (as an edge,
 * EPOLLET: each kick is one, and nobody reads it) and never blocks here. Everything that arrives is checked: sizes, numbers of
 * descriptors and their kinds, addresses, order. A message that can't be right
 * is answered with a failure where the front-end asked for an answer, else it
 * ends the connection.
 *
 * Left out on purpose: live migration (dirty log, in-flight descriptors), IOMMU,
 * post-copy, packed rings, and everything that a front-end may not use because it
 * was not offered.
 */
#ifndef UML_LAB_BASE_VHOST_USER_H
#define UML_LAB_BASE_VHOST_USER_H

#include "uml-lab/base/vring.h"

#define VHOST_USER_QUEUES_MAX 16
#define VHOST_USER_CONFIG_MAX 256 /* bytes of a device's configuration space */

/* What a device is. All functions are called from within vhost_user_receive(). */
struct vhost_user_device {
	/* Offered, VIRTIO_F_… and the device's own bits; the transport's and the rings' are added. */
	uint64_t features;
	unsigned queues;        /* 1 … VHOST_USER_QUEUES_MAX */
	bool in_band; /* offer notifications as messages: what time travel needs, slower: UML waits for each answer */
	unsigned config_length; /* bytes, at most VHOST_USER_CONFIG_MAX */
	void (*get_config)(void *arg, void *out); /* all config_length bytes */
	/* 0, or -1 when that can't be set; NULL: nothing can. Within config_length. */
	int (*set_config)(void *arg, uint32_t offset, const void *data, uint32_t length);
	/* A queue became usable, or will not be used any more (vhost_user_queue() tells): watch its kick
	 * anew. */
	void (*queue_changed)(void *arg, unsigned index);
	/* An in-band kick. NULL without in_band. */
	void (*kicked)(void *arg, unsigned index);
	void *arg;
};

struct vhost_user;

/* Takes over a connected socket; *device must outlive it. NULL + err (the socket is closed then). */
struct vhost_user *vhost_user_new(int fd, const struct vhost_user_device *device, struct error *err);
/* Closes all descriptors, unmaps the guest's memory: nothing that pointed there may be used any more. NULL is
 * fine. */
void vhost_user_free(struct vhost_user *u);

/* Readable when a message came, or when the guest may have slept through an interrupt: vhost_user_receive() deals with both. */
int vhost_user_fd(const struct vhost_user *u);

/*
 * Deals with what arrived, one message at most. 1: one was dealt with. 0: not
 * a whole one is there. -1 + err: the front-end is gone (ERROR_STATE), or broke the
 * protocol (ERROR_FAILED); the connection is of no more use.
 */
int vhost_user_receive(struct vhost_user *u, struct error *err);

/* A queue that requests can be taken from, or NULL. */
struct vring_queue *vhost_user_queue(struct vhost_user *u, unsigned index);

/* The features that both sides agreed on. */
uint64_t vhost_user_features(const struct vhost_user *u);

/* Lets go of the pages of the guest's memory that were touched here: they count as ours else. They come back when touched again. */
void vhost_user_let_go(struct vhost_user *u);

/* Tells the guest of what was pushed, if it wants to know. 0, or -1 + err: it is gone. */
int vhost_user_call(struct vhost_user *u, struct vring_queue *q, struct error *err);

/*
 * Begins or ends that its owner looks at queues rather than sleep, and meanwhile, at times, calls the next: no
 * clock is needed then.
 */
void vhost_user_look(struct vhost_user *u, bool looking);

/*
 * Tells the guest again what it has not seen, if it had time enough to look (vhost_recall.h). 0, or -1 + err.
 */
int vhost_user_call_again(struct vhost_user *u, struct error *err);

/* Tells the guest to read the configuration again. 0; -1 + err: it gave no channel for that, or does not read
 * it. */
int vhost_user_config_changed(struct vhost_user *u, struct error *err);

#endif
