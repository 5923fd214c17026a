/* How outcomes become statements; PostgreSQL itself is faked here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/metrics.h"
#include "dispatcher/store_pg.h"
#include "shared/callback_msg.h"
#include "shared/rc.h"
#include "shared/text.h"

struct database {
    unsigned statements;
    char sql[1024];
    char params[2][4096];
    int param_count;
    enum rc rc;
    int64_t rows; /* that deletes find */
    unsigned results;
};

static struct database *db;

static const struct store_persister *const p = &callback_persister;

enum rc __wrap_pg_exec(struct pg *pg, const char *sql, int param_count,
                       const char *const *params, struct pg_result **out);
int64_t __wrap_pg_affected(const struct pg_result *r);
void __wrap_pg_result_free(struct pg_result **r);

enum rc
__wrap_pg_exec(struct pg *pg, const char *sql, int param_count,
               const char *const *params, struct pg_result **out)
{
    assert_ptr_equal(pg, db);
    assert_in_range(param_count, 0, 2);
    db->statements++;
    db->param_count = param_count;
    (void)snprintf(db->sql, sizeof(db->sql), "%s", sql);
    for (int i = 0; i < param_count; i++) {
        (void)snprintf(db->params[i], sizeof(db->params[i]), "%s", params[i]);
    }
    if (db->rc == RC_OK && out != NULL) {
        *out = (struct pg_result *)db;
        db->results++;
    }
    return db->rc;
}

/* Rows of one delete: 2000 at most. */
int64_t
__wrap_pg_affected(const struct pg_result *r)
{
    int64_t rows = db->rows < 2000 ? db->rows : 2000;

    assert_ptr_equal(r, db);
    db->rows -= rows;
    return rows;
}

void
__wrap_pg_result_free(struct pg_result **r)
{
    if (*r != NULL) {
        db->results--;
    }
    *r = NULL;
}

struct bench {
    struct metrics *metrics;
    struct conf conf;
    void *store;
};

static int
bench_new(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));

    db = calloc(1, sizeof(*db));
    assert_non_null(b);
    assert_non_null(db);
    b->conf.callback.expire_s = 30;
    assert_int_equal(metrics_new(&b->metrics), RC_OK);
    assert_int_equal(p->new (&b->store, &b->conf, b->metrics), RC_OK);
    *state = b;
    return 0;
}

static int
bench_free(void **state)
{
    struct bench *b = *state;

    assert_int_equal(db->results, 0);
    p->free(&b->store);
    assert_null(b->store);
    p->free(&b->store); /* of NULL */
    metrics_free(&b->metrics);
    free(b);
    free(db);
    return 0;
}

static enum rc
decode(struct bench *b, const char *body)
{
    struct journal_row row = {
        .seq = 1, .body = body, .body_bytes = strlen(body)};

    return p->decode(b->store, &row);
}

static void
outcomes_are_one_statement_of_two_arrays(void **state)
{
    struct bench *b = *state;

    assert_int_equal(decode(b, "[[7,1000,1],[5,1001,2]]"), RC_OK);
    assert_int_equal(decode(b, "[]"), RC_OK);
    assert_int_equal(decode(b, "[[0,999,3]]"), RC_OK);
    assert_int_equal(p->count(b->store), 3);
    assert_int_equal(p->persist(b->store, (struct pg *)db, 0, 3), RC_OK);
    assert_int_equal(db->statements, 1);
    assert_string_equal(db->params[0], "{0,5,7}");
    assert_string_equal(db->params[1], "{999,1001,1000}");
    assert_non_null(strstr(db->sql, "unnest"));
    assert_non_null(strstr(db->sql, "GREATEST"));
}

static void
the_same_id_is_one_item_and_the_newest_wins(void **state)
{
    struct bench *b = *state;
    struct store_item item;

    assert_int_equal(decode(b, "[[7,1000,1],[7,1002,4],[8,5,5]]"), RC_OK);
    assert_int_equal(decode(b, "[[7,1001,9]]"), RC_OK);
    assert_int_equal(p->count(b->store), 2);
    item = p->item(b->store, 0);
    assert_int_equal(item.seq, 4);
    assert_int_equal(p->persist(b->store, (struct pg *)db, 0, 2), RC_OK);
    assert_string_equal(db->params[0], "{7,8}");
    assert_string_equal(db->params[1], "{1002,5}");
    /* also what comes after a look */
    assert_int_equal(decode(b, "[[7,1003,11]]"), RC_OK);
    assert_int_equal(p->count(b->store), 2);
    assert_int_equal(p->item(b->store, 0).seq, 11);
}

