/* Going down through the guest's init, and freezing its file systems. */
#ifndef UML_LAB_GUEST_POWER_H
#define UML_LAB_GUEST_POWER_H

#include "uml-lab/guest/agent.h"

/* Asks the guest's init to power off or reboot. Before BOOT there is none: unmounts and goes down at once. */
void power_shut_down(const struct agent *a, bool reboot_after);
/* Syncs and freezes every file system on a disk. 0, or -1 + f with all thawed again. */
int power_freeze(struct fault *f);
void power_thaw(void);
/* The end of a machine without init: every process ended, all unmounted, power off or restart. Pid 1 only. */
void power_end(bool reboot_after) __attribute__((noreturn));

#endif
