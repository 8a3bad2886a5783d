/*
 * New overlays. What the kernel leaves to chance (the bytes after the path's
 * NUL, which are whatever its memory held) is zero here; all other bytes are
 * the same.
 */
#include <fcntl.h>
#include <libgen.h>
#include <string.h>
#include <unistd.h>

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

/* What an overlay needs to know of its backing file. */
struct backing {
	uint64_t size; /* of the disk it holds */
	uint32_t mtime;
	char digest[COW_DIGEST_MAX]; /* "" when none is noted and none was asked for */
};

static int inspect_backing(const char *path, bool digest, struct backing *out, struct error *err)
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
	is_cow = cow_header_of(fd, path, h, err);
	if (is_cow < 0)
		return error_prefix(err, "%s", path);
	out->size = is_cow ? h->size : (uint64_t)st.st_size;
	out->mtime = (uint32_t)st.st_mtime;
	out->digest[0] = '\0';
	if (digest)
		return cow_digest(fd, path, out->digest, err);
	cow_digest_noted(fd, path, out->digest);
	return 0;
}

int cow_note_backing(int fd, const char *path, const struct cow_header *h, const char *digest,
		     struct error *err)
{
	return cow_note_origin(fd, path, h->backing, err) ||
			       cow_note_set(fd, path, "backing-digest", digest[0] ? digest : NULL, err)
		       ? -1
		       : 0;
}

int cow_header_for(struct cow_header *h, const char *backing, bool digest, char *digest_out,
		   struct error *err)
{
	struct backing b = {0};
	cleanup_free char *name = NULL;

	if (inspect_backing(backing, digest, &b, err))
		return -1;
	name = cow_backing_name(backing, err);
	if (!name || cow_header_init(h, name, b.size, b.mtime, err))
		return -1;
	strcpy(digest_out, b.digest);
	return 0;
}

/* Replacing a file that the backing file stands on would leave nothing to stand on. */
static int guard_target(struct cow_temp *temp, const char *backing, struct error *err)
{
	const struct cow_open_options look = {.no_lock = true, .partial = true, .any_backing = true};
	cleanup_chain struct cow_chain *chain = NULL;

	if (access(temp->path, F_OK) && errno == ENOENT)
		return 0;
	chain = cow_chain_open(backing, &look, err);
	return chain ? cow_temp_guard(temp, chain, err) : -1;
}

int cow_create(const char *path, const char *backing, const struct cow_create_options *options,
	       struct error *err)
{
	static const struct cow_create_options defaults;
	cleanup_temp struct cow_temp temp = COW_TEMP_INIT;
	cleanup_free struct cow_header *h = malloc(sizeof(*h));
	char digest[COW_DIGEST_MAX];

	if (!options)
		options = &defaults;
	if (!h)
		return error_oom(err);
	if (cow_header_for(h, backing, options->digest, digest, err) || cow_temp_open(&temp, path, err) ||
	    (options->replace && guard_target(&temp, backing, err)))
		return -1;
	if (cow_write_empty(temp.fd, h, err) || cow_note_backing(temp.fd, path, h, digest, err))
		return error_prefix(err, "%s", path);
	if (options->mode && fchmod(temp.fd, options->mode))
		return error_errno(err, errno, "cannot set the mode of %s", path);
	/* an empty overlay holds nothing to lose: if the host goes down now, it is made again */
	return cow_temp_publish(&temp, options->replace, options->durable, err);
}

int cow_header_rewrite(const struct cow_file *f, const struct cow_header *h, const char *digest,
		       struct error *err)
{
	uint8_t data[COW_V3_SIZE];
	struct cow_header as_is = *h;

	/* places depend on the alignment, which stays */
	as_is.alignment = f->header.alignment;
	cow_header_encode(&as_is, data);
	if (file_pwrite_full(f->fd, data, sizeof(data), 0) < 0)
		return error_errno(err, errno, "cannot write the header of %s", f->path);
	if (cow_note_backing(f->fd, f->path, h, digest, err))
		return -1;
	return cow_note_set(f->fd, f->path, "digest", NULL, err) || cow_file_restore_time(f, err) ? -1 : 0;
}
