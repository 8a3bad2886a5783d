/*
 * The sandbox, attacked from inside: the program in it is this test program itself, run as "attack NAME…", in the very position of
 * code that a guest's root got to run in the UML process. Each attack runs with and without namespaces.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/loop.h"
#include "uml-lab/base/str.h"
#include "uml-lab/machine/sandbox.h"

#define MEMORY (16u << 20)

/* What the attacks are told: the world outside. */
static char world[64];	/* a folder of the student's: secret, outside (a socket), disk, spool/, guest/ */
static int tcp_port;
static pid_t student;	/* this process */
static bool namespaces;

/* ---- inside: each returns 0 when all it tried failed as it should, else the number of what went wrong ---- */

static int opens(const char *path, int flags)
{
	int fd = open(path, flags, 0600);

	if (fd < 0)
		return 0;
	close(fd);
	return 1;
}

static int outside(char *buf, const char *name)
{
	sprintf(buf, "%s/%s", world, name);
	return 0;
}

/* The student's files, by any name. */
static int attack_files(void)
{
	static const char *const others[] = {"/etc/passwd", "/home", "/root", "/tmp", "/sys", "/var", "/proc/1/root",
					     "/proc/self/root/etc/passwd", "/proc/self/mem", "../control", "..",
					     "../spool2", "/dev/fuse", "/dev/tty", "/dev", "/", "/usr"};
	char path[128];

	outside(path, "secret");
	if (opens(path, O_RDONLY) || opens("../secret", O_RDONLY) ||
	    opens("../../../../../../../../../../etc/passwd", O_RDONLY))
		return 1;
	outside(path, "");
	if (opens(path, O_RDONLY) && !namespaces)
		return 2;
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		bool own_root = namespaces && (str_eq(others[i], "..") || str_eq(others[i], "/") ||
					       str_eq(others[i], "/dev") || str_eq(others[i], "/usr") ||
					       str_eq(others[i], "/tmp") || str_eq(others[i], "/home"));

		/* In a root of our own the folders above what was bound are there, empty but for that. */
		if (!own_root && opens(others[i], O_RDONLY))
			return 10 + (int)i;
	}
	if ((symlink("/etc/passwd", "uml/link") == 0) != namespaces || opens("uml/link", O_RDONLY))
		return 3;
	outside(path, "secret");
	return (symlink(path, "uml/secret") == 0) != namespaces || opens("uml/secret", O_RDONLY) || link("uml/secret", "x") == 0 ? 4
													 : 0;
}

/* What it was given works, and not more of it. */
static int attack_given(void)
{
	char disk[128], base[128], spool[128], name[160];

	outside(disk, "disk");
	outside(base, "base");
	outside(spool, "spool");
	if (!opens(disk, O_RDWR) || !opens(base, O_RDONLY) || opens(base, O_WRONLY) || unlink(disk) == 0)
		return 1;
	sprintf(name, "%s/1", spool);
	if (!opens(name, O_RDONLY) || opens(name, O_WRONLY) || unlink(name) < 0)
		return 2;
	if (opens(name, O_WRONLY | O_CREAT) || mkdir(name, 0700) == 0 || symlink("x", name) == 0)
		return 3;
	if (opens("new", O_WRONLY | O_CREAT) || mkdir("new", 0700) == 0 || symlink("x", "new") == 0 ||
	    mknod("new", S_IFIFO | 0600, 0) == 0 || unlink("own") == 0 || rename("own", "uml/own") == 0)
		return 4;
	if (opens("uml/new", O_RDWR | O_CREAT) != namespaces || !opens("/dev/null", O_RDWR) || !opens("/dev/urandom", O_RDONLY))
		return 5;
	if (opens("/proc/self/exe", O_WRONLY) || opens("/lib64/ld-linux-x86-64.so.2", O_WRONLY))
		return 6;
	return opens("/dev/null", O_WRONLY | O_CREAT | O_EXCL) ? 7 : 0;
}

static int connects(int type, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	cleanup_close int fd = socket(AF_UNIX, type, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	return fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
}

static int sends(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int pair[2] = {-1, -1};
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (fd >= 0 && sendto(fd, "x", 1, 0, (struct sockaddr *)&address, sizeof(address)) == 1)
		return 1;
	return socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) == 0 &&
	       sendto(pair[0], "x", 1, 0, (struct sockaddr *)&address, sizeof(address)) == 1;
}

