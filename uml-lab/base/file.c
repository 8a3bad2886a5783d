#include "uml-lab/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/str.h"

enum transfer { TRANSFER_READ, TRANSFER_WRITE, TRANSFER_PREAD, TRANSFER_PWRITE };

static ssize_t transfer_once(enum transfer how, int fd, char *buf, size_t n, off_t at)
{
	switch (how) {
	case TRANSFER_READ:
		return read(fd, buf, n);
	case TRANSFER_WRITE:
		return write(fd, buf, n);
	case TRANSFER_PREAD:
		return pread(fd, buf, n, at);
	case TRANSFER_PWRITE:
		return pwrite(fd, buf, n, at);
	}
	return 0;
}

/* All n bytes; reading, also fewer to the end of the file. */
static ssize_t transfer(enum transfer how, int fd, char *buf, size_t n, off_t at)
{
	size_t done = 0;

	while (done < n) {
		ssize_t now = transfer_once(how, fd, buf + done, n - done, at + (off_t)done);

		if (now < 0 && errno == EINTR)
			continue;
		if (now < 0)
			return -1;
		if (now == 0 && (how == TRANSFER_WRITE || how == TRANSFER_PWRITE)) {
			errno = EIO; /* a device that takes nothing and says nothing */
			return -1;
		}
		if (now == 0)
			break;
		done += (size_t)now;
	}
	return (ssize_t)done;
}

ssize_t file_read_full(int fd, void *buf, size_t n)
{
	return transfer(TRANSFER_READ, fd, buf, n, 0);
}

ssize_t file_write_full(int fd, const void *buf, size_t n)
{
	return transfer(TRANSFER_WRITE, fd, (char *)buf, n, 0);
}

ssize_t file_pread_full(int fd, void *buf, size_t n, off_t at)
{
	return transfer(TRANSFER_PREAD, fd, buf, n, at);
}

ssize_t file_pwrite_full(int fd, const void *buf, size_t n, off_t at)
{
	return transfer(TRANSFER_PWRITE, fd, (char *)buf, n, at);
}

int file_read_all(const char *path, size_t max, char **data, size_t *length, struct error *err)
{
	cleanup_close int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	cleanup_strbuf struct strbuf text = STRBUF_INIT;
	char chunk[16384];

	if (fd < 0)
		return error_errno(err, errno, "cannot open %s", path);
	for (;;) {
		ssize_t got = file_read_full(fd, chunk, sizeof(chunk));

		if (got < 0)
			return error_errno(err, errno, "cannot read %s", path);
		if (got == 0)
			break;
		if (text.length + (size_t)got > max)
			return error_set(err, ERROR_FAILED, "%s is larger than %zu bytes", path, max);
		strbuf_add(&text, chunk, (size_t)got);
	}
	size_t total = text.length;
	char *all = strbuf_steal(&text, err);

	if (!all)
		return -1;
	*data = all;
	if (length)
		*length = total;
	return 0;
}

/* The folder part of a path: malloc'ed. */
static char *parent_of(const char *path, struct error *err)
{
	const char *slash = strrchr(path, '/');

	if (!slash)
		return str_dup(".", err);
	if (slash == path)
		return str_dup("/", err);
	return str_printf(err, "%.*s", (int)(slash - path), path);
}

static int sync_folder_of(const char *path, struct error *err)
{
	cleanup_free char *folder = parent_of(path, err);
	cleanup_close int fd = -1;

	if (!folder)
		return -1;
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return error_errno(err, errno, "cannot sync folder %s", folder);
	return 0;
}

int file_replace(const char *path, const void *data, size_t length, mode_t mode, struct error *err)
{
	cleanup_free char *temporary = str_printf(err, "%s.tmp-XXXXXX", path);
	cleanup_close int fd = -1;

	if (!temporary)
		return -1;
	fd = mkostemp(temporary, O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, errno, "cannot make a temporary file for %s", path);
	if (file_write_full(fd, data, length) < 0 || fchmod(fd, mode) < 0 || fsync(fd) < 0 ||
	    rename(temporary, path) < 0) {
		error_errno(err, errno, "cannot write %s", path);
		unlink(temporary);
		return -1;
	}
	return 0;
}

int file_write_atomic(const char *path, const void *data, size_t length, mode_t mode, struct error *err)
{
	return file_replace(path, data, length, mode, err) < 0 ? -1 : sync_folder_of(path, err);
}

int file_mkdir_p(const char *path, mode_t mode, struct error *err)
{
	cleanup_free char *copy = str_dup(path, err);

	if (!copy)
		return -1;
	for (char *p = copy + 1;; p++) {
		char kept = *p;

		if (kept != '/' && kept != '\0')
			continue;
		*p = '\0';
		if (mkdir(copy, mode) < 0 && errno != EEXIST)
			return error_errno(err, errno, "cannot make folder %s", copy);
		*p = kept;
		if (!kept)
			break;
	}
	if (!file_is_dir(path))
		return error_set(err, ERROR_FAILED, "cannot make folder %s: it is a file", path);
	return 0;
}

