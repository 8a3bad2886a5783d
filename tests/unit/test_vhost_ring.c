/* Queues that a hostile guest filled: every impossible one breaks the queue, and nothing outside the memory is touched. */
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/unit.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/vring_gather.h"

#define ENTRIES 16u
#define GUEST	0x10000ull
#define USER	0x7f0000000000ull
#define LENGTH	0x8000u
#define AVAIL	0x1000u
#define USED	0x2000u
#define TABLE	0x3000u
#define DATA	0x4000u

static _Alignas(16) uint8_t memory[2 * LENGTH]; /* two regions: the second follows the first for the guest, not here */
static struct vring_memory map;
static struct vring_queue q;
static struct vring_chain chain;
static struct iovec iov[VRING_CHAIN_MAX];

static struct vring_desc *table(void)
{
	return (struct vring_desc *)memory;
}

static struct vring_desc *indirect(void)
{
	return (struct vring_desc *)(memory + TABLE);
}

static struct vring_avail *avail(void)
{
	return (struct vring_avail *)(memory + AVAIL);
}

static void begin(void)
{
	memset(memory, 0, sizeof(memory));
	map = (struct vring_memory){
		.regions = {{GUEST, USER, LENGTH / 2, memory, NULL, 0},
			    {GUEST + LENGTH / 2, USER + 0x100000, LENGTH / 2, memory + LENGTH, NULL, 0}},
		.count = 2,
	};
	q = (struct vring_queue){
		.size = ENTRIES, .desc_at = USER, .avail_at = USER + AVAIL, .used_at = USER + USED, .memory = &map};
	CU_ASSERT_EQUAL(vring_start(&q, NULL), 0);
}

static void publish(uint16_t head)
{
	avail()->ring[avail()->idx++ % ENTRIES] = head;
}

static int pop(void)
{
	return vring_pop(&q, &chain, iov, VRING_CHAIN_MAX, NULL);
}

/* Takes what was published as breaking the queue, and begins anew. */
static void expect_broken(void)
{
	CU_ASSERT_EQUAL(pop(), -1);
	CU_ASSERT_TRUE(q.broken);
	CU_ASSERT_FALSE(q.usable);
	CU_ASSERT_EQUAL(pop(), 0);
	begin();
}

static void test_chains(void)
{
	begin();
	CU_ASSERT_EQUAL(pop(), 0);
	table()[3] = (struct vring_desc){GUEST + 100, 16, VRING_DESC_F_NEXT, 5};
	table()[5] = (struct vring_desc){GUEST + 116, 20, VRING_DESC_F_NEXT, 1}; /* touches: joined */
	table()[1] = (struct vring_desc){GUEST + 200, 1, VRING_DESC_F_WRITE, 9};
	publish(3);
	CU_ASSERT_EQUAL(vring_waiting(&q), 1);
	CU_ASSERT_EQUAL(pop(), 1);
	CU_ASSERT_EQUAL(chain.head, 3);
	CU_ASSERT_EQUAL(chain.out_count, 1);
	CU_ASSERT_EQUAL(chain.out_bytes, 36);
	CU_ASSERT_EQUAL(chain.in_count, 1);
	CU_ASSERT_EQUAL(chain.in_bytes, 1);
	CU_ASSERT_PTR_EQUAL(iov[0].iov_base, memory + 100);
	CU_ASSERT_PTR_EQUAL(iov[1].iov_base, memory + 200);
	vring_push(&q, chain.head, 1);
	CU_ASSERT_EQUAL(((struct vring_used *)(memory + USED))->idx, 1);
	CU_ASSERT_EQUAL(((struct vring_used *)(memory + USED))->ring[0].id, 3);
	/* from one region into the next, which lies elsewhere here */
	table()[0] = (struct vring_desc){GUEST + LENGTH / 2 - 10, 30, 0, 0};
	publish(0);
	CU_ASSERT_EQUAL(pop(), 1);
	CU_ASSERT_EQUAL(chain.out_count, 2);
	CU_ASSERT_PTR_EQUAL(iov[1].iov_base, memory + LENGTH);
	CU_ASSERT_EQUAL(iov[1].iov_len, 20);
	/* indirect, behind one that is not */
	table()[0] = (struct vring_desc){GUEST, 8, VRING_DESC_F_NEXT, 2};
	table()[2] = (struct vring_desc){GUEST + TABLE, 32, VRING_DESC_F_INDIRECT, 0};
	indirect()[0] = (struct vring_desc){GUEST + 64, 8, VRING_DESC_F_NEXT, 1};
	indirect()[1] = (struct vring_desc){GUEST + 128, 8, VRING_DESC_F_WRITE, 0};
	publish(0);
	CU_ASSERT_EQUAL(pop(), 1);
	CU_ASSERT_EQUAL(chain.out_count, 2);
	CU_ASSERT_EQUAL(chain.in_count, 1);
	CU_ASSERT_FALSE(chain.unmapped);
}

