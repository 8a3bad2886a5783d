/*
 * virtio-blk requests (virtio 1.2, 5.2.6) on a chain.
 *
 * All requests that wait are taken as a batch: their headers are copied and
 * checked, their data stays where it is in the guest's memory, and each becomes
 * preadv() or pwritev() straight from or to there (io.c). Writes that follow each other
 * on the disk become one. Everything is answered in the order it came; the guest is
 * interrupted once for a batch and those that come right behind it (vring_gather.h), or
 * earlier when much was copied.
 *
 * A request that can't be done is answered with VIRTIO_BLK_S_IOERR; Linux makes
 * an I/O error of every status but UNSUPP, also of a write over the quota. Only one
 * without an address for its status is given back unanswered.
 *
 * DISCARD frees the space of what the top holds. Sectors that it does not hold
 * stay as they are: to hide them would cost a bitmap and gain nothing.
 * WRITE_ZEROES always makes holes, asked to keep the space or not: an overlay is
 * sparse, and never promised space to anybody.
 *
 * Reads that the host's page cache does not hold are asked for all at once, the first time in a batch that one is not there.
 *
 * Syncing ahead: a guest that has one thing made durable after the other writes, waits, flushes, waits. How many batches of writes
 * lie between two flushes is the same again and again, or the same every second time (data and journal, then the commit record). As
 * long as that has come true AHEAD_AFTER times, the batch after which the flush will be asked for is flushed as soon as it is
 * answered, while the guest is still busy with asking. A wrong guess costs the guest one flush's time; nothing else depends on it.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stddef.h>
#include <string.h>

#include "cow/serve_internal.h"

#define BATCHES      64           /* in a row, before the caller gets its turn */
#define BATCH        64           /* requests taken at once */
#define PIECES       4096         /* of guest memory in a batch */
#define JOIN_MAX     (8u << 20)   /* bytes of writes joined to one */
#define CALL_AFTER   (256u << 10) /* bytes after which the guest is told, so that it can go on meanwhile */
#define SEG_MAX      254          /* pieces of a request: UML's queue has 256 entries */
#define ZERO_SEGS    16           /* ranges of a DISCARD or WRITE_ZEROES */
#define ZERO_SECTORS (1u << 22)   /* of each: 2 GiB */
#define BLOCK_EXP    3            /* 8 sectors make a physical block */
#define NO_STATUS    0xff         /* not yet done */
#define AHEAD_AFTER  6            /* guesses that must have been right */

struct request {
	uint32_t type;
	uint64_t sector;
	uint16_t head;
	uint8_t result;  /* VIRTIO_BLK_S_… or NO_STATUS */
	uint8_t *status; /* where the guest wants it; NULL: nowhere */
	bool in;         /* the guest's memory is to be filled, not read */
	struct iovec *data;
	int count;
	size_t bytes;
	uint32_t written; /* bytes of guest memory, status included */
};

/* Guesses when the guest will flush. */
struct ahead {
	unsigned writes;       /* batches of them since the last flush */
	unsigned last, before; /* the same of the flush before this one, and of the one before that */
	unsigned right;	       /* guesses in a row */
};

struct serve_blk {
	struct serve_disk *disk;
	struct request requests[BATCH];
	int count;
	struct iovec pieces[PIECES];
	int used;
	size_t copied; /* since the guest was told */
	unsigned untold; /* requests answered since then */
	bool wrote;	 /* the last of them was a write that went well */
	bool begun;    /* something of this batch had to be read from the host's disk: the rest was asked for */
	struct ahead ahead;
};

struct serve_blk *serve_blk_new(struct serve_disk *d)
{
	struct serve_blk *b = calloc(1, sizeof(*b));

	if (b)
		b->disk = d;
	return b;
}

void serve_blk_free(struct serve_blk *b)
{
	free(b);
}

/* ---- The device ---- */

static void get_config(void *arg, void *out)
{
	struct serve_disk *d = arg;
	const struct virtio_blk_config c = {
		.capacity = htole64(atomic_load(&d->n.size) >> COW_SECTOR_SHIFT),
		.seg_max = htole32(SEG_MAX),
		.blk_size = htole32(COW_SECTOR_SIZE),
		.physical_block_exp = BLOCK_EXP,
		.min_io_size = htole16(1 << BLOCK_EXP),
		.wce = d->write_back,
		.max_discard_sectors = htole32(ZERO_SECTORS),
		.max_discard_seg = htole32(ZERO_SEGS),
		.discard_sector_alignment = htole32(1 << BLOCK_EXP),
		.max_write_zeroes_sectors = htole32(ZERO_SECTORS),
		.max_write_zeroes_seg = htole32(ZERO_SEGS),
		.write_zeroes_may_unmap = 1,
	};

	memcpy(out, &c, sizeof(c));
	serve_disk_config_read(d);
}

