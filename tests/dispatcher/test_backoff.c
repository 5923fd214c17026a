/* Full jitter: its bounds, its spread, and the cap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dispatcher/backoff.h"

#define DRAWS 2000

static struct backoff
seeded(uint64_t seed)
{
    return (struct backoff){.random = seed};
}

/* Draws of one attempt: all within 0..most_ms, near both ends, and their mean
 * near the middle. */
static void
assert_spread(int64_t base_ms, int64_t attempt, int64_t most_ms)
{
    struct backoff b = seeded(42);
    int64_t least = INT64_MAX;
    int64_t greatest = -1;
    int64_t sum = 0;

    for (int i = 0; i < DRAWS; i++) {
        int64_t ms = backoff_ms(&b, base_ms, attempt);

        assert_in_range(ms, 0, most_ms);
        least = ms < least ? ms : least;
        greatest = ms > greatest ? ms : greatest;
        sum += ms;
    }
    assert_true(least <= most_ms / 50);
    assert_true(greatest >= most_ms - most_ms / 50);
    assert_in_range(sum / DRAWS, most_ms * 4 / 10, most_ms * 6 / 10);
}

static void
the_first_wait_is_at_most_the_base(void **state)
{
    (void)state;
    assert_spread(500, 1, 500);
}

static void
every_failure_doubles_the_bound(void **state)
{
    (void)state;
    assert_spread(500, 2, 1000);
    assert_spread(500, 3, 2000);
    assert_spread(500, 6, 16000);
}

static void
the_bound_stops_at_the_maximum(void **state)
{
    (void)state;
    assert_spread(500, 7, BACKOFF_MAX_MS);
    assert_spread(500, 100, BACKOFF_MAX_MS);
    assert_spread(500, INT64_MAX, BACKOFF_MAX_MS);
    assert_spread(600000, 1, BACKOFF_MAX_MS);
    assert_spread(BACKOFF_MAX_MS, 1, BACKOFF_MAX_MS);
    assert_spread(BACKOFF_MAX_MS - 1, 1, BACKOFF_MAX_MS - 1);
}

static void
the_shortest_base_gives_0_or_1(void **state)
{
    struct backoff b = seeded(7);
    unsigned seen[2] = {0, 0};

    (void)state;
    for (int i = 0; i < 100; i++) {
        int64_t ms = backoff_ms(&b, 1, 1);

        assert_in_range(ms, 0, 1);
        seen[ms]++;
    }
    assert_true(seen[0] > 0);
    assert_true(seen[1] > 0);
}

static void
two_processes_do_not_wait_alike(void **state)
{
    struct backoff a = {0};
    struct backoff b = {0};
    unsigned same = 0;

    (void)state;
    backoff_init(&a);
    backoff_init(&b);
    assert_true(a.random != 0);
    assert_true(b.random != 0);
    for (int i = 0; i < 100; i++) {
        same += backoff_ms(&a, 30000, 1) == backoff_ms(&b, 30000, 1);
    }
    assert_true(same < 10);
}

static void
the_caller_may_have_another_maximum(void **state)
{
    struct backoff b = seeded(42);
    int64_t greatest = 0;

    (void)state;
    for (int i = 0; i < DRAWS; i++) {
        int64_t ms = backoff_capped_ms(&b, 60000, 1 + i % 30, 3600000);

        assert_in_range(ms, 0, 3600000);
        greatest = ms > greatest ? ms : greatest;
    }
    assert_true(greatest > 3500000);
    assert_in_range(backoff_capped_ms(&b, 5000, 1, 10), 0, 10);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_wait_is_at_most_the_base),
        cmocka_unit_test(every_failure_doubles_the_bound),
        cmocka_unit_test(the_bound_stops_at_the_maximum),
        cmocka_unit_test(the_shortest_base_gives_0_or_1),
        cmocka_unit_test(two_processes_do_not_wait_alike),
        cmocka_unit_test(the_caller_may_have_another_maximum),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
