/*
 * How it works: fork, then in the child nothing but async-signal-safe calls:
 * the wanted descriptors are first duplicated out of the way (numbers from
 * SAFE_FD on), then put in place, and everything else is marked close-on-exec in
 * one go (close_range). A pipe that is close-on-exec tells the parent whether
 * exec worked: end of file means it did, an errno that it did not.
 */
#include "uml-lab/base/child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/loop.h"
#include "uml-lab/base/str.h"

#define CHILD_FDS_MAX 256
#define SAFE_FD 512	/* above every number a spec may ask for */

static void reset_signals(void)
{
	sigset_t none;

	for (int signo = 1; signo < NSIG; signo++)
		signal(signo, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Puts the descriptors in place; all others but 0…2 become close-on-exec. 0 or -1 with errno. */
static int place_fds(const struct child_spec *spec)
{
	int copies[CHILD_FDS_MAX];
	bool stdin_named = false;

	for (size_t i = 0; i < spec->fd_count; i++) {
		copies[i] = fcntl(spec->fds[i].parent, F_DUPFD_CLOEXEC, SAFE_FD);
		if (copies[i] < 0)
			return -1;
		stdin_named |= spec->fds[i].child == 0;
	}
	if (spec->null_stdin && !stdin_named) {
		int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

		if (null < 0 || dup2(null, 0) < 0)
			return -1;
	}
	if (syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC) < 0)
		return -1;
	for (size_t i = 0; i < spec->fd_count; i++)
		if (dup2(copies[i], spec->fds[i].child) < 0)
			return -1;
	return 0;
}

static int prepare(const struct child_spec *spec, pid_t parent)
{
	reset_signals();
	if (spec->new_session && setsid() < 0)
		return -1;
	if (spec->death_signal) {
		if (prctl(PR_SET_PDEATHSIG, spec->death_signal) < 0)
			return -1;
		if (getppid() != parent)	/* it died before the call above */
			_exit(127);
	}
	if (spec->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	if (spec->cwd && chdir(spec->cwd) < 0)
		return -1;
	return place_fds(spec);
}

static _Noreturn void run_child(const struct child_spec *spec, pid_t parent, int report)
{
	int failed;

	report = fcntl(report, F_DUPFD_CLOEXEC, SAFE_FD + CHILD_FDS_MAX);
	if (report >= 0 && prepare(spec, parent) == 0) {
		char *const *argv = (char *const *)spec->argv;

		if (spec->env)
			execvpe(argv[0], argv, (char *const *)spec->env);
		else
			execvp(argv[0], argv);
	}
	failed = errno;
	if (write(report, &failed, sizeof(failed)) < 0)
		_exit(126);
	_exit(127);
}

int child_spawn(struct child *child, const struct child_spec *spec, struct error *err)
{
	cleanup_close int report_in = -1, report_out = -1;
	int pipes[2], failed = 0, pidfd;
	pid_t parent = getpid(), pid;
	ssize_t got;

	if (spec->fd_count > CHILD_FDS_MAX)
		return error_set(err, ERROR_FAILED, "cannot start %s: more than %d descriptors", spec->argv[0],
				 CHILD_FDS_MAX);
	if (pipe2(pipes, O_CLOEXEC) < 0)
		return error_errno(err, errno, "cannot start %s", spec->argv[0]);
	report_in = pipes[0];
	report_out = pipes[1];
	pid = fork();
	if (pid < 0)
		return error_errno(err, errno, "cannot start %s", spec->argv[0]);
	if (pid == 0)
		run_child(spec, parent, report_out);
	close(steal_fd(&report_out));
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0) {
		error_errno(err, errno, "cannot watch %s", spec->argv[0]);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		return -1;
	}
	do {
		got = read(report_in, &failed, sizeof(failed));
	} while (got < 0 && errno == EINTR);
	if (got == sizeof(failed)) {
		waitpid(pid, NULL, 0);
		close(pidfd);
		return error_errno(err, failed, "cannot start %s", spec->argv[0]);
	}
	child->pid = pid;
	child->pidfd = pidfd;
	return 0;
}

int child_wait(struct child *child, int timeout_ms, int *status, struct error *err)
{
	struct pollfd p = {.fd = child->pidfd, .events = POLLIN};
	int64_t end = loop_now_ms() + timeout_ms;
	int result, ended;

	if (!child->pid)
		return error_set(err, ERROR_FAILED, "there is no process to wait for");
	do {
		int64_t left = end - loop_now_ms();

		ended = poll(&p, 1, timeout_ms < 0 ? -1 : left > 0 ? (int)left : 0);
	} while (ended < 0 && errno == EINTR);
	if (ended < 0)
		return error_errno(err, errno, "cannot wait for process %d", child->pid);
	if (ended == 0)
		return error_set(err, ERROR_TIMEOUT, "process %d did not end within %d ms", child->pid, timeout_ms);
	while (waitpid(child->pid, &result, 0) < 0)
		if (errno != EINTR)
			return error_errno(err, errno, "cannot wait for process %d", child->pid);
	close(child->pidfd);
	*child = (struct child)CHILD_INIT;
	if (status)
		*status = result;
	return 0;
}

void child_kill(struct child *child, int signo)
{
	if (child->pid)
		syscall(SYS_pidfd_send_signal, child->pidfd, signo, NULL, 0);
}

void child_end(struct child *child, int grace_ms)
{
	if (!child->pid)
		return;
	child_kill(child, SIGTERM);
	if (child_wait(child, grace_ms, NULL, NULL) == 0)
		return;
	child_kill(child, SIGKILL);
	child_wait(child, -1, NULL, NULL);
}

/* Collects at most max bytes until end of file or the deadline; what is beyond max is read and dropped. */
static int collect(int fd, size_t max, int64_t deadline, struct strbuf *out, const char *program, struct error *err)
{
	char chunk[8192];

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left = deadline < 0 ? -1 : deadline - loop_now_ms();
		int ready = poll(&p, 1, deadline < 0 ? -1 : left > 0 ? (int)left : 0);
		ssize_t got;

		if (ready < 0 && errno == EINTR)
			continue;
		if (ready == 0)
			return error_set(err, ERROR_TIMEOUT, "%s did not end in time", program);
		got = ready < 0 ? -1 : read(fd, chunk, sizeof(chunk));
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return error_errno(err, errno, "cannot read what %s prints", program);
		if (got == 0)
			return 0;
		if (out->length + (size_t)got > max)
			got = (ssize_t)(max - out->length);
		strbuf_add(out, chunk, (size_t)got);
	}
}

