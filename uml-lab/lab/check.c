/*
 * What must hold between the fields of a lab: references lead somewhere, an
 * interface is of one kind, nothing is used twice that exists once.
 *
 * A value that was told to be wrong is left out of every check, and so is
 * everything that refers to a section that is wrong as a whole: one mistake, one
 * message.
 *
 * "Used twice" (addresses and MACs on a network, host ports) is one mechanism:
 * every use is a claim on a text, the claims are sorted, and neighbours clash.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "netplug/netplug.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/lab/lab_internal.h"

/* ---- references ---- */

/* Names of a list of structs that begin with their name, for messages. */
static int names_of(const void *items, size_t count, size_t size, struct strv *names)
{
	for (size_t i = 0; i < count; i++)
		if (strv_add(names, *(char *const *)((const char *)items + i * size), NULL) < 0)
			return -1;
	return 0;
}

/*
 * Tells a name that is not among the items of a section. section: the place of
 * the section's array in struct lab, whose own mistakes excuse references.
 */
static void check_reference(struct loader *loader, const char *const *name, const void *section,
			    const void *items, size_t count, size_t size, const char *what)
{
	const struct place *place = lab_place(loader, name), *all = lab_place(loader, section);
	cleanup_strv struct strv names = STRV_INIT;
	cleanup_strbuf struct strbuf allowed = STRBUF_INIT;
	char quoted[LAB_QUOTE_MAX];
	const char *nearest = NULL;

	if (!place || place->bad || (all && all->bad))
		return;
	if (names_of(items, count, size, &names) < 0) {
		loader->out_of_memory = true;
		return;
	}
	for (size_t i = 0; i < count; i++) {
		if (str_eq(names.items[i], *name))
			return;
		if (i < 32)
			strbuf_printf(&allowed, "%s%s", i ? ", " : "", names.items[i]);
	}
	if (count)
		nearest = str_nearest(*name, (const char *const *)names.items);
	lab_blame(loader, place, "no %s is named %s%s%s%s; %s%s%s", what, lab_quote(*name, quoted),
		  nearest ? "; did you mean " : "", nearest ? nearest : "", nearest ? "?" : "",
		  count ? "allowed: " : "none is defined", count ? allowed.data : "",
		  count > 32 ? ", …" : "");
}

/* ---- claims ---- */

struct claim {
	char *group; /* claims clash within a group */
	char *value; /* when they are the same, or one is any */
	bool any;
	const struct place *place;
};

struct claims {
	struct claim *items;
	size_t count, size;
	const char *what; /* "address", for the message */
};

static void add_claim(struct loader *loader, struct claims *claims, const struct place *place, char *group,
		      char *value, bool any)
{
	struct claim *bigger;

	if (claims->count == claims->size) {
		bigger = reallocarray(claims->items, claims->size ? claims->size * 2 : 16, sizeof(*bigger));
		if (bigger) {
			claims->items = bigger;
			claims->size = claims->size ? claims->size * 2 : 16;
		}
	}
	if (!group || !value || claims->count == claims->size) {
		free(group);
		free(value);
		loader->out_of_memory = true;
		return;
	}
	claims->items[claims->count++] = (struct claim){group, value, any, place};
}

/* By group, then value, then position. */
static int compare_claims(const void *a, const void *b)
{
	const struct claim *x = a, *y = b;
	int order = strcmp(x->group, y->group);

	if (!order)
		order = strcmp(x->value, y->value);
	if (!order)
		order = x->place->mark.line - y->place->mark.line;
	return order ? order : x->place->mark.column - y->place->mark.column;
}

static bool is_later(const struct place *a, const struct place *b)
{
	return a->mark.line != b->mark.line ? a->mark.line > b->mark.line : a->mark.column > b->mark.column;
}

static void blame_clash(struct loader *loader, const char *what, const struct claim *a, const struct claim *b)
{
	const struct place *later = is_later(a->place, b->place) ? a->place : b->place;
	const struct place *earlier = later == a->place ? b->place : a->place;

	lab_blame(loader, later, "the %s is used already, by %s on line %d", what, earlier->path,
		  earlier->mark.line);
}

