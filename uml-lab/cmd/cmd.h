/* The subcommands: one file and one const table entry each; main.c lists them. */
#ifndef UML_LAB_CMD_CMD_H
#define UML_LAB_CMD_CMD_H

#include <jansson.h>

#include "uml-lab/base/cli.h"
#include "uml-lab/session/session.h"

extern const struct cli_program uml_lab_program;

extern const struct cli_command cmd_check, cmd_completion, cmd_console, cmd_copy, cmd_doctor, cmd_down, cmd_exec, cmd_image_build,
	cmd_image_import, cmd_image_list, cmd_image_remove, cmd_image_show, cmd_list, cmd_log, cmd_man, cmd_reset, cmd_restart,
	cmd_schema, cmd_shell, cmd_status, cmd_supervise, cmd_up, cmd_validate;
extern const struct cli_command cmd_capture, cmd_disk, cmd_forward, cmd_net;
extern const struct cli_command cmd_snapshot_create, cmd_snapshot_list, cmd_snapshot_remove, cmd_snapshot_restore;
extern const struct cli_command cmd_networks;

extern const struct cli_command cmd_clean_disk, cmd_diff, cmd_gc, cmd_publish;
extern const struct cli_command cmd_collect, cmd_open, cmd_read_submission, cmd_submit;

/* Prints JSON for scripts: indented on a terminal, one line otherwise. Takes the reference. 0, or -1 + err. */
int cmd_print_json(json_t *json, struct error *err);

/* Ends with ERROR_USAGE when 0 or 1 is no terminal: for verbs a person talks through. */
int cmd_need_terminal(const char *verb, struct error *err);

/* The first operand or NULL. */
const char *cmd_operand(const struct strv *operands, size_t index);

/* A forward in force as people read it: "127.0.0.1:8080->80", "/udp" after it if so. Returns buf. */
char *cmd_forward_text(const char *forward, char *buf, size_t size);
#define CMD_FORWARD_MAX 96

/* ---- progress.c: how machines get on, as lines or as a table that is redrawn on a terminal ---- */

struct progress;
struct progress *progress_new(const struct session *session, const struct strv *only, struct error *err);
/* session_progress_fn. */
void progress_tell(void *progress, const char *machine, const char *state, const char *detail);
void progress_free(struct progress *progress);
#define cleanup_progress __attribute__((cleanup(progress_cleanup)))
void progress_cleanup(struct progress **progress);

/* ---- the session and machines that a verb works on: down, restart, reset ---- */

#define CMD_GRACE_MS 30000	/* for a clean shutdown */
#define CMD_READY_MS 120000	/* until ready */

struct cmd_target {
	char *name;
	struct strv only;		/* machines; empty: all */
	int lock;			/* the session's, once taken */
	struct session *session;
	struct progress *progress;
};

#define CMD_TARGET_INIT { .lock = -1 }
#define cleanup_target __attribute__((cleanup(cmd_target_release)))

/* Which are meant: "[SESSION[/MACHINE]] [MACHINE…]". 0, or -1 + err. */
int cmd_target_choose(struct cmd_target *target, const struct strv *operands, struct error *err);
/* Locks and loads the chosen session, and prepares to show progress. */
int cmd_target_take(struct cmd_target *target, struct error *err);
void cmd_target_release(struct cmd_target *target);
/* How to start the target's machines; timeout_ms 0: CMD_READY_MS. Ctrl-C is caught from now on. */
struct session_start_options cmd_target_start(struct cmd_target *target, int64_t timeout_ms);

/* ---- check.c ---- */

struct cmd_check_how {
	const char *stage, *junit;	/* NULL: all; no file */
	json_t **json;			/* where to put the report (a new reference), with nothing printed; NULL: it is printed */
};
/* Runs the lab's checks on a session and reports. Exit status, -1 + err. */
int cmd_check_session(struct session *session, const struct cmd_check_how *how, struct error *err);

/* Catches SIGINT, SIGTERM and SIGHUP from now on: the flag to hand on as `cancel`. */
const volatile int *cmd_catch_signals(void);

#endif
