/*
 * The login console: what people take for the machine's screen and keyboard.
 *
 * The guest has two terminals: con0 (tty0), to which the kernel and, as
 * /dev/console, the boot messages go, and con1 (tty1), where images have their
 * getty. Their output is merged into one stream. Input goes to con1 once con1
 * has said anything since the boot; before, to con0 (an emergency shell, a tiny
 * image whose shell sits on /dev/console).
 *
 * All output is kept in console.log (LOG_MAX bytes; then it becomes
 * console.log.1 and a new one begins), which also is where late-comers get their
 * replay from. Nothing here ever waits: the guest's output is always taken, input
 * that the guest does not take is kept up to INPUT_MAX bytes and then dropped,
 * as a terminal would.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/log.h"
#include "uml-lab/machine/supervisor.h"

#define LOG_MAX        (16 << 20)
#define REPLAY_MAX     (256u << 10)
#define INPUT_MAX      (64u << 10)
#define READ_SIZE      16384
#define PASTE_CHUNK    1024u /* bytes typed at once, see write_input() */
#define PASTE_PAUSE_MS 10

/* ---- the last output ---- */

void tail_add(struct tail *tail, const void *data, size_t length)
{
	const char *from = data;

	if (length > TAIL_SIZE) {
		from += length - TAIL_SIZE;
		length = TAIL_SIZE;
	}
	if (tail->length + length > TAIL_SIZE) {
		size_t drop = tail->length + length - TAIL_SIZE;

		memmove(tail->text, tail->text + drop, tail->length - drop);
		tail->length -= drop;
	}
	memcpy(tail->text + tail->length, from, length);
	tail->length += length;
}

/* Length of the escape sequence at p (ECMA-48: CSI … final byte, or two characters), at least 1. */
static size_t escape_length(const char *p, size_t left)
{
	size_t n = 2;

	if (left < 2)
		return left;
	if (p[1] != '[')
		return 2;
	while (n < left && ((unsigned char)p[n] < 0x40 || (unsigned char)p[n] > 0x7e))
		n++;
	return n < left ? n + 1 : left;
}

/* Text without escape sequences and control characters, but with newlines. Returns its length. */
static size_t plain_text(const struct tail *tail, char out[static TAIL_SIZE])
{
	size_t length = 0;

	for (size_t i = 0; i < tail->length;) {
		unsigned char c = (unsigned char)tail->text[i];

		if (c == 0x1b) {
			i += escape_length(tail->text + i, tail->length - i);
			continue;
		}
		if (c == '\n' || (c >= 0x20 && c != 0x7f))
			out[length++] = (char)c;
		i++;
	}
	return length;
}

void tail_last_lines(const struct tail *tail, int lines, char *out, size_t size)
{
	char text[TAIL_SIZE];
	size_t end = plain_text(tail, text), start, used = 0;

	while (end > 0 && isspace((unsigned char)text[end - 1]))
		end--;
	for (start = end; start > 0; start--)
		if (text[start - 1] == '\n' && --lines == 0)
			break;
	for (size_t i = start; i < end && used + 4 < size; i++) {
		if (text[i] != '\n') {
			out[used++] = text[i];
			continue;
		}
		while (i + 1 < end && isspace((unsigned char)text[i + 1]))
			i++;
		memcpy(out + used, " | ", 3);
		used += 3;
	}
	out[used] = '\0';
	str_clean_chars(out);
}

bool tail_find(const struct tail *tail, const char *word, char *out, size_t size)
{
	char text[TAIL_SIZE + 1], *found = NULL;
	size_t length = plain_text(tail, text);

	text[length] = '\0';
	for (char *p = strstr(text, word); p; p = strstr(p + 1, word))
		found = p;
	if (!found)
		return false;
	found += strlen(word);
	snprintf(out, size, "%.*s", (int)strcspn(found, "\n"), found);
	str_clean_chars(out);
	return true;
}

/* ---- the log ---- */

