/* A server's thread on the processor of who it works for: base/beside.c, with a real peer that is bound to one. */
#include "uml-lab/base/beside.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/unit.h"

static cpu_set_t all;

static int cpu_of_all(int nth)
{
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &all) && nth-- == 0)
			return i;
	return -1;
}

static void bind_to(pid_t pid, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	CU_ASSERT_EQUAL_FATAL(sched_setaffinity(pid, sizeof(set), &set), 0);
}

/* The one processor that this thread may run on, or -1. */
static int here(void)
{
	cpu_set_t set;

	sched_getaffinity(0, sizeof(set), &set);
	for (int i = 0; CPU_COUNT(&set) == 1 && i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &set))
			return i;
	return -1;
}

/* A process that connects to us and waits for its end. *socket is our side of the connection. */
static pid_t start_peer(int *socket_of_peer)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t length = sizeof(sa_family_t); /* a name of the kernel's choice */
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	pid_t pid;

	CU_ASSERT_EQUAL_FATAL(bind(listener, (struct sockaddr *)&address, length), 0);
	length = sizeof(address);
	CU_ASSERT_EQUAL_FATAL(getsockname(listener, (struct sockaddr *)&address, &length), 0);
	CU_ASSERT_EQUAL_FATAL(listen(listener, 1), 0);
	pid = fork();
	if (pid == 0) {
		int s = socket(AF_UNIX, SOCK_STREAM, 0);

		if (connect(s, (struct sockaddr *)&address, length) == 0)
			pause();
		_exit(1);
	}
	*socket_of_peer = accept(listener, NULL, NULL);
	close(listener);
	return pid;
}

static void answer(struct beside *b, int count, bool large)
{
	while (count-- > 0)
		beside_answered(b, large);
}

static void test_follows(void)
{
	struct beside b = BESIDE_INIT;
	pid_t peer;
	int fd;

	sched_getaffinity(0, sizeof(all), &all);
	peer = start_peer(&fd);
	beside_begin(&b, fd);
	answer(&b, 100, false);
	CU_ASSERT_FALSE(beside_is(&b)); /* it runs anywhere, or there is but one processor */
	if (CPU_COUNT(&all) > 1) {
		bind_to(peer, cpu_of_all(1));
		usleep(30000); /* its mask is not looked at for each request */
		answer(&b, 1, false);
		CU_ASSERT_TRUE(beside_is(&b));
		CU_ASSERT_EQUAL(here(), cpu_of_all(1));

		bind_to(peer, cpu_of_all(0));
		usleep(30000);
		answer(&b, 1, false);
		CU_ASSERT_EQUAL(here(), cpu_of_all(0));

		answer(&b, 1, true); /* away, and not back at once */
		CU_ASSERT_FALSE(beside_is(&b));
		CU_ASSERT_EQUAL(here(), -1);
		usleep(30000);
		answer(&b, 4, false);
		CU_ASSERT_FALSE(beside_is(&b));
		answer(&b, 4, false);
		CU_ASSERT_TRUE(beside_is(&b));

		CU_ASSERT_EQUAL(sched_setaffinity(peer, sizeof(all), &all), 0); /* the peer is set free */
		usleep(30000);
		answer(&b, 1, false);
		CU_ASSERT_FALSE(beside_is(&b));
		CU_ASSERT_EQUAL(here(), -1);

		bind_to(peer, cpu_of_all(1));
		usleep(30000);
		answer(&b, 1, false);
		CU_ASSERT_TRUE(beside_is(&b));
	}
	kill(peer, SIGKILL);
	waitpid(peer, NULL, 0);
	usleep(30000);
	answer(&b, 1, false); /* of a peer that is gone nothing is known */
	CU_ASSERT_FALSE(beside_is(&b));
	beside_end(&b);
	CU_ASSERT_EQUAL(here(), CPU_COUNT(&all) > 1 ? -1 : cpu_of_all(0));
	close(fd);
}

UNIT_MAIN("beside", UNIT_CASE(test_follows))
