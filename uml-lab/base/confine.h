/*
 * Walls a process puts up around itself once it has opened what it needs: no_new_privs, no capabilities,
 * limits, Landlock for files, TCP, abstract sockets and signals, and a seccomp filter that knows its system
 * calls by name.
 *
 * None of them can be taken down again, and children inherit them. What a wall does not stop: descriptors
 * that are open already, and connect() to AF_UNIX sockets that have a path (Landlock has no say in those up
 * to ABI 8).
 */
#ifndef UML_LAB_BASE_CONFINE_H
#define UML_LAB_BASE_CONFINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "uml-lab/base/error.h"

enum confine_access {
	CONFINE_READ = 1,   /* open for reading, list folders */
	CONFINE_WRITE = 2,  /* open what is there for writing, truncate it */
	CONFINE_CREATE = 4, /* beneath a folder: make, remove, rename, link anything but device nodes */
	CONFINE_REMOVE = 32, /* beneath a folder: remove files and folders; CONFINE_CREATE has it too */
	CONFINE_EXECUTE = 8,
	CONFINE_DEVICE = 16, /* ioctl() on device nodes */
};

/* A file, or a folder and all beneath it, also what is mounted there. One that does not exist is left out. */
struct confine_path {
	const char *path;    /* NULL: fd is meant */
	unsigned int access; /* enum confine_access, or'ed */
	int fd;              /* open (O_PATH will do) when path is NULL; stays the caller's */
};

struct confine_spec {
	/* Files: all that is not listed can't be opened. all_files: no wall for files. */
	const struct confine_path *paths;
	size_t path_count;
	bool all_files;
	bool tcp;              /* may connect and listen by TCP */
	bool abstract_sockets; /* may connect to abstract sockets of processes outside */
	bool signals;          /* may signal processes outside */

	/*
	 * System calls allowed besides confine_common_calls; NULL: no filter at all. Any other gives ENOSYS, so
	 * that a libc newer than the list falls back to an older call. Ends with NULL. Names that the host's
	 * libseccomp does not know are left out. Some names allow less than they say:
	 * - "clone": processes, but never with a new namespace
	 * - "threads": clone() of threads only
	 * - "affinity": sched_setaffinity() of the thread that calls it
	 * - "socket": of the families below
	 * - "streams": socket() and socketpair(), of AF_UNIX and not for datagrams
	 * - "connect-ask": connect(), which somebody else does in its place: see confine_filter_install()
	 * - "open-ask": open() and openat(); where they are to make an unnamed file (O_TMPFILE), somebody else does
	 */
	const char *const *calls;
	const int *families; /* of "socket", ends with 0; NULL: any */

	uint64_t max_files;     /* RLIMIT_NOFILE, soft and hard; 0: as it is */
	uint64_t max_processes; /* RLIMIT_NPROC; 0: as it is */
	bool strict;            /* a wall that can't be put up is an error */
};

/* Reading and writing of open descriptors, memory, time, signals of its own, the event loop, exit. Ends with
 * NULL. */
extern const char *const confine_common_calls[];

#define CONFINE_WALLS_MAX 200

/*
 * Puts up the walls, in this order: limits (no core files, ever), capabilities, no_new_privs, Landlock,
 * seccomp. Applies to the calling thread and those it starts, seccomp to all: call it before there are others. *walls tells
 * which stand, for people: "seccomp, Landlock 7 (files, TCP, sockets, signals)", "seccomp; no Landlock:
 * Function not implemented". Fails when a wall that every kernel has can't be put up, with strict when any
 * can't; the process should end then, since some of them stand.
 */
int confine_self(const struct confine_spec *spec, char walls[CONFINE_WALLS_MAX], struct error *err);

/* The parts, for who puts them up at different moments (sandbox.c). */

/* The kernel's Landlock ABI, 0 when it has none or it is switched off; errno says why. */
int confine_landlock_abi(void);
/* 0, or -1 + err; *walls (appended to what is there) says how far it goes. */
int confine_landlock(const struct confine_spec *spec, char walls[CONFINE_WALLS_MAX], struct error *err);
/* Empties all capability sets, the bounding set as far as allowed, and locks securebits where that is
 * allowed. */
int confine_capabilities(struct error *err);

/*
 * A seccomp filter, made ahead since that takes a millisecond: after fork() only confine_filter_install() is
 * left. With confine_common_calls. NULL + err. Plain memory, freed by confine_filter_free().
 */
struct confine_filter;
struct confine_filter *confine_filter_new(const char *const *calls, const int *families, struct error *err);
void confine_filter_free(struct confine_filter *filter);
/*
 * Sets no_new_privs and installs the filter in the calling process. 0, or -1 with errno. listener: NULL, or
 * where to put the descriptor on which calls of "connect-ask" and "open-ask" arrive (seccomp_unotify(2)).
 */
int confine_filter_install(const struct confine_filter *filter, int *listener);

#endif
