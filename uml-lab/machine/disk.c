/*
 * uml-cow serve, the disk server of this machine (cow/serve.h).
 *
 *	disk_start() ── spawn ──► READY ──► launch_kernel()
 *
 * The kernel connects to the server's sockets while it boots, so it is started
 * when the server says READY. One server serves all kernels of a life: a guest that
 * reboots connects anew. Nothing can take over from a server that dies while a
 * kernel runs (virtio_uml.c does not reconnect), so the machine ends then, with the
 * server's last words as the cause; what the guest had synced is on its disk.
 *
 * At the end the control socket is closed: the server makes all that was written
 * durable and ends. It is waited for, for END_MS; what a server that is killed then
 * leaves is what the guest had synced.
 *
 * Requests are answered in any order, by sequence number. What the server says
 * on stderr goes into our log, its last lines are kept.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/log.h"
#include "uml-lab/machine/supervisor.h"

#define READY_MS   20000
#define END_MS     30000
#define CONTROL_FD 3
#define INFO_MARK  ": info: " /* in a line of log_info() */

struct disk_request {
	struct disk_request *next;
	uint32_t sequence;
	enum cow_serve_type type;
	size_t disk;
	char *path;
	disk_answer_fn fn;
	void *arg;
};

/* ---- requests ---- */

static struct disk_request *take_request(struct disk_server *disk, uint32_t sequence)
{
	for (struct disk_request **p = &disk->requests; *p; p = &(*p)->next) {
		struct disk_request *request = *p;

		if (request->sequence != sequence)
			continue;
		*p = request->next;
		return request;
	}
	return NULL;
}

static void free_request(struct disk_request *request)
{
	free(request->path);
	free(request);
}

static struct disk_request *new_request(enum cow_serve_type type, size_t disk, const char *path)
{
	struct disk_request *request = calloc(1, sizeof(*request));

	if (!request)
		return NULL;
	*request = (struct disk_request){.type = type, .disk = disk};
	if (path && !(request->path = str_dup(path, NULL))) {
		free(request);
		return NULL;
	}
	return request;
}

bool disk_is_worked_on(const struct supervisor *sv)
{
	for (const struct disk_request *r = sv->disk.requests; r; r = r->next)
		if (r->type != COW_SERVE_GET_STATS)
			return true;
	return false;
}

bool disk_is_out(const struct supervisor *sv, size_t disk)
{
	return sv->disk.out >> disk & 1;
}

int disk_request(struct supervisor *sv, enum cow_serve_type type, size_t disk, const char *path,
		 disk_answer_fn fn, void *arg, struct error *err)
{
	struct disk_server *server = &sv->disk;
	struct disk_request *request;
	int sent;

	if (!server->ready)
		return error_set(err, ERROR_STATE, "the disk server does not run");
	request = new_request(type, disk, path);
	if (!request)
		return error_oom(err);
	request->sequence = ++server->sequence;
	request->fn = fn;
	request->arg = arg;
	sent = path ? cow_serve_send_path(server->control, request->sequence, type, (uint32_t)disk, path, err)
		    : cow_serve_send_ref(server->control, request->sequence, type, (uint32_t)disk, err);
	if (sent < 0) {
		free_request(request);
		return -1;
	}
	request->next = server->requests;
	server->requests = request;
	return 0;
}

/* A top that was frozen is not what a server started later has to open, nor is a disk that was taken out. */
static void note_done(struct disk_server *disk, struct disk_request *request)
{
	if (request->type == COW_SERVE_EJECT)
		disk->out |= UINT64_C(1) << request->disk;
	if (request->type == COW_SERVE_INSERT)
		disk->out &= ~(UINT64_C(1) << request->disk);
	if (request->type == COW_SERVE_SNAPSHOT && request->disk < disk->paths.count) {
		free(disk->paths.items[request->disk]);
		disk->paths.items[request->disk] = steal_ptr(&request->path);
	}
}

static void take_answer(struct supervisor *sv, const struct cow_serve_message *message)
{
	struct disk_request *request = take_request(&sv->disk, message->header.sequence);
	struct error failure = ERROR_INIT;
	bool failed = message->header.type == COW_SERVE_REPLY && message->u.reply.status;

	if (!request)
		return;
	if (failed)
		error_set(&failure, (enum error_kind)message->u.reply.status, "%s", message->u.reply.text);
	else
		note_done(&sv->disk, request);
	request->fn(request->arg, message, failed ? &failure : NULL);
	free_request(request);
	disk_ask_again(sv);
}

static void fail_requests(struct disk_server *disk)
{
	struct error failure = ERROR_INIT;

	error_set(&failure, ERROR_FAILED, "the disk server ended before it answered");
	while (disk->requests) {
		struct disk_request *request = take_request(disk, disk->requests->sequence);

		request->fn(request->arg, NULL, &failure);
		free_request(request);
	}
}

/* ---- what it says on stderr ---- */