/* Sockets of the student's: his desktop, his agents, the network. Its own (the plug's) can be reached. */
static int attack_sockets(void)
{
	struct sockaddr_in tcp = {.sin_family = AF_INET,
				  .sin_port = htons((uint16_t)tcp_port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_un abstract = {.sun_family = AF_UNIX};
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
				     (size_t)sprintf(abstract.sun_path + 1, "attack-%d", student));
	char path[128];
	int fd;

	if (!connects(SOCK_STREAM, "own"))
		return 1;
	outside(path, "outside");
	if (connects(SOCK_STREAM, path) || connects(SOCK_STREAM, "../outside") || sends(path) || sends("../datagrams"))
		return 2;
	if (symlink(path, "uml/to-outside") == 0 && connects(SOCK_STREAM, "uml/to-outside"))
		return 3;
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&abstract, size) == 0)
		return 4;
	if (connect(fd, NULL, 16) == 0 || connect(fd, (struct sockaddr *)&abstract, 1) == 0 || connect(-1, NULL, 0) == 0)
		return 5;
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&tcp, sizeof(tcp)) == 0)
		return 6;
	return socket(AF_INET, SOCK_DGRAM, 0) >= 0 || socket(AF_NETLINK, SOCK_RAW, 0) >= 0 ||
			       socket(AF_PACKET, SOCK_RAW, 0) >= 0 || socket(AF_VSOCK, SOCK_STREAM, 0) >= 0
		       ? 7
		       : 0;
}

/* Other processes: traced, read, signalled. Its own children are its business. */
static int attack_processes(void)
{
	char byte;
	struct iovec iov = {&byte, 1}, from = {(void *)(uintptr_t)&namespaces, 1};
	pid_t victims[] = {student, getppid(), 1}, child;
	int status;

	for (size_t i = 0; i < ARRAY_SIZE(victims); i++) {
		if (ptrace(PTRACE_ATTACH, victims[i], NULL, NULL) == 0 || ptrace(PTRACE_SEIZE, victims[i], NULL, NULL) == 0)
			return 1;
		if (process_vm_readv(victims[i], &iov, 1, &from, 1, 0) == 1)
			return 2;
		if (kill(victims[i], SIGUSR1) == 0 || syscall(SYS_tgkill, victims[i], victims[i], SIGUSR1) == 0)
			return 3;
	}
	child = fork();
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		_exit(0);
	}
	if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status) || ptrace(PTRACE_CONT, child, 0, 0) < 0)
		return 4;
	return waitpid(child, &status, 0) == child && status == 0 ? 0 : 5;
}

/* What opens other doors: namespaces, mounts, keys, bpf, and privileges. */
static int attack_calls(void)
{
	static const int calls[] = {SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_unshare, SYS_setns, SYS_keyctl,
				    SYS_add_key, SYS_bpf, SYS_perf_event_open, SYS_userfaultfd, SYS_io_uring_setup,
				    SYS_kexec_load, SYS_init_module, SYS_finit_module, SYS_delete_module,
				    SYS_open_by_handle_at, SYS_pidfd_getfd, SYS_process_vm_writev, SYS_clone3,
				    SYS_open_tree, SYS_move_mount, SYS_fsopen, SYS_quotactl, SYS_swapon, SYS_reboot,
				    SYS_settimeofday, SYS_setuid, SYS_setpriority, SYS_mq_open, SYS_shmget, SYS_personality,
				    SYS_inotify_init, SYS_fanotify_init, SYS_migrate_pages, SYS_iopl, SYS_sethostname};
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct rlimit core;

	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		if (syscall(calls[i], 0, 0, 0, 0, 0) != -1 || errno != ENOSYS)
			return 10 + (int)i;
	if (syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL) != -1)
		return 1;
	if (syscall(SYS_clone, CLONE_NEWNET | SIGCHLD, NULL, NULL, NULL, NULL) != -1)
		return 2;
	/* capset() is not in the filter: what the process holds is asked for with prctl(). */
	(void)header;
	for (int capability = 0; capability <= CAP_LAST_CAP; capability++)
		if (namespaces && prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1)
			return 3;
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1 || prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 2)
		return 4;
	return getrlimit(RLIMIT_CORE, &core) < 0 || core.rlim_max ? 5 : 0;
}

/* Memory on tmpfs: as much as the guest's, and the host's /dev/shm stays as it was. */
static int attack_shm(void)
{
	static char block[1 << 20];
	uint64_t written = 0;
	struct stat one, other;
	char path[160];
	int fd, again;

	if (!namespaces) { /* one file, however often it is asked for; nothing of the host's can be made, seen or removed */
		fd = open("/dev/shm", O_RDWR | O_TMPFILE | O_EXCL, 0600);
		again = open("/dev/shm", O_RDWR | O_TMPFILE, 0600);
		if (fd < 0 || again < 0 || fstat(fd, &one) < 0 || fstat(again, &other) < 0 || one.st_ino != other.st_ino)
			return 1;
		if (opens("/dev/shm/attack", O_RDWR | O_CREAT) || opens("/dev/shm", O_RDONLY) ||
		    opens("uml/new", O_RDWR | O_CREAT) || mkdir("uml/new", 0700) == 0)
			return 2;
	} else {
		snprintf(path, sizeof(path), "%s/fill", getenv("TMPDIR"));
		fd = open(path, O_RDWR | O_CREAT, 0600);
		if (fd < 0)
			return 5;
	}
	memset(block, 1, sizeof(block));
	signal(SIGXFSZ, SIG_IGN); /* the limit of a file's size may come first */
	while (written < 1ull << 30 && write(fd, block, sizeof(block)) > 0)
		written += sizeof(block);
	if (written > 2 * MEMORY + (64ull << 20))
		return 3;
	if (!namespaces)
		return 0;
	unlink(path);
	fd = open("uml/fill", O_RDWR | O_CREAT, 0600);
	for (written = 0; fd >= 0 && written < 64ull << 20 && write(fd, block, sizeof(block)) > 0;)
		written += sizeof(block);
	return written > 2u << 20 ? 4 : 0;
}

