/* shared/sms_lookup.c on a real server; the journal is faked. */
#include "shared/sms_lookup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/shared/pg_fixture.h"

#define NODE 42
#define NOW INT64_C(1800000000000)
#define OURS "01890000-0000-7000-8000-00000000002a"
#define SENT "01890000-0000-7000-8000-00000001002a"
#define FOREIGN "01890000-0000-7000-8000-00000000002b"
#define ABSENT "01890000-0000-7000-8000-00000002002a"
#define ABSENT_FOREIGN "01890000-0000-7000-8000-00000002002b"

struct places_fixture {
    struct lookup places;
    struct pg *nowhere;
    enum rc rc; /* what the journal says */
    struct journal_entry entry;
    unsigned asked;
};

static struct places_fixture *fixture;

enum rc __wrap_journal_locate(struct journal *j, enum service service,
                              const struct uuid *id, struct journal_entry *out);

enum rc
__wrap_journal_locate(struct journal *j, enum service service,
                      const struct uuid *id, struct journal_entry *out)
{
    assert_ptr_equal(j, fixture);
    assert_int_equal(service, SERVICE_SMS);
    fixture->asked++;
    *out = fixture->entry;
    out->id = *id;
    return fixture->rc;
}

static int
setup(void **state)
{
    struct places_fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    (void)pg_fixture_database("l");
    f->places.pg = pg_fixture_pg("l");
    f->places.journal = (struct journal *)f;
    f->places.node_id = NODE;
    f->rc = RC_AGAIN;
    pg_fixture_migration(f->places.pg, "0003_sms.sql");
    assert_int_equal(
        pg_exec_script(f->places.pg,
                       "INSERT INTO sms VALUES ('" OURS
                       "', '+491', 'a', 1, 'GSM-7', 'ACCEPTED', 1, NULL,"
                       " '2026-01-02 03:04:05.678Z', NULL, NULL),"
                       "('" SENT "', '+491', 'a', 1, 'GSM-7', 'DELIVERED', 9,"
                       " '" OURS "', '2026-01-02 03:04:05.678Z',"
                       " '2026-01-02 03:04:06Z', '2026-01-02 03:04:07.001Z'),"
                       "('" FOREIGN "', '+491', 'a', 1, 'GSM-7', 'FAILED', 5,"
                       " NULL, '2026-01-02 03:04:05.678Z', NULL, now())"),
        RC_OK);
    assert_int_equal(pg_new(&f->nowhere, "postgresql:///x?host=/nowhere", 100),
                     RC_OK);
    fixture = f;
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct places_fixture *f = *state;

    pg_free(&f->places.pg);
    pg_free(&f->nowhere);
    free(f);
    return 0;
}

static enum rc
find_at(const struct lookup *places, const char *text, struct sms_entry *out)
{
    struct uuid id;

    assert_int_equal(uuid_parse(text, &id), RC_OK);
    return sms_find(places, &id, out);
}

static enum rc
find(struct places_fixture *f, const char *text, struct sms_entry *out)
{
    return find_at(&f->places, text, out);
}

static void
expect_json(const struct sms_entry *entry, const char *expected)
{
    struct text out = {0};

    sms_json(entry, &out);
    assert_string_equal(text_cstr(&out), expected);
    text_free(&out);
}

/* ---- a message
 * -------------------------------------------------------------- */

static void
a_stored_message_is_a_document(void **state)
{
    struct places_fixture *f = *state;
    struct sms_entry entry;

    assert_int_equal(find(f, SENT, &entry), RC_OK);
    expect_json(&entry, "{\"id\":\"" SENT "\",\"status\":\"DELIVERED\","
                        "\"dead\":false,\"last_error\":null,"
                        "\"received_at\":\"2026-01-02T03:04:05.678Z\","
                        "\"sent_at\":\"2026-01-02T03:04:06.000Z\","
                        "\"updated_at\":\"2026-01-02T03:04:07.001Z\"}");
    assert_int_equal(find(f, OURS, &entry), RC_OK);
    expect_json(&entry, "{\"id\":\"" OURS "\",\"status\":\"ACCEPTED\","
                        "\"dead\":false,\"last_error\":null,"
                        "\"received_at\":\"2026-01-02T03:04:05.678Z\","
                        "\"sent_at\":null,\"updated_at\":null}");
    assert_int_equal(find(f, FOREIGN, &entry), RC_OK);
    assert_int_equal(entry.state, SMS_FAILED);
}

