/* What plug.c and plug_ask.c share: requests to uml-netplug that await their answer. */
#ifndef UML_LAB_MACHINE_PLUG_INTERNAL_H
#define UML_LAB_MACHINE_PLUG_INTERNAL_H

#include "netplug/control.h"
#include "uml-lab/machine/supervisor.h"

struct plug_request {
	struct plug_request *next;
	uint32_t sequence;
	enum netplug_type type;
	size_t port;
	char *spec;      /* of forwards and allowed destinations */
	uint64_t client; /* who waits for the answer, 0: nobody */
};

/* Remembers a request under the next number. NULL when memory is out. */
struct plug_request *plug_remember(struct plug *plug, enum netplug_type type, size_t port, const char *spec,
				   uint64_t client);
/* Takes it out again, the caller's to free. NULL when there is none of that number. */
struct plug_request *plug_take_request(struct plug *plug, uint32_t sequence);
void plug_free_request(struct plug_request *request);

/* The index of the interface "ethN"; false when the machine has none of that name. */
bool plug_find_port(const struct supervisor *sv, const char *name, size_t *port);

/* Tells the plug what is wrong with the port's line; with client 0 only if anything is. False: it could not be told. */
bool plug_send_impair(struct supervisor *sv, size_t port, uint64_t client);
/* The answer to GET_STATS, NULL when there is none; the request is the caller's to free. */
void plug_stats_came(struct supervisor *sv, const struct plug_request *request, const struct netplug_stats *stats);

/* The plug says that a port is apart: starts a joiner for it and hands it over; soon, if the last one was just now. */
void plug_join(struct supervisor *sv, uint32_t port);
/* Ends the port's joiner. */
void plug_join_end(struct plug_port *port);

#endif
