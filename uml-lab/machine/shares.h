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
		uint64_t unique;	/* of one that waits: the request's number, 0: not known; and the guest's thread */
		uint32_t pid;
	} waits[SHARE_WAITS_MAX];	/* requests that wait for locks in uml-hostfs, for the one after it */
	size_t wait_count;
};

struct shares {
	struct daemon daemon;		/* uml-hostfs */
	bool ready;			/* it takes connections */
	bool said_bye;			/* the one before ended in order */
	struct share_device *devices;
	size_t count;
	struct loop_timer *look;	/* share_waits.c: for signals, while somebody waits for a lock */
	bool asked;			/* the agent has not answered yet */
};

/* share_waits.c: somebody waits for a lock in uml-hostfs: signals for him are looked for from now on. */
void share_waits_begin(struct supervisor *sv);
/* What the agent says of them. False: it is something else. */
bool share_waits_phase(struct supervisor *sv, const char *text);

int shares_open(struct supervisor *sv, struct error *err);
void shares_close(struct supervisor *sv);

#endif
