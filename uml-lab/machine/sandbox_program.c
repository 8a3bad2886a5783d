/*
 * The program's own walls, the second ring inside the namespaces and the only one without them: limits, no capabilities, Landlock,
 * and a filter of system calls.
 *
 * The filter lists what UML's host side (arch/um/os-Linux, hostfs_user.c, the stubs in its guests' address spaces) and its libc
 * call on 6.1, 6.12 and 7.2; guests' own system calls never get to it, since UML takes them before (PTRACE_SYSEMU; in its seccomp
 * mode its own filter's trap is the stricter answer). Left out, among others: mount, namespaces, keys, bpf, io_uring,
 * perf, userfaultfd, modules, other processes' memory, every socket but AF_UNIX.
 *
 * Landlock does not keep a process from connecting to an AF_UNIX socket by its path: the desktop's bus would start any program. In
 * a root of its own there is none to be found. Without one, connect() is done by the keeper, which looks at the path, as are
 * temporary files, the guest's memory (sandbox_ask.c); the program can make no file of the host's. There are
 * no datagram sockets (sendmsg() could name any path; UML then has no management console), and nobody leaves
 * the process group by which the tree is killed at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/machine/sandbox_internal.h"

#define PROCESSES_MIN   1024 /* a guest's process is one of the host's */
#define PROCESSES_MAX   16384
#define PROCESS_MEMORY  (64u << 10) /* bytes of guest memory that the smallest process takes */

static const char *const common_calls[] = {
	/* hostfs, ubd, temporary files */
	"creat", "stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2",
	"getdents", "getdents64", "getcwd", "chdir", "fchdir", "rename", "renameat", "renameat2", "mkdir", "mkdirat",
	"rmdir", "link", "linkat", "unlink", "unlinkat", "symlink", "symlinkat", "readlink", "readlinkat", "chmod",
	"fchmod", "fchmodat", "chown", "fchown", "lchown", "fchownat", "umask", "utime", "utimes", "futimesat",
	"utimensat", "mknod", "mknodat", "statfs", "fstatfs", "truncate", "ftruncate", "fallocate", "fsync",
	"fdatasync", "sync_file_range", "flock", "copy_file_range", "sendfile", "memfd_create", "msync", "ioctl",
	"eventfd", "epoll_create",
	/* processes and threads of its own */
	"clone", "fork", "vfork", "execve", "execveat", "wait4", "waitid", "ptrace", "kill", "tkill", "prctl",
	"seccomp", "getpgid", "getsid", "modify_ldt", "set_thread_area", "get_thread_area", "setrlimit",
	"sched_setaffinity", "sched_getparam", "sched_getscheduler", "getpriority", "pause", "times",
	/* timers */
	"setitimer", "getitimer", "timer_create", "timer_settime", "timer_gettime", "timer_delete",
	"timer_getoverrun", "alarm",
	/* sockets, besides those below */
	"bind", "listen", "accept", "accept4", "setsockopt", NULL};

static const char *const namespaced_calls[] = {"open", "openat", "socket", "socketpair", "connect", "setsid", "setpgid", NULL};
static const char *const group_calls[] = {"open-ask", "streams", "connect-ask", NULL};

struct confine_filter *program_filter(bool namespaces, struct error *err)
{
	static const int families[] = {AF_UNIX, 0};
	const char *const *more = namespaces ? namespaced_calls : group_calls;
	const char *calls[ARRAY_SIZE(common_calls) + ARRAY_SIZE(namespaced_calls)];
	size_t count = 0;

	for (size_t i = 0; common_calls[i]; i++)
		calls[count++] = common_calls[i];
	for (size_t i = 0; more[i]; i++)
		calls[count++] = more[i];
	calls[count] = NULL;
	return confine_filter_new(calls, families, err);
}

/* ---- limits ---- */

static void set_limit(__rlimit_resource_t resource, rlim_t value)
{
	struct rlimit now;

	if (getrlimit(resource, &now) < 0)
		return;
	if (value < now.rlim_max)
		now.rlim_max = value;
	now.rlim_cur = now.rlim_max;
	setrlimit(resource, &now);
}

uint64_t sandbox_processes(uint64_t memory)
{
	uint64_t processes = memory / PROCESS_MEMORY;

	if (processes < PROCESSES_MIN)
		return PROCESSES_MIN;
	return processes < PROCESSES_MAX ? processes : PROCESSES_MAX;
}

/*
 * hostfs holds a descriptor for each open inode: as many as allowed. Never a core file of guests' memory. No file grows beyond the
 * largest it was given, or its memory. In a user namespace the
 * processes are counted for it alone (since 5.14), so the limit is one guest's; without, it is all of the user's.
 */
static void set_limits(const struct sandbox_spec *spec)
{
	uint64_t largest = shm_size(spec->memory);
	struct stat st;

	for (size_t i = 0; i < spec->path_count; i++)
		if (spec->paths[i].access & CONFINE_WRITE && stat(spec->paths[i].path, &st) == 0 &&
		    (uint64_t)st.st_size > largest)
			largest = (uint64_t)st.st_size;
	set_limit(RLIMIT_FSIZE, largest);
	set_limit(RLIMIT_NOFILE, RLIM_INFINITY);
	set_limit(RLIMIT_CORE, 0);
	set_limit(RLIMIT_NPROC, sandbox_processes(spec->memory));
}

