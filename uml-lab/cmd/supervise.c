/* uml-lab __supervise SESSION MACHINE: what `up` starts, one a machine. Not for people, so not in the overview. */
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "uml-lab/base/log.h"
#include "uml-lab/cmd/cmd.h"

#define READY_FD 3	/* as uml-lab/session/start.c gives it */

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	int ready = fcntl(READY_FD, F_GETFD) >= 0 ? READY_FD : -1;

	(void)opaque;
	log_setup(operands->items[1], LOG_LEVEL_INFO);
	signal(SIGPIPE, SIG_IGN);
	if (ready >= 0)
		fcntl(ready, F_SETFD, FD_CLOEXEC);
	return session_supervise(operands->items[0], operands->items[1], ready, err);
}

const struct cli_command cmd_supervise = {
	.name = "__supervise",
	.operands = "SESSION MACHINE",
	.min_operands = 2,
	.max_operands = 2,
	.run = run,
};
