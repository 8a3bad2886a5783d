/*
 * The types of values that name things of a network: interface addresses,
 * MAC addresses, port forwardings, destinations. The text form of a forward is
 * netplug's (netplug.h), so that lab.yml and `uml-lab forward` read alike.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "netplug/netplug.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/lab/lab_internal.h"

static bool refuse(struct strbuf *why, const char *text, const char *what)
{
	char quoted[LAB_QUOTE_MAX];

	strbuf_printf(why, "is %s, %s", lab_quote(text, quoted), what);
	return false;
}

/* Reads "ADDRESS" or "ADDRESS/BITS" (bits -1 when left out). NULL, or what is wrong. */
static const char *read_address(const char *text, struct lab_address *out)
{
	const char *slash = strchrnul(text, '/');
	char plain[INET6_ADDRSTRLEN];
	int64_t bits = -1;

	if ((size_t)(slash - text) >= sizeof(plain))
		return "not an IPv4 or IPv6 address";
	memcpy(plain, text, (size_t)(slash - text));
	plain[slash - text] = '\0';
	if (inet_pton(AF_INET, plain, &out->v4) == 1)
		out->family = AF_INET;
	else if (inet_pton(AF_INET6, plain, &out->v6) == 1)
		out->family = AF_INET6;
	else
		return "not an IPv4 or IPv6 address";
	if (*slash &&
	    (slash[1] == '-' || str_to_i64(slash + 1, 0, out->family == AF_INET ? 32 : 128, &bits) < 0))
		return out->family == AF_INET ? "whose prefix is not 0 to 32 bits"
					      : "whose prefix is not 0 to 128 bits";
	out->prefix = (int)bits;
	return NULL;
}

/* What speaks against an IPv4 address on an interface; NULL when nothing does. */
static const char *refuse_v4(uint32_t address, int prefix)
{
	uint32_t host =
		prefix >= 31 ? 1 : address & (UINT32_MAX >> prefix); /* RFC 3021: /31 has no broadcast */

	if (address >> 28 == 14)
		return "a multicast address";
	if (address >> 24 == 127)
		return "a loopback address";
	if (address >> 24 == 0 || address >> 28 == 15)
		return "not an address a machine can have";
	if (!host)
		return "the address of the network itself";
	if (prefix < 31 && host == UINT32_MAX >> prefix)
		return "the broadcast address of its network";
	return NULL;
}

static const char *refuse_v6(const struct in6_addr *address)
{
	if (IN6_IS_ADDR_MULTICAST(address))
		return "a multicast address";
	if (IN6_IS_ADDR_LOOPBACK(address))
		return "a loopback address";
	if (IN6_IS_ADDR_UNSPECIFIED(address) || IN6_IS_ADDR_V4MAPPED(address))
		return "not an address a machine can have";
	return NULL;
}

static bool parse_address(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	struct lab_address address = {0};
	const char *wrong = read_address(text, &address);

	(void)field;
	if (!wrong && address.prefix < 1)
		wrong = address.prefix < 0 ? "without its prefix, like /24" : "whose prefix is 0 bits";
	if (!wrong)
		wrong = address.family == AF_INET ? refuse_v4(ntohl(address.v4.s_addr), address.prefix)
						  : refuse_v6(&address.v6);
	if (wrong)
		return refuse(why, text, wrong);
	*(struct lab_address *)value = address;
	return true;
}

static void write_address(const struct field *field, const void *value, struct strbuf *out)
{
	const struct lab_address *address = value;
	char text[INET6_ADDRSTRLEN];

	(void)field;
	inet_ntop(address->family, &address->v4, text, sizeof(text));
	strbuf_printf(out, "%s/%d", text, address->prefix);
}

/* mac and mac_given of struct lab_interface lie side by side and are one value here. */
struct mac_value {
	uint8_t bytes[6];
	bool given;
};
_Static_assert(offsetof(struct lab_interface, mac_given) - offsetof(struct lab_interface, mac) ==
		       offsetof(struct mac_value, given),
	       "mac and mac_given are one value");

static bool parse_mac(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	struct mac_value mac = {.given = true};
	const char *s = text;

	(void)field;
	if (str_eq(text, "auto"))
		return true;
	for (int i = 0; i < 6; i++) {
		if (!isxdigit((unsigned char)s[0]) || !isxdigit((unsigned char)s[1]) ||
		    s[2] != (i < 5 ? ':' : '\0'))
			return refuse(why, text, "not a MAC address");
		mac.bytes[i] = (uint8_t)strtoul(s, NULL, 16);
		s += 3;
	}
	if (mac.bytes[0] & 1) /* IEEE 802: the first bit on the wire marks a group */
		return refuse(why, text, "a multicast MAC address (its first byte is odd)");
	if (!memcmp(mac.bytes, "\0\0\0\0\0", 6))
		return refuse(why, text, "not an address an interface can have");
	*(struct mac_value *)value = mac;
	return true;
}