/* All that a guest may change is whether its writes wait in a cache. */
static int set_config(void *arg, uint32_t offset, const void *data, uint32_t length)
{
	struct serve_disk *d = arg;

	if (offset != offsetof(struct virtio_blk_config, wce) || length != 1)
		return -1;
	d->write_back = *(const uint8_t *)data & 1;
	return 0;
}

void serve_blk_device(struct serve_disk *d, struct vhost_user_device *device)
{
	device->features = 1ull << VIRTIO_BLK_F_SEG_MAX | 1ull << VIRTIO_BLK_F_BLK_SIZE |
			   1ull << VIRTIO_BLK_F_FLUSH | 1ull << VIRTIO_BLK_F_TOPOLOGY |
			   1ull << VIRTIO_BLK_F_CONFIG_WCE | 1ull << VIRTIO_BLK_F_DISCARD |
			   1ull << VIRTIO_BLK_F_WRITE_ZEROES;
	device->queues = 1;
	device->config_length = sizeof(struct virtio_blk_config);
	device->get_config = get_config;
	device->set_config = set_config;
	device->arg = d;
}

/* ---- Taking requests ---- */

/* Copies the first n bytes of iovecs and moves their start behind them. false: there are fewer. */
static bool take_front(struct iovec **iov, int *count, void *out, size_t n)
{
	uint8_t *p = out;

	while (n > 0 && *count > 0) {
		size_t step = (*iov)->iov_len < n ? (*iov)->iov_len : n;

		memcpy(p, (*iov)->iov_base, step);
		p += step;
		n -= step;
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + step;
		(*iov)->iov_len -= step;
		if ((*iov)->iov_len == 0) {
			(*iov)++;
			(*count)--;
		}
	}
	return n == 0;
}

/* Takes the last byte off the iovecs to write to: the status. */
static void take_status(struct request *r, struct vring_chain *c)
{
	struct iovec *last = c->iov + c->out_count + c->in_count - 1;

	if (c->in_bytes == 0 || c->end_unmapped)
		return;
	r->status = (uint8_t *)last->iov_base + last->iov_len - 1;
	if (--last->iov_len == 0)
		c->in_count--;
	c->in_bytes--;
}

static void parse(struct request *r, struct vring_chain *c)
{
	struct virtio_blk_outhdr h;
	struct iovec *out = c->iov;
	int out_count = c->out_count;

	*r = (struct request){.head = c->head, .result = NO_STATUS, .written = 1};
	take_status(r, c);
	if (c->unmapped || !r->status || !take_front(&out, &out_count, &h, sizeof(h))) {
		r->result = VIRTIO_BLK_S_IOERR;
		return;
	}
	r->type = le32toh(h.type);
	r->sector = le64toh(h.sector);
	r->in = c->in_bytes > 0;
	if (r->in) {
		r->data = c->iov + c->out_count;
		r->count = c->in_count;
		r->bytes = c->in_bytes;
	} else {
		r->data = out;
		r->count = out_count;
		r->bytes = c->out_bytes - sizeof(h);
	}
	/* both, or the wrong one, makes no sense in any of them */
	if ((r->in && out_count > 0) ||
	    (r->bytes > 0 && r->in != (r->type == VIRTIO_BLK_T_IN || r->type == VIRTIO_BLK_T_GET_ID)))
		r->result = VIRTIO_BLK_S_IOERR;
}

/* Fills the batch. 1 when there are any, 0 when not, -1 + err. */
static int take_batch(struct serve_blk *b, struct vring_queue *q, struct error *err)
{
	b->count = b->used = 0;
	while (b->count < BATCH && PIECES - b->used >= VRING_CHAIN_MAX) {
		struct vring_chain c;
		int ret = vring_pop(q, &c, b->pieces + b->used, PIECES - b->used, err);

		if (ret < 0)
			return -1;
		if (ret == 0)
			break;
		b->used += c.out_count + c.in_count;
		parse(&b->requests[b->count++], &c);
	}
	return b->count > 0;
}

