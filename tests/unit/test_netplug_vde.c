/*
 * Plugs on real VDE networks: guests that speak raw Ethernet (netplug_peer.h)
 * on one vde_switch, and over other locators of libvdeplug. In a network
 * namespace of its own, for the locators that use UDP; the first case makes it.
 */
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "tests/unit/netplug_switch.h"

#define VLAN_FRAME_MAX 1518

static void write_text(const char *path, const char *text)
{
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);

	CU_ASSERT_TRUE_FATAL(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

static void test_isolation(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_MULTICAST };
	unsigned uid = getuid(), gid = getgid();
	cleanup_close int fd = -1;
	char map[64];

	CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
	switch_path = str_printf(NULL, "%s/net", folder);
	CU_ASSERT_EQUAL_FATAL(unshare(CLONE_NEWUSER | CLONE_NEWNET), 0);
	write_text("/proc/self/setgroups", "deny");
	snprintf(map, sizeof(map), "0 %u 1", uid);
	write_text("/proc/self/uid_map", map);
	snprintf(map, sizeof(map), "0 %u 1", gid);
	write_text("/proc/self/gid_map", map);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	CU_ASSERT_EQUAL_FATAL(ioctl(fd, SIOCSIFFLAGS, &lo), 0);
}

static void test_hub(void)
{
	struct peer a, b, c;

	start_switch();
	CU_ASSERT_TRUE_FATAL(open_on_switch(&a) && open_on_switch(&b) && open_on_switch(&c));
	say(&a, 100, 0xaa);
	CU_ASSERT_EQUAL(hear(&b, PEER_WAIT_MS), 100);
	CU_ASSERT_EQUAL(frame[99], 0xaa);
	CU_ASSERT_EQUAL(hear(&c, PEER_WAIT_MS), 100);
	/* Its own frame does not come back. */
	CU_ASSERT_EQUAL(hear(&a, PEER_QUIET_MS), 0);
	/* The longest frame with a tag is whole. */
	say(&b, VLAN_FRAME_MAX, 0xbb);
	CU_ASSERT_EQUAL(hear(&a, PEER_WAIT_MS), VLAN_FRAME_MAX);
	CU_ASSERT_EQUAL(frame[VLAN_FRAME_MAX - 1], 0xbb);
	close_well(&c);
	close_well(&b);
	close_well(&a);
	kill_switch();
}

/* A short frame is padded, with zeros and not with what a switch's buffer held before. */
static void test_padding(void)
{
	struct peer a, b;
	size_t dirty = 0;

	start_switch();
	CU_ASSERT_TRUE_FATAL(open_on_switch(&a) && open_on_switch(&b));
	say(&a, 1000, 0xcc);
	CU_ASSERT_EQUAL(hear(&b, PEER_WAIT_MS), 1000);
	say(&a, 20, 0xdd);
	CU_ASSERT_EQUAL(hear(&b, PEER_WAIT_MS), 60);
	for (size_t i = 20; i < 60; i++)
		dirty += frame[i] != 0;
	CU_ASSERT_EQUAL(dirty, 0);
	close_well(&b);
	close_well(&a);
	kill_switch();
}

/* The switch dies and comes back: so do the ports, and the guests notice nothing but lost frames. */
static void test_switch_killed(void)
{
	struct netplug_stats stats;
	struct peer a, b;

	start_switch();
	CU_ASSERT_TRUE_FATAL(open_on_switch(&a) && open_on_switch(&b));
	kill_switch();
	CU_ASSERT_TRUE(joined(&a, false));
	CU_ASSERT_TRUE(joined(&b, false));
	say(&a, 100, 1);
	CU_ASSERT_EQUAL(hear(&b, PEER_QUIET_MS), 0);
	stats = peer_stats(&a);
	CU_ASSERT_EQUAL(stats.in_dropped, 1);
	CU_ASSERT_TRUE(stats.trouble[0]);
	start_switch();
	CU_ASSERT_TRUE(joined(&a, true));
	CU_ASSERT_TRUE(joined(&b, true));
	stats = peer_stats(&a);
	CU_ASSERT_EQUAL(stats.joins, 2);
	CU_ASSERT_EQUAL(stats.connections, 1);
	CU_ASSERT_FALSE(stats.trouble[0]);
	say(&a, 100, 2);
	CU_ASSERT_EQUAL(hear(&b, PEER_WAIT_MS), 100);
	close_well(&b);
	close_well(&a);
	kill_switch();
}

