/*
 * Gathering small requests before they are dealt with.
 *
 * A kick and an interrupt cost a UML guest more than a small request costs us: system calls, a signal, its handler; and where the
 * host's scheduler has put us on the guest's own CPU, each kick makes it stand aside for us, so that its next request waits for our
 * answer to this one. A guest that keeps many requests in flight does not wait for the first of them. So of
 * such a guest the kick is asked for (event index) when half of what it has in flight is there, and half of
 * it is answered with one interrupt while it is busy with the other half. Whoever waits sleeps, on whichever
 * CPU. Who looks at the queue instead (vring_look.h) deals with each request as it comes, and gathers their
 * answers. A guest with few requests in flight, or large ones, is answered at once.
 *
 * How many it has in flight does not show while each is answered before the next one comes. So now and then we wait for twice as
 * many as it had, for as long as it would need to ask for them: those that are there then are what it has. The longer that
 * finds nothing new, the more seldom it is done: for a guest that waits for each answer it costs a part of a µs for each request.
 */
#ifndef UML_LAB_BASE_VRING_GATHER_H
#define UML_LAB_BASE_VRING_GATHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "uml-lab/base/vring.h"

#define VRING_GATHER_MAX 16u	 /* requests that are waited for */
#define VRING_GATHER_NS	 100000u /* for each of them: a program in a guest needs 20 to 80 µs from one submission to the next */

struct vring_gather {
	unsigned flying;   /* requests that the guest keeps in flight */
	unsigned skip;	   /* rounds until that is looked at again */
	unsigned patience; /* what skip becomes when it was in vain */
	bool large;	   /* the requests of the last batch */
	bool idle;	   /* none came in the last round: the next is worth no clock */
	bool probing;	   /* this round is for looking at that */
	unsigned goal;	   /* requests that are waited for */
	uint64_t until;	   /* how long: monotonic, ns; 0: for ever, or there is no round */
};

void vring_gather_reset(struct vring_gather *g);
/* A batch of `count` requests, with so many bytes of data, was taken. */
void vring_gather_taken(struct vring_gather *g, unsigned count, size_t bytes);
/* How many requests should be there before we go on. */
unsigned vring_gather_goal(const struct vring_gather *g);
/* A round of requests begins: how many to wait for is in g->goal, until when in g->until. */
void vring_gather_begin(struct vring_gather *g);
/* For who looks at the queue instead of sleeping: whether another request comes within the time of one. */
bool vring_gather_watch(struct vring_gather *g, const struct vring_queue *q);
/* The round has ended, whatever ended it, and so many came: learns from it. Without a round it does nothing. */
void vring_gather_end(struct vring_gather *g, unsigned came);

#endif