/* ---- Doing them ---- */

static void fail(struct serve_blk *b, struct request *r, int error, const char *what)
{
	r->result = VIRTIO_BLK_S_IOERR;
	serve_disk_note(b->disk, "%s at sector %llu: %s", what, (unsigned long long)r->sector,
			strerror(error));
}

/* Whether it lies on the disk, in whole sectors. */
static bool in_range(const struct serve_blk *b, const struct request *r)
{
	uint64_t sectors = b->disk->chain ? cow_chain_size(b->disk->chain) >> COW_SECTOR_SHIFT : 0;

	return r->bytes % COW_SECTOR_SIZE == 0 && r->sector <= sectors &&
	       r->bytes >> COW_SECTOR_SHIFT <= sectors - r->sector;
}

/* Has the reads from r on begun, so that the host's disk works on all of them together and not on one after the other. */
static void begin_reads(struct serve_blk *b, const struct request *r)
{
	for (const struct request *end = b->requests + b->count; r < end; r++)
		if (r->type == VIRTIO_BLK_T_IN && r->result == NO_STATUS && in_range(b, r))
			cow_chain_read_ahead(b->disk->chain, r->bytes, r->sector << COW_SECTOR_SHIFT);
}

static int read_request(struct serve_blk *b, const struct request *r)
{
	struct cow_chain *chain = b->disk->chain;
	uint64_t at = r->sector << COW_SECTOR_SHIFT;

	if (!in_range(b, r))
		return -EINVAL;
	if (!b->begun) {
		int ret = cow_chain_readv_now(chain, r->data, r->count, at);

		if (ret == 0)
			return 0;
		b->begun = true;
		begin_reads(b, r + 1);
	}
	return cow_chain_readv(chain, r->data, r->count, at);
}

static void do_read(struct serve_blk *b, struct request *r)
{
	int ret = read_request(b, r);

	if (ret) {
		fail(b, r, -ret, "read");
		return;
	}
	r->result = VIRTIO_BLK_S_OK;
	r->written = (uint32_t)r->bytes + 1;
	atomic_fetch_add_explicit(&b->disk->n.read_bytes, r->bytes, memory_order_relaxed);
}

/* Writes one request, or several that follow each other: `count` requests, data in iov. */
static void do_writes(struct serve_blk *b, struct request *r, int count, const struct iovec *iov, int pieces,
		      size_t bytes)
{
	struct serve_disk *d = b->disk;
	uint64_t at = r->sector << COW_SECTOR_SHIFT, sectors = bytes >> COW_SECTOR_SHIFT;
	bool owned;
	int ret;

	if (sectors > 0 && cow_file_run(d->chain->files[0], r->sector, sectors, &owned) == sectors && owned)
		sectors = 0; /* nothing new */
	if (!serve_quota_allows(d->serve->quota, d->chain->files[0], at, bytes)) {
		atomic_fetch_add_explicit(&d->n.quota_refused, (uint64_t)count, memory_order_relaxed);
		ret = -EDQUOT;
	} else {
		ret = cow_chain_writev(d->chain, iov, pieces, at);
		if (!ret && sectors > 0)
			serve_claim_around(d, r->sector, sectors);
		serve_fold_written(d, r->sector, bytes >> COW_SECTOR_SHIFT);
	}
	if (!ret && !d->write_back)
		ret = serve_disk_flush(d);
	for (int i = 0; i < count; i++) {
		r[i].result = VIRTIO_BLK_S_OK;
		if (ret)
			fail(b, &r[i], -ret, "write");
	}
	if (!ret)
		atomic_fetch_add_explicit(&d->n.written_bytes, bytes, memory_order_relaxed);
}

/* How many requests from r on are writes each of which begins where the last one ends. */
static int joinable(const struct serve_blk *b, const struct request *r, size_t *bytes, int *pieces)
{
	const struct request *end = b->requests + b->count;
	int n = 0;

	*bytes = 0;
	*pieces = 0;
	for (const struct request *next = r; next < end; next++, n++) {
		if (next->type != VIRTIO_BLK_T_OUT || next->result != NO_STATUS || !in_range(b, next) ||
		    next->sector != r->sector + (*bytes >> COW_SECTOR_SHIFT) ||
		    (n > 0 && *bytes + next->bytes > JOIN_MAX))
			break;
		*bytes += next->bytes;
		*pieces += next->count;
	}
	return n;
}

