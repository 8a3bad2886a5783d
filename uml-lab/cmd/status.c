/* uml-lab status [SESSION]: what runs, verified against live processes. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"
#include "uml-lab/image/image.h"

#define WATCH_MS 1000

struct status_options {
	bool all, watch, json;
};

static const struct cli_option options[] = {
	{"all", 'a', CLI_FLAG, offsetof(struct status_options, all), NULL,
	 "all your sessions, also where one is meant by the folder, and the disk space they take and share"},
	{"watch", 'w', CLI_FLAG, offsetof(struct status_options, watch), NULL, "show it again every second until Ctrl-C"},
	{"json", 0, CLI_FLAG, offsetof(struct status_options, json), NULL, "for scripts"},
	{NULL},
};

static const char *text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

static void size_of(const json_t *machine, const char *key, char *buf, size_t size)
{
	str_human_size((uint64_t)json_integer_value(json_object_get(machine, key)), buf, size);
}

static int add_machine(struct cli_table *table, const json_t *session, const json_t *machine, struct error *err)
{
	cleanup_strbuf struct strbuf forwards = STRBUF_INIT, name = STRBUF_INIT;
	char memory[24], disk[24], shown[CMD_FORWARD_MAX];
	const json_t *forward;
	size_t i;

	strbuf_printf(&name, "%s/%s", text_of(session, "session"), text_of(machine, "name"));
	json_array_foreach(json_object_get(machine, "forwards"), i, forward)
		strbuf_printf(&forwards, "%s%s", i ? " " : "",
			      cmd_forward_text(json_string_value(forward), shown, sizeof(shown)));
	size_of(machine, "memory", memory, sizeof(memory));
	size_of(machine, "overlay_bytes", disk, sizeof(disk));
	if (strbuf_check(&name, err) < 0 || strbuf_check(&forwards, err) < 0)
		return -1;
	return cli_table_row(table, (const char *const[]){name.data, text_of(machine, "state"), memory, disk,
							  text_of(machine, "kernel"),
							  forwards.length ? forwards.data : NULL},
			     err);
}

/* "a/eth0 b/eth1", those that should be joined and are not in brackets. */
static void list_ports(const json_t *network, struct strbuf *out)
{
	const json_t *port;
	size_t i;

	json_array_foreach(json_object_get(network, "ports"), i, port) {
		bool joined = json_is_true(json_object_get(port, "joined"));

		strbuf_printf(out, "%s%s%s/%s%s", i ? " " : "", joined ? "" : "(", text_of(port, "machine"),
			      text_of(port, "interface"), joined ? "" : ")");
	}
}

static int add_network(struct cli_table *table, const json_t *session, const json_t *network, struct error *err)
{
	cleanup_strbuf struct strbuf ports = STRBUF_INIT, name = STRBUF_INIT;
	bool own = !str_eq(text_of(network, "kind"), "vde");

	strbuf_printf(&name, "%s/%s", text_of(session, "session"), text_of(network, "name"));
	list_ports(network, &ports);
	if (strbuf_check(&name, err) < 0 || strbuf_check(&ports, err) < 0)
		return -1;
	return cli_table_row(table, (const char *const[]){name.data, own ? text_of(network, "kind") : text_of(network, "locator"),
							  ports.length ? ports.data : NULL},
			     err);
}

/* Networks of sessions that run; of others there is nothing to tell. */
static int print_networks(const json_t *sessions, struct error *err)
{
	static const char *const headers[] = {"NETWORK", "KIND", "JOINED BY (NOT JOINED)", NULL};
	struct cli_table *table = cli_table_new(err, headers);
	const json_t *session, *network;
	bool any = false;
	size_t i, j;

	if (!table)
		return -1;
	json_array_foreach(sessions, i, session) {
		if (!str_eq(text_of(session, "state"), "running"))
			continue;
		json_array_foreach(json_object_get(session, "networks"), j, network) {
			any = true;
			if (add_network(table, session, network, err) < 0) {
				cli_table_free(table);
				return -1;
			}
		}
	}
	if (any) {
		printf("\n");
		cli_table_print(table, stdout);
	}
	cli_table_free(table);
	return 0;
}

static void print_troubles(const json_t *session)
{
	const json_t *network, *port;
	size_t i, j;

	json_array_foreach(json_object_get(session, "networks"), i, network)
		json_array_foreach(json_object_get(network, "ports"), j, port)
			if (text_of(port, "trouble"))
				printf("%s/%s: %s: network %s: %s\n", text_of(session, "session"), text_of(port, "machine"),
				       text_of(port, "interface"), text_of(network, "name"), text_of(port, "trouble"));
}

