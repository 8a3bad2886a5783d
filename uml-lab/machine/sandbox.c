/*
 * How it works. sandbox_start() clones the keeper into new namespaces. The
 * keeper puts up the walls, forks the program, tells what happens over a
 * SEQPACKET link, and waits. The guest's tree ends in one of these ways:
 *
 *   the program ends	the keeper sends its wait status and exits; the keeper being
 *			pid 1 of the PID namespace, the kernel kills all that is left
 *   the link closes	(the supervisor died or called sandbox_kill()) the keeper exits
 *   the keeper dies	the kernel kills its namespace
 *
 * Killing only UML's main process would let its ptrace tracees go on with real
 * system calls of the host (uml-facts.md, trap 4): that is why nobody here
 * signals the program alone.
 *
 * Without namespaces the keeper is the subreaper of all of the tree and kills
 * the program's session's process group (UML and its tracees share one: it is
 * started as session leader), then whatever was reparented to it. A keeper that is
 * itself killed leaves the tree to the supervisor, which knows the group too.
 *
 * The program's pid as the host sees it: it sends one packet before exec, and
 * SO_PASSCRED has the kernel translate the sender's pid.
 *
 * The seam for a tighter sandbox (a minimal root, Landlock, seccomp) is
 * build_walls().
 */
#include "uml-lab/machine/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/str.h"

#define SAFE_FD          512 /* where the keeper parks the descriptors it keeps */
#define SANDBOX_FDS_MAX  16
#define START_TIMEOUT_MS 10000
#define CAPABILITIES     64          /* more than any kernel has */
#define SHM_EXTRA        (64u << 20) /* bytes: page tables, the kernel's own image */

#define NAMESPACES (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWUTS)

enum note_kind {
	NOTE_KERNEL = 'K',  /* sent by the program's process: its credentials are what counts */
	NOTE_RUNNING = 'R', /* exec worked */
	NOTE_WALLS = 'W',   /* a wall could not be built: code, text */
	NOTE_FAILED = 'F',  /* exec or what comes before it failed: code, text */
	NOTE_EXIT = 'X',    /* code is the wait status */
};

/* One packet on the link. */
struct note {
	int kind;
	int code;
	char text[200];
};

static void send_note(int link, enum note_kind kind, int code, const char *text)
{
	struct note note = {.kind = kind, .code = code};

	snprintf(note.text, sizeof(note.text), "%s", text);
	send(link, &note, sizeof(note), MSG_NOSIGNAL);
}

/* ---- in the keeper ---- */

static int write_proc(const char *path, const char *text)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	return write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
}

/* The caller's own uid and gid, and no other, inside as outside (user_namespaces(7)). */
static int map_identity(uid_t uid, gid_t gid)
{
	char map[64];

	snprintf(map, sizeof(map), "%u %u 1\n", uid, uid);
	if (write_proc("/proc/self/uid_map", map) < 0 || write_proc("/proc/self/setgroups", "deny") < 0)
		return -1;
	snprintf(map, sizeof(map), "%u %u 1\n", gid, gid);
	return write_proc("/proc/self/gid_map", map);
}

/* All walls of the namespaced sandbox. NULL, or what could not be done (errno says why). */
static const char *build_walls(uid_t uid, gid_t gid, uint64_t memory)
{
	char options[64];

	if (map_identity(uid, gid) < 0)
		return "mapping the user";
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return "making mounts private";
	snprintf(options, sizeof(options), "mode=1777,size=%llu",
		 (unsigned long long)(memory + memory / 8 + SHM_EXTRA));
	if (mount("uml-lab", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, options) < 0)
		return "mounting /dev/shm";
	/* Where the host's /proc is partly covered (containers) this is refused; UML works with the old one too. */
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 && errno != EPERM)
		return "mounting /proc";
	for (int capability = 0; capability < CAPABILITIES; capability++)
		if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 && errno != EINVAL)
			return "dropping capabilities";
	return NULL;
}

