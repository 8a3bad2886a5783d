/*
 * What reaches the agent from the host's side and from tar streams: the first
 * byte chooses frames, configuration, EXEC's payload or tar. Nothing may crash,
 * and what is taken keeps its bounds.
 */
#include <stdlib.h>
#include <string.h>

#include "uml-lab/guest/config.h"
#include "uml-lab/guest/exec.h"
#include "uml-lab/guest/frame.h"
#include "uml-lab/guest/tar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void frames(const uint8_t *data, size_t size)
{
	struct buffer in = { 0 };
	struct frame_view v;
	size_t at, n, skipped = 0, taken = 0;

	for (at = 0; at < size; at += n) {
		n = data[at] % 64 + 1;
		if (n > size - at)
			n = size - at;
		if (buffer_add(&in, data + at, n) < 0)
			break;
		while (frame_next(&in, &v, &skipped)) {
			if (v.length > FRAME_PAYLOAD_MAX)
				abort();
			taken += sizeof(struct frame) + v.length;
			frame_drop(&in, &v);
		}
	}
	if (taken + skipped + in.length != size)
		abort();
	buffer_free(&in);
}

static void configuration(const uint8_t *data, size_t size)
{
	static struct config c;
	struct fault f;

	if (config_parse(&c, (const char *)data, size, &f) == 0 && (!c.root[0] || strncmp(c.root, "/dev/", 5)))
		abort();
	config_free(&c);
}

static void exec_payload(const uint8_t *data, size_t size)
{
	struct exec_request r;
	struct fault f;
	size_t length = 0;
	char **s;

	if (exec_request_parse(&r, data, size, &f) < 0)
		return;
	for (s = r.argv; *s; s++)
		length += strlen(*s) + 1;
	for (s = r.env; *s; s++)
		length += strlen(*s) + 1;
	if (length > size)
		abort();
	exec_request_free(&r);
}

struct input {
	const uint8_t *data;
	size_t size;
};

static ssize_t read_input(void *arg, void *buf, size_t n)
{
	struct input *in = arg;

	if (n > in->size)
		n = in->size;
	memcpy(buf, in->data, n);
	in->data += n;
	in->size -= n;
	return n;
}

static void tar(const uint8_t *data, size_t size)
{
	static struct tar_entry e;
	struct input in = { data, size };
	struct tar_reader t = { .read = read_input, .arg = &in };
	uint8_t buf[100];
	struct fault f;

	while (tar_next(&t, &e, &f) > 0) {
		if (memchr(e.name, '\0', sizeof(e.name)) == NULL || memchr(e.link, '\0', sizeof(e.link)) == NULL)
			abort();
		if (e.mode & ~07777u || (e.kind != TAR_FILE && e.size))
			abort();
		/* Half of the content is read, half skipped. */
		tar_data(&t, buf, sizeof(buf), &f);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	switch (data[0] % 4) {
	case 0:
		frames(data + 1, size - 1);
		break;
	case 1:
		configuration(data + 1, size - 1);
		break;
	case 2:
		exec_payload(data + 1, size - 1);
		break;
	default:
		tar(data + 1, size - 1);
	}
	return 0;
}
