/*
 * A guest's processes on one of the host's processors.
 *
 * UML runs its kernel and each program of the guest in processes of their own, of which one runs at a time: a system call of the
 * guest is a switch from one to the other and back. The host's scheduler wakes who is switched to on a processor that is idle,
 * which costs more than the work that is to be done there (an interrupt, a processor woken from its sleep): with two
 * processors, one of them idle, a guest starts programs and makes system calls two to four times as slowly as on one. So all
 * of them are kept together.
 *
 * Where is the scheduler's own choice: the processor where it put the kernel when it was started. A guest that has to wait for
 * others there is set free, and kept together again where its kernel is as soon as it need not wait: then a processor was idle.
 * On a host that is busy all over it stays free, since the scheduler shares out better than supervisors that know nothing of each
 * other, and wakes nobody far away. Whether it waits the host's kernel tells (schedstat: time on a run queue). What the guest's
 * processes wait for each other is at most a tenth of the time; who shares the processor with somebody else waits for half of it.
 *
 * Servers of its disks and shares see from its kernel's mask where it is, and come there or stay away (base/beside.h).
 *
 * A guest that does nothing wakes nobody for this: the clock for looking is the processor time that its kernel used
 * (timer_create(2) on the process's CPU clock). It also runs for a program that only computes, slowly: by the guest's clock ticks.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"
#include "uml-lab/machine/supervisor.h"

#define LOOK_BUSY_NS 10000000  /* of the guest kernel's processor time: then it is looked at (a second if a program computes) */
#define LOOK_IDLE_NS 100000000 /* the same while it does nothing, which takes half a millisecond a second */
#define IDLE_PART    20        /* it did, if it ran for less than a twentieth of the look */
#define LOOK_MS	     100       /* how long a look takes */
#define SHARES_PART  4	       /* more than a quarter of that spent waiting: it has to share */
#define CALM_PART    8	       /* less than an eighth: it need not */
#define PAUSE_MIN_MS 100       /* free for so long at least; twice as long when it had to share again at once */
#define PAUSE_MAX_MS 6400

/* How long a process ran, and waited for a processor, so far; zeros for one that is gone. */
static struct placement_times times_of(pid_t pid)
{
	char path[32], text[96];
	cleanup_close int fd = -1;
	unsigned long long ran, waited;
	ssize_t got;

	snprintf(path, sizeof(path), "/proc/%d/schedstat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (got > 0)
		text[got] = '\0';
	if (got <= 0 || sscanf(text, "%llu %llu", &ran, &waited) != 2)
		return (struct placement_times){.pid = pid};
	return (struct placement_times){.pid = pid, .ran_ns = ran, .waited_ns = waited};
}

/* ---- keeping together ---- */

/* One that has ended meanwhile is no failure. */
static void move_child(void *arg, pid_t pid)
{
	sched_setaffinity(pid, sizeof(cpu_set_t), arg);
}

/*
 * All processes of the guest: the kernel first, from which new ones inherit it, then its children, which run the guest's programs.
 * 0, or -1 with errno.
 */
static int move(pid_t kernel, cpu_set_t *to)
{
	char path[32];
	struct dirent *e;
	DIR *threads;

	if (sched_setaffinity(kernel, sizeof(*to), to) < 0)
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/task", kernel);
	threads = opendir(path);
	while (threads && (e = readdir(threads)))
		if (e->d_name[0] != '.')
			sched_setaffinity(atoi(e->d_name), sizeof(*to), to);
	if (threads)
		closedir(threads);
	process_for_each_child(kernel, move_child, to);
	return 0;
}

/* Together, where the kernel is. */
static void gather(struct placement *p)
{
	int cpu = process_last_cpu(p->kernel);
	cpu_set_t here;

	p->together = false;
	if (cpu < 0)
		return;
	CPU_ZERO(&here);
	CPU_SET((size_t)cpu, &here);
	p->together = move(p->kernel, &here) == 0;
}

static void set_free(struct placement *p)
{
	p->together = move(p->kernel, &p->allowed) < 0;
	p->freed_ms = loop_now_ms();
}

/* ---- looking ---- */

static void note_child(void *arg, pid_t pid)
{
	struct placement *p = arg;

	if (p->count < PLACEMENT_LOOKED_AT)
		p->times[p->count++] = times_of(pid);
}

static void begin_look(struct placement *p)
{
	p->count = 0;
	note_child(p, p->kernel);
	process_for_each_child(p->kernel, note_child, p);
	p->began_ns = loop_now_ns();
	p->step = PLACEMENT_LOOKING;
	loop_arm_timer(p->timer, LOOK_MS);
}

/* What has happened since begin_look(); those that have ended meanwhile are left out, and those that have begun. */
static struct placement_times looked(const struct placement *p)
{
	struct placement_times sum = {0};

