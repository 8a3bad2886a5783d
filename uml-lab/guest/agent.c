/*
 * The agent's loop. Two epolls: one for the serial line and the other few
 * descriptors of the agent's own, and, watched by it as one descriptor, one for
 * all that belongs to channels. When more than AGENT_CONGESTED bytes wait for the
 * line, neither channels nor the line itself are read until they have gone: the
 * queue stays short whatever the programs write and the host asks.
 *
 * The agent outlives the image's init in spirit: it is pid 1's child from before
 * switch_root, in a session of its own, never killed for memory, and known to
 * systemd's last killing spree as one to spare (argv[0] begins with '@').
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "uml-lab/guest/agent.h"
#include "uml-lab/guest/channel.h"
#include "uml-lab/guest/network.h"
#include "uml-lab/guest/power.h"
#include "uml-lab/guest/ready.h"
#include "uml-lab/guest/settings.h"

#define READ_SIZE 16384
#define RESTORE_DELAY_MS 200	/* from a link's coming up to looking after its route: its manager goes first */

void source_watch(struct source *s, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = s };
	int op = !events ? EPOLL_CTL_DEL : s->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (s->fd < 0 || s->events == events)
		return;
	epoll_ctl(s->epoll, op, s->fd, &e);
	s->events = events;
}

void source_close(struct source *s)
{
	if (s->fd < 0)
		return;
	source_watch(s, 0);
	close(s->fd);
	s->fd = -1;
}

void agent_send(struct agent *a, uint16_t type, uint32_t channel, const void *payload, size_t length)
{
	if (frame_put(&a->out, type, channel, payload, length) < 0) {
		guest_say("the agent is out of memory");
		_exit(1);
	}
}

static void send_text(struct agent *a, uint16_t type, const char *fmt, va_list ap)
{
	char text[640];
	int n = vsnprintf(text, sizeof(text), fmt, ap);

	agent_send(a, type, 0, text, n < (int)sizeof(text) ? n : (int)sizeof(text) - 1);
}

void agent_phase(struct agent *a, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	send_text(a, FRAME_PHASE, fmt, ap);
	va_end(ap);
}

void agent_log(struct agent *a, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	send_text(a, FRAME_LOG, fmt, ap);
	va_end(ap);
}

static void send_hello(struct agent *a)
{
	struct frame_hello hello = { .version = FRAME_VERSION };
	struct utsname u;

	uname(&u);
	snprintf(hello.release, sizeof(hello.release), "%.*s", (int)sizeof(hello.release) - 1, u.release);
	agent_send(a, FRAME_HELLO, 0, &hello, sizeof(hello));
}

static void take_config(struct agent *a, const struct frame_view *v)
{
	if (a->stage != STAGE_HELLO || a->config_text.length + v->length > CONFIG_TEXT_MAX ||
	    buffer_add(&a->config_text, v->payload, v->length) < 0)
		agent_phase(a, "failed configuration that is too late or too long");
}

static void take_shutdown(struct agent *a, const struct frame_view *v)
{
	bool again = v->length == 6 && !memcmp(v->payload, "reboot", 6);

	if (!again && (v->length != 8 || memcmp(v->payload, "poweroff", 8))) {
		agent_phase(a, "failed SHUTDOWN is either poweroff or reboot");
		return;
	}
	power_thaw();
	power_shut_down(a, again);
}

static void take_console_size(struct agent *a, const struct frame_view *v)
{
	if (v->length != sizeof(struct frame_size))
		return;
	a->rows = frame_u16(v->payload);
	a->columns = frame_u16(v->payload + 2);
	agent_console_size(a);
}

static void answer(struct agent *a, int failed, const struct fault *f, const char *phase)
{
	if (failed)
		agent_phase(a, "failed %s", f->text);
	else
		agent_phase(a, "%s", phase);
}

static void thaw(struct agent *a)
{
	char text[48];

	snprintf(text, sizeof(text), "thawed %lld", (long long)power_thaw());
	agent_phase(a, text);
}

/* A frame for the machine as a whole. */
static void machine_frame(struct agent *a, const struct frame_view *v)
{
	struct fault f = { 0 };

	switch (v->type) {
	case FRAME_CONFIG:
		take_config(a, v);
		return;
	case FRAME_MOUNT:
		agent_mount(a);
		return;
	case FRAME_BOOT:
		agent_boot(a);
		return;
	case FRAME_SET_UP:
		if (a->stage == STAGE_HELLO)
			agent_phase(a, "failed the root file system is not mounted yet");
		else
			answer(a, settings_record_set_up(&f), &f, "set-up");
		return;
	case FRAME_SHUTDOWN:
		take_shutdown(a, v);
		return;
	case FRAME_CONSOLE_SIZE:
		take_console_size(a, v);
		return;
	case FRAME_FREEZE:
		answer(a, power_freeze(&f), &f, "frozen");
		return;
	case FRAME_THAW:
		thaw(a);
		return;
	case FRAME_PENDING:
		agent_pending(a, v->payload, v->length);
		return;
	case FRAME_PING:
		agent_phase(a, "pong");
		return;
	default:
		agent_send(a, FRAME_ERROR, 0, "\0\0\0\0unknown frame", 17);
	}
}

