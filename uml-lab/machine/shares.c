/*
 * uml-hostfs: one process for all shares of the machine (hostfs/device.h). It is
 * started with the machine and again when it died, ever more slowly, and no more after
 * DEATHS_MAX quick deaths: the guest's requests then get no answer any more but errors,
 * since its devices are taken away.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/log.h"
#include "uml-lab/machine/supervisor.h"

#define QUICK_MS     10000
#define DEATHS_MAX   8
#define DELAY_MS     100 /* doubled with each quick death */
#define END_GRACE_MS 2000
#define PACKET_MAX   1024

static void start_hostfs(struct supervisor *sv);

static struct share_device *find_device(struct supervisor *sv, const char *name, size_t length)
{
	for (size_t i = 0; i < sv->shares.count; i++)
		if (strlen(sv->spec->shares[i].name) == length &&
		    memcmp(sv->spec->shares[i].name, name, length) == 0)
			return &sv->shares.devices[i];
	return NULL;
}

/* "gone NAME TEXT", "back NAME TEXT" */
static void take_note(struct supervisor *sv, const char *text)
{
	bool gone = str_starts(text, "gone ");
	const char *name = text + strlen("gone ");
	size_t length = strcspn(name, " ");
	struct share_device *d = find_device(sv, name, length);
	const char *what = name[length] ? name + length + 1 : "";

	if (!d)
		return;
	console_note(sv, "share %.*s: %s", (int)length, name, what);
	snprintf(d->problem, sizeof(d->problem), "%s", gone ? what : "");
	supervisor_tell(sv);
}

static void take_packet(struct supervisor *sv, const char *text)
{
	if (str_starts(text, "ready")) {
		log_info("uml-hostfs: %s", text);
		sv->shares.ready = true;
		for (size_t i = 0; i < sv->shares.count; i++)
			share_join(&sv->shares.devices[i]);
		sv->shares.said_bye = false;
	} else if (str_starts(text, "gone ") || str_starts(text, "back ")) {
		take_note(sv, text);
	} else if (str_eq(text, "bye")) {
		sv->shares.said_bye = true;
	} else if (str_starts(text, "failed ")) {
		log_warn("uml-hostfs: %s", text + strlen("failed "));
	}
}

static void on_control(void *arg, int fd, uint32_t events)
{
	struct supervisor *sv = arg;
	char text[PACKET_MAX];
	ssize_t n;

	(void)events;
	while ((n = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT)) > 0) {
		text[n] = '\0';
		take_packet(sv, text);
	}
	if (n == 0) { /* its end is seen by its pidfd */
		loop_remove_fd(sv->shares.control_source);
		sv->shares.control_source = NULL;
	}
}

static void forget_hostfs(struct supervisor *sv)
{
	struct shares *shares = &sv->shares;

	loop_remove_fd(shares->control_source);
	loop_remove_fd(shares->child_source);
	shares->control_source = shares->child_source = NULL;
	if (shares->control >= 0)
		close(steal_fd(&shares->control));
	shares->id = (struct process_id){0};
	shares->ready = false;
	for (size_t i = 0; i < shares->count; i++)
		share_part(&shares->devices[i]);
}

static void schedule(struct supervisor *sv)
{
	struct shares *shares = &sv->shares;

	shares->quick_deaths = loop_now_ms() - shares->last_start_ms < QUICK_MS ? shares->quick_deaths + 1 : 0;
	if (shares->quick_deaths <= DEATHS_MAX) {
		loop_arm_timer(shares->timer, shares->quick_deaths ? DELAY_MS << (shares->quick_deaths - 1) : 0);
		return;
	}
	log_warn("uml-hostfs keeps ending: the machine goes on without shares");
	console_note(sv, "uml-hostfs keeps ending: no shares any more");
	for (size_t i = 0; i < shares->count; i++)
		share_close(&shares->devices[i]);
	shares->count = 0;
}

