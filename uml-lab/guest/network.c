/*
 * Network set-up by rtnetlink (rtnetlink(7)): one request, one answer.
 *
 * UML's vector devices come up as vecN in the order of the command line, virtio's as ethN; labs
 * expect eth0…, so each is found by its MAC and renamed while it is down. udev
 * leaves a name alone that user space gave.
 *
 * A default route goes with its link ("ip link set eth0 down; ip link set eth0
 * up"), the address stays. Images with a manager (networkd, ifupdown's dhclient,
 * …) restore it themselves; for all others we do, once the link is up again.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "uml-lab/guest/network.h"

/* A request under construction: the header, its fixed part, then attributes. */
struct request {
	struct nlmsghdr header;
	uint8_t body[1024];
};

static void *request_init(struct request *r, int type, int flags, size_t fixed)
{
	memset(r, 0, sizeof(*r));
	r->header.nlmsg_type = type;
	r->header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	r->header.nlmsg_len = NLMSG_LENGTH(fixed);
	return NLMSG_DATA(&r->header);
}

static void request_attribute(struct request *r, int type, const void *data, size_t length)
{
	struct rtattr *a = (struct rtattr *)((char *)r + NLMSG_ALIGN(r->header.nlmsg_len));

	a->rta_type = type;
	a->rta_len = RTA_LENGTH(length);
	memcpy(RTA_DATA(a), data, length);
	r->header.nlmsg_len = NLMSG_ALIGN(r->header.nlmsg_len) + RTA_ALIGN(a->rta_len);
}

/* Sends and waits for the kernel's verdict. 0, or -1 with errno. */
static int request_send(int nl, struct request *r)
{
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		uint8_t rest[2048];
	} answer;
	ssize_t n;

	if (send(nl, r, r->header.nlmsg_len, 0) < 0)
		return -1;
	n = recv(nl, &answer, sizeof(answer), 0);
	if (n < (ssize_t)NLMSG_LENGTH(sizeof(answer.error)) || answer.header.nlmsg_type != NLMSG_ERROR) {
		errno = EPROTO;
		return -1;
	}
	errno = -answer.error.error;
	return errno ? -1 : 0;
}

static int open_netlink(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK };
	int nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (nl >= 0 && bind(nl, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close(nl);
		return -1;
	}
	return nl;
}

/* What the kernel says of a link. */
struct link {
	int index;
	unsigned int flags;
	char name[IFNAMSIZ];
	uint8_t mac[6];
};

static void parse_link(const struct nlmsghdr *h, struct link *out)
{
	const struct ifinfomsg *info = NLMSG_DATA(h);
	const struct rtattr *a = IFLA_RTA(info);
	int left = IFLA_PAYLOAD(h);

	memset(out, 0, sizeof(*out));
	out->index = info->ifi_index;
	out->flags = info->ifi_flags;
	for (; RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if (a->rta_type == IFLA_IFNAME)
			snprintf(out->name, sizeof(out->name), "%.*s", (int)RTA_PAYLOAD(a),
				 (const char *)RTA_DATA(a));
		else if (a->rta_type == IFLA_ADDRESS && RTA_PAYLOAD(a) == sizeof(out->mac))
			memcpy(out->mac, RTA_DATA(a), sizeof(out->mac));
	}
}

/* Walks a dump until each() says stop (non-zero) or it ends. */
typedef int (*dump_fn)(const struct nlmsghdr *h, void *arg);

static int dump(int nl, int type, int family, dump_fn each, void *arg)
{
	static uint8_t buf[32768] __attribute__((aligned(8)));
	struct request r;
	struct rtgenmsg *g = request_init(&r, type, NLM_F_DUMP, sizeof(*g));
	struct nlmsghdr *h;
	int left, found = 0;

	g->rtgen_family = family;
	r.header.nlmsg_flags &= ~NLM_F_ACK;
	if (send(nl, &r, r.header.nlmsg_len, 0) < 0)
		return 0;
	for (;;) {
		left = recv(nl, buf, sizeof(buf), 0);
		if (left <= 0)
			return found;
		for (h = (struct nlmsghdr *)buf; NLMSG_OK(h, (unsigned int)left); h = NLMSG_NEXT(h, left)) {
			if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR)
				return found;
			if (!found)
				found = each(h, arg);
		}
	}
}

struct find_link {
	const uint8_t *mac;	/* or, when NULL, */
	const char *name;
	struct link link;
};

static int match_link(const struct nlmsghdr *h, void *arg)
{
	struct find_link *want = arg;
	struct link l;

	if (h->nlmsg_type != RTM_NEWLINK)
		return 0;
	parse_link(h, &l);
	if (want->mac ? memcmp(l.mac, want->mac, sizeof(l.mac)) : strcmp(l.name, want->name))
		return 0;
	want->link = l;
	return 1;
}

