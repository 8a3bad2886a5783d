/*
 * timed COMMAND…: runs it without its output; prints its microseconds, from its start to its end, and its largest RSS in KiB.
 *
 * A shell's own fork is several times what a small program takes. And a process that became another program by exec is told the
 * largest RSS of both, so the one that starts it must be small too: this one, with vfork().
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int main(int argc, char **argv)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC), status;
	long begin = now();
	struct rusage usage;
	pid_t pid;

	if (argc < 2 || null < 0)
		return 2;
	pid = vfork();
	if (pid == 0) {
		dup2(null, 1);
		execvp(argv[1], argv + 1);
		_exit(127);
	}
	if (pid < 0 || wait4(pid, &status, 0, &usage) != pid)
		return 2;
	printf("%ld %ld\n", now() - begin, usage.ru_maxrss);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}
