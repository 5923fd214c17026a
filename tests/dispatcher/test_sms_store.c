/* dispatcher/sms_store.c on a real server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/store_pg.h"
#include "shared/sms_batch.h"
#include "shared/sms_msg.h"
#include "tests/shared/pg_fixture.h"

#define BATCH "01890000-0000-7000-8000-0000000b%04x"
#define MESSAGE "01890000-0000-7000-8000-0000000a%04x"

static const struct store_persister *const p = &sms_persister;

struct bench {
    struct pg *pg;
    void *store;
    struct text body; /* of the outcome being made */
};

static int
setup(void **state)
{
    static const struct conf conf;
    struct bench *b = calloc(1, sizeof(*b));

    assert_non_null(b);
    (void)pg_fixture_database("s");
    b->pg = pg_fixture_pg("s");
    pg_fixture_migration(b->pg, "0003_sms.sql");
    assert_int_equal(p->new (&b->store, &conf, NULL), RC_OK);
    p->configure(b->store, &conf); /* nothing to configure, and it may come */
    *state = b;
    return 0;
}

static int
teardown(void **state)
{
    struct bench *b = *state;

    p->free(&b->store);
    assert_null(b->store);
    p->free(&b->store); /* of NULL */
    pg_free(&b->pg);
    text_free(&b->body);
    free(b);
    return 0;
}

static struct uuid
id_of(const char *format, unsigned n)
{
    char text[UUID_TEXT_BYTES];
    struct uuid id;

    (void)snprintf(text, sizeof(text), "%.32s%04x", format, n);
    assert_int_equal(uuid_parse(text, &id), RC_OK);
    return id;
}

static struct sms_batch
batch_of(unsigned n, const char *error)
{
    struct sms_batch batch = {.id = id_of(BATCH, n),
                              .size = 2,
                              .attempts = 1,
                              .started_unix_ms = 1000,
                              .finished_unix_ms = 3500};

    (void)snprintf(batch.error, sizeof(batch.error), "%s", error);
    return batch;
}

static void
begin(struct bench *b, const struct sms_batch *batch)
{
    text_reset(&b->body);
    sms_batch_begin(batch, &b->body);
}

static void
put_body(struct bench *b, unsigned n, const struct text *body)
{
    struct sms_sent sent = {.seq = n,
                            .received_unix_ms = 500 + n,
                            .id = id_of(MESSAGE, n),
                            .body = body->data,
                            .body_bytes = body->bytes};

    sms_batch_put(&sent, &b->body);
}

static void
put(struct bench *b, unsigned n, const char *content)
{
    struct sms_msg *msg = calloc(1, sizeof(*msg));
    struct text body = {0};

    assert_non_null(msg);
    (void)snprintf(msg->phone, sizeof(msg->phone), "+491761234567");
    (void)snprintf(msg->content, sizeof(msg->content), "%s", content);
    msg->content_bytes = strlen(content);
    sms_msg_encode(msg, &body);
    put_body(b, n, &body);
    text_free(&body);
    free(msg);
}

static enum rc
decode(struct bench *b)
{
    struct journal_row row = {
        .seq = 1, .body = b->body.data, .body_bytes = b->body.bytes};
    enum rc rc;

    assert_false(text_failed(&b->body));
    rc = p->decode(b->store, &row);
    memset(b->body.data, 'x', b->body.bytes); /* nothing of it is kept */
    return rc;
}

static void
add(struct bench *b)
{
    assert_int_equal(decode(b), RC_OK);
}

static void
persist(struct bench *b, size_t from, size_t to)
{
    if (p->persist(b->store, b->pg, from, to) != RC_OK) {
        fail_msg("%s", pg_error(b->pg));
    }
}

static void
finish(struct bench *b)
{
    persist(b, 0, p->count(b->store));
    p->release(b->store);
    assert_int_equal(p->count(b->store), 0);
}

static void
expect(struct bench *b, const char *sql, const char *expected)
{
    struct pg_result *result = NULL;

    if (pg_exec(b->pg, sql, 0, NULL, &result) != RC_OK) {
        fail_msg("%s: %s", sql, pg_error(b->pg));
    }
    assert_int_equal(pg_rows(result), 1);
    assert_string_equal(pg_value(result, 0, 0), expected);
    pg_result_free(&result);
}

#define MS(column) "(extract(epoch FROM " column ") * 1000)::bigint"
static const char batches_sql[] =
    "SELECT coalesce(string_agg(concat_ws(' ', right(batch_id::text, 4), size,"
    " attempts, duration_ms, " MS("started_at") ", " MS(
        "finished_at") ","
                       " coalesce(error, '-')), ';' ORDER BY batch_id), '') "
                       "FROM sms_batches";

