#include "uml-lab/base/vring_look.h"

#include <sched.h>

#include "uml-lab/base/loop.h"
#include "uml-lab/base/vhost_recall.h"

#define GLANCES      16u     /* between two looks at the clock */
#define PREEMPTED_NS 200000u /* between two looks at the clock: somebody else ran here, for long */
#define PATIENCE_MIN 4u      /* short sleeps in a row until looking begins */
#define PATIENCE_MAX 1024u
#define FORGIVEN     64u /* looks with success until patience is halved again */

void vring_look_reset(struct vring_look *l)
{
	*l = (struct vring_look){.patience = PATIENCE_MIN};
}

void vring_look_woken(struct vring_look *l, struct vhost_user *u, unsigned requests)
{
	if (loop_now_ns() - l->answered_at >= (uint64_t)VRING_LOOK_NS * requests) {
		l->short_sleeps = 0;
	} else if (++l->short_sleeps >= l->patience) {
		l->on = true;
		vhost_user_look(u, true);
	}
}

/* Whether there is something now; the processor is anybody's who waits for it: the guest's own process may be
 * one. */
static bool glance(const struct vring_queue *q)
{
	for (unsigned i = 0; i < GLANCES; i++) {
		if (vring_waiting(q) > 0)
			return true;
		__builtin_ia32_pause();
	}
	sched_yield();
	return false;
}

static void end(struct vring_look *l, struct vhost_user *u)
{
	l->on = false;
	l->short_sleeps = 0;
	if (l->patience < PATIENCE_MAX)
		l->patience *= 2;
	vhost_user_look(u, false);
}

bool vring_look(struct vring_look *l, struct vhost_user *u, const struct vring_queue *q)
{
	uint64_t last = loop_now_ns(), now = last, again_at = last + RECALL_FIRST_NS;
	bool found = false, preempted = false;

	l->answered_at = now;
	if (!l->on)
		return false;
	while (!found && now - l->answered_at < VRING_LOOK_NS) {
		found = glance(q);
		now = loop_now_ns();
		preempted |= now - last > PREEMPTED_NS;
		last = now;
		if (!found && now >= again_at) {
			again_at = now + RECALL_FIRST_NS;
			/* a guest that is gone is found by who reads its messages */
			vhost_user_call_again(u, NULL);
		}
	}
	if (!found || preempted)
		end(l, u);
	else if (++l->found % FORGIVEN == 0 && l->patience > PATIENCE_MIN)
		l->patience /= 2;
	return found;
}
