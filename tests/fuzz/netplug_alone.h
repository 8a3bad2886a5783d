/*
 * For the entries of netplug: a network namespace without any interface up, since libslirp would send the
 * fuzzer's ideas to the world.
 */
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>

#include "uml-lab/base/log.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	log_setup("fuzz", LOG_LEVEL_ERROR);
	if (unshare(CLONE_NEWUSER | CLONE_NEWNET))
		abort();
	return 0;
}
