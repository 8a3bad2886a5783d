/*
 * uml-cow diff-files: what changed in the files of a disk.
 *
 * A patch is made by diff(1) from two temporary files: regular files only, of
 * bounded size, in which no NUL is.
 *
 * The file system is what a guest made of it, and libext2fs takes it apart. So
 * once the files of the chain are open, this process may open no others, nor do anything
 * but read those and print; for patches it may also make temporary files and run diff(1).
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cow/cmd.h"
#include "cow/cmd_fs.h"
#include "uml-lab/base/child.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/confine.h"
#include "uml-lab/base/file.h"

#define PATCH_FILE_MAX (4u << 20) /* of a file that a patch is made for */
#define PATCH_MAX      (64u << 20)

struct options {
	struct cow_cmd_chain chain;
	bool json, patch, base, frozen;
	const char *outside;
};

struct output {
	const struct options *options;
	const struct strv *operands; /* FILE, then what to tell of; FILE alone: all */
	json_t *list;
	struct cow_fs *old, *new; /* for patches */
};

/* "content, mode, owner" */
static const struct {
	unsigned int aspect;
	const char *name;
} aspects[] = {
	{COW_FS_CONTENT, "content"}, {COW_FS_MODE, "mode"},   {COW_FS_OWNER, "owner"},
	{COW_FS_SIZE, "size"},       {COW_FS_MTIME, "mtime"}, {COW_FS_ATTRIBUTES, "attributes"},
};

static const char *change_name(enum cow_fs_change change)
{
	static const char *const names[] = {[COW_FS_ADDED] = "added",
					    [COW_FS_REMOVED] = "removed",
					    [COW_FS_MODIFIED] = "modified",
					    [COW_FS_RENAMED] = "renamed"};

	return names[change];
}

static int tell_json(json_t *list, const struct cow_fs_difference *d, struct error *err)
{
	json_t *item =
		json_pack("{s:s, s:o}", "change", change_name(d->change), "path", cow_cmd_json_text(d->path));
	json_t *which = json_array();

	for (size_t i = 0; i < ARRAY_SIZE(aspects); i++)
		if (d->aspects & aspects[i].aspect)
			json_array_append_new(which, json_string(aspects[i].name));
	if (d->old_path)
		json_object_set_new(item, "old_path", cow_cmd_json_text(d->old_path));
	if (d->change != COW_FS_ADDED)
		json_object_set_new(item, "old",
				    cow_cmd_stat_json(d->old_path ? d->old_path : d->path, NULL, &d->old));
	if (d->change != COW_FS_REMOVED)
		json_object_set_new(item, "new", cow_cmd_stat_json(d->path, NULL, &d->new));
	json_object_set_new(item, "aspects", which);
	return json_array_append_new(list, item) ? error_oom(err) : 0;
}

static void tell_line(const struct cow_fs_difference *d)
{
	static const char letters[] = {[COW_FS_ADDED] = 'A',
				       [COW_FS_REMOVED] = 'D',
				       [COW_FS_MODIFIED] = 'M',
				       [COW_FS_RENAMED] = 'R'};
	char mode[11];
	const char *separator = " (";

	printf("%c %s ", letters[d->change],
	       cow_fs_mode_text(d->change == COW_FS_REMOVED ? d->old.mode : d->new.mode, mode));
	if (d->old_path) {
		cow_cmd_print_path(d->old_path);
		fputs(" -> ", stdout);
	}
	cow_cmd_print_path(d->path);
	for (size_t i = 0; i < ARRAY_SIZE(aspects); i++) {
		if (!(d->aspects & aspects[i].aspect))
			continue;
		printf("%s%s", separator, aspects[i].name);
		separator = ", ";
	}
	puts(d->aspects ? ")" : "");
}

/* ---- Patches ---- */

struct text {
	struct strbuf data;
	bool too_large, binary;
};

static int add_text(void *arg, const void *data, size_t n, struct error *err)
{
	struct text *t = arg;

	t->too_large = t->data.length + n > PATCH_FILE_MAX;
	t->binary = memchr(data, '\0', n) != NULL;
	if (t->too_large || t->binary)
		return 1; /* enough seen */
	strbuf_add(&t->data, data, n);
	return strbuf_check(&t->data, err);
}

static void remove_file(char **path)
{
	if (*path)
		unlink(*path);
	free(*path);
}

