/*
 * The journal of a commit (commit.c): a note on the lower file that says which
 * overlay is being copied into it. The overlay itself holds the data, so the
 * journal is a line: "copying IDENTITY PATH", and "copied …" once the lower file
 * holds everything. While it says "copying", the lower file alone is neither old
 * nor new, and chain.c reads it with that overlay on top: new.
 */
#include <stdio.h>
#include <string.h>

#include "cow/internal.h"

#define NOTE "commit"

/* Whether the file has the overlay's name: it was given it when it held everything. */
static bool is_itself(const struct cow_file *lower, const char *overlay)
{
	char named[64], own[64];

	return cow_note_identity_of(overlay, named) && cow_note_identity(lower->fd, own) && str_eq(named, own);
}

int cow_journal_get(const struct cow_file *lower, struct cow_journal *j, struct error *err)
{
	char text[COW_NOTE_MAX], state[16];
	int found = cow_note_get(lower->fd, lower->path, NOTE, text, err);

	_Static_assert(COW_PATH_MAX == 4096, "width of %4095[ below");
	memset(j, 0, sizeof(*j));
	if (found <= 0)
		return found;
	if (sscanf(text, "%15s %63s %4095[^\n]", state, j->identity, j->overlay) != 3)
		return error_set(err, ERROR_FAILED, "%s has a damaged note of a commit", lower->path);
	j->state = str_eq(state, "copying") ? COW_JOURNAL_COPYING : COW_JOURNAL_COPIED;
	if (is_itself(lower, j->overlay))
		j->state = COW_JOURNAL_NONE;
	return 0;
}

int cow_journal_set(const struct cow_file *lower, int state, const struct cow_file *overlay,
		    struct error *err)
{
	char text[COW_NOTE_MAX], identity[64] = "";

	if (!cow_note_identity(overlay->fd, identity))
		return error_errno(err, errno, "cannot tell the identity of %s", overlay->path);
	snprintf(text, sizeof(text), "%s %s %s", state == COW_JOURNAL_COPYING ? "copying" : "copied",
		 identity, overlay->path);
	if (cow_note_set(lower->fd, lower->path, NOTE, text, err))
		return -1;
	if (fsync(lower->fd))
		return error_errno(err, errno, "cannot make the notes about %s durable", lower->path);
	return 0;
}

int cow_journal_end(const struct cow_file *lower, struct error *err)
{
	return cow_note_set(lower->fd, lower->path, NOTE, NULL, err);
}

bool cow_journal_names(const struct cow_journal *j, const struct cow_file *overlay)
{
	char identity[64];

	return j->state != COW_JOURNAL_NONE && cow_note_identity(overlay->fd, identity) &&
	       str_eq(identity, j->identity);
}
