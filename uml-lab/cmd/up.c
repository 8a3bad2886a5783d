/* uml-lab up LAB: a session of the lab, its machines running. */
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/loop.h"
#include "uml-lab/cmd/cmd.h"

struct up_options {
	const char *name;
	struct strv params;
	struct strv only;
	const char *wait;
	int64_t timeout_ms;
	bool dry_run, json;
};

static const struct cli_option options[] = {
	{"name", 'n', CLI_STRING, offsetof(struct up_options, name), "SESSION", "name of the session (default: the lab's)"},
	{"param", 'p', CLI_LIST, offsetof(struct up_options, params), "K=V", "set a parameter of the lab; may be repeated"},
	{"only", 'o', CLI_LIST, offsetof(struct up_options, only), "M,…", "start these machines only"},
	{"wait", 'w', CLI_CHOICE, offsetof(struct up_options, wait), "ready|login|none", "what to wait for (default: ready)"},
	{"timeout", 't', CLI_DURATION, offsetof(struct up_options, timeout_ms), "TIME", "how long to wait (default: 120s)"},
	{"dry-run", 0, CLI_FLAG, offsetof(struct up_options, dry_run), NULL, "check everything, show the plan, start nothing"},
	{"json", 0, CLI_FLAG, offsetof(struct up_options, json), NULL, "print the session's status as JSON when done"},
	{NULL},
};

static enum session_wait wait_of(const char *word)
{
	if (str_eq(word, "none"))
		return SESSION_WAIT_NONE;
	return str_eq(word, "login") ? SESSION_WAIT_LOGIN : SESSION_WAIT_READY;
}

/* "a,b" in any of the items becomes a and b. */
static int split_names(const struct strv *items, struct strv *names, struct error *err)
{
	for (size_t i = 0; i < items->count; i++)
		if (strv_split(names, items->items[i], ',', err) < 0)
			return -1;
	return 0;
}

/* What to do next, for a person. */
static void print_next(const struct session *s, int64_t ms)
{
	char forward[CMD_FORWARD_MAX];

	if (cli_quiet)
		return;
	printf("%s is up after %lld.%lld s.\n", s->name, (long long)(ms / 1000), (long long)(ms % 1000 / 100));
	for (size_t i = 0; i < s->machine_count; i++) {
		const struct session_machine *m = &s->machines[i];

		for (size_t j = 0; j < m->forwards.count; j++)
			printf("  %s: %s\n", m->name, cmd_forward_text(m->forwards.items[j], forward, sizeof(forward)));
	}
	printf("Be root on it:   uml-lab shell %s%s%s\n", s->name, s->machine_count > 1 ? "/" : "",
	       s->machine_count > 1 ? s->machines[0].name : "");
	printf("Stop, throw away: uml-lab down %s, uml-lab reset %s\n", s->name, s->name);
}

static int finish(struct session *s, const struct up_options *o, int64_t begin, struct error *err)
{
	json_t *status = session_status(s, err);

	if (!status)
		return -1;
	if (o->json)
		return cmd_print_json(status, err);
	json_decref(status);
	/* session_status() settles, which may reload: forwards are there by now. */
	cleanup_session struct session *now = session_load(s->name, err);

	if (!now)
		return -1;
	print_next(now, loop_now_ms() - begin);
	return 0;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct up_options *o = opaque;
	cleanup_strv struct strv only = STRV_INIT;
	cleanup_session struct session *s = NULL;
	cleanup_progress struct progress *progress = NULL;
	cleanup_close int lock = -1;
	int64_t begin = loop_now_ms();
	struct session_start_options start = {
		.only = &only,
		.wait = wait_of(o->wait),
		.timeout_ms = o->timeout_ms ? o->timeout_ms : CMD_READY_MS,
		.progress = progress_tell,
	};

	if (split_names(&o->only, &only, err) < 0)
		return -1;
	s = session_prepare(operands->items[0], o->name, &o->params, o->dry_run, &lock, err);
	if (!s)
		return -1;
	if (session_check_start(s, &start, o->dry_run ? stdout : NULL, err) < 0)
		return -1;
	if (o->dry_run)
		return 0;
	progress = progress_new(s, &only, err);
	if (!progress)
		return -1;
	start.progress_arg = progress;
	start.cancel = cmd_catch_signals();
	if (session_start(s, &start, err) < 0)
		return -1;
	return finish(s, o, begin, err);
}

const struct cli_command cmd_up = {
	.name = "up",
	.operands = "LAB",
	.summary = "Start a lab: make its session, boot its machines, wait until they are ready",
	.help = "LAB is a folder, a lab.yml, or a name that `uml-lab list` shows. A session that is there already\n"
		"keeps what was changed on its machines; `uml-lab reset` throws that away.",
	.options = options,
	.options_size = sizeof(struct up_options),
	.min_operands = 1,
	.max_operands = 1,
	.run = run,
};