static void test_unmapped(void)
{
	static const struct vring_desc outside[] = {
		{GUEST - 1, 2, 0, 0}, {GUEST + LENGTH - 1, 2, 0, 0}, {0, 1, 0, 0}, {UINT64_MAX, 1, 0, 0},
		{UINT64_MAX - 3, 16, 0, 0}, {GUEST + LENGTH, UINT32_MAX, 0, 0}, {USER, 1, 0, 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
		begin();
		table()[0] = outside[i];
		table()[0].flags = VRING_DESC_F_NEXT;
		table()[0].next = 1;
		table()[1] = (struct vring_desc){GUEST, 1, VRING_DESC_F_WRITE, 0};
		publish(0);
		CU_ASSERT_EQUAL(pop(), 1);
		CU_ASSERT_TRUE(chain.unmapped);
		CU_ASSERT_FALSE(chain.end_unmapped);
		CU_ASSERT_EQUAL(chain.in_bytes, 1);
		table()[0] = outside[i];
		publish(0);
		CU_ASSERT_EQUAL(pop(), 1);
		CU_ASSERT_TRUE(chain.end_unmapped);
	}
}

static void test_broken(void)
{
	begin();
	publish(ENTRIES);
	expect_broken();
	publish(UINT16_MAX);
	expect_broken();
	avail()->idx = ENTRIES + 1;
	expect_broken();
	table()[0] = (struct vring_desc){GUEST, 1, VRING_DESC_F_NEXT, 0}; /* a circle */
	publish(0);
	expect_broken();
	table()[0] = (struct vring_desc){GUEST, 1, VRING_DESC_F_NEXT, ENTRIES};
	publish(0);
	expect_broken();
	table()[0] = (struct vring_desc){GUEST, 1, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1}; /* to read behind to write */
	publish(0);
	expect_broken();
	table()[0] = (struct vring_desc){GUEST + TABLE, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1};
	publish(0);
	expect_broken();
	for (unsigned i = 0; i < 6; i++) {
		static const struct vring_desc bad[] = {
			{GUEST + TABLE, 0, VRING_DESC_F_INDIRECT, 0},
			{GUEST + TABLE, 17, VRING_DESC_F_INDIRECT, 0},
			{GUEST + TABLE, 16 * (VRING_CHAIN_MAX + 1), VRING_DESC_F_INDIRECT, 0},
			{GUEST + LENGTH - 16, 32, VRING_DESC_F_INDIRECT, 0},
			{GUEST - 16, 16, VRING_DESC_F_INDIRECT, 0},
			{UINT64_MAX - 15, 32, VRING_DESC_F_INDIRECT, 0},
		};

		table()[0] = bad[i];
		publish(0);
		expect_broken();
	}
	table()[0] = (struct vring_desc){GUEST + TABLE, 16, VRING_DESC_F_INDIRECT, 0};
	indirect()[0] = (struct vring_desc){GUEST + TABLE, 16, VRING_DESC_F_INDIRECT, 0}; /* one in the other */
	publish(0);
	expect_broken();
	table()[0] = (struct vring_desc){GUEST + TABLE, 32, VRING_DESC_F_INDIRECT, 0};
	indirect()[0] = (struct vring_desc){GUEST, 1, VRING_DESC_F_NEXT, 1};
	indirect()[1] = (struct vring_desc){GUEST, 1, VRING_DESC_F_NEXT, 0}; /* a circle there */
	publish(0);
	expect_broken();
}

/* Sizes and addresses that vring_start() refuses. */
static void test_start(void)
{
	struct vring_queue wrong[8];

	begin();
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		wrong[i] = q;
	wrong[0].size = 0;
	wrong[1].size = 3;
	wrong[2].size = VRING_SIZE_MAX * 2;
	wrong[3].desc_at += 8;
	wrong[4].used_at = USER + LENGTH / 2 - 16;
	wrong[5].avail_at = USER - 2;
	wrong[6].desc_at = UINT64_MAX - 15;
	wrong[7].avail_at = GUEST;
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		CU_ASSERT_EQUAL(vring_start(&wrong[i], NULL), -1);
		CU_ASSERT_FALSE(wrong[i].usable);
	}
}

/* Who is told of what, by flags and by event index; over the wrap of the index. */
static void test_notifications(void)
{
	struct vring_used *used = (struct vring_used *)(memory + USED);
	const uint8_t *event = memory + USED + sizeof(*used) + ENTRIES * sizeof(used->ring[0]);

	begin();
	CU_ASSERT_FALSE(vring_wants_call(&q));
	vring_push(&q, 0, 0);
	CU_ASSERT_TRUE(vring_wants_call(&q));
	CU_ASSERT_FALSE(vring_wants_call(&q));
	avail()->flags = VRING_AVAIL_F_NO_INTERRUPT;
	vring_push(&q, 0, 0);
	CU_ASSERT_FALSE(vring_wants_call(&q));
	vring_want_kicks(&q, false);
	CU_ASSERT_EQUAL(used->flags, VRING_USED_F_NO_NOTIFY);
	vring_want_kicks(&q, true);
	CU_ASSERT_EQUAL(used->flags, 0);
	begin();
	q.event_idx = true;
	used->idx = q.next_used = q.called = UINT16_MAX - 2;
	for (unsigned i = 0; i < 6; i++) {
		avail()->ring[ENTRIES] = 1; /* tell of the one after index 1 */
		vring_push(&q, 0, 0);
		CU_ASSERT_EQUAL(vring_wants_call(&q), i == 4);
	}
	q.next_avail = 7;
	vring_want_kicks(&q, true);
	CU_ASSERT_EQUAL(*event, 7);
	vring_want_kicks(&q, false);
	CU_ASSERT_NOT_EQUAL(*event, 7);
}

