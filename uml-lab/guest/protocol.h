/*
 * What the host and a guest's agent say to each other, and what the host's
 * clients (console, exec, copy, status) say to a machine's supervisor: one
 * frame format for both, so that the supervisor can relay a channel's frames
 * without looking into them.
 *
 * Between host and guest the frames go over a serial line (a raw tty in the
 * guest, a stream socketpair on the host); between client and supervisor over
 * the control socket (AF_UNIX, SOCK_STREAM). All integers are little-endian.
 * Either side may be hostile: lengths and channels are checked before use, a
 * frame that breaks a rule ends the connection (host) or is answered with
 * FRAME_ERROR (guest).
 *
 * Channels. A client starts one with FRAME_EXEC, FRAME_PUT or FRAME_GET and a
 * number of its own choice (never 0); the supervisor maps it to a number of its
 * own towards the agent. It ends with FRAME_EXIT or FRAME_ERROR from the agent, after
 * which neither side sends anything on it. A client that goes away before has
 * its channel closed by FRAME_CLOSE: the agent sends SIGHUP, then SIGKILL, to the
 * process group and answers FRAME_EXIT as ever.
 *
 * Flow control. On each stream of a channel (stdin; stdout and stderr
 * together) at most FRAME_WINDOW bytes may be under way. The receiver returns
 * what it has consumed with FRAME_CREDIT. So a slow reader stops its own
 * stream, never another's, and nobody buffers more than a window a stream.
 *
 * The line's own window (host → guest). UML's serial lines go deaf: when the
 * tty's 4096-byte buffer has less than 128 bytes left, n_tty throttles the line,
 * UML takes its descriptor out of its epoll, and since 5.11 nothing puts it back
 * (arch/um: line_throttle(), reactivate_fd() is empty) [T 6.1, 6.12, 7.2]. So the host must
 * never have more than FRAME_LINE_WINDOW bytes (headers included) under way to
 * the agent: it counts what it writes to the socket, and the agent returns what
 * it has read with FRAME_TAKEN. The window is full at the start. The other
 * direction needs none.
 *
 * Used by the guest's static programs: includes nothing of base/.
 */
#ifndef UML_LAB_GUEST_PROTOCOL_H
#define UML_LAB_GUEST_PROTOCOL_H

#include <assert.h>
#include <stdint.h>

#define FRAME_MAGIC        0x4c4d55u /* "UML" with FRAME_VERSION in the top byte: see FRAME_START */
#define FRAME_VERSION      1u
#define FRAME_START        (FRAME_MAGIC | FRAME_VERSION << 24)
#define FRAME_PAYLOAD_MAX  16384u         /* bytes in one frame */
#define FRAME_WINDOW       (256u * 1024u) /* bytes under way on one stream */
#define FRAME_CHANNELS_MAX 64u            /* channels at once for one machine */
#define FRAME_LINE_WINDOW  3584u          /* bytes under way from host to agent in all: "The line's own window" */

struct frame {
	uint32_t start;   /* FRAME_START */
	uint16_t type;    /* enum frame_type */
	uint16_t length;  /* bytes of payload that follow, ≤ FRAME_PAYLOAD_MAX */
	uint32_t channel; /* 0: the machine as a whole */
} __attribute__((packed));
static_assert(sizeof(struct frame) == 12, "frame header is 12 bytes on the wire");

enum frame_type {
	/* Agent → host, channel 0 */
	FRAME_HELLO = 1, /* struct frame_hello; stage-0 runs, the root disk is not yet mounted */
	FRAME_PHASE = 2, /* text "PHASE[ detail]": see below */
	FRAME_LOG = 3,   /* text for the machine's log */
	FRAME_TAKEN = 4, /* u32: bytes that the agent has read from the line since the last TAKEN */

	/* Host → agent, channel 0 */
	FRAME_CONFIG = 16, /* text, may be split over several frames (concatenated): see "Configuration" */
	FRAME_MOUNT = 17,  /* configuration is whole: mount the root disk; answered by PHASE mounted|failed */
	FRAME_BOOT = 18,   /* hand over to the image's init; answered by PHASE init, later PHASE ready */
	FRAME_SET_UP = 19, /* record on the root disk that the first start is complete; answered by PHASE set-up */
	FRAME_SHUTDOWN = 20,     /* payload "poweroff" or "reboot": through the guest's init */
	FRAME_CONSOLE_SIZE = 21, /* struct frame_size, for the login console's terminals */
	FRAME_FREEZE = 22,       /* sync and freeze file systems; answered by PHASE frozen|failed: see "Stillness" */
	FRAME_THAW = 23,         /* answered by PHASE thawed */
	FRAME_PING = 24,         /* answered by PHASE pong */
	FRAME_PENDING = 25,      /* text "NUMBER:PID…": whom does a signal wait for? Answered by PHASE "pending[ NUMBER…]" */

