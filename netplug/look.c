/*
 * Looking for a while before sleeping.
 *
 * One TCP flow through libslirp has at most 64 KiB under way (slirp.c), so what counts is the time from a
 * guest's frame to the answer and back; and in it a wake-up costs more than the work that it is for: the
 * guest's system call to kick us, on a host of virtual processors an interrupt from one to the other, then
 * the switch to us. So while frames come one soon after the other, the plug turns without sleeping, and
 * guests need not kick.
 *
 * It learns what that is worth as vring_look.c does: some sleeps in a row that were short turn looking on,
 * one look in vain turns it off and makes that "some" twice as many. On a busy host looks are in vain, since
 * those we look for do not run. An idle plug sleeps LOOK_NS after its last frame, and then for good.
 */
#include "netplug/netplug_internal.h"

#define LOOK_NS	     200000u	/* a guest's way from a frame to its next takes 20 to 80 µs, more if it works on what it got */
#define SHORT_NS     300000u	/* a sleep, and the work that followed it */
#define PATIENCE_MIN 4u		/* short sleeps in a row until looking begins */
#define PATIENCE_MAX 64u	/* looks in vain cost no more than one in 64 sleeps */
#define FORGIVEN     64u	/* looks with success until patience is halved again */

void look_init(struct look *look)
{
	*look = (struct look){ .patience = PATIENCE_MIN };
}

static void found(struct look *l)
{
	if (++l->found % FORGIVEN == 0 && l->patience > PATIENCE_MIN)
		l->patience /= 2;
}

static void in_vain(struct look *l)
{
	l->on = false;
	l->short_sleeps = 0;
	if (l->patience < PATIENCE_MAX)
		l->patience *= 2;
}

static void woken(struct look *l, uint64_t now)
{
	if (now - l->moved_at >= SHORT_NS)
		l->short_sleeps = 0;
	else if (++l->short_sleeps >= l->patience)
		l->on = true;
}

void look_turned(struct look *l, bool moved, bool slept, uint64_t now)
{
	if (moved && slept)
		woken(l, now);
	else if (moved && l->on)
		found(l);
	else if (l->on && now - l->moved_at >= LOOK_NS)
		in_vain(l);
	if (moved)
		l->moved_at = now;
}
