/*
 * Submissions: a student's session in one file, and what an instructor does with it.
 *
 *	FILE: a tar archive (pax) compressed with zstd, uml-lab-submission(5)
 *		manifest.json			what is in it: struct submission
 *		lab.yml				the lab as it was instantiated
 *		MACHINE/root.cow		what the machine's disk holds beyond its base, holes kept
 *		MACHINE/disk1.img ...		extra disks
 *
 * Base images are never in it: they are named by the digest of their content.
 *
 * A FILE comes from somebody whose work is to be judged: nothing in it is believed. A child that can open
 * nothing, with a list of system calls, reads it (reader.c, child.c); what it says is parsed once more with
 * bounds (manifest.c); the lab it runs as is the instructor's own, or has what could touch the host taken out
 * (safe.c); disks stand on the instructor's own images only, found by digest (open.c).
 */
#ifndef UML_LAB_SUBMISSION_SUBMISSION_H
#define UML_LAB_SUBMISSION_SUBMISSION_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "cow/ops.h"
#include "uml-lab/base/error.h"
#include "uml-lab/base/str.h"
#include "uml-lab/session/session.h"

#define SUBMISSION_VERSION  1
#define SUBMISSION_MANIFEST "manifest.json"
#define SUBMISSION_LAB      "lab.yml"
#define SUBMISSION_SNAPSHOT "submission" /* in an opened session: the disks as they were handed in */

/* Bounds of what is read. */
#define SUBMISSION_MANIFEST_MAX (1u << 20) /* bytes */
#define SUBMISSION_LAB_MAX      (1u << 20) /* bytes; that of a lab.yml */
#define SUBMISSION_TEXT_MAX     256        /* bytes of names, times and the like */
#define SUBMISSION_PARAM_MAX    4096       /* bytes of a parameter */
#define SUBMISSION_PARAMS_MAX   64
#define SUBMISSION_VERDICTS_MAX 1000
#define SUBMISSION_DISKS_MAX    200          /* of all machines; CHILD_FDS_MAX is above */
#define SUBMISSION_DISK_MAX     (1ull << 40) /* apparent bytes of one */
#define SUBMISSION_DATA_MAX     (4ull << 30) /* bytes of content of all, unless told otherwise */

/* ---- what a manifest says (manifest.c); texts are owned ---- */

struct submission_disk {
	char *digest;  /* cow_file_digest() of the file in the archive */
	uint64_t size; /* apparent bytes of that file */
};

struct submission_machine {
	char *name;
	char *base;         /* name or path of its base image on the student's host, to tell people */
	char *base_digest;  /* of the image's content */
	uint64_t base_size; /* bytes of the disk it holds */
	bool set_up;        /* its first start was complete */
	struct submission_disk *disks; /* the root disk's overlay first */
	size_t disk_count;
};

struct submission {
	char *lab, *lab_digest;          /* its name; digest of its lab.yml, NULL when that was gone */
	char *student;                   /* login name */
	char *session, *time, *seed;     /* time: ISO 8601 */
	struct strv params;              /* "K=V" as given by --param */
	bool running;                    /* machines ran while it was made */
	struct session_last_check check; /* as the student saw it last; time NULL: never */
	struct submission_machine *machines;
	size_t machine_count;
};

void submission_free(struct submission *s);
#define cleanup_submission __attribute__((cleanup(submission_cleanup)))
void submission_cleanup(struct submission **s);

/* A new JSON object; NULL + err. */
json_t *submission_to_json(const struct submission *s, struct error *err);
/* Parses and checks every value against the bounds above. NULL + err saying which is wrong. */
struct submission *submission_parse(const char *text, size_t length, struct error *err);
/* The name in the archive of a machine's disk: "r1/root.cow", "r1/disk1.img". malloc'ed; NULL + err. */
char *submission_disk_name(const struct submission_machine *m, size_t disk, struct error *err);
size_t submission_disk_count(const struct submission *s);

