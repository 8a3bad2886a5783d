/* The names of a file system being written, kept in memory: a tree of names, each leading to an inode number.
 */
#ifndef UML_LAB_IMAGE_TREE_H
#define UML_LAB_IMAGE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "uml-lab/base/error.h"

struct image_node {
	struct image_node *parent; /* NULL for the root */
	struct image_node *hash_next;
	struct image_node *first_child, *last_child;
	struct image_node *previous, *next; /* siblings, in the order they were added */
	uint32_t inode;
	uint8_t type;     /* EXT2_FT_* */
	bool keep_blocks; /* the folder's blocks on disk are right already (lost+found) */
	uint8_t name_length;
	char name[]; /* not terminated */
};

struct image_tree {
	struct image_node *root;
	struct image_node **buckets;
	size_t bucket_count; /* a power of two */
	size_t count;        /* names, without the root */
	uint64_t seed;       /* so that an archive cannot choose names that collide */
};

/* Makes a tree that holds only a root folder. */
int image_tree_init(struct image_tree *tree, uint32_t root_inode, uint8_t root_type, struct error *err);
void image_tree_free(struct image_tree *tree);

/* The child of that name, or NULL. */
struct image_node *image_tree_find(const struct image_tree *tree, const struct image_node *parent,
				   const char *name, size_t length);

/* Adds a name (1…255 bytes) that is not there yet. NULL + err when memory is out. */
struct image_node *image_tree_add(struct image_tree *tree, struct image_node *parent, const char *name,
				  size_t length, uint32_t inode, uint8_t type, struct error *err);

/* Forgets a name that has no children. */
void image_tree_remove(struct image_tree *tree, struct image_node *node);

/* The node after `node` in a walk that visits folders before what they hold, or NULL at the end. Starts with
 * the root. */
struct image_node *image_tree_next(const struct image_node *node);

#endif