/* Returns how many requests it dealt with. */
static int do_write(struct serve_blk *b, struct request *r)
{
	struct iovec iov[PIECES];
	size_t bytes;
	int pieces, n = joinable(b, r, &bytes, &pieces), used = 0;

	if (n == 0) {
		fail(b, r, EINVAL, "write");
		return 1;
	}
	if (n == 1) {
		do_writes(b, r, 1, r->data, r->count, bytes);
		return 1;
	}
	/* their iovecs have headers between them */
	for (int i = 0; i < n; i++) {
		memcpy(iov + used, r[i].data, (size_t)r[i].count * sizeof(*iov));
		used += r[i].count;
	}
	do_writes(b, r, n, iov, used, bytes);
	return n;
}

static void do_flush(struct serve_blk *b, struct request *r)
{
	struct ahead *a = &b->ahead;
	int ret = b->disk->chain ? serve_disk_flush(b->disk) : -EIO;

	a->right = a->writes > 0 && a->writes == a->before ? a->right + 1 : 0;
	a->before = a->last;
	a->last = a->writes;
	a->writes = 0;

	r->result = VIRTIO_BLK_S_OK;
	if (ret)
		fail(b, r, -ret, "flush");
	atomic_fetch_add_explicit(&b->disk->n.flushes, 1, memory_order_relaxed);
}

static void do_get_id(struct serve_blk *b, struct request *r)
{
	size_t left = sizeof(b->disk->serial), done = 0;

	for (int i = 0; i < r->count && done < left; i++) {
		size_t n = r->data[i].iov_len < left - done ? r->data[i].iov_len : left - done;

		memcpy(r->data[i].iov_base, b->disk->serial + done, n);
		done += n;
	}
	r->written = (uint32_t)done + 1;
	r->result = VIRTIO_BLK_S_OK;
}

/* Frees what the top holds of a range, which then reads as zeroes; what it does not hold stays. -errno. */
static int discard(struct cow_chain *chain, uint64_t start, uint64_t length)
{
	const struct cow_file *top = chain->files[0];

	while (length > 0) {
		bool owned;
		uint64_t n = cow_file_run(top, start, length, &owned);
		int ret =
			owned ? cow_chain_zero(chain, n << COW_SECTOR_SHIFT, start << COW_SECTOR_SHIFT, true)
			      : 0;

		if (ret)
			return ret;
		start += n;
		length -= n;
	}
	return 0;
}

/* One range of a DISCARD or WRITE_ZEROES. VIRTIO_BLK_S_…, or -errno. */
static int do_range(struct serve_blk *b, bool zeroes, const struct virtio_blk_discard_write_zeroes *range)
{
	uint64_t start = le64toh(range->sector), length = le32toh(range->num_sectors);
	struct cow_chain *chain = b->disk->chain;
	uint64_t sectors = cow_chain_size(chain) >> COW_SECTOR_SHIFT;
	int ret;

	if (le32toh(range->flags) & ~(zeroes ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0u))
		return VIRTIO_BLK_S_UNSUPP;
	if (length > ZERO_SECTORS || start > sectors || length > sectors - start)
		return -EINVAL;
	ret = zeroes ? cow_chain_zero(chain, length << COW_SECTOR_SHIFT, start << COW_SECTOR_SHIFT, true)
		     : discard(chain, start, length);
	serve_fold_written(b->disk, start, length);
	if (!ret)
		atomic_fetch_add_explicit(&b->disk->n.discarded_bytes, length << COW_SECTOR_SHIFT,
					  memory_order_relaxed);
	return ret;
}

static void do_ranges(struct serve_blk *b, struct request *r)
{
	struct virtio_blk_discard_write_zeroes ranges[ZERO_SEGS];
	size_t n = r->bytes / sizeof(ranges[0]);
	bool zeroes = r->type == VIRTIO_BLK_T_WRITE_ZEROES;
	int ret = 0;

	if (!b->disk->chain || r->bytes > sizeof(ranges) || r->bytes % sizeof(ranges[0]) ||
	    !take_front(&r->data, &r->count, ranges, r->bytes))
		ret = -EINVAL;
	for (size_t i = 0; i < n && !ret; i++)
		ret = do_range(b, zeroes, &ranges[i]);
	if (!ret && zeroes && !b->disk->write_back)
		ret = serve_disk_flush(b->disk);
	r->result = ret > 0 ? (uint8_t)ret : VIRTIO_BLK_S_OK;
	if (ret < 0)
		fail(b, r, -ret, zeroes ? "write zeroes" : "discard");
}

