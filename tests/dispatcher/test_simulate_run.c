/* dispatcher/simulate_run.c: does the modelled provider do what a provider
 * does? What the limiter makes of it is in test_limiter.c and, over many
 * seeds, in tests/e2e/test_simulate.py. */
#include "dispatcher/simulate_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define MS INT64_C(1000)
#define S INT64_C(1000000)

/* A perfect network, answers at once, ten minutes. */
static struct simulate_options
perfect(void)
{
    return (struct simulate_options){
        .count = 10,
        .window_us = 10 * S,
        .lockout_us = 30 * S,
        .duration_us = 600 * S,
        .max_in_flight = 100,
        .limiter = {.guard_min_us = 5 * MS,
                    .backoff_us = LIMITER_BACKOFF_US,
                    .max_backoff_us = LIMITER_MAX_BACKOFF_US},
    };
}

static struct simulate_result
run(const struct simulate_options *options, uint64_t seed)
{
    struct simulate_result result;

    assert_int_equal(simulate_run(options, seed, &result), RC_OK);
    return result;
}

static void
a_perfect_network_leaves_only_the_guard(void **state)
{
    struct simulate_options options = perfect();
    struct simulate_result r = run(&options, 1);

    (void)state;
    /* Ten each at 0, 10.005, ... 590.295. */
    assert_int_equal(r.calls, 600);
    assert_int_equal(r.refused, 0);
    assert_int_equal(r.max_in_window, 10);
    assert_true(r.share > 0.9999 && r.share < 1.0001);
    assert_int_equal(r.worst_guard_us, 5 * MS);
}

static void
a_round_trip_is_lost_for_each_slot(void **state)
{
    struct simulate_options options = perfect();
    struct simulate_result r;

    (void)state;
    options.jitter = (struct simulate_range){S, S};
    options.ack = (struct simulate_range){1995 * MS, 1995 * MS};
    options.answer = (struct simulate_range){3 * S, 3 * S};
    r = run(&options, 1);
    /* Arrivals at 1, 14, ... 599: a cycle is 10 + 1 + 1.995 + 0.005. */
    assert_int_equal(r.calls, 470);
}

static void
max_in_flight_bounds_calls_until_their_answers(void **state)
{
    struct simulate_options options = perfect();

    (void)state;
    options.max_in_flight = 1;
    options.answer = (struct simulate_range){6 * S, 6 * S};
    assert_int_equal(run(&options, 1).calls, 100);
}

static void
counted_at_the_answer_a_slot_is_held_until_then(void **state)
{
    struct simulate_options options = perfect();
    struct simulate_result r;

    (void)state;
    options.count_at = LIMITER_ANSWER;
    options.answer = (struct simulate_range){9995 * MS, 9995 * MS};
    r = run(&options, 1);
    /* Counted at 9.995, 29.995, ... */
    assert_int_equal(r.calls, 300);
    assert_int_equal(r.refused, 0);
}

static void
others_cause_429s_and_each_is_one_episode(void **state)
{
    struct simulate_options options = perfect();
    struct simulate_result r;

    (void)state;
    options.others_per_minute = 6;
    r = run(&options, 1);
    assert_true(r.refused > 0);
    assert_int_equal(r.episodes, r.refused);
    assert_true(r.max_in_window > 10);
    assert_true(r.worst_guard_us > 100 * MS);
}

static void
a_lockout_longer_than_the_pause_is_probed_with_doubling(void **state)
{
    struct simulate_options options = perfect();
    struct simulate_result r;

    (void)state;
    options.others_per_minute = 6;
    options.lockout_us = 100 * S;
    r = run(&options, 1);
    assert_true(r.episodes > 0);
    /* Refused after 30 and 60 s; taken after 120 s. */
    assert_true(r.refused > r.episodes && r.refused <= 3 * r.episodes);
    assert_true(r.calls > 0);
}

static void
a_fixed_window_starts_anew_at_its_edge(void **state)
{
    struct simulate_options options = perfect();
    struct simulate_result r;

    (void)state;
    /* What others took is forgiven at the edge, not a window later. */
    options.others_per_minute = 6;
    r = run(&options, 1);
    options.fixed_window = true;
    assert_true(run(&options, 1).calls > r.calls);
}

static void
a_restart_loses_no_slot(void **state)
{
    struct simulate_options options = perfect();

    (void)state;
    options.restart_every_us = 3 * S;
    options.jitter = (struct simulate_range){0, 900 * MS};
    options.ack = options.jitter;
    options.limiter.flight_us = S;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct simulate_result r = run(&options, seed);

        assert_int_equal(r.refused, 0);
        assert_true(r.max_in_window <= 10);
        assert_true(r.share > 0.85);
    }
}

static void
a_limiter_that_takes_no_such_options_is_said(void **state)
{
    struct simulate_options options = perfect();
    struct simulate_result r;

    (void)state;
    options.limiter.backoff_us = 0;
    assert_int_equal(simulate_run(&options, 1, &r), RC_INVALID);
    assert_int_equal(r.calls, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_perfect_network_leaves_only_the_guard),
        cmocka_unit_test(a_round_trip_is_lost_for_each_slot),
        cmocka_unit_test(max_in_flight_bounds_calls_until_their_answers),
        cmocka_unit_test(counted_at_the_answer_a_slot_is_held_until_then),
        cmocka_unit_test(others_cause_429s_and_each_is_one_episode),
        cmocka_unit_test(
            a_lockout_longer_than_the_pause_is_probed_with_doubling),
        cmocka_unit_test(a_fixed_window_starts_anew_at_its_edge),
        cmocka_unit_test(a_restart_loses_no_slot),
        cmocka_unit_test(a_limiter_that_takes_no_such_options_is_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
