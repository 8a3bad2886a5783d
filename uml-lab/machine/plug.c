/*
 * uml-netplug and the guest's connections to it (netplug/control.h).
 *
 * We listen on RUNTIME/ethN for each interface. What the guest connects is kept
 * here and a duplicate handed to the plug: the guest spins when its peer's end
 * closes (uml-facts.md, trap 6), and a plug that died is replaced without the
 * guest noticing. The new one is told all there is: ports, connections, forwards.
 * A virtio network device's connection is kept by vhost_relay.c.
 *
 * Requests are answered in any order, by sequence number; each is remembered
 * until then, with the client that waits for it, if any. A plug that keeps dying is
 * given up (daemon.c): the machine goes on without network, and its log says so.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "netplug/control.h"
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/dirs.h"
#include "uml-lab/base/file.h"
#include "uml-lab/base/log.h"
#include "uml-lab/machine/plug_internal.h"

#define RESOLVER_MAX 65536 /* bytes of /etc/resolv.conf */

/* ---- requests ---- */

void plug_free_request(struct plug_request *request)
{
	free(request->spec);
	free(request);
}

struct plug_request *plug_remember(struct plug *plug, enum netplug_type type, size_t port, const char *spec,
				     uint64_t client)
{
	struct plug_request *request = calloc(1, sizeof(*request));

	if (!request)
		return NULL;
	*request = (struct plug_request){.next = plug->requests,
					 .sequence = ++plug->sequence,
					 .type = type,
					 .port = port,
					 .client = client};
	if (spec && !(request->spec = str_dup(spec, NULL))) {
		free(request);
		return NULL;
	}
	plug->requests = request;
	return request;
}

struct plug_request *plug_take_request(struct plug *plug, uint32_t sequence)
{
	for (struct plug_request **p = &plug->requests; *p; p = &(*p)->next) {
		struct plug_request *request = *p;

		if (request->sequence != sequence)
			continue;
		*p = request->next;
		return request;
	}
	return NULL;
}

static void log_failure(int result, struct error *err)
{
	if (result < 0)
		log_error(err);
}

/* The search domains of the host's resolver, which guests get by DHCP: separated by blanks, "" for none. */
static void search_domains(char *buf, size_t size)
{
	cleanup_free char *text = NULL;
	char *rest, *line;
	size_t length;

	*buf = '\0';
	if (file_read_all("/etc/resolv.conf", RESOLVER_MAX, &text, &length, NULL) < 0)
		return;
	rest = text;
	while ((line = strsep(&rest, "\n"))) {
		cleanup_strbuf struct strbuf names = STRBUF_INIT;
		char *word;

		if ((word = strsep(&line, " \t")) && !str_eq(word, "search") && !str_eq(word, "domain"))
			continue;
		while ((word = strsep(&line, " \t")))
			if (*word && !str_eq(word, "."))
				strbuf_printf(&names, "%s%s", names.length ? " " : "", word);
		/* The last such line counts (resolv.conf(5)). */
		snprintf(buf, size, "%s", names.length && names.length < size ? names.data : "");
	}
}

static void send_allowed(struct supervisor *sv, size_t i)
{
	const struct strv *allow = &sv->spec->interfaces[i].allow;
	struct error err = ERROR_INIT;

	for (size_t j = 0; j < allow->count; j++) {
		struct plug_request *request = plug_remember(&sv->plug, NETPLUG_ALLOW, i, allow->items[j], 0);

		if (request)
			log_failure(netplug_control_send_allow(sv->plug.daemon.control, request->sequence, (uint32_t)i,
							       allow->items[j], &err),
				    &err);
	}
}

