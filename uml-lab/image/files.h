/* Files that come with this program and go into images. Internal to uml-lab/image. */
#ifndef UML_LAB_IMAGE_FILES_H
#define UML_LAB_IMAGE_FILES_H

#include <stddef.h>
#include <sys/types.h>
#include <time.h>

#include "uml-lab/base/error.h"
#include "uml-lab/image/fs.h"

struct image_file {
	const char *path;
	mode_t mode;         /* with its kind: a folder, a file, a symbolic link, a device */
	const char *content; /* of a file; the target of a link */
	unsigned int device_major, device_minor;
};

#define IMAGE_FOLDER(path_, mode_)                                                                           \
	{                                                                                                    \
		.path = path_, .mode = S_IFDIR | mode_                                                       \
	}
#define IMAGE_FILE(path_, mode_, content_)                                                                   \
	{                                                                                                    \
		.path = path_, .mode = S_IFREG | mode_, .content = content_                                  \
	}
#define IMAGE_LINK(path_, target_)                                                                           \
	{                                                                                                    \
		.path = path_, .mode = S_IFLNK | 0777, .content = target_                                    \
	}
#define IMAGE_NODE(path_, mode_, major_, minor_)                                                             \
	{                                                                                                    \
		.path = path_, .mode = S_IFCHR | mode_, .device_major = major_, .device_minor = minor_       \
	}

/* Adds one, or replaces what is there, owned by root, with `now` as its time. */
int image_file_add(struct image_fs *fs, const struct image_file *file, time_t now, struct error *err);

extern const struct image_file tiny_files[];
extern const size_t tiny_file_count;

/* What a Debian image has beyond its packages; and paths that packages made and an image must not have. */
extern const struct image_file debian_files[];
extern const size_t debian_file_count;
extern const char *const debian_unwanted[];
extern const size_t debian_unwanted_count;
/* The packages, by topic. */
extern const char *const debian_packages[];
extern const size_t debian_package_count;

#endif
