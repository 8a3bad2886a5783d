/*
 * Gathering answers before the guest is interrupted for them.
 *
 * An interrupt costs a UML guest more than a small request costs us: a signal, a system call, its handler. A guest that keeps many
 * requests in flight submits the next ones while we answer the first; told of each answer by itself it would do little else than be
 * told. So the answers of one round wait for those that are on their way: until as many are gathered as the guest lately had in
 * flight, or none came for VRING_GATHER_NS. A guest that waits for each answer has one in flight, and is told at once.
 *
 * It learns as vring_look.h does: each time it waited in vain it waits less often.
 */
#ifndef UML_LAB_BASE_VRING_GATHER_H
#define UML_LAB_BASE_VRING_GATHER_H

#include <stdbool.h>

#include "uml-lab/base/vring.h"

#define VRING_GATHER_NS 50000u /* a program in a guest needs 20 to 40 µs from one submission to the next */

struct vring_gather {
	unsigned expected; /* requests of a round */
	unsigned skip;	   /* rounds until waiting is tried again */
	unsigned patience; /* what skip becomes when waiting was in vain */
};

void vring_gather_reset(struct vring_gather *g);
/*
 * All that was taken is answered, and `untold` of it the guest was not told of. Whether there is more, waited
 * for if that is worth it.
 */
bool vring_gather(struct vring_gather *g, const struct vring_queue *q, unsigned untold);

#endif
