/* uml-cow rebase: another backing file. */
#include <stddef.h>

#include "cow/cmd.h"
#include "cow/ops.h"

struct options {
	struct cow_cmd_chain chain;
	const char *backing;
	bool header_only;
};

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct options *o = opaque;
	struct cow_open_options open = cow_cmd_open_options(&o->chain);

	if (!o->backing)
		return error_set(err, ERROR_USAGE, "rebase needs the new backing file: -b BACKING");
	return cow_rebase(operands->items[0], o->backing, o->header_only, &open, err);
}

static const struct cli_option options[] = {
	COW_CMD_CHAIN_OPTIONS,
	{"backing", 'b', CLI_STRING, offsetof(struct options, backing), "BACKING", "the file to stand on"},
	{"header-only", 0, CLI_FLAG, offsetof(struct options, header_only), NULL,
	 "only note the new place and time; the content must be the same"},
	{NULL},
};

const struct cli_command cow_cmd_rebase = {
	.name = "rebase",
	.operands = "FILE",
	.summary = "Put a file on another backing file, keeping what the guest sees",
	.help = "What differs between the old and the new backing file is stored in FILE. With --header-only "
		"nothing is compared:\n"
		"for a backing file that was moved, renamed, or copied without its time.",
	.options = options,
	.options_size = sizeof(struct options),
	.min_operands = 1,
	.max_operands = 1,
	.run = run,
};
