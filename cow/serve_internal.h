/*
 * What the files of the disk server share.
 *
 * Threads: main (serve.c) has the control socket and signals, and never touches
 * a disk. Each disk has a thread of its own (serve_disk.c) that sleeps until a
 * guest's message or kick. A SNAPSHOT, MERGE, INSERT or EJECT runs in a third thread,
 * one at a time for each disk (serve_job.c). A disk's chain belongs to whoever holds
 * its `lock`: its thread for each batch of requests, a job for each small step.
 */
#ifndef COW_SERVE_INTERNAL_H
#define COW_SERVE_INTERNAL_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/uio.h>

#include "cow/internal.h"
#include "cow/serve.h"
#include "uml-lab/base/vhost_user.h"
#include "uml-lab/base/vring_gather.h"
#include "uml-lab/base/vring_look.h"

struct serve_quota;
struct serve_fold;

/* Counters, written by the disk's thread, read by main. */
struct serve_counters {
	atomic_uint_fast64_t connections, requests, batches, read_bytes, written_bytes, discarded_bytes,
		flushes, errors, quota_refused, size, depth;
	atomic_bool connected;
};

struct serve_disk {
	uint32_t index;
	const char *socket;
	char serial[COW_SERVE_SERIAL_MAX]; /* padded with NULs, as the guest gets it */
	struct serve *serve;
	int listener; /* -1 before it listens */
	int wake;     /* eventfd: main or a job has something for the disk's thread */
	int poll;     /* what the disk's thread sleeps on */
	int kick;     /* of the guest's queue, as far as it is watched; -1 else */
	pthread_t thread;
	bool thread_runs;
	atomic_bool stop, config_changed;
	atomic_bool config_awaited; /* a job waits until the guest has read the configuration again … */
	sem_t config_read;	    /* … which this tells it */
	atomic_bool unflushed; /* the last flush failed */
	struct serve_counters n;

	pthread_mutex_t lock;
	atomic_int waiting;      /* the disk's thread wants the lock: jobs stand back */
	struct cow_chain *chain; /* NULL: an empty place */
	uint8_t *claimed; /* regions that were looked at (serve_claim.c), a bit each; NULL: nothing to claim */
	struct serve_fold *fold; /* the top is being folded into the file below; NULL: not */
	int sync_folder; /* of a new top, to be made durable before the next flush is answered; -1 for none */

	pthread_t job;
	bool job_started;     /* main's: to be joined */
	atomic_bool job_busy; /* cleared by the job as the last thing it does */
	atomic_bool merging;

	pthread_mutex_t note_lock;
	char last_error[256];

	struct vhost_user_device device; /* the disk's thread's, as all below */
	struct vhost_user *guest;
	bool write_back; /* the guest flushes by itself; else each write is durable when it is answered */
	struct serve_blk *blk;
	struct vring_look look;
	struct vring_gather gather;
	bool behind; /* requests were left when the queue was served last */
	bool lean;   /* no request since the guest's memory was let go of */
};

struct serve {
	const struct cow_serve_options *options;
	struct serve_disk *disks;
	size_t count;
	struct serve_quota *quota;
	struct loop *loop;
};

/* ---- serve_control.c ---- */

int cow_serve_send(int control, enum cow_serve_type type, uint32_t sequence, const void *payload,
		   struct error *err);
/* cow_serve_receive(), and whether a damaged message has a header to answer to. */
int cow_serve_receive_checked(int control, struct cow_serve_message *message, bool *answerable,
			      struct error *err);
/* Answers a request: done (err NULL), or why not. An answer that can't be sent is logged. */
void serve_answer(const struct serve *s, uint32_t sequence, uint32_t microseconds, const struct error *err);

/* ---- serve_disk.c ---- */

