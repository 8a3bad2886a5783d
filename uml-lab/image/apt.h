/* What the host's apt knows of Debian mirrors, for another suite. Internal to uml-lab/image. */
#ifndef UML_LAB_IMAGE_APT_H
#define UML_LAB_IMAGE_APT_H

#include <stdbool.h>
#include <stddef.h>

#include "uml-lab/base/error.h"
#include "uml-lab/base/str.h"

struct apt_source {
	char *uri;
	char *suite;
	char *components; /* "main contrib" */
	char *signed_by;  /* path of a keyring; NULL when the host names none */
};

struct apt_sources {
	struct apt_source *items;
	size_t count;
};

#define APT_SOURCES_INIT                                                                                     \
	{                                                                                                    \
		0                                                                                            \
	}
#define cleanup_apt_sources __attribute__((cleanup(apt_sources_free)))

void apt_sources_free(struct apt_sources *sources);

/*
 * Adds the sources of Debian's own archive in an apt configuration folder
 * ("/etc/apt"), one-line and deb822 form alike, as they are for `suite`:
 * those of that suite; when there are none, those of the host's own release
 * (`host_suite`, "bookworm"; NULL when the host is no Debian) with the suite's
 * name put in its place. ERROR_FAILED with a hint when there are none.
 */
int apt_sources_find(struct apt_sources *out, const char *folder, const char *host_suite, const char *suite,
		     struct error *err);

/* The sources of a mirror a person names. */
int apt_sources_of_mirror(struct apt_sources *out, const char *uri, const char *suite, struct error *err);

/* As lines of a sources.list; `shared` leaves out what only this host may know: credentials and keyring
 * paths. */
int apt_sources_print(const struct apt_sources *sources, bool shared, struct strbuf *out, struct error *err);

/* VERSION_CODENAME of a Debian host; NULL on another. malloc'ed. */
char *apt_host_suite(void);

#endif
