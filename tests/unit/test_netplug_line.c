/*
 * Impairments on a VDE network: what passes between two plugs on a real vde_switch, measured frame by frame. The random numbers
 * are known (seed), times are medians or counted over seconds, and measured again (ATTEMPTS) where the machine's load spoiled them.
 */
#include <time.h>

#include "tests/unit/netplug_switch.h"

#define SAMPLES 15
#define FRAMES 5000
#define BATCH 8				/* below net.unix.max_dgram_qlen (10): beyond it vde_switch may lose frames */
#define FRAME_BYTES 1000
#define ATTEMPTS 4

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

static int compare(const void *x, const void *y)
{
	const double *p = x, *q = y;

	return (*p > *q) - (*p < *q);
}

static double median_latency(struct peer *from, struct peer *to)
{
	double samples[SAMPLES];

	for (size_t i = 0; i < SAMPLES; i++)
		samples[i] = latency(from, to);
	qsort(samples, SAMPLES, sizeof(samples[0]), compare);
	return samples[SAMPLES / 2];
}

static bool within(double value, double wanted, double slack)
{
	if (value >= wanted * 0.95 && value <= wanted * 1.05 + slack)
		return true;
	fprintf(stderr, "%g is not within 5 %% of %g\n", value, wanted);
	return false;
}

static bool delayed(struct peer *from, struct peer *to, double wanted_ms, double slack)
{
	for (int i = 0; i < ATTEMPTS; i++)
		if (within(median_latency(from, to), wanted_ms, slack))
			return true;
	return false;
}

/* One who sends impairs, and nobody else: not the frames that come to him. */
static void test_delay(void)
{
	open_both();
	impair(&a, (struct netplug_impair){ .delay_us = 50000 });
	CU_ASSERT_TRUE(delayed(&a, &b, 50, 0));
	CU_ASSERT_TRUE(median_latency(&b, &a) < 10);
	impair(&a, (struct netplug_impair){ .delay_us = 10000 });
	impair(&b, (struct netplug_impair){ .delay_us = 20000 });
	CU_ASSERT_TRUE(delayed(&a, &b, 10, 1));
	CU_ASSERT_TRUE(delayed(&b, &a, 20, 1));
	close_both();
}

static bool jitters(void)
{
	double sum = 0, least = 1e9;
	int early = 0, late = 0;

	for (int i = 0; i < 100; i++) {
		double ms = latency(&a, &b);

		sum += ms < 36 ? ms : 36;	/* what is later is the machine's load */
		least = ms < least ? ms : least;
		early += ms < 12.5;
		late += ms > 27.5;
	}
	CU_ASSERT_TRUE(least >= 5);
	/* A quarter each. */
	return within(sum / 100, 20, 1) && early >= 15 && early <= 35 && late >= 15 && late <= 40;
}

static void test_jitter(void)
{
	bool well = false;

	open_both();
	impair(&a, (struct netplug_impair){ .delay_us = 20000, .jitter_us = 15000, .seed = 8 });
	for (int i = 0; i < ATTEMPTS && !well; i++)
		well = jitters();
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
