/*
 * Interrupts that a UML guest slept through.
 *
 * UML's idle loop (os_idle_sleep(), 6.1 to 7.2) looks whether there is something to do, then waits for a
 * signal, and blocks SIGALRM alone in between. A device that answers in that moment, some 20 µs after it was
 * asked, interrupts a guest that notes it and goes to sleep: until its next tick, 4 to 10 ms later. The
 * faster the answer, the likelier. (Seen with perf on 7.2: one of ten requests to a disk.) So who has
 * interrupted the guest looks a while later whether it has seen what it was told of, and interrupts it again
 * if not.
 *
 * This is the clock of it, and the descriptor that is readable when it is due or the connection is. Being
 * woken by a clock takes as long as a small request does. So how long "a while" is goes by what is found: a
 * quarter after an interrupt that was lost, some more after a look in vain; at last about one look of twenty
 * finds one. Who does not sleep (vring_look.h) looks by himself, and needs no clock.
 */
#ifndef UML_LAB_BASE_VHOST_RECALL_H
#define UML_LAB_BASE_VHOST_RECALL_H

#include <stdbool.h>
#include <stdint.h>

#include "uml-lab/base/error.h"

#define RECALL_FIRST_NS 100000u  /* a guest that was woken has looked by then */
#define RECALL_MAX_NS   1600000u /* until the first look */
#define RECALL_TRIES    4u       /* each after twice the time of the one before; then it is its tick's turn */

struct vhost_recall {
	int poll, timer;  /* -1: none */
	uint64_t called;  /* when the guest was last interrupted: monotonic, ns */
	uint32_t wait_ns; /* until the first look */
	unsigned tries;   /* since the guest was last seen to follow */
	bool armed;
	bool looking; /* no clock: its owner looks by himself */
};

#define VHOST_RECALL_INIT                                                                                    \
	{                                                                                                    \
		.poll = -1, .timer = -1, .wait_ns = RECALL_FIRST_NS                                          \
	}

/* fd: the connection, whose readiness the descriptor shows too. 0, or -1 + err. */
int vhost_recall_open(struct vhost_recall *r, int fd, struct error *err);
void vhost_recall_close(struct vhost_recall *r);

/* The guest was interrupted. */
void vhost_recall_called(struct vhost_recall *r);

/* Whether the clock has struck, which is told once. */
bool vhost_recall_struck(struct vhost_recall *r);
/* Then: whether the guest had time enough since the last interrupt; else the clock is set for when it will
 * have had. */
bool vhost_recall_due(struct vhost_recall *r);
/* If so, one of these two, as is seen: it has looked … */
void vhost_recall_seen(struct vhost_recall *r);
/* … or not. Whether it should be interrupted again; the clock is set for the next look then. */
bool vhost_recall_unseen(struct vhost_recall *r);

/* Its owner looks by himself, or goes to sleep: the clock is set if the guest has not seen all that it was
 * told. */
void vhost_recall_look(struct vhost_recall *r, bool looking, bool unseen);

#endif
