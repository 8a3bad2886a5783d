/* A process of ours that serves a machine and is started again when it dies: uml-netplug, uml-hostfs. */
#ifndef UML_LAB_MACHINE_DAEMON_H
#define UML_LAB_MACHINE_DAEMON_H

#include <stdbool.h>
#include <stdint.h>

#include "uml-lab/base/child.h"
#include "uml-lab/base/error.h"
#include "uml-lab/base/loop.h"
#include "uml-lab/base/str.h"

struct supervisor;

/* What one is like; const, one for each kind. It gets its end of a SEQPACKET socketpair as descriptor 3. */
struct daemon_kind {
	const char *name;		/* of the program, one of ours (dirs_own()), and in the log */
	const char *title;		/* in a note to people on the console */
	const char *lost;		/* what the machine goes on without when it is given up: "network" */
	bool nonblocking;		/* both ends of the socketpair */
	bool last_words;		/* what it still said counts after its death: on_control runs once more */
	int delay_ms;			/* before another start after a quick death; doubled with each */
	/* The words after the program's name. 0, or -1 + err. */
	int (*arguments)(struct supervisor *sv, struct strv *argv, struct error *err);
	loop_fd_fn on_control;		/* arg: the supervisor */
	void (*gone)(struct supervisor *sv);	/* its connection is closed: what it knew is forgotten */
	void (*given_up)(struct supervisor *sv);	/* no other is started; may be NULL */
};

struct daemon {
	const struct daemon_kind *kind;	/* NULL: the machine needs none */
	struct supervisor *sv;
	char *program;
	struct child child;
	struct process_id id;
	struct loop_fd *child_source;
	int control;
	struct loop_fd *control_source;
	struct loop_timer *timer;
	int64_t last_start_ms;
	int quick_deaths;
};

#define DAEMON_INIT { .child = CHILD_INIT, .control = -1 }

/* Starts it the first time. -1 + err: it could not be started; daemon_close() all the same. */
int daemon_open(struct daemon *d, struct supervisor *sv, const struct daemon_kind *kind, struct error *err);
/* Its end of the control socket is closed; its death is seen by its pidfd. */
void daemon_hung_up(struct daemon *d);
/* Closes the control socket, by which it ends; one that does not is killed. One that was never opened is fine. */
void daemon_close(struct daemon *d);

#endif
