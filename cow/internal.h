/* What libcow's files share among themselves. */
#ifndef COW_INTERNAL_H
#define COW_INTERNAL_H

#include "cow/cow.h"
#include "cow/format.h"
#include "cow/ops.h"
#include "uml-lab/base/cleanup.h"

/*
 * One open file of a chain.
 *
 * The bitmap is mapped privately: a read touches the pages it needs, and what
 * is set reaches the file only in cow_file_flush(), after the data it speaks of.
 */
struct cow_file {
	char *path; /* absolute, symbolic links resolved */
	int fd;
	bool writable;
	struct stat stat;         /* at opening */
	struct cow_header header; /* of a raw file: size alone */
	uint64_t sectors;         /* of the disk */
	uint8_t *bitmap; /* NULL for a raw file; bitmap_bits sectors are told, later ones are not owned */
	uint64_t bitmap_bits;
	void *map; /* what to unmap */
	size_t map_length;
	uint8_t *dirty;        /* a bit per COW_BITMAP_BLOCK bytes of bitmap changed since the last flush */
	uint64_t dirty_blocks; /* bits in it */
	bool bitmap_dirty, data_dirty;
	int failed; /* a flush failed with this -errno: none succeeds any more */
};

#define COW_BITMAP_BLOCK 4096

struct cow_chain {
	struct cow_file **files; /* top first */
	size_t count;
	uint64_t size, sectors; /* of the disk as seen */
	struct error *problem;  /* with options.partial: what stopped it */
};

#define cleanup_chain cleanup_with(cow_chain_cleanup)
static inline void cow_chain_cleanup(struct cow_chain **c)
{
	int saved = errno;

	cow_chain_close(*c);
	errno = saved;
}

/* ---- file.c: one file ---- */

enum cow_lock { COW_LOCK_NONE, COW_LOCK_READ, COW_LOCK_WRITE };

/*
 * Takes over fd and makes it a file of a chain: locks it, checks that path still
 * names it, reads the header and maps the bitmap. NULL + err; fd is closed then.
 */
struct cow_file *cow_file_attach(int fd, const char *path, enum cow_lock lock, struct error *err);
void cow_file_free(struct cow_file *f);

/* Locks a whole file the way the kernel does (os_lock_file()), without waiting. ERROR_STATE when it is in
 * use. */
int cow_lock(int fd, const char *path, enum cow_lock lock, struct error *err);

static inline bool cow_file_owns(const struct cow_file *f, uint64_t sector)
{
	return !f->bitmap || (sector < f->bitmap_bits && (f->bitmap[sector >> 3] >> (sector & 7) & 1));
}

/* Length of the run of sectors from `start`, at most max, that are alike; *owned tells which. */
uint64_t cow_file_run(const struct cow_file *f, uint64_t start, uint64_t max, bool *owned);
uint64_t cow_file_owned_sectors(const struct cow_file *f);

/* Marks sectors owned, or not; reaches the file with the next flush. */
void cow_file_set(struct cow_file *f, uint64_t start, uint64_t n, bool owned);
/* Writes the changed blocks of the bitmap, in no order with the data; they stay marked as changed. -errno. */
int cow_file_write_bitmap(const struct cow_file *f);
/* Data, then bitmap, each made durable. -errno. */
int cow_file_flush(struct cow_file *f);
/*
 * Gives the file the mtime it was opened with, and makes it durable: for changes
 * that do not change the content, since those that stand on the file compare it.
 */
int cow_file_restore_time(const struct cow_file *f, struct error *err);

/* Where byte `at` of the disk lies in the file. */
static inline uint64_t cow_file_place(const struct cow_file *f, uint64_t at)
{
	return f->header.data_offset + at; /* 0 for a raw file */
}

/* ---- temp.c: files that appear whole ---- */

struct cow_temp {
	int fd;
	int guard;         /* the file to be replaced, locked; -1 for none */
	char *path, *temp; /* final and temporary name; temp is NULL once published */
};
#define COW_TEMP_INIT                                                                                        \
	{                                                                                                    \
		.fd = -1, .guard = -1                                                                        \
	}
#define cleanup_temp cleanup_with(cow_temp_drop)

/* Makes an empty file beside path, mode 0600. */
int cow_temp_open(struct cow_temp *t, const char *path, struct error *err);
/*
 * Before a file that is there is replaced by something else: refuses one that is
 * part of the chain the new content comes from (may be NULL), and one in use by
 * others, and keeps those out until the new file is in place.
 */
int cow_temp_guard(struct cow_temp *t, const struct cow_chain *from, struct error *err);
/*
 * Gives it its final name, over a file that is there only if `replace`. With
 * `durable` it survives a crash of the host from then on. The descriptor stays open.
 */
int cow_temp_publish(struct cow_temp *t, bool replace, bool durable, struct error *err);
/* Removes what was not published, closes. */
void cow_temp_drop(struct cow_temp *t);
/* Makes the names in the folder of a file durable. */
int cow_sync_folder(const char *path, struct error *err);

/* Owner, mode and times aside, makes the new file stand for the old one: owner (as far as allowed) and mode.
 */
