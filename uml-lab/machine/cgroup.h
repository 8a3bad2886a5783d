/* A control group for one machine's process tree, where this user has been given a part of the hierarchy (cgroup v2). */
#ifndef UML_LAB_MACHINE_CGROUP_H
#define UML_LAB_MACHINE_CGROUP_H

#include <stddef.h>
#include <stdint.h>

struct cgroup_limits {
	uint64_t memory;	/* bytes, of the machine */
	uint64_t processes;	/* of the machine */
	int cpu_percent;	/* of one processor, of the whole session; 0: no limit */
};

struct cgroup {
	char *folder;		/* of the machine's group, NULL: there is none */
	char *session;		/* of the group above it */
};

#define CGROUP_INIT { NULL, NULL }

/*
 * Makes uml-lab-SESSION/MACHINE in the nearest group above this process that is the user's, may hold groups, and has the
 * controllers memory or cpu; sets the limits. said (of size bytes) tells what is limited by it, or why there
 * is none. Never fails: a machine without one runs all the same. Names are those of sessions and machines.
 */
void cgroup_make(struct cgroup *group, const char *session, const char *machine, const struct cgroup_limits *limits, char *said,
		 size_t size);

/* Makes the calling process a member; its children will be too. 0, or -1 with errno. Fit for after fork(). */
int cgroup_join(const struct cgroup *group);

/* Removes the groups when nobody is in them any more, and forgets them. */
void cgroup_remove(struct cgroup *group);

/*
 * Writes into a file where the machine's group is, for cgroup_sweep(), which removes what a supervisor that
 * was killed left, and the file. Neither fails: a group left behind is empty, and the next start takes it
 * over.
 */
void cgroup_note(const struct cgroup *group, const char *file);
void cgroup_sweep(const char *file);

#endif
