/* What only uml-lab/submission/ needs. */
#ifndef UML_LAB_SUBMISSION_PACK_H
#define UML_LAB_SUBMISSION_PACK_H

#include "uml-lab/submission/submission.h"

/*
 * Writes the archive to a descriptor: the manifest, lab.yml, and the disks, found below folder by their names
 * in the archive. Same content, same bytes. 0, or -1 + err.
 */
int submission_pack(int fd, const struct submission *s, const char *lab, size_t lab_length,
		    const char *folder, const volatile int *cancel, struct error *err);

/* The digest of a lab.yml as it is now; malloc'ed, NULL when it can't be read. */
char *submission_lab_digest(const char *path);

#endif
