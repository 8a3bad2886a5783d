/* The host's side of the agent's protocol for tests: see stage0_host.h. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/boot/stage0_host.h"

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static int pair(int *theirs)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		die("socketpair");
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	*theirs = fds[1];
	return fds[0];
}

static void exec_kernel(const char *kernel, char **argv, int *theirs, int log)
{
	int i;

	setsid();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(open("/dev/null", O_RDWR), 0);
	dup2(log, 1);
	dup2(log, 2);
	for (i = 0; i < 3; i++)
		theirs[i] = fcntl(theirs[i], F_DUPFD, 20);
	for (i = 0; i < 3; i++)
		dup2(theirs[i], 10 + i);
	execv(kernel, argv);
	_exit(127);
}

/* A plug that takes connections (they stay in the backlog) and never says a word. */
static int listen_plug(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(address.sun_path))
		die("plug: path too long");
	strcpy(address.sun_path, path);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 8) < 0)
		die("plug");
	return fd;
}

void host_start(struct host *h, const char *kernel, const char *initramfs, const char *disk, const char *work)
{
	char initrd[300], ubd[300], vec[400], path[300];
	char *argv[] = {
		(char *)kernel, (char *)"mem=192M", initrd, ubd, (char *)"con=null", (char *)"ssl=null",
		(char *)"con0=fd:11", (char *)"con1=fd:12", (char *)"ssl0=fd:10", (char *)"quiet", vec, NULL,
	};
	int theirs[3], n;

	memset(h, 0, sizeof(*h));
	snprintf(initrd, sizeof(initrd), "initrd=%s", initramfs);
	snprintf(ubd, sizeof(ubd), "ubd0=%s", disk);
	snprintf(path, sizeof(path), "%s/plug", work);
	snprintf(vec, sizeof(vec), "vec0:transport=bess,dst=%s,mac=%s", path, HOST_MAC);
	h->plug = listen_plug(path);
	snprintf(path, sizeof(path), "%s/log", work);
	h->link = pair(&theirs[0]);
	h->consoles[0] = pair(&theirs[1]);
	h->consoles[1] = pair(&theirs[2]);
	h->log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	h->line_window = FRAME_LINE_WINDOW;
	h->started = guest_now_ms();
	h->pid = fork();
	if (h->pid < 0 || h->log < 0)
		die("start");
	if (!h->pid)
		exec_kernel(kernel, argv, theirs, h->log);
	for (n = 0; n < 3; n++)
		close(theirs[n]);
}

bool host_wait_exit(struct host *h, int timeout_ms)
{
	int64_t end = guest_now_ms() + timeout_ms;
	struct host_frame f;

	while (guest_now_ms() < end) {
		if (waitpid(h->pid, NULL, WNOHANG) == h->pid) {
			h->pid = 0;
			return true;
		}
		if (!host_next(h, &f, 20))
			poll(NULL, 0, 5);
	}
	return false;
}

/* The whole group: killing the main process alone lets guest code run on the host (uml-facts.md, trap 4). */
void host_end(struct host *h)
{
	if (h->pid > 0) {
		kill(-h->pid, SIGKILL);
		waitpid(h->pid, NULL, 0);
	}
	close(h->plug);
	close(h->link);
	close(h->consoles[0]);
	close(h->consoles[1]);
	close(h->log);
	buffer_free(&h->in);
	buffer_free(&h->out);
	memset(h, 0, sizeof(*h));
}

void host_send(struct host *h, uint16_t type, uint32_t channel, const void *payload, size_t length)
{
	if (frame_put(&h->out, type, channel, payload, length) < 0)
		die("send");
}

void host_send_text(struct host *h, uint16_t type, uint32_t channel, const char *text)
{
	host_send(h, type, channel, text, strlen(text));
}

static void log_console(struct host *h, int fd)
{
	char buf[4096];
	ssize_t n = read(fd, buf, sizeof(buf));

	if (n > 0)
		guest_write_full(h->log, buf, n);
}

