/*
 * uml-lab capture SESSION/NETWORK|SESSION/MACHINE[:ethN] -w FILE|-: the frames of a running session as pcapng.
 *
 * Each interface is a stream of records from its uml-netplug (netplug/control.h, CAPTURE) over a socket that the
 * machine's supervisor connects to ours. Of a network each frame comes once, from the interface that sent it; of a
 * machine what its interfaces send and receive. The streams are merged by time as far as they are here, filtered,
 * and written. The plugs never wait for us: what we do not take in time they leave out, and count.
 *
 * An interface whose plug died is asked for again until its machine has ended. Ends well on Ctrl-C, when all
 * machines have ended, after --count frames, and when nobody reads the output any more.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "netplug/control.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/loop.h"
#include "uml-lab/cmd/cmd.h"
#include "uml-lab/cmd/pcapng.h"
#include "uml-lab/machine/client.h"

#define RECORD_MAX (sizeof(struct netplug_capture_record) + 65536)
#define ACCEPT_MS 5000
#define RETRY_MS 250		/* between attempts to get an interface back */
#define PER_TURN 4096		/* frames, then what was merged is written out */

struct capture_options {
	const char *write, *filter, *snaplen, *count;
};

static const struct cli_option options[] = {
	{"write", 'w', CLI_STRING, offsetof(struct capture_options, write), "FILE", "where to; - for standard output, into tshark"},
	{"filter", 'f', CLI_STRING, offsetof(struct capture_options, filter), "EXPR",
	 "only these, in tcpdump's language: \"icmp or arp\""},
	{"snaplen", 's', CLI_STRING, offsetof(struct capture_options, snaplen), "BYTES", "only the beginning of each frame"},
	{"count", 'c', CLI_STRING, offsetof(struct capture_options, count), "N", "end after N frames"},
	{NULL},
};

/* One interface. */
struct stream {
	char *machine, *interface;	/* "r1", "eth0" */
	int fd;				/* -1: away */
	bool over;			/* its machine has ended */
	int64_t retry_ms;		/* when to ask again */
	uint8_t *record;		/* the next one, if length */
	size_t length;
	uint64_t seen, dropped;		/* of this connection, as last told */
	uint64_t seen_before, dropped_before;	/* of those before */
};

struct capturing {
	const char *session;
	char *network;			/* NULL: of a machine */
	int listener;
	char socket[108];		/* its abstract name */
	uint32_t snaplen;
	int64_t count;			/* 0: without end */
	int64_t frames;
	struct pcap_filter *filter;
	struct stream *streams;
	size_t stream_count;
	FILE *out;
	bool unread;			/* the output's reader is gone */
	int signals;
};

/* ---- which interfaces ---- */

static int add_stream(struct capturing *c, const char *machine, const char *interface, struct error *err)
{
	struct stream *bigger = reallocarray(c->streams, c->stream_count + 1, sizeof(*bigger));
	struct stream *s;

	if (!bigger)
		return error_oom(err);
	c->streams = bigger;
	s = &c->streams[c->stream_count++];
	*s = (struct stream){.fd = -1, .machine = str_dup(machine, err), .interface = str_dup(interface, err),
			     .record = malloc(RECORD_MAX)};
	return s->machine && s->interface && s->record ? 0 : error_oom(err);
}

/* Interfaces of a running machine that are meant. */
static int add_machine(struct capturing *c, const json_t *machine, const char *wanted, const char *interface, struct error *err)
{
	const char *name = json_string_value(json_object_get(machine, "name"));
	const json_t *one;
	size_t i;

	if (wanted && !str_eq(name, wanted))
		return 0;
	json_array_foreach(json_object_get(json_object_get(machine, "live"), "interfaces"), i, one) {
		const char *eth = json_string_value(json_object_get(one, "name"));
		const char *network = json_string_value(json_object_get(one, "network"));

		if (eth && (!c->network || str_eq(network, c->network)) && (!interface || str_eq(eth, interface)) &&
		    add_stream(c, name, eth, err) < 0)
			return -1;
	}
	return 0;
}

