/*
 * The control socket: what console, exec, copy, status and down talk to.
 *
 * Each client is one connection. Its channels are mapped to the agent's (relay.c)
 * and die with it. Nobody's slowness is anybody else's: what waits for a client is
 * bounded (CLIENT_OUT_MAX; a channel's share is bounded by its window), console
 * output that a client does not take in time is left out for it, with a note,
 * and a client that breaks the protocol's rules is dropped.
 *
 * Who may connect: processes of the same user that do not live in the guest's
 * sandbox. A guest that broke out of UML must not command its own supervisor.
 *
 * A client that goes away while its own frame is being handled is only marked;
 * control_reap() frees it between two turns of the loop.
 */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/log.h"
#include "uml-lab/machine/supervisor.h"

#define CLIENTS_MAX         64
#define CLIENT_OUT_MAX      (8u << 20) /* a window of one-byte frames has 3.3 MiB */
#define CONSOLE_WAITING_MAX (512u << 10)
#define FAREWELL_MS         500 /* for the last frames, when the supervisor ends */

/* A channel of a client: its number for it, and the agent's side. */
struct client_channel {
	struct client_channel *next;
	struct client *client;
	uint32_t number;
	struct channel *channel;
};

struct client {
	struct client *next;
	struct supervisor *sv;
	uint64_t number;
	int fd; /* -1: gone */
	struct loop_fd *source;
	struct wire wire;
	struct client_channel *channels;
	bool watching, console, read_only;
	bool skipping;          /* console output was left out */
	uint16_t rows, columns; /* of its terminal, for the console */
};

/* ---- a client's life ---- */

/* What epoll is to wait for: reading unless the agent's line is full, writing when something waits. */
static void watch(struct client *client)
{
	uint32_t events = (client->sv->control.held ? 0 : EPOLLIN) | (client->wire.out.length ? EPOLLOUT : 0);

	loop_set_events(client->source, events);
}

/* The console is as large as its smallest watcher's terminal. */
static void resize_console(struct supervisor *sv)
{
	uint16_t rows = 0, columns = 0;

	for (struct client *c = sv->control.clients; c; c = c->next) {
		if (c->fd < 0 || !c->console)
			continue;
		if (c->rows && (!rows || c->rows < rows))
			rows = c->rows;
		if (c->columns && (!columns || c->columns < columns))
			columns = c->columns;
	}
	console_resize(sv, rows, columns);
}

static void drop(struct client *client)
{
	if (client->fd < 0)
		return;
	loop_remove_fd(client->source);
	client->source = NULL;
	close(steal_fd(&client->fd));
	while (client->channels) {
		struct client_channel *channel = client->channels;

		client->channels = channel->next;
		relay_abandon(client->sv, channel->channel);
		free(channel);
	}
	if (client->console)
		resize_console(client->sv);
	still_client_gone(client->sv, client->number);
}

static void flush(struct client *client)
{
	if (client->fd < 0)
		return;
	if (wire_write(&client->wire, client->fd) < 0) {
		drop(client);
		return;
	}
	if (client->skipping && !client->wire.out.length) {
		static const char note[] = "\r\n[uml-lab: output left out, this terminal was too slow]\r\n";

		client->skipping = false;
		wire_queue(&client->wire, FRAME_CONSOLE_DATA, 0, note, sizeof(note) - 1);
	}
	watch(client);
}

/* Queued or the client is dropped. */
static void sent(struct client *client, int queued)
{
	if (client->fd < 0)
		return;
	if (queued < 0) {
		log_warn("a client that does not read was dropped");
		drop(client);
		return;
	}
	flush(client);
}

void client_answer_text(struct client *client, enum frame_type type, const char *text)
{
	sent(client, wire_queue_text(&client->wire, type, 0, text));
}

void client_answer_failure(struct client *client, enum error_kind kind, const char *text)
{
	sent(client, wire_queue_failure(&client->wire, FRAME_FAILED, 0, kind, text));
}

void client_answer_done(struct client *client)
{
	sent(client, wire_queue(&client->wire, FRAME_DONE, 0, NULL, 0));
}

uint64_t client_number(const struct client *client)
{
	return client->number;
}

struct client *control_client(struct supervisor *sv, uint64_t number)
{
	for (struct client *c = sv->control.clients; c; c = c->next)
		if (c->number == number && c->fd >= 0)
			return c;
	return NULL;
}

