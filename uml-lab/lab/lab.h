/*
 * A lab description, as lab.yml gives it (design page), after loading: every
 * string has its parameters filled in, every default is applied, every
 * reference within the file (network, share, machine) and every path was found
 * or refused. Only image names are not looked up here: `up` does (image.h).
 *
 * One const schema table (schema.c) yields the loader, the validator, the JSON
 * Schema for editors and the reference page.
 */
#ifndef UML_LAB_LAB_LAB_H
#define UML_LAB_LAB_LAB_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "uml-lab/base/error.h"
#include "uml-lab/base/str.h"

#define LAB_NAME_MAX       31 /* [a-z0-9][a-z0-9-]{0,30} */
#define LAB_MACHINES_MAX   64
#define LAB_INTERFACES_MAX 16
#define LAB_DISKS_MAX      14 /* ubd has 16 units: root and kernel extras take two */

/* Where something stands in lab.yml, from 1; 0 when it was not written but is a default. */
struct lab_mark {
	int line, column;
};

struct lab_param {
	char *name, *value; /* value: filled in, as machines see it */
};

/* What is wrong with a line, as written (netplug_impair_set()); NULL: nothing. */
struct lab_traffic {
	char *rate, *delay, *jitter, *loss, *duplicate, *reorder;
	bool down;
};

struct lab_network {
	char *name;
	char *vde;                  /* a VDE locator; NULL: a switch of our own */
	bool learning_switch;       /* switch: true; otherwise a hub */
	bool port_security;         /* frames from a MAC that is not the interface's own are dropped */
	struct lab_traffic traffic; /* of each interface on it that does not say otherwise */
	struct lab_mark mark;
};

struct lab_address {
	int family; /* AF_INET or AF_INET6 */
	union {
		struct in_addr v4;
		struct in6_addr v6;
	};
	int prefix; /* bits */
};

struct lab_forward {
	char *text;          /* as written: "8080:80", "127.0.0.1:2222:22", "auto:80/udp" (netplug.h) */
	char *host_address;  /* "127.0.0.1" unless written; IPv6 without brackets */
	int host_port;       /* 0: auto */
	char *guest_address; /* NULL: the address DHCP hands out */
	int guest_port;
	bool udp;
};

/* One interface, eth0… in the order of the file. Exactly one of network and slirp is set. */
struct lab_interface {
	char *network; /* name of a network, or NULL */
	bool slirp;
	struct lab_address *addresses; /* address: one or a list; none: DHCP on slirp, nothing on networks */
	size_t address_count;
	uint8_t mac[6];
	bool mac_given; /* otherwise derived from session, machine and index */
	struct lab_forward *forwards;
	size_t forward_count;
	bool host;         /* slirp: the host's loopback is 10.0.2.2 */
	bool restricted;   /* slirp: only the forwards */
	struct strv allow; /* slirp + restrict: what may still be reached, "ADDRESS[/BITS][:PORT[/udp]]" */
	int mtu;           /* 0: the plug's default */
	char *transport;   /* "auto", "bess" or "vhost-user" */
	struct lab_traffic traffic;
	struct lab_mark mark;
};

struct lab_disk {
	uint64_t size; /* bytes */
	bool ejected;  /* not in the machine when it starts: uml-lab disk puts it in */
	struct lab_mark mark;
};

enum lab_restart { LAB_RESTART_NO, LAB_RESTART_ON_FAILURE, LAB_RESTART_ALWAYS };

struct lab_machine {
	char *name;        /* a host name: [a-z0-9][a-z0-9-]{0,30} */
	char *base;        /* image name or path (relative ones made absolute against the lab's folder) */
	char *kernel;      /* "auto", a version ("6.12"), or a path */
	uint64_t memory;   /* bytes */
	char *disk_driver; /* "auto" or "ubd" (disk:) */
	struct lab_disk *disks;
	size_t disk_count;
	struct lab_interface *interfaces;
	size_t interface_count;
	struct strv shares;    /* names */
	char *files;           /* absolute folder copied over / on first start; NULL: none */
	char *setup, *startup; /* shell text; NULL: none */
	enum lab_restart restart;
	struct strv kernel_args; /* kernel_args: extra words for the kernel's command line */
	struct lab_mark mark;
};

struct lab_share {
	char *name;
	char *path; /* absolute, ~ and parameters filled in; a writable one outside the lab may be missing yet
		     */
	bool writable;  /* mode: rw */
	bool shared_locks; /* locks: shared */
	char *owner;    /* "root", "UID:GID", "host" */
	uint64_t quota; /* bytes, 0: none */
	uint64_t max_file_size; /* bytes, 0: no limit */
	struct strv hide;       /* patterns of names */
	char *mount;            /* absolute folder in the guest; NULL: /mnt/NAME */
	struct lab_mark mark;
};

struct lab_limits {
	uint64_t memory, disk; /* bytes, 0: none */
	int cpu_percent;       /* 0: none */
	int64_t time_ms;       /* 0: none */
};

