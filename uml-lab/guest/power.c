/*
 * The end of a machine, and its stillness.
 *
 * How an init is told: systemd by a real-time signal (systemd(1), SIGNALS),
 * busybox by SIGUSR2 and SIGTERM (its init.c), and all others through the
 * poweroff program that they bring. Busybox's runs the image's shutdown actions,
 * sends SIGTERM to everybody, sleeps a second, sends SIGKILL, sleeps another, and
 * unmounts nothing. So its SIGTERM begins the agent's part: it waits until all have
 * ended, and unmounts. Then it brings the machine down, if it knows what is wanted,
 * since it was asked; a poweroff in the guest is init's.
 *
 * While file systems are frozen the agent must not write to one of them, or it
 * sleeps until somebody else thaws it, and nobody else can: so the descriptors
 * to thaw by are opened before, and the agent's own files lie in /proc and on
 * the serial line only.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <mntent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "uml-lab/guest/power.h"

#define FREEZE_MAX 32
#define END_GRACE_MS 2000	/* from SIGTERM to SIGKILL for what still runs at the end */
#define BUSYBOX_GRACE_MS 800	/* the same, from busybox's init, which does it after 1000 */
#define LOOK_MS 10		/* between two looks whether something does */
#define STAT_MAX 512
#define KERNEL_THREAD 0x200000	/* proc(5), stat: flags; the kernel's PF_KTHREAD */

static int frozen[FREEZE_MAX];
static int frozen_count;
static struct timespec frozen_since;

static volatile sig_atomic_t told_to_end;	/* by busybox's init, as everybody is */
static bool asked, then_again;			/* to go down; to restart */
static int64_t end_at;				/* when patience ends; 0: nobody was told yet, -1: all was done */

/* Microseconds since the first was frozen. */
static int64_t frozen_for(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - frozen_since.tv_sec) * 1000000ll + (now.tv_nsec - frozen_since.tv_nsec) / 1000;
}

int64_t power_thaw(void)
{
	bool was_frozen = frozen_count > 0;

	while (frozen_count) {
		ioctl(frozen[--frozen_count], FITHAW, 0);
		close(frozen[frozen_count]);
	}
	return was_frozen ? frozen_for() : 0;
}

static int end_tick(int64_t now);

int power_tick(int64_t now)
{
	int64_t left;

	if (told_to_end || asked)
		return end_tick(now);
	if (!frozen_count)
		return -1;
	left = FREEZE_LIMIT_MS - frozen_for() / 1000;
	if (left > 0)
		return left;
	power_thaw();
	return -1;
}

/* Opens each mounted disk once. Those mounted later may lie on those before (loop devices): frozen first. */
static int open_disks(int *fds, int max)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	dev_t seen[FREEZE_MAX];
	struct mntent *m;
	struct stat st;
	int n = 0, i, fd;

	while (mounts && n < max && (m = getmntent(mounts))) {
		if (strncmp(m->mnt_fsname, "/dev/", 5) || !hasmntopt(m, "rw"))
			continue;
		fd = open(m->mnt_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st) < 0)
			continue;
		for (i = 0; i < n && seen[i] != st.st_dev; i++)
			;
		if (i < n) {
			close(fd);
			continue;
		}
		seen[n] = st.st_dev;
		fds[n++] = fd;
	}
	if (mounts)
		endmntent(mounts);
	return n;
}

int power_freeze(struct fault *f)
{
	int fds[FREEZE_MAX];
	int n, saved = 0;

	if (frozen_count)
		return fault_errno(f, EBUSY, "the file systems are frozen already");
	n = open_disks(fds, FREEZE_MAX);
	sync();
	clock_gettime(CLOCK_MONOTONIC, &frozen_since);
	while (n--) {
		if (!saved && ioctl(fds[n], FIFREEZE, 0) == 0) {
			frozen[frozen_count++] = fds[n];
			continue;
		}
		/* A file system that can't be frozen was synced at least; EBUSY: somebody else froze it. */
		if (!saved && errno != EOPNOTSUPP && errno != EBUSY)
			saved = errno;
		close(fds[n]);
	}
	if (!saved)
		return 0;
	power_thaw();
	return fault_errno(f, saved, "cannot freeze the file systems");
}

static void unmount_all(void)
{
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	char dirs[64][256];
	struct mntent *m;
	int n = 0;

	while (mounts && n < 64 && (m = getmntent(mounts)))
		snprintf(dirs[n++], sizeof(dirs[0]), "%s", m->mnt_dir);
	if (mounts)
		endmntent(mounts);
	while (n--)
		if (umount2(dirs[n], 0) < 0)
			mount(NULL, dirs[n], NULL, MS_REMOUNT | MS_RDONLY, NULL);
}

static void go_down(bool reboot_after)
{
	sync();
	unmount_all();
	sync();
	reboot(reboot_after ? RB_AUTOBOOT : RB_POWER_OFF);
}

