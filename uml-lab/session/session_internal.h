/* What only uml-lab/session/ needs. */
#ifndef UML_LAB_SESSION_SESSION_INTERNAL_H
#define UML_LAB_SESSION_SESSION_INTERNAL_H

#include <stdint.h>
#include <yaml.h>

#include "uml-lab/image/image.h"
#include "uml-lab/session/session.h"

/* ---- yaml.c: the little of YAML that session.yml's own part needs ---- */

/* The value of a key in a mapping node; NULL when it is not there or node is no mapping. */
yaml_node_t *yaml_get(yaml_document_t *document, yaml_node_t *node, const char *key);
/* The text of a scalar under a key, NULL when missing or not a scalar. Lives as long as the document. */
const char *yaml_get_text(yaml_document_t *document, yaml_node_t *node, const char *key);
int64_t yaml_get_number(yaml_document_t *document, yaml_node_t *node, const char *key, int64_t fallback);
/* Copies a scalar into *out (NULL when missing); a list of scalars into a vector. */
int yaml_copy_text(yaml_document_t *document, yaml_node_t *node, const char *key, char **out, struct error *err);
int yaml_copy_list(yaml_document_t *document, yaml_node_t *node, const char *key, struct strv *out, struct error *err);

/* {pid, start} under a key; zero when it is not there. */
struct process_id yaml_get_process(yaml_document_t *document, yaml_node_t *node, const char *key);

/* Writing: events into a growing buffer; the first failure sticks and yaml_out_end() tells it. */
struct yaml_out {
	yaml_emitter_t emitter;
	struct strbuf text;
	bool failed;
};

int yaml_out_begin(struct yaml_out *out, struct error *err);
void yaml_out_map(struct yaml_out *out, const char *key, bool flow);	/* key NULL: the top or a list's item */
void yaml_out_list(struct yaml_out *out, const char *key);
void yaml_out_close_map(struct yaml_out *out);
void yaml_out_close_list(struct yaml_out *out);
/* KEY: TEXT, quoted; nothing when text is NULL. key NULL: a list's item. */
void yaml_out_text(struct yaml_out *out, const char *key, const char *text);
/* KEY: NUMBER or another plain word. */
void yaml_out_number(struct yaml_out *out, const char *key, int64_t number);
void yaml_out_plain(struct yaml_out *out, const char *key, const char *word);
/* KEY: {pid, start}; nothing for pid 0. */
void yaml_out_process(struct yaml_out *out, const char *key, const struct process_id *id);
/* KEY: a list of texts; nothing when it is empty. */
void yaml_out_strings(struct yaml_out *out, const char *key, const struct strv *list);
/* Ends the document. The text, malloc'ed; NULL + err. Frees all else. */
char *yaml_out_end(struct yaml_out *out, struct error *err);

/* ---- networks.c ---- */

/* The runtime folder of the session's networks; malloc'ed, not made. NULL + err. */
char *session_networks_folder(const char *session, struct error *err);
/* Whether the session has networks of its own, with a switch. */
bool session_keeps_networks(const struct session *session);
/* What joins the network: the path of our switch, or the lab's locator. malloc'ed; NULL + err. */
char *session_network_locator(const struct session *session, const struct lab_network *network, struct error *err);
/* The command that starts the keeper of the networks. */
int session_keeper_argv(const struct session *session, struct strv *argv, struct error *err);
/*
 * Sees to it that the networks are kept, before machines start. *hold: while open they stay, also with no machine;
 * -1 when the session has none of its own. -1 + err.
 */
int session_networks_start(const struct session *session, int *hold, struct error *err);
/* When no machine runs any more: waits for the keeper to end (bounded; then it is killed), sweeps. -1 + err. */
int session_networks_end(const struct session *session, struct error *err);
/* Hands what runs from the old description (NULL: none) to the new one. */
int session_networks_carry_over(struct session *session, const struct session *old, struct error *err);
int session_networks_read(yaml_document_t *document, yaml_node_t *part, struct session *session, struct error *err);
/*
 * What `status` tells of the networks: name, kind, locator, pid of the switch, ports. machines is the status of the
 * machines, whose supervisors know which port is joined. NULL when memory is out.
 */
