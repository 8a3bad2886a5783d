/*
 * Writes files of any owner and kind into a new ext4 image, as an ordinary
 * user. Internal to uml-lab/image.
 */
#ifndef UML_LAB_IMAGE_FS_H
#define UML_LAB_IMAGE_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "uml-lab/base/error.h"

struct image_fs;

/* Most device nodes an image may hold: a full static /dev has some 1500, a flood has more. */
#define IMAGE_FS_DEVICES_MAX 4096
/* Longest path of an entry, as Linux limits it. */
#define IMAGE_FS_PATH_MAX 4095

struct image_xattr {
	const char *name; /* "user.x", "security.capability", "system.posix_acl_access", … */
	const void *value;
	size_t length;
};

/* One file of any kind. Paths are relative to the image's root; a leading "./" is fine. */
struct image_entry {
	const char *path;
	const char *target; /* of a symbolic link: any text; of a hard link: a path like `path` */
	bool hard_link;     /* another name for target; only path and target count */
	mode_t mode;        /* kind and permissions, S_IFxxx | 07777 */
	uint32_t uid, gid;
	uint32_t device_major, device_minor;
	struct timespec mtime, atime;
	const struct image_xattr *xattrs;
	size_t xattr_count;
};

/*
 * Makes the file at `path`, which must exist, an empty ext4 of `size` bytes
 * (mke2fs). With `now` non-zero that is the time it is made, and equal content
 * gives equal images; 0 is the clock's.
 */
int image_fs_format(const char *path, uint64_t size, time_t now, struct error *err);

/* Opens such a file for writing. Released with image_fs_close(). NULL + err. */
struct image_fs *image_fs_open(const char *path, time_t now, struct error *err);

/*
 * Adds an entry, in any order: missing parents are made (0755, root), an entry
 * of the same path is replaced (a folder by a folder: only its attributes), a
 * hard link may come before its target. Refused, naming the entry: "..", an
 * absolute path, a control character or more than 255 bytes in a name, a parent
 * that is a link or no folder, more than IMAGE_FS_DEVICES_MAX device nodes, no
 * room. A regular file takes the image_fs_write() calls that follow.
 */
int image_fs_add(struct image_fs *fs, const struct image_entry *entry, struct error *err);

/* Content for the regular file just added, at an offset not before the end of the last piece; gaps are holes.
 */
int image_fs_write(struct image_fs *fs, uint64_t offset, const void *data, size_t length, struct error *err);

/* The size of the regular file just added, when it ends in a hole. */
void image_fs_extend(struct image_fs *fs, uint64_t size);

/* Removes a path and all below it; one that is not there is fine. */
int image_fs_remove(struct image_fs *fs, const char *path, struct error *err);

/* Writes what is pending: link targets to come, folders, free-space maps. The file system is whole after. */
int image_fs_finish(struct image_fs *fs, struct error *err);

/* After image_fs_finish(): whether `path` leads to a regular file, symbolic links followed as a guest would.
 */
bool image_fs_has_file(struct image_fs *fs, const char *path);

/* After image_fs_finish(): the first max bytes of a file, malloc'ed, terminated; NULL when there is none. */
char *image_fs_read_file(struct image_fs *fs, const char *path, size_t max);

/* Bytes of the disk. */
uint64_t image_fs_size(const struct image_fs *fs);

/* Closes; what was not finished is no file system. NULL is fine. */
void image_fs_close(struct image_fs *fs);

/* A path fit for a message: control characters as \ooo, cut to the buffer with "…". Returns buf. */
char *image_quote(const char *path, char *buf, size_t size);

#endif
