/* dispatcher/metrics.c: values, and the text format that Prometheus reads. */
#include "dispatcher/metrics.h"

#include <inttypes.h>
#include <regex.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int
setup(void **state)
{
    struct metrics *m;

    if (metrics_new(&m) != RC_OK) {
        return -1;
    }
    *state = m;
    return 0;
}

static int
teardown(void **state)
{
    struct metrics *m = *state;

    metrics_free(&m);
    return m == NULL ? 0 : -1;
}

static void
values_are_kept_by_metric_and_service(void **state)
{
    struct metrics *m = *state;

    metrics_add(m, METRIC_FEED_LIVE_TOTAL, SERVICE_CALLBACK, 2);
    metrics_add(m, METRIC_FEED_LIVE_TOTAL, SERVICE_CALLBACK, 3);
    metrics_set(m, METRIC_POSTGRES_UP, SERVICE_COUNT, 1);
    metrics_set(m, METRIC_WAL_BYTES, SERVICE_COUNT, INT64_MAX);
    assert_int_equal(metrics_get(m, METRIC_FEED_LIVE_TOTAL, SERVICE_CALLBACK),
                     5);
    assert_int_equal(metrics_get(m, METRIC_POSTGRES_UP, SERVICE_COUNT), 1);
    assert_int_equal(metrics_get(m, METRIC_WAL_BYTES, SERVICE_COUNT),
                     INT64_MAX);
    assert_int_equal(
        metrics_get(m, METRIC_FEED_JOURNAL_TOTAL, SERVICE_CALLBACK), 0);
}

/* The value behind a line that begins with this name and labels. */
static double
printed(const char *text, const char *series)
{
    size_t bytes = strlen(series);

    for (const char *line = text; line != NULL; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, series, bytes) == 0 && line[bytes] == ' ') {
            return strtod(line + bytes, NULL);
        }
    }
    fail_msg("no %s", series);
    return -1;
}

static void
histogram_buckets_are_cumulative(void **state)
{
    static const struct {
        const char *series;
        double value;
    } table[] = {
        {"sluice_fetch_seconds_bucket{le=\"0.001\"}", 2}, /* 0 and 1 ms */
        {"sluice_fetch_seconds_bucket{le=\"0.002\"}", 3}, /* 2 ms */
        {"sluice_fetch_seconds_bucket{le=\"0.005\"}", 4}, /* 3 ms */
        {"sluice_fetch_seconds_bucket{le=\"0.5\"}", 4},
        {"sluice_fetch_seconds_bucket{le=\"1\"}", 5}, /* 1000 ms */
        {"sluice_fetch_seconds_bucket{le=\"300\"}", 5},
        {"sluice_fetch_seconds_bucket{le=\"+Inf\"}", 6}, /* 1000 s */
        {"sluice_fetch_seconds_count", 6},
        {"sluice_fetch_seconds_sum", 1001.006},
    };
    static const int64_t observed[] = {-5, 1, 2, 3, 1000, 1000000};
    struct metrics *m = *state;
    struct text out = {0};

    for (size_t i = 0; i < ARRAY_COUNT(observed); i++) {
        metrics_observe_ms(m, METRIC_FETCH_MS, SERVICE_COUNT, observed[i]);
    }
    metrics_print(m, &out);
    for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
        double difference =
            printed(text_cstr(&out), table[i].series) - table[i].value;

        if (difference > 0.0001 || difference < -0.0001) {
            fail_msg("%s is off by %g", table[i].series, difference);
        }
    }
    assert_int_equal(metrics_get(m, METRIC_FETCH_MS, SERVICE_COUNT), 6);
    text_free(&out);
}

static void
labels_name_the_service(void **state)
{
    struct metrics *m = *state;
    struct text out = {0};

    metrics_set(m, METRIC_INBOX_ROWS, SERVICE_CALLBACK, 7);
    metrics_observe_ms(m, METRIC_COMPLETION_MS, SERVICE_CALLBACK, 100);
    metrics_print(m, &out);
    assert_true(printed(text_cstr(&out),
                        "sluice_inbox_rows{service=\"callback\"}") == 7);
    assert_true(printed(text_cstr(&out),
                        "sluice_completion_seconds_bucket{"
                        "service=\"callback\",le=\"0.1\"}") == 1);
    assert_true(printed(text_cstr(&out), "sluice_completion_seconds_count{"
                                         "service=\"callback\"}") == 1);
    text_free(&out);
}

/* Every line is HELP, TYPE or a sample, and each name is described once. */
static void
the_text_is_prometheus(void **state)
{
    struct metrics *m = *state;
    struct text out = {0};
    regex_t comment;
    regex_t sample;
    unsigned types = 0;
    char *rest;

    assert_int_equal(regcomp(&comment,
                             "^# (HELP [a-z_]+ [^\\]+\\.|TYPE [a-z_]+ "
                             "(counter|gauge|histogram))$",
                             REG_EXTENDED | REG_NOSUB),
                     0);
    assert_int_equal(regcomp(&sample,
                             "^sluice_[a-z_]+(\\{([a-z]+=\"[^\"\\]*\",?)+\\})? "
                             "-?[0-9]+(\\.[0-9]+)?$",
                             REG_EXTENDED | REG_NOSUB),
                     0);
    metrics_print(m, &out);
    assert_false(text_failed(&out));
    assert_int_equal(out.data[out.bytes - 1], '\n');
    for (char *line = strtok_r(out.data, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        const regex_t *form = line[0] == '#' ? &comment : &sample;

        if (regexec(form, line, 0, NULL, 0) != 0) {
            fail_msg("not Prometheus: %s", line);
        }
        types += strncmp(line, "# TYPE", 6) == 0;
    }
    assert_int_equal(types, METRIC_COUNT);
    regfree(&comment);
    regfree(&sample);
    text_free(&out);
}

static void
names_are_unique_and_counters_end_in_total(void **state)
{
    struct metrics *m = *state;
    struct text out = {0};
    char names[METRIC_COUNT][64];
    unsigned count = 0;
    char *rest;

    metrics_print(m, &out);
    for (char *line = strtok_r(out.data, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        char kind[16];
        size_t bytes;

        if (sscanf(line, "# TYPE %63s %15s", names[count], kind) != 2) {
            continue;
        }
        for (unsigned i = 0; i < count; i++) {
            assert_string_not_equal(names[i], names[count]);
        }
        bytes = strlen(names[count]);
        assert_int_equal(strcmp(kind, "counter") == 0,
                         bytes > 6 &&
                             strcmp(names[count] + bytes - 6, "_total") == 0);
        count++;
    }
    assert_int_equal(count, METRIC_COUNT);
    text_free(&out);
}

#define WITH_METRICS(test)                                                     \
    cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_METRICS(values_are_kept_by_metric_and_service),
        WITH_METRICS(histogram_buckets_are_cumulative),
        WITH_METRICS(labels_name_the_service),
        WITH_METRICS(the_text_is_prometheus),
        WITH_METRICS(names_are_unique_and_counters_end_in_total),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
