/* What the subcommands share. */
#include "cow/cmd.h"

struct cow_open_options cow_cmd_open_options(const struct cow_cmd_chain *o)
{
	return (struct cow_open_options){ .folders = &o->allow, .any_backing = o->allow_any };
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
