/*
 * What changed in the files of a disk.
 *
 * The upper files of the chain own some blocks; inodes in them that differ from
 * what lies below are the *changed inodes*. Folders are walked in pairs (as they
 * were, as they are), each once. A folder of which neither inode nor blocks are
 * touched is read once and looked through for changed inodes and folders below;
 * for any other, names are compared.
 *
 * Names only in one of the two are roots of what was removed or added. Those with
 * the same inode (number, generation, birth) are renames, and folders among them
 * a pair to walk. What is left is final, and its entries, if it is a folder, are
 * the next roots; so a file moved into a new folder is found too.
 *
 * A file whose data was written without its inode changing is not seen. No kernel
 * does that: each write changes the times.
 */
#include <ext2fs/ext2fs.h>
#include <string.h>

#include "cow/fs_diff.h"

/* A name in a folder, or a root: its path. */
struct name {
	char *text;
	uint32_t inode;
	bool is_folder;
	bool done; /* of a root: dealt with */
};

struct names {
	struct name *items;
	size_t count, size;
};

struct folder_pair {
	uint32_t old, new;
	char *path; /* as it is; "" for the root */
};

struct diff {
	struct cow_fs_pair pair;
	struct cow_fs_touched touched;
	uint8_t *changed; /* a bit per inode */
	uint8_t *visited; /* a bit per inode: folders, as they are */
	uint8_t *visited_old;
	uint32_t inodes;
	struct folder_pair *queue;
	size_t queued, queue_size;
	struct names added, removed; /* roots */
	struct cow_fs_difference *found;
	size_t found_count, found_size;
};

static bool test_bit(const uint8_t *map, uint32_t n)
{
	return map[n >> 3] >> (n & 7) & 1;
}

static void set_bit(uint8_t *map, uint32_t n)
{
	map[n >> 3] |= (uint8_t)(1u << (n & 7));
}

static void *grow(void *items, size_t *size, size_t count, size_t item)
{
	size_t wanted = *size ? 2 * *size : 64;
	void *larger;

	if (count < *size)
		return items;
	larger = reallocarray(items, wanted, item);
	if (larger)
		*size = wanted;
	return larger;
}

/* ---- Names ---- */

static void free_names(struct names *n)
{
	for (size_t i = 0; i < n->count; i++)
		free(n->items[i].text);
	free(n->items);
	*n = (struct names){0};
}

/* Takes over text, also when it fails. */
static int add_name(struct names *n, char *text, uint32_t inode, bool is_folder, struct error *err)
{
	struct name *items = text ? grow(n->items, &n->size, n->count, sizeof(*items)) : NULL;

	if (!items) {
		free(text);
		return error_oom(err);
	}
	n->items = items;
	items[n->count++] = (struct name){.text = text, .inode = inode, .is_folder = is_folder};
	return 0;
}

static int collect(void *arg, const char *name, uint32_t inode, bool is_folder, struct error *err)
{
	return add_name(arg, str_dup(name, err), inode, is_folder, err);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(((const struct name *)a)->text, ((const struct name *)b)->text);
}

static int read_sorted(struct cow_fs *fs, uint32_t folder, struct names *out, struct error *err)
{
	if (cow_fs_list(fs, folder, collect, out, err))
		return -1;
	if (out->count)
		qsort(out->items, out->count, sizeof(*out->items), by_text);
	return 0;
}

/* ---- What was found ---- */

static int add_found(struct diff *d, const struct cow_fs_difference *what, struct error *err)
{
	struct cow_fs_difference *found = grow(d->found, &d->found_size, d->found_count, sizeof(*found));
	char *path = str_dup(what->path, err),
	     *old_path = what->old_path ? str_dup(what->old_path, err) : NULL;

	if (found)
		d->found = found;
	if (!found || !path || (what->old_path && !old_path)) {
		free(path);
		free(old_path);
		return error_oom(err);
	}
	found[d->found_count] = *what;
	found[d->found_count].path = path;
	found[d->found_count++].old_path = old_path;
	return 0;
}

static int compare_file(struct diff *d, uint32_t old, uint32_t new, const char *path, struct error *err)
{
	struct cow_fs_difference what = {.change = COW_FS_MODIFIED, .path = path};

	if (cow_fs_compare(&d->pair, old, new, &what, err))
		return error_prefix(err, "%s", path);
	return what.aspects ? add_found(d, &what, err) : 0;
}

/* ---- Walking pairs of folders ---- */

