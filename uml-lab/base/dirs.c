#include "uml-lab/base/dirs.h"

#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"

#ifndef UML_LAB_PREFIX
#define UML_LAB_PREFIX "/usr/local"
#endif

/*
 * The user's entry is looked for in /etc/passwd alone: getpwuid() would load whatever modules /etc/nsswitch.conf names into the
 * program. People of a directory service have HOME set by their login.
 */
static char *home_in_passwd(void)
{
	cleanup_file FILE *passwd = fopen("/etc/passwd", "re");
	struct passwd *entry;

	while (passwd && (entry = fgetpwent(passwd)))
		if (entry->pw_uid == getuid() && entry->pw_dir[0] == '/')
			return entry->pw_dir;
	return NULL;
}

static char *home(struct error *err)
{
	const char *path = getenv("HOME");

	if (!path || path[0] != '/')
		path = home_in_passwd();
	if (path)
		return str_dup(path, err);
	error_set(err, ERROR_FAILED, "no home folder: HOME is not set and /etc/passwd has no user %u", getuid());
	error_hint(err, "set HOME");
	return NULL;
}

/* XDG base directory specification: relative values are to be ignored. */
static char *xdg(const char *variable, const char *fallback, struct error *err)
{
	const char *base = getenv(variable);
	cleanup_free char *folder = NULL, *path = NULL;

	if (base && base[0] == '/') {
		path = file_join(err, base, "uml-lab");
	} else {
		folder = home(err);
		path = folder ? str_printf(err, "%s/%s/uml-lab", folder, fallback) : NULL;
	}
	if (!path || file_mkdir_p(path, 0700, err) < 0)
		return NULL;
	return steal_ptr(&path);
}

char *dirs_state(struct error *err)
{
	return xdg("XDG_STATE_HOME", ".local/state", err);
}

char *dirs_data(struct error *err)
{
	return xdg("XDG_DATA_HOME", ".local/share", err);
}

char *dirs_cache(struct error *err)
{
	return xdg("XDG_CACHE_HOME", ".cache", err);
}

char *dirs_runtime(struct error *err)
{
	const char *base = getenv("XDG_RUNTIME_DIR");
	cleanup_free char *path = NULL;
	struct stat st;

	if (base && base[0] == '/' && file_is_dir(base))
		path = file_join(err, base, "uml-lab");
	else
		path = str_printf(err, "/tmp/uml-lab-%u", getuid());
	if (!path)
		return NULL;
	if (mkdir(path, 0700) < 0 && errno != EEXIST) {
		error_errno(err, errno, "cannot make the runtime folder %s", path);
		error_hint(err, "set XDG_RUNTIME_DIR to a folder of yours");
		return NULL;
	}
	if (lstat(path, &st) < 0) {
		error_errno(err, errno, "cannot look at the runtime folder %s", path);
		return NULL;
	}
	if (!S_ISDIR(st.st_mode) || st.st_uid != getuid() || (st.st_mode & 077)) {
		error_set(err, ERROR_FAILED,
			  "the runtime folder %s is not a folder of yours that nobody else may enter", path);
		error_hint(err, "remove it, or chmod 700 it if it is yours, or set XDG_RUNTIME_DIR");
		return NULL;
	}
	return steal_ptr(&path);
}

/* The folder of the running program. */
static char *program_folder(struct error *err)
{
	char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	char *slash;

	if (n < 0) {
		error_errno(err, errno, "cannot tell where this program lies");
		return NULL;
	}
	path[n] = '\0';
	slash = strrchr(path, '/');
	if (slash)
		*slash = '\0';
	return str_dup(path, err);
}

