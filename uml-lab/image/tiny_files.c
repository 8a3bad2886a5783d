/* The files of the tiny image: what differs from an empty tree is here to read in one place. */
#include "uml-lab/image/tiny_files.h"

#include <sys/stat.h>

#include "uml-lab/base/cleanup.h"

/* Stage-0 may have mounted some or all of these; an image that is booted without it has none. */
static const char rc_script[] = "#!/bin/sh\n"
				"# Runs once at boot, before the console's shell.\n"
				"[ -e /proc/self/mounts ] || mount -t proc proc /proc\n"
				"\n"
				"# mount_once TYPE FOLDER OPTIONS\n"
				"mount_once() {\n"
				"\tgrep -q \"^[^ ]* $2 \" /proc/self/mounts && return\n"
				"\tmkdir -p \"$2\"\n"
				"\tmount -t \"$1\" -o \"$3\" \"$1\" \"$2\"\n"
				"}\n"
				"mount_once sysfs /sys nosuid,nodev,noexec\n"
				"mount_once devtmpfs /dev nosuid,mode=0755\n"
				"mount_once devpts /dev/pts nosuid,noexec,gid=5,mode=0620,ptmxmode=0666\n"
				"mount_once tmpfs /dev/shm nosuid,nodev\n"
				"mount_once tmpfs /run nosuid,nodev,mode=0755\n"
				"mount -o remount,rw /\n"
				"\n"
				"[ \"$(hostname)\" = '(none)' ] && hostname -F /etc/hostname\n"
				"ip link set lo up\n"
				"[ -x /etc/rc.local ] && /etc/rc.local\n"
				"exit 0\n";

/* tty0, not the console: only a real terminal can control jobs. */
static const char inittab[] = "::sysinit:/etc/init.d/rcS\n"
			      "tty0::respawn:-/bin/sh\n"
			      "::ctrlaltdel:/sbin/poweroff\n"
			      "::shutdown:/bin/umount -a -r\n";

static const char profile[] = "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
			      "export USER=\"${USER:-root}\" PAGER=less EDITOR=vi\n"
			      "[ \"$(id -u)\" = 0 ] && export HOME=/root\n"
			      "[ \"$PWD\" = / ] && cd\n"
			      "if [ \"$(id -u)\" = 0 ]; then PS1='\\u@\\h:\\w# '; else PS1='\\u@\\h:\\w$ '; fi\n"
			      "alias ll='ls -l'\n"
			      "for file in /etc/profile.d/*.sh; do\n"
			      "\t[ -r \"$file\" ] && . \"$file\"\n"
			      "done\n"
			      "unset file\n";

/* What udhcpc calls: sets address, routes and name servers. */
static const char dhcp_script[] = "#!/bin/sh\n"
				  "case \"$1\" in\n"
				  "deconfig)\n"
				  "\tip -4 addr flush dev \"$interface\"\n"
				  "\tip link set \"$interface\" up\n"
				  "\t;;\n"
				  "bound|renew)\n"
				  "\tip -4 addr flush dev \"$interface\"\n"
				  "\tip addr add \"$ip/${mask:-24}\" ${broadcast:+broadcast \"$broadcast\"} dev \"$interface\"\n"
				  "\tfor gateway in $router; do\n"
				  "\t\tip route replace default via \"$gateway\" dev \"$interface\"\n"
				  "\tdone\n"
				  "\t[ -z \"$dns\" ] && exit 0\n"
				  "\t{\n"
				  "\t\t[ -z \"$domain\" ] || echo \"search $domain\"\n"
				  "\t\tfor server in $dns; do echo \"nameserver $server\"; done\n"
				  "\t} > /etc/resolv.conf\n"
				  "\t;;\n"
				  "esac\n";

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
			     "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
			     "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";

/* Nobody has a password: the console needs none, and nothing else logs people in. */
static const char shadow[] = "root:*:19700:0:99999:7:::\n"
			     "daemon:*:19700:0:99999:7:::\n"
			     "nobody:*:19700:0:99999:7:::\n";

static const char group[] = "root:x:0:\ndaemon:x:1:\nsys:x:3:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\nwheel:x:10:\nusers:x:100:\n"
			    "nogroup:x:65534:\n";

