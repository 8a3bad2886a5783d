/* uml-lab snapshot create|list|restore|remove: the disks of a session frozen under a name. */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"

#define DEFAULT_NAME "snap-%d"
#define DEFAULT_NAMES_MAX 10000

/* The session of the first operand, locked and loaded. */
static int take(struct cmd_target *target, const struct strv *operands, struct error *err)
{
	if (session_resolve(cmd_operand(operands, 0), &target->name, NULL, false, err) < 0)
		return -1;
	return cmd_target_take(target, err);
}

/* ---- create ---- */

/* "snap-1" and so on. */
static char *free_name(const struct session *s, struct error *err)
{
	for (int n = 1; n < DEFAULT_NAMES_MAX; n++) {
		cleanup_free char *name = str_printf(err, DEFAULT_NAME, n);

		if (!name || !session_find_snapshot(s, name))
			return steal_ptr(&name);
	}
	error_set(err, ERROR_USAGE, "session %s has too many snapshots", s->name);
	return NULL;
}

struct create_options {
	bool json;
};

static int run_create(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct create_options *o = opaque;
	cleanup_target struct cmd_target target = CMD_TARGET_INIT;
	struct session_snapshot_result result;
	cleanup_free char *name = NULL;

	if (take(&target, operands, err) < 0)
		return -1;
	name = cmd_operand(operands, 1) ? str_dup(operands->items[1], err) : free_name(target.session, err);
	if (!name || session_snapshot_create(target.session, name, &result, err) < 0)
		return -1;
	if (o->json)
		return cmd_print_json(json_pack("{s:s, s:s, s:f}", "session", target.name, "snapshot", name, "pause_ms",
						(double)result.pause_us / 1000),
				      err);
	if (cli_quiet)
		return 0;
	printf("Snapshot %s of session %s is made", name, target.name);
	if (result.pause_us)
		printf("; machines stood still for %.1f ms at most (%s)", (double)result.pause_us / 1000, result.pause_machine);
	printf(".\n");
	return 0;
}

static const struct cli_option create_options[] = {
	{"json", 0, CLI_FLAG, offsetof(struct create_options, json), NULL, "for scripts"},
	{NULL},
};

const struct cli_command cmd_snapshot_create = {
	.name = "snapshot create",
	.operands = "SESSION [NAME]",
	.summary = "Freeze the disks of all machines of a session under a name",
	.help = "NAME may be left out: snap-1, snap-2 and so on. All machines are frozen together, with their extra disks. "
		"A snapshot takes no space of its own at first: what is written from then on goes into new files. Machines "
		"with disk: ubd have to be stopped, and what they changed is copied.",
	.options = create_options,
	.options_size = sizeof(struct create_options),
	.min_operands = 1,
	.max_operands = 2,
	.run = run_create,
};

/* ---- list ---- */

struct list_options {
	bool json;
};

static int add_row(struct cli_table *table, const json_t *snapshot, size_t machine_count, struct error *err)
{
	cleanup_strbuf struct strbuf current = STRBUF_INIT;
	const json_t *machines = json_object_get(snapshot, "current_machines"), *machine;
	char size[24];
	size_t i;

	if (json_array_size(machines) == machine_count)
		strbuf_puts(&current, "yes");
	else
		json_array_foreach(machines, i, machine)
			strbuf_printf(&current, "%s%s", i ? ", " : "", json_string_value(machine));
	str_human_size((uint64_t)json_integer_value(json_object_get(snapshot, "bytes")), size, sizeof(size));
	if (strbuf_check(&current, err) < 0)
		return -1;
	return cli_table_row(table, (const char *const[]){json_string_value(json_object_get(snapshot, "name")),
							  json_string_value(json_object_get(snapshot, "created")),
							  json_string_value(json_object_get(snapshot, "parent")), size,
							  current.length ? current.data : NULL},
			     err);
}

