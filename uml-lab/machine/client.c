/*
 * Requests to a supervisor that are one question and its answers. Frames are
 * read one by one and whole, so several calls may follow each other on one
 * socket; exec, console and copy need one of their own.
 */
#include "uml-lab/machine/client.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/loop.h"
#include "uml-lab/machine/client_internal.h"

#define STATUS_MAX (1u << 20)
#define FRAME_MS   10000 /* the rest of a frame that has begun */
#define REQUEST_MS 10000
#define EXIT_MS    5000  /* a supervisor that told its last state */

/* Milliseconds left until end (-1: for ever), for poll(). */
static int left_until(int64_t end)
{
	int64_t left = end < 0 ? -1 : end - loop_now_ms();

	if (end < 0)
		return -1;
	return left < 0 ? 0 : left > INT32_MAX ? INT32_MAX : (int)left;
}

int machine_connect(const char *runtime, struct error *err)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cleanup_free char *path = file_join(err, runtime, "control");
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (!path)
		return -1;
	if (fd < 0)
		return error_errno(err, errno, "cannot make a socket");
	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(err, ERROR_FAILED, "the socket path %s is too long", path);
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return steal_fd(&fd);
	if (errno == ENOENT || errno == ECONNREFUSED)
		return error_set(err, ERROR_STATE, "the machine does not run");
	return error_errno(err, errno, "cannot connect to %s", path);
}

int client_gone(struct error *err)
{
	return error_set(err, ERROR_STATE, "the machine ended");
}

int client_error(const struct wire_frame *frame, struct error *err)
{
	uint32_t code = 0;
	cleanup_free char *text = wire_failure(frame, &code);

	if (!text)
		return error_set(err, ERROR_FAILED, "the machine's supervisor failed without saying why");
	if (frame->type == FRAME_FAILED)
		return error_set(err,
				 code >= ERROR_FAILED && code <= ERROR_TIMEOUT ? (enum error_kind)code
									       : ERROR_FAILED,
				 "%s", text);
	error_set(err, ERROR_FAILED, "%s", text);
	if (err)
		err->sys_errno = (int)code;
	return -1;
}

int client_send(int control, enum frame_type type, uint32_t channel, const void *payload, size_t length,
		struct error *err)
{
	struct wire wire;
	struct pollfd p = {.fd = control, .events = POLLOUT};
	int result;

	wire_init(&wire, CLIENT_OUT_MAX, false);
	if (wire_queue(&wire, type, channel, payload, length) < 0) {
		wire_free(&wire);
		return error_set(err, ERROR_FAILED, "a request of %zu bytes is too long", length);
	}
	while ((result = wire_write(&wire, control)) == 1)
		if (poll(&p, 1, CLIENT_SEND_MS) == 0)
			break;
	wire_free(&wire);
	if (result < 0)
		return errno == EPIPE || errno == ECONNRESET
			       ? client_gone(err)
			       : error_errno(err, errno, "cannot send to the supervisor");
	return result ? error_set(err, ERROR_TIMEOUT, "the machine's supervisor takes no requests") : 0;
}

/* Reads n bytes. 1, 0 at end of file before the first, -1 + err. */
static int read_whole(int fd, void *buf, size_t n, int64_t end, struct error *err)
{
	size_t done = 0;

	while (done < n) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int ready = poll(&p, 1, left_until(end));
		ssize_t got;

		if (ready < 0 && errno == EINTR)
			continue;
		if (ready == 0)
			return error_set(err, ERROR_TIMEOUT,
					 "the machine's supervisor did not answer in time");
		got = ready < 0 ? -1 : recv(fd, (char *)buf + done, n - done, MSG_DONTWAIT);
		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (got < 0 && errno != ECONNRESET)
			return error_errno(err, errno, "cannot read from the machine's supervisor");
		if (got <= 0)
			return done ? client_gone(err) : 0;
		done += (size_t)got;
	}
	return 1;
}

int client_receive(int control, int timeout_ms, struct wire_frame *frame, uint8_t *buf, struct error *err)
{
	int64_t end = timeout_ms < 0 ? -1 : loop_now_ms() + timeout_ms;
	struct frame header;
	int got = read_whole(control, &header, sizeof(header), end, err);

	if (got <= 0)
		return got;
	*frame = (struct wire_frame){le16toh(header.type), le32toh(header.channel), buf,
				     le16toh(header.length)};
	if (le32toh(header.start) != FRAME_START || frame->length > FRAME_PAYLOAD_MAX)
		return error_set(err, ERROR_FAILED, "the machine's supervisor speaks another protocol");
	got = read_whole(control, buf, frame->length, loop_now_ms() + FRAME_MS, err);
	return got == 0 && frame->length ? client_gone(err) : got < 0 ? -1 : 1;
}

