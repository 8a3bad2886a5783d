/* uml-lab image build|import|list|show|remove */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/cli.h"
#include "uml-lab/base/loop.h"
#include "uml-lab/cmd/cmd.h"
#include "uml-lab/image/image.h"

#define REDRAW_MS 100

/* ---- progress ---- */

struct display {
	bool terminal; /* one line, redrawn; otherwise a line per phase */
	int64_t drawn; /* when */
	const char *phase;
	struct image_progress last;
};

static void draw(const struct display *d)
{
	char size[16];
	struct winsize window = {0};
	char line[160];
	int columns = 80;

	if (!ioctl(fileno(stderr), TIOCGWINSZ, &window) && window.ws_col)
		columns = window.ws_col;
	if (d->last.entries)
		snprintf(line, sizeof(line), "%s: %s in %" PRIu64 " entries", d->phase,
			 str_human_size(d->last.bytes, size, sizeof(size)), d->last.entries);
	else
		snprintf(line, sizeof(line), "%s", d->phase);
	fprintf(stderr, "\r\033[K%.*s", columns - 1, line);
	fflush(stderr);
}

static void show_progress(void *arg, const struct image_progress *progress)
{
	struct display *d = arg;
	bool new_phase = !str_eq(d->phase, progress->phase);

	d->phase = progress->phase;
	d->last = *progress;
	if (cli_quiet)
		return;
	if (!d->terminal) {
		if (new_phase)
			fprintf(stderr, "%s\n", d->phase);
	} else if (new_phase || loop_now_ms() - d->drawn >= REDRAW_MS) {
		d->drawn = loop_now_ms();
		draw(d);
	}
}

static void end_display(const struct display *d)
{
	if (d->terminal && d->phase && !cli_quiet)
		fputs("\r\033[K", stderr);
}

/* ---- build, import ---- */

struct make_options {
	const char *suite;
	const char *mirror;
	struct strv include;
	uint64_t size;
	bool replace;
};

static struct image_options to_image_options(const struct make_options *o, struct display *d)
{
	*d = (struct display){.terminal = cli_is_terminal(stderr)};
	return (struct image_options){
		.size = o->size,
		.replace = o->replace,
		.users = session_image_users,
		.progress = show_progress,
		.progress_arg = d,
		.cancel = cmd_catch_signals(),
	};
}

static int report_made(const char *name, struct error *err)
{
	cleanup_image struct image image = IMAGE_INIT;
	char size[16], allocated[16];

	if (image_find(name, &image, err))
		return -1;
	if (!cli_quiet)
		printf("Image %s is ready: a disk of %s, which takes %s.\n", name,
		       str_human_size(image.size, size, sizeof(size)),
		       str_human_size(image.allocated, allocated, sizeof(allocated)));
	return 0;
}

static int run_build(const void *options, const struct strv *operands, struct error *err)
{
	const struct make_options *o = options;
	const char *name = operands->items[0];
	struct image_debian debian = {
		.suite = o->suite, .include = &o->include, .mirror = o->mirror, .verbose = cli_verbose};
	struct display display;
	struct image_options common = to_image_options(o, &display);
	int result;

	if (str_eq(name, "tiny") && !o->suite) {
		if (o->include.count)
			return error_set(err, ERROR_USAGE,
					 "the tiny image is busybox alone: --include is for Debian ones");
		result = image_build_tiny(name, &common, err);
	} else {
		result = image_build_debian(name, &debian, &common, err);
	}
	end_display(&display);
	return result ? -1 : report_made(name, err);
}

static int run_import(const void *options, const struct strv *operands, struct error *err)
{
	struct display display;
	struct image_options common = to_image_options(options, &display);
	int result = image_import(operands->items[0], operands->items[1], &common, err);

	end_display(&display);
	return result ? -1 : report_made(operands->items[0], err);
}

static const struct cli_option build_options[] = {
	{"suite", 0, CLI_STRING, offsetof(struct make_options, suite), "SUITE",
	 "Debian release by code name (told by NAME for debian-12 and debian-13)"},
	{"mirror", 0, CLI_STRING, offsetof(struct make_options, mirror), "URI",
	 "Debian mirror to take packages from (the one the host's apt uses)"},
	{"include", 0, CLI_LIST, offsetof(struct make_options, include), "PKGS",
	 "further packages, comma-separated; may be repeated"},
	{"size", 0, CLI_SIZE, offsetof(struct make_options, size), "SIZE", "size of the disk; it is sparse"},
	{"replace", 0, CLI_FLAG, offsetof(struct make_options, replace), NULL,
	 "replace an image of that name, if no session uses it"},
	{NULL},
};

static const struct cli_option import_options[] = {
	{"size", 0, CLI_SIZE, offsetof(struct make_options, size), "SIZE", "size of the disk; it is sparse"},
	{"replace", 0, CLI_FLAG, offsetof(struct make_options, replace), NULL,
	 "replace an image of that name, if no session uses it"},
	{NULL},
};

const struct cli_command cmd_image_build = {
	.name = "image build",
	.operands = "NAME",
	.summary = "make a base image: tiny, or Debian packages",
	.help = "\"tiny\" is made of the host's busybox-static in a second, without network. \"debian-12\" "
		"and "
		"\"debian-13\", or any NAME with --suite, are made through mmdebstrap from the mirror the "
		"host's own apt "
		"uses. No privilege is needed.\n\n"
		"An interrupted or failing build leaves nothing behind.",
	.options = build_options,
	.options_size = sizeof(struct make_options),
	.min_operands = 1,
	.max_operands = 1,
	.run = run_build,
};

