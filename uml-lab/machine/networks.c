/*
 * The machine's hold on the networks of its session (uml-lab/network/): while
 * this connection is open their keeper stays. When it ends, because the
 * keeper was killed, we connect to the next one, and start it if nobody else has.
 *
 * The plug needs nothing of this: it joins again by itself as soon as a switch is there.
 */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"
#include "uml-lab/machine/supervisor.h"
#include "uml-lab/network/network.h"

#define FIRST_MS  10
#define SPREAD_MS 100	/* supervisors that lost the same keeper do not all start one */
#define RETRY_MS  50	/* doubled up to … */
#define LAST_MS   5000

static void on_keeper_reaped(void *arg, int fd, uint32_t events)
{
	struct networks *n = &((struct supervisor *)arg)->networks;

	(void)fd;
	(void)events;
	loop_remove_fd(n->starter_source);
	n->starter_source = NULL;
	child_wait(&n->starter, -1, NULL, NULL);
}

/* Starts a keeper: a process of its own, that outlives us if others need it. */
static void start_keeper(struct supervisor *sv)
{
	struct networks *n = &sv->networks;
	struct error err = ERROR_INIT;
	struct child_spec spec = {
		.argv = (const char *const *)sv->spec->keeper_argv.items,
		.cwd = "/",
		.null_stdin = true,
		.new_session = true,
	};

	if (n->starter.pid)	/* one of ours lives, or has just died and waits to be reaped */
		return;
	if (child_spawn(&n->starter, &spec, &err) < 0) {
		log_error(&err);
		return;
	}
	n->starter_source = loop_add_fd(sv->loop, n->starter.pidfd, EPOLLIN, on_keeper_reaped, sv, NULL);
}

static void on_end(void *arg, int fd, uint32_t events)
{
	struct supervisor *sv = arg;
	struct networks *n = &sv->networks;

	(void)fd;
	(void)events;
	log_warn("the keeper of the networks is gone; looking for another one");
	loop_remove_fd(n->source);
	n->source = NULL;
	close(steal_fd(&n->fd));
	n->delay_ms = RETRY_MS;
	loop_arm_timer(n->timer, FIRST_MS + (sv->self.pid * 7919) % SPREAD_MS);
}

static void on_timer(void *arg)
{
	struct supervisor *sv = arg;
	struct networks *n = &sv->networks;
	struct error err = ERROR_INIT;

	n->fd = network_connect(sv->spec->networks, &err);
	if (n->fd >= 0) {
		n->source = loop_add_fd(sv->loop, n->fd, EPOLLRDHUP, on_end, sv, &err);
		if (n->source) {
			n->delay_ms = RETRY_MS;
			return;
		}
		close(steal_fd(&n->fd));
	}
	if (err.kind == ERROR_STATE)
		start_keeper(sv);
	else
		log_error(&err);
	loop_arm_timer(n->timer, n->delay_ms);
	n->delay_ms = n->delay_ms * 2 < LAST_MS ? n->delay_ms * 2 : LAST_MS;
}

int networks_open(struct supervisor *sv, struct error *err)
{
	struct networks *n = &sv->networks;

	if (!sv->spec->networks)
		return 0;
	n->delay_ms = RETRY_MS;
	n->timer = loop_add_timer(sv->loop, -1, on_timer, sv, err);
	if (!n->timer)
		return -1;
	on_timer(sv);
	return 0;
}

void networks_close(struct supervisor *sv)
{
	struct networks *n = &sv->networks;

	if (!sv->spec->networks)
		return;
	loop_remove_fd(n->source);
	loop_remove_fd(n->starter_source);
	if (n->fd >= 0)
		close(steal_fd(&n->fd));
	/* A keeper that we started goes on as long as others need it; nobody has to wait for it but init. */
	if (n->starter.pidfd >= 0)
		close(n->starter.pidfd);
	n->starter = (struct child)CHILD_INIT;
	n->source = n->starter_source = NULL;
}
