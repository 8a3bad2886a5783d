/* uml-cow umount: ends a mount, when all is written. */
#include "cow/cmd.h"
#include "cow/view.h"

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	(void)opaque;
	return cow_view_unmount(operands->items[0], err);
}

const struct cli_command cow_cmd_umount = {
	.name = "umount",
	.operands = "DIR",
	.summary = "End a mount, and wait until all is written",
	.min_operands = 1,
	.max_operands = 1,
	.run = run,
};
