/* uml-lab collect DIR…: the submissions of a class: who, what, when; whole or not; copied or not; checked. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/cmd/cmd.h"
#include "uml-lab/session/checks.h"
#include "uml-lab/submission/collect.h"

#define CHECK_MS      300000
#define DIGEST_AT     10 /* after "sha512-1M:" */
#define DIGEST_SHOWN  12
#define STATUS_BROKEN 1

struct collect_options {
	const char *lab, *junit, *jobs;
	bool check, network, weak, json, csv;
	uint64_t max_size;
	int64_t timeout_ms;
};

static const struct cli_option options[] = {
	{"check", 'c', CLI_FLAG, offsetof(struct collect_options, check), NULL,
	 "open each one, run the lab's checks, remove it again"},
	{"jobs", 'j', CLI_STRING, offsetof(struct collect_options, jobs), "N",
	 "check so many at a time (default: half the processors)"},
	{"timeout", 't', CLI_DURATION, offsetof(struct collect_options, timeout_ms), "TIME",
	 "how long opening and checking one may take (default: 5m)"},
	{"lab", 'l', CLI_STRING, offsetof(struct collect_options, lab), "LAB", "check them by this lab"},
	{"network", 0, CLI_FLAG, offsetof(struct collect_options, network), NULL, "as for open"},
	{"weak", 0, CLI_FLAG, offsetof(struct collect_options, weak), NULL, "as for open"},
	{"max-size", 0, CLI_SIZE, offsetof(struct collect_options, max_size), "SIZE", "as for open"},
	{"csv", 0, CLI_FLAG, offsetof(struct collect_options, csv), NULL,
	 "as comma-separated values, for spreadsheets"},
	{"junit", 0, CLI_STRING, offsetof(struct collect_options, junit), "FILE",
	 "with --check: also write the results into this file as JUnit's XML"},
	{"json", 0, CLI_FLAG, offsetof(struct collect_options, json), NULL, "for scripts"},
	{NULL},
};

static const char *short_digest(const struct collected *item)
{
	return item->content.manifest ? item->digest + DIGEST_AT : "";
}

static int report_number(const struct collected *item, const char *key)
{
	return (int)json_integer_value(json_object_get(item->report, key));
}

/* ---- JSON ---- */

static json_t *list_json(const struct strv *texts)
{
	json_t *list = json_array();

	for (size_t i = 0; i < texts->count; i++)
		json_array_append_new(list, json_string(texts->items[i]));
	return list;
}

/* What the student's own uml-lab says the last check gave. */
static json_t *told_json(const struct submission *s)
{
	if (!s->check.time)
		return json_null();
	return json_pack("{s:s, s:i, s:i, s:i, s:i, s:i}", "time", s->check.time, "passed", s->check.passed,
			 "failed", s->check.failed, "skipped", s->check.skipped, "points", s->check.points,
			 "points_of", s->check.points_of);
}

static json_t *item_json(const struct collected *item)
{
	const struct submission *s = item->content.manifest;
	json_t *j =
		json_pack("{s:s, s:s?, s:I, s:b, s:s?, s:o, s:O?, s:s?}", "file", item->shown, "owner",
			  item->owner, "bytes", (json_int_t)item->bytes, "verified", item->problem == NULL,
			  "problem", item->problem, "same_disk_as", list_json(&item->same), "check",
			  item->report, "check_problem", item->check_problem);

	if (j && s)
		json_object_update_new(j, json_pack("{s:s, s:s, s:s, s:s, s:o}", "student", s->student, "lab",
						    s->lab, "time", s->time, "digest", item->digest,
						    "self_reported", told_json(s)));
	return j;
}

static int print_json(const struct collection *c, struct error *err)
{
	json_t *list = json_array();

	for (size_t i = 0; i < c->count; i++)
		json_array_append_new(list, item_json(&c->items[i]));
	return cmd_print_json(list, err);
}

/* ---- CSV ---- */

/*
 * RFC 4180, and what begins like a formula is made text: students choose these texts, and spreadsheets would
 * calculate them.
 */
static void put_csv(const char *text, bool first)
{
	if (!first)
		putchar(',');
	putchar('"');
	if (text && *text && strchr("=+-@\t", *text))
		putchar('\'');
	for (; text && *text; text++) {
		if (*text == '"')
			putchar('"');
		putchar(*text == '\n' ? ' ' : *text);
	}
	putchar('"');
}

static void put_csv_number(bool there, int64_t number)
{
	if (there)
		printf(",%lld", (long long)number);
	else
		putchar(',');
}