static void send_port(struct supervisor *sv, size_t i)
{
	const struct machine_interface *iface = &sv->spec->interfaces[i];
	struct plug_request *request = plug_remember(&sv->plug, NETPLUG_ADD_PORT, i, NULL, 0);
	struct netplug_port_config config;
	struct error err = ERROR_INIT;

	if (!request)
		return;
	netplug_port_config_init(&config, (uint32_t)i);
	if (!iface->slirp && netplug_port_config_vde(&config, iface->locator, &err) < 0)
		log_error(&err);
	snprintf(config.label, sizeof(config.label), "%s/%s eth%zu", sv->spec->session, sv->spec->name, i);
	memcpy(config.mac, iface->mac, sizeof(config.mac));
	config.restrict_access = iface->restricted;
	config.host_access = iface->host;
	config.port_security = iface->port_security;
	config.transport = iface->vhost_user ? NETPLUG_VHOST_USER : NETPLUG_BESS;
	if (iface->mtu)
		config.mtu = (uint32_t)iface->mtu;
	else if (iface->slirp && iface->vhost_user)
		config.mtu = NETPLUG_VIRTIO_MTU;
	snprintf(config.hostname, sizeof(config.hostname), "%s", sv->spec->name);
	if (!iface->restricted)
		search_domains(config.search, sizeof(config.search));
	snprintf(config.domain, sizeof(config.domain), "%.*s", (int)strcspn(config.search, " "), config.search);
	log_failure(netplug_control_send_add_port(sv->plug.daemon.control, request->sequence, &config, &err), &err);
	send_allowed(sv, i);
	plug_send_impair(sv, i, 0);
}

static int send_connection(struct supervisor *sv, size_t i, int connection)
{
	struct plug_request *request = plug_remember(&sv->plug, NETPLUG_CONNECT, i, NULL, 0);
	struct error err = ERROR_INIT;

	if (!request || netplug_control_send_connect(sv->plug.daemon.control, request->sequence, (uint32_t)i, connection,
						     &err) == 0)
		return request ? 0 : -1;
	log_error(&err);
	return -1;
}

static int send_forward(struct supervisor *sv, size_t i, bool add, const char *spec, uint64_t client,
			struct error *err)
{
	struct plug_request *request =
		plug_remember(&sv->plug, add ? NETPLUG_FORWARD_ADD : NETPLUG_FORWARD_REMOVE, i, spec, client);

	if (!request)
		return error_oom(err);
	if (netplug_control_send_forward(sv->plug.daemon.control, request->sequence, (uint32_t)i, add, spec, err) ==
	    0)
		return 0;
	plug_free_request(plug_take_request(&sv->plug, request->sequence));
	return -1;
}

/* ---- forwards ---- */

/* The list for reports is that of all ports. */
static void gather_forwards(struct supervisor *sv)
{
	strv_free(&sv->plug.forwards);
	for (size_t i = 0; i < sv->plug.port_count; i++)
		for (size_t j = 0; j < sv->plug.ports[i].forwards.count; j++)
			strv_add(&sv->plug.forwards, sv->plug.ports[i].forwards.items[j], NULL);
}

/* Removes what listens on the same host port; with `with`, puts that in its place. */
static void note_forward(struct supervisor *sv, size_t port, const char *spec, const char *with)
{
	struct strv kept = STRV_INIT, *forwards = &sv->plug.ports[port].forwards;
	struct netplug_forward a, b;

	for (size_t i = 0; i < forwards->count; i++)
		if (netplug_forward_parse(spec, &a, NULL) < 0 ||
		    netplug_forward_parse(forwards->items[i], &b, NULL) < 0 ||
		    !netplug_forward_same_host(&a, &b))
			strv_add(&kept, forwards->items[i], NULL);
	if (with)
		strv_add(&kept, with, NULL);
	strv_free(forwards);
	*forwards = kept;
	gather_forwards(sv);
	supervisor_tell(sv);
}

static void answer(struct supervisor *sv, uint64_t number, const struct netplug_reply *reply)
{
	struct client *client = control_client(sv, number);

	if (!client)
		return;
	if (reply->status)
		client_answer_failure(client, (enum error_kind)reply->status, reply->text);
	else if (reply->text[0])
		client_answer_text(client, FRAME_STATUS, reply->text);
	if (!reply->status && control_client(sv, number))
		client_answer_done(client);
}

