/* uml-lab list: the labs that can be started, and those that are broken, with what is wrong. */
#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"
#include "uml-lab/lab/lab.h"

struct list_options {
	bool json;
};

static const struct cli_option options[] = {
	{"json", 0, CLI_FLAG, offsetof(struct list_options, json), NULL, "for scripts"},
	{NULL},
};

static int print_json(const struct lab_entry *entries, size_t count, struct error *err)
{
	json_t *list = json_array();

	for (size_t i = 0; i < count; i++)
		json_array_append_new(list,
				      json_pack("{s:s, s:s?, s:i, s:s, s:s?}", "name", entries[i].name,
						"title", entries[i].title, "machines", entries[i].machines,
						"path", entries[i].path, "problem", entries[i].problem));
	return cmd_print_json(list, err);
}

static int print_table(const struct lab_entry *entries, size_t count, struct error *err)
{
	struct cli_table *table =
		cli_table_new(err, (const char *const[]){"LAB", "TITLE", "MACHINES", "PATH", NULL});
	int status = table ? 0 : -1;

	for (size_t i = 0; status == 0 && i < count; i++) {
		char machines[16];

		snprintf(machines, sizeof(machines), "%d", entries[i].machines);
		status = cli_table_row(
			table,
			(const char *const[]){entries[i].name,
					      entries[i].problem ? "(broken)" : entries[i].title,
					      entries[i].problem ? NULL : machines, entries[i].path},
			err);
	}
	if (status == 0)
		cli_table_print(table, stdout);
	cli_table_free(table);
	return status;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct list_options *o = opaque;
	struct lab_entry *entries = NULL;
	size_t count = 0;
	int status;

	(void)operands;
	if (lab_list(&entries, &count, err) < 0)
		return -1;
	if (o->json) {
		status = print_json(entries, count, err);
	} else if (!count) {
		status = 0;
		if (!cli_quiet)
			fprintf(stderr,
				"no labs found; put them in ./labs or name their folder in UML_LAB_PATH\n");
	} else {
		status = print_table(entries, count, err);
		for (size_t i = 0; status == 0 && i < count; i++)
			if (entries[i].problem)
				printf("%s\n", entries[i].problem);
	}
	lab_entries_free(entries, count);
	return status;
}

const struct cli_command cmd_list = {
	.name = "list",
	.operands = "",
	.summary = "List the labs that can be started",
	.help = "Labs are looked for in the folders of $UML_LAB_PATH, ./labs, your own labs and the "
		"installed ones.\n"
		"Those that are broken are listed too, with the first thing that is wrong; validate tells "
		"all.",
	.options = options,
	.options_size = sizeof(struct list_options),
	.max_operands = 0,
	.run = run,
};
