/* Inside of the back-end side of vhost-user: the connection (vhost_user.c) and its messages (vhost_user_messages.c). */
#ifndef UML_LAB_BASE_VHOST_USER_INTERNAL_H
#define UML_LAB_BASE_VHOST_USER_INTERNAL_H

#include <unistd.h>

#include "uml-lab/base/vhost_recall.h"
#include "uml-lab/base/vhost_user.h"
#include "uml-lab/base/vhost_user_wire.h"

#define VHOST_USER_FDS_MAX VRING_REGIONS_MAX
#define BIT(n)             (UINT64_C(1) << (n))

struct vhost_user {
	int fd;
	const struct vhost_user_device *device;
	uint64_t offered, acked, protocol;
	struct vring_memory memory;
	struct vring_queue queues[VHOST_USER_QUEUES_MAX];
	int requests; /* the channel for ours; -1 for none */
	struct vhost_recall recall;
	struct vhost_user_message in;
	size_t have; /* bytes of it */
	int fds[VHOST_USER_FDS_MAX];
	unsigned fd_count;
};

/* Whether a protocol feature was agreed on. */
static inline bool vhost_user_has(const struct vhost_user *u, enum vhost_user_protocol_feature feature)
{
	return u->protocol & BIT(feature);
}

/* Closes what *slot has open (-1: nothing) and puts fd there. */
static inline void vhost_user_replace_fd(int *slot, int fd)
{
	if (*slot >= 0)
		close(*slot);
	*slot = fd;
}

/* Closes the descriptors that came with the message and were not taken. */
void vhost_user_close_fds(struct vhost_user *u);
/* Unmaps the guest's memory; no queue may be in use. */
void vhost_user_unmap(struct vring_memory *memory);
/* Replies to the message that is being dealt with, with u->in's payload, of n bytes. 0, -1 + err. */
int vhost_user_reply(struct vhost_user *u, size_t n, struct error *err);
int vhost_user_reply_u64(struct vhost_user *u, uint64_t value, struct error *err);
/*
 * Acts on the message in u->in, whole and with zeroes behind it, and answers it; its descriptors are taken or closed. -1 + err
 * when the connection cannot go on; what the front-end can be told about fails there alone.
 */
int vhost_user_handle(struct vhost_user *u, struct error *err);

#endif
