/* What the files that look into disks share. */
#ifndef COW_FS_INTERNAL_H
#define COW_FS_INTERNAL_H

#include <ext2fs/ext2fs.h>

#include "cow/fs.h"
#include "cow/internal.h"

struct cow_fs {
	ext2_filsys ext2;
	struct cow_chain view; /* the part of the chain that is shown; not owned */
};

/* An error with what libext2fs says. Returns -1. */
int cow_fs_error(struct error *err, errcode_t code, const char *what);
void cow_fs_fill(struct cow_fs_stat *out, uint32_t inode, const struct ext2_inode *in);

#endif
