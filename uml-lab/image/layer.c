/*
 * Course layers: what a machine's disk holds beyond its base, as one COW file of
 * the image store that other machines can stand on.
 *
 * The whole disk is written to a private raw copy, cleaned there (clean.c), and
 * compared with the base: only what differs is stored. So all the layers of a
 * session become one, nothing that was deleted is in it, and the session's own files are
 * only read.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cow/ops.h"
#include "uml-lab/base/child.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/file.h"
#include "uml-lab/image/image_internal.h"

#define CLEAN_MS     900000
#define CLEAN_OUTPUT 8192

static int tell(const struct image_options *options, const char *phase, struct error *err)
{
	const struct image_progress progress = {.phase = phase};

	if (options->progress)
		options->progress(options->progress_arg, &progress);
	return image_check_cancel(options, err);
}

static int write_raw(const char *disk, const char *raw, uint64_t *size, struct error *err)
{
	struct cow_chain *chain = cow_chain_open(disk, NULL, err);
	int result;

	if (!chain)
		return -1;
	*size = cow_chain_size(chain);
	result = cow_flatten(chain, raw, false, false, err);
	cow_chain_close(chain);
	return result;
}

/* In a process that can reach nothing but the raw copy. */
static int clean_raw(const char *raw, struct error *err)
{
	cleanup_free char *program = file_absolute("/proc/self/exe", false, err), *output = NULL;
	const char *const argv[] = {program, "__clean-disk", raw, NULL};
	const struct child_spec spec = {.argv = argv, .null_stdin = true, .death_signal = SIGKILL};
	char text[64], *end;
	int status;

	if (!program || child_capture(&spec, CLEAN_MS, CLEAN_OUTPUT, true, &output, &status, err) < 0)
		return error_prefix(err, "cannot clean the disk");
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	end = output + strlen(output);
	while (end > output && end[-1] == '\n')
		*--end = '\0';
	return error_set(err, ERROR_FAILED, "%s", *output ? output : child_describe_status(status, text, sizeof(text)));
}

static int add_text(json_t *meta, const char *key, const char *text, struct error *err)
{
	return text && *text && json_object_set_new(meta, key, json_string(text)) ? error_oom(err) : 0;
}

static json_t *describe(const struct image_layer_spec *spec, const struct image *base, const char *layer, struct error *err)
{
	json_t *meta = json_object();
	char digest[COW_DIGEST_MAX], below[COW_DIGEST_MAX];

	if (!meta)
		error_oom(err);
	if (!meta || cow_file_digest(layer, digest, err) < 0 || cow_file_digest(base->path, below, err) < 0 ||
	    add_text(meta, "kind", "layer", err) < 0 || add_text(meta, "base", base->name ?: base->path, err) < 0 ||
	    add_text(meta, "base_digest", below, err) < 0 || add_text(meta, "digest", digest, err) < 0 ||
	    add_text(meta, "system", image_meta(base, "system"), err) < 0 ||
	    add_text(meta, "init", image_meta(base, "init"), err) < 0 || add_text(meta, "lab", spec->lab, err) < 0 ||
	    add_text(meta, "machine", spec->machine, err) < 0) {
		json_decref(meta);
		return NULL;
	}
	return meta;
}

static int make(struct image_draft *draft, const struct image_layer_spec *spec, const struct image *base,
		struct error *err)
{
	cleanup_free char *work = image_draft_work_folder(draft, err), *raw = NULL, *layer = NULL;
	cleanup_json json_t *meta = NULL;
	char digest[COW_DIGEST_MAX];

	raw = work ? file_join(err, work, "disk.img") : NULL;
	layer = raw ? file_join(err, work, "layer.cow") : NULL;
	if (!layer || tell(draft->options, "copying the disk", err) < 0 ||
	    write_raw(spec->disk, raw, &draft->size, err) < 0)
		return -1;
	if (!spec->as_is && (tell(draft->options, "cleaning it", err) < 0 || clean_raw(raw, err) < 0))
		return -1;
	/* Noted where that is allowed, it lets the layer find its base again after both were copied elsewhere. */
	if (tell(draft->options, "comparing it with the base", err) < 0 || cow_file_digest(base->path, digest, err) < 0 ||
	    cow_express(raw, base->path, layer, false, NULL, err) < 0)
		return -1;
	meta = describe(spec, base, layer, err);
	return meta ? image_draft_publish_file(draft, layer, meta, err) : -1;
}

int image_publish_layer(const char *name, const struct image_layer_spec *spec, const struct image_options *options,
			struct error *err)
{
	cleanup_draft struct image_draft draft = IMAGE_DRAFT_INIT;
	cleanup_image struct image base = IMAGE_INIT;

	if (image_find(spec->base, &base, err) < 0 || image_draft_begin_file(&draft, name, options, err) < 0)
		return -1;
	return make(&draft, spec, &base, err);
}

/* ---- who stands on an image ---- */

/* Whether a layer stands directly on the file that `wanted` is of. */
static bool stands_on(const char *layer, const struct stat *wanted)
{
	const struct cow_open_options look = {.no_lock = true, .partial = true};
	struct cow_chain *chain = cow_chain_open(layer, &look, NULL);
	struct cow_file_info below;
	bool found = false;

	if (chain && cow_chain_depth(chain) > 1) {
		cow_chain_file(chain, 1, &below);
		found = below.stat.st_dev == wanted->st_dev && below.stat.st_ino == wanted->st_ino;
	}
	cow_chain_close(chain);
	return found;
}

int image_layers_on(const char *path, struct strv *users, struct error *err)
{
	cleanup_image_list struct image_list list = IMAGE_LIST_INIT;
	struct stat wanted;

	if (stat(path, &wanted) < 0)
		return 0;
	if (image_collect(&list, err) < 0)
		return -1;
	for (size_t i = 0; i < list.count; i++)
		if (list.items[i].is_layer && stands_on(list.items[i].path, &wanted) &&
		    strv_addf(users, err, "layer %s", list.items[i].name ?: list.items[i].path) < 0)
			return -1;
	return 0;
}