char *machine_status_json(int control, int timeout_ms, struct error *err)
{
	cleanup_strbuf struct strbuf text = STRBUF_INIT;
	uint8_t buf[FRAME_PAYLOAD_MAX];
	struct wire_frame frame;
	int64_t end = loop_now_ms() + timeout_ms;
	int got;

	if (client_send(control, FRAME_STATUS, 0, NULL, 0, err) < 0)
		return NULL;
	while ((got = client_receive(control, left_until(end), &frame, buf, err)) == 1) {
		if (frame.type == FRAME_FAILED) {
			client_error(&frame, err);
			return NULL;
		}
		if (frame.type != FRAME_STATUS)
			continue;
		if (!frame.length)
			return strbuf_steal(&text, err);
		if (text.length + frame.length > STATUS_MAX) {
			error_set(err, ERROR_FAILED, "the machine's status is too long");
			return NULL;
		}
		strbuf_add(&text, frame.payload, frame.length);
	}
	if (got == 0)
		client_gone(err);
	return NULL;
}

int machine_request_start(int control, enum machine_request type, const char *text, struct error *err)
{
	static const enum frame_type types[] = {[MACHINE_REQUEST_FORWARD] = FRAME_FORWARD,
						[MACHINE_REQUEST_IMPAIR] = FRAME_IMPAIR,
						[MACHINE_REQUEST_CAPTURE] = FRAME_CAPTURE,
						[MACHINE_REQUEST_STILL] = FRAME_STILL,
						[MACHINE_REQUEST_DISK] = FRAME_DISK};

	return client_send(control, types[type], 0, text, strlen(text), err);
}

char *machine_request_finish(int control, int timeout_ms, struct error *err)
{
	cleanup_strbuf struct strbuf answer = STRBUF_INIT;
	int64_t end = loop_now_ms() + timeout_ms;
	uint8_t buf[FRAME_PAYLOAD_MAX];
	struct wire_frame frame;
	int got;

	while ((got = client_receive(control, left_until(end), &frame, buf, err)) == 1) {
		if (frame.type == FRAME_FAILED) {
			client_error(&frame, err);
			return NULL;
		}
		if (frame.type == FRAME_DONE)
			return strbuf_steal(&answer, err);
		if (frame.type == FRAME_STATUS && answer.length + frame.length <= STATUS_MAX)
			strbuf_add(&answer, frame.payload, frame.length);
	}
	if (got == 0)
		client_gone(err);
	return NULL;
}

char *machine_request(int control, enum machine_request type, const char *text, struct error *err)
{
	return machine_request_start(control, type, text, err) < 0 ? NULL : machine_request_finish(control, REQUEST_MS, err);
}

/* ---- states ---- */

int machine_watch_start(int control, struct error *err)
{
	return client_send(control, FRAME_WATCH, 0, NULL, 0, err);
}

/* "STATE[ login][ CAUSE]" */
static int parse_state(const struct wire_frame *frame, enum machine_state *state, bool *login, char **cause,
		       struct error *err)
{
	cleanup_free char *text = wire_text(frame);
	char *rest;

	if (!text)
		return error_oom(err);
	rest = text + strcspn(text, " ");
	if (*rest)
		*rest++ = '\0';
	if (machine_state_parse(text, state) < 0)
		return error_set(err, ERROR_FAILED, "the machine's supervisor told an unknown state '%.40s'",
				 text);
	*login = *state == MACHINE_READY && str_starts(rest, "login") && (rest[5] == ' ' || !rest[5]);
	if (*login)
		rest += rest[5] ? 6 : 5;
	*cause = str_dup(rest, err);
	return *cause ? 1 : -1;
}

static int next_state(int control, int timeout_ms, enum machine_state *state, bool *login, char **cause,
		      struct error *err)
{
	int64_t end = timeout_ms < 0 ? -1 : loop_now_ms() + timeout_ms;
	uint8_t buf[FRAME_PAYLOAD_MAX];
	struct wire_frame frame;

