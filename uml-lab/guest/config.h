/* The configuration that the host sends (protocol.h, "Configuration"), parsed and checked. */
#ifndef UML_LAB_GUEST_CONFIG_H
#define UML_LAB_GUEST_CONFIG_H

#include <limits.h>

#include "uml-lab/guest/guest.h"

#define CONFIG_TEXT_MAX (256u * 1024u)	/* bytes of all CONFIG frames */
#define CONFIG_INTERFACES_MAX 32
#define CONFIG_ADDRESSES_MAX 16		/* per interface */
#define CONFIG_SHARES_MAX 32
#define CONFIG_CONSOLES_MAX 8

struct config_address {
	int family;		/* AF_INET or AF_INET6 */
	uint8_t bytes[16];	/* network order; the first 4 for AF_INET */
	int prefix;		/* bits */
};

struct config_interface {
	char name[16];
	uint8_t mac[6];
	struct config_address addresses[CONFIG_ADDRESSES_MAX];
	int address_count;
	bool dhcp;			/* the image's own manager may use DHCP */
	bool slirp;			/* addresses[0] and gateway are SLIRP's plan */
	struct config_address gateway;	/* for slirp */
};

struct config_share {
	char tag[40], target[PATH_MAX];
	bool writable;
};

struct config {
	char hostname[65];
	char root[64];			/* "/dev/vda" */
	bool has_room;
	uint64_t room;			/* bytes the root disk may still take on the host */
	char init[PATH_MAX];		/* "": look for one */
	struct config_interface interfaces[CONFIG_INTERFACES_MAX];
	int interface_count;
	struct config_address gateway;	/* family 0: none */
	struct buffer resolv;		/* lines for /etc/resolv.conf */
	struct buffer hosts;		/* lines for /etc/hosts */
	char modules[PATH_MAX], modules_release[65];	/* "": none */
	char spool[PATH_MAX];				/* "": none */
	struct config_share shares[CONFIG_SHARES_MAX];
	int share_count;
	char consoles[CONFIG_CONSOLES_MAX][16];		/* "tty0" */
	int console_count;
};

/* Parses the whole text into *c (zeroed first). 0; -1 + f naming the line. config_free() in both cases. */
int config_parse(struct config *c, const char *text, size_t length, struct fault *f);
void config_free(struct config *c);

/* "10.0.1.1/24" or "10.0.1.1" (prefix -1 then). 0 or -1. */
int config_parse_address(const char *text, struct config_address *out);

#endif
