/*
 * The answer to FRAME_STATUS: all that the supervisor knows, as JSON. The names are those of session.yml and lab.yml.
 *
 * The disks' counters come from their server, which is asked first; who asks meanwhile waits with the others. A server
 * that does not answer within WAIT_MS is told of as it was last.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"
#include "uml-lab/machine/supervisor.h"

#define WAIT_MS 500 /* less than a client waits: session/status.c */

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
		{"in_dropped", stats->in_dropped},
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
	return json_pack("{s:s, s:b, s:s*, s:s, s:o, s:o, s:b, s:s, s:b, s:s*, s:o}", "name", name, "slirp", iface->slirp,
			 "network", iface->network, "mac", mac, "addresses", strings(&iface->addresses),
			 "forwards", port ? strings(&port->forwards) : json_array(), "connected",
			 port && (port->connection >= 0 || port->stats.connected), "impair", impair,
			 "joined", port && port->stats.joined, "trouble",
			 port && port->stats.trouble[0] ? port->stats.trouble : NULL, "counters",
			 counters_json(port ? &port->stats : &(struct netplug_stats){0}));
}

static json_t *shares_json(const struct supervisor *sv)
{
	json_t *array = json_array();

	for (size_t i = 0; i < sv->spec->share_count; i++) {
		const struct machine_share *share = &sv->spec->shares[i];
		const char *problem = i < sv->shares.count ? sv->shares.devices[i].problem : "";

		json_array_append_new(array, json_pack("{s:s, s:s, s:b, s:s}", "name", share->name, "mount",
						       share->mount, "writable", share->writable, "problem",
						       problem));
	}
	return array;
}

static json_t *process_json(const struct process_id *id)
{
	if (!id->pid)
		return json_null();
	return json_pack("{s:i, s:I}", "pid", (int)id->pid, "start", (json_int_t)id->start);
}

/* Writes were refused, and little has been given back since. (A write that happens to fit does not make room.) */
static bool is_over_quota(const struct cow_serve_stats *s)
{
	return s->quota_state == COW_SERVE_QUOTA_FULL || (s->quota_refused && s->quota_used > s->quota / 8 * 7);
}

/* What a person should know of the disks: "" when there is nothing. */
static void disk_problem(const struct supervisor *sv, char *out, size_t size)
{
	char used[16], quota[16];

	out[0] = '\0';
	for (size_t i = 0; i < sv->spec->disk_count; i++) {
		const struct cow_serve_stats *s = &sv->status.disks[i];

		if (is_over_quota(s)) {
			snprintf(out, size,
				 "the session's disks take %s of the %s that limits.disk allows: writes fail until space is "
				 "given back (remove files and run fstrim in the guest, or uml-lab reset)",
				 str_human_size(s->quota_used, used, sizeof(used)),
				 str_human_size(s->quota, quota, sizeof(quota)));
			return;
		}
		if (s->errors > s->quota_refused && s->last_error[0])
			snprintf(out, size, "disk %zu: %" PRIu64 " requests failed, the last: %s", i,
				 s->errors - s->quota_refused, s->last_error);
	}
}

static json_t *stats_json(const struct supervisor *sv, size_t i)
{
	const struct cow_serve_stats *s = &sv->status.disks[i];

	return json_pack("{s:s, s:I, s:b, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
			 "path", i < sv->disk.paths.count ? sv->disk.paths.items[i] : sv->spec->disks[i].path,
			 "size", (json_int_t)s->size, "inserted", !disk_is_out(sv, i), "connected", s->connected != 0,
			 "depth", (json_int_t)s->depth, "allocated", (json_int_t)s->allocated,
			 "requests", (json_int_t)s->requests, "read_bytes", (json_int_t)s->read_bytes,
			 "written_bytes", (json_int_t)s->written_bytes, "discarded_bytes", (json_int_t)s->discarded_bytes,
			 "flushes", (json_int_t)s->flushes, "errors", (json_int_t)s->errors,
			 "quota_refused", (json_int_t)s->quota_refused);
}