/* Forks until it can't. They are killed with the rest; each leaves its session if it can. */
static int attack_forks(void)
{
	int made = 0;
	pid_t pid;

	for (; made < 40000; made++) {
		pid = fork();
		if (pid < 0)
			break;
		if (pid == 0) {
			setsid();
			for (;;)
				pause();
		}
	}
	return made < 40000 && errno == EAGAIN ? 0 : 1;
}

/* Its children go on when it is killed; some of them daemons. */
static int attack_orphans(void)
{
	for (int i = 0; i < 20; i++) {
		if (fork() == 0) {
			if (i % 2) {
				setsid();
				if (fork() > 0)
					_exit(0);
			}
			for (;;)
				pause();
		}
	}
	kill(getpid(), SIGKILL);
	return 1;
}

static int attack_nothing(void)
{
	for (;;)
		pause();
	return 0;
}

static const struct attack {
	const char *name;
	int (*fn)(void);
} attacks[] = {
	{"files", attack_files},	 {"given", attack_given}, {"sockets", attack_sockets},
	{"processes", attack_processes}, {"calls", attack_calls}, {"shm", attack_shm},
	{"forks", attack_forks},	 {"orphans", attack_orphans}, {"nothing", attack_nothing},
};

static int attack_main(char **argv)
{
	strcpy(world, argv[3]);
	tcp_port = atoi(argv[4]);
	student = atoi(argv[5]);
	namespaces = str_eq(argv[6], "1");
	for (size_t i = 0; i < ARRAY_SIZE(attacks); i++)
		if (str_eq(argv[2], attacks[i].name))
			return attacks[i].fn();
	return 99;
}

/* ---- outside ---- */

static int listeners[4];
static volatile sig_atomic_t signalled;

static void on_signal(int signo)
{
	(void)signo;
	signalled++;
}

static int listen_at(int type, const char *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", world, name);
	CU_ASSERT_EQUAL(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	if (type == SOCK_STREAM)
		CU_ASSERT_EQUAL(listen(fd, 64), 0);
	return fd;
}

static void write_file(const char *name, const char *text)
{
	char path[128];

	outside(path, name);
	CU_ASSERT_EQUAL(file_write_atomic(path, text, strlen(text), 0600, NULL), 0);
}

static void test_begin(void)
{
	static const char *const folders[] = {"guest", "guest/uml", "spool"};
	struct sockaddr_un abstract = {.sun_family = AF_UNIX};
	struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(tcp);
	char path[128];

	signal(SIGUSR1, on_signal);
	student = getpid();
	strcpy(world, "/tmp/sandbox.XXXXXX");
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(world));
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		outside(path, folders[i]);
		CU_ASSERT_EQUAL(mkdir(path, 0700), 0);
	}
	write_file("secret", "secret");
	write_file("control", "control");
	write_file("disk", "disk");
	write_file("base", "base");
	listeners[0] = listen_at(SOCK_STREAM, "outside");
	listeners[1] = listen_at(SOCK_STREAM, "guest/own");
	listeners[2] = listen_at(SOCK_DGRAM, "datagrams");
	listeners[3] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CU_ASSERT_EQUAL(bind(listeners[3], (struct sockaddr *)&tcp, sizeof(tcp)), 0);
	CU_ASSERT_EQUAL(listen(listeners[3], 8), 0);
	CU_ASSERT_EQUAL(getsockname(listeners[3], (struct sockaddr *)&tcp, &size), 0);
	tcp_port = ntohs(tcp.sin_port);
	sprintf(abstract.sun_path + 1, "attack-%d", student);
	CU_ASSERT_EQUAL(listen(listen_at(SOCK_STREAM, "unused"), 1), 0);
}

