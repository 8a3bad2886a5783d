/*
 * Chains: a file, the file it stands on, and so on down to a raw image.
 *
 * Files are told apart by device and inode, so a cycle is found whatever names
 * it goes by, and the search ends without a limit of depth. All of a chain stays
 * open and locked until it is closed.
 *
 * A file into which a commit was interrupted is neither old nor new by itself;
 * the overlay that was being committed still has everything, and is put above it.
 */
#include <fcntl.h>
#include <string.h>

#include "cow/internal.h"
#include "uml-lab/base/file.h"

#define CACHE_LINE 64u
#define FETCH_MAX  (4 * CACHE_LINE) /* of a bitmap: 1 MiB of the disk */

void cow_chain_close(struct cow_chain *chain)
{
	if (!chain)
		return;
	for (size_t i = 0; i < chain->count; i++)
		cow_file_free(chain->files[i]);
	free(chain->files);
	free(chain->problem);
	free(chain);
}

/* Takes over the file. */
static int append(struct cow_chain *chain, struct cow_file *f, struct error *err)
{
	struct cow_file **files = reallocarray(chain->files, chain->count + 1, sizeof(*files));

	if (!files) {
		cow_file_free(f);
		return error_oom(err);
	}
	chain->files = files;
	files[chain->count++] = f;
	return 0;
}

bool cow_chain_contains(const struct cow_chain *chain, const struct stat *st)
{
	for (size_t i = 0; i < chain->count; i++)
		if (chain->files[i]->stat.st_dev == st->st_dev && chain->files[i]->stat.st_ino == st->st_ino)
			return true;
	return false;
}

/* How the file at an index is locked when the first `writable` of them are to be written. */
static enum cow_lock lock_for(const struct cow_open_options *o, size_t index, size_t writable)
{
	return o->no_lock ? COW_LOCK_NONE : index < writable ? COW_LOCK_WRITE : COW_LOCK_READ;
}

static struct cow_file *open_top(const char *path, enum cow_lock lock, struct error *err)
{
	cleanup_free char *real = file_absolute(path, false, err);
	int fd;

