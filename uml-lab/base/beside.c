#include "uml-lab/base/beside.h"

#include <sys/socket.h>

#include "uml-lab/base/loop.h"

#define SMALL_MAX 1024u	     /* in a row, before one comes near again after so many large ones */
#define LOOK_NS	  20000000u  /* between two looks at the peer's mask: placement.c looks every 50 ms of a guest's time */

void beside_begin(struct beside *b, int socket)
{
	struct ucred peer;
	socklen_t length = sizeof(peer);

	*b = (struct beside)BESIDE_INIT;
	patience_init(&b->patience, SMALL_MAX);
	if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
	    sched_getaffinity(0, sizeof(b->own), &b->own) == 0 && CPU_COUNT(&b->own) > 1)
		b->peer = peer.pid;
}

static void leave(struct beside *b)
{
	if (b->cpu < 0)
		return;
	b->cpu = -1;
	sched_setaffinity(0, sizeof(b->own), &b->own);
}

void beside_end(struct beside *b)
{
	leave(b);
	b->peer = 0;
}

/* The one processor that the peer may run on; -1: there are several, or we may not go there. */
static int place_of_peer(const struct beside *b)
{
	cpu_set_t set;

	if (sched_getaffinity(b->peer, sizeof(set), &set) < 0 || CPU_COUNT(&set) != 1)
		return -1;
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &set))
			return CPU_ISSET(i, &b->own) ? i : -1;
	return -1;
}

static void follow(struct beside *b)
{
	uint64_t now = loop_now_ns();
	cpu_set_t set;
	int cpu;

	if (now - b->looked_at < LOOK_NS)
		return;
	b->looked_at = now;
	cpu = place_of_peer(b);
	if (cpu == b->cpu)
		return;
	leave(b);
	CPU_ZERO(&set);
	if (cpu >= 0)
		CPU_SET(cpu, &set);
	if (cpu >= 0 && sched_setaffinity(0, sizeof(set), &set) == 0)
		b->cpu = cpu;
}

void beside_answered(struct beside *b, bool large)
{
	if (!b->peer)
		return;
	if (!b->patience.looking) {
		patience_slept(&b->patience, !large);
	} else if (large) {
		patience_in_vain(&b->patience);
		leave(b);
	} else {
		patience_found(&b->patience);
	}
	if (b->patience.looking)
		follow(b);
}
