/*
 * Base images: raw ext4 disks with a root file system, made, found, listed and
 * removed without any privilege.
 *
 * An image NAME is two files in an image folder (dirs_images()): NAME.img, a
 * sparse read-only raw disk without partitions, and NAME.json, what is known
 * of it. Everything is built under a temporary name and renamed into place, so
 * an image that can be found is whole.
 */
#ifndef UML_LAB_IMAGE_IMAGE_H
#define UML_LAB_IMAGE_IMAGE_H

#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "uml-lab/base/error.h"
#include "uml-lab/base/str.h"

/* Longest image name; names are [a-z0-9-], see str_is_name(). */
#define IMAGE_NAME_MAX 64

/* An image, or any disk a lab names by path. */
struct image {
	char *name;         /* "debian-12"; NULL when found by path outside an image folder's naming */
	char *path;         /* absolute, symbolic links resolved */
	uint64_t size;      /* bytes of the disk the guest sees; 0 for a layer whose header is unknown */
	uint64_t allocated; /* bytes it takes on the host */
	struct timespec mtime;
	bool is_layer; /* a COW layer, not a raw disk */
	json_t *meta;  /* NAME.json, always an object (empty when the file is missing or broken) */
};

#define IMAGE_INIT                                                                                           \
	{                                                                                                    \
		0                                                                                            \
	}
#define cleanup_image __attribute__((cleanup(image_release)))

/* Frees what the struct holds; fine on IMAGE_INIT. */
void image_release(struct image *image);

/*
 * Finds an image: `what` is a name looked for in dirs_images(), or, when it
 * holds a slash, the path of a raw disk or COW layer. Fills *out, which the
 * caller releases. -1: ERROR_NOT_FOUND (with the nearest name as a hint), or
 * ERROR_FAILED when it is there but no readable regular file.
 */
int image_find(const char *what, struct image *out, struct error *err);

/* A text of the metadata, "" when there is none; valid as long as the image. */
const char *image_meta(const struct image *image, const char *key);

struct image_list {
	struct image *items;
	size_t count;
};

#define IMAGE_LIST_INIT                                                                                      \
	{                                                                                                    \
		0                                                                                            \
	}
#define cleanup_image_list __attribute__((cleanup(image_list_release)))

void image_list_release(struct image_list *list);

/* All images by name; of two with one name the one image_find() finds. Sweeps what dead builders left. */
int image_list(struct image_list *out, struct error *err);

/* Everything known of an image as a new JSON object: its metadata, path, size, allocated. NULL + err. */
json_t *image_to_json(const struct image *image, struct error *err);

/*
 * Tells who uses the image file at `path` (absolute): adds one text per user
 * ("session first-steps"). Supplied by the caller, since sessions lie above
 * images. 0, or -1 with err.
 */
typedef int (*image_users_fn)(void *arg, const char *path, struct strv *users, struct error *err);

/* Removes an image of the user's own folder. ERROR_NOT_FOUND; ERROR_STATE when users (may be NULL) names any.
 */
int image_remove(const char *name, image_users_fn users, void *users_arg, struct error *err);

/* How far a build is. */
struct image_progress {
	const char *phase; /* "importing", "installing packages", … */
	uint64_t bytes;    /* of file content written so far */
	uint64_t entries;  /* files, folders, links … so far */
};

typedef void (*image_progress_fn)(void *arg, const struct image_progress *progress);

/* What all ways to make an image take. All zero is a good default. */
struct image_options {
	uint64_t size;        /* bytes of the disk, rounded up to MiB; 0: chosen for the content */
	bool replace;         /* an image of that name may be there, and is replaced when unused */
	image_users_fn users; /* asked before replacing; may be NULL */
	void *users_arg;
	image_progress_fn progress; /* called often, from the calling thread; may be NULL */
	void *progress_arg;
	const volatile sig_atomic_t *cancel; /* non-zero: stop soon, clean up, fail; may be NULL */
};

/*
 * Makes image `name` of a root file system archive: tar (v7, ustar, pax, GNU),
 * plain or compressed with gzip, bzip2, xz, zstd or lz4. `archive` is a path,
 * "-" for standard input. Owners, modes, times, links, device nodes and
 * extended attributes are kept. A hostile or damaged archive is refused, and
 * the error names the entry. After any failure nothing is left behind.
 */
int image_import(const char *name, const char *archive, const struct image_options *options,
		 struct error *err);

/* What a course layer is made of. */
struct image_layer_spec {
	const char *disk;          /* the file a machine writes, with all it stands on */
	const char *base;          /* path or name of the image below, which the layer will stand on */
	const char *lab, *machine; /* for the metadata; may be NULL */
	bool as_is;                /* not cleaned; also for disks without ext4 */
};

/*
 * Makes image `name` a layer: a COW file over the base with what the disk holds beyond it, cleaned of what belongs to one
 * machine (see clean.c). The disk must not be in use; it is only read.
 */
int image_publish_layer(const char *name, const struct image_layer_spec *spec,
			const struct image_options *options, struct error *err);

/*
 * Cleans the ext4 in a raw disk in place: for a process of its own, which is confined for good by this. *removed:
 * files that went.
 */
int image_clean_disk(const char *path, uint64_t *removed, struct error *err);

/* Adds a text, "layer NAME", for each layer that stands directly on the image at `path`. */
int image_layers_on(const char *path, struct strv *users, struct error *err);

/* Makes image `name` of the host's busybox-static, without network; a second's work. */
int image_build_tiny(const char *name, const struct image_options *options, struct error *err);

/* What image_build_debian() takes beyond the common options. */
struct image_debian {
	const char *suite; /* "bookworm", "trixie"; NULL: told by the name ("debian-12") */
	const struct strv
		*include;   /* further packages; an item may hold several, comma-separated; may be NULL */
	const char *mirror; /* URI; NULL: what the host's apt uses */
	bool verbose;       /* what the tools print is shown instead of kept for a failure */
};

/* Makes image `name` of Debian packages through mmdebstrap, never as root on the host unless root calls. */
int image_build_debian(const char *name, const struct image_debian *debian,
		       const struct image_options *options, struct error *err);

#endif