static int remove_at(int parent, const char *name, const char *shown, struct error *err);

/* Empties the folder open as fd, which is taken over and closed. */
static int empty_folder(int fd, const char *shown, struct error *err)
{
	cleanup_dir DIR *dir = fdopendir(fd);
	struct dirent *entry;

	if (!dir) {
		close(fd);
		return error_errno(err, errno, "cannot read folder %s", shown);
	}
	while ((errno = 0, entry = readdir(dir))) {
		if (str_eq(entry->d_name, ".") || str_eq(entry->d_name, ".."))
			continue;
		if (remove_at(dirfd(dir), entry->d_name, shown, err) < 0)
			return -1;
	}
	return errno ? error_errno(err, errno, "cannot read folder %s", shown) : 0;
}

static int remove_at(int parent, const char *name, const char *shown, struct error *err)
{
	int fd;

	if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return error_errno(err, errno, "cannot remove %s in %s", name, shown);
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == EACCES && fchmodat(parent, name, 0700, 0) == 0)
		fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, errno, "cannot open folder %s in %s", name, shown);
	if (empty_folder(fd, name, err) < 0)
		return -1;
	if (unlinkat(parent, name, AT_REMOVEDIR) < 0 && errno != ENOENT)
		return error_errno(err, errno, "cannot remove folder %s in %s", name, shown);
	return 0;
}

int file_remove_tree(const char *path, struct error *err)
{
	return remove_at(AT_FDCWD, path, ".", err);
}

bool file_exists(const char *path)
{
	return access(path, F_OK) == 0;
}

bool file_is_dir(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *file_join(struct error *err, const char *a, const char *b)
{
	bool slash = a[0] && a[strlen(a) - 1] == '/';

	return str_printf(err, "%s%s%s", a, slash ? "" : "/", b);
}

char *file_absolute(const char *path, bool missing_ok, struct error *err)
{
	char *real = realpath(path, NULL);
	cleanup_free char *folder = NULL;
	const char *slash;

	if (real)
		return real;
	if (errno != ENOENT || !missing_ok) {
		error_errno(err, errno, "cannot resolve %s", path);
		return NULL;
	}
	folder = parent_of(path, err);
	if (!folder)
		return NULL;
	real = realpath(folder, NULL);
	if (!real) {
		error_errno(err, errno, "cannot resolve %s", folder);
		return NULL;
	}
	slash = strrchr(path, '/');
	char *joined = file_join(err, real, slash ? slash + 1 : path);

	free(real);
	return joined;
}

int file_lock(const char *path, bool exclusive, int timeout_ms, struct error *err)
{
	cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int operation = (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB;

	if (fd < 0)
		return error_errno(err, errno, "cannot open lock %s", path);
	/* flock() has no time-out of its own: ask again in small steps. */
	for (int waited = 0;; waited += 10) {
		if (flock(fd, operation) == 0)
			return steal_fd(&fd);
		if (errno != EWOULDBLOCK && errno != EINTR)
			return error_errno(err, errno, "cannot lock %s", path);
		if (waited >= timeout_ms)
			break;
		nanosleep(&(struct timespec){.tv_nsec = 10 * 1000 * 1000}, NULL);
	}
	if (timeout_ms <= 0)
		return error_set(err, ERROR_STATE, "%s is locked by another process", path);
	return error_set(err, ERROR_TIMEOUT, "%s was locked by another process for %d ms", path, timeout_ms);
}

uint64_t file_hash(const void *data, size_t length)
{
	const unsigned char *p = data;
	uint64_t hash = 0xcbf29ce484222325u;

	while (length--) {
		hash ^= *p++;
		hash *= 0x100000001b3u;
	}
	return hash;
}

/* ---- Freeing ---- */

/*
 * The kernel holds a file of its own account from now on: a registered one of an io_uring that does nothing else. When the last
 * descriptor of the ring, which this returns, is closed, a worker of the kernel puts it (io_uring.c, io_ring_exit_work()).
 * -1 where that is forbidden or not known.
 */
static int hand_over(int fd)
{
	struct io_uring_params params = {0};
	int ring = (int)syscall(SYS_io_uring_setup, 1, &params);

	if (ring >= 0)
		syscall(SYS_io_uring_register, ring, IORING_REGISTER_FILES, &fd, 1);
	return ring;
}

void file_close_behind(int fd)
{
	struct flock unlock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
	int saved = errno, ring = -1;
	struct stat st;

	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 0 && st.st_blocks > 0) {
		fcntl(fd, F_OFD_SETLK, &unlock);
		ring = hand_over(fd);
	}
	close(fd);
	if (ring >= 0)
		close(ring);
	errno = saved;
}
