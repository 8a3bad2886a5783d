/*
 * Inodes: attributes as an archive has them, and extended attributes.
 *
 * Numbers are taken in rising order, which keeps the inode table dense and the
 * search short. An inode is written whole (256 bytes) with its attributes
 * before it gets content, so that what libext2fs adds on its own (extent tree,
 * attribute block) finds a good inode. Layout: Linux
 * Documentation/filesystems/ext4/inodes.rst.
 */
#include <string.h>
#include <sys/stat.h>

#include "uml-lab/base/str.h"
#include "uml-lab/image/fs_internal.h"

/* Extra fields beyond the first 128 bytes: up to and with i_projid. */
#define EXTRA_SIZE (sizeof(struct ext2_inode_large) - EXT2_GOOD_OLD_INODE_SIZE)

/* Seconds and the word that holds nanoseconds and bits 32 and 33 of the seconds (1901 to 2446). */
static void put_time(uint32_t *low, uint32_t *extra, struct timespec t)
{
	int64_t seconds = t.tv_sec;
	const int64_t least = INT32_MIN, most = least + ((int64_t)1 << 34) - 1;
	uint32_t epoch;

	if (seconds < least)
		seconds = least;
	if (seconds > most)
		seconds = most;
	epoch = (uint32_t)((seconds - (int32_t)(uint32_t)seconds) >> 32) & 3;
	*low = (uint32_t)seconds;
	*extra = ((uint32_t)t.tv_nsec << EXT4_EPOCH_BITS) | epoch;
}

static void set_attributes(struct image_fs *fs, union fs_inode *inode, const struct image_entry *entry)
{
	struct ext2_inode_large *i = &inode->large;
	struct timespec now = {.tv_sec = fs->now};

	i->i_mode = (uint16_t)entry->mode;
	i->i_uid = (uint16_t)entry->uid;
	i->i_uid_high = (uint16_t)(entry->uid >> 16);
	i->i_gid = (uint16_t)entry->gid;
	i->i_gid_high = (uint16_t)(entry->gid >> 16);
	i->i_extra_isize = EXTRA_SIZE;
	put_time(&i->i_mtime, &i->i_mtime_extra, entry->mtime);
	put_time(&i->i_atime, &i->i_atime_extra, entry->atime);
	put_time(&i->i_ctime, &i->i_ctime_extra, now);
	put_time(&i->i_crtime, &i->i_crtime_extra, now);
}

/* As the kernel encodes a device number: the old 16 bits in the first word, else the new 32 in the second. */
static void set_device(union fs_inode *inode, uint32_t device_major, uint32_t device_minor)
{
	if (device_major < 256 && device_minor < 256)
		inode->large.i_block[0] = device_major << 8 | device_minor;
	else
		inode->large.i_block[1] =
			(device_minor & 0xff) | device_major << 8 | (device_minor & ~0xffu) << 12;
}

static int take_number(struct image_fs *fs, bool folder, ext2_ino_t *ino, struct error *err)
{
	const struct ext2_super_block *super = fs->ext->super;
	errcode_t code;

	code = ext2fs_find_first_zero_inode_bitmap2(fs->ext->inode_map, fs->next_ino, super->s_inodes_count,
						    ino);
	if (code)
		code = ext2fs_find_first_zero_inode_bitmap2(fs->ext->inode_map, super->s_first_ino,
							    super->s_inodes_count, ino);
	if (code)
		return fs_error(fs, err, EXT2_ET_INODE_ALLOC_FAIL, "taking an inode");
	ext2fs_inode_alloc_stats2(fs->ext, *ino, +1, folder);
	fs->next_ino = *ino < super->s_inodes_count ? *ino + 1 : super->s_first_ino;
	return 0;
}

int fs_inode_read(struct image_fs *fs, ext2_ino_t ino, union fs_inode *inode, struct error *err)
{
	errcode_t code = ext2fs_read_inode_full(fs->ext, ino, &inode->small, sizeof(*inode));

	return code ? fs_error(fs, err, code, "reading an inode") : 0;
}

int fs_inode_write(struct image_fs *fs, ext2_ino_t ino, union fs_inode *inode, struct error *err)
{
	errcode_t code = ext2fs_write_inode_full(fs->ext, ino, &inode->small, sizeof(*inode));

	return code ? fs_error(fs, err, code, "writing an inode") : 0;
}

