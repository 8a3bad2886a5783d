/*
 * The end of the session's time (limits.time): a note on the console NOTE_MS
 * before, then a polite stop. The time is the wall's, since session.yml says when
 * it is over; a host that was suspended meanwhile is noticed at the next turn.
 */
#include <time.h>

#include "uml-lab/base/log.h"
#include "uml-lab/machine/supervisor.h"

#define NOTE_MS (5 * 60 * 1000)

static int64_t left_ms(const struct supervisor *sv)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return sv->spec->ends_ms - (now.tv_sec * 1000LL + now.tv_nsec / 1000000);
}

static void on_deadline(void *arg)
{
	struct supervisor *sv = arg;
	int64_t left = left_ms(sv);

	if (left <= 0) {
		console_note(sv, "the session's time is over: the machine stops");
		supervisor_stop_because(sv, "the session's time was over (limits.time)");
		return;
	}
	if (left <= NOTE_MS && !sv->deadline_noted) {
		sv->deadline_noted = true;
		console_note(sv, "the session's time is over in %lld %s: the machine stops then",
			     (long long)(left < 60000 ? left / 1000 : (left + 30000) / 60000),
			     left < 60000 ? "s" : "min");
	}
	loop_arm_timer(sv->deadline_timer, left > NOTE_MS ? left - NOTE_MS : left);
}

int deadline_open(struct supervisor *sv, struct error *err)
{
	if (!sv->spec->ends_ms)
		return 0;
	sv->deadline_timer = loop_add_timer(sv->loop, 0, on_deadline, sv, err);
	return sv->deadline_timer ? 0 : -1;
}