/* Tells clashes, one for each claim that has any, and frees the claims. */
static void settle(struct loader *loader, struct claims *claims)
{
	size_t start = 0, end;

	if (claims->count)
		qsort(claims->items, claims->count, sizeof(*claims->items), compare_claims);
	for (; start < claims->count; start = end) {
		const struct claim *first = &claims->items[start], *any = NULL;

		for (end = start; end < claims->count && str_eq(claims->items[end].group, first->group);
		     end++)
			if (claims->items[end].any && !any)
				any = &claims->items[end];
		for (size_t i = start; i < end; i++) {
			const struct claim *claim = &claims->items[i], *before = i > start ? claim - 1 : NULL;

			if (before && str_eq(before->value, claim->value))
				blame_clash(loader, claims->what, claim, before);
			else if (any && any != claim)
				blame_clash(loader, claims->what, claim, any);
		}
	}
	for (size_t i = 0; i < claims->count; i++) {
		free(claims->items[i].group);
		free(claims->items[i].value);
	}
	free(claims->items);
}

/* ---- interfaces ---- */

static void claim_addresses(struct loader *loader, const struct lab_interface *interface,
			    struct claims *claims)
{
	for (size_t i = 0; i < interface->address_count; i++) {
		const struct lab_address *address = &interface->addresses[i];
		char text[INET6_ADDRSTRLEN];

		if (!lab_given_well(loader, address))
			continue;
		inet_ntop(address->family, &address->v4, text, sizeof(text));
		add_claim(loader, claims, lab_place(loader, address),
			  str_printf(NULL, "%s %s", interface->network, text), strdup(""), false);
	}
}

static void claim_mac(struct loader *loader, const struct lab_interface *interface, struct claims *claims)
{
	const uint8_t *m = interface->mac;

	if (interface->mac_given)
		add_claim(loader, claims, lab_place(loader, &interface->mac),
			  str_printf(NULL, "%s %02x%02x%02x%02x%02x%02x", interface->network, m[0], m[1],
				     m[2], m[3], m[4], m[5]),
			  strdup(""), false);
}

static void claim_ports(struct loader *loader, const struct lab_interface *interface, struct claims *claims)
{
	for (size_t i = 0; i < interface->forward_count; i++) {
		const struct lab_forward *forward = &interface->forwards[i];
		bool six;

		if (!lab_given_well(loader, forward) || !forward->host_port)
			continue;
		six = strchr(forward->host_address, ':');
		add_claim(loader, claims, lab_place(loader, forward),
			  str_printf(NULL, "%s %d %s", six ? "IPv6" : "IPv4", forward->host_port,
				     forward->udp ? "udp" : "tcp"),
			  strdup(forward->host_address),
			  str_eq(forward->host_address, six ? "::" : "0.0.0.0"));
	}
}

/* Keys that only mean something with slirp. */
static void check_slirp_only(struct loader *loader, const struct lab_interface *interface)
{
	const struct {
		const char *key;
		const void *value;
	} keys[] = {
		{"forward", &interface->forwards},
		{"host", &interface->host},
		{"restrict", &interface->restricted},
		{"allow", &interface->allow.items},
	};

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (lab_given(loader, keys[i].value))
			lab_blame(loader, lab_place(loader, keys[i].value), "%s works only with slirp: true",
				  keys[i].key);
}

static void check_slirp(struct loader *loader, const struct lab_interface *interface)
{
	if (interface->mtu && interface->mtu < NETPLUG_MTU_MIN)
		lab_blame(loader, lab_place(loader, &interface->mtu),
			  "is %d; allowed with slirp: at least %d", interface->mtu, NETPLUG_MTU_MIN);
	if (interface->restricted && interface->host)
		lab_blame(loader, lab_place(loader, &interface->host),
			  "restrict: true cuts off the host as well; leave out one of the two");
	if (!interface->restricted && interface->allow.count && !lab_given(loader, &interface->restricted))
		lab_blame(loader, lab_place(loader, &interface->allow.items),
			  "works only with restrict: true");
}