static void write_mac(const struct field *field, const void *value, struct strbuf *out)
{
	const struct mac_value *mac = value;

	(void)field;
	if (!mac->given) {
		strbuf_puts(out, "auto");
		return;
	}
	for (int i = 0; i < 6; i++)
		strbuf_printf(out, "%s%02x", i ? ":" : "", mac->bytes[i]);
}

static int address_and_port(const struct sockaddr_storage *from, char text[static INET6_ADDRSTRLEN])
{
	if (from->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)from;

		inet_ntop(AF_INET6, &in6->sin6_addr, text, INET6_ADDRSTRLEN);
		return ntohs(in6->sin6_port);
	}
	const struct sockaddr_in *in = (const struct sockaddr_in *)from;

	inet_ntop(AF_INET, &in->sin_addr, text, INET6_ADDRSTRLEN);
	return ntohs(in->sin_port);
}

int lab_parse_forward(const char *text, struct lab_forward *out, struct error *err)
{
	cleanup_with(lab_forward_free) struct lab_forward forward = {0};
	struct netplug_forward parsed;
	char host[INET6_ADDRSTRLEN], guest[INET6_ADDRSTRLEN];

	if (netplug_forward_parse(text, &parsed, err) < 0)
		return -1;
	forward.host_port = address_and_port(&parsed.host, host);
	forward.guest_port = address_and_port(&parsed.guest, guest);
	forward.udp = parsed.udp;
	forward.text = str_dup(text, err);
	forward.host_address = str_dup(host, err);
	if (!forward.text || !forward.host_address)
		return -1;
	if (!str_eq(guest, "0.0.0.0") && !str_eq(guest, "::") &&
	    !(forward.guest_address = str_dup(guest, err)))
		return -1;
	*out = forward;
	forward = (struct lab_forward){0};
	return 0;
}

void lab_forward_free(struct lab_forward *forward)
{
	free(forward->text);
	free(forward->host_address);
	free(forward->guest_address);
	*forward = (struct lab_forward){0};
}

static bool parse_forward(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	struct error err = ERROR_INIT;

	(void)field;
	if (strlen(text) >= NETPLUG_FORWARD_TEXT_MAX ||
	    strspn(text, "0123456789abcdefABCDEFutop.:[]/") != strlen(text))
		return refuse(why, text, "not a forward");
	if (lab_parse_forward(text, value, &err) == 0)
		return true;
	strbuf_puts(why, err.message);
	return false;
}

static void write_forward(const struct field *field, const void *value, struct strbuf *out)
{
	(void)field;
	strbuf_puts(out, ((const struct lab_forward *)value)->text);
}

static void release_forward(void *value)
{
	lab_forward_free(value);
}

static bool parse_destination(const struct field *field, const char *text, void *value, struct strbuf *why)
{
	struct netplug_allow parsed;
	struct error err = ERROR_INIT;

	(void)field;
	if (strlen(text) >= NETPLUG_ALLOW_TEXT_MAX || strspn(text, "0123456789abcdefABCDEFutcp.:[]/") != strlen(text))
		return refuse(why, text, "not a destination");
	if (netplug_allow_parse(text, &parsed, &err) == 0)
		return lab_string_keep(text, value, why);
	strbuf_puts(why, err.message);
	return false;
}

const struct scalar_type scalar_address = {
	.name = "address",
	.allowed = "IPv4 or IPv6 with its prefix, like 10.0.1.1/24 or 2001:db8::1/64",
	.json_type = "string",
	.pattern = "[0-9a-fA-F.:]+/[0-9]{1,3}",
	.size = sizeof(struct lab_address),
	.parse = parse_address,
	.write = write_address,
};
const struct scalar_type scalar_mac = {
	.name = "MAC address",
	.allowed = "auto, or one like 02:00:00:00:00:01",
	.json_type = "string",
	.pattern = "auto|([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}",
	.size = sizeof(struct mac_value),
	.parse = parse_mac,
	.write = write_mac,
};
const struct scalar_type scalar_forward = {
	.name = "forward",
	.allowed = "[ADDRESS:]PORT|auto:[GUEST:]GUESTPORT[/tcp|/udp]",
	.json_type = "string",
	.pattern = "[0-9a-fA-Futop.:\\[\\]]+:[0-9]+(/tcp|/udp)?",
	.size = sizeof(struct lab_forward),
	.parse = parse_forward,
	.write = write_forward,
	.release = release_forward,
};
const struct scalar_type scalar_destination = {
	.name = "destination",
	.allowed = "ADDRESS[/BITS][:PORT[/udp]], IPv6 with a port in brackets",
	.json_type = "string",
	.pattern = "\\[?[0-9a-fA-F.:]+(/[0-9]+)?\\]?(:[0-9]+(/tcp|/udp)?)?",
	.size = sizeof(char *),
	.parse = parse_destination,
	.write = lab_string_write,
	.release = lab_string_release,
};
