/* Interfaces by rtnetlink: names, addresses, routes, and SLIRP's default route again after a link went down and up. */
#ifndef UML_LAB_GUEST_NETWORK_H
#define UML_LAB_GUEST_NETWORK_H

#include "uml-lab/guest/config.h"
#include "uml-lab/guest/mount.h"

/* Whether there is a device for each interface already. */
bool network_is_complete(const struct config *c);

/* Brings lo and the configured interfaces up. What fails is told through note; the machine comes up without it. */
void network_set_up(const struct config *c, mount_note_fn note, void *arg);

/* A socket that tells of links that change, or -1: for network_link_changed(). Non-blocking. */
int network_watch(void);
/* Reads what the socket has. True when a link of ours came up: call network_restore() a moment later. */
bool network_link_changed(int watch, const struct config *c);
/* Puts SLIRP's default routes back, unless there is one, the address is gone, or some network manager runs. */
void network_restore(const struct config *c);

#endif