json_t *session_networks_status(const struct session *session, const json_t *machines);
void session_networks_write(struct yaml_out *out, const struct session *session);

/* ---- last_check.c: `check:` below `session:` ---- */

int last_check_read(yaml_document_t *document, yaml_node_t *node, struct session_last_check *last, struct error *err);
/* Writes nothing when nothing was checked. */
void last_check_write(struct yaml_out *out, const struct session_last_check *last);

/* ---- adopt.c: `submission:` below `session:` ---- */

void session_origin_free(struct session_origin *origin);
int session_origin_read(yaml_document_t *document, yaml_node_t *node, struct session_origin *origin, struct error *err);
/* Writes nothing for a session of one's own. */
void session_origin_write(struct yaml_out *out, const struct session_origin *origin);
/* Ends the name of a session's folder while it is being made: ".NAME.opening". */
#define SESSION_OPENING ".opening"
/* In a session's folder: where session_export() works; the caller's to remove. */
#define SESSION_EXPORT ".export"

/* ---- store.c ---- */

/* The short lock around a rewrite of session.yml; a descriptor, -1 + err. */
int session_yml_lock(const char *name, struct error *err);
/* Writes session.yml atomically; the caller holds session_yml_lock() and read the session under it. */
int session_write(const struct session *session, struct error *err);

/* The caller's session becomes what is on disk now; pointers into it are void. On failure it is as before. */
int session_reload(struct session *session, struct error *err);

/* ---- shared by the verbs ---- */

/* "2026-11-22T20:48:01+0000" now, or for seconds since 1970; malloc'ed. */
char *session_now(struct error *err);
char *session_time(int64_t seconds, struct error *err);
/* Back to seconds since 1970; 0 when text is NULL or no such time. */
int64_t session_time_parse(const char *text);

