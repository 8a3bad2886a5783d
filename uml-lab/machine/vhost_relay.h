/* Stands between a guest's vhost-user front-end and a daemon of ours that may die: vhost_relay.c. Part of supervisor.h. */
#ifndef UML_LAB_MACHINE_VHOST_RELAY_H
#define UML_LAB_MACHINE_VHOST_RELAY_H

#include <stdbool.h>
#include <stddef.h>

#include "uml-lab/base/error.h"
#include "uml-lab/base/loop.h"

#define VHOST_MESSAGE_MAX 320		/* bytes of a message: a table of eight regions, and some */
#define VHOST_FDS_MAX 8			/* that come with one */
#define VHOST_RELAY_MESSAGES_MAX 64	/* that set a device up */

struct supervisor;
struct vhost_relay;

/* One vhost-user message of a guest's front-end. */
struct vhost_message {
	unsigned char data[VHOST_MESSAGE_MAX];
	size_t length;
	int fds[VHOST_FDS_MAX];
	size_t fd_count;
};

/* Who serves the devices of a kind. */
struct vhost_relay_kind {
	const char *daemon;	/* its name, for the log */
	/* Whether it takes connections now. */
	bool (*ready)(const struct vhost_relay *relay);
	/* Hands it its end of the connection, which stays the relay's to close. 0, or -1. */
	int (*announce)(struct vhost_relay *relay, int theirs);
	/* The guest's connection has ended: what is known of its requests is forgotten. May be NULL. */
	void (*guest_gone)(struct vhost_relay *relay);
};

struct vhost_relay {
	struct supervisor *sv;
	const struct vhost_relay_kind *kind;	/* NULL: not in use */
	size_t index;			/* the kind's */
	char *path;			/* socket the guest connects to */
	int listener;
	struct loop_fd *listener_source;
	int guest, server;		/* -1: not connected */
	struct loop_fd *guest_source, *server_source;
	struct vhost_message in;	/* coming from the guest, not yet whole */
	struct vhost_message *said[VHOST_RELAY_MESSAGES_MAX];	/* what set the device up, for a daemon that comes later */
	size_t said_count;		/* 0: the guest is a fresh one */
	struct vhost_message *asked;	/* not answered yet; NULL: none */
};

/* Listens at the guest's path NAME. 0, or -1 + err; vhost_relay_close() in either case. */
int vhost_relay_listen(struct vhost_relay *relay, struct supervisor *sv, const struct vhost_relay_kind *kind,
		       size_t index, const char *name, struct error *err);
/* One that was never listened on, all zero, is fine with the three below. */

/* The daemon takes connections: it gets the guest's, if there is one, set up as it was. */
void vhost_relay_join(struct vhost_relay *relay);
/* The daemon is gone: the guest's connection waits for the next. */
void vhost_relay_part(struct vhost_relay *relay);
void vhost_relay_close(struct vhost_relay *relay);

#endif
