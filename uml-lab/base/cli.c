/*
 * How it works: the command is found first (one or two words), then argv is
 * walked once: options fill the zeroed option struct through their offsets,
 * everything else is an operand. Only when all of it was right does the
 * command run. Help, completion and parsing read the same tables.
 */
#include "uml-lab/base/cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"

bool cli_quiet, cli_verbose;

#define COMMANDS_MAX 96

bool cli_is_terminal(FILE *stream)
{
	return isatty(fileno(stream)) && !cli_quiet;
}

bool cli_colour(FILE *stream)
{
	const char *no_colour = getenv("NO_COLOR"), *term = getenv("TERM");

	return isatty(fileno(stream)) && !(no_colour && *no_colour) && !(term && str_eq(term, "dumb"));
}

/* ---- help ---- */

static void print_option(const struct cli_option *o, FILE *out)
{
	char left[96];
	int n = 0, columns = 28;

	n += snprintf(left, sizeof(left), o->letter ? "-%c, " : "    ", o->letter);
	n += snprintf(left + n, sizeof(left) - (size_t)n, "--%s", o->name);
	if (o->type != CLI_FLAG)
		snprintf(left + n, sizeof(left) - (size_t)n, " %s", o->value);
	for (const char *c = left; *c; c++)
		columns += (*c & 0xc0) == 0x80; /* printf() counts bytes, a UTF-8 character takes one column */
	fprintf(out, "  %-*s %s\n", columns, left, o->help);
}

/* Whether a command is of two words and begins with this one. */
static bool in_group(const struct cli_command *command, const char *word)
{
	size_t n = strcspn(command->name, " ");

	return command->name[n] && strncmp(command->name, word, n) == 0 && word[n] == '\0';
}

/* All verbs, or those that begin with the word `group`. */
static void help_overview(const struct cli_program *program, const char *group, FILE *out)
{
	if (!group)
		fprintf(out, "%s: %s\n\n", program->name, program->summary);
	fprintf(out, "Usage: %s %s%sVERB [OPTION…] [OPERAND…]\n\n", program->name, group ?: "", group ? " " : "");
	for (const struct cli_command *const *c = program->commands; *c; c++)
		if ((*c)->summary && (!group || in_group(*c, group)))
			fprintf(out, "  %-18s %s\n", (*c)->name, (*c)->summary);
	fprintf(out, "\n%s %s%sVERB --help tells more of each; --quiet and --verbose go with every verb.\n",
		program->name, group ?: "", group ? " " : "");
}

void cli_help(const struct cli_program *program, const struct cli_command *command, FILE *out)
{
	static const struct cli_option common[] = {
		{"quiet", 'q', CLI_FLAG, 0, NULL, "tell nothing but errors"},
		{"verbose", 'v', CLI_FLAG, 0, NULL, "tell more"},
		{"help", 'h', CLI_FLAG, 0, NULL, "show this"},
	};

	if (!command) {
		help_overview(program, NULL, out);
		return;
	}
	fprintf(out, "Usage: %s%s%s [OPTION…]%s%s\n\n%s.\n", program->name, command->name[0] ? " " : "", command->name,
		command->operands && command->operands[0] ? " " : "", command->operands ? command->operands : "",
		command->summary);
	if (command->help)
		fprintf(out, "\n%s\n", command->help);
	fprintf(out, "\nOptions:\n");
	for (const struct cli_option *o = command->options; o && o->name; o++)
		print_option(o, out);
	for (size_t i = 0; i < ARRAY_SIZE(common); i++)
		print_option(&common[i], out);
}

/* ---- parsing ---- */

static int bad_value(const struct cli_option *o, const char *value, const char *allowed, struct error *err)
{
	return error_set(err, ERROR_USAGE, "--%s: '%s' is not right; allowed: %s", o->name, value, allowed);
}

/* Whether value is one of "a|b|c". */
static bool is_choice(const char *choices, const char *value)
{
	size_t n = strlen(value);

	for (const char *p = choices;; p++) {
		const char *end = strchrnul(p, '|');

		if ((size_t)(end - p) == n && memcmp(p, value, n) == 0)
			return true;
		if (!*end)
			return false;
		p = end;
	}
}

