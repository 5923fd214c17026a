/* The clocks. Only the roots (a loop, a thread, a handler) read them and
 * hand the time in; everything else takes now_ms. */
#ifndef SLUICE_SHARED_CLOCK_H
#define SLUICE_SHARED_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#define CLOCK_BOOT_ID_BYTES 37
#define CLOCK_RFC3339_BYTES 32 /* "2026-01-02T03:04:05.678Z" and a NUL */

/* CLOCK_MONOTONIC in ms or us. Any thread. */
int64_t clock_now_ms(void);
int64_t clock_now_us(void);

/* CLOCK_BOOTTIME in us: as monotonic, and goes on while the machine sleeps; it
 * means something to another process of the same boot. Any thread. */
int64_t clock_now_boot_us(void);

/* The kernel's id of this boot, a uuid; "" where it tells none. Any thread. */
char *clock_boot_id(char out[CLOCK_BOOT_ID_BYTES]);

/* Wall time in ms since 1970-01-01T00:00:00Z. Any thread. */
int64_t clock_now_unix_ms(void);

/* Write unix_ms as RFC 3339 in UTC with milliseconds (years 1970-9999, else
 * clamped) into out, which is returned. Any thread. */
char *clock_rfc3339(int64_t unix_ms, char out[CLOCK_RFC3339_BYTES]);

#endif
