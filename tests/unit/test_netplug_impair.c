/*
 * The timer wheel against a sorted list, with a clock of our own; settings as text; and a real plug whose line is
 * impaired, with known random numbers.
 */
#include <stdio.h>

#include "tests/unit/netplug_peer.h"
#include "tests/unit/unit.h"

#define ENTRIES 4096

static uint64_t random_state = 88172645463325252u;

static uint64_t draw(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

struct item {
	struct wheel_entry entry;
	unsigned number;	/* order of adding */
	bool out;
};

static struct item items[ENTRIES];

/* How far ahead the next entry is due: from now to hours. */
static uint64_t distance(void)
{
	return draw() % (UINT64_C(1) << (draw() % 28));
}

/* Takes out all that is due by now; checks order, lateness, and that nothing is left behind. */
static unsigned check_advance(struct wheel *w, uint64_t now, unsigned added)
{
	struct wheel_entry *e;
	struct item *before = NULL;
	unsigned count = 0, wrong = 0;

	while ((e = wheel_advance(w, now))) {
		for (; e; e = e->next) {
			struct item *item = (struct item *)e;

			wrong += item->out || e->due > now;
			wrong += before && (e->due < before->entry.due ||
					    (e->due == before->entry.due && item->number < before->number));
			item->out = true;
			before = item;
			count++;
		}
	}
	for (unsigned i = 0; i < added; i++)
		wrong += !items[i].out && items[i].entry.due <= now;
	CU_ASSERT_EQUAL(wrong, 0);
	return count;
}

static void try_wheel(uint64_t start)
{
	struct wheel w;
	uint64_t now = start, next = 0;
	unsigned added = 0, out = 0;

	wheel_init(&w, now);
	CU_ASSERT_FALSE(wheel_next(&w, &next));
	while (added < ENTRIES || out < added) {
		for (unsigned n = (unsigned)(draw() % 8); n && added < ENTRIES; n--, added++) {
			items[added] = (struct item){ .number = added, .entry.due = now + distance() };
			wheel_add(&w, &items[added].entry);
		}
		CU_ASSERT_EQUAL(wheel_next(&w, &next), added > out);
		/* Sometimes just when told, sometimes late, sometimes for nothing. */
		if (added > out && draw() % 2)
			now = next > now ? next : now;
		else
			now += distance() / 64;
		out += check_advance(&w, now, added);
		CU_ASSERT_EQUAL(w.count, added - out);
	}
}

static void test_wheel(void)
{
	struct wheel w;
	uint64_t next;

	try_wheel(0);
	try_wheel(UINT64_C(0xffffff00));
	try_wheel(UINT64_C(123456789012));
	wheel_init(&w, 1000);
	items[0] = (struct item){ .entry.due = 5 };		/* past */
	items[1] = (struct item){ .entry.due = UINT64_MAX };	/* for ever */
	wheel_add(&w, &items[0].entry);
	wheel_add(&w, &items[1].entry);
	CU_ASSERT_PTR_EQUAL(wheel_advance(&w, 1000), &items[0].entry);
	CU_ASSERT_PTR_NULL(wheel_advance(&w, 1000));
	CU_ASSERT_TRUE(wheel_next(&w, &next));
	CU_ASSERT_TRUE(next > 1000 && next <= 1000 + WHEEL_HORIZON);
	CU_ASSERT_PTR_EQUAL(wheel_advance(&w, 1000 + WHEEL_HORIZON), &items[1].entry);
}

static void test_text(void)
{
	static const struct {
		const char *key, *text;
	} good[] = { { "delay", "50ms" }, { "jitter", "0.25ms" }, { "loss", "2%" }, { "duplicate", "0.5%" },
		     { "reorder", "100%" }, { "rate", "10M" } },
	  bad[] = { { "delay", "50" "x" }, { "delay", "61s" }, { "delay", "-1ms" }, { "loss", "2" }, { "loss", "101%" },
		    { "loss", "nan%" }, { "rate", "10Q" }, { "rate", "10" }, { "rate", "" }, { "speed", "1" } };
	struct netplug_impair impair = { 0 };
	char text[NETPLUG_IMPAIR_TEXT_MAX];

	CU_ASSERT_STRING_EQUAL(netplug_impair_format(&impair, text), "");
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		CU_ASSERT_EQUAL(netplug_impair_set(&impair, good[i].key, good[i].text, NULL), 0);
	CU_ASSERT_EQUAL(impair.delay_us, 50000);
	CU_ASSERT_EQUAL(impair.jitter_us, 250);
	CU_ASSERT_EQUAL(impair.loss_ppm, 20000);
	CU_ASSERT_EQUAL(impair.rate, 10000000);
	CU_ASSERT_STRING_EQUAL(netplug_impair_format(&impair, text),
			       "delay=50ms jitter=0.25ms loss=2% duplicate=0.5% reorder=100% rate=10M");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CU_ASSERT_EQUAL(netplug_impair_set(&impair, bad[i].key, bad[i].text, NULL), -1);
	memset(&impair, 0, sizeof(impair));
	impair.down = 1;
	CU_ASSERT_STRING_EQUAL(netplug_impair_format(&impair, text), "down");
}

static int impair_peer(struct peer *p, const struct netplug_impair *impair)
{
	netplug_control_send_impair(p->control, ++p->sequence, 0, impair, NULL);
	return peer_status(p);
}

static unsigned drain(struct peer *p, int quiet_ms)
{
	static uint8_t frame[65536];
	struct pollfd pfd = { .fd = p->guest, .events = POLLIN };
	unsigned count = 0;

	while (poll(&pfd, 1, quiet_ms) > 0 && recv(p->guest, frame, sizeof(frame), 0) > 0)
		count++;
	return count;
}

/* ARP requests, which libslirp answers one by one. */
static unsigned ask(struct peer *p, unsigned count)
{
	unsigned answers = 0;

	for (unsigned i = 0; i < count; i++) {
		peer_send_arp(p, 1, "10.0.2.15", "10.0.2.2");
		if (i % 16 == 15)
			answers += drain(p, 0);
	}
	return answers + drain(p, PEER_QUIET_MS);
}

static void test_counts(void)
{
	struct netplug_port_config c;
	struct netplug_impair impair = { .seed = 7, .loss_ppm = 100000, .duplicate_ppm = 50000 };
	struct netplug_stats s;
	struct peer p;
	unsigned answers;

	netplug_port_config_init(&c, 0);
	CU_ASSERT_TRUE_FATAL(peer_open(&p, &c));
	CU_ASSERT_EQUAL(ask(&p, 1), 1);
	CU_ASSERT_EQUAL(impair_peer(&p, &impair), 0);
	answers = ask(&p, 10000);
	s = peer_stats(&p);
	/* Both directions: 10 % of 10000, 10 % of what is answered; each way 5 % of what remains come twice. */
	CU_ASSERT_TRUE(s.impair_lost > 1900 && s.impair_lost < 2000);
	CU_ASSERT_TRUE(s.impair_duplicated > 800 && s.impair_duplicated < 950);
	CU_ASSERT_EQUAL(answers, 10000 - s.impair_lost + s.impair_duplicated - s.out_dropped);
	impair = (struct netplug_impair){ .down = 1 };
	CU_ASSERT_EQUAL(impair_peer(&p, &impair), 0);
	CU_ASSERT_EQUAL(ask(&p, 100), 0);
	CU_ASSERT_EQUAL(peer_stats(&p).impair_down, 100);
	impair = (struct netplug_impair){ .loss_ppm = NETPLUG_PPM + 1 };
	CU_ASSERT_EQUAL(impair_peer(&p, &impair), ERROR_USAGE);
	impair = (struct netplug_impair){ 0 };
	CU_ASSERT_EQUAL(impair_peer(&p, &impair), 0);
	CU_ASSERT_EQUAL(ask(&p, 50), 50);
	CU_ASSERT_EQUAL(peer_close(&p), 0);
}

/* More than may wait: memory stays bounded, the rest is counted; an impatient change lets all of it go. */
static void test_bounds(void)
{
	struct netplug_port_config c;
	struct netplug_impair impair = { .delay_us = 60000000 };
	static uint8_t frame[16000];
	struct peer p;

	netplug_port_config_init(&c, 0);
	CU_ASSERT_TRUE_FATAL(peer_open(&p, &c));
	CU_ASSERT_EQUAL(impair_peer(&p, &impair), 0);
	memcpy(frame, peer_broadcast, 6);
	memcpy(frame + 6, peer_mac, 6);
	for (int i = 0; i < 2000; i++)
		CU_ASSERT_EQUAL(send(p.guest, frame, sizeof(frame), 0), (ssize_t)sizeof(frame));
	while (peer_stats(&p).in_frames < 2000)
		poll(NULL, 0, 5);
	CU_ASSERT_TRUE(peer_stats(&p).impair_dropped > 2000 - (8u << 20) / sizeof(frame));
	impair.delay_us = 0;
	impair.rate = 1000000;
	CU_ASSERT_EQUAL(impair_peer(&p, &impair), 0);
	CU_ASSERT_TRUE(peer_stats(&p).in_refused > 500);	/* no packets: libslirp never saw them */
	CU_ASSERT_EQUAL(peer_close(&p), 0);
}

UNIT_MAIN("netplug impairments", UNIT_CASE(test_wheel), UNIT_CASE(test_text), UNIT_CASE(test_counts), UNIT_CASE(test_bounds))
