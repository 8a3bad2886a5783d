/* What only uml-lab/network/ needs. */
#ifndef UML_LAB_NETWORK_NETWORK_INTERNAL_H
#define UML_LAB_NETWORK_NETWORK_INTERNAL_H

#include <stdint.h>
#include <sys/un.h>

#include "uml-lab/base/loop.h"
#include "uml-lab/network/network.h"

/* vlans.c: commands for a learning switch, to be read from the returned descriptor; -1 + err. */
int network_vlan_commands(unsigned int ports, struct error *err);

/* What a holder of a connection may say: one more network is wanted. */
#define ADD_MAGIC 0x4e455441u	/* "NETA" */
#define NETWORKS_MAX 256
#define PORTS_MAX 4096
struct add_message {
	uint32_t magic, learning, ports;
	char name[64];	/* letters, digits, - */
};

/* folder.c: takes the lock of the folder, a descriptor; -1 + err, ERROR_STATE when a keeper holds it. */
int network_lock(const char *folder, struct error *err);
/* Removes all that is in the folder, whose lock the caller holds. */
void network_clear(const char *folder);
/* Fills the address of FOLDER/.control. -1 + err: too long. */
int network_control_address(const char *folder, struct sockaddr_un *address, struct error *err);

/* switch.c: one vde_switch and its life */

struct keeper;

struct running_switch {
	struct keeper *keeper;
	struct network_switch spec;	/* its name is its own */
	char *path;
	struct child child;
	struct process_id id;
	struct loop_fd *source;
	struct loop_timer *timer;
	int64_t started_ms;
	int quick_deaths;
};

/* Starts it; from now on it is started again whenever it ends. -1 + err: it could not be started the first time. */
int switch_open(struct running_switch *sw, struct keeper *keeper, const struct network_switch *spec,
		struct error *err);
/* Whether it can be joined. */
bool switch_is_up(const struct running_switch *sw);
/* Ends it. Harmless on zeroes. */
void switch_close(struct running_switch *sw);

/* keeper.c */

struct keeper {
	const struct network_spec *spec;
	struct loop *loop;
	struct running_switch **switches;	/* NETWORKS_MAX of them at most */
	size_t count;
	network_report_fn report;
	void *report_arg;
	int listener;
	struct loop_fd *listener_source;
	struct loop_timer *timer;	/* runs while nobody has connected yet */
	struct holder *holders;
	bool stopped;
};

/* Something about the switches has changed. */
void keeper_tell(struct keeper *keeper);

#endif