/* Deals with the request at r, and with those joined to it; returns how many. */
static int do_request(struct serve_blk *b, struct request *r)
{
	if (r->result != NO_STATUS)
		return 1;
	switch (r->type) {
	case VIRTIO_BLK_T_IN:
		do_read(b, r);
		return 1;
	case VIRTIO_BLK_T_OUT:
		return do_write(b, r);
	case VIRTIO_BLK_T_FLUSH:
		do_flush(b, r);
		return 1;
	case VIRTIO_BLK_T_GET_ID:
		do_get_id(b, r);
		return 1;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		do_ranges(b, r);
		return 1;
	default:
		r->result = VIRTIO_BLK_S_UNSUPP;
		return 1;
	}
}

static void answer(struct serve_blk *b, struct vring_queue *q, const struct request *r)
{
	if (r->result != VIRTIO_BLK_S_OK)
		atomic_fetch_add_explicit(&b->disk->n.errors, 1, memory_order_relaxed);
	if (r->status)
		*r->status = r->result;
	vring_push(q, r->head, r->status ? r->written : 0);
	b->copied += r->bytes;
	b->untold++;
}

static int tell(struct serve_blk *b, struct vring_queue *q, struct error *err)
{
	b->copied = 0;
	b->untold = 0;
	return vhost_user_call(b->disk->guest, q, err);
}

/* After the guest was told: flushes if a flush is what it will ask for next. */
static void sync_ahead(struct serve_blk *b, const struct vring_queue *q)
{
	struct ahead *a = &b->ahead;

	if (!b->wrote)
		return;
	b->wrote = false;
	if (++a->writes != a->before || a->right < AHEAD_AFTER || vring_waiting(q) > 0)
		return;
	/* a failure is found again by the flush that is asked for */
	serve_disk_lock(b->disk);
	serve_disk_flush(b->disk);
	serve_disk_unlock(b->disk);
}

static size_t batch_bytes(const struct serve_blk *b)
{
	size_t n = 0;

	for (int i = 0; i < b->count; i++)
		n += b->requests[i].bytes;
	return n;
}

static int do_batch(struct serve_blk *b, struct vring_queue *q, struct error *err)
{
	const struct request *last = &b->requests[b->count - 1];

	b->begun = false;
	for (int i = 0; i < b->count;) {
		int n = do_request(b, &b->requests[i]);

		for (; n > 0; n--)
			answer(b, q, &b->requests[i++]);
		if (b->copied >= CALL_AFTER && tell(b, q, err))
			return -1;
	}
	atomic_fetch_add_explicit(&b->disk->n.requests, (uint64_t)b->count, memory_order_relaxed);
	atomic_fetch_add_explicit(&b->disk->n.batches, 1, memory_order_relaxed);
	b->wrote = last->type == VIRTIO_BLK_T_OUT && last->result == VIRTIO_BLK_S_OK;
	return 0;
}

/* While the queue is looked at: whether to go on before the guest is told of the last answers. */
static bool gather(struct serve_blk *b, const struct vring_queue *q)
{
	struct vring_gather *g = &b->disk->gather;

	if (!b->disk->look.patience.looking)
		return false;
	if (!g->until)
		vring_gather_begin(g);
	if (b->untold < g->goal && vring_gather_watch(g, q))
		return true;
	vring_gather_end(g, b->untold);
	return false;
}

int serve_blk_run(struct serve_blk *b, struct vring_queue *q, struct error *err)
{
	int ret = 0;

	for (int i = 0; i < BATCHES && (ret = take_batch(b, q, err)) > 0; i++) {
		vring_gather_taken(&b->disk->gather, (unsigned)b->count, batch_bytes(b));
		serve_disk_lock(b->disk);
		ret = do_batch(b, q, err);
		serve_disk_unlock(b->disk);
		if (ret < 0)
			return -1;
		vring_look_answered(&b->disk->look, b->disk->guest, b->disk->gather.large);
		if (gather(b, q))
			continue;
		if (tell(b, q, err))
			return -1;
		sync_ahead(b, q);
		if (vring_waiting(q) < vring_gather_goal(&b->disk->gather))
			break;
	}
	return ret < 0 || tell(b, q, err) ? -1 : 0;
}
