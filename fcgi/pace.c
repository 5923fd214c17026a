/* A token bucket as one point in time: when it would be full if nobody came. */
#include "fcgi/pace.h"

#define TOKEN 1000     /* in ms * per_s */
#define BURST_PARTS 10 /* of a second's tokens */

void
pace_init(struct pace *pace, int64_t per_s, int64_t max_wait_ms)
{
    int64_t tokens = per_s / BURST_PARTS;

    *pace = (struct pace){
        .per_s = per_s,
        .max_wait_ms = max_wait_ms,
        .spare = tokens > 1 ? (tokens - 1) * TOKEN : 0,
    };
}

enum rc
pace_book(struct pace *pace, int64_t now_ms, int64_t *wait_ms)
{
    int64_t now = now_ms * pace->per_s;
    int64_t next = pace->next > now ? pace->next : now;
    int64_t wait = next - pace->spare - now;

    *wait_ms = 0;
    if (pace->per_s == 0) {
        return RC_OK;
    }
    if (wait > 0) {
        *wait_ms = (wait + pace->per_s - 1) / pace->per_s;
    }
    if (*wait_ms > pace->max_wait_ms) {
        return RC_FULL;
    }
    pace->next = next + TOKEN;
    return RC_OK;
}
