/* Layout of COW headers on disk, for libcow's own files. Source: arch/um/drivers/cow_user.c. */
#ifndef COW_FORMAT_H
#define COW_FORMAT_H

#include "cow/cow.h"

#define COW_ALIGNMENT  4096 /* what the kernel writes: PAGE_SIZE (ubd_kern.c, ubd_open_dev()) */
#define COW_V3_SIZE    4128
#define COW_HEADER_MAX 4136 /* the largest of all versions: broken V3 with its tail padding */

/* Fills *h (places included) for a new V3 file. -1 when the path is too long or the disk too large. */
int cow_header_init(struct cow_header *h, const char *backing, uint64_t size, uint32_t mtime,
		    struct error *err);

/* Encodes a V3 header into COW_V3_SIZE bytes. */
void cow_header_encode(const struct cow_header *h, uint8_t *out);

/* Sectors of the disk: the kernel rounds the size up (ubd_kern.c, ROUND_BLOCK). */
static inline uint64_t cow_sectors(uint64_t size)
{
	return (size + COW_SECTOR_SIZE - 1) >> COW_SECTOR_SHIFT;
}

/* Length of the file that a header describes: what a complete COW file has at least. */
static inline uint64_t cow_file_length(const struct cow_header *h)
{
	return h->data_offset + h->size;
}

#endif
