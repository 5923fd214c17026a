/* How long to wait before another attempt: full jitter, which spreads those
 * that failed together (Brooker, "Exponential Backoff And Jitter", AWS
 * Architecture Blog, 2015). */
#ifndef SLUICE_DISPATCHER_BACKOFF_H
#define SLUICE_DISPATCHER_BACKOFF_H

#include <stdint.h>

#define BACKOFF_MAX_MS 30000

/* State of the jitter; guards nothing. One thread. */
struct backoff {
    uint64_t random; /* never 0 */
};

/* Seeded by the system, or by anything if that has no random numbers. */
void backoff_init(struct backoff *b);

/* Anything from 0 to base_ms * 2^(attempt - 1), at most BACKOFF_MAX_MS.
 * base_ms > 0, attempt >= 1: how many have failed. */
int64_t backoff_ms(struct backoff *b, int64_t base_ms, int64_t attempt);

/* The same, at most cap_ms (> 0). */
int64_t backoff_capped_ms(struct backoff *b, int64_t base_ms, int64_t attempt,
                          int64_t cap_ms);

#endif
