/*
 * Runs checks, and judges.
 *
 * A check passes when all that its `expect` names holds: the exit status always
 * (0 unless written), the output and the pattern when they are given. The
 * evidence names the first of these that does not hold, with what was found,
 * since that is what a student and a teacher ask next.
 *
 * A try that could not begin because the machine went away is no verdict on the
 * student: the check is skipped, with the reason. One that was killed for its time
 * has failed.
 *
 * What comes out of a guest is hostile: at most OUTPUT_MAX of it is kept, and it
 * is cleaned before anybody sees it. It is compared as it came.
 */
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/loop.h"
#include "uml-lab/machine/client.h"
#include "uml-lab/session/checks.h"
#include "uml-lab/session/session_internal.h"

#define OUTPUT_MAX  (64u << 10) /* bytes of each stream */
#define QUOTE_MAX   160         /* bytes of output in a line of evidence */
#define RETRY_MS    500         /* between two tries */

const char *check_verdict_name(enum check_verdict verdict)
{
	static const char *const names[] = {
		[CHECK_PASS] = "PASS", [CHECK_FAIL] = "FAIL", [CHECK_SKIP] = "SKIP"};

	return names[verdict];
}

static void result_clear(struct check_result *r)
{
	free(r->evidence);
	free(r->output);
	free(r->errors);
	r->evidence = r->output = r->errors = NULL;
	r->status = -1;
}

void check_report_free(struct check_report *report)
{
	for (size_t i = 0; i < report->count; i++)
		result_clear(&report->results[i]);
	free(report->results);
	free(report->time);
	*report = (struct check_report){0};
}

struct lab *session_lab_now(const struct session *session, struct error *err)
{
	struct lab_load_options options = {.params = &session->params,
					   .random_seed = session->seed,
					   .user = session->origin.student,
					   /* Of a submission only the checks are wanted. */
					   .skip_paths = session->origin.file != NULL};

	if (!session->lab_file) {
		error_set(err, ERROR_NOT_FOUND, "session %s does not say which lab it was made from", session->name);
		return NULL;
	}
	return lab_load(session->lab_file, &options, err);
}

/* ---- judging ---- */

/* Text as it is quoted in a line of evidence: trimmed, on one line, cut. */
static void quote(struct strbuf *out, const char *text)
{
	size_t length = text ? strlen(text) : 0, shown;

	while (length && (text[length - 1] == '\n' || text[length - 1] == ' ' || text[length - 1] == '\t'))
		length--;
	shown = length < QUOTE_MAX ? length : QUOTE_MAX;
	while (shown < length && shown && (text[shown] & 0xc0) == 0x80) /* not within a character */
		shown--;
	strbuf_putc(out, '"');
	for (size_t i = 0; i < shown; i++) {
		if (text[i] == '\n')
			strbuf_puts(out, "\\n");
		else
			strbuf_putc(out, text[i]);
	}
	strbuf_puts(out, shown < length ? "…\"" : "\"");
}

/* Whether output is what was wanted, blanks at the end of both aside. */
static bool same_output(const struct strbuf *output, const char *wanted)
{
	size_t n = output->length, m = strlen(wanted);

	while (n && strchr(" \t\r\n", output->data[n - 1]) && output->data[n - 1])
		n--;
	while (m && strchr(" \t\r\n", wanted[m - 1]))
		m--;
	return n == m && memcmp(output->data ?: "", wanted, n) == 0;
}

/* The pattern was compiled once when the lab was loaded, so it can be compiled. ^ and $ are the ends of each line. */
static bool matches(const char *output, const char *pattern)
{
	regex_t regex;
	bool found;

	if (regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB | REG_NEWLINE) != 0)
		return false;
	found = regexec(&regex, output ?: "", 0, NULL, 0) == 0;
	regfree(&regex);
	return found;
}

