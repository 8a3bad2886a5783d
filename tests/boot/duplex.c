/*
 * duplex ADDRESS PORT BYTES [WORD [LOSS]]: tells a server that WORD (echo), sends it a pattern that it sends back, and reads
 * whenever there is something to read, as a program does that works with poll(). Says "same" when all of it has come back, else
 * what is wrong. LOSS: so many of 1000 segments that come, acknowledgements too, its kernel drops, as one does that has no memory
 * for them: a socket's filter sees them before TCP does (net/ipv4/tcp_ipv4.c: tcp_filter()).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static uint8_t pattern(uint64_t at)
{
	return (uint8_t)(at * 2654435761u >> 13);
}

static int drop(int fd, unsigned long thousandths)
{
	const uint32_t below = (uint32_t)(thousandths * (UINT32_MAX / 1000));
	struct sock_filter code[] = {
		{BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)(SKF_AD_OFF + SKF_AD_RANDOM)},
		{BPF_JMP | BPF_JGE | BPF_K, 0, 1, below},
		{BPF_RET | BPF_K, 0, 0, UINT32_MAX},
		{BPF_RET | BPF_K, 0, 0, 0},
	};
	struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	static uint8_t out[65536], in[65536];
	uint64_t sent = 0, got = 0, total;
	struct pollfd p = {.fd = socket(AF_INET, SOCK_STREAM, 0)};
	char line[32];

	if (argc < 4 || argc > 6 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1)
		return 2;
	to.sin_port = htons((uint16_t)atoi(argv[2]));
	total = strtoull(argv[3], NULL, 10);
	snprintf(line, sizeof(line), "%s\n", argc > 4 ? argv[4] : "echo");
	if (connect(p.fd, (struct sockaddr *)&to, sizeof(to)) || write(p.fd, line, strlen(line)) < 0 ||
	    fcntl(p.fd, F_SETFL, O_NONBLOCK) || (argc > 5 && drop(p.fd, strtoul(argv[5], NULL, 10)))) {
		perror("connect");
		return 1;
	}
	while (got < total) {
		ssize_t n;

		p.events = (short)(POLLIN | (sent < total ? POLLOUT : 0));
		if (poll(&p, 1, 20000) != 1) {
			printf("nothing moves: %llu sent, %llu back\n", (unsigned long long)sent, (unsigned long long)got);
			return 1;
		}
		if (p.revents & POLLOUT) {
			uint64_t left = total - sent < sizeof(out) ? total - sent : sizeof(out);

			for (uint64_t i = 0; i < left; i++)
				out[i] = pattern(sent + i);
			n = send(p.fd, out, left, MSG_NOSIGNAL);
			sent += n > 0 ? (uint64_t)n : 0;
		}
		if (!(p.revents & (POLLIN | POLLHUP | POLLERR)))
			continue;
		n = read(p.fd, in, sizeof(in));
		if (n == 0 || (n < 0 && errno != EAGAIN)) {
			printf("it ended: %llu sent, %llu back\n", (unsigned long long)sent, (unsigned long long)got);
			return 1;
		}
		for (ssize_t i = 0; i < n; i++, got++)
			if (in[i] != pattern(got)) {
				printf("byte %llu is another\n", (unsigned long long)got);
				return 1;
			}
	}
	puts("same");
	return 0;
}
