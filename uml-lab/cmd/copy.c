/* uml-lab copy SRC DST: files and folders between host and machine. */
#include <string.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/cmd/cmd.h"
#include "uml-lab/machine/client.h"

/* The colon of SESSION/MACHINE:PATH, or NULL for a path of this host (which may hold a colon after a slash at its
 * start or "./"). */
static const char *guest_colon(const char *operand)
{
	const char *colon = strchr(operand, ':');

	if (!colon || operand[0] == '/' || operand[0] == '.' || operand[0] == '~')
		return NULL;
	return colon;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const char *source = operands->items[0], *destination = operands->items[1];
	const char *from = guest_colon(source), *to = guest_colon(destination), *colon = from ?: to;
	cleanup_free char *machine = NULL;
	cleanup_close int control = -1;

	(void)opaque;
	if (!from == !to) {
		error_set(err, ERROR_USAGE, "just one side must be a machine's: SESSION/MACHINE:PATH");
		return error_hint(err, "a host file with a colon in its name: write ./NAME");
	}
	if (colon[1] != '/')
		return error_set(err, ERROR_USAGE, "the path in the machine must start with /, not '%s'", colon + 1);
	machine = str_printf(err, "%.*s", (int)(colon - (from ? source : destination)), from ? source : destination);
	if (!machine)
		return -1;
	control = session_connect(machine[0] ? machine : NULL, err);
	if (control < 0)
		return -1;
	return machine_copy(control, to != NULL, from ? from + 1 : source, to ? to + 1 : destination, err);
}

const struct cli_command cmd_copy = {
	.name = "copy",
	.operands = "SRC DST",
	.summary = "Copy files or folders; one side is SESSION/MACHINE:PATH",
	.min_operands = 2,
	.max_operands = 2,
	.run = run,
};
