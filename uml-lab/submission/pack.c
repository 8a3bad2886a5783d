/*
 * The archive: pax with GNU's sparse format 1.0, which GNU tar and libarchive take apart too, in zstd.
 *
 * Nothing but content is in it: no owner, no times, a fixed order; so the same disks give the same bytes.
 * libarchive wants the whole apparent content and leaves out what the sparse map calls holes; they are fed
 * from one page of zeroes.
 */
#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/submission/pack.h"

#define CHUNK (256u << 10)

struct packing {
	struct archive *archive;
	const volatile int *cancel;
	char *chunk, *zeroes; /* CHUNK bytes each */
};

static int failed(const struct packing *p, struct error *err)
{
	int number = archive_errno(p->archive);
	const char *why = archive_error_string(p->archive);

	/* libarchive's own numbers are negative. */
	return error_set(err, ERROR_FAILED, "%s", number > 0 ? strerror(number) : why ? why : "unknown");
}

static int check_cancel(const struct packing *p, struct error *err)
{
	return p->cancel && *p->cancel ? error_set(err, ERROR_FAILED, "interrupted") : 0;
}

static int put(struct packing *p, const void *data, size_t n, struct error *err)
{
	return archive_write_data(p->archive, data, n) == (la_ssize_t)n ? 0 : failed(p, err);
}

static struct archive_entry *new_entry(const char *name, uint64_t size, struct error *err)
{
	struct archive_entry *e = archive_entry_new();

	if (!e) {
		error_oom(err);
		return NULL;
	}
	archive_entry_set_pathname(e, name);
	archive_entry_set_filetype(e, AE_IFREG);
	archive_entry_set_perm(e, 0600);
	archive_entry_set_size(e, (int64_t)size);
	archive_entry_set_mtime(e, 0, 0);
	return e;
}

static int put_header(struct packing *p, struct archive_entry *e, struct error *err)
{
	return archive_write_header(p->archive, e) == ARCHIVE_OK ? 0 : failed(p, err);
}

static int put_text(struct packing *p, const char *name, const char *text, size_t length, struct error *err)
{
	struct archive_entry *e = new_entry(name, length, err);
	int result = e && put_header(p, e, err) == 0 ? put(p, text, length, err) : -1;

	archive_entry_free(e);
	return result;
}

/* The next run of data from *start on, as the file system tells: 1; 0: there is none; -1 + err. */
static int next_data(int fd, uint64_t size, uint64_t *start, uint64_t *end, struct error *err)
{
	off_t at = *start < size ? lseek(fd, (off_t)*start, SEEK_DATA) : (errno = ENXIO, -1), hole;

	if (at < 0 && errno == ENXIO)
		return 0;
	hole = at < 0 ? -1 : lseek(fd, at, SEEK_HOLE);
	if (hole < 0)
		return error_errno(err, errno, "cannot find its holes");
	*start = (uint64_t)at;
	*end = (uint64_t)hole < size ? (uint64_t)hole : size;
	return *start < size;
}

static int add_map(int fd, uint64_t size, struct archive_entry *e, struct error *err)
{
	uint64_t start = 0, end = 0;
	bool any = false;
	int found;

	for (; (found = next_data(fd, size, &start, &end, err)) > 0; start = end) {
		archive_entry_sparse_add_entry(e, (int64_t)start, (int64_t)(end - start));
		any = true;
	}
	/* All of it a hole: an empty map would mean that there is none. */
	if (!any && size)
		archive_entry_sparse_add_entry(e, (int64_t)size, 0);
	return found;
}

static int put_zeroes(struct packing *p, uint64_t n, struct error *err)
{
	while (n) {
		size_t part = n < CHUNK ? (size_t)n : CHUNK;

		if (put(p, p->zeroes, part, err) < 0)
			return -1;
		n -= part;
	}
	return 0;
}

static int put_range(struct packing *p, int fd, uint64_t at, uint64_t n, struct error *err)
{
	while (n) {
		size_t part = n < CHUNK ? (size_t)n : CHUNK;
		ssize_t got = file_pread_full(fd, p->chunk, part, (off_t)at);

		if (got != (ssize_t)part)
			return error_errno(err, got < 0 ? errno : EIO, "cannot read it");
		if (check_cancel(p, err) < 0 || put(p, p->chunk, part, err) < 0)
			return -1;
		at += part;
		n -= part;
	}
	return 0;
}

static int put_content(struct packing *p, int fd, uint64_t size, struct error *err)
{
	uint64_t start = 0, end = 0, at = 0;
	int found;

	for (; (found = next_data(fd, size, &start, &end, err)) > 0; start = at = end)
		if (put_zeroes(p, start - at, err) < 0 || put_range(p, fd, start, end - start, err) < 0)
			return -1;
	return found < 0 ? -1 : put_zeroes(p, size - at, err);
}

static int put_disk(struct packing *p, const char *folder, const char *name, uint64_t size, struct error *err)
{
	cleanup_free char *path = file_join(err, folder, name);
	cleanup_close int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
	struct archive_entry *e = NULL;
	int result = -1;

	if (!path)
		return -1;
	if (fd < 0)
		return error_errno(err, errno, "cannot open %s", path);
	e = new_entry(name, size, err);
	if (e && add_map(fd, size, e, err) == 0 && put_header(p, e, err) == 0)
		result = put_content(p, fd, size, err);
	archive_entry_free(e);
	return result < 0 ? error_prefix(err, "%s", name) : 0;
}

static int put_disks(struct packing *p, const struct submission *s, const char *folder, struct error *err)
{
	for (size_t i = 0; i < s->machine_count; i++)
		for (size_t j = 0; j < s->machines[i].disk_count; j++) {
			cleanup_free char *name = submission_disk_name(&s->machines[i], j, err);

			if (!name || put_disk(p, folder, name, s->machines[i].disks[j].size, err) < 0)
				return -1;
		}
	return 0;
}

static int pack(struct packing *p, int fd, const struct submission *s, const char *lab, size_t lab_length,
		const char *folder, struct error *err)
{
	json_t *json = submission_to_json(s, err);
	cleanup_free char *manifest = json ? json_dumps(json, JSON_INDENT(1)) : NULL;

	json_decref(json);
	if (!json)
		return -1;
	if (!manifest || !p->archive || !p->chunk || !p->zeroes)
		return error_oom(err);
	if (archive_write_set_format_pax(p->archive) != ARCHIVE_OK ||
	    archive_write_add_filter_zstd(p->archive) != ARCHIVE_OK ||
	    archive_write_open_fd(p->archive, fd) != ARCHIVE_OK)
		return failed(p, err);
	if (put_text(p, SUBMISSION_MANIFEST, manifest, strlen(manifest), err) < 0 ||
	    put_text(p, SUBMISSION_LAB, lab, lab_length, err) < 0 || put_disks(p, s, folder, err) < 0)
		return -1;
	return archive_write_close(p->archive) == ARCHIVE_OK ? 0 : failed(p, err);
}

int submission_pack(int fd, const struct submission *s, const char *lab, size_t lab_length,
		    const char *folder, const volatile int *cancel, struct error *err)
{
	struct packing p = {.archive = archive_write_new(),
			    .cancel = cancel,
			    .chunk = malloc(CHUNK),
			    .zeroes = calloc(1, CHUNK)};
	int result = pack(&p, fd, s, lab, lab_length, folder, err);

	if (result < 0 && p.archive)
		archive_write_fail(p.archive); /* nothing more is written by freeing it */
	archive_write_free(p.archive);
	free(p.chunk);
	free(p.zeroes);
	return result;
}