/* Fills verdict and evidence of a command that ended. r->output and r->errors are there already. */
static void judge(struct check_result *r, const struct strbuf *raw, struct strbuf *evidence)
{
	const struct lab_check *c = r->check;
	const char *told = r->errors && *r->errors ? r->errors : r->output;

	r->verdict = CHECK_FAIL;
	if (c->expect_output && !same_output(raw, c->expect_output)) {
		strbuf_puts(evidence, "wanted the output ");
		quote(evidence, c->expect_output);
		strbuf_puts(evidence, ", found ");
		quote(evidence, r->output);
	} else if (c->expect_match && !matches(r->output, c->expect_match)) {
		strbuf_puts(evidence, "the output does not match ");
		quote(evidence, c->expect_match);
		strbuf_puts(evidence, ", found ");
		quote(evidence, r->output);
	} else if (r->status != c->expect_status) {
		strbuf_printf(evidence, "wanted exit status %d, found %d", c->expect_status, r->status);
	} else {
		r->verdict = CHECK_PASS;
		if (r->output && *r->output)
			quote(evidence, r->output);
		else
			strbuf_printf(evidence, "exit status %d", r->status);
		return;
	}
	if (r->status != c->expect_status && (c->expect_output || c->expect_match))
		strbuf_printf(evidence, "; exit status %d", r->status);
	if (told && *told && (told == r->errors || !(c->expect_output || c->expect_match))) {
		strbuf_puts(evidence, told == r->errors ? "; its errors: " : "; it wrote ");
		quote(evidence, told);
	}
}

/* ---- one try ---- */

static int keep(struct strbuf *raw, bool cut, char **out, struct error *err)
{
	cleanup_strbuf struct strbuf text = STRBUF_INIT;

	strbuf_add(&text, raw->data ?: "", raw->length);
	str_clean(&text);
	if (cut && text.length >= OUTPUT_MAX)
		strbuf_puts(&text, "\n[cut]\n");
	*out = strbuf_steal(&text, err);
	return *out ? 0 : -1;
}

static void skip(struct check_result *r, struct strbuf *evidence, const struct error *why)
{
	r->verdict = CHECK_SKIP;
	strbuf_puts(evidence, why->message);
}

static int run_in(int control, const struct session_check_options *options, struct check_result *r,
		  struct strbuf *evidence, struct error *err)
{
	const char *const argv[] = {"/bin/sh", "-c", r->check->run, NULL};
	struct machine_exec exec = {.argv = argv, .no_stdin = true, .timeout_ms = r->check->timeout_ms};
	struct machine_capture capture = {.max = OUTPUT_MAX, .cancel = options->cancel};
	struct error why = ERROR_INIT;
	int result = machine_exec_capture(control, &exec, &capture, &why), kept;

	kept = keep(&capture.out, capture.cut, &r->output, err) < 0 ||
			       keep(&capture.err, capture.cut, &r->errors, err) < 0
		       ? -1
		       : 0;
	if (result < 0 && why.kind == ERROR_TIMEOUT) {
		r->verdict = CHECK_FAIL;
		strbuf_puts(evidence, why.message);
	} else if (result < 0) {
		skip(r, evidence, &why);
	} else {
		r->status = WIFEXITED(capture.status) ? WEXITSTATUS(capture.status)
						      : 128 + WTERMSIG(capture.status);
		judge(r, &capture.out, evidence);
	}
	machine_capture_free(&capture);
	return kept;
}

static int try_once(const struct session *s, const struct session_check_options *options, struct check_result *r,
		    struct error *err)
{
	cleanup_strbuf struct strbuf evidence = STRBUF_INIT;
	cleanup_free char *machine = str_printf(err, "%s/%s", s->name, r->check->machine);
	cleanup_close int control = -1;
	struct error why = ERROR_INIT;

	if (!machine)
		return -1;
	result_clear(r);
	control = session_connect(machine, &why);
	if (control < 0)
		skip(r, &evidence, &why);
	else if (run_in(control, options, r, &evidence, err) < 0)
		return -1;
	r->tries += control >= 0;
	r->evidence = strbuf_steal(&evidence, err);
	return r->evidence ? 0 : -1;
}

/* ---- one check ---- */

