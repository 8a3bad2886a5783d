/*
 * What one does with COW files as a whole. All of these keep what the guest
 * sees, or change it from the old to the new content in one step, also when the
 * process is killed or a write fails at any point; uml-cow(5) tells how.
 *
 * The options say which backing files may be opened; `writable` and the like are
 * set by the functions themselves. Files in use by others are refused
 * (ERROR_STATE).
 */
#ifndef COW_OPS_H
#define COW_OPS_H

#include "cow/cow.h"

/*
 * Writes the disk as a raw image, sparse: zeroes take no space, and data is
 * shared with the chain's files where the file system can (reflink).
 * The image appears under its name when it is complete; with `durable`, when it
 * would survive a crash of the host.
 */
int cow_flatten(struct cow_chain *chain, const char *out, bool replace, bool durable, struct error *err);

/*
 * Moves what the overlay stores into the file below it, which changes what
 * everybody else sees who stands on that file; leaves the overlay empty. A raw
 * base image can be committed to, and a V3 layer. ENOSPC is found before
 * anything is changed.
 */
int cow_commit(const char *overlay, const struct cow_open_options *options, struct error *err);

/*
 * Moves what the overlay stores into the raw file below it, which then takes the overlay's place: its name, so that what
 * stands on the overlay stands on that file then and sees no change, and its time. Nothing else may stand on the raw
 * file, whose own name goes. ENOSPC is found before anything is changed. Killed in the middle, the overlay shows what it
 * did, and cow_fold() completes it.
 */
int cow_fold(const char *overlay, const struct cow_open_options *options, struct error *err);

/*
 * Puts `upper` on the backing file of `lower`, which must be one of the layers
 * below it: what the layers from upper to lower store is gathered in one V3
 * file. That replaces upper, or is written to out if given. lower and those in
 * between stay as they are: others may stand on them.
 */
int cow_merge(const char *upper, const char *lower, const char *out, const struct cow_open_options *options,
	      struct error *err);

/*
 * Puts a file on another backing file of the same size, keeping what the guest
 * sees: sectors in which the old chain and the new backing file differ are
 * stored. With header_only just the header is rewritten: for a backing file
 * that was moved, or copied without its time.
 */
int cow_rebase(const char *file, const char *backing, bool header_only,
	       const struct cow_open_options *options, struct error *err);

struct cow_compact_result {
	uint64_t dropped_sectors; /* no longer owned: they were equal to the backing file's */
	uint64_t before, after;   /* bytes allocated */
};
/* Gives up sectors equal to the backing file's, and the space of those and of zeroes. Raw images too. result
 * may be NULL. */
int cow_compact(const char *file, const struct cow_open_options *options, struct cow_compact_result *result,
		struct error *err);

/* A V3 file with what `file` (of any version) stores, over the same backing file. */
int cow_convert(const char *file, const char *out, bool replace, const struct cow_open_options *options,
		struct error *err);

/*
 * Makes an overlay out that shows what the disk `content` holds, over a backing
 * file of the same size: only what differs is stored.
 */
int cow_express(const char *content, const char *backing, const char *out, bool replace,
		const struct cow_open_options *options, struct error *err);

/*
 * Calls fn for each range of sectors in which two disks differ, in order,
 * ranges as long as can be. Beyond the end of the shorter disk all differs.
 * Files the two chains share are not read. fn returns 0 to go on; another
 * value ends the comparison and is returned (negative: with err set).
 */
typedef int (*cow_range_fn)(void *arg, uint64_t start, uint64_t length, struct error *err);
int cow_diff(struct cow_chain *a, struct cow_chain *b, cow_range_fn fn, void *arg, struct error *err);

/* How bad a finding of cow_check() is. */
enum cow_finding {
	COW_FINDING_NOTE,       /* worth knowing */
	COW_FINDING_REPAIRED,   /* was wrong, is right now */
	COW_FINDING_REPAIRABLE, /* wrong; --repair mends it without loss */
	COW_FINDING_ERROR,      /* wrong, and a person must decide */
};
typedef void (*cow_finding_fn)(void *arg, enum cow_finding finding, const char *text);

/*
 * Checks a file and what it stands on, and with `repair` mends what can be mended
 * without a doubt. Returns the number of findings that are still wrong, or -1 +
 * err when the file could not be looked at.
 */
int cow_check(const char *file, bool repair, const struct cow_open_options *options, cow_finding_fn fn,
	      void *arg, struct error *err);

#define COW_DIGEST_MAX 160 /* text of a digest, NUL included */

/*
 * The digest of a file's content, "sha512-1M:…" into text[COW_DIGEST_MAX]. All of it is read, unless that was done
 * before and noted, and the file is unchanged since. Holes count as zeroes, so copies that are more or less sparse
 * have the same.
 */
int cow_file_digest(const char *path, char *text, struct error *err);

/*
 * The same digest of content that arrives piece by piece: a zeroed cow_digester, then each chunk of COW_DIGEST_CHUNK bytes
 * with its index, in order (the last one may be shorter; those that hold only zeroes may be left out), then the size.
 */
#define COW_DIGEST_CHUNK (1u << 20)
struct cow_digester {
	uint8_t hash[64];
};
void cow_digester_add(struct cow_digester *d, uint64_t index, const void *chunk, size_t n);
/* Writes the text, at most COW_DIGEST_MAX bytes with its NUL. */
void cow_digester_end(struct cow_digester *d, uint64_t size, char *text);

/*
 * What the header of a detached file names as its backing file: a V3 file that travels, without the paths and times of
 * the host it was made on. cow_rebase() with header_only puts it on a base again.
 */
#define COW_DETACHED "detached"
/* Detaches a V3 file that nobody uses. Its notes about the backing file go. */
int cow_detach(const char *path, struct error *err);

#endif
