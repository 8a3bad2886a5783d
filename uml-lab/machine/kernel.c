/*
 * Finding UML kernels. Places are folders of folders as tests/kernels makes
 * them (NAME/linux.uml with NAME/modules/RELEASE beside it), and PATH, whose
 * kernel has its modules where Debian's package puts them. Which release each
 * is: kernel_release.c.
 */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/str.h"
#include "uml-lab/machine/kernel.h"
#include "uml-lab/machine/kernel_internal.h"

#define SYSTEM_KERNELS "/var/cache/uml-lab-kernels"
#define SYSTEM_MODULES "/usr/lib/uml/modules"
#define MODULE_LIST_MAX (4u << 20) /* bytes of modules.dep */
#define OLDEST_MAJOR 6	/* 6.1: what uml-facts.md was read from; older ones lack the vector transports */
#define OLDEST_MINOR 1

void kernel_free(struct kernel *kernel)
{
	free(kernel->path);
	free(kernel->release);
	free(kernel->modules);
	memset(kernel, 0, sizeof(*kernel));
}

static void free_list(struct kernel *list, size_t count)
{
	while (count)
		kernel_free(&list[--count]);
	free(list);
}

static int ask_release(const char *path, struct kernel *out, struct error *err)
{
	char release[KERNEL_RELEASE_MAX + 1];

	if (kernel_release(path, release, &out->major, &out->minor, err) < 0)
		return -1;
	out->release = str_dup(release, err);
	return out->release ? 0 : -1;
}

static bool has_modules(const char *folder)
{
	cleanup_free char *dep = file_join(NULL, folder, "modules.dep");
	cleanup_free char *kernel = file_join(NULL, folder, "kernel");

	return (dep && file_exists(dep)) || (kernel && file_is_dir(kernel));
}

/* Beside the kernel, or where Debian's package has them. NULL in out->modules when there are none. */
static int find_modules(struct kernel *out, struct error *err)
{
	cleanup_free char *folder = str_dup(out->path, err);
	cleanup_free char *beside = NULL, *system = NULL;
	char *slash = folder ? strrchr(folder, '/') : NULL;

	if (!slash)
		return -1;
	*slash = '\0';
	beside = str_printf(err, "%s/modules/%s", folder, out->release);
	system = str_printf(err, SYSTEM_MODULES "/%s", out->release);
	if (!beside || !system)
		return -1;
	if (has_modules(beside))
		out->modules = steal_ptr(&beside);
	else if (has_modules(system))
		out->modules = steal_ptr(&system);
	return 0;
}

static int describe(const char *path, struct kernel *out, struct error *err)
{
	struct kernel k = { 0 };

	k.path = file_absolute(path, false, err);
	if (!k.path || ask_release(k.path, &k, err) < 0 || find_modules(&k, err) < 0) {
		kernel_free(&k);
		return -1;
	}
	*out = k;
	return 0;
}

struct list {
	struct kernel *items;
	size_t count;
};

/* Adds the kernel at path, if it is one and not known yet. */
static int add(struct list *l, const char *path, struct error *err)
{
	struct kernel found, *items;
	size_t i;

	if (!file_exists(path) || describe(path, &found, NULL) < 0)
		return 0;
	for (i = 0; i < l->count; i++) {
		if (str_eq(l->items[i].path, found.path)) {
			kernel_free(&found);
			return 0;
		}
	}
	items = realloc(l->items, (l->count + 1) * sizeof(*items));
	if (!items) {
		kernel_free(&found);
		return error_oom(err);
	}
	l->items = items;
	l->items[l->count++] = found;
	return 0;
}

/* FOLDER/NAME/linux.uml for each NAME. */
static int add_folder(struct list *l, const char *folder, struct error *err)
{
	cleanup_dir DIR *d = opendir(folder);
	struct dirent *e;

	while (d && (e = readdir(d))) {
		cleanup_free char *path = NULL;

		if (e->d_name[0] == '.')
			continue;
		path = str_printf(err, "%s/%s/linux.uml", folder, e->d_name);
		if (!path || add(l, path, err) < 0)
			return -1;
	}
	return 0;
}

static int add_path(struct list *l, struct error *err)
{
	const char *path = getenv("PATH");
	cleanup_strv struct strv folders = STRV_INIT;
	size_t i;

	if (strv_split(&folders, path ? path : "/usr/bin:/bin", ':', err) < 0)
		return -1;
	for (i = 0; i < folders.count; i++) {
		cleanup_free char *uml = file_join(err, folders.items[i], "linux.uml");
		cleanup_free char *plain = file_join(err, folders.items[i], "linux");

		if (!uml || !plain)
			return -1;
		if (folders.items[i][0] == '/' && (add(l, uml, err) < 0 || add(l, plain, err) < 0))
			return -1;
	}
	return 0;
}

