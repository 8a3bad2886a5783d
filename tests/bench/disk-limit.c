/*
 * disk-limit SOCKET MIB: a disk that answers at once and keeps nothing, for tests/bench/disk.sh.
 *
 * What a guest waits for is the disk, and the way to another process and back. This one leaves out the disk: each
 * request is given back as done, without a look at it, and no byte is read, filled in or kept. The way is the one
 * that uml-cow serve has: the same rings, the same waiting, looking, gathering and coming beside the guest
 * (cow/serve_disk.c and serve_blk.c, which this follows). So no server that speaks vhost-user and waits as ours does
 * is faster, whatever it does about files; and where ubd, which has no such way, is as fast as this, there is nothing
 * to gain from files.
 *
 * What a guest reads is what was in its memory before: nothing may need it. One guest after the other, until it is killed.
 */
#include <endian.h>
#include <linux/virtio_blk.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"
#include "uml-lab/base/loop.h"
#include "uml-lab/base/vhost_user.h"
#include "uml-lab/base/vring_gather.h"
#include "uml-lab/base/vring_look.h"

/* As in cow/serve_blk.c */
#define BATCH   64u
#define SEG_MAX 254

struct limit {
	uint64_t sectors;
	struct vhost_user_device device;
	struct vhost_user *guest;
	int poll, kick; /* kick: as far as it is watched; -1 else */
	struct vring_look look;
	struct vring_gather gather;
	struct iovec pieces[VRING_CHAIN_MAX];
};

static void get_config(void *arg, void *out)
{
	const struct limit *l = arg;
	const struct virtio_blk_config c = {
		.capacity = htole64(l->sectors), .seg_max = htole32(SEG_MAX), .blk_size = htole32(512)};

	memcpy(out, &c, sizeof(c));
}

static int watch(const struct limit *l, int fd, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.fd = fd};

	return epoll_ctl(l->poll, EPOLL_CTL_ADD, fd, &e);
}

static void queue_changed(void *arg, unsigned index)
{
	struct limit *l = arg;
	const struct vring_queue *q = vhost_user_queue(l->guest, index);

	if (l->kick >= 0)
		epoll_ctl(l->poll, EPOLL_CTL_DEL, l->kick, NULL);
	l->kick = q && watch(l, q->kick, EPOLLIN | EPOLLET) == 0 ? q->kick : -1;
}

/* Takes what waits, says of each that it is done. How many; -1 + err. */
static int answer(struct limit *l, struct vring_queue *q, struct error *err)
{
	struct {
		uint16_t head;
		uint32_t written;
	} done[BATCH];
	size_t bytes = 0;
	unsigned n = 0;

	for (; n < BATCH; n++) {
		struct vring_chain c;
		int ret = vring_pop(q, &c, l->pieces, VRING_CHAIN_MAX, err);

		if (ret < 0)
			return -1;
		if (ret == 0)
			break;
		done[n].head = c.head;
		done[n].written = 0;
		bytes += c.in_bytes + c.out_bytes;
		if (c.in_bytes > 0 && !c.end_unmapped) {
			const struct iovec *last = &c.iov[c.out_count + c.in_count - 1];

			((uint8_t *)last->iov_base)[last->iov_len - 1] = VIRTIO_BLK_S_OK;
			done[n].written = (uint32_t)c.in_bytes;
		}
	}
	for (unsigned i = 0; i < n; i++)
		vring_push(q, done[i].head, done[i].written);
	if (n > 0)
		vring_gather_taken(&l->gather, n, bytes);
	return (int)n;
}

/* While the queue is looked at: whether more comes before the guest is told of those answered. */
static bool gather(struct limit *l, const struct vring_queue *q, unsigned untold)
{
	if (!l->look.patience.looking)
		return false;
	if (!l->gather.until)
		vring_gather_begin(&l->gather);
	if (untold < l->gather.goal && vring_gather_watch(&l->gather, q))
		return true;
	vring_gather_end(&l->gather, untold);
	return false;
}