static json_t *disks_json(const struct supervisor *sv)
{
	json_t *object = json_object(), *list = json_array();
	char problem[512];

	for (size_t i = 0; i < sv->spec->disk_count; i++)
		json_array_append_new(list, stats_json(sv, i) ?: json_null());
	disk_problem(sv, problem, sizeof(problem));
	json_object_set_new(object, "driver", json_string(sv->spec->ubd ? "ubd" : "vhost-user"));
	json_object_set_new(object, "process", process_json(&sv->disk.id));
	json_object_set_new(object, "problem", problem[0] ? json_string(problem) ?: json_string("(not text)") : json_null());
	if (sv->spec->disk_quota) {
		json_object_set_new(object, "quota", json_integer((json_int_t)sv->spec->disk_quota));
		json_object_set_new(object, "quota_used", json_integer((json_int_t)sv->status.disks[0].quota_used));
	}
	json_object_set_new(object, "list", list);
	return object;
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
			 sv->spec->kernel.release, "sandbox", sv->walls, "memory",
			 (json_int_t)sv->spec->memory, "ready_ms", (json_int_t)sv->ready_ms, "restarts",
			 sv->restarts, "set_up", sv->set_up, "agent", sv->relay.hello && sv->relay.fd >= 0,
			 "supervisor", process_json(&sv->self), "process", process_json(&sv->sandbox.kernel),
			 "plug", process_json(&sv->plug.daemon.id), "interfaces", interfaces);
	if (root && sv->spec->share_count) {
		json_object_set_new(root, "hostfs", process_json(&sv->shares.daemon.id));
		json_object_set_new(root, "shares", shares_json(sv));
	}
	if (root)
		json_object_set_new(root, "disks", disks_json(sv));
	if (root)
		json_object_set_new(root, "cause", json_string(sv->cause) ?: json_string("(not text)"));
	text = root ? json_dumps(root, JSON_COMPACT) : NULL;
	json_decref(root);
	if (!text)
		error_oom(err);
	return text;
}

/* ---- who waits ---- */

/* The disks are told; the plug comes next. */
static void go_on(struct supervisor *sv, struct client *client)
{
	if (!plug_ask_stats(sv, client))
		client_answer_status(client);
}

static void answer_all(struct supervisor *sv)
{
	size_t count = sv->status.client_count;

	sv->status.client_count = 0;
	loop_arm_timer(sv->status.timer, -1);
	for (size_t i = 0; i < count; i++) {
		struct client *client = control_client(sv, sv->status.clients[i]);

		if (client)
			go_on(sv, client);
	}
}

static void on_late(void *arg)
{
	answer_all(arg);
}

static void on_stats(void *arg, const struct cow_serve_message *message, const struct error *failure)
{
	struct supervisor *sv = arg;

	sv->status.awaited--;
	if (!failure && message->header.type == COW_SERVE_STATS && message->u.stats.disk < sv->spec->disk_count)
		sv->status.disks[message->u.stats.disk] = message->u.stats;
	if (!sv->status.awaited)
		answer_all(sv);
}

void status_refresh(struct supervisor *sv)
{
	struct error err = ERROR_INIT;

	if (sv->status.awaited)
		return;
	for (size_t i = 0; i < sv->spec->disk_count && sv->disk.ready; i++) {
		if (disk_request(sv, COW_SERVE_GET_STATS, i, NULL, on_stats, sv, &err) < 0) {
			log_error(&err);
			return;
		}
		sv->status.awaited++;
	}
}

void status_request(struct supervisor *sv, struct client *client)
{
	struct status *status = &sv->status;

	status_refresh(sv);
	if (!status->awaited || status->client_count == STATUS_CLIENTS_MAX) {
		go_on(sv, client);
		return;
	}
	status->clients[status->client_count++] = client_number(client);
	if (status->client_count == 1)
		loop_arm_timer(status->timer, WAIT_MS);
}

int status_open(struct supervisor *sv, struct error *err)
{
	sv->status.disks = calloc(sv->spec->disk_count + 1, sizeof(*sv->status.disks));
	if (!sv->status.disks)
		return error_oom(err);
	sv->status.timer = loop_add_timer(sv->loop, -1, on_late, sv, err);
	return sv->status.timer ? 0 : -1;
}

void status_close(struct supervisor *sv)
{
	free(sv->status.disks);
	sv->status.disks = NULL;
}
