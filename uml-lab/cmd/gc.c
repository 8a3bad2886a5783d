/* uml-lab gc [SESSION…]: removes what nobody needs, and stopped sessions for good when asked to. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"

struct gc_options {
	bool sessions, yes, dry_run, json;
};

static const struct cli_option options[] = {
	{"sessions", 0, CLI_FLAG, offsetof(struct gc_options, sessions), NULL, "remove all stopped sessions for good"},
	{"yes", 'y', CLI_FLAG, offsetof(struct gc_options, yes), NULL, "do not ask"},
	{"dry-run", 'n', CLI_FLAG, offsetof(struct gc_options, dry_run), NULL, "only tell what would go"},
	{"json", 0, CLI_FLAG, offsetof(struct gc_options, json), NULL, "for scripts"},
	{NULL},
};

struct tally {
	const struct gc_options *options;
	json_t *items;
	uint64_t bytes;
	size_t count;
};

static void tell(void *arg, const char *what, const char *path, uint64_t bytes)
{
	struct tally *t = arg;
	char size[24];

	t->bytes += bytes;
	t->count++;
	if (t->items)
		json_array_append_new(t->items, json_pack("{s:s, s:s, s:I}", "what", what, "path", path, "bytes",
							  (json_int_t)bytes));
	else if (!cli_quiet)
		printf("%s%s: %s (%s)\n", t->options->dry_run ? "would remove " : "", what, path,
		       str_human_size(bytes, size, sizeof(size)));
}

/* Stopped ones: a machine of a running one stands in the way of its removal. */
static int add_stopped(struct strv *names, struct error *err)
{
	cleanup_strv struct strv all = STRV_INIT;

	if (session_names(&all, err) < 0)
		return -1;
	for (size_t i = 0; i < all.count; i++) {
		cleanup_session struct session *s = session_load(all.items[i], NULL);

		if (s && !session_runs(s) && strv_add(names, all.items[i], err) < 0)
			return -1;
	}
	return 0;
}

static int choose(const struct gc_options *o, const struct strv *operands, struct strv *names, struct error *err)
{
	if (o->sessions && operands->count)
		return error_set(err, ERROR_USAGE, "--sessions means all of them: name none");
	if (o->sessions)
		return add_stopped(names, err);
	for (size_t i = 0; i < operands->count; i++) {
		cleanup_free char *name = NULL;

		if (session_resolve(operands->items[i], &name, NULL, false, err) < 0 || strv_add(names, name, err) < 0)
			return -1;
	}
	return 0;
}

static int confirm(const struct strv *names, struct error *err)
{
	char answer[16];

	if (!isatty(STDIN_FILENO)) {
		error_set(err, ERROR_USAGE, "sessions are removed for good, and there is no terminal to ask on");
		return error_hint(err, "say --yes");
	}
	fprintf(stderr, "Remove for good, with disks and snapshots: ");
	for (size_t i = 0; i < names->count; i++)
		fprintf(stderr, "%s%s", i ? ", " : "", names->items[i]);
	fprintf(stderr, "? [y/N] ");
	if (!fgets(answer, sizeof(answer), stdin) || (answer[0] != 'y' && answer[0] != 'Y'))
		return error_set(err, ERROR_FAILED, "nothing was removed");
	return 0;
}

static int report(const struct tally *t, struct error *err)
{
	char size[24];

	if (t->items)
		return cmd_print_json(json_pack("{s:b, s:I, s:O}", "dry_run", t->options->dry_run, "bytes", (json_int_t)t->bytes,
						"items", t->items),
				      err);
	if (cli_quiet)
		return 0;
	if (t->count)
		printf("%s %s.\n", t->options->dry_run ? "That would free" : "Freed", str_human_size(t->bytes, size, sizeof(size)));
	else
		printf("There is nothing to remove.\n");
	return 0;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct gc_options *o = opaque;
	cleanup_strv struct strv names = STRV_INIT;
	struct tally t = {.options = o, .items = o->json ? json_array() : NULL};
	int result = choose(o, operands, &names, err);

	if (result == 0 && names.count && !o->yes && !o->dry_run)
		result = confirm(&names, err);
	for (size_t i = 0; result == 0 && i < names.count; i++)
		result = session_remove(names.items[i], o->dry_run, tell, &t, err);
	if (result == 0 && (!operands->count || o->sessions))
		result = session_gc(o->dry_run, tell, &t, err);
	if (result == 0)
		result = report(&t, err);
	json_decref(t.items);
	return result;
}

const struct cli_command cmd_gc = {
	.name = "gc",
	.operands = "[SESSION…]",
	.summary = "Remove what nobody needs, and sessions for good",
	.help = "Without SESSION: folders of dead machines, files that interrupted commands left, files that no snapshot needs, "
		"old caches, unfinished images. What runs, and every session's disks, stay. With SESSION that stopped session is "
		"removed for good, its snapshots with it.",
	.options = options,
	.options_size = sizeof(struct gc_options),
	.max_operands = -1,
	.run = run,
};
