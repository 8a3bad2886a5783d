/*
 * uml-cow convert: between COW versions, and to and from qcow2.
 *
 * qcow2 is left to qemu-img, which reads and writes a raw image for us: the
 * chain's disk, made for the purpose in the folder of the output. A qcow2 image
 * can name other files too (a backing file, an external data file), so one that
 * comes in is only taken when it names none.
 */
#include <endian.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>

#include "cow/cmd.h"
#include "cow/ops.h"
#include "uml-lab/base/child.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"

#define QCOW2_MAGIC         0x514649fbu
#define QCOW2_EXTERNAL_DATA (1ull << 2) /* incompatible feature: docs/interop/qcow2.txt */
#define QEMU_IMG_OUTPUT_MAX 4096

struct options {
	struct cow_cmd_chain chain;
	const char *backing, *to;
	bool force;
};

struct qcow2_header {
	uint32_t magic, version;
	uint64_t backing_file_offset;
	uint8_t rest[56];
	uint64_t incompatible_features; /* from version 3 on */
} __attribute__((packed));
_Static_assert(offsetof(struct qcow2_header, incompatible_features) == 72, "qcow2 header");

/* 1 for a qcow2 image that names no other file, 0 for something else, -1 + err. */
static int inspect_qcow2(const char *path, struct error *err)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct qcow2_header h = {0};

	if (fd < 0 || file_pread_full(fd, &h, sizeof(h), 0) < 0)
		return error_errno(err, errno, "cannot read %s", path);
	if (be32toh(h.magic) != QCOW2_MAGIC)
		return 0;
	if (h.backing_file_offset)
		return error_set(err, ERROR_FAILED, "%s has a backing file: convert it to one without first",
				 path);
	if (be32toh(h.version) >= 3 && (be64toh(h.incompatible_features) & QCOW2_EXTERNAL_DATA))
		return error_set(err, ERROR_FAILED, "%s keeps its data in another file", path);
	return 1;
}

static int qemu_img(const char *from_format, const char *to_format, const char *in, const char *out,
		    struct error *err)
{
	const char *const argv[] = {"qemu-img", "convert", "-f", from_format, "-O",
				    to_format,  "--",      in,   out,         NULL};
	const struct child_spec spec = {.argv = argv, .null_stdin = true};
	cleanup_free char *output = NULL;
	char text[128];
	int status;

	if (child_capture(&spec, -1, QEMU_IMG_OUTPUT_MAX, true, &output, &status, err))
		return error_hint(err, "qcow2 needs qemu-img, of Debian's package qemu-utils");
	if (status != 0)
		return error_set(err, ERROR_FAILED, "qemu-img %s: %s",
				 child_describe_status(status, text, sizeof(text)), output);
	return 0;
}

static void remove_file(char **path)
{
	if (*path)
		unlink(*path);
	free(*path);
}

/* An empty file beside `out`, whose name the caller owns. NULL + err. */
static char *scratch(const char *out, struct error *err)
{
	cleanup_free char *path = str_printf(err, "%s.tmp-XXXXXX", out);
	int fd;

	if (!path)
		return NULL;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0) {
		error_errno(err, errno, "cannot create a file beside %s", out);
		return NULL;
	}
	close(fd);
	return steal_ptr(&path);
}

/* Puts the finished file in its place. What is replaced must not be in use. */
static int publish(char **from, const char *to, bool force, struct error *err)
{
	const struct cow_open_options lock = {.writable = true, .partial = true};
	cleanup_cow_chain struct cow_chain *replaced = NULL;

	if (force && file_exists(to)) {
		replaced = cow_chain_open(to, &lock, err);
		if (!replaced)
			return -1;
	}
	if (force ? rename(*from, to) : link(*from, to))
		return error_errno(err, errno, "cannot create %s", to);
	if (force)
		free(steal_ptr(from));
	return 0;
}

static int to_qcow2(const struct options *o, const char *in, const char *out, struct error *err)
{
	struct cow_open_options open = cow_cmd_open_options(&o->chain);
	cleanup_cow_chain struct cow_chain *chain = cow_chain_open(in, &open, err);
	cleanup_with(remove_file) char *raw = chain ? scratch(out, err) : NULL;
	cleanup_with(remove_file) char *image = raw ? scratch(out, err) : NULL;

	if (!image || cow_flatten(chain, raw, true, false, err) || qemu_img("raw", "qcow2", raw, image, err))
		return -1;
	return publish(&image, out, o->force, err);
}

static int from_qcow2(const struct options *o, const char *in, const char *out, struct error *err)
{
	struct cow_open_options open = cow_cmd_open_options(&o->chain);
	cleanup_with(remove_file) char *raw = scratch(out, err);

	if (!raw || qemu_img("qcow2", "raw", in, raw, err))
		return -1;
	return o->backing ? cow_express(raw, o->backing, out, o->force, &open, err)
			  : publish(&raw, out, o->force, err);
}

static int from_disk(const struct options *o, const char *in, const char *out, struct error *err)
{
	struct cow_open_options open = cow_cmd_open_options(&o->chain);
	cleanup_cow_chain struct cow_chain *chain = NULL;

	if (str_eq(o->to, "qcow2"))
		return to_qcow2(o, in, out, err);
	if (str_eq(o->to, "raw")) {
		chain = cow_chain_open(in, &open, err);
		return chain ? cow_flatten(chain, out, o->force, false, err) : -1;
	}
	if (o->backing)
		return cow_express(in, o->backing, out, o->force, &open, err);
	return cow_convert(in, out, o->force, &open, err);
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct options *o = opaque;
	struct options guessed = *o;
	const char *in = operands->items[0], *out = operands->items[1];
	int is_qcow2;

	if (!guessed.to)
		guessed.to = str_ends(out, ".qcow2")                          ? "qcow2"
			     : str_ends(out, ".raw") || str_ends(out, ".img") ? "raw"
									      : "cow";
	if (!o->force && file_exists(out)) {
		error_set(err, ERROR_FAILED, "%s is there already", out);
		return error_hint(err, "remove it first, or use --force");
	}
	is_qcow2 = inspect_qcow2(in, err);
	if (is_qcow2 < 0)
		return -1;
	if (!is_qcow2)
		return from_disk(&guessed, in, out, err);
	if (str_eq(guessed.to, "cow") && !o->backing && o->to)
		return error_set(err, ERROR_USAGE, "a COW file needs a backing file: -b BACKING");
	return from_qcow2(&guessed, in, out, err);
}

static const struct cli_option options[] = {
	COW_CMD_CHAIN_OPTIONS,
	{"to", 0, CLI_CHOICE, offsetof(struct options, to), "cow|raw|qcow2",
	 "what to make (default: by OUT's ending: .qcow2, .raw, .img, else a COW file)"},
	{"backing", 'b', CLI_STRING, offsetof(struct options, backing), "BACKING",
	 "make an overlay over this file, of what differs"},
	{"force", 'f', CLI_FLAG, offsetof(struct options, force), NULL, "replace a file that is there"},
	{NULL},
};

const struct cli_command cow_cmd_convert = {
	.name = "convert",
	.operands = "IN OUT",
	.summary = "Make a V3 file of an older COW file, or convert from and to qcow2",
	.help = "IN is a disk (V1, V2 and V3 files, raw images) or a qcow2 image. A COW file made of a COW "
		"file stands on the\n"
		"same backing file, unless -b names another. A qcow2 image becomes a raw image, or with -b "
		"an overlay.",
	.options = options,
	.options_size = sizeof(struct options),
	.min_operands = 2,
	.max_operands = 2,
	.run = run,
};
