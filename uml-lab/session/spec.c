/* What machine_supervise() needs to know of a machine, from the lab, the session and the host. */
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/file.h"
#include "uml-lab/session/session_internal.h"

/* The same session, machine and index always give the same address; locally administered (IEEE 802 bit 1 of octet 0). */
static int choose_mac(const struct session *s, const struct lab_machine *m, size_t index, uint8_t mac[6],
		      struct error *err)
{
	cleanup_free char *key = NULL;
	uint64_t hash;

	if (m->interfaces[index].mac_given) {
		memcpy(mac, m->interfaces[index].mac, 6);
		return 0;
	}
	key = str_printf(err, "%s/%s/%zu", s->name, m->name, index);
	if (!key)
		return -1;
	hash = file_hash(key, strlen(key));
	mac[0] = 0x02;
	for (int i = 1; i < 6; i++)
		mac[i] = (uint8_t)(hash >> (8 * i));
	return 0;
}

static int address_text(const struct lab_address *a, bool with_prefix, char *buf, size_t size)
{
	char text[INET6_ADDRSTRLEN];

	if (!inet_ntop(a->family, a->family == AF_INET ? (const void *)&a->v4 : &a->v6, text, sizeof(text)))
		return -1;
	return with_prefix ? snprintf(buf, size, "%s/%d", text, a->prefix) : snprintf(buf, size, "%s", text);
}

/* What the network says of the line, then what the interface says. */
static int fill_impair(const struct lab_traffic *traffic, struct netplug_impair *impair, struct error *err)
{
	const struct {
		const char *key, *text;
	} all[] = {{"rate", traffic->rate}, {"delay", traffic->delay}, {"jitter", traffic->jitter},
		   {"loss", traffic->loss}, {"duplicate", traffic->duplicate}, {"reorder", traffic->reorder}};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (all[i].text && netplug_impair_set(impair, all[i].key, all[i].text, err) < 0)
			return -1;
	impair->down |= traffic->down;
	return 0;
}

static int fill_network(const struct session *s, const char *name, struct machine_interface *out, struct error *err)
{
	const struct lab_network *network = lab_find_network(s->lab, name);

	if (!network)
		return error_set(err, ERROR_NOT_FOUND, "session %s has no network %s", s->name, name);
	out->network = str_dup(name, err);
	out->locator = session_network_locator(s, network, err);
	return out->network && out->locator ? 0 : -1;
}

/* A virtio network device where the kernel has its driver: it costs the guest far less than UML's own transports. */
static bool choose_vhost_user(const struct lab_interface *in, const struct kernel *kernel)
{
	if (str_eq(in->transport, "auto"))
		return kernel_has_module(kernel, "virtio_net") == 1;
	return str_eq(in->transport, "vhost-user");
}

static int fill_interface(const struct session *s, const struct lab_machine *m, size_t index,
			  const struct kernel *kernel, struct machine_interface *out, struct error *err)
{
	const struct lab_interface *in = &m->interfaces[index];
	const struct lab_network *network = in->network ? lab_find_network(s->lab, in->network) : NULL;
	char text[INET6_ADDRSTRLEN + 8];

	if ((network && fill_impair(&network->traffic, &out->impair, err) < 0) ||
	    fill_impair(&in->traffic, &out->impair, err) < 0)
		return -1;
	out->port_security = network && network->port_security;
	out->slirp = in->slirp;
	out->vhost_user = choose_vhost_user(in, kernel);
	out->mtu = in->mtu;
	out->host = in->host;
	out->restricted = in->restricted;
	if (choose_mac(s, m, index, out->mac, err) < 0)
		return -1;
	if (in->network && fill_network(s, in->network, out, err) < 0)
		return -1;
	for (size_t i = 0; i < in->address_count; i++) {
		address_text(&in->addresses[i], true, text, sizeof(text));
		if (strv_add(&out->addresses, text, err) < 0)
			return -1;
	}
	for (size_t i = 0; i < in->forward_count; i++)
		if (strv_add(&out->forwards, in->forwards[i].text, err) < 0)
			return -1;
	for (size_t i = 0; i < in->allow.count; i++)
		if (strv_add(&out->allow, in->allow.items[i], err) < 0)
			return -1;
	return 0;
}

static int fill_interfaces(const struct session *s, const struct lab_machine *m, struct machine_spec *spec,
			   struct error *err)
{
	if (!m->interface_count)
		return 0;
	spec->interfaces = calloc(m->interface_count, sizeof(*spec->interfaces));
	if (!spec->interfaces)
		return error_oom(err);
	spec->interface_count = m->interface_count;
	for (size_t i = 0; i < m->interface_count; i++)
		if (fill_interface(s, m, i, &spec->kernel, &spec->interfaces[i], err) < 0)
			return -1;
	return 0;
}

