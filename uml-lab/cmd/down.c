/* uml-lab down [SESSION]: a clean shutdown through the guests' init; by force after a time-out. */
#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"

#define GRACE_MS 30000

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
	cleanup_free char *name = NULL, *machine = NULL;
	cleanup_session struct session *s = NULL;
	cleanup_progress struct progress *progress = NULL;
	cleanup_strv struct strv only = STRV_INIT;
	cleanup_close int lock = -1;

	if (session_resolve(cmd_operand(operands, 0), &name, &machine, false, err) < 0 ||
	    (machine && strv_add(&only, machine, err) < 0))
		return -1;
	lock = session_lock(name, SESSION_LOCK_MS, err);
	s = lock < 0 ? NULL : session_load(name, err);
	progress = s ? progress_new(s, &only, err) : NULL;
	if (!progress)
		return -1;
	if (session_stop(s, &only, o->force, o->timeout_ms ? (int)o->timeout_ms : GRACE_MS, progress_tell, progress,
			 err) < 0)
		return -1;
	return 0;
}

const struct cli_command cmd_down = {
	.name = "down",
	.operands = "[SESSION[/MACHINE]]",
	.summary = "Stop a session's machines; what was changed on them is kept",
	.options = options,
	.options_size = sizeof(struct down_options),
	.max_operands = 1,
	.run = run,
};
