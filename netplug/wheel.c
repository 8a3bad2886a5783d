/*
 * A timer wheel: entries that become due at a tick, in the order of their ticks
 * and, within one, in the order they were added.
 *
 * How it works: WHEEL_LEVELS wheels of WHEEL_SLOTS slots. An entry whose tick
 * differs from now's in the lowest byte only lies in level 0, at that byte; one that
 * differs in the second byte too lies in level 1 at its second byte, and so on.
 * When now comes to a slot of an upper level, its entries are put in again and
 * land further down; no slot down there can hold anything yet, so the order stays. A
 * bitmap for each level finds the next slot in use without walking the empty ones.
 *
 * Adding costs a few instructions, an entry is moved at most WHEEL_LEVELS - 1 times.
 */
#include <string.h>

#include "netplug/netplug_internal.h"

#define WHEEL_BITS 8
#define MASK (WHEEL_SLOTS - 1)

_Static_assert(WHEEL_SLOTS == 1 << WHEEL_BITS, "slots are numbered by a byte of the tick");

void wheel_init(struct wheel *wheel, uint64_t now)
{
	*wheel = (struct wheel){ .now = now };
}

static void put(struct wheel *w, struct wheel_entry *e)
{
	unsigned level = 0;
	unsigned index;
	struct wheel_slot *slot;

	while (level < WHEEL_LEVELS - 1 && e->due >> WHEEL_BITS * (level + 1) != w->now >> WHEEL_BITS * (level + 1))
		level++;
	index = (unsigned)(e->due >> WHEEL_BITS * level) & MASK;
	slot = &w->slots[level][index];
	e->next = NULL;
	if (slot->last)
		slot->last->next = e;
	else
		slot->first = e;
	slot->last = e;
	w->used[level][index / 64] |= UINT64_C(1) << index % 64;
}

void wheel_add(struct wheel *wheel, struct wheel_entry *entry)
{
	if (entry->due <= wheel->now)
		entry->due = wheel->now;
	else if (entry->due - wheel->now > WHEEL_HORIZON)
		entry->due = wheel->now + WHEEL_HORIZON;
	put(wheel, entry);
	wheel->count++;
}

static struct wheel_entry *take(struct wheel *w, unsigned level, unsigned index)
{
	struct wheel_entry *first = w->slots[level][index].first;

	w->slots[level][index] = (struct wheel_slot){ 0 };
	w->used[level][index / 64] &= ~(UINT64_C(1) << index % 64);
	return first;
}

/* The first slot in use from `from` on; -1: none. */
static int next_used(const struct wheel *w, unsigned level, unsigned from)
{
	for (unsigned word = from / 64; word < WHEEL_SLOTS / 64; word++) {
		uint64_t bits = w->used[level][word];

		if (word == from / 64)
			bits &= ~UINT64_C(0) << from % 64;
		if (bits)
			return (int)(word * 64) + __builtin_ctzll(bits);
	}
	return -1;
}

/* The tick at which the next slot in use begins, and its level. False when there is none. */
static bool next_slot(const struct wheel *w, unsigned *level, uint64_t *tick)
{
	for (unsigned l = 0; l < WHEEL_LEVELS; l++) {
		unsigned shift = WHEEL_BITS * l;
		unsigned here = (unsigned)(w->now >> shift) & MASK;
		uint64_t base = w->now >> shift >> WHEEL_BITS << WHEEL_BITS;
		/* Level 0 may hold what is due now; above, now's own slot has been emptied. */
		int index = here + (l > 0) < WHEEL_SLOTS ? next_used(w, l, here + (l > 0)) : -1;

		if (index < 0 && l == WHEEL_LEVELS - 1) {	/* the last wheel goes round */
			base += WHEEL_SLOTS;
			index = next_used(w, l, 0);
		}
		if (index < 0)
			continue;
		*level = l;
		*tick = (base + (unsigned)index) << shift;
		return true;
	}
	return false;
}

bool wheel_next(const struct wheel *wheel, uint64_t *tick)
{
	unsigned level;

	return wheel->count && next_slot(wheel, &level, tick);
}

struct wheel_entry *wheel_advance(struct wheel *w, uint64_t now)
{
	unsigned level;
	uint64_t tick;

	while (w->count && next_slot(w, &level, &tick) && tick <= now) {
		struct wheel_entry *e, *next;

		w->now = tick;
		e = take(w, level, (unsigned)(tick >> WHEEL_BITS * level) & MASK);
		if (!level) {
			for (next = e; next; next = next->next)
				w->count--;
			return e;
		}
		for (; e; e = next) {
			next = e->next;
			put(w, e);
		}
	}
	if (now > w->now)
		w->now = now;
	return NULL;
}
