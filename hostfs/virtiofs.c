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
 * The guest is told of answers when no more requests wait, and its kicks are not
 * wanted meanwhile.
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

#define QUEUES	   2 /* FORGET and INTERRUPT have the first, all else the second */
#define BATCH	   16 /* answers that the guest may have to wait for to be told */
#define STACK_SIZE (512 << 10)

struct hostfs_device {
	struct hostfs *fs;
	const char *tag;
	enum hostfs_begin begin;
	int stop; /* eventfd */
	int connection;
	pthread_t thread;
	struct loop *loop;
	struct vhost_user *u;
	struct loop_fd *source, *stop_source, *kicks[QUEUES];
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
	vring_push(q, chain->head, (uint32_t)n);
}

static void serve(struct hostfs_device *d, unsigned index);

/* A busy guest must not keep what it has forgotten alive here. */
static void serve_forgets(struct hostfs_device *d)
{
	struct vring_queue *q = vhost_user_queue(d->u, 0);

	if (q && vring_waiting(q))
		serve(d, 0);
}

static void serve(struct hostfs_device *d, unsigned index)
{
	struct vring_queue *q = vhost_user_queue(d->u, index);
	struct vring_chain chain;
	struct error err = ERROR_INIT;
	int got = 0, since = 0;

	if (!q)
		return;
	vring_want_kicks(q, false);
	do {
		while ((got = vring_pop(q, &chain, d->iov, VRING_CHAIN_MAX, &err)) == 1) {
			answer(d, q, &chain);
			if (++since >= BATCH || !vring_waiting(q)) {
				vhost_user_call(d->u, q, NULL);
				since = 0;
				if (index)
					serve_forgets(d);
			}
		}
		vring_want_kicks(q, true);
	} while (got == 0 && vring_waiting(q));
	d->suspect[index] = false;
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
		vhost_user_take_kick(q);
		serve(d, i);
	}
}

/* Goes on behind what was answered before this process. */
static void resume_queue(struct hostfs_device *d, struct vring_queue *q)
{
	vring_resume(q);
	d->suspect[q->index] = d->begin == HOSTFS_AFTER_DEATH;
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
	if (d->begin != HOSTFS_FRESH)
		resume_queue(d, q);
	d->kicks[index] = loop_add_fd(d->loop, q->kick, EPOLLIN, on_kick, d, &err);
	if (!d->kicks[index])
		log_error(&err);
}

static void on_message(void *arg, int fd, uint32_t events)
{
	struct hostfs_device *d = arg;
	struct error err = ERROR_INIT;
	int got;

	(void)fd;
	(void)events;
	while ((got = vhost_user_receive(d->u, &err)) == 1)
		;
	if (got == 0) {
		/* Requests may wait already, and after a change of queues nobody kicks for them. */
		for (unsigned i = 0; i < QUEUES; i++)
			serve(d, i);
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
	d->u = vhost_user_new(steal_fd(&d->connection), device, err);
	if (!d->u)
		return -1;
	d->source = loop_add_fd(d->loop, vhost_user_fd(d->u), EPOLLIN, on_message, d, err);
	d->stop_source = loop_add_fd(d->loop, d->stop, EPOLLIN, on_stop, d, err);
	return d->source && d->stop_source ? 0 : -1;
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
	for (unsigned i = 0; i < QUEUES; i++)
		loop_remove_fd(d->kicks[i]);
	vhost_user_free(d->u);
	loop_free(d->loop);
	hostfs_reset(d->fs);
	return NULL;
}

struct hostfs_device *hostfs_device_start(struct hostfs *fs, const char *tag, int connection,
					  enum hostfs_begin begin, struct error *err)
{
	struct hostfs_device *d = calloc(1, sizeof(*d));
	cleanup_close int fd = connection;
	pthread_attr_t attr;
	int failed;

	if (!d) {
		error_oom(err);
		return NULL;
	}
	*d = (struct hostfs_device){.fs = fs, .tag = tag, .begin = begin, .connection = steal_fd(&fd)};
	d->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (begin != HOSTFS_FRESH)
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
