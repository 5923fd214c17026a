/* shared/calls.c on a real server and a real journal. */
#include "shared/calls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/shared/journal_fixture.h"
#include "tests/shared/pg_fixture.h"

#define NODE 42
#define STORED "01890000-0000-7000-8000-00000000002a"
#define CANCELED_ID "01890000-0000-7000-8000-00000001002a"
#define FOREIGN "01890000-0000-7000-8000-00000000002b"
#define UNKNOWN_ID "01890000-0000-7000-8000-00000002002a"

static const struct conf_call conf = {.rate_count = 25,
                                      .rate_window_ms = 10000};

struct calls_fixture {
    struct fixture *f;
    struct lookup places;
    struct pg *nowhere;
};

static int
setup(void **state)
{
    struct calls_fixture *c = calloc(1, sizeof *c);

    assert_non_null(c);
    assert_int_equal(fixture_setup((void **)&c->f), 0);
    (void)pg_fixture_database("c");
    c->places.pg = pg_fixture_pg("c");
    c->places.journal = fixture_journal(c->f, JOURNAL_READER);
    c->places.node_id = NODE;
    pg_fixture_migration(c->places.pg, "0002_calls.sql");
    assert_int_equal(
        pg_exec_script(c->places.pg,
                       "INSERT INTO calls VALUES ('" STORED
                       "', '+14155550123', 'a', 'FAILED', 3,"
                       " '2026-01-02 03:04:05.678Z', '2026-01-02 03:04:06Z',"
                       " '2026-01-02 03:04:07.001Z', 'HTTP \"400\"'),"
                       "('" CANCELED_ID "', '+14155550123', 'a', 'CANCELED', 0,"
                       " '2026-01-02 03:04:05.678Z', NULL,"
                       " '2026-01-02 03:04:07Z', NULL)"),
        RC_OK);
    assert_int_equal(pg_new(&c->nowhere, "postgresql:///x?host=/nowhere", 100),
                     RC_OK);
    *state = c;
    return 0;
}

static int
teardown(void **state)
{
    struct calls_fixture *c = *state;

    pg_free(&c->places.pg);
    pg_free(&c->nowhere);
    journal_free(&c->places.journal);
    (void)fixture_teardown((void **)&c->f);
    free(c);
    return 0;
}

static enum rc
find(struct calls_fixture *c, const char *text, struct call_entry *out)
{
    struct uuid id;

    assert_int_equal(uuid_parse(text, &id), RC_OK);
    return calls_find(&c->places, &id, out);
}

static struct uuid
accept_call(struct calls_fixture *c)
{
    struct journal_request r = fixture_request(c->f, "+14155550123 a");

    r.service = SERVICE_CALL;
    assert_int_equal(journal_accept(c->f->edge, &r, 1, FIXTURE_NOW), RC_OK);
    return r.id;
}

static struct call_entry
found(struct calls_fixture *c, const struct uuid *id)
{
    struct call_entry call;

    assert_int_equal(calls_find(&c->places, id, &call), RC_OK);
    assert_memory_equal(call.id.bytes, id->bytes, UUID_BYTES);
    return call;
}

static void
a_stored_call_is_a_document(void **state)
{
    struct calls_fixture *c = *state;
    struct call_entry call;
    struct text out = {0};

    assert_int_equal(find(c, STORED, &call), RC_OK);
    calls_json(&call, &conf, &out);
    assert_string_equal(text_cstr(&out),
                        "{\"call_id\":\"" STORED "\",\"status\":\"FAILED\","
                        "\"attempts\":3,"
                        "\"created_at\":\"2026-01-02T03:04:05.678Z\","
                        "\"dialed_at\":\"2026-01-02T03:04:06.000Z\","
                        "\"finished_at\":\"2026-01-02T03:04:07.001Z\","
                        "\"last_error\":\"HTTP \\\"400\\\"\"}");
    text_reset(&out);
    assert_int_equal(find(c, CANCELED_ID, &call), RC_OK);
    assert_int_equal(call.state, CALL_CANCELED);
    calls_json(&call, &conf, &out);
    assert_non_null(strstr(text_cstr(&out), "\"dialed_at\":null,"));
    assert_non_null(strstr(text_cstr(&out), "\"last_error\":null}"));
    text_free(&out);
}

