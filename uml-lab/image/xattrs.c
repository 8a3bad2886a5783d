/*
 * Extended attributes come as they are. ACLs come as text that libarchive has
 * parsed; the kernel's form is a header and eight bytes per entry, little
 * endian, sorted by tag and id (linux/posix_acl_xattr.h), which libext2fs then
 * turns into what lies on disk. Entries for a user or group that the archive
 * names without a number are left out: the host's numbers are not the image's.
 */
#include "uml-lab/image/xattrs.h"

#include <archive.h>
#include <endian.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	int tag;
	uint16_t linux_tag;
} tags[] = {
	{ARCHIVE_ENTRY_ACL_USER_OBJ, ACL_USER_OBJ},   {ARCHIVE_ENTRY_ACL_USER, ACL_USER},
	{ARCHIVE_ENTRY_ACL_GROUP_OBJ, ACL_GROUP_OBJ}, {ARCHIVE_ENTRY_ACL_GROUP, ACL_GROUP},
	{ARCHIVE_ENTRY_ACL_MASK, ACL_MASK},           {ARCHIVE_ENTRY_ACL_OTHER, ACL_OTHER},
};

static uint16_t linux_tag(int tag)
{
	for (size_t i = 0; i < sizeof(tags) / sizeof(tags[0]); i++)
		if (tags[i].tag == tag)
			return tags[i].linux_tag;
	return 0;
}

static int compare(const void *left, const void *right)
{
	const struct posix_acl_xattr_entry *a = left, *b = right;
	uint16_t tag_a = le16toh(a->e_tag), tag_b = le16toh(b->e_tag);
	uint32_t id_a = le32toh(a->e_id), id_b = le32toh(b->e_id);

	if (tag_a != tag_b)
		return tag_a < tag_b ? -1 : 1;
	return id_a < id_b ? -1 : id_a > id_b;
}

static int add(struct image_xattrs *x, const char *name, const void *value, size_t length, struct error *err)
{
	struct image_xattr *items;

	if (x->count == x->room) {
		x->room = x->room ? 2 * x->room : 8;
		items = realloc(x->items, x->room * sizeof(*items));
		if (!items) {
			x->room = x->count;
			return error_oom(err);
		}
		x->items = items;
	}
	x->items[x->count++] = (struct image_xattr){name, value, length};
	return 0;
}

/* The list of one kind, encoded at *out (kept by x); nothing when the entry has none. */
static int add_acl(struct image_xattrs *x, struct archive_entry *e, int kind, void **out, const char *name,
		   struct error *err)
{
	int count = archive_entry_acl_reset(e, kind), type, permset, tag, id;
	struct posix_acl_xattr_header *header;
	struct posix_acl_xattr_entry *entries;
	const char *who;
	int n = 0;

	if (count <= 0)
		return 0;
	if (count > IMAGE_ACL_ENTRIES_MAX)
		return error_set(err, ERROR_FAILED, "an access list of %d entries is too long", count);
	/* Three more: libarchive counts the owner, group and others of an access list apart. */
	header = calloc(1, sizeof(*header) + ((size_t)count + 3) * sizeof(*entries));
	if (!header)
		return error_oom(err);
	free(*out);
	*out = header;
	header->a_version = htole32(POSIX_ACL_XATTR_VERSION);
	entries = (struct posix_acl_xattr_entry *)(header + 1);
	while (n < count + 3 &&
	       archive_entry_acl_next(e, kind, &type, &permset, &tag, &id, &who) == ARCHIVE_OK) {
		bool named = tag == ARCHIVE_ENTRY_ACL_USER || tag == ARCHIVE_ENTRY_ACL_GROUP;

		if (!linux_tag(tag) || (named && id < 0))
			continue;
		entries[n].e_tag = htole16(linux_tag(tag));
		entries[n].e_perm = htole16((uint16_t)(permset & 7));
		entries[n].e_id = htole32(named ? (uint32_t)id : (uint32_t)ACL_UNDEFINED_ID);
		n++;
	}
	qsort(entries, (size_t)n, sizeof(*entries), compare);
	return n ? add(x, name, header, sizeof(*header) + (size_t)n * sizeof(*entries), err) : 0;
}

int image_xattrs_read(struct image_xattrs *x, struct archive_entry *e, struct error *err)
{
	const char *name;
	const void *value;
	size_t length;

	x->count = 0;
	archive_entry_xattr_reset(e);
	while (archive_entry_xattr_next(e, &name, &value, &length) == ARCHIVE_OK)
		if (name && add(x, name, value, length, err))
			return -1;
	if (add_acl(x, e, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, &x->acl[0], "system.posix_acl_access", err))
		return -1;
	return add_acl(x, e, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT, &x->acl[1], "system.posix_acl_default", err);
}

void image_xattrs_release(struct image_xattrs *x)
{
	free(x->items);
	free(x->acl[0]);
	free(x->acl[1]);
	*x = (struct image_xattrs){0};
}
