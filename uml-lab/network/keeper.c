/*
 * The keeper of a session's networks: starts the switches, and stays as long as
 * somebody holds a connection.
 *
 * Life: takes the folder's lock; clears what an earlier keeper left; starts
 * the switches, and when all can be joined, tells so. Then it waits for
 * connections to end. After the last one (or when nobody came within
 * FIRST_MS) it ends the switches and leaves an empty folder. The connection itself is the
 * message; the one thing said on it is that the session has another network now (network_add()). It is
 * answered by the network's being there.
 *
 * A supervisor that connects while the keeper is about to end is told by the
 * end of its connection, and starts another keeper, which waits for the lock by
 * failing and being started again.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"
#include "uml-lab/network/network_internal.h"

#define FIRST_MS 15000		/* for the first connection */
#define UP_MS    10000		/* for the switches; a learning one takes 0.3 s */
#define BACKLOG  64

struct holder {
	struct holder *next;
	struct keeper *keeper;
	int fd;
	struct loop_fd *source;
};

void keeper_tell(struct keeper *k)
{
	cleanup_free struct network_running *all = calloc(k->count + 1, sizeof(*all));
	struct network_report report = {.switches = all, .count = k->count};

	process_identify(getpid(), &report.keeper);
	for (size_t i = 0; all && i < k->count; i++)
		all[i] = (struct network_running){k->switches[i]->spec.name, k->switches[i]->id};
	if (all && k->report)
		k->report(k->report_arg, &report);
}

static void drop(struct holder *holder)
{
	struct keeper *k = holder->keeper;

	for (struct holder **p = &k->holders; *p; p = &(*p)->next) {
		if (*p == holder) {
			*p = holder->next;
			break;
		}
	}
	loop_remove_fd(holder->source);
	close(holder->fd);
	free(holder);
}

/* Starts one more switch. -1 + err: what there is goes on without it. */
static int add_switch(struct keeper *k, const struct network_switch *spec, struct error *err)
{
	struct running_switch *sw = k->count < NETWORKS_MAX ? calloc(1, sizeof(*sw)) : NULL;

	if (!sw)
		return error_set(err, ERROR_FAILED, "no room for network %s", spec->name);
	if (switch_open(sw, k, spec, err) < 0) {
		switch_close(sw);
		free(sw);
		return -1;
	}
	k->switches[k->count++] = sw;
	return 0;
}

static bool is_kept(const struct keeper *k, const char *name)
{
	for (size_t i = 0; i < k->count; i++)
		if (str_eq(k->switches[i]->spec.name, name))
			return true;
	return false;
}

static bool is_valid(const struct add_message *m)
{
	return m->magic == ADD_MAGIC && m->learning <= 1 && m->ports && m->ports <= PORTS_MAX &&
	       memchr(m->name, '\0', sizeof(m->name)) && m->name[0] && m->name[0] != '-' &&
	       strspn(m->name, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(m->name);
}

static void take_word(struct keeper *k, struct add_message *m, size_t length)
{
	struct network_switch spec = {.name = m->name, .learning = m->learning, .ports = m->ports};
	struct error err = ERROR_INIT;

	if (length != sizeof(*m) || !is_valid(m))
		log_warn("somebody said what makes no sense");
	else if (!is_kept(k, m->name) && add_switch(k, &spec, &err) < 0)
		log_error(&err);
	else
		keeper_tell(k);
}

static void on_holder(void *arg, int fd, uint32_t events)
{
	struct holder *holder = arg;
	struct keeper *k = holder->keeper;
	struct add_message message;
	ssize_t n = recv(fd, &message, sizeof(message), MSG_DONTWAIT | MSG_TRUNC);

	if (n > 0) {
		take_word(k, &message, (size_t)n);
		return;
	}
	if (!(events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR)) && n < 0)
		return;
	drop(holder);
	k->stopped = !k->holders;
}

