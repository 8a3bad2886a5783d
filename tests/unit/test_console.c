/* How much of what was printed before a window shows: machine/console.c. */
#include <string.h>

#include "tests/unit/unit.h"
#include "uml-lab/machine/supervisor.h"

/* What is shown of a text in a window. */
static const char *shown(const char *text, unsigned int rows, unsigned int columns)
{
	static char out[256];
	cleanup_strbuf struct strbuf all = STRBUF_INIT;

	strbuf_puts(&all, text);
	strcpy(out, text + console_fit(&all, rows, columns));
	return out;
}

static void test_fits(void)
{
	CU_ASSERT_STRING_EQUAL(shown("", 3, 10), "");
	CU_ASSERT_STRING_EQUAL(shown("a\r\nb\r\nc", 0, 0), "a\r\nb\r\nc"); /* no window */
	CU_ASSERT_STRING_EQUAL(shown("a\r\nb\r\nc", 4, 10), "a\r\nb\r\nc");
	CU_ASSERT_STRING_EQUAL(shown("a\r\nb\r\nc", 3, 10), "b\r\nc");
	CU_ASSERT_STRING_EQUAL(shown("a\r\nb\r\nc", 1, 10), "c"); /* at least the last line */
	CU_ASSERT_STRING_EQUAL(shown("a\r\n0123456789x\r\nc", 4, 10), "0123456789x\r\nc"); /* two rows */
	CU_ASSERT_STRING_EQUAL(shown("a\r\n0123456789\r\nc", 4, 10), "a\r\n0123456789\r\nc");
	CU_ASSERT_STRING_EQUAL(shown("123456\n789abc\nd", 4, 10), "789abc\nd"); /* the second begins below the end of the first */
	CU_ASSERT_STRING_EQUAL(shown("a\r\n\033[1;32m01234567\033[0m\r\nc", 4, 8), "a\r\n\033[1;32m01234567\033[0m\r\nc");
	CU_ASSERT_STRING_EQUAL(shown("a\r\n\303\274\303\274\303\274\r\nc", 4, 3), "a\r\n\303\274\303\274\303\274\r\nc");
}

UNIT_MAIN("console", UNIT_CASE(test_fits))