/* "NETWORK" or "MACHINE[:ethN]" of the session. */
static int choose_streams(struct capturing *c, struct session *session, char *what, struct error *err)
{
	char *colon = strchr(what, ':');
	const json_t *machine;
	json_t *status;
	int result = 0;
	size_t i;

	if (lab_find_network(session->lab, what)) {
		c->network = str_dup(what, err);
		if (!c->network)
			return -1;
	} else {
		if (colon)
			*colon++ = '\0';
		if (!lab_find_machine(session->lab, what))
			return error_set(err, ERROR_NOT_FOUND, "session %s has neither a network nor a machine %s", session->name,
					 what);
	}
	status = session_status(session, err);
	if (!status)
		return -1;
	json_array_foreach(json_object_get(status, "machines"), i, machine)
		result = result < 0 ? result : add_machine(c, machine, c->network ? NULL : what, colon, err);
	json_decref(status);
	if (result == 0 && !c->stream_count)
		return error_set(err, ERROR_STATE, "no running machine has such an interface: %s/%s%s%s", session->name, what,
				 colon ? ":" : "", colon ?: "");
	return result;
}

/* ---- connections ---- */

/* An abstract socket, its name chosen by the kernel (unix(7), autobind): no file is left behind. */
static int listen_somewhere(struct capturing *c, struct error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t size = sizeof(address);

	c->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->listener < 0 || bind(c->listener, (struct sockaddr *)&address, sizeof(sa_family_t)) < 0 ||
	    listen(c->listener, 16) < 0 || getsockname(c->listener, (struct sockaddr *)&address, &size) < 0)
		return error_errno(err, errno, "make a socket for the capture");
	snprintf(c->socket, sizeof(c->socket), "%.*s", (int)(size - offsetof(struct sockaddr_un, sun_path) - 1),
		 address.sun_path + 1);
	return 0;
}

/* The supervisor's connection, which has been made when the request is answered. */
static int accept_stream(struct capturing *c, struct error *err)
{
	struct pollfd p = {.fd = c->listener, .events = POLLIN};
	cleanup_close int fd = -1;
	struct ucred peer;
	socklen_t size = sizeof(peer);

	do {
		if (poll(&p, 1, ACCEPT_MS) <= 0)
			return error_set(err, ERROR_TIMEOUT, "the supervisor did not connect to the capture");
		if (fd >= 0)
			close(fd);
		fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	} while (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.uid != geteuid());
	return steal_fd(&fd);
}

/* Asks for the interface's frames. -1 + err: ERROR_STATE when the machine has ended. */
static int open_stream(struct capturing *c, struct stream *s, struct error *err)
{
	cleanup_free char *machine = str_printf(err, "%s/%s", c->session, s->machine), *request = NULL, *answer = NULL;
	cleanup_close int control = machine ? session_connect(machine, err) : -1;

	if (control < 0)
		return -1;
	request = str_printf(err, "%s %s %u %s", s->interface, c->socket, c->snaplen, c->network ? "sent" : "all");
	answer = request ? machine_request(control, MACHINE_REQUEST_CAPTURE, request, err) : NULL;
	if (!answer) {
		err->kind = ERROR_FAILED;	/* the plug is away, not the machine */
		return -1;
	}
	s->fd = accept_stream(c, err);
	return s->fd < 0 ? -1 : 0;
}

static void lose_stream(struct stream *s)
{
	close(steal_fd(&s->fd));
	s->seen_before += s->seen;
	s->dropped_before += s->dropped;
	s->seen = s->dropped = 0;
	s->retry_ms = loop_now_ms();
}

/* Whether any interface is still there or may come back. */
static bool bring_back(struct capturing *c)
{
	bool any = false;

	for (struct stream *s = c->streams; s < c->streams + c->stream_count; s++) {
		struct error err = ERROR_INIT;

		if (s->fd < 0 && !s->over && loop_now_ms() >= s->retry_ms && open_stream(c, s, &err) < 0) {
			s->over = err.kind == ERROR_STATE || err.kind == ERROR_NOT_FOUND;
			s->retry_ms = loop_now_ms() + RETRY_MS;
		}
		any |= !s->over;
	}
	return any;
}

/* ---- frames ---- */

static const struct netplug_capture_record *record_of(const struct stream *s)
{
	return (const struct netplug_capture_record *)s->record;
}

/* Fetches the next record, if there is one and none is kept. */
static void fetch(struct stream *s)
{
	ssize_t n;

	if (s->fd < 0 || s->length)
		return;
	n = recv(s->fd, s->record, RECORD_MAX, MSG_DONTWAIT);
	if (n >= (ssize_t)(sizeof(struct netplug_capture_record) + NETPLUG_SNAPLEN_MIN))
		s->length = (size_t)n;
	else if (n >= 0 || (errno != EAGAIN && errno != EINTR))
		lose_stream(s);
}

