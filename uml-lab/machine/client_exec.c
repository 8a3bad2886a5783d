/*
 * Commands in the guest, with the caller's standard streams.
 *
 * How it works: one poll loop over the control socket, stdin, stdout, stderr and
 * a signalfd. Each direction moves only as fast as its end takes it: stdin is
 * read while the agent has given credit for it, and credit for output is given
 * when it was written. So no buffer here exceeds FRAME_WINDOW, whatever the size
 * of the streams.
 *
 * The caller's descriptors are not made non-blocking (they may be shared with
 * its shell): poll() says when, and what is written at once is no more than a
 * pipe takes without blocking (PIPE_BUF).
 *
 * machine_exec_capture() is the same loop with memory at its end.
 */
#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/loop.h"
#include "uml-lab/machine/client_internal.h"

#define STATUS_TIMEOUT 124         /* as timeout(1) */
#define CLOSE_MS       3000        /* for the end of a command that was killed */
#define CREDIT_STEP    (32u << 10) /* credit is given in pieces of this size, or when all is written */

struct session {
	int control;
	struct wire wire;
	int in;               /* stdin; -1: at its end, or none */
	uint32_t window;      /* bytes the agent takes now */
	struct strbuf out[2]; /* for stdout and stderr */
	int fds[2];           /* 1 and 2; -1: cannot be written any more */
	struct machine_capture *capture; /* or this, instead */
	uint32_t consumed;               /* not yet credited */
	int signals;
	int terms; /* times we were asked to end */
	bool terminal;
	bool started;
	bool closing; /* FRAME_CLOSE was sent: the time-out */
	bool ended;
	int status; /* wait status */
};

int client_exec_payload(const struct machine_exec *exec, struct strbuf *out, struct error *err)
{
	struct frame_exec head = {0};
	struct frame_size size = client_terminal_size(STDIN_FILENO);
	uint16_t argc = 0, envc = 0;
	const char *term = getenv("TERM");

	while (exec->argv && exec->argv[argc])
		argc++;
	while (exec->env && exec->env[envc])
		envc++;
	head.flags = htole32((exec->terminal ? EXEC_TERMINAL : 0) | (exec->argv ? 0 : EXEC_LOGIN_SHELL));
	head.rows = exec->terminal ? size.rows : 0;
	head.columns = exec->terminal ? size.columns : 0;
	head.argc = htole16(argc);
	head.envc = htole16((uint16_t)(envc + (exec->terminal && term ? 1 : 0)));
	strbuf_add(out, &head, sizeof(head));
	strbuf_add(out, exec->cwd ?: "", strlen(exec->cwd ?: "") + 1);
	for (int i = 0; i < argc; i++)
		strbuf_add(out, exec->argv[i], strlen(exec->argv[i]) + 1);
	if (exec->terminal && term) {
		strbuf_printf(out, "TERM=%s", term);
		strbuf_add(out, "", 1);
	}
	for (int i = 0; i < envc; i++)
		strbuf_add(out, exec->env[i], strlen(exec->env[i]) + 1);
	if (strbuf_check(out, err) < 0)
		return -1;
	if (out->length > FRAME_PAYLOAD_MAX)
		return error_set(err, ERROR_USAGE, "the command is too long: %zu of at most %u bytes",
				 out->length, FRAME_PAYLOAD_MAX);
	return 0;
}

static int queue(struct session *s, enum frame_type type, const void *payload, size_t length,
		 struct error *err)
{
	if (wire_queue(&s->wire, type, CLIENT_CHANNEL, payload, length) < 0)
		return error_set(err, ERROR_FAILED, "the machine's supervisor takes no requests");
	return 0;
}

static int give_credit(struct session *s, uint32_t bytes, struct error *err)
{
	bool idle = !s->out[0].length && !s->out[1].length;
	struct frame_credit credit;

	s->consumed += bytes;
	if (!s->consumed || (s->consumed < CREDIT_STEP && !idle))
		return 0;
	credit = (struct frame_credit){htole32(STREAM_OUT), htole32(s->consumed)};
	s->consumed = 0;
	return queue(s, FRAME_CREDIT, &credit, sizeof(credit), err);
}

