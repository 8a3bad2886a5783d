/*
 * Labs as people name them: a folder, a lab.yml, or a name in one of the lab
 * folders (dirs_labs()); and the steps from a file to a struct lab.
 *
 * A name means the first of: ./NAME with a lab.yml in it, NAME in each lab
 * folder. Whatever holds a slash is a path.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/file.h"
#include "uml-lab/lab/lab_internal.h"

void lab_free(struct lab *lab)
{
	if (!lab)
		return;
	lab_release_object(&lab_schema, lab);
	free(lab->folder);
	free(lab->file);
	free(lab);
}

static void lab_freep(struct lab **lab)
{
	lab_free(*lab);
}

#define FIND(kind)                                                                                           \
	const struct lab_##kind *lab_find_##kind(const struct lab *lab, const char *name)                    \
	{                                                                                                    \
		for (size_t i = 0; i < lab->kind##_count; i++)                                               \
			if (str_eq(lab->kind##s[i].name, name))                                              \
				return &lab->kind##s[i];                                                     \
		return NULL;                                                                                 \
	}

FIND(machine)
FIND(network)
FIND(share)

/* ---- from text to lab ---- */

/* Reads, checks and resolves. 0 with or without mistakes, or -1 + err. */
static int load_all(struct loader *loader, const char *text, size_t length, struct error *err)
{
	struct lab_source source;
	struct tree tree = {0};
	int status = 0;

	if (!lab_source_init(&source, text, length, loader->problems))
		return 0;
	loader->source = &source;
	if (lab_tree_read(&tree, &source, loader->problems)) {
		lab_read_tree(loader, &tree);
		lab_check(loader);
		/* --param is checked before paths: a wrong one is told even where the host lacks something.
		 */
		status = loader->problems->count ? 0 : lab_params_check(loader, err);
		if (status == 0)
			status = lab_resolve_paths(loader, err);
	}
	lab_tree_free(&tree);
	loader->source = NULL;
	if (status == 0 && loader->out_of_memory)
		status = error_oom(err);
	return status;
}

struct lab *lab_load_text(const char *text, size_t length, const char *name, const char *folder,
			  const struct lab_load_options *options, struct error *err)
{
	static const struct lab_load_options none;
	cleanup_with(lab_problems_free) struct lab_problems own = {0};
	cleanup_with(lab_freep) struct lab *lab = calloc(1, sizeof(*lab));
	struct loader loader = {.options = options ? options : &none, .lab = lab};
	int status;

	loader.problems = loader.options->problems ? loader.options->problems : &own;
	if (!lab) {
		error_oom(err);
		return NULL;
	}
	lab_problems_free(loader.problems);
	lab->folder = file_is_dir(folder) ? file_absolute(folder, false, err) : str_dup(folder, err);
	loader.problems->file = str_dup(name, err);
	if (!lab->folder || !loader.problems->file || lab_params_init(&loader, err) < 0)
		status = -1;
	else
		status = load_all(&loader, text, length, err);
	lab_places_free(&loader);
	free(loader.user);
	if (status < 0)
		return NULL;
	if (loader.problems->count || loader.problems->untold) {
		lab_problems_sort(loader.problems);
		lab_problems_to_error(loader.problems, err);
		return NULL;
	}
	return steal_ptr(&lab);
}

/* Loads a file; shown is its path for messages. */
static struct lab *load_file(const char *shown, const struct lab_load_options *options, struct error *err)
{
	cleanup_free char *absolute = file_absolute(shown, false, err), *folder = NULL, *text = NULL;
	struct lab *lab;
	struct stat st;
	size_t length;

	if (!absolute)
		return NULL;
	if (stat(absolute, &st) < 0) {
		error_errno(err, errno, "cannot read %s", shown);
		return NULL;
	}
	if (!S_ISREG(st.st_mode)) {
		error_set(err, ERROR_NOT_FOUND, "%s is no file", shown);
		return NULL;
	}
	folder = strndup(absolute,
			 (size_t)(strrchr(absolute, '/') - absolute) + (strrchr(absolute, '/') == absolute));
	if (st.st_size > LAB_FILE_MAX) {
		error_set(err, ERROR_LAB, "%s:1:1: the file is %lld bytes; allowed: at most %u", shown,
			  (long long)st.st_size, LAB_FILE_MAX);
		return NULL;
	}
	if (!folder) {
		error_oom(err);
		return NULL;
	}
	if (file_read_all(shown, LAB_FILE_MAX, &text, &length, err) < 0)
		return NULL;
	lab = lab_load_text(text, length, shown, folder, options, err);
	if (lab)
		lab->file = steal_ptr(&absolute);
	return lab;
}

/* ---- finding ---- */

/* A path below the working folder without that folder, for messages; malloc'ed. */
static char *shorten(const char *path, struct error *err)
{
	cleanup_free char *cwd = getcwd(NULL, 0);
	size_t n = cwd ? strlen(cwd) : 0;

	return str_dup(n > 1 && strncmp(path, cwd, n) == 0 && path[n] == '/' ? path + n + 1 : path, err);
}

/* FOLDER/lab.yml when it is there; NULL without err when not. */
static char *lab_file_in(const char *folder)
{
	char *file = file_join(NULL, folder, "lab.yml");

	if (file && !file_exists(file)) {
		free(file);
		return NULL;
	}
	return file;
}

