/*
 * libcow: User-mode Linux' copy-on-write disks, and chains of them.
 *
 * Words: a *COW file* stores the sectors of a disk that differ from its
 * *backing file*, with a bitmap that tells which. The backing file is a raw
 * *base image*, or (here, not in the kernel) another COW file, a *layer*. What
 * one gets by looking through them, top first, is a *chain*. All offsets and
 * sizes are bytes unless a name says sectors; a sector has 512 bytes.
 *
 * Everything read from a COW file is checked before it is used: the files come
 * from other people. What the checks allow is described in uml-cow(5).
 */
#ifndef COW_COW_H
#define COW_COW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "uml-lab/base/error.h"
#include "uml-lab/base/str.h"

#define COW_SECTOR_SIZE  512
#define COW_SECTOR_SHIFT 9
#define COW_PATH_MAX     4096 /* of a backing file's name in a header, its NUL included */

/* Layouts of the header (arch/um/drivers/cow_user.c). */
enum cow_format {
	COW_RAW = 0,       /* no COW file at all */
	COW_V1 = 1,        /* byte order of the machine that wrote it */
	COW_V2 = 2,        /* big-endian */
	COW_V3 = 3,        /* big-endian, aligned; the one that is written */
	COW_V3_BROKEN = 4, /* V3 as 64-bit kernels before December 2005 laid it out */
};

/* A header, decoded and checked, with the places that follow from it. */
struct cow_header {
	enum cow_format format;
	bool little_endian; /* V1 alone may be either */
	uint32_t mtime;     /* of the backing file, seconds, as it was; wraps in 2106 as the kernel's does */
	uint64_t size;      /* of the backing file, and of the disk */
	uint32_t alignment;
	uint64_t bitmap_offset, bitmap_length;
	uint64_t data_offset; /* byte X of the disk lies at data_offset + X of the file */
	char backing[COW_PATH_MAX];
};

/*
 * Reads and checks the header of an open file; the file offset is not used.
 * Returns 1 and *out for a COW file, 0 for a file that is none (out untouched),
 * -1 with err for a COW file whose header cannot be right or cannot be read.
 */
int cow_header_read(int fd, struct cow_header *out, struct error *err);

/*
 * The same for a file that may be noted to be raw, whatever it begins with: a guest can write a COW header to the first sectors
 * of a raw disk, and what that names as its backing file would be opened at the next start.
 */
int cow_header_of(int fd, const char *path, struct cow_header *out, struct error *err);
/* Notes that a file is a raw image. To be called before somebody who isn't trusted may write to it. */
int cow_note_raw(int fd, const char *path, struct error *err);

/* The same for the first n bytes of a file of file_size bytes, in memory. */
int cow_header_parse(const void *data, size_t n, uint64_t file_size, struct cow_header *out,
		     struct error *err);

/* "V3", "V3 (broken 64-bit layout)", "raw". */
const char *cow_format_name(enum cow_format format);

/*
 * Whether the kernel would take this backing file: whole seconds of its mtime
 * and its exact size are compared (ubd_kern.c, backing_file_mismatch()).
 * backing_size is that of the *disk* the backing file holds: st_size of a raw
 * file, the header's size of a layer.
 */
bool cow_header_matches(const struct cow_header *h, uint64_t backing_size, const struct stat *backing);

struct cow_create_options {
	bool replace; /* a file that is there is replaced, atomically; otherwise it is an error (EEXIST) */
	mode_t mode;  /* 0: 0600 */
	bool durable; /* wait until it would survive a crash of the host */
	bool digest;  /* note the digest of the backing file's content too (reads it all unless that is noted
			 already) */
};

/*
 * Creates an empty V3 overlay over a raw base image or a layer, byte for byte
 * as the kernel does (init_cow_file() with 512-byte sectors and an alignment of
 * 4096), but atomically: path either is the whole new file or is as before.
 * The backing file's path is stored absolute, its last component as given.
 * Takes time independent of the disk's size. options may be NULL.
 */
int cow_create(const char *path, const char *backing, const struct cow_create_options *options,
	       struct error *err);

/* ---- Chains ---- */

/*
 * Which backing files may be opened. A header is written by whoever made the
 * disk, so it opens nothing but regular files in the COW file's own folder (and
 * below), in `folders`, in the image folders (dirs_images()), or the file that
 * the same user, owner of the COW file, told cow_create() or rebase to use here.
 */
