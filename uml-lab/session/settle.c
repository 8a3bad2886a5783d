/*
 * Making session.yml true: a supervisor that was killed could not write what
 * happened. Whoever looks next finds that the process named there is gone,
 * sweeps what it left, and writes down that it was killed.
 */
#include <poll.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"
#include "uml-lab/session/session_internal.h"

#define ENDING_MS 5000	/* a supervisor that told its last state stays a second at most, for who wants to hear it */

bool session_machine_runs(const struct session_machine *machine)
{
	return process_alive(&machine->supervisor);
}

bool session_runs(const struct session *session)
{
	for (size_t i = 0; i < session->machine_count; i++)
		if (session_machine_runs(&session->machines[i]))
			return true;
	return false;
}

static bool claims_to_run(const struct session_machine *m)
{
	return m->ever_started && m->state != MACHINE_STOPPED && m->state != MACHINE_FAILED;
}

static bool is_stale(const struct session_machine *m)
{
	return claims_to_run(m) && !session_machine_runs(m);
}

static int settle_machine(const struct session *s, struct session_machine *m, struct error *err)
{
	struct process_id left[] = {m->kernel_process, m->plug, m->disk_server, m->hostfs};
	cleanup_free char *runtime = session_runtime(s->name, m->name, err);
	struct error swept = ERROR_INIT;

	if (!runtime)
		return -1;
	/* A supervisor that starts right now holds the runtime folder: then there is nothing to settle. */
	if (machine_sweep(runtime, left, ARRAY_SIZE(left), &swept) < 0) {
		if (swept.kind == ERROR_STATE)
			return 0;
		error_copy(err, &swept);
		return -1;
	}
	rmdir(runtime);
	free(m->cause);
	m->cause = str_dup("its supervisor was killed, or the host was restarted; the overlay is as the guest left it", err);
	free(m->changed);
	m->changed = session_now(err);
	m->state = MACHINE_FAILED;
	m->supervisor = m->kernel_process = m->plug = m->disk_server = m->hostfs = (struct process_id){0};
	strv_free(&m->forwards);
	return m->cause && m->changed ? 0 : -1;
}

static int settle_all(struct session *s, void *arg, struct error *err)
{
	(void)arg;
	for (size_t i = 0; i < s->machine_count; i++)
		if (is_stale(&s->machines[i]) && settle_machine(s, &s->machines[i], err) < 0)
			return -1;
	return 0;
}

int session_settle_killed(struct session *session, struct error *err)
{
	bool any = false;

	for (size_t i = 0; i < session->machine_count; i++)
		any |= is_stale(&session->machines[i]);
	if (!any)
		return 0;
	if (session_update(session->name, settle_all, NULL, err) < 0 || session_reload(session, err) < 0)
		return -1;
	return session_networks_end(session, err);
}

static void wait_ending(const struct session_machine *m)
{
	cleanup_close int pidfd = m->supervisor.pid ? (int)syscall(SYS_pidfd_open, m->supervisor.pid, 0) : -1;
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	if (pidfd >= 0 && session_machine_runs(m) && poll(&p, 1, ENDING_MS) == 0)
		log_warn("%s has ended, but its supervisor has not within %d s", m->name, ENDING_MS / 1000);
}

int session_settle(struct session *session, struct error *err)
{
	for (size_t i = 0; i < session->machine_count; i++)
		if (session->machines[i].ever_started && !claims_to_run(&session->machines[i]))
			wait_ending(&session->machines[i]);
	return session_settle_killed(session, err);
}
