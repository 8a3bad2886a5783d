/*
 * uml-lab net SESSION [NETWORK|MACHINE[:ethN]]: how the lines of a running session are, and making them worse or better.
 *
 * An impairment belongs to an interface and befalls what it sends (on SLIRP what it receives too); a network's is
 * that of each interface on it. What is changed holds until the machine stops; then lab.yml's is there again.
 */
#include <string.h>
#include <unistd.h>

#include "netplug/netplug.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"
#include "uml-lab/machine/client.h"

struct net_options {
	const char *delay, *jitter, *loss, *duplicate, *reorder, *rate, *down, *up;
	bool clear, json;
};

#define OPTION(field) offsetof(struct net_options, field)

static const struct cli_option options[] = {
	{"delay", 0, CLI_STRING, OPTION(delay), "TIME", "each frame arrives so much later: 50ms"},
	{"jitter", 0, CLI_STRING, OPTION(jitter), "TIME", "the delay varies by so much, up and down"},
	{"loss", 0, CLI_STRING, OPTION(loss), "PERCENT", "the share of frames that are lost: 2%"},
	{"duplicate", 0, CLI_STRING, OPTION(duplicate), "PERCENT", "the share of frames that arrive twice"},
	{"reorder", 0, CLI_STRING, OPTION(reorder), "PERCENT", "the share of frames that arrive 10 ms late, behind later ones"},
	{"rate", 0, CLI_STRING, OPTION(rate), "BITS", "the most each interface sends, in bits a second: 10M; 0: no limit"},
	{"down", 0, CLI_STRING, OPTION(down), "WHAT",
	 "pull the cable: nothing passes to or from a machine, MACHINE:ethN, or all on a network"},
	{"up", 0, CLI_STRING, OPTION(up), "WHAT", "plug it in again"},
	{"clear", 0, CLI_FLAG, OPTION(clear), NULL, "first take all impairments away"},
	{"json", 0, CLI_FLAG, OPTION(json), NULL, "for scripts"},
	{NULL},
};

/* Interfaces that are meant: on a network, or of a machine. NULL: any. */
struct selection {
	char *network, *machine;
	const char *interface;
};

/* An interface of a running machine, as its supervisor tells. */
struct line {
	const char *machine, *name, *network;
	const json_t *interface;
};

typedef int (*line_fn)(void *arg, const struct line *line, struct error *err);

static const char *text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static bool is_meant(const struct selection *s, const struct line *line)
{
	return (!s->network || str_eq(s->network, line->network)) && (!s->machine || str_eq(s->machine, line->machine)) &&
	       (!s->interface || str_eq(s->interface, line->name));
}

/* Calls fn for each that is meant. How many, or -1 + err. */
static int each_line(const json_t *status, const struct selection *s, line_fn fn, void *arg, struct error *err)
{
	const json_t *machine, *interface;
	size_t i, j;
	int count = 0;

	json_array_foreach(json_object_get(status, "machines"), i, machine) {
		json_array_foreach(json_object_get(json_object_get(machine, "live"), "interfaces"), j, interface) {
			const struct line line = {text_of(machine, "name"), text_of(interface, "name"),
						  text_of(interface, "network"), interface};

			if (!line.name || !is_meant(s, &line))
				continue;
			if (fn(arg, &line, err) < 0)
				return -1;
			count++;
		}
	}
	return count;
}

/* "MACHINE[:ethN]" cut in two, in place. */
static void split_interface(struct selection *s)
{
	char *colon = strchr(s->machine, ':');

	if (colon)
		*colon++ = '\0';
	s->interface = colon;
}

/* What the operand names: a network of the lab, or else a machine or its interface. */
static int select_operand(const struct session *session, const char *operand, struct selection *s, struct error *err)
{
	char **name = lab_find_network(session->lab, operand) ? &s->network : &s->machine;

	*name = str_dup(operand, err);
	if (!*name)
		return -1;
	if (s->network)
		return 0;
	split_interface(s);
	if (lab_find_machine(session->lab, s->machine))
		return 0;
	return error_set(err, ERROR_NOT_FOUND, "session %s has neither a network nor a machine %s", session->name, s->machine);
}

/* ---- changing ---- */

static int add_word(struct strbuf *words, const char *key, const char *text, struct error *err)
{
	struct netplug_impair check = {0};

	if (!text)
		return 0;
	if (netplug_impair_set(&check, key, text, err) < 0)
		return -1;
	strbuf_printf(words, " %s=%s", key, text);
	return 0;
}

/* The request's words; "" when nothing is to be changed. */
static int gather_words(const struct net_options *o, struct strbuf *words, struct error *err)
{
	if (o->clear)
		strbuf_puts(words, " clear");
	if (add_word(words, "delay", o->delay, err) < 0 || add_word(words, "jitter", o->jitter, err) < 0 ||
	    add_word(words, "loss", o->loss, err) < 0 || add_word(words, "duplicate", o->duplicate, err) < 0 ||
	    add_word(words, "reorder", o->reorder, err) < 0 || add_word(words, "rate", o->rate, err) < 0)
		return -1;
	return strbuf_check(words, err);
}

struct change {
	const char *session, *words;
};

static int change_line(void *arg, const struct line *line, struct error *err)
{
	const struct change *change = arg;
	cleanup_free char *machine = str_printf(err, "%s/%s", change->session, line->machine);
	cleanup_free char *request = str_printf(err, "%s%s", line->name, change->words), *answer = NULL;
	cleanup_close int control = machine && request ? session_connect(machine, err) : -1;

	if (control >= 0)
		answer = machine_request(control, MACHINE_REQUEST_IMPAIR, request, err);
	return answer ? 0 : error_prefix(err, "%s:%s", line->machine, line->name);
}

