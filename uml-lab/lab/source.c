/*
 * The bytes of a lab.yml before YAML: bounded, UTF-8, and without characters
 * that YAML would not read or that editors count as something else than YAML
 * does. libyaml tells encoding mistakes by byte offset only; people need line
 * and column, so they are found here, and libyaml sees only what it can read.
 *
 * Lines end with \n or \r\n. A lone \r, NEL, LS and PS are line ends for YAML
 * 1.1 but not for most editors: they are refused, so that all agree on lines.
 */
#include <string.h>

#include "uml-lab/lab/lab_internal.h"

bool lab_is_utf8(const char *text, size_t length)
{
	uint32_t character;

	while (length) {
		size_t n = str_utf8_decode(text, length, &character);

		if (!n)
			return false;
		text += n;
		length -= n;
	}
	return true;
}

/* Whether a character may stand in a lab.yml: YAML 1.1 section 5.1, less the odd line ends. */
static bool allowed(uint32_t c, bool before_newline)
{
	if (c < ' ')
		return c == '\t' || c == '\n' || (c == '\r' && before_newline);
	if (c >= 0x7f && c < 0xa0)
		return false;
	return c != 0x2028 && c != 0x2029 && c != 0xfeff && c != 0xfffe && c != 0xffff;
}

static bool refuse_utf16(const char *text, size_t length, struct lab_problems *problems)
{
	if (length < 2 || (memcmp(text, "\xff\xfe", 2) && memcmp(text, "\xfe\xff", 2)))
		return false;
	lab_problem_add(problems, (struct lab_mark){1, 1}, "", "the file is UTF-16; save it as UTF-8");
	return true;
}

bool lab_source_init(struct lab_source *source, const char *text, size_t length,
		     struct lab_problems *problems)
{
	struct lab_mark at = {1, 1};

	if (length > LAB_FILE_MAX) {
		lab_problem_add(problems, at, "", "the file is %zu bytes; allowed: at most %u", length,
				LAB_FILE_MAX);
		return false;
	}
	if (refuse_utf16(text, length, problems))
		return false;
	if (length >= 3 &&
	    memcmp(text, "\xef\xbb\xbf", 3) == 0) { /* a byte order mark, as Windows editors write */
		text += 3;
		length -= 3;
	}
	*source = (struct lab_source){text, length};
	while (length) {
		uint32_t c = 0;
		size_t n = str_utf8_decode(text, length, &c);

		if (!n) {
			lab_problem_add(problems, at, "",
					"byte 0x%02x is not valid UTF-8; save the file as UTF-8",
					(unsigned char)*text);
			return false;
		}
		if (!allowed(c, length > 1 && text[1] == '\n')) {
			lab_problem_add(problems, at, "",
					"character U+%04X cannot stand here; remove it, or write "
					"\"\\u%04X\" in double quotes",
					c, c & 0xffff);
			return false;
		}
		at.column++;
		if (c == '\n')
			at = (struct lab_mark){at.line + 1, 1};
		text += n;
		length -= n;
	}
	return true;
}

struct lab_mark lab_source_find_braces(const struct lab_source *source, size_t start, size_t end, int nth,
				       struct lab_mark fallback)
{
	struct lab_mark at = {1, 1};
	const char *s = source->text, *stop = source->text + source->length;

	for (size_t index = 0; s < stop && index < end; index++, s++) {
		if (index >= start && stop - s > 1 && s[0] == '{' && s[1] == '{') {
			if (nth-- == 0)
				return at;
			index++; /* both braces are taken */
			s++;
			at.column++;
		}
		at.column++;
		if (*s == '\n')
			at = (struct lab_mark){at.line + 1, 1};
		while (stop - s > 1 && ((unsigned char)s[1] & 0xc0) == 0x80)
			s++; /* libyaml counts characters, not bytes */
	}
	return fallback;
}

const char *lab_source_line(const struct lab_source *source, int line, size_t *length)
{
	const char *s = source->text, *stop = source->text + source->length, *end;

	while (--line > 0 && s < stop) {
		end = memchr(s, '\n', (size_t)(stop - s));
		s = end ? end + 1 : stop;
	}
	end = s < stop ? memchr(s, '\n', (size_t)(stop - s)) : NULL;
	*length = (size_t)((end ? end : stop) - s);
	return s;
}
