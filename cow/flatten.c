/*
 * Flatten: a chain's disk as one raw image, in pieces (pieces.c). The chain is only read.
 */
#include <fcntl.h>

#include "cow/internal.h"
#include "cow/ops.h"

struct flatten {
	const struct cow_chain *chain;
	int out;
	bool durable;
	struct cow_ahead ahead;
};

/*
 * Asks the disk for some pieces after the one at hand: the kernel's own reading
 * ahead knows one reader that goes through one file, not several that change files.
 */
static void read_ahead(struct flatten *f, struct cow_copier *copier, uint64_t at)
{
	const struct cow_chain *chain = f->chain;
	uint64_t s, until;
	struct cow_extent e;

	if (!cow_ahead(&f->ahead, at, chain->sectors, &s, &until))
		return;
	for (; s < until; s += e.length) {
		cow_chain_run(chain, s, until - s, &e);
		cow_read_ahead(copier, chain->files[e.owner]->fd, cow_chain_offset(chain, &e),
			       e.length << COW_SECTOR_SHIFT);
	}
}

static int copy_piece(void *arg, struct cow_copier *copier, uint64_t start, uint64_t end, struct error *err)
{
	struct flatten *f = arg;
	const struct cow_chain *chain = f->chain;

	copier->out = f->out;
	copier->fresh = true;
	if (copier->no_clone) /* blocks that are shared are not read */
		read_ahead(f, copier, start);
	for (uint64_t s = start; s < end;) {
		struct cow_extent e;
		uint64_t at = s << COW_SECTOR_SHIFT, n;

		cow_chain_run(chain, s, end - s, &e);
		n = e.length << COW_SECTOR_SHIFT;
		if (n > chain->size - at) /* a raw image need not end with a sector */
			n = chain->size - at;
		if (cow_copy(copier, chain->files[e.owner]->fd, cow_chain_offset(chain, &e), at, n, err))
			return error_prefix(err, "flattening %s", chain->files[e.owner]->path);
		s += e.length;
	}
	/* begun, not waited for; the fsync at the end also finds what went wrong */
	if (f->durable)
		sync_file_range(f->out, (off_t)(start << COW_SECTOR_SHIFT), (off_t)((end - start) << COW_SECTOR_SHIFT),
				SYNC_FILE_RANGE_WRITE);
	return 0;
}

int cow_flatten(struct cow_chain *chain, const char *out, bool replace, bool durable, struct error *err)
{
	cleanup_temp struct cow_temp temp = COW_TEMP_INIT;
	struct cow_header header;
	struct flatten f = {.chain = chain, .durable = durable};

	if (cow_temp_open(&temp, out, err) || (replace && cow_temp_guard(&temp, chain, err)))
		return -1;
	if (ftruncate(temp.fd, (off_t)chain->size))
		return error_errno(err, errno, "cannot set the size of %s", out);
	f.out = temp.fd;
	if (cow_in_pieces(chain->sectors, copy_piece, &f, err))
		return -1;
	/* of a disk whose guest made it look like one of ours */
	if (cow_header_read(temp.fd, &header, NULL) != 0 && cow_note_raw(temp.fd, out, err))
		return -1;
	return cow_temp_publish(&temp, replace, durable, err);
}
