/*
 * A share as a virtio file system device (virtio 1.2, 5.11): the guest's own FUSE client
 * sends its requests through queues in its memory, and is told of the answers there.
 * So owners, groups, attributes and times are the guest's, whatever this host's kernel
 * would let the student's account do.
 *
 * Each device is a share, a thread and a connection: a slow source holds up nobody else. In
 * the thread requests are answered one after the other, in order. That is what
 * makes it possible to go on where a process that was killed stopped: what it had
 * answered is told by the ring's used index, the request after that may have been begun and
 * is answered with EIO; numbers of files the guest still has are unknown to the new process
 * (ESTALE), names are looked up anew.
 *
 * Out of order are only requests that wait for locks (locks.c): the supervisor is told of each, so that the next process knows
 * which of the requests before the used index's count are not answered; it refuses them (ENOLCK), since the locks are gone with
 * the process.
 *
 * The guest is told of answers when no more requests wait, and its kicks are not
 * wanted meanwhile, nor while the thread looks for the next one (vring_look.h).
 *
 * FORGETs have no answer: that they were taken gives the guest back some memory, and places in the queue. A kick and an
 * interrupt for each would cost it as much as a request does. So they are taken beside requests, or FORGETS_MS after the one
 * before, and the guest is told of many at once: when half of the queue's places are to be given back, or after FORGETS_MS.
 */
#include <errno.h>
#include <linux/fuse.h>
#include <linux/virtio_fs.h>
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "hostfs/device.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"
#include "uml-lab/base/loop.h"
#include "uml-lab/base/vhost_user.h"
#include "uml-lab/base/vring_look.h"

#define QUEUES	   2 /* FORGET and INTERRUPT have the first, all else the second */
#define BATCH	   16 /* answers that the guest may have to wait for to be told */
#define ROUNDS	   256 /* of requests, before the guest's messages are looked at */
#define STACK_SIZE (512 << 10)
#define FORGETS_MS 5

struct hostfs_device {
	struct hostfs *fs;
	const char *tag;
	struct hostfs_start start;
	hostfs_pending_fn pending;
	void *arg;
	struct {
		bool used;
		uint16_t head;
	} waits[HOSTFS_WAITS_MAX]; /* of queue 1 */
	struct loop_timer *tick;
	struct loop_timer *forgets;
	bool forgetting; /* there were some lately: the timer runs */
	int stop; /* eventfd */
	int connection;
	pthread_t thread;
	struct loop *loop;
	struct vhost_user *u;
	struct loop_fd *source, *stop_source, *kicks[QUEUES];
	struct vring_look look; /* at queue 1 */
	bool suspect[QUEUES]; /* the next request may have been begun by a process that was killed */
	struct iovec iov[VRING_CHAIN_MAX];
};

static void get_config(void *arg, void *out)
{
	struct hostfs_device *d = arg;
	struct virtio_fs_config config = {.num_request_queues = QUEUES - 1};

	memcpy(config.tag, d->tag, strnlen(d->tag, sizeof(config.tag)));
	memcpy(out, &config, sizeof(config));
}

/* ---- requests that wait ---- */

/* Answers one. False: it can't be now. */
static bool answer_late(struct hostfs_device *d, struct vring_queue *q, uint16_t head, const struct hostfs_answer *answer)
{
	const struct hostfs_pending pending = {.head = head, .answering = true, .at = (uint16_t)(q->next_used + 1)};
	struct vring_chain chain;
	struct error err = ERROR_INIT;

	if (!d->pending(d->arg, &pending))
		return false;
	if (vring_again(q, head, &chain, d->iov, VRING_CHAIN_MAX, &err) < 0) {
		log_error(&err);
		return true;
	}
	vring_push(q, head, (uint32_t)hostfs_answer(answer, chain.iov + chain.out_count, chain.in_count));
	vhost_user_call(d->u, q, NULL);
	return true;
}

