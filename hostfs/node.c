/*
 * What the guest knows by number: nodes (files, folders) and handles (open ones).
 *
 * A number is an index into a table and a generation, so a stale or invented
 * one is noticed (ESTALE, EBADF); the first generation differs from process to process,
 * so those of a daemon that died are stale for the next. A node is found again by
 * device, inode number, birth time and type: hard links are one node, an inode
 * number used anew is another.
 *
 * A node is opened by its path of names, parent by parent, each time (source.c); what stays
 * open between requests is kept.c's. One that loses its last known name while the guest may still
 * use it keeps an O_PATH descriptor, its orphan. Parents live as long as their children.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "hostfs/internal.h"
#include "uml-lab/base/cleanup.h"

#define FIRST_BUCKETS 1024
#define TABLE_FIRST   256

/* ---- tables ---- */

void *table_get(struct table *t, uint64_t id)
{
	uint32_t index = (uint32_t)id;

	return index < t->size && t->generations[index] == id >> 32 ? t->items[index] : NULL;
}

uint64_t table_id(const struct table *t, uint32_t index)
{
	return (uint64_t)t->generations[index] << 32 | index;
}

/* Free places are chained through their items, as numbers. */
static int table_grow(struct table *t, uint32_t first_generation)
{
	uint32_t size = t->size ? t->size * 2 : TABLE_FIRST;
	void **items;
	uint32_t *generations;

	if (size < t->size)
		return -1;
	items = realloc(t->items, size * sizeof(*items));
	if (!items)
		return -1;
	t->items = items;
	generations = realloc(t->generations, size * sizeof(*generations));
	if (!generations)
		return -1;
	t->generations = generations;
	for (uint32_t i = t->size; i < size; i++) {
		t->items[i] = NULL;
		t->generations[i] = first_generation;
	}
	t->size = size;
	return 0;
}

int64_t table_add(struct table *t, void *item)
{
	uint32_t i = t->first_free;

	/* first_free is where the search goes on: places behind it are taken up to a place that table_remove() set. */
	while (i < t->size && t->items[i])
		i++;
	if (i >= t->size && table_grow(t, t->generations ? t->generations[0] : 1) < 0)
		return -1;
	t->items[i] = item;
	t->first_free = i + 1;
	return i;
}

void table_remove(struct table *t, uint32_t index)
{
	t->items[index] = NULL;
	t->generations[index]++;
	if (index < t->first_free)
		t->first_free = index;
}

void table_free(struct table *t)
{
	free(t->items);
	free(t->generations);
	*t = (struct table){0};
}

/* ---- nodes ---- */

static size_t bucket_of(const struct hostfs *fs, uint64_t dev, uint64_t ino)
{
	uint64_t h = (ino ^ dev << 40) * 0x9e3779b97f4a7c15u;

	return (h >> 24) & (fs->bucket_count - 1);
}

static uint64_t stat_dev(const struct statx *st)
{
	return (uint64_t)st->stx_dev_major << 32 | st->stx_dev_minor;
}

static bool is_same(const struct node *n, const struct statx *st)
{
	return n->ino == st->stx_ino && n->dev == stat_dev(st) && n->born.tv_sec == st->stx_btime.tv_sec &&
	       n->born.tv_nsec == st->stx_btime.tv_nsec;
}

struct node *node_find(struct hostfs *fs, struct source *s, const struct statx *st)
{
	struct node *n = fs->buckets[bucket_of(fs, stat_dev(st), st->stx_ino)];

	while (n && !(n->source == s && is_same(n, st)))
		n = n->hash_next;
	return n;
}

static void rehash(struct hostfs *fs)
{
	size_t old_count = fs->bucket_count;
	struct node **old = fs->buckets, **fresh;

	if (fs->node_count < 2 * old_count)
		return;
	fresh = calloc(2 * old_count, sizeof(*fresh));
	if (!fresh)
		return;
	fs->buckets = fresh;
	fs->bucket_count = 2 * old_count;
	for (size_t i = 0; i < old_count; i++)
		while (old[i]) {
			struct node *n = old[i];
			struct node **bucket = &fresh[bucket_of(fs, n->dev, n->ino)];

			old[i] = n->hash_next;
			n->hash_next = *bucket;
			*bucket = n;
		}
	free(old);
}

static void unhash(struct hostfs *fs, struct node *node)
{
	struct node **p = &fs->buckets[bucket_of(fs, node->dev, node->ino)];

	while (*p && *p != node)
		p = &(*p)->hash_next;
	if (*p)
		*p = node->hash_next;
}

static struct node *add_node(struct hostfs *fs, struct source *s, const struct statx *st)
{
	struct node *n = calloc(1, sizeof(*n));
	struct node **bucket;
	int64_t index = n ? table_add(&fs->nodes, n) : -1;

