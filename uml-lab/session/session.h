/*
 * A session: one student's instance of a lab. This folder knows where it lives,
 * what session.yml says, and the verbs on it: start, stop, status, reset.
 *
 *	$XDG_STATE_HOME/uml-lab/sessions/NAME/
 *		session.yml		the lab as instantiated + `session:`, what happened (store.c)
 *		MACHINE/root.cow	the overlay, until the first snapshot
 *		MACHINE/disk1.img…	extra disks, sparse
 *		MACHINE/root-2.cow…	overlays made by snapshots, restore and reset: snapshot.c
 *		MACHINE/console.log, startup.log, supervisor.log
 *	$XDG_STATE_HOME/uml-lab/sessions/.NAME.lock	one verb at a time changes a session
 *	$XDG_STATE_HOME/uml-lab/sessions/NAME/.yml.lock	held for the blink of a rewrite of session.yml
 *	dirs_runtime()/KEY/		sockets of one machine; KEY is short, from session, machine and state folder
 *
 * What is running is never believed but verified: a machine runs when the
 * supervisor named in session.yml, by pid and start time, lives.
 */
#ifndef UML_LAB_SESSION_SESSION_H
#define UML_LAB_SESSION_SESSION_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "uml-lab/base/error.h"
#include "uml-lab/base/str.h"
#include "uml-lab/image/image.h"
#include "uml-lab/lab/lab.h"
#include "uml-lab/machine/machine.h"
#include "uml-lab/network/network.h"

#define SESSION_NAME_MAX 40
#define SESSION_LOCK_MS 10000	/* how long a verb waits for another one on the same session */
#define SESSION_YML_MAX (4u << 20)	/* bytes of session.yml */

/* What happened to one machine. Texts are owned; NULL where there is nothing to tell. */
struct session_machine {
	char *name;
	enum machine_state state;
	bool ever_started;		/* false: state means nothing yet */
	char *cause;
	char *started, *changed;	/* ISO 8601 with offset */
	struct process_id supervisor, kernel_process, plug, disk_server, hostfs;
	char *kernel;			/* release */
	char *sandbox;
	char *base;			/* absolute path of the image or layer below the overlay */
	uint64_t base_size;
	int64_t base_mtime;		/* seconds, as the COW header has it */
	struct strv forwards;
	bool set_up;
	int64_t ready_ms;
	int restarts;
	struct strv disks;		/* files in its folder, the root disk's first; empty: root.cow, disk1.img… */
	struct strv next_disks;		/* those a running machine is being switched to; empty: none */
	char *snapshot;			/* the one its disks stand on; NULL: none */
};

/* A frozen file of a snapshot. */
struct session_layer {
	char *file;			/* in the machine's folder */
	char *digest;			/* of its content, "sha512-1M:…"; NULL: not known yet */
};

/* A machine as a snapshot holds it. */
struct session_frozen {
	char *machine;
	struct session_layer *layers;	/* one a disk, the root disk's first */
	size_t layer_count;
	char *parent;			/* the snapshot it stood on; NULL: none */
	char *base;			/* as in struct session_machine, at that time */
	uint64_t base_size;
	int64_t base_mtime;
	bool set_up;
};

struct session_snapshot {
	char *name, *created;
	struct session_frozen *machines;
	size_t machine_count;
};

/* What `uml-lab check` found last; time NULL: nothing since the last reset. */
struct session_last_check {
	char *time;			/* ISO 8601 */
	char *stage;			/* NULL: all of them */
	int passed, failed, skipped, points, points_of;
	struct strv verdicts;		/* "PASS r1 forwards packets" */
};
void last_check_free(struct session_last_check *last);

/* Of a session that was made of somebody's submission. All NULL: it is one's own. */
struct session_origin {
	char *file;			/* the submission's file */
	char *student;			/* whose login name {{user}} is */
	char *time;			/* when it was made, as it says */
	bool network;			/* its SLIRP may reach the outside */
	bool weak;			/* it may run without user namespaces */
};

struct session {
	char *name;
	char *folder;			/* absolute */
	char *lab_file;			/* lab.yml it was made from */
	char *created;
	char *ends;			/* ISO 8601: when limits.time is over for the present run; NULL: never */
	char *seed;			/* of {{random:N}} */
	struct strv params;		/* "K=V" as given by --param */
	struct lab *lab;		/* as instantiated */
	struct process_id network_keeper;	/* pid 0: none */
	struct process_id *network_switches;	/* in the order of lab->networks; pid 0: no switch of ours, or it does not run */
	struct session_machine *machines;	/* as many as, and in the order of, lab->machines */
	size_t machine_count;
	struct session_last_check last_check;
	struct session_origin origin;
	struct session_snapshot *snapshots;	/* in the order they were made */
	size_t snapshot_count;
};

#define cleanup_session __attribute__((cleanup(session_cleanup)))
void session_free(struct session *session);
void session_cleanup(struct session **session);

/* ---- where things are (paths.c) ---- */

