/*
 * uml-hostfs: host directories for guests. One struct hostfs answers the FUSE
 * requests of one mount (linux/fuse.h, protocol 7.31 and up), wherever they come from:
 * a guest's kernel over virtio (virtiofs.c) or this host's over /dev/fuse (mount.c).
 */
#ifndef HOSTFS_HOSTFS_H
#define HOSTFS_HOSTFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "uml-lab/base/error.h"
#include "uml-lab/base/str.h"

#define HOSTFS_NAME_MAX 255	     /* bytes of one name in a path */
#define HOSTFS_IO_MAX	(1u << 20)   /* bytes of one read or write */
#define HOSTFS_ARGS_MAX (80u << 10)  /* bytes of any other request: an xattr of 64 KiB, and room */
#define HOSTFS_SHARE_NAME_MAX 35     /* bytes: a virtiofs tag has 36 */

/* A share, as it is asked for. */
struct hostfs_share {
	char *name;
	char *path;	     /* absolute */
	bool writable;
	bool owner_host;     /* shows the host's owners; otherwise files are uid:gid's until the guest says otherwise */
	uint32_t uid, gid;
	bool shared_locks;   /* locks hold between guests and the host, which costs each open a request; else within a guest */
	uint64_t quota;	     /* bytes its files may take, 0: no limit */
	uint64_t max_file_size; /* bytes, 0: no limit */
	struct strv hide;    /* patterns of fnmatch(3) for names */
};

/*
 * Parses "NAME=PATH[,ro|rw][,locks=local|shared][,owner=root|UID:GID|host][,quota=BYTES][,max-file-size=BYTES][,hide=PATTERN]…";
 * a comma or backslash that is meant stands after a backslash. 0 and *share, which the
 * caller frees; -1 + err, nothing to free.
 */
int hostfs_share_parse(struct hostfs_share *share, const char *text, struct error *err);
void hostfs_share_free(struct hostfs_share *share);
/* The reverse: text that hostfs_share_parse() takes, malloc'ed. NULL + err. */
char *hostfs_share_format(const struct hostfs_share *share, struct error *err);

enum hostfs_note {
	HOSTFS_GONE,	/* the share's folder is not there any more */
	HOSTFS_BACK,	/* it is, and is served again */
	HOSTFS_RESTART, /* it is, but this process has confined itself to the old one: another has to take over */
};

/* What a source tells of itself. Called from the thread that handles requests. */
typedef void (*hostfs_note_fn)(void *arg, const char *share, enum hostfs_note note, const char *text);

struct hostfs;

/*
 * Opens the sources. `tree`: the root lists the shares by name; otherwise there is
 * one share and the root is its folder. A folder that is missing is an error, or with
 * missing_ok found out when the guest asks for it. The shares must outlive the result. NULL + err.
 */
struct hostfs *hostfs_new(const struct hostfs_share *shares, size_t count, bool tree, bool missing_ok,
			  struct error *err);
void hostfs_free(struct hostfs *fs);
void hostfs_on_note(struct hostfs *fs, hostfs_note_fn fn, void *arg);

/* Forgets all that a guest had open, as after its end. */
void hostfs_reset(struct hostfs *fs);
/* The guest has mounted already: requests come without INIT before them. */
void hostfs_resume(struct hostfs *fs);

/* One request: what was sent, and where the answer goes. Both may be memory that the sender still changes. */
struct hostfs_request {
	const struct iovec *out; /* from the sender: header, arguments, data */
	int out_count;
	const struct iovec *in; /* room for the answer */
	int in_count;
};

/* Acts on a request and fills the answer. Its length in bytes; 0: there is none; HOSTFS_LATER: not yet. */
size_t hostfs_handle(struct hostfs *fs, const struct hostfs_request *request);

/*
 * Requests for locks that others have may wait, if the caller says that it can deal with that: then hostfs_handle() gives
 * HOSTFS_LATER, and hostfs_wait_last() tells the wait's number. hostfs_wait_try() is to be called for it every
 * HOSTFS_WAIT_MS until it is true: the answer is an error number (0: none) to be sent by hostfs_answer(); hostfs_wait_end() then.
 */
#define HOSTFS_LATER	 SIZE_MAX
#define HOSTFS_WAITS_MAX 16 /* at a time; more are refused with ENOLCK */
#define HOSTFS_WAIT_MS	 25
struct hostfs_answer {
	uint64_t unique;
	int error;
};
void hostfs_allow_waits(struct hostfs *fs);
int hostfs_wait_last(const struct hostfs *fs);
bool hostfs_wait_try(struct hostfs *fs, int wait, struct hostfs_answer *answer);
void hostfs_wait_end(struct hostfs *fs, int wait);
/* Who waits there: the request's number, which comes once, and the guest's thread. */
void hostfs_wait_who(const struct hostfs *fs, int wait, uint64_t *unique, uint32_t *pid);
/* A signal waits for whoever asked that: it ends with EINTR, soon. Nothing if it has ended. From any thread. */
void hostfs_interrupt(struct hostfs *fs, uint64_t unique);
/* Fills an answer without data. Bytes; 0: there is no room. */
size_t hostfs_answer(const struct hostfs_answer *answer, const struct iovec *in, int in_count);

/*
 * Answers a request with an error without looking at its arguments: for those that
 * the process before this one may have begun. As hostfs_handle().
 */
size_t hostfs_refuse(const struct hostfs_request *request, int error);

/* ---- ways in ---- */

/*
 * Serves a FUSE mount of this host until it is unmounted or `stop` (a descriptor, -1:
 * none) becomes readable: at a folder, or by a descriptor of /dev/fuse that is mounted
 * already (fd >= 0). What it mounted it unmounts. 0, or -1 + err.
 */
int hostfs_mount_serve(struct hostfs *fs, const char *mountpoint, int fd, int stop, struct error *err);

#endif
