/*
 * The agent: stage-0's child that talks to the host, from HELLO to the end of
 * the machine. One epoll loop; what follows is shared by its files (agent*.c,
 * channel.c, ready.c, power.c).
 */
#ifndef UML_LAB_GUEST_AGENT_H
#define UML_LAB_GUEST_AGENT_H

#include <sys/epoll.h>

#include "uml-lab/guest/config.h"
#include "uml-lab/guest/frame.h"
#include "uml-lab/guest/guest.h"

/* Bytes waiting for the serial line above which nothing more is read, from programs or from the host. */
#define AGENT_CONGESTED (64u * 1024u)

#define AGENT_DEVICE "/dev/ttyS0"
#define AGENT_DEVICE_MAJOR 4
#define AGENT_DEVICE_MINOR 64

struct agent;

/* A watched descriptor. fd is -1 while there is none; events that were under way for it are dropped then. */
struct source {
	void (*fn)(struct agent *a, struct source *s, uint32_t events);
	void *owner;
	int fd;
	int epoll;		/* the epoll it belongs to */
	uint32_t events;	/* watched for; 0: not in the epoll at all (epoll always tells HUP) */
};

/* Watches for other events. Closes: forgets and closes the descriptor; fine when there is none. */
void source_watch(struct source *s, uint32_t events);
void source_close(struct source *s);

/* What the order socket carries: the agent tells pid 1 what to become; pid 1 answers only when it can't. */
struct order {
	bool own_init;		/* no init in the image: stage-0 goes on as pid 1 */
	bool notify;		/* init is systemd: NOTIFY_SOCKET is set for it */
	char init[PATH_MAX];
	char console[16];	/* for own_init: where its shell runs ("tty0") */
};

#define AGENT_NOTIFY_SOCKET "uml-lab/notify"	/* abstract */

enum agent_stage { STAGE_HELLO, STAGE_MOUNTED, STAGE_BOOTING, STAGE_RUNNING };

struct ready;	/* ready.h */
struct channel;	/* channel.h */

struct agent {
	int epoll, channel_epoll;
	struct source link, channels_ready, order, notify, links;
	struct buffer in, out;
	bool congested;
	enum agent_stage stage;
	struct buffer config_text;
	struct config config;
	bool first;			/* the overlay was never set up */
	bool systemd, own_init;
	int spool; /* the host's folder for bulk input, -1: none */
	struct ready *ready;
	struct channel *channels;
	int64_t restore_at;		/* when to look after default routes, 0: not */
	uint16_t rows, columns;		/* of the login console, 0: unknown */
};

/* Runs the agent on the open, raw serial line until the line is gone; order_fd leads to pid 1. Returns its exit status. */
int agent_run(int link, int order_fd);

/* Sends a frame (queued). A queue that can't grow ends the agent: nothing sensible is left to do. */
void agent_send(struct agent *a, uint16_t type, uint32_t channel, const void *payload, size_t length);
/* pending.c: FRAME_PENDING's text. */
void agent_pending(struct agent *a, const void *text, size_t length);
void agent_phase(struct agent *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void agent_log(struct agent *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* agent_boot.c: the requests of channel 0 that change the machine. */
void agent_mount(struct agent *a);
void agent_boot(struct agent *a);
void agent_console_size(struct agent *a);

#endif