static void drop_words(struct disk_server *disk)
{
	loop_remove_fd(disk->words_source);
	disk->words_source = NULL;
	if (disk->words >= 0)
		close(steal_fd(&disk->words));
}

/* Kept in case it dies: all but what it tells of a good life. */
static void keep_words(struct disk_server *disk, const char *text, size_t length)
{
	while (length) {
		const char *end = memchr(text, '\n', length);
		size_t line = end ? (size_t)(end - text) + 1 : length;

		if (!memmem(text, line, INFO_MARK, strlen(INFO_MARK)))
			tail_add(&disk->tail, text, line);
		text += line;
		length -= line;
	}
}

static void read_words(struct disk_server *disk)
{
	char chunk[4096];
	ssize_t got;

	while ((got = TEMP_FAILURE_RETRY(read(disk->words, chunk, sizeof(chunk)))) > 0) {
		keep_words(disk, chunk, (size_t)got);
		log_info("disk server: %.*s", (int)got - (chunk[got - 1] == '\n'), chunk);
	}
	if (got == 0 || errno != EAGAIN)
		drop_words(disk);
}

static void on_words(void *arg, int fd, uint32_t events)
{
	struct supervisor *sv = arg;

	(void)fd;
	(void)events;
	read_words(&sv->disk);
}

/* ---- its life ---- */

/* It is gone and reaped. */
static void forget(struct supervisor *sv)
{
	struct disk_server *disk = &sv->disk;

	disk->ready = false;
	loop_arm_timer(disk->timer, -1);
	loop_remove_fd(disk->control_source);
	loop_remove_fd(disk->child_source);
	disk->control_source = disk->child_source = NULL;
	if (disk->control >= 0)
		close(steal_fd(&disk->control));
	if (disk->words >= 0)
		read_words(disk);
	drop_words(disk);
	disk->id = (struct process_id){0};
	fail_requests(disk);
	disk_ask_again(sv);
}

/* Reaps it if it has ended. true: it had, and err says how. */
static bool has_ended(struct supervisor *sv, struct error *err)
{
	bool was_ready = sv->disk.ready;
	char how[64], words[600];
	int status = 0;

	if (!sv->disk.child.pid || child_wait(&sv->disk.child, 0, &status, NULL) < 0)
		return false;
	forget(sv);
	child_describe_status(status, how, sizeof(how));
	tail_last_lines(&sv->disk.tail, 2, words, sizeof(words));
	error_set(err, ERROR_FAILED, "the disk server (uml-cow serve) %s%s%s%s", how,
		  words[0] ? "; it said last: " : "", words,
		  was_ready ? "; what the guest had synced is on its disk" : "");
	return true;
}

static void on_death(void *arg, int fd, uint32_t events)
{
	struct supervisor *sv = arg;
	bool was_ready = sv->disk.ready;
	struct error err = ERROR_INIT;

	(void)fd;
	(void)events;
	if (!has_ended(sv, &err))
		return;
	if (sv->sandbox.keeper.pid)
		supervisor_fail(sv, "%s", err.message);
	else if (!was_ready)
		supervisor_cannot_start(sv, &err);
	else /* between two kernels: the next start starts another server */
		log_warn("%s", err.message);
}

void disk_look(struct supervisor *sv)
{
	struct error err = ERROR_INIT;

	if (has_ended(sv, &err))
		supervisor_fail(sv, "%s", err.message);
}

static void on_late(void *arg)
{
	struct supervisor *sv = arg;
	struct error err = ERROR_INIT;

	error_set(&err, ERROR_TIMEOUT, "the disk server (uml-cow serve) was not ready within %d s", READY_MS / 1000);
	child_end(&sv->disk.child, 0);
	forget(sv);
	supervisor_cannot_start(sv, &err);
}

static void take_ready(struct supervisor *sv)
{
	struct error err = ERROR_INIT;

	if (sv->disk.ready)
		return;
	sv->disk.ready = true;
	loop_arm_timer(sv->disk.timer, -1);
	status_refresh(sv);
	if (!sv->done && !sv->stopping && launch_kernel(sv, &err) < 0)
		supervisor_cannot_start(sv, &err);
}

static void on_control(void *arg, int fd, uint32_t events)
{
	struct supervisor *sv = arg;
	struct cow_serve_message message;
	struct error err = ERROR_INIT;
	int got;

	(void)events;
	while ((got = cow_serve_receive(fd, &message, &err)) == 1) {
		if (message.header.type == COW_SERVE_READY)
			take_ready(sv);
		else
			take_answer(sv, &message);
		if (sv->disk.control != fd) /* its end was told meanwhile */
			return;
	}
	if (got < 0) { /* its end is seen by its pidfd */
		loop_remove_fd(sv->disk.control_source);
		sv->disk.control_source = NULL;
	}
}