/* A kick is asked for at the nth request, over the wrap of the index. */
static void test_kick_at(void)
{
	const uint16_t *event = (const uint16_t *)(memory + USED + sizeof(struct vring_used) +
						   ENTRIES * sizeof(struct vring_used_elem));

	begin();
	CU_ASSERT_FALSE(vring_want_kick_at(&q, 4));
	publish(0);
	CU_ASSERT_TRUE(vring_want_kick_at(&q, 4)); /* without event indices each kicks */
	begin();
	q.event_idx = true;
	q.next_avail = avail()->idx = UINT16_MAX - 1;
	CU_ASSERT_FALSE(vring_want_kick_at(&q, 4));
	CU_ASSERT_EQUAL(*event, 1);
	avail()->idx = (uint16_t)(avail()->idx + 3);
	CU_ASSERT_FALSE(vring_want_kick_at(&q, 4));
	avail()->idx++;
	CU_ASSERT_TRUE(vring_want_kick_at(&q, 4));
	CU_ASSERT_TRUE(vring_want_kick_at(&q, 1));
	CU_ASSERT_EQUAL(*event, UINT16_MAX - 1);
}

/* A round of small requests, of which so many come; returns how many were waited for. */
static unsigned gather_round(struct vring_gather *g, unsigned come)
{
	vring_gather_begin(g);
	if (g->until && come < g->goal)
		g->until = 1; /* its time is over */
	vring_gather_end(g, come);
	if (come > 0)
		vring_gather_taken(g, come, come * 4096u);
	return g->goal;
}

/* How many a guest has in flight is found, waited for by halves, and forgotten when it ends. */
static void test_gather(void)
{
	struct vring_gather g;
	unsigned waits = 0, most = 0;

	vring_gather_reset(&g);
	for (int i = 0; i < 10000; i++)
		waits += gather_round(&g, 1) > 1;
	CU_ASSERT_EQUAL(vring_gather_goal(&g), 1);
	CU_ASSERT_TRUE(waits > 0 && waits < 32); /* one that waits for each answer waits for no other */
	vring_gather_reset(&g);
	for (int i = 0; i < 100; i++) {
		unsigned goal = g.goal;

		/* 16 in flight: as many come as are waited for, up to all */
		vring_gather_begin(&g);
		goal = g.goal < 16 ? g.goal : 16;
		if (g.goal > 16)
			g.until = 1;
		vring_gather_end(&g, goal);
		vring_gather_taken(&g, goal, goal * 4096u);
		most = goal > most ? goal : most;
	}
	CU_ASSERT_EQUAL(most, 16);
	CU_ASSERT_EQUAL(vring_gather_goal(&g), 8);
	/* something else ends the sleep: nothing is learned */
	g.skip = 1;
	vring_gather_begin(&g);
	vring_gather_end(&g, 1);
	CU_ASSERT_EQUAL(vring_gather_goal(&g), 8);
	g.skip = 1;
	/* nor from a guest that asks for nothing for a while, nor large requests, while they last */
	CU_ASSERT_EQUAL(gather_round(&g, 0), 8);
	for (int i = 0; i < 3; i++) { /* its device sleeps without a clock then */
		vring_gather_begin(&g);
		CU_ASSERT_EQUAL(g.goal, 1);
		CU_ASSERT_EQUAL(g.until, 0);
		vring_gather_end(&g, 0);
	}
	vring_gather_taken(&g, 1, 4096);
	g.skip = 1;
	CU_ASSERT_EQUAL(vring_gather_goal(&g), 8);
	vring_gather_taken(&g, 4, 4u << 20);
	CU_ASSERT_EQUAL(vring_gather_goal(&g), 1);
	vring_gather_taken(&g, 4, 4u << 12);
	CU_ASSERT_EQUAL(vring_gather_goal(&g), 8);
	/* now it waits for each answer */
	g.skip = 1;
	CU_ASSERT_EQUAL(gather_round(&g, 1), 8);
	CU_ASSERT_EQUAL(vring_gather_goal(&g), 1);
}

UNIT_MAIN("vhost ring", UNIT_CASE(test_chains), UNIT_CASE(test_unmapped), UNIT_CASE(test_broken), UNIT_CASE(test_start),
	  UNIT_CASE(test_notifications), UNIT_CASE(test_kick_at), UNIT_CASE(test_gather))
