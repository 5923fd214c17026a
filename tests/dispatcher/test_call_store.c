/* How the outcomes of calls become a statement; PostgreSQL itself is faked
 * here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/store_pg.h"
#include "shared/call_msg.h"
#include "shared/rc.h"
#include "shared/text.h"

#define COLUMNS 9
#define ID "01890000-0000-7000-8000-00000000000"

struct database {
    unsigned statements;
    char sql[2048];
    char params[COLUMNS][4096];
    enum rc rc;
    void *store;
};

static struct database *db;

static const struct store_persister *const p = &call_persister;

enum rc __wrap_pg_exec(struct pg *pg, const char *sql, int param_count,
                       const char *const *params, struct pg_result **out);

enum rc
__wrap_pg_exec(struct pg *pg, const char *sql, int param_count,
               const char *const *params, struct pg_result **out)
{
    assert_ptr_equal(pg, db);
    assert_int_equal(param_count, COLUMNS);
    assert_null(out);
    db->statements++;
    (void)snprintf(db->sql, sizeof(db->sql), "%s", sql);
    for (int i = 0; i < param_count; i++) {
        (void)snprintf(db->params[i], sizeof(db->params[i]), "%s", params[i]);
    }
    return db->rc;
}

static int
bench_new(void **state)
{
    static const struct conf conf;

    (void)state;
    db = calloc(1, sizeof(*db));
    assert_non_null(db);
    assert_int_equal(p->new (&db->store, &conf, NULL), RC_OK);
    p->configure(db->store, &conf); /* nothing to configure, and it may come */
    return 0;
}

static int
bench_free(void **state)
{
    (void)state;
    p->free(&db->store);
    assert_null(db->store);
    p->free(&db->store); /* of NULL */
    free(db);
    db = NULL;
    return 0;
}

static enum rc
decode(const char *body)
{
    struct journal_row row = {
        .seq = 1, .body = body, .body_bytes = strlen(body)};

    return p->decode(db->store, &row);
}

static void
decode_outcome(const struct call_outcome *outcome)
{
    struct text body = {0};

    call_outcome_encode(outcome, &body);
    assert_false(text_failed(&body));
    assert_int_equal(decode(text_cstr(&body)), RC_OK);
    text_free(&body);
}

/* An outcome of seq (0..9); its id ends with that digit. */
static struct call_outcome
outcome_of(int64_t seq)
{
    struct call_outcome outcome = {
        .msg = {.phone = "+14155550123", .agent = "sales_1"},
        .state = CALL_ANSWERED,
        .seq = seq,
        .attempts = 1,
        .created_unix_ms = 1000,
        .dialed_unix_ms = 2000,
        .finished_unix_ms = 3000,
    };
    char id[UUID_TEXT_BYTES] = ID "0";

    id[UUID_TEXT_BYTES - 2] = (char)('0' + seq);
    assert_int_equal(uuid_parse(id, &outcome.id), RC_OK);
    return outcome;
}

static enum rc
persist(size_t from, size_t to)
{
    return p->persist(db->store, (struct pg *)db, from, to);
}

static void
outcomes_are_one_statement_of_nine_arrays(void **state)
{
    struct call_outcome first = outcome_of(1);
    struct call_outcome second = outcome_of(2);

    (void)state;
    second.state = CALL_FAILED;
    second.attempts = 5;
    second.finished_unix_ms = INT64_C(1800000000000);
    (void)snprintf(second.error, sizeof(second.error), "HTTP 500");
    decode_outcome(&first);
    decode_outcome(&second);
    assert_int_equal(p->count(db->store), 2);
    assert_int_equal(persist(0, 2), RC_OK);
    assert_int_equal(db->statements, 1);
    assert_string_equal(db->params[0], "{" ID "1," ID "2}");
    assert_string_equal(db->params[1], "{\"+14155550123\",\"+14155550123\"}");
    assert_string_equal(db->params[2], "{\"sales_1\",\"sales_1\"}");
    assert_string_equal(db->params[3], "{\"ANSWERED\",\"FAILED\"}");
    assert_string_equal(db->params[4], "{1,5}");
    assert_string_equal(db->params[5], "{1000,1000}");
    assert_string_equal(db->params[6], "{2000,2000}");
    assert_string_equal(db->params[7], "{3000,1800000000000}");
    assert_string_equal(db->params[8], "{\"\",\"HTTP 500\"}");
    assert_non_null(strstr(db->sql, "INSERT INTO calls"));
    assert_non_null(strstr(db->sql, "unnest"));
}