static void put_csv_line(const struct collected *item)
{
	static const char *const counts[] = {"points", "points_of", "passed", "failed", "skipped"};
	const struct submission *s = item->content.manifest;
	bool told = s && s->check.time;
	cleanup_strbuf struct strbuf same = STRBUF_INIT;

	put_csv(item->shown, true);
	put_csv(s ? s->student : "", false);
	put_csv(item->owner, false);
	put_csv(s ? s->lab : "", false);
	put_csv(s ? s->time : "", false);
	put_csv_number(true, (int64_t)item->bytes);
	put_csv(s ? item->digest : "", false);
	put_csv(item->problem ? "no" : "yes", false);
	put_csv(item->problem ?: item->check_problem, false);
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++)
		put_csv_number(item->report, report_number(item, counts[i]));
	put_csv_number(told, told ? s->check.points : 0);
	put_csv_number(told, told ? s->check.points_of : 0);
	for (size_t i = 0; i < item->same.count; i++)
		strbuf_printf(&same, "%s%s", i ? " " : "", item->same.items[i]);
	put_csv(same.data, false);
	printf("\r\n");
}

static void print_csv(const struct collection *c)
{
	printf("file,student,owner,lab,time,bytes,digest,verified,problem,points,points_of,passed,failed,"
	       "skipped,"
	       "self_reported_points,self_reported_points_of,same_disk_as\r\n");
	for (size_t i = 0; i < c->count; i++)
		put_csv_line(&c->items[i]);
}

/* ---- JUnit ---- */

static const char *text_of(json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key)) ?: "";
}

static void put_case(struct strbuf *out, json_t *check)
{
	const char *verdict = text_of(check, "verdict");

	strbuf_puts(out, "  <testcase");
	check_xml_attribute(out, "classname", text_of(check, "machine"));
	check_xml_attribute(out, "name", text_of(check, "name"));
	strbuf_printf(out, " time=\"%.3f\">", json_number_value(json_object_get(check, "seconds")));
	if (!str_eq(verdict, "PASS")) {
		strbuf_puts(out, str_eq(verdict, "SKIP") ? "<skipped" : "<failure");
		check_xml_attribute(out, "message", text_of(check, "evidence"));
		strbuf_puts(out, "/>");
	}
	strbuf_puts(out, "</testcase>\n");
}

static void put_suite(struct strbuf *out, const struct collected *item)
{
	const struct submission *s = item->content.manifest;
	cleanup_free char *name = str_printf(NULL, "%s (%s)", s ? s->student : "?", item->shown);
	json_t *checks = json_object_get(item->report, "checks"), *check;
	bool broken = !item->report;
	size_t i;

	strbuf_puts(out, " <testsuite");
	check_xml_attribute(out, "name", name);
	strbuf_printf(out, " tests=\"%zu\" failures=\"%d\" errors=\"%d\" skipped=\"%d\">\n",
		      broken ? 1 : json_array_size(checks), report_number(item, "failed"), broken,
		      report_number(item, "skipped"));
	json_array_foreach (checks, i, check)
		put_case(out, check);
	if (broken) {
		strbuf_puts(out, "  <testcase name=\"opens\"><error");
		check_xml_attribute(out, "message", item->problem ?: item->check_problem ?: "not checked");
		strbuf_puts(out, "/></testcase>\n");
	}
	strbuf_puts(out, " </testsuite>\n");
}