static void
one_in_the_journal_is_accepted_whatever_the_database_does(void **state)
{
    struct places_fixture *f = *state;
    struct lookup places = f->places;
    struct sms_entry entry;

    places.pg = f->nowhere;
    f->rc = RC_OK;
    f->entry = (struct journal_entry){.place = JOURNAL_PENDING,
                                      .service = SERVICE_SMS,
                                      .received_unix_ms = 1};
    assert_int_equal(find_at(&places, ABSENT, &entry), RC_OK);
    expect_json(&entry, "{\"id\":\"" ABSENT "\",\"status\":\"ACCEPTED\","
                        "\"dead\":false,\"last_error\":null,"
                        "\"received_at\":\"1970-01-01T00:00:00.001Z\","
                        "\"sent_at\":null,\"updated_at\":null}");
    f->entry.place = JOURNAL_PERSISTING;
    assert_int_equal(find_at(&places, ABSENT, &entry), RC_OK);
    assert_int_equal(entry.state, SMS_ACCEPTED);
    assert_false(entry.dead);
    assert_int_equal(f->asked, 2);
}

static void
a_dead_one_is_accepted_and_says_why(void **state)
{
    struct places_fixture *f = *state;
    struct sms_entry entry;

    f->rc = RC_OK;
    f->entry = (struct journal_entry){.place = JOURNAL_DEAD,
                                      .service = SERVICE_SMS,
                                      .received_unix_ms = 1,
                                      .reason = "HTTP \"500\""};
    assert_int_equal(find(f, ABSENT, &entry), RC_OK);
    expect_json(&entry, "{\"id\":\"" ABSENT "\",\"status\":\"ACCEPTED\","
                        "\"dead\":true,\"last_error\":\"HTTP \\\"500\\\"\","
                        "\"received_at\":\"1970-01-01T00:00:00.001Z\","
                        "\"sent_at\":null,\"updated_at\":null}");
}

static void
absent_is_only_what_no_place_can_know(void **state)
{
    struct places_fixture *f = *state;
    struct lookup places = f->places;
    struct sms_entry entry;

    assert_int_equal(find(f, ABSENT, &entry), RC_AGAIN);
    assert_int_equal(find(f, ABSENT_FOREIGN, &entry), RC_IO);
    places.pg = f->nowhere;
    assert_int_equal(find_at(&places, ABSENT, &entry), RC_IO);
    f->rc = RC_IO; /* the journal does not answer */
    assert_int_equal(find(f, ABSENT, &entry), RC_IO);
    assert_int_equal(find(f, SENT, &entry), RC_OK);
    assert_int_equal(entry.state, SMS_DELIVERED);
    assert_int_equal(pg_exec(f->places.pg, "DROP TABLE sms", 0, NULL, NULL),
                     RC_OK);
    f->rc = RC_AGAIN;
    assert_int_equal(find(f, ABSENT, &entry), RC_IO);
    assert_int_equal(entry.received_unix_ms, 0);
}

/* ---- statistics
 * -------------------------------------------------------------- */

static void
no_batch_has_no_percentage(void **state)
{
    struct places_fixture *f = *state;
    struct sms_statistics all;
    struct sms_statistics hour;
    struct text out = {0};

    assert_int_equal(sms_statistics_read(f->places.pg, NOW, &all, &hour),
                     RC_OK);
    assert_memory_equal(&all, &hour, sizeof(all));
    sms_statistics_json(&all, &out);
    assert_string_equal(
        text_cstr(&out),
        "{\"batches_sent\":0,\"batches_failed\":0,\"success_percent\":null,"
        "\"messages\":0,\"mean_fill\":null,\"attempts\":0,\"p50_ms\":null,"
        "\"p99_ms\":null,\"requests_saved\":0}");
    text_free(&out);
}

static void
both_spans_are_read_at_once(void **state)
{
    struct places_fixture *f = *state;
    struct sms_statistics all;
    struct sms_statistics hour;
    struct text out = {0};

    /* 100 old ones of 10 ... 1000 ms; in the hour one that was sent at its very
     * first moment, and one that failed. */
    assert_int_equal(
        pg_exec_script(
            f->places.pg,
            "INSERT INTO sms_batches SELECT gen_random_uuid(), 100, 1, n * 10,"
            " timestamptz 'epoch', timestamptz 'epoch', NULL"
            " FROM generate_series(1, 100) AS n;"
            "INSERT INTO sms_batches VALUES (gen_random_uuid(), 7, 2, 5,"
            " timestamptz 'epoch', timestamptz 'epoch' + 1799996400000"
            " * interval '1 millisecond', NULL);"
            "INSERT INTO sms_batches VALUES (gen_random_uuid(), 9, 5, 30000,"
            " timestamptz 'epoch', timestamptz 'epoch' + 1800000000000"
            " * interval '1 millisecond', 'HTTP 500')"),
        RC_OK);
    assert_int_equal(sms_statistics_read(f->places.pg, NOW, &all, &hour),
                     RC_OK);
    sms_statistics_json(&all, &out);
    assert_string_equal(
        text_cstr(&out),
        "{\"batches_sent\":101,\"batches_failed\":1,"
        "\"success_percent\":99.01,\"messages\":10007,\"mean_fill\":99.07,"
        "\"attempts\":107,\"p50_ms\":500,\"p99_ms\":1000,"
        "\"requests_saved\":9900}");
    text_reset(&out);
    sms_statistics_json(&hour, &out);
    assert_string_equal(
        text_cstr(&out),
        "{\"batches_sent\":1,\"batches_failed\":1,\"success_percent\":50.00,"
        "\"messages\":7,\"mean_fill\":7.00,\"attempts\":7,\"p50_ms\":5,"
        "\"p99_ms\":30000,\"requests_saved\":0}");
    text_free(&out);
    assert_int_equal(sms_statistics_read(f->nowhere, NOW, &all, &hour), RC_IO);
    assert_int_equal(all.p50_ms, -1);
    assert_int_equal(hour.batches_sent, 0);
}