/* An interface has a network or slirp, not both. Returns which checks go on: 'n', 's' or 0. */
static char interface_kind(struct loader *loader, const struct lab_interface *interface)
{
	const struct place *object = lab_place_of_object(loader, interface),
			   *slirp = lab_place(loader, &interface->slirp);
	bool network = lab_given(loader, &interface->network);

	if ((object && object->bad) || (slirp && slirp->bad))
		return 0;
	if (network && interface->slirp) {
		lab_blame(loader, object, "has both network and slirp; allowed: one of them");
		return 0;
	}
	if (!network && !interface->slirp)
		lab_blame(loader, object,
			  "has neither network nor slirp; allowed: network: NAME, or slirp: true");
	return network ? 'n' : interface->slirp ? 's' : 0;
}

static void check_interfaces(struct loader *loader, const struct lab_machine *machine,
			     struct claims *addresses, struct claims *macs, struct claims *ports)
{
	const struct lab *lab = loader->lab;

	for (size_t i = 0; i < machine->interface_count; i++) {
		const struct lab_interface *interface = &machine->interfaces[i];
		char kind = interface_kind(loader, interface);

		claim_ports(loader, interface, ports);
		if (kind == 's')
			check_slirp(loader, interface);
		if (kind != 'n')
			continue;
		check_slirp_only(loader, interface);
		check_reference(loader, (const char *const *)&interface->network, &lab->networks,
				lab->networks, lab->network_count, sizeof(*lab->networks), "network");
		if (interface->network) {
			claim_addresses(loader, interface, addresses);
			claim_mac(loader, interface, macs);
		}
	}
}

/* ---- machines ---- */

/* Words of the kernel's command line that belong to the supervisor: devices of the host and how it boots. */
static bool is_our_word(const char *word)
{
	static const char *const numbered[] = {"ubd", "udb", "con", "ssl", "eth", "vec", NULL};
	static const char *const prefixes[] = {
		"mem=",       "iomem=", "hostfs=", "umid=", "uml_dir=", "mconsole", "initrd=", "virtio_uml",
		"virtio-uml", "root=",  "rdinit=", "init=", "xterm=",   "uml-dir=", NULL,
	};

	for (size_t i = 0; numbered[i]; i++) {
		size_t n = strlen(numbered[i]);

		if (str_starts(word, numbered[i]) && (word[n] == '=' || isdigit((unsigned char)word[n]) ||
						      (i < 2 && isalpha((unsigned char)word[n]))))
			return true;
	}
	for (size_t i = 0; prefixes[i]; i++)
		if (str_starts(word, prefixes[i]))
			return true;
	return false;
}

static void check_kernel_args(struct loader *loader, const struct lab_machine *machine)
{
	for (size_t i = 0; i < machine->kernel_args.count; i++) {
		char *const *word = &machine->kernel_args.items[i];

		if (!lab_given_well(loader, word))
			continue;
		if (strpbrk(*word, " \t\""))
			lab_blame(loader, lab_place(loader, word),
				  "holds a blank or a quote; allowed: one word for each item of the list");
		else if (is_our_word(*word))
			lab_blame(loader, lab_place(loader, word), "this word is set by uml-lab itself");
	}
}

static void check_machine_shares(struct loader *loader, const struct lab_machine *machine)
{
	const struct lab *lab = loader->lab;
	struct claims twice = {.what = "share"};

	for (size_t i = 0; i < machine->shares.count; i++) {
		char *const *name = &machine->shares.items[i];

		check_reference(loader, (const char *const *)name, &lab->shares, lab->shares,
				lab->share_count, sizeof(*lab->shares), "share");
		if (lab_given_well(loader, name))
			add_claim(loader, &twice, lab_place(loader, name), strdup(*name), strdup(""), false);
	}
	settle(loader, &twice);
}

/* A machine has a base of its own or that of the lab; where no machine has any, that is told once. */
static void check_bases(struct loader *loader)
{
	const struct lab *lab = loader->lab;
	bool any = false;

	if (lab_given(loader, &lab->base))
		return;
	for (size_t i = 0; i < lab->machine_count; i++)
		any = any || lab_given(loader, &lab->machines[i].base);
	if (!any && lab->machine_count)
		lab_problem_add(loader->problems, loader->root_mark, "base",
				"is missing; write it like debian-12");
	for (size_t i = 0; any && i < lab->machine_count; i++) {
		const struct place *place = lab_place_of_object(loader, &lab->machines[i]);

		if (!lab_given(loader, &lab->machines[i].base) && !(place && place->bad))
			lab_blame(
				loader, place,
				"has no base, and neither has the lab; write base: IMAGE here or at the top");
	}
}

