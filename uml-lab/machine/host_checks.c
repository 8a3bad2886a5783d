/* What this host gives to machines, tried for real where that is cheap: `doctor`, and before `up`. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/file.h"
#include "uml-lab/machine/machine.h"
#include "uml-lab/machine/sandbox.h"

#define FILES_ENOUGH 4096         /* hostfs holds one descriptor for each open inode */
#define SPACE_ENOUGH (2ull << 30) /* bytes: a Debian image and a few overlays */
#define SHM_ENOUGH   (256ull << 20)

enum { OK, WARNING, BROKEN };

static void __attribute__((format(printf, 3, 4)))
say(struct host_check *check, int level, const char *fmt, ...)
{
	va_list ap;

	check->level = level;
	va_start(ap, fmt);
	vsnprintf(check->detail, sizeof(check->detail), fmt, ap);
	va_end(ap);
}

static void remedy(struct host_check *check, const char *text)
{
	snprintf(check->remedy, sizeof(check->remedy), "%s", text);
}

static void check_namespaces(struct host_check *check)
{
	char reason[256];

	if (sandbox_namespaces_work(reason, sizeof(reason))) {
		say(check, OK, "allowed: each machine runs in a sandbox of its own");
		return;
	}
	say(check, WARNING, "not usable (%s): Landlock and seccomp alone keep a machine from the host's files",
	    reason);
	remedy(check, "allow unprivileged user namespaces: sysctl kernel.unprivileged_userns_clone=1, "
		      "user.max_user_namespaces above 0, or an AppArmor profile for uml-lab");
}

static void check_walls(struct host_check *check)
{
	int abi = confine_landlock_abi();

	if (abi >= 6)
		say(check, OK, "Landlock %d (files, TCP, sockets, signals) and seccomp", abi);
	else if (abi >= 1)
		say(check, WARNING, "Landlock %d (files%s) and seccomp: without user namespaces guests could signal your "
			   "processes and use abstract sockets", abi, abi >= 4 ? ", TCP" : "");
	else
		say(check, WARNING, "seccomp, but no Landlock (%s): without user namespaces your files lie open to guests",
		    strerror(errno));
	if (check->level)
		remedy(check, "a newer kernel (6.12 has all of it), with landlock among its lsm= modules");
}

static void check_kernels(struct host_check *check)
{
	struct kernel *kernels = NULL;
	size_t count = 0;
	struct error err = ERROR_INIT;
	const char *fault;
	cleanup_strbuf struct strbuf list = STRBUF_INIT;

	if (kernel_list(&kernels, &count, &err) < 0 || !count) {
		say(check, BROKEN, "none was found%s%s", err.message[0] ? ": " : "", err.message);
		remedy(check, "apt install user-mode-linux");
		free(kernels);
		return;
	}
	fault = kernel_known_fault(&kernels[0]); /* the one that labs get that name none */
	for (size_t i = 0; i < count; i++) {
		strbuf_printf(&list, "%s%s (%s)%s", i ? ", " : "", kernels[i].release, kernels[i].path,
			      kernels[i].modules ? "" : " without modules");
		kernel_free(&kernels[i]);
	}
	free(kernels);
	say(check, fault ? WARNING : OK, "%s%s%s", list.failed ? "found" : list.data,
	    fault ? "; the first may panic: " : "", fault ?: "");
	if (fault)
		remedy(check, "a kernel from 7.0 on, or 6.1 (tests/kernels fetches both), or restart: on-failure in lab.yml");
}

static void check_ptrace(struct host_check *check)
{
	static const char path[] = "/proc/sys/kernel/yama/ptrace_scope";
	cleanup_free char *text = NULL;

	if (!file_exists(path)) {
		say(check, OK, "not restricted");
	} else if (file_read_all(path, 64, &text, NULL, NULL) < 0) {
		say(check, WARNING, "%s cannot be read", path);
	} else if (atoi(text) < 2) {
		say(check, OK, "scope %d: children may be traced, which is all UML needs", atoi(text));
	} else {
		say(check, BROKEN, "scope %d: UML cannot trace its guests' processes", atoi(text));
		remedy(check, "sysctl kernel.yama.ptrace_scope=1");
	}
}

static void check_files(struct host_check *check)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		say(check, WARNING, "cannot be read: %s", strerror(errno));
	else if (limit.rlim_max >= FILES_ENOUGH)
		say(check, OK, "%llu at most", (unsigned long long)limit.rlim_max);
	else
		say(check, WARNING, "%llu at most: shares with many files open may run out",
		    (unsigned long long)limit.rlim_max);
	if (check->level)
		remedy(check, "raise the hard limit of open files (limits.conf, LimitNOFILE=)");
}