/* The folder of all sessions, made when missing. malloc'ed; NULL + err. */
char *session_root(struct error *err);
/* The runtime folder of a machine: short, 0700; not made. malloc'ed; NULL + err. */
char *session_runtime(const char *session, const char *machine, struct error *err);
/* The machine's folder in the session: FOLDER/MACHINE. */
char *session_machine_folder(const struct session *session, const char *machine, struct error *err);
/* The file that a machine writes as its disk 0 (the root disk), 1, …; the root disk's is session_overlay(). */
char *session_disk(const struct session *session, const char *machine, size_t index, struct error *err);
char *session_overlay(const struct session *session, const char *machine, struct error *err);
/* One verb at a time: waits at most timeout_ms, says who. A descriptor to close; -1 + err. */
int session_lock(const char *name, int timeout_ms, struct error *err);

/* ---- session.yml (store.c) ---- */

/* Reads sessions/NAME/session.yml. NULL + err: ERROR_NOT_FOUND when there is no such session. */
struct session *session_load(const char *name, struct error *err);
/*
 * Reads, lets fn change, writes atomically, under the file's own short lock: the one way to change session.yml, for verbs
 * and for supervisors, which must not wait for verbs.
 */
int session_update(const char *name, int (*fn)(struct session *session, void *arg, struct error *err), void *arg,
		   struct error *err);
/* The names of all sessions, sorted. */
int session_names(struct strv *out, struct error *err);
struct session_machine *session_find_machine(struct session *session, const char *name);
/* Gives a session that has none yet its machines: one for each of its lab's, in their order, with nothing but a name. */
int session_add_machines(struct session *session, struct error *err);
struct session_snapshot *session_find_snapshot(const struct session *session, const char *name);
/* NULL when the snapshot has no such machine. */
struct session_frozen *session_find_frozen(const struct session_snapshot *snapshot, const char *machine);
/* image_users_fn of image.h: sessions whose machines stand on the image at path. */
int session_image_users(void *arg, const char *path, struct strv *users, struct error *err);

/* ---- which one is meant (target.c) ---- */

/*
 * Resolves "SESSION", "SESSION/MACHINE", "MACHINE" left out, or NULL: the user's only session, or the one whose lab lies in
 * the current folder. machine, when wanted, may be left out in the operand if the session has just one. Outputs are
 * malloc'ed. -1 + err: ERROR_NOT_FOUND with the names there are.
 */
int session_resolve(const char *operand, char **session, char **machine, bool machine_needed, struct error *err);
/*
 * The session meant by SESSION, or by a LAB as `up` takes it that has just one session. malloc'ed; NULL + err:
 * ERROR_NOT_FOUND, ERROR_USAGE when several sessions are of that lab.
 */
char *session_of_lab(const char *operand, struct error *err);
/* Resolves and connects to the machine's supervisor: for console, exec, shell, copy. A descriptor, -1 + err. */
int session_connect(const char *operand, struct error *err);

/* ---- verbs ---- */

/* Whether a machine's supervisor lives. */
bool session_machine_runs(const struct session_machine *machine);
/* Whether that of any of its machines does. */
bool session_runs(const struct session *session);
/* Brings states of machines whose supervisor died without a word up to date and sweeps what it left; saves. */
int session_settle_killed(struct session *session, struct error *err);
/*
 * The same for who wants to change something: a machine that has ended is no hindrance, though its supervisor may stay a moment to
 * tell why. It is waited for, about a second.
 */
int session_settle(struct session *session, struct error *err);

enum session_wait { SESSION_WAIT_NONE, SESSION_WAIT_READY, SESSION_WAIT_LOGIN };

/* Hears of progress: machine NULL for the session as a whole. */
typedef void (*session_progress_fn)(void *arg, const char *machine, const char *state, const char *detail);

struct session_start_options {
	const struct strv *only;	/* names of machines; NULL or empty: all */
	enum session_wait wait;
	int64_t timeout_ms;		/* for each machine until ready */
	session_progress_fn progress;	/* may be NULL */
	void *progress_arg;
	const volatile int *cancel;	/* non-zero: stop what was started, fail; may be NULL */
};

/*
 * Makes, or finds, the session NAME (NULL: the lab's name) of a lab. A session
 * that is there keeps its overlays and gets the lab's present description; one
 * whose base changed is refused later, by session_check_start(). *lock becomes
 * the session's lock, the caller's to close. With dry_run nothing is written.
 */
struct session *session_prepare(const char *lab, const char *name, const struct strv *params, bool dry_run, int *lock,
				struct error *err);

/*
 * Checks everything that can be checked before a process starts: images,
 * kernels, memory, disk space, forwards, things this version cannot do. Tells all it finds at
 * once. Prints the plan to `plan` when not NULL (--dry-run).
 */
int session_check_start(struct session *session, const struct session_start_options *options, FILE *plan,
			struct error *err);