static int store(const struct cli_option *o, char *base, const char *value, struct error *err)
{
	void *at = base + o->offset;

	switch (o->type) {
	case CLI_FLAG:
		*(bool *)at = true;
		return 0;
	case CLI_STRING:
		*(const char **)at = value;
		return 0;
	case CLI_LIST:
		return strv_add(at, value, err);
	case CLI_SIZE:
		if (str_to_size(value, at) < 0)
			return bad_value(o, value, "a size such as 512M or 2G", err);
		return 0;
	case CLI_DURATION:
		if (str_to_duration_ms(value, at) < 0)
			return bad_value(o, value, "a time such as 90s, 5m or 500ms", err);
		return 0;
	case CLI_CHOICE:
		if (!is_choice(o->value, value))
			return bad_value(o, value, o->value, err);
		*(const char **)at = value;
		return 0;
	}
	return 0;
}

static const struct cli_option *find_long(const struct cli_command *command, const char *name, size_t length)
{
	for (const struct cli_option *o = command->options; o && o->name; o++)
		if (strlen(o->name) == length && memcmp(o->name, name, length) == 0)
			return o;
	return NULL;
}

static const struct cli_option *find_letter(const struct cli_command *command, char letter)
{
	for (const struct cli_option *o = command->options; o && o->name; o++)
		if (o->letter && o->letter == letter)
			return o;
	return NULL;
}

static int unknown_option(const struct cli_command *command, const char *word, struct error *err)
{
	const char *names[64];
	size_t n = 0;
	const char *near;

	for (const struct cli_option *o = command->options; o && o->name && n + 1 < ARRAY_SIZE(names); o++)
		names[n++] = o->name;
	names[n] = NULL;
	error_set(err, ERROR_USAGE, "unknown option '%s'", word);
	near = str_starts(word, "--") ? str_nearest(word + 2, names) : NULL;
	if (near)
		return error_hint(err, "did you mean --%s? See --help", near);
	return error_hint(err, "see --help");
}

struct parse {
	const struct cli_command *command;
	char *options;
	struct strv operands;
	bool wants_help;
};

/* Takes argv[*at], an option; moves *at on when its value is the next word. */
static int parse_option(struct parse *p, int argc, char **argv, int *at, struct error *err)
{
	const char *word = argv[*at];
	bool is_long = word[1] == '-';
	const char *equals = is_long ? strchr(word, '=') : NULL;
	size_t length = equals ? (size_t)(equals - word) - 2 : strlen(word) - 2;
	const struct cli_option *o =
		is_long ? find_long(p->command, word + 2, length) : find_letter(p->command, word[1]);
	const char *value = equals ? equals + 1 : NULL;

	if (!o) {
		if (str_eq(word, "--help") || str_eq(word, "-h"))
			p->wants_help = true;
		else if (str_eq(word, "--quiet") || str_eq(word, "-q"))
			cli_quiet = true;
		else if (str_eq(word, "--verbose") || str_eq(word, "-v"))
			cli_verbose = true;
		else
			return unknown_option(p->command, word, err);
		return 0;
	}
	if (o->type == CLI_FLAG) {
		if (value || (!is_long && word[2]))
			return error_set(err, ERROR_USAGE, "option '%s' takes no value", word);
		return store(o, p->options, NULL, err);
	}
	if (!is_long && word[2])
		value = word + 2;
	if (!value) {
		if (*at + 1 >= argc)
			return error_set(err, ERROR_USAGE, "option '%s' needs a value: %s", word, o->value);
		value = argv[++*at];
	}
	return store(o, p->options, value, err);
}

static int parse_all(struct parse *p, int argc, char **argv, struct error *err)
{
	bool only_operands = false;

	for (int i = 0; i < argc; i++) {
		if (!only_operands && str_eq(argv[i], "--")) {
			only_operands = true;
			continue;
		}
		if (!only_operands && argv[i][0] == '-' && argv[i][1]) {
			if (parse_option(p, argc, argv, &i, err) < 0)
				return -1;
			continue;
		}
		if (strv_add(&p->operands, argv[i], err) < 0)
			return -1;
		/* exec: after the machine's name comes "--" or the command itself. */
		if (p->command->operands_end_options && !only_operands) {
			only_operands = true;
			if (i + 1 < argc && str_eq(argv[i + 1], "--"))
				i++;
			else if (i + 1 < argc && argv[i + 1][0] == '-')
				only_operands = false;
		}
	}
	return 0;
}