static void on_tick(void *arg)
{
	struct hostfs_device *d = arg;
	struct vring_queue *q = vhost_user_queue(d->u, 1);
	bool more = false;

	for (int i = 0; i < HOSTFS_WAITS_MAX; i++) {
		struct hostfs_answer answer;

		if (!d->waits[i].used)
			continue;
		if (q && hostfs_wait_try(d->fs, i, &answer) && answer_late(d, q, d->waits[i].head, &answer)) {
			d->waits[i].used = false;
			hostfs_wait_end(d->fs, i);
		} else {
			more = true;
		}
	}
	if (more)
		loop_arm_timer(d->tick, HOSTFS_WAIT_MS);
}

/* The request just handled is answered later. False: it can't be. */
static bool wait_for(struct hostfs_device *d, const struct vring_queue *q, uint16_t head)
{
	struct hostfs_pending pending = {.head = head};
	int wait = hostfs_wait_last(d->fs);

	hostfs_wait_who(d->fs, wait, &pending.unique, &pending.pid);
	if (q->index != 1 || !d->pending(d->arg, &pending)) {
		hostfs_wait_end(d->fs, wait);
		return false;
	}
	d->waits[wait].used = true;
	d->waits[wait].head = head;
	loop_arm_timer(d->tick, HOSTFS_WAIT_MS);
	return true;
}

/* At the end of this process, which may have a follower. */
static void refuse_waits(struct hostfs_device *d)
{
	struct vring_queue *q = d->u ? vhost_user_queue(d->u, 1) : NULL;

	for (int i = 0; q && i < HOSTFS_WAITS_MAX; i++) {
		struct hostfs_answer answer;

		if (!d->waits[i].used)
			continue;
		hostfs_wait_try(d->fs, i, &answer);
		answer.error = ENOLCK;
		answer_late(d, q, d->waits[i].head, &answer);
	}
}

/* ---- requests ---- */

static void answer(struct hostfs_device *d, struct vring_queue *q, const struct vring_chain *chain)
{
	struct hostfs_request rq = {.out = chain->iov,
				    .out_count = chain->out_count,
				    .in = chain->iov + chain->out_count,
				    .in_count = chain->in_count};
	size_t n;

	if (chain->unmapped)
		n = hostfs_refuse(&rq, EFAULT);
	else if (d->suspect[q->index])
		n = hostfs_refuse(&rq, EIO);
	else
		n = hostfs_handle(d->fs, &rq);
	d->suspect[q->index] = false;
	if (n == HOSTFS_LATER) {
		if (wait_for(d, q, chain->head))
			return;
		n = hostfs_refuse(&rq, ENOLCK);
	}
	vring_push(q, chain->head, (uint32_t)n);
	if (q->index)
		vring_look_answered(&d->look, d->u, chain->out_bytes + n > VRING_LARGE);
}

/* Tells the guest of what was answered; of FORGETs when half of the queue's places are taken. */
static void call(struct hostfs_device *d, struct vring_queue *q)
{
	if (q->index || (uint16_t)(q->next_used - q->called) >= q->size / 2)
		vhost_user_call(d->u, q, NULL);
}

static void serve_forgets(struct hostfs_device *d);

/* All that wait. 0, or -1 + err: the queue can't be read. */
static int serve_waiting(struct hostfs_device *d, struct vring_queue *q, struct error *err)
{
	struct vring_chain chain;
	int got, since = 0;

	while ((got = vring_pop(q, &chain, d->iov, VRING_CHAIN_MAX, err)) == 1) {
		answer(d, q, &chain);
		if (++since >= BATCH || !vring_waiting(q)) {
			call(d, q);
			since = 0;
			if (q->index) /* a busy guest must not keep what it has forgotten alive here */
				serve_forgets(d);
		}
	}
	return got;
}

/* FORGETs. Those that follow within FORGETS_MS need no kick: on_forgets() and every request look for them. */
static void serve_forgets(struct hostfs_device *d)
{
	struct vring_queue *q = vhost_user_queue(d->u, 0);
	struct error err = ERROR_INIT;

	if (!q || !vring_waiting(q))
		return;
	vring_want_kicks(q, false);
	if (serve_waiting(d, q, &err) < 0)
		log_error(&err);
	d->suspect[0] = false;
	if (!d->forgetting)
		loop_arm_timer(d->forgets, FORGETS_MS);
	d->forgetting = true;
}

