/* uml-cow files: lists what is on a disk. */
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include "cow/cmd.h"
#include "cow/cmd_fs.h"
#include "uml-lab/base/cleanup.h"

struct options {
	struct cow_cmd_chain chain;
	bool json, recursive;
};

struct entry {
	char *path;
	uint32_t inode;
	bool is_folder;
};

struct entries {
	struct entry *items;
	size_t count;
	const char *folder;
};

static void free_entries(struct entries *e)
{
	for (size_t i = 0; i < e->count; i++)
		free(e->items[i].path);
	free(e->items);
}

static int add_entry(void *arg, const char *name, uint32_t inode, bool is_folder, struct error *err)
{
	struct entries *e = arg;
	struct entry *items = reallocarray(e->items, e->count + 1, sizeof(*items));
	char *path;

	if (!items)
		return error_oom(err);
	e->items = items;
	path = str_printf(err, "%s/%s", str_eq(e->folder, "/") ? "" : e->folder, name);
	if (!path)
		return -1;
	items[e->count++] = (struct entry){path, inode, is_folder};
	return 0;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->path, ((const struct entry *)b)->path);
}

static int tell(struct cow_fs *fs, json_t *list, const char *path, uint32_t inode, struct error *err)
{
	struct cow_fs_stat st;
	cleanup_free char *target = NULL;
	char mode[11], when[32] = "";
	struct tm tm;
	time_t mtime;

	if (cow_fs_stat(fs, inode, &st, err))
		return -1;
	if ((st.mode & 0170000) == 0120000) {
		target = cow_fs_readlink(fs, inode, err);
		if (!target)
			return -1;
	}
	if (list)
		return json_array_append_new(list, cow_cmd_stat_json(path, target, &st)) ? error_oom(err) : 0;
	mtime = (time_t)st.mtime;
	if (localtime_r(&mtime, &tm))
		strftime(when, sizeof(when), "%F %T", &tm);
	printf("%s %3" PRIu32 " %5" PRIu32 " %5" PRIu32 " %10" PRIu64 " %s ", cow_fs_mode_text(st.mode, mode),
	       st.links, st.uid, st.gid, st.size, when);
	cow_cmd_print_path(path);
	if (target) {
		printf(" -> ");
		cow_cmd_print_path(target);
	}
	putchar('\n');
	return 0;
}

/* `depth`: folders may lie in each other as deep as a path is long. */
static int list_folder(struct cow_fs *fs, json_t *list, const char *folder, uint32_t inode,
		       unsigned int depth, struct error *err)
{
	cleanup_with(free_entries) struct entries e = {.folder = folder};

	if (cow_fs_list(fs, inode, add_entry, &e, err))
		return error_prefix(err, "%s", folder);
	if (e.count)
		qsort(e.items, e.count, sizeof(*e.items), by_path);
	for (size_t i = 0; i < e.count; i++) {
		if (tell(fs, list, e.items[i].path, e.items[i].inode, err))
			return -1;
		if (depth > 0 && e.items[i].is_folder &&
		    list_folder(fs, list, e.items[i].path, e.items[i].inode, depth - 1, err))
			return -1;
	}
	return 0;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct options *o = opaque;
	const char *path = operands->count > 1 ? operands->items[1] : "/";
	cleanup_json json_t *list = o->json ? json_array() : NULL;
	cleanup_with(cow_cmd_fs_close) struct cow_cmd_fs disk = {0};
	struct cow_fs_stat st;

	if (cow_cmd_fs_open(&disk, &o->chain, operands->items[0], err) ||
	    cow_fs_lookup(disk.fs, path, &st, err))
		return -1;
	if ((st.mode & 0170000) == 0040000
		    ? list_folder(disk.fs, list, path, st.inode, o->recursive ? 1000 : 0, err)
		    : tell(disk.fs, list, path, st.inode, err))
		return -1;
	return list ? cow_cmd_print_json(json_incref(list), err) : 0;
}

static const struct cli_option options[] = {
	COW_CMD_CHAIN_OPTIONS,
	{"recursive", 'R', CLI_FLAG, offsetof(struct options, recursive), NULL, "folders within, too"},
	{"json", 0, CLI_FLAG, offsetof(struct options, json), NULL, "tell it as JSON"},
	{NULL},
};

const struct cli_command cow_cmd_files = {
	.name = "files",
	.operands = "FILE [PATH]",
	.summary = "List the files on a disk (ext2, ext3, ext4), without mounting it",
	.options = options,
	.options_size = sizeof(struct options),
	.min_operands = 1,
	.max_operands = 2,
	.run = run,
};
