/*
 * What makes a Debian of mmdebstrap a good guest: packages, and the few files
 * that differ from a fresh installation. All are plain files that a student can
 * read, and override in the ways Debian documents.
 */
#include <sys/stat.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/image/files.h"

/* clang-format off */
const char *const debian_packages[] = {
	/* a system that boots */
	"systemd", "systemd-sysv", "udev", "dbus", "libpam-systemd", "kmod", "ca-certificates", "adduser",
	/* network */
	"iproute2", "iputils-ping", "iputils-tracepath", "traceroute", "mtr-tiny", "tcpdump", "nftables",
	"iptables", "ethtool", "net-tools", "netcat-openbsd", "telnet", "bind9-dnsutils", "curl", "wget", "rsync",
	"openssh-server", "openssh-client", "nginx-light", "dnsmasq-base",
	/* working at the shell */
	"nano", "vim-tiny", "less", "man-db", "manpages", "file", "tree", "bash-completion", "tmux", "bc",
	"xz-utils", "bzip2", "unzip",
	/* processes, services, users, disks */
	"lsof", "psmisc", "procps", "htop", "strace", "sudo", "cron", "logrotate", "rsyslog", "acl", "attr",
	"quota", "fdisk", "parted", "dosfstools", "e2fsprogs",
};
/* clang-format on */
const size_t debian_package_count = ARRAY_SIZE(debian_packages);

/*
 * The login console. UML's console is tty0, which systemd takes for a virtual
 * terminal and starts nothing on by itself. Root is logged in: who has the
 * console has the machine.
 */
static const char console[] = "[Unit]\n"
			      "ConditionPathExists=\n"
			      "[Service]\n"
			      "ExecStart=\n"
			      "ExecStart=-/sbin/agetty --autologin root --noclear %I $TERM\n"
			      "Environment=TERM=xterm-256color\n"
			      "TTYVTDisallocate=no\n"
			      "TTYReset=no\n"
			      "RestartSec=1\n";

/* One key, of the kind that takes no time to make: two machines of one image never share it. */
static const char ssh_keys[] =
	"[Unit]\n"
	"Description=SSH host key of this machine\n"
	"Before=ssh.service\n"
	"ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key\n"
	"[Service]\n"
	"Type=oneshot\n"
	"ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key\n"
	"[Install]\n"
	"WantedBy=multi-user.target\n";

/* A UML kernel has some 200 consoles and terminals, each of which would cost a process of udev's at every
 * start. */
static const char udev_trigger[] = "[Service]\n"
				   "ExecStart=\n"
				   "ExecStart=-/bin/udevadm trigger --type=devices --action=add "
				   "--subsystem-match=block --subsystem-match=net\n";

/* No virtual terminals to start logins on. */
static const char logind[] = "[Login]\nNAutoVTs=0\nReserveVT=0\n";

/* Run last of all. What the kernel says of its disks, when it takes them away from under their file systems, is of no use. */
static const char hush[] = "#!/bin/sh\n"
			   "echo 1 >/proc/sys/kernel/printk\n";

static const char hosts[] = "127.0.0.1\tlocalhost\n"
			    "::1\tlocalhost ip6-localhost ip6-loopback\n"
			    "ff02::1\tip6-allnodes\n"
			    "ff02::2\tip6-allrouters\n";

#define MASK(unit) IMAGE_LINK("etc/systemd/system/" unit, "/dev/null")

