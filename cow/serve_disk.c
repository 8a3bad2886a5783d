/*
 * One disk's thread: listens on its socket, serves one guest after the other.
 *
 * It sleeps in epoll_pwait2() on four descriptors: the listening socket while there is no guest, the guest's connection, its
 * queue's kick, and `wake`. The last two are edges that are never read: a system call less for each. Nothing else wakes it but
 * two timers. One runs out once after a guest's last request: then it lets go of the guest's memory, whose
 * pages would count as ours as long as they are mapped here. The next request maps what it needs again. The other ends a sleep for
 * which the guest was to ask for several things and did not in time (vring_gather.h).
 *
 * While a guest asks its next question soon after each answer, the thread looks at the queue before it sleeps, or moves to the
 * guest's own processor (vring_look.h).
 *
 * A guest that breaks the protocol loses its connection, and with it its disk
 * (UML does not reconnect); what it had flushed is safe. When a guest is gone,
 * the disk is flushed, as a drive does when its power goes away slowly.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "cow/serve_internal.h"
#include "uml-lab/base/log.h"
#include "uml-lab/base/loop.h"

#define ROUNDS	     256u /* of requests, before the guest's messages are looked at */
#define LEAN_AFTER_S 10
#define WATCHED_MAX  4

void serve_disk_wake(struct serve_disk *d)
{
	static const uint64_t one = 1;

	while (write(d->wake, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

void serve_disk_lock(struct serve_disk *d)
{
	atomic_fetch_add(&d->waiting, 1);
	pthread_mutex_lock(&d->lock);
	atomic_fetch_sub(&d->waiting, 1);
}

void serve_disk_unlock(struct serve_disk *d)
{
	pthread_mutex_unlock(&d->lock);
}

void serve_disk_note(struct serve_disk *d, const char *fmt, ...)
{
	char text[sizeof(d->last_error)];
	bool same;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	pthread_mutex_lock(&d->note_lock);
	/* the first of its kind is logged: up to the number in it they are alike */
	same = !strncmp(text, d->last_error, strcspn(text, "0123456789"));
	strcpy(d->last_error, text);
	pthread_mutex_unlock(&d->note_lock);
	if (!same)
		log_warn("disk %u: %s", d->index, text);
}

int serve_disk_flush(struct serve_disk *d)
{
	int ret = cow_chain_flush(d->chain);

	/* EINVAL: a file system that has nothing to sync there */
	if (!ret && d->sync_folder >= 0 && fsync(d->sync_folder) && errno != EINVAL)
		ret = -errno;
	atomic_store(&d->unflushed, ret != 0);
	if (ret || d->sync_folder < 0)
		return ret;
	close(d->sync_folder);
	d->sync_folder = -1;
	return 0;
}

struct cow_chain *serve_disk_open(const struct serve *s, const char *file, struct error *err)
{
	const struct cow_open_options o = {
		.writable = true, .any_backing = s->options->any_backing, .folders = s->options->folders};

	return cow_chain_open(file, &o, err);
}

void serve_disk_set_chain(struct serve_disk *d, struct cow_chain *chain)
{
	d->chain = chain;
	/* half a sector at the end of a raw image is out of reach */
	atomic_store(&d->n.size, chain ? cow_chain_size(chain) >> COW_SECTOR_SHIFT << COW_SECTOR_SHIFT : 0);
	atomic_store(&d->n.depth, chain ? cow_chain_depth(chain) : 0);
	serve_quota_set_top(d->serve->quota, d->index, chain ? chain->files[0] : NULL);
	serve_claim_reset(d);
}

void serve_disk_config_read(struct serve_disk *d)
{
	if (atomic_exchange(&d->config_awaited, false))
		sem_post(&d->config_read);
}

/* ---- What is watched ---- */

static int watch(struct serve_disk *d, int fd, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.fd = fd};

	return epoll_ctl(d->poll, EPOLL_CTL_ADD, fd, &e);
}

static void forget(struct serve_disk *d, int fd)
{
	if (fd >= 0)
		epoll_ctl(d->poll, EPOLL_CTL_DEL, fd, NULL);
}

int serve_disk_watch(struct serve_disk *d, struct error *err)
{
	d->kick = -1;
	d->poll = epoll_create1(EPOLL_CLOEXEC);
	if (d->poll < 0 || watch(d, d->wake, EPOLLIN | EPOLLET) || watch(d, d->listener, EPOLLIN))
		return error_errno(err, errno, "watch a disk's socket");
	return 0;
}

/* Called before the kick of a queue that stopped is closed: the guest has it too, so closing it would not end the watch. */
static void queue_changed(void *arg, unsigned index)
{
	struct serve_disk *d = arg;
	const struct vring_queue *q = vhost_user_queue(d->guest, index);

	forget(d, d->kick);
	d->kick = -1;
	if (q && watch(d, q->kick, EPOLLIN | EPOLLET) == 0)
		d->kick = q->kick;
}

/* ---- Guests ---- */

static void accept_guest(struct serve_disk *d)
{
	struct error err = ERROR_INIT;
	int fd = accept4(d->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return; /* it went away again */
	d->write_back = true;
	vring_look_begin(&d->look, fd);
	vring_gather_reset(&d->gather);
	d->guest = vhost_user_new(fd, &d->device, &err);
	if (!d->guest) {
		log_error(&err);
		return;
	}
	if (watch(d, vhost_user_fd(d->guest), EPOLLIN)) {
		serve_disk_note(d, "watch a guest: %s", strerror(errno));
		vhost_user_free(d->guest);
		d->guest = NULL;
		return;
	}
	forget(d, d->listener);
	atomic_fetch_add(&d->n.connections, 1);
	atomic_store(&d->n.connected, true);
}

static void flush_all(struct serve_disk *d)
{
	int ret = 0;

	serve_disk_lock(d);
	if (d->chain)
		ret = serve_disk_flush(d);
	serve_disk_unlock(d);
	if (ret)
		serve_disk_note(d, "flush: %s", strerror(-ret));
}

static void drop_guest(struct serve_disk *d, const struct error *why)
{
	if (why && why->kind != ERROR_STATE)
		serve_disk_note(d, "guest: %s", why->message);
	vring_look_end(&d->look);
	forget(d, d->kick);
	d->kick = -1;
	vhost_user_free(d->guest);
	d->guest = NULL;
	if (watch(d, d->listener, EPOLLIN))
		serve_disk_note(d, "no other guest can have this disk: %s", strerror(errno));
	atomic_store(&d->n.connected, false);
	serve_disk_config_read(d);
	flush_all(d);
}

/* Requests, until none came for a while, or it has been at it for long. -1 + err: the guest is to be dropped.
 */
static int serve_queue(struct serve_disk *d, struct vring_queue *q, struct error *err)
{
	vring_look_woken(&d->look, d->guest, d->gather.goal);
	vring_gather_end(&d->gather, vring_waiting(q));
	for (unsigned i = 0; i < ROUNDS; i++) {
		/* while we look, nobody needs to tell us */
		vring_want_kicks(q, false);
		if (serve_blk_run(d->blk, q, err))
			return -1;
		if (vring_look(&d->look, d->guest, q))
			continue;
		vring_gather_begin(&d->gather);
		if (!vring_want_kick_at(q, d->gather.goal)) {
			d->behind = false;
			return 0;
		}
		vring_gather_end(&d->gather, vring_waiting(q));
	}
	d->behind = true;
	return 0;
}

/* What may be there to do. */
struct work {
	bool messages, requests;
};

/* Messages, if there are any, then requests. -1 + err: the guest is to be dropped. */
static int serve_guest(struct serve_disk *d, const struct work *work, struct error *err)
{
	bool requests = work->requests;
	struct vring_queue *q;
	int ret = 0;

	while (work->messages && (ret = vhost_user_receive(d->guest, err)) > 0)
		requests = true; /* after a change of queues nobody kicks for those that wait */
	if (ret < 0)
		return -1;
	if (!requests) /* a call that was made again, which says nothing of how soon the guest asks */
		return 0;
	q = vhost_user_queue(d->guest, 0);
	if (!q)
		return 0;
	if (d->kick < 0)
		return error_set(err, ERROR_FAILED, "its kicks can't be watched");
	return serve_queue(d, q, err);
}

static void tell_config(struct serve_disk *d)
{
	struct error err;

	if (!atomic_exchange(&d->config_changed, false))
		return;
	error_clear(&err);
	if (d->guest && vhost_user_config_changed(d->guest, &err) == 0)
		return;
	if (d->guest)
		log_error(&err);
	serve_disk_config_read(d); /* nobody will */
}

/* How long to sleep at most; NULL: until something comes. */
static const struct timespec *how_long(const struct serve_disk *d, const struct vring_queue *q, struct timespec *t)
{
	*t = (struct timespec){0};
	if (!q || (d->lean && !d->behind && !d->gather.until))
		return NULL;
	if (d->gather.until && !d->behind) {
		uint64_t now = loop_now_ns();

		t->tv_nsec = now < d->gather.until ? (long)(d->gather.until - now) : 0;
	} else if (!d->behind) {
		t->tv_sec = LEAN_AFTER_S;
	}
	return t;
}

/* Sleeps until there is something to do. */
static struct work wait_for_work(struct serve_disk *d)
{
	struct vring_queue *q = d->guest ? vhost_user_queue(d->guest, 0) : NULL;
	struct work work = {.requests = d->behind};
	struct epoll_event events[WATCHED_MAX];
	struct timespec timeout;
	int n = epoll_pwait2(d->poll, events, ARRAY_SIZE(events), how_long(d, q, &timeout), NULL);

	if (n == 0 && timeout.tv_sec > 0) {
		vhost_user_let_go(d->guest);
		d->lean = true;
	}
	if (n <= 0)
		return (struct work){.requests = true};
	for (int i = 0; i < n; i++) {
		int fd = events[i].data.fd;

		if (fd == d->kick) {
			work.requests = true;
			d->lean = false;
		} else if (fd == d->wake) {
			work.requests = true;
		} else if (fd == d->listener) {
			accept_guest(d);
		} else {
			work.messages = true;
		}
	}
	return work;
}

void *serve_disk_run(void *arg)
{
	struct serve_disk *d = arg;

	serve_blk_device(d, &d->device);
	d->device.queue_changed = queue_changed;
	while (!atomic_load(&d->stop)) {
		struct error err; /* cleared, not zeroed, at each request: its text is longer than most of them */
		struct work work = wait_for_work(d);

		error_clear(&err);
		tell_config(d);
		if (d->guest && serve_guest(d, &work, &err))
			drop_guest(d, &err);
	}
	if (d->guest)
		drop_guest(d, NULL);
	else
		flush_all(d);
	return NULL;
}
