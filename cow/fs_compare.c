/*
 * Comparing one file of two states of a file system: which of its aspects
 * differ. Content is read only when its blocks were touched and its size is the
 * same.
 */
#include <ext2fs/ext2fs.h>
#include <string.h>

#include "cow/fs_diff.h"

#define PIECE (256u * 1024)

bool cow_fs_is_touched(const struct cow_fs_touched *t, uint64_t block)
{
	return t->all || (block < t->blocks && (t->map[block >> 3] >> (block & 7) & 1));
}

/* ---- Blocks of a file ---- */

struct block_walk {
	const struct cow_fs_touched *touched;
	bool found;
};

static int visit_block(ext2_filsys ext2, blk64_t *block, e2_blkcnt_t count, blk64_t ref, int offset,
		       void *arg)
{
	struct block_walk *w = arg;

	(void)ext2;
	(void)count;
	(void)ref;
	(void)offset;
	w->found = cow_fs_is_touched(w->touched, *block);
	return w->found ? BLOCK_ABORT : 0;
}

bool cow_fs_has_touched_blocks(struct cow_fs *fs, const struct cow_fs_touched *t, uint32_t inode)
{
	struct block_walk w = {.touched = t};
	/* inline data and the like have no blocks: nothing touched but the inode; other errors: look at all
	 * of it */
	errcode_t code = ext2fs_block_iterate3(fs->ext2, inode, BLOCK_FLAG_READ_ONLY, NULL, visit_block, &w);

	return w.found || (code && code != EXT2_ET_INLINE_DATA_CANT_ITERATE);
}

/* ---- Content ---- */

static int compare_data(ext2_file_t a, ext2_file_t b, uint8_t *buffer, bool *differs)
{
	unsigned int n, m;

	do {
		if (ext2fs_file_read(a, buffer, PIECE, &n) || ext2fs_file_read(b, buffer + PIECE, PIECE, &m))
			return -1;
		*differs = n != m || memcmp(buffer, buffer + PIECE, n) != 0;
	} while (n > 0 && !*differs);
	return 0;
}

static int content_differs(struct cow_fs_pair *p, uint32_t old, uint32_t new, bool *differs,
			   struct error *err)
{
	cleanup_free uint8_t *buffer = malloc(2 * PIECE);
	ext2_file_t a = NULL, b = NULL;
	int ret = -1;

	if (!buffer)
		return error_oom(err);
	if (!ext2fs_file_open(p->old->ext2, old, 0, &a) && !ext2fs_file_open(p->new->ext2, new, 0, &b))
		ret = compare_data(a, b, buffer, differs);
	if (a)
		ext2fs_file_close(a);
	if (b)
		ext2fs_file_close(b);
	return ret ? error_set(err, ERROR_FAILED, "cannot compare the content of two files") : 0;
}

static int link_differs(struct cow_fs_pair *p, uint32_t old, uint32_t new, bool *differs, struct error *err)
{
	cleanup_free char *a = cow_fs_readlink(p->old, old, err),
			  *b = a ? cow_fs_readlink(p->new, new, err) : NULL;

	if (!b)
		return -1;
	*differs = !str_eq(a, b);
	return 0;
}

/* ---- Inodes ---- */

/* Both inodes whole, with what follows the classic 128 bytes. */
struct raw_pair {
	size_t size;
	union {
		struct ext2_inode_large large;
		uint8_t bytes[4096];
	} old, new;
};

static int read_raw(struct cow_fs_pair *p, uint32_t old, uint32_t new, struct raw_pair *r, struct error *err)
{
	r->size = EXT2_INODE_SIZE(p->new->ext2->super);
	if (r->size > sizeof(r->old) || EXT2_INODE_SIZE(p->old->ext2->super) > sizeof(r->old))
		return error_set(err, ERROR_FAILED, "the file system's inodes are larger than any");
	memset(&r->old, 0, sizeof(r->old));
	memset(&r->new, 0, sizeof(r->new));
	if (ext2fs_read_inode_full(p->old->ext2, old, (struct ext2_inode *)&r->old, sizeof(r->old)) ||
	    ext2fs_read_inode_full(p->new->ext2, new, (struct ext2_inode *)&r->new, sizeof(r->new)))
		return error_set(err, ERROR_FAILED, "cannot read an inode");
	return 0;
}

