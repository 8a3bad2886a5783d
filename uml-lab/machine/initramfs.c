/*
 * The initramfs of a kernel: stage-0 as /init, and the modules without which it
 * may not reach its root disk. Debian's three kernels have ubd, ext4, hostfs and
 * the vector network built in; only virtio_blk is a module, and stage-0 loads it
 * only for a disk that needs it. (virtio_net and virtiofs are loaded from the host's folder of modules, once
 * the root is there.) A kernel with more in modules gets more.
 *
 * The archive is not compressed: HELLO came 1.0 s after launch with it, 1.2 s
 * with zstd and no sooner with gzip (7.2, medians of six).
 *
 * Cached under the hash of all that goes in, so a new stage-0 or kernel makes a
 * new file and an old one is never wrong.
 */
#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/str.h"
#include "uml-lab/machine/kernel.h"

#define PROGRAM_MAX (16u << 20)	/* bytes of stage-0 */
#define MODULE_MAX (16u << 20)	/* bytes of a module, decompressed */
#define DEP_MAX (4u << 20)	/* bytes of modules.dep */
#define MODULES_MAX 32

/* What stage-0 may need before the root disk is mounted, in this order. Built in or missing: nothing to do. */
static const char *const wanted[] = { "virtio_blk", "ext4" };

/* The files of the archive: names[i] with data[i]. */
struct content {
	struct strv names;
	struct strbuf data[MODULES_MAX + 2];
	mode_t mode[MODULES_MAX + 2];
};

static void content_free(struct content *c)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(c->data); i++)
		strbuf_free(&c->data[i]);
	strv_free(&c->names);
}

/* Adds an empty file to be filled; NULL + err when there are too many. */
static struct strbuf *content_add(struct content *c, const char *name, mode_t mode, struct error *err)
{
	size_t n = c->names.count;

	if (n == ARRAY_SIZE(c->data)) {
		error_set(err, ERROR_FAILED, "more than %d modules for the initramfs", MODULES_MAX);
		return NULL;
	}
	if (strv_add(&c->names, name, err) < 0)
		return NULL;
	c->mode[n] = mode;
	return &c->data[n];
}

static bool content_has(const struct content *c, const char *name)
{
	size_t i;

	for (i = 0; i < c->names.count; i++)
		if (!strcmp(c->names.items[i], name))
			return true;
	return false;
}

static int archive_error(struct archive *a, const char *what, struct error *err)
{
	return error_set(err, ERROR_FAILED, "%s: %s", what, archive_error_string(a));
}

static void free_reader(struct archive **a)
{
	archive_read_free(*a);
}

static void free_writer(struct archive **a)
{
	archive_write_free(*a);
}

static void free_entry(struct archive_entry **e)
{
	archive_entry_free(*e);
}

/* A module, decompressed when its name says it is (.ko.gz, .ko.xz, .ko.zst). */
static int read_module(const char *path, struct strbuf *out, struct error *err)
{
	cleanup_with(free_reader) struct archive *a = archive_read_new();
	struct archive_entry *e;
	char buf[65536];
	la_ssize_t n;

	if (!a)
		return error_oom(err);
	archive_read_support_format_raw(a);
	archive_read_support_filter_gzip(a);
	archive_read_support_filter_xz(a);
	archive_read_support_filter_zstd(a);
	if (archive_read_open_filename(a, path, sizeof(buf)) != ARCHIVE_OK ||
	    archive_read_next_header(a, &e) != ARCHIVE_OK)
		return archive_error(a, path, err);
	while ((n = archive_read_data(a, buf, sizeof(buf))) > 0) {
		strbuf_add(out, buf, n);
		if (out->length > MODULE_MAX)
			return error_set(err, ERROR_FAILED, "%s: longer than any module", path);
	}
	return n < 0 ? archive_error(a, path, err) : strbuf_check(out, err);
}

/* Name within the archive: "modules/virtio_blk.ko". NULL + err. */
static char *module_name(const char *path, struct error *err)
{
	const char *slash = strrchr(path, '/');
	const char *base = slash ? slash + 1 : path;
	const char *ko = strstr(base, ".ko");

	if (!ko)
		ko = base + strlen(base);
	return str_printf(err, "modules/%.*s.ko", (int)(ko - base), base);
}

/* Adds one module of the folder, and its line to the order, unless it is there. */
static int add_module(struct content *c, struct strbuf *order, const char *folder, const char *path,
		      struct error *err)
{
	cleanup_free char *name = module_name(path, err);
	cleanup_free char *full = file_join(err, folder, path);
	struct strbuf *data;

	if (!name || !full)
		return -1;
	if (content_has(c, name))
		return 0;
	data = content_add(c, name, 0644, err);
	if (!data || read_module(full, data, err) < 0)
		return -1;
	strbuf_printf(order, "%s\n", name + strlen("modules/"));
	return strbuf_check(order, err);
}

/* Whether "kernel/drivers/block/virtio_blk.ko.xz" is the module `name`. */
static bool is_module(const char *path, const char *name)
{
	const char *slash = strrchr(path, '/');
	const char *base = slash ? slash + 1 : path;

	return str_starts(base, name) && str_starts(base + strlen(name), ".ko");
}

/* A line of modules.dep, "PATH: DEP DEP…", every dependency in it, the deepest last (depmod). */
static int add_line(struct content *c, struct strbuf *order, const char *folder, const char *module, char *deps,
		    struct error *err)
{
	char *space;

	while ((space = strrchr(deps, ' '))) {
		*space = '\0';
		if (space[1] && add_module(c, order, folder, space + 1, err) < 0)
			return -1;
	}
	return add_module(c, order, folder, module, err);
}

