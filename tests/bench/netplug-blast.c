/*
 * Moves bytes over TCP as fast as it can for a while, and checks them; counts small packets: for measuring a
 * guest's network from inside (static, no library but libc; busybox's nc moves 1 KiB at a time and measures itself).
 *
 *	netplug-blast serve PORT [ADDRESS]		serves all the below, on the loopback unless said, until killed
 *	netplug-blast send ADDRESS PORT MS FLOWS	guest to host: Mbit/s of all flows together
 *	netplug-blast recv ADDRESS PORT MS FLOWS	host to guest
 *	netplug-blast small ADDRESS PORT MS		UDP datagrams of 64 bytes that come back, WINDOW under way:
 *							how many a second. On 127.0.0.1: to itself, without a server
 *
 * The client says 'S' or 'R' and how long; the data is a counter pattern, so that a byte that is lost, cut or moved
 * is found; who receives tells at the end how many there were and whether they were right. Any failure ends with status 1.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (256 * 1024)
#define REQUEST 16
#define SMALL 64
#define WINDOW 32
#define PERIOD 65521	/* prime: no frame size divides it */

static uint8_t pattern[CHUNK + PERIOD], buffer[CHUNK];

static void fill_pattern(void)
{
	for (size_t i = 0; i < sizeof(pattern); i++)
		pattern[i] = (uint8_t)((i % PERIOD) * 2654435761u >> 13);
}

static bool send_all(int fd, const void *data, size_t n)
{
	while (n) {
		ssize_t sent = send(fd, data, n, MSG_NOSIGNAL);

		if (sent <= 0)
			return false;
		data = (const char *)data + sent;
		n -= (size_t)sent;
	}
	return true;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Sends for a while. Bytes, all of which have come; 0: something went wrong. */
static uint64_t produce(int fd, uint64_t ms)
{
	uint64_t end = now_ms() + ms, done = 0;
	char verdict[REQUEST + 1] = {0};

	while (now_ms() < end) {
		if (!send_all(fd, pattern + done % PERIOD, CHUNK))
			return 0;
		done += CHUNK;
	}
	shutdown(fd, SHUT_WR);
	if (recv(fd, verdict, REQUEST, MSG_WAITALL) != REQUEST || verdict[0] != 'k')
		return 0;
	return strtoull(verdict + 1, NULL, 10) == done ? done : 0;
}

/* Receives until the end. Bytes, 0: they were not right. */
static uint64_t consume(int fd)
{
	char verdict[REQUEST + 1];
	bool whole = true;
	uint64_t done = 0;
	ssize_t n;

	while ((n = recv(fd, buffer, CHUNK, 0)) > 0) {
		whole = whole && !memcmp(buffer, pattern + done % PERIOD, (size_t)n);
		done += (uint64_t)n;
	}
	snprintf(verdict, sizeof(verdict), "%c%015llu", whole && !n ? 'k' : 'x', (unsigned long long)done);
	return send_all(fd, verdict, REQUEST) && whole && !n ? done : 0;
}

static bool to_address(struct sockaddr_in *to, const char *address, int port)
{
	*to = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	return inet_pton(AF_INET, address, &to->sin_addr) == 1;
}

static uint64_t flow(bool sending, const struct sockaddr_in *to, uint64_t ms)
{
	char request[REQUEST + 1];
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	snprintf(request, sizeof(request), "%c%015llu", sending ? 'S' : 'R', (unsigned long long)ms);
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) || !send_all(fd, request, REQUEST))
		return 0;
	return sending ? produce(fd, ms) : consume(fd);
}

static int client(bool sending, const struct sockaddr_in *to, uint64_t ms, int flows)
{
	uint64_t begin = now_ms(), sum = 0, bytes;
	int pair[2];

	if (pipe(pair))
		return 1;
	for (int i = 0; i < flows; i++) {
		if (fork())
			continue;
		bytes = flow(sending, to, ms);
		_exit(write(pair[1], &bytes, sizeof(bytes)) == sizeof(bytes) ? 0 : 1);
	}
	close(pair[1]);
	for (int i = 0; i < flows; i++) {
		if (read(pair[0], &bytes, sizeof(bytes)) != sizeof(bytes) || !bytes) {
			puts("BROKEN");
			return 1;
		}
		sum += bytes;
	}
	printf("%.1f\n", (double)sum * 8 / 1e3 / (double)(now_ms() - begin));
	return 0;
}

static int small(const struct sockaddr_in *to, uint64_t ms)
{
	struct timeval wait = {.tv_usec = 20000};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	uint64_t begin = now_ms(), back = 0;
	int under_way = 0;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
	if (to->sin_addr.s_addr == htonl(INADDR_LOOPBACK) && bind(fd, (const struct sockaddr *)to, sizeof(*to)))
		return 1;
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)))
		return 1;
	while (now_ms() - begin < ms) {
		for (; under_way < WINDOW; under_way++)
			send(fd, pattern, SMALL, 0);
		if (recv(fd, buffer, sizeof(buffer), 0) != SMALL) {	/* some are lost: all that were under way begin anew */
			under_way = 0;
			continue;
		}
		under_way--;
		back++;
	}
	printf("%.0f\n", (double)back * 1e3 / (double)(now_ms() - begin));
	return back == 0;
}

static void answer(int fd)
{
	char request[REQUEST + 1] = {0};

	if (recv(fd, request, REQUEST, MSG_WAITALL) != REQUEST)
		return;
	if (request[0] == 'S')
		consume(fd);
	else
		produce(fd, strtoull(request + 1, NULL, 10));
}

static void echo(int fd)
{
	struct sockaddr_in from;

	for (;;) {
		socklen_t size = sizeof(from);
		ssize_t n = recvfrom(fd, buffer, sizeof(buffer), 0, (struct sockaddr *)&from, &size);

		if (n > 0)
			sendto(fd, buffer, (size_t)n, 0, (struct sockaddr *)&from, size);
	}
}

static int serve(int port, const char *address)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
				  .sin_addr.s_addr = inet_addr(address) };
	int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;

	int datagrams = socket(AF_INET, SOCK_DGRAM, 0);

	signal(SIGCHLD, SIG_IGN);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (bind(listener, (struct sockaddr *)&at, sizeof(at)) || listen(listener, 64) ||
	    bind(datagrams, (struct sockaddr *)&at, sizeof(at))) {
		perror("netplug-blast: listen");
		return 1;
	}
	if (fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		echo(datagrams);
	}
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			continue;
		if (fork() == 0) {
			answer(fd);
			_exit(0);
		}
		close(fd);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in to;

	fill_pattern();
	if ((argc == 3 || argc == 4) && !strcmp(argv[1], "serve"))
		return serve(atoi(argv[2]), argc == 4 ? argv[3] : "127.0.0.1");
	if (argc == 6 && (!strcmp(argv[1], "send") || !strcmp(argv[1], "recv")) && to_address(&to, argv[2], atoi(argv[3])))
		return client(argv[1][0] == 's', &to, strtoull(argv[4], NULL, 10), atoi(argv[5]));
	if (argc == 5 && !strcmp(argv[1], "small") && to_address(&to, argv[2], atoi(argv[3])))
		return small(&to, strtoull(argv[4], NULL, 10));
	fputs("usage: netplug-blast serve PORT [ADDRESS] | send|recv ADDRESS PORT MS FLOWS | small ADDRESS PORT MS\n", stderr);
	return 2;
}
