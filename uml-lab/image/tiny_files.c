/* The files of the tiny image: what differs from an empty tree is here to read in one place. */
#include "uml-lab/image/files.h"

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

/* tty0, not the console: only a real terminal can control jobs. The agent unmounts, after the last has ended (guest/power.c). */
static const char inittab[] = "::sysinit:/etc/init.d/rcS\n"
			      "tty0::respawn:-/bin/sh\n"
			      "::ctrlaltdel:/sbin/poweroff\n";

static const char profile[] =
	"export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
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
static const char dhcp_script[] =
	"#!/bin/sh\n"
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

static const char group[] =
	"root:x:0:\ndaemon:x:1:\nsys:x:3:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\nwheel:x:10:\nusers:x:100:\n"
	"nogroup:x:65534:\n";

static const char services[] =
	"echo 7/tcp\necho 7/udp\ndiscard 9/tcp\ndiscard 9/udp\nftp 21/tcp\nssh 22/tcp\n"
	"telnet 23/tcp\nsmtp 25/tcp\ndomain 53/tcp\ndomain 53/udp\nbootps 67/udp\n"
	"bootpc 68/udp\ntftp 69/udp\nhttp 80/tcp\npop3 110/tcp\nntp 123/udp\nimap2 143/tcp\n"
	"snmp 161/udp\nhttps 443/tcp\nsyslog 514/udp\n";

static const char protocols[] =
	"ip 0 IP\nicmp 1 ICMP\nigmp 2 IGMP\ntcp 6 TCP\nudp 17 UDP\ngre 47 GRE\nesp 50 IPSEC-ESP\n"
	"ospf 89 OSPFIGP\nipv6-icmp 58 IPv6-ICMP\n";

static const char os_release[] =
	"NAME=\"uml-lab tiny\"\nID=uml-lab-tiny\nPRETTY_NAME=\"uml-lab tiny (busybox)\"\n";

const struct image_file tiny_files[] = {
	IMAGE_FOLDER(".", 0755),
	IMAGE_FOLDER("bin", 0755),
	IMAGE_FOLDER("boot", 0755),
	IMAGE_FOLDER("dev", 0755),
	/* Enough to boot without devtmpfs. */
	IMAGE_NODE("dev/console", 0600, 5, 1),
	IMAGE_NODE("dev/null", 0666, 1, 3),
	IMAGE_NODE("dev/tty0", 0600, 4, 0),
	IMAGE_FOLDER("etc", 0755),
	IMAGE_FILE("etc/passwd", 0644, passwd),
	IMAGE_FILE("etc/shadow", 0640, shadow),
	IMAGE_FILE("etc/group", 0644, group),
	IMAGE_FILE("etc/shells", 0644, "/bin/sh\n/bin/ash\n"),
	IMAGE_FILE("etc/hostname", 0644, "tiny\n"),
	IMAGE_FILE("etc/hosts", 0644, "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
	IMAGE_FILE("etc/fstab", 0644,
		   "# The root disk is mounted before init runs; further disks may be listed here.\n"),
	IMAGE_FILE("etc/inittab", 0644, inittab),
	IMAGE_FOLDER("etc/init.d", 0755),
	IMAGE_FILE("etc/init.d/rcS", 0755, rc_script),
	IMAGE_FILE("etc/profile", 0644, profile),
	IMAGE_FOLDER("etc/profile.d", 0755),
	IMAGE_FILE("etc/services", 0644, services),
	IMAGE_FILE("etc/protocols", 0644, protocols),
	IMAGE_FILE("etc/resolv.conf", 0644, ""),
	IMAGE_FILE("etc/os-release", 0644, os_release),
	IMAGE_FOLDER("etc/udhcpc", 0755),
	IMAGE_FILE("etc/udhcpc/default.script", 0755, dhcp_script),
	IMAGE_FOLDER("home", 0755),
	IMAGE_LINK("init", "sbin/init"),
	IMAGE_FOLDER("lib", 0755),
	IMAGE_FOLDER("lib/modules", 0755),
	IMAGE_FOLDER("media", 0755),
	IMAGE_FOLDER("mnt", 0755),
	IMAGE_FOLDER("opt", 0755),
	IMAGE_FOLDER("proc", 0555),
	IMAGE_FOLDER("root", 0700),
	IMAGE_FOLDER("run", 0755),
	IMAGE_FOLDER("sbin", 0755),
	IMAGE_FOLDER("srv", 0755),
	IMAGE_FOLDER("sys", 0555),
	IMAGE_FOLDER("tmp", 01777),
	IMAGE_FOLDER("usr", 0755),
	IMAGE_FOLDER("usr/bin", 0755),
	IMAGE_FOLDER("usr/sbin", 0755),
	IMAGE_FOLDER("usr/local", 0755),
	IMAGE_FOLDER("usr/local/bin", 0755),
	IMAGE_FOLDER("usr/local/sbin", 0755),
	IMAGE_FOLDER("usr/share", 0755),
	IMAGE_LINK("usr/share/udhcpc", "/etc/udhcpc"), /* where busybox has it unless Debian built it */
	IMAGE_FOLDER("var", 0755),
	IMAGE_FOLDER("var/cache", 0755),
	IMAGE_FOLDER("var/lib", 0755),
	IMAGE_FOLDER("var/log", 0755),
	IMAGE_FOLDER("var/spool", 0755),
	IMAGE_FOLDER("var/tmp", 01777),
	IMAGE_FOLDER("var/www", 0755),
	IMAGE_LINK("var/lock", "/run/lock"),
	IMAGE_LINK("var/run", "/run"),
};

const size_t tiny_file_count = ARRAY_SIZE(tiny_files);
