/* What daemons tell: one line per event to stderr, which their parent keeps. Programs a person runs print errors, not logs. */
#ifndef UML_LAB_BASE_LOG_H
#define UML_LAB_BASE_LOG_H

#include "uml-lab/base/error.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* The name before each line, and the least important level shown (INFO at first; $UML_LAB_DEBUG set: DEBUG). */
void log_setup(const char *program, enum log_level level);
void log_at(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Logs an error object at level ERROR, hint included. */
void log_error(const struct error *err);

#define log_warn(...) log_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
