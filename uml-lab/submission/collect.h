/*
 * Many submissions at once: found, verified, compared, and checked, each in a session of its own that goes
 * away again. A file that is broken, or a machine that hangs, is told as that and stops nothing else.
 */
#ifndef UML_LAB_SUBMISSION_COLLECT_H
#define UML_LAB_SUBMISSION_COLLECT_H

#include "uml-lab/submission/submission.h"

/* One file. Texts are owned. */
struct collected {
	char *path;     /* as found */
	char *shown;    /* the same for people and scripts: UTF-8 without control characters */
	char *owner;    /* of the file on this host: login name, or uid */
	uint64_t bytes; /* of the file */
	struct submission_content content; /* content.manifest NULL: it cannot be read */
	char digest[COW_DIGEST_MAX];       /* of the digests of all its disks: the work as a whole */
	char *problem; /* why it is not verified; NULL: it is whole, its digests are right, its bases are here
			*/
	struct strv same;    /* paths (as shown) of others in which a root disk is the same, that anything was
				written to */
	json_t *report;      /* what checking it gave, as `uml-lab check --json` has it; NULL: not checked */
	char *check_problem; /* why it could not be checked; NULL: it could, or nobody wanted */
};

struct collection {
	struct collected *items; /* sorted by path */
	size_t count;
};

void collection_free(struct collection *c);

/*
 * Finds the files: operands are files, or folders, of which all regular files are taken, in folders below
 * too, but those whose name begins with a dot. ERROR_NOT_FOUND when there is none.
 */
int collection_find(struct collection *c, const struct strv *operands, struct error *err);

struct collection_options {
	const char *lab; /* as for open; NULL: each its own */
	uint64_t data_max;
	bool network, weak;
	int jobs;                   /* at a time */
	int64_t timeout_ms;         /* for each, from its start to its end */
	const volatile int *cancel; /* non-zero: stop; may be NULL */
	void (*progress)(void *arg, const struct collected *item, size_t done, size_t of); /* may be NULL */
	void *progress_arg;
};

/* Reads every file (child.c), looks for its bases, finds copies. Only a lack of memory is an error. */
int collection_verify(struct collection *c, const struct collection_options *options, struct error *err);
/* Opens every verified one, by processes of their own (`uml-lab open --check --discard`), and keeps their
 * reports. */
int collection_check(struct collection *c, const struct collection_options *options, struct error *err);

#endif
