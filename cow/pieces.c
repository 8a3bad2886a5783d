/*
 * Workers take pieces of a disk in turn, so that one reads while another writes. More than a few gain
 * nothing: a file system lets one write to a file at a time. Each piece's writing to the disk is begun as
 * soon as it is copied, if its user waits for it in the end.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "cow/internal.h"

#define PIECE_SECTORS (8u << (20 - COW_SECTOR_SHIFT)) /* 8 MiB: a multiple of any alignment */
#define WORKERS_MAX   3

struct work {
	uint64_t sectors;
	cow_piece_fn fn;
	void *arg;
	pthread_mutex_t mutex; /* for what follows */
	uint64_t next;         /* first sector that nobody has taken */
	bool failed;
	struct error error; /* the first */
};

static uint64_t smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* The next piece, or false when there is none, or somebody failed. */
static bool take(struct work *w, uint64_t *start, uint64_t *end)
{
	bool more;

	pthread_mutex_lock(&w->mutex);
	more = !w->failed && w->next < w->sectors;
	*start = w->next;
	*end = smaller(*start + PIECE_SECTORS, w->sectors);
	if (more)
		w->next = *end;
	pthread_mutex_unlock(&w->mutex);
	return more;
}

static void fail(struct work *w, const struct error *why)
{
	pthread_mutex_lock(&w->mutex);
	if (!w->failed)
		error_copy(&w->error, why);
	w->failed = true;
	pthread_mutex_unlock(&w->mutex);
}

static void *work(void *arg)
{
	struct work *w = arg;
	struct cow_copier copier = {.out = -1};
	struct error why = ERROR_INIT;
	uint64_t start, end;

	while (take(w, &start, &end))
		if (w->fn(w->arg, &copier, start, end, &why))
			fail(w, &why);
	cow_copier_free(&copier);
	return NULL;
}

int cow_in_pieces(uint64_t sectors, cow_piece_fn fn, void *arg, struct error *err)
{
	struct work w = {.sectors = sectors, .fn = fn, .arg = arg, .mutex = PTHREAD_MUTEX_INITIALIZER};
	long wanted = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t others[WORKERS_MAX];
	int count = 0;

	if (wanted > WORKERS_MAX)
		wanted = WORKERS_MAX;
	if (wanted > (long)(sectors / PIECE_SECTORS))
		wanted = (long)(sectors / PIECE_SECTORS);
	while (count < wanted - 1 && !pthread_create(&others[count], NULL, work, &w))
		count++;
	work(&w);
	for (int i = 0; i < count; i++)
		pthread_join(others[i], NULL);
	if (w.failed)
		error_copy(err, &w.error);
	return w.failed ? -1 : 0;
}

bool cow_ahead(struct cow_ahead *a, uint64_t at, uint64_t sectors, uint64_t *start, uint64_t *end)
{
	uint64_t until = smaller(at + 4 * PIECE_SECTORS, sectors), begin = atomic_load(&a->until);

	do {
		*start = begin > at ? begin : at;
		if (until <= *start)
			return false;
	} while (!atomic_compare_exchange_weak(&a->until, &begin, until));
	*end = until;
	return true;
}
