/*
 * Reading tar. A member is one or more 512-byte headers (pax records and GNU
 * long names come before the one they belong to) and its content, padded to 512.
 * Everything in a header is checked: the checksum, every number, every length; a
 * member's content is never read past its size. See tar(5) of libarchive and pax
 * of POSIX.1-2001 for the fields.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "uml-lab/guest/tar.h"

/* Offsets and widths in a header. */
enum {
	NAME = 0, NAME_SIZE = 100, MODE = 100, UID = 108, GID = 116, ID_SIZE = 8, SIZE = 124, SIZE_SIZE = 12,
	MTIME = 136, CHECKSUM = 148, TYPE = 156, LINK = 157, MAGIC = 257, MAJOR = 329, MINOR = 337,
	PREFIX = 345, PREFIX_SIZE = 155,
};

/* What pax records and long-name members said of the member that follows. */
struct extra {
	bool name, link, size, uid, gid, mtime;
	struct tar_entry value;
};

/* Octal, blank-padded, or base-256 (first byte 0x80). 0, or -1 when it is none or does not fit 63 bits. */
static int parse_number(const uint8_t *p, int width, uint64_t *out)
{
	uint64_t value = 0;
	int i = 0;

	if (p[0] & 0x80) {
		if (p[0] & 0x7f)
			return -1;
		for (i = 1; i < width; i++) {
			if (value >> 55)
				return -1;
			value = value << 8 | p[i];
		}
		*out = value;
		return 0;
	}
	while (i < width && p[i] == ' ')
		i++;
	for (; i < width && p[i] >= '0' && p[i] <= '7'; i++)
		value = value << 3 | (p[i] - '0');
	if (i < width && p[i] != ' ' && p[i] != '\0')
		return -1;
	*out = value;
	return 0;
}

static bool checksum_ok(const uint8_t *h)
{
	uint64_t want;
	uint32_t sum = 0;
	int i;

	for (i = 0; i < TAR_BLOCK; i++)
		sum += i >= CHECKSUM && i < CHECKSUM + 8 ? ' ' : h[i];
	return parse_number(h + CHECKSUM, 8, &want) == 0 && want == sum;
}

static int read_exact(struct tar_reader *t, void *buf, size_t n, struct fault *f)
{
	ssize_t got = t->read(t->arg, buf, n);

	if (got < 0)
		return fault_errno(f, errno, "cannot read the archive");
	return (size_t)got == n ? 0 : fault_set(f, "the archive ends in the middle");
}

/* Drops what is left of the present member. */
static int skip_content(struct tar_reader *t, struct fault *f)
{
	uint8_t buf[4096];
	uint64_t left = t->left + t->padding;
	size_t n;

	while (left) {
		n = left < sizeof(buf) ? left : sizeof(buf);
		if (read_exact(t, buf, n, f) < 0)
			return -1;
		left -= n;
	}
	t->left = t->padding = 0;
	return 0;
}

static void set_content(struct tar_reader *t, uint64_t size)
{
	t->left = size;
	t->padding = -size & (TAR_BLOCK - 1);
}

ssize_t tar_data(struct tar_reader *t, void *buf, size_t n, struct fault *f)
{
	if (n > t->left)
		n = t->left;
	if (!n)
		return 0;
	if (read_exact(t, buf, n, f) < 0)
		return -1;
	t->left -= n;
	return n;
}

/* The whole content of a header member, NUL-terminated, malloc'ed. */
static char *read_extra(struct tar_reader *t, size_t *length, struct fault *f)
{
	char *text;

	if (t->left > TAR_PAX_MAX) {
		fault_set(f, "the archive has an extended header of %llu bytes", (unsigned long long)t->left);
		return NULL;
	}
	*length = t->left;
	text = malloc(*length + 1);
	if (!text) {
		fault_errno(f, ENOMEM, "cannot read the archive");
		return NULL;
	}
	text[*length] = '\0';
	if (tar_data(t, text, *length, f) < 0 || skip_content(t, f) < 0) {
		free(text);
		return NULL;
	}
	return text;
}

static int take_path(char *to, bool *have, const char *value, size_t length, struct fault *f)
{
	if (length >= PATH_MAX || memchr(value, '\0', length))
		return fault_set(f, "the archive has a name that is too long or holds a NUL");
	memcpy(to, value, length);
	to[length] = '\0';
	*have = true;
	return 0;
}

