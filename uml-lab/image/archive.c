/*
 * From an archive's entries to files in an image.
 *
 * libarchive reads what tar, pax and GNU tar write; each entry is handed to
 * the ext4 writer (fs.c), which checks paths and kinds. Here is checked what
 * else an archive can lie about: sizes (larger than the disk, or than the data
 * that follows), owners, the number of entries. What it unpacks to is bounded
 * by the disk. Only in-process decompressors are used: for others libarchive
 * would run programs.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/image/image_internal.h"
#include "uml-lab/image/xattrs.h"

#define READ_SIZE (256 * 1024)
/* One entry per so many bytes of disk: four times what fits as inodes, for hard links and replaced files. */
#define BYTES_PER_ENTRY 2048

struct extraction {
	struct archive *archive;
	struct image_fs *fs;
	const struct image_options *options;
	struct image_progress progress;
	struct image_xattrs xattrs; /* of the current entry */
};

struct archive *image_archive_new(struct error *err)
{
	struct archive *a = archive_read_new();

	if (!a) {
		error_oom(err);
		return NULL;
	}
	archive_read_support_format_tar(a);
	archive_read_support_filter_gzip(a);
	archive_read_support_filter_bzip2(a);
	archive_read_support_filter_xz(a);
	archive_read_support_filter_zstd(a);
	archive_read_support_filter_lz4(a);
	return a;
}

void image_archive_release(struct archive **a)
{
	if (*a)
		archive_read_free(*a);
}

static int archive_failed(struct extraction *x, const char *doing, struct error *err)
{
	const char *why = archive_error_string(x->archive);

	if (image_check_cancel(x->options, err))
		return -1;
	return error_set(err, ERROR_FAILED, "%s: %s", doing, why ? why : "damaged");
}

/* The entry's path as bytes; pax headers hold UTF-8, which libarchive keeps apart. */
static const char *entry_path(struct archive_entry *e)
{
	const char *path = archive_entry_pathname(e);

	return path ? path : archive_entry_pathname_utf8(e);
}

static const char *entry_hard_link(struct archive_entry *e)
{
	const char *path = archive_entry_hardlink(e);

	return path ? path : archive_entry_hardlink_utf8(e);
}

static const char *entry_symlink(struct archive_entry *e)
{
	const char *target = archive_entry_symlink(e);

	return target ? target : archive_entry_symlink_utf8(e);
}

static int name_entry(const char *path, struct error *err)
{
	char quoted[512];

	return error_prefix(err, "entry '%s'", image_quote(path, quoted, sizeof(quoted)));
}

static int check_numbers(struct extraction *x, struct archive_entry *e, struct error *err)
{
	int64_t uid = archive_entry_uid(e), gid = archive_entry_gid(e), size = archive_entry_size(e);

	/* -1 as a 32-bit number means "no owner" to the kernel. */
	if (uid < 0 || gid < 0 || uid >= UINT32_MAX || gid >= UINT32_MAX)
		return error_set(err, ERROR_FAILED, "owner %lld:%lld is impossible", (long long)uid,
				 (long long)gid);
	if (size < 0)
		return error_set(err, ERROR_FAILED, "a size of %lld bytes is impossible", (long long)size);
	if ((uint64_t)size > image_fs_size(x->fs) && !archive_entry_sparse_count(e)) {
		error_set(err, ERROR_FAILED, "its size, %lld bytes, is larger than the image of %llu",
			  (long long)size, (unsigned long long)image_fs_size(x->fs));
		return error_hint(err, "a larger image is made with --size");
	}
	return 0;
}

static int convert(struct extraction *x, struct archive_entry *e, struct image_entry *out, struct error *err)
{
	struct timespec mtime = {archive_entry_mtime(e), archive_entry_mtime_nsec(e)};
	struct timespec atime = {archive_entry_atime(e), archive_entry_atime_nsec(e)};
	const char *hard_link = entry_hard_link(e);

	if (check_numbers(x, e, err) || image_xattrs_read(&x->xattrs, e, err))
		return -1;
	*out = (struct image_entry){
		.path = entry_path(e),
		.target = hard_link ? hard_link : entry_symlink(e),
		.hard_link = hard_link != NULL,
		.mode = archive_entry_mode(e) & (S_IFMT | 07777),
		.uid = (uint32_t)archive_entry_uid(e),
		.gid = (uint32_t)archive_entry_gid(e),
		.device_major = (uint32_t)archive_entry_rdevmajor(e),
		.device_minor = (uint32_t)archive_entry_rdevminor(e),
		.mtime = mtime,
		.atime = archive_entry_atime_is_set(e) ? atime : mtime,
		.xattrs = x->xattrs.items,
		.xattr_count = x->xattrs.count,
	};
	return 0;
}

