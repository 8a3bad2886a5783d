/*
 * Claiming sectors ahead.
 *
 * A flush after a write to sectors that the top did not hold costs two rounds on the host's disk: data, then bitmap. Where a new
 * sector's neighbours are a hole all the way down, the top may hold them as well, without a byte written: its own hole there reads
 * as the zeroes that the layers below would give. So such bits may reach the host's disk at any time; they go with those of the
 * sector that was written, and the neighbours' later writes find their bits set: one round. That is what a file system's journal
 * and free space on a sparse image are.
 *
 * Regions are of 4 MiB and looked at once, the first time that one gets a new sector. Sectors with data, in a layer below or
 * left over in the top by a power cut, stay as they are. Claimed sectors take no space; compact gives them back.
 */
#include "cow/serve_internal.h"

#define REGION_SECTORS ((4u << 20) >> COW_SECTOR_SHIFT)

void serve_claim_reset(struct serve_disk *d)
{
	const struct cow_chain *c = d->chain;

	free(d->claimed);
	/* without memory nothing is claimed, and all else works */
	d->claimed = c && c->files[0]->bitmap ? calloc(1, c->sectors / REGION_SECTORS / 8 + 1) : NULL;
}

/* How many sectors from `start` on, at most max, all lie in holes, or all don't. The top does not own them. */
static uint64_t hole_run(const struct cow_chain *c, uint64_t start, uint64_t max, bool *hole)
{
	const struct cow_file *top = c->files[0];
	struct cow_extent own = {.start = start, .length = max, .owner = 0}, e;
	bool stale, data;

	max = own.length = cow_chain_is_data(c, &own, &stale);
	cow_chain_extent(c, start, max, &e);
	max = cow_chain_is_data(c, &e, &data);
	*hole = !stale && !data && e.owner > 0 && start + max <= top->bitmap_bits;
	return max;
}

void serve_claim_around(struct serve_disk *d, uint64_t start, uint64_t sectors)
{
	struct cow_file *top = d->chain->files[0];
	uint64_t first = start / REGION_SECTORS, last = (start + sectors - 1) / REGION_SECTORS;

	if (!d->claimed)
		return;
	for (uint64_t r = first; r <= last; r++) {
		uint64_t at = r * REGION_SECTORS, end = at + REGION_SECTORS;

		if (d->claimed[r >> 3] >> (r & 7) & 1)
			continue;
		d->claimed[r >> 3] |= (uint8_t)(1u << (r & 7));
		if (end > top->sectors)
			end = top->sectors;
		while (at < end) {
			bool owned, hole = false;
			uint64_t n = cow_file_run(top, at, end - at, &owned);

			if (!owned)
				n = hole_run(d->chain, at, n, &hole);
			if (hole)
				cow_file_set(top, at, n, true);
			at += n;
		}
	}
}
