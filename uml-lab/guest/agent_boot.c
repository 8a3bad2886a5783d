/* The requests that make the machine: MOUNT and BOOT, and the size of its console. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/guest/agent.h"
#include "uml-lab/guest/modules.h"
#include "uml-lab/guest/mount.h"
#include "uml-lab/guest/network.h"
#include "uml-lab/guest/ready.h"
#include "uml-lab/guest/settings.h"
#include "uml-lab/guest/spool.h"

static void note(void *arg, const char *text)
{
	agent_log(arg, "%s", text);
}

static bool wants_ipv6(const struct config *c)
{
	int i, k;

	for (i = 0; i < c->interface_count; i++)
		for (k = 0; k < c->interfaces[i].address_count; k++)
			if (c->interfaces[i].addresses[k].family == AF_INET6)
				return true;
	return c->gateway.family == AF_INET6;
}

/* Debian's 6.1 and 6.12 have IPv6 as a module; addresses can't be set before it is there. */
static void load_ipv6(struct agent *a)
{
	char folder[128];
	struct fault f;

	if (!wants_ipv6(&a->config) || access("/proc/net/if_inet6", F_OK) == 0)
		return;
	snprintf(folder, sizeof(folder), "/lib/modules/%s", a->config.modules_release);
	if (modules_load(folder, "ipv6", &f) < 0)
		agent_log(a, "%s", f.text);
}

/* A virtio network device needs its driver; UML's own transports are built in. */
static void load_virtio_net(struct agent *a)
{
	char folder[128];
	struct fault f;

	if (network_is_complete(&a->config))
		return;
	snprintf(folder, sizeof(folder), "/lib/modules/%s", a->config.modules_release);
	if (modules_load(folder, "virtio_net", &f) < 0)
		agent_log(a, "%s", f.text);
}

/* The line does without it. */
static void open_spool(struct agent *a)
{
	struct fault f;

	if (!a->config.spool[0] || a->spool >= 0)
		return;
	a->spool = spool_open(a->config.spool, &f);
	if (a->spool < 0)
		agent_log(a, "%s", f.text);
	else
		agent_phase(a, "spool");
}

/* Drivers are loaded only for a disk that needs them: ubd is built in. */
static int mount_image(struct agent *a, struct fault *f)
{
	if (!strncmp(a->config.root, "/dev/vd", 7) && modules_load_all(f) < 0)
		return -1;
	if (mount_root(a->config.root, a->config.has_room, f) < 0)
		return -1;
	if (chroot(MOUNT_ROOT) < 0 || chdir("/") < 0)
		return fault_errno(f, errno, "cannot enter the root file system");
	if (a->config.has_room)
		mount_keep_room(a->config.root, a->config.room);
	return 0;
}

void agent_mount(struct agent *a)
{
	struct fault f = { 0 };

	if (a->stage != STAGE_HELLO) {
		agent_phase(a, "failed the root file system is mounted already");
		return;
	}
	config_free(&a->config);
	if (config_parse(&a->config, (char *)a->config_text.data + a->config_text.start, a->config_text.length,
			 &f) < 0) {
		agent_phase(a, "failed %s", f.text);
		return;
	}
	open_spool(a);
	if (mount_image(a, &f) < 0) {
		agent_phase(a, "failed %s", f.text);
		return;
	}
	a->first = !settings_set_up();
	a->stage = STAGE_MOUNTED;
	mount_extras(&a->config, note, a);
	load_ipv6(a);
	load_virtio_net(a);
	network_set_up(&a->config, note, a);
	settings_apply(&a->config, a->first, note, a);
	agent_phase(a, "mounted %s", a->first ? "first" : "again");
}

/* Seen from the image's root, so that links lead where init will find them. */
static bool is_systemd(const char *init)
{
	char target[PATH_MAX];

	return realpath(init, target) && strstr(target, "systemd");
}

static int choose_init(const struct agent *a, struct order *o, struct fault *f)
{
	static const char *const usual[] = { "/sbin/init", "/etc/init", "/bin/init" };
	size_t i;

	memset(o, 0, sizeof(*o));
	snprintf(o->console, sizeof(o->console), "%s",
		 a->config.console_count ? a->config.consoles[0] : "console");
	if (a->config.init[0]) {
		strcpy(o->init, a->config.init);
		if (access(o->init, X_OK) < 0)
			return fault_errno(f, errno, "init %s", o->init);
		return 0;
	}
	for (i = 0; i < GUEST_COUNT(usual); i++) {
		if (access(usual[i], X_OK) == 0) {
			strcpy(o->init, usual[i]);
			return 0;
		}
	}
	o->own_init = true;
	return 0;
}

/* Pid 1 became init (the socket closed with exec), or tells why it could not. */
static void order_answered(struct agent *a, struct source *s, uint32_t events)
{
	struct fault f;
	ssize_t n = recv(s->fd, &f, sizeof(f), MSG_DONTWAIT);

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	source_close(s);
	if (n == sizeof(f)) {
		agent_phase(a, "failed %s", f.text);
		return;
	}
	a->stage = STAGE_RUNNING;
	agent_phase(a, a->own_init ? "init uml-lab's own: the image has none" : "init");
	ready_start(a);
}

void agent_boot(struct agent *a)
{
	struct fault f = { 0 };
	struct order o;

	if (a->stage != STAGE_MOUNTED) {
		agent_phase(a, "failed BOOT comes once, after MOUNT");
		return;
	}
	if (choose_init(a, &o, &f) < 0) {
		agent_phase(a, "failed %s", f.text);
		return;
	}
	a->own_init = o.own_init;
	a->systemd = o.notify = !o.own_init && is_systemd(o.init);
	if (a->systemd && ready_listen(a, &f) < 0)
		agent_log(a, "%s", f.text);
	a->order.fn = order_answered;
	source_watch(&a->order, EPOLLIN);
	if (send(a->order.fd, &o, sizeof(o), 0) != sizeof(o)) {
		agent_phase(a, "failed to tell pid 1 to boot");
		return;
	}
	a->stage = STAGE_BOOTING;
}

void agent_console_size(struct agent *a)
{
	struct winsize size = { .ws_row = a->rows, .ws_col = a->columns };
	char path[32];
	int fd, i;

	if (!a->rows || !a->columns)
		return;
	for (i = 0; i < a->config.console_count; i++) {
		snprintf(path, sizeof(path), "/dev/%s", a->config.consoles[i]);
		fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			continue;
		ioctl(fd, TIOCSWINSZ, &size);
		close(fd);
	}
}
