/* How fast requests are taken: a token bucket that books turns. Who comes when
 * the bucket is empty is told how long to wait for the next token, so that
 * waiting costs one addition and turns come in the order of booking.
 *
 *   per_s = 10, max_wait_ms = 250, requests that all come at 0 ms:
 *   0 ms | 100 ms | 200 ms | full: its turn would come at 300 ms
 *
 * The bucket holds a tenth of a second's tokens, and one at least: no second
 * sees more than per_s + per_s / 10 (or + 1) turns. */
#ifndef SLUICE_FCGI_PACE_H
#define SLUICE_FCGI_PACE_H

#include <stdint.h>

#include "shared/rc.h"

struct pace {
    int64_t per_s;       /* 0: no limit */
    int64_t max_wait_ms; /* to be told to wait longer is to be refused */
    int64_t spare;       /* what the bucket holds beyond one token */
    int64_t next;        /* when the bucket is full again */
    /* Both times in ms * per_s: a token is 1000 of these, without rounding. */
};

/* per_s 0..1 000 000, max_wait_ms >= 0. The bucket is full. */
void pace_init(struct pace *pace, int64_t per_s, int64_t max_wait_ms);

/* Book a turn at monotonic now_ms (>= 0, never less than before). RC_OK:
 * *wait_ms >= 0 from now on. RC_FULL: none is booked, the next would come in
 * *wait_ms. The owner's thread. */
enum rc pace_book(struct pace *pace, int64_t now_ms,
                  int64_t *wait_ms) MUST_CHECK;

#endif
