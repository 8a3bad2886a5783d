/*
 * Cleaning a disk that becomes a layer: what belongs to one machine and not to a
 * class goes (keys, machine-id, seeds, logs, histories, leases, temporary files, the mark of the first start).
 *
 * Runs in a process of its own, since the file system is what a guest made of it: before anything is looked at,
 * that process gives up all but this file and the programs of /usr. e2fsck replays the journal and checks; then
 * libext2fs removes, and what no file uses any more is zeroed, so that nothing deleted is handed on; e2fsck has the last word.
 */
#include <dirent.h>
#include <et/com_err.h>
#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "uml-lab/base/child.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/confine.h"
#include "uml-lab/image/image_internal.h"

#define FSCK_MS     300000
#define FSCK_OUTPUT (256u << 10)
#define DEPTH_MAX   64 /* of folders that are walked */

enum what {
	REMOVE,    /* the file */
	TRUNCATE,  /* a file that must be there, empty: keeps owner and mode */
	CONTENTS,  /* all below the folder */
	LOGS,      /* below the folder: old and binary logs go, others are emptied */
	FILES,     /* regular files directly in the folder */
	HISTORIES, /* shells' and editors' histories directly in the folder */
	HOMES,     /* the same in each folder of the folder */
};

static const struct {
	const char *path;
	enum what what;
} dirt[] = {
	{"/var/lib/uml-lab/set-up", REMOVE}, /* the set-up of labs on the layer has to run */
	{"/etc/machine-id", TRUNCATE},
	{"/var/lib/dbus/machine-id", REMOVE},
	{"/var/lib/systemd/random-seed", REMOVE},
	{"/var/lib/systemd/credential.secret", REMOVE},
	{"/var/lib/urandom/random-seed", REMOVE},
	{"/var/lib/dhcp", FILES},
	{"/var/lib/dhcpcd", FILES},
	{"/var/lib/NetworkManager", FILES},
	{"/var/cache/apt/archives", FILES},
	{"/var/log", LOGS},
	{"/tmp", CONTENTS},
	{"/var/tmp", CONTENTS},
	{"/root", HISTORIES},
	{"/home", HOMES},
};

struct cleaner {
	ext2_filsys fs;
	int fd; /* of the disk, for holes */
	enum what what;
	int depth;
	uint64_t removed;
	errcode_t failed;
};

/* ---- one file ---- */

static errcode_t release(ext2_filsys fs, ext2_ino_t ino, bool folder)
{
	union {
		struct ext2_inode_large large;
		struct ext2_inode small;
		char bytes[1024];
	} inode;
	size_t size = EXT2_INODE_SIZE(fs->super) < sizeof(inode) ? EXT2_INODE_SIZE(fs->super) : sizeof(inode);
	errcode_t code = ext2fs_read_inode_full(fs, ino, &inode.small, (int)size);

	if (!code && !folder && inode.small.i_links_count > 1) {
		inode.small.i_links_count--;
		return ext2fs_write_inode_full(fs, ino, &inode.small, (int)size);
	}
	if (!code && size >= sizeof(struct ext2_inode_large))
		code = ext2fs_free_ext_attr(fs, ino, &inode.large);
	if (!code && ext2fs_inode_has_valid_blocks2(fs, &inode.small))
		code = ext2fs_punch(fs, ino, &inode.small, NULL, 0, ~0ULL);
	if (code)
		return code;
	memset(&inode, 0, sizeof(inode));
	inode.small.i_dtime = (uint32_t)time(NULL);
	ext2fs_inode_alloc_stats2(fs, ino, -1, folder);
	return ext2fs_write_inode_full(fs, ino, &inode.small, (int)size);
}

static errcode_t empty(ext2_filsys fs, ext2_ino_t ino)
{
	struct ext2_inode inode;
	errcode_t code = ext2fs_read_inode(fs, ino, &inode);

	if (code || !LINUX_S_ISREG(inode.i_mode))
		return code;
	if (ext2fs_inode_has_valid_blocks2(fs, &inode))
		code = ext2fs_punch(fs, ino, &inode, NULL, 0, ~0ULL);
	if (!code)
		code = ext2fs_read_inode(fs, ino, &inode);
	if (!code)
		code = ext2fs_inode_size_set(fs, &inode, 0);
	return code ? code : ext2fs_write_inode(fs, ino, &inode);
}

/* Takes a name out of a folder; the folder must not be walked just now. */
static errcode_t take_out(struct cleaner *c, ext2_ino_t folder, const char *name, ext2_ino_t ino, bool is_folder)
{
	errcode_t code = ext2fs_unlink(c->fs, folder, name, ino, 0);
	struct ext2_inode parent;

	if (!code)
		code = release(c->fs, ino, is_folder);
	if (code || !is_folder)
		return code;
	/* ".." of the folder that went */
	code = ext2fs_read_inode(c->fs, folder, &parent);
	if (!code && parent.i_links_count > 2) {
		parent.i_links_count--;
		code = ext2fs_write_inode(c->fs, folder, &parent);
	}
	return code;
}

