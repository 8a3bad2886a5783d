/* Going down through the guest's init, and freezing its file systems. */
#ifndef UML_LAB_GUEST_POWER_H
#define UML_LAB_GUEST_POWER_H

#include <stdint.h>

#include "uml-lab/guest/agent.h"
#include "uml-lab/guest/protocol.h"

/* SIGTERM ends nothing, but tells that busybox's init goes down. It is blocked: taken while the agent waits. */
void power_begin(void);
/* Asks the guest's init to power off or reboot. Before BOOT there is none: unmounts and goes down at once. */
void power_shut_down(const struct agent *a, bool reboot_after);
/* Syncs and freezes every file system on a disk. 0, or -1 + f with all thawed again. */
int power_freeze(struct fault *f);
/* Thaws. For how long it was frozen, microseconds; 0 when it was not. */
int64_t power_thaw(void);
/* Thaws what was frozen too long; goes on with going down. Milliseconds until there is more to do, -1: nothing. */
int power_tick(int64_t now);
/* The end of a machine without init: every process ended, all unmounted, power off or restart. Pid 1 only. */
void power_end(bool reboot_after) __attribute__((noreturn));

#endif
