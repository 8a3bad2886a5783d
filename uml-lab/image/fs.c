/*
 * The ext4 writer: how a file system is filled without being mounted.
 *
 * mke2fs makes an empty file system in a sparse file; libext2fs opens it. Each
 * entry's inode and content are written as the entry comes. Names stay in
 * memory (tree.c) until image_fs_finish() writes all folders: so an entry can
 * replace another, and folders of any size cost nothing to look into, and hard
 * links that came before their target are made then. Nobody else has the file,
 * and after a failure it is thrown away, so nothing is ever undone.
 *
 * Paths are walked in the tree only and never through a symbolic link: nothing
 * an archive says can reach the host's files.
 */
#include "uml-lab/image/fs.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/str.h"
#include "uml-lab/image/fs_internal.h"

/* Hard links that lead to later hard links: how long such a chain may be, at least. */
#define LINK_ROUNDS 16

char *image_quote(const char *path, char *buf, size_t size)
{
	const size_t longest = sizeof("\\ooo…");
	size_t n = 0;

	for (; *path && n + longest < size; path++) {
		unsigned char c = (unsigned char)*path;

		if (iscntrl(c))
			n += (size_t)snprintf(buf + n, size - n, "\\%03o", c);
		else
			buf[n++] = *path;
	}
	snprintf(buf + n, size - n, "%s", *path ? "…" : "");
	return buf;
}

int fs_error(struct image_fs *fs, struct error *err, errcode_t code, const char *what)
{
	char size[32];

	str_human_size(image_fs_size(fs), size, sizeof(size));
	switch (code) {
	case EXT2_ET_BLOCK_ALLOC_FAIL:
		error_set(err, ERROR_FAILED, "the content does not fit into an image of %s", size);
		return error_hint(err, "a larger one is made with --size");
	case EXT2_ET_INODE_ALLOC_FAIL:
		error_set(err, ERROR_FAILED, "an image of %s has no room for more than %u files", size,
			  fs->ext->super->s_inodes_count);
		return error_hint(err, "a larger one is made with --size");
	case EXT2_ET_EA_NO_SPACE:
		return error_set(err, ERROR_FAILED, "its extended attributes are larger than ext4 can store");
	default:
		return error_set(err, ERROR_FAILED, "%s: %s", what, error_message(code));
	}
}

static int load_root(struct image_fs *fs, struct error *err)
{
	static const char lost[] = "lost+found";
	struct image_node *node;
	ext2_ino_t ino;
	errcode_t code;

	if (image_tree_init(&fs->tree, EXT2_ROOT_INO, EXT2_FT_DIR, err))
		return -1;
	code = ext2fs_lookup(fs->ext, EXT2_ROOT_INO, lost, strlen(lost), NULL, &ino);
	if (code)
		return fs_error(fs, err, code, "looking for lost+found");
	node = image_tree_add(&fs->tree, fs->tree.root, lost, strlen(lost), ino, EXT2_FT_DIR, err);
	if (!node)
		return -1;
	node->keep_blocks = true;
	return 0;
}

struct image_fs *image_fs_open(const char *path, time_t now, struct error *err)
{
	struct image_fs *fs = calloc(1, sizeof(*fs));
	errcode_t code;

	if (fs)
		fs->stage = malloc(FS_STAGE_SIZE);
	if (!fs || !fs->stage) {
		image_fs_close(fs);
		error_oom(err);
		return NULL;
	}
	initialize_ext2_error_table();
	/* Empty I/O options, not NULL: then a "?" in the path is not taken for their start. */
	code = ext2fs_open2(path, "", EXT2_FLAG_RW | EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &fs->ext);
	if (!code) {
		fs->ext->default_bitmap_type = EXT2FS_BMAP64_RBTREE;
		code = ext2fs_read_bitmaps(fs->ext);
	}
	if (code) {
		error_set(err, ERROR_FAILED, "%s: %s", path, error_message(code));
		image_fs_close(fs);
		return NULL;
	}
	fs->now = now ? now : time(NULL);
	fs->ext->now = fs->now;
	fs->goal = fs->ext->super->s_first_data_block;
	fs->next_ino = fs->ext->super->s_first_ino;
	if (fs->ext->blocksize > FS_STAGE_SIZE || EXT2_INODE_SIZE(fs->ext->super) != sizeof(union fs_inode) ||
	    load_root(fs, err)) {
		image_fs_close(fs);
		return NULL;
	}
	return fs;
}