/* Shares that cannot be served now, and why. */
static void print_share_problems(const json_t *session, const json_t *machine)
{
	const json_t *share;
	size_t i;

	json_array_foreach(json_object_get(json_object_get(machine, "live"), "shares"), i, share)
		if (text_of(share, "problem") && *text_of(share, "problem"))
			printf("%s/%s: share %s: %s\n", text_of(session, "session"), text_of(machine, "name"),
			       text_of(share, "name"), text_of(share, "problem"));
}

static void print_machine_notes(const json_t *session, const json_t *machine)
{
	const char *cause = text_of(machine, "cause"), *sandbox = text_of(machine, "sandbox");
	const char *disk = text_of(machine, "disk_problem");
	const char *of = text_of(session, "session"), *name = text_of(machine, "name");

	if (cause)
		printf("%s/%s: %s\n", of, name, cause);
	if (disk)
		printf("%s/%s: disk: %s\n", of, name, disk);
	print_share_problems(session, machine);
	if (sandbox && (!str_starts(sandbox, "namespaces") || strstr(sandbox, "low priority")) &&
	    json_is_integer(json_object_get(machine, "kernel_pid")))
		printf("%s/%s: sandbox: %s\n", of, name, sandbox);
}

/* What a session takes of its limits.disk; any running machine's disk server knows it. */
static void print_quota(const json_t *session)
{
	const json_t *machine;
	char used[16], quota[16];
	size_t i;

	json_array_foreach(json_object_get(session, "machines"), i, machine) {
		const json_t *disks = json_object_get(json_object_get(machine, "live"), "disks");

		if (!json_is_integer(json_object_get(disks, "quota")))
			continue;
		size_of(disks, "quota_used", used, sizeof(used));
		size_of(disks, "quota", quota, sizeof(quota));
		printf("%s: its disks take %s of %s (limits.disk)\n", text_of(session, "session"), used, quota);
		return;
	}
}

static void print_session_notes(const json_t *session)
{
	const json_t *check = json_object_get(session, "check"), *submission = json_object_get(session, "submission");
	const char *ends = text_of(session, "ends");

	if (json_is_object(submission))
		printf("%s: the submission of %s, made %s, %s to the outside\n", text_of(session, "session"),
		       text_of(submission, "student"), text_of(submission, "time"),
		       json_is_true(json_object_get(submission, "network")) ? "with a network" : "without a network");
	if (json_is_object(check))
		printf("%s: checked %s: %d of %d points\n", text_of(session, "session"), text_of(check, "time"),
		       (int)json_integer_value(json_object_get(check, "points")),
		       (int)json_integer_value(json_object_get(check, "points_of")));
	if (ends && str_eq(text_of(session, "state"), "running"))
		printf("%s: its time (limits.time) is over at %s\n", text_of(session, "session"), ends);
	print_quota(session);
}

/* Below the table: why machines are not as they should be, what was checked, and when they end. */
static void print_notes(const json_t *sessions)
{
	const json_t *session, *machine;
	size_t i, j;

	json_array_foreach(sessions, i, session) {
		print_session_notes(session);
		print_troubles(session);
		json_array_foreach(json_object_get(session, "machines"), j, machine)
			print_machine_notes(session, machine);
	}
}

/* What machines of one base take together. */
struct share {
	const char *base;
	size_t machines;
	json_int_t bytes;
};

static int add_share(struct share **shares, size_t *count, const json_t *machine, struct error *err)
{
	const char *base = text_of(machine, "base");
	struct share *s;
	size_t at = 0;

	if (!base)
		return 0;
	while (at < *count && !str_eq((*shares)[at].base, base))
		at++;
	if (at == *count) {
		s = reallocarray(*shares, *count + 1, sizeof(*s));
		if (!s)
			return error_oom(err);
		*shares = s;
		s[(*count)++] = (struct share){.base = base};
	}
	s = &(*shares)[at];
	s->machines++;
	s->bytes += json_integer_value(json_object_get(machine, "disk_bytes"));
	return 0;
}

