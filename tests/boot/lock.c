/*
 * lock FILE fcntl|flock read|write try|wait|alarm|restart|ask [START LENGTH]: takes a lock, says "have", and keeps it until
 * FILE.release is there, if it was to be tried or waited for; else says what became of it. "ask": who has it
 * (fcntl, F_GETLK). "alarm" waits, and has a signal interrupt that after a second; with "restart" the signal, which comes every
 * 100 ms, has a handler with SA_RESTART.
 * lock FILE circle: two processes, each of which has what the other waits for; what became of both, the first one's first.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

/* Waits for a byte's lock. */
static int wait_for(const char *file, long byte)
{
	static int fd = -1;
	struct flock lock = {.l_type = F_WRLCK, .l_start = byte, .l_len = 1};

	if (fd < 0)
		fd = open(file, O_RDWR | O_CREAT, 0666);
	return fcntl(fd, F_SETLKW, &lock) < 0 ? errno : 0;
}

static int circle(const char *file)
{
	int ready[2], result, status;
	char byte;
	pid_t pid;

	if (pipe(ready) < 0 || wait_for(file, 1) || (pid = fork()) < 0)
		return 2;
	if (pid == 0) {
		wait_for(file, 0);
		if (write(ready[1], "x", 1) != 1)
			_exit(2);
		_exit(wait_for(file, 1) == EDEADLK ? 1 : 0);
	}
	if (read(ready[0], &byte, 1) != 1)
		return 2;
	result = wait_for(file, 0);
	printf("%s ", result ? strerrorname_np(result) : "have");
	fflush(stdout);
	close(open(file, O_RDONLY)); /* unlocks all that this process has (fcntl(2)) */
	waitpid(pid, &status, 0);
	printf("%s\n", status ? "EDEADLK" : "have");
	return 0;
}

static void on_alarm(int number)
{
	(void)number;
}

static void expect_signals(const char *how)
{
	int restart = !strcmp(how, "restart");
	const struct itimerval timer = {.it_value = {.tv_sec = 1}, .it_interval = {.tv_usec = restart ? 100000 : 0}};
	const struct sigaction action = {.sa_handler = on_alarm, .sa_flags = restart ? SA_RESTART : 0};

	sigaction(SIGALRM, &action, NULL);
	if (restart || !strcmp(how, "alarm"))
		setitimer(ITIMER_REAL, &timer, NULL);
}

int main(int argc, char **argv)
{
	int fd = argc > 4 ? open(argv[1], O_RDWR | O_CREAT, 0666) : -1, result;
	int is_read = argc > 4 && !strcmp(argv[3], "read");
	struct flock lock = {.l_type = is_read ? F_RDLCK : F_WRLCK,
			     .l_start = argc > 5 ? atol(argv[5]) : 0,
			     .l_len = argc > 6 ? atol(argv[6]) : 0};
	char release[4096];

	if (argc == 3 && !strcmp(argv[2], "circle"))
		return circle(argv[1]);
	if (fd < 0)
		return 2;
	if (!strcmp(argv[4], "ask")) {
		result = fcntl(fd, F_GETLK, &lock);
		printf("%d %s %ld %ld\n", result,
		       lock.l_type == F_UNLCK ? "free" : lock.l_type == F_RDLCK ? "read" : "write", (long)lock.l_start,
		       (long)lock.l_len);
		return 0;
	}
	expect_signals(argv[4]);
	if (!strcmp(argv[2], "flock"))
		result = flock(fd, (is_read ? LOCK_SH : LOCK_EX) | (strcmp(argv[4], "try") ? 0 : LOCK_NB));
	else
		result = fcntl(fd, strcmp(argv[4], "try") ? F_SETLKW : F_SETLK, &lock);
	puts(result == 0 ? "have" : strerrorname_np(errno) ? strerrorname_np(errno) : "a number that is no error");
	fflush(stdout);
	snprintf(release, sizeof(release), "%s.release", argv[1]);
	while (result == 0 && access(release, F_OK) < 0)
		usleep(20000);
	return 0;
}