/* ---- channels ---- */

static void forget_channel(struct client_channel *channel)
{
	struct client_channel **p = &channel->client->channels;

	while (*p != channel)
		p = &(*p)->next;
	*p = channel->next;
	free(channel);
}

/* A frame of the agent for one of our channels. */
static void from_agent(void *arg, const struct wire_frame *frame)
{
	struct client_channel *channel = arg;
	struct client *client = channel->client;
	int queued = wire_queue(&client->wire, frame->type, channel->number, frame->payload, frame->length);

	if (frame->type == FRAME_EXIT || frame->type == FRAME_ERROR)
		forget_channel(channel);
	sent(client, queued);
}

static struct client_channel *find_channel(struct client *client, uint32_t number)
{
	for (struct client_channel *c = client->channels; c; c = c->next)
		if (c->number == number)
			return c;
	return NULL;
}

static void open_channel(struct client *client, const struct wire_frame *frame)
{
	struct client_channel *channel = calloc(1, sizeof(*channel));
	struct error err = ERROR_INIT;

	if (!channel) {
		drop(client);
		return;
	}
	*channel = (struct client_channel){.client = client, .number = frame->channel};
	channel->channel = relay_open(client->sv, from_agent, channel, &err);
	if (!channel->channel) {
		free(channel);
		sent(client, wire_queue_failure(&client->wire, FRAME_ERROR, frame->channel, 0, err.message));
		return;
	}
	channel->next = client->channels;
	client->channels = channel;
	if (relay_send(client->sv, frame->type, channel->channel->id, frame->payload, frame->length) < 0)
		drop(client);
}

/* false: the frame breaks a rule. */
static bool channel_frame(struct client *client, const struct wire_frame *frame)
{
	struct client_channel *channel = find_channel(client, frame->channel);
	struct frame_credit credit;

	switch (frame->type) {
	case FRAME_EXEC:
	case FRAME_PUT:
	case FRAME_GET:
		if (channel)
			return false;
		open_channel(client, frame);
		return true;
	case FRAME_CREDIT:
		if (frame->length != sizeof(credit))
			return false;
		memcpy(&credit, frame->payload, sizeof(credit));
		if (channel && le32toh(credit.stream) == STREAM_OUT && credit.bytes)
			relay_credit(client->sv, channel->channel, le32toh(credit.bytes));
		return true;
	case FRAME_DATA_IN:
		return !channel || spool_send(client->sv, channel->channel->id, frame->payload, frame->length) == 0;
	case FRAME_WINDOW_SIZE:
	case FRAME_SIGNAL:
	case FRAME_CLOSE:
		/* One that has ended meanwhile is no mistake of the client. */
		if (channel && relay_send(client->sv, frame->type, channel->channel->id, frame->payload,
					  frame->length) < 0)
			return false;
		return true;
	default:
		return false;
	}
}

/* ---- requests ---- */

static void tell_state(struct client *client)
{
	struct supervisor *sv = client->sv;
	char text[ERROR_MESSAGE_MAX + 64];
	bool login = sv->state == MACHINE_READY && sv->boot.login;

	snprintf(text, sizeof(text), "%s%s%s%s", machine_state_name(sv->state), login ? " login" : "",
		 sv->cause[0] ? " " : "", sv->cause);
	sent(client, wire_queue(&client->wire, FRAME_STATE, 0, text, strlen(text)));
}

void client_answer_status(struct client *client)
{
	struct error err = ERROR_INIT;
	cleanup_free char *json = status_json(client->sv, &err);

	if (!json) {
		client_answer_failure(client, err.kind, err.message);
		return;
	}
	client_answer_text(client, FRAME_STATUS, json);
	client_answer_text(client, FRAME_STATUS, "");
}

static bool attach_console(struct client *client, const struct wire_frame *frame)
{
	cleanup_strbuf struct strbuf replay = STRBUF_INIT;
	struct frame_console request;

	if (frame->length != sizeof(request))
		return false;
	memcpy(&request, frame->payload, sizeof(request));
	client->console = true;
	client->read_only = request.read_only;
	client->rows = le16toh(request.size.rows);
	client->columns = le16toh(request.size.columns);
	console_replay(client->sv, le32toh(request.replay), &replay);
	for (size_t at = console_fit(&replay, client->rows, client->columns); at < replay.length;) {
		size_t piece =
			replay.length - at < FRAME_PAYLOAD_MAX ? replay.length - at : FRAME_PAYLOAD_MAX;

		if (wire_queue(&client->wire, FRAME_CONSOLE_DATA, 0, replay.data + at, piece) < 0)
			return false;
		at += piece;
	}
	flush(client);
	resize_console(client->sv);
	return true;
}

