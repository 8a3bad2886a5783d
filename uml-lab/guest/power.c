/*
 * The end of a machine, and its stillness.
 *
 * How an init is told: systemd by a real-time signal (systemd(1), SIGNALS),
 * busybox by SIGUSR2 and SIGTERM (its init.c), and all others through the
 * poweroff program that they bring.
 *
 * While file systems are frozen the agent must not write to one of them, or it
 * sleeps until somebody else thaws it, and nobody else can: so the descriptors
 * to thaw by are opened before, and the agent's own files lie in /proc and on
 * the serial line only.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <mntent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
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

static int frozen[FREEZE_MAX];
static int frozen_count;
static struct timespec frozen_since;

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

int power_tick(int64_t now)
{
	int64_t left;

	(void)now;
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

void power_end(bool reboot_after)
{
	int64_t end = guest_now_ms() + END_GRACE_MS;
	const struct timespec step = { .tv_nsec = 10 * 1000 * 1000 };

	kill(-1, SIGTERM);
	kill(-1, SIGHUP);	/* interactive shells ignore the other */
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
	pid_t pid = fork();

	if (pid > 0)
		waitpid(pid, NULL, 0);
	if (pid)
		return;
	if (fork())
		_exit(0);
	setsid();
	signal(SIGTERM, SIG_DFL);
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

/*
 * When all is over the kernel takes its virtio disks away from under their file systems (virtio_uml.c is ended as if
 * it were a module), and 7.2 complains at length about I/O errors of what was written long before. Nobody shall be alarmed.
 */
static void hush_kernel(void)
{
	enum { CONSOLE_LEVEL = 8, EMERGENCIES = 1 }; /* syslog(2): a panic is still shown */

	klogctl(CONSOLE_LEVEL, NULL, EMERGENCIES);
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
	else if (!a->own_init && !init_is_busybox())
		run_program(reboot_after);
	else
		kill(1, reboot_after ? SIGTERM : SIGUSR2);
}