/* Adds "LINE" to a report of many mistakes. */
struct findings {
	struct strbuf text;
	int count;
};
void findings_add(struct findings *findings, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* 0 when there are none; else -1 + err of that kind with all of them, "title:\n  line\n  line". */
int findings_result(struct findings *findings, enum error_kind kind, const char *title, struct error *err);

/* ---- snapshot_yml.c: the snapshots' part of session.yml ---- */

int snapshots_read(struct session *session, yaml_document_t *document, yaml_node_t *part, struct error *err);
void snapshots_write(struct yaml_out *out, const struct session *session);
void snapshots_free(struct session *session);
void snapshot_free(struct session_snapshot *snapshot);
/* {path, size, mtime} of the base that disks stand on. */
void base_write(struct yaml_out *out, const char *path, uint64_t size, int64_t mtime);

/* ---- snapshot.c ---- */

/* Whether there is such a snapshot, all of whose disks open. -1 + err: ERROR_NOT_FOUND with those there are. */
int session_check_snapshot(const struct session *session, const char *name, struct error *err);
/* Makes the disks of machines that never started. session is as on disk afterwards. */
int session_make_disks(struct session *session, struct error *err);
/* Copies all that a disk's file `from` of the machine's folder holds beyond the base into one new file, out. */
int layers_copy(const struct session *session, const char *machine, const char *from, const char *out, struct error *err);
/* Gives stopped machines (NULL or empty: all) new disks over a snapshot's (to NULL: over the base), all or none. */
int session_put_back(struct session *session, const char *to, const struct strv *names, struct error *err);

/* ---- snapshot_live.c ---- */

/* A machine that runs, and the names of the files that its disks are to go on with. */
struct live_switch {
	const char *machine;
	const struct strv *disks;
};

/*
 * Holds the machines still, all at the same time, and switches their disks to new files (which must not exist) over the
 * present ones. After a failure some may be switched: layers_repair() finds out.
 */
int snapshot_switch(const struct session *session, const struct live_switch *wanted, size_t count,
		    struct session_snapshot_result *result, struct error *err);
/* Has what layers_between() tells of a machine that runs merged by its disk server; waits for that. */
int snapshot_merge_running(const struct session *session, const char *machine, struct error *err);

/* ---- layers.c: the files of a machine's folder ---- */

/* What the disk is called before the first snapshot: "root.cow", "disk1.img". malloc'ed; NULL + err. */
char *layer_first_name(size_t disk, struct error *err);
/* A name that is not taken yet: that, or "root-3.cow", "disk1-3.cow"; raw: "disk1-3.img". malloc'ed; NULL + err. */
char *layer_new_name(const struct session *session, const char *machine, size_t disk, bool raw, struct error *err);
/* The present name of a disk's file; lives as long as the session. NULL for a disk that is not there yet. */
const char *layer_present_name(const struct session_machine *machine, size_t disk);
/* These are the machine's disks from now on. Takes the list over; where all are called as at first, none is kept. */
int layers_set_disks(struct session_machine *machine, struct strv *disks, struct error *err);
/* The disk that a file of that name is of. */
size_t layer_disk(const char *name);
char *layer_path(const struct session *session, const char *machine, const char *file, struct error *err);
/*
 * Makes true what a verb that was killed left: switches of machines that do not run any more are decided, files that
 * nothing needs are removed. session is as on disk afterwards. Under the session's lock.
 */
int layers_repair(struct session *session, struct error *err);
/*
 * Removes the files of one machine that neither its disks nor any snapshot need, and makes one file of one that only one
 * other needs and that other. What cannot be done now (a file in use) is left for the next time. *freed grows by the bytes
 * freed; may be NULL.
 */
int layers_tidy(const struct session *session, const char *machine, uint64_t *freed, struct error *err);
/* What layers_tidy() would remove: paths. */
int layers_unneeded(const struct session *session, const char *machine, struct strv *out, struct error *err);
/*
 * A file of a machine that only one other file stands on, and nothing names: what is to be merged next, a layer into the file
 * above it, or, when it is raw, that into it. 1: *name, malloc'ed, and *raw are set. 0: there is none. -1 + err.
 */
int layers_between(const struct session *session, const char *machine, char **name, bool *raw, struct error *err);

/* Whether a machine is among the names (NULL or empty: yes). ERROR_NOT_FOUND for names that are no machine. */
bool session_is_named(const struct strv *names, const char *machine);
int session_check_names(const struct session *session, const struct strv *names, struct error *err);

/* Makes a fresh overlay (atomically over an old one) and fresh extra disks. */
int session_fresh_disks(struct session *session, const struct lab_machine *machine, struct error *err);
/* An empty sparse file of that size under a temporary name, put in place by rename. */
int session_fresh_extra_disk(const char *path, uint64_t size, struct error *err);
/* Notes the image that a machine's disks stand on from now on; its first start is still to come. */
int session_remember_base(struct session_machine *machine, const struct image *image, struct error *err);

/* One machine that is waited for, and its connection. */
struct watched {
	const char *name;
	int control;			/* -1: over */
	enum machine_state state;	/* as last heard */
	bool done, failed;
	char *detail;			/* of the last state */
};

struct watch_options {
	enum machine_state until;	/* MACHINE_READY, or MACHINE_STOPPED: until the supervisor is gone */
	int64_t timeout_ms;
	session_progress_fn progress;
	void *progress_arg;
	const volatile int *cancel;
};

/*
 * Waits for all of them side by side. 0 when all reached the state; else -1 +
 * err naming each that did not, with its cause (ERROR_TIMEOUT only when time alone was short). Closes connections it
 * is done with.
 */
int session_watch(struct watched *watched, size_t count, const struct watch_options *options, struct error *err);
void watched_free(struct watched *watched, size_t count);

/* shares.c: fills spec->shares, which is empty. */
int session_fill_shares(const struct session *s, const struct lab_machine *m, struct machine_spec *spec,
			struct error *err);

#endif
