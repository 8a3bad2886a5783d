/* Host programs, and the wish to stop. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/image/image_internal.h"

/* System programs (mke2fs) are in folders that are not in an ordinary user's PATH on Debian. */
static const char system_folders[] = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

char *image_program(const char *name, const char *package, struct error *err)
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

int image_check_cancel(const struct image_options *options, struct error *err)
{
	if (options->cancel && *options->cancel)
		return error_set(err, ERROR_FAILED, "interrupted");
	return 0;
}
