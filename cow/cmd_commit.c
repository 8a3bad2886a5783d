/* uml-cow commit: into the layer below. */
#include <stddef.h>

#include "cow/cmd.h"
#include "cow/ops.h"

struct options {
	struct cow_cmd_chain chain;
};

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct options *o = opaque;
	struct cow_open_options open = cow_cmd_open_options(&o->chain);

	return cow_commit(operands->items[0], &open, err);
}

static const struct cli_option options[] = {
	COW_CMD_CHAIN_OPTIONS,
	{NULL},
};

const struct cli_command cow_cmd_commit = {
	.name = "commit",
	.operands = "OVERLAY",
	.summary = "Move what an overlay stores into the file below it",
	.help = "Others that stand on that file see it change, and are refused from then on. The overlay is "
		"empty afterwards.\n"
		"An interrupted commit is completed by committing again; meanwhile both files open and show "
		"the new content.",
	.options = options,
	.options_size = sizeof(struct options),
	.min_operands = 1,
	.max_operands = 1,
	.run = run,
};
