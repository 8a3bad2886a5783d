/* Extended attributes and POSIX ACLs of an archive's entry, as the kernel would name and encode them. */
#ifndef UML_LAB_IMAGE_XATTRS_H
#define UML_LAB_IMAGE_XATTRS_H

#include <archive_entry.h>
#include <stddef.h>
#include <stdint.h>

#include "uml-lab/base/error.h"
#include "uml-lab/image/fs.h"

/* Most ACL entries one list may have: what fits a 4 KiB attribute block. */
#define IMAGE_ACL_ENTRIES_MAX 500

struct image_xattrs {
	struct image_xattr *items; /* names and values belong to the entry, or to acl */
	size_t count, room;
	void *acl[2]; /* access, default: encoded */
};

/* Collects those of an entry; valid until the next call or the entry's end. */
int image_xattrs_read(struct image_xattrs *x, struct archive_entry *e, struct error *err);
void image_xattrs_release(struct image_xattrs *x);

#endif
