/* shared/clock.c */
#include "shared/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "shared/rc.h"

static void
known_times_are_written_as_rfc_3339(void **state)
{
    static const struct {
        int64_t unix_ms;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {1, "1970-01-01T00:00:00.001Z"},
        {999, "1970-01-01T00:00:00.999Z"},
        {86399999, "1970-01-01T23:59:59.999Z"},
        {86400000, "1970-01-02T00:00:00.000Z"},
        {951782400000, "2000-02-29T00:00:00.000Z"},
        {951868800000, "2000-03-01T00:00:00.000Z"},
        {1709251199999, "2024-02-29T23:59:59.999Z"},
        {1767322985678, "2026-01-02T03:03:05.678Z"},
        {4107542400000, "2100-03-01T00:00:00.000Z"},
        {253402300799999, "9999-12-31T23:59:59.999Z"},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        char out[CLOCK_RFC3339_BYTES];

        assert_string_equal(clock_rfc3339(cases[i].unix_ms, out),
                            cases[i].text);
    }
}

static void
times_out_of_range_are_clamped(void **state)
{
    char out[CLOCK_RFC3339_BYTES];

    (void)state;
    assert_string_equal(clock_rfc3339(-1, out), "1970-01-01T00:00:00.000Z");
    assert_string_equal(clock_rfc3339(INT64_MIN, out),
                        "1970-01-01T00:00:00.000Z");
    assert_string_equal(clock_rfc3339(253402300800000, out),
                        "9999-12-31T23:59:59.999Z");
    assert_string_equal(clock_rfc3339(INT64_MAX, out),
                        "9999-12-31T23:59:59.999Z");
}

static void
every_day_until_2150_agrees_with_the_c_library(void **state)
{
    (void)state;
    for (int64_t day = 0; day < 65745; day++) {
        time_t at = (time_t)(day * 86400 + 3661);
        char expected[CLOCK_RFC3339_BYTES];
        char out[CLOCK_RFC3339_BYTES];
        struct tm tm;

        assert_non_null(gmtime_r(&at, &tm));
        assert_int_not_equal(
            strftime(expected, sizeof(expected), "%Y-%m-%dT%H:%M:%S.007Z", &tm),
            0);
        assert_string_equal(clock_rfc3339((int64_t)at * 1000 + 7, out),
                            expected);
    }
}

static void
the_monotonic_clock_never_goes_back_and_ms_are_us_by_1000(void **state)
{
    int64_t last_us = clock_now_us();

    (void)state;
    for (int i = 0; i < 1000; i++) {
        int64_t ms = clock_now_ms();
        int64_t us = clock_now_us();

        assert_true(us >= last_us);
        assert_true(ms <= us / 1000);
        assert_true(ms >= last_us / 1000);
        last_us = us;
    }
}

static void
wall_time_is_that_of_the_c_library(void **state)
{
    int64_t before = (int64_t)time(NULL);
    int64_t now = clock_now_unix_ms();

    (void)state;
    /* time() may lag behind by a tick of the kernel. */
    assert_true(now / 1000 >= before);
    assert_true(now / 1000 <= (int64_t)time(NULL) + 1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_times_are_written_as_rfc_3339),
        cmocka_unit_test(times_out_of_range_are_clamped),
        cmocka_unit_test(every_day_until_2150_agrees_with_the_c_library),
        cmocka_unit_test(
            the_monotonic_clock_never_goes_back_and_ms_are_us_by_1000),
        cmocka_unit_test(wall_time_is_that_of_the_c_library),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