static int take_number(const char *value, uint64_t *out)
{
	char *end;

	if (*value < '0' || *value > '9')
		return -1;
	errno = 0;
	*out = strtoull(value, &end, 10);
	return errno || *end || *out >> 62 ? -1 : 0;
}

/* "1700000000.25": seconds, maybe negative, and a fraction. */
static int take_time(const char *value, struct timespec *out)
{
	char *end;
	long scale = 100000000;

	errno = 0;
	out->tv_sec = strtoll(value, &end, 10);
	out->tv_nsec = 0;
	if (errno || end == value || (*end && *end != '.'))
		return -1;
	if (*end == '.')
		for (end++; *end >= '0' && *end <= '9'; end++, scale /= 10)
			out->tv_nsec += (*end - '0') * scale;
	return *end ? -1 : 0;
}

/* One pax record; value is NUL-terminated besides its length. Unknown keys are none of our business. */
static int take_record(struct extra *x, const char *key, const char *value, size_t length, struct fault *f)
{
	uint64_t number = 0;
	int bad = 0;

	if (!strcmp(key, "path"))
		return take_path(x->value.name, &x->name, value, length, f);
	if (!strcmp(key, "linkpath"))
		return take_path(x->value.link, &x->link, value, length, f);
	if (!strcmp(key, "size")) {
		bad = take_number(value, &x->value.size);
		x->size = true;
	} else if (!strcmp(key, "uid")) {
		bad = take_number(value, &number) || number > UINT32_MAX;
		x->value.uid = number;
		x->uid = true;
	} else if (!strcmp(key, "gid")) {
		bad = take_number(value, &number) || number > UINT32_MAX;
		x->value.gid = number;
		x->gid = true;
	} else if (!strcmp(key, "mtime")) {
		bad = take_time(value, &x->value.mtime);
		x->mtime = true;
	}
	return bad ? fault_set(f, "the archive has a bad pax record '%s'", key) : 0;
}

/* Records are "LENGTH KEY=VALUE\n", LENGTH counting all of it. */
static int parse_pax(struct extra *x, char *text, size_t length, struct fault *f)
{
	char *p = text, *end = text + length, *key, *equals;
	unsigned long n;

	while (p < end) {
		n = strtoul(p, &key, 10);
		if (*p < '0' || *p > '9' || *key != ' ' || n < (size_t)(key - p) + 3 ||
		    n > (size_t)(end - p) || p[n - 1] != '\n')
			return fault_set(f, "the archive has a damaged pax header");
		key++;
		equals = memchr(key, '=', p + n - 1 - key);
		if (!equals)
			return fault_set(f, "the archive has a damaged pax header");
		*equals = '\0';
		p[n - 1] = '\0';
		if (take_record(x, key, equals + 1, p + n - 2 - equals, f) < 0)
			return -1;
		p += n;
	}
	return 0;
}

/* A member that only describes the next one. 1 when it was such, 0 when not, -1 + f. */
static int take_extra(struct tar_reader *t, const uint8_t *h, struct extra *x, struct fault *f)
{
	char type = h[TYPE];
	uint64_t size;
	size_t length;
	char *text;
	int result;

	if (!strchr("xgLK", type) || !type)
		return 0;
	if (parse_number(h + SIZE, SIZE_SIZE, &size) < 0)
		return fault_set(f, "the archive has a damaged header");
	set_content(t, size);
	text = read_extra(t, &length, f);
	if (!text)
		return -1;
	if (type == 'L')
		result = take_path(x->value.name, &x->name, text, strnlen(text, length), f);
	else if (type == 'K')
		result = take_path(x->value.link, &x->link, text, strnlen(text, length), f);
	else
		result = type == 'x' ? parse_pax(x, text, length, f) : 0;
	free(text);
	return result < 0 ? -1 : 1;
}

/* Name of a plain header: PREFIX/NAME in ustar, NAME elsewhere. */
static void header_name(const uint8_t *h, char *out)
{
	const char *prefix = (const char *)h + PREFIX;

	if (!memcmp(h + MAGIC, "ustar\0", 6) && *prefix)
		snprintf(out, PATH_MAX, "%.*s/%.*s", PREFIX_SIZE, prefix, NAME_SIZE, (const char *)h + NAME);
	else
		snprintf(out, PATH_MAX, "%.*s", NAME_SIZE, (const char *)h + NAME);
}