/* Below the table of all sessions: what they store of their own, and what they share. */
static int print_shares(const json_t *sessions, struct error *err)
{
	cleanup_free struct share *shares = NULL;
	const json_t *session, *machine;
	size_t count = 0, i, j;

	json_array_foreach(sessions, i, session)
		json_array_foreach(json_object_get(session, "machines"), j, machine)
			if (add_share(&shares, &count, machine, err) < 0)
				return -1;
	for (i = 0; i < count; i++) {
		cleanup_image struct image image = IMAGE_INIT;
		char own[24], base[24];

		str_human_size((uint64_t)shares[i].bytes, own, sizeof(own));
		if (image_find(shares[i].base, &image, NULL) < 0) {
			printf("%zu machine%s on %s: %s of their own; the image is gone\n", shares[i].machines,
			       shares[i].machines == 1 ? "" : "s", shares[i].base, own);
			continue;
		}
		printf("%zu machine%s on %s: %s of their own; the image takes %s, once for all\n", shares[i].machines,
		       shares[i].machines == 1 ? "" : "s", image.name ?: image.path, own,
		       str_human_size(image.allocated, base, sizeof(base)));
	}
	return 0;
}

static int print_table(const json_t *sessions, struct error *err)
{
	static const char *const headers[] = {"MACHINE", "STATE", "MEMORY", "OVERLAY", "KERNEL", "FORWARDS", NULL};
	struct cli_table *table;
	const json_t *session, *machine;
	size_t i, j;

	if (!json_array_size(sessions)) {
		if (!cli_quiet)
			printf("You have no session. Start one with `uml-lab up LAB`; `uml-lab list` shows the labs.\n");
		return 0;
	}
	table = cli_table_new(err, headers);
	if (!table)
		return -1;
	json_array_foreach(sessions, i, session) {
		json_array_foreach(json_object_get(session, "machines"), j, machine) {
			if (add_machine(table, session, machine, err) < 0) {
				cli_table_free(table);
				return -1;
			}
		}
	}
	cli_table_print(table, stdout);
	cli_table_free(table);
	if (print_networks(sessions, err) < 0)
		return -1;
	print_notes(sessions);
	return 0;
}

/* One session's status, or an entry that says why there is none: one damaged session must not hide the others. */
static json_t *status_of(const char *name, struct error *err)
{
	cleanup_session struct session *s = session_load(name, err);

	return s ? session_status(s, err) : NULL;
}

static json_t *gather(const struct strv *names, bool lenient, struct error *err)
{
	json_t *sessions = json_array();

	for (size_t i = 0; i < names->count; i++) {
		json_t *status = status_of(names->items[i], err);

		if (status) {
			json_array_append_new(sessions, status);
		} else if (lenient) {
			fprintf(stderr, "uml-lab: %s\n", err->message);
		} else {
			json_decref(sessions);
			return NULL;
		}
	}
	return sessions;
}

static int show_once(const struct status_options *o, const char *operand, struct error *err)
{
	cleanup_strv struct strv names = STRV_INIT;
	cleanup_free char *name = NULL;
	json_t *sessions;
	int result;

	if (operand ? session_resolve(operand, &name, NULL, false, err) < 0 || strv_add(&names, name, err) < 0
		    : session_names(&names, err) < 0)
		return -1;
	sessions = gather(&names, !operand, err);
	if (!sessions)
		return -1;
	if (o->json && operand) {
		json_t *only = json_incref(json_array_get(sessions, 0));

		json_decref(sessions);
		return cmd_print_json(only, err);
	}
	if (o->json)
		return cmd_print_json(sessions, err);
	if (o->watch)
		printf("\033[H\033[J");
	result = print_table(sessions, err);
	if (result == 0 && o->all)
		result = print_shares(sessions, err);
	json_decref(sessions);
	return result;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct status_options *o = opaque;
	const volatile int *cancel;

	if (!o->watch)
		return show_once(o, cmd_operand(operands, 0), err);
	if (cmd_need_terminal("status --watch", err) < 0)
		return -1;
	cancel = cmd_catch_signals();
	while (!*cancel) {
		if (show_once(o, cmd_operand(operands, 0), err) < 0)
			return -1;
		fflush(stdout);
		nanosleep(&(struct timespec){.tv_sec = WATCH_MS / 1000}, NULL);
	}
	return 0;
}

const struct cli_command cmd_status = {
	.name = "status",
	.operands = "[SESSION]",
	.summary = "Show sessions and their machines",
	.help = "Without SESSION all your sessions are shown. Every state is verified against live processes.",
	.options = options,
	.options_size = sizeof(struct status_options),
	.max_operands = 1,
	.run = run,
};
