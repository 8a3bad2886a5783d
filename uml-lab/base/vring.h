/*
 * Split virtqueues, seen from the device (virtio 1.2, 2.7), in memory that a
 * guest shares with us and changes whenever it likes.
 *
 * The guest is hostile: each field is read once, then checked; no index, address
 * or length is used before it was. What can be answered with an error is left
 * to the device (an address outside the memory: `unmapped`); what leaves no
 * answer (an impossible index, an endless chain) breaks the ring, which the
 * guest then finds standing still.
 */
#ifndef UML_LAB_BASE_VRING_H
#define UML_LAB_BASE_VRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "uml-lab/base/error.h"

struct vring_desc; /* as <linux/virtio_ring.h> lays them out */
struct vring_avail;
struct vring_used;

#define VRING_SIZE_MAX    1024 /* entries of a queue; UML has 256 */
#define VRING_CHAIN_MAX   1024 /* descriptors of one request, in the table or an indirect one */
#define VRING_REGIONS_MAX 8

/* A piece of the guest's memory, mapped here. */
struct vring_region {
	uint64_t guest;  /* physical address, as descriptors have it */
	uint64_t user;   /* address in the front-end, as SET_VRING_ADDR has it */
	uint64_t length; /* bytes */
	uint8_t *host;
	void *map; /* what to unmap */
	size_t map_length;
};

struct vring_memory {
	struct vring_region regions[VRING_REGIONS_MAX];
	unsigned count;
};

/* Where a guest-physical range lies here; NULL when it isn't wholly inside one region. */
void *vring_memory_at(const struct vring_memory *m, uint64_t guest, uint64_t length);
/* The same for an address of the front-end. */
void *vring_memory_at_user(const struct vring_memory *m, uint64_t user, uint64_t length);

/* One queue. Owned by vhost_user.h's connection; a device reads size, index and kick. */
struct vring_queue {
	unsigned index;
	unsigned size; /* entries; 0 before it is told */
	uint64_t desc_at, avail_at, used_at;
	bool has_addresses, enabled, has_kick;
	bool usable;    /* all of it is there, checked and enabled: requests may be taken */
	bool event_idx; /* negotiated */
	bool broken;    /* by the guest; usable is false then */
	uint16_t next_avail, next_used;
	uint16_t called;       /* next_used at the last call */
	uint16_t event_then;   /* the guest's event index at the last question whether to call */
	bool told;	       /* by a call, and not seen yet to have looked */
	uint64_t zeroes_at;    /* the guest's page of zeroes, when it lies outside the shared memory; 0: none seen */
	int kick, call, error; /* -1 for none */
	bool call_is_socket;
	const struct vring_memory *memory;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
};

/* A request: what the device reads, then what it writes. */
struct vring_chain {
	uint16_t head;
	bool unmapped;     /* a descriptor lies outside the memory: its bytes are missing from the iovecs */
	bool end_unmapped; /* its last descriptor is such a one */
	struct iovec *iov; /* out_count to read from, then in_count to write to */
	int out_count, in_count;
	size_t out_bytes, in_bytes;
};

/*
 * Checks sizes and addresses against the memory and makes the ring usable from
 * next_avail on. 0, or -1 + err: unusable as it is.
 */
int vring_start(struct vring_queue *q, struct error *err);

/*
 * Takes the next request. iov has room for `max` pieces, at least VRING_CHAIN_MAX;
 * pieces that touch are joined. 1: *chain is filled. 0: none there now. -1: the ring is
 * broken (err says how; told once).
 */
int vring_pop(struct vring_queue *q, struct vring_chain *chain, struct iovec *iov, int max,
	      struct error *err);

/*
 * Once more the pieces of a request that was taken before, maybe by a process before this one, and is not given back yet. 0, or
 * -1: the ring is broken.
 */
int vring_again(struct vring_queue *q, uint16_t head, struct vring_chain *chain, struct iovec *iov, int max,
		struct error *err);

/* How many requests wait, without taking one. */
unsigned vring_waiting(const struct vring_queue *q);

/* Gives a request back, of which `written` bytes were filled. The guest is told by vring_wants_call(). */
void vring_push(struct vring_queue *q, uint16_t head, uint32_t written);

/*
 * The same for several requests that the guest sees at once: the i-th to be published is filled in, then all `count` of
 * them are made known. Until then the ring says that none of them was answered.
 */
void vring_fill(struct vring_queue *q, unsigned i, uint16_t head, uint32_t written);
void vring_publish(struct vring_queue *q, unsigned count);

/* Puts back the last n requests that were taken, none of which was answered. */
void vring_unpop(struct vring_queue *q, unsigned n);

/*
 * Goes on behind what was answered before us, perhaps by a process that was killed: for devices that answer in the
 * order of the requests, so that the used index tells which is next. The next vring_wants_call() says yes if the
 * guest may have missed a call.
 */
void vring_resume(struct vring_queue *q);

/* Whether the guest wants to be told of what was pushed since this was asked last. */
bool vring_wants_call(struct vring_queue *q);

/* Whether the guest has not looked since vring_wants_call() said yes, as far as it says so (event index). */
bool vring_unseen(const struct vring_queue *q);

/* Asks for kicks, or for none. After asking, look once more (vring_waiting()): one may have just been missed.
 */
void vring_want_kicks(struct vring_queue *q, bool wanted);

/*
 * Asks for a kick when n requests are there that were not taken (n >= 1; without event indices: at the first). Whether there are
 * so many already: then none may come.
 */
bool vring_want_kick_at(struct vring_queue *q, unsigned n);

/* What the guest had made available when this was asked, for vring_want_more(). */
uint16_t vring_seen(const struct vring_queue *q);
/*
 * For who needs more requests at once than there are, and leaves those there where they are: asks for a kick when one is added
 * to `seen`. (vring_want_kicks() asks for one when the first is added that was not taken; with event indices the guest, which
 * passed that long ago, would never kick.) Whether there are more already: look again.
 */
bool vring_want_more(struct vring_queue *q, uint16_t seen);

#endif
