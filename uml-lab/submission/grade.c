/*
 * Checking many submissions: one process a submission, `uml-lab open --check --discard --json`, several at a
 * time.
 *
 * Each has its own session, named after us, its own time, and an end in any case: told to stop, it stops its
 * machines and removes its session; if it does not within GRACE_MS it is killed, and we do that for it. They
 * end when we end. What they print goes into memory, and is read when they are over.
 */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "uml-lab/base/child.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/loop.h"
#include "uml-lab/submission/collect.h"

#define GRACE_MS           45000 /* a start that is taken back, a stop, a removal */
#define JOBS_MAX           64
#define OUTPUT_MAX         (16u << 20) /* bytes of a report */
#define ERRORS_MAX         8192        /* bytes of what is said when there is none */
#define STATUS_SOME_FAILED 6           /* design.md, exit status */

struct job {
	struct child child;
	struct collected *item;
	int out, err; /* memory that it prints into */
	int64_t deadline;
	bool told, late; /* to stop; because its time was over */
	char session[SESSION_NAME_MAX + 1];
};

struct grading {
	struct collection *collection;
	const struct collection_options *options;
	struct job jobs[JOBS_MAX];
	size_t next; /* of the collection, to be started */
	size_t done, of;
	int running;
};

static bool is_wanted(const struct collected *item)
{
	return !item->problem;
}

static bool is_cancelled(const struct grading *g)
{
	return g->options->cancel && *g->options->cancel;
}

/* ---- one ---- */

static int build_argv(const struct grading *g, const struct job *job, struct strv *argv, struct error *err)
{
	const struct collection_options *o = g->options;
	cleanup_free char *program = file_absolute("/proc/self/exe", false, err);
	const char *const fixed[] = {"open",      "--quiet", "--json",    "--check",
				     "--discard", "--name",  job->session};

	if (!program || strv_add(argv, program, err) < 0)
		return -1;
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		if (strv_add(argv, fixed[i], err) < 0)
			return -1;
	if ((o->lab && strv_addf(argv, err, "--lab=%s", o->lab) < 0) ||
	    (o->network && strv_add(argv, "--network", err) < 0) ||
	    (o->weak && strv_add(argv, "--weak", err) < 0) ||
	    (o->data_max && strv_addf(argv, err, "--max-size=%llu", (unsigned long long)o->data_max) < 0) ||
	    /* Its time is ours to keep: a start with a limit of its own would be told as a failed one. */
	    strv_addf(argv, err, "--timeout=%lldms", (long long)o->timeout_ms + GRACE_MS) < 0 ||
	    strv_add(argv, "--", err) < 0)
		return -1;
	return strv_add(argv, job->item->path, err);
}

static int start_job(struct grading *g, struct job *job, struct collected *item, struct error *err)
{
	cleanup_strv struct strv argv = STRV_INIT;
	cleanup_close int out = memfd_create("report", MFD_CLOEXEC),
			  errors = memfd_create("errors", MFD_CLOEXEC);
	const struct child_fd fds[] = {{out, 1}, {errors, 2}};
	struct child_spec spec = {.fds = fds,
				  .fd_count = ARRAY_SIZE(fds),
				  .null_stdin = true,
				  .new_session = true,
				  .death_signal = SIGTERM};

	*job = (struct job){.child = CHILD_INIT,
			    .item = item,
			    .out = -1,
			    .err = -1,
			    .deadline = loop_now_ms() + g->options->timeout_ms};
	snprintf(job->session, sizeof(job->session), "collect-%d-%zu", getpid(),
		 (size_t)(item - g->collection->items) + 1);
	if (out < 0 || errors < 0)
		return error_errno(err, errno, "cannot get memory");
	if (build_argv(g, job, &argv, err) < 0)
		return -1;
	spec.argv = (const char *const *)argv.items;
	if (child_spawn(&job->child, &spec, err) < 0)
		return -1;
	job->out = steal_fd(&out);
	job->err = steal_fd(&errors);
	g->running++;
	return 0;
}

/* What it printed, cleaned, at most max bytes. malloc'ed. */
static char *read_output(int fd, size_t max)
{
	cleanup_strbuf struct strbuf text = STRBUF_INIT;
	cleanup_free char *raw = malloc(max + 1);
	ssize_t n = raw ? file_pread_full(fd, raw, max, 0) : -1;

	if (n > 0)
		strbuf_add(&text, raw, (size_t)n);
	str_clean(&text);
	return strbuf_steal(&text, NULL);
}

