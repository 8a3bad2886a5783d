/*
 * Impairments: what a bad line does to the frames of one direction.
 *
 *	frame → down? lost? → rate (token bucket) → delay ± jitter, reordering → timer wheel → out
 *
 * How it works: everything is decided when a frame arrives. The rate is a token
 * bucket one frame deep, kept as the time at which the line is free again: a frame leaves when
 * the line has sent what is before it and then itself, so the rate holds exactly whenever
 * there is something to send, however late we are woken. Delay and
 * jitter are added to that; the frame lies in a timer wheel (wheel.c) until then.
 * The wheel's next tick arms a timerfd, disarmed while nothing waits: an
 * idle line wakes nobody, and delays are exact to about TICK_US.
 *
 * Jitter keeps frames in order, as a queue somewhere on a path does; only reorder makes
 * a frame come late (by REORDER_US) while those behind it go on. A duplicate comes right
 * behind the first.
 *
 * Limits: BACKLOG_US of the line's time may wait for the rate, or BACKLOG_FRAMES of the
 * largest where that is more; QUEUE_BYTES in all. Beyond that frames are dropped and
 * counted, as a router's queue does.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "netplug/netplug_internal.h"
#include "uml-lab/base/cleanup.h"

#define TICK_US 50
#define REORDER_US 10000
#define BACKLOG_US 200000
#define BACKLOG_FRAMES 4
#define QUEUE_BYTES (8u << 20)
#define NS_PER_US 1000
#define NS_PER_S UINT64_C(1000000000)

struct waiting {
	struct wheel_entry entry;	/* first */
	size_t length;
	uint8_t frame[];
};

struct impair {
	struct netplug_impair settings;
	impair_fn out;
	void *arg;
	struct netplug_stats *stats;
	struct wheel wheel;
	size_t bytes;			/* in the wheel */
	size_t frame_max;
	uint64_t free_ns;		/* when the line has sent all it was given */
	uint64_t last_us;		/* when the last frame in order arrives */
	uint64_t random;
	struct loop_fd *source;
	int timer;
	uint64_t armed;			/* tick, 0: not */
};

/* xorshift64* (Vigna 2016): the upper 32 bits. */
static uint32_t draw(struct impair *im)
{
	im->random ^= im->random >> 12;
	im->random ^= im->random << 25;
	im->random ^= im->random >> 27;
	return (uint32_t)(im->random * UINT64_C(2685821657736338717) >> 32);
}

