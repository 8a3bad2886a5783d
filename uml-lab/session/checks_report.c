/*
 * A report for scripts (JSON) and for CI systems (JUnit's XML).
 *
 * JUnit: the format has no standard; this follows what Jenkins' and GitLab's
 * readers take: one <testsuite> of <testcase> with <failure> or <skipped>, the
 * output in <system-out>. The texts passed str_clean(), so that nothing is left that
 * XML 1.0 section 2.2 forbids; what is left to do is to escape.
 */
#include <stdlib.h>
#include <string.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/session/checks.h"

static json_t *result_json(const struct check_result *r)
{
	return json_pack("{s:s, s:s, s:s?, s:s, s:i, s:i, s:i, s:i, s:f, s:s, s:s?, s:s?}", "name", r->check->name,
			 "machine", r->check->machine, "stage", r->check->stage, "verdict",
			 check_verdict_name(r->verdict), "points",
			 r->verdict == CHECK_PASS ? r->check->points : 0, "points_of", r->check->points, "status",
			 r->status, "tries", r->tries, "seconds", (double)r->ms / 1000, "evidence", r->evidence,
			 "output", r->output, "errors", r->errors);
}

json_t *check_report_json(const struct session *session, const struct check_report *report, struct error *err)
{
	json_t *object, *list = json_array();

	for (size_t i = 0; list && i < report->count; i++) {
		if (json_array_append_new(list, result_json(&report->results[i])) == 0)
			continue;
		json_decref(list);
		list = NULL;
	}
	object = json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:o}", "session", session->name, "lab",
			   session->lab->name, "time", report->time, "passed", (int)report->passed, "failed",
			   (int)report->failed, "skipped", (int)report->skipped, "points", report->points, "points_of",
			   report->points_of, "checks", list);
	if (!object)
		error_oom(err);
	return object;
}

static void put_escaped(struct strbuf *out, const char *text)
{
	for (; text && *text; text++) {
		switch (*text) {
		case '&': strbuf_puts(out, "&amp;"); break;
		case '<': strbuf_puts(out, "&lt;"); break;
		case '>': strbuf_puts(out, "&gt;"); break;
		case '"': strbuf_puts(out, "&quot;"); break;
		case '\n': strbuf_puts(out, "&#10;"); break;
		default: strbuf_putc(out, *text);
		}
	}
}

void check_xml_attribute(struct strbuf *out, const char *name, const char *value)
{
	strbuf_printf(out, " %s=\"", name);
	put_escaped(out, value);
	strbuf_putc(out, '"');
}

static void put_element(struct strbuf *out, const char *name, const char *text)
{
	if (!text || !*text)
		return;
	strbuf_printf(out, "<%s>", name);
	put_escaped(out, text);
	strbuf_printf(out, "</%s>", name);
}

static void put_case(struct strbuf *out, const struct check_result *r)
{
	const char *kind = r->verdict == CHECK_FAIL ? "failure" : r->verdict == CHECK_SKIP ? "skipped" : NULL;

	strbuf_puts(out, "  <testcase");
	check_xml_attribute(out, "classname", r->check->machine);
	check_xml_attribute(out, "name", r->check->name);
	strbuf_printf(out, " time=\"%.3f\">", (double)r->ms / 1000);
	if (kind) {
		strbuf_printf(out, "<%s", kind);
		check_xml_attribute(out, "message", r->evidence);
		strbuf_puts(out, "/>");
	}
	put_element(out, "system-out", r->output);
	put_element(out, "system-err", r->errors);
	strbuf_puts(out, "</testcase>\n");
}

int check_report_junit(const char *path, const struct session *session, const struct check_report *report,
		       struct error *err)
{
	cleanup_strbuf struct strbuf out = STRBUF_INIT;
	cleanup_free char *name = str_printf(err, "%s (session %s)", session->lab->name, session->name);
	int64_t ms = 0;

	if (!name)
		return -1;
	for (size_t i = 0; i < report->count; i++)
		ms += report->results[i].ms;
	strbuf_puts(&out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n <testsuite");
	check_xml_attribute(&out, "name", name);
	check_xml_attribute(&out, "timestamp", report->time);
	strbuf_printf(&out, " tests=\"%zu\" failures=\"%zu\" errors=\"0\" skipped=\"%zu\" time=\"%.3f\">\n", report->count,
		      report->failed, report->skipped, (double)ms / 1000);
	for (size_t i = 0; i < report->count; i++)
		put_case(&out, &report->results[i]);
	strbuf_puts(&out, " </testsuite>\n</testsuites>\n");
	if (strbuf_check(&out, err) < 0)
		return -1;
	return file_write_atomic(path, out.data, out.length, 0644, err);
}
