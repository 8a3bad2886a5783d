/*
 * uml-lab log SESSION[/MACHINE]: what the machine printed on its console, or
 * what its set-up or its supervisor told. On a terminal, what a guest printed is
 * shown without its control sequences: they could type into the person's shell.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/cmd/cmd.h"

#define FOLLOW_MS 1000

struct log_options {
	bool follow;
	const char *which;
};

static const struct cli_option options[] = {
	{"follow", 'f', CLI_FLAG, offsetof(struct log_options, follow), NULL, "go on with what is printed, until Ctrl-C"},
	{"which", 'w', CLI_CHOICE, offsetof(struct log_options, which), "console|startup|supervisor", "default: console"},
	{NULL},
};

enum filter_state { FILTER_TEXT, FILTER_ESCAPE, FILTER_CSI, FILTER_STRING };

/* Drops ECMA-48 control sequences and control characters but newline and tab. */
static void print_safely(const char *data, size_t n, enum filter_state *state)
{
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)data[i];

		switch (*state) {
		case FILTER_TEXT:
			if (c == 033)
				*state = FILTER_ESCAPE;
			else if (c == '\n' || c == '\t' || (c >= ' ' && c != 0177))
				putchar(c);
			break;
		case FILTER_ESCAPE:
			*state = c == '[' ? FILTER_CSI : strchr("]PX^_", c) && c ? FILTER_STRING : FILTER_TEXT;
			break;
		case FILTER_CSI:
			if (c >= 0x40 && c <= 0x7e)
				*state = FILTER_TEXT;
			break;
		case FILTER_STRING:
			if (c == 007 || c == 033)
				*state = c == 033 ? FILTER_ESCAPE : FILTER_TEXT;
			break;
		}
	}
}

static int print_rest(int fd, const char *path, enum filter_state *state, struct error *err)
{
	bool terminal = isatty(STDOUT_FILENO);
	char chunk[16384];
	ssize_t got;

	while ((got = file_read_full(fd, chunk, sizeof(chunk))) > 0) {
		if (terminal)
			print_safely(chunk, (size_t)got, state);
		else
			fwrite(chunk, 1, (size_t)got, stdout);
	}
	if (got < 0)
		return error_errno(err, errno, "cannot read %s", path);
	if (fflush(stdout) != 0)
		return error_errno(err, errno, "cannot write to standard output");
	return 0;
}

static int follow(int fd, const char *path, enum filter_state *state, struct error *err)
{
	const volatile int *cancel = cmd_catch_signals();
	cleanup_close int notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	char events[4096];

	if (notify < 0 || inotify_add_watch(notify, path, IN_MODIFY) < 0)
		return error_errno(err, errno, "cannot follow %s", path);
	while (!*cancel) {
		struct pollfd p = {.fd = notify, .events = POLLIN};

		if (print_rest(fd, path, state, err) < 0)
			return -1;
		poll(&p, 1, FOLLOW_MS);
		while (read(notify, events, sizeof(events)) > 0)
			;
	}
	return 0;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct log_options *o = opaque;
	cleanup_free char *name = NULL, *machine = NULL, *path = NULL;
	cleanup_session struct session *s = NULL;
	enum filter_state state = FILTER_TEXT;
	cleanup_close int fd = -1;

	if (session_resolve(cmd_operand(operands, 0), &name, &machine, true, err) < 0)
		return -1;
	s = session_load(name, err);
	path = s ? str_printf(err, "%s/%s/%s.log", s->folder, machine, o->which ?: "console") : NULL;
	if (!path)
		return -1;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return error_set(err, ERROR_NOT_FOUND, "machine %s of session %s has no such log yet", machine, name);
	if (fd < 0)
		return error_errno(err, errno, "cannot open %s", path);
	return o->follow ? follow(fd, path, &state, err) : print_rest(fd, path, &state, err);
}

const struct cli_command cmd_log = {
	.name = "log",
	.operands = "[SESSION[/MACHINE]]",
	.summary = "Show what a machine printed on its console since it was made",
	.options = options,
	.options_size = sizeof(struct log_options),
	.max_operands = 1,
	.run = run,
};
