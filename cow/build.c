/*
 * New V3 files, made beside the ones they replace. The chain that the content is
 * read from stays locked until the new file is in place.
 */
#include <fcntl.h>
#include <string.h>

#include "cow/internal.h"

int cow_build_begin(struct cow_build *b, const char *path, const char *backing, struct error *err)
{
	cleanup_free struct cow_header *h = malloc(sizeof(*h));
	char digest[COW_DIGEST_MAX];
	int fd;

	if (!h)
		return error_oom(err);
	if (cow_header_for(h, backing, false, digest, err) || cow_temp_open(&b->temp, path, err) ||
	    cow_write_empty(b->temp.fd, h, err) || cow_note_backing(b->temp.fd, path, h, digest, err))
		return -1;
	fd = fcntl(b->temp.fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return error_errno(err, errno, "cannot write %s", path);
	b->file = cow_file_attach(fd, b->temp.temp, COW_LOCK_WRITE, err);
	if (!b->file)
		return -1;
	b->copier = (struct cow_copier){.out = fd, .fresh = true};
	return 0;
}

int cow_build_store(struct cow_build *b, const struct cow_chain *from, uint64_t start, uint64_t length,
		    struct error *err)
{
	while (length > 0) {
		struct cow_extent e;

		cow_chain_run(from, start, length, &e);
		if (cow_copy(&b->copier, from->files[e.owner]->fd, cow_chain_offset(from, &e),
			     cow_file_place(b->file, start << COW_SECTOR_SHIFT), e.length << COW_SECTOR_SHIFT,
			     err))
			return error_prefix(err, "copying from %s to %s", from->files[e.owner]->path,
					    b->temp.path);
		cow_file_set(b->file, start, e.length, true);
		start += e.length;
		length -= e.length;
	}
	return 0;
}

int cow_build_finish(struct cow_build *b, const struct cow_file *old, bool replace, struct error *err)
{
	int ret;

	/* no order is needed in a file that nobody sees before all of it is durable */
	ret = cow_file_write_bitmap(b->file);
	if (ret)
		return error_errno(err, -ret, "cannot write %s", b->temp.path);
	if (old) {
		const struct timespec times[2] = {old->stat.st_atim, old->stat.st_mtim};

		if (cow_temp_inherit(&b->temp, &old->stat, err))
			return -1;
		if (futimens(b->temp.fd, times))
			return error_errno(err, errno, "cannot set the time of %s", b->temp.path);
	}
	return cow_temp_publish(&b->temp, replace, true, err);
}

void cow_build_drop(struct cow_build *b)
{
	cow_file_free(b->file);
	b->file = NULL;
	cow_copier_free(&b->copier);
	cow_temp_drop(&b->temp);
}
