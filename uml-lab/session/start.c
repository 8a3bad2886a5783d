/*
 * Starting machines: overlays that are missing are made, then one supervisor a
 * machine is started, all at once, and their states are waited for side by
 * side. A supervisor outlives this process; the descriptor "ready" it inherits
 * is closed once it can be talked to.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "uml-lab/base/child.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/machine/client.h"
#include "uml-lab/session/session_internal.h"

#define SUPERVISOR_READY_MS 20000	/* from start until its socket answers; it does little before */
#define READY_FD 3

/* ---- before: overlays, and a clean slate in session.yml ---- */

struct begin {
	const struct strv *only;
};

/* Extra disks that the lab got since the overlay was made. */
static int add_disks(const struct session *s, const struct lab_machine *lm, struct error *err)
{
	for (size_t i = 0; i < lm->disk_count; i++) {
		cleanup_free char *path = session_disk(s, lm->name, i + 1, err);

		if (!path || (!file_exists(path) && session_fresh_extra_disk(path, lm->disks[i].size, err) < 0))
			return -1;
	}
	return 0;
}

static int begin_machine(struct session *s, const struct lab_machine *lm, struct error *err)
{
	struct session_machine *m = session_find_machine(s, lm->name);
	cleanup_free char *overlay = session_overlay(s, lm->name, err);

	if (!overlay)
		return -1;
	if (((!file_exists(overlay) || !m->base) && session_fresh_disks(s, lm, err) < 0) || add_disks(s, lm, err) < 0)
		return error_prefix(err, "cannot make the disks of %s", lm->name);
	free(m->cause);
	m->cause = NULL;
	free(m->started);
	m->started = session_now(err);
	strv_free(&m->forwards);
	m->ready_ms = 0;
	m->restarts = 0;
	return m->started ? 0 : -1;
}

/* limits.time counts from the start that finds nothing running; machines that are started later share the end. */
static int set_end(struct session *s, struct error *err)
{
	for (size_t i = 0; i < s->machine_count && s->lab->limits.time_ms; i++)
		if (session_machine_runs(&s->machines[i]))
			return 0;
	free(s->ends);
	s->ends = NULL;
	if (s->lab->limits.time_ms && !(s->ends = session_time(time(NULL) + s->lab->limits.time_ms / 1000, err)))
		return -1;
	return 0;
}

static int begin_all(struct session *s, void *arg, struct error *err)
{
	const struct begin *begin = arg;

	if (set_end(s, err) < 0)
		return -1;
	for (size_t i = 0; i < s->lab->machine_count; i++) {
		const struct lab_machine *lm = &s->lab->machines[i];

		if (!session_is_named(begin->only, lm->name) ||
		    session_machine_runs(session_find_machine(s, lm->name)))
			continue;
		if (begin_machine(s, lm, err) < 0)
			return -1;
	}
	return 0;
}

/* ---- one supervisor ---- */

struct starting {
	struct child child;
	int ready;		/* read end; end of file: its socket answers, or it died */
	char *runtime;
};

static char *own_program(struct error *err)
{
	return file_absolute("/proc/self/exe", false, err);
}

static int open_log(const struct session *s, const char *machine, struct error *err)
{
	cleanup_free char *path = str_printf(err, "%s/%s/supervisor.log", s->folder, machine);
	int fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600) : -1;

	if (path && fd < 0)
		error_errno(err, errno, "cannot open %s", path);
	return fd;
}

static int spawn_supervisor(const struct session *s, const char *machine, struct starting *out, struct error *err)
{
	cleanup_free char *program = own_program(err), *runtime = session_runtime(s->name, machine, err);
	cleanup_close int log = -1, ready = -1, ready_child = -1;
	int pipes[2];

	if (!program || !runtime || file_mkdir_p(runtime, 0700, err) < 0)
		return -1;
	log = open_log(s, machine, err);
	if (log < 0)
		return -1;
	if (pipe2(pipes, O_CLOEXEC) < 0)
		return error_errno(err, errno, "cannot make a pipe");
	ready = pipes[0];
	ready_child = pipes[1];
	const char *argv[] = {program, "__supervise", s->name, machine, NULL};
	const struct child_fd fds[] = {{log, 1}, {log, 2}, {ready_child, READY_FD}};
	struct child_spec spec = {
		.argv = argv,
		.cwd = "/",
		.fds = fds,
		.fd_count = ARRAY_SIZE(fds),
		.null_stdin = true,
		.new_session = true,
	};

	if (child_spawn(&out->child, &spec, err) < 0)
		return -1;
	out->ready = steal_fd(&ready);
	out->runtime = steal_ptr(&runtime);
	return 0;
}

