/*
 * The sandbox: a process tree for one guest that lives and dies as one.
 *
 * Where user namespaces are allowed: a keeper process as pid 1 of new user,
 * PID, mount, IPC, network and UTS namespaces, no_new_privs, no capabilities,
 * a /dev/shm of its own (executable, sized for the guest) and a /proc of its
 * own. Otherwise the keeper only holds the process group together, and
 * sandbox.walls says why.
 */
#ifndef UML_LAB_MACHINE_SANDBOX_H
#define UML_LAB_MACHINE_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "uml-lab/base/child.h"
#include "uml-lab/base/error.h"

struct sandbox_spec {
	const char *program;		/* absolute path */
	const char *const *argv;
	const char *cwd;		/* the guest's runtime folder */
	const int *fds;			/* become 0, 1, 2, … of the program; all below 256 */
	size_t fd_count;
	uint64_t memory;		/* bytes of guest memory: sizes /dev/shm */
	bool no_namespaces;		/* does not even try: for tests, and for $UML_LAB_SANDBOX=process-group */
};

struct sandbox {
	struct child keeper;		/* its pidfd is readable when the whole tree is gone */
	int link;			/* to the keeper: closing it ends the tree; -1 while there is none */
	bool namespaces;
	struct process_id kernel;	/* the program, as seen from the host */
	char walls[256];		/* "namespaces", or "process-group: why" */
};

#define SANDBOX_INIT { .keeper = CHILD_INIT, .link = -1 }

/*
 * Starts the program in a sandbox; returns when it was exec'ed. The caller's
 * descriptors stay its own. -1 + err: it could not be started; nothing is left.
 */
int sandbox_start(struct sandbox *sandbox, const struct sandbox_spec *spec, struct error *err);

/*
 * After keeper.pidfd became readable: reaps. *status is the program's wait
 * status, or that of SIGKILL when the keeper was killed with it. All processes are gone then.
 */
void sandbox_reap(struct sandbox *sandbox, int *status);

/* Kills the whole tree, never its main process alone, and reaps. Nothing running is fine. */
void sandbox_kill(struct sandbox *sandbox);

/* Whether a process (pid as seen here) is one of the guest's. */
bool sandbox_contains(const struct sandbox *sandbox, pid_t pid);

/*
 * Whether unprivileged user namespaces work here; reason (of size bytes) says
 * why not. Tries it for real.
 */
bool sandbox_namespaces_work(char *reason, size_t size);

#endif
