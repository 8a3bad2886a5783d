/* Strings: growing buffers, vectors of strings, and the few helpers libc lacks. */
#ifndef UML_LAB_BASE_STR_H
#define UML_LAB_BASE_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "uml-lab/base/error.h"

/*
 * A growing byte buffer, always terminated by a NUL outside its length once
 * anything was added. A failed allocation sets `failed` and makes every later
 * call a no-op, so a series of calls needs one check at its end
 * (strbuf_check()). Never grows beyond SIZE_MAX / 2.
 */
struct strbuf {
	char *data;	/* NULL while empty */
	size_t length;	/* bytes, without the NUL */
	size_t size;	/* bytes allocated */
	bool failed;
};

#define STRBUF_INIT { 0 }
#define cleanup_strbuf __attribute__((cleanup(strbuf_free)))

void strbuf_free(struct strbuf *b);
void strbuf_add(struct strbuf *b, const void *data, size_t length);
void strbuf_puts(struct strbuf *b, const char *s);
void strbuf_putc(struct strbuf *b, char c);
void strbuf_printf(struct strbuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void strbuf_vprintf(struct strbuf *b, const char *fmt, va_list ap);
/* Drops the first n bytes (all of them when n exceeds the length). */
void strbuf_consume(struct strbuf *b, size_t n);
/* 0, or -1 with an out-of-memory error when any earlier call failed. */
int strbuf_check(const struct strbuf *b, struct error *err);
/* The text (never NULL), owned by the caller; the buffer is empty after. NULL + err on failed allocation. */
char *strbuf_steal(struct strbuf *b, struct error *err);

/* A NULL-terminated vector of owned strings, fit for execve. */
struct strv {
	char **items;	/* NULL while empty */
	size_t count;
};

#define STRV_INIT { 0 }
#define cleanup_strv __attribute__((cleanup(strv_free)))

void strv_free(struct strv *v);
/* Appends a copy. Returns 0, or -1 and err; the vector is as before then. */
int strv_add(struct strv *v, const char *s, struct error *err);
int strv_addf(struct strv *v, struct error *err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Splits at each separator; empty fields are kept. */
int strv_split(struct strv *v, const char *s, char separator, struct error *err);

/* malloc'ed vprintf; NULL when memory is out. */
char *str_vprintf(const char *fmt, va_list ap) __attribute__((format(printf, 1, 0)));
/* malloc'ed printf; NULL + err when memory is out. */
char *str_printf(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
char *str_dup(const char *s, struct error *err);
bool str_eq(const char *a, const char *b);		/* NULLs are equal to each other only */
bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);
/* Whether s is 1..max characters of [a-z0-9-], starting with a letter or digit (names of labs, machines, …). */
bool str_is_name(const char *s, size_t max);

/* Parses a whole decimal number within [min, max]; no sign but '-', no blanks. 0, or -1 (outputs alone). */
int str_to_i64(const char *s, int64_t min, int64_t max, int64_t *out);
/* Parses a size: digits with an optional K, M, G or T (powers of 1024, an optional B or iB after). Bytes. 0 or -1. */
int str_to_size(const char *s, uint64_t *out);
/* Parses a duration: "90", "90s", "500ms", "5m", "3h", "2d". Milliseconds. 0 or -1. */
int str_to_duration_ms(const char *s, int64_t *out);
/* "1.5 GiB" and the like into buf (at least 16 bytes), returned. */
char *str_human_size(uint64_t bytes, char *buf, size_t size);

/* Decodes one character of at most length bytes (> 0): its length in bytes, or 0 when it is not valid UTF-8 (RFC 3629). */
size_t str_utf8_decode(const char *text, size_t length, uint32_t *character);
/*
 * Makes text that somebody else wrote fit to be shown on a terminal and to be put into JSON and XML: what is not valid UTF-8, and
 * control characters (C0 but line feed and tab, DEL, C1) become '?'; "\r\n" becomes "\n".
 */
void str_clean(struct strbuf *text);
/* The same in place, "\r" becoming '?' everywhere: it never grows. What was cut within a character is good afterwards. */
void str_clean_chars(char *text);

/* The nearest of the candidates (NULL-terminated) for a mistyped word, or NULL: "did you mean …". */
const char *str_nearest(const char *word, const char *const *candidates);

#endif
