/* The FUSE view: a chain's disk as one raw file, for programs that know nothing of COW files. */
#ifndef COW_VIEW_H
#define COW_VIEW_H

#include "cow/cow.h"

#define COW_VIEW_NAME "disk"             /* of the file in the folder mounted on */
#define COW_VIEW_PID  "user.uml-cow.pid" /* extended attribute of the folder: the process that serves it */

/*
 * Mounts the chain on a folder and serves it until it is unmounted or SIGTERM or
 * SIGINT arrives. Once it is mounted, and unless `foreground`, the caller's
 * process ends with status 0 and another serves. The file is as writable as the
 * chain; what is written is durable after fsync(), and when this returns.
 * The chain stays the caller's.
 */
int cow_view_serve(struct cow_chain *chain, const char *folder, bool foreground, struct error *err);

/* Unmounts, and waits until all that was written is durable and the files are free. */
int cow_view_unmount(const char *folder, struct error *err);

#endif