static void on_connection(void *arg, int listener, uint32_t events)
{
	struct keeper *k = arg;
	cleanup_close int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct holder *holder = fd >= 0 ? calloc(1, sizeof(*holder)) : NULL;

	(void)events;
	if (!holder)
		return;
	*holder = (struct holder){.next = k->holders, .keeper = k, .fd = fd};
	holder->source = loop_add_fd(k->loop, fd, EPOLLIN | EPOLLRDHUP, on_holder, holder, NULL);
	if (!holder->source) {
		free(holder);
		return;
	}
	steal_fd(&fd);
	k->holders = holder;
	loop_arm_timer(k->timer, -1);
}

static void on_timer(void *arg)
{
	struct keeper *k = arg;

	log_info("nobody came to use the networks");
	k->stopped = true;
}

static void on_signal(void *arg, int signo)
{
	struct keeper *k = arg;

	(void)signo;
	k->stopped = true;
}

static int listen_for_holders(struct keeper *k, struct error *err)
{
	struct sockaddr_un address;
	mode_t mask;
	int failed;

	if (network_control_address(k->spec->folder, &address, err) < 0)
		return -1;
	k->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (k->listener < 0)
		return error_errno(err, errno, "cannot make a socket");
	mask = umask(0177);
	failed = bind(k->listener, (struct sockaddr *)&address, sizeof(address));
	umask(mask);
	if (failed || listen(k->listener, BACKLOG))
		return error_errno(err, errno, "cannot listen on %s", address.sun_path);
	k->listener_source = loop_add_fd(k->loop, k->listener, EPOLLIN, on_connection, k, err);
	return k->listener_source ? 0 : -1;
}

static bool all_up(const struct keeper *k)
{
	for (size_t i = 0; i < k->count; i++)
		if (!switch_is_up(k->switches[i]))
			return false;
	return true;
}

/* vde_switch says nothing when it can be joined: its socket is looked for. */
static int wait_up(struct keeper *k, struct error *err)
{
	int64_t until = loop_now_ms() + UP_MS;

	while (!all_up(k)) {
		if (k->stopped || loop_now_ms() > until)
			return error_set(err, ERROR_TIMEOUT, "the networks did not come up within %d s", UP_MS / 1000);
		if (loop_turn(k->loop, 5, err) < 0)
			return -1;
	}
	return 0;
}

static int open_all(struct keeper *k, struct error *err)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP, 0};

	k->loop = loop_new(err);
	if (!k->loop || loop_add_signals(k->loop, signals, on_signal, k, err) < 0)
		return -1;
	k->timer = loop_add_timer(k->loop, FIRST_MS, on_timer, k, err);
	k->switches = calloc(NETWORKS_MAX, sizeof(*k->switches));
	if (!k->switches)
		return error_oom(err);
	if (!k->timer)
		return -1;
	for (size_t i = 0; i < k->spec->count; i++)
		if (add_switch(k, &k->spec->switches[i], err) < 0)
			return -1;
	/* First the networks, then the socket: who can connect can join. */
	return wait_up(k, err) < 0 || listen_for_holders(k, err) < 0 ? -1 : 0;
}

static int run(struct keeper *k, int ready_fd, struct error *err)
{
	if (open_all(k, err) < 0)
		return -1;
	keeper_tell(k);
	if (ready_fd >= 0)
		close(ready_fd);
	while (!k->stopped)
		if (loop_turn(k->loop, -1, err) < 0)
			return -1;
	return 0;
}

static void close_all(struct keeper *k)
{
	loop_remove_fd(k->listener_source);
	if (k->listener >= 0)
		close(k->listener);
	while (k->holders)
		drop(k->holders);
	for (size_t i = 0; i < k->count; i++)
		switch_close(k->switches[i]);
	while (k->count)
		free(k->switches[--k->count]);
	keeper_tell(k);
	network_clear(k->spec->folder);
	loop_free(k->loop);
	free(k->switches);
}

int network_keep(const struct network_spec *spec, int ready_fd, network_report_fn report, void *arg,
		 struct error *err)
{
	struct keeper k = {.spec = spec, .report = report, .report_arg = arg, .listener = -1};
	cleanup_close int lock = network_lock(spec->folder, err);
	int result;

	if (lock < 0)
		return -1;
	network_clear(spec->folder);
	result = run(&k, ready_fd, err);
	close_all(&k);
	/* While the lock is ours: after that it may be another's. */
	rmdir(spec->folder);
	return result;
}
