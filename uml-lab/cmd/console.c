/* uml-lab console SESSION[/MACHINE]: the login console. */
#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"
#include "uml-lab/machine/client.h"

#define REPLAY_BYTES 4096	/* of what was printed before; of that a windowful */

struct console_options {
	bool read_only;
};

static const struct cli_option options[] = {
	{"read-only", 'r', CLI_FLAG, offsetof(struct console_options, read_only), NULL, "look, but send nothing"},
	{NULL},
};

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct console_options *o = opaque;
	cleanup_close int control = -1;

	if (cmd_need_terminal("console", err) < 0)
		return -1;
	control = session_connect(cmd_operand(operands, 0), err);
	if (control < 0)
		return -1;
	if (!cli_quiet)
		fprintf(stderr, "Connected; Ctrl-] detaches.\r\n");
	return machine_console(control, REPLAY_BYTES, o->read_only, err);
}

const struct cli_command cmd_console = {
	.name = "console",
	.operands = "[SESSION[/MACHINE]]",
	.summary = "Attach to a machine's login console; Ctrl-] detaches",
	.options = options,
	.options_size = sizeof(struct console_options),
	.max_operands = 1,
	.run = run,
};
