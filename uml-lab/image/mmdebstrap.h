/* Runs mmdebstrap as whoever calls. Internal to uml-lab/image. */
#ifndef UML_LAB_IMAGE_MMDEBSTRAP_H
#define UML_LAB_IMAGE_MMDEBSTRAP_H

#include "uml-lab/base/child.h"
#include "uml-lab/image/image.h"

struct mmdebstrap {
	struct child child;
	int output; /* the tar archive comes here */
	char *log;  /* the file its messages go to; NULL when they are shown */
	const struct image_options *options;
};

#define MMDEBSTRAP_INIT                                                                                      \
	{                                                                                                    \
		.child = CHILD_INIT, .output = -1                                                            \
	}
#define cleanup_mmdebstrap __attribute__((cleanup(mmdebstrap_end)))

/*
 * Starts it: packages (comma-separated) of a suite from the sources in a
 * sources.list's text. What it needs on disk lies in the `work` folder, where
 * it can. ERROR_FAILED with what to install when something is missing.
 */
int mmdebstrap_start(struct mmdebstrap *m, const char *suite, const char *packages, const char *sources,
		     const char *work, bool verbose, const struct image_options *options, struct error *err);

/* Tells phases until the archive begins to come, or it ended. -1 when the person wants to stop. */
int mmdebstrap_wait(struct mmdebstrap *m, struct error *err);

/* Whether it has ended and all it wrote was read: then a broken archive is its failure. */
bool mmdebstrap_broke_off(const struct mmdebstrap *m);

/* Waits for its end. -1 with its own words when it failed. */
int mmdebstrap_finish(struct mmdebstrap *m, struct error *err);

/* Stops it with all it started, and waits until it has cleaned up. Fine when it has ended. */
void mmdebstrap_end(struct mmdebstrap *m);

#endif
