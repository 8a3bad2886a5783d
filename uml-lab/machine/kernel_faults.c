/*
 * Bugs of released UML kernels that end a machine and are not the student's: who reads why a machine failed should not have to know
 * the kernel's sources.
 *
 * Linux 6.8 to 6.19: a process that is killed while it forks leaves its copy's memory map with a marker in it
 * (kernel/fork.c: dup_mmap() stores XA_ZERO_ENTRY, 0x406), and UML's flush_tlb_mm() takes the marker for an area: it
 * reads the area's end, 8 bytes on, and panics. Seen with 6.12.101, where `sh -c 'while :; do /bin/true; done'` and a
 * kill -9 do it within a hundred tries, and a reboot now and then; 6.1.176 and 7.2.7 stand a thousand. Linux 7.0 no
 * longer stores it ("mm: change dup_mmap() recovery").
 */
#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/str.h"
#include "uml-lab/machine/kernel.h"

static const struct fault {
	int from, before; /* releases: major * 1000 + minor */
	const char *panic; /* how its text begins */
	const char *what;
} faults[] = {
	{6008, 7000, "Kernel mode fault at addr 0x40e,",
	 "a bug of UML kernels 6.8 to 6.19, when a process is killed while it forks"},
};

static bool has(const struct kernel *kernel, const struct fault *fault)
{
	int release = kernel->major * 1000 + kernel->minor;

	return release >= fault->from && release < fault->before;
}

const char *kernel_explain_panic(const struct kernel *kernel, const char *panic)
{
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
		if (has(kernel, &faults[i]) && str_starts(panic, faults[i].panic))
			return faults[i].what;
	return NULL;
}

const char *kernel_known_fault(const struct kernel *kernel)
{
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
		if (has(kernel, &faults[i]))
			return faults[i].what;
	return NULL;
}
