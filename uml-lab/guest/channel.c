/*
 * Channels. Each has a child of its own: the program of EXEC, or a fork of the
 * agent that unpacks (PUT) or packs (GET) a tar stream on its standard streams.
 * So all three are the same here: bytes to the child's stdin, bytes from its
 * stdout and stderr (or one pseudo-terminal), an exit status.
 *
 *	opened   status pipe open: the child prepares itself
 *	started  the pipe closed without a word: FRAME_STARTED was sent (EXEC: exec succeeded)
 *	exited   the child ended; its output is still drained
 *	gone     FRAME_EXIT or FRAME_ERROR sent, the child reaped, the slot free
 *
 * A child that can't do its work writes a fault into the status pipe: FRAME_ERROR.
 *
 * The end of output: EXIT follows when the child ended and its pipes are at
 * their end. A daemon that it left behind may hold them open: then EXIT follows
 * once they were empty for LINGER_MS after the child's end. Output that waits
 * for the client's credit is not empty, and waits as long as the client does.
 *
 * The child stays a zombie until the channel's end, so that its process group's
 * number is not somebody else's when a signal is sent to it.
 *
 * A client that breaks the rules (more than its window, a bad signal) loses its
 * channel: FRAME_ERROR, and the child is killed. Its slot stays taken, unnamed,
 * until the child is gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "uml-lab/guest/channel.h"
#include "uml-lab/guest/exec.h"
#include "uml-lab/guest/mount.h"
#include "uml-lab/guest/spool.h"

#define LINGER_MS 100		/* for output of processes that the child left behind */
#define KILL_AFTER_MS 1000	/* from FRAME_CLOSE's SIGHUP to SIGKILL */
#define CREDIT_STEP (FRAME_WINDOW / 4)	/* consumed bytes are told in steps: the sender has the rest of the window */

struct channel {
	bool used;		/* the slot; number may be 0 (unnamed) while it waits for its child */
	uint32_t number;
	uint16_t request;	/* FRAME_EXEC, FRAME_PUT, FRAME_GET */
	bool terminal, started, exited, silent;	/* silent: the client is gone, output is dropped */
	pid_t pid;
	struct source pidfd, in, out, err, status;
	struct buffer input;
	bool input_end;
	uint32_t consumed;	/* of stdin, not yet told */
	uint32_t window_in;	/* bytes that the client may still send */
	uint32_t credit_out;	/* bytes that we may still send */
	int64_t linger_at, kill_at;	/* 0: not set */
};

/* Frees the slot. Events under way for it find descriptors that are none. */
static void reset(struct channel *c)
{
	const struct source none = { .fd = -1 };

	*c = (struct channel){ .pidfd = none, .in = none, .out = none, .err = none, .status = none };
}

int channel_init(struct agent *a)
{
	unsigned int i;

	a->channels = calloc(FRAME_CHANNELS_MAX, sizeof(*a->channels));
	for (i = 0; a->channels && i < FRAME_CHANNELS_MAX; i++)
		reset(&a->channels[i]);
	return a->channels ? 0 : -1;
}

static struct channel *find(struct agent *a, uint32_t number)
{
	unsigned int i;

	for (i = 0; i < FRAME_CHANNELS_MAX; i++)
		if (a->channels[i].used && a->channels[i].number == number)
			return &a->channels[i];
	return NULL;
}

bool channel_any(const struct agent *a)
{
	unsigned int i;

	for (i = 0; i < FRAME_CHANNELS_MAX; i++)
		if (a->channels[i].used)
			return true;
	return false;
}

static void send_error(struct agent *a, uint32_t number, const struct fault *f)
{
	uint8_t payload[4 + sizeof(f->text)];
	size_t n = strnlen(f->text, sizeof(f->text));
	int i;

	for (i = 0; i < 4; i++)
		payload[i] = (uint32_t)f->errnum >> 8 * i;
	memcpy(payload + 4, f->text, n);
	agent_send(a, FRAME_ERROR, number, payload, 4 + n);
}

static void send_u32(struct agent *a, uint16_t type, uint32_t number, uint32_t value)
{
	uint8_t payload[4] = { value, value >> 8, value >> 16, value >> 24 };

	agent_send(a, type, number, payload, sizeof(payload));
}

static void kill_group(struct channel *c, int signo)
{
	pid_t foreground;

	if (c->terminal && c->out.fd >= 0 && ioctl(c->out.fd, TIOCGPGRP, &foreground) == 0 && foreground > 1)
		kill(-foreground, signo);
	/* Before its setsid() the child has no group yet. */
	if (kill(-c->pid, signo) < 0)
		kill(c->pid, signo);
}

