/* Mounting: the initramfs's own file systems, the image's root, what goes into it, and the way back at the end. */
#ifndef UML_LAB_GUEST_MOUNT_H
#define UML_LAB_GUEST_MOUNT_H

#include "uml-lab/guest/config.h"
#include "uml-lab/guest/guest.h"

#define MOUNT_ROOT "/newroot"	/* where the image's root is mounted until init takes over */

typedef void (*mount_note_fn)(void *arg, const char *text);

/* proc, sysfs, devtmpfs and a tmpfs on /run of the initramfs. What can't be mounted is told to the kernel's log only. */
void mount_early(void);

/*
 * Waits for the root device (bounded) and mounts it read-write at MOUNT_ROOT,
 * moves /dev, /proc, /sys and /run into it. discard: blocks that become free are given back to the host. 0; -1 + f with what to do.
 */
int mount_root(const char *device, bool discard, struct fault *f);

/*
 * Has an ext4 root file system say "no space left on device" before its disk has taken `room` more bytes on the host, by
 * reserving what is beyond. A write that the host refuses would cost it its journal. Called with the image's root as "/".
 */
void mount_keep_room(const char *device, uint64_t room);

/*
 * The kernel's modules at /lib/modules/RELEASE by hostfs, then the shares. Called with the image's root as
 * "/". What fails is told through note; the machine comes up without it.
 */
void mount_extras(const struct config *c, mount_note_fn note, void *arg);

/* Mounts a folder of the host at target, a path that is there. 0 or -1 + f. */
int mount_hostfs(const char *path, const char *target, bool writable, struct fault *f);

/* Whether a file system is mounted at this absolute path. */
bool mount_is_point(const char *path);

#endif
