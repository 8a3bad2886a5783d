/* The supervisor process of one machine: reads what to run from session.yml, and writes there what happens. */
#include <stdlib.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"
#include "uml-lab/session/session_internal.h"

struct told {
	const char *session, *machine, *kernel;
	const struct machine_report *report;
};

static int replace_text(char **text, const char *now, struct error *err)
{
	char *copy = now && now[0] ? str_dup(now, err) : NULL;

	if (now && now[0] && !copy)
		return -1;
	free(*text);
	*text = copy;
	return 0;
}

static int copy_list(struct strv *out, const struct strv *in, struct error *err)
{
	strv_free(out);
	for (size_t i = 0; in && i < in->count; i++)
		if (strv_add(out, in->items[i], err) < 0)
			return -1;
	return 0;
}

static int note_report(struct session *s, void *arg, struct error *err)
{
	const struct told *told = arg;
	const struct machine_report *r = told->report;
	struct session_machine *m = session_find_machine(s, told->machine);

	if (!m)
		return error_set(err, ERROR_NOT_FOUND, "machine %s is gone from session.yml", told->machine);
	m->ever_started = true;
	m->state = r->state;
	m->supervisor = r->supervisor;
	m->kernel_process = r->kernel;
	m->plug = r->plug;
	m->disk_server = r->disk;
	m->hostfs = r->hostfs;
	m->set_up |= r->set_up;
	m->ready_ms = r->ready_ms;
	m->restarts = r->restarts;
	free(m->changed);
	m->changed = session_now(err);
	if (!m->changed || replace_text(&m->cause, r->cause, err) < 0 ||
	    replace_text(&m->sandbox, r->sandbox, err) < 0 || replace_text(&m->kernel, told->kernel, err) < 0)
		return -1;
	return copy_list(&m->forwards, r->forwards, err);
}

static void on_report(void *arg, const struct machine_report *report)
{
	struct told *told = arg;
	struct error err = ERROR_INIT;

	told->report = report;
	/* A full disk must not take the machine down: it is told, and status still asks the live supervisor. */
	if (session_update(told->session, note_report, told, &err) < 0)
		log_error(&err);
}

/* A failure before machine_supervise() could report it. */
static void report_early(struct told *told, const struct error *err)
{
	struct machine_report report = {.state = MACHINE_FAILED, .cause = err->message};

	on_report(told, &report);
}

int session_supervise(const char *session, const char *machine, int ready_fd, struct error *err)
{
	cleanup_session struct session *s = session_load(session, err);
	struct machine_spec spec = {0};
	struct told told = {.session = session, .machine = machine};
	int result;

	if (!s)
		return -1;
	if (session_machine_spec(s, machine, &spec, err) < 0) {
		report_early(&told, err);
		return -1;
	}
	told.kernel = spec.kernel.release;
	result = machine_supervise(&spec, ready_fd, on_report, &told, err);
	/* Made by `up`; only empty when nobody else holds it. */
	rmdir(spec.runtime);
	machine_spec_free(&spec);
	return result;
}
