/*
 * The sandbox: a process tree for one guest that lives and dies as one, and reaches only what it was given.
 *
 * Where user namespaces are allowed: a keeper process as pid 1 of new user, PID, mount, IPC, network and UTS namespaces,
 * and a root file system of its own that holds the program with its libraries, the paths of the spec, four device nodes,
 * a /dev/shm sized for the guest, and nothing else of the host. Otherwise the keeper holds the process group together, and Landlock
 * alone keeps files and sockets closed. In both: no capabilities, no_new_privs, a system call filter, limits.
 * sandbox.walls says which walls stand.
 */
#ifndef UML_LAB_MACHINE_SANDBOX_H
#define UML_LAB_MACHINE_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "uml-lab/base/child.h"
#include "uml-lab/base/confine.h"
#include "uml-lab/base/error.h"
#include "uml-lab/machine/cgroup.h"

#define SANDBOX_PATHS_MAX 64
/* In the guest's folder, made by the caller: where the program may make files (UML: its management console's socket). */
#define SANDBOX_WRITABLE "uml"
/* spec.folder, as the program sees it where there are namespaces. */
#define SANDBOX_FOLDER "/guest"

/* A file or folder of the host that the program needs besides its binary; it sees it under the same path. */
struct sandbox_path {
	const char *path;	/* absolute; symbolic links in it are followed now, by us */
	unsigned int access;	/* enum confine_access: more than CONFINE_READ mounts it writable */
};

struct sandbox_spec {
	const char *program;		/* absolute path of an ELF program */
	const char *const *argv;
	/* Its current folder, 0700: it connects to sockets in it, and makes files in its SANDBOX_WRITABLE; NULL: none. */
	const char *folder;
	const struct sandbox_path *paths;
	size_t path_count;
	const int *fds;			/* become 0, 1, 2, … of the program; all below 256 */
	size_t fd_count;
	uint64_t memory;		/* bytes of guest memory: sizes /dev/shm, or the file in its place */
	const struct cgroup *group;	/* joined by all of the tree; NULL: none */
	int nice;			/* added to its priority, 0: none */
	bool namespaces_only;		/* fails where they can't be had */
	bool no_namespaces;		/* does not even try: for tests, and for $UML_LAB_SANDBOX=process-group */
};

struct sandbox {
	struct child keeper;		/* its pidfd is readable when the whole tree is gone */
	int link;			/* to the keeper: closing it ends the tree; -1 while there is none */
	bool namespaces;
	struct process_id kernel;	/* the program, as seen from the host */
	ino_t pid_namespace;		/* of the program, 0 when unknown */
	bool ended;			/* the keeper told the program's status before it was reaped */
	int status;
	char walls[256];		/* "namespaces, seccomp, Landlock 7 (…)", or "process-group: why; seccomp, …" */
};

#define SANDBOX_INIT { .keeper = CHILD_INIT, .link = -1 }

/* Bytes that a guest of this memory may take with all around it; as many processes as it can hold. */
uint64_t sandbox_memory(uint64_t memory);
uint64_t sandbox_processes(uint64_t memory);

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
 * Accepts a connection (close-on-exec, non-blocking) from the guest's processes alone; others are logged with the socket's path.
 * The caller's descriptor, or -1: there was none, or it was somebody else's.
 */
int sandbox_accept(const struct sandbox *sandbox, int listener, const char *path);

/*
 * Whether unprivileged user namespaces work here; reason (of size bytes) says
 * why not. Tries it for real.
 */
bool sandbox_namespaces_work(char *reason, size_t size);

#endif