static void free_link(struct fs_link *link)
{
	free(link->target);
	free(link);
}

void image_fs_close(struct image_fs *fs)
{
	struct fs_link *link;

	if (!fs)
		return;
	fs_stream_abandon(&fs->file);
	if (fs->ext)
		ext2fs_free(fs->ext);
	image_tree_free(&fs->tree);
	while ((link = fs->links)) {
		fs->links = link->next;
		free_link(link);
	}
	free(fs->stage);
	free(fs);
}

uint64_t image_fs_size(const struct image_fs *fs)
{
	return ext2fs_blocks_count(fs->ext->super) * fs->ext->blocksize;
}

/* ---- paths ---- */

/* Takes the next component of *path: 1 with *name, *length; 0 at the end; -1 when it must not be. */
static int next_name(const char **path, const char **name, size_t *length, struct error *err)
{
	const char *p = *path;

	for (;;) {
		p += strspn(p, "/");
		*length = strcspn(p, "/");
		*name = p;
		p += *length;
		if (*length != 1 || **name != '.')
			break;
	}
	*path = p;
	if (!*length)
		return 0;
	if (*length == 2 && !memcmp(*name, "..", 2))
		return error_set(err, ERROR_FAILED, "a path with \"..\" in it is refused");
	if (*length > EXT2_NAME_LEN)
		return error_set(err, ERROR_FAILED, "a name of %zu bytes is too long, at most %d", *length,
				 EXT2_NAME_LEN);
	for (size_t i = 0; i < *length; i++)
		if (iscntrl((unsigned char)(*name)[i]))
			return error_set(err, ERROR_FAILED, "a control character in a name is refused");
	return 1;
}

static int check_path(const char *path, struct error *err)
{
	if (*path == '/')
		return error_set(err, ERROR_FAILED, "an absolute path is refused");
	if (strlen(path) > IMAGE_FS_PATH_MAX)
		return error_set(err, ERROR_FAILED, "a path of more than %d bytes is refused",
				 IMAGE_FS_PATH_MAX);
	return 0;
}

static struct image_node *add_parent(struct image_fs *fs, struct image_node *folder, const char *name,
				     size_t length, struct error *err)
{
	struct timespec now = {.tv_sec = fs->now};
	struct image_entry entry = {.mode = S_IFDIR | 0755, .mtime = now, .atime = now};
	union fs_inode inode;
	ext2_ino_t ino;

	if (fs_inode_new(fs, &entry, &ino, &inode, err))
		return NULL;
	return image_tree_add(&fs->tree, folder, name, length, ino, EXT2_FT_DIR, err);
}

/*
 * Walks to the folder of `path`, making missing ones, and gives it with the
 * last component. For the root itself *length is 0.
 */
static struct image_node *walk(struct image_fs *fs, const char *path, const char **name, size_t *length,
			       struct error *err)
{
	struct image_node *folder = fs->tree.root, *child;
	const char *next;
	size_t next_length;
	int more;

	if (check_path(path, err) || next_name(&path, name, length, err) < 0)
		return NULL;
	while ((more = next_name(&path, &next, &next_length, err)) > 0) {
		child = image_tree_find(&fs->tree, folder, *name, *length);
		if (!child)
			child = add_parent(fs, folder, *name, *length, err);
		if (!child)
			return NULL;
		if (child->type != EXT2_FT_DIR) {
			error_set(err, ERROR_FAILED, "its parent '%.*s' is %s, which is refused",
				  (int)*length, *name,
				  child->type == EXT2_FT_SYMLINK ? "a symbolic link" : "no folder");
			return NULL;
		}
		folder = child;
		*name = next;
		*length = next_length;
	}
	return more ? NULL : folder;
}