/* What the lab asked for and is not there: on the console, and told by whoever waits for the machine. */
static void note_problem(struct supervisor *sv, const struct plug_request *request, const char *text)
{
	char *problem = sv->plug.problem;
	char said[sizeof(sv->plug.problem)];

	snprintf(said, sizeof(said), "network, eth%zu%s%.127s: %.300s", request->port,
		 request->spec ? ", forward " : "", request->spec ? request->spec : "", text);
	console_note(sv, "%s", said);
	if (!problem[0])
		memcpy(problem, said, sizeof(said));
}

/* The plug cannot see who has a port; we can. */
static void add_owner(const struct plug_request *request, struct netplug_reply *reply)
{
	size_t length = strlen(reply->text);
	struct netplug_forward forward;
	char owner[64];
	uint16_t port;

	if (!reply->status || !request->spec || !str_ends(reply->text, NETPLUG_IN_USE) ||
	    netplug_forward_parse(request->spec, &forward, NULL) < 0)
		return;
	port = forward.host.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&forward.host)->sin6_port
						  : ((struct sockaddr_in *)&forward.host)->sin_port;
	snprintf(reply->text + length, sizeof(reply->text) - length, "%s",
		 netplug_owner_of_port(forward.udp, ntohs(port), owner, sizeof(owner)));
}

static void take_reply(struct supervisor *sv, uint32_t sequence, struct netplug_reply *reply)
{
	struct plug_request *request = plug_take_request(&sv->plug, sequence);

	if (!request)
		return;
	add_owner(request, reply);
	if (reply->status) {
		log_warn("uml-netplug, eth%zu%s%s: %s", request->port, request->spec ? ", " : "",
			 request->spec ? request->spec : "", reply->text);
		if (!request->client)
			note_problem(sv, request, reply->text);
	} else if (request->type == NETPLUG_FORWARD_ADD) {
		sv->plug.forwarded = true;
		note_forward(sv, request->port, reply->text, reply->text);
	} else if (request->type == NETPLUG_FORWARD_REMOVE) {
		note_forward(sv, request->port, request->spec, NULL);
	}
	if (request->type == NETPLUG_GET_STATS)
		plug_stats_came(sv, request, NULL);
	else if (request->client)
		answer(sv, request->client, reply);
	plug_free_request(request);
}

static void take_stats(struct supervisor *sv, uint32_t sequence, const struct netplug_stats *stats)
{
	struct plug_request *request = plug_take_request(&sv->plug, sequence);

	if (!request)
		return;
	if (request->type == NETPLUG_GET_STATS)
		plug_stats_came(sv, request, stats);
	plug_free_request(request);
}

static void list_forwards(struct client *client, const struct strv *forwards)
{
	cleanup_strbuf struct strbuf text = STRBUF_INIT;

	for (size_t i = 0; i < forwards->count; i++)
		strbuf_printf(&text, "%s\n", forwards->items[i]);
	client_answer_text(client, FRAME_STATUS, text.length && !text.failed ? text.data : "");
	client_answer_done(client);
}

bool plug_find_port(const struct supervisor *sv, const char *name, size_t *port)
{
	int64_t index;

	if (!str_starts(name, "eth") || str_to_i64(name + 3, 0, (int64_t)sv->plug.port_count - 1, &index) < 0)
		return false;
	*port = (size_t)index;
	return true;
}

/* Words of "VERB IFACE SPEC"; false when it isn't that. Returns the interface's index in *port. */
static bool parse_request(struct supervisor *sv, const struct strv *words, size_t *port)
{
	if (words->count < 2 || !plug_find_port(sv, words->items[1], port))
		return false;
	if (str_eq(words->items[0], "list"))
		return words->count == 2;
	return words->count == 3 && (str_eq(words->items[0], "add") || str_eq(words->items[0], "remove"));
}

