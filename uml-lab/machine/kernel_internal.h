/* What only the finding of kernels needs. */
#ifndef UML_LAB_MACHINE_KERNEL_INTERNAL_H
#define UML_LAB_MACHINE_KERNEL_INTERNAL_H

#include "uml-lab/base/error.h"

#define KERNEL_RELEASE_MAX 64

/*
 * What the kernel at path calls itself ("6.1.176"), as text[KERNEL_RELEASE_MAX + 1] and numbers. 0, or -1 + err when it
 * is no user-mode Linux kernel or can't be run.
 */
int kernel_release(const char *path, char *text, int *major, int *minor, struct error *err);

#endif
