/*
 * The login console on the caller's terminal. Everything typed goes to the
 * guest but Ctrl-], which detaches; the window's size follows the terminal's.
 * Without a terminal at stdin (a pipe), what comes from there is typed, and its end
 * detaches once the guest has had it.
 */
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/machine/client_internal.h"

#define DETACH 0x1d /* Ctrl-] */

struct viewer {
	int control;
	struct wire wire;
	bool read_only;
	bool over;
	int in; /* stdin, -1 after its end */
};

static int take_frames(struct viewer *v, struct error *err)
{
	ssize_t got = wire_read(&v->wire, v->control);
	struct wire_frame frame;
	int next;

	if (got < 0 && errno != EAGAIN && errno != ECONNRESET)
		return error_errno(err, errno, "cannot read from the machine's supervisor");
	if (got == 0 || (got < 0 && errno == ECONNRESET))
		v->over = true;
	while ((next = wire_next(&v->wire, &frame, err)) == 1) {
		if (frame.type == FRAME_FAILED)
			return client_error(&frame, err);
		if (frame.type == FRAME_CONSOLE_DATA &&
		    file_write_full(STDOUT_FILENO, frame.payload, frame.length) < 0 && errno != EINTR)
			return error_errno(err, errno, "cannot write to standard output");
	}
	return next;
}

static int take_keys(struct viewer *v, struct error *err)
{
	char keys[4096], *detach;
	ssize_t got = read(v->in, keys, sizeof(keys));
	size_t n = got > 0 ? (size_t)got : 0;

	if (got < 0 && (errno == EINTR || errno == EAGAIN))
		return 0;
	detach = n ? memchr(keys, DETACH, n) : NULL;
	if (got <= 0 || detach)
		v->over = true;
	if (detach)
		n = (size_t)(detach - keys);
	if (v->read_only || !n)
		return 0;
	if (wire_queue(&v->wire, FRAME_CONSOLE_DATA, 0, keys, n) < 0)
		return error_set(err, ERROR_FAILED, "the machine's supervisor takes no input");
	return 0;
}

/* The window changed its size, or it is time to go. */
static int take_signals(struct viewer *v, int signals, struct error *err)
{
	struct signalfd_siginfo info;

	while (read(signals, &info, sizeof(info)) == sizeof(info)) {
		struct frame_size size = client_terminal_size(STDIN_FILENO);

		if (info.ssi_signo != SIGWINCH)
			v->over = true;
		else if (wire_queue(&v->wire, FRAME_CONSOLE_SIZE, 0, &size, sizeof(size)) < 0)
			return error_set(err, ERROR_FAILED, "the machine's supervisor takes no input");
	}
	return 0;
}

static int view(struct viewer *v, int signals, struct error *err)
{
	while (!v->over) {
		bool room = v->wire.out.length < FRAME_WINDOW;
		struct pollfd p[3] = {
			{v->control, (short)(POLLIN | (v->wire.out.length ? POLLOUT : 0)), 0},
			{room ? v->in : -1, POLLIN, 0},
			{signals, POLLIN, 0},
		};

		if (poll(p, 3, -1) < 0 && errno != EINTR)
			return error_errno(err, errno, "cannot wait");
		if (p[2].revents && take_signals(v, signals, err) < 0)
			return -1;
		if (p[1].revents && take_keys(v, err) < 0)
			return -1;
		if (p[0].revents & (POLLIN | POLLHUP | POLLERR) && take_frames(v, err) < 0)
			return -1;
		if (wire_write(&v->wire, v->control) < 0 && errno != EPIPE && errno != ECONNRESET)
			return error_errno(err, errno, "cannot send to the supervisor");
	}
	return 0;
}

int machine_console(int control, uint32_t replay, bool read_only, struct error *err)
{
	static const int signals[] = {SIGWINCH, SIGTERM, SIGHUP, SIGINT, SIGQUIT, 0};
	struct viewer v = {.control = control, .read_only = read_only, .in = STDIN_FILENO};
	struct frame_console request = {htole32(replay), htole32(read_only),
					client_terminal_size(STDIN_FILENO)};
	cleanup_close int fd = -1;
	sigset_t old;
	int result;

	wire_init(&v.wire, CLIENT_OUT_MAX, false);
	if (wire_queue(&v.wire, FRAME_CONSOLE, 0, &request, sizeof(request)) < 0)
		return error_oom(err);
	fd = client_signals(signals, &old, err);
	if (fd < 0)
		return -1;
	client_terminal_raw(STDIN_FILENO);
	result = view(&v, fd, err);
	client_terminal_restore();
	sigprocmask(SIG_SETMASK, &old, NULL);
	/* What was typed before the end of a pipe is not lost. */
	if (result == 0 && v.wire.out.length)
		wire_write(&v.wire, control);
	wire_free(&v.wire);
	return result;
}
