/*
 * Notes: small texts kept about a file, in extended attributes user.uml-cow.*,
 * or, on a file system that has none, in a file ".NAME.uml-cow-notes" beside it,
 * a line "name value" each.
 *
 * digest          of the file's content, and the size and mtime it was taken at
 * backing-digest  of the backing file as it was when this file was put on it
 * origin          the backing file was chosen by the file's owner on this host;
 *                 bound to inode and birth so that it can't be sent along, and
 *                 of no meaning to anybody but that owner
 * commit          an interrupted commit (commit.c)
 * format          "raw": a raw image, though it may begin like a COW file; beside a file that another is about to
 *                 replace "raw IDENTITY" speaks of that other one
 *
 * Notes of others' files are as untrusted as the files: texts are bounded and
 * parsed by those who use them.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <string.h>
#include <sys/xattr.h>

#include "cow/internal.h"
#include "uml-lab/base/file.h"

#define SIDECAR_MAX (4 * COW_NOTE_MAX)

char *cow_note_sidecar(const char *path, struct error *err)
{
	cleanup_free char *a = str_dup(path, err), *b = str_dup(path, err);

	return a && b ? str_printf(err, "%s/.%.200s.uml-cow-notes", dirname(a), basename(b)) : NULL;
}

static bool no_xattrs(int e)
{
	return e == ENOTSUP || e == ENOSYS || e == EPERM;
}

/* The value in a line "name value", or NULL. Cuts lines apart in place. */
static const char *line_value(char *line, const char *name)
{
	size_t n = strlen(name);

	return str_starts(line, name) && line[n] == ' ' ? line + n + 1 : NULL;
}

/* A file beside fd's, of the same owner: one that somebody else put there says nothing. */
static bool is_sidecar(int fd, const char *sidecar)
{
	struct stat file, side;

	return !fstat(fd, &file) && !lstat(sidecar, &side) && S_ISREG(side.st_mode) &&
	       file.st_uid == side.st_uid;
}

