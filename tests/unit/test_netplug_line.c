/*
 * Impairments on a VDE network: what passes between two plugs on a real vde_switch, measured frame by frame. The random numbers
 * are known (seed). A time is the least of several, since a loaded machine only adds to it; a rate is counted over seconds, and
 * again (ATTEMPTS) where the load spoiled it.
 */
#include <time.h>

#include "tests/unit/netplug_switch.h"

#define SAMPLES 5
#define SAMPLES_MAX 200
#define JITTERED 100
#define FRAMES 5000
#define BATCH 8				/* below net.unix.max_dgram_qlen (10): beyond it vde_switch may lose frames */
#define FRAME_BYTES 1000
#define ATTEMPTS 12

static struct peer a, b;

static void impair(struct peer *p, struct netplug_impair settings)
{
	netplug_control_send_impair(p->control, ++p->sequence, 0, &settings, NULL);
	CU_ASSERT_EQUAL(peer_status(p), 0);
}

static void open_both(void)
{
	start_switch();
	CU_ASSERT_TRUE_FATAL(open_on_switch(&a) && open_on_switch(&b));
	say(&a, 100, 0);
	CU_ASSERT_EQUAL(hear(&b, PEER_WAIT_MS), 100);
}

static void close_both(void)
{
	close_well(&b);
	close_well(&a);
	kill_switch();
}

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static double latency(struct peer *from, struct peer *to)
{
	double sent = now_ms();

	say(from, 100, 1);
	CU_ASSERT_EQUAL(hear(to, PEER_WAIT_MS), 100);
	return now_ms() - sent;
}

static bool within(double value, double wanted, double slack)
{
	if (value >= wanted * 0.95 && value <= wanted * 1.05 + slack)
		return true;
	fprintf(stderr, "%g is not within 5 %% of %g\n", value, wanted);
	return false;
}

/* The line's own delay: no frame comes earlier, and what comes later is the load of the machine, which lets one pass at times. */
static double least_latency(struct peer *from, struct peer *to, double enough_ms)
{
	double least = 1e9;

	for (int i = 0; i < SAMPLES_MAX && (i < SAMPLES || least > enough_ms); i++) {
		double ms = latency(from, to);

		least = ms < least ? ms : least;
	}
	return least;
}

static bool delayed(struct peer *from, struct peer *to, double wanted_ms, double slack)
{
	return within(least_latency(from, to, wanted_ms * 1.05 + slack), wanted_ms, slack);
}

/* One who sends impairs, and nobody else: not the frames that come to him. */
static void test_delay(void)
{
	open_both();
	impair(&a, (struct netplug_impair){ .delay_us = 50000 });
	CU_ASSERT_TRUE(delayed(&a, &b, 50, 0));
	CU_ASSERT_TRUE(least_latency(&b, &a, 10) < 10);
	impair(&a, (struct netplug_impair){ .delay_us = 10000 });
	impair(&b, (struct netplug_impair){ .delay_us = 20000 });
	CU_ASSERT_TRUE(delayed(&a, &b, 10, 1));
	CU_ASSERT_TRUE(delayed(&b, &a, 20, 1));
	close_both();
}

/*
 * The same seed gives each frame the same delay again: the least that it took in some rounds is its own, without the machine's
 * load. least: what it was in the rounds before.
 */
static bool jitters(double least[JITTERED])
{
	double sum = 0;
	int early = 0, late = 0;

	impair(&a, (struct netplug_impair){ .delay_us = 20000, .jitter_us = 15000, .seed = 8 });
	for (int i = 0; i < JITTERED; i++) {
		double ms = latency(&a, &b);

		CU_ASSERT_TRUE(ms >= 5);
		least[i] = ms < least[i] ? ms : least[i];
		sum += least[i];
		early += least[i] < 12.5;
		late += least[i] > 27.5;
	}
	/* A quarter each. */
	return within(sum / JITTERED, 20, 1) && early >= 15 && early <= 35 && late >= 15 && late <= 35;
}

static void test_jitter(void)
{
	double least[JITTERED];
	bool well = false;

	for (int i = 0; i < JITTERED; i++)
		least[i] = 1e9;
	open_both();
	for (int i = 0; i < ATTEMPTS && !well; i++)
		well = jitters(least);
	CU_ASSERT_TRUE(well);
	close_both();
}

static void say_number(uint32_t number)
{
	uint8_t f[100] = { 0 };

	memcpy(f, peer_broadcast, 6);
	memcpy(f + 6, peer_mac, 6);
	peer_put16(f + 12, 0x88b5);
	memcpy(f + 20, &number, sizeof(number));
	CU_ASSERT_EQUAL(send(a.guest, f, sizeof(f), 0), (ssize_t)sizeof(f));
}

struct heard {
	unsigned frames, behind;	/* all, and those that came behind a later one */
	uint32_t highest;
};