static int open_log(struct supervisor *sv, struct error *err)
{
	cleanup_free char *path = file_join(err, sv->spec->folder, "console.log");
	struct stat st;

	if (!path)
		return -1;
	sv->console.log = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (sv->console.log < 0 || fstat(sv->console.log, &st) < 0)
		return error_errno(err, errno, "cannot open %s", path);
	sv->console.log_size = st.st_size;
	return 0;
}

static void rotate_log(struct supervisor *sv)
{
	cleanup_free char *path = file_join(NULL, sv->spec->folder, "console.log");
	cleanup_free char *old = file_join(NULL, sv->spec->folder, "console.log.1");
	struct error err = ERROR_INIT;

	sv->console.log_size = 0; /* even when it fails: tried again LOG_MAX bytes later */
	if (!path || !old || rename(path, old) < 0)
		return;
	close(sv->console.log);
	if (open_log(sv, &err) < 0)
		log_error(&err);
}

/* A log that can't be written (disk full) must not stop the machine. */
static void write_log(struct supervisor *sv, const void *data, size_t length)
{
	if (sv->console.log < 0)
		return;
	if (file_write_full(sv->console.log, data, length) > 0)
		sv->console.log_size += (off_t)length;
	if (sv->console.log_size > LOG_MAX)
		rotate_log(sv);
}

void console_replay(struct supervisor *sv, uint32_t bytes, struct strbuf *out)
{
	struct stat st;
	char chunk[READ_SIZE];
	off_t at;

	if (bytes > REPLAY_MAX)
		bytes = REPLAY_MAX;
	if (sv->console.log < 0 || fstat(sv->console.log, &st) < 0)
		return;
	at = st.st_size > (off_t)bytes ? st.st_size - (off_t)bytes : 0;
	while (at < st.st_size) {
		ssize_t got = pread(sv->console.log, chunk, sizeof(chunk), at);

		if (got <= 0)
			return;
		strbuf_add(out, chunk, (size_t)got);
		at += got;
	}
}

/* Where a terminal writes next: a kernel's lines end without a return, so that the next begins where the last one ended. */
struct pen {
	unsigned int row, column;
	bool escape; /* within a sequence, as ESC [ 1 m */
};

static void move_pen(struct pen *pen, char c, unsigned int columns)
{
	if (pen->escape) {
		pen->escape = c == '[' || (c >= ' ' && c < '@');
	} else if (c == '\033') {
		pen->escape = true;
	} else if (c == '\n') {
		pen->row++;
	} else if (c == '\r') {
		pen->column = 0;
	} else if ((unsigned char)c >= ' ' && ((unsigned char)c & 0xc0) != 0x80 && ++pen->column > columns) {
		pen->row++;
		pen->column = 1;
	}
}

size_t console_fit(const struct strbuf *text, unsigned int rows, unsigned int columns)
{
	struct pen end = {0}, pen = {0};
	size_t start = 0;

	if (rows == 0 || columns == 0)
		return 0;
	for (size_t i = 0; i < text->length; i++)
		move_pen(&end, text->data[i], columns);
	for (size_t i = 0; i < text->length; i++) {
		if (i == start && end.row - pen.row + 1 < rows)
			break;
		move_pen(&pen, text->data[i], columns);
		if (text->data[i] == '\n')
			start = i + 1;
	}
	return start;
}

void console_output(struct supervisor *sv, const void *data, size_t length)
{
	write_log(sv, data, length);
	control_console_data(sv, data, length);
}

void console_note(struct supervisor *sv, const char *fmt, ...)
{
	cleanup_strbuf struct strbuf line = STRBUF_INIT;
	va_list ap;

	va_start(ap, fmt);
	strbuf_puts(&line, "\r\n[uml-lab: ");
	strbuf_vprintf(&line, fmt, ap);
	strbuf_puts(&line, "]\r\n");
	va_end(ap);
	if (!line.failed)
		console_output(sv, line.data, line.length);
}

static void on_pause_over(void *arg);

int console_open(struct supervisor *sv, struct error *err)
{
	for (int i = 0; i < CONSOLES; i++)
		sv->console.fds[i] = -1;
	sv->console.timer = loop_add_timer(sv->loop, -1, on_pause_over, sv, err);
	return sv->console.timer ? open_log(sv, err) : -1;
}

