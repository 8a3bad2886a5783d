/* uml-lab exec SESSION[/MACHINE] -- CMD…: one command as root, its streams and its exit status. */
#include <errno.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"
#include "uml-lab/machine/client.h"

struct exec_options {
	int64_t timeout_ms;
	bool terminal, no_stdin;
	const char *cwd;
	struct strv env;
};

static const struct cli_option options[] = {
	{"timeout", 't', CLI_DURATION, offsetof(struct exec_options, timeout_ms), "TIME",
	 "kill the command after this time and end with 124"},
	{"tty", 0, CLI_FLAG, offsetof(struct exec_options, terminal), NULL, "give the command a terminal"},
	{"no-stdin", 'n', CLI_FLAG, offsetof(struct exec_options, no_stdin), NULL, "give it no input"},
	{"workdir", 'C', CLI_STRING, offsetof(struct exec_options, cwd), "FOLDER", "run it in this folder of the machine"},
	{"env", 'e', CLI_LIST, offsetof(struct exec_options, env), "K=V", "set a variable; may be repeated"},
	{NULL},
};

/* A command that could not be run ends as in a shell (POSIX sh, 2.8.2): 127 not found, 126 not executable. */
static int as_a_shell(int status, const struct error *err)
{
	bool missing = err->sys_errno == ENOENT, refused = err->sys_errno == EACCES || err->sys_errno == ENOEXEC;

	if (status >= 0 || (!missing && !refused))
		return status;
	error_print(uml_lab_program.name, err);
	return missing ? 127 : 126;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct exec_options *o = opaque;
	struct machine_exec exec = {
		.argv = (const char *const *)operands->items + 1,
		.cwd = o->cwd,
		.env = (const char *const *)o->env.items,
		.terminal = o->terminal,
		.no_stdin = o->no_stdin,
		.timeout_ms = o->timeout_ms,
	};
	cleanup_close int control = -1;

	if (o->terminal && cmd_need_terminal("exec --tty", err) < 0)
		return -1;
	control = session_connect(operands->items[0], err);
	return control < 0 ? -1 : as_a_shell(machine_exec(control, &exec, err), err);
}

const struct cli_command cmd_exec = {
	.name = "exec",
	.operands = "SESSION[/MACHINE] -- COMMAND…",
	.summary = "Run a command on a machine as root; ends with the command's exit status",
	.help = "Standard input, output and error are the command's; signals reach it. 128 + N: signal N killed it;\n"
		"124: the time of --timeout ran out; 127 and 126: no such command, or one that cannot be run.",
	.options = options,
	.options_size = sizeof(struct exec_options),
	.min_operands = 2,
	.max_operands = -1,
	.operands_end_options = true,
	.run = run,
};
