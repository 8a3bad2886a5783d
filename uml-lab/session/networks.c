/*
 * A session and its networks: what their keeper (uml-lab/network/) is told to
 * keep, its start before the machines and its end after them, and what of them
 * stands in session.yml.
 *
 * `up` holds a connection to the keeper until the machines' supervisors have
 * theirs. From then on the keeper lives as long as they do, and no verb is needed
 * to end it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/log.h"
#include "uml-lab/session/session_internal.h"

#define PORTS_SPARE 16		/* for QEMU and whatever else joins a network by hand */
#define READY_MS    15000
#define READY_FD    3
#define NEW_MS      5000	/* for a network that a running keeper is to keep too */
#define END_MS      3000	/* the keeper ends by itself; after this it is ended */

char *session_networks_folder(const char *session, struct error *err)
{
	/* No machine has that name. */
	return session_runtime(session, "=networks", err);
}

bool session_keeps_networks(const struct session *session)
{
	for (size_t i = 0; i < session->lab->network_count; i++)
		if (!session->lab->networks[i].vde)
			return true;
	return false;
}

char *session_network_locator(const struct session *session, const struct lab_network *network, struct error *err)
{
	cleanup_free char *folder = NULL;

	if (network->vde)
		return str_dup(network->vde, err);
	folder = session_networks_folder(session->name, err);
	return folder ? network_path(folder, network->name, err) : NULL;
}

static unsigned int count_ports(const struct lab *lab, const char *network)
{
	unsigned int count = PORTS_SPARE;

	for (size_t i = 0; i < lab->machine_count; i++)
		for (size_t j = 0; j < lab->machines[i].interface_count; j++)
			count += str_eq(lab->machines[i].interfaces[j].network, network);
	return count;
}

static int fill_spec(const struct session *s, struct network_spec *spec, struct error *err)
{
	spec->folder = session_networks_folder(s->name, err);
	spec->switches = calloc(s->lab->network_count + 1, sizeof(*spec->switches));
	if (!spec->folder)
		return -1;
	if (!spec->switches)
		return error_oom(err);
	for (size_t i = 0; i < s->lab->network_count; i++) {
		const struct lab_network *network = &s->lab->networks[i];
		struct network_switch *sw = &spec->switches[spec->count];

		if (network->vde)
			continue;
		sw->name = str_dup(network->name, err);
		if (!sw->name)
			return -1;
		sw->learning = network->learning_switch;
		sw->ports = count_ports(s->lab, network->name);
		spec->count++;
	}
	return 0;
}

int session_keeper_argv(const struct session *session, struct strv *argv, struct error *err)
{
	cleanup_free char *program = dirs_own("uml-lab", err);

	if (!program || strv_add(argv, program, err) < 0 || strv_add(argv, "__networks", err) < 0)
		return -1;
	return strv_add(argv, session->name, err);
}

/* ---- the keeper's own process ---- */

static int note_report(struct session *s, void *arg, struct error *err)
{
	const struct network_report *report = arg;

	(void)err;
	s->network_keeper = report->keeper;
	for (size_t i = 0; i < s->lab->network_count; i++) {
		s->network_switches[i] = (struct process_id){0};
		for (size_t j = 0; j < report->count; j++)
			if (str_eq(s->lab->networks[i].name, report->switches[j].name))
				s->network_switches[i] = report->switches[j].id;
	}
	return 0;
}

static void on_report(void *arg, const struct network_report *report)
{
	struct error err = ERROR_INIT;

	if (session_update(arg, note_report, (void *)report, &err) < 0)
		log_error(&err);
}

/* What is logged from now on goes to networks.log, and the caller's streams are let go: `up LAB | tail` shall end. */
static int log_to_file(const struct session *s, struct error *err)
{
	cleanup_free char *path = file_join(err, s->folder, "networks.log");
	cleanup_close int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;

	if (!path)
		return -1;
	return fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0 ? error_errno(err, errno, "cannot open %s", path) : 0;
}

int session_keep_networks(const char *name, int ready_fd, struct error *err)
{
	cleanup_session struct session *s = session_load(name, err);
	struct network_spec spec = {0};
	int result = -1;

	if (!s || log_to_file(s, err) < 0)
		return -1;
	if (fill_spec(s, &spec, err) == 0 && file_mkdir_p(spec.folder, 0700, err) == 0)
		result = network_keep(&spec, ready_fd, on_report, s->name, err);
	network_spec_free(&spec);
	return result;
}

/* ---- starting it ---- */

static int last_words(const struct session *s, struct error *err)
{
	cleanup_free char *path = file_join(err, s->folder, "networks.log"), *text = NULL;
	size_t length = 0;
	char *last;

	if (!path || file_read_all(path, SESSION_YML_MAX, &text, &length, NULL) < 0 || !length)
		return error_set(err, ERROR_FAILED, "the keeper of the networks ended without a word");
	while (length && text[length - 1] == '\n')
		text[--length] = '\0';
	last = strrchr(text, '\n');
	return error_set(err, ERROR_FAILED, "the keeper of the networks ended: %s", last ? last + 1 : text);
}

static int wait_ready(int ready, struct error *err)
{
	struct pollfd p = {.fd = ready, .events = POLLIN};
	int got;

	do {
		got = poll(&p, 1, READY_MS);
	} while (got < 0 && errno == EINTR);
	return got > 0 ? 0 : error_set(err, ERROR_TIMEOUT, "the networks did not come up within %d s", READY_MS / 1000);
}