/* Becomes the program. Whatever fails goes to `report` as an errno. */
static _Noreturn void run_program(const struct sandbox_spec *spec, int link, int report)
{
	static const char *const env[] = {"PATH=/usr/bin:/bin", "HOME=/", "TMPDIR=/dev/shm", NULL};
	sigset_t none;
	int failed;

	sigemptyset(&none);
	for (int signo = 1; signo < NSIG; signo++)
		signal(signo, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	send_note(link, NOTE_KERNEL, 0, "");
	for (size_t i = 0; i < spec->fd_count; i++)
		if (dup2(SAFE_FD + 1 + (int)i, (int)i) < 0)
			goto fail;
	/*
	 * Up to 6.12 UML counts the random gap between its image and the heap as memory of the guest ("exec-shield
	 * gap", arch/um/kernel/um_arch.c): up to 1 GB of page structures, which a small machine does not have.
	 */
	personality(PER_LINUX | ADDR_NO_RANDOMIZE);
	if (chdir(spec->cwd) == 0)
		execve(spec->program, (char *const *)spec->argv, (char *const *)env);
fail:
	failed = errno;
	if (write(report, &failed, sizeof(failed)) < 0)
		_exit(126);
	_exit(127);
}

/* Forks the program and tells how that went. Its pid, or -1 (told already). */
static pid_t start_program(const struct sandbox_spec *spec, int link)
{
	int report[2], failed;
	pid_t pid;

	if (pipe2(report, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		send_note(link, NOTE_FAILED, errno, "cannot start a process");
		return -1;
	}
	if (pid == 0)
		run_program(spec, link, report[1]);
	close(report[1]);
	if (read(report[0], &failed, sizeof(failed)) == sizeof(failed)) {
		send_note(link, NOTE_FAILED, failed, "cannot run it");
		return -1;
	}
	close(report[0]);
	for (size_t i = 0; i < spec->fd_count; i++)
		close(SAFE_FD + 1 + (int)i);
	send_note(link, NOTE_RUNNING, 0, "");
	return pid;
}

/* Signals every child of this process (the kernel lists them; proc(5), task/TID/children). False: none is left. */
static bool kill_children(void)
{
	char path[64];
	cleanup_file FILE *f = NULL;
	bool any = false;
	int pid;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)syscall(SYS_gettid));
	f = fopen(path, "re");
	while (f && fscanf(f, "%d", &pid) == 1) {
		kill(pid, SIGKILL);
		any = true;
	}
	return any;
}