/* A seed whose bits are many, from one that may be 1 (splitmix64, Steele 2014); never 0. */
static uint64_t scramble(uint64_t seed)
{
	seed += UINT64_C(0x9e3779b97f4a7c15);
	seed = (seed ^ seed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	seed = (seed ^ seed >> 27) * UINT64_C(0x94d049bb133111eb);
	return (seed ^ seed >> 31) | 1;
}

static bool happens(struct impair *im, uint32_t ppm)
{
	return ppm && draw(im) < ((uint64_t)ppm << 32) / NETPLUG_PPM;
}

static void arm(struct impair *im)
{
	struct itimerspec when = { 0 };
	uint64_t tick = 0, ns;

	if (!wheel_next(&im->wheel, &tick))
		tick = 0;
	if (tick == im->armed)
		return;
	im->armed = tick;
	ns = tick * TICK_US * NS_PER_US;
	when.it_value.tv_sec = (time_t)(ns / NS_PER_S);
	when.it_value.tv_nsec = (long)(ns % NS_PER_S);
	timerfd_settime(im->timer, TFD_TIMER_ABSTIME, &when, NULL);
}

/* Lets go of all that is due. */
static void release(struct impair *im, uint64_t us)
{
	struct wheel_entry *e, *next;

	while ((e = wheel_advance(&im->wheel, us / TICK_US))) {
		for (; e; e = next) {
			struct waiting *w = (struct waiting *)e;

			next = e->next;
			im->bytes -= sizeof(*w) + w->length;
			im->out(im->arg, w->frame, w->length);
			free(w);
		}
	}
}

static void on_timer(void *arg, int fd, uint32_t events)
{
	struct impair *im = arg;
	uint64_t count;

	(void)events;
	if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return;
	im->armed = 0;
	release(im, loop_now_ns() / NS_PER_US);
	arm(im);
}

static void hold(struct impair *im, const uint8_t *frame, size_t length, uint64_t us)
{
	struct waiting *w = im->bytes + sizeof(*w) + length <= QUEUE_BYTES ? malloc(sizeof(*w) + length) : NULL;

	if (!w) {
		im->stats->impair_dropped++;
		return;
	}
	w->length = length;
	memcpy(w->frame, frame, length);
	/* Not before its time: rounded up. */
	w->entry.due = (us + TICK_US - 1) / TICK_US;
	im->bytes += sizeof(*w) + length;
	wheel_add(&im->wheel, &w->entry);
}

/* When the line has sent the frame, in nanoseconds; 0: too much waits already. */
static uint64_t leave(struct impair *im, size_t length, uint64_t now)
{
	uint64_t rate = im->settings.rate, backlog, start;

	if (!rate)
		return now;
	backlog = BACKLOG_FRAMES * im->frame_max * 8 * NS_PER_S / rate;
	if (backlog < (uint64_t)BACKLOG_US * NS_PER_US)
		backlog = (uint64_t)BACKLOG_US * NS_PER_US;
	start = im->free_ns > now ? im->free_ns : now;
	if (start - now > backlog)
		return 0;
	im->free_ns = start + length * 8 * NS_PER_S / rate;
	return im->free_ns;
}

/* When a frame that left the line arrives, in microseconds. */
static uint64_t arrive(struct impair *im, uint64_t left)
{
	uint32_t jitter = im->settings.jitter_us;
	uint64_t us = left + im->settings.delay_us;

	if (jitter) {
		uint64_t shift = draw(im) % (2 * (uint64_t)jitter + 1);

		us = us + shift > left + jitter ? us + shift - jitter : left;
	}
	if (happens(im, im->settings.reorder_ppm)) {
		im->stats->impair_reordered++;
		return (us > im->last_us ? us : im->last_us) + REORDER_US;
	}
	if (us < im->last_us)
		us = im->last_us;
	im->last_us = us;
	return us;
}

void impair_send(struct impair *im, const uint8_t *frame, size_t length)
{
	uint64_t now = loop_now_ns(), left, us;
	bool twice;

	release(im, now / NS_PER_US);
	if (happens(im, im->settings.loss_ppm)) {
		im->stats->impair_lost++;
		return;
	}
	left = leave(im, length, now);
	if (!left) {
		im->stats->impair_dropped++;
		return;
	}
	twice = happens(im, im->settings.duplicate_ppm);
	us = arrive(im, left / NS_PER_US);
	im->stats->impair_duplicated += twice;
	for (int i = 0; i < (twice ? 2 : 1); i++) {
		if (us <= now / NS_PER_US && !im->wheel.count)
			im->out(im->arg, frame, length);
		else
			hold(im, frame, length, us);
	}
	arm(im);
}

void impair_set(struct impair *im, const struct netplug_impair *settings)
{
	/* The line begins afresh: what waits goes on at once, in its order. */
	release(im, (im->wheel.now + WHEEL_HORIZON) * TICK_US);
	wheel_init(&im->wheel, loop_now_ns() / NS_PER_US / TICK_US);
	im->free_ns = im->last_us = 0;
	arm(im);
	im->settings = *settings;
	im->random = settings->seed;
	if (!im->random && getrandom(&im->random, sizeof(im->random), 0) != sizeof(im->random))
		im->random = loop_now_ns();
	im->random = scramble(im->random);
}

struct impair *impair_new(struct loop *loop, size_t frame_max, impair_fn out, void *arg, struct netplug_stats *stats,
			  struct error *err)
{
	struct impair *im = calloc(1, sizeof(*im));

	if (!im) {
		error_oom(err);
		return NULL;
	}
	*im = (struct impair){ .out = out, .arg = arg, .stats = stats, .frame_max = frame_max };
	wheel_init(&im->wheel, loop_now_ns() / NS_PER_US / TICK_US);
	im->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (im->timer >= 0)
		im->source = loop_add_fd(loop, im->timer, EPOLLIN, on_timer, im, err);
	else
		error_errno(err, errno, "make a timer");
	if (!im->source) {
		impair_free(im);
		return NULL;
	}
	return im;
}

void impair_free(struct impair *im)
{
	struct wheel_entry *e, *next;

	if (!im)
		return;
	while ((e = wheel_advance(&im->wheel, im->wheel.now + WHEEL_HORIZON))) {
		for (; e; e = next) {
			next = e->next;
			free(e);
		}
	}
	loop_remove_fd(im->source);
	if (im->timer >= 0)
		close(im->timer);
	free(im);
}
