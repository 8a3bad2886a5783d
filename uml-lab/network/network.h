/*
 * The networks of one session: a vde_switch for each, and the process that
 * keeps them.
 *
 *	FOLDER/			the session's own, short, 0700
 *		.control	the keeper listens here; who needs the networks holds a connection
 *		NAME/		vde_switch's own folder: vde://FOLDER/NAME is the network's locator
 *
 * The keeper belongs to no machine: it is started by `up`, or by the first
 * supervisor that finds it gone, and ends by itself when the last connection
 * closes. The lock on FOLDER decides who is the keeper. This folder knows
 * nothing of sessions and machines.
 */
#ifndef UML_LAB_NETWORK_NETWORK_H
#define UML_LAB_NETWORK_NETWORK_H

#include <stdbool.h>
#include <stddef.h>

#include "uml-lab/base/child.h"
#include "uml-lab/base/error.h"
#include "uml-lab/base/str.h"

struct network_switch {
	char *name;		/* as lab_network.name */
	bool learning;		/* a switch; otherwise a hub */
	unsigned int ports;	/* how many may be joined at a time */
};

struct network_spec {
	char *folder;		/* absolute, exists, 0700 */
	struct network_switch *switches;
	size_t count;
};

void network_spec_free(struct network_spec *spec);

/* The path that joins a network: FOLDER/NAME. malloc'ed; NULL + err. Too long for a socket: ERROR_FAILED. */
char *network_path(const char *folder, const char *name, struct error *err);

/* What is told of a change. */
struct network_report {
	struct process_id keeper;
	const struct network_running {
		const char *name;
		struct process_id id;	/* pid 0: does not run now */
	} *switches;
	size_t count;
};

typedef void (*network_report_fn)(void *arg, const struct network_report *report);

/*
 * Keeps the networks until nobody is connected any more, or a signal says so: the body of the keeper process.
 * ready_fd (or -1) is closed once every switch can be joined. ERROR_STATE when another keeper lives. Leaves no process,
 * and takes the folder away.
 */
int network_keep(const struct network_spec *spec, int ready_fd, network_report_fn report, void *arg,
		 struct error *err);

/*
 * Asks the keeper, over the connection of network_connect(), to keep one more network; one that it keeps already is left as it is.
 * When it can be joined, FOLDER/NAME/ctl is there. -1 + err: it could not be asked.
 */
int network_add(int connection, const struct network_switch *network, struct error *err);

/*
 * Connects to the keeper: while the descriptor is open it stays; its end (EPOLLRDHUP) is the keeper's end. Never blocks. -1 +
 * err: ERROR_STATE, no keeper listens.
 */
int network_connect(const char *folder, struct error *err);

/* Removes what a keeper that was killed left, and the folder. ERROR_STATE when a keeper lives: nothing is touched. */
int network_sweep(const char *folder, struct error *err);

#endif