static int check_operands(const struct cli_program *program, const struct parse *p, struct error *err)
{
	const struct cli_command *c = p->command;
	int count = (int)p->operands.count;
	const char *space = c->name[0] ? " " : "";

	if (count < c->min_operands)
		error_set(err, ERROR_USAGE, "something is missing after '%s%s%s'", program->name, space, c->name);
	else if (c->max_operands >= 0 && count > c->max_operands)
		error_set(err, ERROR_USAGE, "'%s' is too much", p->operands.items[c->max_operands]);
	else
		return 0;
	return error_hint(err, "usage: %s%s%s %s", program->name, space, c->name, c->operands ? c->operands : "");
}

/* ---- finding the command ---- */

static const struct cli_command *find_command(const struct cli_program *program, int argc, char **argv, int *used)
{
	const struct cli_command *const *c = program->commands;

	*used = 0;
	if (c[0] && !c[0]->name[0])
		return c[0];
	for (; argc > 0 && *c; c++) {
		if (str_eq(argv[0], (*c)->name)) {
			*used = 1;
			return *c;
		}
		if (argc > 1 && in_group(*c, argv[0]) && str_eq(argv[1], strchr((*c)->name, ' ') + 1)) {
			*used = 2;
			return *c;
		}
	}
	return NULL;
}

static int unknown_command(const struct cli_program *program, int argc, char **argv, struct error *err)
{
	cleanup_strbuf struct strbuf subs = STRBUF_INIT;
	const char *names[COMMANDS_MAX];
	size_t n = 0;
	const char *near;

	for (const struct cli_command *const *c = program->commands; *c && n + 1 < COMMANDS_MAX; c++) {
		names[n++] = (*c)->name;
		if (in_group(*c, argv[0]))
			strbuf_printf(&subs, "%s%s", subs.length ? ", " : "", strchr((*c)->name, ' ') + 1);
	}
	names[n] = NULL;
	if (subs.length && !subs.failed) {
		if (argc > 1)
			return error_set(err, ERROR_USAGE, "unknown '%s %s'; allowed after %s: %s", argv[0], argv[1],
					 argv[0], subs.data);
		return error_set(err, ERROR_USAGE, "'%s' needs one of: %s", argv[0], subs.data);
	}
	error_set(err, ERROR_USAGE, "unknown verb '%s'", argv[0]);
	near = str_nearest(argv[0], names);
	if (near)
		return error_hint(err, "did you mean '%s'? %s --help lists the verbs", near, program->name);
	return error_hint(err, "%s --help lists the verbs", program->name);
}

static int run_command(const struct cli_program *program, const struct cli_command *command, int argc, char **argv,
		       struct error *err)
{
	struct parse p = {.command = command, .operands = STRV_INIT};
	int status = -1;

	p.options = calloc(1, command->options_size + 1);
	if (!p.options)
		return error_oom(err);
	if (parse_all(&p, argc, argv, err) == 0) {
		if (p.wants_help) {
			cli_help(program, command, stdout);
			status = 0;
		} else if (check_operands(program, &p, err) == 0) {
			status = command->run(p.options, &p.operands, err);
		}
	}
	for (const struct cli_option *o = command->options; o && o->name; o++)
		if (o->type == CLI_LIST)
			strv_free((struct strv *)(p.options + o->offset));
	strv_free(&p.operands);
	free(p.options);
	return status;
}

static bool is_group(const struct cli_program *program, const char *word)
{
	for (const struct cli_command *const *c = program->commands; *c; c++)
		if (in_group(*c, word))
			return true;
	return false;
}

static bool is_help(const char *word)
{
	return str_eq(word, "--help") || str_eq(word, "-h");
}

