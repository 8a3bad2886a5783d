/*
 * How it works: reading appends to `in`, wire_next() walks over it with
 * `taken`, and the next read drops what was taken in one move. The header is
 * checked before its length is believed, so `in` never holds more than one
 * frame that is not whole plus one read.
 *
 * A line that the whole guest can write to (a tty) may carry rubbish. With
 * `resync` bytes are skipped until a header that could be one comes; what a
 * forged header does is its channel's problem, bounded like any frame.
 */
#include "uml-lab/machine/wire.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE 65536
#define KEEP_SIZE 65536 /* an empty buffer larger than this is given back */

void wire_init(struct wire *wire, size_t out_max, bool resync)
{
	*wire = (struct wire){.out_max = out_max, .allowance = SIZE_MAX, .resync = resync};
}

void wire_free(struct wire *wire)
{
	strbuf_free(&wire->in);
	strbuf_free(&wire->out);
}

static void drop_taken(struct wire *wire)
{
	strbuf_consume(&wire->in, wire->taken);
	wire->taken = 0;
	if (!wire->in.length && wire->in.size > KEEP_SIZE)
		strbuf_free(&wire->in);
}

void wire_feed(struct wire *wire, const void *data, size_t length)
{
	drop_taken(wire);
	strbuf_add(&wire->in, data, length);
}

ssize_t wire_read(struct wire *wire, int fd)
{
	char chunk[READ_SIZE];
	ssize_t got;

	do {
		got = read(fd, chunk, sizeof(chunk));
	} while (got < 0 && errno == EINTR);
	if (got > 0)
		wire_feed(wire, chunk, (size_t)got);
	return got;
}

/* The header at p in host byte order; false when it cannot be one. */
static bool parse_header(const uint8_t *p, struct frame *out)
{
	memcpy(out, p, sizeof(*out));
	out->start = le32toh(out->start);
	out->type = le16toh(out->type);
	out->length = le16toh(out->length);
	out->channel = le32toh(out->channel);
	return out->start == FRAME_START && out->length <= FRAME_PAYLOAD_MAX;
}

int wire_next(struct wire *wire, struct wire_frame *frame, struct error *err)
{
	struct frame header;

	if (strbuf_check(&wire->in, err) < 0)
		return -1;
	for (;;) {
		const uint8_t *p = (const uint8_t *)wire->in.data + wire->taken;
		size_t left = wire->in.length - wire->taken;

		if (left < sizeof(header))
			return 0;
		if (parse_header(p, &header)) {
			if (left < sizeof(header) + header.length)
				return 0;
			*frame = (struct wire_frame){header.type, header.channel, p + sizeof(header),
						     header.length};
			wire->taken += sizeof(header) + header.length;
			return 1;
		}
		if (!wire->resync)
			return error_set(err, ERROR_FAILED, "what was received is no frame of this protocol");
		wire->taken++;
		wire->skipped++;
	}
}

int wire_queue(struct wire *wire, enum frame_type type, uint32_t channel, const void *payload, size_t length)
{
	struct frame header = {htole32(FRAME_START), htole16((uint16_t)type), htole16((uint16_t)length),
			       htole32(channel)};

	if (length > FRAME_PAYLOAD_MAX || wire->out.length + sizeof(header) + length > wire->out_max)
		return -1;
	strbuf_add(&wire->out, &header, sizeof(header));
	if (length)
		strbuf_add(&wire->out, payload, length);
	return wire->out.failed ? -1 : 0;
}

int wire_queue_text(struct wire *wire, enum frame_type type, uint32_t channel, const char *text)
{
	size_t left = strlen(text);

	do {
		size_t piece = left < FRAME_PAYLOAD_MAX ? left : FRAME_PAYLOAD_MAX;

		if (wire_queue(wire, type, channel, text, piece) < 0)
			return -1;
		text += piece;
		left -= piece;
	} while (left);
	return 0;
}

int wire_queue_failure(struct wire *wire, enum frame_type type, uint32_t channel, uint32_t code,
		       const char *text)
{
	char payload[4 + 1024];
	uint32_t wire_code = htole32(code);
	size_t length = strnlen(text, sizeof(payload) - 4);

	memcpy(payload, &wire_code, 4);
	memcpy(payload + 4, text, length);
	return wire_queue(wire, type, channel, payload, 4 + length);
}

int wire_write(struct wire *wire, int fd)
{
	size_t may = wire->out.length < wire->allowance ? wire->out.length : wire->allowance;
	size_t done = 0;
	int result = may < wire->out.length ? 1 : 0;

	while (done < may) {
		ssize_t put = send(fd, wire->out.data + done, may - done, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0) {
			result = errno == EAGAIN ? 1 : -1;
			break;
		}
		done += (size_t)put;
	}
	int saved = errno;

	if (wire->allowance != SIZE_MAX)
		wire->allowance -= done;
	strbuf_consume(&wire->out, done);
	if (!wire->out.length && wire->out.size > KEEP_SIZE)
		strbuf_free(&wire->out);
	errno = saved;
	return result;
}

static char *clean_copy(const uint8_t *data, size_t length)
{
	char *text = malloc(length + 1);

	if (!text)
		return NULL;
	for (size_t i = 0; i < length; i++) {
		uint8_t c = data[i];

		text[i] = (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f ? '?' : (char)c;
	}
	text[length] = '\0';
	return text;
}

char *wire_text(const struct wire_frame *frame)
{
	return clean_copy(frame->payload, frame->length);
}

char *wire_failure(const struct wire_frame *frame, uint32_t *code)
{
	uint32_t value;

	if (frame->length < sizeof(value))
		return NULL;
	memcpy(&value, frame->payload, sizeof(value));
	*code = le32toh(value);
	return clean_copy(frame->payload + sizeof(value), frame->length - sizeof(value));
}
