/* The walls of uml-lab/base/confine.h, each tried by a child that runs against it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/confine.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/str.h"

static char folder[64];
static char walls[CONFINE_WALLS_MAX];

/* Runs fn confined in a child. Its result is the child's exit status; -1 when it ended otherwise. */
static int confined(const struct confine_spec *spec, int (*fn)(void))
{
	struct error err = ERROR_INIT;
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (chdir(folder) < 0)
			_exit(99);
		if (spec && confine_self(spec, walls, &err) < 0) {
			fprintf(stderr, "%s\n", err.message);
			_exit(98);
		}
		_exit(fn());
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		return -1;
	return WEXITSTATUS(status);
}

/* errno of an open, 0 when it worked. */
static int try_open(const char *path, int flags)
{
	int fd = open(path, flags, 0600);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static int make_folder(void)
{
	strcpy(folder, "/tmp/confine.XXXXXX");
	if (!mkdtemp(folder) || chdir(folder) < 0 || mkdir("in", 0700) < 0 || mkdir("out", 0700) < 0)
		return -1;
	return try_open("in/file", O_CREAT | O_WRONLY) || try_open("out/file", O_CREAT | O_WRONLY) ||
			       symlink("../out/file", "in/link") < 0
		       ? -1
		       : 0;
}

/* ---- files ---- */

static int run_read_only(void)
{
	return try_open("in/file", O_RDONLY) == 0 && try_open("in", O_RDONLY | O_DIRECTORY) == 0 &&
			       try_open("in/file", O_WRONLY) == EACCES && truncate("in/file", 0) < 0 &&
			       try_open("in/new", O_CREAT | O_WRONLY) == EACCES && unlink("in/file") < 0 &&
			       errno == EACCES && try_open("out/file", O_RDONLY) == EACCES &&
			       try_open("in/link", O_RDONLY) == EACCES &&
			       try_open("in/../out/file", O_RDONLY) == EACCES &&
			       try_open("/etc/passwd", O_RDONLY) == EACCES
		       ? 0
		       : 1;
}

static int run_read_write(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "in/socket"};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	return try_open("in/file", O_RDWR) == 0 && try_open("in/new", O_CREAT | O_WRONLY) == 0 &&
			       mkdir("in/folder", 0700) == 0 && rename("in/new", "in/folder/new") == 0 &&
			       bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
			       unlink("in/socket") == 0 && unlink("in/folder/new") == 0 &&
			       rmdir("in/folder") == 0 && rename("in/file", "out/moved") < 0 &&
			       link("in/file", "out/moved") < 0 &&
			       try_open("out/new", O_CREAT | O_WRONLY) == EACCES
		       ? 0
		       : 1;
}

static void test_files(void)
{
	cleanup_close int in = open("in", O_PATH | O_CLOEXEC);
	struct confine_path path = {.path = "in", .access = CONFINE_READ}, missing = {.path = "not/there"};
	struct confine_path both[] = {path, missing};
	struct confine_spec spec = {.paths = both, .path_count = 2};

	CU_ASSERT_EQUAL(confined(&spec, run_read_only), 0);
	both[0] = (struct confine_path){.fd = in, .access = CONFINE_READ};
	CU_ASSERT_EQUAL(confined(&spec, run_read_only), 0);
	both[0] = (struct confine_path){.fd = in, .access = CONFINE_READ | CONFINE_WRITE | CONFINE_CREATE};
	CU_ASSERT_EQUAL(confined(&spec, run_read_write), 0);
}

/* One file alone, written to but not removed. */
static int run_single(void)
{
	return try_open("in/file", O_RDWR) == 0 && try_open("in", O_RDONLY) == EACCES && unlink("in/file") < 0
		       ? 0
		       : 1;
}

static void test_single_file(void)
{
	struct confine_path path = {.path = "in/file",
				    .access = CONFINE_READ | CONFINE_WRITE | CONFINE_CREATE};
	struct confine_spec spec = {.paths = &path, .path_count = 1};

	CU_ASSERT_EQUAL(confined(&spec, run_single), 0);
}

/* ---- network, processes ---- */

static struct sockaddr_in tcp_address;
static struct sockaddr_un abstract_address;
static socklen_t abstract_size;

static int try_connect(int family, const void *address, socklen_t size)
{
	cleanup_close int fd = socket(family, SOCK_STREAM, 0);

	if (fd < 0)
		return errno;
	return connect(fd, address, size) < 0 ? errno : 0;
}

