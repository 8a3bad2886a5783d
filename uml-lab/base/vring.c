/*
 * Split virtqueues from the device's side.
 *
 * The guest writes the descriptor table and the available ring, we the used
 * ring; all of it is shared memory. A descriptor is copied before it is looked
 * at, so it cannot change between check and use. The data that it points to may
 * change at any time, which is the guest's affair.
 *
 * A loop in a chain is found by counting: no chain has more than VRING_CHAIN_MAX
 * descriptors. (The standard says: no more than the queue has entries. Linux'
 * virtio_blk goes over that with indirect tables if a device allows so many
 * segments, so the table's own size counts there.)
 *
 * UML does not share the part of its memory that holds the kernel's own image
 * (virtio_uml.c, vhost_user_set_mem_table()). On 7.2 the page of zeroes lies in it, and is what a guest sends when it
 * writes memory that nobody has touched yet (seen there with O_DIRECT; 6.1 and 6.12 allocate that page). So pieces to
 * read from below the shared memory are zeroes, as long as all of them lie in one and the same page.
 *
 * Calls and kicks are suppressed by event index (2.7.7, 2.7.10) where
 * negotiated, else by flags. Both need a full barrier between publishing an index and
 * reading what the other side wants.
 */
#include "uml-lab/base/vring.h"

#include <linux/virtio_ring.h>
#include <string.h>

#define PAGE 4096

static uint16_t load16(const uint16_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static void store16(uint16_t *p, uint16_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELEASE);
}

/* The event fields lie behind the rings (vring_used_event(), vring_avail_event()). */
static uint16_t *used_event(const struct vring_queue *q)
{
	return &q->avail->ring[q->size];
}

static uint16_t *avail_event(const struct vring_queue *q)
{
	return (uint16_t *)&q->used->ring[q->size];
}

static const struct vring_region *find(const struct vring_memory *m, uint64_t at, bool user)
{
	for (unsigned i = 0; i < m->count; i++) {
		const struct vring_region *r = &m->regions[i];

		if (at - (user ? r->user : r->guest) < r->length)
			return r;
	}
	return NULL;
}

void *vring_memory_at(const struct vring_memory *m, uint64_t guest, uint64_t length)
{
	const struct vring_region *r = find(m, guest, false);

	return r && length <= r->length - (guest - r->guest) ? r->host + (guest - r->guest) : NULL;
}

void *vring_memory_at_user(const struct vring_memory *m, uint64_t user, uint64_t length)
{
	const struct vring_region *r = find(m, user, true);

	return r && length <= r->length - (user - r->user) ? r->host + (user - r->user) : NULL;
}

int vring_start(struct vring_queue *q, struct error *err)
{
	uint64_t n = q->size;

	q->usable = false;
	if (n == 0 || n > VRING_SIZE_MAX || (n & (n - 1)))
		return error_set(err, ERROR_FAILED, "queue %u of %u entries", q->index, q->size);
	if (q->desc_at % 16 || q->avail_at % 2 || q->used_at % 4)
		return error_set(err, ERROR_FAILED, "queue %u at an odd address", q->index);
	/* each with the event field behind it */
	q->desc = vring_memory_at_user(q->memory, q->desc_at, n * sizeof(struct vring_desc));
	q->avail = vring_memory_at_user(q->memory, q->avail_at, sizeof(struct vring_avail) + (n + 1) * 2);
	q->used = vring_memory_at_user(q->memory, q->used_at,
				       sizeof(struct vring_used) + n * sizeof(struct vring_used_elem) + 2);
	if (!q->desc || !q->avail || !q->used)
		return error_set(err, ERROR_FAILED, "queue %u lies outside the guest's memory", q->index);
	/* memory may be mapped from an odd place of the front-end's file */
	if ((uintptr_t)q->desc % 16 || (uintptr_t)q->avail % 2 || (uintptr_t)q->used % 4)
		return error_set(err, ERROR_FAILED, "queue %u at an odd address", q->index);
	q->next_used = q->called = load16(&q->used->idx);
	q->zeroes_at = 0;
	q->broken = false;
	q->usable = true;
	return 0;
}