static int enqueue(struct diff *d, uint32_t old, uint32_t new, const char *path, struct error *err)
{
	struct folder_pair *queue;
	char *copy;

	if (new == 0 || old == 0 || new > d->inodes || old > d->inodes)
		return error_set(err, ERROR_FAILED, "%s: impossible inode number", path);
	if (test_bit(d->visited, new)) /* a damaged file system: a folder with two names */
		return 0;
	set_bit(d->visited, new);
	set_bit(d->visited_old, old);
	queue = grow(d->queue, &d->queue_size, d->queued, sizeof(*queue));
	copy = str_dup(path, err);
	if (!queue || !copy) {
		free(copy);
		return error_oom(err);
	}
	d->queue = queue;
	queue[d->queued++] = (struct folder_pair){old, new, copy};
	return 0;
}

static bool is_changed(const struct diff *d, uint32_t inode)
{
	return d->touched.all || inode > d->inodes || test_bit(d->changed, inode);
}

static int visit_one(struct names *roots, const char *folder, const struct name *n, struct error *err)
{
	return add_name(roots, str_printf(err, "%s/%s", folder, n->text), n->inode, n->is_folder, err);
}

/* A name that is in both states of a folder. */
static int visit_both(struct diff *d, const char *folder, const struct name *old, const struct name *new,
		      struct error *err)
{
	cleanup_free char *path = NULL;
	bool folders = old->is_folder && new->is_folder;

	if (old->is_folder != new->is_folder) /* one went, another came */
		return visit_one(&d->removed, folder, old, err) || visit_one(&d->added, folder, new, err) ? -1
													  : 0;
	if (old->inode == new->inode && !is_changed(d, new->inode) && !folders)
		return 0;
	path = str_printf(err, "%s/%s", folder, new->text);
	if (!path)
		return -1;
	if ((old->inode != new->inode || is_changed(d, new->inode)) &&
	    compare_file(d, old->inode, new->inode, path, err))
		return -1;
	return folders ? enqueue(d, old->inode, new->inode, path, err) : 0;
}

static int compare_names(struct diff *d, const char *folder, const struct names *old, const struct names *new,
			 struct error *err)
{
	size_t i = 0, j = 0;

	while (i < old->count || j < new->count) {
		int order = i == old->count   ? 1
			    : j == new->count ? -1
					      : strcmp(old->items[i].text, new->items[j].text);
		int ret;

		if (order < 0)
			ret = visit_one(&d->removed, folder, &old->items[i++], err);
		else if (order > 0)
			ret = visit_one(&d->added, folder, &new->items[j++], err);
		else
			ret = visit_both(d, folder, &old->items[i++], &new->items[j++], err);
		if (ret)
			return -1;
	}
	return 0;
}

static int walk_pair(struct diff *d, const struct folder_pair *f, struct error *err)
{
	cleanup_with(free_names) struct names old = {0}, new = {0};
	bool same = f->old == f->new && !is_changed(d, f->new) &&
		    !cow_fs_has_touched_blocks(d->pair.new, &d->touched, f->new);

	if (same) {
		if (cow_fs_list(d->pair.new, f->new, collect, &new, err))
			return error_prefix(err, "%s/", f->path);
		for (size_t i = 0; i < new.count; i++)
			if (visit_both(d, f->path, &new.items[i], &new.items[i], err))
				return -1;
		return 0;
	}
	if (read_sorted(d->pair.old, f->old, &old, err) || read_sorted(d->pair.new, f->new, &new, err))
		return error_prefix(err, "%s/", f->path);
	return compare_names(d, f->path, &old, &new, err);
}

static int walk_queue(struct diff *d, struct error *err)
{
	while (d->queued > 0) {
		struct folder_pair f = d->queue[--d->queued];
		int ret = walk_pair(d, &f, err);

		free(f.path);
		if (ret)
			return -1;
	}
	return 0;
}

/* ---- Roots: renames, then what was added and removed ---- */

static int by_inode(const void *a, const void *b)
{
	uint32_t x = ((const struct name *)a)->inode, y = ((const struct name *)b)->inode;

	return (x > y) - (x < y);
}

static int rename_root(struct diff *d, struct name *old, struct name *new, struct error *err)
{
	struct cow_fs_difference what = {.change = COW_FS_RENAMED, .path = new->text, .old_path = old->text};
	bool same = false;

	if (cow_fs_is_same_inode(&d->pair, new->inode, &same, err))
		return -1;
	if (!same)
		return 0;
	if (cow_fs_compare(&d->pair, old->inode, new->inode, &what, err))
		return -1;
	/* file systems made by tools number no generations: another content is another file then */
	if (what.new.generation == 0 && (what.aspects & COW_FS_CONTENT))
		return 0;
	if (add_found(d, &what, err))
		return -1;
	old->done = new->done = true;
	return new->is_folder ? enqueue(d, old->inode, new->inode, new->text, err) : 0;
}

