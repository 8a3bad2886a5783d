/* Waiting for several machines at once, by the states their supervisors tell. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/loop.h"
#include "uml-lab/machine/client.h"
#include "uml-lab/session/session_internal.h"

#define CANCEL_LOOK_MS 200	/* how soon a Ctrl-C that fell between two polls is seen */

void watched_free(struct watched *watched, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (watched[i].control >= 0)
			close(watched[i].control);
		free(watched[i].detail);
	}
	free(watched);
}

static void hang_up(struct watched *w)
{
	if (w->control >= 0)
		close(steal_fd(&w->control));
	w->done = true;
}

static void tell(const struct watch_options *options, const struct watched *w)
{
	if (options->progress)
		options->progress(options->progress_arg, w->name, machine_state_name(w->state), w->detail);
}

/* Takes one STATE frame of a machine. */
static void take_state(struct watched *w, const struct watch_options *options)
{
	struct error err = ERROR_INIT;
	enum machine_state state = w->state;
	char *detail = NULL;
	int got = machine_watch_next(w->control, &state, &detail, &err);

	if (got <= 0) {
		/* Gone: as it should be when its end is waited for. */
		w->failed = options->until != MACHINE_STOPPED;
		if (w->failed && !w->detail)
			w->detail = strdup(got < 0 ? err.message : "its supervisor ended");
		hang_up(w);
		return;
	}
	free(w->detail);
	w->detail = detail;
	w->state = state;
	tell(options, w);
	if (options->until == MACHINE_STOPPED)
		return;
	if (state == MACHINE_FAILED || state == MACHINE_STOPPED) {
		w->failed = true;
		hang_up(w);
	} else if (state == options->until) {
		/* Ready with something to say: a setup or startup script failed. The machine stays up for a look. */
		w->failed = detail && detail[0];
		hang_up(w);
	}
}

static int wait_once(struct watched *watched, size_t count, const struct watch_options *options, int64_t left)
{
	cleanup_free struct pollfd *polls = calloc(count, sizeof(*polls));
	int timeout = left < CANCEL_LOOK_MS || !options->cancel ? (int)left : CANCEL_LOOK_MS;

	if (!polls)
		return -1;
	for (size_t i = 0; i < count; i++)
		polls[i] = (struct pollfd){.fd = watched[i].done ? -1 : watched[i].control, .events = POLLIN};
	if (poll(polls, count, timeout) < 0 && errno != EINTR)
		return -1;
	for (size_t i = 0; i < count; i++)
		if (polls[i].revents)
			take_state(&watched[i], options);
	return 0;
}

static size_t count_open(const struct watched *watched, size_t count)
{
	size_t open = 0;

	for (size_t i = 0; i < count; i++)
		open += !watched[i].done;
	return open;
}

static int sum_up(struct watched *watched, size_t count, const struct watch_options *options, struct error *err)
{
	struct findings findings = {0};
	enum error_kind kind = ERROR_TIMEOUT;

	for (size_t i = 0; i < count; i++) {
		struct watched *w = &watched[i];

		if (w->failed) {
			kind = ERROR_FAILED;
			findings_add(&findings, "%s: %s%s%s", w->name, machine_state_name(w->state),
				     w->detail && w->detail[0] ? ": " : "", w->detail ?: "");
		} else if (!w->done) {
			findings_add(&findings, "%s: still %s%s%s after %lld s", w->name,
				     machine_state_name(w->state), w->detail && w->detail[0] ? " " : "",
				     w->detail ?: "", (long long)(options->timeout_ms / 1000));
		}
	}
	return findings_result(&findings, kind,
			       options->until == MACHINE_READY ? "not all machines became ready"
							       : "not all machines stopped", err);
}

int session_watch(struct watched *watched, size_t count, const struct watch_options *options, struct error *err)
{
	int64_t end = loop_now_ms() + options->timeout_ms;

	while (count_open(watched, count)) {
		int64_t left = end - loop_now_ms();

		if (options->cancel && *options->cancel)
			return error_set(err, ERROR_FAILED, "interrupted");
		if (left <= 0)
			break;
		if (wait_once(watched, count, options, left) < 0)
			return error_errno(err, errno, "cannot wait for machines");
	}
	return sum_up(watched, count, options, err);
}
