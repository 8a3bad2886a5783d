/* uml-lab down [SESSION]: a clean shutdown through the guests' init; by force after a time-out. */
#include "uml-lab/cmd/cmd.h"

struct down_options {
	bool force;
	int64_t timeout_ms;
};

static const struct cli_option options[] = {
	{"force", 'f', CLI_FLAG, offsetof(struct down_options, force), NULL, "pull the plug: no clean shutdown"},
	{"timeout", 't', CLI_DURATION, offsetof(struct down_options, timeout_ms), "TIME",
	 "how long the guests may take before they are forced (default: 30s)"},
	{NULL},
};

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct down_options *o = opaque;
	cleanup_target struct cmd_target target = CMD_TARGET_INIT;

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