static struct stream *oldest(struct capturing *c)
{
	struct stream *first = NULL;

	for (struct stream *s = c->streams; s < c->streams + c->stream_count; s++) {
		fetch(s);
		if (s->length && (!first || record_of(s)->time_ns < record_of(first)->time_ns))
			first = s;
	}
	return first;
}

static void write_frame(struct capturing *c, struct stream *s)
{
	const struct netplug_capture_record *r = record_of(s);
	struct pcapng_frame frame = {
		.interface = (uint32_t)(s - c->streams),
		.time_ns = r->time_ns,
		.data = s->record + sizeof(*r),
		.captured = (uint32_t)(s->length - sizeof(*r)),
		.length = r->length,
		.sent = r->sent,
		.dropped = r->dropped - s->dropped,
	};

	s->length = 0;
	s->seen = r->seen;
	s->dropped = r->dropped;
	if (c->filter && !pcap_filter_passes(c->filter, frame.data, frame.captured, frame.length))
		return;
	pcapng_frame(c->out, &frame);
	c->frames++;
}

/* False: enough frames. */
static bool write_frames(struct capturing *c)
{
	for (int i = 0; i < PER_TURN; i++) {
		struct stream *s = oldest(c);

		if (!s)
			return true;
		write_frame(c, s);
		if (c->count && c->frames >= c->count)
			return false;
	}
	return true;
}

/* Waits for frames, a signal, or the end of the output's reader. False: it is time to end. */
static bool wait_for_frames(struct capturing *c, struct pollfd *polls, struct error *err)
{
	bool away = false;
	nfds_t n = 0;

	polls[n++] = (struct pollfd){.fd = c->signals, .events = POLLIN};
	polls[n++] = (struct pollfd){.fd = fileno(c->out)};	/* POLLERR: a pipe without a reader */
	for (struct stream *s = c->streams; s < c->streams + c->stream_count; s++) {
		away |= s->fd < 0 && !s->over;
		polls[n++] = (struct pollfd){.fd = s->length ? -1 : s->fd, .events = POLLIN};
	}
	if (poll(polls, n, away ? RETRY_MS : -1) < 0 && errno != EINTR)
		return error_errno(err, errno, "wait for frames"), false;
	return !polls[0].revents && !(polls[1].revents & (POLLERR | POLLHUP));
}

/* A reader that went away is no failure. */
static int flush_output(struct capturing *c, struct error *err)
{
	if (fflush(c->out) == 0)
		return 0;
	if (errno != EPIPE)
		return error_errno(err, errno, "cannot write the capture");
	c->unread = true;
	__fpurge(c->out);
	clearerr(c->out);
	return 0;
}

static int capture(struct capturing *c, struct error *err)
{
	cleanup_free struct pollfd *polls = calloc(c->stream_count + 2, sizeof(*polls));
	bool on = polls;

	if (!polls)
		return error_oom(err);
	while (on && bring_back(c)) {
		on = wait_for_frames(c, polls, err) && write_frames(c);
		if (flush_output(c, err) < 0)
			return -1;
		on = on && !c->unread;
	}
	return err && err->kind ? -1 : 0;
}

/* ---- from beginning to end ---- */

static void write_header(struct capturing *c)
{
	pcapng_begin(c->out, "uml-lab " UML_LAB_VERSION);
	for (size_t i = 0; i < c->stream_count; i++) {
		const struct stream *s = &c->streams[i];
		cleanup_free char *name = str_printf(NULL, "%s:%s", s->machine, s->interface);
		cleanup_free char *description = str_printf(NULL, "session %s%s%s", c->session, c->network ? ", network " : "",
							    c->network ?: "");

		pcapng_interface(c->out, name ?: "", description ?: "", c->snaplen);
	}
}

