/* uml-cow-all: every subcommand over libcow. People call it through uml-cow (quick.c). */
#include <stddef.h>

#include "cow/cmd.h"

static const struct cli_command *const commands[] = {
	&cow_cmd_create,     &cow_cmd_info,  &cow_cmd_map,    &cow_cmd_diff,    &cow_cmd_commit,
	&cow_cmd_flatten,    &cow_cmd_merge, &cow_cmd_rebase, &cow_cmd_convert, &cow_cmd_compact,
	&cow_cmd_check,      &cow_cmd_mount, &cow_cmd_umount, &cow_cmd_files,   &cow_cmd_cat,
	&cow_cmd_diff_files, &cow_cmd_serve, NULL,
};

int main(int argc, char **argv)
{
	return cow_cmd_main(commands, argc, argv);
}