/* ---- folders ---- */

struct entry {
	ext2_ino_t ino;
	char name[EXT2_NAME_LEN + 1];
};

struct entries {
	struct entry *items;
	size_t count;
	bool failed;
};

static int collect(ext2_ino_t dir, int entry, struct ext2_dir_entry *dirent, int offset, int blocksize, char *buf, void *arg)
{
	struct entries *all = arg;
	struct entry *items;
	int length = ext2fs_dirent_name_len(dirent);

	(void)dir;
	(void)offset;
	(void)blocksize;
	(void)buf;
	if (entry != DIRENT_OTHER_FILE || !dirent->inode)
		return 0;
	items = reallocarray(all->items, all->count + 1, sizeof(*items));
	if (!items) {
		all->failed = true;
		return DIRENT_ABORT;
	}
	all->items = items;
	items[all->count].ino = dirent->inode;
	memcpy(items[all->count].name, dirent->name, (size_t)length);
	items[all->count++].name[length] = '\0';
	return 0;
}

static errcode_t list(ext2_filsys fs, ext2_ino_t folder, struct entries *out)
{
	errcode_t code = ext2fs_dir_iterate2(fs, folder, 0, NULL, collect, out);

	return code ? code : out->failed ? EXT2_ET_NO_MEMORY : 0;
}

static bool is_old_log(const char *name)
{
	const char *dot = strrchr(name, '.');

	return dot && (str_eq(dot, ".gz") || str_eq(dot, ".xz") || str_eq(dot, ".old") || str_eq(dot, ".journal") ||
		       str_eq(dot, ".journal~") || (dot[1] >= '0' && dot[1] <= '9' && !dot[2]));
}

static bool is_history(const char *name)
{
	return name[0] == '.' && (str_ends(name, "_history") || str_eq(name, ".lesshst") || str_eq(name, ".viminfo") ||
				  str_eq(name, ".wget-hsts"));
}

static errcode_t clean_folder(struct cleaner *c, ext2_ino_t folder);

static errcode_t clean_entry(struct cleaner *c, ext2_ino_t folder, const struct entry *e)
{
	struct ext2_inode inode;
	errcode_t code = ext2fs_read_inode(c->fs, e->ino, &inode);
	bool is_folder = LINUX_S_ISDIR(inode.i_mode), regular = LINUX_S_ISREG(inode.i_mode);

	if (code)
		return code;
	if (is_folder && (c->what == CONTENTS || c->what == LOGS || (c->what == HOMES && c->depth == 1)))
		code = clean_folder(c, e->ino);
	if (code)
		return code;
	if (c->what == LOGS && regular && !is_old_log(e->name))
		return inode.i_links_count == 1 ? empty(c->fs, e->ino) : 0;
	if (c->what == CONTENTS || ((c->what == LOGS || c->what == FILES) && regular) ||
	    ((c->what == HISTORIES || (c->what == HOMES && c->depth == 2)) && regular && is_history(e->name))) {
		c->removed++;
		return take_out(c, folder, e->name, e->ino, is_folder);
	}
	return 0;
}

static errcode_t clean_folder(struct cleaner *c, ext2_ino_t folder)
{
	struct entries all = {0};
	errcode_t code;

	if (++c->depth > DEPTH_MAX)
		return EXT2_ET_DIR_CORRUPTED;
	code = list(c->fs, folder, &all);
	for (size_t i = 0; !code && i < all.count; i++)
		code = clean_entry(c, folder, &all.items[i]);
	free(all.items);
	c->depth--;
	return code;
}

/* ---- the list ---- */

static errcode_t clean_path(struct cleaner *c, const char *path, enum what what)
{
	const char *slash = strrchr(path, '/');
	cleanup_free char *parent = str_printf(NULL, "%.*s", slash > path ? (int)(slash - path) : 1, path);
	ext2_ino_t folder, ino;
	struct ext2_inode inode;
	errcode_t code;

	if (!parent)
		return EXT2_ET_NO_MEMORY;
	/* What is not there is clean. */
	if (ext2fs_namei(c->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, parent, &folder) ||
	    ext2fs_lookup(c->fs, folder, slash + 1, (int)strlen(slash + 1), NULL, &ino))
		return 0;
	code = ext2fs_read_inode(c->fs, ino, &inode);
	if (code)
		return code;
	c->what = what;
	c->depth = 0;
	if (what == TRUNCATE)
		return empty(c->fs, ino);
	if (what != REMOVE)
		return LINUX_S_ISDIR(inode.i_mode) ? clean_folder(c, ino) : 0;
	if (LINUX_S_ISDIR(inode.i_mode))
		return 0;
	c->removed++;
	return take_out(c, folder, slash + 1, ino, false);
}