/* The file's content in a temporary file, whose name the caller owns. NULL + err. */
static char *store(const struct text *t, struct error *err)
{
	const char *tmp = getenv("TMPDIR");
	cleanup_free char *path = str_printf(err, "%s/uml-cow-diff.XXXXXX", tmp && *tmp ? tmp : "/tmp");
	cleanup_close int fd = -1;

	if (!path)
		return NULL;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0 || (t->data.length && file_write_full(fd, t->data.data, t->data.length) < 0)) {
		error_errno(err, errno, "cannot write %s", path);
		if (fd >= 0)
			unlink(path);
		return NULL;
	}
	return steal_ptr(&path);
}

/* "a/etc/hosts"; /dev/null, which patch(1) knows, for a file that is not there (path NULL). */
static char *label(const char *side, const char *path, struct error *err)
{
	return path ? str_printf(err, "%s%s", side, path) : str_dup("/dev/null", err);
}

static int run_diff(const char *old_path, const char *new_path, const struct text *old,
		    const struct text *new, struct error *err)
{
	cleanup_with(remove_file) char *a = store(old, err), *b = a ? store(new, err) : NULL;
	cleanup_free char *old_label = b ? label("a", old_path, err) : NULL, *output = NULL;
	cleanup_free char *new_label = old_label ? label("b", new_path, err) : NULL;
	const char *const argv[] = {"diff",    "-u", "--label", old_label, "--label",
				    new_label, "--", a,         b,         NULL};
	const struct child_spec spec = {.argv = argv, .null_stdin = true};
	int status;

	if (!new_label || child_capture(&spec, -1, PATCH_MAX, true, &output, &status, err))
		return -1;
	if (WIFEXITED(status) ? WEXITSTATUS(status) > 1 : true)
		return error_set(err, ERROR_FAILED, "diff: %s", output);
	fputs(output, stdout);
	return 0;
}

static bool is_regular(const struct cow_fs_stat *st)
{
	return (st->mode & 0170000) == 0100000;
}

static int tell_patch(const struct output *out, const struct cow_fs_difference *d, struct error *err)
{
	const char *old_path = d->change == COW_FS_ADDED ? NULL : d->old_path ? d->old_path : d->path;
	const char *new_path = d->change == COW_FS_REMOVED ? NULL : d->path;
	struct text old = {0}, new = {0};
	bool has_old = is_regular(&d->old), has_new = is_regular(&d->new);
	int ret = 0;

	if ((!has_old && !has_new) ||
	    (d->change != COW_FS_ADDED && d->change != COW_FS_REMOVED && !(d->aspects & COW_FS_CONTENT)))
		return 0;
	ret = has_old ? cow_fs_read(out->old, d->old.inode, add_text, &old, err) : 0;
	if (ret == 0 && has_new)
		ret = cow_fs_read(out->new, d->new.inode, add_text, &new, err);
	if (ret > 0) {
		printf("%s file ", old.binary || new.binary ? "Binary" : "Large");
		cow_cmd_print_path(d->path);
		puts(" differs");
		ret = 0;
	} else if (ret == 0) {
		ret = run_diff(old_path, new_path, &old, &new, err);
	}
	strbuf_free(&old.data);
	strbuf_free(&new.data);
	return ret;
}

/* Whether a path is one of those asked for, or lies below one. */
static bool is_asked_for(const struct strv *operands, const char *path)
{
	for (size_t i = 1; i < operands->count; i++) {
		const char *wanted = operands->items[i] + strspn(operands->items[i], "/");
		size_t n = strlen(wanted);

		path += strspn(path, "/");
		while (n > 0 && wanted[n - 1] == '/')
			n--;
		if (!strncmp(path, wanted, n) && (n == 0 || path[n] == '\0' || path[n] == '/'))
			return true;
	}
	return operands->count == 1;
}

static int tell(void *arg, const struct cow_fs_difference *d, struct error *err)
{
	const struct output *out = arg;

	if (!is_asked_for(out->operands, d->path) && !(d->old_path && is_asked_for(out->operands, d->old_path)))
		return 0;
	if (out->list)
		return tell_json(out->list, d, err);
	if (!out->options->patch) {
		tell_line(d);
		return 0;
	}
	return tell_patch(out, d, err);
}

