/*
 * Makes a running process do system calls, each of its threads, by ptrace: what a mistake in it would let an attacker do.
 *
 *	inject PID read|write|make|remove PATH | socket | unix | connect | exec PATH | signal PID
 *
 * Prints a line for each thread: its number and what the call gave, "ok" or the error's name. A wall that stands gives an error.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define BELOW_STACK 16384 /* bytes below the stack pointer that nobody uses while it waits in a system call */

struct call {
	long number, args[4];
	const char *path; /* becomes the argument at path_at */
	int path_at;
};

static void put(pid_t tid, unsigned long at, const char *text)
{
	for (size_t i = 0; i <= strlen(text); i += sizeof(long)) {
		long word = 0;

		strncpy((char *)&word, text + i, sizeof(word));
		ptrace(PTRACE_POKEDATA, tid, at + i, word);
	}
}

/* The thread is stopped in, or behind, a system call. */
static long do_call(pid_t tid, const struct call *c)
{
	struct user_regs_struct saved, regs;
	unsigned long at;
	int status;

	if (ptrace(PTRACE_GETREGS, tid, 0, &saved) < 0)
		return -errno;
	regs = saved;
	at = (saved.rsp - BELOW_STACK) & ~7ul;
	regs.rdi = (unsigned long)c->args[0];
	regs.rsi = (unsigned long)c->args[1];
	regs.rdx = (unsigned long)c->args[2];
	regs.r10 = (unsigned long)c->args[3];
	if (c->path) {
		put(tid, at, c->path);
		*(c->path_at ? &regs.rsi : &regs.rdi) = at;
	}
	regs.rip -= 2; /* the system call's instruction */
	regs.rax = (unsigned long)c->number;
	regs.orig_rax = ~0ul;
	ptrace(PTRACE_SETREGS, tid, 0, &regs);
	ptrace(PTRACE_SINGLESTEP, tid, 0, 0);
	waitpid(tid, &status, __WALL);
	if (!WIFSTOPPED(status))
		return -ESRCH;
	ptrace(PTRACE_GETREGS, tid, 0, &regs);
	ptrace(PTRACE_SETREGS, tid, 0, &saved);
	return (long)regs.rax;
}

static int try_thread(pid_t tid, const struct call *c)
{
	int status;
	long result;

	if (ptrace(PTRACE_SEIZE, tid, 0, 0) < 0 || ptrace(PTRACE_INTERRUPT, tid, 0, 0) < 0) {
		perror("ptrace");
		return 1;
	}
	waitpid(tid, &status, __WALL);
	result = do_call(tid, c);
	ptrace(PTRACE_DETACH, tid, 0, 0);
	printf("%d %s\n", tid, result < 0 ? strerrorname_np((int)-result) : "ok");
	return 0;
}

static struct call parse(char **argv)
{
	const char *what = argv[2];

	if (!strcmp(what, "read"))
		return (struct call){SYS_openat, {AT_FDCWD, 0, O_RDONLY}, argv[3], 1};
	if (!strcmp(what, "write"))
		return (struct call){SYS_openat, {AT_FDCWD, 0, O_WRONLY}, argv[3], 1};
	if (!strcmp(what, "make"))
		return (struct call){SYS_openat, {AT_FDCWD, 0, O_WRONLY | O_CREAT | O_EXCL, 0600}, argv[3], 1};
	if (!strcmp(what, "remove"))
		return (struct call){SYS_unlinkat, {AT_FDCWD, 0, 0}, argv[3], 1};
	if (!strcmp(what, "exec"))
		return (struct call){SYS_execve, {0, 0, 0}, argv[3], 0};
	if (!strcmp(what, "signal"))
		return (struct call){SYS_kill, {atoi(argv[3]), SIGTERM}, NULL, 0};
	if (!strcmp(what, "socket"))
		return (struct call){SYS_socket, {AF_INET, SOCK_STREAM, 0}, NULL, 0};
	if (!strcmp(what, "unix"))
		return (struct call){SYS_socket, {AF_UNIX, SOCK_DGRAM, 0}, NULL, 0};
	if (!strcmp(what, "connect"))
		return (struct call){SYS_connect, {-1, 0, 0}, NULL, 0};
	exit(2);
}

int main(int argc, char **argv)
{
	struct call c;
	struct dirent *e;
	char path[64];
	DIR *tasks;

	if (argc < 3)
		return 2;
	c = parse(argv);
	snprintf(path, sizeof(path), "/proc/%s/task", argv[1]);
	tasks = opendir(path);
	while (tasks && (e = readdir(tasks)))
		if (e->d_name[0] != '.' && try_thread(atoi(e->d_name), &c))
			return 1;
	return !tasks;
}