static void
expect_percent(int64_t sent, int64_t failed, const char *expected)
{
    struct sms_statistics statistics = {.batches_sent = sent,
                                        .batches_failed = failed};
    struct text out = {0};
    char member[64];

    (void)snprintf(member, sizeof(member), "\"success_percent\":%s,", expected);
    sms_statistics_json(&statistics, &out);
    if (strstr(text_cstr(&out), member) == NULL) {
        fail_msg("%s lacks %s", text_cstr(&out), member);
    }
    text_free(&out);
}

static void
percentages_are_rounded_down(void **state)
{
    (void)state;
    expect_percent(0, 0, "null");
    expect_percent(0, 1, "0.00");
    expect_percent(1, 0, "100.00");
    expect_percent(1, 2, "33.33");
    expect_percent(2, 1, "66.66");
    expect_percent(1, 1, "50.00");
    expect_percent(99999, 1, "99.99");
    expect_percent(1, 99999, "0.00");
    expect_percent(7, 93, "7.00");
    expect_percent(1, 9999, "0.01");
    expect_percent(INT64_MAX, 0, "100.00");
    expect_percent(INT64_MAX, 1, "99.99");
    expect_percent(INT64_MAX, INT64_MAX, "50.00");
    expect_percent(INT64_MAX / 3, INT64_MAX - INT64_MAX / 3, "33.33");
    expect_percent(0, INT64_MAX, "0.00");
    expect_percent(1, INT64_MAX, "0.00");
}

static void
every_percentage_of_ten_thousand_is_exact(void **state)
{
    char expected[16];

    (void)state;
    for (int sent = 0; sent <= 10000; sent++) {
        (void)snprintf(expected, sizeof(expected), "%d.%02d", sent / 100,
                       sent % 100);
        expect_percent(sent, 10000 - sent, expected);
        if (sent > 0) { /* one of a million less */
            (void)snprintf(expected, sizeof(expected), "%d.%02d",
                           (sent - 1) / 100, (sent - 1) % 100);
            expect_percent(sent * 100 - 1, 1000001 - sent * 100, expected);
        }
    }
}

static void
the_mean_fill_is_rounded_down(void **state)
{
    static const struct {
        int64_t messages;
        int64_t batches;
        const char *expected;
    } table[] = {
        {0, 0, "null"},
        {0, 3, "0.00"},
        {2, 3, "0.66"},
        {250, 3, "83.33"},
        {9999, 100, "99.99"},
        {99999, 1000, "99.99"},
        {INT64_MAX, 1, "9223372036854775807.00"},
        {INT64_MAX, 2, "4611686018427387903.50"},
        {INT64_MAX - 1, INT64_MAX, "0.99"},
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(table); k++) {
        struct sms_statistics statistics = {.batches_sent = table[k].batches,
                                            .batches_failed = 1,
                                            .messages = table[k].messages};
        struct text out = {0};
        char member[64];

        (void)snprintf(member, sizeof(member), "\"mean_fill\":%s,",
                       table[k].expected);
        sms_statistics_json(&statistics, &out);
        if (strstr(text_cstr(&out), member) == NULL) {
            fail_msg("%s lacks %s", text_cstr(&out), member);
        }
        text_free(&out);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_stored_message_is_a_document),
        TEST(one_in_the_journal_is_accepted_whatever_the_database_does),
        TEST(a_dead_one_is_accepted_and_says_why),
        TEST(absent_is_only_what_no_place_can_know),
        TEST(no_batch_has_no_percentage),
        TEST(both_spans_are_read_at_once),
        cmocka_unit_test(percentages_are_rounded_down),
        cmocka_unit_test(every_percentage_of_ten_thousand_is_exact),
        cmocka_unit_test(the_mean_fill_is_rounded_down),
    };

    return cmocka_run_group_tests(tests, pg_fixture_start, pg_fixture_stop);
}
