/*
 * Who has a port: for the message that says it is in use.
 *
 * How it works: /proc/net/{tcp,udp}{,6} give the inode of the socket bound to
 * the port (the kernel's Documentation/networking/proc_net_tcp.rst); a process
 * that has it open shows "socket:[INODE]" in its /proc/PID/fd, readable for the
 * user's own processes.
 */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "netplug/netplug_internal.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/str.h"

#define STATE_LISTEN 0x0a	/* the kernel's include/net/tcp_states.h */
#define STATE_UDP_BOUND 0x07

/* The inode of the socket in one table, or 0. */
static uint64_t find_inode(const char *table, unsigned state, uint16_t port)
{
	cleanup_file FILE *f = fopen(table, "re");
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		unsigned local, st;
		uint64_t inode;

		if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*s %*s %" SCNu64,
			   &local, &st, &inode) == 3 &&
		    local == port && st == state)
			return inode;
	}
	return 0;
}

static bool has_inode(const char *pid, const char *wanted)
{
	char path[sizeof("/proc//fd/") + 2 * 256];
	cleanup_dir DIR *dir = NULL;
	struct dirent *entry;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		char target[64];
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		if (n <= 0)
			continue;
		target[n] = '\0';
		if (str_eq(target, wanted))
			return true;
	}
	return false;
}

static void describe(const char *pid, char *buf, size_t size)
{
	char path[sizeof("/proc//comm") + 256], comm[32] = "";
	cleanup_file FILE *f = NULL;

	snprintf(path, sizeof(path), "/proc/%s/comm", pid);
	f = fopen(path, "re");
	if (f && fgets(comm, sizeof(comm), f))
		comm[strcspn(comm, "\n")] = '\0';
	snprintf(buf, size, " by process %s%s%s", pid, comm[0] ? ", " : "", comm);
}

char *netplug_owner_of_port(bool udp, uint16_t port, char *buf, size_t size)
{
	unsigned state = udp ? STATE_UDP_BOUND : STATE_LISTEN;
	uint64_t inode = find_inode(udp ? "/proc/net/udp" : "/proc/net/tcp", state, port);
	cleanup_dir DIR *proc = NULL;
	struct dirent *entry;
	char wanted[64];

	buf[0] = '\0';
	if (!inode)
		inode = find_inode(udp ? "/proc/net/udp6" : "/proc/net/tcp6", state, port);
	if (!inode)
		return buf;
	snprintf(wanted, sizeof(wanted), "socket:[%" PRIu64 "]", inode);
	proc = opendir("/proc");
	while (proc && (entry = readdir(proc))) {
		if (entry->d_name[0] < '1' || entry->d_name[0] > '9' || !has_inode(entry->d_name, wanted))
			continue;
		describe(entry->d_name, buf, size);
		break;
	}
	return buf;
}
