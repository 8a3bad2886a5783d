/*
 * Errors: one object, filled by the callee, handed as the last argument.
 *
 * A function that can fail returns a negative value (or NULL), leaves its
 * outputs alone and fills the error. Callers add what they were attempting with
 * error_prefix(). Only main() prints, once.
 */
#ifndef UML_LAB_BASE_ERROR_H
#define UML_LAB_BASE_ERROR_H

#include <stdarg.h>

/* What failed, as the command line's exit status tells it (design page). */
enum error_kind {
	ERROR_NONE = 0,
	ERROR_FAILED = 1,	/* it was tried and did not work */
	ERROR_USAGE = 2,	/* the command line is wrong */
	ERROR_LAB = 3,		/* the lab description is wrong */
	ERROR_NOT_FOUND = 4,	/* no such lab, session, machine, image, snapshot */
	ERROR_STATE = 5,	/* not running, or already running */
	ERROR_CHECKS = 6,	/* checks ran and some failed */
	ERROR_TIMEOUT = 7,	/* a bounded wait ran out */
};

#define ERROR_MESSAGE_MAX 4096
#define ERROR_HINT_MAX 512

/* An error. Needs no cleanup: its text lives inside, cut at the sizes above. */
struct error {
	enum error_kind kind;
	int sys_errno;			/* errno behind it, 0 when there is none */
	char message[ERROR_MESSAGE_MAX];/* what was attempted, on what, why */
	char hint[ERROR_HINT_MAX];	/* what to do about it, "" when unknown */
};

#define ERROR_INIT { .kind = ERROR_NONE }

/* Sets the error. Always returns -1, so that `return error_set(…)` reads well. err may be NULL. */
int error_set(struct error *err, enum error_kind kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Like error_set() with ": strerror(sys_errno)" at the end of the text; kind is ERROR_FAILED. Returns -1. */
int error_errno(struct error *err, int sys_errno, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* Puts "TEXT: " before the message. Returns -1. */
int error_prefix(struct error *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Says what the person can do about it; replaces an earlier hint. Returns -1. */
int error_hint(struct error *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Out of memory, told like any other error. Returns -1. */
int error_oom(struct error *err);

/* Copies src over dst; either may be NULL. */
void error_copy(struct error *dst, const struct error *src);

/* Prints "PROGRAM: message" and, if there is one, "PROGRAM: hint" to stderr. For main() only. */
void error_print(const char *program, const struct error *err);

/* Forgets an error that was dealt with. */
void error_clear(struct error *err);

#endif
