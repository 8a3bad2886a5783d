/* uml-lab restart [SESSION [MACHINE…]]: a clean stop and a start. */
#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"

#define GRACE_MS 30000

struct restart_options {
	int64_t timeout_ms;
};

static const struct cli_option options[] = {
	{"timeout", 't', CLI_DURATION, offsetof(struct restart_options, timeout_ms), "TIME",
	 "how long to wait until ready again (default: 120s)"},
	{NULL},
};

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct restart_options *o = opaque;
	cleanup_free char *name = NULL;
	cleanup_session struct session *s = NULL;
	cleanup_progress struct progress *progress = NULL;
	cleanup_strv struct strv only = STRV_INIT;
	cleanup_close int lock = -1;

	if (session_resolve(cmd_operand(operands, 0), &name, NULL, false, err) < 0)
		return -1;
	for (size_t i = 1; i < operands->count; i++)
		if (strv_add(&only, operands->items[i], err) < 0)
			return -1;
	lock = session_lock(name, SESSION_LOCK_MS, err);
	s = lock < 0 ? NULL : session_load(name, err);
	progress = s ? progress_new(s, &only, err) : NULL;
	if (!progress)
		return -1;
	struct session_start_options start = {
		.only = &only,
		.wait = SESSION_WAIT_READY,
		.timeout_ms = o->timeout_ms ? o->timeout_ms : 120000,
		.progress = progress_tell,
		.progress_arg = progress,
		.cancel = cmd_catch_signals(),
	};

	if (session_stop(s, &only, false, GRACE_MS, progress_tell, progress, err) < 0 && err->kind != ERROR_STATE)
		return -1;
	if (session_check_start(s, &start, NULL, err) < 0)
		return -1;
	return session_start(s, &start, err);
}

const struct cli_command cmd_restart = {
	.name = "restart",
	.operands = "[SESSION [MACHINE…]]",
	.summary = "Stop machines cleanly and start them again",
	.options = options,
	.options_size = sizeof(struct restart_options),
	.max_operands = -1,
	.run = run,
};
