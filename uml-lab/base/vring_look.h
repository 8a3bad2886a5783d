/*
 * Looking at a queue for a while before sleeping. Waking up takes longer than most requests do, and being
 * woken costs the guest a system call. So while a guest asks its next question soon after each answer, its
 * device's thread looks at the queue instead.
 *
 * When that is worth it is learned (patience.h); a look that another process interrupted for long was in vain
 * too: the host is busy. An idle device costs nothing, and the last look of a busy one VRING_LOOK_NS. While
 * looking the processor is offered to others all the time: a guest is two processes, and both may have to run
 * until it asks again.
 *
 * A guest that is kept on one processor, and asks for small things, is better served from there, asleep between its requests
 * (beside.h): looking is for large ones, and for guests that run anywhere.
 */
#ifndef UML_LAB_BASE_VRING_LOOK_H
#define UML_LAB_BASE_VRING_LOOK_H

#include <stdbool.h>
#include <stdint.h>

#include "uml-lab/base/beside.h"
#include "uml-lab/base/patience.h"
#include "uml-lab/base/vhost_user.h"

#define VRING_LOOK_NS 300000u /* a guest's way from an answer to its next request takes 50 to 150 µs */
#define VRING_LARGE   (32u << 10) /* bytes of a request: copying them takes as long as being told of it */

struct vring_look {
	uint64_t answered_at; /* monotonic, ns */
	struct patience patience;
	struct beside beside;
};

/*
 * Whether there is something in the queue, within a few reads of it; then the processor is anybody's who waits for it: the
 * guest's own process may be one, and on its processor nothing comes while we stay there.
 */
bool vring_glance(const struct vring_queue *q);

/* A guest has connected to this socket. Called by the thread that serves it. */
void vring_look_begin(struct vring_look *l, int socket);
/* The guest is gone. */
void vring_look_end(struct vring_look *l);
/* Requests were answered, of more than VRING_LARGE bytes each or not. */
void vring_look_answered(struct vring_look *l, struct vhost_user *u, bool large);
/* A sleep is over, because the guest asked for so many things. */
void vring_look_woken(struct vring_look *l, struct vhost_user *u, unsigned requests);
/* All requests are answered. Whether there are new ones, if looking is worth it; else the thread should
 * sleep. */
bool vring_look(struct vring_look *l, struct vhost_user *u, const struct vring_queue *q);

#endif
