/*
 * The walls around the disk server, in two steps. Before it opens anything it gives up privileges, the network, programs and rare
 * system calls: headers of disks are parsed behind that. Once all disks are open, and before there are threads, Landlock closes the
 * files: what the rings of a guest could make the server do by some mistake of ours reaches only
 *
 *	the folders that the FILEs lie in	a snapshot's new top and a merge's temporary file are made there
 *	the files of the chains			to be read: a merge looks at what the lower layer stood on
 *	the folders of the sockets		to remove them at the end
 *	--allow's folders			to be read
 *
 * So INSERT takes only disks that lie beside the others. What is open already stays open.
 */
#include <libgen.h>
#include <sys/socket.h>

#include "cow/serve_internal.h"
#include "uml-lab/base/confine.h"
#include "uml-lab/base/log.h"

static const char *const calls[] = {
	"open", "openat", "openat2", "stat", "lstat", "newfstatat", "statx", "statfs", "fstatfs", "access",
	"faccessat", "faccessat2", "readlink", "readlinkat", "getcwd", "getdents64", "unlink", "unlinkat",
	"rename", "renameat", "renameat2", "link", "linkat", "mkdir", "rmdir", "chmod", "fchmod", "fchmodat",
	"umask", "utimensat", "ftruncate", "truncate", "fallocate", "fadvise64", "fsync", "fdatasync", "syncfs",
	"sync_file_range", "msync", "flock", "ioctl", "copy_file_range", "sendfile", "getxattr", "lgetxattr",
	"fgetxattr", "setxattr", "lsetxattr", "fsetxattr", "listxattr", "llistxattr", "flistxattr",
	"removexattr", "lremovexattr", "fremovexattr", "memfd_create", "eventfd", "threads", "socket",
	"socketpair", "bind", "listen", "accept", "accept4", "connect", "setsockopt", "sched_setscheduler", "affinity",
	"ioprio_set", "setpriority", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", NULL};

int serve_walls_first(struct error *err)
{
	static const int families[] = {AF_UNIX, 0};
	const struct confine_spec spec = {.all_files = true, .calls = calls, .families = families};
	char walls[CONFINE_WALLS_MAX];

	return confine_self(&spec, walls, err);
}

struct rules {
	struct confine_path *list;
	size_t count, room;
	struct strv texts; /* what the paths point to */
};

static void free_rules(struct rules *rules)
{
	free(rules->list);
	strv_free(&rules->texts);
}

static int add(struct rules *rules, const char *path, int fd, unsigned int access, struct error *err)
{
	if (rules->count == rules->room) {
		size_t room = rules->room ? 2 * rules->room : 16;
		struct confine_path *list = reallocarray(rules->list, room, sizeof(*list));

		if (!list)
			return error_oom(err);
		rules->list = list;
		rules->room = room;
	}
	rules->list[rules->count++] = (struct confine_path){.path = path, .access = access, .fd = fd};
	return 0;
}

/* Keeps a copy of the path. */
static int add_text(struct rules *rules, const char *path, unsigned int access, struct error *err)
{
	if (strv_add(&rules->texts, path, err))
		return -1;
	return add(rules, rules->texts.items[rules->texts.count - 1], -1, access, err);
}

/* The folder that a file lies in. */
static int add_folder(struct rules *rules, const char *file, unsigned int access, struct error *err)
{
	cleanup_free char *copy = str_dup(file, err);

	return copy ? add_text(rules, dirname(copy), access, err) : -1;
}

static int add_disk(struct rules *rules, const struct serve_disk *d, struct error *err)
{
	if (add_folder(rules, d->socket, CONFINE_REMOVE, err))
		return -1;
	if (!d->chain)
		return 0;
	if (add_folder(rules, d->chain->files[0]->path, CONFINE_READ | CONFINE_WRITE | CONFINE_CREATE, err))
		return -1;
	for (size_t i = 1; i < d->chain->count; i++) {
		const struct cow_file *file = d->chain->files[i];
		cleanup_free char *notes = cow_note_sidecar(file->path, err);

		if (!notes || add(rules, NULL, file->fd, CONFINE_READ, err) || add_text(rules, notes, CONFINE_READ, err))
			return -1;
	}
	return 0;
}

int serve_walls_files(const struct serve *s, struct error *err)
{
	__attribute__((cleanup(free_rules))) struct rules rules = {0};
	const struct strv *folders = s->options->folders;
	struct confine_spec spec = {0};
	char walls[CONFINE_WALLS_MAX] = "seccomp, ";

	for (size_t i = 0; i < s->count; i++)
		if (add_disk(&rules, &s->disks[i], err))
			return -1;
	for (size_t i = 0; folders && i < folders->count; i++)
		if (add(&rules, folders->items[i], -1, CONFINE_READ, err))
			return -1;
	spec.paths = rules.list;
	spec.path_count = rules.count;
	if (confine_landlock(&spec, walls, err))
		return -1;
	log_info("walls: %s", walls);
	return 0;
}