static void close_streams(struct channel *c)
{
	source_close(&c->in);
	source_close(&c->out);
	source_close(&c->err);
	source_close(&c->status);
	buffer_free(&c->input);
}

/* The child is dead and nothing is left to tell: frees the slot. */
static void release(struct channel *c)
{
	close_streams(c);
	source_close(&c->pidfd);
	waitpid(c->pid, NULL, 0);
	reset(c);
}

/* Tells the fault as the channel's last frame and ends the child. */
static void give_up(struct agent *a, struct channel *c, const struct fault *f)
{
	if (c->number)
		send_error(a, c->number, f);
	c->number = 0;
	kill_group(c, SIGKILL);
	close_streams(c);
	if (c->exited)
		release(c);
}

static void violation(struct agent *a, struct channel *c, const char *what)
{
	struct fault f;

	fault_errno(&f, EPROTO, "%s", what);
	give_up(a, c, &f);
}

/* Sends EXIT and frees the slot. */
static void finish(struct agent *a, struct channel *c)
{
	int status = 0;

	waitpid(c->pid, &status, 0);
	if (c->number)
		send_u32(a, FRAME_EXIT, c->number, status);
	close_streams(c);
	source_close(&c->pidfd);
	reset(c);
}

static void finish_if_drained(struct agent *a, struct channel *c)
{
	if (c->exited && c->status.fd < 0 && c->out.fd < 0 && c->err.fd < 0)
		finish(a, c);
}

/* Watches the output only while there is credit for it. */
static void watch_output(struct channel *c)
{
	uint32_t events = c->credit_out || c->silent ? EPOLLIN : 0;

	if (c->out.fd >= 0)
		source_watch(&c->out, events);
	if (c->err.fd >= 0)
		source_watch(&c->err, events);
}

static void output_end(struct agent *a, struct channel *c, struct source *s)
{
	uint16_t type = s == &c->err ? FRAME_DATA_ERR : FRAME_DATA_OUT;

	source_close(s);
	if (!c->silent && c->number)
		agent_send(a, type, c->number, NULL, 0);
	finish_if_drained(a, c);
}

static void output_readable(struct agent *a, struct source *s, uint32_t events)
{
	struct channel *c = s->owner;
	uint32_t max = c->credit_out < FRAME_PAYLOAD_MAX && !c->silent ? c->credit_out : FRAME_PAYLOAD_MAX;
	uint8_t *room = frame_room(&a->out, max);
	ssize_t n;

	(void)events;
	if (!max) {
		watch_output(c);
		return;
	}
	n = room ? read(s->fd, room, max) : 0;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		output_end(a, c, s);
		return;
	}
	if (c->exited)
		c->linger_at = guest_now_ms() + LINGER_MS;
	if (c->silent)
		return;
	frame_commit(&a->out, s == &c->err ? FRAME_DATA_ERR : FRAME_DATA_OUT, c->number, n);
	c->credit_out -= n;
	if (!c->credit_out)
		watch_output(c);
}

static void consumed(struct agent *a, struct channel *c, size_t n)
{
	uint8_t payload[8] = { STREAM_IN };
	int i;

	c->consumed += n;
	if (c->consumed < CREDIT_STEP || !c->number)
		return;
	for (i = 0; i < 4; i++)
		payload[4 + i] = c->consumed >> 8 * i;
	agent_send(a, FRAME_CREDIT, c->number, payload, sizeof(payload));
	c->window_in += c->consumed;
	c->consumed = 0;
}

/* Nobody reads any more: what the client still sends is taken and dropped, so that it doesn't wait for ever. */
static void input_broken(struct agent *a, struct channel *c)
{
	source_close(&c->in);
	consumed(a, c, c->input.length);
	buffer_free(&c->input);
}

static void flush_input(struct agent *a, struct channel *c)
{
	ssize_t n = 0;

	while (c->in.fd >= 0 && c->input.length) {
		n = write(c->in.fd, c->input.data + c->input.start, c->input.length);
		if (n < 0)
			break;
		buffer_consume(&c->input, n);
		consumed(a, c, n);
	}
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		input_broken(a, c);
		return;
	}
	if (c->in.fd < 0)
		return;
	/* A terminal's end of file is a character that was sent with the data. */
	if (!c->input.length && c->input_end && !c->terminal)
		source_close(&c->in);
	else
		source_watch(&c->in, c->input.length ? EPOLLOUT : 0);
}

static void input_writable(struct agent *a, struct source *s, uint32_t events)
{
	struct channel *c = s->owner;

	(void)events;
	flush_input(a, c);
}

