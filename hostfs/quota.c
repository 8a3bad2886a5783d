/*
 * What a share may take on the host: `quota` bytes in all, `max_file_size` for one file.
 *
 * Counted are the blocks of everything below the share, when they are needed
 * first, then kept by looking at files before and after they are changed. What
 * is changed on the host meanwhile is not seen; so before a write is refused, all
 * is counted again, at most every RECOUNT_MS. The walk is bounded by WALK_MS and
 * WALK_ENTRIES; what it did not reach counts nothing.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "hostfs/internal.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"
#include "uml-lab/base/loop.h"

#define RECOUNT_MS   5000
#define WALK_MS	     3000
#define WALK_ENTRIES 1000000
#define WALK_DEPTH   200
#define BLOCK	     512u

struct count {
	uint64_t bytes, entries;
	int64_t until_ms;
};

/* Takes over fd. */
static void count_folder(const struct source *s, int fd, int depth, struct count *c)
{
	cleanup_dir DIR *dir = fdopendir(fd);
	struct dirent *e;

	if (!dir) {
		close(fd);
		return;
	}
	while ((e = readdir(dir)) && c->entries < WALK_ENTRIES && loop_now_ms() < c->until_ms) {
		struct statx st;
		int below;

		if (str_eq(e->d_name, ".") || str_eq(e->d_name, "..") ||
		    statx(dirfd(dir), e->d_name, AT_SYMLINK_NOFOLLOW, STATX_WANTED, &st) < 0)
			continue;
		c->entries++;
		/* Each name of a file with several takes its part. */
		c->bytes += st.stx_blocks * BLOCK / (S_ISDIR(st.stx_mode) || !st.stx_nlink ? 1 : st.stx_nlink);
		if (!S_ISDIR(st.stx_mode) || depth == WALK_DEPTH || (s->mount && st.stx_mnt_id != s->mount))
			continue;
		below = openat(dirfd(dir), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (below >= 0)
			count_folder(s, below, depth + 1, c);
	}
}

static void count_all(struct source *s)
{
	struct count c = {.until_ms = loop_now_ms() + WALK_MS};
	int fd = source_resolve(s, "", O_RDONLY | O_DIRECTORY);

	if (fd >= 0)
		count_folder(s, fd, 0, &c);
	if (c.entries >= WALK_ENTRIES || loop_now_ms() >= c.until_ms)
		log_warn("share %s: too many files to count all of them for its quota", s->share->name);
	s->used = c.bytes;
	s->counted = true;
	s->counted_ms = loop_now_ms();
}

int quota_check(struct source *s, uint64_t more)
{
	uint64_t quota = s->share->quota;

	if (!quota)
		return 0;
	if (!s->counted)
		count_all(s);
	if (s->used <= quota && more <= quota - s->used)
		return 0;
	if (loop_now_ms() - s->counted_ms >= RECOUNT_MS)
		count_all(s);
	return s->used <= quota && more <= quota - s->used ? 0 : -EDQUOT;
}

int quota_check_write(struct source *s, int fd, uint64_t offset, uint64_t n)
{
	uint64_t limit = s->share->max_file_size, blocks;
	struct stat st;

	if (limit && (offset > limit || n > limit - offset))
		return -EFBIG;
	if (!s->share->quota || quota_check(s, n) == 0)
		return 0;
	/* Over what is there already nothing more is taken, unless there are holes. */
	if (fstat(fd, &st) < 0)
		return -errno;
	blocks = (uint64_t)st.st_blocks * BLOCK;
	return offset + n <= (uint64_t)st.st_size && blocks >= (uint64_t)st.st_size ? 0 : -EDQUOT;
}

void quota_add(struct source *s, int64_t bytes)
{
	if (!s->counted)
		return;
	s->used = bytes < 0 && (uint64_t)-bytes > s->used ? 0 : s->used + (uint64_t)bytes;
}

uint64_t quota_size(struct source *s, int fd)
{
	struct stat st;

	if (!s->share->quota || fstat(fd, &st) < 0)
		return 0;
	return (uint64_t)st.st_blocks * BLOCK;
}

void quota_statfs(struct source *s, struct fuse_kstatfs *st)
{
	uint64_t total, left;

	if (!s->share->quota || !st->frsize)
		return;
	if (!s->counted)
		count_all(s);
	total = s->share->quota / st->frsize;
	left = s->used < s->share->quota ? (s->share->quota - s->used) / st->frsize : 0;
	st->blocks = total;
	st->bfree = left < st->bfree ? left : st->bfree;
	st->bavail = left < st->bavail ? left : st->bavail;
}
