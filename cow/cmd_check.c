/* uml-cow check: is it whole? */
#include <stddef.h>

#include "cow/cmd.h"
#include "cow/ops.h"

struct options {
	struct cow_cmd_chain chain;
	bool repair, json;
};

static const char *name_of(enum cow_finding finding)
{
	switch (finding) {
	case COW_FINDING_NOTE:
		return "note";
	case COW_FINDING_REPAIRED:
		return "repaired";
	case COW_FINDING_REPAIRABLE:
		return "repairable";
	case COW_FINDING_ERROR:
		return "error";
	}
	return "error";
}

static void print_finding(void *arg, enum cow_finding finding, const char *text)
{
	(void)arg;
	if (!cli_quiet)
		printf("%s: %s\n", name_of(finding), text);
}

static void add_finding(void *arg, enum cow_finding finding, const char *text)
{
	json_array_append_new(arg, json_pack("{s:s, s:s}", "kind", name_of(finding), "text", text));
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct options *o = opaque;
	struct cow_open_options open = cow_cmd_open_options(&o->chain);
	json_t *findings = o->json ? json_array() : NULL;
	int wrong = cow_check(operands->items[0], o->repair, &open, o->json ? add_finding : print_finding,
			      findings, err);

	if (wrong < 0) {
		json_decref(findings);
		return -1;
	}
	if (o->json && cow_cmd_print_json(json_pack("{s:i, s:o}", "wrong", wrong, "findings", findings), err))
		return -1;
	return wrong ? ERROR_FAILED : 0;
}

static const struct cli_option options[] = {
	COW_CMD_CHAIN_OPTIONS,
	{"repair", 'r', CLI_FLAG, offsetof(struct options, repair), NULL,
	 "mend what can be mended without a doubt"},
	{"json", 0, CLI_FLAG, offsetof(struct options, json), NULL, "tell it as JSON"},
	{NULL},
};

const struct cli_command cow_cmd_check = {
	.name = "check",
	.operands = "FILE",
	.summary = "Check a disk and what it stands on",
	.help = "Exit status 0: nothing is wrong (any more); 1: something is. Repairs never change what the "
		"guest sees.",
	.options = options,
	.options_size = sizeof(struct options),
	.min_operands = 1,
	.max_operands = 1,
	.run = run,
};
