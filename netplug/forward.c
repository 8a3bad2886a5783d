/*
 * The text form of a port forwarding (netplug.h).
 *
 * How it works: the protocol is cut off the end; what is left is split at the
 * colons outside brackets into 2, 3 or 4 fields. Two fields are the ports, four
 * are everything. Of three, the one that looks like an address (a dot or a bracket)
 * tells which address was given.
 */
#include "netplug/netplug.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "uml-lab/base/str.h"

#define FIELDS_MAX 4
#define FIELD_SIZE (INET6_ADDRSTRLEN + 2)	/* with its brackets */

static const char allowed[] = "[ADDRESS:]PORT|auto:[GUEST:]GUESTPORT[/tcp|/udp]";

static int bad(struct error *err, const char *text, const char *why)
{
	return error_set(err, ERROR_USAGE, "forward '%s': %s; allowed: %s", text, why, allowed);
}

/* Splits text (length bytes) into fields. Returns how many, or -1: too many, too long, brackets that do not match. */
static int split(const char *text, size_t length, char fields[FIELDS_MAX][FIELD_SIZE])
{
	int count = 0;
	size_t used = 0;
	bool inside = false;

	for (size_t i = 0; i <= length; i++) {
		char c = i < length ? text[i] : ':';

		if (c == ':' && (!inside || i == length)) {
			if (count == FIELDS_MAX)
				return -1;
			fields[count++][used] = '\0';
			used = 0;
			continue;
		}
		if (count == FIELDS_MAX || used == FIELD_SIZE - 1 || (c == '[' && inside) || (c == ']' && !inside))
			return -1;
		if (c == '[' || c == ']')
			inside = c == '[';
		fields[count][used++] = c;
	}
	return inside ? -1 : count;
}

static bool looks_like_address(const char *field)
{
	return field[0] == '[' || strchr(field, '.');
}

/* Fills the address of *out from the field. 0 or -1. */
static int parse_address(const char *field, struct sockaddr_storage *out)
{
	size_t length = strlen(field);
	char inner[FIELD_SIZE];

	if (field[0] != '[') {
		struct sockaddr_in *in = (struct sockaddr_in *)out;

		in->sin_family = AF_INET;
		return inet_pton(AF_INET, field, &in->sin_addr) == 1 ? 0 : -1;
	}
	if (length < 3 || field[length - 1] != ']')
		return -1;
	memcpy(inner, field + 1, length - 2);
	inner[length - 2] = '\0';
	out->ss_family = AF_INET6;
	return inet_pton(AF_INET6, inner, &((struct sockaddr_in6 *)out)->sin6_addr) == 1 ? 0 : -1;
}

static void set_port(struct sockaddr_storage *address, int64_t port)
{
	if (address->ss_family == AF_INET6)
		((struct sockaddr_in6 *)address)->sin6_port = htons((uint16_t)port);
	else
		((struct sockaddr_in *)address)->sin_port = htons((uint16_t)port);
}

static uint16_t get_port(const struct sockaddr_storage *address)
{
	if (address->ss_family == AF_INET6)
		return ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
	return ntohs(((const struct sockaddr_in *)address)->sin_port);
}

/* Cuts "/tcp" or "/udp" off: the length that is left, or -1 for another protocol. */
static ssize_t cut_protocol(const char *text, bool *udp)
{
	const char *slash = strchr(text, '/');

	*udp = false;
	if (!slash)
		return (ssize_t)strlen(text);
	if (!str_eq(slash, "/tcp") && !str_eq(slash, "/udp"))
		return -1;
	*udp = str_eq(slash, "/udp");
	return slash - text;
}

/* The address of one side: as written, or else the default of the other side's family. 0 or -1. */
static int fill_address(const char *field, const char *other, uint32_t default4, struct sockaddr_storage *out)
{
	if (*field)
		return parse_address(field, out);
	if (other[0] == '[') {
		/* Only the host's side has a default that listens: its loopback. */
		out->ss_family = AF_INET6;
		((struct sockaddr_in6 *)out)->sin6_addr = default4 ? in6addr_loopback : in6addr_any;
		return 0;
	}
	out->ss_family = AF_INET;
	((struct sockaddr_in *)out)->sin_addr.s_addr = htonl(default4);
	return 0;
}

