/*
 * Flatten: a chain's disk as one raw image.
 *
 * Workers take pieces of the disk in turn, so that one reads while another
 * writes; the chain is only read, and each has a buffer of its own. More than a
 * few gain nothing: a file system lets one write to a file at a time.
 */
#include <pthread.h>
#include <string.h>

#include "cow/internal.h"
#include "cow/ops.h"

#define PIECE_SECTORS (8u << (20 - COW_SECTOR_SHIFT)) /* 8 MiB: a multiple of any alignment */
#define AHEAD_SECTORS (4 * PIECE_SECTORS)
#define WORKERS_MAX   3

struct flatten {
	const struct cow_chain *chain;
	int out;
	pthread_mutex_t mutex; /* for what follows */
	uint64_t next;         /* first sector that nobody has taken */
	uint64_t ahead;        /* first sector that nobody has asked the disk for */
	bool failed;
	struct error error; /* the first */
};

/*
 * Asks the disk for some pieces after the one at hand: the kernel's own reading
 * ahead knows one reader that goes through one file, not several that change files.
 */
static void read_ahead(struct flatten *f, const struct cow_copier *copier, uint64_t at)
{
	const struct cow_chain *chain = f->chain;
	uint64_t until = at + AHEAD_SECTORS < chain->sectors ? at + AHEAD_SECTORS : chain->sectors, s;
	struct cow_extent e;

	if (!copier->no_clone) /* blocks that are shared are not read */
		return;
	pthread_mutex_lock(&f->mutex);
	s = f->ahead > at ? f->ahead : at;
	if (until > f->ahead)
		f->ahead = until;
	pthread_mutex_unlock(&f->mutex);
	for (; s < until; s += e.length) {
		cow_chain_run(chain, s, until - s, &e);
		cow_read_ahead(chain->files[e.owner]->fd, cow_chain_offset(chain, &e), e.length << COW_SECTOR_SHIFT);
	}
}

static int copy_piece(struct flatten *f, struct cow_copier *copier, uint64_t start, uint64_t end,
		      struct error *err)
{
	const struct cow_chain *chain = f->chain;

	read_ahead(f, copier, start);
	for (uint64_t s = start; s < end;) {
		struct cow_extent e;
		uint64_t at = s << COW_SECTOR_SHIFT, n;

		cow_chain_run(chain, s, end - s, &e);
		n = e.length << COW_SECTOR_SHIFT;
		if (n > chain->size - at) /* a raw image need not end with a sector */
			n = chain->size - at;
		if (cow_copy(copier, chain->files[e.owner]->fd, cow_chain_offset(chain, &e), at, n, err))
			return error_prefix(err, "flattening %s", chain->files[e.owner]->path);
		s += e.length;
	}
	return 0;
}

/* The next piece, or false when there is none, or somebody failed. */
static bool take(struct flatten *f, uint64_t *start, uint64_t *end)
{
	bool more;

	pthread_mutex_lock(&f->mutex);
	more = !f->failed && f->next < f->chain->sectors;
	*start = f->next;
	*end = *start + PIECE_SECTORS < f->chain->sectors ? *start + PIECE_SECTORS : f->chain->sectors;
	if (more)
		f->next = *end;
	pthread_mutex_unlock(&f->mutex);
	return more;
}

static void fail(struct flatten *f, const struct error *why)
{
	pthread_mutex_lock(&f->mutex);
	if (!f->failed)
		error_copy(&f->error, why);
	f->failed = true;
	pthread_mutex_unlock(&f->mutex);
}

static void *work(void *arg)
{
	struct flatten *f = arg;
	struct cow_copier copier = {.out = f->out, .fresh = true};
	struct error why = ERROR_INIT;
	uint64_t start, end;

	while (take(f, &start, &end))
		if (copy_piece(f, &copier, start, end, &why))
			fail(f, &why);
	cow_copier_free(&copier);
	return NULL;
}

/* Works with as many others as there are processors and pieces for; alone if no thread can be had. */
static int copy_disk(const struct cow_chain *chain, int out, struct error *err)
{
	struct flatten f = {.chain = chain, .out = out, .mutex = PTHREAD_MUTEX_INITIALIZER};
	long wanted = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t others[WORKERS_MAX];
	int count = 0;

	if (wanted > WORKERS_MAX)
		wanted = WORKERS_MAX;
	if (wanted > (long)(chain->sectors / PIECE_SECTORS))
		wanted = (long)(chain->sectors / PIECE_SECTORS);
	while (count < wanted - 1 && !pthread_create(&others[count], NULL, work, &f))
		count++;
	work(&f);
	for (int i = 0; i < count; i++)
		pthread_join(others[i], NULL);
	if (f.failed)
		error_copy(err, &f.error);
	return f.failed ? -1 : 0;
}

int cow_flatten(struct cow_chain *chain, const char *out, bool replace, bool durable, struct error *err)
{
	cleanup_temp struct cow_temp temp = COW_TEMP_INIT;

	if (cow_temp_open(&temp, out, err) || (replace && cow_temp_guard(&temp, chain, err)))
		return -1;
	if (ftruncate(temp.fd, (off_t)chain->size))
		return error_errno(err, errno, "cannot set the size of %s", out);
	if (copy_disk(chain, temp.fd, err))
		return -1;
	return cow_temp_publish(&temp, replace, durable, err);
}