/* Whether anybody is left but init and ourselves. Shells at a terminal ignore SIGTERM: hang_up tells them as if it were gone. */
static bool anybody_left(bool hang_up)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	bool any = !proc;

	while (proc && (entry = readdir(proc))) {
		int pid = atoi(entry->d_name), session, terminal;
		char path[32], *text, *fields, state;
		unsigned flags;

		snprintf(path, sizeof(path), "/proc/%d/stat", pid);
		text = pid > 1 && pid != getpid() ? guest_read_file(path, STAT_MAX, NULL) : NULL;
		fields = text ? strrchr(text, ')') : NULL;
		if (fields && sscanf(fields, ") %c %*d %*d %d %d %*d %u", &state, &session, &terminal, &flags) == 4 &&
		    state != 'Z' && !(flags & KERNEL_THREAD)) {
			any = true;
			if (hang_up && terminal && session == pid)
				kill(pid, SIGHUP);
		}
		free(text);
	}
	if (proc)
		closedir(proc);
	return any;
}

/*
 * When all is over the kernel takes its virtio disks away from under their file systems (virtio_uml.c is ended as if
 * it were a module), and 7.2 complains at length about I/O errors of what was written long before. Nobody shall be alarmed.
 */
static void hush_kernel(void)
{
	enum { CONSOLE_LEVEL = 8, EMERGENCIES = 1 }; /* syslog(2): a panic is still shown */

	klogctl(CONSOLE_LEVEL, NULL, EMERGENCIES);
}

/* Milliseconds until the next look, -1: there is nothing left to do. */
static int end_tick(int64_t now)
{
	bool any;

	if (end_at < 0)
		return -1;
	if (!told_to_end)
		return LOOK_MS;
	any = anybody_left(!end_at);
	if (!end_at) {
		hush_kernel();
		kill(-1, SIGCONT);
		end_at = now + BUSYBOX_GRACE_MS;
	}
	if (any && now < end_at)
		return LOOK_MS;
	kill(-1, SIGKILL);
	end_at = -1;
	if (asked)
		go_down(then_again);
	sync();
	unmount_all();
	return -1;
}

void power_end(bool reboot_after)
{
	int64_t end = guest_now_ms() + END_GRACE_MS;
	const struct timespec step = { .tv_nsec = LOOK_MS * 1000 * 1000 };

	kill(-1, SIGTERM);
	anybody_left(true);
	kill(-1, SIGCONT);
	while (guest_now_ms() < end && (waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD))
		nanosleep(&step, NULL);
	kill(-1, SIGKILL);
	go_down(reboot_after);
	for (;;)
		pause();
}

/* Runs the image's own program, as a grandchild that init reaps. */
static void run_program(bool reboot_after)
{
	const char *name = reboot_after ? "reboot" : "poweroff";
	sigset_t none;
	pid_t pid = fork();

	if (pid > 0)
		waitpid(pid, NULL, 0);
	if (pid)
		return;
	if (fork())
		_exit(0);
	setsid();
	signal(SIGTERM, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execlp("openrc-shutdown", "openrc-shutdown", reboot_after ? "-r" : "-p", "now", NULL);
	execlp(name, name, NULL);
	execlp("busybox", "busybox", name, NULL);
	execlp("shutdown", "shutdown", reboot_after ? "-r" : "-h", "now", NULL);
	kill(1, reboot_after ? SIGTERM : SIGUSR2);
	_exit(1);
}

static bool init_is_busybox(void)
{
	char exe[256];
	ssize_t n = readlink("/proc/1/exe", exe, sizeof(exe) - 1);

	if (n < 0)
		return false;
	exe[n] = '\0';
	return strstr(exe, "busybox") != NULL;
}

static void on_term(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)context;
	if (info->si_pid == 1 && init_is_busybox())
		told_to_end = true;
}

void power_begin(void)
{
	struct sigaction action = { .sa_sigaction = on_term, .sa_flags = SA_SIGINFO };

	sigaction(SIGTERM, &action, NULL);
	sigemptyset(&action.sa_mask);
	sigaddset(&action.sa_mask, SIGTERM);
	sigprocmask(SIG_BLOCK, &action.sa_mask, NULL);
}

static void tell_busybox(bool reboot_after)
{
	asked = true;
	then_again = reboot_after;
	kill(1, reboot_after ? SIGTERM : SIGUSR2);
}

void power_shut_down(const struct agent *a, bool reboot_after)
{
	hush_kernel();
	/* Our own init ends all others first, and nothing is left for the agent to do. */
	if (a->own_init) {
		signal(SIGTERM, SIG_DFL);
		signal(SIGHUP, SIG_DFL);
	}
	if (a->stage < STAGE_BOOTING)
		go_down(reboot_after);
	else if (a->systemd)
		kill(1, SIGRTMIN + (reboot_after ? 5 : 4));
	else if (a->own_init)
		kill(1, reboot_after ? SIGTERM : SIGUSR2);
	else if (init_is_busybox())
		tell_busybox(reboot_after);
	else
		run_program(reboot_after);
}