/* ---- files ---- */

struct rules {
	struct confine_path list[SANDBOX_PATHS_MAX + 64];
	size_t count;
};

static void allow(struct rules *rules, const char *path, unsigned int access)
{
	if (path && rules->count < ARRAY_SIZE(rules->list))
		rules->list[rules->count++] = (struct confine_path){.path = path, .access = access};
}

static int wall_files(const struct sandbox_plan *plan, char walls[CONFINE_WALLS_MAX], struct error *err)
{
	const struct sandbox_spec *spec = plan->spec;
	const unsigned int all = CONFINE_READ | CONFINE_WRITE | CONFINE_CREATE;
	struct rules rules = {.count = 0};
	struct confine_spec confine = {.paths = rules.list};

	allow(&rules, spec->program, CONFINE_READ | CONFINE_EXECUTE);
	for (size_t i = 0; i < plan->libraries.count; i++)
		allow(&rules, plan->libraries.items[i], CONFINE_READ | CONFINE_EXECUTE);
	for (size_t i = 0; i < spec->path_count; i++)
		allow(&rules, spec->paths[i].path, spec->paths[i].access);
	/* The stub of new kernels may be executed from there, where there are no memfds (start_up.c, init_stub_exe_fd()). */
	if (plan->namespaces)
		allow(&rules, "/dev/shm", all | CONFINE_EXECUTE);
	allow(&rules, "/dev/null", CONFINE_READ | CONFINE_WRITE);
	allow(&rules, "/dev/zero", CONFINE_READ | CONFINE_WRITE);
	allow(&rules, "/dev/random", CONFINE_READ);
	allow(&rules, "/dev/urandom", CONFINE_READ);
	allow(&rules, "/proc/cpuinfo", CONFINE_READ);
	if (spec->folder) { /* it is the current folder */
		allow(&rules, ".", CONFINE_READ);
		if (plan->namespaces) /* a tmpfs: what is made there takes nothing of the host's */
			allow(&rules, SANDBOX_WRITABLE, all);
	}
	confine.path_count = rules.count;
	return confine_landlock(&confine, walls, err);
}

/* ---- the program ---- */

/* Puts the descriptors in place; the others are close-on-exec. */
static int place_fds(const struct sandbox_spec *spec)
{
	for (size_t i = 0; i < spec->fd_count; i++)
		if (dup2(SAFE_FD + 1 + (int)i, (int)i) < 0)
			return -1;
	return 0;
}

static void reset_signals(void)
{
	sigset_t none;

	sigemptyset(&none);
	for (int signo = 1; signo < NSIG; signo++)
		signal(signo, SIG_DFL);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* All walls. 0, or -1 + err; walls tells which, *listener is that of the filter. */
static int wall_in(const struct sandbox_plan *plan, char walls[CONFINE_WALLS_MAX], int *listener,
		   struct error *err)
{
	set_limits(plan->spec);
	snprintf(walls, CONFINE_WALLS_MAX, "seccomp, ");
	if (confine_capabilities(err) < 0 || wall_files(plan, walls, err) < 0)
		return -1;
	if (confine_filter_install(plan->filter, listener) < 0)
		return error_errno(err, errno, "installing the system call filter");
	return 0;
}

_Noreturn void program_run(const struct sandbox_plan *plan, int link, int report)
{
	const struct sandbox_spec *spec = plan->spec;
	const char *folder = !spec->folder ? "/" : plan->namespaces ? SANDBOX_FOLDER : spec->folder;
	static const char *const env[] = {"PATH=/usr/bin:/bin", "HOME=/", "TMPDIR=/dev/shm", NULL};
	char walls[CONFINE_WALLS_MAX];
	struct error err = ERROR_INIT;
	int listener = -1;

	report = fcntl(report, F_DUPFD_CLOEXEC, SAFE_FD + SANDBOX_FDS_MAX + 1); /* out of the program's numbers */
	reset_signals();
	setsid();
	send_note(link, NOTE_KERNEL, 0, "", -1);
	/*
	 * Up to 6.12 UML counts the random gap between its image and the heap as memory of the guest ("exec-shield
	 * gap", arch/um/kernel/um_arch.c): up to 1 GB of page structures, which a small machine does not have.
	 */
	personality(PER_LINUX | ADDR_NO_RANDOMIZE);
	if (place_fds(spec) < 0 || chdir(folder) < 0)
		error_errno(&err, errno, "setting up");
	else if (wall_in(plan, walls, &listener, &err) == 0) {
		send_note(report, NOTE_RUNNING, 0, walls, listener);
		execve(spec->program, (char *const *)spec->argv, (char *const *)env);
		error_errno(&err, errno, "running it");
	}
	send_note(report, NOTE_FAILED, 0, err.message, -1);
	_exit(127);
}
