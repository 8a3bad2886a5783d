/*
 * What is done to a disk while its guest runs: SNAPSHOT, MERGE, INSERT, EJECT; serve_fold.c: FOLD.
 *
 * Each runs in a thread of its own, one at a time for a disk, and takes the
 * disk's lock only for short steps.
 *
 * SNAPSHOT: what waits in the host's page cache is written before the lock is
 * taken, so that the flush under it is short. Then: flush, a new overlay over the
 * old top (whose mtime no longer changes), the old top's write lock becomes a read
 * lock, and the new file is put in front of the chain. That the new file's name is
 * durable is seen to by the next flush of the guest (sync_folder), before it is
 * answered.
 *
 * MERGE of layer L, which U stands on, into U:
 *  - U is a frozen layer: a new file with what U and L store is built and
 *    renamed over U (as `uml-cow merge`, which the locks keep out); U's mtime
 *    stays, so those that stand on it see no change. Then the chain takes the new
 *    U for the old U and L.
 *  - U is the top: what L stores and U does not is copied into U, a piece at a
 *    time under the lock, like writes of the guest; flushed; then U's header gets L's
 *    backing file, and the chain drops L.
 * Killed at any point the disk shows the same content: the copied sectors are
 * the same ones, the rename is atomic, and the header changes in one write.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <sched.h>
#include <string.h>

#include "cow/serve_internal.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/loop.h"

struct job {
	struct serve_disk *disk;
	enum cow_serve_type type;
	uint32_t sequence;
	uint32_t microseconds;
	char path[4096];
};

void serve_job_lock(struct serve_disk *d)
{
	/* the guest's requests go first */
	while (atomic_load(&d->waiting))
		sched_yield();
	pthread_mutex_lock(&d->lock);
}

void serve_job_unlock(struct serve_disk *d)
{
	pthread_mutex_unlock(&d->lock);
}

static int empty_place(struct error *err, uint32_t disk)
{
	return error_set(err, ERROR_STATE, "disk %u is an empty place", disk);
}

/* ---- SNAPSHOT ---- */

/* Writes what the page cache holds of the top, while the guest goes on. Errors come up again in the flush. */
static int write_early(struct serve_disk *d, struct error *err)
{
	cleanup_close int fd = -1;

	serve_job_lock(d);
	if (d->chain)
		fd = fcntl(d->chain->files[0]->fd, F_DUPFD_CLOEXEC, 0);
	serve_job_unlock(d);
	if (fd < 0)
		return empty_place(err, d->index);
	fdatasync(fd);
	return 0;
}

static int open_folder(const char *path, struct error *err)
{
	cleanup_free char *copy = str_dup(path, err);
	int fd;

	if (!copy)
		return -1;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? error_errno(err, errno, "cannot open the folder of %s", path) : fd;
}

/* Opens the new overlay as a file of the chain. */
static struct cow_file *attach(const char *path, enum cow_lock lock, struct error *err)
{
	cleanup_free char *real = file_absolute(path, false, err);
	int fd;