/* The status pipe: a fault, or its end, which says that all is well. */
static void status_readable(struct agent *a, struct source *s, uint32_t events)
{
	struct channel *c = s->owner;
	struct fault f;
	ssize_t n = read(s->fd, &f, sizeof(f));

	(void)events;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	source_close(s);
	if (n == sizeof(f)) {
		f.text[sizeof(f.text) - 1] = '\0';
		give_up(a, c, &f);
		return;
	}
	if (!c->started && c->number)
		send_u32(a, FRAME_STARTED, c->number, c->pid);
	c->started = true;
	finish_if_drained(a, c);
}

static void child_ended(struct agent *a, struct source *s, uint32_t events)
{
	struct channel *c = s->owner;

	(void)events;
	source_close(s);
	c->exited = true;
	c->linger_at = guest_now_ms() + LINGER_MS;
	if (!c->number) {
		release(c);
		return;
	}
	/* A grandchild of a fork that failed to exec can't hold it, but exec closed it before: nothing to wait for. */
	if (c->status.fd >= 0)
		status_readable(a, &c->status, EPOLLIN);
	if (c->used)
		finish_if_drained(a, c);
}

/* Whether a byte waits in this output. */
static bool has_output(const struct source *s)
{
	int waiting = 0;

	return s->fd >= 0 && ioctl(s->fd, FIONREAD, &waiting) == 0 && waiting > 0;
}

int channel_tick(struct agent *a, int64_t now)
{
	int64_t next = -1;
	unsigned int i;

	for (i = 0; i < FRAME_CHANNELS_MAX; i++) {
		struct channel *c = &a->channels[i];

		if (!c->used)
			continue;
		if (c->kill_at && now >= c->kill_at) {
			c->kill_at = 0;
			kill_group(c, SIGKILL);
		}
		if (c->exited && now >= c->linger_at) {
			if (!has_output(&c->out) && !has_output(&c->err)) {
				finish(a, c);
				continue;
			}
			c->linger_at = now + LINGER_MS;
		}
		if (c->kill_at && (next < 0 || c->kill_at < next))
			next = c->kill_at;
		if (c->exited && (next < 0 || c->linger_at < next))
			next = c->linger_at;
	}
	return next < 0 ? -1 : next <= now ? 0 : (int)(next - now);
}

/* The five ends of a child's standard streams, on both sides. */
struct streams {
	int in, out, err;			/* ours; err -1 for a terminal */
	int child_in, child_out, child_err;	/* the child's */
	int status, child_status;
};

static void close_all(struct streams *s)
{
	int *all[] = { &s->in,	&s->out, &s->err, &s->child_in, &s->child_out, &s->child_err, &s->status,
		       &s->child_status };
	size_t i;

	for (i = 0; i < GUEST_COUNT(all); i++)
		if (*all[i] >= 0)
			close(*all[i]);
}

static int make_pipe(int *reader, int *writer)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -1;
	*reader = fds[0];
	*writer = fds[1];
	return 0;
}

static void set_size(int terminal, uint16_t rows, uint16_t columns)
{
	struct winsize size = { .ws_row = rows, .ws_col = columns };

	ioctl(terminal, TIOCSWINSZ, &size);
}

