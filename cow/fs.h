/*
 * Looking into a disk: the ext2, ext3 or ext4 file system that a chain holds,
 * through libext2fs, read-only, nothing mounted.
 *
 * A file system is as hostile as any file of a guest: sizes are bounded, and no
 * folder is entered twice.
 */
#ifndef COW_FS_H
#define COW_FS_H

#include <sys/types.h>

#include "cow/cow.h"

struct cow_fs;

/* What is told of a file. */
struct cow_fs_stat {
	uint32_t inode, generation;
	uint32_t mode; /* type and permissions, as in struct stat */
	uint32_t uid, gid;
	uint32_t links;
	uint64_t size;
	int64_t mtime;   /* seconds */
	uint32_t device; /* of a device node: major << 8 | minor, as far as that goes */
};

/*
 * Opens the file system that the chain shows without its first `skip` files (0:
 * all of it). The chain must stay open as long. NULL + err when there is none.
 */
struct cow_fs *cow_fs_open(struct cow_chain *chain, size_t skip, struct error *err);
void cow_fs_close(struct cow_fs *fs); /* NULL is fine */

/* Whether the journal holds changes that are not in place yet: it was not unmounted. */
bool cow_fs_needs_recovery(const struct cow_fs *fs);

/* Finds a file by its absolute path; symbolic links in the folders on the way are followed, a last one is
 * not. */
int cow_fs_lookup(struct cow_fs *fs, const char *path, struct cow_fs_stat *out, struct error *err);

/*
 * Calls fn for each entry of a folder but "." and "..", in no order. `is_folder`
 * is what the entry says, which may be wrong. fn: 0 to go on, else the result.
 */
typedef int (*cow_fs_entry_fn)(void *arg, const char *name, uint32_t inode, bool is_folder,
			       struct error *err);
int cow_fs_list(struct cow_fs *fs, uint32_t folder, cow_fs_entry_fn fn, void *arg, struct error *err);

int cow_fs_stat(struct cow_fs *fs, uint32_t inode, struct cow_fs_stat *out, struct error *err);

/* The text of a symbolic link, malloc'ed. NULL + err. */
char *cow_fs_readlink(struct cow_fs *fs, uint32_t inode, struct error *err);

/* Calls fn for consecutive pieces of a regular file's content. */
typedef int (*cow_fs_data_fn)(void *arg, const void *data, size_t n, struct error *err);
int cow_fs_read(struct cow_fs *fs, uint32_t inode, cow_fs_data_fn fn, void *arg, struct error *err);

/* "-rwxr-xr-x" into text[11], returned. */
char *cow_fs_mode_text(uint32_t mode, char *text);

/* ---- What changed ---- */

enum cow_fs_change { COW_FS_ADDED, COW_FS_REMOVED, COW_FS_MODIFIED, COW_FS_RENAMED };

/* Aspects in which a modified or renamed file differs. */
enum {
	COW_FS_CONTENT = 1, /* data, target of a link, number of a device, or type */
	COW_FS_MODE = 2,
	COW_FS_OWNER = 4,
	COW_FS_SIZE = 8,
	COW_FS_MTIME = 16,
	COW_FS_ATTRIBUTES = 32, /* extended attributes */
};

struct cow_fs_difference {
	enum cow_fs_change change;
	const char *path;            /* of the new file; of the old one when it was removed */
	const char *old_path;        /* of a renamed one, else NULL */
	unsigned int aspects;        /* of a modified or renamed one */
	struct cow_fs_stat old, new; /* as far as there is one */
};
typedef int (*cow_fs_difference_fn)(void *arg, const struct cow_fs_difference *d, struct error *err);

/*
 * Compares the files of a disk with those of what lies below its first `skip`
 * files, and calls fn for each difference, sorted by path. Reads only what these
 * files own, folders, and the content of files touched by it.
 */
int cow_fs_diff(struct cow_chain *chain, size_t skip, cow_fs_difference_fn fn, void *arg, struct error *err);

#endif
