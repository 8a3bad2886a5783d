/*
 * The parts of a supervisor, which know each other through one context:
 *
 *	supervise.c	states, stop, restart: the life of the machine
 *	launch.c	one start of the kernel: sockets, sandbox, its early messages
 *	uml_args.c	its command line
 *	disk_check.c	what must hold before it may start
 *	boot.c		dialogue with the agent until ready: configuration, files, scripts
 *	console.c	the login console and its log
 *	relay.c		the agent's line and its channels
 *	control.c	the control socket and its clients
 *	status.c	the answer to FRAME_STATUS
 *	plug.c		uml-netplug and the guest's connections to it
 *	disk.c		uml-cow serve, the disk server
 *	deadline.c	the end of the session's time
 *	networks.c	the hold on the session's networks
 *	daemon.c	how these two live, and are started again: uml-netplug and
 *	shares.c	uml-hostfs, which serves the guest's file systems
 *	vhost_relay.c	the guest's connections to it, and to a uml-netplug by vhost-user
 *	mconsole.c	UML's management console
 *
 * Everything runs in the loop's one thread.
 */
#ifndef UML_LAB_MACHINE_SUPERVISOR_H
#define UML_LAB_MACHINE_SUPERVISOR_H

#include <sched.h>
#include <sys/types.h>

#include "netplug/control.h"
#include "cow/serve.h"
#include "uml-lab/base/loop.h"
#include "uml-lab/machine/machine.h"
#include "uml-lab/machine/sandbox.h"
#include "uml-lab/machine/daemon.h"
#include "uml-lab/machine/shares.h"
#include "uml-lab/machine/wire.h"

/*
 * The part of the runtime folder that the kernel sees, and its current folder: all sockets it connects to (eth0, disk0, notify) and
 * its own (uml/m/mconsole). The control socket and the spool lie outside of it.
 */
#define GUEST_FOLDER "guest"
#define GROUP_FILE "cgroup" /* in the runtime folder: where the machine's control group is (cgroup_note()) */
/* RUNTIME/guest/NAME, malloc'ed; NULL + err. */
char *guest_path(const struct machine_spec *spec, const char *name, struct error *err);

#define CONSOLES 2			/* con0: kernel and /dev/console; con1: tty1, where images have their getty */
#define TAIL_SIZE 4096			/* bytes of output kept for telling causes */
#define BOOT_TIMEOUT_MS 120000
#define STOP_TIMEOUT_MS 20000		/* for a stop by signal */
#define STATUS_CLIENTS_MAX 64		/* those that control.c allows */

/* The last output of something, to be quoted. */
struct tail {
	char text[TAIL_SIZE];
	size_t length;
};

void tail_add(struct tail *tail, const void *data, size_t length);
/* The last `lines` lines that hold text, escape sequences and control characters removed, joined by " | ". */
void tail_last_lines(const struct tail *tail, int lines, char *out, size_t size);
/* Copies the rest of the line after the last occurrence of a word; false when there is none. */
bool tail_find(const struct tail *tail, const char *word, char *out, size_t size);

struct console {
	int log;			/* console.log, append */
	off_t log_size;
	int fds[CONSOLES];		/* -1 while no kernel runs */
	struct loop_fd *sources[CONSOLES];
	bool login_side;		/* con1 has spoken since the boot: input goes there */
	struct strbuf input;		/* typed, not yet taken by the guest */
	struct loop_timer *timer;	/* runs while `pausing` */
	bool pausing;			/* something was typed just now: the next piece has to wait */
	struct tail tail;
	uint16_t rows, columns;		/* last told to the guest */
};

struct supervisor;
struct channel;

/* What a channel's owner hears: the agent's frames. EXIT and ERROR are the last; the channel is gone after. */
typedef void (*channel_fn)(void *arg, const struct wire_frame *frame);

struct channel {
	struct channel *next;
	uint32_t id;			/* towards the agent */
	channel_fn fn;			/* NULL: its owner went away, the agent's last frame is awaited */
	void *arg;
	uint64_t pending;		/* bytes of DATA_OUT and DATA_ERR not yet credited */
};

struct relay {
	int fd;				/* the agent's line, -1 while no kernel runs */
	struct loop_fd *source;
	struct wire wire;
	bool writing;			/* EPOLLOUT is asked for */
	bool hello;			/* the agent has spoken */
	struct channel *channels;
	unsigned int channel_count;
	uint32_t last_id;
};

