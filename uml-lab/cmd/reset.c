/* uml-lab reset [SESSION [MACHINE…]]: fresh overlays, the machines as first started; or as a snapshot has them. */
#include <unistd.h>

#include "uml-lab/cmd/cmd.h"

struct reset_options {
	bool yes;
	const char *to;
	int64_t timeout_ms;
};

static const struct cli_option options[] = {
	{"to", 0, CLI_STRING, offsetof(struct reset_options, to), "SNAPSHOT",
	 "back to this snapshot instead of the base"},
	{"yes", 'y', CLI_FLAG, offsetof(struct reset_options, yes), NULL, "do not ask"},
	{"timeout", 't', CLI_DURATION, offsetof(struct reset_options, timeout_ms), "TIME",
	 "how long machines that ran may take until ready again (default: 120s)"},
	{NULL},
};

/* Asks on the terminal; without one, --yes must have been given. */
static int confirm(const char *session, const struct strv *only, struct error *err)
{
	char answer[16];

	if (!isatty(STDIN_FILENO)) {
		error_set(err, ERROR_USAGE, "reset throws away what was changed on the machines, and there is no terminal to "
					    "ask on");
		return error_hint(err, "say --yes");
	}
	fprintf(stderr, "Throw away everything that was changed on ");
	for (size_t i = 0; i < only->count; i++)
		fprintf(stderr, "%s%s", i ? ", " : "", only->items[i]);
	fprintf(stderr, "%s of session %s? [y/N] ", only->count ? "" : "all machines", session);
	if (!fgets(answer, sizeof(answer), stdin) || (answer[0] != 'y' && answer[0] != 'Y'))
		return error_set(err, ERROR_FAILED, "nothing was reset");
	return 0;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct reset_options *o = opaque;
	cleanup_target struct cmd_target target = CMD_TARGET_INIT;
	struct session_start_options start;

	if (cmd_target_choose(&target, operands, err) < 0)
		return -1;
	if (!o->yes && confirm(target.name, &target.only, err) < 0)
		return -1;
	if (cmd_target_take(&target, err) < 0)
		return -1;
	start = cmd_target_start(&target, o->timeout_ms);
	return session_reset(target.session, o->to, &target.only, &start, err);
}

const struct cli_command cmd_reset = {
	.name = "reset",
	.operands = "[SESSION [MACHINE…]]",
	.summary = "Throw away what was changed: machines come back exactly as first started, or as a snapshot has them",
	.help = "Machines that run are stopped at once and started again on their fresh overlay; others stay stopped. Snapshots "
		"stay. With --to the machines come back as a snapshot has them.",
	.options = options,
	.options_size = sizeof(struct reset_options),
	.max_operands = -1,
	.run = run,
};