/* A switch that does not answer holds nobody up. */
static void test_frozen_switch(void)
{
	struct netplug_port_config c;
	struct peer a;
	int64_t before;

	start_switch();
	kill(vde_switch.pid, SIGSTOP);
	netplug_port_config_init(&c, 0);
	CU_ASSERT_EQUAL(netplug_port_config_vde(&c, switch_path, NULL), 0);
	before = loop_now_ms();
	CU_ASSERT_TRUE_FATAL(peer_open(&a, &c));
	CU_ASSERT_FALSE(peer_stats(&a).joined);
	CU_ASSERT_TRUE(loop_now_ms() - before < 1000);
	kill(vde_switch.pid, SIGCONT);
	CU_ASSERT_TRUE(joined(&a, true));
	close_well(&a);
	kill_switch();
}

/* One who never reads costs the others nothing. */
static void test_never_reads(void)
{
	struct peer a, b, c;
	unsigned heard = 0;

	start_switch();
	CU_ASSERT_TRUE_FATAL(open_on_switch(&a) && open_on_switch(&b) && open_on_switch(&c));
	for (int i = 0; i < 5000; i++) {
		say(&a, 1000, (uint8_t)i);
		heard += hear(&b, PEER_WAIT_MS) == 1000;
	}
	CU_ASSERT_EQUAL(heard, 5000);
	/* It reads again: what waited comes, and then what is new. */
	while (hear(&c, PEER_QUIET_MS))
		;
	say(&a, 77, 1);
	CU_ASSERT_EQUAL(hear(&c, PEER_WAIT_MS), 77);
	close_well(&c);
	close_well(&b);
	close_well(&a);
	kill_switch();
}

/* A guest that floods a network that takes nothing waits, and the plug's memory is bounded. */
static void test_flood(void)
{
	struct pollfd out = { .events = POLLOUT };
	struct netplug_stats stats;
	struct peer a, b;
	long before;
	int sent = 0;

	start_switch();
	CU_ASSERT_TRUE_FATAL(open_on_switch(&a) && open_on_switch(&b));
	before = peer_status_of(a.pid, "VmRSS");
	kill(vde_switch.pid, SIGSTOP);
	out.fd = a.guest;
	while (sent < 100000 && poll(&out, 1, PEER_QUIET_MS) > 0) {
		say(&a, 1000, 1);
		sent++;
	}
	CU_ASSERT_TRUE(sent > 100 && sent < 100000);
	stats = peer_stats(&a);
	CU_ASSERT_EQUAL(stats.in_dropped, 0);
	CU_ASSERT_TRUE(peer_status_of(a.pid, "VmRSS") - before < 32 * 1024);
	kill(vde_switch.pid, SIGCONT);
	CU_ASSERT_EQUAL(hear(&b, PEER_WAIT_MS), 1000);
	while (hear(&b, PEER_QUIET_MS))
		;
	say(&a, 77, 1);
	CU_ASSERT_EQUAL(hear(&b, PEER_WAIT_MS), 77);
	close_well(&b);
	close_well(&a);
	kill_switch();
}

static bool pass_both_ways(struct peer *a, struct peer *b)
{
	say(a, 700, 3);
	if (hear(b, PEER_WAIT_MS) != 700)
		return false;
	say(b, 1514, 4);
	return hear(a, PEER_WAIT_MS) == 1514;
}

