/* Talking to a machine's supervisor over its control socket: what console, exec, copy, status and down are made of. */
#ifndef UML_LAB_MACHINE_CLIENT_H
#define UML_LAB_MACHINE_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include "uml-lab/base/error.h"
#include "uml-lab/base/str.h"
#include "uml-lab/machine/machine.h"

/* Connects to RUNTIME/control. A descriptor, or -1 + err: ERROR_STATE when nobody serves it. */
int machine_connect(const char *runtime, struct error *err);

/* The supervisor's status as JSON text (malloc'ed); waits at most timeout_ms. NULL + err. */
char *machine_status_json(int control, int timeout_ms, struct error *err);

/* What may be asked of a running machine; the texts are those of protocol.h. */
enum machine_request {
	MACHINE_REQUEST_FORWARD,
	MACHINE_REQUEST_IMPAIR,
	MACHINE_REQUEST_CAPTURE,
	MACHINE_REQUEST_STILL,
	MACHINE_REQUEST_DISK,
};

typedef void (*machine_state_fn)(void *arg, enum machine_state state, const char *detail);

/*
 * Watches until the machine reaches `until` (or READY with login: the console shows a login) or ends; tells every change.
 * 0; ERROR_FAILED with the machine's cause when it failed or ended before; ERROR_TIMEOUT naming what was waited for.
 * Machines may be watched side by side through machine_watch_start()/machine_watch_next().
 */
int machine_watch(int control, enum machine_state until, bool login, int timeout_ms, machine_state_fn fn, void *arg,
		  struct error *err);
/* Asks for STATE frames, without waiting. */
int machine_watch_start(int control, struct error *err);
/* After poll() said readable: takes the next STATE. 1 and outputs (detail malloc'ed), 0 when the supervisor closed, -1 + err. */
int machine_watch_next(int control, enum machine_state *state, char **detail, struct error *err);

/* Stops the machine and waits until its supervisor is gone. timeout_ms is for the guest's clean shutdown. */
int machine_stop(int control, bool force, int timeout_ms, struct error *err);
/* Asks for the same without waiting; STATE frames follow: machine_watch_next(). */
int machine_stop_start(int control, bool force, int timeout_ms, struct error *err);

/*
 * Runs a command in the guest with the caller's 0, 1 and 2; signals that the
 * caller gets (INT, TERM, HUP, QUIT, USR1, USR2, WINCH with a terminal) go to it.
 * The caller's terminal is put in raw mode for `terminal` and always restored.
 * Returns the exit status to give: the command's own, 128 + N when signal N killed it, 124 when timeout_ms (0: none) ran
 * out (the command is killed then), or -1 + err.
 */
struct machine_exec {
	const char *const *argv;	/* NULL-terminated; NULL: root's login shell */
	const char *cwd;		/* NULL: root's home */
	const char *const *env;		/* NULL-terminated, more variables; NULL: none */
	bool terminal;
	bool no_stdin;			/* stdin is at its end at once */
	int64_t timeout_ms;
};
int machine_exec(int control, const struct machine_exec *exec, struct error *err);

/* What a command in the guest wrote and how it ended. Initialise with { .max = … }, free with machine_capture_free(). */
struct machine_capture {
	size_t max;		/* bytes kept of each stream; what comes after is read and dropped */
	const volatile int *cancel;	/* becomes non-zero by a signal: the command is killed; may be NULL */
	struct strbuf out, err;
	bool cut;		/* something was dropped */
	int status;		/* as waitpid() gives it */
};
/*
 * The same without input, the output kept in memory. 0 when the command ended by itself; ERROR_TIMEOUT when
 * it had to be killed, also by cancel (what it wrote until then is in *capture), ERROR_STATE when the machine
 * went away.
 */
int machine_exec_capture(int control, const struct machine_exec *exec, struct machine_capture *capture,
			 struct error *err);
void machine_capture_free(struct machine_capture *capture);

/*
 * One request to the supervisor that is a line of text (FRAME_FORWARD and the like), and its answer, "" when there is
 * nothing to tell (malloc'ed). NULL + err: what the supervisor says against it, or it did not answer within 10 s.
 */
char *machine_request(int control, enum machine_request type, const char *text, struct error *err);
/* The same in two halves, so that several machines can be asked at once. The answer is waited for at most timeout_ms. */
int machine_request_start(int control, enum machine_request type, const char *text, struct error *err);
char *machine_request_finish(int control, int timeout_ms, struct error *err);

/* The login console on the caller's terminal until Ctrl-] (detached: 0) or the machine ended (0). -1 + err. */
int machine_console(int control, uint32_t replay, bool read_only, struct error *err);

/*
 * Copies files and folders as cp -a does, between host and guest: to_guest puts SRC (host) as DST or into DST when that is a
 * folder. What comes out of a guest is hostile: nothing is written outside DST, no set-id bits, devices or absolute links.
 */
int machine_copy(int control, bool to_guest, const char *source, const char *destination, struct error *err);

#endif
