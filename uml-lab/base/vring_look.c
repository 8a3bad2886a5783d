#include "uml-lab/base/vring_look.h"

#include <sched.h>

#include "uml-lab/base/loop.h"
#include "uml-lab/base/vhost_recall.h"

#define GLANCES      16u     /* between two looks at the clock */
#define PREEMPTED_NS 200000u /* between two looks at the clock: somebody else ran here, for long */
#define SLEEPS_MAX   1024u   /* for one look in vain */

void vring_look_begin(struct vring_look *l, int socket)
{
	*l = (struct vring_look){0};
	patience_init(&l->patience, SLEEPS_MAX);
	beside_begin(&l->beside, socket);
}

void vring_look_end(struct vring_look *l)
{
	beside_end(&l->beside);
}

void vring_look_answered(struct vring_look *l, struct vhost_user *u, bool large)
{
	beside_answered(&l->beside, large);
	if (!beside_is(&l->beside) || !l->patience.looking)
		return;
	patience_in_vain(&l->patience);
	vhost_user_look(u, false);
}

void vring_look_woken(struct vring_look *l, struct vhost_user *u, unsigned requests)
{
	if (beside_is(&l->beside))
		return;
	patience_slept(&l->patience, loop_now_ns() - l->answered_at < (uint64_t)VRING_LOOK_NS * requests);
	if (l->patience.looking)
		vhost_user_look(u, true);
}

bool vring_glance(const struct vring_queue *q)
{
	for (unsigned i = 0; i < GLANCES; i++) {
		if (vring_waiting(q) > 0)
			return true;
		__builtin_ia32_pause();
	}
	sched_yield();
	return false;
}

bool vring_look(struct vring_look *l, struct vhost_user *u, const struct vring_queue *q)
{
	uint64_t last = loop_now_ns(), now = last, again_at = last + RECALL_FIRST_NS;
	bool found = false, preempted = false;

	l->answered_at = now;
	if (!l->patience.looking)
		return false;
	while (!found && now - l->answered_at < VRING_LOOK_NS) {
		found = vring_glance(q);
		now = loop_now_ns();
		preempted |= now - last > PREEMPTED_NS;
		last = now;
		if (!found && now >= again_at) {
			again_at = now + RECALL_FIRST_NS;
			/* a guest that is gone is found by who reads its messages */
			vhost_user_call_again(u, NULL);
		}
	}
	if (!found || preempted) {
		patience_in_vain(&l->patience);
		vhost_user_look(u, false);
	} else {
		patience_found(&l->patience);
	}
	return found;
}