/* Without a PID namespace: kills the group, then all that was reparented here, until nothing is left. */
static void kill_group(pid_t program)
{
	kill(-program, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		kill_children();
}

/* Waits until the program ended (told) or the supervisor went away. */
static void keep(pid_t program, int link, int signals)
{
	struct pollfd p[2] = {{.fd = link, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
	struct signalfd_siginfo info;
	int status;
	pid_t pid;

	for (;;) {
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
			if (pid != program)
				continue;
			send_note(link, NOTE_EXIT, status, "");
			return;
		}
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return;
		if (p[0].revents) /* nobody writes to us: this is the end of file */
			return;
		while (read(signals, &info, sizeof(info)) == sizeof(info))
			if (info.ssi_signo == SIGTERM)
				return;
	}
}

/* Keeps the link and the program's descriptors, at SAFE_FD and on, and closes all others but 0, 1, 2. */
static int keep_only(int link, const struct sandbox_spec *spec)
{
	unsigned int last = SAFE_FD + (unsigned int)spec->fd_count;

	if (dup3(link, SAFE_FD, O_CLOEXEC) < 0)
		return -1;
	for (size_t i = 0; i < spec->fd_count; i++)
		if (dup3(spec->fds[i], SAFE_FD + 1 + (int)i, O_CLOEXEC) < 0)
			return -1;
	if (syscall(SYS_close_range, 3u, SAFE_FD - 1u, 0u) < 0)
		return -1;
	return (int)syscall(SYS_close_range, last + 1, ~0u, 0u);
}

static int keeper_signals(void)
{
	sigset_t set;

	sigfillset(&set);
	sigprocmask(SIG_SETMASK, &set, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Guests need many descriptors (hostfs) and must never leave core files of their memory. */
static void set_limits(void)
{
	struct rlimit files, core = {0, 0};

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	setrlimit(RLIMIT_CORE, &core);
}

static _Noreturn void keeper_main(const struct sandbox_spec *spec, int link, bool namespaces, uid_t uid,
				  gid_t gid)
{
	const char *failed = NULL;
	int signals;
	pid_t program;

	prctl(PR_SET_NAME, "uml-keeper");
	/* The namespace's pid 1 ignores what it has no handler for, but not a SIGKILL from outside (pid_namespaces(7)). */
	prctl(PR_SET_PDEATHSIG, namespaces ? SIGKILL : SIGTERM);
	if (keep_only(link, spec) < 0 || (signals = keeper_signals()) < 0) {
		send_note(link, NOTE_FAILED, errno, "cannot set up descriptors");
		_exit(1);
	}
	set_limits();
	if (namespaces)
		failed = build_walls(uid, gid, spec->memory);
	else
		prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (failed) {
		send_note(SAFE_FD, NOTE_WALLS, errno, failed);
		_exit(1);
	}
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	program = start_program(spec, SAFE_FD);
	if (program > 0)
		keep(program, SAFE_FD, signals);
	if (program > 0 && !namespaces)
		kill_group(program);
	_exit(0);
}

/* ---- in the supervisor ---- */

/* One note within the time; fills *sender. 1, 0 at end of file or time-out. */
static int receive_note(int link, int timeout_ms, struct note *note, pid_t *sender)
{
	struct pollfd p = {.fd = link, .events = POLLIN};
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(struct ucred))];
	} control;
	struct iovec iov = {note, sizeof(*note)};
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	struct cmsghdr *c;
	int ready;

	do {
		ready = poll(&p, 1, timeout_ms);
	} while (ready < 0 && errno == EINTR);
	if (ready <= 0 || recvmsg(link, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != sizeof(*note))
		return 0;
	note->text[sizeof(note->text) - 1] = '\0';
	*sender = 0;
	for (c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
		struct ucred credentials;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
			continue;
		memcpy(&credentials, CMSG_DATA(c), sizeof(credentials));
		*sender = credentials.pid;
	}
	return 1;
}

/* Takes the notes of a start. 0; -1 + err; 1 when walls could not be built (reason in sandbox->walls). */
static int await_start(struct sandbox *sandbox, const struct sandbox_spec *spec, struct error *err)
{
	struct note note;
	pid_t sender;

	while (receive_note(sandbox->link, START_TIMEOUT_MS, &note, &sender)) {
		switch (note.kind) {
		case NOTE_KERNEL:
			process_identify(sender, &sandbox->kernel);
			break;
		case NOTE_RUNNING:
			return 0;
		case NOTE_WALLS:
			snprintf(sandbox->walls, sizeof(sandbox->walls), "process-group: %s: %s", note.text,
				 strerror(note.code));
			return 1;
		case NOTE_FAILED:
			return error_errno(err, note.code, "cannot start %s: %s", spec->program, note.text);
		default:
			break;
		}
	}
	return error_set(err, ERROR_FAILED, "cannot start %s: the sandbox ended or did not answer",
			 spec->program);
}

/* One attempt, with or without namespaces; results as await_start(). Nothing is left unless 0. */
static int attempt(struct sandbox *sandbox, const struct sandbox_spec *spec, bool namespaces,
		   struct error *err)
{
	cleanup_close int ours = -1, theirs = -1;
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int pair[2], on = 1, result;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(err, errno, "cannot make a socket for the sandbox");
	ours = pair[0];
	theirs = pair[1];
	setsockopt(ours, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
	pid = (pid_t)syscall(SYS_clone, (namespaces ? NAMESPACES : 0) | SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0)
		keeper_main(spec, theirs, namespaces, uid, gid);
	if (pid < 0 && namespaces) {
		snprintf(sandbox->walls, sizeof(sandbox->walls), "process-group: user namespaces: %s",
			 strerror(errno));
		return 1;
	}
	if (pid < 0)
		return error_errno(err, errno, "cannot start a process for the sandbox");
	sandbox->keeper.pid = pid;
	sandbox->keeper.pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	sandbox->namespaces = namespaces;
	sandbox->link = steal_fd(&ours);
	close(steal_fd(&theirs));
	result = sandbox->keeper.pidfd < 0 ? error_errno(err, errno, "cannot watch the sandbox")
					   : await_start(sandbox, spec, err);
	if (result != 0)
		sandbox_kill(sandbox);
	return result;
}

int sandbox_start(struct sandbox *sandbox, const struct sandbox_spec *spec, struct error *err)
{
	int result = 1;

	if (spec->fd_count > SANDBOX_FDS_MAX)
		return error_set(err, ERROR_FAILED, "too many descriptors for a sandbox");
	*sandbox = (struct sandbox)SANDBOX_INIT;
	if (spec->no_namespaces)
		snprintf(sandbox->walls, sizeof(sandbox->walls), "process-group: asked for");
	else
		result = attempt(sandbox, spec, true, err);
	if (result == 0)
		snprintf(sandbox->walls, sizeof(sandbox->walls), "namespaces");
	return result == 1 ? attempt(sandbox, spec, false, err) : result;
}

void sandbox_reap(struct sandbox *sandbox, int *status)
{
	struct note note;
	pid_t sender;

	*status = SIGKILL;
	while (receive_note(sandbox->link, 0, &note, &sender))
		if (note.kind == NOTE_EXIT)
			*status = note.code;
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
}

/* The PID namespace of a process; 0 when it cannot be told. */
static ino_t pid_namespace(pid_t pid)
{
	char path[40];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/ns/pid", pid);
	return stat(path, &st) < 0 ? 0 : st.st_ino;
}

bool sandbox_contains(const struct sandbox *sandbox, pid_t pid)
{
	if (!sandbox->keeper.pid || pid <= 0)
		return false;
	if (!sandbox->namespaces)
		return getsid(pid) == sandbox->kernel.pid;
	ino_t inside = pid_namespace(sandbox->keeper.pid);

	return inside && pid_namespace(pid) == inside;
}

bool sandbox_namespaces_work(char *reason, size_t size)
{
	static const char *const argv[] = {"true", NULL};
	struct sandbox_spec spec = {.program = "/bin/true", .argv = argv, .cwd = "/", .memory = 1 << 20};
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
