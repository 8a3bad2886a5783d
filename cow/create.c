/*
 * New overlays. What the kernel leaves to chance (the bytes after the path's
 * NUL, which are whatever its memory held) is zero here; all other bytes are
 * the same.
 */
#include <fcntl.h>
#include <libgen.h>
#include <string.h>

#include "cow/internal.h"
#include "uml-lab/base/file.h"

char *cow_backing_name(const char *path, struct error *err)
{
	cleanup_free char *a = str_dup(path, err), *b = str_dup(path, err);
	cleanup_free char *folder = NULL;

	if (!a || !b)
		return NULL;
	folder = file_absolute(dirname(a), false, err);
	return folder ? file_join(err, folder, basename(b)) : NULL;
}

int cow_write_empty(int fd, const struct cow_header *h, struct error *err)
{
	uint8_t data[COW_V3_SIZE];

	cow_header_encode(h, data);
	if (ftruncate(fd, (off_t)cow_file_length(h)))
		return error_errno(err, errno, "cannot set the size of the overlay");
	if (file_pwrite_full(fd, data, sizeof(data), 0) < 0)
		return error_errno(err, errno, "cannot write the COW header");
	return 0;
}

/* Size of the disk that a backing file holds, and its mtime. */
static int inspect_backing(const char *path, uint64_t *size, uint32_t *mtime, struct error *err)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	cleanup_free struct cow_header *h = malloc(sizeof(*h));
	struct stat st;
	int is_cow;

	if (!h)
		return error_oom(err);
	if (fd < 0 || fstat(fd, &st))
		return error_errno(err, errno, "cannot open the backing file %s", path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, ERROR_FAILED, "the backing file %s is not a regular file", path);
	is_cow = cow_header_read(fd, h, err);
	if (is_cow < 0)
		return error_prefix(err, "%s", path);
	*size = is_cow ? h->size : (uint64_t)st.st_size;
	*mtime = (uint32_t)st.st_mtime;
	return 0;
}

int cow_create(const char *path, const char *backing, const struct cow_create_options *options, struct error *err)
{
	static const struct cow_create_options defaults;
	cleanup_temp struct cow_temp temp = COW_TEMP_INIT;
	cleanup_free struct cow_header *h = malloc(sizeof(*h));
	cleanup_free char *name = NULL;
	uint64_t size = 0;
	uint32_t mtime = 0;

	if (!options)
		options = &defaults;
	if (!h)
		return error_oom(err);
	if (inspect_backing(backing, &size, &mtime, err))
		return -1;
	name = cow_backing_name(backing, err);
	if (!name || cow_header_init(h, name, size, mtime, err) || cow_temp_open(&temp, path, err))
		return -1;
	if (cow_write_empty(temp.fd, h, err))
		return error_prefix(err, "%s", path);
	if (options->mode && fchmod(temp.fd, options->mode))
		return error_errno(err, errno, "cannot set the mode of %s", path);
	return cow_temp_publish(&temp, options->replace, err);
}
