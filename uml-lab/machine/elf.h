/* Which files an ELF program needs to start: its interpreter and its libraries. */
#ifndef UML_LAB_MACHINE_ELF_H
#define UML_LAB_MACHINE_ELF_H

#include "uml-lab/base/error.h"
#include "uml-lab/base/str.h"

/*
 * Appends to `files` the absolute paths, as the loader will open them, of the program's interpreter and of all libraries it and
 * they need, and of libgcc_s where glibc may want it; none for a static program. Nothing is executed; every
 * offset is checked. Libraries are looked for as ld.so(8) does without a cache and an environment: DT_RUNPATH
 * (or DT_RPATH) with $ORIGIN, then the loaders' usual folders.
 * -1 + err: no ELF program of this machine, a damaged one, or a library that is nowhere.
 */
int elf_needs(const char *program, struct strv *files, struct error *err);

#endif
