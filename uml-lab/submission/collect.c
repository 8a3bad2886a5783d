/* Finding, verifying and comparing submissions; see collect.h. */
#include <dirent.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/submission/collect.h"

#define DEPTH_MAX   8 /* folders in folders */
#define FILES_MAX   10000
#define VERIFY_MS   300000
#define HEADER_DATA 8192 /* bytes of an overlay that nothing was written to: its header's two pages at most  \
			  */

void collection_free(struct collection *c)
{
	for (size_t i = 0; i < c->count; i++) {
		struct collected *item = &c->items[i];

		free(item->path);
		free(item->shown);
		free(item->owner);
		free(item->problem);
		free(item->check_problem);
		strv_free(&item->same);
		json_decref(item->report);
		submission_content_free(&item->content);
	}
	free(c->items);
	*c = (struct collection){0};
}

/* ---- finding ---- */

static int add_file(struct strv *paths, const char *path, struct error *err)
{
	if (paths->count >= FILES_MAX)
		return error_set(err, ERROR_FAILED,
				 "there are more than %d files: name the folders of one class", FILES_MAX);
	return strv_add(paths, path, err);
}

static int add_folder(struct strv *paths, const char *folder, int depth, struct error *err)
{
	cleanup_dir DIR *dir = opendir(folder);
	struct dirent *entry;

	if (!dir)
		return error_errno(err, errno, "cannot read the folder %s", folder);
	while ((entry = readdir(dir))) {
		cleanup_free char *path =
			entry->d_name[0] == '.' ? NULL : file_join(err, folder, entry->d_name);
		struct stat st;

		/* Links are not followed: students may have put them there. */
		if (entry->d_name[0] == '.' || (path && lstat(path, &st) < 0))
			continue;
		if (!path || (S_ISREG(st.st_mode) && add_file(paths, path, err) < 0) ||
		    (S_ISDIR(st.st_mode) && depth < DEPTH_MAX && add_folder(paths, path, depth + 1, err) < 0))
			return -1;
	}
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A file's name is its author's choice. */
static char *shown_path(const char *path, struct error *err)
{
	cleanup_strbuf struct strbuf text = STRBUF_INIT;

	strbuf_puts(&text, path);
	str_clean(&text);
	for (size_t i = 0; i < text.length; i++)
		if (text.data[i] == '\n' || text.data[i] == '\t')
			text.data[i] = '?';
	return strbuf_steal(&text, err);
}

int collection_find(struct collection *c, const struct strv *operands, struct error *err)
{
	cleanup_strv struct strv paths = STRV_INIT;

	for (size_t i = 0; i < operands->count; i++) {
		const char *path = operands->items[i];

		if (!file_exists(path))
			return error_set(err, ERROR_NOT_FOUND, "there is no file or folder %s", path);
		if (file_is_dir(path) ? add_folder(&paths, path, 0, err) < 0
				      : add_file(&paths, path, err) < 0)
			return -1;
	}
	if (!paths.count)
		return error_set(err, ERROR_NOT_FOUND, "there is no file in %s", operands->items[0]);
	qsort(paths.items, paths.count, sizeof(*paths.items), by_name);
	c->items = calloc(paths.count, sizeof(*c->items));
	if (!c->items)
		return error_oom(err);
	for (size_t i = 0; i < paths.count; i++) {
		struct collected *item = &c->items[c->count++];

		item->path = str_dup(paths.items[i], err);
		item->shown = item->path ? shown_path(item->path, err) : NULL;
		if (!item->shown)
			return -1;
	}
	return 0;
}

/* ---- verifying ---- */

static int note_problem(char **out, const struct error *why, struct error *err)
{
	cleanup_strbuf struct strbuf text = STRBUF_INIT;

	strbuf_puts(&text, why->message);
	if (why->hint[0])
		strbuf_printf(&text, "; %s", why->hint);
	str_clean(&text);
	free(*out);
	*out = strbuf_steal(&text, err);
	return *out ? 0 : -1;
}

static char *owner_name(uid_t uid)
{
	const struct passwd *entry = getpwuid(uid);

	return entry && entry->pw_name ? str_dup(entry->pw_name, NULL)
				       : str_printf(NULL, "%u", (unsigned)uid);
}

static void sum_digests(struct collected *item)
{
	const struct submission *s = item->content.manifest;
	cleanup_strbuf struct strbuf all = STRBUF_INIT;
	struct cow_digester digester = {.hash = {0}};

	for (size_t i = 0; i < s->machine_count; i++)
		for (size_t j = 0; j < s->machines[i].disk_count; j++)
			strbuf_printf(&all, "%s %s\n", s->machines[i].name, s->machines[i].disks[j].digest);
	if (!all.failed)
		cow_digester_add(&digester, 0, all.data, all.length);
	cow_digester_end(&digester, all.length, item->digest);
}

static bool is_in(const struct strv *list, const char *text)
{
	for (size_t i = 0; i < list->count; i++)
		if (str_eq(list->items[i], text))
			return true;
	return false;
}

/* found: digests of bases that are here, since images are large and a class has the same ones. */
static int check_bases(const struct submission *s, struct strv *found, struct error *why)
{
	for (size_t i = 0; i < s->machine_count; i++) {
		cleanup_image struct image image = IMAGE_INIT;
		const struct submission_machine *m = &s->machines[i];

		if (is_in(found, m->base_digest))
			continue;
		if (submission_find_base(m, NULL, &image, why) < 0 ||
		    strv_add(found, m->base_digest, why) < 0)
			return -1;
	}
	return 0;
}

static int verify(struct collected *item, const struct collection_options *o, struct strv *found,
		  struct error *why)
{
	const struct submission_read_options how = {.data_max = o->data_max};
	cleanup_close int fd = submission_open_file(item->path, why);
	struct stat st;

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) < 0)
		return error_errno(why, errno, "cannot look at it");
	item->bytes = (uint64_t)st.st_size;
	item->owner = owner_name(st.st_uid);
	if (submission_read_confined(fd, &how, NULL, VERIFY_MS, &item->content, why) < 0)
		return -1;
	sum_digests(item);
	return check_bases(item->content.manifest, found, why);
}