/* Bulk input for the agent: spool.c. */
struct spool {
	int folder;			/* RUNTIME/spool, -1: none */
	char *path;			/* of it, as the guest's hostfs names it */
	bool agent;			/* the agent has it open */
	uint32_t last;			/* number of the last file */
};

enum boot_step {
	BOOT_AGENT, BOOT_MOUNT, BOOT_FILES, BOOT_INIT, BOOT_SYSTEM, BOOT_SETUP, BOOT_SET_UP, BOOT_STARTUP, BOOT_DONE,
};

struct boot {
	enum boot_step step;
	bool first;			/* the overlay was never set up */
	bool login;			/* a login sits on the console */
	struct channel *channel;	/* of the files or the script under way */
	int input;			/* what goes into it: a descriptor of a file; -1: none */
	uint32_t window;		/* bytes that may still be sent */
	int log;			/* startup.log while a script runs, -1 otherwise */
	struct tail output;		/* of the script */
	struct loop_timer *timer;
	char problem[512];		/* what a script did wrong: the cause in READY */
};

struct control {
	char *path;
	int fd;
	struct loop_fd *source;
	struct client *clients;
	unsigned int client_count;
	bool held;			/* clients' requests are not read: the agent's line is full */
};

struct plug_port {
	struct supervisor *sv;
	char *path;			/* socket the guest's interface connects to */
	int listener;
	struct loop_fd *listener_source;
	struct vhost_relay relay;	/* with vhost-user, in place of what is above and below */
	int connection;			/* the guest's, kept so that a plug may die; -1: link down */
	struct loop_fd *connection_source;
	struct strv forwards;		/* in force, in full */
	struct netplug_impair impair;	/* in force */
	struct netplug_stats stats;	/* as last told */
	struct child joiner;		/* joins, or carries, the port's network (netplug/join.h) */
	struct loop_fd *joiner_source;
	struct loop_timer *join_timer;	/* until another one may be started */
	int64_t joined_ms;		/* when the last one was */
};

struct plug {
	struct daemon daemon;		/* uml-netplug */
	bool ready;			/* it has said so, and was told all there is */
	struct plug_port *ports;
	size_t port_count;
	struct plug_request *requests;	/* sent and not yet answered */
	uint32_t sequence;
	bool forwarded;			/* forwards are in force: those count now, not the lab's */
	struct strv forwards;		/* of all ports, for reports */
	char problem[512];		/* the first thing the lab asked for that could not be done: a port taken */
};

/* The answer to a request to the disk server; failure is NULL, or says why there is none or not the wanted one. */
typedef void (*disk_answer_fn)(void *arg, const struct cow_serve_message *answer, const struct error *failure);

struct disk_server {
	struct child child;
	struct process_id id;
	struct loop_fd *child_source;
	int control;
	struct loop_fd *control_source;
	int words;			/* its stderr */
	struct loop_fd *words_source;
	struct tail tail;
	struct loop_timer *timer;	/* bounds the wait for READY */
	bool ready;
	struct strv paths;		/* the disks' top files now: snapshots change them */
	uint64_t out;			/* a bit for each disk that is not in the machine now */
	struct disk_request *requests;	/* sent and not yet answered */
	struct disk_wait *waits;	/* clients that wait until no disk is worked on */
	uint32_t sequence;
};

#define DISK_SERVER_INIT { .child = CHILD_INIT, .control = -1, .words = -1 }
#define DISK_SOCKET "disk" /* and the disk's number: its socket in the runtime folder */

/* Who waits for FRAME_STATUS, and the disks' counters that it tells: status.c. */
struct status {
	uint64_t clients[STATUS_CLIENTS_MAX];
	size_t client_count;
	struct cow_serve_stats *disks;	/* one for each disk, as told last */
	size_t awaited;			/* answers of the disk server */
	struct loop_timer *timer;
};

struct networks {
	int fd;				/* to the keeper; -1: not connected */
	struct loop_fd *source;
	struct loop_timer *timer;	/* to look for another keeper */
	int64_t delay_ms;
	struct child starter;		/* a keeper that we started */
	struct loop_fd *starter_source;
};

