/*
 * What clients ask of the disk server: a new top over a disk (snapshot), a layer merged
 * into the one above it (merge), a raw file in place of the overlay above it (fold), an extra disk taken out of the running
 * machine and put in again (eject, insert).
 *
 * Files of the first three are named by the client, which runs as the same user; the server makes or opens
 * them. A snapshot is taken only while the guest is still for that very client (still.c), so that what
 * is frozen is a file system that was synced. A client that goes away changes nothing: what
 * was asked for is done to its end.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/machine/supervisor.h"

struct asking {
	struct supervisor *sv;
	uint64_t client;
};

struct disk_wait {
	struct disk_wait *next;
	uint64_t client;
};

static void on_answer(void *arg, const struct cow_serve_message *answer, const struct error *failure)
{
	cleanup_free struct asking *asking = arg;
	struct client *client = control_client(asking->sv, asking->client);
	char text[32];

	if (!client)
		return;
	if (failure) {
		client_answer_failure(client, failure->kind, failure->message);
		return;
	}
	snprintf(text, sizeof(text), "%" PRIu32, answer->u.reply.microseconds);
	client_answer_text(client, FRAME_STATUS, text);
	client_answer_done(client);
}

static int parse(const char *text, enum cow_serve_type *type, size_t *disk, const char **path)
{
	static const struct {
		const char *word;
		enum cow_serve_type type;
		bool path;
	} words[] = {{"snapshot ", COW_SERVE_SNAPSHOT, true},
		     {"merge ", COW_SERVE_MERGE, true},
		     {"fold ", COW_SERVE_FOLD, true},
		     {"eject ", COW_SERVE_EJECT, false},
		     {"insert ", COW_SERVE_INSERT, false}};
	char *end;
	size_t i = 0;

	while (i < ARRAY_SIZE(words) && !str_starts(text, words[i].word))
		i++;
	if (i == ARRAY_SIZE(words))
		return -1;
	*type = words[i].type;
	text += strlen(words[i].word);
	if (*text < '0' || *text > '9')
		return -1;
	*disk = strtoul(text, &end, 10);
	*path = words[i].path ? end + 1 : NULL;
	return words[i].path ? -(*end != ' ' || **path != '/') : -(*end != '\0');
}

/* Why the disk cannot have that done now; NULL: it can. */
static const char *objection(struct supervisor *sv, struct client *client, enum cow_serve_type type, size_t disk)
{
	if (sv->spec->ubd)
		return "the kernel's own driver (disk: ubd) cannot do that while the machine runs";
	if (type == COW_SERVE_EJECT && disk == 0)
		return "the root disk stays in";
	if (type == COW_SERVE_EJECT)
		return disk_is_out(sv, disk) ? "this disk is out already" : NULL;
	if (type == COW_SERVE_INSERT)
		return disk_is_out(sv, disk) ? NULL : "this disk is in already";
	if (disk_is_out(sv, disk))
		return "the disk is out of the machine (uml-lab disk)";
	if (type == COW_SERVE_SNAPSHOT && !still_holds_for(sv, client))
		return "the file systems are not frozen (any more)";
	return NULL;
}

/*
 * What is asked before anything is frozen: each disk is part of a snapshot, and none is worked on. Who asked for
 * that work may have been killed, and nobody else knows of it; what stands still must not wait for it.
 */
static void answer_whole(struct supervisor *sv, struct client *client)
{
	struct disk_wait *wait;

	if (sv->disk.out) {
		client_answer_failure(client, ERROR_STATE, "a disk is out of it; it has to be in for that: uml-lab disk");
		return;
	}
	if (!disk_is_worked_on(sv)) {
		client_answer_done(client);
		return;
	}
	wait = malloc(sizeof(*wait));
	if (!wait) {
		client_answer_failure(client, ERROR_FAILED, "out of memory");
		return;
	}
	*wait = (struct disk_wait){sv->disk.waits, client_number(client)};
	sv->disk.waits = wait;
}

void disk_ask_again(struct supervisor *sv)
{
	struct disk_wait *waits = sv->disk.waits;

	if (disk_is_worked_on(sv))
		return;
	sv->disk.waits = NULL;
	while (waits) {
		cleanup_free struct disk_wait *wait = waits;
		struct client *client = control_client(sv, wait->client);

		waits = wait->next;
		if (client)
			answer_whole(sv, client);
	}
}

void disk_ask(struct supervisor *sv, struct client *client, const char *text)
{
	enum cow_serve_type type;
	struct error err = ERROR_INIT;
	struct asking *asking;
	const char *path, *why;
	size_t disk;

	if (str_eq(text, "whole")) {
		answer_whole(sv, client);
		return;
	}
	if (parse(text, &type, &disk, &path) < 0 || disk >= sv->spec->disk_count) {
		client_answer_failure(client, ERROR_USAGE, "no such request, or no such disk");
		return;
	}
	why = objection(sv, client, type, disk);
	if (why) {
		client_answer_failure(client, ERROR_STATE, why);
		return;
	}
	if (type == COW_SERVE_INSERT)
		path = sv->disk.paths.items[disk];
	asking = malloc(sizeof(*asking));
	if (!asking) {
		client_answer_failure(client, ERROR_FAILED, "out of memory");
		return;
	}
	*asking = (struct asking){sv, client_number(client)};
	if (disk_request(sv, type, disk, path, on_answer, asking, &err) == 0)
		return;
	free(asking);
	client_answer_failure(client, err.kind, err.message);
}