static void on_death(void *arg, int fd, uint32_t events)
{
	struct supervisor *sv = arg;
	char how[64];
	int status = 0;

	(void)fd;
	(void)events;
	loop_remove_fd(sv->shares.child_source);
	sv->shares.child_source = NULL;
	child_wait(&sv->shares.child, -1, &status, NULL);
	if (sv->shares.control_source) /* its last words */
		on_control(sv, sv->shares.control, 0);
	log_warn("uml-hostfs %s; another one is started", child_describe_status(status, how, sizeof(how)));
	forget_hostfs(sv);
	schedule(sv);
	supervisor_tell(sv);
}

static int fill_argv(struct supervisor *sv, struct strv *argv, struct error *err)
{
	if (strv_add(argv, sv->shares.program, err) < 0 || strv_add(argv, "--control-fd=3", err) < 0)
		return -1;
	for (size_t i = 0; i < sv->spec->share_count; i++)
		if (strv_addf(argv, err, "--share=%s", sv->spec->shares[i].text) < 0)
			return -1;
	return 0;
}

static int spawn(struct supervisor *sv, struct error *err)
{
	struct shares *shares = &sv->shares;
	cleanup_close int ours = -1, theirs = -1;
	cleanup_strv struct strv argv = STRV_INIT;
	int pair[2];

	if (fill_argv(sv, &argv, err) < 0)
		return -1;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return error_errno(err, errno, "cannot make a socket for uml-hostfs");
	ours = pair[0];
	theirs = pair[1];
	struct child_fd fds[] = {{theirs, 3}};
	struct child_spec spec = {.argv = (const char *const *)argv.items,
				  .fds = fds,
				  .fd_count = ARRAY_SIZE(fds),
				  .null_stdin = true,
				  .new_session = true,
				  .death_signal = SIGKILL,
				  .no_new_privs = true};

	if (child_spawn(&shares->child, &spec, err) < 0)
		return -1;
	process_identify(shares->child.pid, &shares->id);
	shares->control = steal_fd(&ours);
	shares->control_source = loop_add_fd(sv->loop, shares->control, EPOLLIN, on_control, sv, err);
	shares->child_source = loop_add_fd(sv->loop, shares->child.pidfd, EPOLLIN, on_death, sv, err);
	return shares->control_source && shares->child_source ? 0 : -1;
}

static void start_hostfs(struct supervisor *sv)
{
	struct error err = ERROR_INIT;

	sv->shares.last_start_ms = loop_now_ms();
	if (spawn(sv, &err) == 0) {
		supervisor_tell(sv);
		return;
	}
	log_error(&err);
	child_end(&sv->shares.child, 0);
	forget_hostfs(sv);
	schedule(sv);
}

static void on_timer(void *arg)
{
	start_hostfs(arg);
}

int shares_open(struct supervisor *sv, struct error *err)
{
	struct shares *shares = &sv->shares;

	if (!sv->spec->share_count)
		return 0;
	shares->program = dirs_own("uml-hostfs", err);
	if (!shares->program)
		return -1;
	shares->devices = calloc(sv->spec->share_count, sizeof(*shares->devices));
	if (!shares->devices)
		return error_oom(err);
	for (; shares->count < sv->spec->share_count; shares->count++)
		if (share_listen(sv, shares->count, &shares->devices[shares->count], err) < 0) {
			shares->count++; /* so that shares_close() looks at it too */
			return -1;
		}
	shares->timer = loop_add_timer(sv->loop, -1, on_timer, sv, err);
	if (!shares->timer)
		return -1;
	shares->last_start_ms = loop_now_ms();
	return spawn(sv, err);
}

void shares_close(struct supervisor *sv)
{
	struct shares *shares = &sv->shares;

	forget_hostfs(sv); /* closes the control socket: uml-hostfs ends by itself */
	if (shares->child.pid && child_wait(&shares->child, END_GRACE_MS, NULL, NULL) < 0)
		child_end(&shares->child, 0);
	for (size_t i = 0; i < shares->count; i++)
		share_close(&shares->devices[i]);
	free(shares->devices);
	free(shares->program);
	shares->devices = NULL;
	shares->program = NULL;
	shares->count = 0;
}
