/* The man page of a program, from the same tables as its help: it cannot lag behind. man(7) macros. */
#include "uml-lab/base/cli.h"

/* Text as roff shows it unchanged: backslashes, dashes, and dots and quotes at the start of a line. */
static void put(const char *text, FILE *out)
{
	bool start = true;

	for (const char *p = text; *p; p++) {
		if (start && (*p == '.' || *p == '\''))
			fputs("\\&", out);
		if (*p == '\\')
			fputs("\\e", out);
		else if (*p == '-')
			fputs("\\-", out);
		else
			fputc(*p, out);
		start = *p == '\n';
	}
}

static void put_option(const struct cli_option *o, FILE *out)
{
	fputs(".TP\n\\fB", out);
	if (o->letter)
		fprintf(out, "\\-%c\\fR, \\fB", o->letter);
	fputs("\\-\\-", out);
	put(o->name, out);
	fputs("\\fR", out);
	if (o->type != CLI_FLAG) {
		fputs(" \\fI", out);
		put(o->value, out);
		fputs("\\fR", out);
	}
	fputc('\n', out);
	put(o->help, out);
	fputc('\n', out);
}

static void put_command(const struct cli_program *program, const struct cli_command *c, FILE *out)
{
	fputs(".SS \"", out);
	put(program->name, out);
	fputc(' ', out);
	put(c->name, out);
	if (c->operands && c->operands[0]) {
		fputc(' ', out);
		put(c->operands, out);
	}
	fputs("\"\n", out);
	put(c->summary, out);
	fputs(".\n", out);
	if (c->help) {
		put(c->help, out);
		fputc('\n', out);
	}
	for (const struct cli_option *o = c->options; o && o->name; o++)
		put_option(o, out);
}

void cli_man(const struct cli_program *program, const char *section, const char *tail, FILE *out)
{
	fprintf(out, ".TH \"%s\" %s \"\" \"%s %s\" \"User commands\"\n.SH NAME\n", program->name, section, program->name,
		program->version);
	put(program->name, out);
	fputs(" \\- ", out);
	put(program->summary, out);
	fputs("\n.SH SYNOPSIS\n\\fB", out);
	put(program->name, out);
	fputs("\\fR \\fIVERB\\fR [\\fIOPTION\\fR]... [\\fIOPERAND\\fR]...\n.SH VERBS\n"
	      "Options that go with every verb: \\fB\\-\\-help\\fR, \\fB\\-\\-quiet\\fR, \\fB\\-\\-verbose\\fR.\n", out);
	for (const struct cli_command *const *c = program->commands; *c; c++)
		if ((*c)->summary)
			put_command(program, *c, out);
	fputs(tail, out);
}
