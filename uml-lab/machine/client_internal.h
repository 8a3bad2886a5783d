/* What the client_*.c files share. */
#ifndef UML_LAB_MACHINE_CLIENT_INTERNAL_H
#define UML_LAB_MACHINE_CLIENT_INTERNAL_H

#include <signal.h>

#include "uml-lab/machine/client.h"
#include "uml-lab/machine/wire.h"

#define CLIENT_CHANNEL 1u	/* one connection, one command: its channel's number */
#define CLIENT_OUT_MAX (1u << 20)
#define CLIENT_SEND_MS 10000	/* a supervisor that takes no request for so long is stuck */

/* Sends one frame, waiting until the socket has taken it. 0, or -1 + err. */
int client_send(int control, enum frame_type type, uint32_t channel, const void *payload, size_t length,
		struct error *err);
/*
 * Reads exactly one frame, so that nothing is lost to a later call on the same
 * socket; its payload goes to buf (FRAME_PAYLOAD_MAX bytes). 1; 0 when the supervisor closed; -1 + err
 * (ERROR_TIMEOUT; timeout_ms -1: none).
 */
int client_receive(int control, int timeout_ms, struct wire_frame *frame, uint8_t *buf, struct error *err);

/* The payload of FRAME_EXEC. 0, or -1 + err: too long for a frame. */
int client_exec_payload(const struct machine_exec *exec, struct strbuf *out, struct error *err);
/* FRAME_ERROR and FRAME_FAILED as an error. Returns -1. */
int client_error(const struct wire_frame *frame, struct error *err);
/* The supervisor went away in the middle. Returns -1. */
int client_gone(struct error *err);

/* The size of the terminal at fd; zeroes when it is none. */
struct frame_size client_terminal_size(int fd);
/* Puts the terminal in raw mode; false when it is none. client_terminal_restore() undoes it, harmless otherwise. */
bool client_terminal_raw(int fd);
void client_terminal_restore(void);

/* Blocks signals (0-terminated list) and gives a non-blocking signalfd for them, or -1 + err; the old mask is in *old. */
int client_signals(const int *signals, sigset_t *old, struct error *err);

#endif