static int break_ring(struct vring_queue *q, struct error *err, const char *why)
{
	q->broken = true;
	q->usable = false;
	return error_set(err, ERROR_FAILED, "the guest broke queue %u: %s", q->index, why);
}

unsigned vring_waiting(const struct vring_queue *q)
{
	return q->usable ? (uint16_t)(load16(&q->avail->idx) - q->next_avail) : 0;
}

/* Whether a range can only be the guest's page of zeroes: see above. */
static bool is_zeroes(struct vring_queue *q, uint64_t at, uint64_t length)
{
	uint64_t page = at / PAGE * PAGE;

	if (page == 0 || length > page + PAGE - at || (q->zeroes_at && q->zeroes_at != page))
		return false;
	for (unsigned i = 0; i < q->memory->count; i++)
		if (q->memory->regions[i].guest <= page)
			return false;
	q->zeroes_at = page;
	return true;
}

/* Adds the pieces of a guest range to a chain; more than one where it crosses regions. false: no room. */
static bool add_range(struct vring_queue *q, struct vring_chain *c, uint64_t at, uint64_t length, bool in, int max)
{
	static const uint8_t zeroes[PAGE];
	int first = in ? c->out_count : 0, *count = in ? &c->in_count : &c->out_count;

	c->end_unmapped = false;
	while (length > 0) {
		const struct vring_region *r = find(q->memory, at, false);
		struct iovec *last = *count ? &c->iov[first + *count - 1] : NULL;
		uint64_t n;
		uint8_t *p;

		if (!r && (in || !is_zeroes(q, at, length))) {
			c->unmapped = c->end_unmapped = true;
			return true;
		}
		p = r ? r->host + (at - r->guest) : (uint8_t *)zeroes; /* a piece to read from: nobody writes there */
		n = r && r->length - (at - r->guest) < length ? r->length - (at - r->guest) : length;
		if (last && (uint8_t *)last->iov_base + last->iov_len == p) {
			last->iov_len += n;
		} else {
			if (c->out_count + c->in_count == max)
				return false;
			c->iov[first + (*count)++] = (struct iovec){p, n};
		}
		*(in ? &c->in_bytes : &c->out_bytes) += n;
		at += n;
		length -= n;
	}
	return true;
}

/* A descriptor as it is now: what is checked is what is used. */
static struct vring_desc fetch(const struct vring_desc *at)
{
	struct vring_desc d;

	memcpy(&d, at, sizeof(d));
	__asm__ volatile("" : "+m"(d) : : "memory");
	return d;
}

/* A table of descriptors that is being followed. */
struct walk {
	const struct vring_desc *table;
	unsigned n, seen;
	bool indirect;
};

/* Goes on in the indirect table that a descriptor of the ring's own table names. NULL, or what is wrong. */
static const char *enter(const struct vring_queue *q, struct walk *w, const struct vring_desc *d)
{
	if (w->indirect || (d->flags & VRING_DESC_F_NEXT))
		return "an indirect descriptor where none may be";
	if (d->len == 0 || d->len % sizeof(*d) || d->len / sizeof(*d) > VRING_CHAIN_MAX)
		return "an indirect table of an odd size";
	w->table = vring_memory_at(q->memory, d->addr, d->len);
	w->n = d->len / sizeof(*d);
	w->seen = 0;
	w->indirect = true;
	return w->table ? NULL : "an indirect table outside the memory";
}

/* Collects a request's pieces. NULL, or what is wrong with it. */
static const char *follow(struct vring_queue *q, struct vring_chain *c, unsigned i, int max)
{
	struct walk w = {.table = q->desc, .n = q->size};
	bool writes = false;

	for (;;) {
		struct vring_desc d;

		if (i >= w.n)
			return "a descriptor's number is beyond the table";
		if (w.seen++ == w.n)
			return "a chain without end";
		d = fetch(&w.table[i]);
		if (d.flags & VRING_DESC_F_INDIRECT) {
			const char *wrong = enter(q, &w, &d);

			if (wrong)
				return wrong;
			i = 0;
			continue;
		}
		if (writes && !(d.flags & VRING_DESC_F_WRITE))
			return "a descriptor to read behind one to write";
		writes = d.flags & VRING_DESC_F_WRITE;
		if (!add_range(q, c, d.addr, d.len, writes, max))
			return "a request of too many pieces";
		if (!(d.flags & VRING_DESC_F_NEXT))
			return NULL;
		i = d.next;
	}
}