/* The node at a path in *out, or NULL there when it has not come (yet). */
static int find_node(struct image_fs *fs, const char *path, struct image_node **out, struct error *err)
{
	struct image_node *node = fs->tree.root;
	const char *name;
	size_t length;
	int more;

	if (check_path(path, err))
		return -1;
	while ((more = next_name(&path, &name, &length, err)) > 0 && node)
		node = image_tree_find(&fs->tree, node, name, length);
	if (more < 0)
		return -1;
	*out = node;
	return 0;
}

/* ---- entries ---- */

static int remove_node(struct image_fs *fs, struct image_node *top, struct error *err)
{
	struct image_node *node = top, *parent = NULL;

	for (; parent != top->parent; node = parent) {
		while (node->first_child)
			node = node->first_child;
		parent = node->parent;
		if (fs_inode_unlink(fs, node->inode, node->type == EXT2_FT_DIR, err))
			return -1;
		if (node == top) {
			image_tree_remove(&fs->tree, node);
			return 0;
		}
		image_tree_remove(&fs->tree, node);
	}
	return 0;
}

static int refuse_root(struct error *err)
{
	return error_set(err, ERROR_FAILED, "the root and lost+found must stay folders");
}

/* Makes room for a new thing of that name; lost+found must stay. */
static int replace(struct image_fs *fs, struct image_node *old, struct error *err)
{
	if (old->keep_blocks)
		return refuse_root(err);
	return remove_node(fs, old, err);
}

static int add_folder(struct image_fs *fs, struct image_node *parent, const char *name, size_t length,
		      const struct image_entry *entry, struct error *err)
{
	struct image_node *old = length ? image_tree_find(&fs->tree, parent, name, length) : fs->tree.root;
	union fs_inode inode;
	ext2_ino_t ino;

	if (old && old->type == EXT2_FT_DIR)
		return fs_inode_change(fs, old->inode, entry, err);
	if (old && replace(fs, old, err))
		return -1;
	if (fs_inode_new(fs, entry, &ino, &inode, err))
		return -1;
	return image_tree_add(&fs->tree, parent, name, length, ino, EXT2_FT_DIR, err) ? 0 : -1;
}

static int defer_link(struct image_fs *fs, const struct image_entry *entry, struct error *err)
{
	size_t length = strlen(entry->path) + 1;
	struct fs_link *link = calloc(1, sizeof(*link) + length);

	if (!link)
		return error_oom(err);
	memcpy(link->path, entry->path, length);
	link->target = str_dup(entry->target, err);
	if (!link->target) {
		free(link);
		return -1;
	}
	link->next = fs->links;
	fs->links = link;
	return 0;
}

static int refuse_target(const char *target, const char *why, struct error *err)
{
	char quoted[256];

	return error_set(err, ERROR_FAILED, "a hard link to '%s', which is %s",
			 image_quote(target, quoted, sizeof(quoted)), why);
}

static int add_hard_link(struct image_fs *fs, const struct image_entry *entry, struct error *err)
{
	struct image_node *target, *parent, *old;
	const char *name;
	uint32_t inode;
	uint8_t type;
	size_t length;

	if (find_node(fs, entry->target, &target, err)) {
		char quoted[256];

		return error_prefix(err, "hard link to '%s'",
				    image_quote(entry->target, quoted, sizeof(quoted)));
	}
	if (!target)
		return defer_link(fs, entry, err);
	if (target->type == EXT2_FT_DIR)
		return refuse_target(entry->target, "a folder", err);
	inode = target->inode;
	type = target->type;
	parent = walk(fs, entry->path, &name, &length, err);
	if (!parent)
		return -1;
	if (!length)
		return refuse_root(err);
	old = image_tree_find(&fs->tree, parent, name, length);
	if (old && old->inode == inode)
		return 0;
	/* The link first: replacing a folder may remove the target. */
	if (fs_inode_link(fs, inode, err) || (old && replace(fs, old, err)))
		return -1;
	return image_tree_add(&fs->tree, parent, name, length, inode, type, err) ? 0 : -1;
}