static int find_renames(struct diff *d, struct error *err)
{
	struct names *removed = &d->removed;

	if (removed->count)
		qsort(removed->items, removed->count, sizeof(*removed->items), by_inode);
	for (size_t i = 0; i < d->added.count; i++) {
		struct name *new = &d->added.items[i];
		struct name *old = removed->count ? bsearch(new, removed->items, removed->count,
							    sizeof(*removed->items), by_inode)
						  : NULL;

		if (!new->done && old && !old->done &&rename_root(d, old, new, err))
			return -1;
	}
	return 0;
}

/* A root that is no rename: found, and the entries of a folder are roots now. */
static int settle(struct diff *d, struct names *roots, struct name root, bool added, struct error *err)
{
	struct cow_fs_difference what = {.change = added ? COW_FS_ADDED : COW_FS_REMOVED, .path = root.text};
	struct cow_fs *fs = added ? d->pair.new : d->pair.old;
	uint8_t *visited = added ? d->visited : d->visited_old;
	cleanup_with(free_names) struct names inside = {0};

	if (cow_fs_stat(fs, root.inode, added ? &what.new : &what.old, err) || add_found(d, &what, err))
		return -1;
	if (!root.is_folder || root.inode > d->inodes || test_bit(visited, root.inode))
		return 0;
	set_bit(visited, root.inode);
	if (read_sorted(fs, root.inode, &inside, err))
		return error_prefix(err, "%s/", root.text);
	for (size_t i = 0; i < inside.count; i++)
		if (visit_one(roots, root.text, &inside.items[i], err))
			return -1;
	return 0;
}

/* Which open roots to settle. */
enum which { FOLDERS_ON_ONE_SIDE, FOLDERS, ALL };

static bool is_wanted(struct diff *d, const struct name *root, enum which which)
{
	bool same = false;

	if (root->done || (which != ALL && !root->is_folder))
		return false;
	/* a folder that lives on both sides was moved, and its other name may yet turn up */
	return which != FOLDERS_ON_ONE_SIDE || cow_fs_is_same_inode(&d->pair, root->inode, &same, NULL) ||
	       !same;
}

/* Returns how many were settled. */
static int settle_all(struct diff *d, bool added, enum which which, struct error *err)
{
	struct names *roots = added ? &d->added : &d->removed;
	size_t count = roots->count;
	int settled = 0;

	for (size_t i = 0; i < count; i++) {
		if (!is_wanted(d, &roots->items[i], which))
			continue;
		roots->items[i].done = true;
		if (settle(d, roots, roots->items[i], added, err))
			return -1;
		settled++;
	}
	return settled;
}

static int walk_all(struct diff *d, struct error *err)
{
	/* folders first, so that what moved into or out of one is found before it counts as new or gone */
	static const enum which order[] = {FOLDERS_ON_ONE_SIDE, FOLDERS, ALL};
	size_t step = 0;

	if (enqueue(d, EXT2_ROOT_INO, EXT2_ROOT_INO, "", err) || walk_queue(d, err))
		return -1;
	if (is_changed(d, EXT2_ROOT_INO) && compare_file(d, EXT2_ROOT_INO, EXT2_ROOT_INO, "/", err))
		return -1;
	while (step < ARRAY_SIZE(order)) {
		int removed, added;

		if (find_renames(d, err) || walk_queue(d, err))
			return -1;
		removed = settle_all(d, false, order[step], err);
		added = removed < 0 ? -1 : settle_all(d, true, order[step], err);
		if (added < 0)
			return -1;
		step = removed || added ? 0 : step + 1;
	}
	return 0;
}

/* ---- Which blocks and inodes were touched ---- */

static int mark_blocks(struct diff *d, const struct cow_chain *chain, size_t skip, struct error *err)
{
	ext2_filsys ext2 = d->pair.new->ext2;
	uint64_t per_block = ext2->blocksize / COW_SECTOR_SIZE;
	struct cow_extent e;

	d->touched.blocks = ext2fs_blocks_count(ext2->super);
	d->touched.map = calloc(1, d->touched.blocks / 8 + 1);
	if (!d->touched.map)
		return error_oom(err);
	for (uint64_t s = 0; s < chain->sectors; s += e.length) {
		cow_chain_run(chain, s, chain->sectors - s, &e);
		for (uint64_t b = s / per_block; e.owner < skip && b <= (s + e.length - 1) / per_block; b++)
			if (b < d->touched.blocks)
				d->touched.map[b >> 3] |= (uint8_t)(1u << (b & 7));
	}
	return 0;
}

