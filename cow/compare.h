/* Comparing what two chains hold, for libcow's own files. */
#ifndef COW_COMPARE_H
#define COW_COMPARE_H

#include "cow/internal.h"
#include "cow/ops.h"

/*
 * Calls fn for the ranges within [start, start + n) sectors in which the two
 * differ (`differ`) or are equal. Both chains hold that range.
 */
int cow_compare(const struct cow_chain *a, const struct cow_chain *b, uint64_t start, uint64_t n, bool differ,
		cow_range_fn fn, void *arg, struct error *err);

#endif
