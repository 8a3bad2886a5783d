/* uml-lab doctor: what this host can and cannot do for labs, and the remedy. */
#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"

struct doctor_options {
	bool json;
};

static const struct cli_option options[] = {
	{"json", 0, CLI_FLAG, offsetof(struct doctor_options, json), NULL, "for scripts"},
	{NULL},
};

static const char *const levels[] = {"ok", "warning", "broken"};

static int print_checks_json(const struct host_check *checks, int n, struct error *err)
{
	json_t *list = json_array();

	for (int i = 0; i < n; i++)
		json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:s}", "name", checks[i].name, "level",
						      levels[checks[i].level], "detail", checks[i].detail, "remedy",
						      checks[i].remedy));
	return cmd_print_json(list, err);
}

static void print_checks(const struct host_check *checks, int n)
{
	static const char *const colours[] = {"\033[32m", "\033[33m", "\033[31m"};
	bool colour = cli_colour(stdout);

	for (int i = 0; i < n; i++) {
		printf("%s%-8s%s %s: %s\n", colour ? colours[checks[i].level] : "", levels[checks[i].level],
		       colour ? "\033[0m" : "", checks[i].name, checks[i].detail);
		if (checks[i].remedy[0])
			printf("         -> %s\n", checks[i].remedy);
	}
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct doctor_options *o = opaque;
	struct host_check checks[32];
	int n = machine_host_checks(checks, (int)ARRAY_SIZE(checks)), broken = 0;

	(void)operands;
	for (int i = 0; i < n; i++)
		broken += checks[i].level == 2;
	if (o->json) {
		if (print_checks_json(checks, n, err) < 0)
			return -1;
	} else {
		print_checks(checks, n);
	}
	return broken ? ERROR_FAILED : 0;
}

const struct cli_command cmd_doctor = {
	.name = "doctor",
	.operands = "",
	.summary = "Check this host: what labs need, what is missing, and the remedy",
	.options = options,
	.options_size = sizeof(struct doctor_options),
	.run = run,
};
