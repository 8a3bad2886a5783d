/*
 * The configuration: one table of words, each with the number of fields it
 * takes and a function that checks and stores them. The host is trusted to mean
 * well, not to be of our version: an unknown word is an error.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "uml-lab/guest/config.h"

#define FIELDS_MAX 32

struct fields {
	char *field[FIELDS_MAX];
	int count;	/* without the word itself */
};

static int copy(char *to, size_t size, const char *from, const char *what, struct fault *f)
{
	if (strlen(from) >= size)
		return fault_set(f, "%s is longer than %zu bytes", what, size - 1);
	strcpy(to, from);
	return 0;
}

/* A name that is one path component and no option, dot or control character. */
static bool is_plain_name(const char *s, const char *allowed)
{
	return *s && *s != '-' && *s != '.' && strspn(s, allowed) == strlen(s);
}

#define ALNUM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

int config_parse_address(const char *text, struct config_address *out)
{
	struct config_address a = { .family = strchr(text, ':') ? AF_INET6 : AF_INET, .prefix = -1 };
	const char *slash = strchr(text, '/');
	char address[64], *end;
	size_t n = slash ? (size_t)(slash - text) : strlen(text);

	if (n >= sizeof(address))
		return -1;
	memcpy(address, text, n);
	address[n] = '\0';
	if (inet_pton(a.family, address, a.bytes) != 1)
		return -1;
	if (slash) {
		a.prefix = strtol(slash + 1, &end, 10);
		if (slash[1] < '0' || slash[1] > '9' || *end || a.prefix < 0 ||
		    a.prefix > (a.family == AF_INET ? 32 : 128))
			return -1;
	}
	*out = a;
	return 0;
}

static struct config_interface *interface_named(struct config *c, const char *name, struct fault *f)
{
	int i;

	for (i = 0; i < c->interface_count; i++)
		if (!strcmp(c->interfaces[i].name, name))
			return &c->interfaces[i];
	fault_set(f, "no interface '%s' before", name);
	return NULL;
}

static int set_hostname(struct config *c, struct fields *l, struct fault *f)
{
	if (!is_plain_name(l->field[0], ALNUM "-."))
		return fault_set(f, "bad host name '%s'", l->field[0]);
	return copy(c->hostname, sizeof(c->hostname), l->field[0], "host name", f);
}

static int set_root(struct config *c, struct fields *l, struct fault *f)
{
	if (strncmp(l->field[0], "/dev/", 5) || !is_plain_name(l->field[0] + 5, ALNUM "-_"))
		return fault_set(f, "bad root device '%s'", l->field[0]);
	return copy(c->root, sizeof(c->root), l->field[0], "root device", f);
}

static int set_room(struct config *c, struct fields *l, struct fault *f)
{
	char *end;

	errno = 0;
	c->room = strtoull(l->field[0], &end, 10);
	if (l->field[0][0] < '0' || l->field[0][0] > '9' || *end || errno)
		return fault_set(f, "bad number of bytes '%s'", l->field[0]);
	c->has_room = true;
	return 0;
}

static int set_init(struct config *c, struct fields *l, struct fault *f)
{
	if (l->field[0][0] && l->field[0][0] != '/')
		return fault_set(f, "init '%s' is not an absolute path", l->field[0]);
	return copy(c->init, sizeof(c->init), l->field[0], "init", f);
}

static int set_interface(struct config *c, struct fields *l, struct fault *f)
{
	struct config_interface *i = &c->interfaces[c->interface_count];
	uint8_t *m = i->mac;
	char after;

	if (c->interface_count == CONFIG_INTERFACES_MAX)
		return fault_set(f, "more than %d interfaces", CONFIG_INTERFACES_MAX);
	if (!is_plain_name(l->field[0], ALNUM "-_.") ||
	    copy(i->name, sizeof(i->name), l->field[0], "interface name", f) < 0)
		return fault_set(f, "bad interface name '%s'", l->field[0]);
	if (sscanf(l->field[1], "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%c", m, m + 1, m + 2, m + 3, m + 4, m + 5,
		   &after) != 6)
		return fault_set(f, "bad MAC address '%s'", l->field[1]);
	c->interface_count++;
	return 0;
}