static bool stop_request(struct client *client, const struct wire_frame *frame)
{
	struct frame_stop request;
	uint32_t timeout;

	if (frame->length != sizeof(request))
		return false;
	memcpy(&request, frame->payload, sizeof(request));
	timeout = le32toh(request.timeout_ms);
	client->watching = true;
	supervisor_stop(client->sv, request.force, timeout < INT32_MAX ? (int)timeout : INT32_MAX);
	tell_state(client);
	return true;
}

static bool resize_request(struct client *client, const struct wire_frame *frame)
{
	struct frame_size size;

	if (frame->length != sizeof(size))
		return false;
	memcpy(&size, frame->payload, sizeof(size));
	client->rows = le16toh(size.rows);
	client->columns = le16toh(size.columns);
	resize_console(client->sv);
	return true;
}

/* false: the frame breaks a rule. */
static bool machine_frame(struct client *client, const struct wire_frame *frame)
{
	cleanup_free char *text = NULL;

	switch (frame->type) {
	case FRAME_STATUS:
		status_request(client->sv, client);
		return true;
	case FRAME_WATCH:
		client->watching = true;
		tell_state(client);
		return true;
	case FRAME_CONSOLE:
		return attach_console(client, frame);
	case FRAME_CONSOLE_DATA:
		if (client->console && !client->read_only)
			console_input(client->sv, frame->payload, frame->length);
		return client->console;
	case FRAME_CONSOLE_SIZE:
		return resize_request(client, frame);
	case FRAME_STOP:
		return stop_request(client, frame);
	case FRAME_DISK:
		text = wire_text(frame);
		if (text)
			disk_ask(client->sv, client, text);
		return text;
	case FRAME_STILL:
		text = wire_text(frame);
		if (text)
			still_request(client->sv, client, text);
		return text;
	case FRAME_FORWARD:
	case FRAME_IMPAIR:
	case FRAME_CAPTURE:
		text = wire_text(frame);
		if (text)
			(frame->type == FRAME_FORWARD ? plug_forward :
			 frame->type == FRAME_IMPAIR  ? plug_impair :
							plug_capture)(client->sv, client, text);
		return text;
	default:
		return false;
	}
}

/* While the agent's line is full, nobody's requests are read: all that was read is still handled. */
static void hold_if_congested(struct supervisor *sv)
{
	if (sv->control.held || !relay_congested(sv))
		return;
	sv->control.held = true;
	for (struct client *c = sv->control.clients; c; c = c->next)
		if (c->fd >= 0)
			watch(c);
}

void control_resume(struct supervisor *sv)
{
	if (!sv->control.held)
		return;
	sv->control.held = false;
	for (struct client *c = sv->control.clients; c; c = c->next)
		if (c->fd >= 0)
			watch(c);
}

static void read_requests(struct client *client)
{
	ssize_t got = wire_read(&client->wire, client->fd);
	struct error err = ERROR_INIT;
	struct wire_frame frame;
	int next = 0;

	if (got == 0 || (got < 0 && errno != EAGAIN)) {
		drop(client);
		return;
	}
	while (client->fd >= 0 && (next = wire_next(&client->wire, &frame, &err)) == 1) {
		bool fine = frame.channel ? channel_frame(client, &frame) : machine_frame(client, &frame);

		if (!fine) {
			log_warn("a client sent a frame (type %u) that breaks the protocol's rules",
				 frame.type);
			drop(client);
		}
	}
	if (next < 0) {
		log_error(&err);
		drop(client);
	}
	hold_if_congested(client->sv);
}

static void on_client(void *arg, int fd, uint32_t events)
{
	struct client *client = arg;

	(void)fd;
	if (events & EPOLLOUT)
		flush(client);
	if (client->fd >= 0 && (events & EPOLLIN) && !client->sv->control.held)
		read_requests(client);
	/* A client whose input isn't read now would otherwise wake us for ever. */
	else if (client->fd >= 0 && (events & (EPOLLHUP | EPOLLERR)))
		drop(client);
}

