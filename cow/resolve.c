/*
 * Which file does a header mean?
 *
 * Looked for, in this order: the path in the header (a relative one counts from
 * the COW file's folder), a file of that name beside the COW file, one in the
 * folders of the policy, and, when the digest of the backing file was kept, any
 * file in those places that is noted to have it, or fits by size and time and has it. A file found elsewhere than at
 * its path must match the header exactly, or by digest; one at its path that
 * does not match is reported as what is wrong.
 *
 * What may be opened: see cow_open_options. Paths are resolved first, compared
 * with the folders allowed, and then opened without following any symbolic
 * link, so that nobody can put one in between.
 */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/syscall.h>

#include "cow/internal.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/file.h"

#define SCAN_MAX 1000 /* files of a folder looked at when searching by digest */

/* A search for one backing file. */
struct search {
	const struct cow_file *file;
	const struct cow_policy *policy;
	enum cow_lock lock;
	char *own_folder;
	char *named;       /* the path in the header, made absolute */
	bool trusted;      /* `named` was chosen by a person on this host */
	struct error *err; /* why the best candidate so far failed */
	int rank;          /* how telling that is; see enum */
};
enum { RANK_NONE, RANK_FORBIDDEN, RANK_MISMATCH };

int cow_policy_init(struct cow_policy *p, const struct cow_open_options *options, struct error *err)
{
	cleanup_strv struct strv images = STRV_INIT;

	*p = (struct cow_policy){.any = options->any_backing};
	for (size_t i = 0; options->folders && i < options->folders->count; i++) {
		cleanup_free char *real = file_absolute(options->folders->items[i], false, err);

		if (!real || strv_add(&p->folders, real, err))
			return -1;
	}
	if (dirs_images(&images, NULL)) /* a home that can't be found just has no images */
		return 0;
	for (size_t i = 0; i < images.count; i++) {
		cleanup_free char *real = file_absolute(images.items[i], false, NULL);

		if (real && strv_add(&p->folders, real, err))
			return -1;
	}
	return 0;
}

void cow_policy_free(struct cow_policy *p)
{
	strv_free(&p->folders);
}

static bool is_within(const char *path, const char *folder)
{
	size_t n = strlen(folder);

	return str_eq(folder, "/") || (str_starts(path, folder) && path[n] == '/');
}

static bool is_allowed(const struct search *s, const char *path, const char *real)
{
	if (s->policy->any || (s->trusted && str_eq(path, s->named)) || is_within(real, s->own_folder))
		return true;
	for (size_t i = 0; i < s->policy->folders.count; i++)
		if (is_within(real, s->policy->folders.items[i]))
			return true;
	return false;
}

