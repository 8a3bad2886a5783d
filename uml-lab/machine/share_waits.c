/*
 * Signals for programs of the guest that wait for locks on shares.
 *
 * virtiofs lets nobody who waits for an answer be interrupted (fs/fuse/virtio_fs.c, "TODO interrupts"). So while uml-hostfs says
 * that requests wait for locks, the guest's agent is asked every LOOK_MS for which of their threads signals wait, and uml-hostfs is
 * told to end those waits with EINTR. A request's number comes once: what has ended meanwhile is nobody else's. The guest's word
 * counts for its own waits only. While nobody waits nothing wakes up.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "uml-lab/machine/supervisor.h"

#define LOOK_MS	  200
#define ANSWER_MS 2000 /* then it is asked again */
#define TEXT_MAX  1024 /* what the agent's line takes easily; more than that wait their turn */

/* The next wait at or after *i, *j; false: none. */
static bool next_wait(const struct shares *shares, size_t *i, size_t *j)
{
	for (; *i < shares->count; (*i)++, *j = 0)
		for (; *j < shares->devices[*i].wait_count; (*j)++)
			if (!shares->devices[*i].waits[*j].answering && shares->devices[*i].waits[*j].unique)
				return true;
	return false;
}

static void look(void *arg)
{
	struct supervisor *sv = arg;
	struct shares *shares = &sv->shares;
	char text[TEXT_MAX + 48];
	size_t length = 0;

	for (size_t i = 0, j = 0; length < TEXT_MAX && next_wait(shares, &i, &j); j++)
		length += (size_t)snprintf(text + length, sizeof(text) - length, "%s%" PRIu64 ":%" PRIu32, length ? " " : "",
					   shares->devices[i].waits[j].unique, shares->devices[i].waits[j].pid);
	shares->asked = length && relay_send(sv, FRAME_PENDING, 0, text, length) == 0;
	loop_arm_timer(shares->look, !length ? -1 : shares->asked ? ANSWER_MS : LOOK_MS);
}

void share_waits_begin(struct supervisor *sv)
{
	struct shares *shares = &sv->shares;

	if (!shares->look)
		shares->look = loop_add_timer(sv->loop, LOOK_MS, look, sv, NULL);
	else if (!shares->asked)
		loop_arm_timer(shares->look, LOOK_MS);
}

static void interrupt(struct shares *shares, uint64_t unique)
{
	char packet[64];

	for (size_t i = 0, j = 0; next_wait(shares, &i, &j); j++) {
		if (shares->devices[i].waits[j].unique != unique)
			continue;
		snprintf(packet, sizeof(packet), "interrupt %zu %" PRIu64, i, unique);
		/* A full socket: the next look says it again. */
		send(shares->daemon.control, packet, strlen(packet), MSG_NOSIGNAL | MSG_DONTWAIT);
		return;
	}
}

bool share_waits_phase(struct supervisor *sv, const char *text)
{
	struct shares *shares = &sv->shares;
	uint64_t unique;
	char *end;

	if (!str_starts(text, "pending"))
		return false;
	if (!shares->asked)
		return true;
	shares->asked = false;
	for (text += strlen("pending"); *text == ' '; text = end) {
		unique = strtoull(text, &end, 10);
		if (end == text)
			break;
		interrupt(shares, unique);
	}
	loop_arm_timer(shares->look, LOOK_MS);
	return true;
}
