/* uml-cow flatten: the whole disk as a raw image. */
#include <stddef.h>

#include "cow/cmd.h"
#include "cow/ops.h"

struct options {
	struct cow_cmd_chain chain;
	bool force, durable;
};

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct options *o = opaque;
	struct cow_open_options open = cow_cmd_open_options(&o->chain);
	cleanup_cow_chain struct cow_chain *chain = cow_chain_open(operands->items[0], &open, err);

	return chain ? cow_flatten(chain, operands->items[1], o->force, o->durable, err) : -1;
}

static const struct cli_option options[] = {
	COW_CMD_CHAIN_OPTIONS,
	{"force", 'f', CLI_FLAG, offsetof(struct options, force), NULL, "replace a file that is there"},
	{"durable", 0, CLI_FLAG, offsetof(struct options, durable), NULL,
	 "wait until a crash of the host could not undo it"},
	{NULL},
};

const struct cli_command cow_cmd_flatten = {
	.name = "flatten",
	.operands = "FILE OUT",
	.summary = "Write the disk as a sparse raw image",
	.help = "OUT appears when it is complete. Blocks are shared with the chain where the file system "
		"can.",
	.options = options,
	.options_size = sizeof(struct options),
	.min_operands = 2,
	.max_operands = 2,
	.run = run,
};
