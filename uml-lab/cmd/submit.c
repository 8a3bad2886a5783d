/* uml-lab submit [SESSION] -o FILE: a session in one file, to be handed in. */
#include <stdlib.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"
#include "uml-lab/submission/submission.h"

struct submit_options {
	const char *output;
	bool replace, json;
};

static const struct cli_option options[] = {
	{"output", 'o', CLI_STRING, offsetof(struct submit_options, output), "FILE",
	 "the file to write; must be given"},
	{"replace", 0, CLI_FLAG, offsetof(struct submit_options, replace), NULL,
	 "replace a file that is there"},
	{"json", 0, CLI_FLAG, offsetof(struct submit_options, json), NULL, "tell what is in it as JSON"},
	{NULL},
};

static void print_machine(const struct submission_machine *m)
{
	printf("  %s: what changed on its disk since %s", m->name, m->base);
	if (m->disk_count > 1)
		printf(", and %zu extra disk%s", m->disk_count - 1, m->disk_count == 2 ? "" : "s");
	printf("\n");
}

static int report(const struct submit_options *o, const struct submission *what, uint64_t bytes,
		  struct error *err)
{
	const struct session_last_check *c = &what->check;
	char size[24];

	if (o->json)
		return cmd_print_json(json_pack("{s:s, s:I, s:o}", "file", o->output, "bytes",
						(json_int_t)bytes, "manifest", submission_to_json(what, err)),
				      err);
	if (cli_quiet)
		return 0;
	printf("%s is ready to be handed in (%s). In it, of %s:\n", o->output,
	       str_human_size(bytes, size, sizeof(size)), what->student);
	printf("  lab %s, session %s, %s, %s\n", what->lab, what->session, what->time,
	       what->running ? "copied while it ran" : "stopped");
	for (size_t i = 0; i < what->machine_count; i++)
		print_machine(&what->machines[i]);
	if (c->time)
		printf("  the last check, %s: %d passed, %d failed, %d skipped; %d of %d points\n", c->time,
		       c->passed, c->failed, c->skipped, c->points, c->points_of);
	else
		printf("  it was not checked since its last reset: uml-lab check %s\n", what->session);
	return 0;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct submit_options *o = opaque;
	const struct submission_submit_options how = {
		.output = o->output, .replace = o->replace, .cancel = cmd_catch_signals()};
	cleanup_target struct cmd_target target = CMD_TARGET_INIT;
	cleanup_submission struct submission *what = NULL;
	uint64_t bytes = 0;

	if (!o->output || !*o->output)
		return error_set(err, ERROR_USAGE, "where shall it go? say -o FILE");
	if (session_resolve(cmd_operand(operands, 0), &target.name, NULL, false, err) < 0 ||
	    cmd_target_take(&target, err) < 0 ||
	    submission_submit(target.session, &how, &what, &bytes, err) < 0)
		return -1;
	return report(o, what, bytes, err);
}

const struct cli_command cmd_submit = {
	.name = "submit",
	.operands = "[SESSION]",
	.summary = "Write a session into one file, to be handed in",
	.help = "In the file: what changed on the disks of all machines, the lab as it was instantiated, "
		"your login name, the time, the "
		"parameters and the result of the last check; never the base image. Machines may run: they "
		"stand still for a "
		"moment. The file appears when it is whole. Others read it with `uml-lab open` and `uml-lab "
		"collect`; see "
		"uml-lab-submission(5).",
	.options = options,
	.options_size = sizeof(struct submit_options),
	.max_operands = 1,
	.run = run,
};
