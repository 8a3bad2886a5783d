/*
 * Moves bytes over TCP as fast as it can, and checks them: for measuring a
 * guest's network from inside (static, no library but libc; busybox's nc
 * moves 1 KiB at a time and measures itself).
 *
 *	netplug-blast serve PORT [ADDRESS]   serves all the below, on the loopback unless said, until killed
 *	netplug-blast send ADDR PORT BYTES   guest to host: "MBIT/s"
 *	netplug-blast recv ADDR PORT BYTES   host to guest: "MBIT/s"
 *
 * The client says 'S' or 'R' and a byte count; the data is a counter pattern, so that a byte that is lost, cut or moved
 * is found; at the end the receiver answers 'k' or 'x'. Any failure ends with status 1.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (256 * 1024)
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

static bool produce(int fd, uint64_t bytes)
{
	char verdict = 0;

	for (uint64_t done = 0; done < bytes;) {
		size_t n = bytes - done < CHUNK ? (size_t)(bytes - done) : CHUNK;

		if (!send_all(fd, pattern + done % PERIOD, n))
			return false;
		done += n;
	}
	return recv(fd, &verdict, 1, MSG_WAITALL) == 1 && verdict == 'k';
}

static bool consume(int fd, uint64_t bytes)
{
	bool whole = true;

	for (uint64_t done = 0; done < bytes;) {
		ssize_t n = recv(fd, buffer, bytes - done < CHUNK ? (size_t)(bytes - done) : CHUNK, 0);

		if (n <= 0)
			return false;
		whole = whole && !memcmp(buffer, pattern + done % PERIOD, (size_t)n);
		done += (uint64_t)n;
	}
	return send_all(fd, whole ? "k" : "x", 1) && whole;
}

static int client(bool sending, const char *address, int port, uint64_t bytes)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	char request[17] = { sending ? 'S' : 'R' };
	struct timespec a, b;
	double seconds;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (inet_pton(AF_INET, address, &to.sin_addr) != 1 || connect(fd, (struct sockaddr *)&to, sizeof(to))) {
		perror("netplug-blast: connect");
		return 1;
	}
	snprintf(request + 1, sizeof(request) - 1, "%015llu", (unsigned long long)bytes);
	clock_gettime(CLOCK_MONOTONIC, &a);
	if (!send_all(fd, request, 16) || !(sending ? produce(fd, bytes) : consume(fd, bytes))) {
		puts("BROKEN");
		return 1;
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	seconds = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
	printf("%.1f\n", (double)bytes * 8 / seconds / 1e6);
	return 0;
}

static void answer(int fd)
{
	char request[17] = { 0 };
	uint64_t bytes;

	if (recv(fd, request, 16, MSG_WAITALL) != 16)
		return;
	bytes = strtoull(request + 1, NULL, 10);
	if (request[0] == 'S')
		consume(fd, bytes);
	else
		produce(fd, bytes);
}

static int serve(int port, const char *address)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
				  .sin_addr.s_addr = inet_addr(address) };
	int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;

	signal(SIGCHLD, SIG_IGN);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (bind(listener, (struct sockaddr *)&at, sizeof(at)) || listen(listener, 64)) {
		perror("netplug-blast: listen");
		return 1;
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
	fill_pattern();
	if ((argc == 3 || argc == 4) && !strcmp(argv[1], "serve"))
		return serve(atoi(argv[2]), argc == 4 ? argv[3] : "127.0.0.1");
	if (argc == 5 && (!strcmp(argv[1], "send") || !strcmp(argv[1], "recv")))
		return client(argv[1][0] == 's', argv[2], atoi(argv[3]), strtoull(argv[4], NULL, 10));
	fputs("usage: netplug-blast serve PORT [ADDRESS] | send|recv ADDRESS PORT BYTES\n", stderr);
	return 2;
}