void console_close(struct supervisor *sv)
{
	console_detach(sv);
	if (sv->console.log >= 0)
		close(steal_fd(&sv->console.log));
}

/* ---- the guest's terminals ---- */

static void drop_terminal(struct supervisor *sv, int side)
{
	struct console *console = &sv->console;

	loop_remove_fd(console->sources[side]);
	console->sources[side] = NULL;
	if (console->fds[side] >= 0)
		close(steal_fd(&console->fds[side]));
}

/* Takes what the terminal has to say: once, or (all) until nothing is left. */
static void read_terminal(struct supervisor *sv, int side, bool all)
{
	struct console *console = &sv->console;
	char chunk[READ_SIZE];
	ssize_t got;

	do {
		got = read(console->fds[side], chunk, sizeof(chunk));
		if (got > 0) {
			console->login_side |= side == 1;
			tail_add(&console->tail, chunk, (size_t)got);
			console_output(sv, chunk, (size_t)got);
		}
	} while ((got > 0 && all) || (got < 0 && errno == EINTR));
	if (got == 0 || (got < 0 && errno != EAGAIN))
		drop_terminal(sv, side);
}

/*
 * At most PASTE_CHUNK bytes, then a pause: a tty whose reader does not keep up
 * goes deaf for good (protocol.h, "The line's own window"), and here nobody
 * tells how much was read. A pasted text thus comes at the speed of a fast serial line.
 */
static void write_input(struct supervisor *sv)
{
	struct console *console = &sv->console;
	int side = console->login_side ? 1 : 0;
	size_t n = console->input.length < PASTE_CHUNK ? console->input.length : PASTE_CHUNK;
	ssize_t put;

	if (console->pausing || !n || console->fds[side] < 0)
		return;
	put = write(console->fds[side], console->input.data, n);
	if (put > 0)
		strbuf_consume(&console->input, (size_t)put);
	console->pausing = true;
	loop_arm_timer(console->timer, PASTE_PAUSE_MS);
}

static void on_pause_over(void *arg)
{
	struct supervisor *sv = arg;

	sv->console.pausing = false;
	write_input(sv);
}

static void on_terminal(void *arg, int fd, uint32_t events)
{
	struct supervisor *sv = arg;
	int side = fd == sv->console.fds[0] ? 0 : 1;

	(void)events;
	read_terminal(sv, side, false);
}

void console_input(struct supervisor *sv, const void *data, size_t length)
{
	if (sv->console.input.length + length > INPUT_MAX)
		return;
	strbuf_add(&sv->console.input, data, length);
	write_input(sv);
}

int console_attach(struct supervisor *sv, const int fds[CONSOLES], struct error *err)
{
	struct console *console = &sv->console;

	console->login_side = console->pausing = false;
	console->tail.length = 0;
	console->rows = console->columns = 0;
	strbuf_free(&console->input);
	for (int i = 0; i < CONSOLES; i++)
		console->fds[i] = fds[i];
	for (int i = 0; i < CONSOLES; i++) {
		console->sources[i] = loop_add_fd(sv->loop, fds[i], EPOLLIN, on_terminal, sv, err);
		if (!console->sources[i])
			return -1;
	}
	return 0;
}

void console_detach(struct supervisor *sv)
{
	for (int i = 0; i < CONSOLES; i++) {
		if (sv->console.fds[i] >= 0)
			read_terminal(sv, i, true);
		drop_terminal(sv, i);
	}
	strbuf_free(&sv->console.input);
}

void console_resize(struct supervisor *sv, uint16_t rows, uint16_t columns)
{
	struct console *console = &sv->console;
	struct frame_size size = {rows, columns};

	if (!rows || !columns || (rows == console->rows && columns == console->columns))
		return;
	if (relay_send(sv, FRAME_CONSOLE_SIZE, 0, &size, sizeof(size)) < 0)
		return;
	console->rows = rows;
	console->columns = columns;
}
