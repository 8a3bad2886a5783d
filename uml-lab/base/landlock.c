/*
 * Landlock (landlock(7), Documentation/userspace-api/landlock.rst). The kernel is asked for its ABI at run
 *time and gets the rules it knows; Debian 12's headers are older than the kernels this runs on, so that the
 *numbers of later ABIs stand here.
 *
 *	ABI 1	opening, executing, making, removing	ABI 4	TCP connect and bind
 *	ABI 2	moving between folders			ABI 5	ioctl() on devices
 *	ABI 3	truncating				ABI 6	abstract sockets and signals to outside
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/confine.h"

/* ABI 3 and later: uapi/linux/landlock.h of 6.12. */
#define ACCESS_FS_TRUNCATE     (1ull << 14)
#define ACCESS_FS_IOCTL_DEV    (1ull << 15)
#define ACCESS_NET_BIND_TCP    (1ull << 0)
#define ACCESS_NET_CONNECT_TCP (1ull << 1)
#define SCOPE_ABSTRACT_UNIX    (1ull << 0)
#define SCOPE_SIGNAL           (1ull << 1)

#define ABI_REFER     2
#define ABI_TRUNCATE  3
#define ABI_TCP       4
#define ABI_IOCTL_DEV 5
#define ABI_SCOPES    6

/* struct landlock_ruleset_attr of ABI 6; older kernels take it as long as what they do not know is zero. */
struct ruleset {
	uint64_t files, net, scoped;
};

#define READ  (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define WRITE (LANDLOCK_ACCESS_FS_WRITE_FILE | ACCESS_FS_TRUNCATE)
#define REMOVE (LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE)
#define CREATE                                                                                               \
	(REMOVE | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_SOCK | \
	 LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_SYM | LANDLOCK_ACCESS_FS_REFER)
#define DEVICES (LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK)
#define ALL     (READ | WRITE | CREATE | DEVICES | LANDLOCK_ACCESS_FS_EXECUTE | ACCESS_FS_IOCTL_DEV)
/* What a rule on a file that is no folder may name. */
#define OF_FILES                                                                                             \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE |         \
	 ACCESS_FS_TRUNCATE | ACCESS_FS_IOCTL_DEV)

int confine_landlock_abi(void)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	return abi < 0 ? 0 : (int)abi;
}

/* What this kernel's Landlock can deny of files. */
static uint64_t known_files(int abi)
{
	uint64_t known = ALL;

	if (abi < ABI_REFER)
		known &= ~LANDLOCK_ACCESS_FS_REFER;
	if (abi < ABI_TRUNCATE)
		known &= ~ACCESS_FS_TRUNCATE;
	if (abi < ABI_IOCTL_DEV)
		known &= ~ACCESS_FS_IOCTL_DEV;
	return known;
}

static uint64_t rights_of(unsigned int access)
{
	return (access & CONFINE_READ ? READ : 0) | (access & CONFINE_WRITE ? WRITE : 0) |
	       (access & CONFINE_CREATE ? CREATE : 0) | (access & CONFINE_REMOVE ? REMOVE : 0) |
	       (access & CONFINE_EXECUTE ? LANDLOCK_ACCESS_FS_EXECUTE : 0) |
	       (access & CONFINE_DEVICE ? ACCESS_FS_IOCTL_DEV : 0);
}

static int add_path(int ruleset, const struct confine_path *path, uint64_t known, struct error *err)
{
	cleanup_close int opened = path->path ? open(path->path, O_PATH | O_CLOEXEC) : -1;
	const char *name = path->path ? path->path : "an open file";
	struct landlock_path_beneath_attr rule = {.parent_fd = path->path ? opened : path->fd,
						  .allowed_access = rights_of(path->access) & known};
	struct stat st;

	if (path->path && opened < 0 && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	if (rule.parent_fd < 0 || fstat(rule.parent_fd, &st) < 0)
		return error_errno(err, errno, "Landlock: cannot open %s", name);
	if (!S_ISDIR(st.st_mode))
		rule.allowed_access &= OF_FILES;
	if (rule.allowed_access &&
	    syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
		return error_errno(err, errno, "Landlock: cannot allow %s", name);
	return 0;
}

static void say(char walls[CONFINE_WALLS_MAX], const char *text)
{
	size_t length = strlen(walls);

	snprintf(walls + length, CONFINE_WALLS_MAX - length, "%s", text);
}

/* "Landlock 7 (files, TCP, sockets, signals)" */
static void describe(int abi, const struct ruleset *ruleset, char walls[CONFINE_WALLS_MAX])
{
	const struct {
		bool stands;
		const char *name;
	} all[] = {
		{ruleset->files != 0, "files"},
		{ruleset->net != 0, "TCP"},
		{ruleset->scoped & SCOPE_ABSTRACT_UNIX, "sockets"},
		{ruleset->scoped & SCOPE_SIGNAL, "signals"},
	};
	const char *separator = "";
	char text[32];

	snprintf(text, sizeof(text), "Landlock %d (", abi);
	say(walls, text);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		if (!all[i].stands)
			continue;
		say(walls, separator);
		say(walls, all[i].name);
		separator = ", ";
	}
	say(walls, ")");
}

int confine_landlock(const struct confine_spec *spec, char walls[CONFINE_WALLS_MAX], struct error *err)
{
	int abi = confine_landlock_abi();
	struct ruleset attr = {.files = spec->all_files ? 0 : known_files(abi)};
	cleanup_close int ruleset = -1;

	if (!abi) {
		say(walls, "no Landlock: ");
		say(walls, strerror(errno));
		return spec->strict ? error_errno(err, errno, "this host's kernel offers no Landlock") : 0;
	}
	if (abi >= ABI_TCP && !spec->tcp)
		attr.net = ACCESS_NET_BIND_TCP | ACCESS_NET_CONNECT_TCP;
	if (abi >= ABI_SCOPES)
		attr.scoped = (spec->abstract_sockets ? 0 : SCOPE_ABSTRACT_UNIX) |
			      (spec->signals ? 0 : SCOPE_SIGNAL);
	if (spec->strict && abi < ABI_SCOPES)
		return error_set(err, ERROR_FAILED,
				 "Landlock of this host's kernel is ABI %d, too old to keep TCP, sockets and "
				 "signals in (6 does)",
				 abi);
	if (!attr.files && !attr.net && !attr.scoped)
		return 0;
	ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
	if (ruleset < 0)
		return error_errno(err, errno, "cannot make a Landlock ruleset");
	for (size_t i = 0; !spec->all_files && i < spec->path_count; i++)
		if (add_path(ruleset, &spec->paths[i], attr.files, err) < 0)
			return -1;
	/* Behind a filter that refuses prctl() it is set already; the next call needs it, and says so. */
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
		return error_errno(err, errno, "cannot enforce the Landlock ruleset");
	describe(abi, &attr, walls);
	return 0;
}
