/*
 * What the files of stage-0 and the agent share: a fault (an error small enough
 * for a guest), byte buffers, and a few file helpers. Nothing here includes
 * base/: these sources go into a static program that is pid 1 of a guest.
 */
#ifndef UML_LAB_GUEST_GUEST_H
#define UML_LAB_GUEST_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define GUEST_COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* What failed. Functions that can fail fill it and return -1; f may be NULL where nobody cares. */
struct fault {
	int errnum;		/* errno behind it, 0 when there is none */
	char text[480];		/* what was attempted and why it failed; the errno's text is part of it */
};

/* Sets the text. Returns -1. */
int fault_set(struct fault *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Sets the text followed by ": strerror(errnum)". Returns -1. */
int fault_errno(struct fault *f, int errnum, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Bytes that wait: appended at the end, consumed from the front. */
struct buffer {
	uint8_t *data;
	size_t start, length;	/* what waits: data[start … start + length) */
	size_t size;		/* allocated */
};

/* Makes room for n more bytes at the end and returns where they go; buffer_grow() then counts them in. NULL: no memory. */
void *buffer_reserve(struct buffer *b, size_t n);
void buffer_grow(struct buffer *b, size_t n);
/* Appends a copy. 0, or -1 when there is no memory. */
int buffer_add(struct buffer *b, const void *data, size_t n);
void buffer_consume(struct buffer *b, size_t n);
void buffer_free(struct buffer *b);

/* Tells the kernel's log (seen on the console when it is at hand); for what can't be told over the link. */
void guest_say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* CLOCK_MONOTONIC in milliseconds. */
int64_t guest_now_ms(void);

/* Reads or writes all n bytes, EINTR retried. Bytes (short only at the end of the file), or -1 with errno. */
ssize_t guest_read_full(int fd, void *buf, size_t n);
ssize_t guest_write_full(int fd, const void *buf, size_t n);

/* Reads a file of at most max bytes (longer ones are cut), NUL added; malloc'ed. NULL with errno. */
char *guest_read_file(const char *path, size_t max, size_t *length);
/* Writes into an existing file, as /proc and /sys want it: one write. 0, or -1 with errno. */
int guest_poke(const char *path, const char *text);
/*
 * Gives the file this content unless it has it already: a plain file is replaced by rename (mode and owner kept), anything
 * else (a link, as /etc/resolv.conf often is) written through. 1 when written, 0 when it had it, -1 + f.
 */
int guest_put_file(const char *path, const char *data, size_t length, mode_t mode, struct fault *f);
/* Makes a folder and its missing parents (0755). 0, or -1 with errno; one that is there is fine. */
int guest_mkdir_p(const char *path);

#endif