static int add_address(struct config_interface *i, const char *text, struct fault *f)
{
	if (i->address_count == CONFIG_ADDRESSES_MAX)
		return fault_set(f, "more than %d addresses", CONFIG_ADDRESSES_MAX);
	if (config_parse_address(text, &i->addresses[i->address_count]) < 0 ||
	    i->addresses[i->address_count].prefix < 0)
		return fault_set(f, "bad address '%s'", text);
	i->address_count++;
	return 0;
}

static int set_address(struct config *c, struct fields *l, struct fault *f)
{
	struct config_interface *i = interface_named(c, l->field[0], f);

	return i ? add_address(i, l->field[1], f) : -1;
}

static int set_dhcp(struct config *c, struct fields *l, struct fault *f)
{
	struct config_interface *i = interface_named(c, l->field[0], f);

	if (!i)
		return -1;
	i->dhcp = true;
	return 0;
}

static int set_slirp(struct config *c, struct fields *l, struct fault *f)
{
	struct config_interface *i = interface_named(c, l->field[0], f);

	if (!i || add_address(i, l->field[1], f) < 0)
		return -1;
	if (config_parse_address(l->field[2], &i->gateway) < 0 || i->gateway.prefix >= 0)
		return fault_set(f, "bad gateway '%s'", l->field[2]);
	i->slirp = true;
	return 0;
}

static int set_gateway(struct config *c, struct fields *l, struct fault *f)
{
	if (config_parse_address(l->field[0], &c->gateway) < 0 || c->gateway.prefix >= 0)
		return fault_set(f, "bad gateway '%s'", l->field[0]);
	return 0;
}

static int add_text(struct buffer *b, const char *text, struct fault *f)
{
	return buffer_add(b, text, strlen(text)) < 0 ? fault_errno(f, ENOMEM, "cannot keep the configuration") : 0;
}

static int set_nameserver(struct config *c, struct fields *l, struct fault *f)
{
	struct config_address a;

	if (config_parse_address(l->field[0], &a) < 0 || a.prefix >= 0)
		return fault_set(f, "bad name server '%s'", l->field[0]);
	if (add_text(&c->resolv, "nameserver ", f) < 0 || add_text(&c->resolv, l->field[0], f) < 0)
		return -1;
	return add_text(&c->resolv, "\n", f);
}

static int set_search(struct config *c, struct fields *l, struct fault *f)
{
	if (!is_plain_name(l->field[0], ALNUM "-."))
		return fault_set(f, "bad search domain '%s'", l->field[0]);
	if (add_text(&c->resolv, "search ", f) < 0 || add_text(&c->resolv, l->field[0], f) < 0)
		return -1;
	return add_text(&c->resolv, "\n", f);
}

static int set_host(struct config *c, struct fields *l, struct fault *f)
{
	struct config_address a;
	int i;

	if (config_parse_address(l->field[0], &a) < 0 || a.prefix >= 0)
		return fault_set(f, "bad address '%s'", l->field[0]);
	if (add_text(&c->hosts, l->field[0], f) < 0)
		return -1;
	for (i = 1; i < l->count; i++) {
		if (!is_plain_name(l->field[i], ALNUM "-._"))
			return fault_set(f, "bad host name '%s'", l->field[i]);
		if (add_text(&c->hosts, i == 1 ? "\t" : " ", f) < 0 || add_text(&c->hosts, l->field[i], f) < 0)
			return -1;
	}
	return add_text(&c->hosts, "\n", f);
}

static int set_modules(struct config *c, struct fields *l, struct fault *f)
{
	if (l->field[0][0] != '/' || !is_plain_name(l->field[1], ALNUM "-_.+~"))
		return fault_set(f, "bad modules folder '%s' for '%s'", l->field[0], l->field[1]);
	if (copy(c->modules, sizeof(c->modules), l->field[0], "modules folder", f) < 0)
		return -1;
	return copy(c->modules_release, sizeof(c->modules_release), l->field[1], "release", f);
}

static int set_spool(struct config *c, struct fields *l, struct fault *f)
{
	if (l->field[0][0] != '/')
		return fault_set(f, "bad spool folder '%s'", l->field[0]);
	return copy(c->spool, sizeof(c->spool), l->field[0], "spool folder", f);
}

