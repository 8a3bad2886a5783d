/*
 * One machine: its supervisor (machine_supervise(), a process of its own) and
 * what other processes ask of it over its control socket (client.h).
 *
 * This folder knows nothing of sessions: whoever calls machine_supervise() gives it folders to
 * work in, disks that exist, and a function that hears of every change.
 */
#ifndef UML_LAB_MACHINE_MACHINE_H
#define UML_LAB_MACHINE_MACHINE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "netplug/netplug.h"
#include "uml-lab/base/child.h"
#include "uml-lab/base/error.h"
#include "uml-lab/base/str.h"
#include "uml-lab/machine/kernel.h"

/* In the order of a life; the text in STATE frames, status and session.yml is machine_state_name(). */
enum machine_state {
	MACHINE_STARTING,	/* "starting": processes are being started */
	MACHINE_BOOTING,	/* "booting": the kernel runs, the agent has not said ready */
	MACHINE_SETTING_UP,	/* "setting-up": setup and startup scripts run */
	MACHINE_READY,		/* "ready" */
	MACHINE_STOPPING,	/* "stopping" */
	MACHINE_STOPPED,	/* "stopped": ended as asked, or by the guest's own poweroff */
	MACHINE_FAILED,		/* "failed": cause says why */
};

const char *machine_state_name(enum machine_state state);
/* 0 and *state, or -1 for an unknown name. */
int machine_state_parse(const char *name, enum machine_state *state);

/* A disk of the machine. The first is the root disk. */
struct machine_disk {
	char *path;		/* the overlay (V3 COW), or a raw file when backing is NULL */
	char *backing;		/* its backing file: a raw base image, or a layer */
	bool out;		/* not in the machine when it starts */
};

struct machine_forward {
	char *text;		/* as lab_forward.text; resolved ("auto" with the port chosen) in status */
};

struct machine_interface {
	bool slirp;
	bool vhost_user;		/* a virtio network device, not UML's own bess transport */
	uint8_t mac[6];
	int mtu;			/* 0: default */
	struct strv addresses;		/* "10.0.1.1/24"; empty on slirp: SLIRP's own plan (10.0.2.15/24) */
	struct strv forwards;		/* texts */
	struct strv allow;		/* texts: what may be reached although restricted */
	struct netplug_impair impair;	/* at first; what is changed while running holds until the machine stops */
	bool port_security;		/* only frames from its own MAC */
	bool host, restricted;
	char *network;			/* its name, for status; NULL for slirp */
	char *locator;			/* what the plug joins (libvdeplug); NULL for slirp */
};

struct machine_share {
	char *name;			/* what the guest mounts it by */
	char *text;			/* as uml-hostfs takes it (hostfs_share_format()) */
	char *mount;			/* absolute folder in the guest */
	bool writable;
};

struct machine_spec {
	char *session, *name;		/* for titles, status, logs */
	char *folder;			/* absolute, exists: console.log, startup.log, supervisor.log lie here */
	char *runtime;			/* absolute, exists, 0700, short: sockets lie here (control, mconsole, bess) */
	struct kernel kernel;
	uint64_t memory;		/* bytes */
	int cpu_percent;		/* of one processor, all machines of the session together; 0: no limit */
	struct machine_disk *disks;
	size_t disk_count;
	bool ubd;			/* disks by the kernel's own driver instead of our server: no layers, no quota */
	uint64_t disk_quota;		/* bytes that this machine's disks and those of quota_with may take; 0: no bound */
	struct strv quota_with;		/* folders of the session's machines, with their disks and frozen layers */
	int64_t ends_ms;		/* CLOCK_REALTIME, milliseconds: when it is stopped; 0: never */
	struct machine_interface *interfaces;
	size_t interface_count;
	char *networks;			/* folder of the session's networks (network.h); NULL: none are needed */
	struct strv keeper_argv;	/* starts their keeper, if it is not there */
	struct machine_share *shares;
	size_t share_count;
	struct strv hosts;		/* "10.0.1.1 r1" lines for /etc/hosts */
	bool namespaces_only;		/* does not start where the sandbox would lack them */
	struct strv kernel_args;
	char *files;			/* folder copied over / on first start; NULL: none */
	char *setup, *startup;		/* shell text; NULL: none */
	int restart;			/* enum lab_restart's values: 0 no, 1 on failure, 2 always */
	int64_t boot_timeout_ms;	/* until ready; then failed with what was waited for. 0: 120 s */
};

void machine_spec_free(struct machine_spec *spec);

/* What is told of a change. Pointers live during the call only. */
struct machine_report {
	enum machine_state state;
	const char *cause;		/* why it failed or stopped, NULL or "" when there is nothing to say */
	struct process_id supervisor, kernel, plug, disk, hostfs;	/* pid 0: not running (kernel: as seen from the host) */
	const char *sandbox;		/* which walls stand ("namespaces, …", "process-group: why; …"), and what is limited how */
	const struct strv *forwards;	/* in force: "127.0.0.1:8080:80/tcp" */
	bool set_up;			/* the first start is complete */
	int64_t ready_ms;		/* from launch until ready, 0 while not */
	int restarts;
};

typedef void (*machine_report_fn)(void *arg, const struct machine_report *report);

/*
 * Runs one machine until it ends: the body of the supervisor process. Takes
 * its control socket (RUNTIME/control) first: another live supervisor is
 * ERROR_STATE. ready_fd (or -1) is closed once clients may connect. Returns 0 when the machine ended as asked, -1 + err
 * when it failed; report was told either way. Leaves no process, socket or
 * temporary file.
 */
int machine_supervise(const struct machine_spec *spec, int ready_fd, machine_report_fn report, void *arg,
		      struct error *err);

/*
 * Removes what a supervisor that was killed left in its runtime folder
 * (sockets), and ends processes that outlived it, identified by (pid, start
 * time). Harmless when a supervisor lives: then ERROR_STATE and nothing is touched.
 */
int machine_sweep(const char *runtime, const struct process_id *left, size_t count, struct error *err);

/* Checks of this host for `doctor` and before `up`; each says ok, a warning or what is wrong and the remedy. */
struct host_check {
	const char *name;	/* "user namespaces" */
	int level;		/* 0 ok, 1 warning (works, with less), 2 broken */
	char detail[512];
	char remedy[512];
};
/* Fills at most max checks, returns how many. Never fails: a check that can't be made is a warning. */
int machine_host_checks(struct host_check *checks, int max);

#endif
