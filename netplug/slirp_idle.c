/*
 * How long libslirp may sleep.
 *
 * libslirp asks to be woken once a second whatever happens, and twice a second while it
 * has as much as a listening forward (slirp.c:slirp_update_timeout, do_slowtimo). An
 * idle machine should not wake the host's processor for that. What the ticks
 * are good for is ageing, and its own table of connections tells whether
 * there is anything to age:
 *
 *	  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
 *	  TCP[ESTABLISHED]    12       10.0.2.15 44556       10.0.2.2    80     0     0
 *	  TCP[HOST_FORWARD]   11       127.0.0.1  8080      10.0.2.15    80     0     0
 *	  UDP[236 sec]        13       10.0.2.15 33333       10.0.2.3    53     0     0
 *
 * A forward waits for clients: no timer. An established connection with both queues empty
 * has nothing unacknowledged: no timer but keep-alive, which libslirp leaves
 * off. UDP and ICMP sockets close when their time is over. Every other
 * state (connecting, closing, data in flight) needs the ticks.
 */
#include <stdio.h>
#include <string.h>

#include "netplug/netplug_internal.h"

#define FOR_EVER (-1)
#define NOW 0

/* RecvQ and SendQ are the last two columns. */
static bool queues_empty(const char *line, size_t length)
{
	static const char zeros[] = "    0     0";

	return length >= sizeof(zeros) - 1 && !memcmp(line + length - (sizeof(zeros) - 1), zeros, sizeof(zeros) - 1);
}

static bool begins(const char *line, size_t length, const char *word)
{
	size_t n = strlen(word);

	return length >= n && !memcmp(line, word, n);
}

static int64_t line_idle_ms(const char *line, size_t length)
{
	long seconds;
	char kind[8];

	if (begins(line, length, "  Protocol[State]") || begins(line, length, "  TCP[HOST_FORWARD]") ||
	    begins(line, length, "  UDP[HOST_FORWARD]"))
		return FOR_EVER;
	if (begins(line, length, "  TCP[ESTABLISHED]"))
		return queues_empty(line, length) ? FOR_EVER : NOW;
	if (sscanf(line, "  %7[A-Z][%ld sec]", kind, &seconds) == 2 && seconds >= 0)
		return (seconds + 1) * 1000;
	return NOW;
}

int64_t slirp_idle_ms(const char *connections)
{
	int64_t least = FOR_EVER;

	while (*connections) {
		size_t length = strcspn(connections, "\n");
		int64_t ms = length ? line_idle_ms(connections, length) : FOR_EVER;

		if (ms == NOW)
			return NOW;
		if (ms > 0 && (least < 0 || ms < least))
			least = ms;
		connections += length;
		connections += *connections == '\n';
	}
	return least;
}