	for (;;) {
		int got = client_receive(control, left_until(end), &frame, buf, err);

		if (got <= 0)
			return got;
		if (frame.type == FRAME_STATE)
			return parse_state(&frame, state, login, cause, err);
	}
}

int machine_watch_next(int control, enum machine_state *state, char **detail, struct error *err)
{
	bool login;

	return next_state(control, FRAME_MS, state, &login, detail, err);
}

int machine_watch(int control, enum machine_state until, bool login, int timeout_ms, machine_state_fn fn,
		  void *arg, struct error *err)
{
	int64_t end = timeout_ms < 0 ? -1 : loop_now_ms() + timeout_ms;
	enum machine_state state = MACHINE_STARTING;
	bool shown;
	int got;

	if (machine_watch_start(control, err) < 0)
		return -1;
	for (;;) {
		cleanup_free char *cause = NULL;

		got = next_state(control, left_until(end), &state, &shown, &cause, err);
		if (got < 0 && err && err->kind == ERROR_TIMEOUT)
			return error_set(err, ERROR_TIMEOUT, "still %s after %d s of waiting for %s",
					 machine_state_name(state), timeout_ms / 1000,
					 login && state == MACHINE_READY ? "a login on the console"
									 : machine_state_name(until));
		if (got <= 0)
			return got < 0 ? -1 : client_gone(err);
		if (fn)
			fn(arg, state, cause);
		if (state == until && (!login || shown))
			return 0;
		if (state == MACHINE_FAILED || state == MACHINE_STOPPED)
			return error_set(err, ERROR_FAILED, "%s", *cause ? cause : "the machine stopped");
	}
}

/* ---- stop ---- */

int machine_stop_start(int control, bool force, int timeout_ms, struct error *err)
{
	struct frame_stop stop = {htole32(force), htole32(timeout_ms < 0 ? 0 : (uint32_t)timeout_ms)};

	return client_send(control, FRAME_STOP, 0, &stop, sizeof(stop), err);
}

/* The supervisor at the other end of the socket, as the kernel knows it. A pidfd, or -1 when it is gone already. */
static int supervisor_pidfd(int control)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (getsockopt(control, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
		return -1;
	return (int)syscall(SYS_pidfd_open, peer.pid, 0);
}

int machine_stop(int control, bool force, int timeout_ms, struct error *err)
{
	cleanup_close int pidfd = supervisor_pidfd(control);
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	enum machine_state state;
	bool login;
	int got;

	if (machine_stop_start(control, force, timeout_ms, err) < 0)
		return -1;
	do {
		cleanup_free char *cause = NULL;

		got = next_state(control, (force ? 0 : timeout_ms) + FRAME_MS, &state, &login, &cause, err);
	} while (got == 1);
	if (got < 0)
		return error_prefix(err, "stopping");
	if (pidfd >= 0 && poll(&p, 1, EXIT_MS) == 0)
		return error_set(err, ERROR_TIMEOUT, "the machine stopped, but its supervisor does not end");
	return 0;
}

/* ---- the caller's terminal and signals ---- */

static struct termios saved_terminal;
static int raw_fd = -1;

struct frame_size client_terminal_size(int fd)
{
	struct winsize size;

	if (ioctl(fd, TIOCGWINSZ, &size) < 0)
		return (struct frame_size){0, 0};
	return (struct frame_size){htole16(size.ws_row), htole16(size.ws_col)};
}

bool client_terminal_raw(int fd)
{
	struct termios raw;

	if (raw_fd >= 0 || tcgetattr(fd, &saved_terminal) < 0)
		return false;
	raw = saved_terminal;
	cfmakeraw(&raw);
	if (tcsetattr(fd, TCSADRAIN, &raw) < 0)
		return false;
	raw_fd = fd;
	return true;
}

void client_terminal_restore(void)
{
	if (raw_fd >= 0)
		tcsetattr(raw_fd, TCSADRAIN, &saved_terminal);
	raw_fd = -1;
}

int client_signals(const int *signals, sigset_t *old, struct error *err)
{
	sigset_t set;
	int fd;

	sigemptyset(&set);
	for (; *signals; signals++)
		sigaddset(&set, *signals);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return error_errno(err, errno, "cannot take signals");
	sigprocmask(SIG_BLOCK, &set, old);
	return fd;
}
