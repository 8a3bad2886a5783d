/*
 * Stillness: a client has the guest's file systems frozen, does what it has to (a
 * snapshot of the disks, a look into them), and has them thawed.
 *
 *	NO --freeze--> FREEZING --frozen--> FROZEN --thaw--> THAWING --thawed--> NO
 *
 * One client at a time. When it goes away, or the agent takes too long, they are
 * thawed without it; the agent does so by itself when we are gone (FREEZE_LIMIT_MS).
 * What the agent says here comes from the guest: it only decides what is answered.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "uml-lab/base/log.h"
#include "uml-lab/machine/supervisor.h"

#define ANSWER_MS 8000	/* to freeze: writing back what is dirty is part of it; below the client's own limit */

static struct client *client_of(struct supervisor *sv)
{
	return sv->still.client ? control_client(sv, sv->still.client) : NULL;
}

static void refuse(struct client *client, enum error_kind kind, const char *text)
{
	if (client)
		client_answer_failure(client, kind, text);
}

static void thaw(struct supervisor *sv)
{
	sv->still.step = STILL_THAWING;
	if (relay_send(sv, FRAME_THAW, 0, NULL, 0) < 0)
		log_warn("the agent can't be told to thaw the file systems; it does so by itself");
	loop_arm_timer(sv->still.timer, ANSWER_MS);
}

static void on_timeout(void *arg)
{
	struct supervisor *sv = arg;
	struct still *still = &sv->still;
	struct client *client = client_of(sv);

	still->client = 0;
	if (still->step == STILL_FREEZING) {
		thaw(sv);
		refuse(client, ERROR_TIMEOUT, "the guest did not freeze its file systems in time: it writes too much, or hangs");
	} else {
		still->step = STILL_NO;
		refuse(client, ERROR_TIMEOUT, "the guest does not answer");
	}
}

static void freeze(struct supervisor *sv, struct client *client)
{
	struct still *still = &sv->still;
	struct error err = ERROR_INIT;

	if (still->step != STILL_NO) {
		refuse(client, ERROR_STATE, "the file systems are frozen for somebody else just now");
		return;
	}
	if (sv->state != MACHINE_READY) {
		refuse(client, ERROR_STATE, "the machine is not ready");
		return;
	}
	if (!still->timer && !(still->timer = loop_add_timer(sv->loop, -1, on_timeout, sv, &err))) {
		refuse(client, err.kind, err.message);
		return;
	}
	if (relay_send(sv, FRAME_FREEZE, 0, NULL, 0) < 0) {
		refuse(client, ERROR_STATE, "the agent's line is full");
		return;
	}
	still->step = STILL_FREEZING;
	still->client = client_number(client);
	loop_arm_timer(still->timer, ANSWER_MS);
}

bool still_holds_for(const struct supervisor *sv, const struct client *client)
{
	return sv->still.step == STILL_FROZEN && sv->still.client == client_number(client);
}

void still_request(struct supervisor *sv, struct client *client, const char *text)
{
	struct still *still = &sv->still;

	if (str_eq(text, "freeze"))
		freeze(sv, client);
	else if (!str_eq(text, "thaw"))
		refuse(client, ERROR_USAGE, "freeze or thaw is what can be asked for");
	else if (still->step == STILL_FROZEN && still->client == client_number(client))
		thaw(sv);
	else
		refuse(client, ERROR_STATE, "nothing is frozen for you");
}

static void frozen(struct supervisor *sv)
{
	struct still *still = &sv->still;
	struct client *client = client_of(sv);

	clock_gettime(CLOCK_MONOTONIC, &still->since);
	still->step = STILL_FROZEN;
	loop_arm_timer(still->timer, -1);
	if (client)
		client_answer_done(client);
	else
		thaw(sv);
}

static void thawed(struct supervisor *sv, const char *text)
{
	struct still *still = &sv->still;
	struct client *client = client_of(sv);
	struct timespec now;
	int64_t theirs = 0, ours;
	char answer[32];

	clock_gettime(CLOCK_MONOTONIC, &now);
	ours = (now.tv_sec - still->since.tv_sec) * 1000000ll + (now.tv_nsec - still->since.tv_nsec) / 1000;
	if (*text == ' ')
		str_to_i64(text + 1, 0, FREEZE_LIMIT_MS * 2000ll, &theirs);
	still->step = STILL_NO;
	still->client = 0;
	loop_arm_timer(still->timer, -1);
	if (!client)
		return;
	/* 0: the agent had thawed by itself. */
	snprintf(answer, sizeof(answer), "%" PRId64, theirs ? (theirs > ours ? theirs : ours) : -1);
	client_answer_text(client, FRAME_STATUS, answer);
	client_answer_done(client);
}

bool still_phase(struct supervisor *sv, const char *text)
{
	struct still *still = &sv->still;
	struct client *client = client_of(sv);

	if (still->step == STILL_FREEZING && str_eq(text, "frozen")) {
		frozen(sv);
	} else if (still->step == STILL_THAWING && str_starts(text, "thawed")) {
		thawed(sv, text + strlen("thawed"));
	} else if (still->step == STILL_FREEZING && str_starts(text, "failed")) {
		still->step = STILL_NO;
		still->client = 0;
		loop_arm_timer(still->timer, -1);
		refuse(client, ERROR_FAILED, text + strlen("failed") + strspn(text + strlen("failed"), " "));
	} else {
		return false;
	}
	return true;
}

void still_client_gone(struct supervisor *sv, uint64_t number)
{
	struct still *still = &sv->still;

	if (still->step == STILL_NO || still->client != number)
		return;
	still->client = 0;
	if (still->step == STILL_FROZEN)
		thaw(sv);
}

void still_end(struct supervisor *sv)
{
	struct still *still = &sv->still;
	struct client *client = client_of(sv);

	still->client = 0;
	if (still->step != STILL_NO) {
		relay_send(sv, FRAME_THAW, 0, NULL, 0);
		refuse(client, ERROR_STATE, "the machine is stopping");
	}
	still->step = STILL_NO;
	loop_remove_timer(still->timer);
	still->timer = NULL;
}