struct started {
	const char *machine;
	pid_t pid;
};

/* So that from now on everybody sees this machine as running, also before its supervisor's first word. */
static int note_started(struct session *s, void *arg, struct error *err)
{
	const struct started *started = arg;
	struct session_machine *m = session_find_machine(s, started->machine);

	(void)err;
	/* The supervisor may have written before us: then it knows better. */
	if (m->supervisor.pid == started->pid)
		return 0;
	if (process_identify(started->pid, &m->supervisor) < 0)
		return 0;
	m->ever_started = true;
	m->state = MACHINE_STARTING;
	return 0;
}

/* Why a supervisor ended before it could be talked to: what it wrote into session.yml, or its log's last line. */
static int early_end(const struct session *s, const char *machine, struct error *err)
{
	cleanup_session struct session *now = session_load(s->name, NULL);
	struct session_machine *m = now ? session_find_machine(now, machine) : NULL;
	cleanup_free char *path = str_printf(err, "%s/%s/supervisor.log", s->folder, machine), *text = NULL;
	size_t length = 0;
	char *last;

	if (m && m->cause && m->state == MACHINE_FAILED)
		return error_set(err, ERROR_FAILED, "%s", m->cause);
	if (!path || file_read_all(path, SESSION_YML_MAX, &text, &length, NULL) < 0 || !length)
		return error_set(err, ERROR_FAILED, "its supervisor ended without a word");
	while (length && text[length - 1] == '\n')
		text[--length] = '\0';
	last = strrchr(text, '\n');
	return error_set(err, ERROR_FAILED, "its supervisor ended: %s", last ? last + 1 : text);
}

/* Waits for the supervisor's socket, connects and asks for states. */
static int reach(const struct session *s, const char *machine, struct starting *starting, struct watched *w,
		 struct error *err)
{
	struct pollfd p = {.fd = starting->ready, .events = POLLIN};
	int got;

	do {
		got = poll(&p, 1, SUPERVISOR_READY_MS);
	} while (got < 0 && errno == EINTR);
	if (got == 0) {
		child_end(&starting->child, 1000);
		return error_set(err, ERROR_TIMEOUT, "its supervisor did not answer within %d s",
				 SUPERVISOR_READY_MS / 1000);
	}
	w->control = machine_connect(starting->runtime, err);
	if (w->control < 0)
		return early_end(s, machine, err);
	return machine_watch_start(w->control, err);
}

static void starting_free(struct starting *starting, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (starting[i].ready >= 0)
			close(starting[i].ready);
		if (starting[i].child.pidfd >= 0)
			close(starting[i].child.pidfd);
		free(starting[i].runtime);
	}
	free(starting);
}

/* ---- all of them ---- */

struct batch {
	struct starting *starting;
	struct watched *watched;
	size_t count;
};

static int batch_alloc(struct batch *b, size_t max, struct error *err)
{
	b->starting = calloc(max + 1, sizeof(*b->starting));
	b->watched = calloc(max + 1, sizeof(*b->watched));
	if (!b->starting || !b->watched) {
		free(b->starting);
		free(b->watched);
		return error_oom(err);
	}
	for (size_t i = 0; i < max; i++) {
		b->starting[i].ready = b->starting[i].child.pidfd = -1;
		b->watched[i].control = -1;
	}
	return 0;
}