/*
 * Whether two hold the same root disk, that anything was written to. No two starts leave the same bytes
 * there, since times are in it; an extra disk may well be the same, made by the same command.
 */
static bool share_a_disk(const struct submission_content *a, const struct submission_content *b)
{
	size_t at = 0;

	for (size_t i = 0; i < a->manifest->machine_count; at += a->manifest->machines[i++].disk_count) {
		if (a->data[at] <= HEADER_DATA)
			continue;
		for (size_t j = 0; j < b->manifest->machine_count; j++)
			if (str_eq(a->manifest->machines[i].disks[0].digest,
				   b->manifest->machines[j].disks[0].digest))
				return true;
	}
	return false;
}

static int find_copies(struct collection *c, struct error *err)
{
	for (size_t i = 0; i < c->count; i++)
		for (size_t j = 0; j < c->count; j++)
			if (i != j && c->items[i].content.manifest && c->items[j].content.manifest &&
			    share_a_disk(&c->items[i].content, &c->items[j].content) &&
			    strv_add(&c->items[i].same, c->items[j].shown, err) < 0)
				return -1;
	return 0;
}

int collection_verify(struct collection *c, const struct collection_options *options, struct error *err)
{
	cleanup_strv struct strv found = STRV_INIT;
	int result = 0;

	for (size_t i = 0; result == 0 && i < c->count; i++) {
		struct error why = ERROR_INIT;

		if (options->cancel && *options->cancel)
			result = error_set(err, ERROR_FAILED, "interrupted");
		else if (verify(&c->items[i], options, &found, &why) < 0)
			result = note_problem(&c->items[i].problem, &why, err);
		if (result == 0 && options->progress)
			options->progress(options->progress_arg, &c->items[i], i + 1, c->count);
	}
	return result < 0 ? -1 : find_copies(c, err);
}
