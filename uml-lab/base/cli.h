/*
 * The command line: one const table per command yields parsing, --help, shell
 * completion and the synopsis of the man page. Everything is parsed, and every
 * mistake told, before anything is done.
 *
 * Options: --name, --name=value, --name value, and one-letter -n where given.
 * "--" ends them. Options may stand before, between and after the operands,
 * unless the command says that operands end them (exec).
 */
#ifndef UML_LAB_BASE_CLI_H
#define UML_LAB_BASE_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "uml-lab/base/error.h"
#include "uml-lab/base/str.h"

enum cli_type {
	CLI_FLAG,	/* bool *            --json */
	CLI_STRING,	/* const char **     --name X (points into argv) */
	CLI_LIST,	/* struct strv *     --param K=V, may be repeated */
	CLI_SIZE,	/* uint64_t *        bytes: 512M */
	CLI_DURATION,	/* int64_t *         milliseconds: 90s */
	CLI_CHOICE,	/* const char **     one of choices ("a|b|c") */
};

struct cli_option {
	const char *name;	/* without the dashes */
	char letter;		/* 0 for none */
	enum cli_type type;
	size_t offset;		/* of the variable, in the command's option struct */
	const char *value;	/* name of the value in help: "SESSION"; for CLI_CHOICE the choices "a|b|c" */
	const char *help;	/* one line */
};

struct cli_command {
	const char *name;	/* "up"; two words for sub-subcommands: "image build" */
	const char *operands;	/* synopsis of the operands: "LAB", "[SESSION]", "SESSION[/MACHINE] -- CMD…" */
	const char *summary;	/* one line, for the overview */
	const char *help;	/* paragraphs, for --help and the man page; may be NULL */
	const struct cli_option *options;	/* ends with a NULL name; may be NULL */
	size_t options_size;	/* sizeof the option struct; zeroed before parsing */
	int min_operands, max_operands;	/* max -1: no limit */
	bool operands_end_options;	/* first operand ends the options: exec */
	/* Acts. Returns the exit status (0…7), or -1 with err set. */
	int (*run)(const void *options, const struct strv *operands, struct error *err);
};

struct cli_program {
	const char *name;	/* "uml-lab" */
	const char *summary;
	const char *version;
	const struct cli_command *const *commands;	/* NULL-terminated; a program without verbs has one with name "" */
};

/* Options every command understands: --help --json(when listed) --quiet --verbose. Set by cli_main(). */
extern bool cli_quiet, cli_verbose;

/*
 * The whole main(): finds the command, parses, runs, prints the error once.
 * `--help`, `--version` and `help VERB` are answered here. Returns the exit
 * status of the design page.
 */
int cli_main(const struct cli_program *program, int argc, char **argv);

/* Prints the help of one command, or with NULL the overview. */
void cli_help(const struct cli_program *program, const struct cli_command *command, FILE *out);

/* Writes a completion script ("bash" or "zsh") for the program. */
int cli_completion(const struct cli_program *program, const char *shell, FILE *out, struct error *err);

/* Writes the program's man page: all its verbs and their options; tail is roff that is put after them. */
void cli_man(const struct cli_program *program, const char *section, const char *tail, FILE *out);

/* Whether colours, progress bars and the like are welcome on this stream: a terminal, and NO_COLOR unset for colour. */
bool cli_is_terminal(FILE *stream);
bool cli_colour(FILE *stream);

/* A table for people: columns padded to their widest cell, the header line first. */
struct cli_table;
struct cli_table *cli_table_new(struct error *err, const char *const *headers);	/* NULL-terminated */
/* Adds a row of as many cells (strings copied; NULL shows "-"). */
int cli_table_row(struct cli_table *t, const char *const *cells, struct error *err);
void cli_table_print(const struct cli_table *t, FILE *out);
void cli_table_free(struct cli_table *t);

#endif
