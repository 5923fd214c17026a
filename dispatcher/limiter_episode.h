/* What a 429 does to the limiter (a part of it, see limiter.h): one episode
 * for all requests that were under way.
 *
 *   OPEN      -- 429 --------------> PAUSED    every send stops
 *   PAUSED    -- 429 --------------> PAUSED    the end moves, the step does not
 *   PAUSED    -- sent after the end -> PROBING one request, the probe
 *   PROBING   -- answered ---------> REFILLING
 *             -- 429 --------------> PAUSED    one step up: twice as long
 *             -- lost -------------> PAUSED    the same step
 *             -- returned ---------> PAUSED    its end has passed already
 *   REFILLING -- one window -------> OPEN
 *             -- 429 --------------> PAUSED
 *
 * Whose 429 it is tells the generation, a number that grows with every
 * request: one sent before the probe's success belongs to the episode that
 * there was, though it comes after it. Such a 429 stops everything, too, but it
 * says nothing new about the guard. */
#ifndef SLUICE_DISPATCHER_LIMITER_EPISODE_H
#define SLUICE_DISPATCHER_LIMITER_EPISODE_H

#include <stdbool.h>
#include <stdint.h>

enum limiter_phase {
    LIMITER_OPEN,
    LIMITER_PAUSED,
    LIMITER_PROBING,
    LIMITER_REFILLING,
};

/* "open". Never NULL. */
const char *limiter_phase_name(enum limiter_phase phase);

/* A value, its owner is the limiter. {0} but for the first four is OPEN. */
struct limiter_episode {
    int64_t backoff_us; /* the first pause */
    int64_t max_backoff_us;
    int64_t window_us;
    int64_t spacing_us; /* between two requests of a refill */
    enum limiter_phase phase;
    unsigned step;   /* the pause is backoff_us * 2^step, at most the max */
    int64_t end_us;  /* of the pause, or of the refill */
    int64_t next_us; /* while refilling: no request before */
    uint64_t newest; /* generations up to it belong to the episode */
    uint64_t probe;  /* generation of the newest probe */
};

/* The phase at now_us: a refill ends by itself. */
enum limiter_phase limiter_episode_phase(const struct limiter_episode *e,
                                         int64_t now_us);

/* No request before this moment; INT64_MIN: none is forbidden, INT64_MAX: only
 * the probe's end can tell. */
int64_t limiter_episode_next_us(const struct limiter_episode *e,
                                int64_t now_us);

/* May a request of that generation, allowed before, still be written? */
bool limiter_episode_may_send(const struct limiter_episode *e,
                              uint64_t generation);

/* Request generation was allowed at now_us >= limiter_episode_next_us. */
void limiter_episode_sent(struct limiter_episode *e, uint64_t generation,
                          int64_t now_us);

/* It was refused with 429, and newest is the newest generation there is. True:
 * a new episode begins. */
bool limiter_episode_refused(struct limiter_episode *e, uint64_t generation,
                             uint64_t newest, int64_t now_us);

/* It was answered, lost (there will be no answer), returned (never sent). */
void limiter_episode_answered(struct limiter_episode *e, uint64_t generation,
                              int64_t now_us);
void limiter_episode_lost(struct limiter_episode *e, uint64_t generation,
                          int64_t now_us);
void limiter_episode_returned(struct limiter_episode *e, uint64_t generation);

#endif
