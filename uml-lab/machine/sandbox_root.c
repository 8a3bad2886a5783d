/*
 * The root file system of the namespaced sandbox: a tmpfs of our own, into which exactly those files and folders of the host are
 * bound that the spec names, under their own paths, read-only where they need not be written:
 *
 *	the program, its interpreter and libraries		may be executed, nothing else may
 *	the spec's paths (disks, initramfs, modules, spool)
 *	/guest			the spec's folder, read-only: sockets can be connected to, not made
 *	/guest/uml		a small tmpfs, for what UML makes: its management console's socket
 *	/dev			null, zero, random, urandom; shm, a tmpfs sized for the guest
 *	/proc/cpuinfo		a copy of what UML looks at: the first processor. There is no /proc
 *
 * The host's mounts are cloned (open_tree) before the new root covers anything, put in place by move_mount(), and then the
 * whole old tree goes away with pivot_root(): there is no path from here to the host's files, for nobody in it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/machine/sandbox_internal.h"

#define BINDS_MAX   (SANDBOX_PATHS_MAX + 64)
#define SHM_EXTRA   (64u << 20) /* bytes: page tables, the kernel's own image */
#define OWN_MEMORY  (128u << 20) /* bytes: anonymous memory of the UML process and its guests' page tables on the host */
#define CPUINFO_MAX 8192
#define ROOT_SIZE   "mode=755,size=1m,nr_inodes=1k"
#define WRITABLE_SIZE "mode=700,size=1m,nr_inodes=64"
#define QUIET	    (MS_NOSUID | MS_NODEV | MS_NOEXEC)

enum bind_kind { BIND_PROGRAM, BIND_DATA, BIND_WRITABLE, BIND_DEVICE };

struct bind {
	const char *at; /* absolute, in the new root */
	int tree;	/* the cloned mount */
};

struct binds {
	struct bind list[BINDS_MAX];
	size_t count;
};

static int take(struct binds *binds, const char *from, const char *at, enum bind_kind kind)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_NOSUID};
	int tree;

	if (binds->count == BINDS_MAX) {
		errno = E2BIG;
		return -1;
	}
	tree = open_tree(AT_FDCWD, from, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (tree < 0)
		return -1;
	if (kind != BIND_WRITABLE)
		attr.attr_set |= MOUNT_ATTR_RDONLY;
	if (kind != BIND_DEVICE)
		attr.attr_set |= MOUNT_ATTR_NODEV;
	if (kind != BIND_PROGRAM)
		attr.attr_set |= MOUNT_ATTR_NOEXEC;
	if (mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0) {
		close(tree);
		return -1;
	}
	binds->list[binds->count++] = (struct bind){.at = at, .tree = tree};
	return 0;
}

static const char *take_all(const struct sandbox_plan *plan, struct binds *binds)
{
	static const char *const devices[] = {"/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"};
	const struct sandbox_spec *spec = plan->spec;

	if (take(binds, spec->program, spec->program, BIND_PROGRAM) < 0)
		return "the program";
	for (size_t i = 0; i < plan->libraries.count; i++)
		if (take(binds, plan->libraries.items[i], plan->libraries.items[i], BIND_PROGRAM) < 0)
			return plan->libraries.items[i];
	for (size_t i = 0; i < spec->path_count; i++) {
		const struct sandbox_path *path = &spec->paths[i];

		if (take(binds, path->path, path->path,
			 path->access & ~(unsigned)CONFINE_READ ? BIND_WRITABLE : BIND_DATA) < 0)
			return path->path;
	}
	for (size_t i = 0; i < ARRAY_SIZE(devices); i++)
		if (take(binds, devices[i], devices[i], BIND_DEVICE) < 0)
			return devices[i];
	if (spec->folder && take(binds, spec->folder, SANDBOX_FOLDER, BIND_DATA) < 0)
		return spec->folder;
	return NULL;
}