int netplug_forward_parse(const char *text, struct netplug_forward *forward, struct error *err)
{
	struct netplug_forward f = { 0 };
	char fields[FIELDS_MAX][FIELD_SIZE];
	const char *host = "", *guest = "", *host_port, *guest_port;
	ssize_t length = cut_protocol(text, &f.udp);
	int64_t port = 0;
	int count;

	if (length < 0)
		return bad(err, text, "the protocol is not tcp or udp");
	count = split(text, (size_t)length, fields);
	if (count < 2)
		return bad(err, text, "does not read as a host port and a guest port");
	if (count == 4 || (count == 3 && looks_like_address(fields[0])))
		host = fields[0];
	if (count == 4 || (count == 3 && !*host))
		guest = fields[count - 2];
	host_port = fields[*host ? 1 : 0];
	guest_port = fields[count - 1];
	if ((count >= 3 && !*host && !*guest) || (count == 4 && (!*host || !*guest)))
		return bad(err, text, "an address is empty");
	if (fill_address(host, guest, INADDR_LOOPBACK, &f.host) || fill_address(guest, host, INADDR_ANY, &f.guest))
		return bad(err, text, "an address is neither IPv4 nor [IPv6]");
	if (f.host.ss_family != f.guest.ss_family)
		return bad(err, text, "one address is IPv4, the other IPv6");
	if (f.udp && f.host.ss_family == AF_INET6)
		return bad(err, text, "UDP is forwarded over IPv4 only");
	if (!str_eq(host_port, "auto") && str_to_i64(host_port, 1, 65535, &port))
		return bad(err, text, "the host port is not 1 to 65535 or auto");
	set_port(&f.host, port);
	if (str_to_i64(guest_port, 1, 65535, &port))
		return bad(err, text, "the guest port is not 1 to 65535");
	set_port(&f.guest, port);
	*forward = f;
	return 0;
}

static void format_address(const struct sockaddr_storage *address, char out[static FIELD_SIZE])
{
	char text[INET6_ADDRSTRLEN];

	if (address->ss_family == AF_INET6) {
		inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)address)->sin6_addr, text, sizeof(text));
		snprintf(out, FIELD_SIZE, "[%s]", text);
	} else {
		inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, text, sizeof(text));
		snprintf(out, FIELD_SIZE, "%s", text);
	}
}

char *netplug_forward_format(const struct netplug_forward *forward, char buf[static NETPLUG_FORWARD_TEXT_MAX])
{
	char host[FIELD_SIZE], guest[FIELD_SIZE], port[6] = "auto";

	format_address(&forward->host, host);
	format_address(&forward->guest, guest);
	if (get_port(&forward->host))
		snprintf(port, sizeof(port), "%u", get_port(&forward->host));
	snprintf(buf, NETPLUG_FORWARD_TEXT_MAX, "%s:%s:%s:%u/%s", host, port, guest, get_port(&forward->guest),
		 forward->udp ? "udp" : "tcp");
	return buf;
}

bool netplug_forward_same_host(const struct netplug_forward *a, const struct netplug_forward *b)
{
	if (a->udp != b->udp || a->host.ss_family != b->host.ss_family || get_port(&a->host) != get_port(&b->host))
		return false;
	if (a->host.ss_family == AF_INET6)
		return !memcmp(&((const struct sockaddr_in6 *)&a->host)->sin6_addr,
			       &((const struct sockaddr_in6 *)&b->host)->sin6_addr, sizeof(struct in6_addr));
	return ((const struct sockaddr_in *)&a->host)->sin_addr.s_addr ==
	       ((const struct sockaddr_in *)&b->host)->sin_addr.s_addr;
}
