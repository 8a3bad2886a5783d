/*
 * For tests/boot/cgroup.sh: cgroup.c in a machine whose user has a delegated group. "cgroup_guest
 * memory|cpu|forks": makes the group, joins it in a child, and prints what was said and what became of the
 * child. "cgroup_guest killed": dies without removing it, as a supervisor that is killed; "cgroup_guest
 * sweep": what whoever comes next does about that.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "uml-lab/base/str.h"
#include "uml-lab/machine/cgroup.h"

#define MEMORY (16ull << 20)
#define NOTE   "/tmp/cgroup-note"

static double processor_seconds(void)
{
	return (double)clock() / CLOCKS_PER_SEC;
}

static int use(const char *what)
{
	time_t end = time(NULL) + 4;
	int made = 0;

	if (str_eq(what, "memory")) {
		volatile char *p = mmap(NULL, 3 * MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		for (size_t i = 0; p != MAP_FAILED && i < 3 * MEMORY; i += 4096)
			p[i] = 1;
		return 0;
	}
	if (str_eq(what, "cpu")) {
		while (time(NULL) < end)
			;
		printf("used %.1f of 4 s\n", processor_seconds());
		fflush(stdout);
		return 0;
	}
	while (made < 100) {
		pid_t pid = fork();

		if (pid < 0)
			break;
		if (pid == 0) {
			pause();
			_exit(0);
		}
		made++;
	}
	printf("forked %d\n", made);
	fflush(stdout);
	kill(0, SIGKILL);
	return 0;
}

int main(int argc, char **argv)
{
	const struct cgroup_limits limits = {.memory = MEMORY, .processes = 8, .cpu_percent = 20};
	struct cgroup group;
	char said[200], how[64];
	int status;
	pid_t pid;

	if (argc != 2)
		return 2;
	if (str_eq(argv[1], "sweep")) {
		cgroup_sweep(NOTE);
		return access(NOTE, F_OK) == 0;
	}
	cgroup_make(&group, "session", "machine", &limits, said, sizeof(said));
	printf("%s\n", said);
	fflush(stdout);
	if (!group.folder)
		return 3;
	if (str_eq(argv[1], "killed")) {
		cgroup_note(&group, NOTE);
		kill(getpid(), SIGKILL);
	}
	pid = fork();
	if (pid == 0) {
		setsid();
		_exit(cgroup_join(&group) < 0 ? 4 : use(argv[1]));
	}
	waitpid(pid, &status, 0);
	snprintf(how, sizeof(how), WIFSIGNALED(status) ? "signal %d" : "status %d",
		 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	printf("ended with %s\n", how);
	for (int i = 0; i < 100 && access(group.folder, F_OK) == 0; i++) {
		rmdir(group.folder);
		usleep(50000);
	}
	cgroup_remove(&group);
	return 0;
}
