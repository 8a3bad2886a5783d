/*
 * The command line of linux.uml.
 *
 * The kernel runs with RUNTIME/guest as its current folder, and all files
 * are named relative to it: ubd's paths can hold no ',' and ':' (ubd_kern.c,
 * ubd_setup_common()), no kernel argument can hold a blank, all of the line must
 * fit into 2048 bytes, and socket paths into 107. The disk server's sockets are
 * therefore "disk0", "disk1", …; ubd's disks and the initramfs are symbolic
 * links "disk0", "disk0.base", …, "initrd". The kernel does not rewrite a COW header whose backing file is
 * the same inode by another name (ubd_kern.c, path_requires_switch()).
 *
 * "noreboot" is not used: with it the exit of a guest that reboots looks like
 * a power-off. Without, UML exec()s argv[0] again; argv[0] is a name that does not
 * exist, so it tells "Failed to exec kernel" on its stderr and exits (um/os-Linux/main.c).
 */
#include <ctype.h>
#include <errno.h>
#include <linux/virtio_ids.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "netplug/netplug.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/machine/supervisor.h"

/* The descriptors launch.c gives: 0, 1, 2 are stdio. */
#define FD_CON0  3
#define FD_CON1  4
#define FD_AGENT 5

#define COMMAND_LINE_MAX 2048 /* arch/um/include/asm/setup.h */

/* Words that would take away what the supervisor relies on: exact names, and names followed by a number. */
static const char *const reserved_names[] = {
	"mem",    "umid",      "uml_dir",           "initrd",   "root",       "rdinit",
	"init",   "mconsole",  "console",           "hostfs",   "xterm",      "con",
	"ssl",    "ubd",       "virtio_uml.device", "noreboot", "rootfstype", "systemd.hostname",
	"--help", "--version", "--showconfig",      "noinitrd", "seccomp",
};
static const char *const reserved_numbered[] = {"con", "ssl", "ubd", "vec", "eth"};

static bool is_reserved(const char *word)
{
	size_t name = strcspn(word, "=");

	for (size_t i = 0; i < ARRAY_SIZE(reserved_names); i++)
		if (strlen(reserved_names[i]) == name && strncmp(word, reserved_names[i], name) == 0)
			return true;
	for (size_t i = 0; i < ARRAY_SIZE(reserved_numbered); i++)
		if (str_starts(word, reserved_numbered[i]) &&
		    isdigit((unsigned char)word[strlen(reserved_numbered[i])]))
			return true;
	return false;
}

int uml_args_check_word(const char *word, struct error *err)
{
	for (const char *p = word; *p; p++)
		if (*p <= ' ' || *p > '~' || *p == '"')
			return error_set(
				err, ERROR_LAB,
				"kernel_args: '%s' holds a blank, a quote or a character that is not ASCII",
				word);
	if (!*word || is_reserved(word))
		return error_set(err, ERROR_LAB, "kernel_args: '%.*s' is set by uml-lab itself",
				 (int)strcspn(word, "="), word);
	return 0;
}

/*
 * Our server's disks become vda, vdb, … in the order of these words (virtio_uml.c, vu_cmdline_set()). ubd is left out then: it
 * would look for a file root_fs, complain on the console, and keep a process for its I/O (ubd_kern.c).
 */
static int add_served_disks(const struct machine_spec *spec, struct strv *out, struct error *err)
{
	for (size_t i = 0; i < spec->disk_count; i++)
		if (strv_addf(out, err, "virtio_uml.device=" DISK_SOCKET "%zu:%d", i, VIRTIO_ID_BLOCK) < 0)
			return -1;
	return strv_add(out, "initcall_blacklist=ubd_init,ubd_driver_init", err);
}

static int add_disks(const struct machine_spec *spec, struct strv *out, struct error *err)
{
	if (!spec->ubd)
		return add_served_disks(spec, out, err);
	for (size_t i = 0; i < spec->disk_count; i++) {
		int failed = spec->disks[i].backing
				     ? strv_addf(out, err, "ubd%zu=disk%zu,disk%zu.base", i, i, i)
				     : strv_addf(out, err, "ubd%zu=disk%zu", i, i);
		if (failed)
			return -1;
	}
	return 0;
}

static int add_interfaces(const struct machine_spec *spec, struct strv *out, struct error *err)
{
	for (size_t i = 0; i < spec->interface_count; i++) {
		const struct machine_interface *iface = &spec->interfaces[i];
		const uint8_t *m = iface->mac;

		if (iface->vhost_user) { /* MAC and MTU come from the plug */
			if (strv_addf(out, err, "virtio_uml.device=eth%zu:%d", i, VIRTIO_ID_NET) < 0)
				return -1;
			continue;
		}
		if (strv_addf(out, err,
			      "vec%zu:transport=bess,dst=eth%zu,mac=%02x:%02x:%02x:%02x:%02x:%02x,mtu=%d", i,
			      i, m[0], m[1], m[2], m[3], m[4], m[5],
			      iface->mtu      ? iface->mtu
			      : iface->slirp ? NETPLUG_DEFAULT_MTU
					     : NETPLUG_VDE_MTU) < 0)
			return -1;
	}
	return 0;
}