/* Moves bytes once. False when the link is at its end. */
static bool pump(struct host *h, int timeout_ms)
{
	struct pollfd p[3] = {
		{ .fd = h->link, .events = POLLIN | (h->out.length && h->line_window ? POLLOUT : 0) },
		{ .fd = h->consoles[0], .events = POLLIN },
		{ .fd = h->consoles[1], .events = POLLIN },
	};
	void *room;
	ssize_t n;

	if (poll(p, 3, timeout_ms) <= 0)
		return true;
	if (p[1].revents & POLLIN)
		log_console(h, h->consoles[0]);
	if (p[2].revents & POLLIN)
		log_console(h, h->consoles[1]);
	if (p[0].revents & POLLOUT) {
		n = h->line_window < h->out.length ? h->line_window : h->out.length;
		n = n ? write(h->link, h->out.data + h->out.start, n) : 0;
		if (n > 0) {
			buffer_consume(&h->out, n);
			h->line_window -= n;
		}
	}
	if (!(p[0].revents & (POLLIN | POLLHUP)))
		return true;
	room = buffer_reserve(&h->in, 65536);
	n = read(h->link, room, 65536);
	if (n > 0)
		buffer_grow(&h->in, n);
	return n > 0 || (n < 0 && errno == EAGAIN);
}

static void log_frame(struct host *h, const struct host_frame *f)
{
	if (f->type == FRAME_LOG || f->type == FRAME_PHASE)
		dprintf(h->log, "[%5lld ms] %s: %s\n", (long long)(guest_now_ms() - h->started),
			f->type == FRAME_LOG ? "log" : "phase", (const char *)f->payload);
}

bool host_next(struct host *h, struct host_frame *f, int timeout_ms)
{
	int64_t end = guest_now_ms() + timeout_ms, left;
	struct frame_view v;
	size_t skipped = 0;

	for (;;) {
		if (frame_next(&h->in, &v, &skipped)) {
			f->type = v.type;
			f->length = v.length;
			f->channel = v.channel;
			memcpy(f->payload, v.payload, v.length);
			f->payload[v.length] = '\0';
			frame_drop(&h->in, &v);
			log_frame(h, f);
			if (f->type != FRAME_TAKEN)
				return true;
			h->line_window += frame_u32(f->payload);
			continue;
		}
		if (skipped) {
			fprintf(stderr, "%zu bytes from the agent were no frame\n", skipped);
			return false;
		}
		left = end - guest_now_ms();
		if (left < 0 || !pump(h, left))
			return false;
	}
}

bool host_phase(struct host *h, const char *phase, int timeout_ms)
{
	int64_t end = guest_now_ms() + timeout_ms;
	struct host_frame f;

	while (guest_now_ms() < end && host_next(h, &f, end - guest_now_ms())) {
		if (f.type != FRAME_PHASE)
			continue;
		if (!strncmp((char *)f.payload, phase, strlen(phase)))
			return true;
		if (!strncmp((char *)f.payload, "failed", 6)) {
			snprintf(h->failure, sizeof(h->failure), "%.600s", (char *)f.payload);
			return false;
		}
	}
	return false;
}

void host_type(struct host *h, int console, const char *text)
{
	if (write(h->consoles[console], text, strlen(text)) < 0)
		die("console");
}

uint8_t host_pattern(uint64_t at)
{
	return at * 2654435761u >> 11 ^ at >> 16;
}

static uint64_t hash_more(uint64_t hash, uint8_t byte)
{
	return (hash ^ byte) * 1099511628211u;
}

uint64_t host_pattern_hash(uint64_t n)
{
	uint64_t hash = 0, i;

	for (i = 0; i < n; i++)
		hash = hash_more(hash, host_pattern(i));
	return hash;
}

static void begin(struct host *h, struct run *r, uint32_t channel)
{
	struct frame_exec e = { .flags = r->flags, .rows = r->rows, .columns = r->columns };
	struct buffer b = { 0 };
	const char *const *s;

	r->channel = channel;
	r->window = FRAME_WINDOW;
	r->begun = guest_now_ms();
	r->status = -1;
	if (r->request == FRAME_PUT || r->request == FRAME_GET) {
		host_send_text(h, r->request, channel, r->argv[0]);
		return;
	}
	for (s = r->argv; s && *s; s++)
		e.argc++;
	for (s = r->env; s && *s; s++)
		e.envc++;
	buffer_add(&b, &e, sizeof(e));
	buffer_add(&b, r->cwd ? r->cwd : "", strlen(r->cwd ? r->cwd : "") + 1);
	for (s = r->argv; s && *s; s++)
		buffer_add(&b, *s, strlen(*s) + 1);
	for (s = r->env; s && *s; s++)
		buffer_add(&b, *s, strlen(*s) + 1);
	host_send(h, FRAME_EXEC, channel, b.data, b.length);
	buffer_free(&b);
}

