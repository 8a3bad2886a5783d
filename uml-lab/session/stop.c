/* Stopping: every supervisor is asked at once, then their ends are waited for side by side. */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/machine/client.h"
#include "uml-lab/session/session_internal.h"

#define AFTER_GRACE_MS 15000	/* for the supervisor's own tidying, after the guest's time is over */

/* A machine that is being stopped: its supervisor as a descriptor, which can be waited for. */
struct stopping {
	struct watched *watched;
	int *pidfds;
	size_t count;
};

/* A supervisor that does not answer its socket, though it lives: ended by its id, the guest with it. */
static void end_deaf(const struct session_machine *m)
{
	if (process_alive(&m->supervisor))
		kill(m->supervisor.pid, SIGKILL);
}

static int ask(struct session *s, struct session_machine *m, bool force, int timeout_ms, struct stopping *all,
	       struct error *err)
{
	cleanup_free char *runtime = session_runtime(s->name, m->name, err);
	struct watched *w = &all->watched[all->count];

	if (!runtime)
		return -1;
	*w = (struct watched){.name = m->name, .state = MACHINE_STOPPING, .control = -1};
	all->pidfds[all->count++] = (int)syscall(SYS_pidfd_open, m->supervisor.pid, 0);
	w->control = machine_connect(runtime, NULL);
	if (w->control < 0 || machine_stop_start(w->control, force, timeout_ms, NULL) < 0)
		end_deaf(m);
	w->done = w->control < 0;
	return 0;
}

static int ask_all(struct session *s, const struct strv *names, bool force, int timeout_ms, struct stopping *all,
		   struct error *err)
{
	for (size_t i = 0; i < s->machine_count; i++) {
		struct session_machine *m = &s->machines[i];

		if (session_is_named(names, m->name) && session_machine_runs(m) &&
		    ask(s, m, force, timeout_ms, all, err) < 0)
			return -1;
	}
	return 0;
}

/* The last words are said before the process ends: who asks next whether it runs must hear no. */
static int wait_gone(const struct stopping *all, struct error *err)
{
	for (size_t i = 0; i < all->count; i++) {
		struct pollfd p = {.fd = all->pidfds[i], .events = POLLIN};

		if (p.fd >= 0 && poll(&p, 1, AFTER_GRACE_MS) == 0)
			return error_set(err, ERROR_TIMEOUT, "%s has stopped, but its supervisor did not end within %d s",
					 all->watched[i].name, AFTER_GRACE_MS / 1000);
	}
	return 0;
}

static void stopping_free(struct stopping *all)
{
	for (size_t i = 0; i < all->count; i++)
		if (all->pidfds[i] >= 0)
			close(all->pidfds[i]);
	free(all->pidfds);
	watched_free(all->watched, all->count);
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
	struct stopping all = {0};
	int result = -1;

	if (session_check_names(session, names, err) < 0 || session_settle(session, err) < 0)
		return -1;
	all.watched = calloc(session->machine_count + 1, sizeof(*all.watched));
	all.pidfds = calloc(session->machine_count + 1, sizeof(*all.pidfds));
	if (!all.watched || !all.pidfds)
		error_oom(err);
	else if (ask_all(session, names, force, timeout_ms, &all, err) == 0)
		result = 0;
	if (result == 0 && !all.count)
		result = error_set(err, ERROR_STATE, "session %s is not running", session->name);
	else if (result == 0)
		result = session_watch(all.watched, all.count, &options, err);
	if (result == 0)
		result = wait_gone(&all, err);
	stopping_free(&all);
	/* One that had to be killed could not write its end down. */
	if (result == 0)
		result = session_settle(session, err);
	return result < 0 || session_reload(session, err) < 0 ? -1 : session_networks_end(session, err);
}
