/* What the parts of uml-lab/image share. */
#ifndef UML_LAB_IMAGE_INTERNAL_H
#define UML_LAB_IMAGE_INTERNAL_H

#include <archive.h>

#include "uml-lab/image/fs.h"
#include "uml-lab/image/image.h"

#define IMAGE_MIB (1024 * 1024ull)
#define IMAGE_GIB (1024 * IMAGE_MIB)
/* Disks too small for a journal, or larger than ubd's practical limit (uml-facts.md), are refused. */
#define IMAGE_SIZE_LEAST (16 * IMAGE_MIB)
#define IMAGE_SIZE_MOST  (8192 * IMAGE_GIB)

static inline void image_json_release(json_t **json)
{
	json_decref(*json);
}
#define cleanup_json __attribute__((cleanup(image_json_release)))

/* ---- draft.c: an image that is being made ---- */

/*
 * The file NAME.img grows in, under a temporary name and a lock that dies with
 * this process; what dead builders left is told from live ones' by that lock.
 */
struct image_draft {
	char *folder; /* the user's image folder */
	char *name;
	char *path; /* of the temporary file; NULL: there is none */
	int lock;   /* holds its flock */
	uint64_t size;
	const struct image_options *options;
};

#define IMAGE_DRAFT_INIT                                                                                     \
	{                                                                                                    \
		.lock = -1                                                                                   \
	}
#define cleanup_draft __attribute__((cleanup(image_draft_drop)))

/* Checks the name and that there is no such image (or it may be replaced); makes the temporary file,
 * formatted. */
int image_draft_begin(struct image_draft *draft, const char *name, uint64_t size, time_t now,
		      const struct image_options *options, struct error *err);
/* The same for an image that is a file of the work folder in the end: the temporary stays empty. */
int image_draft_begin_file(struct image_draft *draft, const char *name, const struct image_options *options,
			   struct error *err);
/* Makes a durable file of the work folder the image NAME. draft->size must have been set. */
int image_draft_publish_file(struct image_draft *draft, const char *path, json_t *meta, struct error *err);
/* Makes it the image NAME with this metadata (common fields are added here). */
int image_draft_publish(struct image_draft *draft, json_t *meta, struct error *err);
/* Removes what was not published. */
void image_draft_drop(struct image_draft *draft);

/* Removes temporaries of dead builders in an image folder. Takes the folder's lock; a folder that cannot be
 * is skipped. */
void image_sweep(const char *folder);
/* The lock of an image folder, which must exist. A descriptor, or -1 + err. */
int image_lock(const char *folder, struct error *err);
/* The user's own image folder, made when missing. NULL + err. */
char *image_own_folder(struct error *err);
/* A private folder for what the build needs beside, swept with the draft. Made; its path malloc'ed. NULL +
 * err. */
char *image_draft_work_folder(const struct image_draft *draft, struct error *err);

/* ---- store.c ---- */

/* image_list() without sweeping: takes no lock. */
int image_collect(struct image_list *out, struct error *err);
/* ERROR_STATE, naming them, when anybody uses the file. users may be NULL. */
int image_check_unused(const char *path, const char *what, image_users_fn users, void *arg,
		       struct error *err);

/* ---- archive.c ---- */

/* An archive reader with the formats and filters we take, none of which runs a program. NULL + err. */
struct archive *image_archive_new(struct error *err);
void image_archive_release(struct archive **a);
#define cleanup_archive __attribute__((cleanup(image_archive_release)))

/* Adds all entries of an opened archive to the file system; image_fs_finish() is left to the caller. */
int image_archive_extract(struct archive *a, struct image_fs *fs, const struct image_options *options,
			  struct error *err);
/* The same from a descriptor. `name` is for messages. */
int image_archive_extract_fd(int fd, const char *name, struct image_fs *fs,
			     const struct image_options *options, struct error *err);

/* Adds "init" and "system" (PRETTY_NAME), as found in a finished file system, to the metadata. */
int image_describe(struct image_fs *fs, json_t *meta, struct error *err);

/* ---- tools.c ---- */

/* The path of a host program, in PATH or the system's folders; NULL + err with the package to install as the
 * hint. */
char *image_program(const char *name, const char *package, struct error *err);
/* Whether the person wants to stop: -1 with "interrupted" set then. */
int image_check_cancel(const struct image_options *options, struct error *err);

#endif
