/* uml-cow cat: a file of a disk to the standard output. */
#include <stddef.h>
#include <unistd.h>

#include "cow/cmd.h"
#include "cow/cmd_fs.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"

struct options {
	struct cow_cmd_chain chain;
};

static int put(void *arg, const void *data, size_t n, struct error *err)
{
	(void)arg;
	return file_write_full(STDOUT_FILENO, data, n) < 0
		       ? error_errno(err, errno, "cannot write the output")
		       : 0;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct options *o = opaque;
	const char *path = operands->items[1];
	cleanup_with(cow_cmd_fs_close) struct cow_cmd_fs disk = {0};
	struct cow_fs_stat st;

	if (cow_cmd_fs_open(&disk, &o->chain, operands->items[0], err) ||
	    cow_fs_lookup(disk.fs, path, &st, err))
		return -1;
	if ((st.mode & 0170000) != 0100000)
		return error_set(err, ERROR_FAILED, "%s is not a regular file", path);
	return cow_fs_read(disk.fs, st.inode, put, NULL, err);
}

static const struct cli_option options[] = {
	COW_CMD_CHAIN_OPTIONS,
	{NULL},
};

const struct cli_command cow_cmd_cat = {
	.name = "cat",
	.operands = "FILE PATH",
	.summary = "Print a file of a disk, without mounting it",
	.options = options,
	.options_size = sizeof(struct options),
	.min_operands = 2,
	.max_operands = 2,
	.run = run,
};
