/* uml-lab diff SESSION[/MACHINE] [PATH…]: what changed in the files since the base. */
#include <stdlib.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"

struct diff_options {
	bool patch, json;
};

static const struct cli_option options[] = {
	{"patch", 'p', CLI_FLAG, offsetof(struct diff_options, patch), NULL, "a unified diff of the text files"},
	{"json", 0, CLI_FLAG, offsetof(struct diff_options, json), NULL, "for scripts"},
	{NULL},
};

/* What a guest's files hold must not command the terminal. */
static void print_text(char *text)
{
	for (unsigned char *p = (unsigned char *)text; isatty(STDOUT_FILENO) && *p; p++)
		if ((*p < ' ' && *p != '\n' && *p != '\t') || *p == 0x7f || (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0))
			*p = '?';
	fputs(text, stdout);
}

static int add_json(json_t *all, const char *machine, const char *text, struct error *err)
{
	json_t *changes = json_loads(text, 0, NULL);

	if (!json_is_array(changes)) {
		json_decref(changes);
		return error_set(err, ERROR_FAILED, "uml-cow diff-files told nothing that can be read about %s", machine);
	}
	return json_array_append_new(all, json_pack("{s:s, s:o}", "machine", machine, "changes", changes)) ? error_oom(err) : 0;
}

static int tell(const struct diff_options *o, json_t *all, const char *machine, bool several, char *text,
		struct error *err)
{
	if (o->json)
		return add_json(all, machine, text, err);
	if (several && *text)
		printf(o->patch ? "# machine %s\n" : "%s:\n", machine);
	print_text(text);
	return 0;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct diff_options *o = opaque;
	cleanup_free char *name = NULL, *machine = NULL;
	cleanup_session struct session *s = NULL;
	struct strv paths = {.items = operands->items + 1, .count = operands->count ? operands->count - 1 : 0};
	struct session_diff_options diff = {.patch = o->patch, .json = o->json, .paths = &paths};
	json_t *all = NULL;
	int result = 0;

	if (o->patch && o->json)
		return error_set(err, ERROR_USAGE, "--json and --patch exclude each other");
	if (session_resolve(cmd_operand(operands, 0), &name, &machine, false, err) < 0 || !(s = session_load(name, err)))
		return -1;
	all = o->json ? json_array() : NULL;
	for (size_t i = 0; result == 0 && i < s->machine_count; i++) {
		cleanup_free char *text = NULL;

		if (machine && !str_eq(machine, s->machines[i].name))
			continue;
		text = session_diff(s, s->machines[i].name, &diff, err);
		result = text ? tell(o, all, s->machines[i].name, !machine && s->machine_count > 1, text, err) : -1;
	}
	if (result == 0 && all)
		return cmd_print_json(all, err);
	json_decref(all);
	return result;
}

const struct cli_command cmd_diff = {
	.name = "diff",
	.operands = "SESSION[/MACHINE] [PATH…]",
	.summary = "Show what changed in the files of machines since their base",
	.help = "A line each: A added, D removed, M modified, R renamed; the mode; the path; and in what it differs. With PATHs "
		"only what lies there and below. It is told what changed on the root disk, which must hold ext2, ext3 or ext4. "
		"A machine that runs is held still for that moment.",
	.options = options,
	.options_size = sizeof(struct diff_options),
	.min_operands = 1,
	.max_operands = -1,
	.run = run,
};