	for (size_t i = 0; i < p->count; i++) {
		const struct placement_times *then = &p->times[i], now = times_of(then->pid);

		if (now.ran_ns < then->ran_ns || now.waited_ns < then->waited_ns)
			continue;
		sum.ran_ns += now.ran_ns - then->ran_ns;
		sum.waited_ns += now.waited_ns - then->waited_ns;
	}
	return sum;
}

static void sleep_until_it_works(struct placement *p, int64_t cpu_ns)
{
	const struct itimerspec after = {.it_value.tv_nsec = cpu_ns};

	p->step = PLACEMENT_ASLEEP;
	timer_settime(p->clock, 0, &after, NULL);
}

static void judge(struct placement *p, uint64_t waited_ns, uint64_t took_ns)
{
	if (p->together && waited_ns > took_ns / SHARES_PART) {
		set_free(p);
	} else if (p->together) {
		p->pause_ms = PAUSE_MIN_MS;
	} else if (waited_ns < took_ns / CALM_PART && loop_now_ms() - p->freed_ms >= p->pause_ms) {
		gather(p);
		p->pause_ms = p->pause_ms < PAUSE_MAX_MS ? p->pause_ms * 2 : PAUSE_MAX_MS;
	}
}

static void end_look(void *arg)
{
	struct placement *p = arg;
	struct placement_times sum = looked(p);
	uint64_t took_ns = loop_now_ns() - p->began_ns;

	judge(p, sum.waited_ns, took_ns);
	sleep_until_it_works(p, sum.ran_ns < took_ns / IDLE_PART ? LOOK_IDLE_NS : LOOK_BUSY_NS);
}

void placement_signal(struct supervisor *sv)
{
	if (sv->placement.step == PLACEMENT_ASLEEP)
		begin_look(&sv->placement);
}

/* ---- its life ---- */

/* A kernel that was built for it and told so (ncpus=) uses several processors at once. */
static bool uses_several(const struct strv *kernel_args)
{
	for (size_t i = 0; i < kernel_args->count; i++)
		if (str_starts(kernel_args->items[i], "ncpus=") && atoi(kernel_args->items[i] + strlen("ncpus=")) > 1)
			return true;
	return false;
}

int placement_open(struct supervisor *sv, struct error *err)
{
	sv->placement.timer = loop_add_timer(sv->loop, -1, end_look, &sv->placement, err);
	return sv->placement.timer ? 0 : -1;
}

void placement_begin(struct supervisor *sv)
{
	struct placement *p = &sv->placement;
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = PLACEMENT_SIGNAL};
	clockid_t clock;

	p->kernel = sv->sandbox.kernel.pid;
	if (str_eq(getenv("UML_LAB_PLACEMENT"), "none") || uses_several(&sv->spec->kernel_args))
		return;
	if (sched_getaffinity(0, sizeof(p->allowed), &p->allowed) < 0 || CPU_COUNT(&p->allowed) < 2)
		return;
	errno = clock_getcpuclockid(p->kernel, &clock);
	if (errno || timer_create(clock, &event, &p->clock) < 0) {
		log_info("the guest's processes are left to the scheduler: no clock of its processor time: %s", strerror(errno));
		return;
	}
	p->pause_ms = PAUSE_MIN_MS;
	gather(p);
	sleep_until_it_works(p, LOOK_BUSY_NS);
}

void placement_end(struct supervisor *sv)
{
	struct placement *p = &sv->placement;

	if (p->step == PLACEMENT_NONE)
		return;
	timer_delete(p->clock);
	loop_arm_timer(p->timer, -1);
	p->step = PLACEMENT_NONE;
}
