/*
 * How it works: libarchive walks the tree or writes it, this file decides on
 * names and kinds. Packing gives every entry root as owner and only what any tar
 * reader knows: no ACLs, no extended attributes, no sparse maps.
 *
 * Unpacking chdir()s into the destination folder for its duration, since
 * libarchive's protection (ARCHIVE_EXTRACT_SECURE_*: no symbolic link is
 * followed, no "..", no absolute name) works on relative names.
 */
#include "uml-lab/machine/transfer.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/str.h"

struct writer {
	transfer_write_fn write;
	void *arg;
	struct error *err;
	bool failed; /* err is set */
};

struct reader {
	transfer_read_fn read;
	void *arg;
	struct error *err;
	bool failed;
};

static la_ssize_t on_write(struct archive *a, void *arg, const void *data, size_t n)
{
	struct writer *writer = arg;
	/* libarchive may try again after a failure (padding at close): the stream is over then. */
	ssize_t put = writer->failed ? -1 : writer->write(writer->arg, data, n, writer->err);

	if (put < 0) {
		writer->failed = true;
		archive_set_error(a, EIO, "the stream ended");
	}
	return put;
}

static la_ssize_t on_read(struct archive *a, void *arg, const void **data)
{
	struct reader *reader = arg;
	ssize_t got = reader->failed ? -1 : reader->read(reader->arg, data, reader->err);

	if (got < 0) {
		reader->failed = true;
		archive_set_error(a, EIO, "the stream ended");
	}
	return got;
}

/* ---- packing ---- */

/* The name in the stream of what lies at `path` below `top`; NULL: leave it out. */
static char *packed_name(const char *path, const char *top, const char *name, struct error *err)
{
	const char *below = path + strlen(top);

	while (*below == '/')
		below++;
	if (!*below)
		return str_dup(name, err);
	return str_printf(err, "%s/%s", name, below);
}

static int pack_content(struct archive *disk, struct archive *out, const char *path, struct error *err)
{
	char chunk[65536];
	la_ssize_t got;

	while ((got = archive_read_data(disk, chunk, sizeof(chunk))) > 0)
		if (archive_write_data(out, chunk, (size_t)got) != got)
			return error_set(err, ERROR_FAILED, "cannot pass on %s: %s", path,
					 archive_error_string(out));
	if (got < 0)
		return error_set(err, ERROR_FAILED, "cannot read %s: %s", path, archive_error_string(disk));
	return 0;
}

static int pack_entry(struct archive *disk, struct archive *out, struct archive_entry *entry, const char *top,
		      const char *name, struct error *err)
{
	cleanup_free char *path = str_dup(archive_entry_pathname(entry) ?: "", err);
	cleanup_free char *packed = path ? packed_name(path, top, name, err) : NULL;

	if (!packed)
		return -1;
	if (archive_entry_filetype(entry) == AE_IFSOCK || str_eq(packed, "."))
		return 0;
	archive_entry_set_pathname(entry, packed);
	archive_entry_set_uid(entry, 0);
	archive_entry_set_gid(entry, 0);
	archive_entry_set_uname(entry, NULL);
	archive_entry_set_gname(entry, NULL);
	archive_entry_xattr_clear(entry);
	archive_entry_acl_clear(entry);
	archive_entry_sparse_clear(entry);
	archive_entry_set_fflags(entry, 0, 0);
	if (archive_write_header(out, entry) < ARCHIVE_WARN)
		return error_set(err, ERROR_FAILED, "cannot pass on %s: %s", path, archive_error_string(out));
	return archive_entry_filetype(entry) == AE_IFREG ? pack_content(disk, out, path, err) : 0;
}

static int pack_tree(struct archive *disk, struct archive *out, const char *top, const char *name,
		     struct error *err)
{
	for (;;) {
		struct archive_entry *entry = archive_entry_new();
		int result = entry ? archive_read_next_header2(disk, entry) : ARCHIVE_FATAL;
		int failed = 0;

		if (result == ARCHIVE_EOF) {
			archive_entry_free(entry);
			return 0;
		}
		if (result < ARCHIVE_WARN || (result == ARCHIVE_WARN && !archive_entry_size_is_set(entry)))
			failed = error_set(err, ERROR_FAILED, "cannot read %s: %s", top,
					   archive_error_string(disk));
		else
			failed = pack_entry(disk, out, entry, top, name, err);
		archive_read_disk_descend(disk);
		archive_entry_free(entry);
		if (failed)
			return -1;
	}
}

int transfer_pack(const char *path, const char *name, transfer_write_fn write, void *arg, struct error *err)
{
	struct error stream_error = ERROR_INIT;
	struct writer writer = {write, arg, &stream_error, false};
	struct archive *disk = archive_read_disk_new(), *out = archive_write_new();
	cleanup_free char *top = str_dup(path, err);
	int result = -1;

	for (size_t n = top ? strlen(top) : 0; n > 1 && top[n - 1] == '/'; n--)
		top[n - 1] = '\0';
	if (!disk || !out || !top) {
		error_oom(err);
	} else if (archive_read_disk_set_symlink_physical(disk) != ARCHIVE_OK ||
		   archive_read_disk_open(disk, top) != ARCHIVE_OK) {
		error_set(err, ERROR_FAILED, "cannot read %s: %s", top, archive_error_string(disk));
	} else if (archive_write_set_format_pax_restricted(out) != ARCHIVE_OK ||
		   archive_write_open(out, &writer, NULL, on_write, NULL) != ARCHIVE_OK) {
		error_set(err, ERROR_FAILED, "cannot start an archive: %s", archive_error_string(out));
	} else {
		result = pack_tree(disk, out, top, name, err);
		if (result == 0 && archive_write_close(out) != ARCHIVE_OK)
			result = error_set(err, ERROR_FAILED, "cannot pass on %s: %s", top,
					   archive_error_string(out));
	}
	archive_read_free(disk);
	archive_write_free(out);
	if (result < 0 && writer.failed)
		error_copy(err, &stream_error);
	return result;
}

