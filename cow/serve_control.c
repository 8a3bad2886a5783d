/*
 * Messages between supervisor and disk server (serve.h): what each type has, and their sending.
 * base/message.c checks what arrives.
 */
#include <string.h>

#include "cow/serve_internal.h"

_Static_assert(sizeof(struct cow_serve_path) == 4100, "SNAPSHOT of the control protocol");
_Static_assert(sizeof(struct cow_serve_reply) == 1024, "REPLY of the control protocol");
_Static_assert(sizeof(struct cow_serve_stats) == 384, "STATS of the control protocol");

#define PATH_OF_DISK(name) \
	{ name, .size = sizeof(struct cow_serve_path), .texts = { MESSAGE_TEXT(struct cow_serve_path, path) } }

static const struct message_type types[] = {
	PATH_OF_DISK(COW_SERVE_SNAPSHOT),
	PATH_OF_DISK(COW_SERVE_MERGE),
	PATH_OF_DISK(COW_SERVE_FOLD),
	PATH_OF_DISK(COW_SERVE_INSERT),
	{COW_SERVE_EJECT, .size = sizeof(struct cow_serve_ref)},
	{COW_SERVE_GET_STATS, .size = sizeof(struct cow_serve_ref)},
	{COW_SERVE_READY, .size = 0},
	{COW_SERVE_REPLY, .size = sizeof(struct cow_serve_reply), .texts = {MESSAGE_TEXT(struct cow_serve_reply, text)}},
	{COW_SERVE_STATS, .size = sizeof(struct cow_serve_stats), .texts = {MESSAGE_TEXT(struct cow_serve_stats, last_error)}},
};

static const struct message_protocol protocol = {
	"the disk server's control socket", COW_SERVE_MAGIC, COW_SERVE_VERSION, types, ARRAY_SIZE(types),
};

int cow_serve_send(int control, enum cow_serve_type type, uint32_t sequence, const void *payload,
		   struct error *err)
{
	return message_send(control, &protocol, (uint16_t)type, sequence, payload, -1, err);
}

int cow_serve_send_path(int control, uint32_t sequence, enum cow_serve_type type, uint32_t disk,
			const char *path, struct error *err)
{
	struct cow_serve_path request = {.disk = disk};

	if (strlen(path) >= sizeof(request.path))
		return error_set(err, ERROR_USAGE, "the path '%.64s…' is too long", path);
	strcpy(request.path, path);
	return cow_serve_send(control, type, sequence, &request, err);
}

int cow_serve_send_ref(int control, uint32_t sequence, enum cow_serve_type type, uint32_t disk,
		       struct error *err)
{
	const struct cow_serve_ref request = {.disk = disk};

	return cow_serve_send(control, type, sequence, &request, err);
}

int cow_serve_receive_checked(int control, struct cow_serve_message *message, bool *answerable,
			      struct error *err)
{
	int none;	/* no type has a descriptor */

	return message_receive(control, &protocol, message, sizeof(*message), &none, answerable, err);
}

int cow_serve_receive(int control, struct cow_serve_message *message, struct error *err)
{
	bool answerable;

	return cow_serve_receive_checked(control, message, &answerable, err);
}
