/*
 * Folders, written when all names are known.
 *
 * A folder is a file of directory blocks: records of inode, record length,
 * name length, kind and name, aligned to four bytes; a record never crosses a
 * block, the last one reaches to the block's end, where 12 bytes hold a
 * checksum. Linear, without an index: the kernel reads either
 * (Documentation/filesystems/ext4/directory.rst).
 */
#include <string.h>

#include "uml-lab/image/fs_internal.h"

struct folder_writer {
	struct image_fs *fs;
	struct fs_stream stream;
	union fs_inode inode;
	ext2_ino_t ino;
	unsigned int room; /* bytes of a block that records may use */
	unsigned int used;
	struct ext2_dir_entry *last; /* the block's last record */
	char block[EXT2_MAX_BLOCK_SIZE];
};

/* Ends the block: the last record reaches to its end, then the checksum. */
static int put_block(struct folder_writer *w, struct error *err)
{
	ext2_filsys ext = w->fs->ext;
	errcode_t code = 0;

	if (!w->used)
		return 0;
	if (ext2fs_set_rec_len(ext, w->room - ((char *)w->last - w->block), w->last))
		return error_set(err, ERROR_FAILED, "a folder's record does not fit");
	if (w->room < ext->blocksize) {
		ext2fs_initialize_dirent_tail(ext, EXT2_DIRENT_TAIL(w->block, ext->blocksize));
		code = ext2fs_dir_block_csum_set(ext, w->ino, (struct ext2_dir_entry *)w->block);
	}
	if (code)
		return fs_error(w->fs, err, code, "sealing a folder's block");
	if (fs_stream_write(w->fs, &w->stream, w->stream.end, w->block, ext->blocksize, err))
		return -1;
	memset(w->block, 0, sizeof(w->block));
	w->used = 0;
	return 0;
}

static int put_name(struct folder_writer *w, const char *name, size_t length, ext2_ino_t ino, int type,
		    struct error *err)
{
	unsigned int need = EXT2_DIR_REC_LEN(length);
	struct ext2_dir_entry *entry;

	if (w->used + need > w->room && put_block(w, err))
		return -1;
	entry = (struct ext2_dir_entry *)(w->block + w->used);
	entry->inode = ino;
	entry->rec_len = need;
	ext2fs_dirent_set_name_len(entry, length);
	ext2fs_dirent_set_file_type(entry, type);
	memcpy(entry->name, name, length);
	w->last = entry;
	w->used += need;
	return 0;
}

static int put_names(struct folder_writer *w, const struct image_node *folder, struct error *err)
{
	ext2_ino_t parent = folder->parent ? folder->parent->inode : folder->inode;
	unsigned int folders = 0;

	if (put_name(w, ".", 1, folder->inode, EXT2_FT_DIR, err) ||
	    put_name(w, "..", 2, parent, EXT2_FT_DIR, err))
		return -1;
	for (const struct image_node *child = folder->first_child; child; child = child->next) {
		if (put_name(w, child->name, child->name_length, child->inode, child->type, err))
			return -1;
		folders += child->type == EXT2_FT_DIR;
	}
	/* With dir_nlink, 1 means "too many to count". */
	w->inode.large.i_links_count = folders + 2 > EXT2_LINK_MAX ? 1 : folders + 2;
	return put_block(w, err);
}

static int write_folder(struct folder_writer *w, const struct image_node *folder, struct error *err)
{
	struct image_fs *fs = w->fs;
	errcode_t code = 0;
	int result;

	w->ino = folder->inode;
	if (fs_inode_read(fs, folder->inode, &w->inode, err))
		return -1;
	/* The root has a block from mke2fs. */
	if (ext2fs_inode_has_valid_blocks2(fs->ext, &w->inode.small))
		code = ext2fs_punch(fs->ext, folder->inode, &w->inode.small, NULL, 0, ~0ULL);
	if (code)
		return fs_error(fs, err, code, "clearing a folder");
	memset(w->inode.large.i_block, 0, sizeof(w->inode.large.i_block));
	if (fs_stream_open(fs, &w->stream, folder->inode, &w->inode, err))
		return -1;
	result = put_names(w, folder, err) ? -1 : fs_stream_close(fs, &w->stream, err);
	fs_stream_abandon(&w->stream);
	return result;
}

int fs_folders_write(struct image_fs *fs, struct error *err)
{
	struct folder_writer w = {.fs = fs, .room = fs->ext->blocksize};
	const struct image_node *node;

	if (ext2fs_has_feature_metadata_csum(fs->ext->super))
		w.room -= sizeof(struct ext2_dir_entry_tail);
	for (node = fs->tree.root; node; node = image_tree_next(node))
		if (node->type == EXT2_FT_DIR && !(node->keep_blocks && !node->first_child) &&
		    write_folder(&w, node, err))
			return -1;
	return 0;
}
