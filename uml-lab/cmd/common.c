#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "uml-lab/cmd/cmd.h"

int cmd_print_json(json_t *json, struct error *err)
{
	char *text;

	if (!json)
		return error_oom(err);
	text = json_dumps(json, isatty(STDOUT_FILENO) ? JSON_INDENT(2) : JSON_COMPACT);
	json_decref(json);
	if (!text)
		return error_oom(err);
	printf("%s\n", text);
	free(text);
	return 0;
}

int cmd_need_terminal(const char *verb, struct error *err)
{
	if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO))
		return 0;
	error_set(err, ERROR_USAGE, "%s needs a terminal", verb);
	return error_hint(err, "in a script use `uml-lab exec SESSION/MACHINE -- COMMAND`");
}

const char *cmd_operand(const struct strv *operands, size_t index)
{
	return index < operands->count ? operands->items[index] : NULL;
}

static volatile int cancelled;

static void on_signal(int signo)
{
	cancelled = signo;
}

const volatile int *cmd_catch_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	return &cancelled;
}
