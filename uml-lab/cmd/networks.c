/* uml-lab __networks SESSION: the keeper of a session's networks. Not for people, so not in the overview. */
#include <fcntl.h>
#include <signal.h>

#include "uml-lab/base/log.h"
#include "uml-lab/cmd/cmd.h"

#define READY_FD 3	/* as uml-lab/session/networks.c gives it */

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	int ready = fcntl(READY_FD, F_GETFD) >= 0 ? READY_FD : -1;

	(void)opaque;
	log_setup("networks", LOG_LEVEL_INFO);
	signal(SIGPIPE, SIG_IGN);
	if (ready >= 0)
		fcntl(ready, F_SETFD, FD_CLOEXEC);
	if (session_keep_networks(operands->items[0], ready, err) == 0)
		return 0;
	/* Another one was quicker: all is as it should be. */
	if (err->kind == ERROR_STATE)
		return 0;
	log_error(err);
	return -1;
}

const struct cli_command cmd_networks = {
	.name = "__networks",
	.operands = "SESSION",
	.min_operands = 1,
	.max_operands = 1,
	.run = run,
};