/* ---- from the machine ---- */

static int take_output(struct session *s, const struct wire_frame *frame, struct error *err)
{
	int stream = frame->type == FRAME_DATA_OUT ? 0 : 1;

	if (s->capture) {
		struct strbuf *kept = stream ? &s->capture->err : &s->capture->out;
		size_t room = s->capture->max - kept->length;

		s->capture->cut |= frame->length > room;
		strbuf_add(kept, frame->payload, frame->length < room ? frame->length : room);
		return give_credit(s, frame->length, err);
	}
	if (s->fds[stream] < 0) /* nobody reads it any more */
		return give_credit(s, frame->length, err);
	if (s->out[stream].length + frame->length > FRAME_WINDOW)
		return error_set(err, ERROR_FAILED, "the machine sent more than its window");
	strbuf_add(&s->out[stream], frame->payload, frame->length);
	return strbuf_check(&s->out[stream], err);
}

static int take_credit(struct session *s, const struct wire_frame *frame)
{
	struct frame_credit credit;

	if (frame->length != sizeof(credit))
		return 0;
	memcpy(&credit, frame->payload, sizeof(credit));
	if (le32toh(credit.stream) == STREAM_IN && le32toh(credit.bytes) <= FRAME_WINDOW - s->window)
		s->window += le32toh(credit.bytes);
	return 0;
}

static int take_frame(struct session *s, const struct wire_frame *frame, struct error *err)
{
	uint32_t status;

	if (frame->type == FRAME_FAILED && !frame->channel)
		return client_error(frame, err);
	if (frame->channel != CLIENT_CHANNEL)
		return 0;
	switch (frame->type) {
	case FRAME_STARTED:
		s->started = true;
		return 0;
	case FRAME_DATA_OUT:
	case FRAME_DATA_ERR:
		return take_output(s, frame, err);
	case FRAME_CREDIT:
		return take_credit(s, frame);
	case FRAME_EXIT:
		if (frame->length != sizeof(status))
			return error_set(err, ERROR_FAILED, "the machine's agent sent a damaged status");
		memcpy(&status, frame->payload, sizeof(status));
		s->status = (int)le32toh(status);
		s->ended = true;
		return 0;
	case FRAME_ERROR:
		return client_error(frame, err);
	default:
		return 0;
	}
}

static int read_frames(struct session *s, struct error *err)
{
	ssize_t got = wire_read(&s->wire, s->control);
	struct wire_frame frame;
	int next = 0;

	if (got < 0 && errno != EAGAIN && errno != ECONNRESET)
		return error_errno(err, errno, "cannot read from the machine's supervisor");
	if (got == 0 || (got < 0 && errno == ECONNRESET))
		return client_gone(err);
	while (!s->ended && (next = wire_next(&s->wire, &frame, err)) == 1)
		if (take_frame(s, &frame, err) < 0)
			return -1;
	return next < 0 ? -1 : 0;
}

/* ---- to the machine ---- */

static int end_input(struct session *s, struct error *err)
{
	s->in = -1;
	return queue(s, FRAME_DATA_IN, NULL, 0, err);
}

static int send_input(struct session *s, struct error *err)
{
	char chunk[FRAME_PAYLOAD_MAX];
	size_t want = s->window < sizeof(chunk) ? s->window : sizeof(chunk);
	ssize_t got = read(s->in, chunk, want);

	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (got <= 0) /* also a terminal that hung up */
		return end_input(s, err);
	s->window -= (uint32_t)got;
	return queue(s, FRAME_DATA_IN, chunk, (size_t)got, err);
}

