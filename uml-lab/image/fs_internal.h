/* What the parts of the ext4 writer (fs*.c) share. */
#ifndef UML_LAB_IMAGE_FS_INTERNAL_H
#define UML_LAB_IMAGE_FS_INTERNAL_H

#include <et/com_err.h>
#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>

#include "uml-lab/image/fs.h"
#include "uml-lab/image/tree.h"

/* Data is collected to pieces of this size, so that large files get few, long extents. */
#define FS_STAGE_SIZE (1024 * 1024)
/* Most blocks one initialised extent can map (ext4: ee_len of 1…32768). */
#define FS_EXTENT_MAX 32768

/* An inode as it lies on disk, 256 bytes; ext2_inode_large is its known part. */
union fs_inode {
	struct ext2_inode_large large;
	struct ext2_inode small;
	char bytes[256];
};

/* Where content goes: blocks of one inode, written front to back. */
struct fs_stream {
	ext2_ino_t ino; /* 0: closed */
	union fs_inode *inode;
	ext2_extent_handle_t extents;
	struct ext2fs_extent run; /* the extent that still grows; e_len 0: none */
	uint64_t staged_at;       /* file offset of the stage, a multiple of the block size */
	size_t staged;            /* bytes in it */
	uint64_t end;             /* offset after the last byte written */
};

struct fs_link {
	struct fs_link *next;
	char *target;
	char path[];
};

struct image_fs {
	ext2_filsys ext;
	struct image_tree tree;
	time_t now;
	blk64_t goal;        /* where to look for free blocks: after the last ones */
	ext2_ino_t next_ino; /* the same for inodes */
	unsigned int devices;
	struct fs_link *links; /* hard links whose target has not come yet, newest first */
	struct fs_stream file; /* the regular file just added */
	union fs_inode file_inode;
	char file_path[IMAGE_FS_PATH_MAX + 1]; /* its path, for messages */
	char *stage;                           /* FS_STAGE_SIZE bytes, only one stream is open at a time */
};

/* An error of libext2fs, with "no room" told as such; `what` was being done. Returns -1. */
int fs_error(struct image_fs *fs, struct error *err, errcode_t code, const char *what);

/* fs_stream.c: opens a stream over an inode without blocks, appends (gaps are holes), closes (sets size and
 * blocks). */
int fs_stream_open(struct image_fs *fs, struct fs_stream *s, ext2_ino_t ino, union fs_inode *inode,
		   struct error *err);
int fs_stream_write(struct image_fs *fs, struct fs_stream *s, uint64_t offset, const char *data,
		    size_t length, struct error *err);
/* Ends the stream and writes the inode, with its final size. A stream that is not open is fine. */
int fs_stream_close(struct image_fs *fs, struct fs_stream *s, struct error *err);
/* Drops the stream after a failure. */
void fs_stream_abandon(struct fs_stream *s);

/* fs_inode.c: inodes, their attributes and extended attributes. */

/* Takes a free inode number and writes an inode with the entry's attributes and no content. */
int fs_inode_new(struct image_fs *fs, const struct image_entry *entry, ext2_ino_t *ino, union fs_inode *inode,
		 struct error *err);
int fs_inode_read(struct image_fs *fs, ext2_ino_t ino, union fs_inode *inode, struct error *err);
int fs_inode_write(struct image_fs *fs, ext2_ino_t ino, union fs_inode *inode, struct error *err);
/* Gives an existing folder the entry's owner, mode, times and extended attributes, and no others. */
int fs_inode_change(struct image_fs *fs, ext2_ino_t ino, const struct image_entry *entry, struct error *err);
/* One name more for an inode. */
int fs_inode_link(struct image_fs *fs, ext2_ino_t ino, struct error *err);
/* One name less: frees the inode with its blocks when it was the last. A folder has one. */
int fs_inode_unlink(struct image_fs *fs, ext2_ino_t ino, bool folder, struct error *err);

/* fs_folders.c: gives every folder of the tree its blocks and link count. */
int fs_folders_write(struct image_fs *fs, struct error *err);

#endif