struct cow_open_options {
	bool writable;    /* the top file is opened and locked for writing; it must be raw or V3 */
	bool no_lock;     /* look at a disk that may be in use: for info and map, never for content */
	bool partial;     /* a chain that breaks below the top opens all the same; see cow_chain_problem() */
	bool any_backing; /* regular files and block devices anywhere */
	const struct strv
		*folders; /* further folders to allow, and to search for files that moved; may be NULL */
};

struct cow_chain;

/*
 * Opens a disk: a raw image, or a COW file and all it stands on. Each file is
 * locked as the kernel locks it (a write lock on a writable top file, read
 * locks on the rest), with open file description locks: they are refused by,
 * and refuse, the kernel's own, and last until the chain is closed. ERROR_STATE
 * when a file is in use. NULL + err. options may be NULL.
 */
struct cow_chain *cow_chain_open(const char *path, const struct cow_open_options *options, struct error *err);

/* Closes; what was written since the last cow_chain_flush() may be lost. NULL is fine. */
void cow_chain_close(struct cow_chain *chain);

/* Bytes of the disk as the guest sees it: the header's size rounded up to a sector, as ubd does. */
uint64_t cow_chain_size(const struct cow_chain *chain);

/* Files in the chain, base included (when it was reached). */
size_t cow_chain_depth(const struct cow_chain *chain);

/* With options.partial: what is wrong with the chain below its last file, or NULL. */
const struct error *cow_chain_problem(const struct cow_chain *chain);

/* One file of a chain; index 0 is the top. Strings live as long as the chain. */
struct cow_file_info {
	const char *path;         /* absolute */
	struct cow_header header; /* format COW_RAW: only size is meaningful */
	struct stat stat;         /* as it was when opened */
	uint64_t allocated;       /* bytes the file takes on the host's disk */
	uint64_t owned_sectors;   /* of a COW file: those it stores; of a raw one: all */
	int fd;                   /* the chain's */
};
void cow_chain_file(const struct cow_chain *chain, size_t index, struct cow_file_info *out);

/* A run of sectors that come from one file of the chain. */
struct cow_extent {
	uint64_t start, length; /* sectors */
	size_t owner;           /* index of the file */
};

/*
 * The extent at a sector: at most `max` sectors long, all of them from the same
 * file. Neighbouring extents may have the same owner. max > 0, start + max
 * within the disk.
 */
void cow_chain_extent(const struct cow_chain *chain, uint64_t start, uint64_t max, struct cow_extent *out);

/* Where sector `start` of an extent lies in its owner's file, bytes (past the end of a raw file: zeroes). */
uint64_t cow_chain_offset(const struct cow_chain *chain, const struct cow_extent *extent);

/*
 * Whether an extent begins with data or with a hole (which reads as zeroes);
 * returns for how many of its sectors that holds, at least 1.
 */
uint64_t cow_chain_is_data(const struct cow_chain *chain, const struct cow_extent *extent, bool *is_data);

/*
 * Reads and writes any range within the disk, bytes; all of it or fails with
 * -errno. A write to a sector that the top does not hold yet stores the whole
 * sector. What was written is seen by reads at once, and is durable, for other
 * openers too, after cow_chain_flush().
 */
int cow_chain_read(struct cow_chain *chain, void *buf, size_t n, uint64_t at);
int cow_chain_write(struct cow_chain *chain, const void *buf, size_t n, uint64_t at);
int cow_chain_readv(struct cow_chain *chain, const struct iovec *iov, int count, uint64_t at);
int cow_chain_writev(struct cow_chain *chain, const struct iovec *iov, int count, uint64_t at);

/*
 * Makes a range read as zeroes, freeing what space it can. Whole sectors only
 * (-EINVAL otherwise). `unmap` false keeps the space allocated where it is.
 */
int cow_chain_zero(struct cow_chain *chain, uint64_t n, uint64_t at, bool unmap);

/*
 * Makes all that was written durable, in an order that a crash of the host
 * cannot turn into wrong content: data first, then the bitmap. -errno on
 * failure; what was not made durable stays known, so that a later flush tries
 * again.
 */
int cow_chain_flush(struct cow_chain *chain);

#endif
