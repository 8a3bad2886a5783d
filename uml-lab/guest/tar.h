/*
 * Tar streams, read and written member by member: ustar (POSIX.1-1988) with pax
 * headers (POSIX.1-2001) for what does not fit, GNU long names and base-256
 * numbers on reading. No sparse files, no extended attributes.
 */
#ifndef UML_LAB_GUEST_TAR_H
#define UML_LAB_GUEST_TAR_H

#include <limits.h>
#include <time.h>

#include "uml-lab/guest/guest.h"

#define TAR_BLOCK 512
#define TAR_PAX_MAX 65536u	/* bytes of one pax or long-name header that we read */

enum tar_kind { TAR_FILE, TAR_FOLDER, TAR_SYMLINK, TAR_HARDLINK, TAR_CHARACTER, TAR_BLOCK_DEVICE, TAR_FIFO };

struct tar_entry {
	enum tar_kind kind;
	char name[PATH_MAX];	/* as the archive has it: check before use */
	char link[PATH_MAX];	/* target of a link */
	mode_t mode;		/* permission bits only */
	uid_t uid;
	gid_t gid;
	uint64_t size;		/* bytes of content that follow; 0 but for TAR_FILE */
	struct timespec mtime;
	unsigned int major, minor;
};

/* Reads exactly n bytes (short only at the end), or -1 with errno. */
typedef ssize_t (*tar_read_fn)(void *arg, void *buf, size_t n);
/* Writes all n bytes: n, or -1 with errno. */
typedef ssize_t (*tar_write_fn)(void *arg, const void *buf, size_t n);

struct tar_reader {
	tar_read_fn read;
	void *arg;
	uint64_t left;		/* content of the present entry not yet read */
	unsigned int padding;	/* after it */
};

/*
 * The next member, skipping what is left of the one before. 1; 0 at the end of the archive; -1 + f when it is damaged or
 * can't be read. Members of unknown kinds are skipped.
 */
int tar_next(struct tar_reader *t, struct tar_entry *e, struct fault *f);
/* Content of the present member: bytes, 0 at its end, -1 + f. */
ssize_t tar_data(struct tar_reader *t, void *buf, size_t n, struct fault *f);

/* Writes a member's header. Content (size bytes) is to follow, then tar_write_padding(). 0 or -1 with errno. */
int tar_write_header(tar_write_fn write, void *arg, const struct tar_entry *e);
int tar_write_padding(tar_write_fn write, void *arg, uint64_t size);
/* The two empty blocks at the end of an archive. */
int tar_write_end(tar_write_fn write, void *arg);

/*
 * Unpacks the stream into the folder: owners, modes, times, links and nodes as the archive says. A folder that is there keeps
 * its owner and mode; anything else that is there is replaced. Names with ".." are refused. rename, when not NULL, takes the
 * place of the first component of each name. 0, or -1 + f (unpacked so far stays).
 */
int tar_unpack(struct tar_reader *t, const char *folder, const char *rename, struct fault *f);

/*
 * Packs a file or folder; names are relative to its parent ("." for "/"). What can't be read is left out, and told at the end.
 * Does not go into proc, sysfs and the like. 0, or -1 + f.
 */
int tar_pack(tar_write_fn write, void *arg, const char *path, struct fault *f);

#endif