/* ---- unpacking ---- */

/* NAME/rest for TOP/rest; NULL + err for a name that is not below TOP. malloc'ed. */
static char *unpacked_name(const char *path, const char *top, const char *name, struct error *err)
{
	size_t length;

	while (str_starts(path, "./"))
		path += 2;
	length = strlen(top);
	if (strncmp(path, top, length) == 0 && (path[length] == '/' || path[length] == '\0'))
		return str_printf(err, "%s%s", name, path + length);
	error_set(err, ERROR_FAILED, "the machine sent '%.200s', which was not asked for", path);
	return NULL;
}

static bool is_wanted(struct archive_entry *entry)
{
	const char *target = archive_entry_symlink(entry);

	switch (archive_entry_filetype(entry)) {
	case AE_IFREG:
	case AE_IFDIR:
		return true;
	case AE_IFLNK:
		return target && target[0] != '/';
	default:
		return archive_entry_hardlink(entry) != NULL;
	}
}

/* Gives the entry its name here. 0, or -1 + err for what must not be. */
static int rename_entry(struct archive_entry *entry, const char *top, const char *name, struct error *err)
{
	const char *path = archive_entry_pathname(entry), *link = archive_entry_hardlink(entry);
	cleanup_free char *here = NULL, *link_here = NULL;

	if (!path)
		return error_set(err, ERROR_FAILED, "the machine sent an entry without a name");
	here = unpacked_name(path, top, name, err);
	if (!here || (link && !(link_here = unpacked_name(link, top, name, err))))
		return -1;
	archive_entry_set_pathname(entry, here);
	if (link_here)
		archive_entry_set_hardlink(entry, link_here);
	archive_entry_set_perm(entry, archive_entry_perm(entry) & 0777);
	return 0;
}

static int copy_content(struct archive *in, struct archive *disk, struct error *err)
{
	const void *data;
	size_t n;
	la_int64_t at;
	int result;

	while ((result = archive_read_data_block(in, &data, &n, &at)) == ARCHIVE_OK)
		if (archive_write_data_block(disk, data, n, at) < ARCHIVE_OK)
			return error_set(err, ERROR_FAILED, "%s", archive_error_string(disk));
	return result == ARCHIVE_EOF ? 0 : error_set(err, ERROR_FAILED, "%s", archive_error_string(in));
}

static int unpack_all(struct archive *in, struct archive *disk, const char *top, const char *name,
		      int *left_out, char *example, struct error *err)
{
	struct archive_entry *entry;
	int result;

	while ((result = archive_read_next_header(in, &entry)) == ARCHIVE_OK || result == ARCHIVE_WARN) {
		if (!is_wanted(entry)) {
			if (!(*left_out)++)
				snprintf(example, 256, "%s", archive_entry_pathname(entry) ?: "?");
			continue;
		}
		if (rename_entry(entry, top, name, err) < 0)
			return -1;
		if (archive_write_header(disk, entry) < ARCHIVE_WARN)
			return error_set(err, ERROR_FAILED, "cannot write %s: %s",
					 archive_entry_pathname(entry), archive_error_string(disk));
		if (archive_entry_size(entry) > 0 && copy_content(in, disk, err) < 0)
			return error_prefix(err, "cannot write %s", archive_entry_pathname(entry));
		if (archive_write_finish_entry(disk) < ARCHIVE_WARN)
			return error_set(err, ERROR_FAILED, "cannot write %s: %s",
					 archive_entry_pathname(entry), archive_error_string(disk));
	}
	if (result != ARCHIVE_EOF)
		return error_set(err, ERROR_FAILED, "the machine's answer is no archive: %s",
				 archive_error_string(in));
	return 0;
}

int transfer_unpack(transfer_read_fn read, void *arg, const char *top, const char *parent, const char *name,
		    int *left_out, char *example, struct error *err)
{
	struct error stream_error = ERROR_INIT;
	struct reader reader = {read, arg, &stream_error, false};
	struct archive *in = archive_read_new(), *disk = archive_write_disk_new();
	cleanup_close int before = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int result = -1;

	*left_out = 0;
	if (!in || !disk) {
		error_oom(err);
	} else if (before < 0 || chdir(parent) < 0) {
		error_errno(err, errno, "cannot go to %s", parent);
	} else if (archive_read_support_format_tar(in) != ARCHIVE_OK ||
		   archive_read_open(in, &reader, NULL, on_read, NULL) != ARCHIVE_OK) {
		error_set(err, ERROR_FAILED, "the machine's answer is no archive: %s",
			  archive_error_string(in));
	} else {
		archive_write_disk_set_options(
			disk, ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_TIME | ARCHIVE_EXTRACT_UNLINK |
				      ARCHIVE_EXTRACT_SECURE_SYMLINKS | ARCHIVE_EXTRACT_SECURE_NODOTDOT |
				      ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS);
		result = unpack_all(in, disk, top, name, left_out, example, err);
		/* Folders get their modes and times only now. */
		if (archive_write_close(disk) != ARCHIVE_OK && result == 0)
			result = error_set(err, ERROR_FAILED, "cannot finish %s/%s: %s", parent, name,
					   archive_error_string(disk));
	}
	archive_read_free(in);
	archive_write_free(disk);
	if (before >= 0 && fchdir(before) < 0 && result == 0)
		result = error_errno(err, errno, "cannot go back to the current folder");
	if (result < 0 && reader.failed)
		error_copy(err, &stream_error);
	return result;
}