	if (index < 0) {
		free(n);
		return NULL;
	}
	*n = (struct node){.source = s, .orphan = -1, .file = -1, .index = (uint32_t)index};
	if (st) {
		n->dev = stat_dev(st);
		n->ino = st->stx_ino;
		n->born = st->stx_btime;
		n->mode = st->stx_mode;
	}
	bucket = &fs->buckets[bucket_of(fs, n->dev, n->ino)];
	n->hash_next = *bucket;
	*bucket = n;
	fs->node_count++;
	rehash(fs);
	return n;
}

/* Frees it when nobody needs it any more, then perhaps its parent, and so on. */
static void release_node(struct hostfs *fs, struct node *node)
{
	while (node && !node->lookups && !node->children && !node->handles) {
		struct node *parent = node->parent;

		if (node->unlinked && node->orphan >= 0)
			quota_add(node->source, -(int64_t)quota_size(node->source, node->orphan));
		kept_drop(fs, node);
		unhash(fs, node);
		table_remove(&fs->nodes, node->index);
		fs->node_count--;
		if (node->orphan >= 0)
			kept_close_later(node->orphan);
		free(node->name);
		free(node);
		if (parent)
			parent->children--;
		node = parent;
	}
}

static bool is_above(const struct node *node, const struct node *below)
{
	while (below && below != node)
		below = below->parent;
	return below != NULL;
}

int node_move(struct hostfs *fs, struct node *node, struct node *parent, const char *name)
{
	struct node *old = node->parent;
	char *copy = NULL;

	if (node == fs->root)
		return 0;
	/* Folders that the host moves around while they are looked at may seem to be within each other. */
	if (parent && is_above(node, parent))
		return -ESTALE;
	if (parent && !(copy = strdup(name)))
		return -ENOMEM;
	free(node->name);
	node->name = copy;
	node->parent = parent;
	node->nameless = !parent;
	kept_drop_folder(fs, node);
	if (parent) {
		parent->children++;
		if (node->orphan >= 0)
			close(node->orphan);
		node->orphan = -1;
		node->unlinked = false;
	}
	if (old) {
		old->children--;
		release_node(fs, old);
	}
	return 0;
}

struct node *node_intern(struct hostfs *fs, struct node *parent, const char *name, const struct statx *st)
{
	struct node *n = node_find(fs, parent->source, st);

	if (!n)
		n = add_node(fs, parent->source, st);
	if (!n)
		return NULL;
	n->lookups++;
	if ((n->parent != parent || !str_eq(n->name, name)) && node_move(fs, n, parent, name) < 0) {
		n->lookups--;
		release_node(fs, n);
		return NULL;
	}
	return n;
}

/* Opens anew what a descriptor stands for. */
static int reopen(int fd, int flags)
{
	char name[16];
	int fresh;

	snprintf(name, sizeof(name), "%d", fd);
	fresh = open(name, (flags & ~O_NOFOLLOW) | O_CLOEXEC);
	return fresh < 0 ? -errno : fresh;
}

struct node *node_intern_nameless(struct hostfs *fs, struct source *s, int fd, const struct statx *st)
{
	int orphan = reopen(fd, O_PATH);
	struct node *n = orphan < 0 ? NULL : add_node(fs, s, st);

	if (!n) {
		if (orphan >= 0)
			close(orphan);
		return NULL;
	}
	n->lookups = 1;
	n->orphan = orphan;
	n->nameless = n->unlinked = true;
	return n;
}

/* The roots stay. */
static bool is_share_root(const struct node *node)
{
	return node->source && !node->parent && !node->nameless;
}

void node_forget(struct hostfs *fs, struct node *node, uint64_t lookups)
{
	if (node == fs->root || is_share_root(node))
		return;
	node->lookups -= lookups < node->lookups ? lookups : node->lookups;
	release_node(fs, node);
}

struct node *node_get(struct hostfs *fs, uint64_t nodeid)
{
	return nodeid == FUSE_ROOT_ID ? fs->root : table_get(&fs->nodes, nodeid);
}

uint64_t node_id(const struct hostfs *fs, const struct node *node)
{
	return node == fs->root ? FUSE_ROOT_ID : table_id(&fs->nodes, node->index);
}

int node_path(const struct node *node, char *buf)
{
	size_t at = PATH_MAX - 1;
	char text[PATH_MAX];

	text[at] = '\0';
	for (; node->parent && node->name; node = node->parent) {
		size_t n = strlen(node->name);

		if (n + 1 > at)
			return -ENAMETOOLONG;
		if (at != PATH_MAX - 1)
			text[--at] = '/';
		at -= n;
		memcpy(text + at, node->name, n);
	}
	if (!is_share_root(node))
		return -ESTALE;
	memcpy(buf, text + at, PATH_MAX - at);
	return 0;
}

