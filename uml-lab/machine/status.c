/* The answer to FRAME_STATUS: all that the supervisor knows, as JSON. The names are those of session.yml and lab.yml. */
#include <jansson.h>
#include <stdlib.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/machine/supervisor.h"

static json_t *strings(const struct strv *v)
{
	json_t *array = json_array();

	for (size_t i = 0; i < v->count; i++)
		json_array_append_new(array, json_string(v->items[i]));
	return array;
}

/* The plug's counters: since it was started, or started anew. */
static json_t *counters_json(const struct netplug_stats *stats)
{
	const struct {
		const char *name;
		uint64_t value;
	} all[] = {
		{"in_frames", stats->in_frames},
		{"in_bytes", stats->in_bytes},
		{"out_frames", stats->out_frames},
		{"out_bytes", stats->out_bytes},
		{"in_runts", stats->in_runts},
		{"in_giants", stats->in_giants},
		{"in_refused", stats->in_refused},
		{"in_spoofed", stats->in_spoofed},
		{"out_dropped", stats->out_dropped},
		{"lost", stats->impair_lost},
		{"duplicated", stats->impair_duplicated},
		{"reordered", stats->impair_reordered},
		{"queue_dropped", stats->impair_dropped},
		{"down_dropped", stats->impair_down},
	};
	json_t *object = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		json_object_set_new(object, all[i].name, json_integer((json_int_t)all[i].value));
	return object;
}

static json_t *interface_json(const struct supervisor *sv, size_t i)
{
	const struct machine_interface *iface = &sv->spec->interfaces[i];
	const struct plug_port *port = i < sv->plug.port_count ? &sv->plug.ports[i] : NULL;
	const uint8_t *m = iface->mac;
	char name[32], mac[18], impair[NETPLUG_IMPAIR_TEXT_MAX];

	snprintf(name, sizeof(name), "eth%zu", i);
	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
	netplug_impair_format(port ? &port->impair : &iface->impair, impair);
	return json_pack("{s:s, s:b, s:s*, s:s, s:o, s:o, s:b, s:s, s:o}", "name", name, "slirp", iface->slirp,
			 "network", iface->network, "mac", mac, "addresses", strings(&iface->addresses),
			 "forwards", port ? strings(&port->forwards) : json_array(), "connected",
			 port && port->connection >= 0, "impair", impair, "counters",
			 counters_json(port ? &port->stats : &(struct netplug_stats){0}));
}

static json_t *process_json(const struct process_id *id)
{
	if (!id->pid)
		return json_null();
	return json_pack("{s:i, s:I}", "pid", (int)id->pid, "start", (json_int_t)id->start);
}

char *status_json(struct supervisor *sv, struct error *err)
{
	json_t *interfaces = json_array(), *root;
	char *text;

	for (size_t i = 0; i < sv->spec->interface_count; i++)
		json_array_append_new(interfaces, interface_json(sv, i));
	/* Causes quote the guest: what is not UTF-8 would make json_pack fail, so it is packed apart. */
	root = json_pack("{s:s, s:s, s:s, s:b, s:s, s:s, s:I, s:I, s:i, s:b, s:b, s:o, s:o, s:o, s:o}",
			 "session", sv->spec->session, "name", sv->spec->name, "state",
			 machine_state_name(sv->state), "login", sv->boot.login, "kernel",
			 sv->spec->kernel.release, "sandbox", sv->sandbox.walls, "memory",
			 (json_int_t)sv->spec->memory, "ready_ms", (json_int_t)sv->ready_ms, "restarts",
			 sv->restarts, "set_up", sv->set_up, "agent", sv->relay.hello && sv->relay.fd >= 0,
			 "supervisor", process_json(&sv->self), "process", process_json(&sv->sandbox.kernel),
			 "plug", process_json(&sv->plug.id), "interfaces", interfaces);
	if (root)
		json_object_set_new(root, "cause", json_string(sv->cause) ?: json_string("(not text)"));
	text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	if (!text)
		error_oom(err);
	return text;
}
