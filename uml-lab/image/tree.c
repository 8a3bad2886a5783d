/*
 * The names of a file system being written.
 *
 * Nodes hang in their folder's list of children (which keeps the archive's
 * order, so that one archive always gives one image) and in one hash table
 * over (folder, name), which makes a lookup cheap in folders of any size. The
 * table doubles when it is full. The hash starts from a random seed.
 */
#include "uml-lab/image/tree.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define FIRST_BUCKETS 1024

static size_t bucket_of(const struct image_tree *tree, const struct image_node *parent, const char *name,
			size_t length)
{
	/* FNV-1a over the name, mixed with the folder and the seed, as each bit must reach the low ones. */
	uint64_t hash = tree->seed ^ ((uint64_t)parent->inode * 0x9e3779b97f4a7c15u);

	for (size_t i = 0; i < length; i++)
		hash = (hash ^ (unsigned char)name[i]) * 0x100000001b3u;
	hash ^= hash >> 32;
	return hash & (tree->bucket_count - 1);
}

int image_tree_init(struct image_tree *tree, uint32_t root_inode, uint8_t root_type, struct error *err)
{
	struct image_tree t = {.bucket_count = FIRST_BUCKETS};

	/* A missing seed only makes collisions easier to provoke. */
	if (getrandom(&t.seed, sizeof(t.seed), GRND_NONBLOCK) != sizeof(t.seed))
		t.seed = 0xcbf29ce484222325u;
	t.root = calloc(1, sizeof(*t.root));
	t.buckets = calloc(t.bucket_count, sizeof(*t.buckets));
	if (!t.root || !t.buckets) {
		free(t.root);
		free(t.buckets);
		return error_oom(err);
	}
	t.root->inode = root_inode;
	t.root->type = root_type;
	*tree = t;
	return 0;
}

void image_tree_free(struct image_tree *tree)
{
	struct image_node *node, *next;

	for (size_t i = 0; tree->buckets && i < tree->bucket_count; i++) {
		for (node = tree->buckets[i]; node; node = next) {
			next = node->hash_next;
			free(node);
		}
	}
	free(tree->buckets);
	free(tree->root);
	*tree = (struct image_tree){0};
}

struct image_node *image_tree_find(const struct image_tree *tree, const struct image_node *parent,
				   const char *name, size_t length)
{
	struct image_node *node = tree->buckets[bucket_of(tree, parent, name, length)];

	for (; node; node = node->hash_next)
		if (node->parent == parent && node->name_length == length &&
		    !memcmp(node->name, name, length))
			return node;
	return NULL;
}

static int grow(struct image_tree *tree, struct error *err)
{
	struct image_tree bigger = *tree;
	struct image_node *node, *next;
	size_t to;

	bigger.bucket_count *= 2;
	bigger.buckets = calloc(bigger.bucket_count, sizeof(*bigger.buckets));
	if (!bigger.buckets)
		return error_oom(err);
	for (size_t i = 0; i < tree->bucket_count; i++) {
		for (node = tree->buckets[i]; node; node = next) {
			next = node->hash_next;
			to = bucket_of(&bigger, node->parent, node->name, node->name_length);
			node->hash_next = bigger.buckets[to];
			bigger.buckets[to] = node;
		}
	}
	free(tree->buckets);
	*tree = bigger;
	return 0;
}

struct image_node *image_tree_add(struct image_tree *tree, struct image_node *parent, const char *name,
				  size_t length, uint32_t inode, uint8_t type, struct error *err)
{
	struct image_node *node;
	size_t bucket;

	if (tree->count >= tree->bucket_count && grow(tree, err))
		return NULL;
	node = calloc(1, sizeof(*node) + length);
	if (!node) {
		error_oom(err);
		return NULL;
	}
	memcpy(node->name, name, length);
	node->name_length = length;
	node->inode = inode;
	node->type = type;
	node->parent = parent;
	node->previous = parent->last_child;
	if (parent->last_child)
		parent->last_child->next = node;
	else
		parent->first_child = node;
	parent->last_child = node;
	bucket = bucket_of(tree, parent, name, length);
	node->hash_next = tree->buckets[bucket];
	tree->buckets[bucket] = node;
	tree->count++;
	return node;
}

void image_tree_remove(struct image_tree *tree, struct image_node *node)
{
	struct image_node **link =
		&tree->buckets[bucket_of(tree, node->parent, node->name, node->name_length)];

	while (*link != node)
		link = &(*link)->hash_next;
	*link = node->hash_next;
	*(node->previous ? &node->previous->next : &node->parent->first_child) = node->next;
	*(node->next ? &node->next->previous : &node->parent->last_child) = node->previous;
	tree->count--;
	free(node);
}

struct image_node *image_tree_next(const struct image_node *node)
{
	if (node->first_child)
		return node->first_child;
	while (node && !node->next)
		node = node->parent;
	return node ? node->next : NULL;
}
