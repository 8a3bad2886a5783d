/*
 * uml-lab forward SESSION/MACHINE [add|remove|list] [FORWARD]: ports of the host that lead into a running machine.
 *
 * What is changed here holds until the machine stops; the lab's own forwards are there again at its next start.
 */
#include <string.h>
#include <unistd.h>

#include "netplug/netplug.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"
#include "uml-lab/machine/client.h"

#define STATUS_MS 5000

struct forward_options {
	const char *interface;
	bool json;
};

static const struct cli_option options[] = {
	{"interface", 'i', CLI_STRING, offsetof(struct forward_options, interface), "ethN",
	 "the SLIRP interface that is meant (default: the machine's first)"},
	{"json", 0, CLI_FLAG, offsetof(struct forward_options, json), NULL, "for scripts"},
	{NULL},
};

/* "SESSION/MACHINE add|remove|list FORWARD" taken apart; the first may be left out. */
struct words {
	const char *machine, *action, *forward;
};

static bool is_action(const char *word)
{
	return str_eq(word, "add") || str_eq(word, "remove") || str_eq(word, "list");
}

static int parse_words(const struct strv *operands, struct words *w, struct error *err)
{
	struct netplug_forward parsed;
	size_t i = 0;

	*w = (struct words){.action = "list"};
	if (i < operands->count && !is_action(operands->items[i]))
		w->machine = operands->items[i++];
	if (i < operands->count)
		w->action = operands->items[i++];
	if (!is_action(w->action))
		return error_set(err, ERROR_USAGE, "'%s' is not one of add, remove, list", w->action);
	w->forward = cmd_operand(operands, i);
	if (str_eq(w->action, "list"))
		return w->forward ? error_set(err, ERROR_USAGE, "list takes no forward") : 0;
	if (!w->forward)
		return error_set(err, ERROR_USAGE, "which forward? [ADDRESS:]PORT|auto:[GUEST:]GUESTPORT[/tcp|/udp]");
	return netplug_forward_parse(w->forward, &parsed, err);
}

/* The name of the interface to act on, of the machine's status; NULL + err. */
static const char *choose_interface(const json_t *status, const char *wanted, struct error *err)
{
	const json_t *interface;
	size_t i;

	json_array_foreach(json_object_get(status, "interfaces"), i, interface) {
		const char *name = json_string_value(json_object_get(interface, "name"));

		if (name && json_is_true(json_object_get(interface, "slirp")) && (!wanted || str_eq(name, wanted)))
			return name;
	}
	if (wanted)
		error_set(err, ERROR_NOT_FOUND, "%s is no SLIRP interface of this machine", wanted);
	else
		error_set(err, ERROR_NOT_FOUND, "the machine has no SLIRP interface: only those have forwards");
	error_hint(err, "in lab.yml: interfaces: [{slirp: true}]");
	return NULL;
}

static int print_list(char *answer, bool json, struct error *err)
{
	static const char *const headers[] = {"HOST", "GUEST", "PROTOCOL", NULL};
	json_t *list = json_array();
	struct cli_table *table = cli_table_new(err, headers);
	char *rest = answer, *line;
	int result = table ? 0 : -1;

	while (result == 0 && (line = strsep(&rest, "\n"))) {
		char shown[CMD_FORWARD_MAX], *arrow;

		if (!*line)
			continue;
		json_array_append_new(list, json_string(line));
		cmd_forward_text(line, shown, sizeof(shown));
		arrow = strstr(shown, "->");
		if (arrow)
			*arrow = '\0';
		result = cli_table_row(table, (const char *const[]){shown, arrow ? arrow + 2 : NULL,
								    str_ends(line, "/udp") ? "udp" : "tcp"}, err);
	}
	if (result == 0 && json)
		result = cmd_print_json(json_incref(list), err);
	else if (result == 0 && (json_array_size(list) || !cli_quiet))
		cli_table_print(table, stdout);
	json_decref(list);
	cli_table_free(table);
	return result;
}

static int act(int control, const struct forward_options *o, const struct words *w, struct error *err)
{
	cleanup_free char *text = machine_status_json(control, STATUS_MS, err), *request = NULL, *answer = NULL;
	json_t *status = text ? json_loads(text, 0, NULL) : NULL;
	const char *interface = text ? choose_interface(status, o->interface, err) : NULL;
	char shown[CMD_FORWARD_MAX];

	request = interface ? str_printf(err, "%s %s%s%s", w->action, interface, w->forward ? " " : "", w->forward ?: "")
			    : NULL;
	json_decref(status);
	answer = request ? machine_request(control, MACHINE_REQUEST_FORWARD, request, err) : NULL;
	if (!answer)
		return -1;
	if (str_eq(w->action, "list"))
		return print_list(answer, o->json, err);
	if (o->json)
		return cmd_print_json(json_pack("{s:s}", "forward", *answer ? answer : w->forward), err);
	if (str_eq(w->action, "add") && !cli_quiet)
		printf("%s\n", cmd_forward_text(answer, shown, sizeof(shown)));
	return 0;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	cleanup_close int control = -1;
	struct words w;

	if (parse_words(operands, &w, err) < 0)
		return -1;
	control = session_connect(w.machine, err);
	return control < 0 ? -1 : act(control, opaque, &w, err);
}

const struct cli_command cmd_forward = {
	.name = "forward",
	.operands = "[SESSION/MACHINE] [add|remove|list] [HOSTPORT:GUESTPORT[/udp]]",
	.summary = "Lead ports of the host into a running machine",
	.help = "A forward reads [ADDRESS:]PORT:[GUEST:]GUESTPORT[/tcp|/udp]. ADDRESS is the host's, 127.0.0.1 unless given; "
		"PORT may be auto: a free one, which is printed. remove wants host address and port as list shows them. "
		"What is changed holds until the machine stops.",
	.options = options,
	.options_size = sizeof(struct forward_options),
	.max_operands = 3,
	.run = run,
};