static int print_list(const json_t *list, const struct session *s, struct error *err)
{
	static const char *const headers[] = {"SNAPSHOT", "CREATED", "PARENT", "TAKES", "CURRENT", NULL};
	struct cli_table *table;
	const json_t *snapshot;
	int result = 0;
	size_t i;

	if (!json_array_size(list)) {
		if (!cli_quiet)
			printf("Session %s has no snapshots: uml-lab snapshot create %s NAME makes one.\n", s->name, s->name);
		return 0;
	}
	table = cli_table_new(err, headers);
	if (!table)
		return -1;
	json_array_foreach(list, i, snapshot)
		if (result == 0)
			result = add_row(table, snapshot, s->machine_count, err);
	if (result == 0)
		cli_table_print(table, stdout);
	cli_table_free(table);
	return result;
}

static int run_list(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct list_options *o = opaque;
	cleanup_session struct session *s = NULL;
	cleanup_free char *name = NULL;
	json_t *list;
	int result;

	if (session_resolve(cmd_operand(operands, 0), &name, NULL, false, err) < 0 || !(s = session_load(name, err)))
		return -1;
	list = session_snapshot_list(s, err);
	if (!list)
		return -1;
	if (o->json)
		return cmd_print_json(list, err);
	result = print_list(list, s, err);
	json_decref(list);
	return result;
}

static const struct cli_option list_options[] = {
	{"json", 0, CLI_FLAG, offsetof(struct list_options, json), NULL, "for scripts"},
	{NULL},
};

const struct cli_command cmd_snapshot_list = {
	.name = "snapshot list",
	.operands = "[SESSION]",
	.summary = "List the snapshots of a session",
	.help = "TAKES is what its files take on the host's disk; CURRENT tells which one the machines' disks stand on.",
	.options = list_options,
	.options_size = sizeof(struct list_options),
	.max_operands = 1,
	.run = run_list,
};

/* ---- restore, remove ---- */

struct restore_options {
	bool yes;
	int64_t timeout_ms;
};

static int run_restore(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct restore_options *o = opaque;
	cleanup_target struct cmd_target target = CMD_TARGET_INIT;
	struct session_start_options start;

	if (take(&target, operands, err) < 0)
		return -1;
	start = cmd_target_start(&target, o->timeout_ms);
	return session_reset(target.session, operands->items[1], NULL, &start, err);
}

static const struct cli_option restore_options[] = {
	{"yes", 'y', CLI_FLAG, offsetof(struct restore_options, yes), NULL, "for scripts that say it to reset: nothing is asked"},
	{"timeout", 't', CLI_DURATION, offsetof(struct restore_options, timeout_ms), "TIME",
	 "how long machines that ran may take until ready again (default: 120s)"},
	{NULL},
};

const struct cli_command cmd_snapshot_restore = {
	.name = "snapshot restore",
	.operands = "SESSION NAME",
	.summary = "Put a session back to a snapshot",
	.help = "What was changed since the last snapshot is thrown away, without asking: make a snapshot before if it is to be "
		"kept. Machines that run are stopped at once and started again; others stay stopped. `reset --to NAME` puts "
		"back single machines.",
	.options = restore_options,
	.options_size = sizeof(struct restore_options),
	.min_operands = 2,
	.max_operands = 2,
	.run = run_restore,
};

static int run_remove(const void *opaque, const struct strv *operands, struct error *err)
{
	cleanup_target struct cmd_target target = CMD_TARGET_INIT;

	(void)opaque;
	if (take(&target, operands, err) < 0)
		return -1;
	for (size_t i = 1; i < operands->count; i++)
		if (session_snapshot_remove(target.session, operands->items[i], err) < 0)
			return -1;
	return 0;
}

const struct cli_command cmd_snapshot_remove = {
	.name = "snapshot remove",
	.operands = "SESSION NAME…",
	.summary = "Forget snapshots of a session",
	.help = "The machines' disks and other snapshots stay as they are: what they need of it is merged into them.",
	.min_operands = 2,
	.max_operands = -1,
	.run = run_remove,
};
