/* Host programs, and the wish to stop. */
#include "uml-lab/base/dirs.h"
#include "uml-lab/image/image_internal.h"

char *image_program(const char *name, const char *package, struct error *err)
{
	return dirs_program(name, package, err);
}

int image_check_cancel(const struct image_options *options, struct error *err)
{
	if (options->cancel && *options->cancel)
		return error_set(err, ERROR_FAILED, "interrupted");
	return 0;
}