/* devpts is the image's init to mount; before it did, or when it never does, we do. */
static int open_terminal(struct streams *s, const struct exec_request *r)
{
	int unlock = 0;

	if (!mount_is_point("/dev/pts")) {
		mkdir("/dev/pts", 0755);
		mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666");
	}
	s->out = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (s->out < 0)
		s->out = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (s->out < 0 || ioctl(s->out, TIOCSPTLCK, &unlock) < 0)
		return -1;
	if (r->rows || r->columns)
		set_size(s->out, r->rows, r->columns);
	s->in = fcntl(s->out, F_DUPFD_CLOEXEC, 0);
	s->child_in = ioctl(s->out, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	s->child_out = s->child_in < 0 ? -1 : fcntl(s->child_in, F_DUPFD_CLOEXEC, 0);
	s->child_err = s->child_in < 0 ? -1 : fcntl(s->child_in, F_DUPFD_CLOEXEC, 0);
	return s->in < 0 || s->child_out < 0 || s->child_err < 0 ? -1 : 0;
}

static int open_streams(struct streams *s, const struct exec_request *r, struct fault *f)
{
	*s = (struct streams){ -1, -1, -1, -1, -1, -1, -1, -1 };
	if (make_pipe(&s->status, &s->child_status) < 0)
		return fault_errno(f, errno, "no pipe");
	if (r && (r->flags & EXEC_TERMINAL))
		return open_terminal(s, r) < 0 ? fault_errno(f, errno, "no pseudo-terminal") : 0;
	if (make_pipe(&s->child_in, &s->in) < 0 || make_pipe(&s->out, &s->child_out) < 0 ||
	    make_pipe(&s->err, &s->child_err) < 0)
		return fault_errno(f, errno, "no pipe");
	return 0;
}

/* In the child: its streams become 0, 1 and 2, the status pipe 3, and nothing else stays open. */
static void enter_child(struct streams *s, bool terminal)
{
	int fds[4] = { s->child_in, s->child_out, s->child_err, s->child_status };
	sigset_t none;
	int i;

	setsid();
	if (terminal)
		ioctl(s->child_in, TIOCSCTTY, 0);
	/* Out of the way of 0…3 first. */
	for (i = 0; i < 4; i++)
		fds[i] = fcntl(fds[i], F_DUPFD, 10);
	for (i = 0; i < 4; i++)
		dup2(fds[i], i);
	fcntl(3, F_SETFD, FD_CLOEXEC);
	syscall(SYS_close_range, 4, ~0u, 0);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

/* With signals blocked: those that the agent ignores would be lost on a child that has not come so far as to take them. */
static pid_t fork_blocked(void)
{
	sigset_t all, before;
	pid_t pid;

	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid)
		sigprocmask(SIG_SETMASK, &before, NULL);
	return pid;
}

static void run_child(const struct frame_view *v, const struct exec_request *r, const char *path)
{
	if (v->type == FRAME_EXEC)
		exec_program(r, 3);
	if (v->type == FRAME_PUT)
		exec_put(path, 3);
	exec_get(path, 3);
}

static void take_source(struct agent *a, struct channel *c, struct source *s, int fd, uint32_t events,
			void (*fn)(struct agent *, struct source *, uint32_t))
{
	*s = (struct source){ .fn = fn, .owner = c, .fd = fd, .epoll = a->channel_epoll };
	if (fd < 0)
		return;
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	source_watch(s, events);
}

static void opened(struct agent *a, struct channel *c, const struct frame_view *v, struct streams *s, pid_t pid,
		   bool terminal)
{
	close(s->child_in);
	close(s->child_out);
	close(s->child_err);
	close(s->child_status);
	*c = (struct channel){
		.used = true, .number = v->channel, .request = v->type, .terminal = terminal, .pid = pid,
		.window_in = FRAME_WINDOW, .credit_out = FRAME_WINDOW,
	};
	take_source(a, c, &c->pidfd, syscall(SYS_pidfd_open, pid, 0), EPOLLIN, child_ended);
	take_source(a, c, &c->in, s->in, 0, input_writable);
	take_source(a, c, &c->out, s->out, EPOLLIN, output_readable);
	take_source(a, c, &c->err, s->err, EPOLLIN, output_readable);
	take_source(a, c, &c->status, s->status, EPOLLIN, status_readable);
	if (v->type == FRAME_EXEC)
		return;
	/* Our own code runs already. */
	c->started = true;
	send_u32(a, FRAME_STARTED, c->number, pid);
}

static void open_channel(struct agent *a, const struct frame_view *v, const struct exec_request *r,
			 const char *path, struct fault *f)
{
	struct channel *c = a->channels;
	struct streams s;
	pid_t pid;

	while (c < a->channels + FRAME_CHANNELS_MAX && c->used)
		c++;
	if (c == a->channels + FRAME_CHANNELS_MAX) {
		fault_errno(f, EAGAIN, "%u commands run in this machine already", FRAME_CHANNELS_MAX);
		send_error(a, v->channel, f);
		return;
	}
	pid = open_streams(&s, r, f) < 0 ? -1 : fork_blocked();
	if (pid == 0) {
		enter_child(&s, r && (r->flags & EXEC_TERMINAL));
		run_child(v, r, path);
	}
	if (pid < 0) {
		if (!f->text[0])
			fault_errno(f, errno, "cannot fork");
		send_error(a, v->channel, f);
		close_all(&s);
		return;
	}
	opened(a, c, v, &s, pid, r && (r->flags & EXEC_TERMINAL));
}

/* EXEC, PUT and GET. */
static void start(struct agent *a, const struct frame_view *v)
{
	struct channel *c = find(a, v->channel);
	struct exec_request r = { 0 };
	struct fault f = { 0 };
	char *path = NULL;
	int bad = 0;

	if (c) {
		violation(a, c, "this channel is in use");
		return;
	}
	if (a->stage == STAGE_HELLO)
		bad = fault_errno(&f, EAGAIN, "the root file system is not mounted yet");
	else if (v->type == FRAME_EXEC)
		bad = exec_request_parse(&r, v->payload, v->length, &f);
	else if (!v->length || memchr(v->payload, '\0', v->length) ||
		 !(path = strndup((const char *)v->payload, v->length)))
		bad = fault_errno(&f, EINVAL, "bad path");
	if (bad)
		send_error(a, v->channel, &f);
	else
		open_channel(a, v, v->type == FRAME_EXEC ? &r : NULL, path, &f);
	exec_request_free(&r);
	free(path);
}

static void take_input(struct agent *a, struct channel *c, const uint8_t *data, uint32_t length)
{
	static const char end_of_file = 4;	/* ^D, VEOF of a new terminal */

	if (c->input_end) {
		violation(a, c, "data after the end of the input");
		return;
	}
	if (length > c->window_in) {
		violation(a, c, "more input than the window allows");
		return;
	}
	c->window_in -= length;
	c->input_end = length == 0;
	if (c->in.fd < 0) {
		consumed(a, c, length);
		return;
	}
	if (buffer_add(&c->input, data, length) < 0 ||
	    (c->input_end && c->terminal && buffer_add(&c->input, &end_of_file, 1) < 0)) {
		violation(a, c, "no memory for the input");
		return;
	}
	flush_input(a, c);
}

static void data_file(struct agent *a, struct channel *c, const struct frame_view *v)
{
	static uint8_t data[FRAME_PAYLOAD_MAX];
	uint32_t length = v->length == sizeof(struct frame_data_file) ? frame_u32(v->payload + 4) : 0;

	if (!length || length > sizeof(data) || spool_take(a->spool, frame_u32(v->payload), data, length) < 0)
		violation(a, c, "bulk input that is not there");
	else
		take_input(a, c, data, length);
}

static void credit(struct agent *a, struct channel *c, const struct frame_view *v)
{
	uint32_t bytes = v->length == 8 ? frame_u32(v->payload + 4) : 0;

	if (!bytes || frame_u32(v->payload) != STREAM_OUT || bytes > FRAME_WINDOW - c->credit_out) {
		violation(a, c, "bad credit");
		return;
	}
	c->credit_out += bytes;
	watch_output(c);
}

static void signal_channel(struct agent *a, struct channel *c, const struct frame_view *v)
{
	uint32_t signo = v->length == 4 ? frame_u32(v->payload) : 0;
	pid_t foreground;

	if (signo < 1 || signo > 64) {
		violation(a, c, "bad signal");
		return;
	}
	if (c->exited)
		return;
	if (c->terminal && ioctl(c->out.fd, TIOCGPGRP, &foreground) == 0 && foreground > 1)
		kill(-foreground, signo);
	else if (kill(-c->pid, signo) < 0)
		kill(c->pid, signo);
}

/* The client went away: hang up, as a terminal would, and soon make sure. */
static void close_channel(struct channel *c)
{
	kill_group(c, SIGHUP);
	kill_group(c, SIGCONT);
	c->silent = true;
	c->kill_at = guest_now_ms() + KILL_AFTER_MS;
	source_close(&c->in);
	buffer_free(&c->input);
	watch_output(c);
}

static void continue_channel(struct agent *a, struct channel *c, const struct frame_view *v)
{
	switch (v->type) {
	case FRAME_DATA_IN:
		take_input(a, c, v->payload, v->length);
		return;
	case FRAME_DATA_FILE:
		data_file(a, c, v);
		return;
	case FRAME_CREDIT:
		credit(a, c, v);
		return;
	case FRAME_SIGNAL:
		signal_channel(a, c, v);
		return;
	case FRAME_CLOSE:
		close_channel(c);
		return;
	case FRAME_WINDOW_SIZE:
		if (v->length != sizeof(struct frame_size))
			violation(a, c, "bad window size");
		else if (c->terminal && c->out.fd >= 0)
			set_size(c->out.fd, frame_u16(v->payload), frame_u16(v->payload + 2));
		return;
	default:
		violation(a, c, "unknown request");
	}
}

void channel_frame(struct agent *a, const struct frame_view *v)
{
	struct channel *c;

	if (v->type == FRAME_EXEC || v->type == FRAME_PUT || v->type == FRAME_GET) {
		start(a, v);
		return;
	}
	/* A frame that crossed our EXIT finds no channel: nothing to say. */
	c = find(a, v->channel);
	if (c)
		continue_channel(a, c, v);
	else if (v->type == FRAME_DATA_FILE && v->length == sizeof(struct frame_data_file))
		spool_drop(a->spool, frame_u32(v->payload));
}
