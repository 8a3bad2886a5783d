/* What the subcommands share. */
#include "cow/cmd.h"

int cow_cmd_main(const struct cli_command *const *commands, int argc, char **argv)
{
	const struct cli_program program = {
		.name = "uml-cow",
		.summary = "Layered copy-on-write disks of User-mode Linux.",
		.version = UML_LAB_VERSION,
		.commands = commands,
	};

	return cli_main(&program, argc, argv);
}

struct cow_open_options cow_cmd_open_options(const struct cow_cmd_chain *o)
{
	return (struct cow_open_options){.folders = &o->allow, .any_backing = o->allow_any};
}

int cow_cmd_print_json(json_t *doc, struct error *err)
{
	cleanup_json json_t *owned = doc;

	if (!owned)
		return error_oom(err);
	if (json_dumpf(owned, stdout, JSON_INDENT(2)) || putchar('\n') < 0 || fflush(stdout))
		return error_set(err, ERROR_FAILED, "cannot write the output");
	return 0;
}

int cow_cmd_json_add(json_t *list, json_t *row, struct error *err)
{
	return json_array_append_new(list, row) ? error_oom(err) : 0;
}

int cow_cmd_print_list(json_t *list, struct error *err)
{
	return list ? cow_cmd_print_json(json_incref(list), err) : 0;
}

json_t *cow_cmd_json_text(const char *text)
{
	json_t *j = json_string(text);
	cleanup_strbuf struct strbuf b = STRBUF_INIT;

	if (j)
		return j;
	for (; *text; text++) {
		if ((unsigned char)*text < 0x80)
			strbuf_putc(&b, *text);
		else
			strbuf_printf(&b, "\\x%02x", (unsigned char)*text);
	}
	return b.failed ? NULL : json_string(b.data);
}
