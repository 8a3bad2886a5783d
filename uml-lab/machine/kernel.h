/* Finding UML kernels: `kernel: auto`, a version ("6.12"), or a path. */
#ifndef UML_LAB_MACHINE_KERNEL_H
#define UML_LAB_MACHINE_KERNEL_H

#include <stddef.h>

#include "uml-lab/base/error.h"

struct kernel {
	char *path;	/* absolute, of linux.uml */
	char *release;	/* "6.1.176", as `linux.uml --version` prints it */
	int major, minor;
	char *modules;	/* absolute folder that holds modules.dep (or kernel/), NULL when none was found */
};

/*
 * Finds a kernel. "auto": the newest supported of those found, unless
 * $UML_LAB_KERNEL names one. A version matches by its leading parts
 * ("6.1" is 6.1.176, not 6.12). Looked at: $UML_LAB_KERNELS (a folder of folders NAME/linux.uml with
 * NAME/modules/RELEASE, as tests/kernels makes it), ~/.cache/uml-lab/kernels, /var/cache/uml-lab-kernels,
 * PATH for linux.uml and linux, with /usr/lib/uml/modules/RELEASE. ERROR_NOT_FOUND names what was looked at, what was
 * found, and how to install one. Outputs are freed by kernel_free().
 */
int kernel_find(const char *wanted, struct kernel *out, struct error *err);
void kernel_free(struct kernel *kernel);

/* Whether a module ("virtio_net") is there or built in: 1, 0; -1 when nothing tells, since there is no folder of modules. */
int kernel_has_module(const struct kernel *kernel, const char *module);

/* All kernels found, newest first; owned by the caller (kernel_free each, free the array). */
int kernel_list(struct kernel **out, size_t *count, struct error *err);

/* kernel_faults.c: bugs of kernels that may end a machine. Which one a panic with this text is; NULL: none that is known. */
const char *kernel_explain_panic(const struct kernel *kernel, const char *panic);
/* The worst of those that a kernel has; NULL: none. */
const char *kernel_known_fault(const struct kernel *kernel);

/*
 * The initramfs for this kernel: stage-0 as /init and the modules it needs
 * (hostfs, virtio_blk and what they depend on, decompressed), as a cpio (newc).
 * Made once and cached in dirs_cache() by content (stage-0, kernel, modules); written atomically, safe with others
 * doing the same. *path is owned by the caller.
 */
int initramfs_get(const struct kernel *kernel, char **path, struct error *err);

#endif
