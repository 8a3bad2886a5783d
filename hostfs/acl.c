/*
 * POSIX access control lists (acl(5)), which the guest's kernel enforces (FUSE_POSIX_ACL) and we keep: in the
 * attributes that QEMU's 9p server uses, in the kernel's own form (linux/posix_acl_xattr.h, version 2),
 *
 *	user.virtfs.system.posix_acl_access, user.virtfs.system.posix_acl_default
 *
 * They mean nothing to the host. What owner, mask (the group, where there is no mask) and others may do
 * stands in a file's mode too, and the mode is what counts: a list is shown with what the mode says now, so
 * chmod changes the mask, and a chmod on the host does.
 * A list that says no more than a mode is kept as the mode alone. A file with a list is its owner's alone on the host (0600, 0700):
 * there the group's bits would be the mask, and let the host's group in where the guest's is kept out.
 *
 * Files made in a folder with a default list get it, without the maker's umask; so the guest's kernel leaves the umask to us
 * (FUSE_DONT_MASK).
 *
 * Lists found on the host may have been written by anybody: one that is damaged counts as none.
 */
#include <endian.h>
#include <errno.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <string.h>
#include <sys/xattr.h>

#include "hostfs/internal.h"

#define GUEST_ACCESS  "system.posix_acl_access"
#define GUEST_DEFAULT "system.posix_acl_default"
#define ACCESS_NAME   "user.virtfs." GUEST_ACCESS
#define DEFAULT_NAME  "user.virtfs." GUEST_DEFAULT

_Static_assert(sizeof(struct posix_acl_xattr_header) + ACL_ENTRIES_MAX * sizeof(struct posix_acl_xattr_entry) <= ACL_BYTES_MAX,
	       "a list fits in a page, which is the guest's limit");

/* ---- lists ---- */

/* Where an entry of a kind may stand: entries come in this order, those of users and groups any number of times. */
static int rank(unsigned int tag)
{
	switch (tag) {
	case ACL_USER_OBJ:
		return 0;
	case ACL_USER:
		return 1;
	case ACL_GROUP_OBJ:
		return 2;
	case ACL_GROUP:
		return 3;
	case ACL_MASK:
		return 4;
	case ACL_OTHER:
		return 5;
	default:
		return -1;
	}
}

/* As posix_acl_valid() of the kernel's fs/posix_acl.c. */
static bool is_valid(const struct acl *acl)
{
	int last = -1;
	unsigned int seen = 0;

	for (size_t i = 0; i < acl->count; i++) {
		const struct acl_entry *e = &acl->list[i];
		int at = rank(e->tag);
		bool named = e->tag == ACL_USER || e->tag == ACL_GROUP;

		if (at < 0 || at < last || (at == last && !named) || e->perm > 7 || (named && e->id == (uint32_t)ACL_UNDEFINED_ID))
			return false;
		seen |= e->tag;
		last = at;
	}
	if ((seen & (ACL_USER | ACL_GROUP)) && !(seen & ACL_MASK))
		return false;
	return (seen & (ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER)) == (ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER);
}

static int decode(struct acl *acl, const uint8_t *data, size_t size)
{
	struct posix_acl_xattr_header header;
	struct posix_acl_xattr_entry entry;

	acl->count = 0;
	if (size < sizeof(header) || size > ACL_BYTES_MAX || (size - sizeof(header)) % sizeof(entry))
		return -EINVAL;
	memcpy(&header, data, sizeof(header));
	if (le32toh(header.a_version) != POSIX_ACL_XATTR_VERSION || (size - sizeof(header)) / sizeof(entry) > ACL_ENTRIES_MAX)
		return -EOPNOTSUPP;
	for (data += sizeof(header), size -= sizeof(header); size; data += sizeof(entry), size -= sizeof(entry)) {
		memcpy(&entry, data, sizeof(entry));
		acl->list[acl->count++] = (struct acl_entry){
			.tag = le16toh(entry.e_tag), .perm = le16toh(entry.e_perm), .id = le32toh(entry.e_id)};
	}
	if (is_valid(acl))
		return 0;
	acl->count = 0;
	return -EINVAL;
}

/* Bytes put into data. */
static size_t encode(const struct acl *acl, uint8_t data[ACL_BYTES_MAX])
{
	const struct posix_acl_xattr_header header = {htole32(POSIX_ACL_XATTR_VERSION)};
	size_t at = sizeof(header);

	memcpy(data, &header, sizeof(header));
	for (size_t i = 0; i < acl->count; i++) {
		const struct posix_acl_xattr_entry entry = {
			htole16(acl->list[i].tag), htole16(acl->list[i].perm), htole32(acl->list[i].id)};

		memcpy(data + at, &entry, sizeof(entry));
		at += sizeof(entry);
	}
	return at;
}

static struct acl_entry *find(struct acl *acl, unsigned int tag)
{
	for (size_t i = 0; i < acl->count; i++)
		if (acl->list[i].tag == tag)
			return &acl->list[i];
	return NULL;
}

/* The entries that the three digits of a mode stand for: owner, mask or group, others. */
static void mode_entries(struct acl *acl, struct acl_entry *out[3])
{
	struct acl_entry *mask = find(acl, ACL_MASK);

	out[0] = find(acl, ACL_USER_OBJ);
	out[1] = mask ? mask : find(acl, ACL_GROUP_OBJ);
	out[2] = find(acl, ACL_OTHER);
}

static mode_t to_mode(struct acl *acl)
{
	struct acl_entry *e[3];

	mode_entries(acl, e);
	return (mode_t)(e[0]->perm << 6 | e[1]->perm << 3 | e[2]->perm);
}