static int sidecar_get(int fd, const char *path, const char *name, char *text, struct error *err)
{
	cleanup_free char *sidecar = cow_note_sidecar(path, err), *data = NULL;
	char *rest, *line;
	size_t length;

	if (!sidecar)
		return -1;
	if (!is_sidecar(fd, sidecar))
		return 0;
	if (file_read_all(sidecar, SIDECAR_MAX, &data, &length, err))
		return -1;
	for (line = strtok_r(data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		const char *value = line_value(line, name);

		if (value && strlen(value) < COW_NOTE_MAX) {
			strcpy(text, value);
			return 1;
		}
	}
	return 0;
}

static int sidecar_set(const char *path, const char *name, const char *text, struct error *err)
{
	cleanup_free char *sidecar = cow_note_sidecar(path, err), *data = NULL;
	cleanup_strbuf struct strbuf out = STRBUF_INIT;
	char *rest, *line;
	size_t length;

	if (!sidecar)
		return -1;
	if (!file_exists(sidecar) && !text)
		return 0;
	if (file_exists(sidecar) && file_read_all(sidecar, SIDECAR_MAX, &data, &length, err))
		return -1;
	for (line = data ? strtok_r(data, "\n", &rest) : NULL; line; line = strtok_r(NULL, "\n", &rest))
		if (!line_value(line, name))
			strbuf_printf(&out, "%s\n", line);
	if (text)
		strbuf_printf(&out, "%s %s\n", name, text);
	if (strbuf_check(&out, err))
		return -1;
	if (!out.length)
		return unlink(sidecar) && errno != ENOENT
			       ? error_errno(err, errno, "cannot remove %s", sidecar)
			       : 0;
	return file_write_atomic(sidecar, out.data, out.length, 0600, err);
}

int cow_note_get(int fd, const char *path, const char *name, char *text, struct error *err)
{
	char key[64];
	ssize_t n;

	snprintf(key, sizeof(key), "user.uml-cow.%s", name);
	n = fgetxattr(fd, key, text, COW_NOTE_MAX - 1);
	if (n >= 0) {
		text[n] = '\0';
		return 1;
	}
	if (errno == ENODATA || errno == ERANGE)
		return 0;
	if (no_xattrs(errno))
		return sidecar_get(fd, path, name, text, err);
	return error_errno(err, errno, "cannot read the notes about %s", path);
}

int cow_note_set(int fd, const char *path, const char *name, const char *text, struct error *err)
{
	char key[64];

	snprintf(key, sizeof(key), "user.uml-cow.%s", name);
	if (text ? !fsetxattr(fd, key, text, strlen(text), 0) : !fremovexattr(fd, key) || errno == ENODATA)
		return 0;
	/* ENOSPC, E2BIG: file systems that keep attributes in the inode have room for little */
	if (no_xattrs(errno) || errno == ENOSPC || errno == E2BIG)
		return sidecar_set(path, name, text, err);
	return error_errno(err, errno, "cannot write the notes about %s", path);
}

static bool identity(int dir, const char *path, int flags, char *text)
{
	struct statx sx;

	if (statx(dir, path, flags, STATX_INO | STATX_BTIME, &sx))
		return false;
	if (!(sx.stx_mask & STATX_BTIME))
		memset(&sx.stx_btime, 0, sizeof(sx.stx_btime));
	snprintf(text, 64, "%" PRIx64 "-%" PRIx64 ".%09" PRIu32, (uint64_t)sx.stx_ino,
		 (uint64_t)sx.stx_btime.tv_sec, (uint32_t)sx.stx_btime.tv_nsec);
	return true;
}

bool cow_note_identity(int fd, char *text)
{
	return identity(fd, "", AT_EMPTY_PATH, text);
}

bool cow_note_identity_of(const char *path, char *text)
{
	return identity(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, text);
}

int cow_note_origin(int fd, const char *path, const char *backing, struct error *err)
{
	char id[64], text[COW_NOTE_MAX];

	if (!cow_note_identity(fd, id))
		return 0;
	snprintf(text, sizeof(text), "%s %s", id, backing);
	return cow_note_set(fd, path, "origin", text, err);
}

bool cow_note_is_origin(int fd, const char *path, const char *backing)
{
	char id[64], text[COW_NOTE_MAX];
	struct stat st;
	size_t n;

	if (fstat(fd, &st) || st.st_uid != geteuid() || !cow_note_identity(fd, id) ||
	    cow_note_get(fd, path, "origin", text, NULL) != 1)
		return false;
	n = strlen(id);
	return str_starts(text, id) && text[n] == ' ' && str_eq(text + n + 1, backing);
}

int cow_note_raw(int fd, const char *path, struct error *err)
{
	return cow_note_set(fd, path, "format", "raw", err);
}

int cow_note_raw_at(int fd, const char *path, struct error *err)
{
	char id[64], text[80];

	if (!fsetxattr(fd, "user.uml-cow.format", "raw", strlen("raw"), 0))
		return 0;
	/* in a file beside the one that still has that name: it speaks of this one alone */
	if (!cow_note_identity(fd, id))
		return error_errno(err, errno, "cannot tell the identity of %s", path);
	snprintf(text, sizeof(text), "raw %s", id);
	return sidecar_set(path, "format", text, err);
}

/* Whether a note says that this very file is raw. */
static bool says_raw(int fd, const char *format)
{
	char id[64];

	return str_eq(format, "raw") ||
	       (str_starts(format, "raw ") && cow_note_identity(fd, id) && str_eq(format + strlen("raw "), id));
}

int cow_header_of(int fd, const char *path, struct cow_header *out, struct error *err)
{
	char format[COW_NOTE_MAX];
	int is_cow = cow_header_read(fd, out, err);

	if (is_cow == 0 || cow_note_get(fd, path, "format", format, NULL) != 1 || !says_raw(fd, format))
		return is_cow;
	error_clear(err);
	return 0;
}
