/* The episode of 429s: see limiter_episode.h. */
#include "dispatcher/limiter_episode.h"

#include "shared/rc.h"

static int64_t
later(int64_t a_us, int64_t b_us)
{
    return a_us > b_us ? a_us : b_us;
}

/* The length of the pause at this step. */
static int64_t
pause_us(const struct limiter_episode *e)
{
    int64_t us = e->backoff_us;

    for (unsigned i = 0; i < e->step && us < e->max_backoff_us; i++) {
        us *= 2;
    }
    return us < e->max_backoff_us ? us : e->max_backoff_us;
}

/* The end never moves backwards: two 429s may be reported out of order. */
static void
pause(struct limiter_episode *e, int64_t now_us)
{
    int64_t before_us =
        e->phase == LIMITER_PAUSED || e->phase == LIMITER_PROBING ? e->end_us
                                                                  : INT64_MIN;

    e->end_us = later(before_us, now_us + pause_us(e));
}

const char *
limiter_phase_name(enum limiter_phase phase)
{
    static const char *const names[] = {
        [LIMITER_OPEN] = "open",
        [LIMITER_PAUSED] = "paused",
        [LIMITER_PROBING] = "probing",
        [LIMITER_REFILLING] = "refilling",
    };

    return (unsigned)phase < ARRAY_COUNT(names) ? names[phase] : "unknown";
}

enum limiter_phase
limiter_episode_phase(const struct limiter_episode *e, int64_t now_us)
{
    return e->phase == LIMITER_REFILLING && now_us >= e->end_us ? LIMITER_OPEN
                                                                : e->phase;
}

int64_t
limiter_episode_next_us(const struct limiter_episode *e, int64_t now_us)
{
    switch (limiter_episode_phase(e, now_us)) {
    case LIMITER_OPEN:
        break;
    case LIMITER_PAUSED:
        return e->end_us;
    case LIMITER_PROBING:
        return INT64_MAX;
    case LIMITER_REFILLING:
        return e->next_us < e->end_us ? e->next_us : e->end_us;
    }
    return INT64_MIN;
}

bool
limiter_episode_may_send(const struct limiter_episode *e, uint64_t generation)
{
    switch (e->phase) {
    case LIMITER_OPEN:
    case LIMITER_REFILLING:
        return generation > e->newest;
    case LIMITER_PAUSED:
        return false;
    case LIMITER_PROBING:
        return generation == e->probe;
    }
    return false;
}

void
limiter_episode_sent(struct limiter_episode *e, uint64_t generation,
                     int64_t now_us)
{
    switch (limiter_episode_phase(e, now_us)) {
    case LIMITER_OPEN:
        e->phase = LIMITER_OPEN;
        break;
    case LIMITER_PAUSED:
        e->phase = LIMITER_PROBING;
        e->probe = generation;
        e->newest = generation;
        break;
    case LIMITER_PROBING:
        break;
    case LIMITER_REFILLING:
        e->next_us = now_us + e->spacing_us;
        break;
    }
}

bool
limiter_episode_refused(struct limiter_episode *e, uint64_t generation,
                        uint64_t newest, int64_t now_us)
{
    switch (e->phase) {
    case LIMITER_OPEN:
    case LIMITER_REFILLING:
        break;
    case LIMITER_PROBING:
        if (generation != e->probe) {
            pause(e, now_us);
            return false;
        }
        e->step += pause_us(e) < e->max_backoff_us;
        e->phase = LIMITER_PAUSED;
        pause(e, now_us);
        return false;
    case LIMITER_PAUSED:
        pause(e, now_us);
        return false;
    }
    pause(e, now_us);
    e->phase = LIMITER_PAUSED;
    if (generation <= e->newest) {
        e->newest = newest;
        return false;
    }
    e->newest = newest;
    return true;
}

void
limiter_episode_answered(struct limiter_episode *e, uint64_t generation,
                         int64_t now_us)
{
    if (e->phase != LIMITER_PROBING || generation != e->probe) {
        return;
    }
    /* A late 429 while the probe was under way has moved the end. */
    e->next_us = later(now_us + e->spacing_us, e->end_us);
    e->end_us = e->next_us + e->window_us;
    e->phase = LIMITER_REFILLING;
    e->step = 0;
}

void
limiter_episode_lost(struct limiter_episode *e, uint64_t generation,
                     int64_t now_us)
{
    if (e->phase == LIMITER_PROBING && generation == e->probe) {
        e->phase = LIMITER_PAUSED;
        pause(e, now_us);
    }
}

void
limiter_episode_returned(struct limiter_episode *e, uint64_t generation)
{
    if (e->phase == LIMITER_PROBING && generation == e->probe) {
        e->phase = LIMITER_PAUSED;
    }
}