static void
a_call_that_waits_has_a_position(void **state)
{
    struct calls_fixture *c = *state;
    struct uuid first = accept_call(c);
    struct uuid second = accept_call(c);
    struct call_entry call = found(c, &second);
    struct text out = {0};

    assert_int_equal(call.state, CALL_QUEUED);
    assert_int_equal(call.position, 2);
    calls_json(&call, &conf, &out);
    assert_non_null(strstr(text_cstr(&out), "\"status\":\"QUEUED\","
                                            "\"attempts\":0,"));
    assert_non_null(strstr(text_cstr(&out),
                           "\"finished_at\":null,\"last_error\":null,"
                           "\"position\":2,\"eta_s\":0}"));
    assert_int_equal(found(c, &first).position, 1);
    text_free(&out);
}

static void
progress_is_told_until_the_database_has_it(void **state)
{
    const struct journal_progress dialing = {.state = CALL_DIALING,
                                             .attempts = 2,
                                             .started_unix_ms = FIXTURE_NOW + 5,
                                             .error = "busy"};
    struct calls_fixture *c = *state;
    struct journal *j = c->f->dispatcher;
    struct uuid id = accept_call(c);
    struct call_entry call;
    int64_t no = 0;

    assert_int_equal(journal_begin(j), RC_OK);
    assert_int_equal(journal_progress_begin(j, SERVICE_CALL, 1, &dialing),
                     RC_OK);
    assert_int_equal(journal_commit(j), RC_OK);
    call = found(c, &id);
    assert_int_equal(call.state, CALL_DIALING);
    assert_int_equal(call.position, 0);
    assert_int_equal(call.attempts, 2);
    assert_int_equal(call.created_unix_ms, FIXTURE_NOW);
    assert_int_equal(call.dialed_unix_ms, FIXTURE_NOW + 5);
    assert_int_equal(call.finished_unix_ms, 0);
    assert_string_equal(call.error, "busy");
    assert_int_equal(journal_begin(j), RC_OK);
    assert_int_equal(journal_outcome_add(j, SERVICE_CALL, "x", 1, &no), RC_OK);
    assert_int_equal(journal_finish(j, SERVICE_CALL, 1, no), RC_OK);
    assert_int_equal(journal_commit(j), RC_OK);
    assert_int_equal(found(c, &id).state, CALL_DIALING);
}

static void
a_dead_letter_has_failed_for_its_reason(void **state)
{
    struct calls_fixture *c = *state;
    struct journal *j = c->f->dispatcher;
    struct uuid id = accept_call(c);
    struct call_entry call;
    struct text out = {0};

    assert_int_equal(journal_begin(j), RC_OK);
    assert_int_equal(journal_bury(j, SERVICE_CALL, 1, "cannot be decoded", NULL,
                                  0, NULL, 0, FIXTURE_NOW + 7),
                     RC_OK);
    assert_int_equal(journal_commit(j), RC_OK);
    call = found(c, &id);
    assert_int_equal(call.state, CALL_FAILED);
    assert_int_equal(call.finished_unix_ms, FIXTURE_NOW + 7);
    assert_string_equal(call.error, "cannot be decoded");
    calls_json(&call, &conf, &out);
    assert_non_null(strstr(text_cstr(&out), "\"attempts\":null,"));
    text_free(&out);
}

static void
the_journal_is_believed_before_the_database(void **state)
{
    struct calls_fixture *c = *state;
    struct journal_request r = fixture_request(c->f, "+14155550123 a");

    r.service = SERVICE_CALL;
    assert_int_equal(uuid_parse(STORED, &r.id), RC_OK);
    assert_int_equal(journal_accept(c->f->edge, &r, 1, FIXTURE_NOW), RC_OK);
    assert_int_equal(found(c, &r.id).state, CALL_QUEUED);
}

