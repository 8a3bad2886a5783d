/* Plugs on a real vde_switch, for tests. Peers are closed last first: a plug is forked with the ends of those before it. */
#ifndef TESTS_UNIT_NETPLUG_SWITCH_H
#define TESTS_UNIT_NETPLUG_SWITCH_H

#include <fcntl.h>

#include "tests/unit/netplug_peer.h"
#include "tests/unit/unit.h"
#include "uml-lab/base/child.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/str.h"

static char folder[] = "/tmp/netplug-vde-XXXXXX";
static char *switch_path;
static int switch_input = -1;	/* vde_switch ends when this closes */
static struct child vde_switch = CHILD_INIT;
static uint8_t frame[65536];

static inline void start_switch(void)
{
	const char *argv[] = { "vde_switch", "-x", "-s", switch_path, "-m", "0600", NULL };
	cleanup_close int theirs = -1;
	char *ctl = str_printf(NULL, "%s/ctl", switch_path);
	int pair[2];

	CU_ASSERT_EQUAL_FATAL(pipe2(pair, O_CLOEXEC), 0);
	theirs = pair[0];
	switch_input = pair[1];
	struct child_fd fds[] = { { theirs, 0 } };
	struct child_spec spec = { .argv = argv, .fds = fds, .fd_count = 1, .death_signal = SIGKILL };

	CU_ASSERT_EQUAL_FATAL(child_spawn(&vde_switch, &spec, NULL), 0);
	for (int ms = 0; ms < PEER_WAIT_MS && !file_exists(ctl); ms += 10)
		poll(NULL, 0, 10);
	free(ctl);
}

static inline void kill_switch(void)
{
	kill(vde_switch.pid, SIGKILL);
	child_wait(&vde_switch, PEER_WAIT_MS, NULL, NULL);
	close(steal_fd(&switch_input));
	file_remove_tree(switch_path, NULL);
}

/* Waits until the port is joined, or is not. */
static inline bool joined(struct peer *p, bool wanted)
{
	for (int ms = 0; ms < PEER_WAIT_MS; ms += 20) {
		if (peer_stats(p).joined == wanted)
			return true;
		poll(NULL, 0, 20);
	}
	return false;
}

static inline bool open_locator(struct peer *p, const char *locator)
{
	struct netplug_port_config c;
	bool well;

	netplug_port_config_init(&c, 0);
	well = !netplug_port_config_vde(&c, locator, NULL) && peer_open(p, &c);
	p->locator = locator;
	return well && joined(p, true);
}

static inline bool open_on_switch(struct peer *p)
{
	return open_locator(p, switch_path);
}

static inline void close_well(struct peer *p)
{
	CU_ASSERT_EQUAL(peer_close(p), 0);
}

/* A broadcast of `length` bytes, each but the header's being `fill`. */
static inline void say(struct peer *p, size_t length, uint8_t fill)
{
	uint8_t f[65536];

	memset(f, fill, sizeof(f));
	memcpy(f, peer_broadcast, 6);
	memcpy(f + 6, peer_mac, 6);
	peer_put16(f + 12, 0x88b5);	/* IEEE 802: local experimental */
	send(p->guest, f, length, 0);
}

/* What comes next, at most ms. Its length, 0 for nothing. */
static inline size_t hear(struct peer *p, int ms)
{
	struct pollfd pfd = { .fd = p->guest, .events = POLLIN };
	ssize_t n = poll(&pfd, 1, ms) > 0 ? recv(p->guest, frame, sizeof(frame), MSG_DONTWAIT) : 0;

	return n > 0 ? (size_t)n : 0;
}

#endif