static bool is_stored(const char *name)
{
	return str_starts(name, "user.") || str_starts(name, "trusted.") || str_starts(name, "security.") ||
	       str_eq(name, "system.posix_acl_access") || str_eq(name, "system.posix_acl_default");
}

/* Stores the attributes of the namespaces Linux has on ext4; others (of other systems) mean nothing there. */
static int put_xattrs(struct image_fs *fs, ext2_ino_t ino, const struct image_entry *entry, struct error *err)
{
	struct ext2_xattr_handle *handle = NULL;
	const struct image_xattr *x;
	errcode_t code;

	code = ext2fs_xattrs_open(fs->ext, ino, &handle);
	if (!code)
		code = ext2fs_xattrs_read(handle);
	for (size_t i = 0; !code && i < entry->xattr_count; i++) {
		x = &entry->xattrs[i];
		if (!is_stored(x->name))
			continue;
		code = strlen(x->name) > EXT2_NAME_LEN
			       ? EXT2_ET_EA_NO_SPACE
			       : ext2fs_xattr_set(handle, x->name, x->value, x->length);
	}
	if (handle)
		ext2fs_xattrs_close(&handle);
	return code ? fs_error(fs, err, code, "storing its extended attributes") : 0;
}

int fs_inode_new(struct image_fs *fs, const struct image_entry *entry, ext2_ino_t *ino, union fs_inode *inode,
		 struct error *err)
{
	bool device = S_ISCHR(entry->mode) || S_ISBLK(entry->mode);

	if (take_number(fs, S_ISDIR(entry->mode), ino, err))
		return -1;
	memset(inode, 0, sizeof(*inode));
	set_attributes(fs, inode, entry);
	inode->large.i_links_count = 1;
	if (device)
		set_device(inode, entry->device_major, entry->device_minor);
	if (fs_inode_write(fs, *ino, inode, err))
		return -1;
	if (!entry->xattr_count)
		return 0;
	if (put_xattrs(fs, *ino, entry, err))
		return -1;
	return fs_inode_read(fs, *ino, inode, err);
}

int fs_inode_change(struct image_fs *fs, ext2_ino_t ino, const struct image_entry *entry, struct error *err)
{
	union fs_inode inode;
	size_t known = sizeof(inode.large);
	errcode_t code;

	if (fs_inode_read(fs, ino, &inode, err))
		return -1;
	code = ext2fs_free_ext_attr(fs->ext, ino, &inode.large);
	if (code)
		return fs_error(fs, err, code, "dropping its extended attributes");
	/* Those that lie in the inode itself, behind its known fields. */
	memset(inode.bytes + known, 0, sizeof(inode) - known);
	set_attributes(fs, &inode, entry);
	if (fs_inode_write(fs, ino, &inode, err))
		return -1;
	return entry->xattr_count ? put_xattrs(fs, ino, entry, err) : 0;
}

int fs_inode_link(struct image_fs *fs, ext2_ino_t ino, struct error *err)
{
	union fs_inode inode;

	if (fs_inode_read(fs, ino, &inode, err))
		return -1;
	if (inode.large.i_links_count >= EXT2_LINK_MAX)
		return error_set(err, ERROR_FAILED, "more than %d hard links to one file", EXT2_LINK_MAX);
	inode.large.i_links_count++;
	return fs_inode_write(fs, ino, &inode, err);
}

int fs_inode_unlink(struct image_fs *fs, ext2_ino_t ino, bool folder, struct error *err)
{
	union fs_inode inode;
	errcode_t code = 0;

	if (fs_inode_read(fs, ino, &inode, err))
		return -1;
	if (!folder && inode.large.i_links_count > 1) {
		inode.large.i_links_count--;
		return fs_inode_write(fs, ino, &inode, err);
	}
	code = ext2fs_free_ext_attr(fs->ext, ino, &inode.large);
	if (!code && ext2fs_inode_has_valid_blocks2(fs->ext, &inode.small))
		code = ext2fs_punch(fs->ext, ino, &inode.small, NULL, 0, ~0ULL);
	if (code)
		return fs_error(fs, err, code, "freeing a replaced file");
	memset(&inode, 0, sizeof(inode));
	inode.large.i_dtime = (uint32_t)fs->now;
	ext2fs_inode_alloc_stats2(fs->ext, ino, -1, folder);
	return fs_inode_write(fs, ino, &inode, err);
}