int cow_temp_inherit(struct cow_temp *t, const struct stat *old, struct error *err);

/* ---- note.c: what we remember about a file ---- */

#define COW_NOTE_MAX 4300 /* bytes of a note's text, NUL included: a path and a little more */

/* Where notes are kept when attributes do not work. malloc'ed; NULL + err. */
char *cow_note_sidecar(const char *path, struct error *err);
/* Reads a note into text[COW_NOTE_MAX]. 1 when there is one, 0 when not, -1 + err. */
int cow_note_get(int fd, const char *path, const char *name, char *text, struct error *err);
/* Sets a note, or removes it (text NULL). Durable only after fsync() of the file, a sidecar at once. */
int cow_note_set(int fd, const char *path, const char *name, const char *text, struct error *err);
/* Notes that a raw file is one, under the name `path` that it is about to get. */
int cow_note_raw_at(int fd, const char *path, struct error *err);
/*
 * Identity of a file that no other file ever had, as text[64]: inode and time of
 * birth; where the file system keeps no such time, the inode, which one that is
 * there has alone. false when it can't be told.
 */
bool cow_note_identity(int fd, char *text);
/* The same without opening the file; symbolic links are not followed. */
bool cow_note_identity_of(const char *path, char *text);

/* ---- journal.c: interrupted commits ---- */

struct cow_journal {
	enum { COW_JOURNAL_NONE, COW_JOURNAL_COPYING, COW_JOURNAL_COPIED } state;
	char identity[64]; /* of the overlay */
	char overlay[COW_PATH_MAX];
};
/* A file that took the place of its overlay (cow_take_place()) has none. */
int cow_journal_get(const struct cow_file *lower, struct cow_journal *j, struct error *err);
/* Notes durably what is being committed to lower. */
int cow_journal_set(const struct cow_file *lower, int state, const struct cow_file *overlay,
		    struct error *err);
/* Removes the note. Not durable by itself: one that says "copied" may come back without harm. */
int cow_journal_end(const struct cow_file *lower, struct error *err);
/* Whether `overlay` is the one that the journal speaks of. */
bool cow_journal_names(const struct cow_journal *j, const struct cow_file *overlay);

/* ---- commit.c ---- */

/* Waits until a modification gives the file another time, in seconds, than it has. */
void cow_leave_second(const struct cow_file *f);
/* Whether `lower`, which `upper` stands on, can take what that stores and its place: a raw file of whole sectors. */
int cow_check_fold(const struct cow_file *upper, const struct cow_file *lower, struct error *err);
/*
 * Renames `lower` over `upper`, durably and with its time; lower->path is the new name then. Before, all that upper stores is
 * in lower, durably, and lower's journal says "copying upper". After a failure both are where they were.
 */
int cow_take_place(struct cow_file *lower, const struct cow_file *upper, struct error *err);

/* Notes that whoever runs this chose the backing file named in the header. `path`: where the file will be. */
int cow_note_origin(int fd, const char *path, const char *backing, struct error *err);
/* Whether that was noted, of this very file, and it is ours. */
bool cow_note_is_origin(int fd, const char *path, const char *backing);

/* ---- digest.c ---- */

/* The noted digest of a file's content, if there is one and the file is unchanged since. Never reads content.
 */
bool cow_digest_noted(int fd, const char *path, char *text);
/* The digest: the noted one, or computed, and noted if that is allowed. */
int cow_digest(int fd, const char *path, char *text, struct error *err);

/* ---- resolve.c: which file a header means ---- */

struct cow_policy {
	bool any;
	struct strv folders; /* absolute, resolved; those to search come first */
};

int cow_policy_init(struct cow_policy *p, const struct cow_open_options *options, struct error *err);
void cow_policy_free(struct cow_policy *p);
/* Opens and attaches the backing file of f. NULL + err. */
struct cow_file *cow_resolve(const struct cow_file *f, const struct cow_policy *policy, enum cow_lock lock,
			     struct error *err);
/* What the backing file of f is to it. */
enum cow_match {
	COW_MATCH,         /* size and mtime are those of the header */
	COW_MATCH_COPY,    /* another mtime, the same content by digest */
	COW_MATCH_COMMIT,  /* another mtime, from an interrupted commit of that very file */
	COW_MATCH_CHANGED, /* another content by digest */
	COW_MATCH_UNKNOWN, /* another mtime, and no digest was kept */
	COW_MATCH_SIZE,    /* another size */
};
/* -1 + err when a digest can't be computed. */
int cow_match(const struct cow_file *f, const struct cow_file *backing, enum cow_match *out,
	      struct error *err);

/* ---- chain.c ---- */

/* cow_chain_open() with the first `writable` files opened and locked for writing. */
struct cow_chain *cow_chain_open_writable(const char *path, const struct cow_open_options *options,
					  size_t writable, struct error *err);

/* Whether a file is part of the chain. */
bool cow_chain_contains(const struct cow_chain *chain, const struct stat *st);

