#include "uml-lab/base/vring_gather.h"

#include <stdint.h>

#include "uml-lab/base/loop.h"

#define PATIENCE_MAX 256u
#define LEAST	     2u /* in flight: fewer can't be gathered */

void vring_gather_reset(struct vring_gather *g)
{
	*g = (struct vring_gather){.patience = 1};
}

static bool wait_for_more(const struct vring_queue *q)
{
	uint64_t begin = loop_now_ns();

	do {
		for (int i = 0; i < 16; i++) {
			if (vring_waiting(q) > 0)
				return true;
			__builtin_ia32_pause();
		}
	} while (loop_now_ns() - begin < VRING_GATHER_NS);
	return false;
}

bool vring_gather(struct vring_gather *g, const struct vring_queue *q, unsigned untold)
{
	unsigned flying = vring_in_flight(q);

	if (vring_waiting(q) > 0)
		return true;
	if (flying > g->expected)
		g->expected = flying;
	if (untold >= g->expected || g->expected < LEAST)
		return false;
	if (g->skip > 0) {
		g->skip--;
		return false;
	}
	if (wait_for_more(q)) {
		g->patience = 1;
		return true;
	}
	g->expected = untold;
	g->skip = g->patience;
	if (g->patience < PATIENCE_MAX)
		g->patience *= 2;
	return false;
}