static void tell(struct extraction *x)
{
	if (x->options->progress)
		x->options->progress(x->options->progress_arg, &x->progress);
}

/* The content of a regular file. Sparse ones come in pieces with gaps. */
static int copy_content(struct extraction *x, uint64_t size, struct error *err)
{
	const void *data;
	size_t length;
	int64_t offset;
	int result;

	while ((result = archive_read_data_block(x->archive, &data, &length, &offset)) == ARCHIVE_OK) {
		if (offset < 0 || (uint64_t)offset > size || length > size - (uint64_t)offset)
			return error_set(err, ERROR_FAILED, "it has more data than its size, %llu bytes",
					 (unsigned long long)size);
		if (length && image_fs_write(x->fs, (uint64_t)offset, data, length, err))
			return -1;
		x->progress.bytes += length;
		tell(x);
		if (image_check_cancel(x->options, err))
			return -1;
	}
	if (result != ARCHIVE_EOF)
		return archive_failed(x, "reading its data", err);
	image_fs_extend(x->fs, size);
	return 0;
}

static int extract_entry(struct extraction *x, struct archive_entry *e, struct error *err)
{
	struct image_entry entry;
	const char *path = entry_path(e);

	if (!path)
		return error_set(err, ERROR_FAILED, "entry %llu of the archive has no readable name",
				 (unsigned long long)x->progress.entries);
	if (x->progress.entries > image_fs_size(x->fs) / BYTES_PER_ENTRY) {
		error_set(err, ERROR_FAILED, "too many entries for an image of this size");
		error_hint(err, "a larger image is made with --size");
		return name_entry(path, err);
	}
	if (convert(x, e, &entry, err))
		return name_entry(path, err);
	if (image_fs_add(x->fs, &entry, err))
		return -1;
	if (!entry.hard_link && S_ISREG(entry.mode) && copy_content(x, (uint64_t)archive_entry_size(e), err))
		return name_entry(path, err);
	return 0;
}

static int extract(struct extraction *x, struct error *err)
{
	struct archive_entry *e;
	int result;

	while ((result = archive_read_next_header(x->archive, &e)) != ARCHIVE_EOF) {
		if (image_check_cancel(x->options, err))
			return -1;
		if (result != ARCHIVE_OK && result != ARCHIVE_WARN)
			return archive_failed(x, "reading the archive", err);
		x->progress.entries++;
		if (extract_entry(x, e, err))
			return -1;
		tell(x);
	}
	if (!x->progress.entries)
		return error_set(err, ERROR_FAILED, "the archive is empty");
	return 0;
}

int image_archive_extract(struct archive *a, struct image_fs *fs, const struct image_options *options,
			  struct error *err)
{
	struct extraction x = {.archive = a, .fs = fs, .options = options, .progress.phase = "importing"};
	int result = extract(&x, err);

	image_xattrs_release(&x.xattrs);
	return result;
}

/* ---- reading from a descriptor, so that a wish to stop is heard while waiting ---- */

struct source {
	int fd;
	const struct image_options *options;
	char buffer[READ_SIZE];
};

static la_ssize_t read_source(struct archive *a, void *arg, const void **buffer)
{
	struct source *source = arg;
	ssize_t n;

	*buffer = source->buffer;
	do {
		if (image_check_cancel(source->options, NULL)) {
			archive_set_error(a, EINTR, "interrupted");
			return -1;
		}
		n = read(source->fd, source->buffer, sizeof(source->buffer));
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		archive_set_error(a, errno, "%s", strerror(errno));
	return n;
}

int image_archive_extract_fd(int fd, const char *name, struct image_fs *fs,
			     const struct image_options *options, struct error *err)
{
	cleanup_archive struct archive *a = image_archive_new(err);
	cleanup_free struct source *source = malloc(sizeof(*source));

	if (!source)
		return error_oom(err);
	if (!a)
		return -1;
	source->fd = fd;
	source->options = options;
	if (archive_read_open(a, source, NULL, read_source, NULL) != ARCHIVE_OK) {
		if (image_check_cancel(options, err))
			return -1;
		return error_set(err, ERROR_FAILED, "%s: no tar archive: %s", name, archive_error_string(a));
	}
	return image_archive_extract(a, fs, options, err) ? error_prefix(err, "%s", name) : 0;
}
