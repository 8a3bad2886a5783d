/*
 * How it works: confine.h. Files, TCP, sockets and signals are landlock.c's part; here are limits,
 * capabilities and the seccomp filter. The filter lists what is allowed: what is new in a kernel stays closed
 * until somebody here needs it.
 *
 * Its actions never kill. A libc probes for new system calls and falls back on ENOSYS; and UML's seccomp mode
 * (6.16 and later) puts a filter of its own on guest processes, which answers all their calls with a trap: of
 * several filters' answers the strictest counts, killing is stricter than trapping, and trapping stricter
 * than an errno (seccomp(2)).
 */
#include "uml-lab/base/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/str.h"

#define CAPABILITIES_MAX 64                                  /* more than any kernel has */
#define FILTER_MAX       (4096 * sizeof(struct sock_filter)) /* BPF_MAXINSNS */

#define SOCK_TYPE_MASK	 0xf /* include/linux/net.h; the rest of the bits are SOCK_CLOEXEC and SOCK_NONBLOCK */

/* CLONE_NEWTIME lies in the bits of the exit signal, for clone3() only. */
#define CLONE_NAMESPACES                                                                                     \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |        \
	 CLONE_NEWNET)

const char *const confine_common_calls[] = {
	/* open descriptors */
	"read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2",
	"close", "close_range", "dup", "dup2", "dup3", "lseek", "fstat", "fcntl", "pipe", "pipe2", "poll",
	"ppoll", "select", "pselect6", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait",
	"epoll_pwait2", "eventfd2", "timerfd_create", "timerfd_settime", "timerfd_gettime", "signalfd4",
	"sendmsg", "sendmmsg", "recvmsg", "recvmmsg", "sendto", "recvfrom", "shutdown", "getsockopt",
	"getsockname", "getpeername",
	/* memory */
	"brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "mincore", "membarrier",
	/* time and waiting */
	"clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time", "futex",
	"futex_waitv", "sched_yield", "restart_syscall",
	/* signals, and itself */
	"rt_sigaction", "rt_sigprocmask", "rt_sigpending", "rt_sigtimedwait", "rt_sigsuspend", "rt_sigreturn",
	"sigaltstack", "tgkill", "getpid", "gettid", "getppid", "getuid", "geteuid", "getgid", "getegid",
	"getpgrp", "getrlimit", "prlimit64", "getrusage", "getrandom", "uname", "sysinfo",
	"sched_getaffinity", "getcpu", "set_robust_list", "get_robust_list", "set_tid_address", "rseq",
	"arch_prctl", "exit", "exit_group", NULL};

/* ---- the filter ---- */

struct confine_filter {
	struct sock_fprog program;
	bool asks; /* "connect-ask" or "open-ask" is in it */
};

static int add_rule(scmp_filter_ctx ctx, uint32_t action, const char *call, unsigned int count,
		    const struct scmp_arg_cmp *args, struct error *err)
{
	int number = seccomp_syscall_resolve_name(call);
	int failed;

	if (number < 0) /* unknown to this libseccomp, or not of this architecture */
		return 0;
	failed = seccomp_rule_add_array(ctx, action, number, count, args);
	return failed < 0 && failed != -EEXIST
		       ? error_errno(err, -failed, "cannot allow the system call %s", call)
		       : 0;
}

static int allow_sockets(scmp_filter_ctx ctx, const int *families, struct error *err)
{
	if (!families)
		return add_rule(ctx, SCMP_ACT_ALLOW, "socket", 0, NULL, err);
	for (; *families; families++) {
		const struct scmp_arg_cmp family = SCMP_A0_32(SCMP_CMP_EQ, (uint32_t)*families);

		if (add_rule(ctx, SCMP_ACT_ALLOW, "socket", 1, &family, err) < 0)
			return -1;
	}
	return 0;
}

/* STREAM and SEQPACKET have one peer, whom connect() names; a datagram can be sent to any path. */
static int allow_streams(scmp_filter_ctx ctx, struct error *err)
{
	static const int types[] = {SOCK_STREAM, SOCK_SEQPACKET};
	static const char *const calls[] = {"socket", "socketpair"};

	for (size_t i = 0; i < ARRAY_SIZE(types) * ARRAY_SIZE(calls); i++) {
		const struct scmp_arg_cmp args[] = {
			SCMP_A0_32(SCMP_CMP_EQ, AF_UNIX),
			SCMP_A1_32(SCMP_CMP_MASKED_EQ, SOCK_TYPE_MASK, (uint32_t)types[i / 2]),
		};

		if (add_rule(ctx, SCMP_ACT_ALLOW, calls[i % 2], ARRAY_SIZE(args), args, err) < 0)
			return -1;
	}
	return 0;
}

