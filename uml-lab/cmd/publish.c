/* uml-lab publish SESSION/MACHINE NAME: what a machine's disk holds beyond its base becomes a course layer. */
#include <stdlib.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/cmd/cmd.h"
#include "uml-lab/image/image.h"

struct publish_options {
	bool as_is, replace, json;
};

static const struct cli_option options[] = {
	{"replace", 0, CLI_FLAG, offsetof(struct publish_options, replace), NULL,
	 "replace an image of that name, if nobody uses it"},
	{"as-is", 0, CLI_FLAG, offsetof(struct publish_options, as_is), NULL,
	 "keep keys, machine-id, logs, histories and the rest; also for disks that hold no ext4"},
	{"json", 0, CLI_FLAG, offsetof(struct publish_options, json), NULL, "for scripts"},
	{NULL},
};

static void show_phase(void *arg, const struct image_progress *progress)
{
	(void)arg;
	if (!cli_quiet)
		fprintf(stderr, "%s\n", progress->phase);
}

/* One machine's root disk, under its session's lock. */
static int publish(const struct publish_options *o, const char *operand, const char *name, struct error *err)
{
	cleanup_free char *session = NULL, *machine = NULL, *overlay = NULL;
	cleanup_session struct session *s = NULL;
	cleanup_close int lock = -1;
	const struct session_machine *m;
	struct image_layer_spec spec = {.as_is = o->as_is};
	const struct image_options image = {
		.replace = o->replace, .users = session_image_users, .progress = show_phase, .cancel = cmd_catch_signals()};

	if (session_resolve(operand, &session, &machine, true, err) < 0)
		return -1;
	lock = session_lock(session, SESSION_LOCK_MS, err);
	s = lock < 0 ? NULL : session_load(session, err);
	if (!s || session_settle(s, err) < 0)
		return -1;
	m = session_find_machine(s, machine);
	if (session_machine_runs(m)) {
		error_set(err, ERROR_STATE, "machine %s of session %s is running", machine, session);
		return error_hint(err, "stop it first: uml-lab down %s/%s", session, machine);
	}
	overlay = session_overlay(s, machine, err);
	if (!overlay)
		return -1;
	if (!m->base || access(overlay, F_OK) < 0)
		return error_set(err, ERROR_STATE, "machine %s of session %s was never started: it holds nothing but its base",
				 machine, session);
	spec.disk = overlay;
	spec.base = m->base;
	spec.lab = s->lab->name;
	spec.machine = machine;
	return image_publish_layer(name, &spec, &image, err);
}

static int report(const struct publish_options *o, json_t *all, const char *name, struct error *err)
{
	cleanup_image struct image image = IMAGE_INIT;
	char size[24];

	if (image_find(name, &image, err) < 0)
		return -1;
	if (o->json)
		return json_array_append_new(all, image_to_json(&image, err)) ? -1 : 0;
	if (!cli_quiet)
		printf("Layer %s is ready: it takes %s beyond %s. Labs name it as base: %s\n", name,
		       str_human_size(image.allocated, size, sizeof(size)), image_meta(&image, "base"), name);
	return 0;
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct publish_options *o = opaque;
	json_t *all = o->json ? json_array() : NULL;
	int result = 0;

	if (operands->count % 2)
		result = error_set(err, ERROR_USAGE, "each machine needs a name for its layer: SESSION/MACHINE NAME");
	for (size_t i = 0; result == 0 && i < operands->count; i += 2) {
		result = publish(o, operands->items[i], operands->items[i + 1], err);
		if (result == 0)
			result = report(o, all, operands->items[i + 1], err);
	}
	if (result == 0 && all)
		return cmd_print_json(all, err);
	json_decref(all);
	return result;
}

const struct cli_command cmd_publish = {
	.name = "publish",
	.operands = "SESSION/MACHINE NAME [SESSION/MACHINE NAME]…",
	.summary = "Turn what a machine's disk holds beyond its base into a course layer",
	.help = "The layer NAME lies beside your images, and other labs name it as base:. All that a class takes of it is one "
		"file and thin overlays. Host keys, machine-id, random seeds, logs, shell histories, leases, fetched packages and "
		"temporary files are left out, and the mark of the first start, so that the set-up of labs on it runs. The "
		"session stays as it is; its machine must be stopped. Extra disks are not part of a layer.",
	.options = options,
	.options_size = sizeof(struct publish_options),
	.min_operands = 2,
	.max_operands = -1,
	.run = run,
};

static int run_clean(const void *opaque, const struct strv *operands, struct error *err)
{
	uint64_t removed;

	(void)opaque;
	return image_clean_disk(operands->items[0], &removed, err);
}

/* The body of the process that looks into a guest's file system: image/clean.c. */
const struct cli_command cmd_clean_disk = {
	.name = "__clean-disk",
	.operands = "RAW-DISK",
	.min_operands = 1,
	.max_operands = 1,
	.run = run_clean,
};