/* ---- the socket ---- */

static bool is_welcome(struct supervisor *sv, int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 || peer.uid != geteuid()) {
		log_warn("a process of another user tried to connect");
		return false;
	}
	if (sandbox_contains(&sv->sandbox, peer.pid)) {
		log_warn("a process of the guest (%d) tried to connect to the control socket", (int)peer.pid);
		return false;
	}
	return sv->control.client_count < CLIENTS_MAX;
}

static void on_connection(void *arg, int listener, uint32_t events)
{
	static uint64_t last_number;
	struct supervisor *sv = arg;
	cleanup_close int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct client *client;

	(void)events;
	if (fd < 0 || !is_welcome(sv, fd))
		return;
	client = calloc(1, sizeof(*client));
	if (!client)
		return;
	*client = (struct client){.sv = sv, .number = ++last_number, .next = sv->control.clients};
	wire_init(&client->wire, CLIENT_OUT_MAX, false);
	client->source = loop_add_fd(sv->loop, fd, EPOLLIN, on_client, client, NULL);
	if (!client->source) {
		free(client);
		return;
	}
	client->fd = steal_fd(&fd);
	sv->control.clients = client;
	sv->control.client_count++;
}

int control_listen(const char *path, struct error *err)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(err, ERROR_FAILED, "the socket path %s is longer than %zu bytes", path,
				 sizeof(address.sun_path) - 1);
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (fd < 0 || (unlink(path) < 0 && errno != ENOENT) ||
	    bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || chmod(path, 0600) < 0 ||
	    listen(fd, 32) < 0)
		return error_errno(err, errno, "cannot listen on %s", path);
	return steal_fd(&fd);
}

int control_open(struct supervisor *sv, struct error *err)
{
	struct control *control = &sv->control;

	control->path = file_join(err, sv->spec->runtime, "control");
	if (!control->path)
		return -1;
	control->fd = control_listen(control->path, err);
	if (control->fd < 0)
		return -1;
	control->source = loop_add_fd(sv->loop, control->fd, EPOLLIN, on_connection, sv, err);
	return control->source ? 0 : -1;
}

void control_reap(struct supervisor *sv)
{
	struct client **p = &sv->control.clients;

	while (*p) {
		struct client *client = *p;

		if (client->fd >= 0) {
			p = &client->next;
			continue;
		}
		*p = client->next;
		wire_free(&client->wire);
		free(client);
		sv->control.client_count--;
	}
}

/* The last frames reach those who read; nobody is waited for longer than FAREWELL_MS in all. */
static void say_farewell(struct supervisor *sv)
{
	int64_t end = loop_now_ms() + FAREWELL_MS;

	for (struct client *c = sv->control.clients; c; c = c->next) {
		struct pollfd p = {.fd = c->fd, .events = POLLOUT};

		while (c->fd >= 0 && wire_write(&c->wire, c->fd) == 1) {
			int64_t left = end - loop_now_ms();

			if (left <= 0 || poll(&p, 1, (int)left) <= 0)
				break;
		}
		drop(c);
	}
	control_reap(sv);
}

void control_close(struct supervisor *sv)
{
	struct control *control = &sv->control;

	say_farewell(sv);
	loop_remove_fd(control->source);
	if (control->fd >= 0) {
		unlink(control->path);
		close(steal_fd(&control->fd));
	}
	free(control->path);
}

void control_tell_state(struct supervisor *sv)
{
	for (struct client *c = sv->control.clients; c; c = c->next)
		if (c->fd >= 0 && c->watching)
			tell_state(c);
}

bool control_is_watched(const struct supervisor *sv)
{
	for (const struct client *c = sv->control.clients; c; c = c->next)
		if (c->watching)
			return true;
	return false;
}

void control_console_data(struct supervisor *sv, const void *data, size_t length)
{
	for (struct client *c = sv->control.clients; c; c = c->next) {
		if (c->fd < 0 || !c->console)
			continue;
		if (c->skipping || c->wire.out.length > CONSOLE_WAITING_MAX) {
			c->skipping = true;
			continue;
		}
		sent(c, wire_queue(&c->wire, FRAME_CONSOLE_DATA, 0, data, length));
	}
}