static void take_mode(struct acl *acl, mode_t mode)
{
	struct acl_entry *e[3];

	mode_entries(acl, e);
	for (int i = 0; i < 3; i++)
		e[i]->perm = (uint16_t)(mode >> (6 - 3 * i) & 7);
}

/* Whether it says more than a mode can. */
static bool is_extended(struct acl *acl)
{
	return acl->count > 3 || find(acl, ACL_MASK);
}

/* ---- where they are kept ---- */

static bool read_list(const struct place *p, const char *name, struct acl *acl)
{
	char path[PLACE_PATH_MAX];
	uint8_t data[ACL_BYTES_MAX];
	ssize_t n;

	place_path(p, path);
	n = p->name ? lgetxattr(path, name, data, sizeof(data)) : getxattr(path, name, data, sizeof(data));
	return n > 0 && decode(acl, data, (size_t)n) == 0;
}

static int write_list(const struct place *p, const char *name, const struct acl *acl)
{
	char path[PLACE_PATH_MAX];
	uint8_t data[ACL_BYTES_MAX];
	size_t n = encode(acl, data);

	place_path(p, path);
	return (p->name ? lsetxattr(path, name, data, n, 0) : setxattr(path, name, data, n, 0)) < 0 ? -errno : 0;
}

static int remove_list(const struct place *p, const char *name)
{
	char path[PLACE_PATH_MAX];

	place_path(p, path);
	return (p->name ? lremovexattr(path, name) : removexattr(path, name)) < 0 && errno != ENODATA ? -errno : 0;
}

/* ---- what the guest asks for ---- */

bool acl_is_name(const char *name, bool *is_default)
{
	*is_default = str_eq(name, GUEST_DEFAULT);
	return *is_default || str_eq(name, GUEST_ACCESS);
}

const char *acl_guest_name(const char *host_name)
{
	return str_eq(host_name, ACCESS_NAME)    ? GUEST_ACCESS
	       : str_eq(host_name, DEFAULT_NAME) ? GUEST_DEFAULT
						 : NULL;
}

bool acl_is_listed(const char *names, size_t size)
{
	return memmem(names, size, ACCESS_NAME, sizeof(ACCESS_NAME));
}

/* A mode that the list gives: whoever is not of the file's group loses its set-group-id bit, as by chmod(2). */
static mode_t mode_given(const struct request *rq, struct acl *acl, const struct fuse_attr *shown)
{
	mode_t mode = (shown->mode & ~0777u) | to_mode(acl);

	return rq->in.uid && rq->in.gid != shown->gid ? mode & ~(mode_t)S_ISGID : mode;
}

static int set_access(struct request *rq, const struct place *p, struct acl *acl)
{
	struct fuse_attr shown;
	struct statx st;
	struct ids ids;
	int result = place_stat(p, &st) < 0 ? -errno : 0;

	if (result == 0)
		result = acl && is_extended(acl) ? write_list(p, ACCESS_NAME, acl) : remove_list(p, ACCESS_NAME);
	if (result < 0)
		return result;
	ids_read(rq->node->source, p, st.stx_mode, &ids);
	ids_show(rq->node->source, &st, &ids, &shown);
	return change_mode(rq->node->source, p, &st, &ids, shown.mode, acl ? mode_given(rq, acl, &shown) : shown.mode);
}

int acl_set(struct request *rq, const struct place *p, bool is_default, const void *data, size_t size)
{
	struct acl acl;
	int result = decode(&acl, data, size);

	if (result < 0)
		return result;
	if (!is_default)
		return set_access(rq, p, &acl);
	return S_ISDIR(rq->node->mode) ? write_list(p, DEFAULT_NAME, &acl) : -EACCES;
}

int acl_remove(struct request *rq, const struct place *p, bool is_default)
{
	return is_default ? remove_list(p, DEFAULT_NAME) : set_access(rq, p, NULL);
}

ssize_t acl_get(struct request *rq, const struct place *p, bool is_default, uint8_t data[ACL_BYTES_MAX])
{
	struct fuse_attr shown;
	struct statx st;
	struct acl acl;
	struct ids ids;

	if (!read_list(p, is_default ? DEFAULT_NAME : ACCESS_NAME, &acl))
		return -ENODATA;
	if (is_default)
		return (ssize_t)encode(&acl, data);
	if (place_stat(p, &st) < 0)
		return -errno;
	ids_read(rq->node->source, p, st.stx_mode, &ids);
	ids_show(rq->node->source, &st, &ids, &shown);
	take_mode(&acl, shown.mode);
	return (ssize_t)encode(&acl, data);
}

/* ---- new files ---- */

mode_t acl_inherit(struct hostfs *fs, const struct node *folder, int dir, mode_t mode, mode_t umask, struct acl *acl)
{
	const struct place parent = {.dir = dir};
	bool *plain = node_folder_plain(fs, folder);

	acl->count = 0;
	if ((plain && *plain) || !folder->source->xattrs || !read_list(&parent, DEFAULT_NAME, acl)) {
		if (plain)
			*plain = true;
		return mode & ~(umask & 0777);
	}
	return (mode & ~0777u) | (mode & to_mode(acl));
}

int acl_give(const struct place *p, mode_t mode, const struct acl *inherited)
{
	struct acl acl = *inherited;
	int result = 0;

	if (!acl.count)
		return 0;
	if (S_ISDIR(mode))
		result = write_list(p, DEFAULT_NAME, &acl);
	if (result < 0 || !is_extended(&acl))
		return result;
	take_mode(&acl, mode);
	return write_list(p, ACCESS_NAME, &acl);
}

bool acl_says_more(const struct acl *acl)
{
	struct acl copy = *acl;

	return copy.count && is_extended(&copy);
}
