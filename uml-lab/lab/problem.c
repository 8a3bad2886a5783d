/*
 * The mistakes of a lab.yml. They are collected while the file is walked in
 * whatever order suits the checks, and told sorted by position. A file that is
 * nothing but mistakes costs LAB_PROBLEMS_MAX of them; the rest is counted.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/lab/lab_internal.h"

void lab_problem_add(struct lab_problems *problems, struct lab_mark mark, const char *path, const char *fmt,
		     ...)
{
	struct lab_problem problem = {.line = mark.line, .column = mark.column};
	struct lab_problem *items;
	va_list ap;

	if (problems->count >= LAB_PROBLEMS_MAX) {
		problems->untold++;
		return;
	}
	va_start(ap, fmt);
	problem.message = str_vprintf(fmt, ap);
	va_end(ap);
	problem.path = strdup(path);
	items = reallocarray(problems->items, problems->count + 1, sizeof(*items));
	if (items)
		problems->items = items;
	if (!items || !problem.path || !problem.message) {
		free(problem.path);
		free(problem.message);
		problems->untold++;
		return;
	}
	problems->items[problems->count++] = problem;
}

static int compare(const void *a, const void *b)
{
	const struct lab_problem *x = a, *y = b;

	if (x->line != y->line)
		return x->line < y->line ? -1 : 1;
	if (x->column != y->column)
		return x->column < y->column ? -1 : 1;
	return 0;
}

void lab_problems_sort(struct lab_problems *problems)
{
	/* glibc's qsort is a stable merge sort at this size, so the order of adding holds within one
	 * position. */
	if (problems->count)
		qsort(problems->items, problems->count, sizeof(*problems->items), compare);
}

void lab_problem_format(const struct lab_problems *problems, size_t index, struct strbuf *out)
{
	const struct lab_problem *p = &problems->items[index];

	strbuf_printf(out, "%s:%d:%d: ", problems->file ? problems->file : "lab.yml", p->line, p->column);
	if (*p->path)
		strbuf_printf(out, "%s: ", p->path);
	strbuf_puts(out, p->message);
}

int lab_problems_to_error(const struct lab_problems *problems, struct error *err)
{
	cleanup_strbuf struct strbuf text = STRBUF_INIT;
	const size_t room = ERROR_MESSAGE_MAX - 512; /* for the last line, and what callers put in front */
	size_t told;

	for (told = 0; told < problems->count; told++) {
		size_t before = text.length;

		if (told)
			strbuf_putc(&text, '\n');
		lab_problem_format(problems, told, &text);
		if (told && text.length > room) {
			text.length = before;
			text.data[before] = '\0';
			break;
		}
	}
	if (problems->count - told + problems->untold)
		strbuf_printf(&text, "%s… and %zu more", told ? "\n" : "",
			      problems->count - told + problems->untold);
	if (strbuf_check(&text, err) < 0)
		return -1;
	return error_set(err, ERROR_LAB, "%s", text.data);
}

void lab_problems_free(struct lab_problems *problems)
{
	for (size_t i = 0; i < problems->count; i++) {
		free(problems->items[i].path);
		free(problems->items[i].message);
	}
	free(problems->items);
	free(problems->file);
	*problems = (struct lab_problems){0};
}

char *lab_quote(const char *text, char buf[static LAB_QUOTE_MAX])
{
	const size_t room = LAB_QUOTE_MAX - 16; /* an escape, a character, "…" and the quotes */
	size_t used = 0, left = strlen(text);

	buf[used++] = '"';
	while (left && used < room) {
		uint32_t character = 0;
		size_t n = str_utf8_decode(text, left, &character);

		if (n && character >= ' ' && !(character >= 0x7f && character < 0xa0)) {
			memcpy(buf + used, text, n);
			used += n;
		} else {
			used += (size_t)sprintf(buf + used, "\\x%02x",
						n ? (unsigned)character : (unsigned char)*text);
		}
		text += n ? n : 1;
		left -= n ? n : 1;
	}
	strcpy(buf + used, left ? "…\"" : "\"");
	return buf;
}
