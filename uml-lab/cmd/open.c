/* uml-lab open FILE: somebody's submission as a session of one's own, behind all walls there are. */
#include <stdlib.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"
#include "uml-lab/submission/submission.h"

struct open_options {
	const char *name, *lab, *stage, *junit;
	bool as_submitted, network, weak, stopped, check, discard, json;
	uint64_t max_size;
	int64_t timeout_ms;
};

static const struct cli_option options[] = {
	{"name", 'n', CLI_STRING, offsetof(struct open_options, name), "SESSION",
	 "name of the session (default: LAB-STUDENT)"},
	{"lab", 'l', CLI_STRING, offsetof(struct open_options, lab), "LAB",
	 "run it as this lab, with its checks"},
	{"as-submitted", 0, CLI_FLAG, offsetof(struct open_options, as_submitted), NULL,
	 "run it as the lab that it came with, made harmless, also if you have one of that name"},
	{"network", 0, CLI_FLAG, offsetof(struct open_options, network), NULL,
	 "let SLIRP reach the outside as the lab has it"},
	{"weak", 0, CLI_FLAG, offsetof(struct open_options, weak), NULL,
	 "open it also where there are no user namespaces"},
	{"stopped", 0, CLI_FLAG, offsetof(struct open_options, stopped), NULL, "start nothing: for diff"},
	{"check", 'c', CLI_FLAG, offsetof(struct open_options, check), NULL,
	 "run the lab's checks when it is ready"},
	{"stage", 's', CLI_STRING, offsetof(struct open_options, stage), "STAGE",
	 "with --check: as in check"},
	{"junit", 0, CLI_STRING, offsetof(struct open_options, junit), "FILE", "with --check: as in check"},
	{"discard", 0, CLI_FLAG, offsetof(struct open_options, discard), NULL,
	 "stop and remove the session when all is done"},
	{"max-size", 0, CLI_SIZE, offsetof(struct open_options, max_size), "SIZE",
	 "content it may hold at most (default: 4G)"},
	{"timeout", 't', CLI_DURATION, offsetof(struct open_options, timeout_ms), "TIME",
	 "how long to wait until it is ready (default: 120s)"},
	{"json", 0, CLI_FLAG, offsetof(struct open_options, json), NULL, "for scripts"},
	{NULL},
};

/* What was opened, and what became of it. */
struct opened {
	const struct open_options *options;
	struct session *session;
	int lock;
	struct strv notes;
	json_t *check;
};

static int start(struct opened *x, struct error *err)
{
	cleanup_progress struct progress *progress = progress_new(x->session, NULL, err);
	const struct session_start_options how = {
		.wait = SESSION_WAIT_READY,
		.timeout_ms = x->options->timeout_ms ?: CMD_READY_MS,
		.progress = progress_tell,
		.progress_arg = progress,
		.cancel = cmd_catch_signals(),
	};

	if (!progress || session_check_start(x->session, &how, NULL, err) < 0)
		return -1;
	return session_start(x->session, &how, err);
}

/* Exit status, -1 + err. */
static int work(struct opened *x, struct error *err)
{
	const struct open_options *o = x->options;
	const struct cmd_check_how how = {
		.stage = o->stage, .junit = o->junit, .json = o->json ? &x->check : NULL};

	if (o->stopped)
		return 0;
	if (start(x, err) < 0)
		return -1;
	return o->check ? cmd_check_session(x->session, &how, err) : 0;
}

/* The session goes, whatever it was able to do. */
static int discard(struct opened *x, struct error *err)
{
	const char *name = x->session->name;
	cleanup_session struct session *now = session_load(name, err);
	struct error stop = ERROR_INIT;

	if (!now)
		return -1;
	if (session_stop(now, NULL, true, 0, NULL, NULL, &stop) < 0 && stop.kind != ERROR_STATE) {
		error_copy(err, &stop);
		return -1;
	}
	close(steal_fd(&x->lock));
	return session_remove(name, false, NULL, NULL, err);
}