static int open_exactly(const char *real, enum cow_lock lock)
{
	int flags = (lock == COW_LOCK_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK;
	struct open_how how = {.flags = (uint64_t)flags, .resolve = RESOLVE_NO_SYMLINKS};
	int fd = (int)syscall(SYS_openat2, AT_FDCWD, real, &how, sizeof(how));

	return fd < 0 && errno == ENOSYS ? open(real, flags | O_NOFOLLOW) : fd;
}

int cow_match(const struct cow_file *f, const struct cow_file *backing, enum cow_match *out,
	      struct error *err)
{
	char expected[COW_NOTE_MAX], actual[COW_DIGEST_MAX];
	struct cow_journal journal;
	int kept;

	if (cow_header_matches(&f->header, backing->header.size, &backing->stat)) {
		*out = COW_MATCH;
		return 0;
	}
	if (f->header.size != backing->header.size) {
		*out = COW_MATCH_SIZE;
		return 0;
	}
	/* changed by an interrupted commit of this very overlay, which still has all that was written */
	if (cow_journal_get(backing, &journal, err))
		return -1;
	if (cow_journal_names(&journal, f)) {
		*out = COW_MATCH_COMMIT;
		return 0;
	}
	kept = cow_note_get(f->fd, f->path, "backing-digest", expected, err);
	if (kept < 0 || (kept && cow_digest(backing->fd, backing->path, actual, err)))
		return -1;
	*out = !kept ? COW_MATCH_UNKNOWN : str_eq(expected, actual) ? COW_MATCH_COPY : COW_MATCH_CHANGED;
	return 0;
}

static int explain_mismatch(const struct cow_file *f, const struct cow_file *b, enum cow_match match,
			    struct error *err)
{
	if (match == COW_MATCH_SIZE && b->header.format != COW_RAW &&
	    f->header.size == (uint64_t)b->stat.st_size)
		return error_set(err, ERROR_FAILED,
				 "%s takes the COW file %s for a raw image; the kernel does that, "
				 "and shows its guest the COW file's own bytes",
				 f->path, b->path);
	if (match == COW_MATCH_SIZE)
		error_set(err, ERROR_FAILED,
			  "the backing file %s has %" PRIu64 " bytes, but had %" PRIu64
			  " when %s was put on it",
			  b->path, b->header.size, f->header.size, f->path);
	else
		error_set(err, ERROR_FAILED, "the backing file %s was modified since %s was put on it%s",
			  b->path, f->path,
			  match == COW_MATCH_CHANGED ? ": its content is another"
						     : " (or copied without its time)");
	if (match == COW_MATCH_UNKNOWN)
		return error_hint(err,
				  "if its content is still the same: uml-cow rebase --header-only -b %s %s",
				  b->path, f->path);
	return error_hint(err,
			  "only the file as it was repairs that: put a copy of it in its place; over this "
			  "one, %s would show a mixture",
			  f->path);
}

/* Keeps the most telling reason. */
static void remember(struct search *s, int rank, const struct error *why)
{
	if (rank > s->rank) {
		error_copy(s->err, why);
		s->rank = rank;
	}
}

/* The file at path, if it is allowed, can be opened and is the backing file; NULL otherwise, the reason
 * remembered. */
static struct cow_file *try_path(struct search *s, const char *path)
{
	struct error why = ERROR_INIT;
	cleanup_free char *real = file_absolute(path, false, NULL);
	struct cow_file *b = NULL;
	enum cow_match match;
	int fd;

	if (!real)
		return NULL;
	if (!is_allowed(s, path, real)) {
		error_set(&why, ERROR_FAILED,
			  "%s names the backing file %s, which lies outside of the folders allowed",
			  s->file->path, path);
		error_hint(&why, "if you trust this disk: --allow FOLDER");
		remember(s, RANK_FORBIDDEN, &why);
		return NULL;
	}
	fd = open_exactly(real, s->lock);
	if (fd >= 0)
		b = cow_file_attach(fd, real, s->lock, &why);
	else
		error_errno(&why, errno, "cannot open the backing file %s", path);
	if (!b) {
		remember(s, RANK_MISMATCH, &why);
		return NULL;
	}
	if (!cow_match(s->file, b, &match, &why)) {
		if (match <= COW_MATCH_COMMIT)
			return b;
		explain_mismatch(s->file, b, match, &why);
	}
	/* a file of that name elsewhere which does not fit is none of our business */
	if (str_eq(path, s->named))
		remember(s, RANK_MISMATCH, &why);
	cow_file_free(b);
	return NULL;
}

static struct cow_file *try_in(struct search *s, const char *folder, const char *name)
{
	cleanup_free char *path = file_join(NULL, folder, name);

	return path ? try_path(s, path) : NULL;
}

static bool has_digest(const struct search *s, int fd, const char *path, const char *digest)
{
	char text[COW_DIGEST_MAX];
	struct stat st;

	if (cow_digest_noted(fd, path, text))
		return str_eq(text, digest);
	/* a file renamed where notes do not go along with it: one that fits by size and time has its content read */
	return !fstat(fd, &st) && cow_header_matches(&s->file->header, (uint64_t)st.st_size, &st) &&
	       !cow_digest(fd, path, text, NULL) && str_eq(text, digest);
}

static struct cow_file *try_by_digest(struct search *s, const char *folder, const char *digest)
{
	cleanup_dir DIR *dir = opendir(folder);
	struct dirent *entry;

	for (int n = 0; dir && n < SCAN_MAX && (entry = readdir(dir)); n++) {
		cleanup_free char *path = file_join(NULL, folder, entry->d_name);
		cleanup_close int fd = -1;
		struct cow_file *b;

		if (!path || (entry->d_type != DT_REG && entry->d_type != DT_UNKNOWN))
			continue;
		fd = open_exactly(path, COW_LOCK_NONE);
		if (fd < 0 || !has_digest(s, fd, path, digest))
			continue;
		b = try_path(s, path);
		if (b)
			return b;
	}
	return NULL;
}

static struct cow_file *search_elsewhere(struct search *s)
{
	cleanup_free char *copy = str_dup(s->named, NULL);
	const char *name = copy ? basename(copy) : "";
	const struct strv *folders = &s->policy->folders;
	char digest[COW_NOTE_MAX];
	struct cow_file *b = try_in(s, s->own_folder, name);

	for (size_t i = 0; !b && i < folders->count; i++)
		b = try_in(s, folders->items[i], name);
	if (b || cow_note_get(s->file->fd, s->file->path, "backing-digest", digest, NULL) != 1)
		return b;
	b = try_by_digest(s, s->own_folder, digest);
	for (size_t i = 0; !b && i < folders->count; i++)
		b = try_by_digest(s, folders->items[i], digest);
	return b;
}

struct cow_file *cow_resolve(const struct cow_file *f, const struct cow_policy *policy, enum cow_lock lock,
			     struct error *err)
{
	cleanup_free char *copy = str_dup(f->path, err), *own = NULL, *named = NULL;
	struct error why = ERROR_INIT;
	struct search s = {.file = f, .policy = policy, .lock = lock, .err = &why};
	struct cow_file *b;

	own = copy ? str_dup(dirname(copy), err) : NULL;
	if (!own)
		return NULL;
	named = f->header.backing[0] == '/' ? str_dup(f->header.backing, err)
					    : file_join(err, own, f->header.backing);
	if (!named)
		return NULL;
	s.own_folder = own;
	s.named = named;
	s.trusted = cow_note_is_origin(f->fd, f->path, f->header.backing);
	b = try_path(&s, named);
	if (!b)
		b = search_elsewhere(&s);
	if (b)
		return b;
	if (s.rank != RANK_NONE) {
		error_copy(err, &why);
		return NULL;
	}
	error_set(err, ERROR_FAILED,
		  "the backing file %s of %s is not there, nor beside it, nor in an image folder",
		  f->header.backing, f->path);
	error_hint(err, "if it was moved: uml-cow rebase --header-only -b NEW-PLACE %s", f->path);
	return NULL;
}
