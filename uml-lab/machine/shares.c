/*
 * uml-hostfs: one process for all shares of the machine (hostfs/device.h). It is
 * started with the machine and again when it died. When it is given up (daemon.c), the
 * guest's requests get no answer any more but errors, since its devices are taken away.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/log.h"
#include "uml-lab/machine/supervisor.h"

#define PACKET_MAX 1024

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

/* "waits NAME HEAD UNIQUE PID", "answers NAME HEAD AT": an answer is known to have been given when its device goes on. */
static void take_wait(struct supervisor *sv, const char *text)
{
	bool answering = str_starts(text, "answers ");
	const char *name = strchr(text, ' ') + 1, *rest = name + strcspn(name, " ");
	struct share_device *d = find_device(sv, name, (size_t)(rest - name));
	unsigned int head, at = 0;
	uint64_t unique = 0;
	uint32_t pid = 0;
	size_t kept = 0;

	if (!d || (answering ? sscanf(rest, " %u %u", &head, &at) != 2
			     : sscanf(rest, " %u %" SCNu64 " %" SCNu32, &head, &unique, &pid) != 3))
		return;
	for (size_t i = 0; i < d->wait_count; i++)
		if (!d->waits[i].answering && !(answering && d->waits[i].head == head))
			d->waits[kept++] = d->waits[i];
	d->wait_count = kept;
	if (kept == SHARE_WAITS_MAX)
		return;
	d->waits[d->wait_count].head = head;
	d->waits[d->wait_count].at = at;
	d->waits[d->wait_count].unique = unique;
	d->waits[d->wait_count].pid = pid;
	d->waits[d->wait_count++].answering = answering;
	if (!answering)
		share_waits_begin(sv);
}

static void take_packet(struct supervisor *sv, const char *text)
{
	if (str_starts(text, "ready")) {
		log_info("uml-hostfs: %s", text);
		sv->shares.ready = true;
		for (size_t i = 0; i < sv->shares.count; i++)
			vhost_relay_join(&sv->shares.devices[i].relay);
		sv->shares.said_bye = false;
	} else if (str_starts(text, "gone ") || str_starts(text, "back ")) {
		take_note(sv, text);
	} else if (str_starts(text, "waits ") || str_starts(text, "answers ")) {
		take_wait(sv, text);
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
	if (n == 0)
		daemon_hung_up(&sv->shares.daemon);
}

static void forget_hostfs(struct supervisor *sv)
{
	struct shares *shares = &sv->shares;

	shares->ready = false;
	for (size_t i = 0; i < shares->count; i++)
		vhost_relay_part(&shares->devices[i].relay);
}

static void take_devices_away(struct supervisor *sv)
{
	struct shares *shares = &sv->shares;

	for (size_t i = 0; i < shares->count; i++)
		vhost_relay_close(&shares->devices[i].relay);
	shares->count = 0;
}

static int fill_argv(struct supervisor *sv, struct strv *argv, struct error *err)
{
	if (strv_add(argv, "--control-fd=3", err) < 0)
		return -1;
	for (size_t i = 0; i < sv->spec->share_count; i++)
		if (strv_addf(argv, err, "--share=%s", sv->spec->shares[i].text) < 0)
			return -1;
	return 0;
}

static const struct daemon_kind hostfs_kind = {
	.name = "uml-hostfs",
	.title = "uml-hostfs",
	.lost = "shares",
	.last_words = true,
	.delay_ms = 100,
	.arguments = fill_argv,
	.on_control = on_control,
	.gone = forget_hostfs,
	.given_up = take_devices_away,
};

static bool takes_connections(const struct vhost_relay *d)
{
	return d->sv->shares.ready;
}

static void forget_waits(struct vhost_relay *relay)
{
	relay->sv->shares.devices[relay->index].wait_count = 0;
}

/* "connect INDEX HOW [HEAD…]" (hostfs/device.h) with the other end of a pair. */
static int announce(struct vhost_relay *relay, int theirs)
{
	const struct share_device *d = &relay->sv->shares.devices[relay->index];
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} space = {0};
	char text[512];
	struct iovec iov = {text, 0};
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &space, .msg_controllen = sizeof(space)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&message);

	iov.iov_len = (size_t)snprintf(text, sizeof(text), "connect %zu %s", relay->index,
				       !relay->said_count              ? "fresh"
				       : relay->sv->shares.said_bye ? "resumed"
								    : "after-death");
	for (size_t i = 0; i < d->wait_count; i++) {
		size_t at = iov.iov_len;

		iov.iov_len += (size_t)snprintf(text + at, sizeof(text) - at, d->waits[i].answering ? " %u:%u" : " %u",
						d->waits[i].head, d->waits[i].at);
	}
	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &theirs, sizeof(int));
	return sendmsg(relay->sv->shares.daemon.control, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -1 : 0;
}

static const struct vhost_relay_kind relay_kind = {
	.daemon = "uml-hostfs",
	.ready = takes_connections,
	.announce = announce,
	.guest_gone = forget_waits,
};

static int open_device(struct supervisor *sv, size_t i, struct error *err)
{
	char name[32];

	snprintf(name, sizeof(name), "share%zu", i);
	return vhost_relay_listen(&sv->shares.devices[i].relay, sv, &relay_kind, i, name, err);
}

int shares_open(struct supervisor *sv, struct error *err)
{
	struct shares *shares = &sv->shares;

	if (!sv->spec->share_count)
		return 0;
	shares->devices = calloc(sv->spec->share_count, sizeof(*shares->devices));
	if (!shares->devices)
		return error_oom(err);
	for (; shares->count < sv->spec->share_count; shares->count++)
		if (open_device(sv, shares->count, err) < 0) {
			shares->count++; /* so that shares_close() looks at it too */
			return -1;
		}
	return daemon_open(&shares->daemon, sv, &hostfs_kind, err);
}

void shares_close(struct supervisor *sv)
{
	struct shares *shares = &sv->shares;

	loop_remove_timer(shares->look);
	shares->look = NULL;
	daemon_close(&shares->daemon);
	take_devices_away(sv);
	free(shares->devices);
	shares->devices = NULL;
}