static int send_signals(struct session *s, struct error *err)
{
	struct signalfd_siginfo info;

	while (read(s->signals, &info, sizeof(info)) == sizeof(info)) {
		struct frame_size size = client_terminal_size(STDIN_FILENO);
		uint32_t signo = htole32(info.ssi_signo);
		int failed;

		/* Asked three times to end: a guest that does not answer must not keep its caller. */
		s->terms += info.ssi_signo == SIGTERM || info.ssi_signo == SIGHUP;
		if (s->terms > 2)
			return error_set(err, ERROR_FAILED, "terminated while the machine did not answer");
		failed = info.ssi_signo != SIGWINCH ? queue(s, FRAME_SIGNAL, &signo, sizeof(signo), err)
			 : s->terminal              ? queue(s, FRAME_WINDOW_SIZE, &size, sizeof(size), err)
						    : 0;
		if (failed)
			return -1;
	}
	return 0;
}

/* ---- to the caller ---- */

static int write_output(struct session *s, int stream, struct error *err)
{
	struct strbuf *out = &s->out[stream];
	size_t n = out->length < PIPE_BUF ? out->length : PIPE_BUF;
	ssize_t put = write(s->fds[stream], out->data, n);
	uint32_t consumed;

	if (put < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	if (put < 0 && errno != EPIPE)
		return error_errno(err, errno, "cannot write to standard %s", stream ? "error" : "output");
	/* EPIPE: a reader that has enough (head): the rest is swallowed, as the command can't know. */
	consumed = (uint32_t)(put < 0 ? out->length : (size_t)put);
	if (put < 0) {
		s->fds[stream] = -1;
		uint32_t signo = htole32(SIGPIPE);

		if (queue(s, FRAME_SIGNAL, &signo, sizeof(signo), err) < 0)
			return -1;
	}
	strbuf_consume(out, consumed);
	return give_credit(s, consumed, err);
}

/* ---- the loop ---- */

enum { AT_CONTROL, AT_IN, AT_OUT, AT_ERR, AT_SIGNALS, AT_COUNT };

static void fill_polls(struct session *s, struct pollfd p[AT_COUNT])
{
	bool room = s->wire.out.length < FRAME_WINDOW;

	p[AT_CONTROL] = (struct pollfd){s->control, (short)(POLLIN | (s->wire.out.length ? POLLOUT : 0)), 0};
	p[AT_IN] = (struct pollfd){s->started && s->window && room ? s->in : -1, POLLIN, 0};
	for (int i = 0; i < 2; i++)
		p[AT_OUT + i] = (struct pollfd){s->out[i].length ? s->fds[i] : -1, POLLOUT, 0};
	p[AT_SIGNALS] = (struct pollfd){s->signals, POLLIN, 0};
}

static int serve(struct session *s, struct pollfd p[AT_COUNT], struct error *err)
{
	if (p[AT_SIGNALS].revents && send_signals(s, err) < 0)
		return -1;
	for (int i = 0; i < 2; i++)
		if (p[AT_OUT + i].revents && write_output(s, i, err) < 0)
			return -1;
	if (p[AT_IN].revents && send_input(s, err) < 0)
		return -1;
	if ((p[AT_CONTROL].revents & (POLLIN | POLLHUP | POLLERR)) && !s->ended && read_frames(s, err) < 0)
		return -1;
	if (!s->ended && wire_write(&s->wire, s->control) < 0 && errno != EPIPE && errno != ECONNRESET)
		return error_errno(err, errno, "cannot send to the supervisor");
	return 0;
}

/* The time is over: has the command killed; a second time: gives up waiting for that. */
static int close_command(struct session *s, int64_t *deadline, struct error *err)
{
	if (s->closing) {
		s->ended = true;
		return 0;
	}
	s->closing = true;
	*deadline = loop_now_ms() + CLOSE_MS;
	return queue(s, FRAME_CLOSE, NULL, 0, err);
}

static int run(struct session *s, int64_t timeout_ms, struct error *err)
{
	int64_t deadline = timeout_ms > 0 ? loop_now_ms() + timeout_ms : -1;
	struct pollfd p[AT_COUNT];

	/* After the end, only what is still to be written. */
	while (!s->ended || (s->fds[0] >= 0 && s->out[0].length) || (s->fds[1] >= 0 && s->out[1].length)) {
		int64_t left = deadline < 0 ? -1 : deadline - loop_now_ms();
		int ready;

		if (!s->closing && s->capture && s->capture->cancel && *s->capture->cancel)
			left = deadline = 0;
		if (deadline >= 0 && left <= 0 && !s->ended) {
			if (close_command(s, &deadline, err) < 0)
				return -1;
			left = 0;
		}
		fill_polls(s, p);
		if (s->ended)
			p[AT_CONTROL].fd = p[AT_IN].fd = -1;
		ready = poll(p, AT_COUNT, s->ended || left < 0 ? -1 : left > INT_MAX ? INT_MAX : (int)left);
		if (ready < 0 && errno != EINTR)
			return error_errno(err, errno, "cannot wait");
		if (ready >= 0 && serve(s, p, err) < 0)
			return -1;
	}
	return 0;
}

static int begin(struct session *s, const struct machine_exec *exec, struct error *err)
{
	cleanup_strbuf struct strbuf payload = STRBUF_INIT;

	wire_init(&s->wire, CLIENT_OUT_MAX, false);
	s->window = FRAME_WINDOW;
	if (client_exec_payload(exec, &payload, err) < 0 ||
	    queue(s, FRAME_EXEC, payload.data, payload.length, err) < 0)
		return -1;
	return s->in >= 0 ? 0 : end_input(s, err);
}

static void finish(struct session *s)
{
	wire_free(&s->wire);
	strbuf_free(&s->out[0]);
	strbuf_free(&s->out[1]);
}

int machine_exec(int control, const struct machine_exec *exec, struct error *err)
{
	static const int passed[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH, 0};
	struct session s = {.control = control,
			    .in = exec->no_stdin ? -1 : STDIN_FILENO,
			    .fds = {STDOUT_FILENO, STDERR_FILENO},
			    .signals = -1,
			    .terminal = exec->terminal};
	cleanup_close int signals = -1;
	sigset_t old;
	int result;

	signal(SIGPIPE, SIG_IGN);
	signals = client_signals(passed, &old, err);
	if (signals < 0)
		return -1;
	s.signals = signals;
	if (exec->terminal)
		client_terminal_raw(STDIN_FILENO);
	result = begin(&s, exec, err);
	if (result == 0)
		result = run(&s, exec->timeout_ms, err);
	client_terminal_restore();
	finish(&s);
	sigprocmask(SIG_SETMASK, &old, NULL);
	if (result < 0)
		return -1;
	if (s.closing)
		return STATUS_TIMEOUT;
	return WIFEXITED(s.status) ? WEXITSTATUS(s.status) : 128 + WTERMSIG(s.status);
}

int machine_exec_capture(int control, const struct machine_exec *exec, struct machine_capture *capture,
			 struct error *err)
{
	struct session s = {.control = control, .in = -1, .fds = {-1, -1}, .capture = capture, .signals = -1};
	int result = begin(&s, exec, err);

	if (result == 0)
		result = run(&s, exec->timeout_ms, err);
	finish(&s);
	if (result < 0 || strbuf_check(&capture->out, err) < 0 || strbuf_check(&capture->err, err) < 0)
		return -1;
	if (s.closing)
		return capture->cancel && *capture->cancel
			       ? error_set(err, ERROR_TIMEOUT, "it was interrupted")
			       : error_set(err, ERROR_TIMEOUT, "it did not end within %g s",
					   (double)exec->timeout_ms / 1000);
	capture->status = s.status;
	return 0;
}

void machine_capture_free(struct machine_capture *capture)
{
	strbuf_free(&capture->out);
	strbuf_free(&capture->err);
}
