/*
 * Pid 1. Until BOOT it does nothing but wait for the order. Then switch_root as
 * the kernel's Documentation/filesystems/ramfs-rootfs-initramfs.rst has it: the
 * initramfs's files are removed (they would hold memory for ever), the new root
 * is moved over "/", and the image's init takes the process over.
 *
 * An image without init (docker export) gets a small one: this process reaps
 * orphans, keeps a root shell on the console, and goes down on the signals that
 * busybox's init knows: SIGUSR2 power off, SIGTERM restart.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "uml-lab/guest/agent.h"
#include "uml-lab/guest/exec.h"
#include "uml-lab/guest/init.h"
#include "uml-lab/guest/mount.h"
#include "uml-lab/guest/power.h"

#define RESPAWN_MS 1000	/* a shell that ends sooner is started again only after this */

/* Removes what lies on the initramfs's own file system, below fd. Takes fd over. */
static void empty_folder(int fd, dev_t device)
{
	DIR *d = fdopendir(fd);
	struct dirent *e;
	struct stat st;

	while (d && (e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..") ||
		    fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_dev != device)
			continue;
		if (S_ISDIR(st.st_mode))
			empty_folder(openat(fd, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), device);
		unlinkat(fd, e->d_name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0);
	}
	if (d)
		closedir(d);
}

static int switch_root(struct fault *f)
{
	struct stat st;
	int old = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (chdir(MOUNT_ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0) {
		close(old);
		return fault_errno(f, errno, "cannot make the image's root file system the root");
	}
	if (old >= 0 && fstat(old, &st) == 0)
		empty_folder(old, st.st_dev);
	return 0;
}

/* Standard streams as the kernel would have given them: the initramfs's own console node is gone. */
static void open_console(const char *path, int flags)
{
	int fd = open(path, O_RDWR | flags), i;

	if (fd < 0)
		return;
	for (i = 0; i < 3; i++)
		if (fd != i)
			dup2(fd, i);
	if (fd > 2)
		close(fd);
}

static void run_shell(const char *console)
{
	char *no_argv[] = { NULL }, *env[] = { "TERM=linux", NULL };
	const struct exec_request login = {
		.flags = EXEC_TERMINAL | EXEC_LOGIN_SHELL, .cwd = "", .argv = no_argv, .env = env,
	};
	char path[32];

	setsid();
	snprintf(path, sizeof(path), "/dev/%s", console);
	open_console(path, O_NOCTTY);
	ioctl(0, TIOCSCTTY, 0);
	exec_program(&login, open("/dev/null", O_WRONLY | O_CLOEXEC));
}

/* Starts the shell, no sooner than RESPAWN_MS after the last start. */
static pid_t start_shell(const char *console, int64_t *last)
{
	int64_t wait = *last ? *last + RESPAWN_MS - guest_now_ms() : 0;
	sigset_t none;
	pid_t pid = fork();

	if (pid == 0) {
		if (wait > 0)
			usleep(wait * 1000);
		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		run_shell(console);
	}
	*last = guest_now_ms() + (wait > 0 ? wait : 0);
	return pid;
}

static __attribute__((noreturn)) void be_init(const char *console)
{
	int64_t last = 0;
	sigset_t all;
	pid_t shell, ended;
	int signo = SIGCHLD;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	shell = start_shell(console, &last);
	for (;;) {
		sigwait(&all, &signo);
		while (signo == SIGCHLD && (ended = waitpid(-1, NULL, WNOHANG)) > 0)
			if (ended == shell)
				shell = start_shell(console, &last);
		if (signo == SIGUSR1 || signo == SIGUSR2 || signo == SIGTERM || signo == SIGINT)
			power_end(signo == SIGTERM || signo == SIGINT);
	}
}

static void become(int order_fd, const struct order *o, char **argv, struct fault *f)
{
	if (switch_root(f) < 0)
		return;
	open_console("/dev/console", O_NOCTTY);
	if (o->own_init) {
		close(order_fd);
		be_init(o->console);
	}
	if (o->notify)
		setenv("NOTIFY_SOCKET", "@" AGENT_NOTIFY_SOCKET, 1);
	argv[0] = (char *)o->init;
	execv(o->init, argv);
	fault_errno(f, errno, "cannot run init %s", o->init);
}

void init_run(int order_fd, char **argv)
{
	static struct order o;
	struct fault f = { 0 };
	ssize_t n;

	do {
		n = recv(order_fd, &o, sizeof(o), 0);
	} while (n < 0 && errno == EINTR);
	if (n == sizeof(o)) {
		become(order_fd, &o, argv, &f);
		guest_say("%s", f.text);
		send(order_fd, &f, sizeof(f), MSG_NOSIGNAL);
	} else {
		guest_say("the agent ended before the machine was booted");
	}
	/* Returning would panic the kernel, with the reason far from its message: stay until the host ends us. */
	for (;;)
		pause();
}