static json_t *notes_json(const struct strv *notes)
{
	json_t *list = json_array();

	for (size_t i = 0; i < notes->count; i++)
		json_array_append_new(list, json_string(notes->items[i]));
	return list;
}

static int print_json(const struct opened *x, struct error *err)
{
	const struct session_origin *origin = &x->session->origin;

	return cmd_print_json(json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:o, s:O?}", "session",
					x->session->name, "file", origin->file, "student", origin->student,
					"time", origin->time, "lab", x->session->lab->name, "network",
					origin->network, "kept", !x->options->discard, "notes",
					notes_json(&x->notes), "check", x->check),
			      err);
}

static void print_next(const struct opened *x)
{
	const struct session *s = x->session;

	if (cli_quiet)
		return;
	printf("The submission of %s, made %s, is session %s%s.\n", s->origin.student, s->origin.time,
	       s->name,
	       x->options->stopped ? ", not started"
	       : s->origin.network ? ""
				   : ", without a network to the outside");
	for (size_t i = 0; i < x->notes.count; i++)
		printf("Note: %s.\n", x->notes.items[i]);
}

static void print_ways(const struct opened *x)
{
	const struct session *s = x->session;

	if (cli_quiet || x->options->discard)
		return;
	if (!x->options->stopped)
		printf("Check it:   uml-lab check %s\n", s->name);
	printf("See what changed: uml-lab diff %s\n", s->name);
	printf("As it was handed in, again: uml-lab reset %s --to " SUBMISSION_SNAPSHOT
	       "; remove it: uml-lab %sgc %s\n",
	       s->name, x->options->stopped ? "" : "down, uml-lab ", s->name);
}

static int open_one(struct opened *x, struct error *err)
{
	const struct open_options *o = x->options;
	int status;

	if (!o->json)
		print_next(x);
	fflush(stdout);
	status = work(x, err);
	if (o->discard) {
		struct error why = ERROR_INIT;

		if (discard(x, &why) < 0 && status >= 0) {
			error_copy(err, &why);
			return -1;
		}
	}
	if (status < 0)
		return -1;
	if (o->json)
		return print_json(x, err) < 0 ? -1 : status;
	print_ways(x);
	return status;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct open_options *o = opaque;
	struct opened x = {.options = o, .lock = -1};
	const struct submission_open_options how = {.file = operands->items[0],
						    .name = o->name,
						    .lab = o->lab,
						    .as_submitted = o->as_submitted,
						    .network = o->network,
						    .weak = o->weak,
						    .data_max = o->max_size};
	int status = -1;

	if (o->lab && o->as_submitted)
		return error_set(err, ERROR_USAGE, "--lab and --as-submitted exclude each other");
	if (o->stopped && o->check)
		return error_set(err, ERROR_USAGE, "--stopped and --check exclude each other");
	cmd_catch_signals();
	x.session = submission_open(&how, &x.notes, &x.lock, err);
	if (x.session)
		status = open_one(&x, err);
	if (x.lock >= 0)
		close(x.lock);
	json_decref(x.check);
	strv_free(&x.notes);
	session_free(x.session);
	return status;
}

const struct cli_command cmd_open = {
	.name = "open",
	.operands = "FILE",
	.summary = "Open a submission that somebody handed in, behind all walls there are",
	.help = "FILE is taken apart by a process that can do nothing else. Its disks are stood on your own "
		"images, found by content; it "
		"runs as your lab of that name, else as the lab that it came with. Shares, forwards, "
		"locators of other networks "
		"and the way to the outside are left out, what it may use is bounded, and it does not run "
		"without user "
		"namespaces. What was handed in stays as it is in the snapshot submission; all other verbs "
		"work as on your "
		"own sessions. See uml-lab-security(7), uml-lab-submission(5).",
	.options = options,
	.options_size = sizeof(struct open_options),
	.min_operands = 1,
	.max_operands = 1,
	.run = run,
};