static int kind_of(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return EXT2_FT_REG_FILE;
	case S_IFLNK:
		return EXT2_FT_SYMLINK;
	case S_IFCHR:
		return EXT2_FT_CHRDEV;
	case S_IFBLK:
		return EXT2_FT_BLKDEV;
	case S_IFIFO:
		return EXT2_FT_FIFO;
	case S_IFSOCK:
		return EXT2_FT_SOCK;
	default:
		return EXT2_FT_UNKNOWN;
	}
}

static int check_kind(struct image_fs *fs, const struct image_entry *entry, struct error *err)
{
	if (S_ISCHR(entry->mode) || S_ISBLK(entry->mode)) {
		/* Linux has 12 bits of major and 20 of minor numbers. */
		if (entry->device_major >= 1 << 12 || entry->device_minor >= 1 << 20)
			return error_set(err, ERROR_FAILED, "device number %u:%u is impossible",
					 entry->device_major, entry->device_minor);
		if (++fs->devices > IMAGE_FS_DEVICES_MAX)
			return error_set(err, ERROR_FAILED, "more than %d device nodes are refused",
					 IMAGE_FS_DEVICES_MAX);
	}
	if (kind_of(entry->mode) == EXT2_FT_UNKNOWN)
		return error_set(err, ERROR_FAILED, "it is of no known kind (mode 0%o)", entry->mode);
	return 0;
}

/* The target into the inode itself when it is short enough, else into a block. */
static int write_symlink(struct image_fs *fs, ext2_ino_t ino, union fs_inode *inode, const char *target,
			 struct error *err)
{
	struct fs_stream stream = {0};
	size_t length = target ? strlen(target) : 0;
	int result;

	if (!length || length > IMAGE_FS_PATH_MAX)
		return error_set(err, ERROR_FAILED, "a symbolic link with a target of %zu bytes", length);
	if (length < sizeof(inode->large.i_block)) {
		memcpy(inode->large.i_block, target, length);
		inode->large.i_size = length;
		return fs_inode_write(fs, ino, inode, err);
	}
	if (fs_stream_open(fs, &stream, ino, inode, err))
		return -1;
	result = fs_stream_write(fs, &stream, 0, target, length, err);
	if (!result)
		result = fs_stream_close(fs, &stream, err);
	fs_stream_abandon(&stream);
	return result;
}

static int add_file(struct image_fs *fs, struct image_node *parent, const char *name, size_t length,
		    const struct image_entry *entry, struct error *err)
{
	struct image_node *old;
	ext2_ino_t ino;

	if (!length)
		return refuse_root(err);
	old = image_tree_find(&fs->tree, parent, name, length);
	if (check_kind(fs, entry, err) || (old && replace(fs, old, err)) ||
	    fs_inode_new(fs, entry, &ino, &fs->file_inode, err) ||
	    !image_tree_add(&fs->tree, parent, name, length, ino, (uint8_t)kind_of(entry->mode), err))
		return -1;
	if (S_ISLNK(entry->mode))
		return write_symlink(fs, ino, &fs->file_inode, entry->target, err);
	if (S_ISREG(entry->mode))
		return fs_stream_open(fs, &fs->file, ino, &fs->file_inode, err);
	return 0;
}

static int name_entry(const char *path, struct error *err)
{
	char quoted[512];

	return error_prefix(err, "entry '%s'", image_quote(path, quoted, sizeof(quoted)));
}

static int end_file(struct image_fs *fs, struct error *err)
{
	return fs_stream_close(fs, &fs->file, err) ? name_entry(fs->file_path, err) : 0;
}

static int add(struct image_fs *fs, const struct image_entry *entry, struct error *err)
{
	struct image_node *parent;
	const char *name;
	size_t length;

	if (entry->hard_link)
		return add_hard_link(fs, entry, err);
	parent = walk(fs, entry->path, &name, &length, err);
	if (!parent)
		return -1;
	if (S_ISDIR(entry->mode))
		return add_folder(fs, parent, name, length, entry, err);
	return add_file(fs, parent, name, length, entry, err);
}

