/* One run of the real limiter on a virtual clock, against a modelled network
 * and provider: what `sluice-simulate` is made of. There is always another
 * call waiting, so a run shows how much of the limit can be used. */
#ifndef SLUICE_DISPATCHER_SIMULATE_RUN_H
#define SLUICE_DISPATCHER_SIMULATE_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dispatcher/limiter.h"
#include "shared/rc.h"

struct simulate_range {
    int64_t min_us;
    int64_t max_us; /* inclusive */
};

struct simulate_options {
    size_t count; /* what the provider allows, and the limiter believes */
    int64_t window_us;
    bool fixed_window; /* the provider counts in [k * window, k+1 * window) */
    enum limiter_count_at count_at;
    struct simulate_range jitter; /* one way, drawn for each packet */
    struct simulate_range ack;    /* the acknowledgement's way back */
    double late_share;            /* of the packets, there and back, come */
    int64_t late_us;              /* this much later */
    struct simulate_range answer; /* from arrival to answer */
    int64_t lockout_us; /* after a 429; a request meanwhile starts it anew */
    double others_per_minute; /* requests that take from the same limit */
    int64_t restart_every_us; /* kill -9 and up again; 0: never */
    int64_t duration_us;
    size_t max_in_flight;
    struct limiter_options limiter; /* its count and window are ignored */
};

struct simulate_result {
    uint64_t calls; /* ours that the provider took */
    double share;   /* calls / (count * duration / window) */
    uint64_t refused;
    uint64_t episodes;
    size_t max_in_window; /* requests of all, refused ones too */
    int64_t worst_guard_us;
};

/* RC_INVALID: the limiter does not take its options; RC_NOMEM. The same seed
 * is the same run. Any thread. */
enum rc simulate_run(const struct simulate_options *options, uint64_t seed,
                     struct simulate_result *out) MUST_CHECK;

#endif