/* Marks the inodes in a touched block of an inode table that differ. */
static int mark_inodes_of(struct diff *d, uint64_t block, uint32_t first, uint8_t *buffer, struct error *err)
{
	ext2_filsys ext2 = d->pair.new->ext2;
	uint32_t size = EXT2_INODE_SIZE(ext2->super), count = ext2->blocksize / size;

	if (io_channel_read_blk64(ext2->io, block, 1, buffer) ||
	    io_channel_read_blk64(d->pair.old->ext2->io, block, 1, buffer + ext2->blocksize))
		return error_set(err, ERROR_FAILED, "cannot read a table of inodes");
	for (uint32_t i = 0; i < count && first + i <= d->inodes; i++)
		if (memcmp(buffer + (size_t)i * size, buffer + ext2->blocksize + (size_t)i * size, size) != 0)
			set_bit(d->changed, first + i);
	return 0;
}

static int mark_inodes(struct diff *d, struct error *err)
{
	ext2_filsys ext2 = d->pair.new->ext2;
	uint32_t per_block = ext2->blocksize / EXT2_INODE_SIZE(ext2->super);
	cleanup_free uint8_t *buffer = malloc(2 * (size_t)ext2->blocksize);

	if (!buffer)
		return error_oom(err);
	for (dgrp_t g = 0; g < ext2->group_desc_count; g++) {
		uint64_t table = ext2fs_inode_table_loc(ext2, g);

		for (uint32_t b = 0; b < ext2->inode_blocks_per_group; b++)
			if (cow_fs_is_touched(&d->touched, table + b) &&
			    mark_inodes_of(d, table + b,
					   g * ext2->super->s_inodes_per_group + b * per_block + 1, buffer,
					   err))
				return -1;
	}
	return 0;
}

static bool is_same_layout(const struct cow_fs *a, const struct cow_fs *b)
{
	struct ext2_super_block *x = a->ext2->super, *y = b->ext2->super;

	if (x->s_inodes_count != y->s_inodes_count || a->ext2->blocksize != b->ext2->blocksize ||
	    x->s_inodes_per_group != y->s_inodes_per_group || EXT2_INODE_SIZE(x) != EXT2_INODE_SIZE(y) ||
	    ext2fs_blocks_count(x) != ext2fs_blocks_count(y) ||
	    memcmp(x->s_uuid, y->s_uuid, sizeof(x->s_uuid)))
		return false;
	for (dgrp_t g = 0; g < a->ext2->group_desc_count; g++)
		if (ext2fs_inode_table_loc(a->ext2, g) != ext2fs_inode_table_loc(b->ext2, g))
			return false;
	return true;
}

static int prepare(struct diff *d, const struct cow_chain *chain, size_t skip, struct error *err)
{
	uint32_t old = d->pair.old->ext2->super->s_inodes_count,
		 new = d->pair.new->ext2->super->s_inodes_count;

	d->inodes = old > new ? old : new;
	d->changed = calloc(1, d->inodes / 8 + 1);
	d->visited = calloc(1, d->inodes / 8 + 1);
	d->visited_old = calloc(1, d->inodes / 8 + 1);
	if (!d->changed || !d->visited || !d->visited_old)
		return error_oom(err);
	d->pair.touched = &d->touched;
	d->touched.all = !is_same_layout(d->pair.old, d->pair.new);
	return d->touched.all ? 0 : mark_blocks(d, chain, skip, err) || mark_inodes(d, err) ? -1 : 0;
}

static void free_diff(struct diff *d)
{
	for (size_t i = 0; i < d->found_count; i++) {
		free((char *)d->found[i].path);
		free((char *)d->found[i].old_path);
	}
	for (size_t i = 0; i < d->queued; i++)
		free(d->queue[i].path);
	free(d->found);
	free(d->queue);
	free(d->changed);
	free(d->visited);
	free(d->visited_old);
	free(d->touched.map);
	free_names(&d->added);
	free_names(&d->removed);
	cow_fs_close(d->pair.old);
	cow_fs_close(d->pair.new);
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct cow_fs_difference *)a)->path,
		      ((const struct cow_fs_difference *)b)->path);
}

int cow_fs_diff(struct cow_chain *chain, size_t skip, cow_fs_difference_fn fn, void *arg, struct error *err)
{
	cleanup_with(free_diff) struct diff d = {0};

	if (skip == 0 || skip >= chain->count)
		return error_set(err, ERROR_FAILED, "%s stands on nothing to compare it with",
				 chain->files[0]->path);
	d.pair.new = cow_fs_open(chain, 0, err);
	d.pair.old = d.pair.new ? cow_fs_open(chain, skip, err) : NULL;
	if (!d.pair.old || prepare(&d, chain, skip, err) || walk_all(&d, err))
		return -1;
	if (d.found_count)
		qsort(d.found, d.found_count, sizeof(*d.found), by_path);
	for (size_t i = 0; i < d.found_count; i++) {
		int ret = fn(arg, &d.found[i], err);

		if (ret)
			return ret;
	}
	return 0;
}