/* An unnamed file is asked for (open(2), O_TMPFILE without the bit of O_DIRECTORY in it): somebody else gives one. */
static int allow_open_ask(scmp_filter_ctx ctx, struct error *err)
{
	static const struct {
		const char *call;
		unsigned int flags_at;
	} calls[] = {{"open", 1}, {"openat", 2}};
	const uint64_t bit = O_TMPFILE & ~O_DIRECTORY;

	for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
		const struct scmp_arg_cmp named = SCMP_CMP(calls[i].flags_at, SCMP_CMP_MASKED_EQ, bit, 0);
		const struct scmp_arg_cmp unnamed = SCMP_CMP(calls[i].flags_at, SCMP_CMP_MASKED_EQ, bit, bit);

		if (add_rule(ctx, SCMP_ACT_ALLOW, calls[i].call, 1, &named, err) < 0 ||
		    add_rule(ctx, SCMP_ACT_NOTIFY, calls[i].call, 1, &unnamed, err) < 0)
			return -1;
	}
	return 0;
}

static int allow_call(scmp_filter_ctx ctx, const char *call, const int *families, struct error *err)
{
	const struct scmp_arg_cmp no_namespace = SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_NAMESPACES, 0);
	const struct scmp_arg_cmp self = SCMP_A0_32(SCMP_CMP_EQ, 0);
	const struct scmp_arg_cmp thread =
		SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_NAMESPACES | CLONE_THREAD, CLONE_THREAD);

	if (str_eq(call, "clone"))
		return add_rule(ctx, SCMP_ACT_ALLOW, "clone", 1, &no_namespace, err);
	if (str_eq(call, "threads"))
		return add_rule(ctx, SCMP_ACT_ALLOW, "clone", 1, &thread, err);
	if (str_eq(call, "affinity"))
		return add_rule(ctx, SCMP_ACT_ALLOW, "sched_setaffinity", 1, &self, err);
	if (str_eq(call, "socket"))
		return allow_sockets(ctx, families, err);
	if (str_eq(call, "streams"))
		return allow_streams(ctx, err);
	if (str_eq(call, "open-ask"))
		return allow_open_ask(ctx, err);
	if (str_eq(call, "connect-ask"))
		return add_rule(ctx, SCMP_ACT_NOTIFY, "connect", 0, NULL, err);
	return add_rule(ctx, SCMP_ACT_ALLOW, call, 0, NULL, err);
}

static int allow_calls(scmp_filter_ctx ctx, const char *const *calls, const int *families, struct error *err)
{
	for (; *calls; calls++)
		if (allow_call(ctx, *calls, families, err) < 0)
			return -1;
	return 0;
}

/* Threads are named with it; all else of prctl() stays closed unless it is listed. */
static int allow_names(scmp_filter_ctx ctx, struct error *err)
{
	const struct scmp_arg_cmp set = SCMP_A0_32(SCMP_CMP_EQ, PR_SET_NAME);

	return add_rule(ctx, SCMP_ACT_ALLOW, "prctl", 1, &set, err);
}

/* The program that libseccomp made, as memory. */
static struct confine_filter *export(scmp_filter_ctx ctx, struct error *err)
{
	cleanup_close int fd = memfd_create("filter", MFD_CLOEXEC);
	cleanup_free struct confine_filter *filter = calloc(1, sizeof(*filter));
	cleanup_free char *code = NULL;
	off_t size;
	int failed;

	if (!filter) {
		error_oom(err);
		return NULL;
	}
	failed = fd < 0 ? -errno : seccomp_export_bpf(ctx, fd);
	if (failed < 0 || (size = lseek(fd, 0, SEEK_END)) <= 0 || (size_t)size > FILTER_MAX) {
		error_errno(err, failed < 0 ? -failed : E2BIG, "cannot make the system call filter");
		return NULL;
	}
	code = malloc((size_t)size);
	if (!code || file_pread_full(fd, code, (size_t)size, 0) != size) {
		error_oom(err);
		return NULL;
	}
	filter->program.len = (unsigned short)((size_t)size / sizeof(struct sock_filter));
	filter->program.filter = (struct sock_filter *)steal_ptr(&code);
	return steal_ptr(&filter);
}