static int build_argv(const struct supervisor *sv, struct strv *argv, struct error *err)
{
	const struct machine_spec *spec = sv->spec;
	cleanup_free char *program = dirs_own("uml-cow-all", err);

	if (!program || strv_add(argv, program, err) < 0 || strv_add(argv, "serve", err) < 0 ||
	    strv_addf(argv, err, "--control-fd=%d", CONTROL_FD) < 0)
		return -1;
	if (spec->disk_quota && strv_addf(argv, err, "--quota=%" PRIu64, spec->disk_quota) < 0)
		return -1;
	for (size_t i = 0; spec->disk_quota && i < spec->quota_with.count; i++)
		if (strv_addf(argv, err, "--quota-with=%s", spec->quota_with.items[i]) < 0)
			return -1;
	for (size_t i = 0; i < sv->disk.paths.count; i++)
		if (strv_addf(argv, err, "--socket=" DISK_SOCKET "%zu", i) < 0 ||
		    strv_add(argv, disk_is_out(sv, i) ? "-" : sv->disk.paths.items[i], err) < 0)
			return -1;
	return 0;
}

static int spawn(struct supervisor *sv, struct error *err)
{
	struct disk_server *disk = &sv->disk;
	cleanup_strv struct strv argv = STRV_INIT;
	cleanup_free char *folder = guest_path(sv->spec, "", err);
	cleanup_close int control = -1, words = -1;
	int pair[2], pipes[2];

	if (!folder || build_argv(sv, &argv, err) < 0)
		return -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return error_errno(err, errno, "cannot make a socket for the disk server");
	disk->control = pair[0];
	control = pair[1];
	if (pipe2(pipes, O_CLOEXEC) < 0 || fcntl(pipes[0], F_SETFL, O_NONBLOCK) < 0)
		return error_errno(err, errno, "cannot make a pipe for the disk server");
	disk->words = pipes[0];
	words = pipes[1];
	const struct child_fd fds[] = {{control, CONTROL_FD}, {words, 2}};
	const struct child_spec spec = {.argv = (const char *const *)argv.items,
					.cwd = folder,
					.fds = fds,
					.fd_count = ARRAY_SIZE(fds),
					.null_stdin = true,
					.new_session = true,
					.death_signal = SIGTERM,
					.no_new_privs = true};

	if (child_spawn(&disk->child, &spec, err) < 0)
		return -1;
	process_identify(disk->child.pid, &disk->id);
	disk->tail.length = 0;
	disk->control_source = loop_add_fd(sv->loop, disk->control, EPOLLIN, on_control, sv, err);
	disk->words_source = loop_add_fd(sv->loop, disk->words, EPOLLIN, on_words, sv, err);
	disk->child_source = loop_add_fd(sv->loop, disk->child.pidfd, EPOLLIN, on_death, sv, err);
	loop_arm_timer(disk->timer, READY_MS);
	return disk->control_source && disk->words_source && disk->child_source ? 0 : -1;
}

int disk_start(struct supervisor *sv, struct error *err)
{
	if (sv->disk.ready)
		status_refresh(sv);
	if (sv->spec->ubd || sv->disk.ready)
		return launch_kernel(sv, err);
	if (spawn(sv, err) == 0)
		return 0;
	child_end(&sv->disk.child, 0);
	forget(sv);
	return error_prefix(err, "cannot start the disk server");
}

int disk_open(struct supervisor *sv, struct error *err)
{
	for (size_t i = 0; i < sv->spec->disk_count; i++) {
		if (strv_add(&sv->disk.paths, sv->spec->disks[i].path, err) < 0)
			return -1;
		sv->disk.out |= (uint64_t)sv->spec->disks[i].out << i;
	}
	sv->disk.timer = loop_add_timer(sv->loop, -1, on_late, sv, err);
	return sv->disk.timer ? 0 : -1;
}

/* All was written, or it is said that it was not. */
static void note_last(struct supervisor *sv, int status)
{
	char how[64], words[600];

	if (!status)
		return;
	tail_last_lines(&sv->disk.tail, 2, words, sizeof(words));
	child_describe_status(status, how, sizeof(how));
	log_warn("the disk server %s: %s", how, words);
	if (!sv->cause[0])
		snprintf(sv->cause, sizeof(sv->cause), "the disk server %s at the end: %s", how, words);
}

void disk_close(struct supervisor *sv)
{
	struct disk_server *disk = &sv->disk;
	int status = 0;

	if (disk->child.pid) {
		loop_remove_fd(disk->child_source);
		disk->child_source = NULL;
		loop_remove_fd(disk->control_source);
		disk->control_source = NULL;
		close(steal_fd(&disk->control)); /* that tells it to end */
		if (child_wait(&disk->child, END_MS, &status, NULL) < 0) {
			log_warn("the disk server did not end within %d s: killing it", END_MS / 1000);
			child_end(&disk->child, 0);
		}
		forget(sv);
		note_last(sv, status);
	}
	strv_free(&disk->paths);
}