static void on_forgets(void *arg)
{
	struct hostfs_device *d = arg;
	struct vring_queue *q = vhost_user_queue(d->u, 0);

	d->forgetting = false;
	if (!q)
		return;
	serve_forgets(d);
	vhost_user_call(d->u, q, NULL);
	if (d->forgetting)
		return;
	vring_want_kicks(q, true);
	serve_forgets(d);
}

/*
 * Requests, until none came for a while; or for so long that messages and locks should have their turn: then
 * the kick is its own.
 */
static void serve(struct hostfs_device *d)
{
	static const uint64_t one = 1;
	struct vring_queue *q = vhost_user_queue(d->u, 1);
	struct error err = ERROR_INIT;
	int got = 0;

	if (!q)
		return;
	for (int i = 0; i < ROUNDS && got == 0; i++) {
		vring_want_kicks(q, false);
		got = serve_waiting(d, q, &err);
		if (got == 0 && vring_look(&d->look, d->u, q))
			continue;
		vring_want_kicks(q, true);
		if (!vring_waiting(q))
			break;
	}
	if (got == 0 && vring_waiting(q)) {
		vring_want_kicks(q, true);
		if (write(q->kick, &one, sizeof(one)) < 0)
			log_warn("share %s: cannot wake itself: %s", d->tag, strerror(errno));
	}
	d->suspect[1] = false;
	/* What the process before answered, and told nobody of. */
	vhost_user_call(d->u, q, NULL);
	if (got < 0)
		log_error(&err);
}

static void on_kick(void *arg, int fd, uint32_t events)
{
	struct hostfs_device *d = arg;

	(void)events;
	for (unsigned i = 0; i < QUEUES; i++) {
		struct vring_queue *q = vhost_user_queue(d->u, i);

		if (!q || q->kick != fd)
			continue;
		if (i == 0) {
			serve_forgets(d);
			continue;
		}
		vring_look_woken(&d->look, d->u, 1);
		serve(d);
	}
}

/* Those that waited for locks in the process before: taken, and not answered but for the one whose answer was begun last. */
static void refuse_pending(struct hostfs_device *d, struct vring_queue *q)
{
	uint16_t answered = q->next_used;

	for (size_t i = 0; i < d->start.pending_count; i++) {
		const struct hostfs_pending *p = &d->start.pending[i];
		struct vring_chain chain;

		if (p->answering && (int16_t)(answered - p->at) >= 0)
			continue;
		q->next_avail++;
		if (vring_again(q, p->head, &chain, d->iov, VRING_CHAIN_MAX, NULL) == 0) {
			struct hostfs_request rq = {
				chain.iov, chain.out_count, chain.iov + chain.out_count, chain.in_count};
			struct hostfs_pending done = {
				.head = p->head, .answering = true, .at = (uint16_t)(q->next_used + 1)};

			d->pending(d->arg, &done);
			vring_push(q, p->head, (uint32_t)hostfs_refuse(&rq, ENOLCK));
		}
	}
	d->start.pending_count = 0;
}

/* Goes on behind what was answered before this process. */
static void resume_queue(struct hostfs_device *d, struct vring_queue *q)
{
	vring_resume(q);
	if (q->index == 1)
		refuse_pending(d, q);
	d->suspect[q->index] = d->start.how == HOSTFS_AFTER_DEATH;
}

static void queue_changed(void *arg, unsigned index)
{
	struct hostfs_device *d = arg;
	struct vring_queue *q = vhost_user_queue(d->u, index);
	struct error err = ERROR_INIT;

	loop_remove_fd(d->kicks[index]);
	d->kicks[index] = NULL;
	if (!q)
		return;
	if (d->start.how != HOSTFS_FRESH)
		resume_queue(d, q);
	d->kicks[index] = loop_add_fd(d->loop, q->kick, EPOLLIN | EPOLLET, on_kick, d, &err);
	if (!d->kicks[index])
		log_error(&err);
}