/* Up to max bytes of input; 0 at its end. */
static size_t next_input(struct run *r, uint8_t *buf, size_t max)
{
	size_t n = 0, length;
	ssize_t got;

	if (r->input_fd > 0) {
		got = read(r->input_fd, buf, max);
		return got > 0 ? got : 0;
	}
	length = r->input ? strlen(r->input) : r->input_bytes;
	while (n < max && r->in_sent + n < length) {
		buf[n] = r->input ? (uint8_t)r->input[r->in_sent + n] : host_pattern(r->in_sent + n);
		n++;
	}
	return n;
}

/* Keeps the queue to the link short, as a supervisor must. */
static void feed(struct host *h, struct run *r)
{
	uint8_t buf[FRAME_PAYLOAD_MAX];
	size_t n;

	while (!r->keep_open && r->window && !r->done && h->out.length < 65536) {
		n = next_input(r, buf, r->window < sizeof(buf) ? r->window : sizeof(buf));
		host_send(h, FRAME_DATA_IN, r->channel, buf, n);
		r->in_sent += n;
		r->window -= n;
		r->keep_open = !n;
	}
}

static void keep(char *to, uint64_t have, size_t size, const uint8_t *from, size_t n)
{
	if (have < size - 1)
		memcpy(to + have, from, n < size - 1 - have ? n : size - 1 - have);
}

static void take_output(struct run *r, const struct host_frame *f)
{
	int i;

	if (f->type == FRAME_DATA_ERR) {
		keep(r->err, r->err_bytes, sizeof(r->err), f->payload, f->length);
		r->err_bytes += f->length;
	} else {
		keep(r->out, r->out_bytes, sizeof(r->out), f->payload, f->length);
		r->out_bytes += f->length;
		for (i = 0; i < f->length; i++)
			r->out_hash = hash_more(r->out_hash, f->payload[i]);
		if (r->output_fd > 0)
			guest_write_full(r->output_fd, f->payload, f->length);
	}
	if (!r->credit_owed)
		r->credit_at = guest_now_ms() + r->credit_delay_ms;
	r->credit_owed += f->length;
}

static void take(struct run *r, const struct host_frame *f)
{
	switch (f->type) {
	case FRAME_STARTED:
		r->started = true;
		return;
	case FRAME_DATA_OUT:
	case FRAME_DATA_ERR:
		take_output(r, f);
		return;
	case FRAME_CREDIT:
		r->window += frame_u32(f->payload + 4);
		return;
	case FRAME_EXIT:
		r->status = frame_u32(f->payload);
		r->done = true;
		return;
	case FRAME_ERROR:
		r->errnum = frame_u32(f->payload);
		snprintf(r->text, sizeof(r->text), "%s", (const char *)f->payload + 4);
		r->done = true;
		return;
	}
}

static void timed(struct host *h, struct run *r, int64_t now)
{
	struct frame_credit credit = { .stream = STREAM_OUT, .bytes = r->credit_owed };
	uint32_t signo = r->signo;

	if (r->credit_owed && now >= r->credit_at && !r->done) {
		host_send(h, FRAME_CREDIT, r->channel, &credit, sizeof(credit));
		r->credit_owed = 0;
	}
	if (r->after_output && !r->out_bytes)
		return;
	if (r->signal_after_ms && now >= r->begun + r->signal_after_ms && r->started && !r->done) {
		host_send(h, FRAME_SIGNAL, r->channel, &signo, sizeof(signo));
		r->signal_after_ms = 0;
	}
	if (r->close_after_ms && now >= r->begun + r->close_after_ms && !r->done) {
		host_send(h, FRAME_CLOSE, r->channel, NULL, 0);
		r->close_after_ms = 0;
	}
}

bool host_run(struct host *h, struct run *runs, int count, int timeout_ms)
{
	static uint32_t last_channel;
	int64_t end = guest_now_ms() + timeout_ms;
	uint32_t first = last_channel + 1;
	struct host_frame f;
	int i, left = count;

	for (i = 0; i < count; i++)
		begin(h, &runs[i], ++last_channel);
	while (left && guest_now_ms() < end) {
		for (i = 0; i < count; i++) {
			feed(h, &runs[i]);
			timed(h, &runs[i], guest_now_ms());
		}
		if (!host_next(h, &f, 20) || f.channel < first || f.channel >= first + count)
			continue;
		take(&runs[f.channel - first], &f);
		for (i = 0, left = 0; i < count; i++)
			left += !runs[i].done;
	}
	return !left;
}