static void
a_sent_batch_is_its_messages_and_a_line(void **state)
{
    struct bench *b = *state;
    struct sms_batch batch = batch_of(1, "");

    begin(b, &batch);
    put(b, 1, "Hello");
    put(b, 2, "{\"a\\b\", NULL} \xc3\xa9\n");
    add(b);
    assert_int_equal(p->count(b->store), 3);
    finish(b);
    expect(b,
           "SELECT concat_ws('|', id, phone_number, content, segments,"
           " encoding, status, seen_states, batch_id, " MS(
               "received_at") ", " MS("sent_at") ","
                                                 " coalesce(updated_at::text,"
                                                 " '-')) FROM sms WHERE"
                                                 " content = 'Hello'",
           "01890000-0000-7000-8000-0000000a0001|+491761234567|Hello|1|GSM-7|"
           "ACCEPTED|1|01890000-0000-7000-8000-0000000b0001|501|3500|-");
    expect(b, "SELECT content FROM sms WHERE content <> 'Hello'",
           "{\"a\\b\", NULL} \xc3\xa9\n");
    expect(b, batches_sql, "0001 2 1 2500 1000 3500 -");
}

static void
a_failed_batch_has_its_error_and_its_messages_no_time(void **state)
{
    struct bench *b = *state;
    struct sms_batch batch = batch_of(1, "HTTP 500: \"no\\");

    begin(b, &batch);
    put(b, 1, "Hello");
    add(b);
    finish(b);
    expect(b, batches_sql, "0001 2 1 2500 1000 3500 HTTP 500: \"no\\");
    expect(b,
           "SELECT (sent_at IS NULL AND batch_id IS NOT NULL)::text FROM sms",
           "true");
}

static void
messages_without_a_batch_are_stored_alone(void **state)
{
    struct bench *b = *state;

    begin(b, NULL);
    put(b, 1, "Hello");
    add(b);
    finish(b);
    expect(b, "SELECT (batch_id IS NULL AND sent_at IS NULL)::text FROM sms",
           "true");
    expect(b, "SELECT count(*) FROM sms_batches", "0");
}

static void
long_texts_have_their_segments(void **state)
{
    struct bench *b = *state;
    char content[SMS_CONTENT_CHARS_MAX + 1];

    memset(content, 'a', sizeof(content));
    content[SMS_CONTENT_CHARS_MAX] = '\0';
    begin(b, NULL);
    put(b, 1, content);
    content[161] = '\0';
    put(b, 2, content);
    add(b);
    finish(b);
    expect(b,
           "SELECT string_agg(segments || ' ' || length(content), ';'"
           " ORDER BY id) FROM sms",
           "11 1600;2 161");
}

static void
a_repeat_changes_nothing(void **state)
{
    struct bench *b = *state;
    struct sms_batch batch = batch_of(1, "");

    for (int k = 0; k < 2; k++) {
        begin(b, &batch);
        put(b, 1, "Hello");
        put(b, 2, "World");
        add(b);
        finish(b);
        if (k == 0) { /* meanwhile the provider has spoken */
            (void)pg_fixture_ask(b->pg, "UPDATE sms SET status = 'DELIVERED',"
                                        " seen_states = 9, updated_at = now()");
            (void)pg_fixture_ask(b->pg, "CREATE TABLE before AS SELECT"
                                        " ctid AS at, * FROM sms_batches");
        }
    }
    expect(b, "SELECT count(*) FROM sms WHERE status = 'DELIVERED'", "2");
    /* Not even a dead row. */
    expect(b,
           "SELECT count(*) FROM sms_batches a JOIN before b ON a.ctid = b.at"
           " AND a.batch_id = b.batch_id",
           "1");
}

static void
a_batch_that_ends_again_has_its_last_end(void **state)
{
    struct bench *b = *state;
    struct sms_batch first = batch_of(1, "HTTP 500");
    struct sms_batch second = batch_of(1, "");

    first.attempts = 5;
    second.attempts = 6;
    second.started_unix_ms = 1000;
    second.finished_unix_ms = 9000;
    begin(b, &first);
    add(b);
    finish(b);
    expect(b, batches_sql, "0001 2 5 2500 1000 3500 HTTP 500");
    begin(b, &second);
    put(b, 1, "Hello");
    add(b);
    finish(b);
    expect(b, batches_sql, "0001 2 6 8000 1000 9000 -");
    begin(b, &first); /* a repeat after a crash: it is older */
    add(b);
    finish(b);
    expect(b, batches_sql, "0001 2 6 8000 1000 9000 -");
}