static int not_found(const char *name, const struct strv *folders, struct error *err)
{
	cleanup_strbuf struct strbuf looked = STRBUF_INIT;
	struct lab_entry *entries = NULL;
	size_t count = 0;
	cleanup_strv struct strv names = STRV_INIT;
	const char *nearest = NULL;

	for (size_t i = 0; i < folders->count; i++)
		strbuf_printf(&looked, "%s%s", i ? ", " : "", folders->items[i]);
	if (lab_list(&entries, &count, NULL) == 0)
		for (size_t i = 0; i < count; i++)
			if (strv_add(&names, entries[i].name, NULL) < 0)
				break;
	lab_entries_free(entries, count);
	if (names.count)
		nearest = str_nearest(name, (const char *const *)names.items);
	error_set(err, ERROR_NOT_FOUND, "there is no lab '%s'%s%s%s (looked for %s/lab.yml%s%s)", name,
		  nearest ? "; did you mean " : "", nearest ? nearest : "", nearest ? "?" : "", name,
		  looked.length ? ", and in " : "", looked.data ? looked.data : "");
	return error_hint(err, "'uml-lab list' shows the labs that can be started");
}

/* The lab.yml that LAB means, as it is shown in messages; malloc'ed. */
static char *locate(const char *lab, struct error *err)
{
	cleanup_strv struct strv folders = STRV_INIT;
	bool is_path = strchr(lab, '/') || str_eq(lab, ".") || str_eq(lab, "..");
	char *file;

	if (file_is_dir(lab)) {
		file = lab_file_in(lab);
		if (file)
			return str_eq(lab, ".") ? (free(file), str_dup("lab.yml", err)) : file;
		if (is_path) {
			error_set(err, ERROR_NOT_FOUND, "there is no lab.yml in %s", lab);
			return NULL;
		}
	} else if (file_exists(lab) && (is_path || str_ends(lab, ".yml") || str_ends(lab, ".yaml"))) {
		return str_dup(lab, err);
	}
	if (is_path || !*lab) {
		error_set(err, ERROR_NOT_FOUND, "there is no lab at '%s'", lab);
		return NULL;
	}
	if (dirs_labs(&folders, err) < 0)
		return NULL;
	for (size_t i = 0; i < folders.count; i++) {
		cleanup_free char *folder = file_join(err, folders.items[i], lab), *found = NULL;

		if (!folder)
			return NULL;
		if ((found = lab_file_in(folder)))
			return shorten(found, err);
	}
	not_found(lab, &folders, err);
	return NULL;
}

struct lab *lab_load(const char *lab, const struct lab_load_options *options, struct error *err)
{
	cleanup_free char *file = locate(lab, err);

	return file ? load_file(file, options, err) : NULL;
}

/* ---- the list ---- */

void lab_entries_free(struct lab_entry *entries, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(entries[i].name);
		free(entries[i].title);
		free(entries[i].path);
		free(entries[i].problem);
	}
	free(entries);
}

static bool is_listed(const struct lab_entry *entries, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (str_eq(entries[i].name, name))
			return true;
	return false;
}

/* Fills an entry from its lab.yml; a lab that is wrong is an entry too. */
static int fill_entry(struct lab_entry *entry, const char *name, const char *folder, const char *file,
		      struct error *err)
{
	cleanup_with(lab_problems_free) struct lab_problems problems = {0};
	cleanup_strbuf struct strbuf line = STRBUF_INIT;
	cleanup_free char *shown = shorten(file, err);
	struct lab_load_options options = {.problems = &problems};
	struct error problem = ERROR_INIT;
	struct lab *lab;

	entry->name = str_dup(name, err);
	entry->path = str_dup(folder, err);
	if (!shown || !entry->name || !entry->path)
		return -1;
	lab = load_file(shown, &options, &problem);
	if (lab) {
		entry->title = steal_ptr(&lab->title);
		entry->machines = (int)lab->machine_count;
		lab_free(lab);
		return 0;
	}
	if (problems.count)
		lab_problem_format(&problems, 0, &line);
	else
		strbuf_puts(&line, problem.message);
	entry->problem = strbuf_steal(&line, err);
	return entry->problem ? 0 : -1;
}

/* Adds the labs of one lab folder. */
static int list_folder(const char *folder, struct lab_entry **entries, size_t *count, struct error *err)
{
	cleanup_dir DIR *dir = opendir(folder);
	const struct dirent *found;

	while (dir && (found = readdir(dir))) {
		cleanup_free char *path = file_join(err, folder, found->d_name),
				  *file = path ? lab_file_in(path) : NULL;
		struct lab_entry *bigger;

		if (!path)
			return -1;
		if (found->d_name[0] == '.' || !file || is_listed(*entries, *count, found->d_name))
			continue;
		bigger = reallocarray(*entries, *count + 1, sizeof(*bigger));
		if (!bigger)
			return error_oom(err);
		*entries = bigger;
		bigger[*count] = (struct lab_entry){0};
		++*count;
		if (fill_entry(&bigger[*count - 1], found->d_name, path, file, err) < 0)
			return -1;
	}
	return 0;
}

static int compare_entries(const void *a, const void *b)
{
	return strcmp(((const struct lab_entry *)a)->name, ((const struct lab_entry *)b)->name);
}

int lab_list(struct lab_entry **entries, size_t *count, struct error *err)
{
	cleanup_strv struct strv folders = STRV_INIT;
	struct lab_entry *found = NULL;
	size_t number = 0;

	if (dirs_labs(&folders, err) < 0)
		return -1;
	for (size_t i = 0; i < folders.count; i++) {
		if (list_folder(folders.items[i], &found, &number, err) < 0) {
			lab_entries_free(found, number);
			return -1;
		}
	}
	if (number)
		qsort(found, number, sizeof(*found), compare_entries);
	*entries = found;
	*count = number;
	return 0;
}