/* Makes the folders above a path, relative to the current folder. */
static int make_parents(const char *path)
{
	char above[4096];

	for (const char *p = path; (p = strchr(p, '/')); p++) {
		if (p - path >= (ssize_t)sizeof(above)) {
			errno = ENAMETOOLONG;
			return -1;
		}
		memcpy(above, path, (size_t)(p - path));
		above[p - path] = '\0';
		if (mkdir(above, 0755) < 0 && errno != EEXIST)
			return -1;
	}
	return 0;
}

/* An empty file or folder to mount on; one that is there (a path named twice) is fine. */
static int make_point(const struct bind *bind)
{
	const char *at = bind->at + 1;
	struct stat st;
	int fd;

	if (fstat(bind->tree, &st) < 0 || make_parents(at) < 0)
		return -1;
	if (S_ISDIR(st.st_mode))
		return mkdir(at, 0755) < 0 && errno != EEXIST ? -1 : 0;
	fd = open(at, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0444);
	if (fd < 0) /* named twice, and read-only: it is there */
		return errno == EROFS || errno == EACCES ? 0 : -1;
	close(fd);
	return 0;
}

static const char *place_all(const struct binds *binds)
{
	for (size_t i = 0; i < binds->count; i++) {
		const struct bind *bind = &binds->list[i];

		if (make_point(bind) < 0 ||
		    move_mount(bind->tree, "", AT_FDCWD, bind->at + 1, MOVE_MOUNT_F_EMPTY_PATH) < 0)
			return bind->at;
		close(bind->tree);
	}
	return NULL;
}

/* The first processor's part of /proc/cpuinfo: UML reads flags and the size of cache lines (arch/um/os-Linux/start_up.c). */
static int copy_cpuinfo(void)
{
	cleanup_close int in = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC), out = -1;
	char text[CPUINFO_MAX + 1], *end;
	ssize_t got;

	if (in < 0) /* UML does without */
		return 0;
	got = file_read_full(in, text, CPUINFO_MAX);
	if (got <= 0)
		return 0;
	text[got] = '\0';
	end = strstr(text, "\n\n");
	if (end)
		got = end + 2 - text;
	out = open("proc/cpuinfo", O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0444);
	return out < 0 || file_write_full(out, text, (size_t)got) < 0 ? -1 : 0;
}

uint64_t shm_size(uint64_t memory)
{
	return memory + memory / 8 + SHM_EXTRA;
}

uint64_t sandbox_memory(uint64_t memory)
{
	return shm_size(memory) + OWN_MEMORY;
}

static const char *make_own(const struct sandbox_plan *plan)
{
	char options[64];

	if (mkdir("dev", 0755) < 0 || mkdir("dev/shm", 0755) < 0 || mkdir("proc", 0755) < 0)
		return "making folders";
	snprintf(options, sizeof(options), "mode=1777,size=%llu",
		 (unsigned long long)shm_size(plan->spec->memory));
	if (mount("uml-lab", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, options) < 0)
		return "mounting /dev/shm";
	return copy_cpuinfo() < 0 ? "copying /proc/cpuinfo" : NULL;
}

/* The new root becomes "/", the old one goes away, and what is left of the new one is read-only. */
static const char *enter(void)
{
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		return "changing the root";
	if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return "leaving the old root";
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | QUIET, NULL) < 0)
		return "making the root read-only";
	return NULL;
}

const char *root_build(const struct sandbox_plan *plan)
{
	const char *writable = &SANDBOX_FOLDER "/" SANDBOX_WRITABLE[1], *failed;
	/* Any folder will do to mount on: nobody but us sees it. */
	const char *point = plan->spec->folder ? plan->spec->folder : "/proc";
	struct binds *binds = calloc(1, sizeof(*binds));

	if (!binds)
		return "memory";
	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return "making mounts private";
	failed = take_all(plan, binds);
	if (!failed && (mount("uml-lab", point, "tmpfs", QUIET, ROOT_SIZE) < 0 || chdir(point) < 0))
		failed = "mounting a root";
	if (!failed)
		failed = make_own(plan);
	if (!failed)
		failed = place_all(binds);
	free(binds);
	if (!failed && plan->spec->folder && mount("uml-lab", writable, "tmpfs", QUIET, WRITABLE_SIZE) < 0)
		failed = writable;
	return failed ? failed : enter();
}