/* Virtio file systems; the number is that of the device type (virtio 1.2, 5). */
static int add_shares(const struct machine_spec *spec, struct strv *out, struct error *err)
{
	for (size_t i = 0; i < spec->share_count; i++)
		if (strv_addf(out, err, "virtio_uml.device=share%zu:26", i) < 0)
			return -1;
	return 0;
}

/*
 * At boot the kernel measures which of its RAID-6 routines is fastest: 0.85 s, whatever the host, and most of what a small
 * machine's boot takes. It is left out where no RAID-6 can be (md needs four disks, btrfs three): a guest that makes one of loop
 * devices all the same would stop with an oops. A lab with initcall_blacklist= among its kernel_args decides itself.
 * Names: lib/raid6/algos.c up to 6.12, 7.2; a name that a kernel does not have is ignored (init/main.c).
 */
#define RAID6_DISKS 3

static int add_raid6(const struct machine_spec *spec, struct strv *out, struct error *err)
{
	if (spec->disk_count > RAID6_DISKS)
		return 0;
	for (size_t i = 0; i < spec->kernel_args.count; i++)
		if (str_starts(spec->kernel_args.items[i], "initcall_blacklist="))
			return 0;
	return strv_add(out, "initcall_blacklist=raid6_select_algo,raid6_init", err);
}

static int add_all(const struct machine_spec *spec, struct strv *out, struct error *err)
{
	/*
	 * loglevel=5: warnings and worse on the console, all of it in dmesg. net.ifnames=0: udev shall leave eth0 alone.
	 * con and ssl: Debian's defaults are xterms and BSD ptys.
	 */
	if (strv_addf(out, err, "mem=%lluK", (unsigned long long)(spec->memory >> 10)) < 0 ||
	    strv_add(out, "uml_dir=" SANDBOX_WRITABLE, err) < 0 || strv_add(out, "umid=m", err) < 0 ||
	    strv_add(out, "mconsole=notify:notify", err) < 0 || strv_add(out, "initrd=initrd", err) < 0 ||
	    strv_add(out, "con=null", err) < 0 || strv_add(out, "ssl=null", err) < 0 ||
	    strv_addf(out, err, "con0=fd:%d", FD_CON0) < 0 ||
	    strv_addf(out, err, "con1=fd:%d", FD_CON1) < 0 ||
	    strv_addf(out, err, "ssl0=fd:%d", FD_AGENT) < 0 || strv_add(out, "console=tty0", err) < 0 ||
	    strv_add(out, "loglevel=5", err) < 0 || strv_add(out, "net.ifnames=0", err) < 0 ||
	    strv_addf(out, err, "systemd.hostname=%s", spec->name) < 0)
		return -1;
	if (add_raid6(spec, out, err) < 0 || add_disks(spec, out, err) < 0 || add_interfaces(spec, out, err) < 0 ||
	    add_shares(spec, out, err) < 0)
		return -1;
	for (size_t i = 0; i < spec->kernel_args.count; i++)
		if (uml_args_check_word(spec->kernel_args.items[i], err) < 0 ||
		    strv_add(out, spec->kernel_args.items[i], err) < 0)
			return -1;
	return 0;
}

int uml_args_build(const struct machine_spec *spec, struct strv *out, struct error *err)
{
	size_t length = 0;

	if (add_all(spec, out, err) < 0)
		return -1;
	for (size_t i = 0; i < out->count; i++)
		length += strlen(out->items[i]) + 1;
	if (length + 64 > COMMAND_LINE_MAX)
		return error_set(err, ERROR_LAB,
				 "the kernel's command line is too long: %zu of at most %d bytes", length,
				 COMMAND_LINE_MAX - 64);
	return 0;
}

char *guest_path(const struct machine_spec *spec, const char *name, struct error *err)
{
	return str_printf(err, "%s/" GUEST_FOLDER "%s%s", spec->runtime, *name ? "/" : "", name);
}

static int link_as(const struct machine_spec *spec, const char *name, const char *target, struct error *err)
{
	cleanup_free char *path = guest_path(spec, name, err);

	if (!path)
		return -1;
	if ((unlink(path) < 0 && errno != ENOENT) || symlink(target, path) < 0)
		return error_errno(err, errno, "cannot make the link %s", path);
	return 0;
}

int uml_args_link(const struct machine_spec *spec, const char *initramfs, struct error *err)
{
	char name[40];

	if (link_as(spec, "initrd", initramfs, err) < 0)
		return -1;
	for (size_t i = 0; spec->ubd && i < spec->disk_count; i++) {
		const struct machine_disk *disk = &spec->disks[i];

		snprintf(name, sizeof(name), "disk%zu", i);
		if (link_as(spec, name, disk->path, err) < 0)
			return -1;
		snprintf(name, sizeof(name), "disk%zu.base", i);
		if (disk->backing && link_as(spec, name, disk->backing, err) < 0)
			return -1;
	}
	return 0;
}
