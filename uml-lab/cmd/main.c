/* uml-lab: dispatch. Every verb is an entry of this table and a file beside this one. */
#include "uml-lab/cmd/cmd.h"

static const struct cli_command *const commands[] = {
	&cmd_up, &cmd_down, &cmd_restart, &cmd_reset, &cmd_status, &cmd_list, &cmd_log, &cmd_console, &cmd_shell,
	&cmd_exec, &cmd_copy, &cmd_diff, &cmd_check,
	&cmd_snapshot_create, &cmd_snapshot_list, &cmd_snapshot_restore, &cmd_snapshot_remove,
	&cmd_net, &cmd_capture, &cmd_forward, &cmd_disk,
	&cmd_submit, &cmd_open, &cmd_collect,
	&cmd_validate, &cmd_schema,
	&cmd_image_build, &cmd_image_import, &cmd_image_list, &cmd_image_show, &cmd_image_remove, &cmd_publish,
	&cmd_doctor, &cmd_gc, &cmd_completion, &cmd_man, &cmd_supervise, &cmd_networks, &cmd_clean_disk, &cmd_read_submission, NULL,
};

const struct cli_program uml_lab_program = {
	.name = "uml-lab",
	.summary = "labs of user-mode Linux machines, without any privilege on the host",
	.version = UML_LAB_VERSION,
	.commands = commands,
};

int main(int argc, char **argv)
{
	return cli_main(&uml_lab_program, argc, argv);
}
