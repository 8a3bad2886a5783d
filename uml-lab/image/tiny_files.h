/* The files of the tiny image, besides busybox and its links. */
#ifndef UML_LAB_IMAGE_TINY_FILES_H
#define UML_LAB_IMAGE_TINY_FILES_H

#include <stddef.h>
#include <sys/types.h>

struct tiny_file {
	const char *path;
	mode_t mode;		/* with its kind: a folder, a file, a symbolic link, a device */
	const char *content;	/* of a file; the target of a link */
	unsigned int device_major, device_minor;
};

extern const struct tiny_file tiny_files[];
extern const size_t tiny_file_count;

#endif
