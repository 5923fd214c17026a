/* fcgi/pace.c: turns at a rate, in order, and never later than allowed. */
#include "fcgi/pace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define NOW INT64_C(1000000)
#define SECOND_MS 1000

static int64_t
wait_of(struct pace *pace, int64_t now_ms)
{
    int64_t wait_ms;

    assert_int_equal(pace_book(pace, now_ms, &wait_ms), RC_OK);
    return wait_ms;
}

static void
without_a_limit_nobody_waits(void **state)
{
    struct pace pace;

    (void)state;
    pace_init(&pace, 0, 0);
    for (int k = 0; k < 100000; k++) {
        assert_int_equal(wait_of(&pace, NOW), 0);
    }
}

static void
turns_of_a_slow_pace_come_one_by_one(void **state)
{
    struct pace pace;
    int64_t wait_ms;

    (void)state;
    pace_init(&pace, 10, 250);
    assert_int_equal(wait_of(&pace, NOW), 0);
    assert_int_equal(wait_of(&pace, NOW), 100);
    assert_int_equal(wait_of(&pace, NOW), 200);
    assert_int_equal(pace_book(&pace, NOW, &wait_ms), RC_FULL);
    assert_int_equal(wait_ms, 300);
    assert_int_equal(pace_book(&pace, NOW + 49, &wait_ms), RC_FULL);
    assert_int_equal(wait_of(&pace, NOW + 50), 250);
}

static void
refusal_takes_no_turn(void **state)
{
    struct pace pace;
    int64_t wait_ms;

    (void)state;
    pace_init(&pace, 1, 0);
    assert_int_equal(wait_of(&pace, NOW), 0);
    for (int k = 0; k < 1000; k++) {
        assert_int_equal(pace_book(&pace, NOW + k * 999 / 1000, &wait_ms),
                         RC_FULL);
    }
    assert_int_equal(wait_of(&pace, NOW + SECOND_MS), 0);
}

static void
full_bucket_lets_a_tenth_of_a_second_pass_at_once(void **state)
{
    struct pace pace;

    (void)state;
    pace_init(&pace, 1000, SECOND_MS);
    for (int k = 0; k < 100; k++) {
        assert_int_equal(wait_of(&pace, NOW), 0);
    }
    assert_int_equal(wait_of(&pace, NOW), 1);
    assert_int_equal(wait_of(&pace, NOW), 2);
}

static void
idle_time_fills_no_more_than_the_bucket(void **state)
{
    struct pace pace;
    int at_once = 0;

    (void)state;
    pace_init(&pace, 1000, SECOND_MS);
    assert_int_equal(wait_of(&pace, NOW), 0);
    while (wait_of(&pace, NOW + 3600 * SECOND_MS) == 0) {
        at_once++;
    }
    assert_int_equal(at_once, 100);
}

/* Rates that do not divide a second lose nothing by rounding. */
static void
no_second_sees_more_and_all_seconds_see_the_rate(void **state)
{
    static const int rates[] = {1, 3, 7, 10, 33, 99, 1001, 30000};

    (void)state;
    for (size_t k = 0; k < sizeof(rates) / sizeof(rates[0]); k++) {
        int spare = rates[k] / 10 > 1 ? rates[k] / 10 : 1;
        struct pace pace;
        int taken = 0;

        pace_init(&pace, rates[k], 0);
        for (int64_t ms = 0; ms < 10 * SECOND_MS; ms++) {
            int64_t wait_ms;

            while (pace_book(&pace, NOW + ms, &wait_ms) == RC_OK) {
                taken++;
            }
            if (ms == SECOND_MS - 1) {
                assert_in_range(taken, rates[k], rates[k] + spare);
            }
        }
        assert_in_range(taken, 10 * rates[k] - 1, 10 * rates[k] + spare);
    }
}

static void
turns_never_overtake_each_other(void **state)
{
    struct pace pace;
    int64_t last_ms = 0;

    (void)state;
    pace_init(&pace, 333, 60000);
    for (int64_t k = 0; k < 5000; k++) {
        int64_t now_ms = NOW + k * 2 / 3;
        int64_t turn_ms = now_ms + wait_of(&pace, now_ms);

        assert_true(turn_ms >= last_ms);
        last_ms = turn_ms;
    }
}

static void
largest_values_do_not_overflow(void **state)
{
    const int64_t years_ms = INT64_C(100) * 365 * 24 * 3600 * 1000;
    struct pace pace;

    (void)state;
    pace_init(&pace, 1000000, 60000);
    for (int k = 0; k < 100000; k++) {
        assert_int_equal(wait_of(&pace, years_ms), 0);
    }
    assert_int_equal(wait_of(&pace, years_ms), 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_limit_nobody_waits),
        cmocka_unit_test(turns_of_a_slow_pace_come_one_by_one),
        cmocka_unit_test(refusal_takes_no_turn),
        cmocka_unit_test(full_bucket_lets_a_tenth_of_a_second_pass_at_once),
        cmocka_unit_test(idle_time_fills_no_more_than_the_bucket),
        cmocka_unit_test(no_second_sees_more_and_all_seconds_see_the_rate),
        cmocka_unit_test(turns_never_overtake_each_other),
        cmocka_unit_test(largest_values_do_not_overflow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
