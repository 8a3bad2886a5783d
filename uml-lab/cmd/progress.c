/*
 * On a terminal every machine has a line that is redrawn in place; elsewhere
 * each change is a line of its own. With --quiet nothing is shown.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/loop.h"
#include "uml-lab/cmd/cmd.h"

struct line {
	char *machine, *state, *detail;
	int64_t ms;	/* since the start, of the last change */
};

struct progress {
	struct line *lines;
	size_t count;
	int64_t begin;
	bool live;	/* redraw in place */
	bool drawn;
};

static bool fits_terminal(size_t lines)
{
	struct winsize size;

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > lines + 1;
}

struct progress *progress_new(const struct session *session, const struct strv *only, struct error *err)
{
	struct progress *p = calloc(1, sizeof(*p));

	if (!p || !(p->lines = calloc(session->lab->machine_count + 1, sizeof(*p->lines)))) {
		free(p);
		error_oom(err);
		return NULL;
	}
	p->begin = loop_now_ms();
	for (size_t i = 0; i < session->lab->machine_count; i++) {
		const char *name = session->lab->machines[i].name;
		bool wanted = !only || !only->count;

		for (size_t j = 0; only && j < only->count; j++)
			wanted |= str_eq(only->items[j], name);
		if (wanted)
			p->lines[p->count++].machine = strdup(name);
	}
	p->live = cli_is_terminal(stderr) && fits_terminal(p->count);
	return p;
}

static const char *colour_of(const char *state)
{
	if (!cli_colour(stderr) || !state)
		return "";
	if (str_eq(state, "ready"))
		return "\033[32m";
	if (str_eq(state, "failed"))
		return "\033[31m";
	return "\033[33m";
}

static void print_line(const struct line *l)
{
	const char *colour = colour_of(l->state);

	fprintf(stderr, "%-16s %s%-11s%s %4lld.%lld s%s%.100s\n", l->machine ?: "?", colour, l->state ?: "-",
		colour[0] ? "\033[0m" : "", (long long)(l->ms / 1000), (long long)(l->ms % 1000 / 100),
		l->detail && l->detail[0] ? "  " : "", l->detail ?: "");
}

static void redraw(struct progress *p)
{
	if (p->drawn)
		fprintf(stderr, "\033[%zuA", p->count);
	for (size_t i = 0; i < p->count; i++) {
		fputs("\033[2K", stderr);
		print_line(&p->lines[i]);
	}
	p->drawn = true;
}

/* One line of it: a cause may be long and hold several. */
static char *first_line(const char *text)
{
	return text ? strndup(text, strcspn(text, "\n")) : NULL;
}

void progress_tell(void *progress, const char *machine, const char *state, const char *detail)
{
	struct progress *p = progress;

	for (size_t i = 0; i < p->count; i++) {
		struct line *l = &p->lines[i];

		if (!str_eq(l->machine, machine))
			continue;
		cleanup_free char *said = first_line(detail);

		if (str_eq(l->state, state) && str_eq(l->detail, said))
			return;
		free(l->state);
		free(l->detail);
		l->state = strdup(state);
		l->detail = steal_ptr(&said);
		l->ms = loop_now_ms() - p->begin;
		if (p->live)
			redraw(p);
		else if (!cli_quiet)
			print_line(l);
		return;
	}
}

void progress_free(struct progress *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < p->count; i++) {
		free(p->lines[i].machine);
		free(p->lines[i].state);
		free(p->lines[i].detail);
	}
	free(p->lines);
	free(p);
}

void progress_cleanup(struct progress **p)
{
	int saved = errno;

	progress_free(*p);
	errno = saved;
}
