/* Writing tar: a ustar header, after a pax header when a name or number does not fit into it. */
#include <stdio.h>
#include <string.h>

#include "uml-lab/guest/tar.h"

#define OCTAL_MAX_8 07777777u		/* 7 digits */
#define OCTAL_MAX_12 077777777777ull	/* 11 digits */

struct ustar {
	char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100], magic[6],
		version[2], user[32], group[32], major[8], minor[8], prefix[155], padding[12];
};
_Static_assert(sizeof(struct ustar) == TAR_BLOCK, "a ustar header is one block");

static int write_block(tar_write_fn write, void *arg, struct ustar *h)
{
	const uint8_t *p = (const uint8_t *)h;
	unsigned int sum = 0, i;

	memset(h->checksum, ' ', sizeof(h->checksum));
	for (i = 0; i < sizeof(*h); i++)
		sum += p[i];
	snprintf(h->checksum, sizeof(h->checksum), "%06o", sum & 0777777);
	return write(arg, h, sizeof(*h)) < 0 ? -1 : 0;
}

/* snprintf's NUL is part of each field, as ustar allows. */
static void fill(struct ustar *h, char type, mode_t mode, uid_t uid, gid_t gid, uint64_t size, int64_t mtime)
{
	memset(h, 0, sizeof(*h));
	memcpy(h->magic, "ustar", 6);
	memcpy(h->version, "00", 2);
	h->type = type;
	snprintf(h->mode, sizeof(h->mode), "%07o", (unsigned int)mode & 07777);
	snprintf(h->uid, sizeof(h->uid), "%07o", uid <= OCTAL_MAX_8 ? uid : 0);
	snprintf(h->gid, sizeof(h->gid), "%07o", gid <= OCTAL_MAX_8 ? gid : 0);
	snprintf(h->size, sizeof(h->size), "%011llo", size <= OCTAL_MAX_12 ? (unsigned long long)size : 0ull);
	snprintf(h->mtime, sizeof(h->mtime), "%011llo",
		 mtime >= 0 && (uint64_t)mtime <= OCTAL_MAX_12 ? (unsigned long long)mtime : 0ull);
}

/* "LENGTH KEY=VALUE\n" where LENGTH counts its own digits too. */
static int add_record(struct buffer *b, const char *key, const char *value)
{
	size_t rest = strlen(key) + strlen(value) + 3, length = rest + 1;
	char digits[24];

	while (rest + snprintf(digits, sizeof(digits), "%zu", length) != length)
		length = rest + strlen(digits);
	return buffer_add(b, digits, strlen(digits)) | buffer_add(b, " ", 1) | buffer_add(b, key, strlen(key)) |
	       buffer_add(b, "=", 1) | buffer_add(b, value, strlen(value)) | buffer_add(b, "\n", 1);
}

static int add_number(struct buffer *b, const char *key, unsigned long long value)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", value);
	return add_record(b, key, text);
}

/* The records that this entry needs; times always, for their fraction. */
static int pax_records(const struct tar_entry *e, const char *name, struct buffer *b)
{
	char time[48];
	int bad = 0;

	if (strlen(name) > 100)
		bad |= add_record(b, "path", name);
	if (strlen(e->link) > 100)
		bad |= add_record(b, "linkpath", e->link);
	if (e->uid > OCTAL_MAX_8)
		bad |= add_number(b, "uid", e->uid);
	if (e->gid > OCTAL_MAX_8)
		bad |= add_number(b, "gid", e->gid);
	if (e->size > OCTAL_MAX_12)
		bad |= add_number(b, "size", e->size);
	if (e->mtime.tv_nsec || e->mtime.tv_sec < 0 || (uint64_t)e->mtime.tv_sec > OCTAL_MAX_12) {
		snprintf(time, sizeof(time), "%lld.%09ld", (long long)e->mtime.tv_sec,
			 e->mtime.tv_sec < 0 ? 0 : e->mtime.tv_nsec);
		bad |= add_record(b, "mtime", time);
	}
	return bad;
}

static int write_pax(tar_write_fn write, void *arg, const struct tar_entry *e, const char *name)
{
	struct buffer b = { 0 };
	struct ustar h;
	int result = pax_records(e, name, &b);

	if (result == 0 && b.length) {
		fill(&h, 'x', 0644, 0, 0, b.length, 0);
		strcpy(h.name, "././@PaxHeader");
		if (write_block(write, arg, &h) < 0 || write(arg, b.data, b.length) < 0 ||
		    tar_write_padding(write, arg, b.length) < 0)
			result = -1;
	}
	buffer_free(&b);
	return result;
}

int tar_write_header(tar_write_fn write, void *arg, const struct tar_entry *e)
{
	static const char types[] = {
		[TAR_FILE] = '0',      [TAR_FOLDER] = '5',	 [TAR_SYMLINK] = '2', [TAR_HARDLINK] = '1',
		[TAR_CHARACTER] = '3', [TAR_BLOCK_DEVICE] = '4', [TAR_FIFO] = '6',
	};
	char name[PATH_MAX + 1];
	struct ustar h;

	snprintf(name, sizeof(name), "%s%s", e->name, e->kind == TAR_FOLDER ? "/" : "");
	if (write_pax(write, arg, e, name) < 0)
		return -1;
	fill(&h, types[e->kind], e->mode, e->uid, e->gid, e->size, e->mtime.tv_sec);
	memcpy(h.name, name, strnlen(name, sizeof(h.name)));
	memcpy(h.link, e->link, strnlen(e->link, sizeof(h.link)));
	if (e->kind == TAR_CHARACTER || e->kind == TAR_BLOCK_DEVICE) {
		snprintf(h.major, sizeof(h.major), "%07o", e->major & OCTAL_MAX_8);
		snprintf(h.minor, sizeof(h.minor), "%07o", e->minor & OCTAL_MAX_8);
	}
	return write_block(write, arg, &h);
}

int tar_write_padding(tar_write_fn write, void *arg, uint64_t size)
{
	static const char zeros[TAR_BLOCK];
	size_t n = -size & (TAR_BLOCK - 1);

	return n && write(arg, zeros, n) < 0 ? -1 : 0;
}

int tar_write_end(tar_write_fn write, void *arg)
{
	static const char zeros[2 * TAR_BLOCK];

	return write(arg, zeros, sizeof(zeros)) < 0 ? -1 : 0;
}