static int start(struct sandbox *sandbox, const char *attack, bool no_namespaces)
{
	char port[16], self[16], program[256], folder[128], disk[128], base[128], spool[128],
		writable[128];
	const char *argv[] = {"attack",	 "attack", attack, world, port, self, no_namespaces ? "0" : "1", NULL};
	cleanup_close int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int fds[] = {null, 1, 2};
	struct sandbox_path paths[] = {{disk, CONFINE_READ | CONFINE_WRITE},
				       {base, CONFINE_READ},
				       {spool, CONFINE_READ | CONFINE_REMOVE}};
	struct sandbox_spec spec = {.program = program,
				    .argv = argv,
				    .folder = folder,
				    .paths = paths,
				    .path_count = ARRAY_SIZE(paths),
				    .fds = fds,
				    .fd_count = ARRAY_SIZE(fds),
				    .memory = MEMORY,
				    .no_namespaces = no_namespaces};
	struct error err = ERROR_INIT;
	ssize_t n = readlink("/proc/self/exe", program, sizeof(program) - 1);
	int result;

	program[n > 0 ? n : 0] = '\0';
	sprintf(port, "%d", tcp_port);
	sprintf(self, "%d", student);
	outside(folder, "guest");
	outside(disk, "disk");
	outside(base, "base");
	outside(spool, "spool");
	write_file("spool/1", "one");
	outside(writable, "guest/uml");
	file_remove_tree(writable, NULL);
	mkdir(writable, 0700);
	result = sandbox_start(sandbox, &spec, &err);
	if (result < 0)
		fprintf(stderr, "%s\n", err.message);
	return result;
}

/* Processes of this test program that run as an attack. */
static int attackers(void)
{
	cleanup_dir DIR *proc = opendir("/proc");
	struct dirent *entry;
	int count = 0;

	while (proc && (entry = readdir(proc))) {
		char path[300];
		cleanup_free char *line = NULL;
		size_t length;

		snprintf(path, sizeof(path), "/proc/%s/cmdline", entry->d_name);
		if (entry->d_name[0] >= '0' && entry->d_name[0] <= '9' &&
		    file_read_all(path, 4096, &line, &length, NULL) == 0 && length > 14 &&
		    str_eq(line, "attack") && memmem(line, length, world, strlen(world)))
			count++;
	}
	return count;
}

/* Runs it to its end. Its exit status; -1 when it was killed or could not be started. */
static int run_attack(const char *attack, bool no_namespaces)
{
	struct sandbox sandbox;
	struct pollfd p = {.events = POLLIN};
	int status = -1;

	if (start(&sandbox, attack, no_namespaces) < 0)
		return -2;
	CU_ASSERT_EQUAL(sandbox.namespaces, !no_namespaces);
	p.fd = sandbox.keeper.pidfd;
	CU_ASSERT_EQUAL(poll(&p, 1, 20000), 1);
	sandbox_reap(&sandbox, &status);
	CU_ASSERT_EQUAL(attackers(), 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define BOTH(name, attack, wanted)                                          \
	static void test_##name(void)                                       \
	{                                                                   \
		CU_ASSERT_EQUAL(run_attack(attack, false), wanted);          \
		CU_ASSERT_EQUAL(run_attack(attack, true), wanted);           \
	}

BOTH(files, "files", 0)
BOTH(given, "given", 0)
BOTH(sockets, "sockets", 0)
BOTH(processes, "processes", 0)
BOTH(calls, "calls", 0)
BOTH(shm, "shm", 0)
BOTH(forks, "forks", 0)
BOTH(orphans, "orphans", -1)

/* The supervisor goes away: so does the tree. */
static void test_link(void)
{
	for (int no_namespaces = 0; no_namespaces < 2; no_namespaces++) {
		struct sandbox sandbox;

		CU_ASSERT_EQUAL_FATAL(start(&sandbox, "nothing", no_namespaces), 0);
		CU_ASSERT_TRUE(sandbox_contains(&sandbox, sandbox.kernel.pid));
		CU_ASSERT_FALSE(sandbox_contains(&sandbox, getpid()));
		sandbox_kill(&sandbox);
		CU_ASSERT_EQUAL(attackers(), 0);
	}
}

static void test_end(void)
{
	CU_ASSERT_EQUAL(signalled, 0);
	CU_ASSERT_EQUAL(file_remove_tree(world, NULL), 0);
}

int main(int argc, char **argv)
{
	static const struct unit_case cases[] = {
		UNIT_CASE(test_begin),	   UNIT_CASE(test_files), UNIT_CASE(test_given),   UNIT_CASE(test_sockets),
		UNIT_CASE(test_processes), UNIT_CASE(test_calls), UNIT_CASE(test_shm),	   UNIT_CASE(test_forks),
		UNIT_CASE(test_orphans),   UNIT_CASE(test_link),  UNIT_CASE(test_end)};

	if (argc == 7 && str_eq(argv[1], "attack"))
		_exit(attack_main(argv)); /* a sanitizer's work at exit needs more than a sandbox has */
	return unit_run("sandbox", cases, ARRAY_SIZE(cases));
}
