/* The checks of a lab, run on a session: what `uml-lab check` and graders of submissions tell. */
#ifndef UML_LAB_SESSION_CHECKS_H
#define UML_LAB_SESSION_CHECKS_H

#include "uml-lab/session/session.h"

enum check_verdict {
	CHECK_PASS,
	CHECK_FAIL, /* it ran, and what must hold does not */
	CHECK_SKIP, /* it could not be run: its machine is not there */
};

/* "PASS", "FAIL", "SKIP". */
const char *check_verdict_name(enum check_verdict verdict);

struct check_result {
	const struct lab_check *check;
	enum check_verdict verdict;
	int status;     /* exit status of the last try, 128 + N when signal N ended it; -1: none */
	int tries;      /* 0: skipped */
	int64_t ms;     /* that all tries took together */
	char *evidence; /* one line for people: what was wanted and what was found */
	char *output, *errors; /* of the last try, cleaned for terminals (str_clean()), possibly cut */
};

struct check_report {
	char *time;                  /* when it began, ISO 8601 */
	struct check_result *results; /* in the order of the lab file */
	size_t count;
	size_t passed, failed, skipped;
	int points, points_of;
};

struct session_check_options {
	const char *stage; /* only checks of this stage, and those without one; NULL: all */
	void (*progress)(void *arg, const struct check_result *result); /* after each; may be NULL */
	void *progress_arg;
	const volatile int *cancel; /* non-zero: stop between two tries; may be NULL */
};

/*
 * Runs the checks of a lab one after the other, each in its machine through the
 * agent, as `sh -c RUN` without input; one that fails is tried again within its
 * retry time. `lab` may be a newer description than session->lab. The summary is
 * kept in session.yml. 0 whatever the verdicts are; -1 + err: ERROR_NOT_FOUND
 * for a stage that no check has, ERROR_FAILED when the lab has no checks or it was
 * cancelled. Free the report with check_report_free() in any case.
 */
int session_check(struct session *session, const struct lab *lab, const struct session_check_options *options,
		  struct check_report *report, struct error *err);
void check_report_free(struct check_report *report);

/*
 * The lab file of a session as it is now, with the session's parameters; what an
 * instructor corrects since `up` counts. NULL + err when it is gone or wrong now:
 * session->lab is what is left then.
 */
struct lab *session_lab_now(const struct session *session, struct error *err);

/* The report for scripts; a new reference. NULL + err. */
json_t *check_report_json(const struct session *session, const struct check_report *report, struct error *err);
/* ` NAME="VALUE"`, escaped; value cleaned by str_clean() before. */
void check_xml_attribute(struct strbuf *out, const char *name, const char *value);
/* The same as JUnit's XML, as CI systems read it, into a file, atomically. 0, or -1 + err. */
int check_report_junit(const char *path, const struct session *session, const struct check_report *report,
		       struct error *err);

#endif