static void
an_unknown_call_is_not_there_unless_it_cannot_be_known(void **state)
{
    struct calls_fixture *c = *state;
    struct pg *pg = c->places.pg;
    struct call_entry call;

    assert_int_equal(find(c, UNKNOWN_ID, &call), RC_AGAIN); /* no journal yet */
    (void)accept_call(c);
    assert_int_equal(find(c, UNKNOWN_ID, &call), RC_AGAIN);
    assert_int_equal(find(c, FOREIGN, &call), RC_IO);
    c->places.pg = c->nowhere;
    assert_int_equal(find(c, UNKNOWN_ID, &call), RC_IO);
    c->places.pg = pg;
    assert_int_equal(pg_exec(pg, "DROP TABLE calls", 0, NULL, NULL), RC_OK);
    assert_int_equal(find(c, UNKNOWN_ID, &call), RC_IO);
}

static void
a_journal_that_cannot_be_read_hides_what_is_not_stored(void **state)
{
    struct calls_fixture *c = *state;
    struct call_entry call;

    (void)accept_call(c);
    fixture_sql(c->f, "PRAGMA user_version = 99");
    assert_int_equal(find(c, UNKNOWN_ID, &call), RC_IO);
    assert_int_equal(find(c, STORED, &call), RC_OK);
}

static void
another_services_request_is_no_call(void **state)
{
    struct calls_fixture *c = *state;
    struct journal_request r = fixture_request(c->f, "[1]");
    struct call_entry call;

    assert_int_equal(uuid_parse(UNKNOWN_ID, &r.id), RC_OK);
    assert_int_equal(journal_accept(c->f->edge, &r, 1, FIXTURE_NOW), RC_OK);
    assert_int_equal(find(c, UNKNOWN_ID, &call), RC_AGAIN);
}

static void
a_call_of_the_journal_needs_no_database(void **state)
{
    struct calls_fixture *c = *state;
    struct uuid id = accept_call(c);
    struct pg *pg = c->places.pg;

    c->places.pg = c->nowhere;
    assert_int_equal(found(c, &id).position, 1);
    c->places.pg = pg;
}

static void
the_table_takes_final_states_only(void **state)
{
    struct calls_fixture *c = *state;

    assert_int_equal(pg_exec(c->places.pg, "UPDATE calls SET status = 'QUEUED'",
                             0, NULL, NULL),
                     RC_INVALID);
    assert_int_equal(pg_exec(c->places.pg,
                             "UPDATE calls SET status = 'UNKNOWN'", 0, NULL,
                             NULL),
                     RC_OK);
}

static void
waiting_is_told_in_whole_windows(void **state)
{
    const struct conf_call odd = {.rate_count = 3, .rate_window_ms = 1500};

    (void)state;
    assert_int_equal(calls_eta_s(&conf, 1), 0);
    assert_int_equal(calls_eta_s(&conf, 25), 0);
    assert_int_equal(calls_eta_s(&conf, 26), 10);
    assert_int_equal(calls_eta_s(&conf, 51), 20);
    assert_int_equal(calls_eta_s(&odd, 4), 2);
    assert_int_equal(calls_eta_s(&odd, 7), 3);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_stored_call_is_a_document),
        CASE(a_call_that_waits_has_a_position),
        CASE(progress_is_told_until_the_database_has_it),
        CASE(a_dead_letter_has_failed_for_its_reason),
        CASE(the_journal_is_believed_before_the_database),
        CASE(an_unknown_call_is_not_there_unless_it_cannot_be_known),
        CASE(a_journal_that_cannot_be_read_hides_what_is_not_stored),
        CASE(another_services_request_is_no_call),
        CASE(a_call_of_the_journal_needs_no_database),
        CASE(the_table_takes_final_states_only),
        cmocka_unit_test(waiting_is_told_in_whole_windows),
    };
    return cmocka_run_group_tests(tests, pg_fixture_start, pg_fixture_stop);
}
