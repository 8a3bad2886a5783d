/* uml-cow map: extents by owner. */
#include <inttypes.h>
#include <stddef.h>

#include "cow/cmd.h"
#include "cow/ops.h"

struct options {
	struct cow_cmd_chain chain;
	bool json;
};

static const char *kind_of(const struct cow_chain *chain, const struct cow_extent *e)
{
	bool is_data;

	cow_chain_is_data(chain, e, &is_data);
	return is_data ? "data" : "zero";
}

/* The next extent: one owner, and all of it data or all of it holes. */
static void next_extent(const struct cow_chain *chain, uint64_t start, uint64_t end, struct cow_extent *e,
			const char **kind)
{
	struct cow_extent more;
	bool is_data;

	cow_chain_extent(chain, start, end - start, e);
	e->length = cow_chain_is_data(chain, e, &is_data);
	*kind = is_data ? "data" : "zero";
	while (start + e->length < end) {
		cow_chain_extent(chain, start + e->length, end - start - e->length, &more);
		if (more.owner != e->owner || kind_of(chain, &more) != *kind)
			return;
		more.length = cow_chain_is_data(chain, &more, &is_data);
		e->length += more.length;
	}
}

static int tell_extent(json_t *list, const struct cow_chain *chain, const struct cow_extent *e,
		       const char *kind, struct error *err)
{
	uint64_t offset = cow_chain_offset(chain, e);

	if (list)
		return cow_cmd_json_add(list,
					json_pack("{s:I, s:I, s:I, s:s, s:I}", "start", (json_int_t)e->start,
						  "length", (json_int_t)e->length, "owner", (json_int_t)e->owner,
						  "kind", kind, "offset", (json_int_t)offset),
					err);
	printf("%12" PRIu64 " %12" PRIu64 " %5zu  %s  %" PRIu64 "\n", e->start, e->length, e->owner, kind,
	       offset);
	return 0;
}

static int walk(const struct cow_chain *chain, json_t *list, struct error *err)
{
	uint64_t end = (cow_chain_size(chain) + COW_SECTOR_SIZE - 1) >> COW_SECTOR_SHIFT;
	struct cow_extent e;

	if (!list)
		printf("%12s %12s %5s  %s  %s\n", "START", "SECTORS", "FILE", "KIND", "OFFSET");
	for (uint64_t s = 0; s < end; s += e.length) {
		const char *kind;

		next_extent(chain, s, end, &e, &kind);
		if (tell_extent(list, chain, &e, kind, err))
			return -1;
	}
	return 0;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct options *o = opaque;
	struct cow_open_options open = cow_cmd_open_options(&o->chain);
	cleanup_cow_chain struct cow_chain *chain = NULL;
	cleanup_json json_t *list = o->json ? json_array() : NULL;

	if (o->json && !list)
		return error_oom(err);
	open.no_lock = true;
	chain = cow_chain_open(operands->items[0], &open, err);
	return chain && !walk(chain, list, err) ? cow_cmd_print_list(list, err) : -1;
}

static const struct cli_option options[] = {
	COW_CMD_CHAIN_OPTIONS,
	{"json", 0, CLI_FLAG, offsetof(struct options, json), NULL, "tell it as JSON"},
	{NULL},
};

const struct cli_command cow_cmd_map = {
	.name = "map",
	.operands = "FILE",
	.summary = "Show which file of the chain holds which sectors",
	.help = "Files are numbered as by info, 0 the top. OFFSET is in bytes, within the file. Takes no "
		"locks.",
	.options = options,
	.options_size = sizeof(struct options),
	.min_operands = 1,
	.max_operands = 1,
	.run = run,
};