/* Starts a keeper and waits until the networks are there. */
static int spawn_keeper(const struct session *s, struct error *err)
{
	cleanup_strv struct strv argv = STRV_INIT;
	cleanup_close int ready = -1, ready_child = -1;
	struct child child = CHILD_INIT;
	int pipes[2];

	if (session_keeper_argv(s, &argv, err) < 0)
		return -1;
	if (pipe2(pipes, O_CLOEXEC) < 0)
		return error_errno(err, errno, "cannot make a pipe");
	ready = pipes[0];
	ready_child = pipes[1];
	const struct child_fd fds[] = {{ready_child, READY_FD}};
	struct child_spec spec = {
		.argv = (const char *const *)argv.items,
		.cwd = "/",
		.fds = fds,
		.fd_count = ARRAY_SIZE(fds),
		.null_stdin = true,
		.new_session = true,
	};

	if (child_spawn(&child, &spec, err) < 0)
		return -1;
	close(steal_fd(&ready_child));
	close(child.pidfd);	/* it outlives us */
	return wait_ready(ready, err);
}

/* Waits for a network that a keeper which was asked for it has; -1 + err: it does not come. */
static int wait_for(const char *folder, const char *name, struct error *err)
{
	cleanup_free char *path = str_printf(err, "%s/%s/ctl", folder, name);
	int left_ms = NEW_MS;

	for (; path && !file_exists(path) && left_ms > 0; left_ms -= 20)
		poll(NULL, 0, 20);
	if (!path || left_ms > 0)
		return path ? 0 : -1;
	error_set(err, ERROR_TIMEOUT, "network %s was not there within %d s", name, NEW_MS / 1000);
	return error_hint(err, "networks.log of the session tells why; or stop all of it first: uml-lab down");
}

/* A keeper that runs keeps the networks there were in the lab so far: it is told of all, and waited for. */
static int update_keeper(const struct session *s, int keeper, struct error *err)
{
	struct network_spec spec = {0};
	int result = fill_spec(s, &spec, err);

	for (size_t i = 0; result == 0 && i < spec.count; i++)
		result = network_add(keeper, &spec.switches[i], err);
	for (size_t i = 0; result == 0 && i < spec.count; i++)
		result = wait_for(spec.folder, spec.switches[i].name, err);
	network_spec_free(&spec);
	return result;
}

int session_networks_start(const struct session *session, int *hold, struct error *err)
{
	cleanup_free char *folder = NULL;

	*hold = -1;
	if (!session_keeps_networks(session))
		return 0;
	folder = session_networks_folder(session->name, err);
	if (!folder || file_mkdir_p(folder, 0700, err) < 0)
		return -1;
	*hold = network_connect(folder, err);
	if (*hold >= 0)
		return update_keeper(session, *hold, err);
	if (spawn_keeper(session, err) < 0)
		return -1;
	*hold = network_connect(folder, err);
	return *hold >= 0 ? 0 : last_words(session, err);
}

/* ---- after the machines ---- */

static bool any_machine_runs(const struct session *s)
{
	for (size_t i = 0; i < s->machine_count; i++)
		if (session_machine_runs(&s->machines[i]))
			return true;
	return false;
}

/* The keeper has nobody left to keep networks for. One that does not end is ended; its switches end with it. */
static void end_keeper(const struct process_id *keeper)
{
	cleanup_close int pidfd = keeper->pid ? (int)syscall(SYS_pidfd_open, keeper->pid, 0) : -1;
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	if (pidfd < 0 || !process_alive(keeper) || poll(&p, 1, END_MS) != 0)
		return;
	log_warn("the keeper of the networks, process %d, did not end: killing it", (int)keeper->pid);
	syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
	poll(&p, 1, END_MS);
}

int session_networks_end(const struct session *session, struct error *err)
{
	cleanup_free char *folder = session_networks_folder(session->name, err);
	struct error swept = ERROR_INIT;

	if (!folder)
		return -1;
	if (any_machine_runs(session))
		return 0;
	end_keeper(&session->network_keeper);
	/* A keeper that session.yml does not know, a moment old: it sweeps for itself. */
	if (network_sweep(folder, &swept) < 0 && swept.kind != ERROR_STATE) {
		error_copy(err, &swept);
		return -1;
	}
	return 0;
}

/* ---- session.yml ---- */

int session_networks_carry_over(struct session *s, const struct session *old, struct error *err)
{
	s->network_switches = calloc(s->lab->network_count + 1, sizeof(*s->network_switches));
	if (!s->network_switches)
		return error_oom(err);
	if (!old)
		return 0;
	s->network_keeper = old->network_keeper;
	for (size_t i = 0; i < s->lab->network_count; i++)
		for (size_t j = 0; j < old->lab->network_count; j++)
			if (str_eq(s->lab->networks[i].name, old->lab->networks[j].name))
				s->network_switches[i] = old->network_switches[j];
	return 0;
}

int session_networks_read(yaml_document_t *document, yaml_node_t *part, struct session *s, struct error *err)
{
	yaml_node_t *networks = yaml_get(document, part, "networks");

	s->network_switches = calloc(s->lab->network_count + 1, sizeof(*s->network_switches));
	if (!s->network_switches)
		return error_oom(err);
	s->network_keeper = yaml_get_process(document, part, "network-keeper");
	for (size_t i = 0; i < s->lab->network_count; i++)
		s->network_switches[i] = yaml_get_process(document, networks, s->lab->networks[i].name);
	return 0;
}

void session_networks_write(struct yaml_out *out, const struct session *s)
{
	yaml_out_process(out, "network-keeper", &s->network_keeper);
	if (!session_keeps_networks(s) || !s->network_keeper.pid)
		return;
	yaml_out_map(out, "networks", false);
	for (size_t i = 0; i < s->lab->network_count; i++)
		yaml_out_process(out, s->lab->networks[i].name, &s->network_switches[i]);
	yaml_out_close_map(out);
}
