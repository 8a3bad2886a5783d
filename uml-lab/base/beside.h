/*
 * Running on the processor of the one we work for.
 *
 * A guest that waits for each small answer is served best from its own processor: it sleeps while we work, and waking somebody
 * there is a switch of tasks, where waking another processor from its idle state is an interrupt, in virtual machines an expensive
 * one, twice for each request. Large requests are another matter: what we copy for them runs beside the guest's own work.
 *
 * Which processor is the guest's is told by its kernel's affinity mask: machine/placement.c keeps a guest's processes on one
 * processor as long as the host has time for it. A guest that is free to run anywhere leaves us free too. When small requests are
 * worth coming near is learned (patience.h): a large one sends us away, and the next time it takes more small ones in a row.
 *
 * It binds the calling thread, and nothing else.
 */
#ifndef UML_LAB_BASE_BESIDE_H
#define UML_LAB_BASE_BESIDE_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "uml-lab/base/patience.h"

struct beside {
	pid_t peer;	     /* 0: not known, or not in our PID namespace: nothing is done */
	cpu_set_t own;	     /* where the thread may run */
	int cpu;	     /* where it runs beside its peer; -1: anywhere */
	uint64_t looked_at;  /* at the peer's mask: monotonic, ns */
	struct patience patience;
};

#define BESIDE_INIT {.cpu = -1}

/* The peer is who connected to this socket (SO_PEERCRED). Called by the thread that is to be bound. */
void beside_begin(struct beside *b, int socket);
/* The peer is gone: the thread may run anywhere. */
void beside_end(struct beside *b);
/* A small request was answered, or a large one. */
void beside_answered(struct beside *b, bool large);
/* Whether the thread is beside its peer: then it must not look for work (vring_look.h), which would keep the peer from running. */
static inline bool beside_is(const struct beside *b)
{
	return b->cpu >= 0;
}

#endif