/* The chain without its first n files: shares them, is not to be closed. */
static inline struct cow_chain cow_chain_below(const struct cow_chain *c, size_t n)
{
	return (struct cow_chain){
		.files = c->files + n, .count = c->count - n, .size = c->size, .sectors = c->sectors};
}

/*
 * cow_chain_readv() if nothing of it has to be waited for. -EAGAIN: something has to; another error: a file system that can't say
 * (-EOPNOTSUPP), or as there. The pieces may be filled in part then.
 */
int cow_chain_readv_now(struct cow_chain *chain, const struct iovec *iov, int count, uint64_t at);
/* Has a range within the disk read into the page cache, without waiting for it. */
void cow_chain_read_ahead(const struct cow_chain *chain, size_t n, uint64_t at);

/* cow_chain_extent(), neighbours of the same owner joined. */
void cow_chain_run(const struct cow_chain *chain, uint64_t start, uint64_t max, struct cow_extent *out);

/* ---- copy.c ---- */

/* Copies ranges between files, leaving out zeroes or sharing blocks where that can be. */
#define COW_SEEN 4
struct cow_copier {
	int out;
	bool fresh;    /* out holds nothing yet there: zeroes need not be written */
	bool no_clone; /* sharing blocks was tried and is not to be had */
	uint8_t *buffer;
	/* the last run found in each of some inputs, which must not change meanwhile: to look for a run's end is slow (tmpfs) */
	struct cow_seen {
		int fd; /* 0: none */
		uint64_t start, end;
		bool is_data;
	} seen[COW_SEEN];
};
void cow_copier_free(struct cow_copier *c);
int cow_copy(struct cow_copier *c, int in, uint64_t from, uint64_t to, uint64_t n, struct error *err);
/* Has the data in a range read from the disk, without waiting for it. */
void cow_read_ahead(struct cow_copier *c, int in, uint64_t from, uint64_t n);

/* Length of the run at `at`, at most n, that is data or a hole (beyond the end: a hole). */
uint64_t cow_data_run(int fd, uint64_t at, uint64_t n, bool *is_data);
bool cow_is_zero(const void *data, size_t n);

/* ---- pieces.c: a disk worked on by some threads ---- */

/* Does its part for some sectors; the copier is the thread's own, its out to be set by the first call. */
typedef int (*cow_piece_fn)(void *arg, struct cow_copier *copier, uint64_t start, uint64_t end, struct error *err);
/* Calls fn for pieces of a few MiB that together are all sectors, from several threads, in order of the disk. The first error
 * ends it. */
int cow_in_pieces(uint64_t sectors, cow_piece_fn fn, void *arg, struct error *err);

/* How far reading ahead has come, for several threads. */
struct cow_ahead {
	_Atomic uint64_t until;
};
/* What a thread that works at sector `at` should ask the disk for; false when others did. */
bool cow_ahead(struct cow_ahead *a, uint64_t at, uint64_t sectors, uint64_t *start, uint64_t *end);

/* ---- build.c: new V3 files in place of others ---- */

/* A V3 file under construction. */
struct cow_build {
	struct cow_temp temp;
	struct cow_file *file;
	struct cow_copier copier;
};
#define cleanup_build cleanup_with(cow_build_drop)
#define COW_BUILD_INIT                                                                                       \
	{                                                                                                    \
		.temp = COW_TEMP_INIT                                                                        \
	}
/* Begins an empty V3 file, to be called path, over a backing file. */
int cow_build_begin(struct cow_build *b, const char *path, const char *backing, struct error *err);
/* Stores sectors, read through a chain. */
int cow_build_store(struct cow_build *b, const struct cow_chain *from, uint64_t start, uint64_t length,
		    struct error *err);
/*
 * Makes it durable under its name. `old`: the file it stands for, whose owner,
 * mode and mtime it takes, since those above it compare the mtime and what they
 * see through it is the same; NULL for a new file.
 */
int cow_build_finish(struct cow_build *b, const struct cow_file *old, bool replace, struct error *err);
void cow_build_drop(struct cow_build *b);

/* ---- create.c ---- */

/* The path as a header stores it: folder resolved, last component kept (absolutize() of cow_user.c).
 * malloc'ed. */
char *cow_backing_name(const char *path, struct error *err);
/*
 * The header of a new file over a backing file, and the digest of that file's
 * content: the noted one, a computed one if `digest`, else "".
 */
int cow_header_for(struct cow_header *h, const char *backing, bool digest, char *digest_out,
		   struct error *err);
/* Notes for a file over the backing file in its header: that it was asked for, and its digest ("" for none).
 */
int cow_note_backing(int fd, const char *path, const struct cow_header *h, const char *digest,
		     struct error *err);
/*
 * Writes another header over that of a V3 file, whose alignment and mtime stay
 * (those above it see no change). One write of the first page holds all that
 * counts, so a killed process leaves the old or the new one.
 */
int cow_header_rewrite(const struct cow_file *f, const struct cow_header *h, const char *digest,
		       struct error *err);
/* Writes an empty V3 overlay into an empty file. */
int cow_write_empty(int fd, const struct cow_header *h, struct error *err);

#endif