struct confine_filter *confine_filter_new(const char *const *calls, const int *families, struct error *err)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
	struct confine_filter *filter = NULL;

	if (!ctx) {
		error_oom(err);
		return NULL;
	}
	/* A binary tree in place of a chain; calls of another architecture (int 0x80) fail like unknown ones.
	 */
	seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(ENOSYS));
	if (allow_calls(ctx, confine_common_calls, families, err) == 0 &&
	    allow_calls(ctx, calls, families, err) == 0 && allow_names(ctx, err) == 0)
		filter = export(ctx, err);
	seccomp_release(ctx);
	for (; filter && *calls; calls++)
		filter->asks |= str_ends(*calls, "-ask");
	return filter;
}

void confine_filter_free(struct confine_filter *filter)
{
	if (filter)
		free(filter->program.filter);
	free(filter);
}

int confine_filter_install(const struct confine_filter *filter, int *listener)
{
	/* Kernels before 5.16 would slow down all memory access of a filtered process (Spectre V4) without
	 * SPEC_ALLOW. */
	unsigned int flags = SECCOMP_FILTER_FLAG_SPEC_ALLOW |
			     (filter->asks ? SECCOMP_FILTER_FLAG_NEW_LISTENER : SECCOMP_FILTER_FLAG_TSYNC);
	long result;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter->program);
	if (result > 0 && !filter->asks) {	/* the thread that could not get it */
		errno = EBUSY;
		return -1;
	}
	if (result < 0)
		return -1;
	if (listener)
		*listener = filter->asks ? (int)result : -1;
	return 0;
}

/* ---- the others ---- */

int confine_capabilities(struct error *err)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0}};

	/* EPERM: without CAP_SETPCAP, where nothing could be gained from the bounding set but by exec, which
	 * no_new_privs stops. */
	for (int capability = 0; capability < CAPABILITIES_MAX; capability++)
		if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 && errno != EINVAL && errno != EPERM)
			return error_errno(err, errno, "cannot drop capability %d", capability);
	prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
					 SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
					 SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (syscall(SYS_capset, &header, none) < 0)
		return error_errno(err, errno, "cannot drop capabilities");
	return 0;
}

/* Lowers a limit, both sides; never raises the hard one. */
static int limit(int resource, uint64_t value, const char *name, struct error *err)
{
	struct rlimit now;

	if (getrlimit((__rlimit_resource_t)resource, &now) < 0)
		return error_errno(err, errno, "cannot ask for the limit of %s", name);
	if (now.rlim_max == RLIM_INFINITY || now.rlim_max > value)
		now.rlim_max = value;
	now.rlim_cur = now.rlim_max;
	if (setrlimit((__rlimit_resource_t)resource, &now) < 0)
		return error_errno(err, errno, "cannot limit %s", name);
	return 0;
}

static int limits(const struct confine_spec *spec, struct error *err)
{
	if (limit(RLIMIT_CORE, 0, "core files", err) < 0)
		return -1;
	if (spec->max_files && limit(RLIMIT_NOFILE, spec->max_files, "open files", err) < 0)
		return -1;
	return spec->max_processes ? limit(RLIMIT_NPROC, spec->max_processes, "processes", err) : 0;
}

static int filter_calls(const struct confine_spec *spec, struct error *err)
{
	struct confine_filter *filter = confine_filter_new(spec->calls, spec->families, err);
	int result = -1;

	if (!filter)
		return -1;
	result = confine_filter_install(filter, NULL);
	confine_filter_free(filter);
	return result < 0 ? error_errno(err, errno, "cannot install the system call filter") : 0;
}

#ifdef __SANITIZE_ADDRESS__
/* LeakSanitizer's work at exit needs ptrace() and /proc: it is left out behind the walls (lsan_interface.h).
 */
static int confined;
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return confined;
}
#endif

int confine_self(const struct confine_spec *spec, char walls[CONFINE_WALLS_MAX], struct error *err)
{
	char landlock[CONFINE_WALLS_MAX] = "";

#ifdef __SANITIZE_ADDRESS__
	confined = 1;
#endif
	walls[0] = '\0';
	if (limits(spec, err) < 0 || confine_capabilities(err) < 0)
		return -1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return error_errno(err, errno, "cannot set no_new_privs");
	if (confine_landlock(spec, landlock, err) < 0)
		return -1;
	if (spec->calls && filter_calls(spec, err) < 0)
		return -1;
	snprintf(walls, CONFINE_WALLS_MAX, "%s%s%.160s", spec->calls ? "seccomp" : "",
		 spec->calls && landlock[0] ? ", " : "", landlock);
	return 0;
}
