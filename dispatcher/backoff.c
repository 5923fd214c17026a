/* Full jitter over an exponentially growing time. */
#include "dispatcher/backoff.h"

#include <sys/random.h>

void
backoff_init(struct backoff *b)
{
    if (getrandom(&b->random, sizeof(b->random), 0) < 0 || b->random == 0) {
        b->random = UINT64_C(0x9e3779b97f4a7c15);
    }
}

/* xorshift64*. */
static uint64_t
next_random(struct backoff *b)
{
    b->random ^= b->random >> 12;
    b->random ^= b->random << 25;
    b->random ^= b->random >> 27;
    return b->random * UINT64_C(0x2545f4914f6cdd1d);
}

int64_t
backoff_capped_ms(struct backoff *b, int64_t base_ms, int64_t attempt,
                  int64_t cap_ms)
{
    int64_t most_ms = base_ms;

    for (int64_t i = 1; i < attempt && most_ms < cap_ms; i++) {
        most_ms *= 2;
    }
    if (most_ms > cap_ms) {
        most_ms = cap_ms;
    }
    return (int64_t)(next_random(b) % (uint64_t)(most_ms + 1));
}

int64_t
backoff_ms(struct backoff *b, int64_t base_ms, int64_t attempt)
{
    return backoff_capped_ms(b, base_ms, attempt, BACKOFF_MAX_MS);
}
