/* The networks in `status`: each with its ports, as lab.yml has them and as the machines' supervisors see them now. */
#include <stdlib.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/session/session_internal.h"

static const char *text_of(const json_t *object, const char *key)
{
	return json_string_value(json_object_get(object, key));
}

/* What the machine's supervisor says of its interface; NULL when it does not run or does not answer. */
static const json_t *live_interface(const json_t *machine, const char *name)
{
	const json_t *interface;
	size_t i;

	json_array_foreach(json_object_get(json_object_get(machine, "live"), "interfaces"), i, interface)
		if (str_eq(text_of(interface, "name"), name))
			return interface;
	return NULL;
}

static void add_port(json_t *ports, const json_t *machine, size_t index)
{
	char name[32];
	const json_t *live;
	json_t *port;

	snprintf(name, sizeof(name), "eth%zu", index);
	live = live_interface(machine, name);
	port = json_pack("{s:s, s:s, s:b}", "machine", text_of(machine, "name"), "interface", name, "joined",
			 json_is_true(json_object_get(live, "joined")));
	if (live) {
		json_object_set(port, "mac", json_object_get(live, "mac"));
		json_object_set(port, "addresses", json_object_get(live, "addresses"));
		json_object_set(port, "link_up", json_object_get(live, "connected"));
		if (json_object_get(live, "trouble"))
			json_object_set(port, "trouble", json_object_get(live, "trouble"));
	}
	json_array_append_new(ports, port);
}

static json_t *ports_of(const struct session *s, const char *network, const json_t *machines)
{
	json_t *ports = json_array();

	for (size_t i = 0; i < s->lab->machine_count; i++) {
		const struct lab_machine *m = &s->lab->machines[i];

		for (size_t j = 0; j < m->interface_count; j++)
			if (str_eq(m->interfaces[j].network, network))
				add_port(ports, json_array_get(machines, i), j);
	}
	return ports;
}

json_t *session_networks_status(const struct session *s, const json_t *machines)
{
	json_t *networks = json_array();

	for (size_t i = 0; i < s->lab->network_count; i++) {
		const struct lab_network *network = &s->lab->networks[i];
		cleanup_free char *locator = session_network_locator(s, network, NULL);
		const struct process_id *id = &s->network_switches[i];
		json_t *object = json_pack("{s:s, s:s, s:s*, s:o}", "name", network->name, "kind",
					   network->vde               ? "vde"
					   : network->learning_switch ? "switch"
								      : "hub",
					   "locator", locator, "ports", ports_of(s, network->name, machines));

		if (!network->vde)
			json_object_set_new(object, "switch_pid", process_alive(id) ? json_integer(id->pid) : json_null());
		json_array_append_new(networks, object);
	}
	return networks;
}