int child_capture(const struct child_spec *spec, int timeout_ms, size_t max, bool err_too, char **output,
		  int *status, struct error *err)
{
	cleanup_strbuf struct strbuf text = STRBUF_INIT;
	cleanup_close int in = -1, out = -1;
	struct child_fd fds[CHILD_FDS_MAX];
	struct child_spec captured = *spec;
	struct child child = CHILD_INIT;
	int64_t deadline = timeout_ms < 0 ? -1 : loop_now_ms() + timeout_ms;
	int pipes[2];

	if (spec->fd_count + 2 > CHILD_FDS_MAX)
		return error_set(err, ERROR_FAILED, "cannot start %s: too many descriptors", spec->argv[0]);
	if (pipe2(pipes, O_CLOEXEC) < 0)
		return error_errno(err, errno, "cannot start %s", spec->argv[0]);
	in = pipes[0];
	out = pipes[1];
	if (spec->fd_count)
		memcpy(fds, spec->fds, spec->fd_count * sizeof(*fds));
	fds[captured.fd_count++] = (struct child_fd){out, 1};
	if (err_too)
		fds[captured.fd_count++] = (struct child_fd){out, 2};
	captured.fds = fds;
	if (child_spawn(&child, &captured, err) < 0)
		return -1;
	close(steal_fd(&out));
	if (collect(in, max, deadline, &text, spec->argv[0], err) < 0 ||
	    child_wait(&child, deadline < 0 ? -1 : timeout_ms, status, err) < 0) {
		child_end(&child, 0);
		return -1;
	}
	char *all = strbuf_steal(&text, err);

	if (!all)
		return -1;
	*output = all;
	return 0;
}

char *child_describe_status(int status, char *buf, size_t size)
{
	if (WIFEXITED(status))
		snprintf(buf, size, "exited with status %d", WEXITSTATUS(status));
	else if (WIFSIGNALED(status))
		snprintf(buf, size, "was killed by SIG%s", sigabbrev_np(WTERMSIG(status)) ?: "?");
	else
		snprintf(buf, size, "ended with wait status 0x%x", (unsigned)status);
	return buf;
}

struct stat_fields {
	char state;
	unsigned long long start;
	int cpu;
};

/* Fields 3, 22 and 39 of /proc/PID/stat (proc(5)). 0 or -1 with errno. */
static int read_stat(pid_t pid, struct stat_fields *fields)
{
	char path[32], text[1024], *after;
	cleanup_close int fd = -1;
	ssize_t got;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	got = read(fd, text, sizeof(text) - 1);
	if (got <= 0) {
		errno = ESRCH;
		return -1;
	}
	text[got] = '\0';
	/* The name, in parentheses, may hold anything: the fields start after the last ')'. */
	after = strrchr(text, ')');
	if (!after || sscanf(after + 1,
			     " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu"
			     " %*u %*d %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*u %*d %d",
			     &fields->state, &fields->start, &fields->cpu) != 3) {
		errno = EINVAL;
		return -1;
	}
	return 0;
}

int process_identify(pid_t pid, struct process_id *id)
{
	struct stat_fields fields;

	if (pid <= 0 || read_stat(pid, &fields) < 0)
		return -1;
	*id = (struct process_id){pid, fields.start};
	return 0;
}

bool process_alive(const struct process_id *id)
{
	struct stat_fields fields;

	return id->pid > 0 && read_stat(id->pid, &fields) == 0 && fields.start == id->start && fields.state != 'Z' &&
	       fields.state != 'X';
}

int process_last_cpu(pid_t pid)
{
	struct stat_fields fields;

	return read_stat(pid, &fields) < 0 ? -1 : fields.cpu;
}

void process_for_each_child(pid_t pid, process_fn fn, void *arg)
{
	char path[64];
	cleanup_file FILE *f = NULL;
	int child;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
	f = fopen(path, "re");
	while (f && fscanf(f, "%d", &child) == 1)
		fn(arg, child);
}