/* Where folders of kernels may be, in the order looked at; also for the message when there is none. */
static int places(struct strv *out, struct error *err)
{
	const char *own = getenv("UML_LAB_KERNELS"), *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");

	if (own && *own && strv_add(out, own, err) < 0)
		return -1;
	if (cache && *cache == '/' && strv_addf(out, err, "%s/uml-lab/kernels", cache) < 0)
		return -1;
	if ((!cache || *cache != '/') && home && strv_addf(out, err, "%s/.cache/uml-lab/kernels", home) < 0)
		return -1;
	return strv_add(out, SYSTEM_KERNELS, err);
}

/* Compares releases number by number: 6.12 is newer than 6.1, 6.1.9 older than 6.1.176. */
static int newer_first(const void *x, const void *y)
{
	const struct kernel *a = x, *b = y;

	return strverscmp(b->release, a->release);
}

int kernel_list(struct kernel **out, size_t *count, struct error *err)
{
	cleanup_strv struct strv folders = STRV_INIT;
	struct list l = { 0 };
	size_t i;

	if (places(&folders, err) < 0)
		return -1;
	for (i = 0; i < folders.count; i++)
		if (add_folder(&l, folders.items[i], err) < 0)
			goto fail;
	if (add_path(&l, err) < 0)
		goto fail;
	if (l.count)
		qsort(l.items, l.count, sizeof(*l.items), newer_first);
	*out = l.items;
	*count = l.count;
	return 0;
fail:
	free_list(l.items, l.count);
	return -1;
}

/* "6.1" matches 6.1 and 6.1.176, not 6.12. */
static bool matches(const char *release, const char *wanted)
{
	size_t n = strlen(wanted);

	return !strncmp(release, wanted, n) && !isalnum((unsigned char)release[n]);
}

static bool supported(const struct kernel *k)
{
	return k->major > OLDEST_MAJOR || (k->major == OLDEST_MAJOR && k->minor >= OLDEST_MINOR);
}

static int not_found(const char *wanted, const struct kernel *list, size_t count, struct error *err)
{
	cleanup_strbuf struct strbuf looked = STRBUF_INIT, found = STRBUF_INIT;
	cleanup_strv struct strv folders = STRV_INIT;
	size_t i;

	if (places(&folders, err) < 0)
		return -1;
	for (i = 0; i < folders.count; i++)
		strbuf_printf(&looked, "%s, ", folders.items[i]);
	for (i = 0; i < count; i++)
		strbuf_printf(&found, "%s%s (%s)", i ? ", " : "", list[i].release, list[i].path);
	if (strbuf_check(&looked, err) < 0 || strbuf_check(&found, err) < 0)
		return -1;
	error_set(err, ERROR_NOT_FOUND, "no UML kernel '%s'; looked in %sand PATH; found: %s", wanted, looked.data,
		  count ? found.data : "none");
	return error_hint(err, "install one: apt-get install user-mode-linux (Debian), or name one in UML_LAB_KERNEL");
}

static int find_listed(const char *wanted, struct kernel *out, struct error *err)
{
	bool any = !strcmp(wanted, "auto");
	struct kernel *list = NULL;
	size_t count = 0, i;

	if (kernel_list(&list, &count, err) < 0)
		return -1;
	for (i = 0; i < count; i++) {
		if (any ? !supported(&list[i]) : !matches(list[i].release, wanted))
			continue;
		*out = list[i];
		memset(&list[i], 0, sizeof(list[i]));
		free_list(list, count);
		return 0;
	}
	not_found(wanted, list, count, err);
	free_list(list, count);
	return -1;
}

int kernel_find(const char *wanted, struct kernel *out, struct error *err)
{
	const char *own = getenv("UML_LAB_KERNEL");

	if (!strcmp(wanted, "auto") && own && *own)
		wanted = own;
	if (!strchr(wanted, '/'))
		return find_listed(wanted, out, err);
	if (!file_exists(wanted)) {
		error_set(err, ERROR_NOT_FOUND, "no kernel %s", wanted);
		return error_hint(err, "kernel: is auto, a version such as 6.1, or the path of a linux.uml");
	}
	return describe(wanted, out, err);
}

static int lists_module(const struct kernel *kernel, const char *list, const char *module)
{
	cleanup_free char *path = file_join(NULL, kernel->modules, list);
	cleanup_free char *name = str_printf(NULL, "/%s.ko", module);
	cleanup_free char *text = NULL;
	size_t length;

	if (!path || !name || !file_exists(path) || file_read_all(path, MODULE_LIST_MAX, &text, &length, NULL) < 0)
		return -1;
	return strstr(text, name) != NULL;
}

int kernel_has_module(const struct kernel *kernel, const char *module)
{
	int listed = kernel->modules ? lists_module(kernel, "modules.dep", module) : -1;

	return listed == 0 && lists_module(kernel, "modules.builtin", module) == 1 ? 1 : listed;
}
