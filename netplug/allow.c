/*
 * What a restricted guest may still reach.
 *
 * libslirp's own restricted mode knows no exceptions, so it stays off and the
 * wall stands here, in front of it: of a restricted guest's frames only those
 * pass that
 *
 *	- are ARP, DHCP, neighbour discovery, or an echo request to the gateway
 *	  itself: libslirp answers them alone, nothing leaves;
 *	- go to a destination of the list;
 *	- are TCP, but do not open a connection. Without a connection libslirp answers
 *	  them with a reset (tcp_input.c:tcp_input, "so == NULL": only a bare SYN
 *	  makes a socket), so what gets through belongs to a forward, whose
 *	  connection was opened from the host, or to an allowed destination.
 *
 * Answers of UDP forwards are taken out before (port.c:answers_udp()). Names are
 * resolved only where the list holds the name server's address. IPv6 with extension headers
 * does not pass, since its protocol is not looked for behind them.
 */
#include <string.h>

#include <arpa/inet.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>

#include "netplug/netplug_internal.h"
#include "uml-lab/base/str.h"

#define DHCP_SERVER_PORT 67		/* RFC 2131 section 4.1 */
#define DHCPV6_SERVER_PORT 547		/* RFC 8415 section 7.2 */
#define ALLOWED "allowed: ADDRESS[/BITS][:PORT[/udp]], IPv6 with a port in brackets"

/* ---- text form ---- */

static int refuse(const char *text, const char *why, struct error *err)
{
	return error_set(err, ERROR_USAGE, "destination '%.*s': %s; " ALLOWED, NETPLUG_ALLOW_TEXT_MAX, text, why);
}

/* Splits "ADDRESS[/BITS]" and "PORT…", in place; *port NULL when there is none. The address's text, or NULL. */
static char *split(char *text, char **port)
{
	char *end = NULL;

	*port = NULL;
	if (*text == '[') {
		end = strchr(text, ']');
		if (!end || (end[1] && end[1] != ':'))
			return NULL;
		if (end[1])
			*port = end + 2;
		*end = '\0';
		return text + 1;
	}
	end = strchr(text, ':');
	if (end && end == strrchr(text, ':')) {
		*end = '\0';
		*port = end + 1;
	}
	return text;
}

/* Cuts "/tcp" or "/udp" off the port and returns the protocol. */
static uint8_t cut_protocol(char *port)
{
	bool udp = str_ends(port, "/udp");

	if (udp || str_ends(port, "/tcp"))
		port[strlen(port) - 4] = '\0';
	return udp ? IPPROTO_UDP : IPPROTO_TCP;
}

static void clear_host_bits(struct netplug_allow *allow)
{
	size_t size = allow->family == AF_INET ? 4 : 16;

	for (size_t i = 0; i < size; i++) {
		unsigned bits = allow->prefix > i * 8 ? allow->prefix - (unsigned)i * 8 : 0;

		if (bits < 8)
			allow->address.s6_addr[i] &= (uint8_t)(0xff00 >> bits);
	}
}

int netplug_allow_parse(const char *text, struct netplug_allow *allow, struct error *err)
{
	char copy[NETPLUG_ALLOW_TEXT_MAX], *address, *port, *bits;
	struct netplug_allow a = { 0 };
	int64_t number;

	if (strlen(text) >= sizeof(copy))
		return refuse(text, "too long", err);
	strcpy(copy, text);
	address = split(copy, &port);
	if (!address)
		return refuse(text, "brackets around what is no IPv6 address", err);
	bits = strchr(address, '/');
	if (bits)
		*bits++ = '\0';
	if (inet_pton(AF_INET, address, &a.address) == 1)
		a.family = AF_INET;
	else if (inet_pton(AF_INET6, address, &a.address) == 1)
		a.family = AF_INET6;
	else
		return refuse(text, "not an IPv4 or IPv6 address", err);
	number = a.family == AF_INET ? 32 : 128;
	if (bits && (*bits == '-' || str_to_i64(bits, 0, number, &number)))
		return refuse(text, a.family == AF_INET ? "the prefix is not 0 to 32 bits" :
							  "the prefix is not 0 to 128 bits", err);
	a.prefix = (unsigned)number;
	if (port) {
		a.protocol = cut_protocol(port);
		if (str_to_i64(port, 1, 65535, &number))
			return refuse(text, "the port is not 1 to 65535", err);
		a.port = (uint16_t)number;
	}
	clear_host_bits(&a);
	*allow = a;
	return 0;
}

/* ---- frames ---- */

static bool covers(const struct netplug_allow *rule, const void *address)
{
	size_t bytes = rule->prefix / 8;
	unsigned bits = rule->prefix % 8;
	const uint8_t *a = address;

	return !memcmp(rule->address.s6_addr, a, bytes) &&
	       (!bits || (a[bytes] & (uint8_t)(0xff00 >> bits)) == rule->address.s6_addr[bytes]);
}

static bool is_listed(const struct allow_list *list, const struct frame_info *info)
{
	const void *to = info->family == AF_INET ? (const void *)&info->destination : &info->destination6;

	for (size_t i = 0; i < list->count; i++) {
		const struct netplug_allow *rule = &list->rules[i];

		if (rule->family == info->family && covers(rule, to) &&
		    (!rule->port || (rule->protocol == info->protocol && rule->port == info->destination_port)))
			return true;
	}
	return false;
}

static bool opens_connection(const struct frame_info *info)
{
	return (info->tcp_flags & (TH_SYN | TH_FIN | TH_RST | TH_URG | TH_ACK)) == TH_SYN;
}

/* What libslirp answers by itself. */
static bool is_own_ipv4(const struct netplug_port_config *config, const struct frame_info *info)
{
	bool gateway = info->destination.s_addr == config->host.s_addr;

	if (info->protocol == IPPROTO_ICMP)
		return gateway && info->icmp_type == ICMP_ECHO;
	return info->protocol == IPPROTO_UDP && info->destination_port == DHCP_SERVER_PORT &&
	       (gateway || info->destination.s_addr == INADDR_BROADCAST);
}

static bool is_own_ipv6(const struct frame_info *info)
{
	bool near = IN6_IS_ADDR_LINKLOCAL(&info->destination6) || IN6_IS_ADDR_MC_LINKLOCAL(&info->destination6);

	if (info->protocol == IPPROTO_ICMPV6)
		return (info->icmp_type >= ND_ROUTER_SOLICIT && info->icmp_type <= ND_NEIGHBOR_ADVERT) ||
		       (near && info->icmp_type == ICMP6_ECHO_REQUEST);
	return near && info->protocol == IPPROTO_UDP && info->destination_port == DHCPV6_SERVER_PORT;
}

bool allow_passes(const struct allow_list *list, const struct netplug_port_config *config,
		  const struct frame_info *info)
{
	if (info->arp)
		return true;
	if (!info->family || !info->whole)
		return false;
	if (info->protocol == IPPROTO_TCP && !opens_connection(info))
		return true;
	if (info->family == AF_INET ? is_own_ipv4(config, info) : is_own_ipv6(info))
		return true;
	return is_listed(list, info);
}