int node_open(struct hostfs *fs, struct node *node, int flags)
{
	char path[PATH_MAX];
	struct statx st;
	int fd;

	if (!node->source)
		return -EACCES;
	if (node->orphan >= 0)
		return reopen(node->orphan, flags);
	fd = node_path(node, path);
	if (fd == 0)
		fd = source_resolve(node->source, path, flags);
	if (is_share_root(node))
		return source_alive(fs, node->source, fd);
	if (fd >= 0 && (statx(fd, "", AT_EMPTY_PATH, STATX_WANTED, &st) < 0 || !is_same(node, &st))) {
		close(fd);
		fd = -ESTALE;
	}
	/* Renamed or removed on the host, but the guest has it open. */
	if ((fd == -ESTALE || fd == -ENOENT || fd == -ENOTDIR) && (node->handles || node->file >= 0))
		return reopen(node->handles ? node->handles->fd : node->file, flags);
	return fd == -ENOENT || fd == -ENOTDIR || fd == -EXDEV ? -ESTALE : fd;
}

static int add_roots(struct hostfs *fs)
{
	struct statx st = {0};

	fs->root = add_node(fs, fs->tree ? NULL : &fs->sources[0], NULL);
	if (!fs->root)
		return -1;
	fs->root->lookups = 1;
	fs->root->mode = S_IFDIR | 0755;
	for (size_t i = 0; fs->tree && i < fs->source_count; i++) {
		fs->share_roots[i] = add_node(fs, &fs->sources[i], &st);
		if (!fs->share_roots[i])
			return -1;
		fs->share_roots[i]->lookups = 1;
		fs->share_roots[i]->mode = S_IFDIR | 0755;
	}
	return 0;
}

int nodes_init(struct hostfs *fs, struct error *err)
{
	uint32_t first = 1;

	fs->bucket_count = FIRST_BUCKETS;
	fs->buckets = calloc(fs->bucket_count, sizeof(*fs->buckets));
	fs->share_roots = calloc(fs->source_count, sizeof(*fs->share_roots));
	if (!fs->buckets || !fs->share_roots)
		return error_oom(err);
	/* Half of the numbers are left for counting up. */
	if (getrandom(&first, sizeof(first), GRND_NONBLOCK) == sizeof(first))
		first = (first >> 1) + 1;
	fs->generation = first;
	if (table_grow(&fs->nodes, first) < 0 || table_grow(&fs->handles, first) < 0 || add_roots(fs) < 0)
		return error_oom(err);
	return 0;
}

void nodes_free(struct hostfs *fs)
{
	for (uint32_t i = 0; i < fs->handles.size; i++)
		if (fs->handles.items[i])
			handle_close(fs, fs->handles.items[i]);
	for (uint32_t i = 0; i < fs->nodes.size; i++) {
		struct node *n = fs->nodes.items[i];

		if (!n)
			continue;
		kept_drop(fs, n);
		if (n->orphan >= 0)
			close(n->orphan);
		free(n->name);
		free(n);
	}
	table_free(&fs->nodes);
	table_free(&fs->handles);
	free(fs->buckets);
	free(fs->share_roots);
	fs->buckets = NULL;
	fs->share_roots = NULL;
	fs->root = NULL;
	fs->node_count = 0;
}

/* ---- handles ---- */

struct handle *handle_get(struct hostfs *fs, uint64_t fh)
{
	return table_get(&fs->handles, fh);
}

struct handle *handle_new(struct hostfs *fs, struct node *node, int fd, bool folder)
{
	struct handle *h = calloc(1, sizeof(*h));
	int64_t index = h ? table_add(&fs->handles, h) : -1;

	if (index < 0) {
		free(h);
		close(fd);
		return NULL;
	}
	*h = (struct handle){.node = node, .fd = fd, .folder = folder, .index = (uint32_t)index, .next = node->handles};
	node->handles = h;
	return h;
}

void handle_close(struct hostfs *fs, struct handle *h)
{
	struct node *node = h->node;
	struct handle **p = &node->handles;

	while (*p != h)
		p = &(*p)->next;
	*p = h->next;
	close(h->fd);
	table_remove(&fs->handles, h->index);
	free(h->entries);
	free(h);
	if (!node->handles)
		locks_drop_all(fs, node);
	node_forget(fs, node, 0);
}

/* ---- places ---- */

void place_close(struct place *place)
{
	if (place->dir >= 0 && !place->borrowed)
		close(place->dir);
	place->dir = -1;
}

int place_stat(const struct place *p, struct statx *st)
{
	return statx(p->dir, p->name ? p->name : "", AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH, STATX_WANTED, st);
}

int node_place(struct hostfs *fs, struct node *node, struct place *place, struct statx *st)
{
	bool folder = S_ISDIR(node->mode) && node->orphan < 0;
	int dir;

	if (node->parent && node->orphan < 0) {
		dir = node_folder(fs, node->parent);
		if (dir >= 0 && statx(dir, node->name, AT_SYMLINK_NOFOLLOW, STATX_WANTED, st) == 0 &&
		    is_same(node, st)) {
			*place = (struct place){.dir = dir, .name = node->name, .borrowed = true};
			return 0;
		}
	}
	dir = folder ? node_folder(fs, node) : node_open(fs, node, O_PATH);
	if (dir < 0)
		return dir;
	*place = (struct place){.dir = dir, .root = is_share_root(node), .borrowed = folder};
	if (place_stat(place, st) == 0)
		return 0;
	place_close(place);
	return -ESTALE;
}
