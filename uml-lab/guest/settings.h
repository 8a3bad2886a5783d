/* What the image's files must say of this machine: its name, its neighbours, its name servers, its interfaces. */
#ifndef UML_LAB_GUEST_SETTINGS_H
#define UML_LAB_GUEST_SETTINGS_H

#include "uml-lab/guest/config.h"
#include "uml-lab/guest/mount.h"

/*
 * Writes them, with the image's root as "/". first: the overlay was never set
 * up, so that what a student may have changed since (the host name) is ours to write. What fails is told through note.
 */
void settings_apply(const struct config *c, bool first, mount_note_fn note, void *arg);

/* Whether the first start was completed in this root file system. */
bool settings_set_up(void);
/* Records that it was, on disk. 0 or -1 + f. */
int settings_record_set_up(struct fault *f);

/* text, with the block between our marker lines replaced by lines (removed when lines is empty), appended to *out. 0 or -1. */
int settings_merge_hosts(const char *text, size_t length, const struct buffer *lines, struct buffer *out);

#endif