static void on_message(void *arg, int fd, uint32_t events)
{
	struct hostfs_device *d = arg;
	struct error err = ERROR_INIT;
	bool any = false;
	int got;

	(void)fd;
	(void)events;
	while ((got = vhost_user_receive(d->u, &err)) == 1)
		any = true;
	if (got == 0 && !any) /* a call that was made again, or the rest of a message is to come */
		return;
	if (got == 0) {
		/* Requests may wait already, and after a change of queues nobody kicks for them. */
		on_forgets(d);
		serve(d);
		return;
	}
	if (err.kind != ERROR_STATE)
		log_error(&err);
	loop_stop(d->loop, 0);
}

static void on_stop(void *arg, int fd, uint32_t events)
{
	struct hostfs_device *d = arg;

	(void)fd;
	(void)events;
	loop_stop(d->loop, 0);
}

static int set_up(struct hostfs_device *d, const struct vhost_user_device *device, struct error *err)
{
	d->loop = loop_new(err);
	if (!d->loop)
		return -1;
	vring_look_begin(&d->look, d->connection);
	d->u = vhost_user_new(steal_fd(&d->connection), device, err);
	if (!d->u)
		return -1;
	d->source = loop_add_fd(d->loop, vhost_user_fd(d->u), EPOLLIN, on_message, d, err);
	d->stop_source = loop_add_fd(d->loop, d->stop, EPOLLIN, on_stop, d, err);
	d->tick = loop_add_timer(d->loop, -1, on_tick, d, err);
	d->forgets = loop_add_timer(d->loop, -1, on_forgets, d, err);
	return d->source && d->stop_source && d->tick && d->forgets ? 0 : -1;
}

static void *thread_main(void *arg)
{
	struct hostfs_device *d = arg;
	struct vhost_user_device device = {
		.queues = QUEUES,
		.config_length = sizeof(struct virtio_fs_config),
		.get_config = get_config,
		.queue_changed = queue_changed,
		.arg = d,
	};
	struct error err = ERROR_INIT;

	if (set_up(d, &device, &err) < 0 || loop_run(d->loop, &err) < 0)
		log_error(&err);
	refuse_waits(d);
	for (unsigned i = 0; i < QUEUES; i++)
		loop_remove_fd(d->kicks[i]);
	vhost_user_free(d->u);
	loop_free(d->loop);
	hostfs_reset(d->fs);
	return NULL;
}

struct hostfs_device *hostfs_device_start(struct hostfs *fs, const char *tag, int connection, const struct hostfs_start *start,
					  hostfs_pending_fn pending, void *arg, struct error *err)
{
	struct hostfs_device *d = calloc(1, sizeof(*d));
	cleanup_close int fd = connection;
	pthread_attr_t attr;
	int failed;

	if (!d) {
		error_oom(err);
		return NULL;
	}
	*d = (struct hostfs_device){
		.fs = fs, .tag = tag, .start = *start, .pending = pending, .arg = arg, .connection = steal_fd(&fd)};
	d->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	hostfs_allow_waits(fs);
	if (start->how != HOSTFS_FRESH)
		hostfs_resume(fs);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	failed = d->stop < 0 ? errno : pthread_create(&d->thread, &attr, thread_main, d);
	pthread_attr_destroy(&attr);
	if (!failed)
		return d;
	error_errno(err, failed, "cannot start a thread for share %s", tag);
	if (d->stop >= 0)
		close(d->stop);
	close(d->connection);
	free(d);
	return NULL;
}

void hostfs_device_stop(struct hostfs_device *d)
{
	static const uint64_t one = 1;

	if (!d)
		return;
	if (write(d->stop, &one, sizeof(one)) == sizeof(one))
		pthread_join(d->thread, NULL);
	close(d->stop);
	free(d);
}