static bool attributes_differ(const struct cow_fs_pair *p, const struct raw_pair *r)
{
	size_t at = EXT2_GOOD_OLD_INODE_SIZE + r->new.large.i_extra_isize;
	uint64_t block = r->new.large.i_file_acl;

	if (r->old.large.i_file_acl != block || (block && cow_fs_is_touched(p->touched, block)))
		return true;
	return r->size > EXT2_GOOD_OLD_INODE_SIZE && at < r->size &&
	       memcmp(r->old.bytes + at, r->new.bytes + at, r->size - at) != 0;
}

static bool has_inline_data(const struct raw_pair *r)
{
	return (r->old.large.i_flags | r->new.large.i_flags) & EXT4_INLINE_DATA_FL;
}

static int compare_content(struct cow_fs_pair *p, const struct cow_fs_difference *d, const struct raw_pair *r,
			   bool *differs, struct error *err)
{
	if ((d->old.mode ^ d->new.mode) & LINUX_S_IFMT) {
		*differs = true;
		return 0;
	}
	if (LINUX_S_ISLNK(d->new.mode))
		return link_differs(p, d->old.inode, d->new.inode, differs, err);
	*differs = d->old.device != d->new.device || d->old.size != d->new.size;
	if (*differs || !LINUX_S_ISREG(d->new.mode))
		return 0;
	if (memcmp(r->old.large.i_block, r->new.large.i_block, sizeof(r->new.large.i_block)) == 0 &&
	    !has_inline_data(r) && !cow_fs_has_touched_blocks(p->new, p->touched, d->new.inode))
		return 0;
	return content_differs(p, d->old.inode, d->new.inode, differs, err);
}

int cow_fs_compare(struct cow_fs_pair *p, uint32_t old, uint32_t new, struct cow_fs_difference *d,
		   struct error *err)
{
	struct raw_pair r;
	bool content, is_folder;

	if (read_raw(p, old, new, &r, err))
		return -1;
	cow_fs_fill(&d->old, old, (const struct ext2_inode *)&r.old);
	cow_fs_fill(&d->new, new, (const struct ext2_inode *)&r.new);
	if (compare_content(p, d, &r, &content, err))
		return -1;
	is_folder = LINUX_S_ISDIR(d->new.mode) && LINUX_S_ISDIR(d->old.mode);
	d->aspects = (content ? COW_FS_CONTENT : 0) |
		     (((d->old.mode ^ d->new.mode) & 07777) ? COW_FS_MODE : 0) |
		     (d->old.uid != d->new.uid || d->old.gid != d->new.gid ? COW_FS_OWNER : 0) |
		     (d->old.size != d->new.size ? COW_FS_SIZE : 0) |
		     (!has_inline_data(&r) && attributes_differ(p, &r) ? COW_FS_ATTRIBUTES : 0);
	/* a folder's time changes with each entry, which is told by itself */
	if (d->old.mtime != d->new.mtime && !is_folder)
		d->aspects |= COW_FS_MTIME;
	return 0;
}

int cow_fs_is_same_inode(struct cow_fs_pair *p, uint32_t inode, bool *same, struct error *err)
{
	struct raw_pair r;

	if (read_raw(p, inode, inode, &r, err))
		return -1;
	*same = r.old.large.i_links_count &&
		r.new.large.i_links_count &&r.old.large.i_generation == r.new.large.i_generation &&
		!((r.old.large.i_mode ^ r.new.large.i_mode) & LINUX_S_IFMT) &&
		(r.size == EXT2_GOOD_OLD_INODE_SIZE || r.old.large.i_crtime == r.new.large.i_crtime);
	return 0;
}