/* Whether the machine's disk: can do what the lab wants of it; image NULL: not known. -1 + err (ERROR_LAB) with the remedy. */
int session_check_driver(const struct lab *lab, const struct lab_machine *m, const struct image *image, struct error *err);
/* Starts the machines that do not run, waits as asked. ERROR_STATE when all run already. */
int session_start(struct session *session, const struct session_start_options *options, struct error *err);

/* Stops machines (names NULL or empty: all that run). ERROR_STATE when none runs. */
int session_stop(struct session *session, const struct strv *names, bool force, int timeout_ms,
		 session_progress_fn progress, void *arg, struct error *err);

/*
 * Puts machines (NULL or empty: all) back to a snapshot (NULL: the base, by fresh overlays). What runs is stopped at
 * once, and started again afterwards. A machine that the snapshot does not have gets fresh disks. The caller holds the
 * session's lock.
 */
int session_reset(struct session *session, const char *to, const struct strv *names,
		  const struct session_start_options *options, struct error *err);

/* ---- what changed in the files (diff.c) ---- */

struct session_diff_options {
	bool patch, json;		/* not both */
	const struct strv *paths;	/* only what lies there and below; NULL or empty: everything */
};

/*
 * What changed in the files of a machine's root disk since the base, as `uml-cow diff-files` tells it (malloc'ed). A
 * machine that runs has its file systems frozen meanwhile. NULL + err.
 */
char *session_diff(const struct session *session, const char *machine, const struct session_diff_options *options,
		   struct error *err);

/* ---- snapshots (snapshot.c); the caller holds the session's lock ---- */

/* What making a snapshot took. */
struct session_snapshot_result {
	int64_t pause_us;		/* the longest that a running machine stood still; 0: none ran */
	char pause_machine[SESSION_NAME_MAX];	/* which; "": none ran */
};

/* Freezes the disks of all machines, as they are now, under a name. */
int session_snapshot_create(struct session *session, const char *name, struct session_snapshot_result *result,
			    struct error *err);
/* Forgets a snapshot. What others stand on is merged into them, also while machines run. */
int session_snapshot_remove(struct session *session, const char *name, struct error *err);
/* All snapshots, for people and scripts: a JSON array. NULL + err. */
json_t *session_snapshot_list(const struct session *session, struct error *err);

/* ---- disks that leave, and disks that come from elsewhere (export.c, adopt.c) ---- */

/*
 * Copies the disks of all machines into FOLDER/MACHINE/root.cow, disk1.img…, each one file with all that it holds beyond the base,
 * compacted and detached (cow_detach()), *folder being made in the session's. Machines that run stand still for the moment of a
 * snapshot, which is removed again. Under the session's lock. *folder is malloc'ed, and the caller's to end with
 * session_export_end(), also after a failure when it is set.
 */
int session_export(struct session *session, char **folder, struct error *err);
void session_export_end(char *folder);

/*
 * A session of disks from elsewhere, in two steps. Begin makes an empty folder *folder (malloc'ed), and takes the lock of the
 * session, which must not exist: ERROR_STATE. The caller puts a folder a machine in it, as session_export() names them. Finish
 * makes it the session `draft`: the disks become the snapshot `snapshot`, empty ones stand on them. draft has a name, lab,
 * lab_file (may be NULL), seed, params, origin, and machines in the lab's order with their bases and set_up; the rest is filled in.
 * A begin without a finish is to be taken back with session_adopt_abort().
 */
int session_adopt_begin(const char *name, char **folder, int *lock, struct error *err);
int session_adopt_finish(struct session *draft, const char *folder, const char *snapshot, struct error *err);
void session_adopt_abort(char *folder);

/* ---- tidying up (gc.c) ---- */

/* Hears of each thing that goes, or would go: what it is, where, and the bytes it takes. */
typedef void (*session_gc_fn)(void *arg, const char *what, const char *path, uint64_t bytes);

/*
 * Removes what nobody needs: files of dead machines and killed verbs, old caches, unfinished images. Nothing a session or
 * an image needs is touched, whatever runs meanwhile; a session that another verb works on is left out. dry_run: only tells.
 */
int session_gc(bool dry_run, session_gc_fn tell, void *arg, struct error *err);
/* Removes a stopped session for good, disks and snapshots with it. tell may be NULL. ERROR_STATE when a machine runs. */
int session_remove(const char *name, bool dry_run, session_gc_fn tell, void *arg, struct error *err);

/* Everything known of a session, verified; live details asked from supervisors (each at most a second). NULL + err. */
json_t *session_status(struct session *session, struct error *err);

/* Builds what machine_supervise() needs. machine_spec_free() it. */
int session_machine_spec(const struct session *session, const char *machine, struct machine_spec *spec,
			 struct error *err);
/* The body of `uml-lab __networks SESSION`. ready_fd: closed when they can be joined. ERROR_STATE: another keeper lives. */
int session_keep_networks(const char *name, int ready_fd, struct error *err);
/* The body of `uml-lab __supervise SESSION MACHINE`. ready_fd: closed when clients may connect. Exit status. */
int session_supervise(const char *session, const char *machine, int ready_fd, struct error *err);

#endif