void plug_forward(struct supervisor *sv, struct client *client, const char *text)
{
	cleanup_strv struct strv words = STRV_INIT;
	struct netplug_forward forward;
	struct error err = ERROR_INIT;
	size_t port;

	if (strv_split(&words, text, ' ', &err) < 0 || !parse_request(sv, &words, &port))
		client_answer_failure(client, ERROR_USAGE,
				      "wanted: add|remove|list, a SLIRP interface of the machine, a forward");
	else if (str_eq(words.items[0], "list"))
		list_forwards(client, &sv->plug.ports[port].forwards);
	else if (netplug_forward_parse(words.items[2], &forward, &err) < 0 ||
		 (!sv->plug.ready && error_set(&err, ERROR_FAILED, "uml-netplug does not run now")) ||
		 send_forward(sv, port, str_eq(words.items[0], "add"), words.items[2], client_number(client),
			      &err) < 0)
		client_answer_failure(client, err.kind, err.message);
}

/* ---- the guest's connections ---- */

static void drop_connection(struct plug_port *port)
{
	loop_remove_fd(port->connection_source);
	port->connection_source = NULL;
	if (port->connection >= 0)
		close(steal_fd(&port->connection));
}

/* The guest closed its end (ip link set down): the plug notices by itself. */
static void on_hangup(void *arg, int fd, uint32_t events)
{
	(void)fd;
	if (events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR))
		drop_connection(arg);
}

static void on_guest(void *arg, int listener, uint32_t events)
{
	struct plug_port *port = arg;
	struct supervisor *sv = port->sv;
	cleanup_close int fd = sandbox_accept(&sv->sandbox, listener, port->path);

	(void)events;
	if (fd < 0)
		return;
	drop_connection(port);
	port->connection_source = loop_add_fd(sv->loop, fd, EPOLLRDHUP, on_hangup, port, NULL);
	if (!port->connection_source)
		return;
	port->connection = steal_fd(&fd);
	if (sv->plug.ready)
		send_connection(sv, (size_t)(port - sv->plug.ports), port->connection);
}

/* ---- its life ---- */

/* Tells a fresh plug all there is. First the lab's forwards; later those in force. */
static void replay(struct supervisor *sv)
{
	struct error err = ERROR_INIT;

	sv->plug.ready = true;
	for (size_t i = 0; i < sv->plug.port_count; i++) {
		struct plug_port *port = &sv->plug.ports[i];
		const struct strv *forwards =
			sv->plug.forwarded ? &port->forwards : &sv->spec->interfaces[i].forwards;

		send_port(sv, i);
		if (port->connection >= 0)
			send_connection(sv, i, port->connection);
		vhost_relay_join(&port->relay);
		for (size_t j = 0; j < forwards->count; j++)
			log_failure(send_forward(sv, i, true, forwards->items[j], 0, &err), &err);
	}
}

static void on_control(void *arg, int fd, uint32_t events)
{
	struct supervisor *sv = arg;
	struct netplug_message message;
	struct error err = ERROR_INIT;
	int got;

	(void)events;
	while ((got = netplug_control_receive(fd, &message, &err)) == 1) {
		if (message.header.type == NETPLUG_READY)
			replay(sv);
		else if (message.header.type == NETPLUG_REPLY)
			take_reply(sv, message.header.sequence, &message.u.reply);
		else if (message.header.type == NETPLUG_STATS)
			take_stats(sv, message.header.sequence, &message.u.stats);
		else if (message.header.type == NETPLUG_WANT_JOIN)
			plug_join(sv, message.u.ref.port);
	}
	if (got < 0)
		daemon_hung_up(&sv->plug.daemon);
}

