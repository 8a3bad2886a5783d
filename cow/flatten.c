/* Flatten: a chain's disk as one raw image. */
#include <string.h>

#include "cow/internal.h"
#include "cow/ops.h"

static int copy_disk(struct cow_chain *chain, struct cow_copier *copier, struct error *err)
{
	for (uint64_t s = 0; s < chain->sectors;) {
		struct cow_extent e;
		uint64_t at = s << COW_SECTOR_SHIFT, n;

		cow_chain_run(chain, s, chain->sectors - s, &e);
		n = e.length << COW_SECTOR_SHIFT;
		if (n > chain->size - at) /* a raw image need not end with a sector */
			n = chain->size - at;
		if (cow_copy(copier, chain->files[e.owner]->fd, cow_chain_offset(chain, &e), at, n, err))
			return error_prefix(err, "flattening %s", chain->files[e.owner]->path);
		s += e.length;
	}
	return 0;
}

int cow_flatten(struct cow_chain *chain, const char *out, bool replace, bool durable, struct error *err)
{
	cleanup_temp struct cow_temp temp = COW_TEMP_INIT;
	struct cow_copier copier;
	int ret;

	if (cow_temp_open(&temp, out, err) || (replace && cow_temp_guard(&temp, chain, err)))
		return -1;
	copier = (struct cow_copier){.out = temp.fd, .fresh = true};
	if (ftruncate(temp.fd, (off_t)chain->size))
		return error_errno(err, errno, "cannot set the size of %s", out);
	ret = copy_disk(chain, &copier, err);
	cow_copier_free(&copier);
	return ret ? -1 : cow_temp_publish(&temp, replace, durable, err);
}