static int run_outside(void)
{
	struct sockaddr_in any = {.sin_family = AF_INET};
	cleanup_close int fd = socket(AF_INET, SOCK_STREAM, 0);
	int abi = confine_landlock_abi();
	bool tcp = abi < 4 || (try_connect(AF_INET, &tcp_address, sizeof(tcp_address)) == EACCES &&
			       bind(fd, (struct sockaddr *)&any, sizeof(any)) < 0 && errno == EACCES);
	bool scopes = abi < 6 || (try_connect(AF_UNIX, &abstract_address, abstract_size) == EPERM &&
				  kill(getppid(), 0) < 0 && errno == EPERM && kill(getpid(), 0) == 0);

	return (tcp ? 0 : 1) | (scopes ? 0 : 2);
}

static int run_free(void)
{
	return try_connect(AF_INET, &tcp_address, sizeof(tcp_address)) == 0 &&
			       try_connect(AF_UNIX, &abstract_address, abstract_size) == 0 &&
			       kill(getppid(), 0) == 0
		       ? 0
		       : 1;
}

static void test_outside(void)
{
	cleanup_close int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cleanup_close int abstract = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t size = sizeof(tcp_address);
	struct confine_spec spec = {.strict = confine_landlock_abi() >= 6};

	tcp_address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	abstract_address = (struct sockaddr_un){.sun_family = AF_UNIX};
	abstract_size =
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
			    (size_t)snprintf(abstract_address.sun_path + 1, 40, "confine-%d", getpid()));
	CU_ASSERT_EQUAL(bind(tcp, (struct sockaddr *)&tcp_address, sizeof(tcp_address)), 0);
	CU_ASSERT_EQUAL(getsockname(tcp, (struct sockaddr *)&tcp_address, &size), 0);
	CU_ASSERT_EQUAL(bind(abstract, (struct sockaddr *)&abstract_address, abstract_size), 0);
	CU_ASSERT_EQUAL(listen(tcp, 8) | listen(abstract, 8), 0);
	CU_ASSERT_EQUAL(confined(NULL, run_free), 0);
	CU_ASSERT_EQUAL(confined(&spec, run_outside), 0);
	spec = (struct confine_spec){.tcp = true, .abstract_sockets = true, .signals = true};
	CU_ASSERT_EQUAL(confined(&spec, run_free), 0);
}

/* ---- system calls ---- */

static void *nothing(void *arg)
{
	return arg;
}

static int run_filtered(void)
{
	static const int denied[] = {SYS_ptrace, SYS_mount,  SYS_unshare, SYS_setns,           SYS_bpf,
				     SYS_keyctl, SYS_execve, SYS_fork,    SYS_perf_event_open, SYS_clone3,
				     SYS_openat};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	pthread_t thread;
	cpu_set_t set;

	for (size_t i = 0; i < ARRAY_SIZE(denied); i++)
		if (syscall(denied[i], 0, 0, 0, 0, 0) != -1 || errno != ENOSYS)
			return (int)i + 1;
	if (fd < 0 || socket(AF_INET, SOCK_STREAM, 0) >= 0 || socket(AF_NETLINK, SOCK_RAW, 0) >= 0)
		return 50;
	if (syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL) != -1 || errno != ENOSYS)
		return 51;
	if (pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL))
		return 52;
	if (sched_getaffinity(0, sizeof(set), &set) || sched_setaffinity(0, sizeof(set), &set) ||
	    sched_setaffinity(getppid(), sizeof(set), &set) != -1 || errno != ENOSYS)
		return 54;
	return prctl(PR_SET_NAME, "name") == 0 && prctl(PR_SET_DUMPABLE, 0) == -1 ? 0 : 53;
}

static int run_forking(void)
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0)
		_exit(7);
	if (waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 7)
		return 1;
	return syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL) == -1 && errno == ENOSYS
		       ? 0
		       : 2;
}

static void test_calls(void)
{
	static const char *const threads[] = {"threads", "socket", "affinity", NULL};
	static const char *const processes[] = {"clone", "wait4", NULL};
	static const int families[] = {AF_UNIX, 0};
	struct confine_spec spec = {.calls = threads, .families = families};

	CU_ASSERT_EQUAL(confined(&spec, run_filtered), 0);
	spec.calls = processes;
	CU_ASSERT_EQUAL(confined(&spec, run_forking), 0);
}