/* What the disk is compared with: how many files of the chain to leave out. 0 + err: there is nothing below. */
static size_t files_above(const struct options *o, const struct cow_chain *chain, const char *file, struct error *err)
{
	size_t depth = cow_chain_depth(chain), skip = o->base ? depth - 1 : 1;
	cleanup_free char *folder = o->outside ? file_absolute(o->outside, false, err) : NULL;

	if (o->outside && !folder)
		return 0;
	for (skip = folder ? 0 : skip; folder && skip < depth; skip++) {
		struct cow_file_info info;

		cow_chain_file(chain, skip, &info);
		if (!str_starts(info.path, folder) || info.path[strlen(folder)] != '/')
			break;
	}
	if (skip > 0 && skip < depth)
		return skip;
	error_set(err, ERROR_FAILED, "%s stands on nothing to compare it with", file);
	return 0;
}

static int confine(bool patch, struct error *err)
{
	static const char *const calls[] = {"newfstatat", "statx", NULL};
	const char *tmp = getenv("TMPDIR");
	const struct confine_path paths[] = {
		{.path = "/usr", .access = CONFINE_READ | CONFINE_EXECUTE},
		{.path = "/bin", .access = CONFINE_READ | CONFINE_EXECUTE},
		{.path = "/lib", .access = CONFINE_READ | CONFINE_EXECUTE},
		{.path = "/lib64", .access = CONFINE_READ | CONFINE_EXECUTE},
		{.path = "/etc/ld.so.cache", .access = CONFINE_READ},
		{.path = "/dev/null", .access = CONFINE_READ | CONFINE_WRITE},
		{.path = tmp && *tmp ? tmp : "/tmp", .access = CONFINE_READ | CONFINE_WRITE | CONFINE_CREATE},
	};
	const struct confine_spec spec = {
		.paths = paths,
		.path_count = patch ? ARRAY_SIZE(paths) : 0,
		.calls = patch ? NULL : calls,
	};
	char walls[CONFINE_WALLS_MAX];

	return confine_self(&spec, walls, err);
}

static int run(const void *opaque, const struct strv *operands, struct error *err)
{
	const struct options *o = opaque;
	struct cow_open_options open = cow_cmd_open_options(&o->chain);
	cleanup_cow_chain struct cow_chain *chain = NULL;
	cleanup_json json_t *list = o->json ? json_array() : NULL;
	struct output out = {.options = o, .operands = operands, .list = list};
	size_t skip;
	int ret;

	open.no_lock = o->frozen;
	chain = cow_chain_open(operands->items[0], &open, err);
	if (!chain)
		return -1;
	if (o->json && o->patch)
		return error_set(err, ERROR_USAGE, "--json and --patch exclude each other");
	skip = files_above(o, chain, operands->items[0], err);
	if (skip == 0 || confine(o->patch, err))
		return -1;
	out.new = cow_fs_open(chain, 0, err);
	out.old = out.new ? cow_fs_open(chain, skip, err) : NULL;
	if (out.old)
		cow_cmd_fs_warn(out.new);
	ret = out.old ? cow_fs_diff(chain, skip, tell, &out, err) : -1;
	cow_fs_close(out.new);
	cow_fs_close(out.old);
	return ret || !list ? ret : cow_cmd_print_json(json_incref(list), err);
}

static const struct cli_option options[] = {
	COW_CMD_CHAIN_OPTIONS,
	{"base", 0, CLI_FLAG, offsetof(struct options, base), NULL,
	 "compare with the base image, not with the next layer"},
	{"outside", 0, CLI_STRING, offsetof(struct options, outside), "FOLDER",
	 "compare with the first file of the chain that is not in this folder"},
	{"frozen", 0, CLI_FLAG, offsetof(struct options, frozen), NULL,
	 "a disk in use, whose guest has frozen its file systems: look at it all the same"},
	{"patch", 'p', CLI_FLAG, offsetof(struct options, patch), NULL, "a unified diff of the text files"},
	{"json", 0, CLI_FLAG, offsetof(struct options, json), NULL, "tell it as JSON"},
	{NULL},
};

const struct cli_command cow_cmd_diff_files = {
	.name = "diff-files",
	.operands = "FILE [PATH…]",
	.summary = "Show what changed in the files of a disk since its backing file",
	.help = "A line each: A added, D removed, M modified, R renamed; the mode; the path; and in what it "
		"differs.\n"
		"Reads folders and what the overlay stores only. With PATHs only what lies there and below is told.",
	.options = options,
	.options_size = sizeof(struct options),
	.min_operands = 1,
	.max_operands = -1,
	.run = run,
};
