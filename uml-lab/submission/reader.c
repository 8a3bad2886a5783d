/*
 * Reading an archive that somebody else made.
 *
 * It must be exactly what submission_pack() writes: the manifest, lab.yml, then the disks in the manifest's
 * order, each under its name, a regular file of its size; then the end. So there is no name to be checked, no
 * link to be followed and no folder to be left: a member that is not the expected one is an error, whatever
 * else it is.
 *
 * Bounds: the sizes in submission.h, and data_max for the content of all disks. Content is counted as it
 * comes out of the decompressor, so a small file that unpacks without end stops there; holes cost nothing,
 * neither here nor on the disk written to, and pages of zeroes are left out of that like holes. libarchive's
 * own memory is bounded by the limits of the process (child.c).
 */
#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/submission/submission.h"

#define READ_SIZE (256u << 10)
#define PAGE      4096u

void submission_content_free(struct submission_content *c)
{
	submission_free(c->manifest);
	free(c->manifest_text);
	free(c->lab_text);
	free(c->data);
	*c = (struct submission_content){0};
}

struct reading {
	struct archive *archive;
	int fd;
	char *buffer; /* READ_SIZE bytes */
	const struct submission_read_options *options;
	uint64_t data_max;
	struct submission_content *out;
};

/* Why libarchive gave up. Its texts may quote the archive: no control characters get through. */
static int damaged(const struct reading *r, const char *what, struct error *err)
{
	cleanup_strbuf struct strbuf why = STRBUF_INIT;

	strbuf_puts(&why, archive_error_string(r->archive) ?: "it ends too early");
	str_clean(&why);
	return error_set(err, ERROR_FAILED, "%s: the archive is damaged, or is none: %.200s", what,
			 why.data ?: "");
}

static bool is_named(struct archive_entry *e, const char *name)
{
	return str_eq(archive_entry_pathname(e) ?: archive_entry_pathname_utf8(e), name);
}

/* The next member, which must be a regular file of that name. */
static int expect(const struct reading *r, const char *name, struct archive_entry **out, struct error *err)
{
	struct archive_entry *e;
	int result = archive_read_next_header(r->archive, &e);

	if (result == ARCHIVE_EOF)
		return error_set(err, ERROR_FAILED, "%s is missing", name);
	/* A warning is about something odd, which there is nothing of in what we write. */
	if (result != ARCHIVE_OK)
		return damaged(r, name, err);
	if (!is_named(e, name))
		return error_set(err, ERROR_FAILED, "there is something else where %s should be", name);
	if (archive_entry_hardlink(e) || archive_entry_hardlink_utf8(e) || archive_entry_symlink(e) ||
	    archive_entry_filetype(e) != AE_IFREG)
		return error_set(err, ERROR_FAILED, "%s is not a regular file", name);
	if (!archive_entry_size_is_set(e) || archive_entry_size(e) < 0)
		return error_set(err, ERROR_FAILED, "%s has no size", name);
	*out = e;
	return 0;
}

/* ---- the texts ---- */

static int read_text(const struct reading *r, const char *name, size_t max, char **out, size_t *length,
		     struct error *err)
{
	struct archive_entry *e;
	cleanup_free char *text = NULL;
	size_t size, got = 0;

	if (expect(r, name, &e, err) < 0)
		return -1;
	if (archive_entry_size(e) > (int64_t)max || archive_entry_sparse_count(e))
		return error_set(err, ERROR_FAILED, "%s is larger than %zu bytes", name, max);
	size = (size_t)archive_entry_size(e);
	text = malloc(size + 1);
	if (!text)
		return error_oom(err);
	while (got < size) {
		la_ssize_t n = archive_read_data(r->archive, text + got, size - got);

		if (n <= 0)
			return damaged(r, name, err);
		got += (size_t)n;
	}
	text[size] = '\0';
	if (strlen(text) != size)
		return error_set(err, ERROR_FAILED, "%s holds a zero byte", name);
	*out = steal_ptr(&text);
	*length = size;
	return 0;
}

/* ---- disks ---- */

/* A disk on its way: its digest, by chunks, and where it goes. */
struct sink {
	int fd;            /* -1: nowhere */
	uint64_t size, at; /* at: up to where content came */
	uint64_t data;     /* bytes in pages that are not zero */
	struct cow_digester digester;
	uint8_t *chunk; /* COW_DIGEST_CHUNK bytes: the chunk `at` lies in */
	bool dirty;     /* it holds something */
};

