/*
 * A unit test program: one suite, one CUnit test per case.
 *
 *	static void test_something(void) { CU_ASSERT_EQUAL(1 + 1, 2); }
 *	UNIT_MAIN("cow header", UNIT_CASE(test_something), UNIT_CASE(test_other))
 *
 * Ends with 0 when all cases passed. Prints one line "unit NAME: N passed, M failed", which tests/run sums up.
 */
#ifndef TESTS_UNIT_H
#define TESTS_UNIT_H

#include <CUnit/Basic.h>
#include <CUnit/CUnit.h>
#include <stdio.h>

struct unit_case {
	const char *name;
	CU_TestFunc fn;
};

#define UNIT_CASE(fn) {#fn, fn}

static inline int unit_run(const char *suite_name, const struct unit_case *cases, size_t count)
{
	unsigned failed;
	CU_pSuite suite;

	if (CU_initialize_registry() != CUE_SUCCESS)
		return 2;
	suite = CU_add_suite(suite_name, NULL, NULL);
	for (size_t i = 0; i < count; i++)
		if (!suite || !CU_add_test(suite, cases[i].name, cases[i].fn))
			return 2;
	CU_basic_set_mode(CU_BRM_NORMAL);
	CU_basic_run_tests();
	failed = CU_get_number_of_tests_failed();
	printf("unit %s: %u passed, %u failed\n", suite_name, CU_get_number_of_tests_run() - failed, failed);
	CU_cleanup_registry();
	return failed ? 1 : 0;
}

#define UNIT_MAIN(suite_name, ...)                                                     \
	int main(void)                                                                 \
	{                                                                              \
		static const struct unit_case cases[] = {__VA_ARGS__};                 \
		return unit_run(suite_name, cases, sizeof(cases) / sizeof(cases[0])); \
	}

#endif