	if (!real)
		return NULL;
	fd = open(real, (lock == COW_LOCK_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0) {
		error_errno(err, errno, "cannot open %s", path);
		return NULL;
	}
	return cow_file_attach(fd, real, lock, err);
}

/* Puts a file in front of the chain, whose old top is only read from now on. The file is the chain's then. */
static int put_on_top(struct cow_chain *chain, struct cow_file *top, struct error *err)
{
	struct cow_file *old = chain->files[0];
	struct cow_file **files = reallocarray(chain->files, chain->count + 1, sizeof(*files));

	if (!files)
		return error_oom(err);
	chain->files = files;
	/* on the same open file description: the write lock becomes a read lock, with no moment between */
	if (cow_lock(old->fd, old->path, COW_LOCK_READ, err))
		return -1;
	/* its time from now on, which a merge has to keep */
	if (fstat(old->fd, &old->stat))
		return error_errno(err, errno, "cannot read %s", old->path);
	memmove(files + 1, files, chain->count * sizeof(*files));
	files[0] = top;
	chain->count++;
	old->writable = false;
	return 0;
}

/* Flush, create, switch: what the guest waits for. */
static int switch_top(struct serve_disk *d, const char *path, int *folder, struct error *err)
{
	struct cow_chain *chain = d->chain;
	struct cow_file *top;
	int ret;

	if (!chain)
		return empty_place(err, d->index);
	ret = serve_disk_flush(d);
	if (ret)
		return error_errno(err, -ret, "flush disk %u", d->index);
	/* the lock of ours does not keep the header from being read; a new mtime would show as a mismatch */
	if (cow_create(path, chain->files[0]->path, NULL, err))
		return -1;
	top = attach(path, COW_LOCK_WRITE, err);
	if (!top || put_on_top(chain, top, err)) {
		cow_file_free(top);
		unlink(path);
		return -1;
	}
	d->sync_folder = steal_fd(folder);
	serve_disk_set_chain(d, chain);
	return 0;
}

static int do_snapshot(struct job *j, struct error *err)
{
	struct serve_disk *d = j->disk;
	cleanup_close int folder = -1;
	uint64_t begin;
	int ret;

	if (j->path[0] != '/')
		return error_set(err, ERROR_USAGE, "the path of a snapshot's overlay is not absolute: %s",
				 j->path);
	folder = open_folder(j->path, err);
	if (folder < 0 || write_early(d, err))
		return -1;
	begin = loop_now_ns();
	serve_job_lock(d);
	ret = switch_top(d, j->path, &folder, err);
	serve_job_unlock(d);
	j->microseconds = (uint32_t)((loop_now_ns() - begin) / 1000);
	return ret;
}

/* ---- MERGE ---- */

/* The index of a layer below the top; 0 when it is none. */
static size_t find_layer(const struct cow_chain *chain, const char *path, struct error *err)
{
	struct stat st;

	if (stat(path, &st)) {
		error_errno(err, errno, "cannot find %s", path);
		return 0;
	}
	for (size_t i = 1; i + 1 < chain->count; i++)
		if (chain->files[i]->stat.st_dev == st.st_dev && chain->files[i]->stat.st_ino == st.st_ino)
			return i;
	error_set(err, ERROR_NOT_FOUND, "%s is no layer between the top of the disk and its base", path);
	return 0;
}

bool serve_job_given_up(const struct serve_disk *d, struct error *err)
{
	if (!atomic_load(&d->stop))
		return false;
	error_set(err, ERROR_STATE, "the disk server ends; nothing was changed");
	return true;
}

/* Gathers in b what the first two files of a chain store. They are frozen: no lock. */
static int gather(const struct serve_disk *d, struct cow_build *b, const struct cow_chain *chain,
		  struct error *err)
{
	for (uint64_t s = 0; s < chain->sectors;) {
		uint64_t left = chain->sectors - s;
		struct cow_extent e;

		if (serve_job_given_up(d, err))
			return -1;
		cow_chain_extent(chain, s, left, &e);
		if (e.owner < 2) {
			if (e.length > 16 * SERVE_STEP_SECTORS)
				e.length = 16 * SERVE_STEP_SECTORS;
			if (cow_build_store(b, chain, s, e.length, err))
				return -1;
		}
		s += e.length;
	}
	return 0;
}

/* Takes the files at an index and the one below it out of the chain, and puts one in their place. */
static void replace_two(struct cow_chain *chain, size_t index, struct cow_file *by)
{
	cow_file_free(chain->files[index]);
	cow_file_free(chain->files[index + 1]);
	chain->files[index] = by;
	memmove(chain->files + index + 1, chain->files + index + 2,
		(chain->count - index - 2) * sizeof(*chain->files));
	chain->count--;
}

static int merge_frozen(struct job *j, size_t upper, struct error *err)
{
	struct serve_disk *d = j->disk;
	cleanup_build struct cow_build b = COW_BUILD_INIT;
	/* no other job changes the chain, and the guest only the top */
	const struct cow_chain view = cow_chain_below(d->chain, upper);
	struct cow_file *merged;

	if (cow_build_begin(&b, view.files[0]->path, view.files[2]->path, err) || gather(d, &b, &view, err) ||
	    cow_build_finish(&b, view.files[0], true, err))
		return -1;
	cow_file_free(steal_ptr(&b.file)); /* its write lock */
	cow_lock(b.temp.fd, view.files[0]->path, COW_LOCK_READ, NULL);
	merged = attach(view.files[0]->path, COW_LOCK_READ, err);
	if (!merged)
		return -1;
	serve_job_lock(d);
	replace_two(d->chain, upper, merged);
	serve_disk_set_chain(d, d->chain);
	serve_job_unlock(d);
	return 0;
}

/* Copies into the top what the file below it stores of the next sectors and it does not. Under the lock. */
static int pull_step(struct serve_disk *d, struct cow_copier *copier, uint64_t *at, struct error *err)
{
	struct cow_file *top = d->chain->files[0], *lower = d->chain->files[1];
	uint64_t end = *at + SERVE_STEP_SECTORS < top->sectors ? *at + SERVE_STEP_SECTORS : top->sectors;

	while (*at < end) {
		struct cow_extent e;
		uint64_t byte = *at << COW_SECTOR_SHIFT, n;
		bool is_data;

		cow_chain_extent(d->chain, *at, end - *at, &e);
		if (e.owner == 1) {
			/* holes, which need no space, by themselves */
			e.length = cow_chain_is_data(d->chain, &e, &is_data);
			n = e.length << COW_SECTOR_SHIFT;
			if (is_data && !serve_quota_allows(d->serve->quota, top, byte, n))
				return error_set(err, ERROR_FAILED, "merging %s would go over the quota",
						 lower->path);
			top->data_dirty = true;
			if (cow_copy(copier, lower->fd, cow_file_place(lower, byte),
				     cow_file_place(top, byte), n, err))
				return -1;
			cow_file_set(top, *at, e.length, true);
		}
		*at += e.length;
	}
	return 0;
}

/* The top has it all: make that durable, and let it stand on what the lower file stood on. Under the lock. */
static int drop_below(struct serve_disk *d, struct error *err)
{
	struct cow_chain *chain = d->chain;
	struct cow_file *top = chain->files[0];
	cleanup_free struct cow_header *h = malloc(sizeof(*h));
	char digest[COW_DIGEST_MAX];
	int ret = serve_disk_flush(d);

	if (ret)
		return error_errno(err, -ret, "flush disk %u", d->index);
	if (!h)
		return error_oom(err);
	if (cow_header_for(h, chain->files[2]->path, false, digest, err) ||
	    cow_header_rewrite(top, h, digest, err))
		return -1;
	memcpy(top->header.backing, h->backing, sizeof(h->backing));
	top->header.mtime = h->mtime;
	cow_file_free(chain->files[1]);
	memmove(chain->files + 1, chain->files + 2, (chain->count - 2) * sizeof(*chain->files));
	chain->count--;
	serve_disk_set_chain(d, chain);
	return 0;
}

static int merge_into_top(struct job *j, struct error *err)
{
	struct serve_disk *d = j->disk;
	struct cow_copier copier = {.out = d->chain->files[0]->fd};
	uint64_t at = 0, sectors = d->chain->sectors;
	int ret = 0;

	while (at < sectors && !ret) {
		if (serve_job_given_up(d, err)) {
			ret = -1;
			break;
		}
		serve_job_lock(d);
		ret = pull_step(d, &copier, &at, err);
		serve_job_unlock(d);
	}
	cow_copier_free(&copier);
	if (ret || write_early(d, err))
		return -1;
	serve_job_lock(d);
	ret = drop_below(d, err);
	serve_job_unlock(d);
	return ret;
}

static int merge(struct job *j, struct error *err)
{
	/* jobs alone change the chain */
	size_t index = find_layer(j->disk->chain, j->path, err);

	if (index == 0)
		return -1;
	return index == 1 ? merge_into_top(j, err) : merge_frozen(j, index - 1, err);
}

static int do_merge(struct job *j, struct error *err)
{
	struct serve_disk *d = j->disk;
	int ret;

	if (!d->chain)
		return empty_place(err, d->index);
	atomic_store(&d->merging, true);
	ret = j->type == COW_SERVE_FOLD ? serve_fold(d, j->path, err) : merge(j, err);
	atomic_store(&d->merging, false);
	return ret;
}

/* ---- INSERT, EJECT ---- */

/* The guest's driver reads within milliseconds how large its disk is now. One without a driver never does. */
#define CONFIG_READ_S 1

/* Tells the guest that the disk's size is another, and waits until it has asked for it: what looks at the disk after the answer
 * finds it as it is now. */
static void tell_guest(struct serve_disk *d)
{
	struct timespec until;

	atomic_store(&d->config_awaited, true);
	atomic_store(&d->config_changed, true);
	serve_disk_wake(d);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += CONFIG_READ_S;
	while (sem_clockwait(&d->config_read, CLOCK_MONOTONIC, &until))
		if (errno == ETIMEDOUT) {
			/* read just now: its post must not be taken for the next one's */
			if (!atomic_exchange(&d->config_awaited, false))
				continue;
			return;
		}
}

static int do_insert(struct job *j, struct error *err)
{
	struct serve_disk *d = j->disk;
	struct cow_chain *chain;

	/* jobs alone change whether there is one */
	if (d->chain)
		return error_set(err, ERROR_STATE, "disk %u is there already", d->index);
	chain = serve_disk_open(d->serve, j->path, err);
	if (!chain)
		return -1;
	serve_job_lock(d);
	serve_disk_set_chain(d, chain);
	serve_job_unlock(d);
	tell_guest(d);
	return 0;
}

static int do_eject(struct job *j, struct error *err)
{
	struct serve_disk *d = j->disk;
	struct cow_chain *chain = d->chain;
	int ret;

	if (!chain)
		return empty_place(err, d->index);
	serve_job_lock(d);
	ret = serve_disk_flush(d);
	if (!ret)
		serve_disk_set_chain(d, NULL);
	serve_job_unlock(d);
	if (ret)
		return error_errno(err, -ret, "flush disk %u", d->index);
	cow_chain_close(chain);
	tell_guest(d);
	return 0;
}

/* ---- Threads ---- */

static int run(struct job *j, struct error *err)
{
	switch (j->type) {
	case COW_SERVE_SNAPSHOT:
		return do_snapshot(j, err);
	case COW_SERVE_MERGE:
	case COW_SERVE_FOLD:
		return do_merge(j, err);
	case COW_SERVE_INSERT:
		return do_insert(j, err);
	case COW_SERVE_EJECT:
		return do_eject(j, err);
	default:
		return error_set(err, ERROR_USAGE, "request %d is none", j->type);
	}
}

static void *job_main(void *arg)
{
	struct job *j = arg;
	struct serve_disk *d = j->disk;
	struct error err = ERROR_INIT;
	int ret = run(j, &err);
	const uint32_t sequence = j->sequence, us = j->microseconds;

	free(j);
	/* before the answer: who has it may ask for the next at once */
	atomic_store(&d->job_busy, false);
	serve_answer(d->serve, sequence, us, ret ? &err : NULL);
	return NULL;
}

int serve_job_start(struct serve_disk *d, const struct cow_serve_message *m, struct error *err)
{
	struct job *j;
	int ret;

	if (atomic_load(&d->job_busy))
		return error_set(err, ERROR_STATE, "disk %u is busy with another request", d->index);
	serve_job_end(d);
	j = calloc(1, sizeof(*j));
	if (!j)
		return error_oom(err);
	j->disk = d;
	j->type = m->header.type;
	j->sequence = m->header.sequence;
	if (j->type != COW_SERVE_EJECT)
		memcpy(j->path, m->u.path.path, sizeof(j->path));
	atomic_store(&d->job_busy, true);
	ret = pthread_create(&d->job, NULL, job_main, j);
	if (ret) {
		free(j);
		atomic_store(&d->job_busy, false);
		return error_errno(err, ret, "start a thread");
	}
	d->job_started = true;
	return 0;
}

void serve_job_end(struct serve_disk *d)
{
	if (d->job_started)
		pthread_join(d->job, NULL);
	d->job_started = false;
}