static int answer_all(struct limit *l, struct vring_queue *q, struct error *err)
{
	unsigned untold = 0;
	int n = 0;

	while ((n = answer(l, q, err)) > 0) {
		untold += (unsigned)n;
		vring_look_answered(&l->look, l->guest, l->gather.large);
		if (gather(l, q, untold))
			continue;
		untold = 0;
		if (vhost_user_call(l->guest, q, err))
			return -1;
		if (vring_waiting(q) < vring_gather_goal(&l->gather))
			break;
	}
	return n < 0 || vhost_user_call(l->guest, q, err) ? -1 : 0;
}

static int serve_queue(struct limit *l, struct vring_queue *q, struct error *err)
{
	vring_look_woken(&l->look, l->guest, l->gather.goal);
	vring_gather_end(&l->gather, vring_waiting(q));
	for (;;) {
		vring_want_kicks(q, false);
		if (answer_all(l, q, err))
			return -1;
		if (vring_look(&l->look, l->guest, q))
			continue;
		vring_gather_begin(&l->gather);
		if (!vring_want_kick_at(q, l->gather.goal))
			return 0;
		vring_gather_end(&l->gather, vring_waiting(q));
	}
}

/* Sleeps until something comes, and deals with it. -1 + err: the guest is gone. */
static int turn(struct limit *l, struct error *err)
{
	uint64_t until = l->gather.until, now = until ? loop_now_ns() : 0;
	const struct timespec left = {.tv_nsec = until > now ? (long)(until - now) : 0};
	struct epoll_event events[2];
	int n = epoll_pwait2(l->poll, events, ARRAY_SIZE(events), until ? &left : NULL, NULL), ret = 0;
	bool requests = n <= 0;
	struct vring_queue *q;

	for (int i = 0; i < n; i++) {
		requests |= events[i].data.fd == l->kick;
		while (events[i].data.fd != l->kick && (ret = vhost_user_receive(l->guest, err)) > 0)
			requests = true;
		if (ret < 0)
			return -1;
	}
	q = vhost_user_queue(l->guest, 0);
	return requests && q ? serve_queue(l, q, err) : 0;
}

/* One guest, to its end. -1 + err. */
static int serve(struct limit *l, int listener, struct error *err)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return error_errno(err, errno, "accept a guest");
	l->kick = -1;
	vring_look_begin(&l->look, fd);
	vring_gather_reset(&l->gather);
	l->guest = vhost_user_new(fd, &l->device, err);
	if (!l->guest || watch(l, vhost_user_fd(l->guest), EPOLLIN))
		return error_prefix(err, "serve a guest");
	while (turn(l, err) == 0)
		;
	vring_look_end(&l->look);
	if (l->kick >= 0)
		epoll_ctl(l->poll, EPOLL_CTL_DEL, l->kick, NULL);
	vhost_user_free(l->guest);
	if (err->kind != ERROR_STATE)
		return -1;
	error_clear(err);
	return 0;
}

static int listen_on(const char *path, struct error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 1))
		return error_errno(err, errno, "listen on %s", path);
	return fd;
}

int main(int argc, char **argv)
{
	static struct limit l = {.device = {.queues = 1, .config_length = sizeof(struct virtio_blk_config)}};
	struct error err = ERROR_INIT;
	int listener, ret = 0;

	if (argc != 3) {
		fprintf(stderr, "usage: disk-limit SOCKET MIB\n");
		return 2;
	}
	log_setup("disk-limit", LOG_LEVEL_INFO);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	prctl(PR_SET_TIMERSLACK, 1UL); /* cow/serve.c says why */
	l.sectors = strtoull(argv[2], NULL, 10) << 11;
	l.device.features = 1ull << VIRTIO_BLK_F_SEG_MAX | 1ull << VIRTIO_BLK_F_BLK_SIZE | 1ull << VIRTIO_BLK_F_FLUSH;
	l.device.get_config = get_config;
	l.device.queue_changed = queue_changed;
	l.device.arg = &l;
	l.poll = epoll_create1(EPOLL_CLOEXEC);
	listener = listen_on(argv[1], &err);
	while (listener >= 0 && ret == 0)
		ret = serve(&l, listener, &err);
	error_print("disk-limit", &err);
	return 1;
}