static void
both_ends_of_a_batch_may_come_in_one_range(void **state)
{
    struct bench *b = *state;
    struct sms_batch first = batch_of(1, "HTTP 500");
    struct sms_batch other = batch_of(2, "");
    struct sms_batch second = batch_of(1, "");

    second.attempts = 2;
    begin(b, &first);
    add(b);
    begin(b, &other);
    add(b);
    begin(b, &second);
    add(b);
    finish(b);
    expect(b, batches_sql,
           "0001 2 2 2500 1000 3500 -;0002 2 1 2500 1000 3500"
           " -");
}

static void
a_clock_that_stepped_back_makes_no_negative_duration(void **state)
{
    struct bench *b = *state;
    struct sms_batch first = batch_of(1, "HTTP 500");
    struct sms_batch second = batch_of(1, "");

    begin(b, &first);
    add(b);
    finish(b);
    second.attempts = 2;
    second.finished_unix_ms = 10;
    begin(b, &second);
    add(b);
    finish(b);
    expect(b, batches_sql, "0001 2 2 0 1000 10 -");
}

static void
an_outcome_that_cannot_be_decoded_leaves_the_others(void **state)
{
    struct bench *b = *state;
    struct sms_batch batch = batch_of(1, "");
    struct journal_row broken = {.broken = true};
    struct text bad = {0};

    begin(b, &batch);
    put(b, 1, "Hello");
    add(b);
    begin(b, &batch);
    put(b, 2, "World");
    text_puts(&bad, "nonsense");
    put_body(b, 3, &bad);
    assert_int_equal(decode(b), RC_INVALID);
    text_free(&bad);
    assert_int_equal(p->decode(b->store, &broken), RC_INVALID);
    begin(b, NULL);
    put(b, 4, "Again");
    add(b);
    assert_int_equal(p->count(b->store), 3);
    finish(b);
    expect(b, "SELECT string_agg(content, ' ' ORDER BY id) FROM sms",
           "Hello Again");
}

static void
a_part_is_written_alone(void **state)
{
    struct bench *b = *state;
    struct sms_batch one = batch_of(1, "");
    struct sms_batch two = batch_of(2, "");
    char name[JOURNAL_ITEM_BYTES];

    begin(b, &one);
    put(b, 1, "a");
    put(b, 2, "b");
    add(b);
    begin(b, &two);
    put(b, 3, "c");
    add(b);
    assert_int_equal(p->count(b->store), 5);
    persist(b, 1, 2);
    expect(b, "SELECT string_agg(content, '' ORDER BY id) FROM sms", "b");
    persist(b, 2, 4);
    expect(b, "SELECT string_agg(content, '' ORDER BY id) FROM sms", "bc");
    expect(b, batches_sql, "0001 2 1 2500 1000 3500 -");
    persist(b, 4, 5);
    persist(b, 2, 2);
    expect(b, "SELECT count(*) FROM sms_batches", "2");
    p->name(b->store, 2, name);
    assert_string_equal(name, "01890000-0000-7000-8000-0000000a0003");
    p->name(b->store, 4, name);
    assert_string_equal(name, "01890000-0000-7000-8000-0000000b0002");
    assert_int_equal(p->item(b->store, 2).seq, 3);
    /* A line belongs to no request that could be buried for it. */
    assert_int_equal(p->item(b->store, 4).seq, 0);
}

static void
many_batches_are_one_range(void **state)
{
    struct bench *b = *state;

    for (unsigned n = 0; n < 100; n++) {
        struct sms_batch batch = batch_of(n, "");

        begin(b, &batch);
        for (unsigned k = 0; k < 50; k++) {
            put(b, n * 50 + k, "x");
        }
        add(b);
    }
    assert_int_equal(p->count(b->store), 5100);
    finish(b);
    expect(b, "SELECT count(*) FROM sms", "5000");
    expect(b, "SELECT count(*) FROM sms_batches", "100");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_sent_batch_is_its_messages_and_a_line),
        TEST(a_failed_batch_has_its_error_and_its_messages_no_time),
        TEST(messages_without_a_batch_are_stored_alone),
        TEST(long_texts_have_their_segments),
        TEST(a_repeat_changes_nothing),
        TEST(a_batch_that_ends_again_has_its_last_end),
        TEST(both_ends_of_a_batch_may_come_in_one_range),
        TEST(a_clock_that_stepped_back_makes_no_negative_duration),
        TEST(an_outcome_that_cannot_be_decoded_leaves_the_others),
        TEST(a_part_is_written_alone),
        TEST(many_batches_are_one_range),
    };

    return cmocka_run_group_tests(tests, pg_fixture_start, pg_fixture_stop);
}
