#include "uml-lab/base/error.h"

#include <stdio.h>
#include <string.h>

static void format(struct error *err, enum error_kind kind, int sys_errno, const char *fmt, va_list ap)
{
	err->kind = kind;
	err->sys_errno = sys_errno;
	err->hint[0] = '\0';
	vsnprintf(err->message, sizeof(err->message), fmt, ap);
}

int error_set(struct error *err, enum error_kind kind, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return -1;
	va_start(ap, fmt);
	format(err, kind, 0, fmt, ap);
	va_end(ap);
	return -1;
}

int error_errno(struct error *err, int sys_errno, const char *fmt, ...)
{
	va_list ap;
	size_t used;

	if (!err)
		return -1;
	va_start(ap, fmt);
	format(err, ERROR_FAILED, sys_errno, fmt, ap);
	va_end(ap);
	used = strlen(err->message);
	snprintf(err->message + used, sizeof(err->message) - used, ": %s", strerror(sys_errno));
	return -1;
}

int error_prefix(struct error *err, const char *fmt, ...)
{
	char old[ERROR_MESSAGE_MAX];
	va_list ap;
	size_t used;

	if (!err)
		return -1;
	memcpy(old, err->message, sizeof(old));
	va_start(ap, fmt);
	vsnprintf(err->message, sizeof(err->message), fmt, ap);
	va_end(ap);
	used = strlen(err->message);
	snprintf(err->message + used, sizeof(err->message) - used, ": %s", old);
	return -1;
}

int error_hint(struct error *err, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return -1;
	va_start(ap, fmt);
	vsnprintf(err->hint, sizeof(err->hint), fmt, ap);
	va_end(ap);
	return -1;
}

int error_oom(struct error *err)
{
	return error_set(err, ERROR_FAILED, "out of memory");
}

void error_copy(struct error *dst, const struct error *src)
{
	if (dst && src)
		*dst = *src;
}

void error_print(const char *program, const struct error *err)
{
	fprintf(stderr, "%s: %s\n", program, err->message);
	if (err->hint[0])
		fprintf(stderr, "%s: %s\n", program, err->hint);
}

void error_clear(struct error *err)
{
	if (!err)
		return;
	err->kind = ERROR_NONE;
	err->sys_errno = 0;
	err->message[0] = err->hint[0] = '\0';
}