static void check_machines(struct loader *loader)
{
	const struct lab *lab = loader->lab;
	struct claims addresses = {.what = "address"}, macs = {.what = "MAC address"},
		      ports = {.what = "host port"};

	if (lab_given_well(loader, &lab->machines) && !lab->machine_count)
		lab_blame(loader, lab_place(loader, &lab->machines),
			  "holds no machine; write one like m1: {}");
	for (size_t i = 0; i < lab->machine_count; i++) {
		check_interfaces(loader, &lab->machines[i], &addresses, &macs, &ports);
		check_machine_shares(loader, &lab->machines[i]);
		check_kernel_args(loader, &lab->machines[i]);
	}
	settle(loader, &addresses);
	settle(loader, &macs);
	settle(loader, &ports);
}

/* ---- the rest ---- */

static void check_networks(struct loader *loader)
{
	const struct lab *lab = loader->lab;

	for (size_t i = 0; i < lab->network_count; i++)
		if (lab->networks[i].vde && lab_given(loader, &lab->networks[i].learning_switch))
			lab_blame(loader, lab_place(loader, &lab->networks[i].learning_switch),
				  "has no meaning with vde, which joins a network that is there already");
}

/* Where mounting something hides no more than was meant. */
static bool good_mount(const char *path)
{
	static const char *const system_folders[] = {"/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc",
						     "/run", "/sbin", "/sys", "/usr", "/var"};
	size_t n = strlen(path);

	if (path[0] != '/' || n < 2 || path[n - 1] == '/' || strstr(path, "//") || strpbrk(path, "\t\n"))
		return false;
	for (const char *p = path; p; p = strchr(p + 1, '/'))
		if (str_starts(p, "/./") || str_starts(p, "/../") || str_eq(p, "/.") || str_eq(p, "/.."))
			return false;
	for (size_t i = 0; i < ARRAY_SIZE(system_folders); i++)
		if (str_eq(path, system_folders[i]))
			return false;
	return !str_starts(path, "/proc/") && !str_starts(path, "/sys/") && !str_starts(path, "/dev/");
}

static void check_shares(struct loader *loader)
{
	const struct lab *lab = loader->lab;

	for (size_t i = 0; i < lab->share_count; i++) {
		const struct lab_share *share = &lab->shares[i];
		const struct place *mode = lab_place(loader, &share->writable);

		if (share->quota && !share->writable && !(mode && mode->bad))
			lab_blame(loader, lab_place(loader, &share->quota), "works only with mode: rw");
		if (share->shared_locks && !share->writable && !(mode && mode->bad))
			lab_blame(loader, lab_place(loader, &share->shared_locks), "works only with mode: rw");
		if (share->max_file_size && !share->writable && !(mode && mode->bad))
			lab_blame(loader, lab_place(loader, &share->max_file_size), "works only with mode: rw");
		if (share->mount && !good_mount(share->mount))
			lab_blame(loader, lab_place(loader, &share->mount),
				  "is no place for a share; allowed: an absolute path without . and .., "
				  "not / or one that the system needs");
	}
}

static void check_limits(struct loader *loader)
{
	const struct lab *lab = loader->lab;

	for (size_t i = 0; lab->limits.memory && i < lab->machine_count; i++) {
		if (lab->machines[i].memory <= lab->limits.memory)
			continue;
		lab_blame(loader, lab_place(loader, &lab->limits.memory),
			  "is less than machine %s alone has (%lluM)", lab->machines[i].name,
			  (unsigned long long)lab->machines[i].memory >> 20);
		return;
	}
}

void lab_check(struct loader *loader)
{
	const struct lab *lab = loader->lab;

	check_bases(loader);
	check_machines(loader);
	check_networks(loader);
	check_shares(loader);
	check_limits(loader);
	for (size_t i = 0; i < lab->check_count; i++)
		check_reference(loader, (const char *const *)&lab->checks[i].machine, &lab->machines,
				lab->machines, lab->machine_count, sizeof(*lab->machines), "machine");
}