const struct cli_command cmd_image_import = {
	.name = "image import",
	.operands = "NAME ROOTFS.tar[.gz|.xz|.zst]",
	.summary = "make a base image of a root file system archive",
	.help = "Takes what debootstrap, docker export, LXC and OpenVZ templates are: a tar archive, plain "
		"or "
		"compressed; \"-\" reads it from standard input. Owners, modes, times, links, device nodes, "
		"extended "
		"attributes and access lists are kept. Archives that try to reach outside are refused.",
	.options = import_options,
	.options_size = sizeof(struct make_options),
	.min_operands = 2,
	.max_operands = 2,
	.run = run_import,
};

/* ---- list, show, remove ---- */

struct show_options {
	bool json;
};

static const struct cli_option show_options[] = {
	{"json", 0, CLI_FLAG, offsetof(struct show_options, json), NULL, "print JSON"},
	{NULL},
};

static int list_json(const struct image_list *list, struct error *err)
{
	json_t *array = json_array();

	for (size_t i = 0; array && i < list->count; i++) {
		json_t *item = image_to_json(&list->items[i], err);

		if (!item || json_array_append_new(array, item)) {
			json_decref(array);
			return error_oom(err);
		}
	}
	return cmd_print_json(array, err);
}

static int list_table(const struct image_list *list, struct error *err)
{
	static const char *const headers[] = {"NAME", "SYSTEM", "SIZE", "TAKES", "CREATED", "STANDS ON", NULL};
	struct cli_table *table = cli_table_new(err, headers);
	char size[16], takes[16];
	int result = table ? 0 : -1;

	for (size_t i = 0; !result && i < list->count; i++) {
		const struct image *image = &list->items[i];
		const char *system = image_meta(image, "system"), *created = image_meta(image, "created"),
			   *base = image_meta(image, "base");
		const char *const cells[] = {
			image->name,
			*system ? system : NULL,
			str_human_size(image->size, size, sizeof(size)),
			str_human_size(image->allocated, takes, sizeof(takes)),
			*created ? created : NULL,
			image->is_layer && *base ? base : NULL,
		};

		result = cli_table_row(table, cells, err);
	}
	if (!result)
		cli_table_print(table, stdout);
	cli_table_free(table);
	return result;
}

static int run_list(const void *options, const struct strv *operands, struct error *err)
{
	const struct show_options *o = options;
	cleanup_image_list struct image_list list = IMAGE_LIST_INIT;

	(void)operands;
	if (image_list(&list, err))
		return -1;
	if (o->json)
		return list_json(&list, err);
	if (list.count)
		return list_table(&list, err);
	if (!cli_quiet)
		puts("There are no images yet: uml-lab image build tiny makes one in a second.");
	return 0;
}

static int add_users(json_t *object, const char *path, struct error *err)
{
	cleanup_strv struct strv users = STRV_INIT;
	json_t *array = json_array();

	if (!array || json_object_set_new(object, "users", array))
		return error_oom(err);
	if (session_image_users(NULL, path, &users, err) || image_layers_on(path, &users, err))
		return -1;
	for (size_t i = 0; i < users.count; i++)
		if (json_array_append_new(array, json_string(users.items[i])))
			return error_oom(err);
	return 0;
}

static void print_value(const char *key, json_t *value)
{
	char size[16];
	size_t i;
	json_t *item;

	printf("%-10s ", key);
	if (json_is_array(value)) {
		json_array_foreach (value, i, item)
			printf("%s%s", i ? ", " : "", json_is_string(item) ? json_string_value(item) : "?");
		puts(json_array_size(value) ? "" : "-");
	} else if (json_is_integer(value)) {
		printf("%" JSON_INTEGER_FORMAT " (%s)\n", json_integer_value(value),
		       str_human_size((uint64_t)json_integer_value(value), size, sizeof(size)));
	} else if (json_is_boolean(value)) {
		puts(json_is_true(value) ? "yes" : "no");
	} else {
		puts(json_is_string(value) ? json_string_value(value) : "-");
	}
}

static int run_show(const void *options, const struct strv *operands, struct error *err)
{
	const struct show_options *o = options;
	cleanup_image struct image image = IMAGE_INIT;
	const char *key;
	json_t *object, *value;

	if (image_find(operands->items[0], &image, err))
		return -1;
	object = image_to_json(&image, err);
	if (!object || add_users(object, image.path, err)) {
		json_decref(object);
		return -1;
	}
	if (o->json)
		return cmd_print_json(object, err);
	json_object_foreach (object, key, value)
		print_value(key, value);
	json_decref(object);
	return 0;
}

static int run_remove(const void *options, const struct strv *operands, struct error *err)
{
	(void)options;
	for (size_t i = 0; i < operands->count; i++) {
		if (image_remove(operands->items[i], session_image_users, NULL, err))
			return -1;
		if (!cli_quiet)
			printf("Image %s is removed.\n", operands->items[i]);
	}
	return 0;
}

const struct cli_command cmd_image_list = {
	.name = "image list",
	.operands = "",
	.summary = "list base images",
	.options = show_options,
	.options_size = sizeof(struct show_options),
	.run = run_list,
};

const struct cli_command cmd_image_show = {
	.name = "image show",
	.operands = "NAME|PATH",
	.summary = "tell all that is known of an image, and who uses it",
	.options = show_options,
	.options_size = sizeof(struct show_options),
	.min_operands = 1,
	.max_operands = 1,
	.run = run_show,
};

const struct cli_command cmd_image_remove = {
	.name = "image remove",
	.operands = "NAME…",
	.summary = "remove images of yours that no session uses",
	.min_operands = 1,
	.max_operands = -1,
	.run = run_remove,
};