/* 0; 1 for a kind we do not know. */
static int header_kind(char type, const char *name, enum tar_kind *out)
{
	size_t n = strlen(name);

	switch (type) {
	case '\0':
	case '0':
	case '7':
		*out = n && name[n - 1] == '/' ? TAR_FOLDER : TAR_FILE;
		return 0;
	case '1':
		*out = TAR_HARDLINK;
		return 0;
	case '2':
		*out = TAR_SYMLINK;
		return 0;
	case '3':
		*out = TAR_CHARACTER;
		return 0;
	case '4':
		*out = TAR_BLOCK_DEVICE;
		return 0;
	case '5':
		*out = TAR_FOLDER;
		return 0;
	case '6':
		*out = TAR_FIFO;
		return 0;
	}
	return 1;
}

static int parse_header(const uint8_t *h, const struct extra *x, struct tar_entry *e, struct fault *f)
{
	uint64_t mode, uid, gid, mtime, major = 0, minor = 0;

	if (parse_number(h + MODE, ID_SIZE, &mode) < 0 || parse_number(h + UID, ID_SIZE, &uid) < 0 ||
	    parse_number(h + GID, ID_SIZE, &gid) < 0 || parse_number(h + SIZE, SIZE_SIZE, &e->size) < 0 ||
	    parse_number(h + MTIME, SIZE_SIZE, &mtime) < 0 || uid > UINT32_MAX || gid > UINT32_MAX)
		return fault_set(f, "the archive has a damaged header");
	if ((h[TYPE] == '3' || h[TYPE] == '4') &&
	    (parse_number(h + MAJOR, ID_SIZE, &major) < 0 || parse_number(h + MINOR, ID_SIZE, &minor) < 0 ||
	     major > 0xfff || minor > 0xfffff))
		return fault_set(f, "the archive has a device with bad numbers");
	header_name(h, e->name);
	snprintf(e->link, sizeof(e->link), "%.*s", NAME_SIZE, (const char *)h + LINK);
	if (x->name)
		strcpy(e->name, x->value.name);
	if (x->link)
		strcpy(e->link, x->value.link);
	e->mode = mode & 07777;
	e->uid = x->uid ? x->value.uid : uid;
	e->gid = x->gid ? x->value.gid : gid;
	e->size = x->size ? x->value.size : e->size;
	e->mtime = x->mtime ? x->value.mtime : (struct timespec){ .tv_sec = mtime };
	e->major = major;
	e->minor = minor;
	return 0;
}

static bool is_empty_block(const uint8_t *h)
{
	int i;

	for (i = 0; i < TAR_BLOCK; i++)
		if (h[i])
			return false;
	return true;
}

/* A header block: 1, 0 at the end of the archive (an empty block, or nothing more), -1 + f. */
static int read_header(struct tar_reader *t, uint8_t *h, struct fault *f)
{
	ssize_t got;

	if (skip_content(t, f) < 0)
		return -1;
	got = t->read(t->arg, h, TAR_BLOCK);
	if (got < 0)
		return fault_errno(f, errno, "cannot read the archive");
	if (got == 0)
		return 0;
	if (got != TAR_BLOCK)
		return fault_set(f, "the archive ends in the middle");
	if (is_empty_block(h))
		return 0;
	return checksum_ok(h) ? 1 : fault_set(f, "this is no tar archive, or a damaged one");
}

int tar_next(struct tar_reader *t, struct tar_entry *e, struct fault *f)
{
	struct extra x = { 0 };
	uint8_t h[TAR_BLOCK];
	int result;

	for (;;) {
		result = read_header(t, h, f);
		if (result <= 0)
			return result;
		result = take_extra(t, h, &x, f);
		if (result < 0)
			return -1;
		if (result)
			continue;
		if (parse_header(h, &x, e, f) < 0)
			return -1;
		result = header_kind(h[TYPE], e->name, &e->kind);
		/* Links of any kind and folders may state a size that no content follows (pax). */
		if (!result && e->kind != TAR_FILE)
			e->size = 0;
		set_content(t, e->size);
		if (!result)
			return 1;
		memset(&x, 0, sizeof(x));
	}
}
