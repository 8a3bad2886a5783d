/*
 * How it works. sandbox_start() clones the keeper into new namespaces. The
 * keeper puts up the walls, forks the program, tells what happens over a
 * SEQPACKET link, and waits (sandbox_internal.h lists the parts). The guest's tree ends in one of these ways:
 *
 *   the program ends	the keeper sends its wait status and exits; the keeper being
 *			pid 1 of the PID namespace, the kernel kills all that is left
 *   the link closes	(the supervisor died or called sandbox_kill()) the keeper exits
 *   the keeper dies	the kernel kills its namespace
 *
 * Killing only UML's main process would let its ptrace tracees go on with real
 * system calls of the host (uml-facts.md, trap 4): that is why nobody here
 * signals the program alone. What they could call then, the filter they inherited decides.
 *
 * Without namespaces the keeper is the subreaper of all of the tree and kills
 * the program's process group (UML and its tracees share one: it is
 * started as session leader, and the filter lets nobody leave), then whatever was reparented to it. A keeper that is
 * itself killed leaves the tree to the supervisor, which knows the group too.
 *
 * The program's pid as the host sees it: it sends one packet before exec, and
 * SO_PASSCRED has the kernel translate the sender's pid.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/log.h"
#include "uml-lab/machine/elf.h"
#include "uml-lab/machine/sandbox_internal.h"

#define START_TIMEOUT_MS  10000

#define NAMESPACES (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWUTS)

/* ---- notes ---- */

/* Control data of a packet, aligned. */
union control {
	struct cmsghdr header;
	char space[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int))];
};

void send_note(int link, enum note_kind kind, int code, const char *text, int fd)
{
	struct note note = {.kind = kind, .code = code};
	struct iovec iov = {&note, sizeof(note)};
	union control control = {.space = {0}};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;

	snprintf(note.text, sizeof(note.text), "%s", text);
	if (fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(sizeof(int));
		c = CMSG_FIRSTHDR(&message);
		*c = (struct cmsghdr){
			.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	}
	sendmsg(link, &message, MSG_NOSIGNAL);
}

static void take_control(struct msghdr *message, pid_t *sender, int *fd)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		struct ucred credentials;

		if (c->cmsg_level != SOL_SOCKET)
			continue;
		if (c->cmsg_type == SCM_CREDENTIALS) {
			memcpy(&credentials, CMSG_DATA(c), sizeof(credentials));
			*sender = credentials.pid;
		} else if (c->cmsg_type == SCM_RIGHTS && *fd < 0) {
			memcpy(fd, CMSG_DATA(c), sizeof(*fd));
		}
	}
}