/* The guest's file systems, frozen for a client: still.c. */
struct still {
	enum { STILL_NO, STILL_FREEZING, STILL_FROZEN, STILL_THAWING } step;
	uint64_t client;		/* who asked for what is under way, 0: nobody any more */
	struct timespec since;		/* when the agent said frozen */
	struct loop_timer *timer;	/* for the agent's answer */
};

/* The guest's processes on one processor: placement.c. */
#define PLACEMENT_LOOKED_AT 128 /* so many of its processes */
#define PLACEMENT_SIGNAL SIGALRM

struct placement_times {
	pid_t pid;
	uint64_t ran_ns, waited_ns;	/* on a processor, for one */
};

struct placement {
	enum { PLACEMENT_NONE, PLACEMENT_ASLEEP, PLACEMENT_LOOKING } step;
	bool together;
	pid_t kernel;
	cpu_set_t allowed;		/* to us, so to the guest */
	timer_t clock;			/* of the kernel's processor time, but with PLACEMENT_NONE */
	struct loop_timer *timer;
	struct placement_times times[PLACEMENT_LOOKED_AT];
	size_t count;
	uint64_t began_ns;		/* the look */
	int64_t freed_ms, pause_ms;	/* when it was, and for how long */
};

struct mconsole {
	int notify;			/* receives UML's notifications */
	struct loop_fd *source;
	char socket[108];		/* the kernel's management console, "" until told */
	char panic[512];		/* text of a panic, "" without */
};

struct supervisor {
	const struct machine_spec *spec;
	machine_report_fn report;
	void *report_arg;
	struct loop *loop;
	int runtime;			/* the runtime folder, flock'ed: this is the supervisor's lock */
	struct process_id self;

	enum machine_state state;
	char cause[ERROR_MESSAGE_MAX];
	bool done;
	bool stopping;			/* somebody asked for the end */
	bool set_up;
	int restarts, failures;		/* automatic restarts; those in a row without READY between */
	int64_t launched_ms, ready_ms, begun_ms;
	struct loop_timer *stop_timer, *restart_timer;
	int stop_left_ms;		/* after the polite request, before force */
	const char *stop_cause;		/* why, when nobody asked for it; a constant, NULL: nothing to say */
	struct loop_timer *deadline_timer;
	bool deadline_noted;

	struct sandbox sandbox;
	struct cgroup group;
	char walls[768];			/* of the sandbox, and limits: for reports */
	struct loop_fd *sandbox_source;
	char failure[ERROR_MESSAGE_MAX];	/* why the kernel is being killed, "" when it is not */
	char *initramfs;
	int early;			/* stdout and stderr of linux.uml */
	struct loop_fd *early_source;
	struct tail early_tail;
	struct strbuf early_line;
	bool rebooting;

	struct console console;
	struct spool spool;
	struct relay relay;
	struct boot boot;
	struct control control;
	struct plug plug;
	struct disk_server disk;
	struct status status;
	struct networks networks;
	struct shares shares;
	struct mconsole mconsole;
	struct still still;
	struct placement placement;
};

