/*
 * For which threads signals wait: the supervisor asks for those that wait for a lock on a share, which a signal cannot wake
 * (fs/fuse/virtio_fs.c), so that their wait can be ended.
 *
 * Only what surely is still there when the thread returns from its call counts, since the kernel would return a number that is
 * no error otherwise: signals for the thread itself, and those for its process where it has no other thread that may take them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "uml-lab/guest/agent.h"
#include "uml-lab/guest/guest.h"

#define TEXT_MAX   1100
#define ANSWER_MAX 600 /* agent_phase() sends so much; for the others it is asked again */
#define STATUS_MAX 8192

/* A number in proc(5)'s status. 0 if it is not there. */
static unsigned long long field(const char *status, const char *name, int base)
{
	const char *line = strstr(status, name);

	return line ? strtoull(line + strlen(name), NULL, base) : 0;
}

static int is_pending(unsigned long pid)
{
	unsigned long long signals;
	char path[48], *status;

	snprintf(path, sizeof(path), "/proc/%lu/status", pid);
	status = guest_read_file(path, STATUS_MAX, NULL);
	if (!status)
		return 0;
	signals = field(status, "\nSigPnd:\t", 16);
	if (field(status, "\nThreads:\t", 10) == 1)
		signals |= field(status, "\nShdPnd:\t", 16);
	signals &= ~field(status, "\nSigBlk:\t", 16);
	free(status);
	return signals != 0;
}

void agent_pending(struct agent *a, const void *payload, size_t length)
{
	char text[TEXT_MAX + 1], answer[ANSWER_MAX] = "", *p = text;
	size_t used = 0;

	if (length > TEXT_MAX)
		length = TEXT_MAX;
	memcpy(text, payload, length);
	text[length] = '\0';
	while (*p) {
		unsigned long long number = strtoull(p, &p, 10);
		unsigned long pid = *p == ':' ? strtoul(p + 1, &p, 10) : 0;

		if (pid && used + 24 < sizeof(answer) && is_pending(pid))
			used += (size_t)snprintf(answer + used, sizeof(answer) - used, " %llu", number);
		if (*p && *p++ != ' ')
			break;
	}
	agent_phase(a, "pending%s", answer);
}
