/* What the files that compare file systems share. */
#ifndef COW_FS_DIFF_H
#define COW_FS_DIFF_H

#include "cow/fs_internal.h"

/* Blocks of the file system that the upper files own. */
struct cow_fs_touched {
	uint64_t blocks;
	uint8_t *map;
	bool all; /* the two file systems are laid out differently: no block is the same */
};
bool cow_fs_is_touched(const struct cow_fs_touched *t, uint64_t block);

/* A file system as it was and as it is. */
struct cow_fs_pair {
	struct cow_fs *old, *new;
	const struct cow_fs_touched *touched;
};

/* Whether any block of a file (folder) is touched. */
bool cow_fs_has_touched_blocks(struct cow_fs *fs, const struct cow_fs_touched *t, uint32_t inode);
/* Fills old, new and aspects of d for a file that was `old` and is `new`. */
int cow_fs_compare(struct cow_fs_pair *p, uint32_t old, uint32_t new, struct cow_fs_difference *d,
		   struct error *err);
/* Whether an inode is the same file in both, there in both, not its number used again. */
int cow_fs_is_same_inode(struct cow_fs_pair *p, uint32_t inode, bool *same, struct error *err);

#endif
