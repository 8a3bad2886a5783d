/*
 * uml-lab disk SESSION/MACHINE [list|insert|eject] [DISK]: extra disks put into a running machine, and taken out of it.
 *
 * A disk that is out keeps its place: for the guest it is a device of size 0. UML takes devices at its boot only.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"
#include "uml-lab/machine/client.h"

#define STATUS_MS 5000
#define LETTERS	  26

struct disk_options {
	bool json;
};

static const struct cli_option options[] = {
	{"json", 0, CLI_FLAG, offsetof(struct disk_options, json), NULL, "for scripts"},
	{NULL},
};

/* "SESSION/MACHINE insert|eject|list DISK" taken apart; the first may be left out. */
struct words {
	const char *machine, *action;
	long disk;
};

static bool is_action(const char *word)
{
	return str_eq(word, "insert") || str_eq(word, "eject") || str_eq(word, "list");
}

/* The index of the n-th disk as the guest calls it: vdb is 1, vdaa 26. -1: not of that form. */
static long parse_disk(const char *name)
{
	long number = 0;

	if (str_starts(name, "/dev/"))
		name += strlen("/dev/");
	if (!str_starts(name, "vd") || !name[2] || strlen(name) > 4)
		return -1;
	for (name += 2; *name >= 'a' && *name <= 'z'; name++)
		number = number * LETTERS + *name - 'a' + 1;
	return *name ? -1 : number - 1;
}

static void disk_name(size_t index, char out[static 8])
{
	char *p = out;

	*p++ = 'v';
	*p++ = 'd';
	if (index >= LETTERS)
		*p++ = (char)('a' + (index / LETTERS - 1) % LETTERS);
	*p++ = (char)('a' + index % LETTERS);
	*p = '\0';
}

static int parse_words(const struct strv *operands, struct words *w, struct error *err)
{
	const char *disk;
	size_t i = 0;

	*w = (struct words){.action = "list", .disk = -1};
	if (i < operands->count && !is_action(operands->items[i]))
		w->machine = operands->items[i++];
	if (i < operands->count)
		w->action = operands->items[i++];
	if (!is_action(w->action))
		return error_set(err, ERROR_USAGE, "'%s' is not one of insert, eject, list", w->action);
	disk = cmd_operand(operands, i);
	if (str_eq(w->action, "list"))
		return disk ? error_set(err, ERROR_USAGE, "list takes no disk") : 0;
	if (!disk)
		return error_set(err, ERROR_USAGE, "which disk? As the guest calls it: vdb, vdc, …");
	w->disk = parse_disk(disk);
	return w->disk >= 0 ? 0 : error_set(err, ERROR_USAGE, "'%s' is no disk; the guest calls them vdb, vdc, …", disk);
}

static int add_row(struct cli_table *table, json_t *array, size_t index, const json_t *disk, struct error *err)
{
	bool inserted = json_is_true(json_object_get(disk, "inserted"));
	json_int_t size = json_integer_value(json_object_get(disk, "size"));
	json_int_t allocated = json_integer_value(json_object_get(disk, "allocated"));
	char name[8], shown[24], takes[24];

	disk_name(index, name);
	str_human_size((uint64_t)size, shown, sizeof(shown));
	str_human_size((uint64_t)allocated, takes, sizeof(takes));
	json_array_append_new(array, json_pack("{s:s, s:b, s:I, s:I}", "disk", name, "inserted", inserted, "size", size,
					       "allocated", allocated));
	return cli_table_row(table, (const char *const[]){name, inserted ? "in" : "out", inserted ? shown : NULL,
							  inserted ? takes : NULL}, err);
}

static int print_list(const json_t *disks, bool json, struct error *err)
{
	static const char *const headers[] = {"DISK", "IS", "SIZE", "TAKES", NULL};
	struct cli_table *table = cli_table_new(err, headers);
	json_t *array = json_array(), *disk;
	int result = table ? 0 : -1;
	size_t i;

	json_array_foreach(disks, i, disk)
		if (result == 0)
			result = add_row(table, array, i, disk, err);
	if (result == 0 && json)
		result = cmd_print_json(json_incref(array), err);
	else if (result == 0)
		cli_table_print(table, stdout);
	json_decref(array);
	cli_table_free(table);
	return result;
}

static int act(int control, const struct disk_options *o, const struct words *w, struct error *err)
{
	cleanup_free char *text = machine_status_json(control, STATUS_MS, err), *request = NULL, *answer = NULL;
	json_t *status = text ? json_loads(text, 0, NULL) : NULL;
	const json_t *disks = json_object_get(json_object_get(status, "disks"), "list");
	size_t count = json_array_size(disks);
	int result = -1;

	if (!text)
		return -1;
	if (str_eq(w->action, "list"))
		result = print_list(disks, o->json, err);
	else if ((size_t)w->disk >= count)
		error_set(err, ERROR_NOT_FOUND, "the machine has %zu disks, vda included: those of its disks: in lab.yml", count);
	else if ((request = str_printf(err, "%s %ld", w->action, w->disk)) &&
		 (answer = machine_request(control, MACHINE_REQUEST_DISK, request, err)))
		result = 0;
	json_decref(status);
	return result;
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

const struct cli_command cmd_disk = {
	.name = "disk",
	.operands = "[SESSION/MACHINE] [insert|eject|list] [DISK]",
	.summary = "Put extra disks into a running machine, or take them out",
	.help = "DISK is what the guest calls it: vdb, vdc, … A disk that is taken out has no size any more, and what the guest "
		"still asks of it fails, as if the cable had been pulled; what it had written is kept. With ejected: true in the "
		"lab a disk is out when the machine starts. What is changed holds until the machine stops.",
	.options = options,
	.options_size = sizeof(struct disk_options),
	.max_operands = 3,
	.run = run,
};
