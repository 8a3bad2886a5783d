/* uml-cow mount: the disk as one raw file in a folder. */
#include <stddef.h>

#include "cow/cmd.h"
#include "cow/view.h"

struct options {
	struct cow_cmd_chain chain;
	const char *overlay;
	bool write, foreground;
};

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct options *o = opaque;
	struct cow_open_options open = cow_cmd_open_options(&o->chain);
	const char *file = operands->items[0];
	cleanup_cow_chain struct cow_chain *chain = NULL;

	if (o->overlay) {
		if (cow_create(o->overlay, file, NULL, err))
			return -1;
		file = o->overlay;
	}
	open.writable = o->write || o->overlay;
	chain = cow_chain_open(file, &open, err);
	return chain ? cow_view_serve(chain, operands->items[1], o->foreground, err) : -1;
}

static const struct cli_option options[] = {
	COW_CMD_CHAIN_OPTIONS,
	{"write", 'w', CLI_FLAG, offsetof(struct options, write), NULL, "what is written goes into FILE"},
	{"overlay", 'o', CLI_STRING, offsetof(struct options, overlay), "OVERLAY",
	 "what is written goes into a new overlay of this name over FILE"},
	{"foreground", 0, CLI_FLAG, offsetof(struct options, foreground), NULL,
	 "do not go to the background"},
	{NULL},
};

const struct cli_command cow_cmd_mount = {
	.name = "mount",
	.operands = "FILE DIR",
	.summary = "Show the disk as the raw file DIR/disk",
	.help = "For programs that know raw images: fuse2fs, debugfs, fsck, qemu. Read-only unless --write "
		"or --overlay\n"
		"is given. The disk is locked until `uml-cow umount DIR`.",
	.options = options,
	.options_size = sizeof(struct options),
	.min_operands = 2,
	.max_operands = 2,
	.run = run,
};
