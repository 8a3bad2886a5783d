/* uml-lab check [SESSION|LAB]: runs the lab's checks; a verdict with its evidence for each. */
#include <stdlib.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"
#include "uml-lab/session/checks.h"

#define STATUS_SOME_FAILED 6 /* design.md, exit status */
#define STATUS_NOT_RUNNING 5

struct check_options {
	const char *stage, *junit;
	bool json;
};

static const struct cli_option options[] = {
	{"stage", 's', CLI_STRING, offsetof(struct check_options, stage), "STAGE",
	 "only the checks of this stage, and those of no stage"},
	{"junit", 0, CLI_STRING, offsetof(struct check_options, junit), "FILE",
	 "also write the results into this file as JUnit's XML"},
	{"json", 0, CLI_FLAG, offsetof(struct check_options, json), NULL, "for scripts"},
	{NULL},
};

static void tell(void *arg, const struct check_result *r)
{
	static const char *const colours[] = {[CHECK_PASS] = "32", [CHECK_FAIL] = "31", [CHECK_SKIP] = "33"};
	const bool *coloured = arg;

	if (*coloured)
		printf("\033[%sm%s\033[0m", colours[r->verdict], check_verdict_name(r->verdict));
	else
		printf("%s", check_verdict_name(r->verdict));
	printf("  %s (%s, %d point%s)\n", r->check->name, r->check->machine, r->check->points,
	       r->check->points == 1 ? "" : "s");
	if (r->verdict != CHECK_PASS)
		printf("      %s\n", r->evidence);
	else if (cli_verbose)
		printf("      found %s\n", r->evidence);
	fflush(stdout);
}

static void print_sum(const struct check_report *report)
{
	printf("%zu passed, %zu failed, %zu skipped; %d of %d point%s\n", report->passed, report->failed,
	       report->skipped, report->points, report->points_of, report->points_of == 1 ? "" : "s");
}

/* The description to check by: the lab's as it is now, else the one that the session was made with. */
static struct lab *current_lab(const struct session *session)
{
	struct error why = ERROR_INIT;
	struct lab *now = session_lab_now(session, &why);

	/* A submission that runs as the lab it came with has none else. */
	if (!now && !cli_quiet && session->lab_file)
		fprintf(stderr,
			"uml-lab: using the checks that session %s was made with, since its lab cannot be loaded now: "
			"%s\n",
			session->name, why.message);
	return now;
}

static int finish(const struct cmd_check_how *how, const struct session *session, const struct check_report *report,
		  struct error *err)
{
	if (how->junit && check_report_junit(how->junit, session, report, err) < 0)
		return -1;
	if (how->json) {
		*how->json = check_report_json(session, report, err);
		if (!*how->json)
			return -1;
	} else if (!cli_quiet) {
		print_sum(report);
	}
	if (report->skipped && report->skipped == report->count)
		return STATUS_NOT_RUNNING;
	return report->failed || report->skipped ? STATUS_SOME_FAILED : 0;
}

int cmd_check_session(struct session *session, const struct cmd_check_how *how, struct error *err)
{
	bool coloured = cli_colour(stdout);
	struct session_check_options checks = {.stage = how->stage, .cancel = cmd_catch_signals()};
	struct check_report report = {0};
	struct lab *now;
	int status;

	if (!how->json && !cli_quiet) {
		checks.progress = tell;
		checks.progress_arg = &coloured;
	}
	now = current_lab(session);
	status = session_check(session, now ?: session->lab, &checks, &report, err);
	if (status == 0)
		status = finish(how, session, &report, err);
	check_report_free(&report);
	lab_free(now);
	return status;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct check_options *o = opaque;
	cleanup_free char *name = session_of_lab(cmd_operand(operands, 0), err);
	cleanup_session struct session *session = name ? session_load(name, err) : NULL;
	json_t *json = NULL;
	const struct cmd_check_how how = {.stage = o->stage, .junit = o->junit, .json = o->json ? &json : NULL};
	int status;

	if (!session || session_settle(session, err) < 0)
		return -1;
	status = cmd_check_session(session, &how, err);
	if (status >= 0 && json && cmd_print_json(json, err) < 0)
		return -1;
	return status;
}

const struct cli_command cmd_check = {
	.name = "check",
	.operands = "[SESSION|LAB]",
	.summary = "Run the lab's checks on a session; ends with 6 if one did not pass",
	.help = "Each check runs in its machine: PASS, FAIL with what was wanted and what was found, or SKIP when its machine "
		"does not run.\n"
		"A LAB stands for its session, when it has just one. The checks are those of the lab file as it is now.",
	.options = options,
	.options_size = sizeof(struct check_options),
	.max_operands = 1,
	.run = run,
};