static int set_link(int nl, int index, const char *name, bool up)
{
	struct request r;
	struct ifinfomsg *info = request_init(&r, RTM_NEWLINK, 0, sizeof(*info));

	info->ifi_index = index;
	if (up)
		info->ifi_flags = info->ifi_change = IFF_UP;
	if (name)
		request_attribute(&r, IFLA_IFNAME, name, strlen(name) + 1);
	return request_send(nl, &r);
}

static size_t address_size(const struct config_address *a)
{
	return a->family == AF_INET ? 4 : 16;
}

/*
 * An IPv6 address is good at once, as container engines have it too: for the second or two that it takes to look for a
 * duplicate, the kernel would send from another interface's address (RFC 6724 leaves it no other), to which no answer finds back,
 * and a connection begun then hangs for minutes.
 */
static int add_address(int nl, int index, const struct config_address *a)
{
	struct request r;
	struct ifaddrmsg *m = request_init(&r, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*m));
	uint32_t broadcast;

	m->ifa_family = a->family;
	m->ifa_prefixlen = a->prefix;
	m->ifa_index = index;
	if (a->family == AF_INET6)
		m->ifa_flags = IFA_F_NODAD;
	request_attribute(&r, IFA_LOCAL, a->bytes, address_size(a));
	request_attribute(&r, IFA_ADDRESS, a->bytes, address_size(a));
	if (a->family == AF_INET && a->prefix < 31) {
		memcpy(&broadcast, a->bytes, 4);
		broadcast |= htonl(a->prefix ? 0xffffffffu >> a->prefix : 0xffffffffu);
		request_attribute(&r, IFA_BROADCAST, &broadcast, 4);
	}
	return request_send(nl, &r);
}

static int add_default_route(int nl, int index, const struct config_address *gateway)
{
	struct request r;
	struct rtmsg *m = request_init(&r, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*m));

	m->rtm_family = gateway->family;
	m->rtm_table = RT_TABLE_MAIN;
	m->rtm_protocol = RTPROT_BOOT;
	m->rtm_scope = RT_SCOPE_UNIVERSE;
	m->rtm_type = RTN_UNICAST;
	request_attribute(&r, RTA_GATEWAY, gateway->bytes, address_size(gateway));
	if (index)
		request_attribute(&r, RTA_OIF, &index, sizeof(index));
	return request_send(nl, &r);
}

static void note_errno(mount_note_fn note, void *arg, const char *what, const char *name)
{
	struct fault f;

	fault_errno(&f, errno, "%s of %s", what, name);
	note(arg, f.text);
}

/* Gives the link its name; whoever has it already (another vecN) steps aside. */
static int name_link(int nl, struct link *l, const char *name)
{
	struct find_link holder = { .name = name };
	char aside[IFNAMSIZ];

	if (!strcmp(l->name, name))
		return 0;
	if (dump(nl, RTM_GETLINK, AF_UNSPEC, match_link, &holder)) {
		snprintf(aside, sizeof(aside), "aside%d", holder.link.index);
		if (set_link(nl, holder.link.index, aside, false) < 0)
			return -1;
	}
	return set_link(nl, l->index, name, false);
}

bool network_is_complete(const struct config *c)
{
	int nl = c->interface_count ? open_netlink() : -1, i;
	bool complete = true;

	for (i = 0; nl >= 0 && i < c->interface_count; i++) {
		struct find_link found = { .mac = c->interfaces[i].mac };

		complete &= dump(nl, RTM_GETLINK, AF_UNSPEC, match_link, &found) != 0;
	}
	if (nl >= 0)
		close(nl);
	return complete;
}

static void set_up_interface(int nl, const struct config_interface *i, mount_note_fn note, void *arg)
{
	struct find_link found = { .mac = i->mac };
	struct fault f;
	int k;

	if (!dump(nl, RTM_GETLINK, AF_UNSPEC, match_link, &found)) {
		fault_set(&f, "no network device has the MAC address of %s", i->name);
		note(arg, f.text);
		return;
	}
	if (name_link(nl, &found.link, i->name) < 0)
		note_errno(note, arg, "cannot set the name", i->name);
	if (set_link(nl, found.link.index, NULL, true) < 0)
		note_errno(note, arg, "cannot bring up the link", i->name);
	for (k = 0; k < i->address_count; k++)
		if (add_address(nl, found.link.index, &i->addresses[k]) < 0)
			note_errno(note, arg, "cannot set an address", i->name);
	if (i->slirp && add_default_route(nl, found.link.index, &i->gateway) < 0)
		note_errno(note, arg, "cannot set the default route", i->name);
}

