/* uml-hostfs, and the guest's file system devices that it serves: shares.c, share_relay.c. Part of supervisor.h. */
#ifndef UML_LAB_MACHINE_SHARES_H
#define UML_LAB_MACHINE_SHARES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "uml-lab/base/child.h"
#include "uml-lab/base/loop.h"

#define SHARE_MESSAGE_MAX 320		/* bytes of a vhost-user message: a table of eight regions, and some */
#define SHARE_FDS_MAX 8			/* that come with one */
#define SHARE_MESSAGES_MAX 64		/* that set a device up */

struct supervisor;

/* One vhost-user message of a guest's front-end. */
struct share_message {
	unsigned char data[SHARE_MESSAGE_MAX];
	size_t length;
	int fds[SHARE_FDS_MAX];
	size_t fd_count;
};

/* A guest's file system device: share_relay.c stands between the guest and uml-hostfs. */
#define SHARE_WAITS_MAX 17 /* those of uml-hostfs (HOSTFS_WAITS_MAX), and one that is just answered */

struct share_device {
	struct supervisor *sv;
	size_t index;
	char *path;			/* socket the guest connects to */
	int listener;
	struct loop_fd *listener_source;
	int guest, server;		/* -1: not connected */
	struct loop_fd *guest_source, *server_source;
	struct share_message in;	/* coming from the guest, not yet whole */
	struct share_message *said[SHARE_MESSAGES_MAX];	/* what set the device up, for a uml-hostfs that comes later */
	size_t said_count;
	struct share_message *asked;	/* not answered yet; NULL: none */
	char problem[300];		/* of its folder, "" without */
	struct {
		unsigned int head, at;
		bool answering;
	} waits[SHARE_WAITS_MAX];	/* requests that wait for locks in uml-hostfs, for the one after it */
	size_t wait_count;
};

struct shares {
	struct daemon daemon;		/* uml-hostfs */
	bool ready;			/* it takes connections */
	bool said_bye;			/* the one before ended in order */
	struct share_device *devices;
	size_t count;
};

/* shares.c */
int shares_open(struct supervisor *sv, struct error *err);
void shares_close(struct supervisor *sv);

/* share_relay.c */
int share_listen(struct supervisor *sv, size_t index, struct share_device *device, struct error *err);
/* uml-hostfs takes connections: it gets the guest's, if there is one, set up as it was. */
void share_join(struct share_device *device);
/* uml-hostfs is gone: the guest's connection waits for the next. */
void share_part(struct share_device *device);
void share_close(struct share_device *device);

#endif