char *dirs_own(const char *name, struct error *err)
{
	static const char *const near[] = {"", "../libexec/uml-lab/", "../lib/uml-lab/", "../share/uml-lab/",
					   "../../"};
	static const char *const far[] = {UML_LAB_PREFIX "/libexec/uml-lab/", UML_LAB_PREFIX "/lib/uml-lab/",
					  UML_LAB_PREFIX "/share/uml-lab/", "/usr/libexec/uml-lab/",
					  "/usr/lib/uml-lab/", "/usr/share/uml-lab/"};
	cleanup_free char *folder = program_folder(err);

	if (!folder)
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(near) + ARRAY_SIZE(far); i++) {
		bool is_near = i < ARRAY_SIZE(near);
		cleanup_free char *path =
			is_near ? str_printf(err, "%s/%s%s", folder, near[i], name)
				: str_printf(err, "%s%s", far[i - ARRAY_SIZE(near)], name);

		if (!path)
			return NULL;
		if (file_exists(path))
			return file_absolute(path, false, err);
	}
	error_set(err, ERROR_FAILED, "%s is missing: not beside this program in %s, nor in %s/libexec/uml-lab", name,
		  folder, UML_LAB_PREFIX);
	error_hint(err, "build it with `make`, or install with `make install PREFIX=…`");
	return NULL;
}

/* Adds each part of a colon-separated list that is an absolute or relative path, not empty. */
static int add_list(struct strv *out, const char *list, struct error *err)
{
	cleanup_strv struct strv parts = STRV_INIT;

	if (!list)
		return 0;
	if (strv_split(&parts, list, ':', err) < 0)
		return -1;
	for (size_t i = 0; i < parts.count; i++)
		if (parts.items[i][0] && strv_add(out, parts.items[i], err) < 0)
			return -1;
	return 0;
}

int dirs_images(struct strv *out, struct error *err)
{
	cleanup_free char *data = dirs_data(err);

	if (!data || strv_addf(out, err, "%s/images", data) < 0 ||
	    add_list(out, getenv("UML_LAB_IMAGES"), err) < 0)
		return -1;
	if (strv_add(out, UML_LAB_PREFIX "/share/uml-lab/images", err) < 0)
		return -1;
	return strv_add(out, "/var/lib/uml-lab/images", err);
}

static int add_if_there(struct strv *out, char *path, struct error *err)
{
	int result = 0;

	if (!path)
		return -1;
	for (size_t i = 0; i < out->count; i++)
		if (str_eq(out->items[i], path))
			goto done;
	if (file_is_dir(path))
		result = strv_add(out, path, err);
done:
	free(path);
	return result;
}

int dirs_labs(struct strv *out, struct error *err)
{
	cleanup_strv struct strv listed = STRV_INIT;
	cleanup_free char *data = dirs_data(err), *installed = NULL;

	if (!data || add_list(&listed, getenv("UML_LAB_PATH"), err) < 0)
		return -1;
	for (size_t i = 0; i < listed.count; i++)
		if (file_is_dir(listed.items[i]) && add_if_there(out, file_absolute(listed.items[i], false, err), err) < 0)
			return -1;
	if (file_is_dir("labs") && add_if_there(out, file_absolute("labs", false, err), err) < 0)
		return -1;
	if (add_if_there(out, file_join(err, data, "labs"), err) < 0)
		return -1;
	/* Beside the program (build tree: ../../labs; installed: ../share/uml-lab/labs); missing is fine. */
	installed = dirs_own("labs", NULL);
	if (installed && add_if_there(out, steal_ptr(&installed), err) < 0)
		return -1;
	return 0;
}

static const char system_folders[] = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

char *dirs_program(const char *name, const char *package, struct error *err)
{
	cleanup_strv struct strv folders = STRV_INIT;
	const char *path = getenv("PATH");

	if ((path && strv_split(&folders, path, ':', err)) || strv_split(&folders, system_folders, ':', err))
		return NULL;
	for (size_t i = 0; i < folders.count; i++) {
		cleanup_free char *candidate = NULL;

		if (folders.items[i][0] != '/')
			continue;
		candidate = file_join(err, folders.items[i], name);
		if (!candidate)
			return NULL;
		if (!access(candidate, X_OK) && !file_is_dir(candidate))
			return steal_ptr(&candidate);
	}
	error_set(err, ERROR_FAILED, "the program %s is missing", name);
	error_hint(err, "apt install %s", package);
	return NULL;
}
