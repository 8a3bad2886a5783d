/* uml-cow compact: give back space. */
#include <inttypes.h>
#include <stddef.h>

#include "cow/cmd.h"
#include "cow/ops.h"

struct options {
	struct cow_cmd_chain chain;
};

static void tell(const char *path, const struct cow_compact_result *r)
{
	char before[16], after[16];

	printf("%s: %" PRIu64 " sectors dropped, %s before, %s now\n", path, r->dropped_sectors,
	       str_human_size(r->before, before, sizeof(before)),
	       str_human_size(r->after, after, sizeof(after)));
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct options *o = opaque;
	struct cow_open_options open = cow_cmd_open_options(&o->chain);
	struct cow_compact_result result;

	if (cow_compact(operands->items[0], &open, &result, err))
		return -1;
	if (!cli_quiet)
		tell(operands->items[0], &result);
	return 0;
}

static const struct cli_option options[] = {
	COW_CMD_CHAIN_OPTIONS,
	{NULL},
};

const struct cli_command cow_cmd_compact = {
	.name = "compact",
	.operands = "FILE",
	.summary = "Give up sectors equal to the backing file, and the space of zeroes",
	.help = "In place; what the guest sees is the same at any time. Raw images give up the space of "
		"their zeroes.",
	.options = options,
	.options_size = sizeof(struct options),
	.min_operands = 1,
	.max_operands = 1,
	.run = run,
};
