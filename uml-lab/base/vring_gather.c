#include "uml-lab/base/vring_gather.h"

#include "uml-lab/base/loop.h"
#include "uml-lab/base/vring_look.h"

#define PATIENCE_MAX 1024u

void vring_gather_reset(struct vring_gather *g)
{
	*g = (struct vring_gather){.flying = 1, .patience = 1, .goal = 1};
}

void vring_gather_taken(struct vring_gather *g, unsigned count, size_t bytes)
{
	if (count > g->flying)
		g->flying = count;
	g->large = bytes / count > VRING_LARGE;
	g->idle = false;
}

static unsigned at_most(unsigned n, unsigned max)
{
	return n < max ? n : max;
}

unsigned vring_gather_goal(const struct vring_gather *g)
{
	return g->large || g->flying < 4 ? 1 : at_most(g->flying / 2, VRING_GATHER_MAX);
}

void vring_gather_begin(struct vring_gather *g)
{
	g->goal = g->idle ? 1 : vring_gather_goal(g);
	g->probing = false;
	if (g->idle) {
		/* the first one that comes ends the sleep */
	} else if (g->skip > 0) {
		g->skip--;
	} else if (!g->large && g->flying < 2 * VRING_GATHER_MAX) {
		g->probing = true;
		g->goal = 2 * g->flying;
	}
	g->until = g->goal > 1 ? loop_now_ns() + g->goal * VRING_GATHER_NS : 0;
}

bool vring_gather_watch(struct vring_gather *g, const struct vring_queue *q)
{
	uint64_t now = loop_now_ns(), end = now + VRING_GATHER_NS;

	for (; now < end; now = loop_now_ns())
		if (vring_glance(q))
			return true;
	g->until = now;
	return false;
}

/* Looking was in vain: do it less often. */
static void be_patient(struct vring_gather *g)
{
	g->skip = g->patience;
	if (g->patience < PATIENCE_MAX)
		g->patience *= 2;
}

void vring_gather_end(struct vring_gather *g, unsigned came)
{
	bool all = came >= g->goal;

	if (!g->until || (!all && loop_now_ns() < g->until)) /* something else ended the sleep */
		return;
	g->until = 0;
	if (g->probing) {
		if (all)
			g->patience = 1;
		else
			be_patient(g);
	}
	/* a guest that asks for nothing now may be busy: all that it had in flight is answered */
	g->idle = came == 0;
	if (came > 0 && (g->probing || !all))
		g->flying = came;
}