static const char services[] = "echo 7/tcp\necho 7/udp\ndiscard 9/tcp\ndiscard 9/udp\nftp 21/tcp\nssh 22/tcp\n"
			       "telnet 23/tcp\nsmtp 25/tcp\ndomain 53/tcp\ndomain 53/udp\nbootps 67/udp\n"
			       "bootpc 68/udp\ntftp 69/udp\nhttp 80/tcp\npop3 110/tcp\nntp 123/udp\nimap2 143/tcp\n"
			       "snmp 161/udp\nhttps 443/tcp\nsyslog 514/udp\n";

static const char protocols[] = "ip 0 IP\nicmp 1 ICMP\nigmp 2 IGMP\ntcp 6 TCP\nudp 17 UDP\ngre 47 GRE\nesp 50 IPSEC-ESP\n"
				"ospf 89 OSPFIGP\nipv6-icmp 58 IPv6-ICMP\n";

static const char os_release[] = "NAME=\"uml-lab tiny\"\nID=uml-lab-tiny\nPRETTY_NAME=\"uml-lab tiny (busybox)\"\n";

#define FOLDER(path_, mode_)         { .path = path_, .mode = S_IFDIR | mode_ }
#define FILE_(path_, mode_, content_) { .path = path_, .mode = S_IFREG | mode_, .content = content_ }
#define LINK(path_, content_)        { .path = path_, .mode = S_IFLNK | 0777, .content = content_ }
#define NODE(path_, mode_, major_, minor_)                                                                             \
	{ .path = path_, .mode = S_IFCHR | mode_, .device_major = major_, .device_minor = minor_ }

const struct tiny_file tiny_files[] = {
	FOLDER(".", 0755),
	FOLDER("bin", 0755),
	FOLDER("boot", 0755),
	FOLDER("dev", 0755),
	/* Enough to boot without devtmpfs. */
	NODE("dev/console", 0600, 5, 1),
	NODE("dev/null", 0666, 1, 3),
	NODE("dev/tty0", 0600, 4, 0),
	FOLDER("etc", 0755),
	FILE_("etc/passwd", 0644, passwd),
	FILE_("etc/shadow", 0640, shadow),
	FILE_("etc/group", 0644, group),
	FILE_("etc/shells", 0644, "/bin/sh\n/bin/ash\n"),
	FILE_("etc/hostname", 0644, "tiny\n"),
	FILE_("etc/hosts", 0644, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
	FILE_("etc/fstab", 0644, "# The root disk is mounted before init runs; further disks may be listed here.\n"),
	FILE_("etc/inittab", 0644, inittab),
	FOLDER("etc/init.d", 0755),
	FILE_("etc/init.d/rcS", 0755, rc_script),
	FILE_("etc/profile", 0644, profile),
	FOLDER("etc/profile.d", 0755),
	FILE_("etc/services", 0644, services),
	FILE_("etc/protocols", 0644, protocols),
	FILE_("etc/resolv.conf", 0644, ""),
	FILE_("etc/os-release", 0644, os_release),
	FOLDER("home", 0755),
	LINK("init", "sbin/init"),
	FOLDER("lib", 0755),
	FOLDER("lib/modules", 0755),
	FOLDER("media", 0755),
	FOLDER("mnt", 0755),
	FOLDER("opt", 0755),
	FOLDER("proc", 0555),
	FOLDER("root", 0700),
	FOLDER("run", 0755),
	FOLDER("sbin", 0755),
	FOLDER("srv", 0755),
	FOLDER("sys", 0555),
	FOLDER("tmp", 01777),
	FOLDER("usr", 0755),
	FOLDER("usr/bin", 0755),
	FOLDER("usr/sbin", 0755),
	FOLDER("usr/local", 0755),
	FOLDER("usr/local/bin", 0755),
	FOLDER("usr/local/sbin", 0755),
	FOLDER("usr/share", 0755),
	FOLDER("usr/share/udhcpc", 0755),
	FILE_("usr/share/udhcpc/default.script", 0755, dhcp_script),
	FOLDER("var", 0755),
	FOLDER("var/cache", 0755),
	FOLDER("var/lib", 0755),
	FOLDER("var/log", 0755),
	FOLDER("var/spool", 0755),
	FOLDER("var/tmp", 01777),
	FOLDER("var/www", 0755),
	LINK("var/lock", "/run/lock"),
	LINK("var/run", "/run"),
};

const size_t tiny_file_count = ARRAY_SIZE(tiny_files);
