/* uml-cow create: a new overlay. */
#include <stddef.h>

#include "cow/cmd.h"
#include "cow/cow.h"

struct options {
	const char *backing;
	bool force, digest;
};

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct options *o = opaque;
	struct cow_create_options create = {.replace = o->force, .digest = o->digest};

	if (!o->backing)
		return error_set(err, ERROR_USAGE, "create needs the backing file: -b BACKING");
	return cow_create(operands->items[0], o->backing, &create, err);
}

static const struct cli_option options[] = {
	{"backing", 'b', CLI_STRING, offsetof(struct options, backing), "BACKING",
	 "the base image or layer to stand on"},
	{"force", 'f', CLI_FLAG, offsetof(struct options, force), NULL, "replace a file that is there"},
	{"digest", 0, CLI_FLAG, offsetof(struct options, digest), NULL,
	 "remember the digest of the backing file's content: reads all of it, once"},
	{NULL},
};

const struct cli_command cow_cmd_create = {
	.name = "create",
	.operands = "OVERLAY",
	.summary = "Create an empty overlay over a base image or layer",
	.help = "The overlay appears whole or not at all, takes a few kilobytes whatever the size of the "
		"disk, and is what\n"
		"the kernel itself would have created.",
	.options = options,
	.options_size = sizeof(struct options),
	.min_operands = 1,
	.max_operands = 1,
	.run = run,
};
