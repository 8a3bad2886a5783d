#include "uml-lab/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const char *log_program = "uml-lab";
static enum log_level log_level = LOG_LEVEL_INFO;

void log_setup(const char *program, enum log_level level)
{
	log_program = program;
	log_level = getenv("UML_LAB_DEBUG") ? LOG_LEVEL_DEBUG : level;
}

void log_at(enum log_level level, const char *fmt, ...)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};
	struct timespec now;
	struct tm tm;
	char line[2048], stamp[32];
	va_list ap;

	if (level > log_level)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	localtime_r(&now.tv_sec, &tm);
	strftime(stamp, sizeof(stamp), "%F %T", &tm);
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	/* One write per line, so that several processes may share the file. */
	fprintf(stderr, "%s.%03ld %s: %s: %s\n", stamp, now.tv_nsec / 1000000, log_program, names[level], line);
}

void log_error(const struct error *err)
{
	log_at(LOG_LEVEL_ERROR, "%s%s%s", err->message, err->hint[0] ? "; " : "", err->hint);
}