/* Host keys are whatever is called ssh_host_*. */
static errcode_t clean_host_keys(struct cleaner *c)
{
	struct entries all = {0};
	ext2_ino_t folder;
	errcode_t code;

	if (ext2fs_namei(c->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, "/etc/ssh", &folder))
		return 0;
	code = list(c->fs, folder, &all);
	for (size_t i = 0; !code && i < all.count; i++) {
		if (!str_starts(all.items[i].name, "ssh_host_"))
			continue;
		c->removed++;
		code = take_out(c, folder, all.items[i].name, all.items[i].ino, false);
	}
	free(all.items);
	return code;
}

/* ---- what no file uses ---- */

static void punch(const struct cleaner *c, blk64_t first, blk64_t count)
{
	/* A file system without holes keeps the blocks as they are, and the layer is larger. */
	fallocate(c->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(first * c->fs->blocksize),
		  (off_t)(count * c->fs->blocksize));
}

static void zero_free_blocks(const struct cleaner *c)
{
	blk64_t last = ext2fs_blocks_count(c->fs->super) - 1, at = c->fs->super->s_first_data_block, used;

	while (at <= last && !ext2fs_find_first_zero_block_bitmap2(c->fs->block_map, at, last, &at)) {
		if (ext2fs_find_first_set_block_bitmap2(c->fs->block_map, at, last, &used))
			used = last + 1;
		punch(c, at, used - at);
		at = used;
	}
}

static int clean_fs(const char *path, uint64_t *removed, struct error *err)
{
	struct cleaner c = {.fd = open(path, O_RDWR | O_CLOEXEC)};
	errcode_t code;

	if (c.fd < 0)
		return error_errno(err, errno, "cannot open %s", path);
	code = ext2fs_open(path, EXT2_FLAG_RW | EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &c.fs);
	if (!code)
		code = ext2fs_read_bitmaps(c.fs);
	for (size_t i = 0; !code && i < ARRAY_SIZE(dirt); i++)
		code = clean_path(&c, dirt[i].path, dirt[i].what);
	if (!code)
		code = clean_host_keys(&c);
	if (!code)
		code = ext2fs_flush(c.fs);
	if (!code)
		zero_free_blocks(&c);
	if (c.fs)
		ext2fs_close_free(&c.fs);
	close(c.fd);
	*removed = c.removed;
	return code ? error_set(err, ERROR_FAILED, "cannot clean the file system: %s", error_message(code)) : 0;
}

/* ---- the process ---- */

/* e2fsck -p mends what can be mended without a doubt, and replays the journal. */
static int check(const char *path, struct error *err)
{
	cleanup_free char *program = image_program("e2fsck", "e2fsprogs", err), *output = NULL;
	const char *const argv[] = {program, "-f", "-p", path, NULL};
	const struct child_spec spec = {.argv = argv, .null_stdin = true};
	int status;

	if (!program || child_capture(&spec, FSCK_MS, FSCK_OUTPUT, true, &output, &status, err) < 0)
		return -1;
	if (WIFEXITED(status) && WEXITSTATUS(status) <= 1)
		return 0;
	error_set(err, ERROR_FAILED, "the root disk holds no ext4 that is sound: e2fsck says: %.600s", output);
	return error_hint(err, "boot the machine, mend it, and stop it with `uml-lab down`; or --as-is");
}

int image_clean_disk(const char *path, uint64_t *removed, struct error *err)
{
	const struct confine_path paths[] = {
		{.path = path, .access = CONFINE_READ | CONFINE_WRITE},
		{.path = "/usr", .access = CONFINE_READ | CONFINE_EXECUTE},
		{.path = "/bin", .access = CONFINE_READ | CONFINE_EXECUTE},
		{.path = "/sbin", .access = CONFINE_READ | CONFINE_EXECUTE},
		{.path = "/lib", .access = CONFINE_READ | CONFINE_EXECUTE},
		{.path = "/lib64", .access = CONFINE_READ | CONFINE_EXECUTE},
		{.path = "/etc", .access = CONFINE_READ},
		{.path = "/proc", .access = CONFINE_READ},
		{.path = "/sys", .access = CONFINE_READ},
		{.path = "/dev/null", .access = CONFINE_READ | CONFINE_WRITE},
	};
	const struct confine_spec spec = {.paths = paths, .path_count = ARRAY_SIZE(paths)};
	char walls[CONFINE_WALLS_MAX];

	if (confine_self(&spec, walls, err) < 0 || check(path, err) < 0 || clean_fs(path, removed, err) < 0)
		return -1;
	return check(path, err);
}