static void hear_numbers(struct heard *h, int ms)
{
	uint32_t number;

	while (hear(&b, ms)) {
		memcpy(&number, frame + 20, sizeof(number));
		h->frames++;
		h->behind += number < h->highest;
		h->highest = number > h->highest ? number : h->highest;
	}
}

/* Sends FRAMES numbered frames, a few at a time: what the line lets through of them is heard before the next ones go. */
static struct heard exchange(void)
{
	struct netplug_stats before = peer_stats(&a), s;
	struct heard h = { 0 };
	int64_t end = loop_now_ms() + 60 * 1000;

	for (uint32_t i = 1; i <= FRAMES && loop_now_ms() < end; i++) {
		say_number(i);
		if (i % BATCH)
			continue;
		do {
			s = peer_stats(&a);
			hear_numbers(&h, 0);
		} while ((s.in_frames - before.in_frames < i ||
			  h.frames + s.impair_lost < i + s.impair_duplicated) && loop_now_ms() < end);
	}
	hear_numbers(&h, PEER_QUIET_MS);
	return h;
}

static void test_loss(void)
{
	struct heard h;

	open_both();
	impair(&a, (struct netplug_impair){ .loss_ppm = 200000, .seed = 8 });
	h = exchange();
	CU_ASSERT_TRUE(within(FRAMES - h.frames, FRAMES * 0.2, 0));
	CU_ASSERT_EQUAL(FRAMES - h.frames, peer_stats(&a).impair_lost);
	CU_ASSERT_EQUAL(h.behind, 0);
	close_both();
}

static void test_duplicates(void)
{
	struct heard h;

	open_both();
	impair(&a, (struct netplug_impair){ .duplicate_ppm = 200000, .seed = 8 });
	h = exchange();
	CU_ASSERT_TRUE(within(h.frames - FRAMES, FRAMES * 0.2, 0));
	CU_ASSERT_EQUAL(h.frames - FRAMES, peer_stats(&a).impair_duplicated);
	CU_ASSERT_EQUAL(h.behind, 0);
	close_both();
}

static void test_reordering(void)
{
	uint64_t reordered;
	struct heard h;

	open_both();
	impair(&a, (struct netplug_impair){ .reorder_ppm = 200000, .seed = 8 });
	h = exchange();
	reordered = peer_stats(&a).impair_reordered;
	CU_ASSERT_TRUE(within((double)reordered, FRAMES * 0.2, 0));
	CU_ASSERT_EQUAL(h.frames, FRAMES);
	/* Some have nobody to be behind of: the last ones of a batch. */
	CU_ASSERT_TRUE(h.behind <= reordered && h.behind >= reordered / 2);
	close_both();
}

/* More than the rate is offered for two seconds: what comes is the rate, the rest is dropped and counted. */
static bool rate_holds(void)
{
	double begin = 0, end = 0;
	uint64_t bits = 0;

	while (hear(&b, PEER_QUIET_MS))
		;
	for (double started = now_ms(); now_ms() - started < 2500;) {
		for (int i = 0; i < 8; i++)
			say(&a, FRAME_BYTES, 1);
		usleep(1000);
		while (hear(&b, 0)) {
			end = now_ms();
			if (!begin)
				begin = end;
			else
				bits += FRAME_BYTES * 8;
		}
	}
	return within((double)bits / (end - begin) / 1e3, 2, 0);
}

static void test_rate(void)
{
	bool well = false;

	open_both();
	impair(&a, (struct netplug_impair){ .rate = 2000000 });
	for (int i = 0; i < ATTEMPTS && !well; i++)
		well = rate_holds();
	CU_ASSERT_TRUE(well);
	CU_ASSERT_TRUE(peer_stats(&a).impair_dropped > 100);
	close_both();
}

static void test_down(void)
{
	open_both();
	impair(&a, (struct netplug_impair){ .down = 1 });
	say(&a, 100, 1);
	say(&b, 100, 1);
	CU_ASSERT_EQUAL(hear(&b, PEER_QUIET_MS), 0);
	CU_ASSERT_EQUAL(hear(&a, PEER_QUIET_MS), 0);
	CU_ASSERT_EQUAL(peer_stats(&a).impair_down, 2);
	impair(&a, (struct netplug_impair){ 0 });
	CU_ASSERT_TRUE(latency(&a, &b) > 0 && latency(&b, &a) > 0);
	close_both();
}

static void test_folder(void)
{
	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
	switch_path = str_printf(NULL, "%s/net", folder);
}

static void test_end(void)
{
	file_remove_tree(folder, NULL);
	free(switch_path);
}

UNIT_MAIN("netplug impaired lines", UNIT_CASE(test_folder), UNIT_CASE(test_delay), UNIT_CASE(test_jitter), UNIT_CASE(test_loss),
	  UNIT_CASE(test_duplicates), UNIT_CASE(test_reordering), UNIT_CASE(test_rate), UNIT_CASE(test_down), UNIT_CASE(test_end))
