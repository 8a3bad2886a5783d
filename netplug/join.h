/*
 * Joining a VDE network for a plug, which has walls around it (walls.c) and can neither load libvdeplug's modules nor reach
 * their sockets.
 *
 * A process without those walls, the supervisor, starts a joiner for it:
 *	uml-netplug --vde LOCATOR --label TEXT --join-fd N
 * and gives the plug the other end of N (JOIN in control.h). The joiner reads nothing of a guest's before it has either
 * handed the network's descriptors over and ended, or put up walls of its own (vde_join.c).
 */
#ifndef NETPLUG_JOIN_H
#define NETPLUG_JOIN_H

#include "uml-lab/base/child.h"
#include "uml-lab/base/error.h"

/*
 * Starts a joiner, which dies with the calling process. program: the path of uml-netplug. Returns the end of it that is for
 * the plug, close-on-exec, the caller's; *joiner is its process: it may end at once or carry frames as long as the plug is
 * joined. -1 + err.
 */
int netplug_join(struct child *joiner, const char *program, const char *locator, const char *label, struct error *err);

/* Ends a joiner and what it has started; one that is not there is fine. */
void netplug_join_end(struct child *joiner);

#endif
