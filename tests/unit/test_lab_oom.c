/*
 * Out of memory is an error like another: every single allocation of loading
 * and writing a lab is made to fail once, and each time the answer is an error
 * (or, where the memory was for a message only, a lab), never a crash or a leak. No
 * regular expression among them: glibc 2.36's own regcomp() frees twice when it
 * runs out of memory.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/unit.h"
#include "uml-lab/lab/lab.h"

static long countdown = -1; /* allocations until one fails; negative: none does */
static long live;           /* allocations that were not freed */

#ifdef __SANITIZE_ADDRESS__ /* which has a malloc of its own */
#define CAN_FAIL 0
#else
#define CAN_FAIL 1
static bool fails(void)
{
	return countdown >= 0 && countdown-- == 0;
}

void *malloc(size_t size)
{
	static void *(*real)(size_t);

	if (!real)
		real = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
	if (fails())
		return NULL;
	live++;
	return real(size);
}

void *realloc(void *old, size_t size)
{
	static void *(*real)(void *, size_t);

	if (!real)
		real = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
	if (fails())
		return NULL;
	live += !old;
	return real(old, size);
}

/* dlsym() itself uses calloc(), so these go to the C library's other names for them. */
extern void *__libc_calloc(size_t count, size_t size);
extern void __libc_free(void *memory);

void *calloc(size_t count, size_t size)
{
	if (fails())
		return NULL;
	live++;
	return __libc_calloc(count, size);
}

void free(void *memory)
{
	live -= memory != NULL;
	__libc_free(memory);
}
#endif

static const char good[] = "lab: x\nbase: tiny\ntitle: \"for {{p}}\"\nparams: {p: "
			   "\"{{random:4}}\"}\nnetworks: {n: {}}\nmachines:\n"
			   "  m: &m\n    kernel_args: [quiet]\n    interfaces: [{network: n, address: "
			   "10.0.0.1/24}, {slirp: true, forward: 80:80}]\n"
			   "shares: {s: {path: /tmp, mode: rw}}\nchecks: [{name: c, machine: m, run: id, "
			   "expect: {output: a}}]\n";
static const char bad[] =
	"lab: X\nbase: tiny\ntitel: \"for {{q}}\"\nmachines:\n  m: {interfaces: [{network: n}], memory: 1, "
	"memory: 2}\n"
	"  n: {shares: [a, a], kernel_args: [ubd0=x]}\n  R: [1]\nshares: {s: {path: nowhere}}\n";

/* Loads, and writes, with the nth allocation failing. Returns whether it came that far. */
static bool attempt(const char *text, long nth)
{
	const struct lab_load_options options = {.user = "u", .random_seed = "s"};
	struct strbuf out = STRBUF_INIT;
	static struct error err;
	struct lab *lab;
	long before = live;
	bool reached;

	error_clear(&err);
	countdown = nth;
	lab = lab_load_text(text, strlen(text), "lab.yml", "/tmp", &options, &err);
	if (lab)
		lab_write_effective(lab, &out, &err);
	reached = countdown < 0;
	countdown = -1;
	CU_ASSERT(lab || err.kind != ERROR_NONE);
	lab_free(lab);
	strbuf_free(&out);
	CU_ASSERT_EQUAL(live, before);
	return reached;
}

static void test_each_allocation(void)
{
	for (int i = 0; i < 2; i++) {
		long nth = 0;

		while (nth < 20000 && attempt(i ? bad : good, CAN_FAIL ? nth : -1) && CAN_FAIL)
			nth++;
		CU_ASSERT(!CAN_FAIL || (nth > 100 && nth < 20000));
	}
}

UNIT_MAIN("lab-oom", UNIT_CASE(test_each_allocation))