struct lab_check {
	char *name, *machine, *run, *stage; /* stage NULL: always */
	char *expect_output;                /* NULL: not looked at; compared after trailing blanks are cut */
	char *expect_match; /* regular expression (POSIX extended) the output must match; NULL: none */
	int expect_status;  /* 0 by default */
	int points;         /* 1 by default */
	int64_t timeout_ms, retry_ms;
	struct lab_mark mark;
};

struct lab {
	char *folder;                     /* absolute, where lab.yml lies */
	char *file;                       /* absolute path of lab.yml */
	char *name, *title, *description; /* title, description may be NULL */
	char *base; /* base: of the machines that name none; NULL when each names its own */
	struct lab_param *params;
	size_t param_count;
	struct lab_network *networks;
	size_t network_count;
	struct lab_machine *machines; /* in the order of the file */
	size_t machine_count;
	struct lab_share *shares;
	size_t share_count;
	struct lab_limits limits;
	struct lab_check *checks;
	size_t check_count;
};

/* One mistake in a lab.yml. */
struct lab_problem {
	int line, column; /* from 1; column in characters */
	char *path;       /* "machines.r1.interfaces[0].address", "" for the file as a whole */
	char *message;    /* what is wrong; allowed: … */
};

/* All of a file's mistakes, sorted by position. Initialise with { 0 }, free with lab_problems_free(). */
struct lab_problems {
	struct lab_problem *items;
	size_t count;
	size_t untold; /* found beyond those that are kept */
	char *file;    /* its name as the user gave it, for "file:line:column" */
};

struct lab_load_options {
	const struct strv *params; /* "K=V" of --param; NULL: none */
	const char *user;          /* {{user}}; NULL: the login name of the caller's uid */
	const char *random_seed;   /* {{random:N}} is derived from this (the session's), so that a reload
				    * gives the same; NULL: fresh */
	bool skip_paths; /* does not look whether the paths exist: a session's copy, whose lab may be gone */
	struct lab_problems
		*problems; /* when set, the mistakes are also collected here, for JSON and the like */
};

void lab_problems_free(struct lab_problems *problems);
/* Adds a mistake; the message is complete, "; allowed: …" included. Out of memory shows as `untold`. */
void lab_problem_add(struct lab_problems *problems, struct lab_mark mark, const char *path, const char *fmt,
		     ...) __attribute__((format(printf, 4, 5)));

/*
 * Loads LAB: a folder, a lab.yml, or a name found by dirs_labs(). All of the
 * file's mistakes are told in one go: err->kind is ERROR_LAB and its message
 * holds one line each, "file:line:column: path.to.field: what is wrong; allowed: …" (cut
 * with a count when there are very many). ERROR_NOT_FOUND when there is no such lab,
 * ERROR_USAGE for a --param the lab does not have.
 * NULL + err on failure. Free with lab_free(); NULL is fine there.
 */
struct lab *lab_load(const char *lab, const struct lab_load_options *options, struct error *err);

/* Loads from text in memory (tests, fuzzers, session.yml's copy): name is shown in messages, folder resolves
 * paths. */
struct lab *lab_load_text(const char *text, size_t length, const char *name, const char *folder,
			  const struct lab_load_options *options, struct error *err);
void lab_free(struct lab *lab);

const struct lab_machine *lab_find_machine(const struct lab *lab, const char *name);
const struct lab_network *lab_find_network(const struct lab *lab, const char *name);
const struct lab_share *lab_find_share(const struct lab *lab, const char *name);

/* One lab found by lab_list(): enough for `uml-lab list`. */
struct lab_entry {
	char *name;         /* its folder's name: what `up` takes */
	char *title, *path; /* title may be NULL; path: the folder */
	char *problem;      /* first line of what is wrong with it, NULL when it is right */
	int machines;
};
/* All labs in dirs_labs(), sorted by name; of two of the same name, the one that `up` takes. Owned by the
 * caller. */
int lab_list(struct lab_entry **entries, size_t *count, struct error *err);
void lab_entries_free(struct lab_entry *entries, size_t count);

/*
 * Writes the effective lab as YAML that loads again to the same lab without
 * parameters left (the `lab:` part of session.yml), into a string buffer. It
 * may be put under a key by indenting each of its lines alike.
 */
int lab_write_effective(const struct lab *lab, struct strbuf *out, struct error *err);

/* The JSON Schema of lab.yml, for editors, and the reference page as Markdown; from the same table. */
int lab_write_json_schema(FILE *out, struct error *err);
int lab_write_reference(FILE *out, struct error *err);

/* Parses the text form of a forward (netplug.h). 0, or -1 + err saying what is allowed; *out is left alone
 * then. */
int lab_parse_forward(const char *text, struct lab_forward *out, struct error *err);
void lab_forward_free(struct lab_forward *forward);

#endif
