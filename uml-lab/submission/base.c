/* The base image a submission stands on, among the images of this host: by content, since names and paths are
 * its author's. */
#include <stdlib.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/submission/submission.h"

#define DIGEST_SHOWN 26 /* "sha512-1M:" and 16 digits tell people enough */

/* 1: it is the one; 0: it is not; -1 + err. */
static int is_base(const struct submission_machine *m, const struct image *image, struct error *err)
{
	char digest[COW_DIGEST_MAX];

	if (image->size != m->base_size)
		return 0;
	if (cow_file_digest(image->path, digest, err) < 0)
		return -1;
	return str_eq(digest, m->base_digest);
}

static int try_one(const struct submission_machine *m, const char *what, struct image *out)
{
	cleanup_image struct image image = IMAGE_INIT;

	if (!what || image_find(what, &image, NULL) < 0 || is_base(m, &image, NULL) != 1)
		return 0;
	*out = image;
	image = (struct image)IMAGE_INIT;
	return 1;
}

int submission_find_base(const struct submission_machine *m, const char *first, struct image *out,
			 struct error *err)
{
	cleanup_image_list struct image_list list = IMAGE_LIST_INIT;

	if (try_one(m, first, out) || (str_is_name(m->base, IMAGE_NAME_MAX) && try_one(m, m->base, out)))
		return 0;
	if (image_list(&list, err) < 0)
		return -1;
	for (size_t i = 0; i < list.count; i++) {
		if (is_base(m, &list.items[i], NULL) != 1)
			continue;
		*out = list.items[i];
		list.items[i] = (struct image)IMAGE_INIT;
		return 0;
	}
	error_set(err, ERROR_NOT_FOUND,
		  "machine %s stands on a base image that is not among yours: it was called '%s', its "
		  "content is %.*s…",
		  m->name, m->base, DIGEST_SHOWN, m->base_digest);
	return error_hint(err, "put the image that this student had beside yours (`uml-lab image list` shows "
			       "them; one built anew is "
			       "another image)");
}
