/*
 * diff: what changed in the files of a machine since its base.
 *
 * The disk's file system is what a guest made of it; a child, `uml-cow diff-files`, that can reach nothing
 * else takes it apart. A machine that runs is told to freeze its file systems: then everything it wrote is in the
 * overlay, which does not change until they are thawed. The child gets less time than the guest's own limit.
 */
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "uml-lab/base/child.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/file.h"
#include "uml-lab/machine/client.h"
#include "uml-lab/session/session_internal.h"

#define DIFF_MAX       (64u << 20) /* bytes of output */
#define DIFF_MS        120000
#define DIFF_FROZEN_MS 12000 /* below FREEZE_LIMIT_MS of the agent */

static int build_argv(const struct session *s, const char *machine, const struct session_diff_options *o, bool frozen,
		      struct strv *argv, struct error *err)
{
	const struct session_machine *m = session_find_machine((struct session *)s, machine);
	cleanup_free char *program = dirs_own("uml-cow-all", err), *folder = session_machine_folder(s, machine, err);
	cleanup_free char *overlay = session_overlay(s, machine, err), *base = m->base ? str_dup(m->base, err) : NULL;

	if (!program || !folder || !overlay || strv_add(argv, program, err) < 0 || strv_add(argv, "diff-files", err) < 0 ||
	    strv_addf(argv, err, "--outside=%s", folder) < 0 ||
	    (base && strv_addf(argv, err, "--allow=%s", dirname(base)) < 0) ||
	    (frozen && strv_add(argv, "--frozen", err) < 0) || (o->patch && strv_add(argv, "--patch", err) < 0) ||
	    (o->json && strv_add(argv, "--json", err) < 0) || strv_add(argv, "--", err) < 0 || strv_add(argv, overlay, err) < 0)
		return -1;
	for (size_t i = 0; o->paths && i < o->paths->count; i++)
		if (strv_add(argv, o->paths->items[i], err) < 0)
			return -1;
	return 0;
}

/* A machine that was never started has changed nothing. */
static bool has_disk(const struct session *s, const char *machine)
{
	cleanup_free char *overlay = session_overlay(s, machine, NULL);

	return overlay && file_exists(overlay);
}

static int run_diff(const struct session *s, const char *machine, const struct session_diff_options *o, bool frozen,
		    char **output, struct error *err)
{
	cleanup_strv struct strv argv = STRV_INIT;
	struct child_spec spec = {.null_stdin = true};
	int status;

	if (build_argv(s, machine, o, frozen, &argv, err) < 0)
		return -1;
	spec.argv = (const char *const *)argv.items;
	if (child_capture(&spec, frozen ? DIFF_FROZEN_MS : DIFF_MS, DIFF_MAX, false, output, &status, err) < 0)
		return error_prefix(err, "cannot compare the disk of machine %s", machine);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	free(steal_ptr(output));
	return error_set(err, ERROR_FAILED, "cannot compare the disk of machine %s with its base", machine);
}

static int diff_running(const struct session *s, const char *machine, const struct session_diff_options *o, char **output,
			struct error *err)
{
	cleanup_free char *runtime = session_runtime(s->name, machine, err), *answer = NULL, *thawed = NULL;
	cleanup_close int control = runtime ? machine_connect(runtime, err) : -1;
	int64_t pause;
	int result;

	if (control < 0)
		return -1;
	answer = machine_request(control, MACHINE_REQUEST_STILL, "freeze", err);
	if (!answer)
		return error_prefix(err, "cannot hold machine %s still", machine);
	result = run_diff(s, machine, o, true, output, err);
	thawed = machine_request(control, MACHINE_REQUEST_STILL, "thaw", result ? NULL : err);
	if (result < 0)
		return -1;
	if (thawed && str_to_i64(thawed, 0, INT64_MAX, &pause) == 0)
		return 0;
	free(steal_ptr(output));
	return thawed ? error_set(err, ERROR_TIMEOUT, "machine %s could not be held still for long enough", machine)
		      : error_prefix(err, "machine %s", machine);
}

char *session_diff(const struct session *session, const char *machine, const struct session_diff_options *options,
		   struct error *err)
{
	const struct session_machine *m = session_find_machine((struct session *)session, machine);
	char *output = NULL;

	if (!m) {
		error_set(err, ERROR_NOT_FOUND, "session %s has no machine %s", session->name, machine);
		return NULL;
	}
	if (!has_disk(session, machine))
		return str_dup(options->json ? "[]" : "", err);
	if (session_machine_runs(m) ? diff_running(session, machine, options, &output, err) < 0
				    : run_diff(session, machine, options, false, &output, err) < 0)
		return NULL;
	return output;
}