static int add_wanted(struct content *c, struct strbuf *order, const char *folder, const char *name,
		      const char *dep_text, struct error *err)
{
	cleanup_free char *text = str_dup(dep_text, err);
	char *rest = text, *line, *colon;

	if (!text)
		return -1;
	while ((line = strsep(&rest, "\n"))) {
		colon = strchr(line, ':');
		if (!colon)
			continue;
		*colon = '\0';
		if (is_module(line, name))
			return add_line(c, order, folder, line, colon + 1, err);
	}
	return 0;
}

static int add_modules(struct content *c, const char *folder, struct error *err)
{
	cleanup_strbuf struct strbuf order = STRBUF_INIT;
	cleanup_free char *dep = file_join(err, folder, "modules.dep");
	cleanup_free char *text = NULL;
	struct strbuf *data;
	size_t length, i;

	if (!dep)
		return -1;
	if (!file_exists(dep))
		return 0;
	if (file_read_all(dep, DEP_MAX, &text, &length, err) < 0)
		return -1;
	for (i = 0; i < ARRAY_SIZE(wanted); i++)
		if (add_wanted(c, &order, folder, wanted[i], text, err) < 0)
			return -1;
	if (!order.length)
		return 0;
	data = content_add(c, "modules/order", 0644, err);
	if (!data)
		return -1;
	strbuf_add(data, order.data, order.length);
	return strbuf_check(data, err);
}

static int gather(struct content *c, const struct kernel *kernel, struct error *err)
{
	cleanup_free char *program = dirs_own("stage0", err);
	cleanup_free char *text = NULL;
	struct strbuf *data;
	size_t length;

	if (!program || file_read_all(program, PROGRAM_MAX, &text, &length, err) < 0)
		return -1;
	data = content_add(c, "init", 0755, err);
	if (!data)
		return -1;
	strbuf_add(data, text, length);
	if (strbuf_check(data, err) < 0)
		return -1;
	return kernel->modules ? add_modules(c, kernel->modules, err) : 0;
}

static int write_entry(struct archive *a, const char *name, mode_t mode, dev_t device, const struct strbuf *data,
		       struct error *err)
{
	cleanup_with(free_entry) struct archive_entry *e = archive_entry_new();

	if (!e)
		return error_oom(err);
	archive_entry_set_pathname(e, name);
	archive_entry_set_mode(e, mode);
	archive_entry_set_nlink(e, 1);
	archive_entry_set_rdev(e, device);
	archive_entry_set_size(e, data ? (la_int64_t)data->length : 0);
	if (archive_write_header(a, e) != ARCHIVE_OK)
		return archive_error(a, "initramfs", err);
	if (data && archive_write_data(a, data->data, data->length) != (la_ssize_t)data->length)
		return archive_error(a, "initramfs", err);
	return 0;
}

static la_ssize_t collect(struct archive *a, void *arg, const void *data, size_t length)
{
	(void)a;
	strbuf_add(arg, data, length);
	return length;
}

/* /dev/console is what the kernel opens for init before anything is mounted. */
static int write_entries(struct archive *a, const struct content *c, struct error *err)
{
	static const char *const folders[] = { "dev", "proc", "sys", "run", "newroot", "modules" };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(folders); i++)
		if (write_entry(a, folders[i], S_IFDIR | 0755, 0, NULL, err) < 0)
			return -1;
	if (write_entry(a, "dev/console", S_IFCHR | 0600, makedev(5, 1), NULL, err) < 0)
		return -1;
	for (i = 0; i < c->names.count; i++)
		if (write_entry(a, c->names.items[i], S_IFREG | c->mode[i], 0, &c->data[i], err) < 0)
			return -1;
	return 0;
}

static int make_archive(const struct content *c, struct strbuf *out, struct error *err)
{
	cleanup_with(free_writer) struct archive *a = archive_write_new();

	if (!a)
		return error_oom(err);
	archive_write_set_format_cpio_newc(a);
	archive_write_set_bytes_per_block(a, 0);
	if (archive_write_open(a, out, NULL, collect, NULL) != ARCHIVE_OK)
		return archive_error(a, "initramfs", err);
	if (write_entries(a, c, err) < 0)
		return -1;
	if (archive_write_close(a) != ARCHIVE_OK)
		return archive_error(a, "initramfs", err);
	return strbuf_check(out, err);
}

/* The archive's bytes are the same for the same content (no times in it), so its hash names it. */
int initramfs_get(const struct kernel *kernel, char **path, struct error *err)
{
	cleanup_with(content_free) struct content c = { 0 };
	cleanup_strbuf struct strbuf data = STRBUF_INIT;
	cleanup_free char *cache = dirs_cache(err);
	cleanup_free char *folder = cache ? file_join(err, cache, "initramfs") : NULL;
	cleanup_free char *file = NULL;

	if (!folder || file_mkdir_p(folder, 0700, err) < 0)
		return -1;
	if (gather(&c, kernel, err) < 0 || make_archive(&c, &data, err) < 0)
		return error_prefix(err, "initramfs for %s", kernel->path);
	file = str_printf(err, "%s/%s-%016llx.cpio", folder, kernel->release,
			  (unsigned long long)file_hash(data.data, data.length));
	if (!file)
		return -1;
	if (!file_exists(file) && file_replace(file, data.data, data.length, 0644, err) < 0)
		return error_prefix(err, "initramfs for %s", kernel->path);
	*path = steal_ptr(&file);
	return 0;
}
