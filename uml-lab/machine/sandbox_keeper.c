/*
 * The keeper: pid 1 of the namespaced sandbox, otherwise the subreaper of the tree.
 *
 * It puts up the walls around itself, forks the program, and waits for its end, or the end of the link to the supervisor. The
 * program cannot look into it: it is not dumpable. Once the program has started, whose walls needed them, it
 * has no capabilities left.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/machine/sandbox_internal.h"

#define HOST_NAME "uml-lab"
#define EXEC_TIMEOUT_MS 10000

struct keeper {
	const struct sandbox_plan *plan;
	int signals;
	int folder;	/* the guest's folder, without namespaces; -1 */
	int memory;	/* the file for its memory, likewise */
	int listener;	/* of what the program asks us to do, likewise */
	pid_t program;
};

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

/* NULL, or what could not be done (errno says why). */
static const char *build_walls(const struct sandbox_plan *plan)
{
	const char *failed;

	if (map_identity(plan->uid, plan->gid) < 0)
		return "mapping the user";
	failed = root_build(plan);
	if (!failed && sethostname(HOST_NAME, strlen(HOST_NAME)) < 0)
		failed = "setting the host name";
	return failed;
}

/* Without namespaces: holds the tree together, and connects for it. */
static const char *hold_group(struct keeper *k)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	k->memory = memory_file(shm_size(k->plan->spec->memory));
	if (k->memory < 0)
		return "making the guest's memory";
	if (!k->plan->spec->folder)
		return NULL;
	k->folder = open(k->plan->spec->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return k->folder < 0 ? "opening the guest's folder" : NULL;
}

/* Forks the program and tells how that went. Its pid, or -1 (told already). */
static pid_t start_program(struct keeper *k, int link)
{
	struct note note, running = {.text = ""};
	int report[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, report) < 0 || (pid = fork()) < 0) {
		send_note(link, NOTE_FAILED, errno, "starting a process", -1);
		return -1;
	}
	if (pid == 0)
		program_run(k->plan, link, report[1]);
	close(report[1]);
	while (receive_note(report[0], EXEC_TIMEOUT_MS, &note, NULL,
			    k->listener < 0 && !k->plan->namespaces ? &k->listener : NULL)) {
		if (note.kind == NOTE_FAILED) {
			send_note(link, NOTE_FAILED, note.code, note.text, -1);
			return -1;
		}
		running = note;
	}
	close(report[0]);
	for (size_t i = 0; i < k->plan->spec->fd_count; i++)
		close(SAFE_FD + 1 + (int)i);
	if (running.kind != NOTE_RUNNING) { /* it died before it could say anything */
		send_note(link, NOTE_FAILED, ECHILD, "starting it", -1);
		return -1;
	}
	send_note(link, NOTE_RUNNING, 0, running.text, -1);
	return pid;
}

static void kill_child(void *arg, pid_t pid)
{
	(void)arg;
	kill(pid, SIGKILL);
}

/* Without a PID namespace: kills the group, which nobody can leave, then all that was reparented here. */
static void kill_group(pid_t program)
{
	kill(-program, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR) {
		kill(-program, SIGKILL);
		process_for_each_child(getpid(), kill_child, NULL);
	}
}

/* Reaps; tells the program's status. True: it has ended. */
static bool reap(pid_t program, int link)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid != program)
			continue;
		send_note(link, NOTE_EXIT, status, "", -1);
		return true;
	}
	return false;
}

/* Until the program ended or the supervisor went away. */
static void keep(struct keeper *k, int link)
{
	struct pollfd p[3] = {{.fd = link, .events = POLLIN},
			      {.fd = k->signals, .events = POLLIN},
			      {.fd = k->listener, .events = POLLIN}};
	struct signalfd_siginfo info;

	while (!reap(k->program, link)) {
		if (poll(p, ARRAY_SIZE(p), -1) < 0 && errno != EINTR)
			return;
		if (p[0].revents) /* nothing is ever said there */
			return;
		if (p[2].revents & POLLIN)
			ask_answer(k->listener, k->folder, k->memory);
		else if (p[2].revents) /* nobody with the filter is left */
			p[2].fd = -1;
		while (read(k->signals, &info, sizeof(info)) == sizeof(info))
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

_Noreturn void keeper_main(const struct sandbox_plan *plan, int link)
{
	struct keeper k = {.plan = plan, .folder = -1, .memory = -1, .listener = -1};
	const char *failed;

	prctl(PR_SET_NAME, "uml-keeper");
	/* A machine runs without its group too, if that has gone away. */
	if (plan->spec->group && plan->spec->group->folder)
		cgroup_join(plan->spec->group);
	if (plan->spec->nice)
		setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + plan->spec->nice);
	/* The namespace's pid 1 ignores what it has no handler for, but not a SIGKILL from outside (pid_namespaces(7)). */
	prctl(PR_SET_PDEATHSIG, plan->namespaces ? SIGKILL : SIGTERM);
	if (keep_only(link, plan->spec) < 0 || (k.signals = keeper_signals()) < 0) {
		send_note(link, NOTE_FAILED, errno, "setting up descriptors", -1);
		_exit(1);
	}
	failed = plan->namespaces ? build_walls(plan) : hold_group(&k);
	if (failed) {
		send_note(SAFE_FD, plan->namespaces ? NOTE_WALLS : NOTE_FAILED, errno, failed, -1);
		_exit(1);
	}
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_DUMPABLE, 0);
	k.program = start_program(&k, SAFE_FD);
	confine_capabilities(NULL);
	if (k.program > 0)
		keep(&k, SAFE_FD);
	if (k.program > 0 && !plan->namespaces)
		kill_group(k.program);
	_exit(0);
}
