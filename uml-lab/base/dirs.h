/* Where things lie: XDG folders, our programs, system folders. All results are malloc'ed absolute paths; NULL + err. */
#ifndef UML_LAB_BASE_DIRS_H
#define UML_LAB_BASE_DIRS_H

#include "uml-lab/base/error.h"
#include "uml-lab/base/str.h"

/* $XDG_STATE_HOME/uml-lab or ~/.local/state/uml-lab; made (0700) when missing. Sessions live in its sessions/. */
char *dirs_state(struct error *err);
/* $XDG_DATA_HOME/uml-lab or ~/.local/share/uml-lab; made when missing. Images live in its images/. */
char *dirs_data(struct error *err);
/* $XDG_CACHE_HOME/uml-lab or ~/.cache/uml-lab; made when missing. */
char *dirs_cache(struct error *err);
/*
 * $XDG_RUNTIME_DIR/uml-lab, or a private 0700 folder /tmp/uml-lab-UID whose
 * owner and mode are checked (a folder of somebody else's is an error, never
 * used). Made when missing. Short enough for socket paths (≤ 107 bytes).
 */
char *dirs_runtime(struct error *err);

/*
 * The path of one of our own programs or data files ("uml-netplug", "stage0",
 * "labs"): beside the running program (build tree), in its ../libexec/uml-lab,
 * ../lib/uml-lab or ../share/uml-lab, or in the configured prefix. ERROR_FAILED when
 * it is nowhere, naming the places looked at.
 */
char *dirs_own(const char *name, struct error *err);

/*
 * A program of the host, looked for in PATH and then where system programs lie, which are not in an ordinary user's
 * PATH on Debian. ERROR_FAILED when it is nowhere, with the hint to install that package.
 */
char *dirs_program(const char *name, const char *package, struct error *err);

/* Image folders in the order searched: the user's (written to), then $UML_LAB_IMAGES (colon-separated), then system ones. */
int dirs_images(struct strv *out, struct error *err);
/* Lab folders in the order searched: $UML_LAB_PATH, ./labs, the user's data labs/, installed ones. Only those that exist. */
int dirs_labs(struct strv *out, struct error *err);

#endif
