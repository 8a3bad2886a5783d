/* What files, cat and diff-files share. */
#include "cow/cmd_fs.h"

void cow_cmd_fs_warn(const struct cow_fs *fs)
{
	if (cow_fs_needs_recovery(fs) && !cli_quiet)
		fputs("uml-cow: the disk was not unmounted: what is in its journal only is not seen\n",
		      stderr);
}

int cow_cmd_fs_open(struct cow_cmd_fs *disk, const struct cow_cmd_chain *o, const char *path,
		    struct error *err)
{
	struct cow_open_options open = cow_cmd_open_options(o);

	disk->chain = cow_chain_open(path, &open, err);
	if (!disk->chain)
		return -1;
	disk->fs = cow_fs_open(disk->chain, 0, err);
	if (!disk->fs)
		return -1;
	cow_cmd_fs_warn(disk->fs);
	return 0;
}

void cow_cmd_fs_close(struct cow_cmd_fs *disk)
{
	cow_fs_close(disk->fs);
	cow_chain_close(disk->chain);
}

void cow_cmd_print_path(const char *path)
{
	for (const unsigned char *p = (const unsigned char *)path; *p; p++) {
		if (*p < ' ' || *p == 0x7f || *p == '\\')
			printf("\\%03o", *p);
		else
			putchar(*p);
	}
}

json_t *cow_cmd_stat_json(const char *path, const char *target, const struct cow_fs_stat *st)
{
	static const char *const types[16] = {
		[1] = "fifo", [2] = "char",     [4] = "directory", [6] = "block",
		[8] = "file", [10] = "symlink", [12] = "socket"};
	const char *type = types[st->mode >> 12 & 15];
	char mode[16];
	json_t *j;

	snprintf(mode, sizeof(mode), "%04o", st->mode & 07777);
	j = json_pack("{s:o, s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "path", cow_cmd_json_text(path), "type",
		      type ? type : "unknown", "mode", mode, "uid", (json_int_t)st->uid, "gid",
		      (json_int_t)st->gid, "size", (json_int_t)st->size, "mtime", (json_int_t)st->mtime,
		      "inode", (json_int_t)st->inode);
	if (j && target && json_object_set_new(j, "target", cow_cmd_json_text(target))) {
		json_decref(j);
		return NULL;
	}
	return j;
}
