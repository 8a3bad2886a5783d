/* uml-lab schema: what a lab.yml may hold, for editors (JSON Schema) or people (Markdown). */
#include "uml-lab/cmd/cmd.h"
#include "uml-lab/lab/lab.h"

struct schema_options {
	bool markdown;
};

static const struct cli_option options[] = {
	{"markdown", 0, CLI_FLAG, offsetof(struct schema_options, markdown), NULL,
	 "the reference page instead"},
	{NULL},
};

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct schema_options *o = opaque;

	(void)operands;
	return o->markdown ? lab_write_reference(stdout, err) : lab_write_json_schema(stdout, err);
}

const struct cli_command cmd_schema = {
	.name = "schema",
	.operands = "",
	.summary = "Print the JSON Schema of lab.yml",
	.help = "Editors that know YAML complete and check a lab.yml whose first line is\n"
		"  # yaml-language-server: $schema=lab.schema.json\n"
		"once `uml-lab schema > lab.schema.json` was run beside it.",
	.options = options,
	.options_size = sizeof(struct schema_options),
	.max_operands = 0,
	.run = run,
};
