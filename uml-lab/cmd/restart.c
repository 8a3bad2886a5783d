/* uml-lab restart [SESSION [MACHINE…]]: a clean stop and a start. */
#include "uml-lab/cmd/cmd.h"

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
	cleanup_target struct cmd_target target = CMD_TARGET_INIT;
	struct session_start_options start;

	if (cmd_target_choose(&target, operands, err) < 0 || cmd_target_take(&target, err) < 0)
		return -1;
	start = cmd_target_start(&target, o->timeout_ms);
	if (session_stop(target.session, &target.only, false, CMD_GRACE_MS, progress_tell, target.progress, err) < 0 &&
	    err->kind != ERROR_STATE)
		return -1;
	if (session_check_start(target.session, &start, NULL, err) < 0)
		return -1;
	return session_start(target.session, &start, err);
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