int receive_note(int link, int timeout_ms, struct note *note, pid_t *sender, int *fd)
{
	struct pollfd p = {.fd = link, .events = POLLIN};
	union control control;
	struct iovec iov = {note, sizeof(*note)};
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	pid_t from = 0;
	int ready, came = -1;

	do {
		ready = poll(&p, 1, timeout_ms);
	} while (ready < 0 && errno == EINTR);
	if (ready <= 0 || recvmsg(link, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != sizeof(*note))
		return 0;
	note->text[sizeof(note->text) - 1] = '\0';
	take_control(&message, &from, &came);
	if (sender)
		*sender = from;
	if (fd)
		*fd = came;
	else if (came >= 0)
		close(came);
	return 1;
}

/* ---- start ---- */

/* The PID namespace of a process; 0 when it cannot be told. */
static ino_t pid_namespace(pid_t pid)
{
	char path[40];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/ns/pid", pid);
	return stat(path, &st) < 0 ? 0 : st.st_ino;
}

/* Takes the notes of a start. 0; -1 + err; 1 when walls could not be built (reason in sandbox->walls). */
static int await_start(struct sandbox *sandbox, const struct sandbox_spec *spec, struct error *err)
{
	char why[sizeof(sandbox->walls)];
	struct note note;
	pid_t sender;

	while (receive_note(sandbox->link, START_TIMEOUT_MS, &note, &sender, NULL)) {
		switch (note.kind) {
		case NOTE_KERNEL:
			process_identify(sender, &sandbox->kernel);
			break;
		case NOTE_RUNNING:
			snprintf(why, sizeof(why), "%.100s", sandbox->namespaces ? "namespaces" : sandbox->walls);
			snprintf(sandbox->walls, sizeof(sandbox->walls), "%.100s%s %.150s", why,
				 sandbox->namespaces ? "," : ";", note.text);
			sandbox->pid_namespace = pid_namespace(sandbox->kernel.pid);
			return 0;
		case NOTE_WALLS:
			snprintf(sandbox->walls, sizeof(sandbox->walls), "process-group: %.80s: %.80s", note.text,
				 strerror(note.code));
			return 1;
		case NOTE_FAILED:
			return note.code ? error_errno(err, note.code, "cannot start %s: %s", spec->program, note.text)
					 : error_set(err, ERROR_FAILED, "cannot start %s: %s", spec->program, note.text);
		default:
			break;
		}
	}
	return error_set(err, ERROR_FAILED, "cannot start %s: the sandbox ended or did not answer",
			 spec->program);
}

static int make_plan(struct sandbox_plan *plan, struct error *err)
{
	if (elf_needs(plan->spec->program, &plan->libraries, err) < 0)
		return -1;
	plan->filter = program_filter(plan->namespaces, err);
	return plan->filter ? 0 : -1;
}

static void free_plan(struct sandbox_plan *plan)
{
	strv_free(&plan->libraries);
	confine_filter_free(plan->filter);
}

/* Clones the keeper. As await_start(). */
static int start_keeper(struct sandbox *sandbox, const struct sandbox_plan *plan, struct error *err)
{
	cleanup_close int ours = -1, theirs = -1;
	int pair[2], on = 1;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(err, errno, "cannot make a socket for the sandbox");
	ours = pair[0];
	theirs = pair[1];
	setsockopt(ours, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	pid = (pid_t)syscall(SYS_clone, (plan->namespaces ? NAMESPACES : 0) | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0)
		keeper_main(plan, theirs);
	if (pid < 0 && plan->namespaces) {
		snprintf(sandbox->walls, sizeof(sandbox->walls), "process-group: user namespaces: %s",
			 strerror(errno));
		return 1;
	}
	if (pid < 0)
		return error_errno(err, errno, "cannot start a process for the sandbox");
	sandbox->keeper.pid = pid;
	sandbox->keeper.pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	sandbox->link = steal_fd(&ours);
	sandbox->namespaces = plan->namespaces;
	return 0;
}

/* One attempt, with or without namespaces; results as await_start(). Nothing is left unless 0. */
static int attempt(struct sandbox *sandbox, const struct sandbox_spec *spec, bool namespaces,
		   struct error *err)
{
	struct sandbox_plan plan = {
		.spec = spec, .namespaces = namespaces, .uid = geteuid(), .gid = getegid()};
	int result = make_plan(&plan, err);

	if (result == 0)
		result = start_keeper(sandbox, &plan, err);
	if (result == 0 && sandbox->keeper.pidfd < 0)
		result = error_errno(err, errno, "cannot watch the sandbox");
	if (result == 0)
		result = await_start(sandbox, spec, err);
	if (result != 0)
		sandbox_kill(sandbox);
	free_plan(&plan);
	return result;
}

int sandbox_start(struct sandbox *sandbox, const struct sandbox_spec *spec, struct error *err)
{
	int result = 1;

	if (spec->fd_count > SANDBOX_FDS_MAX || spec->path_count > SANDBOX_PATHS_MAX)
		return error_set(err, ERROR_FAILED, "too many descriptors or paths for a sandbox");
	*sandbox = (struct sandbox)SANDBOX_INIT;
	if (spec->no_namespaces)
		snprintf(sandbox->walls, sizeof(sandbox->walls), "process-group: asked for");
	else
		result = attempt(sandbox, spec, true, err);
	if (result == 1 && spec->namespaces_only)
		return error_set(err, ERROR_FAILED, "this machine may run in namespaces only, and there are none here: %s",
				 sandbox->walls);
	return result == 1 ? attempt(sandbox, spec, false, err) : result;
}

/* ---- while it runs ---- */

bool sandbox_contains(const struct sandbox *sandbox, pid_t pid)
{
	if (!sandbox->keeper.pid || pid <= 0)
		return false;
	if (!sandbox->namespaces) /* the keeper connects for the program */
		return pid == sandbox->keeper.pid || getsid(pid) == sandbox->kernel.pid;
	return sandbox->pid_namespace && pid_namespace(pid) == sandbox->pid_namespace;
}

int sandbox_accept(const struct sandbox *sandbox, int listener, const char *path)
{
	cleanup_close int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (fd < 0)
		return -1;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || !sandbox_contains(sandbox, peer.pid)) {
		log_warn("a process that is not the guest's (%d) connected to %s", (int)peer.pid, path);
		return -1;
	}
	return steal_fd(&fd);
}

/* ---- the end ---- */

void sandbox_reap(struct sandbox *sandbox, int *status)
{
	struct note note;

	while (!sandbox->ended && receive_note(sandbox->link, 0, &note, NULL, NULL)) {
		sandbox->ended = note.kind == NOTE_EXIT;
		sandbox->status = note.code;
	}
	*status = sandbox->ended ? sandbox->status : SIGKILL;
	sandbox_kill(sandbox);
}

void sandbox_kill(struct sandbox *sandbox)
{
	if (sandbox->link >= 0)
		close(steal_fd(&sandbox->link));
	if (!sandbox->keeper.pid)
		return;
	/* Without namespaces the keeper must live to kill the tree; it does so when the link closes. */
	if (sandbox->namespaces)
		child_kill(&sandbox->keeper, SIGKILL);
	else if (sandbox->kernel.pid > 1 && process_alive(&sandbox->kernel))
		kill(-sandbox->kernel.pid, SIGKILL);
	child_wait(&sandbox->keeper, -1, NULL, NULL);
	sandbox->kernel = (struct process_id){0};
	sandbox->pid_namespace = 0;
}

bool sandbox_namespaces_work(char *reason, size_t size)
{
	static const char *const argv[] = {"true", NULL};
	struct sandbox_spec spec = {.program = "/bin/true", .argv = argv, .memory = 1 << 20};
	struct sandbox sandbox;
	struct error err = ERROR_INIT;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int fds[3] = {null, null, null};
	bool work = false;

	spec.fds = fds;
	spec.fd_count = ARRAY_SIZE(fds);
	if (null >= 0 && sandbox_start(&sandbox, &spec, &err) == 0) {
		work = sandbox.namespaces;
		snprintf(reason, size, "%s", work ? "" : sandbox.walls);
		sandbox_kill(&sandbox);
	} else {
		snprintf(reason, size, "%s", err.message);
	}
	if (null >= 0)
		close(null);
	return work;
}