	/* Host (client) → agent, on a channel */
	FRAME_EXEC = 32,	/* struct frame_exec + strings */
	FRAME_DATA_IN = 33,	/* bytes for stdin (or the tar stream of PUT); empty: end of file */
	FRAME_WINDOW_SIZE = 34, /* struct frame_size for a channel with a terminal */
	FRAME_SIGNAL = 35,	/* u32 signal number, to the process group (of a terminal: the foreground one) */
	FRAME_CLOSE = 36,	/* the client went away */
	FRAME_PUT = 37,		/* destination path: a tar stream on DATA_IN is unpacked there: see "Copies" */
	FRAME_GET = 38,		/* source path: comes as a tar stream on DATA_OUT: see "Copies" */
	FRAME_DATA_FILE = 39,	/* struct frame_data_file: DATA_IN by way of the spool: see "Bulk input" */

	/* Agent → host (client), on a channel */
	FRAME_STARTED = 48,  /* u32 pid in the guest */
	FRAME_DATA_OUT = 49, /* bytes of stdout (or of GET's tar stream); empty: end of file */
	FRAME_DATA_ERR = 50, /* bytes of stderr; empty: end of file */
	FRAME_EXIT = 51,     /* u32 wait status as waitpid() gives it: the last frame of the channel */
	FRAME_ERROR = 52,    /* u32 errno (0: none) + text: the request failed, last frame of the channel */

	/* Both ways, on a channel */
	FRAME_CREDIT = 64, /* struct frame_credit */

	/* Client ↔ supervisor only; never reach the agent */
	FRAME_STATUS = 96, /* request: empty; answer: JSON text, may be split; an empty frame ends it */
	FRAME_WATCH = 97, /* request: empty; from now on STATE frames: the present one, then each change */
	FRAME_STATE = 98,         /* text "STATE[ detail]": see enum machine_state in machine.h */
	FRAME_CONSOLE = 99,       /* request: struct frame_console: attaches to the login console */
	FRAME_CONSOLE_DATA = 100, /* both ways: bytes of the console */
	FRAME_STOP = 101,   /* struct frame_stop: shut down; STATE frames follow until the socket closes */
	FRAME_FAILED = 102, /* answer to a request that can't be met: u32 enum error_kind + text */
	FRAME_DONE = 103,   /* answer to a request that was met and has nothing to tell */
	FRAME_DISK = 111, /* text "snapshot DISK PATH", "merge DISK PATH", "eject DISK", "insert DISK": cow/serve.h; "whole": are
			   * all disks in? Answered by DONE, for the first four after a text, or by FAILED */
	FRAME_STILL = 110, /* text "freeze" or "thaw": answered by DONE, FAILED or (thaw) text: see "Stillness" */
	FRAME_FORWARD = 104, /* text "add|remove|list IFACE SPEC": answered by DONE, FAILED or text */
	FRAME_IMPAIR = 105, /* text "IFACE [clear] [KEY=VALUE]…", of netplug_impair_set() and down=0|1: DONE or FAILED */
	FRAME_CAPTURE = 106, /* text "IFACE SOCKET SNAPLEN all|sent": the frames of the interface as netplug/control.h
			      * has it, to the abstract SEQPACKET socket of that name: DONE or FAILED */
};

/*
 * Copies. PUT into a folder that is there, or a path with a slash at its end
 * (made when missing), unpacks below it. PUT to any other path unpacks into its
 * parent (made when missing), with the first component of every name replaced by the path's last:
 * what cp -a does. Folders that are there keep owner and mode, everything else is
 * replaced; names with ".." are refused. GET of PATH/NAME yields names NAME…; of "/" names ".…"; it does not
 * enter proc, sysfs and the like. Both end with EXIT 0, or ERROR with what went wrong
 * first. They work from PHASE mounted on, before BOOT too, as EXEC does.
 *
 * EXIT. Comes when the program has ended and its output is at its end. A process
 * that it left behind may keep stdout open: EXIT comes then 100 ms after the last
 * output, without the empty DATA frames. ERROR of EXEC tells why it could not be
 * run (errno ENOENT: no such program or cwd). DATA_IN that is empty is ^D for a terminal.
 * CLOSE: SIGHUP, and SIGKILL a second later.
 */