static bool is_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (*p == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static void end_chunk(struct sink *s)
{
	uint64_t index = (s->at - 1) / COW_DIGEST_CHUNK, begin = index * COW_DIGEST_CHUNK;

	if (!s->dirty)
		return;
	cow_digester_add(&s->digester, index, s->chunk,
			 s->size - begin < COW_DIGEST_CHUNK ? (size_t)(s->size - begin) : COW_DIGEST_CHUNK);
	memset(s->chunk, 0, COW_DIGEST_CHUNK);
	s->dirty = false;
}

/* A hole up to `to`. */
static void skip(struct sink *s, uint64_t to)
{
	if (to <= s->at)
		return;
	if (s->at && to / COW_DIGEST_CHUNK != (s->at - 1) / COW_DIGEST_CHUNK)
		end_chunk(s);
	s->at = to;
}

/* Content at s->at, within one chunk. */
static int take_part(struct sink *s, const uint8_t *p, size_t n, struct error *err)
{
	for (size_t i = 0; i < n;) {
		size_t page = PAGE - (size_t)((s->at + i) % PAGE);

		page = page < n - i ? page : n - i;
		if (!is_zero(p + i, page)) {
			s->data += page;
			if (s->fd >= 0 && file_pwrite_full(s->fd, p + i, page, (off_t)(s->at + i)) < 0)
				return error_errno(err, errno, "cannot write");
		}
		i += page;
	}
	memcpy(s->chunk + s->at % COW_DIGEST_CHUNK, p, n);
	s->dirty = true;
	s->at += n;
	if (s->at % COW_DIGEST_CHUNK == 0 || s->at == s->size)
		end_chunk(s);
	return 0;
}

static int take(struct sink *s, const uint8_t *p, size_t n, struct error *err)
{
	while (n) {
		size_t part = COW_DIGEST_CHUNK - (size_t)(s->at % COW_DIGEST_CHUNK);

		part = part < n ? part : n;
		if (take_part(s, p, part, err) < 0)
			return -1;
		p += part;
		n -= part;
	}
	return 0;
}

/* What has come so far goes on: blocks in order, within the file, and not too much in all. */
static int read_blocks(struct reading *r, const char *name, struct sink *s, struct error *err)
{
	const void *block;
	size_t n;
	la_int64_t offset;
	int result;

	while ((result = archive_read_data_block(r->archive, &block, &n, &offset)) == ARCHIVE_OK) {
		if (offset < 0 || (uint64_t)offset < s->at || (uint64_t)offset > s->size ||
		    n > s->size - (uint64_t)offset)
			return error_set(err, ERROR_FAILED,
					 "%s: its parts are not in order, or lie outside of it", name);
		r->out->total += n;
		if (r->out->total > r->data_max) {
			char size[24];

			error_set(err, ERROR_FAILED, "%s: the submission holds more than %s", name,
				  str_human_size(r->data_max, size, sizeof(size)));
			return error_hint(err, "if that can be right: --max-size");
		}
		skip(s, (uint64_t)offset);
		if (take(s, block, n, err) < 0)
			return error_prefix(err, "%s", name);
	}
	if (result != ARCHIVE_EOF)
		return damaged(r, name, err);
	skip(s, s->size);
	if (s->dirty)
		end_chunk(s);
	return 0;
}

static int read_disk(struct reading *r, const char *name, const struct submission_disk *disk, size_t index,
		     struct error *err)
{
	const struct submission_read_options *o = r->options;
	cleanup_free uint8_t *chunk = calloc(1, COW_DIGEST_CHUNK);
	struct sink s = {.fd = o->outputs ? o->outputs[index] : -1, .size = disk->size, .chunk = chunk};
	char digest[COW_DIGEST_MAX];
	struct archive_entry *e;

	if (!chunk)
		return error_oom(err);
	if (expect(r, name, &e, err) < 0)
		return -1;
	if ((uint64_t)archive_entry_size(e) != disk->size)
		return error_set(err, ERROR_FAILED, "%s is not as large as the manifest says", name);
	if (read_blocks(r, name, &s, err) < 0)
		return -1;
	if (s.fd >= 0 && ftruncate(s.fd, (off_t)disk->size) < 0)
		return error_errno(err, errno, "%s: cannot write", name);
	cow_digester_end(&s.digester, disk->size, digest);
	r->out->data[index] = s.data;
	return str_eq(digest, disk->digest)
		       ? 0
		       : error_set(err, ERROR_FAILED,
				   "%s is not what was handed in: its digest is another than the manifest's",
				   name);
}

static int read_disks(struct reading *r, struct error *err)
{
	const struct submission *s = r->out->manifest;
	size_t index = 0;

	r->out->data = calloc(submission_disk_count(s), sizeof(*r->out->data));
	if (!r->out->data)
		return error_oom(err);
	if (r->options->outputs && r->options->output_count != submission_disk_count(s))
		return error_set(err, ERROR_FAILED, "it does not have the disks that are to be written");
	for (size_t i = 0; i < s->machine_count; i++)
		for (size_t j = 0; j < s->machines[i].disk_count; j++) {
			cleanup_free char *name = submission_disk_name(&s->machines[i], j, err);

			if (!name || read_disk(r, name, &s->machines[i].disks[j], index++, err) < 0)
				return -1;
		}
	return 0;
}

/* ---- the whole ---- */

static int read_all(struct reading *r, struct error *err)
{
	struct submission_content *c = r->out;
	struct archive_entry *e;
	size_t length;
	int result;

	if (read_text(r, SUBMISSION_MANIFEST, SUBMISSION_MANIFEST_MAX, &c->manifest_text, &length, err) < 0)
		return -1;
	c->manifest = submission_parse(c->manifest_text, length, err);
	if (!c->manifest ||
	    read_text(r, SUBMISSION_LAB, SUBMISSION_LAB_MAX, &c->lab_text, &c->lab_length, err) < 0)
		return -1;
	if (r->options->head_only)
		return 0;
	if (read_disks(r, err) < 0)
		return -1;
	result = archive_read_next_header(r->archive, &e);
	if (result != ARCHIVE_EOF)
		return result == ARCHIVE_OK
			       ? error_set(err, ERROR_FAILED, "there is more in it than the manifest says")
			       : damaged(r, "its end", err);
	return 0;
}

/* Not archive_read_open_fd(), which asks for the file's kind by a call that takes paths. */
static la_ssize_t feed(struct archive *a, void *opaque, const void **buffer)
{
	struct reading *r = opaque;
	ssize_t n = file_read_full(r->fd, r->buffer, READ_SIZE);

	if (n < 0)
		archive_set_error(a, errno, "%s", strerror(errno));
	*buffer = r->buffer;
	return n;
}

/* Plain tar archives and other compressions are none of ours. */
static int check_magic(int fd, struct error *err)
{
	static const uint8_t zstd[] = {0x28, 0xb5, 0x2f, 0xfd}; /* RFC 8878, 3.1.1 */
	uint8_t magic[sizeof(zstd)];

	if (file_pread_full(fd, magic, sizeof(magic), 0) != sizeof(magic) ||
	    memcmp(magic, zstd, sizeof(zstd)) != 0)
		return error_set(err, ERROR_FAILED, "this is no submission: it does not begin like one");
	return lseek(fd, 0, SEEK_SET) < 0 ? error_errno(err, errno, "cannot read") : 0;
}

int submission_read(int fd, const struct submission_read_options *options, struct submission_content *out,
		    struct error *err)
{
	struct submission_content content = {0};
	cleanup_free char *buffer = malloc(READ_SIZE);
	struct reading r = {.archive = archive_read_new(),
			    .fd = fd,
			    .buffer = buffer,
			    .options = options,
			    .data_max = options->data_max ?: SUBMISSION_DATA_MAX,
			    .out = &content};
	int result = -1;

	if (!r.archive || !buffer) {
		archive_read_free(r.archive);
		return error_oom(err);
	}
	archive_read_support_format_tar(r.archive);
	archive_read_support_filter_zstd(r.archive);
	if (check_magic(fd, err) == 0)
		result = archive_read_open(r.archive, &r, NULL, feed, NULL) == ARCHIVE_OK
				 ? read_all(&r, err)
				 : damaged(&r, "its beginning", err);
	archive_read_free(r.archive);
	if (result == 0)
		*out = content;
	else
		submission_content_free(&content);
	return result;
}