int vring_again(struct vring_queue *q, uint16_t head, struct vring_chain *chain, struct iovec *iov, int max, struct error *err)
{
	const char *wrong;

	*chain = (struct vring_chain){.head = head, .iov = iov};
	wrong = follow(q, chain, head, max);
	return wrong ? break_ring(q, err, wrong) : 0;
}

int vring_pop(struct vring_queue *q, struct vring_chain *chain, struct iovec *iov, int max, struct error *err)
{
	unsigned waiting = vring_waiting(q);
	uint16_t head;

	if (waiting == 0)
		return 0;
	if (waiting > q->size)
		return break_ring(q, err, "more requests than it has entries");
	head = __atomic_load_n(&q->avail->ring[q->next_avail & (q->size - 1)], __ATOMIC_RELAXED);
	q->next_avail++;
	return vring_again(q, head, chain, iov, max, err) < 0 ? -1 : 1;
}

void vring_fill(struct vring_queue *q, unsigned i, uint16_t head, uint32_t written)
{
	struct vring_used_elem *e = &q->used->ring[(uint16_t)(q->next_used + i) & (q->size - 1)];

	__atomic_store_n(&e->id, head, __ATOMIC_RELAXED);
	__atomic_store_n(&e->len, written, __ATOMIC_RELAXED);
}

void vring_publish(struct vring_queue *q, unsigned count)
{
	q->next_used = (uint16_t)(q->next_used + count);
	store16(&q->used->idx, q->next_used);
}

void vring_push(struct vring_queue *q, uint16_t head, uint32_t written)
{
	vring_fill(q, 0, head, written);
	vring_publish(q, 1);
}

void vring_unpop(struct vring_queue *q, unsigned n)
{
	q->next_avail = (uint16_t)(q->next_avail - n);
}

void vring_resume(struct vring_queue *q)
{
	q->next_avail = q->next_used = load16(&q->used->idx);
	/* Whichever answer the guest waits for: it is among the last that the ring holds. */
	q->called = (uint16_t)(q->next_used - q->size);
}

bool vring_wants_call(struct vring_queue *q)
{
	uint16_t old = q->called;

	if (old == q->next_used)
		return false;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	q->called = q->next_used;
	if (q->event_idx) {
		q->event_then = load16(used_event(q));
		return vring_need_event(q->event_then, q->next_used, old);
	}
	return !(load16(&q->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
}

bool vring_unseen(const struct vring_queue *q)
{
	uint16_t event;

	if (!q->usable || !q->event_idx)
		return false;
	event = load16(used_event(q));
	/* Linux writes there when it begins to look, and when it has */
	return event == q->event_then && event != q->next_used;
}

void vring_want_kicks(struct vring_queue *q, bool wanted)
{
	if (!q->usable)
		return;
	if (q->event_idx) {
		/* an index that is not reached soon stands for none */
		store16(avail_event(q), wanted ? q->next_avail : (uint16_t)(q->next_avail - 1));
	} else {
		store16(&q->used->flags, wanted ? 0 : VRING_USED_F_NO_NOTIFY);
	}
	if (wanted)
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

bool vring_want_kick_at(struct vring_queue *q, unsigned n)
{
	if (!q->usable)
		return false;
	if (!q->event_idx)
		n = 1;
	vring_want_kicks(q, true);
	if (n > 1) {
		store16(avail_event(q), (uint16_t)(q->next_avail + n - 1));
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	}
	return vring_waiting(q) >= n;
}

uint16_t vring_seen(const struct vring_queue *q)
{
	return q->usable ? load16(&q->avail->idx) : 0;
}

bool vring_want_more(struct vring_queue *q, uint16_t seen)
{
	if (!q->usable)
		return false;
	if (q->event_idx)
		store16(avail_event(q), seen);
	else
		store16(&q->used->flags, 0);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return load16(&q->avail->idx) != seen;
}
