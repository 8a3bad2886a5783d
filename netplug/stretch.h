/*
 * Wider TCP windows than libslirp's, for what a guest sends and for what it gets.
 *
 * libslirp knows no window scaling (RFC 7323): 65535 bytes are all that it lets be under way, so guest and plug work in turns
 * rather than at the same time, and each turn costs interrupts. This stands between the two:
 *
 *	guest ⇄ stretch ⇄ libslirp ⇄ host's socket
 *
 * - A SYN or SYN-ACK of libslirp's gets a window scale option, if the guest scales too. From then on windows are translated: the
 *   guest's to what fits into 16 bits, libslirp's to what it offers and WIDTH.
 * - From the guest: a segment that libslirp has room for goes on as it is. One that it has not is copied, held, and
 *   acknowledged in libslirp's place, so that the guest never has to send it again, however long the host does not read;
 *   libslirp gets it when it offers room. When WIDTH is used up the guest is offered no more, as by any receiver; its probes
 *   are answered.
 * - To the guest: a copy of each segment is kept until the guest has it, and libslirp is told at once that it has it
 *   (stretch_ahead.c).
 *
 * What is held or kept is lost with the plug, as libslirp's own buffers are, and with a reset of either end.
 *
 * Bounds: for each connection WIDTH and libslirp's window one way, 512 KiB the other; for all of a guest's STRETCH_HELD_MAX and
 * STRETCH_KEPT_MAX; STRETCH_FLOWS_MAX connections. What is beyond has libslirp's windows.
 */
#ifndef NETPLUG_STRETCH_H
#define NETPLUG_STRETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "uml-lab/base/error.h"

#define STRETCH_FLOWS_MAX 256
#define STRETCH_HELD_MAX  (4u << 20)
#define STRETCH_KEPT_MAX  (4u << 20)

struct stretch;

/* Takes a frame, valid during the call. */
typedef void (*stretch_fn)(void *arg, const uint8_t *frame, size_t length);

/* feed: to libslirp, which may call stretch_to_guest() meanwhile. send: to the guest. NULL + err. */
struct stretch *stretch_new(stretch_fn feed, stretch_fn send, void *arg, struct error *err);
/* NULL is fine. */
void stretch_free(struct stretch *s);

/* A frame of the guest's; its headers are changed in place. */
void stretch_from_guest(struct stretch *s, uint8_t *frame, size_t length);
/* A frame of libslirp's. */
void stretch_to_guest(struct stretch *s, const uint8_t *frame, size_t length);
/* After libslirp has dealt with its sockets: feeds what it has room for now. */
void stretch_pump(struct stretch *s);
/* Milliseconds until it has something to do, -1: nothing. */
int stretch_wait_ms(const struct stretch *s);
/* The guest does not read (true), or again. */
void stretch_pause(struct stretch *s, bool paused);
/* The way to the guest loses, delays or limits (true): libslirp is told by the guest alone what it has. */
void stretch_slow(struct stretch *s, bool slow);

#endif
