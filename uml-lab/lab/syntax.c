/*
 * What to say when libyaml gives up. Its own words ("could not find expected
 * ':'") name the parser's trouble, not the person's, and often point one line
 * too far. So the line itself is looked at first for the classics — a tab in
 * the indentation, no blank after a colon, {{parameter}} without quotes, a quote
 * within quotes — and only then libyaml's words are translated, by a table.
 */
#include <ctype.h>
#include <string.h>
#include <yaml.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/lab/lab_internal.h"

struct remedy {
	const char *problem; /* libyaml's words, or a part of them */
	const char *context; /* a part of its context; NULL: any */
	bool at_context;     /* the place to point at is where the context began */
	const char *text;
};

static const struct remedy remedies[] = {
	{"found unexpected end of stream", "quoted scalar", true,
	 "the quote that opens here is never closed"},
	{"found unexpected document indicator", "quoted scalar", true,
	 "the quote that opens here is never closed"},
	{"could not find expected ':'", NULL, true, "': ' (a colon and a blank) is missing after the key"},
	{"mapping values are not allowed", NULL, false,
	 "a colon cannot stand here: the indentation does not fit, or a text that holds ': ' is not quoted"},
	{"block sequence entries are not allowed", NULL, false,
	 "a list cannot begin on the line of its key; put each \"- \" on a line of its own"},
	{"cannot start any token", NULL, false, "a text that begins with this character must be quoted"},
	{"expected alphabetic or numeric", NULL, true, "a text that begins with * or & must be quoted"},
	{"hexdecimal number", NULL, false,
	 "this \\ escape lacks its digits; use single quotes for a \\ as it is"},
	{"unknown escape", NULL, false, "this \\ escape is unknown in double quotes; use single quotes"},
	{"expected ',' or ']'", NULL, true, "the list that opens here lacks a comma or its ]"},
	{"expected ',' or '}'", NULL, true, "the mapping that opens here lacks a comma or its }"},
	{"did not find expected key", NULL, false, "the indentation does not fit the lines above"},
	{"did not find expected '-'", NULL, false,
	 "the indentation does not fit the list above, or a \"- \" is missing"},
	{"expected <document start>", NULL, false, "the indentation does not fit the lines above"},
	{"did not find expected node", NULL, false, "a value is missing here"},
	{"indentation indicator", NULL, false, "after | or > only +, - or a digit may stand"},
	{"expected comment or line break", NULL, false, "the text after | or > begins on the next line"},
	{"leading ", NULL, false, "the first lines of this text are indented deeper than the rest"},
};

/* The column (from 1) of a tab in the line's indentation, 0 for none. */
static int tab_in_indentation(const struct lab_source *source, int line)
{
	size_t length;
	const char *s = lab_source_line(source, line, &length);

	for (size_t i = 0; i < length && (s[i] == ' ' || s[i] == '\t' || s[i] == '-'); i++)
		if (s[i] == '\t')
			return (int)i + 1;
	return 0;
}

/* The column of the colon in "  key:value", 0 when the line is not of that kind. */
static int colon_without_blank(const struct lab_source *source, int line)
{
	size_t length, i = 0, key;
	const char *s = lab_source_line(source, line, &length);

	while (i < length && (s[i] == ' ' || s[i] == '-'))
		i++;
	key = i;
	while (i < length && (isalnum((unsigned char)s[i]) || s[i] == '_' || s[i] == '-'))
		i++;
	if (i == key || i + 1 >= length || s[i] != ':' || isspace((unsigned char)s[i + 1]))
		return 0;
	if (memmem(s + i, length - i, ": ", 2) || isdigit((unsigned char)s[key]))
		return 0; /* there is a key with its blank, or it is something like 8080:80 */
	return (int)i + 1;
}

/* The column of a {{ that begins a value without a quote before it, 0 for none. */
static int bare_braces(const struct lab_source *source, int line)
{
	size_t length;
	const char *s = lab_source_line(source, line, &length), *braces = memmem(s, length, "{{", 2);
	const char *before = braces;

	while (before && before > s && before[-1] == ' ')
		before--;
	if (!braces || before == braces || (before > s && !strchr(":-,[", before[-1])))
		return 0;
	return (int)(braces - s) + 1;
}

/* The classics, told from the line at the mistake and the one before. NULL when it is none of them. */
static const char *classic(const struct lab_source *source, struct lab_mark *mark)
{
	static const struct {
		int (*find)(const struct lab_source *source, int line);
		const char *text;
	} classics[] = {
		{tab_in_indentation, "a tab stands in the indentation; indent with spaces"},
		{bare_braces, "a value that begins with {{ must be quoted"},
		{colon_without_blank, "a blank is missing after the colon"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(classics); i++) {
		for (int line = mark->line; line >= 1 && line >= mark->line - 1; line--) {
			int column = classics[i].find(source, line);

			if (!column)
				continue;
			*mark = (struct lab_mark){line, column};
			return classics[i].text;
		}
	}
	return NULL;
}

/* Whether a closing quote stands right before the mark: the text goes on after its end. */
static bool after_quote(const struct lab_source *source, struct lab_mark mark)
{
	size_t length;
	const char *s = lab_source_line(source, mark.line, &length);
	size_t at = (size_t)mark.column - 1;

	/* Columns are characters; a line with others than ASCII before the quote is not worth the trouble. */
	while (at > 0 && at <= length && s[at - 1] == ' ')
		at--;
	return at > 0 && at <= length && (s[at - 1] == '\'' || s[at - 1] == '"');
}

static struct lab_mark mark_of(const yaml_mark_t *mark)
{
	return (struct lab_mark){(int)mark->line + 1, (int)mark->column + 1};
}

static const struct remedy *find_remedy(const yaml_parser_t *parser)
{
	for (size_t i = 0; i < ARRAY_SIZE(remedies); i++) {
		if (!strstr(parser->problem, remedies[i].problem))
			continue;
		if (remedies[i].context &&
		    (!parser->context || !strstr(parser->context, remedies[i].context)))
			continue;
		return &remedies[i];
	}
	return NULL;
}

void lab_syntax_problem(const struct yaml_parser_s *parser, const struct lab_source *source,
			struct lab_problems *problems)
{
	struct lab_mark mark = mark_of(&parser->problem_mark);
	const struct remedy *remedy;
	const char *text;

	if (parser->error == YAML_MEMORY_ERROR || !parser->problem) {
		lab_problem_add(problems, (struct lab_mark){1, 1}, "", "out of memory");
		return;
	}
	remedy = find_remedy(parser);
	if (remedy && remedy->at_context && parser->context)
		mark = mark_of(&parser->context_mark);
	text = classic(source, &mark);
	if (!text && strstr(parser->problem, "did not find expected") && after_quote(source, mark))
		text = "the text goes on after its closing quote; write '' for a ' within single quotes, "
		       "\\\" for a \" within double ones";
	if (!text)
		text = remedy ? remedy->text : parser->problem;
	lab_problem_add(problems, mark, "", "not YAML: %s", text);
}