void network_set_up(const struct config *c, mount_note_fn note, void *arg)
{
	struct find_link lo = { .name = "lo" };
	int nl = open_netlink(), i;

	if (nl < 0) {
		note(arg, "no netlink: the network is not set up");
		return;
	}
	if (dump(nl, RTM_GETLINK, AF_UNSPEC, match_link, &lo))
		set_link(nl, lo.link.index, NULL, true);
	for (i = 0; i < c->interface_count; i++)
		set_up_interface(nl, &c->interfaces[i], note, arg);
	if (c->gateway.family && add_default_route(nl, 0, &c->gateway) < 0)
		note_errno(note, arg, "cannot set the default route", "this machine");
	close(nl);
}

int network_watch(void)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK };
	int nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);

	if (nl >= 0 && bind(nl, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close(nl);
		return -1;
	}
	return nl;
}

static const struct config_interface *slirp_interface(const struct config *c, const uint8_t *mac)
{
	int i;

	for (i = 0; i < c->interface_count; i++)
		if (c->interfaces[i].slirp && !memcmp(c->interfaces[i].mac, mac, 6))
			return &c->interfaces[i];
	return NULL;
}

bool network_link_changed(int watch, const struct config *c)
{
	static uint8_t buf[16384] __attribute__((aligned(8)));
	struct nlmsghdr *h;
	struct link l;
	bool up = false;
	int left;

	while ((left = recv(watch, buf, sizeof(buf), 0)) > 0) {
		for (h = (struct nlmsghdr *)buf; NLMSG_OK(h, (unsigned int)left); h = NLMSG_NEXT(h, left)) {
			if (h->nlmsg_type != RTM_NEWLINK)
				continue;
			parse_link(h, &l);
			up |= (l.flags & IFF_UP) && slirp_interface(c, l.mac);
		}
	}
	return up;
}

static int match_default_route(const struct nlmsghdr *h, void *arg)
{
	const struct rtmsg *m = NLMSG_DATA(h);

	(void)arg;
	return h->nlmsg_type == RTM_NEWROUTE && m->rtm_dst_len == 0 && m->rtm_type == RTN_UNICAST &&
	       m->rtm_table == RT_TABLE_MAIN;
}

struct find_address {
	int index;
	const struct config_address *address;
};

static int match_address(const struct nlmsghdr *h, void *arg)
{
	const struct find_address *want = arg;
	const struct ifaddrmsg *m = NLMSG_DATA(h);
	const struct rtattr *a = IFA_RTA(m);
	int left = IFA_PAYLOAD(h);

	if (h->nlmsg_type != RTM_NEWADDR || (int)m->ifa_index != want->index)
		return 0;
	for (; RTA_OK(a, left); a = RTA_NEXT(a, left))
		if (a->rta_type == IFA_LOCAL && RTA_PAYLOAD(a) == 4 &&
		    !memcmp(RTA_DATA(a), want->address->bytes, 4))
			return 1;
	return 0;
}

/* Whether a program runs that looks after interfaces itself (process names are cut to 15 bytes). */
static bool manager_runs(void)
{
	static const char *const managers[] = {
		"systemd-network", "NetworkManager", "dhclient", "dhcpcd", "udhcpc", "connmand", "netifd", "wickedd",
	};
	DIR *proc = opendir("/proc");
	bool found = false;
	struct dirent *e;
	char path[300], *name;
	size_t i;

	while (proc && !found && (e = readdir(proc))) {
		if (e->d_name[0] < '1' || e->d_name[0] > '9')
			continue;
		snprintf(path, sizeof(path), "/proc/%s/comm", e->d_name);
		name = guest_read_file(path, 64, NULL);
		for (i = 0; name && i < GUEST_COUNT(managers); i++)
			found |= !strncmp(name, managers[i], strlen(managers[i]));
		free(name);
	}
	if (proc)
		closedir(proc);
	return found;
}

void network_restore(const struct config *c)
{
	struct find_link found;
	struct find_address address;
	int nl = open_netlink(), i;

	if (nl < 0)
		return;
	for (i = 0; i < c->interface_count; i++) {
		if (!c->interfaces[i].slirp || c->interfaces[i].gateway.family != AF_INET)
			continue;
		found = (struct find_link){ .mac = c->interfaces[i].mac };
		if (!dump(nl, RTM_GETLINK, AF_UNSPEC, match_link, &found) || !(found.link.flags & IFF_UP))
			continue;
		address = (struct find_address){ found.link.index, &c->interfaces[i].addresses[0] };
		if (dump(nl, RTM_GETADDR, AF_INET, match_address, &address) &&
		    !dump(nl, RTM_GETROUTE, AF_INET, match_default_route, NULL) && !manager_runs())
			add_default_route(nl, found.link.index, &c->interfaces[i].gateway);
	}
	close(nl);
}
