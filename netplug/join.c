/* The one who starts a joiner: join.h. */
#include "netplug/join.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"

#define JOIN_FD 3
#define STRINGIFY(x) #x
#define TEXT(x) STRINGIFY(x)

int netplug_join(struct child *joiner, const char *program, const char *locator, const char *label, struct error *err)
{
	const char *const argv[] = {
		program, "--vde", locator, "--label", label, "--join-fd", TEXT(JOIN_FD), NULL,
	};
	cleanup_close int ours = -1, theirs = -1;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
		return error_errno(err, errno, "make a socket pair");
	ours = pair[0];
	theirs = pair[1];
	const struct child_fd fds[] = { { theirs, JOIN_FD } };
	const struct child_spec spec = {
		.argv = argv,
		.fds = fds,
		.fd_count = ARRAY_SIZE(fds),
		.null_stdin = true,
		.new_session = true,
		.death_signal = SIGKILL,
		.no_new_privs = true,
	};

	return child_spawn(joiner, &spec, err) ? -1 : steal_fd(&ours);
}

void netplug_join_end(struct child *joiner)
{
	/* It leads a group of its own (new_session), whose number is not given away before it is waited for. */
	if (joiner->pid)
		kill(-joiner->pid, SIGTERM);
	child_end(joiner, 0);
}
