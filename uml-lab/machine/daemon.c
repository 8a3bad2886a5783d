/*
 * The life of a daemon: spawn, watch, start again.
 *
 * One that dies is started again at once; one that keeps dying, ever more slowly, and no
 * more after DEATHS_MAX deaths that each came within QUICK_MS of the start. It is killed
 * with us (PR_SET_PDEATHSIG), and ends by itself when we close the control socket.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/log.h"
#include "uml-lab/machine/supervisor.h"

#define QUICK_MS     10000
#define DEATHS_MAX   8
#define END_GRACE_MS 2000
#define CONTROL_FD   3

static void forget(struct daemon *d)
{
	loop_remove_fd(d->control_source);
	loop_remove_fd(d->child_source);
	d->control_source = d->child_source = NULL;
	if (d->control >= 0)
		close(steal_fd(&d->control));
	d->id = (struct process_id){0};
	d->kind->gone(d->sv);
}

static void schedule(struct daemon *d)
{
	d->quick_deaths = loop_now_ms() - d->last_start_ms < QUICK_MS ? d->quick_deaths + 1 : 0;
	if (d->quick_deaths <= DEATHS_MAX) {
		loop_arm_timer(d->timer, d->quick_deaths ? d->kind->delay_ms << (d->quick_deaths - 1) : 0);
		return;
	}
	log_warn("%s keeps ending: the machine goes on without %s", d->kind->name, d->kind->lost);
	console_note(d->sv, "%s keeps ending: no %s any more", d->kind->title, d->kind->lost);
	if (d->kind->given_up)
		d->kind->given_up(d->sv);
}

static void on_death(void *arg, int fd, uint32_t events)
{
	struct daemon *d = arg;
	char how[64];
	int status = 0;

	(void)fd;
	(void)events;
	loop_remove_fd(d->child_source);
	d->child_source = NULL;
	child_wait(&d->child, -1, &status, NULL);
	if (d->kind->last_words && d->control_source)
		d->kind->on_control(d->sv, d->control, 0);
	log_warn("%s %s; another one is started", d->kind->name, child_describe_status(status, how, sizeof(how)));
	forget(d);
	schedule(d);
	supervisor_tell(d->sv);
}

static int spawn(struct daemon *d, struct error *err)
{
	cleanup_close int ours = -1, theirs = -1;
	cleanup_strv struct strv argv = STRV_INIT;
	int type = SOCK_SEQPACKET | SOCK_CLOEXEC | (d->kind->nonblocking ? SOCK_NONBLOCK : 0), pair[2];

	if (strv_add(&argv, d->program, err) < 0 || d->kind->arguments(d->sv, &argv, err) < 0)
		return -1;
	if (socketpair(AF_UNIX, type, 0, pair) < 0)
		return error_errno(err, errno, "cannot make a socket for %s", d->kind->name);
	ours = pair[0];
	theirs = pair[1];
	const struct child_fd fds[] = {{theirs, CONTROL_FD}};
	const struct child_spec spec = {.argv = (const char *const *)argv.items,
					.fds = fds,
					.fd_count = ARRAY_SIZE(fds),
					.null_stdin = true,
					.new_session = true,
					.death_signal = SIGKILL,
					.no_new_privs = true};

	if (child_spawn(&d->child, &spec, err) < 0)
		return -1;
	process_identify(d->child.pid, &d->id);
	d->control = steal_fd(&ours);
	d->control_source = loop_add_fd(d->sv->loop, d->control, EPOLLIN, d->kind->on_control, d->sv, err);
	d->child_source = loop_add_fd(d->sv->loop, d->child.pidfd, EPOLLIN, on_death, d, err);
	return d->control_source && d->child_source ? 0 : -1;
}

static void on_timer(void *arg)
{
	struct daemon *d = arg;
	struct error err = ERROR_INIT;

	d->last_start_ms = loop_now_ms();
	if (spawn(d, &err) == 0) {
		supervisor_tell(d->sv);
		return;
	}
	log_error(&err);
	child_end(&d->child, 0);
	forget(d);
	schedule(d);
}

int daemon_open(struct daemon *d, struct supervisor *sv, const struct daemon_kind *kind, struct error *err)
{
	d->kind = kind;
	d->sv = sv;
	d->program = dirs_own(kind->name, err);
	d->timer = d->program ? loop_add_timer(sv->loop, -1, on_timer, d, err) : NULL;
	if (!d->timer)
		return -1;
	d->last_start_ms = loop_now_ms();
	return spawn(d, err);
}

void daemon_hung_up(struct daemon *d)
{
	loop_remove_fd(d->control_source);
	d->control_source = NULL;
}

void daemon_close(struct daemon *d)
{
	if (!d->kind)
		return;
	forget(d);
	if (d->child.pid && child_wait(&d->child, END_GRACE_MS, NULL, NULL) < 0)
		child_end(&d->child, 0);
	free(d->program);
	d->program = NULL;
}
