/* What only uml-lab/session/ needs. */
#ifndef UML_LAB_SESSION_SESSION_INTERNAL_H
#define UML_LAB_SESSION_SESSION_INTERNAL_H

#include <stdint.h>
#include <yaml.h>

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
/* Ends the document. The text, malloc'ed; NULL + err. Frees all else. */
char *yaml_out_end(struct yaml_out *out, struct error *err);

/* ---- last_check.c: `check:` below `session:` ---- */

int last_check_read(yaml_document_t *document, yaml_node_t *node, struct session_last_check *last, struct error *err);
/* Writes nothing when nothing was checked. */
void last_check_write(struct yaml_out *out, const struct session_last_check *last);

/* ---- store.c ---- */

/* The short lock around a rewrite of session.yml; a descriptor, -1 + err. */
int session_yml_lock(const char *name, struct error *err);
/* Writes session.yml atomically; the caller holds session_yml_lock() and read the session under it. */
int session_write(const struct session *session, struct error *err);

/* The caller's session becomes what is on disk now; pointers into it are void. On failure it is as before. */
int session_reload(struct session *session, struct error *err);

/* ---- shared by the verbs ---- */

/* "2026-11-22T20:48:01+0000" now; malloc'ed. */
char *session_now(struct error *err);

/* Adds "LINE" to a report of many mistakes. */
struct findings {
	struct strbuf text;
	int count;
};
void findings_add(struct findings *findings, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* 0 when there are none; else -1 + err of that kind with all of them, "title:\n  line\n  line". */
int findings_result(struct findings *findings, enum error_kind kind, const char *title, struct error *err);

/* Whether a machine is among the names (NULL or empty: yes). ERROR_NOT_FOUND for names that are no machine. */
bool session_is_named(const struct strv *names, const char *machine);
int session_check_names(const struct session *session, const struct strv *names, struct error *err);

/* Makes a fresh overlay (atomically over an old one) and fresh extra disks. */
int session_fresh_disks(struct session *session, const struct lab_machine *machine, struct error *err);

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

#endif
