/* The child's side of a channel: becomes the program, or packs or unpacks. */
#ifndef UML_LAB_GUEST_EXEC_H
#define UML_LAB_GUEST_EXEC_H

#include "uml-lab/guest/guest.h"
#include "uml-lab/guest/protocol.h"

/* A parsed FRAME_EXEC. The strings lie in `text`, a copy of the payload. */
struct exec_request {
	uint32_t flags;
	uint16_t rows, columns;
	const char *cwd;
	char **argv, **env;	/* NULL-terminated */
	char *text;
};

/* Parses and checks the payload. 0 or -1 + f. exec_request_free() after success. */
int exec_request_parse(struct exec_request *r, const uint8_t *payload, size_t length, struct fault *f);
void exec_request_free(struct exec_request *r);

/*
 * What a child that can't do its work writes to `status` (a pipe that a successful exec closes): errno and text.
 * None of these return. Called after fork(), with 0, 1 and 2 set up (for a terminal: the slave).
 */
void exec_program(const struct exec_request *r, int status) __attribute__((noreturn));
/* Unpacks the tar stream on 0 at path (protocol.h, FRAME_PUT). */
void exec_put(const char *path, int status) __attribute__((noreturn));
/* Packs path as a tar stream on 1. */
void exec_get(const char *path, int status) __attribute__((noreturn));

/* Root's shell and home from /etc/passwd, or what there is. */
void exec_root_account(char *shell, size_t shell_size, char *home, size_t home_size);

#endif
