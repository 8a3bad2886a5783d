/*
 * Files in the image. All of it runs with the image's root as "/", so no
 * symbolic link leads out of it. A file that already says what it should is not
 * written: a machine that starts again leaves its overlay alone.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/guest/settings.h"

#define SET_UP "/var/lib/uml-lab/set-up"
#define HOSTS_MAX (1u << 20)	/* bytes of /etc/hosts that we are willing to rewrite */
#define BLOCK_BEGIN "# uml-lab: machines of this lab (written at each start)\n"
#define BLOCK_END "# uml-lab: end\n"

bool settings_set_up(void)
{
	return access(SET_UP, F_OK) == 0;
}

int settings_record_set_up(struct fault *f)
{
	int fd;

	if (guest_mkdir_p("/var/lib/uml-lab") < 0)
		return fault_errno(f, errno, "cannot make /var/lib/uml-lab");
	fd = open(SET_UP, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0 || syncfs(fd) < 0) {
		fault_errno(f, errno, "cannot record the set-up in " SET_UP);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	close(fd);
	return 0;
}

static void set_hostname(const struct config *c, bool first, mount_note_fn note, void *arg)
{
	char line[80];
	struct fault f;
	int n = snprintf(line, sizeof(line), "%s\n", c->hostname);

	if (!n || !c->hostname[0])
		return;
	if (sethostname(c->hostname, strlen(c->hostname)) < 0) {
		fault_errno(&f, errno, "cannot set the host name '%s'", c->hostname);
		note(arg, f.text);
	}
	if ((first || access("/etc/hostname", F_OK) < 0) && access("/etc", F_OK) == 0 &&
	    guest_put_file("/etc/hostname", line, n, 0644, &f) < 0)
		note(arg, f.text);
}

int settings_merge_hosts(const char *text, size_t length, const struct buffer *lines, struct buffer *out)
{
	const char *begin = memmem(text, length, BLOCK_BEGIN, strlen(BLOCK_BEGIN));
	const char *end = NULL, *stop = text + length;
	int bad = 0;

	if (begin)
		end = memmem(begin, stop - begin, BLOCK_END, strlen(BLOCK_END));
	if (!end)
		begin = end = stop;
	else
		end += strlen(BLOCK_END);
	bad |= buffer_add(out, text, begin - text);
	if (lines->length) {
		if (begin > text && begin[-1] != '\n')
			bad |= buffer_add(out, "\n", 1);
		bad |= buffer_add(out, BLOCK_BEGIN, strlen(BLOCK_BEGIN));
		bad |= buffer_add(out, lines->data + lines->start, lines->length);
		bad |= buffer_add(out, BLOCK_END, strlen(BLOCK_END));
	}
	bad |= buffer_add(out, end, stop - end);
	return bad ? -1 : 0;
}

/* Our own name belongs there too, or sudo and others wait for a name server that is not there. */
static int own_lines(const struct config *c, struct buffer *lines)
{
	char line[128];
	int bad = 0;

	if (c->hostname[0]) {
		snprintf(line, sizeof(line), "127.0.1.1\t%s\n", c->hostname);
		bad |= buffer_add(lines, line, strlen(line));
	}
	if (c->hosts.length)
		bad |= buffer_add(lines, c->hosts.data + c->hosts.start, c->hosts.length);
	return bad;
}

static void write_hosts(const struct config *c, mount_note_fn note, void *arg)
{
	static const char fresh[] = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
	struct buffer lines = { 0 }, merged = { 0 };
	size_t length = sizeof(fresh) - 1;
	char *old = guest_read_file("/etc/hosts", HOSTS_MAX, &length);
	struct fault f;

	if (old && length == HOSTS_MAX)
		note(arg, "/etc/hosts is too long to be changed");
	else if (own_lines(c, &lines) < 0 ||
		 settings_merge_hosts(old && length ? old : fresh, length ? length : sizeof(fresh) - 1, &lines,
				      &merged) < 0)
		note(arg, "no memory for /etc/hosts");
	else if (guest_put_file("/etc/hosts", (char *)merged.data, merged.length, 0644, &f) < 0)
		note(arg, f.text);
	free(old);
	buffer_free(&lines);
	buffer_free(&merged);
}

static bool has_nameserver(void)
{
	char *text = guest_read_file("/etc/resolv.conf", 65536, NULL);
	bool found = text && (!strncmp(text, "nameserver", 10) || strstr(text, "\nnameserver"));

	free(text);
	return found;
}

/*
 * A link into /run (systemd-resolved's, resolvconf's) whose target is not there
 * yet: the manager that owns it writes it later, and until then ours stands there.
 */
static void write_resolv(const struct config *c, mount_note_fn note, void *arg)
{
	char target[PATH_MAX], folder[PATH_MAX + 8];
	ssize_t n = readlink("/etc/resolv.conf", target, sizeof(target) - 1);
	struct fault f;
	char *slash;

	if (!c->resolv.length || has_nameserver())
		return;
	if (n > 0) {
		target[n] = '\0';
		snprintf(folder, sizeof(folder), "%s%s", target[0] == '/' ? "" : "/etc/", target);
		slash = strrchr(folder, '/');
		*slash = '\0';
		if (folder[0])
			guest_mkdir_p(folder);
	}
	if (guest_put_file("/etc/resolv.conf", (char *)c->resolv.data + c->resolv.start, c->resolv.length, 0644,
			   &f) < 0)
		note(arg, f.text);
}

/* A .network file in /run: below the image's own in /etc of the same name, above its catch-alls. */
static int network_text(const struct config *c, const struct config_interface *i, char *out, size_t size)
{
	char address[64];
	int n, k;

	n = snprintf(out, size, "# Written by uml-lab at each start.\n[Match]\nName=%s\n\n[Network]\n", i->name);
	if (i->slirp || i->dhcp)
		return n + snprintf(out + n, size - n, "DHCP=yes\n\n[DHCPv4]\nClientIdentifier=mac\n");
	for (k = 0; k < i->address_count; k++) {
		inet_ntop(i->addresses[k].family, i->addresses[k].bytes, address, sizeof(address));
		n += snprintf(out + n, size - n, "Address=%s/%d\n", address, i->addresses[k].prefix);
	}
	if (c->gateway.family && i == &c->interfaces[0]) {
		inet_ntop(c->gateway.family, c->gateway.bytes, address, sizeof(address));
		n += snprintf(out + n, size - n, "Gateway=%s\n", address);
	}
	return n;
}

static void write_networkd(const struct config *c, mount_note_fn note, void *arg)
{
	char path[96], text[2048];
	struct fault f;
	int i, n;

	if (access("/lib/systemd/systemd-networkd", X_OK) < 0 || !mount_is_point("/run"))
		return;
	guest_mkdir_p("/run/systemd/network");
	for (i = 0; i < c->interface_count; i++) {
		snprintf(path, sizeof(path), "/run/systemd/network/10-uml-lab-%s.network", c->interfaces[i].name);
		n = network_text(c, &c->interfaces[i], text, sizeof(text));
		if (guest_put_file(path, text, n, 0644, &f) < 0)
			note(arg, f.text);
	}
}

/*
 * Where the kernel's modules are mounted (mount.c). Who would unmount that with all else at the end finds it in use by
 * systemd-udevd, which goes down later, and tells of a failure in red: it is left to systemd-shutdown. Dashed names stand for all
 * units below (systemd.unit(5)).
 */
static void write_mount_units(mount_note_fn note, void *arg)
{
	static const char text[] = "[Unit]\nDefaultDependencies=no\n";
	static const char *const below[] = { "", "-" };
	char path[128], target[PATH_MAX];
	const char *prefix;
	struct fault f;

	if (access("/lib/systemd/systemd", X_OK) < 0 || !mount_is_point("/run") || !realpath("/lib/modules", target))
		return;
	prefix = strcmp(target, "/usr/lib/modules") ? "" : "usr-";
	for (size_t i = 0; i < GUEST_COUNT(below); i++) {
		snprintf(path, sizeof(path), "/run/systemd/system/%slib-modules%s.mount.d", prefix, below[i]);
		guest_mkdir_p(path);
		snprintf(path, sizeof(path), "/run/systemd/system/%slib-modules%s.mount.d/uml-lab.conf", prefix, below[i]);
		if (guest_put_file(path, text, sizeof(text) - 1, 0644, &f) < 0)
			note(arg, f.text);
	}
}

void settings_apply(const struct config *c, bool first, mount_note_fn note, void *arg)
{
	set_hostname(c, first, note, arg);
	if (access("/etc", F_OK) == 0) {
		write_hosts(c, note, arg);
		write_resolv(c, note, arg);
	}
	write_networkd(c, note, arg);
	if (c->modules[0])
		write_mount_units(note, arg);
}