static int set_share(struct config *c, struct fields *l, struct fault *f)
{
	struct config_share *s = &c->shares[c->share_count];

	if (c->share_count == CONFIG_SHARES_MAX)
		return fault_set(f, "more than %d shares", CONFIG_SHARES_MAX);
	if (!is_plain_name(l->field[0], ALNUM "-_.") || l->field[1][0] != '/')
		return fault_set(f, "bad share '%s' at '%s'", l->field[0], l->field[1]);
	s->writable = !strcmp(l->field[2], "rw");
	if (!s->writable && strcmp(l->field[2], "ro"))
		return fault_set(f, "bad mode '%s'", l->field[2]);
	if (copy(s->tag, sizeof(s->tag), l->field[0], "share", f) < 0 ||
	    copy(s->target, sizeof(s->target), l->field[1], "share's place", f) < 0)
		return -1;
	c->share_count++;
	return 0;
}

static int set_console(struct config *c, struct fields *l, struct fault *f)
{
	if (c->console_count == CONFIG_CONSOLES_MAX)
		return fault_set(f, "more than %d consoles", CONFIG_CONSOLES_MAX);
	if (strncmp(l->field[0], "tty", 3) || !is_plain_name(l->field[0], ALNUM) ||
	    copy(c->consoles[c->console_count], sizeof(c->consoles[0]), l->field[0], "console", f) < 0)
		return fault_set(f, "bad console '%s'", l->field[0]);
	c->console_count++;
	return 0;
}

static const struct word {
	const char *name;
	int min, max;	/* fields */
	int (*set)(struct config *c, struct fields *l, struct fault *f);
} words[] = {
	{ "hostname", 1, 1, set_hostname },
	{ "root", 1, 1, set_root },
	{ "room", 1, 1, set_room },
	{ "init", 1, 1, set_init },
	{ "interface", 2, 2, set_interface },
	{ "address", 2, 2, set_address },
	{ "dhcp", 1, 1, set_dhcp },
	{ "slirp", 3, 3, set_slirp },
	{ "gateway", 1, 1, set_gateway },
	{ "nameserver", 1, 1, set_nameserver },
	{ "search", 1, 1, set_search },
	{ "host", 2, FIELDS_MAX, set_host },
	{ "modules", 2, 2, set_modules },
	{ "spool", 1, 1, set_spool },
	{ "share", 3, 3, set_share },
	{ "console", 1, 1, set_console },
};

/* One line, cut into its fields in place. */
static int parse_line(struct config *c, char *line, struct fault *f)
{
	struct fields l = { .count = 0 };
	char *word = strsep(&line, "\t"), *field;
	size_t i;

	while ((field = strsep(&line, "\t"))) {
		if (l.count == FIELDS_MAX)
			return fault_set(f, "more than %d fields", FIELDS_MAX);
		l.field[l.count++] = field;
	}
	for (i = 0; i < GUEST_COUNT(words); i++) {
		if (strcmp(word, words[i].name))
			continue;
		if (l.count < words[i].min || l.count > words[i].max)
			return fault_set(f, "'%s' with %d fields", word, l.count);
		return words[i].set(c, &l, f);
	}
	return fault_set(f, "unknown word '%s'; host and guest may be of different versions", word);
}

int config_parse(struct config *c, const char *text, size_t length, struct fault *f)
{
	char *copied = memchr(text, '\0', length) ? NULL : strndup(text, length);
	char *rest = copied, *line;
	struct fault why;
	int number = 0;

	memset(c, 0, sizeof(*c));
	if (!copied)
		return fault_set(f, "configuration: a NUL byte, or no memory");
	while ((line = strsep(&rest, "\n"))) {
		number++;
		if (!*line || parse_line(c, line, &why) == 0)
			continue;
		fault_set(f, "configuration, line %d: %s", number, why.text);
		free(copied);
		return -1;
	}
	free(copied);
	return c->root[0] ? 0 : fault_set(f, "configuration: no root device");
}

void config_free(struct config *c)
{
	buffer_free(&c->resolv);
	buffer_free(&c->hosts);
}
