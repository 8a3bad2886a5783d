/*
 * The digest of a file's content, which tells a changed base from a harmless
 * copy of it.
 *
 * SHA-512 over the chunks of 1 MiB, chained: each chunk that is not all zero
 * turns the state into SHA-512(state, index, SHA-512(chunk)); the size comes last.
 * Chunks of zeroes leave no trace, so a sparse file and its copy without holes
 * have the same digest, and holes need not be read.
 */
#include <endian.h>
#include <ext2fs/ext2fs.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "cow/internal.h"
#include "uml-lab/base/file.h"

#define CHUNK     COW_DIGEST_CHUNK
#define HASH_SIZE 64
#define PREFIX    "sha512-1M:"

struct state {
	uint8_t hash[HASH_SIZE];
	uint64_t number; /* big-endian: chunk index, or the size at the end */
	uint8_t chunk[HASH_SIZE];
} __attribute__((packed));

static void mix(struct cow_digester *d, uint64_t number, const uint8_t *chunk)
{
	struct state s = {.number = htobe64(number)};

	memcpy(s.hash, d->hash, sizeof(s.hash));
	memcpy(s.chunk, chunk, sizeof(s.chunk));
	ext2fs_sha512((const unsigned char *)&s, sizeof(s), d->hash);
}

void cow_digester_add(struct cow_digester *d, uint64_t index, const void *chunk, size_t n)
{
	uint8_t hash[HASH_SIZE];

	if (cow_is_zero(chunk, n))
		return;
	ext2fs_sha512(chunk, (unsigned long)n, hash);
	mix(d, index, hash);
}

void cow_digester_end(struct cow_digester *d, uint64_t size, char *text)
{
	static const uint8_t none[HASH_SIZE];
	char *p = text + sprintf(text, PREFIX);

	mix(d, size, none);
	for (size_t i = 0; i < sizeof(d->hash); i++)
		p += sprintf(p, "%02x", d->hash[i]);
}

static int compute(int fd, uint64_t size, char *text, struct error *err)
{
	cleanup_free uint8_t *chunk = malloc(CHUNK);
	struct cow_digester d = {.hash = {0}};
	uint64_t at = 0;

	if (!chunk)
		return error_oom(err);
	while (at < size) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA);
		ssize_t n;

		if (data < 0 && errno == ENXIO)
			break;
		if (data > (off_t)at)
			at = (uint64_t)data / CHUNK * CHUNK;
		n = file_pread_full(fd, chunk, CHUNK, (off_t)at);
		if (n < 0)
			return error_errno(err, errno, "cannot read");
		if (n == 0)
			break;
		cow_digester_add(&d, at / CHUNK, chunk, (size_t)n);
		at += (uint64_t)n;
	}
	cow_digester_end(&d, size, text);
	return 0;
}

/* The state of the file that a noted digest is for. */
static void describe(const struct stat *st, char *text, size_t size)
{
	snprintf(text, size, "%" PRIu64 " %" PRId64 ".%09ld", (uint64_t)st->st_size,
		 (int64_t)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
}

bool cow_digest_noted(int fd, const char *path, char *text)
{
	char note[COW_NOTE_MAX], state[64];
	struct stat st;
	char *blank;

	if (fstat(fd, &st) || cow_note_get(fd, path, "digest", note, NULL) != 1)
		return false;
	describe(&st, state, sizeof(state));
	blank = strchr(note, ' ');
	if (!blank || !str_eq(blank + 1, state) || blank - note >= COW_DIGEST_MAX)
		return false;
	*blank = '\0';
	strcpy(text, note);
	return true;
}

int cow_digest(int fd, const char *path, char *text, struct error *err)
{
	char note[COW_NOTE_MAX], state[64];
	struct stat before, after;

	if (cow_digest_noted(fd, path, text))
		return 0;
	if (fstat(fd, &before) || compute(fd, (uint64_t)before.st_size, text, err) || fstat(fd, &after))
		return error_prefix(err, "%s", path);
	/* a file that changes meanwhile gets no note; one we may not write to neither, and needs none */
	if (before.st_mtim.tv_sec == after.st_mtim.tv_sec &&
	    before.st_mtim.tv_nsec == after.st_mtim.tv_nsec) {
		describe(&after, state, sizeof(state));
		snprintf(note, sizeof(note), "%s %s", text, state);
		cow_note_set(fd, path, "digest", note, NULL);
	}
	return 0;
}

int cow_file_digest(const char *path, char *text, struct error *err)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return error_errno(err, errno, "cannot open %s", path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, ERROR_FAILED, "%s is not a regular file", path);
	return cow_digest(fd, path, text, err);
}