/* ---- limits, capabilities ---- */

static int run_limits(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3];
	struct rlimit core, files;

	if (syscall(SYS_capget, &header, caps) < 0 || caps[0].permitted || caps[1].permitted)
		return 1;
	if (getrlimit(RLIMIT_CORE, &core) < 0 || core.rlim_max || getrlimit(RLIMIT_NOFILE, &files) < 0)
		return 2;
	return files.rlim_cur == 32 && files.rlim_max == 32 && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1
		       ? 0
		       : 3;
}

static void test_limits(void)
{
	struct confine_spec spec = {.max_files = 32};

	CU_ASSERT_EQUAL(confined(&spec, run_limits), 0);
}

static int landlock_abi; /* asked before the filter stands */

static int run_walls(void)
{
	if (!landlock_abi)
		return strstr(walls, "seccomp, no Landlock: ") ? 0 : 1;
	return str_starts(walls, "seccomp, Landlock ") && strstr(walls, "(files") ? 0 : 2;
}

static int run_nothing(void)
{
	return 0;
}

static void test_walls(void)
{
	static const char *const none[] = {NULL};
	struct confine_spec spec = {.calls = none};

	landlock_abi = confine_landlock_abi();
	CU_ASSERT_EQUAL(confined(&spec, run_walls), 0);
	spec.strict = true;
	CU_ASSERT_EQUAL(confined(&spec, run_nothing), landlock_abi >= 6 ? 0 : 98);
}

/* ---- connect-ask ---- */

static int run_streams(void)
{
	int pair[2];

	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) >= 0 && socket(AF_UNIX, SOCK_SEQPACKET, 0) >= 0 &&
			       socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 &&
			       socket(AF_UNIX, SOCK_DGRAM, 0) < 0 && socket(AF_INET, SOCK_STREAM, 0) < 0 &&
			       socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair) < 0
		       ? 0
		       : 1;
}

static void test_streams(void)
{
	static const char *const calls[] = {"streams", NULL};
	struct confine_spec spec = {.calls = calls};

	CU_ASSERT_EQUAL(confined(&spec, run_streams), 0);
}

/* Emptied, but not refilled. */
static int run_remove(void)
{
	return unlink("in/file") == 0 && try_open("in/file", O_CREAT | O_WRONLY) == EACCES &&
			       try_open("in/link", O_WRONLY) == EACCES && unlink("in/link") == 0
		       ? 0
		       : 1;
}

static void test_remove(void)
{
	struct confine_path path = {.path = "in", .access = CONFINE_READ | CONFINE_REMOVE};
	struct confine_spec spec = {.paths = &path, .path_count = 1};

	CU_ASSERT_EQUAL(confined(&spec, run_remove), 0);
}

static void test_ask(void)
{
	static const char *const calls[] = {"socket", "connect-ask", NULL};
	struct confine_filter *filter = confine_filter_new(calls, NULL, NULL);
	int status, listener = -1;
	pid_t pid;

	CU_ASSERT_PTR_NOT_NULL_FATAL(filter);
	pid = fork();
	if (pid == 0) {
		if (confine_filter_install(filter, &listener) < 0 || listener < 0)
			_exit(1);
		close(listener); /* nobody answers: seccomp_unotify(2) says ENOSYS */
		_exit(try_connect(AF_UNIX, &abstract_address, abstract_size) == ENOSYS ? 0 : 2);
	}
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT_EQUAL(status, 0);
	confine_filter_free(filter);
}

static void test_end(void)
{
	CU_ASSERT_EQUAL(chdir("/"), 0);
	CU_ASSERT_EQUAL(file_remove_tree(folder, NULL), 0);
}

static void test_begin(void)
{
	CU_ASSERT_EQUAL_FATAL(make_folder(), 0);
}

UNIT_MAIN("confine", UNIT_CASE(test_begin), UNIT_CASE(test_files), UNIT_CASE(test_single_file),
	  UNIT_CASE(test_outside), UNIT_CASE(test_calls), UNIT_CASE(test_limits), UNIT_CASE(test_walls),
	  UNIT_CASE(test_ask), UNIT_CASE(test_streams), UNIT_CASE(test_remove), UNIT_CASE(test_end))
