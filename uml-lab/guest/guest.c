/* The helpers that guest.h lists. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "uml-lab/guest/guest.h"

int fault_set(struct fault *f, const char *fmt, ...)
{
	va_list ap;

	if (!f)
		return -1;
	f->errnum = 0;
	va_start(ap, fmt);
	vsnprintf(f->text, sizeof(f->text), fmt, ap);
	va_end(ap);
	return -1;
}

int fault_errno(struct fault *f, int errnum, const char *fmt, ...)
{
	va_list ap;
	size_t n;

	if (!f)
		return -1;
	f->errnum = errnum;
	va_start(ap, fmt);
	vsnprintf(f->text, sizeof(f->text), fmt, ap);
	va_end(ap);
	n = strlen(f->text);
	snprintf(f->text + n, sizeof(f->text) - n, ": %s", strerror(errnum));
	return -1;
}

void *buffer_reserve(struct buffer *b, size_t n)
{
	size_t size = b->size ? b->size : 4096;
	uint8_t *data;

	if (b->start && b->start + b->length + n > b->size) {
		memmove(b->data, b->data + b->start, b->length);
		b->start = 0;
	}
	if (b->length + n <= b->size - b->start && b->data)
		return b->data + b->start + b->length;
	while (size < b->length + n)
		size *= 2;
	data = realloc(b->data, size);
	if (!data)
		return NULL;
	b->data = data;
	b->size = size;
	return b->data + b->start + b->length;
}

void buffer_grow(struct buffer *b, size_t n)
{
	b->length += n;
}

int buffer_add(struct buffer *b, const void *data, size_t n)
{
	void *to = buffer_reserve(b, n);

	if (!to)
		return -1;
	if (n)
		memcpy(to, data, n);
	b->length += n;
	return 0;
}

void buffer_consume(struct buffer *b, size_t n)
{
	b->start += n;
	b->length -= n;
	if (!b->length)
		b->start = 0;
}

void buffer_free(struct buffer *b)
{
	free(b->data);
	memset(b, 0, sizeof(*b));
}

void guest_say(const char *fmt, ...)
{
	char line[512] = "uml-lab: ";
	size_t n = strlen(line);
	va_list ap;
	int fd;

	va_start(ap, fmt);
	vsnprintf(line + n, sizeof(line) - n, fmt, ap);
	va_end(ap);
	fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	guest_write_full(fd, line, strlen(line));
	close(fd);
}

int64_t guest_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

ssize_t guest_read_full(int fd, void *buf, size_t n)
{
	size_t done = 0;
	ssize_t got;

	while (done < n) {
		got = read(fd, (char *)buf + done, n - done);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		if (!got)
			break;
		done += got;
	}
	return done;
}

ssize_t guest_write_full(int fd, const void *buf, size_t n)
{
	size_t done = 0;
	ssize_t put;

	while (done < n) {
		put = write(fd, (const char *)buf + done, n - done);
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -1;
		done += put;
	}
	return done;
}

/* Reads to the end, for files whose size stat() doesn't know (/proc). */
char *guest_read_file(const char *path, size_t max, size_t *length)
{
	struct buffer b = { 0 };
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	ssize_t got = 0;
	size_t want;
	void *to;

	if (fd < 0)
		return NULL;
	do {
		want = max - b.length < 4096 ? max - b.length : 4096;
		to = buffer_reserve(&b, want + 1);
		got = to && want ? guest_read_full(fd, to, want) : 0;
		if (got > 0)
			buffer_grow(&b, got);
	} while (to && got > 0);
	close(fd);
	if (got < 0 || !to) {
		buffer_free(&b);
		return NULL;
	}
	b.data[b.length] = '\0';
	if (length)
		*length = b.length;
	return (char *)b.data;
}

int guest_poke(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
	int saved;
	ssize_t n;

	if (fd < 0)
		return -1;
	n = write(fd, text, strlen(text));
	saved = errno;
	close(fd);
	errno = saved;
	return n == (ssize_t)strlen(text) ? 0 : -1;
}

/* Writes a new file whole, or none. */
static int write_new(const char *path, int flags, const char *data, size_t length, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | flags, mode);
	int saved;

	if (fd < 0)
		return -1;
	if (guest_write_full(fd, data, length) < 0) {
		saved = errno;
		close(fd);
		errno = saved;
		return -1;
	}
	return close(fd);
}

int guest_put_file(const char *path, const char *data, size_t length, mode_t mode, struct fault *f)
{
	char temporary[PATH_MAX];
	struct stat st;
	bool plain = lstat(path, &st) < 0 || S_ISREG(st.st_mode);
	size_t old_length = 0;
	char *old = guest_read_file(path, length + 1, &old_length);
	bool same = old && old_length == length && !memcmp(old, data, length);

	free(old);
	if (same)
		return 0;
	if (!plain) {
		if (write_new(path, O_TRUNC, data, length, mode) < 0)
			return fault_errno(f, errno, "cannot write %s", path);
		return 1;
	}
	if (lstat(path, &st) < 0)
		st = (struct stat){ .st_mode = mode };
	if (snprintf(temporary, sizeof(temporary), "%s.uml-lab", path) >= (int)sizeof(temporary))
		return fault_errno(f, ENAMETOOLONG, "cannot write %s", path);
	unlink(temporary);
	if (write_new(temporary, O_EXCL, data, length, st.st_mode & 07777) < 0 ||
	    chown(temporary, st.st_uid, st.st_gid) < 0 || chmod(temporary, st.st_mode & 07777) < 0 ||
	    rename(temporary, path) < 0) {
		fault_errno(f, errno, "cannot write %s", path);
		unlink(temporary);
		return -1;
	}
	return 1;
}

int guest_mkdir_p(const char *path)
{
	char copy[PATH_MAX];
	char *slash = copy;

	if (strlen(path) >= sizeof(copy)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(copy, path);
	while ((slash = strchr(slash + 1, '/'))) {
		*slash = '\0';
		if (mkdir(copy, 0755) < 0 && errno != EEXIST)
			return -1;
		*slash = '/';
	}
	return mkdir(copy, 0755) < 0 && errno != EEXIST ? -1 : 0;
}
