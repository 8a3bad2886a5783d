/*
 * Paths of a lab that lead to the host: base images and kernels named by path,
 * the folders of `files` and of shares.
 *
 * A lab comes from somebody else, so what it may name is bounded. `files` lies
 * within the lab's folder: its content goes into machines that may talk to the
 * outside. A share may also lie below ~/ or be absolute, since its line in lab.yml
 * shows it, but is never the home folder as a whole, nor a folder above it. A
 * relative path stays within the lab's folder also through symbolic links.
 * Images and kernels are only ever opened as such, and may lie anywhere.
 *
 * With skip_paths nothing is looked at: a session's copy, whose lab may have
 * been removed since, was checked when the session was made.
 */
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/lab/lab_internal.h"

enum path_use { PATH_FILE, PATH_OWN_FOLDER, PATH_SHARE };

static const char *home_folder(void)
{
	const char *home = getenv("HOME");
	const struct passwd *entry;

	if (home && *home == '/')
		return home;
	entry = getpwuid(getuid());
	return entry && entry->pw_dir ? entry->pw_dir : "/";
}

/* Whether path is folder or below it; both without a slash at the end, or "/". */
static bool is_within(const char *path, const char *folder)
{
	size_t n = strlen(folder);

	if (str_eq(folder, "/"))
		return *path == '/';
	return strncmp(path, folder, n) == 0 && (path[n] == '\0' || path[n] == '/');
}

/* Whether a relative path leaves its folder by "..", whatever exists. */
static bool climbs_out(const char *path)
{
	int depth = 0;

	while (*path) {
		size_t n = strcspn(path, "/");

		if (n == 2 && path[0] == '.' && path[1] == '.')
			depth--;
		else if (n && !(n == 1 && path[0] == '.'))
			depth++;
		if (depth < 0)
			return true;
		path += n + strspn(path + n, "/");
	}
	return false;
}

/* The path against the lab's folder or the home folder, not yet looked at; malloc'ed. */
static char *against_folder(const struct loader *loader, const char *path, struct error *err)
{
	if (*path == '/')
		return str_dup(path, err);
	if (*path == '~')
		return file_join(err, home_folder(), path[1] ? path + 2 : "");
	return file_join(err, loader->lab->folder, path);
}

/* Tells what is wrong with where a path leads. real: symbolic links resolved. */
static bool refuse_outside(const struct loader *loader, const struct place *place, const char *written,
			   const char *real, enum path_use use)
{
	char quoted[LAB_QUOTE_MAX];

	if (use == PATH_FILE)
		return false;
	if (use == PATH_SHARE && (*written == '/' || *written == '~')) {
		if (!is_within(home_folder(), real))
			return false;
		lab_blame(loader, place,
			  "is %s, which holds the whole home folder; allowed: a folder within it",
			  lab_quote(written, quoted));
		return true;
	}
	if (is_within(real, loader->lab->folder))
		return false;
	lab_blame(loader, place, "is %s, which leads out of the lab's folder; allowed: a folder within it%s",
		  lab_quote(written, quoted), use == PATH_SHARE ? ", below ~/, or an absolute path" : "");
	return true;
}

/* Tells a path that is missing or of the wrong kind. */
static void check_kind(const struct loader *loader, const struct place *place, const char *written,
		       const char *absolute, enum path_use use)
{
	char quoted[LAB_QUOTE_MAX], quoted_absolute[LAB_QUOTE_MAX];
	struct stat st;

	if (stat(absolute, &st) < 0 && str_eq(written, absolute))
		lab_blame(loader, place, "there is no %s", lab_quote(written, quoted));
	else if (stat(absolute, &st) < 0)
		lab_blame(loader, place, "is %s, but there is no %s", lab_quote(written, quoted),
			  lab_quote(absolute, quoted_absolute));
	else if (use == PATH_FILE && !S_ISREG(st.st_mode))
		lab_blame(loader, place, "is %s, which is no file", lab_quote(written, quoted));
	else if (use != PATH_FILE && !S_ISDIR(st.st_mode))
		lab_blame(loader, place, "is %s, which is no folder", lab_quote(written, quoted));
}

/* A share that may be written may be made later, when it lies outside the lab in a folder that is there. */
static bool may_be_missing(const char *written, bool writable, enum path_use use)
{
	return use == PATH_SHARE && writable && (*written == '/' || *written == '~');
}

/* Makes *path absolute and checks it. 0 (mistakes were added), or -1 + err when memory is out. */
static int resolve(struct loader *loader, char **path, enum path_use use, bool writable, struct error *err)
{
	const struct place *place = lab_place(loader, path);
	cleanup_free char *joined = NULL, *real = NULL;
	char quoted[LAB_QUOTE_MAX];

	if (!*path || (place && place->bad))
		return 0;
	if (**path == '~' && (*path)[1] && (*path)[1] != '/') {
		lab_blame(loader, place, "is %s; of home folders only one's own can be named, ~/…",
			  lab_quote(*path, quoted));
		return 0;
	}
	joined = against_folder(loader, *path, err);
	if (!joined)
		return -1;
	if (!loader->options->skip_paths) {
		if (**path != '/' && **path != '~' && use != PATH_FILE && climbs_out(*path)) {
			refuse_outside(loader, place, *path, "", use);
			return 0;
		}
		real = file_absolute(joined, may_be_missing(*path, writable, use), NULL);
		if (real && refuse_outside(loader, place, *path, real, use))
			return 0;
		if (!real || !may_be_missing(*path, writable, use) || file_exists(real))
			check_kind(loader, place, *path, joined, use);
	}
	free(*path);
	*path = real ? steal_ptr(&real) : steal_ptr(&joined);
	return 0;
}

/* Like resolve() for an image or kernel, which is a path only when it holds a slash. */
static int resolve_file(struct loader *loader, char **path, struct error *err)
{
	return *path && strchr(*path, '/') ? resolve(loader, path, PATH_FILE, false, err) : 0;
}

/* The base of a machine: its own, or that of the lab. */
static int resolve_base(struct loader *loader, struct lab_machine *machine, struct error *err)
{
	if (lab_given(loader, &machine->base))
		return resolve_file(loader, &machine->base, err);
	if (!loader->lab->base)
		return 0;
	machine->base = str_dup(loader->lab->base, err);
	return machine->base ? 0 : -1;
}

int lab_resolve_paths(struct loader *loader, struct error *err)
{
	struct lab *lab = loader->lab;

	if (resolve_file(loader, &lab->base, err) < 0)
		return -1;
	for (size_t i = 0; i < lab->machine_count; i++)
		if (resolve_base(loader, &lab->machines[i], err) < 0 ||
		    resolve_file(loader, &lab->machines[i].kernel, err) < 0 ||
		    resolve(loader, &lab->machines[i].files, PATH_OWN_FOLDER, false, err) < 0)
			return -1;
	for (size_t i = 0; i < lab->share_count; i++)
		if (resolve(loader, &lab->shares[i].path, PATH_SHARE, lab->shares[i].writable, err) < 0)
			return -1;
	return 0;
}