/* Acts on the frames that came, as long as the answers find room. Whether some may be left. */
static bool dispatch_frames(struct agent *a)
{
	struct frame_view v;
	size_t skipped = 0;
	bool more = true;

	while (a->out.length <= AGENT_CONGESTED && (more = frame_next(&a->in, &v, &skipped))) {
		if (v.channel)
			channel_frame(a, &v);
		else
			machine_frame(a, &v);
		frame_drop(&a->in, &v);
	}
	if (skipped) {
		agent_log(a, "%zu bytes on the serial line were no frame", skipped);
		agent_send(a, FRAME_ERROR, 0, "\0\0\0\0bytes that are no frame", 27);
	}
	return more;
}

static void link_ended(struct agent *a)
{
	guest_say("the agent's line is gone");
	source_close(&a->link);
}

static void link_flush(struct agent *a)
{
	ssize_t n;

	while (a->link.fd >= 0 && a->out.length) {
		n = write(a->link.fd, a->out.data + a->out.start, a->out.length);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			link_ended(a);
		if (n <= 0)
			break;
		buffer_consume(&a->out, n);
	}
}

static void link_event(struct agent *a, struct source *s, uint32_t events)
{
	uint8_t taken[4], *room;
	ssize_t n;
	int i;

	if (!(events & ~EPOLLOUT))
		return;
	room = buffer_reserve(&a->in, READ_SIZE);
	n = room ? read(s->fd, room, READ_SIZE) : -1;
	if (n > 0) {
		buffer_grow(&a->in, n);
		for (i = 0; i < 4; i++)
			taken[i] = n >> 8 * i;
		agent_send(a, FRAME_TAKEN, 0, taken, sizeof(taken));
	} else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		link_ended(a);
}

static void channels_event(struct agent *a, struct source *s, uint32_t events)
{
	struct epoll_event ready[16];
	struct source *each;
	int n, i;

	(void)events;
	n = epoll_wait(s->fd, ready, GUEST_COUNT(ready), 0);
	for (i = 0; i < n; i++) {
		each = ready[i].data.ptr;
		if (each->fd >= 0)
			each->fn(a, each, ready[i].events);
	}
}

static void links_event(struct agent *a, struct source *s, uint32_t events)
{
	(void)events;
	if (network_link_changed(s->fd, &a->config))
		a->restore_at = guest_now_ms() + RESTORE_DELAY_MS;
}

static int restore_tick(struct agent *a, int64_t now)
{
	if (!a->restore_at)
		return -1;
	if (now < a->restore_at)
		return a->restore_at - now;
	a->restore_at = 0;
	if (a->stage == STAGE_RUNNING)
		network_restore(&a->config);
	return -1;
}

/* What is read depends on how much waits to be written. */
static void watch_by_load(struct agent *a)
{
	bool congested = a->out.length > (a->congested ? AGENT_CONGESTED / 2 : AGENT_CONGESTED);

	a->congested = congested;
	source_watch(&a->channels_ready, congested ? 0 : EPOLLIN);
	source_watch(&a->link, (congested ? 0 : EPOLLIN) | (a->out.length ? EPOLLOUT : 0));
}

static int earlier(int x, int y)
{
	return x < 0 ? y : y < 0 || x < y ? x : y;
}

static void run_loop(struct agent *a)
{
	struct epoll_event ready[8];
	struct source *s;
	int timeout, n, i;
	int64_t now;
	sigset_t none;
	bool more;

	sigemptyset(&none);
	while (a->link.fd >= 0) {
		more = dispatch_frames(a);
		now = guest_now_ms();
		timeout = earlier(earlier(channel_tick(a, now), power_tick(now)),
				  earlier(ready_tick(a, now), restore_tick(a, now)));
		link_flush(a);
		watch_by_load(a);
		n = epoll_pwait(a->epoll, ready, GUEST_COUNT(ready), more && !a->congested ? 0 : timeout, &none);
		for (i = 0; i < n; i++) {
			s = ready[i].data.ptr;
			if (s->fd >= 0)
				s->fn(a, s, ready[i].events);
		}
	}
}

static int agent_init(struct agent *a, int link, int order_fd)
{
	const struct source none = { .fd = -1 };

	a->epoll = epoll_create1(EPOLL_CLOEXEC);
	a->channel_epoll = epoll_create1(EPOLL_CLOEXEC);
	if (a->epoll < 0 || a->channel_epoll < 0 || channel_init(a) < 0)
		return -1;
	a->notify = none;
	a->spool = -1;
	a->link = (struct source){ .fn = link_event, .fd = link, .epoll = a->epoll };
	a->channels_ready = (struct source){ .fn = channels_event, .fd = a->channel_epoll, .epoll = a->epoll };
	a->order = (struct source){ .fd = order_fd, .epoll = a->epoll };
	a->links = (struct source){ .fn = links_event, .fd = network_watch(), .epoll = a->epoll };
	source_watch(&a->links, EPOLLIN);
	return 0;
}

int agent_run(int link, int order_fd)
{
	static struct agent a;

	setsid();
	power_begin();
	signal(SIGHUP, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	guest_poke("/proc/self/oom_score_adj", "-1000");
	if (agent_init(&a, link, order_fd) < 0)
		return 1;
	send_hello(&a);
	run_loop(&a);
	return 0;
}
