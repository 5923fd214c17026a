/* shared/objects.c on a real server. */
#include "shared/objects.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/shared/pg_fixture.h"

static int
setup(void **state)
{
    (void)pg_fixture_database("o");
    struct pg *pg = pg_fixture_pg("o");
    assert_int_equal(
        pg_exec_script(pg,
                       "CREATE TABLE objects (id bigint PRIMARY KEY,"
                       " last_seen timestamptz NOT NULL);"
                       "INSERT INTO objects VALUES "
                       "(0, now()), (7, now()), (8, now() - interval '1 h'),"
                       "(9007199254740992, '2026-01-02 03:04:05.678Z')"),
        RC_OK);
    *state = pg;
    return 0;
}

static int
teardown(void **state)
{
    struct pg *pg = *state;
    pg_free(&pg);
    return 0;
}

static void
one_object_is_a_document(void **state)
{
    struct pg *pg = *state;
    struct text out = {0};
    assert_int_equal(objects_one(pg, INT64_C(9007199254740992), 0, &out),
                     RC_OK);
    assert_non_null(strstr(text_cstr(&out),
                           "{\"id\":9007199254740992,\"online\":true,"
                           "\"last_seen\":\"2026-01-02T03:04:05.678Z\"}"));
    text_free(&out);
}

static void
an_absent_or_expired_object_is_not_there(void **state)
{
    struct pg *pg = *state;
    struct text out = {0};
    assert_int_equal(objects_one(pg, 5, 30, &out), RC_AGAIN);
    assert_int_equal(objects_one(pg, 8, 30, &out), RC_AGAIN);
    assert_int_equal(out.bytes, 0);
    assert_int_equal(objects_one(pg, 8, 0, &out), RC_OK);
    assert_int_equal(objects_one(pg, 7, 30, &out), RC_OK);
    text_free(&out);
}

/* The ids of a page, "0 7 |7" for ids 0 and 7 and next 7. */
static void
expect_page(struct pg *pg, int64_t after, int64_t limit, int64_t expire_s,
            const char *expected)
{
    struct text out = {0};
    char ids[256] = "";
    assert_int_equal(objects_page(pg, after, limit, expire_s, &out), RC_OK);
    for (const char *at = strstr(text_cstr(&out), "{\"id\":"); at != NULL;
         at = strstr(at + 1, "{\"id\":")) {
        size_t used = strlen(ids);
        snprintf(ids + used, sizeof(ids) - used, "%lld ",
                 strtoll(at + strlen("{\"id\":"), NULL, 10));
    }
    const char *next = strstr(text_cstr(&out), "\"next\":");
    assert_non_null(next);
    size_t used = strlen(ids);
    snprintf(ids + used, sizeof(ids) - used, "|%.*s",
             (int)strcspn(next + strlen("\"next\":"), "}"),
             next + strlen("\"next\":"));
    assert_string_equal(ids, expected);
    text_free(&out);
}

static void
pages_follow_each_other_and_end(void **state)
{
    struct pg *pg = *state;
    expect_page(pg, -1, 1000, 0, "0 7 8 9007199254740992 |null");
    expect_page(pg, -1, 2, 0, "0 7 |7");
    expect_page(pg, 7, 2, 0, "8 9007199254740992 |null");
    expect_page(pg, 0, 1, 0, "7 |7");
    expect_page(pg, -1, 2, 30, "0 7 |null");
    expect_page(pg, INT64_C(9007199254740992), 2, 0, "|null");
}

static void
without_a_database_nothing_is_answered(void **state)
{
    struct pg *pg;
    struct text out = {0};
    (void)state;
    assert_int_equal(pg_new(&pg, "postgresql:///x?host=/nowhere", 100), RC_OK);
    assert_int_equal(objects_page(pg, -1, 1, 0, &out), RC_IO);
    assert_int_equal(objects_one(pg, 1, 0, &out), RC_IO);
    assert_int_equal(out.bytes, 0);
    pg_free(&pg);
    text_free(&out);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(one_object_is_a_document),
        CASE(an_absent_or_expired_object_is_not_there),
        CASE(pages_follow_each_other_and_end),
        cmocka_unit_test(without_a_database_nothing_is_answered),
    };
    return cmocka_run_group_tests(tests, pg_fixture_start, pg_fixture_stop);
}
