/* One key=value line an event, to stderr, in one write(2):
 *
 *   ts=2026-01-02T03:04:05.678Z level=info prog=sluiced event=feed_behind
 *   service=callback cursor=17
 *
 * Values with spaces, quotes or control characters are quoted and escaped.
 * No phone number, address or body at the default level. */
#ifndef SLUICE_SHARED_LOG_H
#define SLUICE_SHARED_LOG_H

#include "shared/rc.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Set once by main before any thread starts (program is kept, not copied).
 * log_set_level() may be called again on SIGHUP (atomic). */
void log_init(const char *program, enum log_level level);
void log_set_level(enum log_level level);

/* RC_INVALID when name is not error|warn|info|debug. */
enum rc log_level_parse(const char *name, enum log_level *out) MUST_CHECK;

/* log_event(LOG_INFO, "feed_behind", "service=%s cursor=%" PRId64, s, c);
 * The caller's format holds the key=value pairs; string values that may hold
 * anything go through log_quote(). Any thread. */
void log_event(enum log_level level, const char *event, const char *format, ...)
    PRINTF_LIKE(3, 4);

/* Write text, quoted if it must be and cut to fit, into out (size bytes > 8).
 * Returns out. NULL becomes "". Any thread. */
const char *log_quote(const char *text, char *out, unsigned long size);

#endif
