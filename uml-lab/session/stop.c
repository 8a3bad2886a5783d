/* Stopping: every supervisor is asked at once, then their ends are waited for side by side. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/machine/client.h"
#include "uml-lab/session/session_internal.h"

#define AFTER_GRACE_MS 15000	/* for the supervisor's own tidying, after the guest's time is over */

/* A supervisor that does not answer its socket, though it lives: ended by its id, the guest with it. */
static void end_deaf(const struct session_machine *m)
{
	if (process_alive(&m->supervisor))
		kill(m->supervisor.pid, SIGKILL);
}

static int ask_all(struct session *s, const struct strv *names, bool force, int timeout_ms, struct watched *watched,
		   size_t *count, struct error *err)
{
	for (size_t i = 0; i < s->machine_count; i++) {
		struct session_machine *m = &s->machines[i];
		struct watched *w = &watched[*count];
		cleanup_free char *runtime = NULL;

		if (!session_is_named(names, m->name) || !session_machine_runs(m))
			continue;
		runtime = session_runtime(s->name, m->name, err);
		if (!runtime)
			return -1;
		*w = (struct watched){.name = m->name, .state = MACHINE_STOPPING};
		w->control = machine_connect(runtime, NULL);
		if (w->control < 0 || machine_stop_start(w->control, force, timeout_ms, NULL) < 0)
			end_deaf(m);
		w->done = w->control < 0;
		(*count)++;
	}
	return 0;
}

int session_stop(struct session *session, const struct strv *names, bool force, int timeout_ms,
		 session_progress_fn progress, void *arg, struct error *err)
{
	struct watch_options options = {
		.until = MACHINE_STOPPED,
		.timeout_ms = (force ? 0 : timeout_ms) + AFTER_GRACE_MS,
		.progress = progress,
		.progress_arg = arg,
	};
	struct watched *watched;
	size_t count = 0;
	int result;

	if (session_check_names(session, names, err) < 0 || session_settle(session, err) < 0)
		return -1;
	watched = calloc(session->machine_count + 1, sizeof(*watched));
	if (!watched)
		return error_oom(err);
	result = ask_all(session, names, force, timeout_ms, watched, &count, err);
	if (result == 0 && !count)
		result = error_set(err, ERROR_STATE, "session %s is not running", session->name);
	else if (result == 0)
		result = session_watch(watched, count, &options, err);
	watched_free(watched, count);
	return result;
}
