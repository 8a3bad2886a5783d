/*
 * Copying between host and guest: tar streams on a channel, by the same windows
 * as everything else (protocol.h: PUT, GET), packed and unpacked by transfer.c.
 */
#include <endian.h>
#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/machine/client_internal.h"
#include "uml-lab/machine/transfer.h"

struct stream {
	int control;
	uint32_t window; /* PUT: what the agent takes now */
	uint32_t credit; /* GET: taken and not yet credited */
	bool ended;      /* EXIT has come */
	bool data_ended; /* GET: the stream is whole */
	int status;      /* wait status of EXIT */
	uint8_t buf[FRAME_PAYLOAD_MAX];
};

/* Takes the next frame of the channel into *frame; told are EXIT, credit and errors. 0, or -1 + err. */
static int next_frame(struct stream *s, struct wire_frame *frame, struct error *err)
{
	struct frame_credit credit;
	uint32_t status;
	int got;

	do {
		got = client_receive(s->control, -1, frame, s->buf, err);
		if (got <= 0)
			return got < 0 ? -1 : client_gone(err);
	} while (frame->channel != CLIENT_CHANNEL);
	if (frame->type == FRAME_ERROR)
		return client_error(frame, err);
	if (frame->type == FRAME_CREDIT && frame->length == sizeof(credit)) {
		memcpy(&credit, frame->payload, sizeof(credit));
		if (le32toh(credit.stream) == STREAM_IN && le32toh(credit.bytes) <= FRAME_WINDOW - s->window)
			s->window += le32toh(credit.bytes);
	} else if (frame->type == FRAME_EXIT && frame->length == sizeof(status)) {
		memcpy(&status, frame->payload, sizeof(status));
		s->status = (int)le32toh(status);
		s->ended = true;
	}
	return 0;
}

static int check_status(const struct stream *s, struct error *err)
{
	char how[64];

	if (s->status == 0)
		return 0;
	return error_set(err, ERROR_FAILED, "the transfer in the machine %s",
			 child_describe_status(s->status, how, sizeof(how)));
}

/* ---- to the guest ---- */

static ssize_t put_data(void *arg, const void *data, size_t n, struct error *err)
{
	struct stream *s = arg;
	struct wire_frame frame;
	size_t done = 0;

	while (done < n) {
		size_t piece = n - done < FRAME_PAYLOAD_MAX ? n - done : FRAME_PAYLOAD_MAX;

		while (!s->window && !s->ended)
			if (next_frame(s, &frame, err) < 0)
				return -1;
		if (s->ended)
			return check_status(s, err) < 0
				       ? -1
				       : error_set(err, ERROR_FAILED, "the machine took only a part");
		if (piece > s->window)
			piece = s->window;
		if (client_send(s->control, FRAME_DATA_IN, CLIENT_CHANNEL, (const char *)data + done, piece,
				err) < 0)
			return -1;
		s->window -= (uint32_t)piece;
		done += piece;
	}
	return (ssize_t)n;
}

static int put(struct stream *s, const char *source, const char *name, const char *destination,
	       struct error *err)
{
	struct wire_frame frame;

	s->window = FRAME_WINDOW;
	if (client_send(s->control, FRAME_PUT, CLIENT_CHANNEL, destination, strlen(destination), err) < 0 ||
	    transfer_pack(source, name, put_data, s, err) < 0 ||
	    client_send(s->control, FRAME_DATA_IN, CLIENT_CHANNEL, NULL, 0, err) < 0)
		return -1;
	while (!s->ended)
		if (next_frame(s, &frame, err) < 0)
			return -1;
	return check_status(s, err);
}

/* The agent decides on the name, by whether the destination is a folder (protocol.h, "Copies"). */
static int copy_to(struct stream *s, const char *source, const char *destination, struct error *err)
{
	/* A link is followed to its content, which keeps the link's name; "." gets the name of its folder. */
	cleanup_free char *real = file_absolute(source, false, err), *name = str_dup(source, err);
	const char *base;

	if (!real || !name)
		return -1;
	if (destination[0] != '/')
		return error_set(err, ERROR_USAGE, "the path in the machine must be absolute: %s",
				 destination);
	base = basename(name);
	if (str_eq(base, ".") || str_eq(base, ".."))
		base = strrchr(real, '/') + 1;
	if (str_eq(real, "/"))
		return error_set(err, ERROR_USAGE, "%s has no name of its own to copy", source);
	return put(s, real, base, destination, err);
}

/* ---- from the guest ---- */

static ssize_t get_data(void *arg, const void **data, struct error *err)
{
	struct stream *s = arg;
	struct wire_frame frame;

	if (s->credit) {
		struct frame_credit credit = {htole32(STREAM_OUT), htole32(s->credit)};

		s->credit = 0;
		if (client_send(s->control, FRAME_CREDIT, CLIENT_CHANNEL, &credit, sizeof(credit), err) < 0)
			return -1;
	}
	while (!s->data_ended) {
		if (next_frame(s, &frame, err) < 0)
			return -1;
		if (s->ended && !s->data_ended)
			return check_status(s, err) < 0
				       ? -1
				       : error_set(err, ERROR_FAILED, "the machine's answer is cut off");
		if (frame.type != FRAME_DATA_OUT)
			continue;
		s->data_ended = !frame.length;
		s->credit = frame.length;
		*data = frame.payload;
		if (frame.length)
			return frame.length;
	}
	return 0;
}

static int get(struct stream *s, const char *source, const char *top, const char *parent, const char *name,
	       struct error *err)
{
	char example[256];
	struct wire_frame frame;
	const void *rest;
	ssize_t got;
	int left_out;

	if (client_send(s->control, FRAME_GET, CLIENT_CHANNEL, source, strlen(source), err) < 0 ||
	    transfer_unpack(get_data, s, top, parent, name, &left_out, example, err) < 0)
		return -1;
	while ((got = get_data(s, &rest, err)) > 0) /* the padding after the archive's end */
		;
	while (got == 0 && !s->ended)
		got = next_frame(s, &frame, err);
	if (got < 0 || check_status(s, err) < 0)
		return -1;
	if (left_out)
		return error_set(err, ERROR_FAILED,
				 "copied, but without %d entries that are devices, absolute links or the "
				 "like, such as %s",
				 left_out, example);
	return 0;
}

static int copy_from(struct stream *s, const char *source, const char *destination, struct error *err)
{
	cleanup_free char *source_copy = str_dup(source, err), *parent_copy = str_dup(destination, err);
	cleanup_free char *name_copy = str_dup(destination, err);
	const char *top;

	if (!source_copy || !parent_copy || !name_copy)
		return -1;
	if (source[0] != '/')
		return error_set(err, ERROR_USAGE, "the path in the machine must be absolute: %s", source);
	top = basename(source_copy);
	if (str_eq(top, "/") || str_eq(top, ".") || str_eq(top, ".."))
		return error_set(err, ERROR_USAGE, "%s has no name of its own to copy", source);
	if (file_is_dir(destination))
		return get(s, source, top, destination, top, err);
	return get(s, source, top, dirname(parent_copy), basename(name_copy), err);
}

int machine_copy(int control, bool to_guest, const char *source, const char *destination, struct error *err)
{
	cleanup_free struct stream *s = calloc(1, sizeof(*s));

	if (!s)
		return error_oom(err);
	s->control = control;
	if (to_guest)
		return copy_to(s, source, destination, err);
	return copy_from(s, source, destination, err);
}
