/*
 * lab.yml is somebody else's file. Whatever it holds, the loader neither
 * crashes nor takes more than its limits; and what it takes, it writes so that
 * it loads again to the same.
 */
#include <stdlib.h>
#include <string.h>

#include "uml-lab/lab/lab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct lab *load(const char *text, size_t length)
{
	/* Paths are the host's, not the file's: a fuzzer must not depend on them. */
	const struct lab_load_options options = {
		.user = "student", .random_seed = "fuzz", .skip_paths = true};
	static struct error err;

	return lab_load_text(text, length, "lab.yml", "/nonexistent", &options, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct strbuf first = STRBUF_INIT, second = STRBUF_INIT;
	struct lab *lab = load((const char *)data, size), *again;

	if (!lab)
		return 0;
	if (lab_write_effective(lab, &first, NULL) < 0)
		abort();
	again = load(first.data, first.length);
	if (!again || lab_write_effective(again, &second, NULL) < 0 || strcmp(first.data, second.data) != 0)
		abort();
	lab_free(lab);
	lab_free(again);
	strbuf_free(&first);
	strbuf_free(&second);
	return 0;
}
