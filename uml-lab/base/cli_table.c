#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "uml-lab/base/cleanup.h"
#include "uml-lab/base/cli.h"

struct cli_table {
	size_t columns, rows;
	struct strv cells;	/* row by row, the header first */
};

struct cli_table *cli_table_new(struct error *err, const char *const *headers)
{
	struct cli_table *t = calloc(1, sizeof(*t));

	if (!t) {
		error_oom(err);
		return NULL;
	}
	while (headers[t->columns])
		t->columns++;
	if (cli_table_row(t, headers, err) < 0) {
		cli_table_free(t);
		return NULL;
	}
	return t;
}

int cli_table_row(struct cli_table *t, const char *const *cells, struct error *err)
{
	for (size_t i = 0; i < t->columns; i++)
		if (strv_add(&t->cells, cells[i] ? cells[i] : "-", err) < 0)
			return -1;
	t->rows++;
	return 0;
}

/* Columns a terminal uses for the text; bytes when it is not valid in this locale. */
static size_t width_of(const char *s)
{
	size_t length = strlen(s);
	cleanup_free wchar_t *wide = calloc(length + 1, sizeof(*wide));
	int width;

	if (!wide || mbstowcs(wide, s, length + 1) == (size_t)-1)
		return length;
	width = wcswidth(wide, length);
	return width < 0 ? length : (size_t)width;
}

void cli_table_print(const struct cli_table *t, FILE *out)
{
	setlocale(LC_CTYPE, ""); /* for width_of() alone: it reads files, which a short-lived program feels */
	for (size_t row = 0; row < t->rows; row++) {
		for (size_t column = 0; column < t->columns; column++) {
			const char *cell = t->cells.items[row * t->columns + column];
			size_t widest = 0;

			fputs(cell, out);
			if (column + 1 == t->columns)
				break;
			for (size_t r = 0; r < t->rows; r++) {
				size_t width = width_of(t->cells.items[r * t->columns + column]);

				widest = width > widest ? width : widest;
			}
			for (size_t pad = width_of(cell); pad < widest + 2; pad++)
				fputc(' ', out);
		}
		fputc('\n', out);
	}
}

void cli_table_free(struct cli_table *t)
{
	if (!t)
		return;
	strv_free(&t->cells);
	free(t);
}
