#include <netdb.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "netplug/netplug.h"
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

char *cmd_forward_text(const char *forward, char *buf, size_t size)
{
	struct netplug_forward parsed;
	char host[INET6_ADDRSTRLEN + 8], service[8], guest[8];

	if (netplug_forward_parse(forward, &parsed, NULL) < 0 ||
	    getnameinfo((struct sockaddr *)&parsed.host, sizeof(parsed.host), host, sizeof(host), service,
			sizeof(service), NI_NUMERICHOST | NI_NUMERICSERV) != 0 ||
	    getnameinfo((struct sockaddr *)&parsed.guest, sizeof(parsed.guest), NULL, 0, guest, sizeof(guest),
			NI_NUMERICSERV) != 0)
		snprintf(buf, size, "%s", forward);
	else
		snprintf(buf, size, strchr(host, ':') ? "[%s]:%s->%s%s" : "%s:%s->%s%s", host, service, guest,
			 parsed.udp ? "/udp" : "");
	return buf;
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
