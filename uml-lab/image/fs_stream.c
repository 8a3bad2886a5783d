/*
 * Content of one inode, written front to back.
 *
 * Pieces are collected in a stage of 1 MiB. A full stage, a gap or the end
 * flushes it: free blocks are taken right after the last ones taken (so files
 * lie one behind the other, in one extent each as a rule), written with one
 * call past libext2fs' block cache, and added to the extent that is growing,
 * which goes into the inode's extent tree when it can grow no more. Offsets
 * not written to are holes.
 */
#include <string.h>

#include "uml-lab/image/fs_internal.h"

int fs_stream_open(struct image_fs *fs, struct fs_stream *s, ext2_ino_t ino, union fs_inode *inode,
		   struct error *err)
{
	errcode_t code;

	*s = (struct fs_stream){.ino = ino, .inode = inode};
	code = ext2fs_extent_open2(fs->ext, ino, &inode->small, &s->extents);
	if (code) {
		s->ino = 0;
		return fs_error(fs, err, code, "starting the file's block list");
	}
	return 0;
}

void fs_stream_abandon(struct fs_stream *s)
{
	if (s->extents)
		ext2fs_extent_free(s->extents);
	*s = (struct fs_stream){0};
}

static int put_run(struct image_fs *fs, struct fs_stream *s, struct error *err)
{
	errcode_t code;

	if (!s->run.e_len)
		return 0;
	code = ext2fs_extent_insert(s->extents, EXT2_EXTENT_INSERT_AFTER, &s->run);
	if (!code)
		code = ext2fs_extent_fix_parents(s->extents);
	s->run.e_len = 0;
	return code ? fs_error(fs, err, code, "extending the file's block list") : 0;
}

/* Notes that file blocks logical… lie at disk blocks physical…. */
static int map_blocks(struct image_fs *fs, struct fs_stream *s, blk64_t logical, blk64_t physical,
		      blk64_t count, struct error *err)
{
	uint32_t part;

	while (count) {
		if (!s->run.e_len || s->run.e_lblk + s->run.e_len != logical ||
		    s->run.e_pblk + s->run.e_len != physical || s->run.e_len >= FS_EXTENT_MAX) {
			if (put_run(fs, s, err))
				return -1;
			s->run = (struct ext2fs_extent){.e_pblk = physical, .e_lblk = logical};
		}
		part = FS_EXTENT_MAX - s->run.e_len;
		if (part > count)
			part = count;
		s->run.e_len += part;
		logical += part;
		physical += part;
		count -= part;
	}
	return 0;
}

/* Writes the stage, whose last block is filled up with zeros, to newly taken blocks. */
static int flush(struct image_fs *fs, struct fs_stream *s, struct error *err)
{
	blk64_t logical = s->staged_at / fs->ext->blocksize, at, got;
	blk64_t left = (s->staged + fs->ext->blocksize - 1) / fs->ext->blocksize;
	const char *data = fs->stage;
	errcode_t code;

	memset(fs->stage + s->staged, 0, left * fs->ext->blocksize - s->staged);
	while (left) {
		code = ext2fs_new_range(fs->ext, 0, fs->goal, left, NULL, &at, &got);
		if (code)
			return fs_error(fs, err, code, "taking blocks");
		ext2fs_block_alloc_stats_range(fs->ext, at, got, +1);
		code = ext2fs_iblk_add_blocks(fs->ext, &s->inode->small, got);
		if (!code)
			code = io_channel_write_blk64(fs->ext->io, at, (int)got, data);
		if (code)
			return fs_error(fs, err, code, "writing");
		if (map_blocks(fs, s, logical, at, got, err))
			return -1;
		fs->goal = at + got;
		logical += got;
		left -= got;
		data += got * fs->ext->blocksize;
	}
	s->staged = 0;
	return 0;
}

/* Makes the stage end exactly before `offset`, which is not before the stream's end. */
static int seek_to(struct image_fs *fs, struct fs_stream *s, uint64_t offset, struct error *err)
{
	uint64_t block = offset & ~(uint64_t)(fs->ext->blocksize - 1);

	if (offset == s->staged_at + s->staged)
		return 0;
	/* The gap ends within the stage's last block: zeros, no hole. Otherwise start anew at offset's block.
	 */
	if (!s->staged || block >= s->staged_at + s->staged) {
		if (s->staged && flush(fs, s, err))
			return -1;
		s->staged_at = block;
	}
	memset(fs->stage + s->staged, 0, offset - s->staged_at - s->staged);
	s->staged = offset - s->staged_at;
	return 0;
}

int fs_stream_write(struct image_fs *fs, struct fs_stream *s, uint64_t offset, const char *data,
		    size_t length, struct error *err)
{
	uint64_t most = (uint64_t)UINT32_MAX * fs->ext->blocksize;
	size_t part;

	if (offset < s->end || offset > most || length > most - offset)
		return error_set(err, ERROR_FAILED, "its content lies at impossible offsets");
	while (length) {
		if (seek_to(fs, s, offset, err))
			return -1;
		part = FS_STAGE_SIZE - s->staged;
		if (part > length)
			part = length;
		memcpy(fs->stage + s->staged, data, part);
		s->staged += part;
		offset += part;
		data += part;
		length -= part;
		s->end = offset;
		if (s->staged == FS_STAGE_SIZE) {
			if (flush(fs, s, err))
				return -1;
			s->staged_at = offset;
		}
	}
	return 0;
}

int fs_stream_close(struct image_fs *fs, struct fs_stream *s, struct error *err)
{
	errcode_t code;
	int result = 0;

	if (!s->ino)
		return 0;
	if ((s->staged && flush(fs, s, err)) || put_run(fs, s, err)) {
		result = -1;
	} else {
		code = ext2fs_inode_size_set(fs->ext, &s->inode->small, s->end);
		if (code)
			result = fs_error(fs, err, code, "setting the file's size");
		else
			result = fs_inode_write(fs, s->ino, s->inode, err);
	}
	fs_stream_abandon(s);
	return result;
}