/* ---- writing (submit.c, pack.c) ---- */

struct submission_submit_options {
	const char *output;         /* path of FILE */
	bool replace;               /* one that is there is replaced */
	const volatile int *cancel; /* non-zero: stop soon, leave nothing; may be NULL */
};

/*
 * Writes a session into one file; the caller holds its lock. Machines that run stand still for the moment of
 * a snapshot, which is taken away again. The file appears under its name when it is whole and durable. *out:
 * what is in it; bytes: the size of FILE.
 */
int submission_submit(struct session *session, const struct submission_submit_options *options,
		      struct submission **out, uint64_t *bytes, struct error *err);

/* ---- reading (reader.c): for a process of its own, and for fuzzers ---- */

struct submission_read_options {
	uint64_t data_max;  /* bytes of content of all disks together; 0: SUBMISSION_DATA_MAX */
	bool head_only;     /* manifest and lab.yml */
	const int *outputs; /* where to write each disk, in order; NULL: they are only digested */
	size_t output_count;
};

struct submission_content {
	struct submission *manifest;
	char *manifest_text, *lab_text;
	size_t lab_length;
	uint64_t *data; /* bytes that are not zero in whole pages, one a disk */
	uint64_t total; /* all bytes of content */
};

void submission_content_free(struct submission_content *c);

/*
 * Reads FILE from its descriptor. Refuses whatever is not exactly as the manifest says: names, kinds, sizes,
 * order, digests, and all that comes after. 0, or -1 + err; outputs may be half written then.
 */
int submission_read(int fd, const struct submission_read_options *options, struct submission_content *out,
		    struct error *err);

/* ---- reading in a child that can do nothing else (child.c) ---- */

/*
 * The same, by `uml-lab __read-submission`, confined. Takes at most timeout_ms (0: ten minutes). expect: what
 * the manifest was when it was read before, since the file may have been changed; NULL: any.
 */
int submission_read_confined(int fd, const struct submission_read_options *options, const char *expect,
			     int timeout_ms, struct submission_content *out, struct error *err);
/* The body of that process: FILE is descriptor 3, the outputs follow. Exit status. */
int submission_reader_main(const struct submission_read_options *options, struct error *err);
/* Opens a FILE that may be anything: regular files only. A descriptor, -1 + err. */
int submission_open_file(const char *path, struct error *err);

/* ---- opening (open.c, safe.c) ---- */

struct submission_open_options {
	const char *file;
	const char *name;  /* of the session; NULL: LAB-STUDENT */
	const char *lab;   /* the instructor's lab; NULL: the one of that name */
	bool as_submitted; /* the submission's own lab.yml, made harmless, also where there is a lab of that
			      name */
	bool network;      /* SLIRP as the lab has it */
	bool weak;         /* also where there are no user namespaces */
	uint64_t data_max;
};

/*
 * Makes a stopped session of a submission: its disks lie in the snapshot SUBMISSION_SNAPSHOT, with empty ones
 * above. Notes: what people should know, a line each. *lock becomes the session's lock, the caller's to
 * close. All or nothing.
 */
struct session *submission_open(const struct submission_open_options *options, struct strv *notes, int *lock,
				struct error *err);

/* How far a lab that is to run for somebody else may go. */
struct submission_trust {
	bool own;     /* the instructor's lab: its kernels are kept, and memory as it says */
	bool network; /* SLIRP may reach the outside */
};
/* Takes out of a lab what could touch the host, and bounds what it may use. */
int submission_make_safe(struct lab *lab, const struct submission_trust *trust, struct error *err);

/*
 * The image of this host whose content has the digest: `first` (a name or path; may be NULL) is looked at
 * before all others. ERROR_NOT_FOUND with the remedy.
 */
int submission_find_base(const struct submission_machine *m, const char *first, struct image *out,
			 struct error *err);

#endif
