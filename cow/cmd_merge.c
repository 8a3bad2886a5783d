/* uml-cow merge: adjacent layers into one. */
#include <stddef.h>

#include "cow/cmd.h"
#include "cow/ops.h"

struct options {
	struct cow_cmd_chain chain;
	const char *out;
};

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct options *o = opaque;
	struct cow_open_options open = cow_cmd_open_options(&o->chain);

	return cow_merge(operands->items[0], operands->items[1], o->out, &open, err);
}

static const struct cli_option options[] = {
	COW_CMD_CHAIN_OPTIONS,
	{"output", 'o', CLI_STRING, offsetof(struct options, out), "FILE",
	 "write there, and leave UPPER as it is"},
	{NULL},
};

const struct cli_command cow_cmd_merge = {
	.name = "merge",
	.operands = "UPPER LOWER",
	.summary = "Gather the layers from UPPER to LOWER in one file",
	.help = "UPPER then stands on what LOWER stood on, and shows what it did. LOWER stays as it is: "
		"others may need it.",
	.options = options,
	.options_size = sizeof(struct options),
	.min_operands = 2,
	.max_operands = 2,
	.run = run,
};
