/* When the plug looks instead of sleeping: netplug/look.c. */
#include "netplug/netplug_internal.h"
#include "tests/unit/unit.h"

#define US 1000u

/* Turns with a frame each, `gap` apart, after a sleep if not looking, until looking begins. How many; 0: it never did. */
static int turns_until_on(struct look *l, uint64_t *now, uint64_t gap)
{
	for (int i = 1; i <= 1000; i++) {
		*now += gap;
		look_turned(l, true, !l->patience.looking, *now);
		if (l->patience.looking)
			return i;
	}
	return 0;
}

/* One look that finds nothing. */
static void look_in_vain(struct look *l, uint64_t *now)
{
	while (l->patience.looking) {
		*now += 20 * US;
		look_turned(l, false, false, *now);
	}
}

static void test_begins(void)
{
	uint64_t now = 1000000000;
	struct look l;

	look_init(&l);
	CU_ASSERT_FALSE(l.patience.looking);
	CU_ASSERT_EQUAL(turns_until_on(&l, &now, 10000 * US), 0); /* long sleeps */
	CU_ASSERT_EQUAL(turns_until_on(&l, &now, 60 * US), 4);
	now += 150 * US;
	look_turned(&l, false, false, now);
	CU_ASSERT_TRUE(l.patience.looking);
	now += 100 * US;
	look_turned(&l, false, false, now); /* 250 µs without a frame */
	CU_ASSERT_FALSE(l.patience.looking);
}

static void test_learns(void)
{
	uint64_t now = 1000000000;
	struct look l;
	int patience = 4;

	look_init(&l);
	l.moved_at = now;
	for (int i = 0; i < 10; i++) {
		CU_ASSERT_EQUAL(turns_until_on(&l, &now, 60 * US), patience);
		look_in_vain(&l, &now);
		patience = patience < 64 ? patience * 2 : 64;
	}
	CU_ASSERT_EQUAL(turns_until_on(&l, &now, 60 * US), 64);
	for (int i = 0; i < 4 * 64; i++) {
		now += 60 * US;
		look_turned(&l, true, false, now);
	}
	look_in_vain(&l, &now);
	CU_ASSERT_EQUAL(turns_until_on(&l, &now, 60 * US), 8); /* 64 halved four times, then doubled once */
}

UNIT_MAIN("netplug look", UNIT_CASE(test_begins), UNIT_CASE(test_learns))
