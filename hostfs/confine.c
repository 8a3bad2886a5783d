/*
 * The walls around uml-hostfs, put up when the shares and sockets are open: Landlock lets
 * it into the shares' folders only, to read or to write; system calls are those that
 * the operations need. What a guest could make it do by some mistake in here ends there.
 *
 * Descriptors are opened anew as /proc/self/fd/N, for which the rights on what N stands for count.
 */
#include <stdlib.h>

#include "hostfs/device.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/confine.h"
#include "uml-lab/base/log.h"

static const char *const calls[] = {
	"open", "openat", "openat2", "statx", "stat", "lstat", "newfstatat", "statfs", "fstatfs", "getdents64",
	"faccessat", "faccessat2", "mkdir", "mkdirat", "unlink", "unlinkat", "rename", "renameat", "renameat2",
	"linkat", "symlinkat", "readlink", "readlinkat", "chmod", "fchmod", "fchmodat", "fchmodat2", "utimensat",
	"ftruncate", "fallocate", "fsync", "fdatasync", "syncfs", "copy_file_range", "getxattr", "lgetxattr",
	"setxattr", "lsetxattr", "listxattr", "llistxattr", "removexattr", "lremovexattr", "accept4", "threads",
	"clone3", "flock", "umount2", "wait4", "fadvise64",
	"affinity", NULL};

int hostfs_confine(const struct hostfs_share *shares, size_t count, char *walls, struct error *err)
{
	cleanup_free struct confine_path *paths = calloc(count, sizeof(*paths));
	struct confine_spec spec = {.paths = paths, .path_count = count, .calls = calls};

	if (!paths)
		return error_oom(err);
	for (size_t i = 0; i < count; i++)
		paths[i] = (struct confine_path){
			.path = shares[i].path,
			.access = shares[i].writable ? CONFINE_READ | CONFINE_WRITE | CONFINE_CREATE : CONFINE_READ};
	if (confine_self(&spec, walls, err) < 0)
		return -1;
	log_info("walls: %s", walls);
	return 0;
}