/* Starts every supervisor before waiting for the first: the hosts' cores then boot machines side by side. */
static int launch_all(struct session *s, const struct session_start_options *options, struct batch *b,
		      struct error *err)
{
	for (size_t i = 0; i < s->machine_count; i++) {
		struct session_machine *m = &s->machines[i];
		struct started started = {.machine = m->name};

		if (!session_is_named(options->only, m->name) || session_machine_runs(m))
			continue;
		b->watched[b->count].name = m->name;
		if (spawn_supervisor(s, m->name, &b->starting[b->count], err) < 0)
			return error_prefix(err, "cannot start %s", m->name);
		started.pid = b->starting[b->count++].child.pid;
		if (session_update(s->name, note_started, &started, err) < 0)
			return -1;
	}
	return 0;
}

static void reach_all(struct session *s, const struct session_start_options *options, struct batch *b)
{
	for (size_t i = 0; i < b->count; i++) {
		struct watched *w = &b->watched[i];
		struct error err = ERROR_INIT;

		if (reach(s, w->name, &b->starting[i], w, &err) == 0)
			continue;
		w->done = w->failed = true;
		w->state = MACHINE_FAILED;
		w->detail = strdup(err.message);
		if (options->progress)
			options->progress(options->progress_arg, w->name, "failed", w->detail);
	}
}

/* Ctrl-C: what this call started is stopped again, at once. */
static void take_back(struct session *s, const struct batch *b)
{
	for (size_t i = 0; i < b->count; i++) {
		cleanup_close int control = machine_connect(b->starting[i].runtime, NULL);

		if (control >= 0)
			machine_stop(control, true, 0, NULL);
	}
	session_settle(s, NULL);
}

static int wait_logins(const struct batch *b, const struct session_start_options *options, struct error *err)
{
	for (size_t i = 0; i < b->count; i++) {
		cleanup_close int control = machine_connect(b->starting[i].runtime, err);

		if (control < 0 || machine_watch(control, MACHINE_READY, true, (int)options->timeout_ms, NULL, NULL, err) < 0)
			return error_prefix(err, "%s: no login on its console", b->watched[i].name);
	}
	return 0;
}

static int wait_all(struct session *s, const struct session_start_options *options, struct batch *b,
		    struct error *err)
{
	struct watch_options watch = {
		.until = options->wait == SESSION_WAIT_NONE ? MACHINE_STARTING : MACHINE_READY,
		.timeout_ms = options->timeout_ms,
		.progress = options->progress,
		.progress_arg = options->progress_arg,
		.cancel = options->cancel,
	};
	int result = 0;

	if (options->wait == SESSION_WAIT_NONE) {
		for (size_t i = 0; i < b->count; i++)
			if (b->watched[i].failed)
				result = error_set(err, ERROR_FAILED, "%s: %s", b->watched[i].name,
						   b->watched[i].detail ?: "failed");
		return result;
	}
	result = session_watch(b->watched, b->count, &watch, err);
	if (result < 0 && options->cancel && *options->cancel)
		take_back(s, b);
	if (result == 0 && options->wait == SESSION_WAIT_LOGIN)
		result = wait_logins(b, options, err);
	return result;
}

int session_start(struct session *session, const struct session_start_options *options, struct error *err)
{
	struct begin begin = {options->only};
	struct batch batch = {0};
	cleanup_close int networks = -1;
	int result;

	if (session_check_names(session, options->only, err) < 0 || session_settle(session, err) < 0 ||
	    layers_repair(session, err) < 0 || session_update(session->name, begin_all, &begin, err) < 0 ||
	    session_reload(session, err) < 0 || batch_alloc(&batch, session->machine_count, err) < 0)
		return -1;
	result = session_networks_start(session, &networks, err);
	if (result == 0)
		result = launch_all(session, options, &batch, err);
	if (result == 0 && !batch.count) {
		result = error_set(err, ERROR_STATE, "session %s is running already", session->name);
		error_hint(err, "look at it with `uml-lab status %s`, or give another one a name: --name", session->name);
	} else if (result == 0) {
		reach_all(session, options, &batch);
		result = wait_all(session, options, &batch, err);
	} else {
		take_back(session, &batch);
	}
	starting_free(batch.starting, batch.count);
	watched_free(batch.watched, batch.count);
	return result;
}
