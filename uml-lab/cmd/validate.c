/* uml-lab validate LAB: all mistakes of a lab.yml, as file:line:column, before anything is started. */
#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"
#include "uml-lab/lab/lab.h"

struct validate_options {
	struct strv params;
	bool json;
};

static const struct cli_option options[] = {
	{"param", 'p', CLI_LIST, offsetof(struct validate_options, params), "K=V",
	 "set a parameter of the lab"},
	{"json", 0, CLI_FLAG, offsetof(struct validate_options, json), NULL, "for scripts"},
	{NULL},
};

/* The mistakes as an array; err stands in for them where the file could not even be taken up. */
static json_t *problems_json(const struct lab_problems *problems, const struct error *err)
{
	json_t *list = json_array();

	for (size_t i = 0; i < problems->count; i++) {
		const struct lab_problem *p = &problems->items[i];

		json_array_append_new(list, json_pack("{s:i, s:i, s:s, s:s}", "line", p->line, "column",
						      p->column, "path", p->path, "message", p->message));
	}
	if (err && !problems->count)
		json_array_append_new(list, json_pack("{s:i, s:i, s:s, s:s}", "line", 1, "column", 1, "path",
						      "", "message", err->message));
	return list;
}

static int tell_right(const struct lab *lab, const char *file, bool json, struct error *err)
{
	if (json)
		return cmd_print_json(json_pack("{s:s, s:b, s:s, s:s?, s:I, s:[]}", "file", file, "valid", 1,
						"lab", lab->name, "title", lab->title, "machines",
						(json_int_t)lab->machine_count, "problems"),
				      err);
	if (!cli_quiet)
		printf("%s is right: lab %s, %zu machine%s, %zu network%s, %zu check%s\n", file, lab->name,
		       lab->machine_count, lab->machine_count == 1 ? "" : "s", lab->network_count,
		       lab->network_count == 1 ? "" : "s", lab->check_count,
		       lab->check_count == 1 ? "" : "s");
	return 0;
}

static int tell_wrong(const struct lab_problems *problems, const struct error *wrong, bool json,
		      struct error *err)
{
	if (json) {
		if (cmd_print_json(json_pack("{s:s?, s:b, s:o, s:I}", "file", problems->file, "valid", 0,
					     "problems", problems_json(problems, wrong), "untold",
					     (json_int_t)problems->untold),
				   err) < 0)
			return -1;
		return ERROR_LAB;
	}
	if (!problems->count) {
		error_copy(err, wrong);
		return -1;
	}
	for (size_t i = 0; i < problems->count; i++) {
		const struct lab_problem *p = &problems->items[i];

		fprintf(stderr, "%s:%d:%d: %s%s%s\n", problems->file, p->line, p->column, p->path,
			*p->path ? ": " : "", p->message);
	}
	if (problems->untold)
		fprintf(stderr, "… and %zu more\n", problems->untold);
	return ERROR_LAB;
}

/* The one mistake that only a look at the bases finds; those that are not here yet are no mistake. */
static int check_drivers(const struct lab *lab, struct lab_problems *problems)
{
	for (size_t i = 0; i < lab->machine_count; i++) {
		const struct lab_machine *m = &lab->machines[i];
		cleanup_image struct image image = IMAGE_INIT;
		cleanup_free char *path = str_printf(NULL, "machines.%s.disk", m->name);
		struct error wrong = ERROR_INIT;
		bool here = image_find(m->base, &image, NULL) == 0;

		if (path && session_check_driver(lab, m, here ? &image : NULL, &wrong) < 0)
			lab_problem_add(problems, m->mark, path, "%s; %s", wrong.message, wrong.hint);
	}
	return problems->count ? -1 : 0;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct validate_options *o = opaque;
	cleanup_with(lab_problems_free) struct lab_problems problems = {0};
	struct lab_load_options load = {.params = &o->params, .problems = &problems};
	struct error wrong = ERROR_INIT;
	struct lab *lab = lab_load(operands->items[0], &load, &wrong);
	int status;

	if (lab) {
		status = check_drivers(lab, &problems) < 0 ? tell_wrong(&problems, NULL, o->json, err)
							  : tell_right(lab, problems.file, o->json, err);
		lab_free(lab);
		return status;
	}
	if (wrong.kind == ERROR_LAB)
		return tell_wrong(&problems, &wrong, o->json, err);
	error_copy(err, &wrong);
	return -1;
}

const struct cli_command cmd_validate = {
	.name = "validate",
	.operands = "LAB",
	.summary = "Tell all mistakes of a lab description",
	.help = "Each mistake is one line, FILE:LINE:COLUMN: path.to.field: what is wrong; allowed: …, "
		"sorted by position.\n"
		"Ends with 3 when there are any. Nothing is started, and images may be missing.",
	.options = options,
	.options_size = sizeof(struct validate_options),
	.min_operands = 1,
	.max_operands = 1,
	.run = run,
};
