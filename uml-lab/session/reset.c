/*
 * Reset: the machine as on its first start, or as a snapshot has it. What runs is
 * stopped at once (its changes are about to be thrown away), the disks are put
 * back, and what ran is started again. Where there are no snapshots a fresh overlay takes the
 * old one's name by rename; else snapshot.c does it.
 */
#include <stdlib.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/session/session_internal.h"

static int fresh_all(struct session *s, void *arg, struct error *err)
{
	const struct strv *names = arg;

	last_check_free(&s->last_check); /* what was graded is gone */
	for (size_t i = 0; i < s->lab->machine_count; i++) {
		const struct lab_machine *lm = &s->lab->machines[i];
		struct session_machine *m = session_find_machine(s, lm->name);

		if (!session_is_named(names, lm->name))
			continue;
		if (session_machine_runs(m))
			return error_set(err, ERROR_STATE, "machine %s was started again meanwhile", lm->name);
		if (session_fresh_disks(s, lm, err) < 0)
			return error_prefix(err, "cannot make a fresh overlay for %s", lm->name);
		free(m->cause);
		m->cause = NULL;
		m->ever_started = false;
	}
	return 0;
}

/* Whether no file but the overlays themselves is needed. */
static bool is_plain(const struct session *s)
{
	for (size_t i = 0; i < s->machine_count; i++)
		if (s->machines[i].disks.count || s->machines[i].next_disks.count)
			return false;
	return s->snapshot_count == 0;
}

int session_reset(struct session *session, const char *to, const struct strv *names,
		  const struct session_start_options *options, struct error *err)
{
	cleanup_strv struct strv ran = STRV_INIT;
	struct session_start_options again = *options;

	if (session_check_names(session, names, err) < 0 || (to && session_check_snapshot(session, to, err) < 0) ||
	    session_settle(session, err) < 0)
		return -1;
	for (size_t i = 0; i < session->machine_count; i++) {
		struct session_machine *m = &session->machines[i];

		if (session_is_named(names, m->name) && session_machine_runs(m) && strv_add(&ran, m->name, err) < 0)
			return -1;
	}
	if (ran.count && session_stop(session, &ran, true, 0, options->progress, options->progress_arg, err) < 0)
		return -1;
	if (!to && is_plain(session) ? session_update(session->name, fresh_all, (void *)names, err) < 0
				     : session_put_back(session, to, names, err) < 0)
		return -1;
	if (!ran.count)
		return 0;
	again.only = &ran;
	return session_start(session, &again, err);
}
