/*
 * What lines do to frames, seen by the guests at their two ends. "impair_probe send ETH[:EVERY]…" sends numbered, timed frames
 * on each interface, all COUNT of them or every EVERYth, at PER_SECOND at most. "impair_probe receive ETH…", started before it,
 * tells for each interface, a second after the last frame: how many came, how many of them for the first time, how many came
 * after one that was sent later, bits a second from the first to the last, and least, mean and greatest delay in microseconds
 * (by the guests' own clocks).
 *
 * The receiver sends the first interface's frames back, and the sender waits for the last but one: a guest that gets no
 * processor would lose what its queues do not hold.
 */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define COUNT	   2000
#define PER_SECOND 400
#define ECHO_MS	   2000
#define FIRST_MS   20000
#define SILENCE_MS 1000
#define LINES_MAX  8
#define PROTOCOL   0x88b5 /* IEEE 802: local experimental */

struct frame {
	unsigned char to[6], from[6];
	uint16_t protocol;
	uint32_t number;
	int64_t sent_us;
	char rest[972];
} __attribute__((packed));

struct line {
	int fd;
	unsigned int every;
	unsigned char seen[COUNT];
	uint32_t came, fresh, overtaken, last;
	int64_t least, sum, greatest, begin, end;
};

static int64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void open_line(struct line *line, char *name)
{
	struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_protocol = htons(PROTOCOL)};
	int size = 16 << 20;
	char *every = strchr(name, ':');

	if (every)
		*every++ = '\0';
	line->every = every ? (unsigned int)atoi(every) : 1;
	line->fd = socket(AF_PACKET, SOCK_RAW, 0);
	at.sll_ifindex = (int)if_nametoindex(name);
	if (line->fd < 0 || !at.sll_ifindex || !line->every || bind(line->fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		exit(1);
	setsockopt(line->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
}

static void wait_for_echo(const struct line *line)
{
	struct pollfd p = {.fd = line->fd, .events = POLLIN};
	struct frame f;

	if (poll(&p, 1, ECHO_MS) > 0)
		recv(line->fd, &f, sizeof(f), MSG_DONTWAIT);
}

static void send_all(struct line *lines, int count)
{
	struct frame f = {.to = {255, 255, 255, 255, 255, 255}, .from = {2, 0, 0, 0, 0, 15}, .protocol = htons(PROTOCOL)};
	int64_t begin = now_us();

	for (f.number = 0; f.number < COUNT; f.number++) {
		int64_t wait = begin + f.number * 1000000LL / PER_SECOND - now_us();

		if (wait > 0)
			usleep((useconds_t)wait);
		if (f.number % lines[0].every == 0 && f.number > lines[0].every)
			wait_for_echo(&lines[0]);
		for (int i = 0; i < count; i++) {
			if (f.number % lines[i].every)
				continue;
			f.sent_us = now_us();
			if (send(lines[i].fd, &f, sizeof(f), 0) != sizeof(f))
				exit(1);
		}
	}
}

static void take(struct line *line, bool echo)
{
	struct frame f;
	int64_t delay;

	if (recv(line->fd, &f, sizeof(f), MSG_DONTWAIT) != sizeof(f) || f.number >= COUNT)
		return;
	line->end = now_us();
	if (echo)
		send(line->fd, &f, sizeof(f), 0);
	delay = line->end - f.sent_us;
	if (!line->came++) {
		line->begin = line->end;
		line->least = line->greatest = delay;
	}
	line->sum += delay;
	line->least = delay < line->least ? delay : line->least;
	line->greatest = delay > line->greatest ? delay : line->greatest;
	if (!line->seen[f.number]) {
		line->fresh++;
		line->overtaken += f.number < line->last;
	}
	line->seen[f.number] = 1;
	line->last = f.number > line->last ? f.number : line->last;
}

static void receive_all(struct line *lines, int count)
{
	struct pollfd fds[LINES_MAX];
	int wait = FIRST_MS;

	for (int i = 0; i < count; i++)
		fds[i] = (struct pollfd){.fd = lines[i].fd, .events = POLLIN};
	printf("ready\n");
	fflush(stdout);
	while (poll(fds, (nfds_t)count, wait) > 0) {
		wait = SILENCE_MS;
		for (int i = 0; i < count; i++)
			if (fds[i].revents)
				take(&lines[i], i == 0);
	}
	for (int i = 0; i < count; i++) {
		struct line *l = &lines[i];
		int64_t took = l->end > l->begin ? l->end - l->begin : 1;

		printf("%u %u %u %lld %lld %lld %lld\n", l->came, l->fresh, l->overtaken,
		       (long long)(l->came * (int64_t)sizeof(struct frame) * 8 * 1000000 / took), (long long)l->least,
		       (long long)(l->came ? l->sum / l->came : 0), (long long)l->greatest);
	}
}

int main(int argc, char **argv)
{
	static struct line lines[LINES_MAX];
	int count = argc - 2;

	if (count < 1 || count > LINES_MAX)
		return 2;
	for (int i = 0; i < count; i++)
		open_line(&lines[i], argv[i + 2]);
	if (!strcmp(argv[1], "send"))
		send_all(lines, count);
	else
		receive_all(lines, count);
	return 0;
}
