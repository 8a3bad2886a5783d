/*
 * The host's side of the agent's protocol, as plain as can be, for tests that
 * boot a real kernel without uml-lab's own supervisor: whatever the two get
 * wrong together, one of them gets wrong alone here.
 */
#ifndef TESTS_BOOT_STAGE0_HOST_H
#define TESTS_BOOT_STAGE0_HOST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "uml-lab/guest/frame.h"

struct host {
	pid_t pid;		/* of linux.uml, leader of a process group of its own */
	int link, consoles[2], plug;
	struct buffer in, out;
	uint32_t line_window;	/* bytes that may still be written to the line */
	int64_t started;	/* guest_now_ms() of the launch */
	char failure[640];	/* the last PHASE failed */
	int log;		/* what came from the consoles and what the agent said */
};

/* A frame, copied. */
struct host_frame {
	uint16_t type, length;
	uint32_t channel;
	uint8_t payload[FRAME_PAYLOAD_MAX + 1];	/* a NUL after the end */
};

#define HOST_MAC "02:00:00:00:00:01"	/* of the one interface, vec0, whose plug is silent */

/* Starts a kernel on a raw disk image; log and plug lie in work. All or exit. */
void host_start(struct host *h, const char *kernel, const char *initramfs, const char *disk, const char *work);
/* Ends it if it still runs, and forgets everything. */
void host_end(struct host *h);
/* Waits for the kernel to exit by itself. Whether it did. */
bool host_wait_exit(struct host *h, int timeout_ms);

void host_send(struct host *h, uint16_t type, uint32_t channel, const void *payload, size_t length);
void host_send_text(struct host *h, uint16_t type, uint32_t channel, const char *text);
/* The next frame; logs consoles and LOG frames meanwhile. False: time-out or the link's end. */
bool host_next(struct host *h, struct host_frame *f, int timeout_ms);
/* Waits for a phase that begins with this text; any "failed" ends the wait. Whether it came. */
bool host_phase(struct host *h, const char *phase, int timeout_ms);
/* Bytes typed on a console; console output that is looked for. */
void host_type(struct host *h, int console, const char *text);

/* A channel's work. Several run side by side in host_run(). */
struct run {
	uint16_t request;		/* FRAME_EXEC (the default, 0), FRAME_PUT, FRAME_GET */
	const char *const *argv;	/* or the path of PUT and GET in argv[0] */
	const char *const *env;
	const char *cwd;
	uint32_t flags;
	uint16_t rows, columns;
	const char *input;		/* or NULL: */
	uint64_t input_bytes;		/* so many bytes of a pattern (host_pattern) */
	int input_fd;			/* > 0: read from this */
	bool keep_open;			/* no end of file */
	int64_t credit_delay_ms;	/* a slow reader: gives its credit so late */
	int signal_after_ms, signo;	/* sends a signal */
	int close_after_ms;		/* FRAME_CLOSE */
	bool after_output;		/* neither before it has said something */
	int output_fd;			/* > 0: output goes there too */
	/* Results */
	bool started, done;
	int status, errnum;		/* status -1: FRAME_ERROR */
	char text[512], out[4096], err[4096];	/* the beginning of each */
	uint64_t out_bytes, err_bytes, out_hash, in_sent;
	uint64_t window, credit_owed;
	int64_t begun, credit_at;
	uint32_t channel;
};

/* Runs them to their end. False on time-out. */
bool host_run(struct host *h, struct run *runs, int count, int timeout_ms);
/* One byte of the test pattern, and the hash of the first n. */
uint8_t host_pattern(uint64_t at);
uint64_t host_pattern_hash(uint64_t n);

#endif
