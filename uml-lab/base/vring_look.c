#include "uml-lab/base/vring_look.h"


#include "uml-lab/base/loop.h"
#include "uml-lab/base/vhost_recall.h"

#define PREEMPTED_NS 40000u /* between two glances at the clock: somebody else ran here */
#define PATIENCE_MIN 4u	    /* short sleeps in a row until looking begins */
#define PATIENCE_MAX 1024u
#define FORGIVEN     64u /* looks with success until patience is halved again */

void vring_look_reset(struct vring_look *l)
{
	*l = (struct vring_look){.patience = PATIENCE_MIN};
}

void vring_look_woken(struct vring_look *l)
{
	if (loop_now_ns() - l->answered_at >= VRING_LOOK_NS)
		l->short_sleeps = 0;
	else if (++l->short_sleeps >= l->patience)
		l->on = true;
}

bool vring_look(struct vring_look *l, struct vhost_user *u, const struct vring_queue *q)
{
	uint64_t last = loop_now_ns(), now = last;
	bool found = false, preempted = false, again = false;

	l->answered_at = now;
	if (!l->on)
		return false;
	while (!found && now - l->answered_at < VRING_LOOK_NS) {
		for (int i = 0; i < 16 && !found; i++) {
			found = vring_waiting(q) > 0;
			__builtin_ia32_pause();
		}
		now = loop_now_ns();
		preempted |= now - last > PREEMPTED_NS;
		last = now;
		if (!found && !again && now - l->answered_at > RECALL_FIRST_NS) {
			again = true;
			/* a guest that is gone is found by who reads its messages */
			vhost_user_call_again(u, NULL);
		}
	}
	if (found && !preempted) {
		if (++l->found % FORGIVEN == 0 && l->patience > PATIENCE_MIN)
			l->patience /= 2;
		return true;
	}
	l->on = false;
	l->short_sleeps = 0;
	if (l->patience < PATIENCE_MAX)
		l->patience *= 2;
	return found;
}