static void forget_plug(struct supervisor *sv)
{
	struct plug *plug = &sv->plug;

	plug->ready = false;
	for (size_t i = 0; i < plug->port_count; i++)
		vhost_relay_part(&plug->ports[i].relay);
	while (plug->requests) {
		struct plug_request *request = plug_take_request(plug, plug->requests->sequence);
		struct client *client = control_client(sv, request->client);

		if (request->type == NETPLUG_GET_STATS)
			plug_stats_came(sv, request, NULL);
		else if (client)
			client_answer_failure(client, ERROR_FAILED, "uml-netplug ended before it answered");
		plug_free_request(request);
	}
}

static bool has_slirp(const struct supervisor *sv)
{
	for (size_t i = 0; i < sv->spec->interface_count; i++)
		if (sv->spec->interfaces[i].slirp)
			return true;
	return false;
}

static int plug_arguments(struct supervisor *sv, struct strv *argv, struct error *err)
{
	if (strv_add(argv, "--control-fd", err) < 0 || strv_add(argv, "3", err) < 0)
		return -1;
	return has_slirp(sv) ? 0 : strv_add(argv, "--no-sockets", err);
}

static const struct daemon_kind plug_kind = {
	.name = "uml-netplug",
	.title = "the network plug",
	.lost = "network",
	.nonblocking = true,
	.delay_ms = 250,
	.arguments = plug_arguments,
	.on_control = on_control,
	.gone = forget_plug,
};

static bool takes_connections(const struct vhost_relay *relay)
{
	return relay->sv->plug.ready;
}

static int announce(struct vhost_relay *relay, int theirs)
{
	return send_connection(relay->sv, relay->index, theirs);
}

static const struct vhost_relay_kind relay_kind = {
	.daemon = "uml-netplug",
	.ready = takes_connections,
	.announce = announce,
};

static int open_port(struct supervisor *sv, size_t i, struct error *err)
{
	struct plug_port *port = &sv->plug.ports[i];
	char name[32];

	*port = (struct plug_port){.sv = sv, .listener = -1, .connection = -1, .joiner = CHILD_INIT,
				    .impair = sv->spec->interfaces[i].impair};
	snprintf(name, sizeof(name), "eth%zu", i);
	if (sv->spec->interfaces[i].vhost_user)
		return vhost_relay_listen(&port->relay, sv, &relay_kind, i, name, err);
	port->path = guest_path(sv->spec, name, err);
	if (!port->path)
		return -1;
	port->listener = netplug_listen(port->path, NETPLUG_BESS, err);
	if (port->listener < 0)
		return -1;
	port->listener_source = loop_add_fd(sv->loop, port->listener, EPOLLIN, on_guest, port, err);
	return port->listener_source ? 0 : -1;
}

int plug_open(struct supervisor *sv, struct error *err)
{
	struct plug *plug = &sv->plug;

	if (!sv->spec->interface_count)
		return 0;
	plug->ports = calloc(sv->spec->interface_count, sizeof(*plug->ports));
	if (!plug->ports)
		return error_oom(err);
	for (; plug->port_count < sv->spec->interface_count; plug->port_count++)
		if (open_port(sv, plug->port_count, err) < 0) {
			plug->port_count++; /* so that plug_close() looks at it too */
			return -1;
		}
	return daemon_open(&plug->daemon, sv, &plug_kind, err);
}

void plug_close(struct supervisor *sv)
{
	struct plug *plug = &sv->plug;

	daemon_close(&plug->daemon);
	for (size_t i = 0; i < plug->port_count; i++) {
		struct plug_port *port = &plug->ports[i];

		drop_connection(port);
		vhost_relay_close(&port->relay);
		plug_join_end(port);
		loop_remove_fd(port->listener_source);
		if (port->listener >= 0) {
			unlink(port->path);
			close(port->listener);
		}
		strv_free(&port->forwards);
		free(port->path);
	}
	strv_free(&plug->forwards);
	free(plug->ports);
	plug->ports = NULL;
	plug->port_count = 0;
}
