/*
 * How it works: sources and timers are small heap objects on two lists. epoll
 * hands back the source; a source that was removed while its turn is being
 * dispatched is only marked dead and freed at the end of the turn, so that
 * events epoll already returned for it are harmless. Timers are few: they are
 * scanned, not heaped.
 */
#include "uml-lab/base/loop.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"

#define EVENTS_PER_TURN 64

struct loop_fd {
	struct loop *loop;
	struct loop_fd *next;
	int fd;
	bool dead;
	loop_fd_fn fn;
	void *arg;
};

struct loop_timer {
	struct loop *loop;
	struct loop_timer *next;
	int64_t due;	/* CLOCK_MONOTONIC ms; -1: disarmed */
	bool dead;
	loop_timer_fn fn;
	void *arg;
};

struct loop {
	int epoll;
	struct loop_fd *sources;
	struct loop_timer *timers;
	bool stopped;
	int status;
	int signal_fd;
	loop_signal_fn signal_fn;
	void *signal_arg;
};

uint64_t loop_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

int64_t loop_now_ms(void)
{
	return (int64_t)(loop_now_ns() / 1000000);
}

struct loop *loop_new(struct error *err)
{
	struct loop *loop = calloc(1, sizeof(*loop));

	if (!loop) {
		error_oom(err);
		return NULL;
	}
	loop->signal_fd = -1;
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll < 0) {
		error_errno(err, errno, "cannot make an epoll descriptor");
		free(loop);
		return NULL;
	}
	return loop;
}

/* Frees what was removed; with all set, everything. */
static void sweep(struct loop *loop, bool all)
{
	for (struct loop_fd **p = &loop->sources; *p;) {
		struct loop_fd *source = *p;

		if (source->dead || all) {
			*p = source->next;
			free(source);
		} else {
			p = &source->next;
		}
	}
	for (struct loop_timer **p = &loop->timers; *p;) {
		struct loop_timer *timer = *p;

		if (timer->dead || all) {
			*p = timer->next;
			free(timer);
		} else {
			p = &timer->next;
		}
	}
}

void loop_free(struct loop *loop)
{
	if (!loop)
		return;
	sweep(loop, true);
	if (loop->signal_fd >= 0)
		close(loop->signal_fd);
	close(loop->epoll);
	free(loop);
}

struct loop_fd *loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_fn fn, void *arg, struct error *err)
{
	struct loop_fd *source = calloc(1, sizeof(*source));
	struct epoll_event event = {.events = events, .data.ptr = source};

	if (!source) {
		error_oom(err);
		return NULL;
	}
	*source = (struct loop_fd){.loop = loop, .fd = fd, .fn = fn, .arg = arg};
	if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
		error_errno(err, errno, "cannot watch descriptor %d", fd);
		free(source);
		return NULL;
	}
	source->next = loop->sources;
	loop->sources = source;
	return source;
}

int loop_set_events(struct loop_fd *source, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = source};

	return epoll_ctl(source->loop->epoll, EPOLL_CTL_MOD, source->fd, &event);
}

void loop_remove_fd(struct loop_fd *source)
{
	if (!source || source->dead)
		return;
	epoll_ctl(source->loop->epoll, EPOLL_CTL_DEL, source->fd, NULL);
	source->dead = true;
}

struct loop_timer *loop_add_timer(struct loop *loop, int64_t ms, loop_timer_fn fn, void *arg, struct error *err)
{
	struct loop_timer *timer = calloc(1, sizeof(*timer));

	if (!timer) {
		error_oom(err);
		return NULL;
	}
	*timer = (struct loop_timer){.loop = loop, .next = loop->timers, .fn = fn, .arg = arg};
	loop->timers = timer;
	loop_arm_timer(timer, ms);
	return timer;
}

void loop_arm_timer(struct loop_timer *timer, int64_t ms)
{
	timer->due = ms < 0 ? -1 : loop_now_ms() + ms;
}

void loop_remove_timer(struct loop_timer *timer)
{
	if (timer)
		timer->dead = true;
}

static void on_signal(void *arg, int fd, uint32_t events)
{
	struct loop *loop = arg;
	struct signalfd_siginfo info;

	(void)events;
	while (read(fd, &info, sizeof(info)) == sizeof(info))
		loop->signal_fn(loop->signal_arg, (int)info.ssi_signo);
}

int loop_add_signals(struct loop *loop, const int *signals, loop_signal_fn fn, void *arg, struct error *err)
{
	sigset_t set;

	sigemptyset(&set);
	for (; *signals; signals++)
		sigaddset(&set, *signals);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return error_errno(err, errno, "cannot block signals");
	loop->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (loop->signal_fd < 0)
		return error_errno(err, errno, "cannot make a signal descriptor");
	loop->signal_fn = fn;
	loop->signal_arg = arg;
	return loop_add_fd(loop, loop->signal_fd, EPOLLIN, on_signal, loop, err) ? 0 : -1;
}

/* Milliseconds until the next timer is due, bounded by limit (-1: none). */
static int next_timeout(struct loop *loop, int limit)
{
	int64_t now = loop_now_ms(), best = limit < 0 ? INT64_MAX : limit;

	for (struct loop_timer *t = loop->timers; t; t = t->next) {
		if (t->dead || t->due < 0)
			continue;
		int64_t left = t->due > now ? t->due - now : 0;

		if (left < best)
			best = left;
	}
	if (best == INT64_MAX)
		return -1;
	return best > 1000000 ? 1000000 : (int)best;
}

static void run_timers(struct loop *loop)
{
	int64_t now = loop_now_ms();

	for (struct loop_timer *t = loop->timers; t && !loop->stopped; t = t->next) {
		if (t->dead || t->due < 0 || t->due > now)
			continue;
		t->due = -1;
		t->fn(t->arg);
	}
}

int loop_turn(struct loop *loop, int timeout_ms, struct error *err)
{
	struct epoll_event events[EVENTS_PER_TURN];
	int n = epoll_wait(loop->epoll, events, EVENTS_PER_TURN, next_timeout(loop, timeout_ms));

	if (n < 0 && errno != EINTR)
		return error_errno(err, errno, "cannot wait for events");
	for (int i = 0; i < n && !loop->stopped; i++) {
		struct loop_fd *source = events[i].data.ptr;

		if (!source->dead)
			source->fn(source->arg, source->fd, events[i].events);
	}
	run_timers(loop);
	sweep(loop, false);
	return 0;
}

int loop_run(struct loop *loop, struct error *err)
{
	loop->stopped = false;
	while (!loop->stopped)
		if (loop_turn(loop, -1, err) < 0)
			return -1;
	return loop->status;
}

void loop_stop(struct loop *loop, int status)
{
	loop->stopped = true;
	loop->status = status;
}