static void
a_part_is_written_alone(void **state)
{
    struct bench *b = *state;
    char name[JOURNAL_ITEM_BYTES];

    assert_int_equal(
        decode(b, "[[9007199254740992,1,2],[3,4,5],[6,7,8],[1,1,1]]"), RC_OK);
    assert_int_equal(p->persist(b->store, (struct pg *)db, 1, 3), RC_OK);
    assert_string_equal(db->params[0], "{3,6}");
    assert_string_equal(db->params[1], "{4,7}");
    p->name(b->store, 3, name);
    assert_string_equal(name, "9007199254740992");
    assert_int_equal(p->item(b->store, 3).seq, 2);
    assert_int_equal(p->persist(b->store, (struct pg *)db, 2, 2), RC_OK);
    assert_int_equal(db->statements, 1); /* nothing to write, no statement */
}

static void
the_database_s_refusal_is_handed_on(void **state)
{
    struct bench *b = *state;

    assert_int_equal(decode(b, "[[1,2,3]]"), RC_OK);
    db->rc = RC_INVALID;
    assert_int_equal(p->persist(b->store, (struct pg *)db, 0, 1), RC_INVALID);
    db->rc = RC_IO;
    assert_int_equal(p->persist(b->store, (struct pg *)db, 0, 1), RC_IO);
    assert_int_equal(p->every_second(b->store, (struct pg *)db, 1), RC_IO);
}

static void
an_outcome_that_cannot_be_decoded_leaves_the_others(void **state)
{
    struct bench *b = *state;
    struct journal_row broken = {.broken = true};

    assert_int_equal(decode(b, "[[1,2,3]]"), RC_OK);
    assert_int_equal(decode(b, "[[4,5,6],[7,8"), RC_INVALID);
    assert_int_equal(decode(b, "{}"), RC_INVALID);
    assert_int_equal(p->decode(b->store, &broken), RC_INVALID);
    assert_int_equal(decode(b, "[[9,2,3]]"), RC_OK);
    assert_int_equal(p->count(b->store), 2);
    p->release(b->store);
    assert_int_equal(p->count(b->store), 0);
    assert_int_equal(decode(b, "[[1,1,1]]"), RC_OK);
    assert_int_equal(p->count(b->store), 1);
}

static void
full_outcomes_are_taken_whole(void **state)
{
    struct bench *b = *state;
    struct callback_object objects[CALLBACK_OUTCOME_MAX];

    for (unsigned round = 0; round < 5; round++) {
        struct text body = {0};

        for (unsigned i = 0; i < CALLBACK_OUTCOME_MAX; i++) {
            objects[i] = (struct callback_object){
                5000 - (int64_t)(round * CALLBACK_OUTCOME_MAX + i), 1, 1};
        }
        callback_outcome_encode(objects, CALLBACK_OUTCOME_MAX, &body);
        assert_int_equal(decode(b, text_cstr(&body)), RC_OK);
        text_free(&body);
    }
    assert_int_equal(p->count(b->store), 5 * CALLBACK_OUTCOME_MAX);
}

static void
what_was_not_seen_for_expire_s_is_deleted(void **state)
{
    struct bench *b = *state;

    db->rows = 4500;
    assert_int_equal(p->every_second(b->store, (struct pg *)db, 100000), RC_OK);
    assert_int_equal(db->statements, 3); /* while a batch was full */
    assert_string_equal(db->params[0], "70000");
    assert_non_null(strstr(db->sql, "DELETE FROM objects"));
    assert_non_null(strstr(db->sql, "SKIP LOCKED"));
    assert_int_equal(
        metrics_get(b->metrics, METRIC_OBJECTS_EXPIRED_TOTAL, SERVICE_COUNT),
        4500);
}

static void
one_second_s_deletes_are_bounded(void **state)
{
    struct bench *b = *state;

    db->rows = 1000000;
    assert_int_equal(p->every_second(b->store, (struct pg *)db, 100000), RC_OK);
    assert_int_equal(db->statements, 10);
}

static void
nothing_expires_when_expire_s_is_0(void **state)
{
    struct bench *b = *state;

    b->conf.callback.expire_s = 0;
    p->configure(b->store, &b->conf);
    db->rows = 10;
    assert_int_equal(p->every_second(b->store, (struct pg *)db, 100000), RC_OK);
    assert_int_equal(db->statements, 0);
    b->conf.callback.expire_s = 1;
    p->configure(b->store, &b->conf);
    assert_int_equal(p->every_second(b->store, (struct pg *)db, 100000), RC_OK);
    assert_string_equal(db->params[0], "99000");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_new, bench_free)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(outcomes_are_one_statement_of_two_arrays),
        TEST(the_same_id_is_one_item_and_the_newest_wins),
        TEST(a_part_is_written_alone),
        TEST(the_database_s_refusal_is_handed_on),
        TEST(an_outcome_that_cannot_be_decoded_leaves_the_others),
        TEST(full_outcomes_are_taken_whole),
        TEST(what_was_not_seen_for_expire_s_is_deleted),
        TEST(one_second_s_deletes_are_bounded),
        TEST(nothing_expires_when_expire_s_is_0),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
