/* Readiness: when the image's init has brought the system up, and when a login sits on the console. */
#ifndef UML_LAB_GUEST_READY_H
#define UML_LAB_GUEST_READY_H

#include "uml-lab/guest/agent.h"

/* Opens the socket on which systemd tells READY=1. 0 or -1 + f. */
int ready_listen(struct agent *a, struct fault *f);
/* Init runs from now on. Sends PHASE ready, PHASE login and PHASE stopping when they come. */
void ready_start(struct agent *a);
/* Looks, when it is time; returns the milliseconds until it is again, -1 for never. */
int ready_tick(struct agent *a, int64_t now);

#endif