static int write_junit(const char *path, const struct collection *c, struct error *err)
{
	cleanup_strbuf struct strbuf out = STRBUF_INIT;

	strbuf_puts(&out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
	for (size_t i = 0; i < c->count; i++)
		put_suite(&out, &c->items[i]);
	strbuf_puts(&out, "</testsuites>\n");
	return strbuf_check(&out, err) < 0 ? -1 : file_write_atomic(path, out.data, out.length, 0644, err);
}

/* ---- for people ---- */

static const char *state_of(const struct collected *item)
{
	return item->problem         ? "BROKEN"
	       : item->check_problem ? "NOT CHECKED"
	       : item->same.count    ? "SAME DISK"
				     : "verified";
}

static int add_row(struct cli_table *table, const struct collected *item, bool checked, struct error *err)
{
	const struct submission *s = item->content.manifest;
	char size[24], digest[DIGEST_SHOWN + 1], told[40] = "-", points[40] = "-";
	const char *cells[9];
	size_t n = 0;

	snprintf(digest, sizeof(digest), "%.*s", DIGEST_SHOWN, short_digest(item));
	if (s && s->check.time)
		snprintf(told, sizeof(told), "%d of %d", s->check.points, s->check.points_of);
	if (item->report)
		snprintf(points, sizeof(points), "%d of %d", report_number(item, "points"),
			 report_number(item, "points_of"));
	cells[n++] = s ? s->student : NULL;
	cells[n++] = s ? s->lab : NULL;
	cells[n++] = s ? s->time : NULL;
	cells[n++] = str_human_size(item->bytes, size, sizeof(size));
	cells[n++] = *digest ? digest : NULL;
	cells[n++] = state_of(item);
	if (checked)
		cells[n++] = points;
	cells[n++] = told;
	cells[n++] = item->shown;
	return cli_table_row(table, cells, err);
}

/* What a table has no room for. */
static void print_remarks(const struct collected *item)
{
	if (item->problem)
		printf("%s: %s\n", item->shown, item->problem);
	if (item->check_problem)
		printf("%s: not checked: %s\n", item->shown, item->check_problem);
	for (size_t i = 0; i < item->same.count; i++)
		printf("%s: a root disk is the same as in %s\n", item->shown, item->same.items[i]);
}

static int print_table(const struct collection *c, bool checked, struct error *err)
{
	static const char *const plain[] = {"STUDENT", "LAB",           "TIME", "SIZE", "DIGEST",
					    "STATE",   "SELF-REPORTED", "FILE", NULL};
	static const char *const more[] = {"STUDENT", "LAB",    "TIME",          "SIZE", "DIGEST",
					   "STATE",   "POINTS", "SELF-REPORTED", "FILE", NULL};
	struct cli_table *table = cli_table_new(err, checked ? more : plain);
	int result = table ? 0 : -1;

	for (size_t i = 0; result == 0 && i < c->count; i++)
		result = add_row(table, &c->items[i], checked, err);
	if (result == 0)
		cli_table_print(table, stdout);
	cli_table_free(table);
	for (size_t i = 0; result == 0 && i < c->count; i++)
		print_remarks(&c->items[i]);
	return result;
}

static void tell(void *arg, const struct collected *item, size_t done, size_t of)
{
	const char *what = arg;

	if (!cli_quiet)
		fprintf(stderr, "%s %zu of %zu: %s\n", what, done, of, item->shown);
}

/* ---- the verb ---- */

static int parse_jobs(const struct collect_options *o, int *out, struct error *err)
{
	int64_t jobs = sysconf(_SC_NPROCESSORS_ONLN) / 2;

	if (o->jobs && str_to_i64(o->jobs, 1, 64, &jobs) < 0)
		return error_set(err, ERROR_USAGE, "--jobs is a number from 1 to 64");
	*out = jobs < 1 ? 1 : jobs > 64 ? 64 : (int)jobs;
	return 0;
}

static int report(const struct collect_options *o, const struct collection *c, struct error *err)
{
	if (o->junit && write_junit(o->junit, c, err) < 0)
		return -1;
	if (o->json)
		return print_json(c, err);
	if (!o->csv)
		return print_table(c, o->check, err);
	print_csv(c);
	return 0;
}

static int work(const struct collect_options *o, struct collection *c, const struct strv *operands,
		struct error *err)
{
	struct collection_options how = {.lab = o->lab,
					 .data_max = o->max_size,
					 .network = o->network,
					 .weak = o->weak,
					 .timeout_ms = o->timeout_ms ?: CHECK_MS,
					 .cancel = cmd_catch_signals(),
					 .progress = tell,
					 .progress_arg = "read"};

	if (parse_jobs(o, &how.jobs, err) < 0 || collection_find(c, operands, err) < 0 ||
	    collection_verify(c, &how, err) < 0)
		return -1;
	how.progress_arg = "checked";
	if (o->check && collection_check(c, &how, err) < 0)
		return -1;
	if (report(o, c, err) < 0)
		return -1;
	for (size_t i = 0; i < c->count; i++)
		if (c->items[i].problem || c->items[i].check_problem)
			return STATUS_BROKEN;
	return 0;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct collect_options *o = opaque;
	struct collection c = {0};
	int status;

	if (o->json && o->csv)
		return error_set(err, ERROR_USAGE, "--json and --csv exclude each other");
	if (o->junit && !o->check)
		return error_set(err, ERROR_USAGE, "--junit tells what checks gave: say --check");
	status = work(o, &c, operands, err);
	collection_free(&c);
	return status;
}

const struct cli_command cmd_collect = {
	.name = "collect",
	.operands = "DIR…",
	.summary = "Look over the submissions of a class: who, when, whole or not, copied or not; check them "
		   "all",
	.help = "All files of the folders, and of folders in them, are taken for submissions; a file may be "
		"named, too. Each is read by a "
		"process that can do nothing else: a broken one is told with its reason and stops no other. "
		"SELF-REPORTED is what "
		"the student's own uml-lab says of its last check. SAME DISK: another file holds the same "
		"root disk, and something was written to it: copied work.\n"
		"With --check each is opened as `uml-lab open` does, in a session that goes away again, "
		"several at a time. Ends "
		"with 1 when a file is broken or could not be checked.",
	.options = options,
	.options_size = sizeof(struct collect_options),
	.min_operands = 1,
	.max_operands = -1,
	.run = run,
};
