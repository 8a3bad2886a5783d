/* Loading kernel modules without modprobe. */
#ifndef UML_LAB_GUEST_MODULES_H
#define UML_LAB_GUEST_MODULES_H

#include "uml-lab/guest/guest.h"

/* Loads the initramfs's modules in the order of its list (/modules/order); for a root disk that needs a driver. */
int modules_load_all(struct fault *f);

/* Loads a module and what it depends on from a folder with modules.dep, which may hold compressed modules. */
int modules_load(const char *folder, const char *name, struct fault *f);

#endif
