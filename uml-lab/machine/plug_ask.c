/*
 * What clients ask of uml-netplug while the machine runs, but for forwards: impairments, captures, counters.
 *
 * Impairments in force are kept here and told to each new plug. A capture is a socket of the client's own,
 * which the plug gets and knows alone; when the plug dies the client sees its end, and asks again.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/log.h"
#include "uml-lab/machine/plug_internal.h"

static void forget(struct supervisor *sv, uint32_t sequence)
{
	struct plug_request *request = plug_take_request(&sv->plug, sequence);

	if (request)
		plug_free_request(request);
}

/* ---- impairments ---- */

bool plug_send_impair(struct supervisor *sv, size_t port, uint64_t client)
{
	static const struct netplug_impair none;
	const struct netplug_impair *impair = &sv->plug.ports[port].impair;
	struct plug_request *request;
	struct error err = ERROR_INIT;

	if (!client && !memcmp(impair, &none, sizeof(none)))
		return true;
	request = plug_remember(&sv->plug, NETPLUG_IMPAIR, port, NULL, client);
	if (!request)
		return false;
	if (netplug_control_send_impair(sv->plug.daemon.control, request->sequence, (uint32_t)port, impair, &err) == 0)
		return true;
	log_error(&err);
	forget(sv, request->sequence);
	return false;
}

/* One word of the request: clear, down=0|1, KEY=VALUE. */
static int apply_word(char *word, struct netplug_impair *impair, struct error *err)
{
	char *value = strchr(word, '=');

	if (str_eq(word, "clear")) {
		*impair = (struct netplug_impair){0};
		return 0;
	}
	if (!value)
		return error_set(err, ERROR_USAGE, "'%.32s' is no impairment", word);
	*value++ = '\0';
	if (!str_eq(word, "down"))
		return netplug_impair_set(impair, word, value, err);
	impair->down = str_eq(value, "1");
	return 0;
}

void plug_impair(struct supervisor *sv, struct client *client, const char *text)
{
	cleanup_strv struct strv words = STRV_INIT;
	struct error err = ERROR_INIT;
	struct netplug_impair impair;
	size_t port;

	if (strv_split(&words, text, ' ', &err) < 0 || !plug_find_port(sv, words.items[0], &port)) {
		client_answer_failure(client, ERROR_NOT_FOUND, "the machine has no such interface");
		return;
	}
	impair = sv->plug.ports[port].impair;
	for (size_t i = 1; i < words.count; i++) {
		if (apply_word(words.items[i], &impair, &err) < 0) {
			client_answer_failure(client, err.kind, err.message);
			return;
		}
	}
	/* Also when no plug runs now: the next one is told. */
	sv->plug.ports[port].impair = impair;
	if (!sv->plug.ready || !plug_send_impair(sv, port, client_number(client)))
		client_answer_done(client);
}

/* ---- captures ---- */

/* Connects to the client's socket, an abstract one of the same user. A descriptor, or -1 + err. */
static int connect_capture(const char *name, struct error *err)
{
	cleanup_close int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = strlen(name);
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (!length || length >= sizeof(address.sun_path))
		return error_set(err, ERROR_USAGE, "not the name of a socket");
	memcpy(address.sun_path + 1, name, length);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length)))
		return error_errno(err, errno, "connect to the capture's socket");
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) || peer.uid != geteuid())
		return error_set(err, ERROR_FAILED, "the capture's socket is another user's");
	return steal_fd(&fd);
}

static int send_capture(struct supervisor *sv, const struct strv *words, uint64_t client, struct error *err)
{
	struct netplug_capture_request capture = {0};
	struct plug_request *request;
	cleanup_close int fd = -1;
	int64_t snaplen;
	size_t port;

	if (words->count != 4 || str_to_i64(words->items[2], 0, UINT16_MAX, &snaplen) < 0)
		return error_set(err, ERROR_USAGE, "wanted: an interface, a socket, a length, all or sent");
	if (!plug_find_port(sv, words->items[0], &port))
		return error_set(err, ERROR_NOT_FOUND, "the machine has no interface %.16s", words->items[0]);
	if (!sv->plug.ready)
		return error_set(err, ERROR_STATE, "uml-netplug does not run now");
	fd = connect_capture(words->items[1], err);
	if (fd < 0)
		return -1;
	capture.port = (uint32_t)port;
	capture.snaplen = (uint32_t)snaplen;
	capture.received = str_eq(words->items[3], "all");
	request = plug_remember(&sv->plug, NETPLUG_CAPTURE, port, NULL, client);
	if (!request)
		return error_oom(err);
	if (netplug_control_send_capture(sv->plug.daemon.control, request->sequence, &capture, fd, err) == 0)
		return 0;
	forget(sv, request->sequence);
	return -1;
}

void plug_capture(struct supervisor *sv, struct client *client, const char *text)
{
	cleanup_strv struct strv words = STRV_INIT;
	struct error err = ERROR_INIT;

	if (strv_split(&words, text, ' ', &err) < 0 || send_capture(sv, &words, client_number(client), &err) < 0)
		client_answer_failure(client, err.kind, err.message);
}

/* ---- counters ---- */

static bool still_waits(const struct plug *plug, uint64_t client)
{
	for (const struct plug_request *r = plug->requests; r; r = r->next)
		if (r->type == NETPLUG_GET_STATS && r->client == client)
			return true;
	return false;
}

void plug_stats_came(struct supervisor *sv, const struct plug_request *request, const struct netplug_stats *stats)
{
	struct client *client = control_client(sv, request->client);

	if (stats)
		sv->plug.ports[request->port].stats = *stats;
	if (client && !still_waits(&sv->plug, request->client))
		client_answer_status(client);
}

bool plug_ask_stats(struct supervisor *sv, struct client *client)
{
	uint64_t number = client_number(client);

	for (size_t i = 0; i < sv->plug.port_count && sv->plug.ready; i++) {
		struct plug_request *request = plug_remember(&sv->plug, NETPLUG_GET_STATS, i, NULL, number);

		if (request && netplug_control_send_get_stats(sv->plug.daemon.control, request->sequence, (uint32_t)i, NULL) < 0)
			forget(sv, request->sequence);
	}
	return still_waits(&sv->plug, number);
}
