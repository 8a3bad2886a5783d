/* The parts of the sandbox (sandbox.h):
 *
 *	sandbox.c		in the supervisor: start, notes, end
 *	sandbox_keeper.c	the keeper: puts up its walls, starts the program, waits
 *	sandbox_root.c		the root file system of the namespaced sandbox
 *	sandbox_program.c	the walls of the program itself, and exec
 *	sandbox_ask.c		without namespaces: connect() and temporary files, in the program's place
 */
#ifndef UML_LAB_MACHINE_SANDBOX_INTERNAL_H
#define UML_LAB_MACHINE_SANDBOX_INTERNAL_H

#include "uml-lab/base/confine.h"
#include "uml-lab/base/str.h"
#include "uml-lab/machine/sandbox.h"

#define SAFE_FD         512 /* where the keeper parks the descriptors it keeps */
#define SANDBOX_FDS_MAX 16

/* All that is worked out before the keeper is cloned. */
struct sandbox_plan {
	const struct sandbox_spec *spec;
	bool namespaces;
	struct strv libraries;		/* and the interpreter */
	struct confine_filter *filter;
	uid_t uid;
	gid_t gid;
};

enum note_kind {
	NOTE_KERNEL = 'K',	/* sent by the program's process: its credentials are what counts */
	NOTE_RUNNING = 'R',	/* exec worked; text: the walls of the program */
	NOTE_WALLS = 'W',	/* a wall could not be built: code, text */
	NOTE_FAILED = 'F',	/* exec or what comes before it failed: code, text */
	NOTE_EXIT = 'X',	/* code is the wait status */
};

/* One packet on the link, from the keeper to the supervisor. */
struct note {
	int kind;
	int code;
	char text[CONFINE_WALLS_MAX];
};

/* fd: goes along as SCM_RIGHTS; -1: none. */
void send_note(int link, enum note_kind kind, int code, const char *text, int fd);
/*
 * One note within the time. *sender: the process, where SO_PASSCRED is on; *fd: what came along, -1: nothing; both may be NULL (a
 * descriptor is closed then). 1; 0 at end of file or time-out.
 */
int receive_note(int link, int timeout_ms, struct note *note, pid_t *sender, int *fd);

/* sandbox_keeper.c: the body of the keeper's process. */
_Noreturn void keeper_main(const struct sandbox_plan *plan, int link);

/* sandbox_root.c: builds the root and makes it this process's. NULL, or what could not be done (errno says why). */
const char *root_build(const struct sandbox_plan *plan);

/*
 * sandbox_program.c: becomes the program. What happens goes to `report`, a socket: a failure as NOTE_FAILED, else the
 * walls as NOTE_RUNNING (with the listener of "connect-ask", if there is one), and end of file at exec.
 */
_Noreturn void program_run(const struct sandbox_plan *plan, int link, int report);
/* The filter for it. NULL + err. */
struct confine_filter *program_filter(bool namespaces, struct error *err);

/* sandbox_ask.c: a file in memory of that size, which never changes. Descriptor, or -1 with errno. */
int memory_file(uint64_t size);
/* Answers one request of the listener; folder is that of the spec, opened, memory a memory_file(). */
void ask_answer(int listener, int folder, int memory);

/* sandbox_root.c: what a guest with so much memory may take of a tmpfs. Bytes. */
uint64_t shm_size(uint64_t memory);

#endif
