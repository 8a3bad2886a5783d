/* Files between host and guest as tar streams: what `files:` and `copy` are made of. */
#ifndef UML_LAB_MACHINE_TRANSFER_H
#define UML_LAB_MACHINE_TRANSFER_H

#include <stdbool.h>
#include <sys/types.h>

#include "uml-lab/base/error.h"

/* Takes bytes of a tar stream: all of them (n), or -1 with err set. */
typedef ssize_t (*transfer_write_fn)(void *arg, const void *data, size_t n, struct error *err);
/* Gives bytes of a tar stream at *data, good until the next call: how many, 0 at its end, -1 with err set. */
typedef ssize_t (*transfer_read_fn)(void *arg, const void **data, struct error *err);

/*
 * Packs a file or folder under another name; everything is root's. With name
 * "." a folder's content is packed without the folder itself. Sockets are left out. 0 or -1 + err.
 */
int transfer_pack(const char *path, const char *name, transfer_write_fn write, void *arg, struct error *err);

/*
 * Unpacks a hostile stream, whose names all begin with the component `top`, as
 * PARENT/NAME. Nothing is written outside of that: a name with "..", another first
 * component or a way through a symbolic link is an error and ends it. Set-id
 * bits are dropped, and devices, absolute symbolic links and the like left out:
 * then *left_out counts them and `example` (at least 256 bytes) names one. Owners are the caller's.
 */
int transfer_unpack(transfer_read_fn read, void *arg, const char *top, const char *parent, const char *name,
		    int *left_out, char *example, struct error *err);

#endif