static bool cancelled(const struct session_check_options *options)
{
	return options->cancel && *options->cancel;
}

static int run_check(const struct session *s, const struct session_check_options *options, struct check_result *r,
		     struct error *err)
{
	int64_t begun = loop_now_ms(), until = begun + r->check->retry_ms;

	for (;;) {
		if (try_once(s, options, r, err) < 0)
			return error_prefix(err, "check '%s'", r->check->name);
		r->ms = loop_now_ms() - begun;
		if (r->verdict != CHECK_FAIL || loop_now_ms() + RETRY_MS > until || cancelled(options))
			return 0;
		usleep(RETRY_MS * 1000);
	}
}

static void count(struct check_report *report, const struct check_result *r)
{
	report->passed += r->verdict == CHECK_PASS;
	report->failed += r->verdict == CHECK_FAIL;
	report->skipped += r->verdict == CHECK_SKIP;
	report->points_of += r->check->points;
	if (r->verdict == CHECK_PASS)
		report->points += r->check->points;
}

static bool in_stage(const struct lab_check *check, const char *stage)
{
	return !stage || !check->stage || str_eq(check->stage, stage);
}

static int check_stage(const struct lab *lab, const char *stage, struct error *err)
{
	cleanup_strbuf struct strbuf stages = STRBUF_INIT;

	if (!lab->check_count)
		return error_set(err, ERROR_FAILED, "lab %s has no checks", lab->name);
	for (size_t i = 0; stage && i < lab->check_count; i++) {
		const char *one = lab->checks[i].stage;
		bool told = false;

		if (str_eq(one, stage))
			return 0;
		for (size_t j = 0; j < i; j++)
			told |= str_eq(lab->checks[j].stage, one);
		if (one && !told)
			strbuf_printf(&stages, "%s%s", stages.length ? ", " : "", one);
	}
	if (stage)
		return error_set(err, ERROR_NOT_FOUND, "lab %s has no stage %s; it has: %s", lab->name, stage,
				 stages.data ?: "none");
	return 0;
}

/* ---- what stays in session.yml ---- */

struct remember {
	const struct check_report *report;
	const char *stage;
};

static int remember(struct session *s, void *arg, struct error *err)
{
	const struct remember *r = arg;
	struct session_last_check *last = &s->last_check;

	last_check_free(last);
	*last = (struct session_last_check){.passed = (int)r->report->passed,
					    .failed = (int)r->report->failed,
					    .skipped = (int)r->report->skipped,
					    .points = r->report->points,
					    .points_of = r->report->points_of};
	last->time = str_dup(r->report->time, err);
	if (r->stage)
		last->stage = str_dup(r->stage, err);
	if (!last->time || (r->stage && !last->stage))
		return -1;
	for (size_t i = 0; i < r->report->count; i++) {
		const struct check_result *one = &r->report->results[i];

		if (strv_addf(&last->verdicts, err, "%s %s", check_verdict_name(one->verdict), one->check->name) < 0)
			return -1;
	}
	return 0;
}

int session_check(struct session *session, const struct lab *lab, const struct session_check_options *options,
		  struct check_report *report, struct error *err)
{
	struct remember memory = {report, options->stage};

	*report = (struct check_report){0};
	if (check_stage(lab, options->stage, err) < 0)
		return -1;
	report->results = calloc(lab->check_count, sizeof(*report->results));
	report->time = session_now(err);
	if (!report->results || !report->time)
		return error_oom(err);
	for (size_t i = 0; i < lab->check_count; i++) {
		struct check_result *r = &report->results[report->count];

		if (!in_stage(&lab->checks[i], options->stage))
			continue;
		*r = (struct check_result){.check = &lab->checks[i], .status = -1};
		report->count++;
		if (run_check(session, options, r, err) < 0)
			return -1;
		if (cancelled(options))
			return error_set(err, ERROR_FAILED, "interrupted at check '%s'", r->check->name);
		count(report, r);
		if (options->progress)
			options->progress(options->progress_arg, r);
	}
	return session_update(session->name, remember, &memory, err);
}