static int change_selected(const struct session *session, const json_t *status, const struct selection *s, const char *words,
			   struct error *err)
{
	struct change change = {session->name, words};
	int count = each_line(status, s, change_line, &change, err);

	if (count)
		return count < 0 ? -1 : 0;
	error_set(err, ERROR_STATE, "no running machine of session %s has such an interface", session->name);
	return error_hint(err, "`uml-lab net %s` shows those there are", session->name);
}

/*
 * --down and --up: what is named, a network, a machine, or an interface; of a machine those on the network of
 * the operand, if any.
 */
static int plug_cable(const struct session *session, const json_t *status, const struct selection *s, const char *what,
		      const char *words, struct error *err)
{
	struct selection one = {0};
	int result;

	if (!what)
		return 0;
	result = select_operand(session, what, &one, err);
	if (result == 0 && !one.network && s->network)
		one.network = str_dup(s->network, err);
	if (result == 0)
		result = change_selected(session, status, &one, words, err);
	cleanup_free_fn(&one.network);
	cleanup_free_fn(&one.machine);
	return result;
}

/* ---- showing ---- */

static json_int_t counter(const struct line *line, const char *name)
{
	return json_integer_value(json_object_get(json_object_get(line->interface, "counters"), name));
}

static int add_row(void *arg, const struct line *line, struct error *err)
{
	json_int_t lost = counter(line, "lost") + counter(line, "queue_dropped") + counter(line, "down_dropped"),
		   dropped = counter(line, "in_dropped") + counter(line, "out_dropped") + counter(line, "in_giants") +
			     counter(line, "in_runts") + counter(line, "in_refused") + counter(line, "in_spoofed");
	const char *impair = text_of(line->interface, "impair");
	char sent[24], received[24], impaired[24], others[24];
	cleanup_free char *name = str_printf(err, "%s:%s", line->machine, line->name);

	if (!name)
		return -1;
	snprintf(sent, sizeof(sent), "%lld", (long long)counter(line, "in_frames"));
	snprintf(received, sizeof(received), "%lld", (long long)counter(line, "out_frames"));
	snprintf(impaired, sizeof(impaired), "%lld", (long long)lost);
	snprintf(others, sizeof(others), "%lld", (long long)dropped);
	return cli_table_row(arg, (const char *const[]){line->network ?: "(slirp)", name, impair && *impair ? impair : NULL, sent,
							received, impaired, others}, err);
}

static int add_json(void *arg, const struct line *line, struct error *err)
{
	json_t *one = json_pack("{s:s, s:s, s:s*, s:O, s:O, s:O}", "machine", line->machine, "interface", line->name, "network",
				line->network, "connected", json_object_get(line->interface, "connected"), "impair",
				json_object_get(line->interface, "impair"), "counters",
				json_object_get(line->interface, "counters"));

	return one && json_array_append_new(arg, one) == 0 ? 0 : error_oom(err);
}

static int show(const json_t *status, const struct selection *s, bool json, struct error *err)
{
	static const char *const headers[] = {"NETWORK", "INTERFACE", "IMPAIRMENTS", "SENT", "RECEIVED", "LOST", "DROPPED", NULL};
	struct cli_table *table;
	json_t *list;
	int count;

	if (json) {
		list = json_array();
		if (each_line(status, s, add_json, list, err) < 0) {
			json_decref(list);
			return -1;
		}
		return cmd_print_json(list, err);
	}
	table = cli_table_new(err, headers);
	count = table ? each_line(status, s, add_row, table, err) : -1;
	if (count > 0)
		cli_table_print(table, stdout);
	cli_table_free(table);
	return count > 0 ? 0 : count < 0 ? -1 : error_set(err, ERROR_STATE, "no machine with such an interface runs");
}

static int act(struct session *session, const struct net_options *o, const struct selection *s, const char *words,
	       struct error *err)
{
	json_t *status = session_status(session, err);
	int result = status ? 0 : -1;

	if (result == 0 && *words)
		result = change_selected(session, status, s, words, err);
	if (result == 0)
		result = plug_cable(session, status, s, o->down, " down=1", err);
	if (result == 0)
		result = plug_cable(session, status, s, o->up, " down=0", err);
	if (result == 0 && !*words && !o->down && !o->up)
		result = show(status, s, o->json, err);
	json_decref(status);
	return result;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	cleanup_free char *name = NULL;
	cleanup_session struct session *session = NULL;
	cleanup_strbuf struct strbuf words = STRBUF_INIT;
	struct selection s = {0};
	int result = -1;

	if (gather_words(opaque, &words, err) < 0 || session_resolve(cmd_operand(operands, 0), &name, NULL, false, err) < 0)
		return -1;
	session = session_load(name, err);
	if (!session)
		return -1;
	if (operands->count < 2 || select_operand(session, operands->items[1], &s, err) == 0)
		result = act(session, opaque, &s, words.data ?: "", err);
	cleanup_free_fn(&s.network);
	cleanup_free_fn(&s.machine);
	return result;
}

const struct cli_command cmd_net = {
	.name = "net",
	.operands = "[SESSION] [NETWORK|MACHINE[:ethN]]",
	.summary = "Show the lines of a running session, and impair them",
	.help = "Without options the interfaces are shown: what is wrong with their lines, frames sent and received, lost as "
		"impairments want it, dropped for other reasons. An impairment befalls what an interface sends, so a delay of "
		"50ms on a network makes a ping 100 ms longer; on a SLIRP interface both directions are impaired. Without NETWORK "
		"every interface of the session is meant. What is changed holds until the machine stops.",
	.options = options,
	.options_size = sizeof(struct net_options),
	.max_operands = 2,
	.run = run,
};
