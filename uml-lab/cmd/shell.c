/* uml-lab shell SESSION[/MACHINE]: a root shell through the agent, with a terminal. */
#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"
#include "uml-lab/machine/client.h"

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	struct machine_exec exec = {.terminal = true};
	cleanup_close int control = -1;

	(void)opaque;
	if (cmd_need_terminal("shell", err) < 0)
		return -1;
	control = session_connect(cmd_operand(operands, 0), err);
	return control < 0 ? -1 : machine_exec(control, &exec, err);
}

const struct cli_command cmd_shell = {
	.name = "shell",
	.operands = "[SESSION[/MACHINE]]",
	.summary = "Open a root shell on a machine",
	.max_operands = 1,
	.run = run,
};