/*
 * Stillness. FREEZE writes back what the guest holds and stops all writing to file systems on disks until THAW. The agent
 * thaws by itself after FREEZE_LIMIT_MS, and the supervisor when the client that froze goes away. "thawed
 * MICROSECONDS" tells how long it was, as the guest saw it; thaw's text is the longer of that and what the
 * supervisor saw, in decimal, and -1 when it thawed by itself before.
 */
#define FREEZE_LIMIT_MS 20000

/*
 * Bulk input. UML reads a serial line one byte per system call (chan_kern.c,
 * chan_interrupt()): about 1 MB/s [T]. So where CONFIG names a spool folder and
 * the agent could open it (PHASE spool, before PHASE mounted), the host may put the
 * bytes of a DATA_IN into a file there, named by its number, and send DATA_FILE:
 * it counts as a DATA_IN of that length. A number is used once. The agent removes the file.
 */
struct frame_data_file {
	uint32_t number; /* decimal, the file's name */
	uint32_t length; /* bytes, 1 … FRAME_PAYLOAD_MAX; the file is just as long */
} __attribute__((packed));

struct frame_hello {
	uint32_t version; /* FRAME_VERSION */
	char release[60]; /* uname -r, NUL-terminated */
} __attribute__((packed));

struct frame_size {
	uint16_t rows, columns; /* 0: unknown */
} __attribute__((packed));

enum frame_stream { STREAM_IN = 0, STREAM_OUT = 1 }; /* OUT: stdout and stderr together */

struct frame_credit {
	uint32_t stream; /* enum frame_stream */
	uint32_t bytes;  /* consumed by the receiver, > 0 */
} __attribute__((packed));

#define EXEC_TERMINAL    1u /* stdin, stdout and stderr are one new pseudo-terminal, the controlling one */
#define EXEC_LOGIN_SHELL 2u /* argv is ignored: root's shell from /etc/passwd, as a login shell */

/* After it, each NUL-terminated: cwd ("": root's home), argc strings, envc strings "K=V". */
struct frame_exec {
	uint32_t flags;
	uint16_t rows, columns;
	uint16_t argc, envc;
} __attribute__((packed));

struct frame_console {
	uint32_t replay; /* bytes of the log to send first */
	uint32_t read_only;
	struct frame_size size; /* of the client's terminal; the guest gets the smallest of all clients' */
} __attribute__((packed));

struct frame_stop {
	uint32_t force;      /* 1: no clean shutdown */
	uint32_t timeout_ms; /* for the clean shutdown, before force */
} __attribute__((packed));

/*
 * Phases (FRAME_PHASE), in order: "mounted first" (the overlay was never set up) or
 * "mounted again"; "init" (handed over); "ready" (system up: systemd said READY=1, or a
 * login prompt or shell sits on a terminal); "login" (a getty, login or shell
 * sits on the console); "set-up"; "stopping" (the guest's init is going down, when that can be known).
 * "failed TEXT": the request before it could not be met, and why. "pong", "frozen", "thawed MICROSECONDS".
 *
 * Configuration (FRAME_CONFIG): lines of tab-separated fields, UTF-8, no NUL;
 * unknown first words are an error, so that host and guest can't disagree in
 * silence.
 *	hostname NAME
 *	root DEVICE		/dev/vda; mounted read-write, its type found by trying ext4, ext3, ext2, xfs, btrfs
 *	room BYTES		what the root disk may still take on the host: ext4 shall say "no space" before the host refuses
 *	init PATH		"" or missing: /sbin/init, /etc/init, /bin/init, else the agent itself acts as init
 *	interface NAME MAC	the vector device with this MAC is renamed and brought up
 *	address NAME ADDRESS/PREFIX
 *	dhcp NAME		the image's own manager may use DHCP; until then (and without one) these two hold
 *	slirp NAME ADDRESS/PREFIX GATEWAY
 *				what SLIRP's DHCP would give: set at once, the route again after a link went down and up
 *	gateway ADDRESS
 *	nameserver ADDRESS
 *	search DOMAIN
 *	host ADDRESS NAME…	a line for /etc/hosts
 *	modules HOSTPATH RELEASE	hostfs folder with the kernel's modules, to be seen as /lib/modules/RELEASE
 *	spool HOSTPATH		hostfs folder for bulk input, open to the agent alone; answered by PHASE spool
 *	share TAG TARGET MODE	the virtio file system with this tag, mounted at TARGET; MODE: ro or rw
 *	console DEVICE		a terminal of the login console (tty0, tty1), for CONSOLE_SIZE and PHASE login
 */

#endif
