/*
 * Mounting. The root device is tried with each file system that a UML kernel
 * has built in; mount() itself replays a dirty journal. /dev, /proc, /sys and
 * /run are mounted once, in the initramfs, and moved into the image's root as
 * every initramfs does: the image's init finds them there and leaves them alone.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "uml-lab/guest/modules.h"
#include "uml-lab/guest/mount.h"

#define ROOT_WAIT_MS 10000	/* ubd is there at once; virtio_blk needs its probe */
#define ROOT_POLL_MS 5
#define READ_AHEAD_KIB "1024" /* of shares */

static void mount_one(const char *source, const char *target, const char *type, unsigned long flags,
		      const char *data)
{
	mkdir(target, 0755);
	if (mount(source, target, type, flags, data) < 0 && errno != EBUSY)
		guest_say("cannot mount %s: %s", target, strerror(errno));
}

void mount_early(void)
{
	mount_one("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount_one("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	mount_one("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
	mount_one("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755");
}

/* Makes the node from what sysfs says, when devtmpfs has none. */
static bool make_node(const char *device)
{
	char path[128];
	unsigned int major_number, minor_number;
	char *text;
	int n;

	snprintf(path, sizeof(path), "/sys/class/block/%s/dev", device + strlen("/dev/"));
	text = guest_read_file(path, 32, NULL);
	n = text ? sscanf(text, "%u:%u", &major_number, &minor_number) : 0;
	free(text);
	return n == 2 && mknod(device, S_IFBLK | 0600, makedev(major_number, minor_number)) == 0;
}

/* The block devices there are, for a message. */
static void list_devices(char *out, size_t size)
{
	DIR *d = opendir("/sys/class/block");
	struct dirent *e;
	size_t n = 0;

	out[0] = '\0';
	while (d && (e = readdir(d)) && n + 1 < size)
		if (e->d_name[0] != '.')
			n += snprintf(out + n, size - n, " %s", e->d_name);
	if (d)
		closedir(d);
	if (!out[0])
		snprintf(out, size, " none");
}

static int wait_for_device(const char *device, struct fault *f)
{
	int64_t end = guest_now_ms() + ROOT_WAIT_MS;
	struct stat st;
	char seen[200];

	while (stat(device, &st) < 0 && !make_node(device)) {
		if (guest_now_ms() >= end) {
			list_devices(seen, sizeof(seen));
			return fault_set(f, "the root device %s did not appear within %d s; disks that did:%s", device,
					 ROOT_WAIT_MS / 1000, seen);
		}
		poll(NULL, 0, ROOT_POLL_MS);
	}
	return 0;
}

/* The kernel's last word on a device ("EXT4-fs (ubda): bad geometry…"), which says more than mount()'s errno. */
static void kernel_says(const char *device, char *out, size_t size)
{
	enum { READ_ALL = 3 };
	static char log[16384];
	const char *name = device + strlen("/dev/");
	char *line, *last = NULL, *rest = log, *bracket;
	int n = klogctl(READ_ALL, log, sizeof(log) - 1);

	out[0] = '\0';
	if (n <= 0)
		return;
	log[n] = '\0';
	while ((line = strsep(&rest, "\n")))
		if (strstr(line, name))
			last = line;
	if (!last)
		return;
	if (*last == '<')	/* "<4>", the level */
		last += strcspn(last, ">") + 1;
	bracket = *last == '[' ? strstr(last, "] ") : NULL;
	snprintf(out, size, " (the kernel: %.200s)", bracket ? bracket + 2 : last);
}

/* Tries each type; the errno kept is that of the type that knew the disk, if any did. */
static int mount_any(const char *device, const char *target, const char *options, struct fault *f)
{
	static const char *const types[] = { "ext4", "ext3", "ext2", "xfs", "btrfs" };
	int saved = EINVAL;
	char kernel[240];
	size_t i;

	for (i = 0; i < GUEST_COUNT(types); i++) {
		if (mount(device, target, types[i], 0, options) == 0)
			return 0;
		if (errno != EINVAL && errno != ENODEV && saved == EINVAL)
			saved = errno;
	}
	kernel_says(device, kernel, sizeof(kernel));
	if (saved == EINVAL)
		return fault_set(f, "%s holds no ext2, ext3, ext4, xfs or btrfs file system%s; "
				 "is it the right image?", device, kernel);
	return fault_errno(f, saved, "cannot mount the root file system on %s%s; check it with fsck, "
			   "or go back to a good state with uml-lab reset", device, kernel);
}

/* /run only when the image has such a folder: where it has not, nothing in the image knows it. */
static void move_into(const char *root, const char *folder, bool make)
{
	char target[64];

	snprintf(target, sizeof(target), "%s%s", root, folder);
	if (make)
		mkdir(target, 0755);
	if (mount(folder, target, NULL, MS_MOVE, NULL) < 0 && errno != ENOENT)
		guest_say("cannot move %s: %s", folder, strerror(errno));
}

int mount_root(const char *device, bool discard, struct fault *f)
{
	if (wait_for_device(device, f) < 0)
		return -1;
	mkdir(MOUNT_ROOT, 0755);
	if (mount_any(device, MOUNT_ROOT, discard ? "discard" : NULL, f) < 0)
		return -1;
	move_into(MOUNT_ROOT, "/dev", true);
	move_into(MOUNT_ROOT, "/sys", true);
	move_into(MOUNT_ROOT, "/run", false);
	move_into(MOUNT_ROOT, "/proc", true);
	return 0;
}

/* Bytes of the journal, or some more: one transaction may take a quarter or, on newer kernels, a third of it (jbd2, journal.c). */
static uint64_t journal_size(const char *name, unsigned long block)
{
	char path[128];
	unsigned long blocks = 0;
	char *text, *found;

	snprintf(path, sizeof(path), "/proc/fs/jbd2/%s-8/info", name);
	text = guest_read_file(path, 4096, NULL);
	found = text ? strstr(text, "each up to ") : NULL;
	if (found)
		blocks = strtoul(found + strlen("each up to "), NULL, 10);
	free(text);
	return (uint64_t)blocks * 4 * block;
}

/*
 * What the file system may give to files is less than the room: the journal goes round through places that the overlay
 * does not hold yet, changed blocks of the base need room as well, and so do bitmaps.
 */
void mount_keep_room(const char *device, uint64_t room)
{
	enum { SPARE = 1 << 20 };
	const char *name = device + strlen("/dev/");
	uint64_t spare, blocks;
	char path[128], text[32];
	struct statvfs fs;

	if (statvfs("/", &fs) < 0 || !fs.f_frsize)
		return;
	spare = journal_size(name, fs.f_frsize);
	spare = (spare < room / 2 ? spare : room / 2) + room / 8 + SPARE;
	blocks = (room > spare ? room - spare : 0) / fs.f_frsize;
	if (fs.f_bfree <= blocks)
		return;
	snprintf(path, sizeof(path), "/sys/fs/ext4/%s/reserved_clusters", name);
	snprintf(text, sizeof(text), "%llu", (unsigned long long)(fs.f_bfree - blocks));
	if (guest_poke(path, text) < 0)
		guest_say("cannot reserve blocks on %s: %s", device, strerror(errno));
}

bool mount_is_point(const char *path)
{
	char parent[256];
	struct stat here, above;

	if (snprintf(parent, sizeof(parent), "%s/..", path) >= (int)sizeof(parent))
		return false;
	return stat(path, &here) == 0 && stat(parent, &above) == 0 && here.st_dev != above.st_dev;
}

/* mount(2) with the host's path as data is what all kernels from 6.1 to 7.2 understand. */
int mount_hostfs(const char *path, const char *target, bool writable, struct fault *f)
{
	unsigned long flags = MS_NOSUID | MS_NODEV | (writable ? 0 : MS_RDONLY);

	if (mount("none", target, "hostfs", flags, path) < 0)
		return fault_errno(f, errno, "cannot mount the host's %s at %s", path, target);
	return 0;
}

/* A mount point that is missing is made in a tmpfs over /lib/modules: the image stays as it is. */
static int mount_modules(const struct config *c, struct fault *f)
{
	char target[128];
	struct stat st;

	snprintf(target, sizeof(target), "/lib/modules/%s", c->modules_release);
	if (stat(target, &st) < 0) {
		if (guest_mkdir_p("/lib/modules") < 0)
			return fault_errno(f, errno, "cannot make /lib/modules");
		if (mount("tmpfs", "/lib/modules", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") < 0 ||
		    mkdir(target, 0755) < 0)
			return fault_errno(f, errno, "cannot make %s", target);
	}
	return mount_hostfs(c->modules, target, false, f);
}

/*
 * Streams ask for READ_AHEAD_KIB at once, which is also the most that uml-hostfs gives: each request costs a
 * guest as much as copying some hundred KiB does. The kernel's own choice is 128. (AT_STATX_DONT_SYNC: the
 * device number needs no request.)
 */
static void read_further_ahead(const char *target)
{
	struct statx st;
	char path[64];

	if (statx(AT_FDCWD, target, AT_STATX_DONT_SYNC, 0, &st) < 0)
		return;
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", st.stx_dev_major, st.stx_dev_minor);
	if (guest_poke(path, READ_AHEAD_KIB) < 0)
		guest_say("cannot set %s: %s", path, strerror(errno));
}

/* What a share read-only brings is another's: no devices and no set-id programs of his. */
static int mount_share(const struct config_share *share, struct fault *f)
{
	if (guest_mkdir_p(share->target) < 0)
		return fault_errno(f, errno, "cannot make %s", share->target);
	if (mount(share->tag, share->target, "virtiofs",
		  share->writable ? 0 : MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) < 0)
		return fault_errno(f, errno, "cannot mount the share %s at %s", share->tag, share->target);
	read_further_ahead(share->target);
	return 0;
}

static void mount_shares(const struct config *c, mount_note_fn note, void *arg)
{
	struct fault fault, *f = &fault;
	char folder[128];
	int i;

	/* Built into some kernels: only mounting tells. */
	snprintf(folder, sizeof(folder), "/lib/modules/%s", c->modules_release);
	if (c->modules[0])
		modules_load(folder, "virtiofs", f);
	for (i = 0; i < c->share_count; i++)
		if (mount_share(&c->shares[i], f) < 0)
			note(arg, f->text);
}

void mount_extras(const struct config *c, mount_note_fn note, void *arg)
{
	struct fault f;

	if (c->modules[0] && mount_modules(c, &f) < 0)
		note(arg, f.text);
	if (c->share_count)
		mount_shares(c, note, arg);
}