static int write_end(struct capturing *c, struct error *err)
{
	uint64_t left_out = 0;
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	for (size_t i = 0; i < c->stream_count; i++) {
		const struct stream *s = &c->streams[i];

		pcapng_statistics(c->out, (uint32_t)i, (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec,
				  s->seen_before + s->seen, s->dropped_before + s->dropped);
		left_out += s->dropped_before + s->dropped;
	}
	if (flush_output(c, err) < 0)
		return -1;
	if (!cli_quiet)
		fprintf(stderr, "%lld frames captured, %llu left out because they were not taken in time\n", (long long)c->frames,
			(unsigned long long)left_out);
	return 0;
}

static int begin(struct capturing *c, struct error *err)
{
	for (struct stream *s = c->streams; s < c->streams + c->stream_count; s++)
		if (open_stream(c, s, err) < 0)
			return error_prefix(err, "%s:%s", s->machine, s->interface);
	write_header(c);
	return flush_output(c, err);
}

static int catch_signals(struct capturing *c, struct error *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	c->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return c->signals < 0 ? error_errno(err, errno, "cannot take signals") : 0;
}

static int open_output(struct capturing *c, const char *path, struct error *err)
{
	if (!str_eq(path, "-")) {
		c->out = fopen(path, "we");
		return c->out ? 0 : error_errno(err, errno, "cannot write %s", path);
	}
	if (isatty(STDOUT_FILENO)) {
		error_set(err, ERROR_USAGE, "a capture is nothing for a terminal");
		return error_hint(err, "uml-lab capture … -w - | tshark -r -");
	}
	c->out = stdout;
	return 0;
}

static int parse_options(struct capturing *c, const struct capture_options *o, struct error *err)
{
	int64_t snaplen = 0;

	if (!o->write) {
		error_set(err, ERROR_USAGE, "where shall the frames go?");
		return error_hint(err, "-w FILE, or: uml-lab capture SESSION/NETWORK -w - | tshark -r -");
	}
	if (o->snaplen && str_to_i64(o->snaplen, NETPLUG_SNAPLEN_MIN, 65535, &snaplen) < 0)
		return error_set(err, ERROR_USAGE, "--snaplen %s is not %d to 65535", o->snaplen, NETPLUG_SNAPLEN_MIN);
	if (o->count && str_to_i64(o->count, 1, INT64_MAX, &c->count) < 0)
		return error_set(err, ERROR_USAGE, "--count %s is not a number above 0", o->count);
	c->snaplen = (uint32_t)snaplen;
	c->filter = o->filter ? pcap_filter_new(o->filter, err) : NULL;
	return o->filter && !c->filter ? -1 : 0;
}

static int capture_all(struct capturing *c, const struct capture_options *o, struct error *err)
{
	if (listen_somewhere(c, err) < 0 || catch_signals(c, err) < 0 || open_output(c, o->write, err) < 0 || begin(c, err) < 0 ||
	    capture(c, err) < 0)
		return -1;
	return write_end(c, err);
}

static void release(struct capturing *c)
{
	for (size_t i = 0; i < c->stream_count; i++) {
		if (c->streams[i].fd >= 0)
			close(c->streams[i].fd);
		free(c->streams[i].machine);
		free(c->streams[i].interface);
		free(c->streams[i].record);
	}
	free(c->streams);
	free(c->network);
	pcap_filter_free(c->filter);
	if (c->out && c->out != stdout)
		fclose(c->out);
	if (c->listener >= 0)
		close(c->listener);
	if (c->signals >= 0)
		close(c->signals);
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	cleanup_free char *name = str_dup(operands->items[0], err), *session_name = NULL;
	char *what = name ? strchr(name, '/') : NULL;
	cleanup_session struct session *session = NULL;
	struct capturing c = {.listener = -1, .signals = -1};
	int result = -1;

	if (!what)
		return error_set(err, ERROR_USAGE, "'%s' names no network or machine; wanted: SESSION/NETWORK or "
						   "SESSION/MACHINE[:ethN]", operands->items[0]);
	*what++ = '\0';
	if (parse_options(&c, opaque, err) == 0 && session_resolve(name, &session_name, NULL, false, err) == 0)
		session = session_load(session_name, err);
	if (session) {
		c.session = session->name;
		if (choose_streams(&c, session, what, err) == 0)
			result = capture_all(&c, opaque, err);
	}
	release(&c);
	return result;
}

const struct cli_command cmd_capture = {
	.name = "capture",
	.operands = "SESSION/NETWORK|SESSION/MACHINE[:ethN]",
	.summary = "Capture the frames of a network or a machine, as pcapng",
	.help = "Of a network every frame is there once, from the interface that sent it; of a machine what its "
		"interfaces send and receive. Frames are those that a bad line lets through, when it does (uml-lab net). "
		"Ends on Ctrl-C, when the machines have ended, or when nobody reads any more. Live: "
		"uml-lab capture lab/lan -w - | tshark -r -",
	.options = options,
	.options_size = sizeof(struct capture_options),
	.min_operands = 1,
	.max_operands = 1,
	.run = run,
};
