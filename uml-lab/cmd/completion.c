/* uml-lab completion SHELL: a script for the shell; --words: what may follow a verb, for that script. */
#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"

struct completion_options {
	const char *words;
};

static const struct cli_option options[] = {
	{"words", 0, CLI_STRING, offsetof(struct completion_options, words), "VERB", "names that may follow VERB"},
	{NULL},
};

static int print_labs(struct error *err)
{
	struct lab_entry *entries;
	size_t count;

	if (lab_list(&entries, &count, err) < 0)
		return -1;
	for (size_t i = 0; i < count; i++)
		printf("%s\n", entries[i].name ?: "");
	lab_entries_free(entries, count);
	return 0;
}

static int print_sessions(struct error *err)
{
	cleanup_strv struct strv names = STRV_INIT;

	if (session_names(&names, err) < 0)
		return -1;
	for (size_t i = 0; i < names.count; i++) {
		cleanup_session struct session *s = session_load(names.items[i], NULL);

		printf("%s\n", names.items[i]);
		for (size_t j = 0; s && j < s->machine_count; j++)
			printf("%s/%s\n", s->name, s->machines[j].name);
	}
	return 0;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct completion_options *o = opaque;

	if (o->words)
		return str_eq(o->words, "up") || str_eq(o->words, "validate") ? print_labs(err) : print_sessions(err);
	if (!operands->count)
		return error_set(err, ERROR_USAGE, "name a shell: bash or zsh");
	return cli_completion(&uml_lab_program, operands->items[0], stdout, err);
}

const struct cli_command cmd_completion = {
	.name = "completion",
	.operands = "bash|zsh",
	.summary = "Print a completion script for a shell",
	.help = "For this shell only:  . <(uml-lab completion bash)",
	.options = options,
	.options_size = sizeof(struct completion_options),
	.max_operands = 1,
	.run = run,
};