	if (!real)
		return NULL;
	fd = open(real, (lock == COW_LOCK_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	if (fd < 0) {
		error_errno(err, errno, "cannot open %s", path);
		if (err && (err->sys_errno == EACCES || err->sys_errno == EROFS))
			error_hint(err, "it belongs to somebody else, or may only be read");
		return NULL;
	}
	return cow_file_attach(fd, real, lock, err);
}

/* Puts the overlay of an interrupted commit above the file at an index, which is half written without it. */
static int insert_journal(struct cow_chain *chain, size_t index, const struct cow_journal *j,
			  const struct cow_open_options *o, struct error *err)
{
	const char *lower = chain->files[index]->path;
	struct cow_file *f = NULL;
	char identity[64] = "";

	/* before anything is opened: the note may have come with a file from elsewhere */
	if (!cow_note_identity_of(j->overlay, identity) || !str_eq(identity, j->identity))
		error_set(err, ERROR_FAILED, "%s is gone, or another file now", j->overlay);
	else
		f = open_top(j->overlay, lock_for(o, 0, 0), err);
	if (f && (!cow_journal_names(j, f) || !f->bitmap || f->sectors != chain->files[index]->sectors)) {
		error_set(err, ERROR_FAILED, "%s is another file now", j->overlay);
		cow_file_free(f);
		f = NULL;
	}
	if (!f)
		return error_prefix(err, "the commit of %s into %s was interrupted and can't be completed",
				    j->overlay, lower);
	if (append(chain, f, err))
		return -1;
	memmove(chain->files + index + 1, chain->files + index,
		(chain->count - 1 - index) * sizeof(*chain->files));
	chain->files[index] = f;
	return 0;
}

/* Looks for an interrupted commit into the last file of the chain. */
static int check_journal(struct cow_chain *chain, const struct cow_open_options *o, size_t writable,
			 struct error *err)
{
	size_t index = chain->count - 1;
	struct cow_journal j;

	if (cow_journal_get(chain->files[index], &j, err))
		return -1;
	if (j.state != COW_JOURNAL_COPYING || (index > 0 && cow_journal_names(&j, chain->files[index - 1])))
		return 0;
	if (index < writable) {
		error_set(err, ERROR_STATE, "the commit of %s into %s was interrupted", j.overlay,
			  chain->files[index]->path);
		return error_hint(err, "complete it first: uml-cow commit %s", j.overlay);
	}
	return insert_journal(chain, index, &j, o, err);
}

/* Opens what lies below the last file, down to a raw image. */
static int descend(struct cow_chain *chain, const struct cow_open_options *o, size_t writable,
		   struct error *err)
{
	cleanup_with(cow_policy_free) struct cow_policy policy = {0};

	if (check_journal(chain, o, writable, err))
		return -1;
	if (!chain->files[chain->count - 1]->bitmap)
		return 0; /* a raw image stands on nothing: what may be opened below it need not be found out */
	if (cow_policy_init(&policy, o, err))
		return -1;
	while (chain->files[chain->count - 1]->bitmap) {
		const struct cow_file *last = chain->files[chain->count - 1];
		struct cow_file *b = cow_resolve(last, &policy, lock_for(o, chain->count, writable), err);

		if (!b)
			return -1;
		if (cow_chain_contains(chain, &b->stat)) {
			error_set(err, ERROR_FAILED, "%s stands on %s, which stands on it: a cycle",
				  last->path, b->path);
			cow_file_free(b);
			return -1;
		}
		if (append(chain, b, err) || check_journal(chain, o, writable, err))
			return -1;
	}
	return 0;
}

struct cow_chain *cow_chain_open(const char *path, const struct cow_open_options *options, struct error *err)
{
	return cow_chain_open_writable(path, options, options && options->writable ? 1 : 0, err);
}

struct cow_chain *cow_chain_open_writable(const char *path, const struct cow_open_options *options,
					  size_t writable, struct error *err)
{
	static const struct cow_open_options defaults;
	cleanup_chain struct cow_chain *chain = calloc(1, sizeof(*chain));
	struct error why = ERROR_INIT;
	struct cow_file *top;

	if (!options)
		options = &defaults;
	if (!chain) {
		error_oom(err);
		return NULL;
	}
	top = open_top(path, lock_for(options, 0, writable), err);
	if (!top || append(chain, top, err))
		return NULL;
	/* the kernel rounds the size of a disk up, a raw file is as long as it is */
	chain->sectors = top->sectors;
	chain->size = top->bitmap ? top->sectors << COW_SECTOR_SHIFT : top->header.size;
	if (descend(chain, options, writable, &why)) {
		if (!options->partial) {
			error_copy(err, &why);
			return NULL;
		}
		chain->problem = malloc(sizeof(*chain->problem));
		if (!chain->problem) {
			error_oom(err);
			return NULL;
		}
		error_copy(chain->problem, &why);
	}
	return steal_ptr(&chain);
}

uint64_t cow_chain_size(const struct cow_chain *chain)
{
	return chain->size;
}

size_t cow_chain_depth(const struct cow_chain *chain)
{
	return chain->count;
}

const struct error *cow_chain_problem(const struct cow_chain *chain)
{
	return chain->problem;
}

void cow_chain_file(const struct cow_chain *chain, size_t index, struct cow_file_info *out)
{
	const struct cow_file *f = chain->files[index];

	out->path = f->path;
	out->header = f->header;
	out->stat = f->stat;
	out->allocated = (uint64_t)f->stat.st_blocks * 512;
	out->owned_sectors = cow_file_owned_sectors(f);
	out->fd = f->fd;
}

/*
 * Has the bitmaps of all files fetched into the processor's cache, all at the same time: what is asked for at
 * random is in none, and one after the other, as the search goes down, the files of a deep chain would each
 * cost a wait for memory.
 */
static void fetch_bitmaps(const struct cow_chain *chain, uint64_t start, uint64_t max)
{
	uint64_t first = start >> 3, end = (start + max + 7) >> 3;

	if (end > first + FETCH_MAX)
		end = first + FETCH_MAX;
	for (size_t i = 0; i + 1 < chain->count; i++) {
		const struct cow_file *f = chain->files[i];

		for (uint64_t at = first; f->bitmap && at < end && at < f->header.bitmap_length; at += CACHE_LINE)
			__builtin_prefetch(f->bitmap + at);
	}
}

void cow_chain_extent(const struct cow_chain *chain, uint64_t start, uint64_t max, struct cow_extent *out)
{
	size_t last = chain->count - 1;
	bool owned = false;

	if (last > 1)
		fetch_bitmaps(chain, start, max);

	out->start = start;
	out->length = max;
	for (out->owner = 0; out->owner < last; out->owner++) {
		out->length = cow_file_run(chain->files[out->owner], start, out->length, &owned);
		if (owned)
			return;
	}
}

void cow_chain_run(const struct cow_chain *chain, uint64_t start, uint64_t max, struct cow_extent *out)
{
	struct cow_extent next;

	cow_chain_extent(chain, start, max, out);
	while (out->length < max) {
		cow_chain_extent(chain, start + out->length, max - out->length, &next);
		if (next.owner != out->owner)
			break;
		out->length += next.length;
	}
}

uint64_t cow_chain_offset(const struct cow_chain *chain, const struct cow_extent *extent)
{
	return cow_file_place(chain->files[extent->owner], extent->start << COW_SECTOR_SHIFT);
}

uint64_t cow_chain_is_data(const struct cow_chain *chain, const struct cow_extent *extent, bool *is_data)
{
	uint64_t n = cow_data_run(chain->files[extent->owner]->fd, cow_chain_offset(chain, extent),
				  extent->length << COW_SECTOR_SHIFT, is_data);

	if (!*is_data && n < COW_SECTOR_SIZE) /* a sector that is partly data is data */
		*is_data = true;
	return *is_data ? cow_sectors(n) : n >> COW_SECTOR_SHIFT;
}
