/*
 * uml-cow serve: the main thread.
 *
 * Opens all disks and makes all sockets before it starts a thread or says READY,
 * so that a mistake is told before any guest runs. Then it waits for requests,
 * signals, or the end of the control socket, and passes requests on; it does no I/O
 * on disks itself, which may be slow.
 *
 * The end: each disk's thread finishes its batch, lets go of its guest, and
 * flushes; a merge gives up between two steps. A disk that cannot be flushed makes
 * the exit status 1.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "cow/serve_internal.h"
#include "uml-lab/base/log.h"
#include "uml-lab/base/loop.h"

#define REQUESTS_PER_TURN 64

void serve_answer(const struct serve *s, uint32_t sequence, uint32_t microseconds, const struct error *why)
{
	struct cow_serve_reply reply = {.microseconds = microseconds};
	struct error err = ERROR_INIT;

	if (why) {
		reply.status = why->kind;
		snprintf(reply.text, sizeof(reply.text), "%.600s%s%.400s", why->message,
			 why->hint[0] ? "; " : "", why->hint);
	}
	/* a supervisor that does not read its answers loses them; that must not stop a guest's disk */
	if (cow_serve_send(s->options->control_fd, COW_SERVE_REPLY, sequence, &reply, &err))
		log_error(&err);
}

/* ---- Requests ---- */

static void answer_stats(const struct serve *s, struct serve_disk *d, uint32_t sequence)
{
	struct cow_serve_stats out = {
		.disk = d->index,
		.connected = atomic_load(&d->n.connected),
		.connections = atomic_load(&d->n.connections),
		.size = atomic_load(&d->n.size),
		.depth = atomic_load(&d->n.depth),
		.requests = atomic_load(&d->n.requests),
		.batches = atomic_load(&d->n.batches),
		.read_bytes = atomic_load(&d->n.read_bytes),
		.written_bytes = atomic_load(&d->n.written_bytes),
		.discarded_bytes = atomic_load(&d->n.discarded_bytes),
		.flushes = atomic_load(&d->n.flushes),
		.errors = atomic_load(&d->n.errors),
		.quota_refused = atomic_load(&d->n.quota_refused),
		.merging = atomic_load(&d->merging),
	};
	struct error err = ERROR_INIT;

	serve_quota_stats(s->quota, &out);
	pthread_mutex_lock(&d->note_lock);
	memcpy(out.last_error, d->last_error, sizeof(out.last_error));
	pthread_mutex_unlock(&d->note_lock);
	if (cow_serve_send(s->options->control_fd, COW_SERVE_STATS, sequence, &out, &err))
		log_error(&err);
}

static void dispatch(struct serve *s, const struct cow_serve_message *m)
{
	uint32_t index = m->u.ref.disk; /* where all requests have it */
	struct error err = ERROR_INIT;

	_Static_assert(offsetof(struct cow_serve_path, disk) == offsetof(struct cow_serve_ref, disk),
		       "the disk's index is the first member of all requests");
	if (m->header.type >= COW_SERVE_READY)
		error_set(&err, ERROR_USAGE, "message %u is an answer", m->header.type);
	else if (index >= s->count)
		error_set(&err, ERROR_NOT_FOUND, "there is no disk %u", index);
	else if (m->header.type == COW_SERVE_GET_STATS)
		answer_stats(s, &s->disks[index], m->header.sequence);
	else
		serve_job_start(&s->disks[index], m, &err);
	if (err.kind != ERROR_NONE)
		serve_answer(s, m->header.sequence, 0, &err);
}

static void on_control(void *arg, int fd, uint32_t events)
{
	struct serve *s = arg;
	struct cow_serve_message m;

	(void)events;
	for (int i = 0; i < REQUESTS_PER_TURN; i++) {
		struct error err = ERROR_INIT;
		bool answerable;
		int ret = cow_serve_receive_checked(fd, &m, &answerable, &err);

		if (ret == 0)
			return;
		if (ret > 0)
			dispatch(s, &m);
		else if (answerable)
			serve_answer(s, m.header.sequence, 0, &err);
		else if (err.kind == ERROR_STATE) {
			loop_stop(s->loop, 0);
			return;
		}
	}
}

static void on_signal(void *arg, int signo)
{
	struct serve *s = arg;

	(void)signo;
	loop_stop(s->loop, 0);
}

/* ---- Sockets ---- */

/* Whether a socket file is left over: nobody listens on it. Anything but a socket is not ours to remove. */
static bool is_stale(const char *path, const struct sockaddr_un *address)
{
	cleanup_close int fd = -1;
	struct stat st;

	if (lstat(path, &st) || !S_ISSOCK(st.st_mode))
		return false;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) &&
	       errno == ECONNREFUSED;
}