int image_fs_add(struct image_fs *fs, const struct image_entry *entry, struct error *err)
{
	if (end_file(fs, err))
		return -1;
	snprintf(fs->file_path, sizeof(fs->file_path), "%s", entry->path);
	return add(fs, entry, err) ? name_entry(entry->path, err) : 0;
}

int image_fs_write(struct image_fs *fs, uint64_t offset, const void *data, size_t length, struct error *err)
{
	if (fs_stream_write(fs, &fs->file, offset, data, length, err))
		return name_entry(fs->file_path, err);
	return 0;
}

void image_fs_extend(struct image_fs *fs, uint64_t size)
{
	if (size > fs->file.end)
		fs->file.end = size;
}

int image_fs_remove(struct image_fs *fs, const char *path, struct error *err)
{
	struct image_node *node = NULL;
	int result;

	if (end_file(fs, err))
		return -1;
	result = find_node(fs, path, &node, err);
	if (!result && node)
		result = node->parent ? replace(fs, node, err) : refuse_root(err);
	return result ? name_entry(path, err) : 0;
}

/* ---- the end ---- */

/* Makes a link that waited, if its target is there by now: 1; 0 when it is not; -1. */
static int make_link(struct image_fs *fs, const struct fs_link *link, struct error *err)
{
	struct image_entry entry = {.path = link->path, .target = link->target, .hard_link = true};
	struct image_node *target;

	if (find_node(fs, link->target, &target, err))
		return -1;
	if (!target)
		return 0;
	return add_hard_link(fs, &entry, err) ? -1 : 1;
}

/*
 * Makes the links whose target came later. One may lead to another that
 * waits, so this takes rounds, of which an honest archive needs few.
 */
static int make_links(struct image_fs *fs, struct error *err)
{
	struct fs_link **at, *link;
	int made;

	for (int round = 0; fs->links && round < LINK_ROUNDS; round++) {
		for (at = &fs->links; (link = *at);) {
			made = make_link(fs, link, err);
			if (made < 0)
				return name_entry(link->path, err);
			if (!made) {
				at = &link->next;
				continue;
			}
			*at = link->next;
			free_link(link);
		}
	}
	if (!fs->links)
		return 0;
	refuse_target(fs->links->target, "not in the archive", err);
	return name_entry(fs->links->path, err);
}

int image_fs_finish(struct image_fs *fs, struct error *err)
{
	errcode_t code;

	if (end_file(fs, err) || make_links(fs, err) || fs_folders_write(fs, err))
		return -1;
	ext2fs_mark_super_dirty(fs->ext);
	code = ext2fs_flush(fs->ext);
	return code ? fs_error(fs, err, code, "writing the file system's maps") : 0;
}

static ext2_ino_t lookup(struct image_fs *fs, const char *path)
{
	struct ext2_inode inode;
	ext2_ino_t ino;

	if (ext2fs_namei_follow(fs->ext, EXT2_ROOT_INO, EXT2_ROOT_INO, path, &ino) ||
	    ext2fs_read_inode(fs->ext, ino, &inode) || !LINUX_S_ISREG(inode.i_mode))
		return 0;
	return ino;
}

bool image_fs_has_file(struct image_fs *fs, const char *path)
{
	return lookup(fs, path) != 0;
}

char *image_fs_read_file(struct image_fs *fs, const char *path, size_t max)
{
	cleanup_free char *data = calloc(1, max + 1);
	ext2_ino_t ino = lookup(fs, path);
	unsigned int got = 0;
	ext2_file_t file;
	errcode_t code;

	if (!ino || !data || ext2fs_file_open(fs->ext, ino, 0, &file))
		return NULL;
	code = ext2fs_file_read(file, data, (unsigned int)max, &got);
	ext2fs_file_close(file);
	return code ? NULL : steal_ptr(&data);
}