/*
 * Answers --help, --version, `help VERB`, `snapshot --help` of verbs that begin alike, and no verb at all. Whether it was one of
 * them; *status is the exit status.
 */
static bool answer_general(const struct cli_program *program, int argc, char **argv, int *status)
{
	bool verbs = program->commands[0] && program->commands[0]->name[0];
	const struct cli_command *about = NULL;
	int used;

	*status = 0;
	if (argc > 0 && (str_eq(argv[0], "--version") || str_eq(argv[0], "-V") ||
			 (verbs && str_eq(argv[0], "version")))) {
		printf("%s %s\n", program->name, program->version);
		return true;
	}
	if (!verbs)
		return false;
	if (argc == 0) {
		cli_help(program, NULL, stderr);
		*status = ERROR_USAGE;
		return true;
	}
	if (argc == 2 && is_help(argv[1]) && is_group(program, argv[0])) {
		help_overview(program, argv[0], stdout);
		return true;
	}
	if (!is_help(argv[0]) && !str_eq(argv[0], "help"))
		return false;
	about = find_command(program, argc - 1, argv + 1, &used);
	if (!about && argc == 2 && is_group(program, argv[1]))
		help_overview(program, argv[1], stdout);
	else
		cli_help(program, about, stdout);
	return true;
}

int cli_main(const struct cli_program *program, int argc, char **argv)
{
	struct error err = ERROR_INIT;
	const struct cli_command *command;
	int used, status;

	argc--;
	argv++;
	if (answer_general(program, argc, argv, &status))
		return status;
	command = find_command(program, argc, argv, &used);
	status = command ? run_command(program, command, argc - used, argv + used, &err)
			 : unknown_command(program, argc, argv, &err);
	if (status < 0) {
		error_print(program->name, &err);
		return err.kind == ERROR_NONE ? ERROR_FAILED : (int)err.kind;
	}
	/* What was told must have arrived: a full disk behind stdout is a failure. */
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "%s: cannot write to standard output: %m\n", program->name);
		return ERROR_FAILED;
	}
	return status;
}

/* ---- completion ---- */

static void completion_bash(const struct cli_program *program, FILE *out)
{
	char fn[64];

	snprintf(fn, sizeof(fn), "_%s", program->name);
	for (char *p = fn; *p; p++)
		if (*p == '-')
			*p = '_';
	fprintf(out, "%s() {\n\tlocal cur=${COMP_WORDS[COMP_CWORD]} verb=\"${COMP_WORDS[1]}\" words=\n\tCOMPREPLY=()\n"
		     "\tif [ \"$COMP_CWORD\" -eq 1 ]; then words=\"", fn);
	for (const struct cli_command *const *c = program->commands; *c; c++)
		if ((*c)->summary)
			fprintf(out, "%.*s ", (int)strcspn((*c)->name, " "), (*c)->name);
	fprintf(out, "\"; else case \"$verb\" in\n");
	for (const struct cli_command *const *c = program->commands; *c; c++) {
		if (!(*c)->summary || strchr((*c)->name, ' '))
			continue;
		fprintf(out, "\t%s) words=\"--help --quiet --verbose", (*c)->name);
		for (const struct cli_option *o = (*c)->options; o && o->name; o++)
			fprintf(out, " --%s", o->name);
		fprintf(out, "\";;\n");
	}
	fprintf(out, "\tesac; fi\n\tif [ \"$COMP_CWORD\" -gt 1 ] && [[ $cur != -* ]]; then\n"
		     "\t\twords=\"$words $(%s completion --words \"$verb\" 2>/dev/null)\"; fi\n"
		     "\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n}\ncomplete -o default -F %s %s\n",
		program->name, fn, program->name);
}

int cli_completion(const struct cli_program *program, const char *shell, FILE *out, struct error *err)
{
	if (str_eq(shell, "bash")) {
		completion_bash(program, out);
		return 0;
	}
	if (str_eq(shell, "zsh")) {
		fprintf(out, "autoload -U +X bashcompinit && bashcompinit\n");
		completion_bash(program, out);
		return 0;
	}
	return error_set(err, ERROR_USAGE, "no completion for shell '%s'; allowed: bash, zsh", shell);
}