/* Takes the lock from a job, if one has it. */
void serve_disk_lock(struct serve_disk *d);
void serve_disk_unlock(struct serve_disk *d);
/* Makes what the thread sleeps on; the disk listens. 0, or -1 + err. */
int serve_disk_watch(struct serve_disk *d, struct error *err);
/* The thread's function; arg is the disk. */
void *serve_disk_run(void *arg);
void serve_disk_wake(struct serve_disk *d);
/* Remembers why a request failed, for STATS; logged too, but not each of a flood. */
void serve_disk_note(struct serve_disk *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Data, bitmap, and a new top's name. Under the lock. -errno. */
int serve_disk_flush(struct serve_disk *d);
/* Opens the disk's chain, writable. NULL + err. */
struct cow_chain *serve_disk_open(const struct serve *s, const char *file, struct error *err);
/* The guest has read the configuration, or there is none that could: a job need not wait any longer. */
void serve_disk_config_read(struct serve_disk *d);
/* Makes `chain` (NULL: none) what the disk holds, and tells quota and counters. Under the lock. */
void serve_disk_set_chain(struct serve_disk *d, struct cow_chain *chain);

/* ---- serve_blk.c ---- */

/* NULL: no memory. */
struct serve_blk *serve_blk_new(struct serve_disk *d);
void serve_blk_free(struct serve_blk *b);
/* Fills the device's features and configuration functions. */
void serve_blk_device(struct serve_disk *d, struct vhost_user_device *device);
/* Deals with all requests of the queue, then asks for kicks. -1 + err: the guest is gone or broke its queue.
 */
int serve_blk_run(struct serve_blk *b, struct vring_queue *q, struct error *err);

/* ---- serve_claim.c ---- */

/* The disk's chain is another now. Under its lock, as below. */
void serve_claim_reset(struct serve_disk *d);
/* Sectors were written that the top did not own before: lets it own what is zero around them. */
void serve_claim_around(struct serve_disk *d, uint64_t start, uint64_t sectors);

/* ---- serve_quota.c ---- */

/* Also without a limit: it knows what the tops take. */
struct serve_quota *serve_quota_new(const struct cow_serve_options *o, struct error *err);
void serve_quota_free(struct serve_quota *q);
/* The top overlay of a disk is another now; NULL: none. */
void serve_quota_set_top(struct serve_quota *q, uint32_t disk, const struct cow_file *top);
/*
 * Whether n bytes at `at` of the disk may be written. Under the disk's lock. What is allowed counts as used
 * from now on.
 */
bool serve_quota_allows(struct serve_quota *q, const struct cow_file *top, uint64_t at, uint64_t n);
/* What STATS tells of space, freshly looked up; out->disk is set. */
void serve_quota_stats(struct serve_quota *q, struct cow_serve_stats *out);

/* ---- serve_walls.c ---- */

/* All walls but that for files. 0, or -1 + err. */
int serve_walls_first(struct error *err);
/* The wall for files, when all disks are open, before there are threads. 0, or -1 + err. */
int serve_walls_files(const struct serve *s, struct error *err);

/* ---- serve_job.c ---- */

/* Starts what a request asks for; the job answers it. -1 + err: refused, answered by the caller. */
int serve_job_start(struct serve_disk *d, const struct cow_serve_message *m, struct error *err);
/* Tells a running job to give up, and waits for its end. */
void serve_job_end(struct serve_disk *d);

/* For what jobs do: the disk's lock, which the guest's requests get first. */
#define SERVE_STEP_SECTORS 2048 /* copied under one lock: 1 MiB */
void serve_job_lock(struct serve_disk *d);
void serve_job_unlock(struct serve_disk *d);
/* Whether the server ends: then + err. */
bool serve_job_given_up(const struct serve_disk *d, struct error *err);

/* ---- serve_fold.c ---- */

/* FOLD, by a job: the disk has a chain. 0, or -1 + err. */
int serve_fold(struct serve_disk *d, const char *path, struct error *err);
/* The guest has changed these sectors of the top, or may have. Under the lock. */
void serve_fold_written(struct serve_disk *d, uint64_t start, uint64_t sectors);

#endif
