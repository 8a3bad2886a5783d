/*
 * Looking for a while before sleeping.
 *
 * One TCP flow through libslirp has at most 64 KiB under way (slirp.c), so what counts is the time from a
 * guest's frame to the answer and back; and in it a wake-up costs more than the work that it is for: the
 * guest's system call to kick us, on a host of virtual processors an interrupt from one to the other, then
 * the switch to us. So while frames come one soon after the other, the plug turns without sleeping, and
 * guests need not kick.
 *
 * It learns what that is worth (base/patience.h). On a busy host looks are in vain, since those we look for do
 * not run. An idle plug sleeps LOOK_NS after its last frame, and then for good.
 */
#include "netplug/netplug_internal.h"

#define LOOK_NS	     200000u	/* a guest's way from a frame to its next takes 20 to 80 µs, more if it works on what it got */
#define SHORT_NS     300000u	/* a sleep, and the work that followed it */
#define SLEEPS_MAX   64u	/* for one look in vain */

void look_init(struct look *look)
{
	*look = (struct look){ 0 };
	patience_init(&look->patience, SLEEPS_MAX);
}

void look_turned(struct look *look, bool moved, bool slept, uint64_t now)
{
	struct patience *p = &look->patience;

	if (moved && slept)
		patience_slept(p, now - look->moved_at < SHORT_NS);
	else if (moved && p->looking)
		patience_found(p);
	else if (p->looking && now - look->moved_at >= LOOK_NS)
		patience_in_vain(p);
	if (moved)
		look->moved_at = now;
}