/* "uml-lab: what\numl-lab: what to do\n" on one line. */
static char *one_line(const char *text)
{
	static const char prefix[] = "uml-lab: ";
	cleanup_strv struct strv lines = STRV_INIT;
	cleanup_strbuf struct strbuf out = STRBUF_INIT;

	if (!text || strv_split(&lines, text, '\n', NULL) < 0)
		return NULL;
	for (size_t i = 0; i < lines.count; i++)
		if (lines.items[i][0])
			strbuf_printf(&out, "%s%s", out.length ? "; " : "",
				      lines.items[i] +
					      (str_starts(lines.items[i], prefix) ? strlen(prefix) : 0));
	return strbuf_steal(&out, NULL);
}

static void keep_problem(const struct grading *g, struct job *job, int status)
{
	cleanup_free char *said = read_output(job->err, ERRORS_MAX), *line = one_line(said);
	char how[64];

	free(job->item->check_problem);
	if (job->late)
		job->item->check_problem = str_printf(NULL, "it was not done within %lld s",
						      (long long)(g->options->timeout_ms / 1000));
	else if (line && *line)
		job->item->check_problem = steal_ptr(&line);
	else
		job->item->check_problem =
			str_printf(NULL, "its process %s", child_describe_status(status, how, sizeof(how)));
}

static void keep_report(const struct grading *g, struct job *job, int status)
{
	cleanup_free char *text = read_output(job->out, OUTPUT_MAX);
	json_t *all = text ? json_loads(text, 0, NULL) : NULL;
	json_t *report = json_object_get(all, "check");

	if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == STATUS_SOME_FAILED) &&
	    json_is_object(report))
		job->item->report = json_incref(report);
	else
		keep_problem(g, job, status);
	json_decref(all);
}

/* What a job that had to be killed left. */
static void sweep_session(const char *name)
{
	cleanup_session struct session *s = session_load(name, NULL);

	if (!s)
		return;
	session_stop(s, NULL, true, 0, NULL, NULL, NULL);
	session_remove(name, false, NULL, NULL, NULL);
}

static void end_job(struct grading *g, struct job *job)
{
	int status = 0;

	child_wait(&job->child, -1, &status, NULL);
	keep_report(g, job, status);
	sweep_session(job->session);
	close(steal_fd(&job->out));
	close(steal_fd(&job->err));
	g->running--;
	g->done++;
	if (g->options->progress)
		g->options->progress(g->options->progress_arg, job->item, g->done, g->of);
}

/* ---- all ---- */

/* Whose time is over is told to stop, then killed. */
static void watch_time(struct grading *g, struct job *job)
{
	int64_t now = loop_now_ms();

	if (!job->told && (now >= job->deadline || is_cancelled(g))) {
		job->late = now >= job->deadline;
		job->told = true;
		job->deadline = now + GRACE_MS;
		child_kill(&job->child, SIGTERM);
	} else if (job->told && now >= job->deadline) {
		child_kill(&job->child, SIGKILL);
	}
}

static void wait_some(struct grading *g)
{
	struct pollfd p[JOBS_MAX];

	for (int i = 0; i < g->options->jobs; i++)
		p[i] = (struct pollfd){.fd = g->jobs[i].child.pid ? g->jobs[i].child.pidfd : -1,
				       .events = POLLIN};
	/* Deadlines and Ctrl-C are looked at several times a second; these jobs take many. */
	if (poll(p, (nfds_t)g->options->jobs, 200) < 0)
		return;
	for (int i = 0; i < g->options->jobs; i++) {
		if (!g->jobs[i].child.pid)
			continue;
		if (p[i].revents)
			end_job(g, &g->jobs[i]);
		else
			watch_time(g, &g->jobs[i]);
	}
}

static int start_some(struct grading *g, struct error *err)
{
	for (int i = 0; i < g->options->jobs; i++) {
		while (g->next < g->collection->count && !is_wanted(&g->collection->items[g->next]))
			g->next++;
		if (g->jobs[i].child.pid || g->next >= g->collection->count || is_cancelled(g))
			continue;
		if (start_job(g, &g->jobs[i], &g->collection->items[g->next++], err) < 0)
			return -1;
	}
	return 0;
}

int collection_check(struct collection *c, const struct collection_options *options, struct error *err)
{
	struct grading g = {.collection = c, .options = options};
	int result = 0;

	if (options->jobs < 1 || options->jobs > JOBS_MAX)
		return error_set(err, ERROR_USAGE, "from 1 to %d can be checked at a time", JOBS_MAX);
	for (int i = 0; i < JOBS_MAX; i++)
		g.jobs[i] = (struct job){.child = CHILD_INIT, .out = -1, .err = -1};
	for (size_t i = 0; i < c->count; i++)
		g.of += is_wanted(&c->items[i]);
	do {
		if (result == 0)
			result = start_some(&g, err);
		if (g.running)
			wait_some(&g);
	} while (g.running || (result == 0 && g.next < c->count && !is_cancelled(&g)));
	if (result == 0 && is_cancelled(&g))
		result = error_set(err, ERROR_FAILED, "interrupted");
	return result;
}
