/*
 * What clients ask of the disk server: a new top over a disk (snapshot), a layer merged
 * into the one above it (merge).
 *
 * Files are named by the client, which runs as the same user; the server makes or opens
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
	char *end;

	if (str_starts(text, "snapshot "))
		*type = COW_SERVE_SNAPSHOT;
	else if (str_starts(text, "merge "))
		*type = COW_SERVE_MERGE;
	else
		return -1;
	text = strchr(text, ' ') + 1;
	if (*text < '0' || *text > '9')
		return -1;
	*disk = strtoul(text, &end, 10);
	*path = end + 1;
	return *end == ' ' && **path == '/' ? 0 : -1;
}

void disk_ask(struct supervisor *sv, struct client *client, const char *text)
{
	enum cow_serve_type type;
	struct error err = ERROR_INIT;
	struct asking *asking;
	const char *path;
	size_t disk;

	if (parse(text, &type, &disk, &path) < 0 || disk >= sv->spec->disk_count) {
		client_answer_failure(client, ERROR_USAGE, "no such request, or no such disk");
		return;
	}
	if (sv->spec->ubd) {
		client_answer_failure(client, ERROR_STATE,
				      "the kernel's own driver (disk: ubd) cannot do that while the machine runs");
		return;
	}
	if (type == COW_SERVE_SNAPSHOT && !still_holds_for(sv, client)) {
		client_answer_failure(client, ERROR_STATE, "the file systems are not frozen (any more)");
		return;
	}
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