/* The keeper of the networks, for a machine that is on one of ours. */
static int fill_keeper(const struct session *s, struct machine_spec *spec, struct error *err)
{
	for (size_t i = 0; i < spec->interface_count; i++) {
		const char *name = spec->interfaces[i].network;

		if (!name || lab_find_network(s->lab, name)->vde)
			continue;
		spec->networks = session_networks_folder(s->name, err);
		return spec->networks ? session_keeper_argv(s, &spec->keeper_argv, err) : -1;
	}
	return 0;
}

/* /etc/hosts of the lab: every machine by its first address on a network, so that names work on all of them. */
static int fill_hosts(const struct session *s, struct machine_spec *spec, struct error *err)
{
	char text[INET6_ADDRSTRLEN];

	for (size_t i = 0; i < s->lab->machine_count; i++) {
		const struct lab_machine *m = &s->lab->machines[i];

		for (size_t j = 0; j < m->interface_count; j++) {
			if (m->interfaces[j].slirp || !m->interfaces[j].address_count)
				continue;
			address_text(&m->interfaces[j].addresses[0], false, text, sizeof(text));
			if (strv_addf(&spec->hosts, err, "%s %s", text, m->name) < 0)
				return -1;
			break;
		}
	}
	return 0;
}

static int fill_disks(const struct session *s, const struct lab_machine *m, struct machine_spec *spec,
		      struct error *err)
{
	const struct session_machine *state = session_find_machine((struct session *)s, m->name);

	spec->disks = calloc(m->disk_count + 1, sizeof(*spec->disks));
	if (!spec->disks)
		return error_oom(err);
	spec->disk_count = m->disk_count + 1;
	spec->ubd = str_eq(m->disk_driver, "ubd");
	spec->disks[0].path = session_overlay(s, m->name, err);
	spec->disks[0].backing = state->base ? str_dup(state->base, err) : NULL;
	if (!spec->disks[0].path || !spec->disks[0].backing)
		return error_set(err, ERROR_FAILED, "machine %s has no disk yet", m->name);
	for (size_t i = 0; i < m->disk_count; i++) {
		spec->disks[i + 1].path = session_disk(s, m->name, i + 1, err);
		if (!spec->disks[i + 1].path)
			return -1;
		spec->disks[i + 1].out = m->disks[i].ejected;
	}
	return 0;
}

/* What counts towards limits.disk: all disks of the session, frozen layers of snapshots too, also those that are yet to be made. */
static int fill_quota(const struct session *s, struct machine_spec *spec, struct error *err)
{
	spec->disk_quota = s->lab->limits.disk;
	for (size_t i = 0; spec->disk_quota && i < s->lab->machine_count; i++) {
		cleanup_free char *folder = session_machine_folder(s, s->lab->machines[i].name, err);

		/* the disk server opens it when it starts, perhaps before that machine has disks */
		if (!folder || file_mkdir_p(folder, 0700, err) < 0 || strv_add(&spec->quota_with, folder, err) < 0)
			return -1;
	}
	return 0;
}

/* Copies a text that may be NULL. */
static int copy_text(char **out, const char *text, struct error *err)
{
	*out = text ? str_dup(text, err) : NULL;
	return text && !*out ? -1 : 0;
}

static int fill_spec(const struct session *s, const struct lab_machine *m, struct machine_spec *spec,
		     struct error *err)
{
	spec->memory = m->memory;
	spec->cpu_percent = s->lab->limits.cpu_percent;
	spec->restart = m->restart;
	spec->namespaces_only = s->origin.file && !s->origin.weak;
	spec->ends_ms = session_time_parse(s->ends) * 1000;
	spec->folder = session_machine_folder(s, m->name, err);
	spec->runtime = session_runtime(s->name, m->name, err);
	if (!spec->folder || !spec->runtime || copy_text(&spec->session, s->name, err) < 0 ||
	    copy_text(&spec->name, m->name, err) < 0 || copy_text(&spec->files, m->files, err) < 0 ||
	    copy_text(&spec->setup, m->setup, err) < 0 || copy_text(&spec->startup, m->startup, err) < 0)
		return -1;
	for (size_t i = 0; i < m->kernel_args.count; i++)
		if (strv_add(&spec->kernel_args, m->kernel_args.items[i], err) < 0)
			return -1;
	if (kernel_find(m->kernel, &spec->kernel, err) < 0 || fill_disks(s, m, spec, err) < 0 ||
	    fill_quota(s, spec, err) < 0 || fill_interfaces(s, m, spec, err) < 0 ||
	    fill_keeper(s, spec, err) < 0 || session_fill_shares(s, m, spec, err) < 0)
		return -1;
	return fill_hosts(s, spec, err);
}

int session_machine_spec(const struct session *session, const char *machine, struct machine_spec *spec,
			 struct error *err)
{
	const struct lab_machine *m = lab_find_machine(session->lab, machine);
	struct machine_spec built = {0};

	if (!m)
		return error_set(err, ERROR_NOT_FOUND, "session %s has no machine %s", session->name, machine);
	if (fill_spec(session, m, &built, err) < 0) {
		machine_spec_free(&built);
		return -1;
	}
	*spec = built;
	return 0;
}
