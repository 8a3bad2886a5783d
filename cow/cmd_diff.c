/* uml-cow diff: where two disks differ. */
#include <inttypes.h>
#include <stddef.h>

#include "cow/cmd.h"
#include "cow/ops.h"

struct options {
	struct cow_cmd_chain chain;
	bool json;
};

/* arg: the JSON list, NULL to print. */
static int tell(void *arg, uint64_t start, uint64_t length, struct error *err)
{
	json_t *list = arg;

	if (list)
		return cow_cmd_json_add(
			list,
			json_pack("{s:I, s:I}", "start", (json_int_t)start, "length", (json_int_t)length), err);
	printf("%" PRIu64 " %" PRIu64 "\n", start, length);
	return 0;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct options *o = opaque;
	struct cow_open_options open = cow_cmd_open_options(&o->chain);
	cleanup_cow_chain struct cow_chain *a = cow_chain_open(operands->items[0], &open, err);
	cleanup_cow_chain struct cow_chain *b = a ? cow_chain_open(operands->items[1], &open, err) : NULL;
	cleanup_json json_t *list = o->json ? json_array() : NULL;

	if (o->json && !list)
		return error_oom(err);
	return b && !cow_diff(a, b, tell, list, err) ? cow_cmd_print_list(list, err) : -1;
}

static const struct cli_option options[] = {
	COW_CMD_CHAIN_OPTIONS,
	{"json", 0, CLI_FLAG, offsetof(struct options, json), NULL, "tell it as JSON"},
	{NULL},
};

const struct cli_command cow_cmd_diff = {
	.name = "diff",
	.operands = "A B",
	.summary = "List the ranges of sectors in which two disks differ",
	.help = "One range a line: first sector, number of sectors. What two chains share is not read.",
	.options = options,
	.options_size = sizeof(struct options),
	.min_operands = 2,
	.max_operands = 2,
	.run = run,
};