/* supervise.c */
void supervisor_set_state(struct supervisor *sv, enum machine_state state, const char *cause);
/* Tells the present state again: something else in the report changed. */
void supervisor_tell(struct supervisor *sv);
/* The machine can't go on: kills the guest; the cause is told when it is gone. */
void supervisor_fail(struct supervisor *sv, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same while no kernel runs: the supervisor ends. */
void supervisor_cannot_start(struct supervisor *sv, const struct error *err);
/* Begins the end. force: at once. */
void supervisor_stop(struct supervisor *sv, bool force, int timeout_ms);
/* The same, politely, for a reason (a constant) that will be the cause. */
void supervisor_stop_because(struct supervisor *sv, const char *cause);
/* The kernel's process tree is gone. */
void supervisor_kernel_ended(struct supervisor *sv, int status);

/* launch.c */
int launch_kernel(struct supervisor *sv, struct error *err);
/* Reads what the ended kernel still left behind, and closes all that was its own. */
void launch_cleanup(struct supervisor *sv);

/* uml_args.c: the command line without argv[0]; disks and initrd are named by links in the runtime folder, see there. */
int uml_args_build(const struct machine_spec *spec, struct strv *out, struct error *err);
/* Makes the links. */
int uml_args_link(const struct machine_spec *spec, const char *initramfs, struct error *err);
/* Whether a word may be given to the kernel besides ours; err says why not. */
int uml_args_check_word(const char *word, struct error *err);

/* disk_check.c: everything that would make the kernel fail or panic later, told now (uml-facts.md, trap 3). */
int disk_check_ubd(const struct machine_disk *disk, struct error *err);
int disk_check_space(const struct machine_spec *spec, struct error *err);

/* boot.c */
int boot_init(struct supervisor *sv, struct error *err);
void boot_begin(struct supervisor *sv);
/* A frame of the agent on channel 0. */
void boot_frame(struct supervisor *sv, const struct wire_frame *frame);
/* The agent's line takes data again. */
void boot_resume(struct supervisor *sv);
void boot_end(struct supervisor *sv);

/* console.c */
int console_open(struct supervisor *sv, struct error *err);
void console_close(struct supervisor *sv);
/* Takes over the descriptors. */
int console_attach(struct supervisor *sv, const int fds[CONSOLES], struct error *err);
void console_detach(struct supervisor *sv);
/* A line of our own in the log and to those who watch. */
void console_note(struct supervisor *sv, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Text in the log and to those who watch. */
void console_output(struct supervisor *sv, const void *data, size_t length);
void console_input(struct supervisor *sv, const void *data, size_t length);
/* At most `bytes` last bytes of the log. */
void console_replay(struct supervisor *sv, uint32_t bytes, struct strbuf *out);
/* At which of its lines to begin so that the rest fits into a window, below one line that is there; 0 x 0: no window. */
size_t console_fit(const struct strbuf *text, unsigned int rows, unsigned int columns);
/* Tells the guest the size (0: unknown) if it is another than before. */
void console_resize(struct supervisor *sv, uint16_t rows, uint16_t columns);

/* relay.c */
int relay_attach(struct supervisor *sv, int fd, struct error *err);
/* Ends all channels with FRAME_ERROR saying why. */
void relay_detach(struct supervisor *sv, const char *why);
/* A frame to the agent. -1: it is not there, or its line is full. */
int relay_send(struct supervisor *sv, enum frame_type type, uint32_t channel, const void *payload, size_t length);
int relay_send_text(struct supervisor *sv, enum frame_type type, const char *text);
/* NULL + err when there is no agent or there are too many channels. */
struct channel *relay_open(struct supervisor *sv, channel_fn fn, void *arg, struct error *err);
/* The owner goes away: the agent is told, frames that still come are dropped. */
void relay_abandon(struct supervisor *sv, struct channel *channel);
/* The owner has consumed bytes of the channel's output. */
void relay_credit(struct supervisor *sv, struct channel *channel, uint32_t bytes);
/* Bytes for a channel's stdin: by a file of the spool where that is faster, else as DATA_IN. As relay_send(). */
int spool_send(struct supervisor *sv, uint32_t channel, const void *data, size_t length);
/* Before each start of a kernel: a fresh, empty folder; spool.path is NULL when there can be none. */
void spool_make(struct supervisor *sv);
void spool_end(struct supervisor *sv);
/* Removes the folder with what is left in it. */
void spool_clear(int runtime);
/* Whether so much is queued for the agent that nobody should add bulk data. */
bool relay_congested(const struct supervisor *sv);

/* control.c */
int control_open(struct supervisor *sv, struct error *err);
/* A stream socket that listens at path, where a leftover is replaced. Descriptor or -1 + err. */
int control_listen(const char *path, struct error *err);
void control_close(struct supervisor *sv);
/* STATE frames to those who watch. */
void control_tell_state(struct supervisor *sv);
/* Whether any client has asked for STATE frames. */
bool control_is_watched(const struct supervisor *sv);
void control_console_data(struct supervisor *sv, const void *data, size_t length);
/* Frees clients that went away; between turns of the loop. */
void control_reap(struct supervisor *sv);
/* The agent's line takes data again. */
void control_resume(struct supervisor *sv);

/* One client, for status.c and plug.c, who answer it later. */
struct client;
void client_answer_text(struct client *client, enum frame_type type, const char *text);
void client_answer_failure(struct client *client, enum error_kind kind, const char *text);
/* What FRAME_STATUS asked for. */
void client_answer_status(struct client *client);
/* FRAME_DONE. */
void client_answer_done(struct client *client);
/* A number that never names another client, and the client with it, NULL when it is gone. */
uint64_t client_number(const struct client *client);
struct client *control_client(struct supervisor *sv, uint64_t number);

/* status.c: malloc'ed JSON; NULL + err. */
char *status_json(struct supervisor *sv, struct error *err);
/* Answers FRAME_STATUS by client_answer_status(), when the disk server and the plug have told their counters. */
int status_open(struct supervisor *sv, struct error *err);
void status_request(struct supervisor *sv, struct client *client);
/* Asks the disk server for its counters, unless that is under way: soon sv->status.disks has them. */
void status_refresh(struct supervisor *sv);
void status_close(struct supervisor *sv);

/* plug.c */
int plug_open(struct supervisor *sv, struct error *err);
void plug_close(struct supervisor *sv);
/* "add|remove|list IFACE SPEC" of a client, which is answered now or later. */
void plug_forward(struct supervisor *sv, struct client *client, const char *text);
/* FRAME_IMPAIR and FRAME_CAPTURE, likewise. */
void plug_impair(struct supervisor *sv, struct client *client, const char *text);
void plug_capture(struct supervisor *sv, struct client *client, const char *text);
/* Asks the plug for its counters, so that client_answer_status() follows; false: there is nobody to ask. */
bool plug_ask_stats(struct supervisor *sv, struct client *client);

/* still.c: the guest's file systems frozen and thawed */
void still_request(struct supervisor *sv, struct client *client, const char *text);
/* A phase of the agent: whether it was meant for us. */
bool still_phase(struct supervisor *sv, const char *text);
/* Thaws what was frozen for a client that went away. */
void still_client_gone(struct supervisor *sv, uint64_t number);
/* The machine is stopping, or has stopped: thaws. */
void still_end(struct supervisor *sv);
/* Whether all is still for that client: the moment for a snapshot of the disks. */
bool still_holds_for(const struct supervisor *sv, const struct client *client);

/* Whether the machine's disk is not in it now: ejected, or with ejected: true in the lab. */
bool disk_is_out(const struct supervisor *sv, size_t disk);
/* disk.c: whether the server does something to a disk that takes its time: takes in a layer, or the like. */
bool disk_is_worked_on(const struct supervisor *sv);

/* disk_ask.c: a FRAME_DISK (protocol.h) of a client, which is answered now or later. */
void disk_ask(struct supervisor *sv, struct client *client, const char *text);
/* A request was answered: who waited for the last one is told. */
void disk_ask_again(struct supervisor *sv);

/*
 * disk.c. disk_start() starts the server unless it runs, and the kernel when the server is ready: at once, or later from the
 * loop. With disk: ubd there is no server, and the kernel is started. disk_close() waits until all is on the host's disk.
 */
int disk_open(struct supervisor *sv, struct error *err);
int disk_start(struct supervisor *sv, struct error *err);
/* The kernel has ended: perhaps because its disks did, which nobody has seen yet. */
void disk_look(struct supervisor *sv);
void disk_close(struct supervisor *sv);
/*
 * Asks the server: SNAPSHOT, MERGE and INSERT with a path, EJECT and GET_STATS without (cow/serve.h). fn hears the answer
 * once, also when the server dies before. -1 + err: nothing was sent, fn is not called.
 */
int disk_request(struct supervisor *sv, enum cow_serve_type type, size_t disk, const char *path, disk_answer_fn fn, void *arg,
		 struct error *err);

/* placement.c: for each start of a kernel. Where it can't be done, the host's scheduler places the guest's processes. */
int placement_open(struct supervisor *sv, struct error *err);
void placement_begin(struct supervisor *sv);
/* PLACEMENT_SIGNAL came. */
void placement_signal(struct supervisor *sv);
void placement_end(struct supervisor *sv);

/* deadline.c: needs the console. */
int deadline_open(struct supervisor *sv, struct error *err);

/* networks.c: nothing to do for a machine whose session keeps no networks. */
int networks_open(struct supervisor *sv, struct error *err);
void networks_close(struct supervisor *sv);

/* mconsole.c */
int mconsole_open(struct supervisor *sv, struct error *err);
void mconsole_close(struct supervisor *sv);
/* Forgets what the last kernel told. */
void mconsole_reset(struct supervisor *sv);
/* Takes notifications that still wait. */
void mconsole_drain(struct supervisor *sv);
/* Sends a command ("cad"); its answer is not awaited. */
int mconsole_send(struct supervisor *sv, const char *command, struct error *err);

#endif