static int listen_on(const char *path, struct error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	cleanup_close int fd = -1;
	mode_t mask;
	int ret;

	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(err, ERROR_USAGE, "the socket's path '%s' is longer than %zu bytes", path,
				 sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_errno(err, errno, "make a socket");
	if (is_stale(path, &address))
		unlink(path);
	mask = umask(0177);
	ret = bind(fd, (struct sockaddr *)&address, sizeof(address));
	umask(mask);
	if (ret && errno == EADDRINUSE)
		return error_set(err, ERROR_STATE, "%s is in use", path);
	if (ret)
		return error_errno(err, errno, "bind %s", path);
	if (listen(fd, 8)) {
		unlink(path);
		return error_errno(err, errno, "listen on %s", path);
	}
	return steal_fd(&fd);
}

/* ---- Disks ---- */

static int disk_init(struct serve *s, uint32_t index, struct error *err)
{
	const struct cow_serve_disk *o = &s->options->disks[index];
	struct serve_disk *d = &s->disks[index];

	d->index = index;
	d->serve = s;
	d->socket = o->socket;
	if (o->serial)
		memcpy(d->serial, o->serial, strnlen(o->serial, sizeof(d->serial)));
	else
		snprintf(d->serial, sizeof(d->serial), "disk%u", index);
	d->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (d->wake < 0)
		return error_errno(err, errno, "make an eventfd");
	d->blk = serve_blk_new(d);
	if (!d->blk)
		return error_oom(err);
	if (!str_eq(o->file, "-")) {
		struct cow_chain *chain = serve_disk_open(s, o->file, err);

		if (!chain)
			return -1;
		serve_disk_set_chain(d, chain);
	}
	d->listener = listen_on(o->socket, err);
	return d->listener < 0 ? -1 : serve_disk_watch(d, err);
}

static void disk_free(struct serve_disk *d)
{
	cow_chain_close(d->chain);
	serve_blk_free(d->blk);
	free(d->claimed);
	if (d->sync_folder >= 0)
		close(d->sync_folder);
	if (d->listener >= 0) {
		unlink(d->socket);
		close(d->listener);
	}
	if (d->poll >= 0)
		close(d->poll);
	if (d->wake >= 0)
		close(d->wake);
	sem_destroy(&d->config_read);
	pthread_mutex_destroy(&d->lock);
	pthread_mutex_destroy(&d->note_lock);
}

static int start_threads(struct serve *s, struct error *err)
{
	for (size_t i = 0; i < s->count; i++) {
		int ret = pthread_create(&s->disks[i].thread, NULL, serve_disk_run, &s->disks[i]);

		if (ret)
			return error_errno(err, ret, "start a thread");
		s->disks[i].thread_runs = true;
	}
	return 0;
}

/* All at once: a slow disk does not keep another from its flush. */
static void end_threads(struct serve *s)
{
	for (size_t i = 0; i < s->count; i++) {
		atomic_store(&s->disks[i].stop, true);
		serve_disk_wake(&s->disks[i]);
	}
	for (size_t i = 0; i < s->count; i++) {
		serve_job_end(&s->disks[i]);
		if (s->disks[i].thread_runs)
			pthread_join(s->disks[i].thread, NULL);
	}
}

static void serve_free(struct serve *s)
{
	for (size_t i = 0; s->disks && i < s->count; i++)
		disk_free(&s->disks[i]);
	free(s->disks);
	serve_quota_free(s->quota);
	loop_free(s->loop);
}

static int serve_init(struct serve *s, struct error *err)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP, 0};
	const struct cow_serve_options *o = s->options;

	s->disks = calloc(o->count, sizeof(*s->disks));
	if (!s->disks)
		return error_oom(err);
	s->count = o->count;
	for (size_t i = 0; i < s->count; i++) {
		s->disks[i].listener = s->disks[i].wake = s->disks[i].poll = s->disks[i].sync_folder = -1;
		sem_init(&s->disks[i].config_read, 0, 0);
		pthread_mutex_init(&s->disks[i].lock, NULL);
		pthread_mutex_init(&s->disks[i].note_lock, NULL);
	}
	s->quota = serve_quota_new(o, err);
	if (!s->quota)
		return -1;
	for (size_t i = 0; i < s->count; i++)
		if (disk_init(s, (uint32_t)i, err))
			return -1;
	s->loop = loop_new(err);
	/* before there are threads: they inherit that the signals are the loop's */
	if (!s->loop || loop_add_signals(s->loop, signals, on_signal, s, err))
		return -1;
	if (o->control_fd >= 0 && !loop_add_fd(s->loop, o->control_fd, EPOLLIN, on_control, s, err))
		return -1;
	return 0;
}

/* The result of the last flush of all disks. */
static int check_flushed(const struct serve *s, struct error *err)
{
	for (size_t i = 0; i < s->count; i++)
		if (atomic_load(&s->disks[i].unflushed))
			return error_set(err, ERROR_FAILED, "disk %zu is not whole: %s", i,
					 s->disks[i].last_error);
	return 0;
}

int cow_serve(const struct cow_serve_options *options, struct error *err)
{
	struct serve s = {.options = options};
	int ret;

	if (options->count == 0 || options->count > COW_SERVE_DISKS_MAX)
		return error_set(err, ERROR_USAGE, "%zu disks; there may be 1 to %d", options->count,
				 COW_SERVE_DISKS_MAX);
	/* threads inherit it: those of disks sleep for less than the 50 µs that timers are late by default */
	prctl(PR_SET_TIMERSLACK, 1UL);
	if (options->walls && serve_walls_first(err))
		return -1;
	ret = serve_init(&s, err) || (options->walls && serve_walls_files(&s, err)) || start_threads(&s, err) ? -1 : 0;
	if (!ret && options->control_fd >= 0)
		ret = cow_serve_send(options->control_fd, COW_SERVE_READY, 0, NULL, err);
	if (!ret)
		ret = loop_run(s.loop, err);
	end_threads(&s);
	if (!ret)
		ret = check_flushed(&s, err);
	serve_free(&s);
	return ret;
}