static void test_udp(void)
{
	struct peer a, b;

	CU_ASSERT_TRUE_FATAL(open_locator(&a, "udp://4001->127.0.0.1:4002"));
	CU_ASSERT_TRUE_FATAL(open_locator(&b, "udp://4002->127.0.0.1:4001"));
	CU_ASSERT_TRUE(pass_both_ways(&a, &b));
	close_well(&b);
	close_well(&a);
}

static void test_vxvde(void)
{
	struct peer a, b;

	/* Multicast on the loopback needs a route. */
	CU_ASSERT_EQUAL_FATAL(system("ip route add 239.0.0.0/8 dev lo"), 0);
	CU_ASSERT_TRUE_FATAL(open_locator(&a, "vxvde://239.1.2.3"));
	CU_ASSERT_TRUE_FATAL(open_locator(&b, "vxvde://239.1.2.3"));
	CU_ASSERT_TRUE(pass_both_ways(&a, &b));
	close_well(&b);
	close_well(&a);
}

/* A command that speaks vde_plug's stream; when it ends, it is started again. */
static void test_cmd(void)
{
	char *locator = str_printf(NULL, "cmd://vde_plug vde://%s", switch_path);
	struct peer a, b;

	start_switch();
	CU_ASSERT_TRUE_FATAL(open_on_switch(&a) && open_locator(&b, locator));
	for (int i = 0; i < 50 && hear(&b, 0) == 0; i++) {	/* vde_plug takes a moment to join */
		say(&a, 60, 9);
		poll(NULL, 0, 50);
	}
	while (hear(&b, PEER_QUIET_MS) || hear(&a, 0))
		;
	CU_ASSERT_TRUE(pass_both_ways(&a, &b));
	kill_switch();	/* vde_plug ends with it */
	CU_ASSERT_TRUE(joined(&a, false));
	start_switch();
	CU_ASSERT_TRUE(joined(&a, true));
	for (int ms = 0; ms < PEER_WAIT_MS && peer_stats(&b).joins < 2; ms += 20)
		poll(NULL, 0, 20);
	CU_ASSERT_TRUE(peer_stats(&b).joins >= 2);
	close_well(&b);
	close_well(&a);
	kill_switch();
	free(locator);
}

static void test_wrong_locators(void)
{
	static const char *const wrong[] = { "nosuch://x", "relative/path", "://x", "A B://x" };

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		struct netplug_port_config c;
		struct peer p;

		netplug_port_config_init(&c, 0);
		CU_ASSERT_EQUAL(netplug_port_config_vde(&c, wrong[i], NULL), 0);
		CU_ASSERT_FALSE(peer_open(&p, &c));
		CU_ASSERT_NOT_EQUAL(p.answer.u.reply.status, 0);
		CU_ASSERT_PTR_NOT_NULL(strstr(p.answer.u.reply.text, wrong[i]));
		close_well(&p);
	}
}

/* A joined port sleeps. */
static void test_idle_sleeps(void)
{
	struct peer a;
	long last = -1, now;
	bool asleep = false;

	start_switch();
	CU_ASSERT_TRUE_FATAL(open_on_switch(&a));
	for (int tries = 0; tries < 4 && !asleep; tries++) {
		now = peer_status_of(a.pid, "voluntary_ctxt_switches");
		asleep = now == last;
		last = now;
		if (!asleep)
			poll(NULL, 0, 1500);
	}
	CU_ASSERT_TRUE(asleep);
	close_well(&a);
	kill_switch();
}

static void test_end(void)
{
	file_remove_tree(folder, NULL);
	free(switch_path);
}

UNIT_MAIN("netplug vde", UNIT_CASE(test_isolation), UNIT_CASE(test_hub), UNIT_CASE(test_padding),
	  UNIT_CASE(test_switch_killed), UNIT_CASE(test_frozen_switch), UNIT_CASE(test_never_reads), UNIT_CASE(test_flood),
	  UNIT_CASE(test_udp), UNIT_CASE(test_vxvde), UNIT_CASE(test_cmd), UNIT_CASE(test_wrong_locators),
	  UNIT_CASE(test_idle_sleeps), UNIT_CASE(test_end))
