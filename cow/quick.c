/*
 * uml-cow: the subcommands that need libcow and nothing else, in a small static program, since `create` is
 * done in less time than the loading of libfuse3 or libext2fs would take. Everything else, the overview and
 * the telling of unknown verbs included, is uml-cow-all's (main.c), which knows all subcommands.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#include "cow/cmd.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"

static const struct cli_command *const commands[] = {
	&cow_cmd_create,  &cow_cmd_info,    &cow_cmd_map,   &cow_cmd_diff,
	&cow_cmd_commit,  &cow_cmd_flatten, &cow_cmd_merge, &cow_cmd_rebase,
	&cow_cmd_convert, &cow_cmd_compact, &cow_cmd_check, NULL,
};

static bool is_ours(const char *verb)
{
	for (const struct cli_command *const *c = commands; *c; c++)
		if (str_eq((*c)->name, verb))
			return true;
	return false;
}

/* Becomes uml-cow-all; returns only when it can't. */
static int become_all(char **argv)
{
	struct error err = ERROR_INIT;
	cleanup_free char *program = dirs_own("uml-cow-all", &err);

	if (program) {
		execv(program, argv);
		error_errno(&err, errno, "cannot start %s", program);
	}
	error_print("uml-cow", &err);
	return (int)err.kind;
}

int main(int argc, char **argv)
{
	return argc > 1 && is_ours(argv[1]) ? cow_cmd_main(commands, argc, argv) : become_all(argv);
}
