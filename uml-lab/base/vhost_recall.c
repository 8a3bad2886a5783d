#include "uml-lab/base/vhost_recall.h"

#include <errno.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "uml-lab/base/loop.h"

int vhost_recall_open(struct vhost_recall *r, int fd, struct error *err)
{
	struct epoll_event event = {.events = EPOLLIN};

	r->poll = epoll_create1(EPOLL_CLOEXEC);
	r->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (r->poll < 0 || r->timer < 0 || epoll_ctl(r->poll, EPOLL_CTL_ADD, fd, &event) ||
	    epoll_ctl(r->poll, EPOLL_CTL_ADD, r->timer, &event)) {
		error_errno(err, errno, "watch a vhost-user connection");
		vhost_recall_close(r);
		return -1;
	}
	return 0;
}

void vhost_recall_close(struct vhost_recall *r)
{
	if (r->poll >= 0)
		close(r->poll);
	if (r->timer >= 0)
		close(r->timer);
	*r = (struct vhost_recall)VHOST_RECALL_INIT;
}

static void arm(struct vhost_recall *r, uint64_t ns)
{
	const struct itimerspec when = {.it_value.tv_nsec = (long)ns};

	/* it can't fail for a timer of ours; if it did, the guest would wait for its tick, as with everybody
	 * else */
	r->armed = timerfd_settime(r->timer, 0, &when, NULL) == 0;
}

void vhost_recall_called(struct vhost_recall *r)
{
	r->called = loop_now_ns();
	/* a clock that is set goes on: while much is answered, it is looked at once in wait_ns */
	if (!r->armed && !r->looking)
		arm(r, r->wait_ns);
}

void vhost_recall_look(struct vhost_recall *r, bool looking, bool unseen)
{
	r->looking = looking;
	if (!looking && unseen && !r->armed)
		arm(r, RECALL_FIRST_NS);
}

bool vhost_recall_struck(struct vhost_recall *r)
{
	uint64_t times;

	if (!r->armed || read(r->timer, &times, sizeof(times)) != (ssize_t)sizeof(times))
		return false;
	r->armed = false;
	return true;
}

bool vhost_recall_due(struct vhost_recall *r)
{
	uint64_t since = loop_now_ns() - r->called;

	if (since >= RECALL_FIRST_NS)
		return true;
	if (!r->looking)
		arm(r, RECALL_FIRST_NS - since);
	return false;
}

void vhost_recall_seen(struct vhost_recall *r)
{
	r->tries = 0;
	r->wait_ns += r->wait_ns / 16;
	if (r->wait_ns > RECALL_MAX_NS)
		r->wait_ns = RECALL_MAX_NS;
}

bool vhost_recall_unseen(struct vhost_recall *r)
{
	if (r->tries >= RECALL_TRIES) {
		r->tries = 0;
		return false;
	}
	r->tries++;
	r->wait_ns = r->wait_ns / 4 < RECALL_FIRST_NS ? RECALL_FIRST_NS : r->wait_ns / 4;
	if (!r->looking)
		arm(r, (uint64_t)RECALL_FIRST_NS << r->tries);
	return true;
}
