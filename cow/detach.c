/*
 * Detached files: an overlay without the name and time of its backing file, so that two with the same content
 * are the same bytes wherever they were made, and tell nothing of that host. It opens nothing until it is put
 * on a base again.
 */
#include <string.h>

#include "cow/internal.h"
#include "uml-lab/base/file.h"

static int write_header(const struct cow_file *f, struct error *err)
{
	cleanup_free struct cow_header *h = malloc(sizeof(*h));
	uint8_t data[COW_V3_SIZE];

	if (!h)
		return error_oom(err);
	if (cow_header_init(h, COW_DETACHED, f->header.size, 0, err))
		return -1;
	h->alignment = f->header.alignment; /* places depend on it */
	cow_header_encode(h, data);
	if (file_pwrite_full(f->fd, data, sizeof(data), 0) < 0)
		return error_errno(err, errno, "cannot write the header of %s", f->path);
	return 0;
}

int cow_detach(const char *path, struct error *err)
{
	static const char *const notes[] = {"origin", "backing-digest", "digest"};
	const struct cow_open_options look = {.partial = true};
	cleanup_chain struct cow_chain *chain = cow_chain_open_writable(path, &look, 1, err);
	const struct cow_file *f = chain ? chain->files[0] : NULL;

	if (!f)
		return -1;
	if (f->header.format != COW_V3)
		return error_set(err, ERROR_FAILED, "%s is not a V3 COW file", path);
	for (size_t i = 0; i < ARRAY_SIZE(notes); i++)
		if (cow_note_set(f->fd, f->path, notes[i], NULL, err))
			return -1;
	return write_header(f, err);
}
