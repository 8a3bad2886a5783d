/* What files, cat and diff-files share. */
#ifndef COW_CMD_FS_H
#define COW_CMD_FS_H

#include <string.h>

#include "cow/cmd.h"
#include "cow/fs.h"

struct cow_cmd_fs {
	struct cow_chain *chain;
	struct cow_fs *fs;
};
/* Opens a disk and its file system; warns on stderr when the journal was not replayed. */
int cow_cmd_fs_open(struct cow_cmd_fs *disk, const struct cow_cmd_chain *o, const char *path,
		    struct error *err);
void cow_cmd_fs_close(struct cow_cmd_fs *disk);
/* Says so when the file system was not unmounted. */
void cow_cmd_fs_warn(const struct cow_fs *fs);

/* Prints a path from a guest: control characters as \ooo, so that it can't drive the terminal. */
void cow_cmd_print_path(const char *path);

/* {"path", "mode", …}; NULL when memory is out. target may be NULL. */
json_t *cow_cmd_stat_json(const char *path, const char *target, const struct cow_fs_stat *st);

#endif
