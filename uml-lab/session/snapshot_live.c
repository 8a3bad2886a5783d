/*
 * Snapshots of machines that run, and merging under them.
 *
 * All machines' file systems are frozen first, then every disk is switched to a new top, then all are thawed: so the
 * snapshot is one moment of the whole session. Each step is asked of all machines before the first answer is
 * waited for, since the first to be frozen waits for the last. session.yml has the new
 * files' names (`next-disks:`) before anything is switched: whatever dies at whatever moment, the next
 * verb finds out which file is written (layers.c, was_switched()). A connection that closes thaws its machine.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/machine/client.h"
#include "uml-lab/session/session_internal.h"

#define WHOLE_MS  60000 /* for what is done to disks already */
#define FREEZE_MS 10000
#define SWITCH_MS 10000
#define THAW_MS   10000
#define MERGE_MS  (30 * 60 * 1000)

struct live_machine {
	const char *name;
	const struct strv *disks;	/* names of the new tops */
	int control;
};

struct live {
	const struct session *session;
	struct live_machine *machines;
	size_t count;
};

static void live_free(struct live *l)
{
	for (size_t i = 0; i < l->count; i++)
		if (l->machines[i].control >= 0)
			close(l->machines[i].control);
	free(l->machines);
}

/*
 * An extra disk that is out (uml-lab disk) could not be part of it, and one that is worked on would let the guest
 * stand still for long.
 */
static int has_its_disks(const struct live_machine *m, struct error *err)
{
	cleanup_free char *answer = NULL;

	if (machine_request_start(m->control, MACHINE_REQUEST_DISK, "whole", err) < 0)
		return -1;
	answer = machine_request_finish(m->control, WHOLE_MS, err);
	if (!answer && err && err->kind == ERROR_TIMEOUT)
		return error_set(err, ERROR_TIMEOUT,
				 "machine %s: its disks still take in what an earlier snapshot held; try again later", m->name);
	return answer ? 0 : error_prefix(err, "machine %s", m->name);
}

static int connect_machine(struct live *l, const struct live_switch *wanted, struct error *err)
{
	cleanup_free char *runtime = session_runtime(l->session->name, wanted->machine, err);
	struct live_machine *m = &l->machines[l->count];

	*m = (struct live_machine){.name = wanted->machine, .disks = wanted->disks};
	m->control = runtime ? machine_connect(runtime, err) : -1;
	if (m->control < 0)
		return error_prefix(err, "machine %s", wanted->machine);
	l->count++;
	return has_its_disks(m, err);
}

/* One step for all of them. answers: one a machine, malloc'ed, or NULL when nobody wants them. */
static int all_still(const struct live *l, const char *what, int timeout_ms, char **answers, struct error *err)
{
	for (size_t i = 0; i < l->count; i++)
		if (machine_request_start(l->machines[i].control, MACHINE_REQUEST_STILL, what, err) < 0)
			return error_prefix(err, "cannot %s machine %s", what, l->machines[i].name);
	for (size_t i = 0; i < l->count; i++) {
		char *answer = machine_request_finish(l->machines[i].control, timeout_ms, err);

		if (!answer)
			return error_prefix(err, "cannot %s machine %s", what, l->machines[i].name);
		if (answers)
			answers[i] = answer;
		else
			free(answer);
	}
	return 0;
}

static int start_switch(const struct live *l, const struct live_machine *m, size_t disk, struct error *err)
{
	cleanup_free char *path = layer_path(l->session, m->name, m->disks->items[disk], err);
	cleanup_free char *text = path ? str_printf(err, "snapshot %zu %s", disk, path) : NULL;

	return text ? machine_request_start(m->control, MACHINE_REQUEST_DISK, text, err) : -1;
}

/* All disks of all machines at once: each waits for the host's disk, and they wait for it together. */
static int switch_disks(const struct live *l, struct error *err)
{
	for (size_t i = 0; i < l->count; i++)
		for (size_t disk = 0; disk < l->machines[i].disks->count; disk++)
			if (start_switch(l, &l->machines[i], disk, err) < 0)
				return error_prefix(err, "cannot freeze disk %zu of machine %s", disk, l->machines[i].name);
	for (size_t i = 0; i < l->count; i++) {
		/* The answers come in any order; all of them have to be good. */
		for (size_t disk = 0; disk < l->machines[i].disks->count; disk++) {
			cleanup_free char *answer = machine_request_finish(l->machines[i].control, SWITCH_MS, err);

			if (!answer)
				return error_prefix(err, "cannot freeze the disks of machine %s", l->machines[i].name);
		}
	}
	return 0;
}

static int thaw_all(const struct live *l, struct session_snapshot_result *result, struct error *err)
{
	cleanup_free char **answers = calloc(l->count, sizeof(*answers));
	int done = answers ? all_still(l, "thaw", THAW_MS, answers, err) : error_oom(err);

	for (size_t i = 0; answers && i < l->count; i++) {
		int64_t pause = 0;

		if (done == 0 && str_to_i64(answers[i], 0, INT64_MAX, &pause) < 0)
			done = error_set(err, ERROR_TIMEOUT, "machine %s could not be held still for long enough",
					 l->machines[i].name);
		if (pause > result->pause_us) {
			result->pause_us = pause;
			snprintf(result->pause_machine, sizeof(result->pause_machine), "%s", l->machines[i].name);
		}
		free(answers[i]);
	}
	return done;
}

int snapshot_switch(const struct session *session, const struct live_switch *wanted, size_t count,
		    struct session_snapshot_result *result, struct error *err)
{
	struct live l = {.session = session, .machines = calloc(count + 1, sizeof(*l.machines))};
	int done = l.machines ? 0 : error_oom(err);

	for (size_t i = 0; done == 0 && i < count; i++)
		done = connect_machine(&l, &wanted[i], err);
	if (done == 0)
		done = all_still(&l, "freeze", FREEZE_MS, NULL, err);
	if (done == 0)
		done = switch_disks(&l, err);
	if (done == 0)
		done = thaw_all(&l, result, err);
	live_free(&l);
	return done;
}

/* ---- merging ---- */

static int merge_layer(const struct session *s, const char *machine, const char *file, bool raw, struct error *err)
{
	cleanup_free char *runtime = session_runtime(s->name, machine, err), *path = layer_path(s, machine, file, err);
	cleanup_close int control = runtime ? machine_connect(runtime, err) : -1;
	cleanup_free char *text = path ? str_printf(err, "%s %zu %s", raw ? "fold" : "merge", layer_disk(file), path) : NULL;
	cleanup_free char *answer = NULL;

	if (control < 0 || !text || machine_request_start(control, MACHINE_REQUEST_DISK, text, err) < 0)
		return -1;
	answer = machine_request_finish(control, MERGE_MS, err);
	return answer ? 0 : error_prefix(err, "cannot merge %s of machine %s", file, machine);
}

int snapshot_merge_running(const struct session *session, const char *machine, struct error *err)
{
	int found = 1;

	while (found > 0) {
		cleanup_free char *file = NULL;
		bool raw;

		found = layers_between(session, machine, &file, &raw, err);
		/* What was merged is needed no more. */
		if (found > 0 &&
		    (merge_layer(session, machine, file, raw, err) < 0 || layers_tidy(session, machine, NULL, err) < 0))
			return -1;
	}
	return found;
}
