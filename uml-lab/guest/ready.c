/*
 * Readiness.
 *
 * systemd tells: with NOTIFY_SOCKET in its environment, pid 1 sends READY=1 once
 * its first transaction is done (manager_notify_finished() in
 * src/core/manager.c) and STOPPING=1 when it goes down. No polling.
 *
 * Any other init is up when a getty, a login or a shell leads a session whose
 * controlling terminal is one of the login console's. That is found by looking
 * through /proc, often while the system comes up and not at all afterwards; only
 * processes younger than the agent count, so kernel threads cost nothing. Boot
 * scripts that lead a session on the console (sysvinit's rc) are told apart by name.
 *
 * An image that puts no login on the console is taken to be up when no process
 * was started for QUIET_MS.
 */
#include <dirent.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include "uml-lab/guest/ready.h"

#define LOOK_MS 30		/* until ready */
#define LOOK_LATE_MS 500	/* with systemd before it is ready; and for all after LOOK_LONG_MS */
#define LOOK_LONG_MS 60000
#define LOGIN_WAIT_MS 30000	/* a login that has not come so long after ready does not come */
#define QUIET_MS 3000

struct ready {
	bool is_ready, is_login;
	int64_t started, look_at;	/* look_at 0: no more */
	int64_t ready_at;
	unsigned long forks;		/* of the whole system, when last they changed */
	int64_t quiet_since;
};

/* Out of init's control group into the root one: the accounting and the end of init's own scope are not ours. */
static void leave_cgroup(void)
{
	if (guest_poke("/sys/fs/cgroup/cgroup.procs", "0") < 0)
		guest_poke("/sys/fs/cgroup/systemd/cgroup.procs", "0");
}

static void set_ready(struct agent *a, const char *phase)
{
	if (a->ready->is_ready)
		return;
	a->ready->is_ready = true;
	a->ready->ready_at = guest_now_ms();
	a->ready->look_at = a->ready->ready_at;
	leave_cgroup();
	agent_phase(a, "%s", phase);
}

static void notify_line(struct agent *a, const char *line)
{
	if (!strcmp(line, "READY=1"))
		set_ready(a, "ready");
	else if (!strcmp(line, "STOPPING=1"))
		agent_phase(a, "stopping");
}

static void notify_readable(struct agent *a, struct source *s, uint32_t events)
{
	char buf[4096], *rest, *line;
	ssize_t n;

	(void)events;
	while ((n = recv(s->fd, buf, sizeof(buf) - 1, MSG_DONTWAIT)) > 0) {
		buf[n] = '\0';
		rest = buf;
		while ((line = strsep(&rest, "\n")))
			notify_line(a, line);
	}
}

int ready_listen(struct agent *a, struct fault *f)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path + 1, AGENT_NOTIFY_SOCKET);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address,
			   offsetof(struct sockaddr_un, sun_path) + 1 + strlen(AGENT_NOTIFY_SOCKET)) < 0) {
		fault_errno(f, errno, "no socket to hear of systemd's readiness");
		if (fd >= 0)
			close(fd);
		return -1;
	}
	a->notify = (struct source){ .fn = notify_readable, .fd = fd, .epoll = a->epoll };
	source_watch(&a->notify, EPOLLIN);
	return 0;
}

void ready_start(struct agent *a)
{
	a->ready = calloc(1, sizeof(*a->ready));
	if (!a->ready)
		return;
	a->ready->started = a->ready->look_at = a->ready->quiet_since = guest_now_ms();
}

/* /proc/PID/stat's tty_nr is the device number as new_encode_dev() has it. */
static bool is_console(const struct agent *a, unsigned int tty)
{
	unsigned int number = (tty & 0xff) | (tty >> 12 & 0xfff00);
	char name[16];
	int i;

	if ((tty >> 8 & 0xfff) != 4)
		return false;
	snprintf(name, sizeof(name), "tty%u", number);
	for (i = 0; i < a->config.console_count; i++)
		if (!strcmp(a->config.consoles[i], name))
			return true;
	return !a->config.console_count && number < 64;
}

/* init: busybox's, which asks to press Enter before it starts the shell. */
static bool is_login_program(const char *name)
{
	static const char *const names[] = { "login", "sulogin", "sh", "bash", "ash", "dash", "zsh", "fish", "init" };
	size_t i;

	for (i = 0; i < GUEST_COUNT(names); i++)
		if (!strcmp(name, names[i]))
			return true;
	return strstr(name, "getty") != NULL;
}

static bool has_login(const struct agent *a, const char *pid)
{
	char path[64], *text, *open, *close;
	int session = 0, tty = 0;
	bool yes = false;

	snprintf(path, sizeof(path), "/proc/%.20s/stat", pid);
	text = guest_read_file(path, 1024, NULL);
	open = text ? strchr(text, '(') : NULL;
	close = open ? strrchr(open, ')') : NULL;
	if (close && sscanf(close + 1, " %*c %*d %*d %d %d", &session, &tty) == 2) {
		*close = '\0';
		yes = session == atoi(pid) && is_console(a, tty) && is_login_program(open + 1);
	}
	free(text);
	return yes;
}

static bool login_sits(const struct agent *a)
{
	DIR *proc = opendir("/proc");
	bool found = false;
	struct dirent *e;
	int own = getpid();

	while (proc && !found && (e = readdir(proc)))
		if (atoi(e->d_name) > own)
			found = has_login(a, e->d_name);
	if (proc)
		closedir(proc);
	return found;
}

/* Whether no process was started for long enough. */
static bool is_quiet(struct ready *r, int64_t now)
{
	char *text = guest_read_file("/proc/stat", 65536, NULL);
	char *line = text ? strstr(text, "\nprocesses ") : NULL;
	unsigned long forks = line ? strtoul(line + strlen("\nprocesses "), NULL, 10) : 0;

	free(text);
	if (forks != r->forks) {
		r->forks = forks;
		r->quiet_since = now;
	}
	return now - r->quiet_since >= QUIET_MS;
}

static int64_t next_look(const struct agent *a, int64_t now)
{
	const struct ready *r = a->ready;

	if (r->is_login || (r->is_ready && now - r->ready_at > LOGIN_WAIT_MS))
		return 0;
	if ((a->systemd && !r->is_ready) || now - r->started > LOOK_LONG_MS)
		return now + LOOK_LATE_MS;
	return now + LOOK_MS * (r->is_ready ? 4 : 1);
}

static void look(struct agent *a, int64_t now)
{
	struct ready *r = a->ready;

	if (login_sits(a)) {
		r->is_login = true;
		if (!a->systemd)
			set_ready(a, "ready");
		agent_console_size(a);
		agent_phase(a, "login");
	} else if (!a->systemd && !r->is_ready && is_quiet(r, now)) {
		set_ready(a, "ready no login on the console");
	}
	r->look_at = next_look(a, now);
}

int ready_tick(struct agent *a, int64_t now)
{
	if (!a->ready || !a->ready->look_at)
		return -1;
	if (now >= a->ready->look_at)
		look(a, now);
	if (!a->ready->look_at)
		return -1;
	return a->ready->look_at > now ? (int)(a->ready->look_at - now) : 0;
}
