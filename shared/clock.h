/* The two clocks. Only the roots (a loop, a thread, a handler) read them and
 * hand the time in; everything else takes now_ms. */
#ifndef SLUICE_SHARED_CLOCK_H
#define SLUICE_SHARED_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#define CLOCK_RFC3339_BYTES 32 /* "2026-01-02T03:04:05.678Z" and a NUL */

/* CLOCK_MONOTONIC in ms or us. Any thread. */
int64_t clock_now_ms(void);
int64_t clock_now_us(void);

/* Wall time in ms since 1970-01-01T00:00:00Z. Any thread. */
int64_t clock_now_unix_ms(void);

/* Write unix_ms as RFC 3339 in UTC with milliseconds (years 1970-9999, else
 * clamped) into out, which is returned. Any thread. */
char *clock_rfc3339(int64_t unix_ms, char out[CLOCK_RFC3339_BYTES]);

#endif