static void check_space(struct host_check *check)
{
	struct error err = ERROR_INIT;
	cleanup_free char *state = dirs_state(&err);
	struct statvfs fs;
	char human[16];

	if (!state || statvfs(state, &fs) < 0) {
		say(check, BROKEN, "%s", state ? strerror(errno) : err.message);
		remedy(check, "set XDG_STATE_HOME to a folder that can be written");
		return;
	}
	uint64_t left = (uint64_t)fs.f_bavail * fs.f_frsize;

	say(check,
	    left >= SPACE_ENOUGH        ? OK
	    : left >= SPACE_ENOUGH / 16 ? WARNING
					: BROKEN,
	    "%s free in %s", str_human_size(left, human, sizeof(human)), state);
	if (check->level)
		remedy(check, "free some space (uml-lab gc), or set XDG_STATE_HOME to a roomier place");
}

static void check_fuse(struct host_check *check)
{
	if (access("/dev/fuse", R_OK | W_OK) == 0) {
		say(check, OK, "accessible");
		return;
	}
	say(check, WARNING, "%s: uml-cow mount needs it, and uml-hostfs with a mount point; labs do not", strerror(errno));
	remedy(check, "modprobe fuse, or ask for access to /dev/fuse");
}

static void check_runtime(struct host_check *check)
{
	struct error err = ERROR_INIT;
	cleanup_free char *runtime = dirs_runtime(&err);

	if (runtime && getenv("XDG_RUNTIME_DIR"))
		say(check, OK, "%s", runtime);
	else if (runtime)
		say(check, OK, "%s (XDG_RUNTIME_DIR is not set)", runtime);
	else
		say(check, BROKEN, "%s", err.message);
	if (check->level)
		remedy(check, err.hint[0] ? err.hint : "log in through a session that sets XDG_RUNTIME_DIR");
}

static void check_own(struct host_check *check)
{
	static const char *const names[] = {"uml-cow", "uml-cow-all", "uml-netplug", "uml-hostfs", "stage0"};
	struct error err = ERROR_INIT;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		cleanup_free char *path = dirs_own(names[i], &err);

		if (path)
			continue;
		say(check, BROKEN, "%s", err.message);
		remedy(check, "install uml-lab as a whole (make install), or run it from its build folder");
		return;
	}
	say(check, OK, "uml-cow, uml-netplug, uml-hostfs and stage0 are there");
}

static bool has_program(const char *name)
{
	cleanup_free char *path = dirs_program(name, "", NULL);

	return path;
}

static void check_tools(struct host_check *check)
{
	bool mke2fs = has_program("mke2fs"), mmdebstrap = has_program("mmdebstrap");

	if (mke2fs && mmdebstrap && !has_program("vde_switch")) {
		say(check, WARNING, "vde_switch is missing: no networks between machines");
		remedy(check, "apt install vde2");
	} else if (mke2fs && mmdebstrap) {
		say(check, OK, "mke2fs, mmdebstrap and vde_switch are there");
	} else if (mke2fs) {
		say(check, WARNING, "mmdebstrap is missing: Debian images cannot be built, only imported");
		remedy(check, "apt install mmdebstrap");
	} else {
		say(check, BROKEN, "mke2fs is missing: no image can be made");
		remedy(check, "apt install e2fsprogs mmdebstrap");
	}
}

/* Whether this user's groups may open ping sockets (icmp(7), ping_group_range): all a guest's ping to the outside needs. */
static bool may_ping(unsigned int low, unsigned int high)
{
	gid_t groups[256];
	int count = getgroups((int)ARRAY_SIZE(groups), groups);
	bool may = getegid() >= low && getegid() <= high;

	for (int i = 0; i < count; i++)
		may |= groups[i] >= low && groups[i] <= high;
	return may;
}

static void check_ping(struct host_check *check)
{
	cleanup_file FILE *f = fopen("/proc/sys/net/ipv4/ping_group_range", "re");
	unsigned int low, high;

	if (!f || fscanf(f, "%u %u", &low, &high) != 2) {
		say(check, WARNING, "net.ipv4.ping_group_range cannot be read");
		return;
	}
	if (may_ping(low, high)) {
		say(check, OK, "guests can ping the outside");
		return;
	}
	say(check, WARNING, "forbidden (net.ipv4.ping_group_range is \"%u %u\"): a guest's ping to the outside gets no answer; "
			    "all else works", low, high);
	remedy(check, "as root: sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"");
}

int machine_host_checks(struct host_check *checks, int max)
{
	static const struct {
		const char *name;
		void (*fn)(struct host_check *check);
	} all[] = {
		{"user namespaces", check_namespaces},
		{"inner walls", check_walls},
		{"UML kernels", check_kernels},
		{"ptrace", check_ptrace},
		{"open files", check_files},
		{"disk space", check_space},
		{"/dev/fuse", check_fuse},
		{"runtime folder", check_runtime},
		{"ping", check_ping},
		{"own programs", check_own},
		{"image tools", check_tools},
	};
	int count = 0;

	for (size_t i = 0; i < ARRAY_SIZE(all) && count < max; i++, count++) {
		checks[count] = (struct host_check){.name = all[i].name};
		all[i].fn(&checks[count]);
	}
	return count;
}