const struct image_file debian_files[] = {
	/* Empty, not missing: a new one is made at the first start, without the rest of a "first boot". */
	IMAGE_FILE("etc/machine-id", 0444, ""),
	IMAGE_LINK("var/lib/dbus/machine-id", "/etc/machine-id"),
	IMAGE_FILE("etc/hostname", 0644, "debian\n"),
	IMAGE_FILE("etc/hosts", 0644, hosts),
	IMAGE_FILE("etc/resolv.conf", 0644, ""),
	IMAGE_FILE("etc/fstab", 0644,
		   "# The root disk is mounted before init runs; further disks may be listed here.\n"),
	IMAGE_FILE("etc/default/locale", 0644, "LANG=C.UTF-8\n"),
	IMAGE_FILE("etc/locale.conf", 0644, "LANG=C.UTF-8\n"),

	IMAGE_FOLDER("etc/systemd/system/getty@tty0.service.d", 0755),
	IMAGE_FILE("etc/systemd/system/getty@tty0.service.d/uml-lab.conf", 0644, console),
	IMAGE_LINK("etc/systemd/system/getty.target.wants/getty@tty0.service",
		   "/lib/systemd/system/getty@.service"),
	IMAGE_FOLDER("etc/systemd/logind.conf.d", 0755),
	IMAGE_FILE("etc/systemd/logind.conf.d/uml-lab.conf", 0644, logind),

	IMAGE_FILE("etc/systemd/system/uml-lab-ssh-keys.service", 0644, ssh_keys),
	IMAGE_LINK("etc/systemd/system/multi-user.target.wants/uml-lab-ssh-keys.service",
		   "/etc/systemd/system/uml-lab-ssh-keys.service"),

	IMAGE_FILE("usr/lib/systemd/system-shutdown/uml-lab", 0755, hush),

	IMAGE_FOLDER("etc/systemd/system/systemd-udev-trigger.service.d", 0755),
	IMAGE_FILE("etc/systemd/system/systemd-udev-trigger.service.d/uml-lab.conf", 0644, udev_trigger),
	/* Newer than /usr: nothing there has to be taken over at the first start
	   (systemd-update-done.service(8)). */
	IMAGE_FILE("etc/.updated", 0644, ""),
	IMAGE_FILE("var/.updated", 0644, ""),

	/* networkd does what stage-0 tells it below /run/systemd/network; interfaces keep the names they
	   have. */
	IMAGE_LINK("etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
		   "/lib/systemd/system/systemd-networkd.service"),
	IMAGE_LINK("etc/systemd/network/99-default.link", "/dev/null"),

	/* What has no use in a lab machine and would make it start or run slower. */
	MASK("systemd-networkd-wait-online.service"),
	MASK("systemd-firstboot.service"),
	MASK("systemd-pstore.service"),
	MASK("e2scrub_reap.service"),
	MASK("e2scrub_all.timer"),
	MASK("fstrim.timer"),
	MASK("apt-daily.timer"),
	MASK("apt-daily-upgrade.timer"),
	MASK("dpkg-db-backup.timer"),
	MASK("man-db.timer"),
	MASK("getty@tty1.service"),
	MASK("dev-hugepages.mount"),
	MASK("sys-kernel-debug.mount"),
	MASK("sys-kernel-tracing.mount"),
	MASK("sys-kernel-config.mount"),
	MASK("sys-fs-fuse-connections.mount"),
	MASK("proc-sys-fs-binfmt_misc.automount"),
	MASK("modprobe@configfs.service"),
	MASK("modprobe@dm_mod.service"),
	MASK("modprobe@drm.service"),
	MASK("modprobe@fuse.service"),
	MASK("modprobe@loop.service"),
	MASK("systemd-random-seed.service"),
};
const size_t debian_file_count = ARRAY_SIZE(debian_files);

const char *const debian_unwanted[] = {
	"etc/ssh/ssh_host_rsa_key",
	"etc/ssh/ssh_host_rsa_key.pub",
	"etc/ssh/ssh_host_ecdsa_key",
	"etc/ssh/ssh_host_ecdsa_key.pub",
	"etc/ssh/ssh_host_ed25519_key",
	"etc/ssh/ssh_host_ed25519_key.pub",
	/* How the host built it: its proxy, and not to sync. */
	"etc/apt/apt.conf.d/99mmdebstrap",
	"etc/dpkg/dpkg.cfg.d/99mmdebstrap",
	/* Without it the journal stays in memory, and the overlay small; rsyslog writes what shall last. */
	"var/log/journal",
	/* Installed, started by the student. */
	"etc/systemd/system/multi-user.target.wants/nginx.service",
	"etc/systemd/system/multi-user.target.wants/quota.service",
	"etc/systemd/system/getty.target.wants/getty@tty1.service",
};
const size_t debian_unwanted_count = ARRAY_SIZE(debian_unwanted);
