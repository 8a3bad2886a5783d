/* uml-hostfs, and the guest's file system devices that it serves: shares.c. Part of supervisor.h. */
#ifndef UML_LAB_MACHINE_SHARES_H
#define UML_LAB_MACHINE_SHARES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "uml-lab/base/child.h"
#include "uml-lab/base/loop.h"
#include "uml-lab/machine/vhost_relay.h"

#define SHARE_WAITS_MAX 17 /* those of uml-hostfs (HOSTFS_WAITS_MAX), and one that is just answered */

/* A guest's file system device. */
struct share_device {
	struct vhost_relay relay;	/* between the guest and uml-hostfs */
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

int shares_open(struct supervisor *sv, struct error *err);
void shares_close(struct supervisor *sv);

#endif
