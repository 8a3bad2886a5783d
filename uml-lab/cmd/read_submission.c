/* uml-lab __read-submission: the process that takes a submission apart (submission/child.c). Not for people.
 */
#include "uml-lab/cmd/cmd.h"
#include "uml-lab/submission/submission.h"

struct read_options {
	bool head;
	uint64_t max_size, outputs;
};

static const struct cli_option options[] = {
	{"head", 0, CLI_FLAG, offsetof(struct read_options, head), NULL, "only the manifest and lab.yml"},
	{"max-size", 0, CLI_SIZE, offsetof(struct read_options, max_size), "SIZE", "of content"},
	{"outputs", 0, CLI_SIZE, offsetof(struct read_options, outputs), "N",
	 "descriptors to write disks to, from 4 on"},
	{NULL},
};

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct read_options *o = opaque;
	const struct submission_read_options how = {
		.data_max = o->max_size, .head_only = o->head, .output_count = o->outputs};

	(void)operands;
	return submission_reader_main(&how, err);
}

const struct cli_command cmd_read_submission = {
	.name = "__read-submission",
	.operands = "",
	.options = options,
	.options_size = sizeof(struct read_options),
	.run = run,
};