static void
what_there_is_not_becomes_null(void **state)
{
    struct call_outcome canceled = outcome_of(1);

    (void)state;
    canceled.state = CALL_CANCELED;
    canceled.attempts = 0;
    canceled.dialed_unix_ms = 0;
    decode_outcome(&canceled);
    assert_int_equal(persist(0, 1), RC_OK);
    assert_string_equal(db->params[3], "{\"CANCELED\"}");
    assert_string_equal(db->params[6], "{0}");
    assert_string_equal(db->params[8], "{\"\"}");
    assert_non_null(strstr(db->sql, "nullif(dialed, 0)"));
    assert_non_null(strstr(db->sql, "nullif(error, '')"));
}

static void
quotes_and_backslashes_stay_inside_their_element(void **state)
{
    struct call_outcome outcome = outcome_of(1);

    (void)state;
    outcome.state = CALL_UNKNOWN;
    outcome.attempts = 1;
    (void)snprintf(outcome.error, sizeof(outcome.error), "%s",
                   "\"},{NULL, \\ it's \"");
    decode_outcome(&outcome);
    (void)snprintf(outcome.error, sizeof(outcome.error), "NULL");
    decode_outcome(&outcome);
    assert_int_equal(persist(0, 2), RC_OK);
    assert_string_equal(db->params[8],
                        "{\"\\\"},{NULL, \\\\ it's \\\"\",\"NULL\"}");
}

static void
a_repeat_after_a_crash_changes_nothing(void **state)
{
    struct call_outcome outcome = outcome_of(1);

    (void)state;
    decode_outcome(&outcome);
    decode_outcome(&outcome); /* within one statement, too */
    assert_int_equal(persist(0, 2), RC_OK);
    assert_non_null(strstr(db->sql, "ON CONFLICT (call_id) DO NOTHING"));
}

static void
a_part_is_written_alone_and_nothing_makes_no_statement(void **state)
{
    char name[JOURNAL_ITEM_BYTES];

    (void)state;
    for (int64_t seq = 1; seq <= 4; seq++) {
        struct call_outcome outcome = outcome_of(seq);

        outcome.attempts = seq;
        decode_outcome(&outcome);
    }
    assert_int_equal(persist(1, 3), RC_OK);
    assert_string_equal(db->params[0], "{" ID "2," ID "3}");
    assert_string_equal(db->params[4], "{2,3}");
    assert_int_equal(persist(2, 2), RC_OK);
    assert_int_equal(persist(3, 2), RC_OK);
    assert_int_equal(db->statements, 1);
    assert_int_equal(persist(3, 4), RC_OK); /* no rest of the one before */
    assert_string_equal(db->params[4], "{4}");
    p->name(db->store, 2, name);
    assert_string_equal(name, ID "3");
    assert_int_equal(p->item(db->store, 2).seq, 3);
}

static void
the_database_s_refusal_is_handed_on(void **state)
{
    struct call_outcome outcome = outcome_of(1);

    (void)state;
    decode_outcome(&outcome);
    db->rc = RC_INVALID;
    assert_int_equal(persist(0, 1), RC_INVALID);
    db->rc = RC_IO;
    assert_int_equal(persist(0, 1), RC_IO);
    db->rc = RC_OK;
    assert_int_equal(persist(0, 1), RC_OK);
}

static void
an_outcome_that_cannot_be_decoded_leaves_the_others(void **state)
{
    struct journal_row broken = {.broken = true};
    struct call_outcome outcome = outcome_of(1);

    (void)state;
    decode_outcome(&outcome);
    assert_int_equal(decode(""), RC_INVALID);
    assert_int_equal(decode("1 2 3"), RC_INVALID);
    assert_int_equal(p->decode(db->store, &broken), RC_INVALID);
    outcome = outcome_of(2);
    decode_outcome(&outcome);
    assert_int_equal(p->count(db->store), 2);
    assert_int_equal(p->item(db->store, 1).seq, 2);
    p->release(db->store);
    assert_int_equal(p->count(db->store), 0);
    decode_outcome(&outcome);
    assert_int_equal(p->count(db->store), 1);
}

static void
many_outcomes_are_kept_whole(void **state)
{
    (void)state;
    for (int i = 0; i < 500; i++) {
        struct call_outcome outcome = outcome_of(i % 10);

        decode_outcome(&outcome);
    }
    assert_int_equal(p->count(db->store), 500);
    for (size_t i = 0; i < 500; i++) {
        assert_int_equal(p->item(db->store, i).seq, i % 10);
    }
    assert_int_equal(persist(0, 500), RC_OK);
    assert_int_equal(db->statements, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_new, bench_free)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(outcomes_are_one_statement_of_nine_arrays),
        TEST(what_there_is_not_becomes_null),
        TEST(quotes_and_backslashes_stay_inside_their_element),
        TEST(a_repeat_after_a_crash_changes_nothing),
        TEST(a_part_is_written_alone_and_nothing_makes_no_statement),
        TEST(the_database_s_refusal_is_handed_on),
        TEST(an_outcome_that_cannot_be_decoded_leaves_the_others),
        TEST(many_outcomes_are_kept_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
