/*
 * Stage-0: /init of the machine's initramfs, one static program.
 *
 *	kernel ── pid 1: early mounts, serial line ──┬── waits for the order ──► switch_root ──► the image's init
 *	                                            └── fork: the agent ── HELLO, CONFIG, MOUNT, …, BOOT ── serves on
 *
 * The agent does all the work and lives on beside the image's init; pid 1 only
 * waits to become it (init.c). The serial line is opened before the agent is
 * forked, and its node removed: no getty of the image shall find it.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#include "uml-lab/guest/agent.h"
#include "uml-lab/guest/init.h"
#include "uml-lab/guest/mount.h"

#define FORK_TRIES    20
#define FORK_PAUSE_US 50000

static int open_line(void)
{
	struct termios t;
	int fd = open(AGENT_DEVICE, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT) {
		mknod(AGENT_DEVICE, S_IFCHR | 0600, makedev(AGENT_DEVICE_MAJOR, AGENT_DEVICE_MINOR));
		fd = open(AGENT_DEVICE, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	}
	if (fd < 0) {
		guest_say("cannot open " AGENT_DEVICE ": %s", strerror(errno));
		return -1;
	}
	if (tcgetattr(fd, &t) == 0) {
		cfmakeraw(&t);
		t.c_cflag |= CLOCAL | CREAD;
		tcsetattr(fd, TCSANOW, &t);
	}
	unlink(AGENT_DEVICE);
	return fd;
}

/*
 * The agent's process. On 6.12 about one boot in two hundred refuses the very first fork() with EAGAIN, with memory and process
 * ids to spare, and takes it a moment later; the same was seen there of kernel threads.
 */
static pid_t fork_patiently(void)
{
	pid_t pid = fork();

	for (int tries = 1; pid < 0 && tries < FORK_TRIES; tries++) {
		guest_say("cannot make a process: %s; trying again", strerror(errno));
		usleep(FORK_PAUSE_US);
		pid = fork();
	}
	if (pid < 0)
		guest_say("cannot make a process: %s", strerror(errno));
	return pid;
}

int main(int argc, char **argv)
{
	int order[2], line;
	pid_t pid = -1;

	if (argc < 1 || getpid() != 1) {
		static const char hint[] = "stage0 is the /init of a uml-lab machine's initramfs; start it with uml-lab up\n";

		return guest_write_full(STDERR_FILENO, hint, sizeof(hint) - 1) < 0 ? 1 : 2;
	}
	mount_early();
	line = open_line();
	if (line >= 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, order) == 0)
		pid = fork_patiently();
	if (pid == 0) {
		argv[0][0] = '@';
		prctl(PR_SET_NAME, "uml-lab-agent");
		close(order[0]);
		_exit(agent_run(line, order[1]));
	}
	if (pid < 0) {
		/* The kernel's panic that follows ends the machine at once, where waiting would end it by a time-out. */
		guest_say("no agent: this machine can't be booted");
		return 1;
	}
	close(line);
	close(order[1]);
	init_run(order[0], argv);
}
