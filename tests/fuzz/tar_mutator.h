/* libFuzzer's mutator for entries that read tar archives. */
#ifndef TESTS_FUZZ_TAR_MUTATOR_H
#define TESTS_FUZZ_TAR_MUTATOR_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

/* A changed header would be refused for its checksum alone: puts the right one into what looks like headers.
 */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	const size_t block = 512, magic = 257, sum_at = 148, sum_size = 8;

	(void)seed;
	size = LLVMFuzzerMutate(data, size, max_size);
	for (size_t at = 0; at + block <= size; at += block) {
		unsigned int sum = sum_size * ' ';
		char text[9];

		if (memcmp(data + at + magic, "ustar", 5))
			continue;
		for (size_t i = 0; i < block; i++)
			sum += i >= sum_at && i < sum_at + sum_size ? 0 : data[at + i];
		snprintf(text, sizeof(text), "%06o", sum);
		memcpy(data + at + sum_at, text, 7);
		data[at + sum_at + 7] = ' ';
	}
	return size;
}

#endif
