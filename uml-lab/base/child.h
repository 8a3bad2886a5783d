/*
 * Child processes: started with exactly the descriptors they are meant to
 * have, watched by pidfd, and named by (pid, start time), since a pid alone may
 * be somebody else's a moment later.
 */
#ifndef UML_LAB_BASE_CHILD_H
#define UML_LAB_BASE_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "uml-lab/base/error.h"

/* Gives the child descriptor `parent` as its number `child`; all others but 0, 1, 2 are closed in it. */
struct child_fd {
	int parent;
	int child;
};

struct child_spec {
	const char *const *argv;	/* NULL-terminated; argv[0] is looked up in PATH when it has no slash */
	const char *const *env;		/* NULL-terminated; NULL: the parent's */
	const char *cwd;		/* NULL: the parent's */
	const struct child_fd *fds;	/* may name 0, 1, 2; those not named stay the parent's */
	size_t fd_count;
	bool null_stdin;		/* 0 is /dev/null unless named in fds */
	bool new_session;		/* setsid() */
	int death_signal;		/* PR_SET_PDEATHSIG, 0 for none */
	bool no_new_privs;
};

struct child {
	pid_t pid;	/* 0 while there is none */
	int pidfd;	/* readable when it ended; -1 while there is none */
};

#define CHILD_INIT { .pid = 0, .pidfd = -1 }

/*
 * Starts a program. An exec that fails (no such program, not executable) is
 * told here, as the error of this call. Signals are reset to default and
 * unblocked in the child.
 */
int child_spawn(struct child *child, const struct child_spec *spec, struct error *err);

/* Waits at most timeout_ms (-1: for ever). 0 and *status as waitpid() gives it; -1 + err (ERROR_TIMEOUT). Reaps. */
int child_wait(struct child *child, int timeout_ms, int *status, struct error *err);

/* Signals the child if it is still there. */
void child_kill(struct child *child, int signo);

/* SIGTERM, grace_ms, SIGKILL, reaped. Never fails; a child that is not there is fine. */
void child_end(struct child *child, int grace_ms);

/* Runs to completion with stdout (and stderr when err_too) captured, at most max bytes kept. */
int child_capture(const struct child_spec *spec, int timeout_ms, size_t max, bool err_too,
		  char **output, int *status, struct error *err);

/* "exited with status 3", "was killed by SIGSEGV" into buf, returned. */
char *child_describe_status(int status, char *buf, size_t size);

/* A process named so that pid reuse cannot fool us: start in clock ticks since boot (field 22 of /proc/PID/stat). */
struct process_id {
	pid_t pid;
	uint64_t start;
};

/* Fills id for a live process. 0, or -1 when there is none (ESRCH in errno). */
int process_identify(pid_t pid, struct process_id *id);
/* Whether that very process still runs (a zombie does not). */
bool process_alive(const struct process_id *id);
/* The processor on which a process's main thread runs, or ran last. -1 with errno: there is no such process. */
int process_last_cpu(pid_t pid);

typedef void (*process_fn)(void *arg, pid_t pid);
/* Calls fn for each child of a process's main thread (proc(5), task/TID/children); for none if there is no such process. */
void process_for_each_child(pid_t pid, process_fn fn, void *arg);

#endif
