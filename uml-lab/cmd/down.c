/*
 * uml-lab down [SESSION]: a clean shutdown through the guests' init; by force after a time-out. With --all, one `uml-lab down` for
 * each session, AT_ONCE beside each other: each locks, waits and tells what went wrong by itself.
 */
#include <stdlib.h>
#include <sys/wait.h>

#include "uml-lab/base/child.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/cmd/cmd.h"

#define AT_ONCE 16

struct down_options {
	bool all, force;
	int64_t timeout_ms;
};

static const struct cli_option options[] = {
	{"all", 'a', CLI_FLAG, offsetof(struct down_options, all), NULL, "all sessions that run"},
	{"force", 'f', CLI_FLAG, offsetof(struct down_options, force), NULL, "pull the plug: no clean shutdown"},
	{"timeout", 't', CLI_DURATION, offsetof(struct down_options, timeout_ms), "TIME",
	 "how long the guests may take before they are forced (default: 30s)"},
	{NULL},
};

static int spawn_down(const char *session, const struct down_options *o, struct child *child, struct error *err)
{
	cleanup_free char *program = file_absolute("/proc/self/exe", false, err);
	cleanup_free char *timeout = str_printf(err, "--timeout=%lldms", (long long)(o->timeout_ms ?: CMD_GRACE_MS));
	/* Quiet: their lines would be mixed, and those of a terminal drawn over each other. */
	const char *argv[] = {program, "down", "--quiet", session, timeout, o->force ? "--force" : NULL, NULL};
	struct child_spec spec = {.argv = argv, .null_stdin = true};

	if (!program || !timeout)
		return -1;
	return child_spawn(child, &spec, err);
}

/* Sessions first to first + count: how many were stopped is added to *stopped; those that could not be, to failed. */
static int stop_some(const struct strv *names, size_t first, size_t count, const struct down_options *o, size_t *stopped,
		     struct strv *failed, struct error *err)
{
	struct child children[AT_ONCE];
	size_t started = 0;
	int result = 0;

	while (result == 0 && started < count) {
		children[started] = (struct child)CHILD_INIT;
		result = spawn_down(names->items[first + started], o, &children[started], err);
		started += result == 0;
	}
	for (size_t i = 0; i < started; i++) {
		const char *name = names->items[first + i];
		int status = 0;

		if (child_wait(&children[i], -1, &status, err) < 0) {
			result = -1;
		} else if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
			++*stopped;
			if (!cli_quiet)
				printf("%s is stopped.\n", name);
		} else if (!(WIFEXITED(status) && WEXITSTATUS(status) == ERROR_STATE) && strv_add(failed, name, err) < 0) {
			result = -1;
		}
	}
	return result;
}

static int stop_all(const struct down_options *o, struct error *err)
{
	cleanup_strv struct strv names = STRV_INIT, running = STRV_INIT, failed = STRV_INIT;
	cleanup_strbuf struct strbuf list = STRBUF_INIT;
	size_t stopped = 0;

	if (session_names(&names, err) < 0)
		return -1;
	for (size_t i = 0; i < names.count; i++) {
		cleanup_session struct session *s = session_load(names.items[i], NULL);

		/* One that cannot be read says so itself. */
		if ((!s || session_runs(s)) && strv_add(&running, names.items[i], err) < 0)
			return -1;
	}
	for (size_t at = 0; at < running.count; at += AT_ONCE) {
		size_t count = running.count - at < AT_ONCE ? running.count - at : AT_ONCE;

		if (stop_some(&running, at, count, o, &stopped, &failed, err) < 0)
			return -1;
	}
	for (size_t i = 0; i < failed.count; i++)
		strbuf_printf(&list, "%s%s", i ? ", " : "", failed.items[i]);
	if (failed.count)
		return error_set(err, ERROR_FAILED, "not stopped: %s", list.data ?: "");
	return stopped ? 0 : error_set(err, ERROR_STATE, "no session is running");
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct down_options *o = opaque;
	cleanup_target struct cmd_target target = CMD_TARGET_INIT;

	if (o->all && operands->count)
		return error_set(err, ERROR_USAGE, "--all means all sessions: name none");
	if (o->all)
		return stop_all(o, err);
	if (cmd_target_choose(&target, operands, err) < 0 || cmd_target_take(&target, err) < 0)
		return -1;
	return session_stop(target.session, &target.only, o->force,
			    o->timeout_ms ? (int)o->timeout_ms : CMD_GRACE_MS, progress_tell, target.progress, err);
}

const struct cli_command cmd_down = {
	.name = "down",
	.operands = "[SESSION [MACHINE…]]",
	.summary = "Stop a session's machines; what was changed on them is kept",
	.options = options,
	.options_size = sizeof(struct down_options),
	.max_operands = -1,
	.run = run,
};
