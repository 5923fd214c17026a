/* dispatcher/sms_status_store.c on a real server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/store_pg.h"
#include "shared/sms_state.h"
#include "shared/sms_update.h"
#include "tests/shared/pg_fixture.h"

#define NODE 42
#define OTHER_NODE 43
#define NOW INT64_C(1800000000000)
#define MINUTE_MS INT64_C(60000)
#define HOUR_MS (60 * MINUTE_MS)

static const struct store_persister *const p = &sms_status_persister;

struct bench {
    struct pg *pg;
    struct conf conf;
    struct metrics *metrics;
    void *store;
    struct text body; /* of the outcome being made */
    int64_t requests; /* made so far */
    int64_t now_unix_ms;
};

static int
setup(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));

    assert_non_null(b);
    (void)pg_fixture_database("s");
    b->pg = pg_fixture_pg("s");
    pg_fixture_migration(b->pg, "0003_sms.sql");
    b->conf.node.id = NODE;
    assert_int_equal(metrics_new(&b->metrics), RC_OK);
    assert_int_equal(p->new (&b->store, &b->conf, b->metrics), RC_OK);
    b->now_unix_ms = NOW;
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
    metrics_free(&b->metrics);
    pg_free(&b->pg);
    text_free(&b->body);
    free(b);
    return 0;
}

/* Message number n of a node. */
static struct uuid
id_of(int n, uint16_t node)
{
    char text[UUID_TEXT_BYTES];
    struct uuid id;

    (void)snprintf(text, sizeof(text), "01890000-0000-7000-8000-%08x%04x",
                   (unsigned)n, (unsigned)node);
    assert_int_equal(uuid_parse(text, &id), RC_OK);
    return id;
}

static struct uuid
update_id_of(int64_t request)
{
    return id_of((int)request, 7);
}

static void
store_message(struct bench *b, int n, enum sms_state state, unsigned seen)
{
    struct uuid uuid = id_of(n, NODE);
    char id[UUID_TEXT_BYTES];
    char sql[512];

    (void)snprintf(sql, sizeof(sql),
                   "INSERT INTO sms (id, phone_number, content, segments,"
                   " encoding, status, seen_states, received_at) VALUES"
                   " ('%s', '+491', 'x', 1, 'GSM-7', '%s', %u, now())",
                   uuid_format(&uuid, id), sms_state_name(state), seen);
    (void)pg_fixture_ask(b->pg, sql);
}

static void
store_accepted(struct bench *b, int n)
{
    store_message(b, n, SMS_ACCEPTED, 1U << SMS_ACCEPTED);
}

/* ---- making outcomes
 * -------------------------------------------------------------- */

static void
begin_request(struct bench *b, int64_t request)
{
    struct sms_update_head head = {.seq = request,
                                   .received_unix_ms = NOW + request,
                                   .id = update_id_of(request)};

    text_reset(&b->body);
    sms_update_head_put(&head, &b->body);
    sms_update_begin(&b->body);
}

static void
begin(struct bench *b)
{
    begin_request(b, ++b->requests);
}

static void
put(struct bench *b, struct uuid id, enum sms_state state, bool known)
{
    struct sms_update update = {
        .mapped = true, .id = id, .state = state, .known = known};

    sms_update_put(&update, &b->body);
}

static void
put_unmapped(struct bench *b, const char *name, const char *word)
{
    struct sms_update update = {.mapped = false};

    (void)snprintf(update.name, sizeof(update.name), "%s", name);
    (void)snprintf(update.word, sizeof(update.word), "%s", word);
    sms_update_put(&update, &b->body);
}

static enum rc
decode(struct bench *b)
{
    struct journal_row row = {
        .seq = 1, .body = b->body.data, .body_bytes = b->body.bytes};

    assert_false(text_failed(&b->body));
    return p->decode(b->store, &row);
}

static void
add(struct bench *b)
{
    assert_int_equal(decode(b), RC_OK);
}

/* An outcome with one update of one of our messages that was in our journal. */
static void
add_update(struct bench *b, int n, enum sms_state state)
{
    begin(b);
    put(b, id_of(n, NODE), state, true);
    add(b);
}

static void
persist_to(struct bench *b, struct pg *pg)
{
    if (p->persist(b->store, pg, 0, p->count(b->store)) != RC_OK) {
        fail_msg("%s", pg_error(pg));
    }
}

static void
persist(struct bench *b)
{
    persist_to(b, b->pg);
}

/* ... and forget the items. */
static void
finish(struct bench *b)
{
    persist(b);
    p->release(b->store);
}

static void
second(struct bench *b)
{
    b->now_unix_ms += 1000;
    if (p->every_second(b->store, b->pg, b->now_unix_ms) != RC_OK) {
        fail_msg("%s", pg_error(b->pg));
    }
}

/* ---- looking
 * -------------------------------------------------------------- */

static int64_t
count(struct bench *b, const char *of)
{
    char sql[512];

    (void)snprintf(sql, sizeof(sql), "SELECT count(*) FROM %s", of);
    return pg_fixture_ask(b->pg, sql);
}

static int64_t
metric(struct bench *b, enum metric which)
{
    return metrics_get(b->metrics, which, SERVICE_COUNT);
}

static void
expect_text(struct bench *b, const char *sql, const char *expected)
{
    struct pg_result *result = NULL;

    if (pg_exec(b->pg, sql, 0, NULL, &result) != RC_OK) {
        fail_msg("%s: %s", sql, pg_error(b->pg));
    }
    assert_int_equal(pg_rows(result), 1);
    assert_string_equal(pg_value(result, 0, 0), expected);
    pg_result_free(&result);
}

static void
expect_state(struct bench *b, int n, enum sms_state state)
{
    struct uuid uuid = id_of(n, NODE);
    char id[UUID_TEXT_BYTES];
    char sql[128];

    (void)snprintf(sql, sizeof(sql), "SELECT status FROM sms WHERE id = '%s'",
                   uuid_format(&uuid, id));
    expect_text(b, sql, sms_state_name(state));
}

static void
expect_counts(struct bench *b, int64_t applied, int64_t repeated,
              int64_t parked, int64_t errors)
{
    assert_int_equal(metric(b, METRIC_SMS_UPDATES_APPLIED_TOTAL), applied);
    assert_int_equal(metric(b, METRIC_SMS_UPDATES_REPEATED_TOTAL), repeated);
    assert_int_equal(metric(b, METRIC_SMS_UPDATES_PARKED_TOTAL), parked);
    assert_int_equal(metric(b, METRIC_SMS_UPDATE_ERRORS_TOTAL), errors);
}

/* A line for each row of the three tables, to compare before and after. */
static char *
picture(struct bench *b)
{
    static const char sql[] =
        "SELECT coalesce(string_agg(line, E'\\n' ORDER BY line), '') FROM ("
        " SELECT to_jsonb(s)::text FROM sms s UNION ALL"
        " SELECT to_jsonb(e)::text FROM sms_update_errors e UNION ALL"
        " SELECT to_jsonb(n)::text FROM sms_notices n UNION ALL"
        " SELECT to_jsonb(w)::text FROM sms_early w) AS t (line)";
    struct pg_result *result = NULL;
    char *copy;

    assert_int_equal(pg_exec(b->pg, sql, 0, NULL, &result), RC_OK);
    copy = strdup(pg_value(result, 0, 0));
    pg_result_free(&result);
    assert_non_null(copy);
    return copy;
}

/* ---- transitions
 * -------------------------------------------------------------- */

static void
every_pair_of_states_goes_as_the_table_says(void **state)
{
    struct bench *b = *state;

    begin(b);
    for (unsigned from = 0; from < SMS_STATES; from++) {
        for (unsigned to = 0; to < SMS_STATES; to++) {
            int n = (int)(from * 10 + to);

            store_message(b, n, (enum sms_state)from,
                          1U << SMS_ACCEPTED | 1U << from);
            put(b, id_of(n, NODE), (enum sms_state)to, false);
        }
    }
    add(b);
    finish(b);
    for (unsigned from = 0; from < SMS_STATES; from++) {
        for (unsigned to = 0; to < SMS_STATES; to++) {
            enum sms_state f = (enum sms_state)from;
            enum sms_state t = (enum sms_state)to;

            expect_state(b, (int)(from * 10 + to),
                         sms_state_may_follow(f, t) ? t : f);
        }
    }
    /* 5 transitions; 3 + 4 that were there before; of the final ones each
     * other but ACCEPTED is an error: 2 from each. */
    expect_counts(b, 5, 7, 0, 4);
    assert_int_equal(count(b, "sms_update_errors"), 4);
    assert_int_equal(
        count(b, "sms_update_errors WHERE reason = 'FAILED after DELIVERED: a "
                 "final state is never overwritten' AND status = 'FAILED'"),
        1);
    assert_int_equal(count(b, "sms WHERE updated_at IS NULL"), 11);
    assert_int_equal(
        count(b, "sms WHERE seen_states & (CASE status WHEN 'ACCEPTED' THEN 1"
                 " WHEN 'CONFIRMED' THEN 2 WHEN 'FAILED' THEN 4 ELSE 8 END)"
                 " = 0"),
        0);
}

static void
an_applied_update_leaves_its_time_and_the_states_seen(void **state)
{
    struct bench *b = *state;

    store_accepted(b, 1);
    add_update(b, 1, SMS_CONFIRMED);
    finish(b);
    add_update(b, 1, SMS_DELIVERED);
    finish(b);
    expect_state(b, 1, SMS_DELIVERED);
    assert_int_equal(pg_fixture_ask(b->pg, "SELECT seen_states FROM sms"), 11);
    assert_int_equal(
        pg_fixture_ask(b->pg, "SELECT (extract(epoch FROM updated_at) * 1000)"
                              "::bigint FROM sms"),
        NOW + 2);
}

static void
a_state_that_was_there_before_is_no_news(void **state)
{
    struct bench *b = *state;

    store_accepted(b, 1);
    add_update(b, 1, SMS_CONFIRMED);
    add_update(b, 1, SMS_DELIVERED);
    add_update(b, 1, SMS_CONFIRMED); /* the provider says it again, late */
    add_update(b, 1, SMS_ACCEPTED);
    finish(b);
    expect_state(b, 1, SMS_DELIVERED);
    expect_counts(b, 2, 2, 0, 0);
    assert_int_equal(count(b, "sms_update_errors"), 0);
}

static void
a_message_three_times_in_one_range_goes_in_order(void **state)
{
    struct bench *b = *state;

    store_accepted(b, 1);
    store_accepted(b, 2);
    add_update(b, 1, SMS_CONFIRMED);
    add_update(b, 2, SMS_FAILED);
    add_update(b, 1, SMS_DELIVERED);
    add_update(b, 1, SMS_FAILED);
    assert_int_equal(p->count(b->store), 4);
    finish(b);
    expect_state(b, 1, SMS_DELIVERED);
    expect_state(b, 2, SMS_FAILED);
    expect_counts(b, 3, 0, 0, 1);
    expect_text(b, "SELECT reason FROM sms_update_errors",
                "FAILED after DELIVERED: a final state is never overwritten");
    assert_int_equal(count(b, "sms_update_errors WHERE update_id ="
                              " '01890000-0000-7000-8000-000000040007'"),
                     1);
}

/* ---- errors
 * -------------------------------------------------------------- */

static void
a_message_of_ours_that_nobody_knows_is_an_error(void **state)
{
    struct bench *b = *state;

    begin(b);
    put(b, id_of(9, NODE), SMS_CONFIRMED, false);
    add(b);
    finish(b);
    expect_counts(b, 0, 0, 0, 1);
    expect_text(b,
                "SELECT update_id || ' ' || message_id || ' ' || status || ' '"
                " || reason || ' ' || (extract(epoch FROM received_at) * 1000)"
                "::bigint FROM sms_update_errors",
                "01890000-0000-7000-8000-000000010007 "
                "01890000-0000-7000-8000-00000009002a CONFIRMED unknown "
                "message 1800000000001");
    assert_int_equal(count(b, "sms_early"), 0);
}

static void
what_cannot_be_mapped_is_an_error_and_the_rest_goes_on(void **state)
{
    struct bench *b = *state;
    char name[JOURNAL_ITEM_BYTES];

    store_accepted(b, 1);
    begin(b);
    put_unmapped(b, "01890000-0000-7000-8000-00000001002a",
                 "GONE \"\\\xc3\xa9");
    put_unmapped(b, "NULL", "CONFIRMED");
    put_unmapped(b, "", "{}");
    put(b, id_of(1, NODE), SMS_CONFIRMED, false);
    add(b);
    p->name(b->store, 1, name);
    assert_string_equal(name, "NULL");
    p->name(b->store, 3, name);
    assert_string_equal(name, "01890000-0000-7000-8000-00000001002a");
    finish(b);
    expect_state(b, 1, SMS_CONFIRMED);
    expect_counts(b, 1, 0, 0, 3);
    expect_text(b,
                "SELECT string_agg(message_id || '|' || status || '|' ||"
                " reason, ';' ORDER BY message_id COLLATE \"C\")"
                " FROM sms_update_errors",
                "|{}|not a message id;"
                "01890000-0000-7000-8000-00000001002a|GONE \"\\\xc3\xa9|"
                "not a status that we know;"
                "NULL|CONFIRMED|not a message id");
}

static void
a_long_name_is_cut_between_characters(void **state)
{
    struct bench *b = *state;
    char name[JOURNAL_ITEM_BYTES];
    char text[SMS_UPDATE_NAME_BYTES] = "x";

    for (size_t i = 1; i + 2 < sizeof(text); i += 2) {
        memcpy(text + i, "\xc3\xa9", 3);
    }
    begin(b);
    put_unmapped(b, text, "?");
    add(b);
    p->name(b->store, 0, name);
    assert_int_equal(strlen(name), 63);
    assert_memory_equal(name, text, 63);
    text[0] = '\0'; /* now one byte less fits */
    memmove(text, "\xc3\xa9", 3);
    for (size_t i = 2; i + 2 < sizeof(text); i += 2) {
        memcpy(text + i, "\xc3\xa9", 3);
    }
    begin(b);
    put_unmapped(b, text, "?");
    add(b);
    p->name(b->store, 1, name);
    assert_int_equal(strlen(name), 62);
    finish(b);
}

static void
an_outcome_that_cannot_be_decoded_leaves_the_others(void **state)
{
    struct bench *b = *state;
    struct journal_row broken = {.broken = true};

    store_accepted(b, 1);
    add_update(b, 1, SMS_CONFIRMED);
    begin(b);
    put_unmapped(b, "a", "b");
    put(b, id_of(1, NODE), SMS_DELIVERED, true);
    b->body.bytes--;
    assert_int_equal(decode(b), RC_INVALID);
    text_reset(&b->body);
    text_puts(&b->body, "no outcome");
    assert_int_equal(decode(b), RC_INVALID);
    assert_int_equal(p->decode(b->store, &broken), RC_INVALID);
    begin(b);
    put_unmapped(b, "c", "d");
    add(b);
    assert_int_equal(p->count(b->store), 2);
    assert_int_equal(p->item(b->store, 0).seq, 1);
    assert_int_equal(p->item(b->store, 1).seq, b->requests);
    finish(b);
    assert_int_equal(p->count(b->store), 0);
    expect_state(b, 1, SMS_CONFIRMED);
    expect_text(b, "SELECT message_id || status FROM sms_update_errors", "cd");
}

/* ---- parked
 * -------------------------------------------------------------- */

static void
early_ones_are_applied_once_their_message_is_there(void **state)
{
    struct bench *b = *state;

    add_update(b, 1, SMS_CONFIRMED);
    add_update(b, 1, SMS_DELIVERED);
    add_update(b, 1, SMS_CONFIRMED);
    finish(b);
    expect_counts(b, 0, 0, 3, 0);
    second(b);
    assert_int_equal(metric(b, METRIC_SMS_UPDATES_EARLY), 3);
    expect_counts(b, 0, 0, 3, 0);
    store_accepted(b, 1);
    second(b);
    expect_state(b, 1, SMS_DELIVERED);
    expect_counts(b, 2, 1, 3, 0);
    assert_int_equal(count(b, "sms_early"), 0);
    assert_int_equal(metric(b, METRIC_SMS_UPDATES_EARLY), 0);
    assert_int_equal(
        pg_fixture_ask(b->pg, "SELECT (extract(epoch FROM updated_at) * 1000)"
                              "::bigint FROM sms"),
        NOW + 2);
}

static void
early_ones_come_before_later_ones_of_the_same_message(void **state)
{
    struct bench *b = *state;

    add_update(b, 1, SMS_CONFIRMED);
    add_update(b, 1, SMS_DELIVERED);
    add_update(b, 2, SMS_CONFIRMED); /* stays: its message does not come */
    finish(b);
    store_accepted(b, 1);
    add_update(b, 1, SMS_FAILED);
    finish(b);
    expect_state(b, 1, SMS_DELIVERED);
    expect_counts(b, 2, 0, 3, 1);
    expect_text(b, "SELECT reason FROM sms_update_errors",
                "FAILED after DELIVERED: a final state is never overwritten");
    assert_int_equal(count(b, "sms_early"), 1);
}

static void
one_for_another_node_waits_for_its_message(void **state)
{
    struct bench *b = *state;

    begin(b);
    put(b, id_of(1, OTHER_NODE), SMS_CONFIRMED, false);
    put(b, id_of(1, NODE), SMS_CONFIRMED, false);
    add(b);
    finish(b);
    expect_counts(b, 0, 0, 1, 1);
    assert_int_equal(count(b, "sms_early WHERE message_id ="
                              " '01890000-0000-7000-8000-00000001002b'"),
                     1);
}

static void
after_24_hours_the_wait_is_over(void **state)
{
    struct bench *b = *state;

    add_update(b, 1, SMS_CONFIRMED);
    add_update(b, 2, SMS_CONFIRMED);
    finish(b);
    /* parked_at is the server's clock. */
    b->now_unix_ms =
        pg_fixture_ask(b->pg, "SELECT (extract(epoch FROM now()) * 1000)"
                              "::bigint") +
        24 * HOUR_MS - 16 * MINUTE_MS;
    for (int k = 0; k < 15; k++) { /* long enough at work, but not yet due */
        b->now_unix_ms += 58000;
        second(b);
    }
    assert_int_equal(count(b, "sms_early"), 2);
    store_accepted(b, 2);
    for (int k = 0; k < 4; k++) {
        b->now_unix_ms += 58000;
        second(b);
    }
    assert_int_equal(count(b, "sms_early"), 0);
    assert_int_equal(metric(b, METRIC_SMS_UPDATES_EARLY), 0);
    expect_state(b, 2, SMS_CONFIRMED);
    expect_counts(b, 1, 0, 2, 1);
    expect_text(b, "SELECT reason FROM sms_update_errors",
                "no such message within 24 h");
}

static void
nothing_expires_right_after_an_outage(void **state)
{
    struct bench *b = *state;

    add_update(b, 1, SMS_CONFIRMED);
    finish(b);
    second(b);
    b->now_unix_ms =
        pg_fixture_ask(b->pg, "SELECT (extract(epoch FROM now()) * 1000)"
                              "::bigint") +
        30 * HOUR_MS;
    second(b); /* the first one since then */
    second(b);
    assert_int_equal(count(b, "sms_early"), 1);
    store_accepted(b, 1); /* its own backlog */
    second(b);
    expect_state(b, 1, SMS_CONFIRMED);
}

/* More than a second's window, whose messages never come, before one whose
 * message has come. */
static void
many_that_wait_in_vain_do_not_keep_others_from_being_applied(void **state)
{
    struct bench *b = *state;

    assert_int_equal(
        pg_exec_script(b->pg,
                       "INSERT INTO sms_early (message_id, status, bit,"
                       " update_id, received_at) SELECT gen_random_uuid(),"
                       " 'CONFIRMED', 2, gen_random_uuid(), now()"
                       " FROM generate_series(1, 12000)"),
        RC_OK);
    add_update(b, 1, SMS_CONFIRMED);
    finish(b);
    store_accepted(b, 1);
    for (int k = 0; k < 3; k++) {
        second(b);
    }
    expect_state(b, 1, SMS_CONFIRMED);
    assert_int_equal(count(b, "sms_early"), 12000);
    store_accepted(b, 2); /* and from the start again */
    (void)pg_fixture_ask(b->pg, "UPDATE sms_early SET message_id ="
                                " '01890000-0000-7000-8000-00000002002a'"
                                " WHERE no = 1 RETURNING 1");
    second(b);
    expect_state(b, 2, SMS_CONFIRMED);
}

/* ---- repeats
 * -------------------------------------------------------------- */

static void
fill_range(struct bench *b)
{
    b->requests = 0;
    add_update(b, 1, SMS_CONFIRMED);
    add_update(b, 1, SMS_DELIVERED);
    add_update(b, 1, SMS_FAILED);    /* error */
    add_update(b, 2, SMS_CONFIRMED); /* early */
    add_update(b, 2, SMS_FAILED);    /* early */
    begin(b);
    put(b, id_of(3, NODE), SMS_CONFIRMED, false); /* unknown */
    put(b, id_of(4, OTHER_NODE), SMS_CONFIRMED, false);
    put_unmapped(b, "a", "b");
    add(b);
}

static void
a_range_that_is_repeated_changes_nothing(void **state)
{
    struct bench *b = *state;
    char *before;
    char *after;

    b->conf.sms.status_callback_url[0] = 'x';
    p->configure(b->store, &b->conf);
    store_accepted(b, 1);
    fill_range(b);
    persist(b);
    expect_counts(b, 2, 0, 3, 3);
    before = picture(b);
    persist(b); /* the same once more, and after a restart */
    p->release(b->store);
    fill_range(b);
    finish(b);
    after = picture(b);
    assert_string_equal(before, after);
    free(before);
    free(after);
    store_accepted(b, 2);
    second(b);
    expect_state(b, 2, SMS_FAILED);
    before = picture(b);
    fill_range(b);
    finish(b);
    after = picture(b);
    assert_string_equal(before, after);
    free(before);
    free(after);
}

static void
a_range_in_parts_is_as_the_whole(void **state)
{
    struct bench *b = *state;
    size_t total;

    store_accepted(b, 1);
    fill_range(b);
    total = p->count(b->store);
    for (size_t i = 0; i < total; i++) {
        assert_int_equal(p->persist(b->store, b->pg, i, i + 1), RC_OK);
    }
    assert_int_equal(p->persist(b->store, b->pg, 3, 3), RC_OK);
    expect_counts(b, 2, 0, 3, 3);
    expect_state(b, 1, SMS_DELIVERED);
}

/* ---- notices
 * -------------------------------------------------------------- */

static void
changes_are_noted_for_the_client_when_it_asked_for_them(void **state)
{
    struct bench *b = *state;

    store_accepted(b, 1);
    add_update(b, 1, SMS_CONFIRMED);
    finish(b);
    assert_int_equal(count(b, "sms_notices"), 0);
    (void)snprintf(b->conf.sms.status_callback_url,
                   sizeof(b->conf.sms.status_callback_url), "http://x/");
    p->configure(b->store, &b->conf);
    add_update(b, 1, SMS_CONFIRMED);
    add_update(b, 1, SMS_DELIVERED);
    add_update(b, 1, SMS_FAILED);
    add_update(b, 2, SMS_CONFIRMED);
    finish(b);
    store_accepted(b, 2);
    second(b);
    expect_text(b,
                "SELECT string_agg(message_id || ' ' || status || ' ' || node"
                " || ' ' || (extract(epoch FROM changed_at) * 1000)::bigint,"
                " ';' ORDER BY no) FROM sms_notices",
                "01890000-0000-7000-8000-00000001002a DELIVERED 42 "
                "1800000000003;"
                "01890000-0000-7000-8000-00000002002a CONFIRMED 42 "
                "1800000000005");
}

/* ---- size
 * -------------------------------------------------------------- */

static void
ten_thousand_updates_in_one_outcome_are_applied(void **state)
{
    struct bench *b = *state;

    assert_int_equal(
        pg_exec_script(
            b->pg,
            "INSERT INTO sms (id, phone_number, content, segments, encoding,"
            " status, seen_states, received_at)"
            " SELECT ('01890000-0000-7000-8000-' || lpad(to_hex(n), 8, '0') ||"
            " '002a')::uuid, '+491', 'x', 1, 'GSM-7', 'ACCEPTED', 1, now()"
            " FROM generate_series(1, 10000) AS n"),
        RC_OK);
    begin(b);
    for (int n = SMS_UPDATES_MAX; n > 0; n--) {
        put(b, id_of(n, NODE), n % 10 == 0 ? SMS_FAILED : SMS_CONFIRMED, false);
    }
    add(b);
    assert_int_equal(p->count(b->store), SMS_UPDATES_MAX);
    finish(b);
    expect_counts(b, SMS_UPDATES_MAX, 0, 0, 0);
    assert_int_equal(count(b, "sms WHERE status = 'FAILED'"), 1000);
    assert_int_equal(count(b, "sms WHERE status = 'CONFIRMED'"), 9000);
}

/* ---- two dispatchers
 * -------------------------------------------------------------- */

#define RACE_MESSAGES 300
#define RACE_ROUNDS 20

struct racer {
    pthread_t thread;
    struct bench bench;
    unsigned seed;
    bool failed;
    char error[PG_ERROR_BYTES];
};

/* Random updates of the same messages in random order. */
static void *
race(void *arg)
{
    struct racer *r = arg;
    struct bench *b = &r->bench;

    for (int round = 0; round < RACE_ROUNDS && !r->failed; round++) {
        begin(b);
        for (int k = 0; k < RACE_MESSAGES; k++) {
            int n = rand_r(&r->seed) % RACE_MESSAGES;
            unsigned state = 1 + (unsigned)rand_r(&r->seed) % 3;

            put(b, id_of(n, NODE), (enum sms_state)state, false);
        }
        add(b);
        if (p->persist(b->store, b->pg, 0, p->count(b->store)) != RC_OK) {
            (void)snprintf(r->error, sizeof(r->error), "%s", pg_error(b->pg));
            r->failed = true;
        }
        p->release(b->store);
    }
    return NULL;
}

/* A trigger keeps the history of each message and refuses what the table of
 * states forbids, so that a lost race would show. */
static const char referee_sql[] =
    "CREATE TABLE changes (message_id uuid, before text, after text);"
    "CREATE FUNCTION referee() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " INSERT INTO changes VALUES (old.id, old.status, new.status);"
    " IF old.status IN ('FAILED', 'DELIVERED') THEN"
    " RAISE EXCEPTION 'final state overwritten'; END IF;"
    " RETURN new; END $$;"
    "CREATE TRIGGER referee BEFORE UPDATE ON sms FOR EACH ROW"
    " EXECUTE FUNCTION referee()";

static void
two_dispatchers_never_overwrite_a_final_state_nor_block_each_other(void **state)
{
    struct bench *b = *state;
    struct racer racers[2];
    int64_t applied = 0;

    for (int n = 0; n < RACE_MESSAGES; n++) {
        store_accepted(b, n);
    }
    assert_int_equal(pg_exec_script(b->pg, referee_sql), RC_OK);
    memset(racers, 0, sizeof(racers));
    for (unsigned k = 0; k < 2; k++) {
        struct bench *mine = &racers[k].bench;

        racers[k].seed = k + 1;
        mine->requests = (int64_t)k * 1000;
        mine->conf = b->conf;
        mine->pg = pg_fixture_pg("s");
        assert_int_equal(metrics_new(&mine->metrics), RC_OK);
        assert_int_equal(p->new (&mine->store, &mine->conf, mine->metrics),
                         RC_OK);
    }
    for (unsigned k = 0; k < 2; k++) {
        assert_int_equal(
            pthread_create(&racers[k].thread, NULL, race, &racers[k]), 0);
    }
    for (unsigned k = 0; k < 2; k++) {
        pthread_join(racers[k].thread, NULL);
    }
    for (unsigned k = 0; k < 2; k++) {
        struct bench *mine = &racers[k].bench;

        if (racers[k].failed) {
            fail_msg("racer %u: %s", k, racers[k].error);
        }
        applied += metric(mine, METRIC_SMS_UPDATES_APPLIED_TOTAL);
        p->free(&mine->store);
        metrics_free(&mine->metrics);
        pg_free(&mine->pg);
        text_free(&mine->body);
    }
    assert_int_equal(count(b, "changes"), applied);
    assert_int_equal(count(b, "(SELECT 1 FROM changes GROUP BY message_id,"
                              " after HAVING count(*) > 1) AS t"),
                     0);
    assert_true(count(b, "sms WHERE status IN ('FAILED', 'DELIVERED')") > 250);
}

/* The other one is caught between its lock and its commit: what it commits
 * counts, though our statement began before. */
struct waiter {
    struct bench *bench;
    struct pg *pg;
    pthread_t thread;
};

static void *
persist_waiting(void *arg)
{
    struct waiter *w = arg;

    persist_to(w->bench, w->pg);
    return NULL;
}

static void
judge_after(struct bench *b, const char *change)
{
    struct waiter w = {.bench = b, .pg = pg_fixture_pg("s")};

    assert_int_equal(pg_exec(b->pg, "BEGIN", 0, NULL, NULL), RC_OK);
    assert_int_equal(pg_exec(b->pg, change, 0, NULL, NULL), RC_OK);
    assert_int_equal(pthread_create(&w.thread, NULL, persist_waiting, &w), 0);
    while (pg_fixture_ask(b->pg, "SELECT count(*) FROM pg_locks"
                                 " WHERE NOT granted") == 0) {
    }
    assert_int_equal(pg_exec(b->pg, "COMMIT", 0, NULL, NULL), RC_OK);
    pthread_join(w.thread, NULL);
    p->release(b->store);
    pg_free(&w.pg);
}

static void
what_another_one_commits_while_we_wait_for_it_counts(void **state)
{
    struct bench *b = *state;

    for (int n = 1; n <= 4; n++) {
        store_accepted(b, n);
    }
    begin(b);
    put(b, id_of(1, NODE), SMS_FAILED, false);
    put(b, id_of(2, NODE), SMS_DELIVERED, false);
    put(b, id_of(3, NODE), SMS_CONFIRMED, false);
    put(b, id_of(4, NODE), SMS_CONFIRMED, false);
    add(b);
    judge_after(b, "UPDATE sms SET status = CASE right(id::text, 5)"
                   " WHEN '1002a' THEN 'DELIVERED' ELSE 'CONFIRMED' END,"
                   " seen_states = CASE right(id::text, 5)"
                   " WHEN '1002a' THEN 9 ELSE 3 END"
                   " WHERE right(id::text, 5) <> '4002a'");
    expect_state(b, 1, SMS_DELIVERED); /* forbidden now */
    expect_state(b, 2, SMS_DELIVERED); /* still allowed */
    expect_state(b, 3, SMS_CONFIRMED); /* no news now */
    expect_state(b, 4, SMS_CONFIRMED);
    assert_int_equal(pg_fixture_ask(b->pg, "SELECT sum(seen_states) FROM sms"),
                     9 + 11 + 3 + 3);
    expect_counts(b, 2, 1, 0, 1);
}

static void
a_parked_one_in_another_dispatcher_s_hands_is_left_to_it(void **state)
{
    struct bench *b = *state;
    struct pg *other = pg_fixture_pg("s");

    add_update(b, 1, SMS_CONFIRMED);
    add_update(b, 1, SMS_DELIVERED);
    add_update(b, 2, SMS_CONFIRMED);
    finish(b);
    store_accepted(b, 1);
    store_accepted(b, 2);
    assert_int_equal(pg_exec(other, "BEGIN", 0, NULL, NULL), RC_OK);
    (void)pg_fixture_ask(other, "SELECT no FROM sms_early WHERE no = 1"
                                " FOR UPDATE");
    second(b); /* waits for nobody, and takes no later one before it */
    expect_state(b, 1, SMS_ACCEPTED);
    expect_state(b, 2, SMS_CONFIRMED);
    assert_int_equal(pg_exec(other, "ROLLBACK", 0, NULL, NULL), RC_OK);
    pg_free(&other);
    second(b);
    expect_state(b, 1, SMS_DELIVERED);
    expect_counts(b, 3, 0, 3, 0);
}

static void
a_database_that_refuses_is_told(void **state)
{
    struct bench *b = *state;

    add_update(b, 1, SMS_CONFIRMED);
    assert_int_equal(
        pg_exec(b->pg, "DROP TABLE sms_update_errors", 0, NULL, NULL), RC_OK);
    assert_int_equal(p->persist(b->store, b->pg, 0, 1), RC_INVALID);
    p->release(b->store);
    assert_int_equal(pg_exec(b->pg, "DROP TABLE sms_early", 0, NULL, NULL),
                     RC_OK);
    assert_int_equal(p->every_second(b->store, b->pg, NOW), RC_INVALID);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_pair_of_states_goes_as_the_table_says),
        TEST(an_applied_update_leaves_its_time_and_the_states_seen),
        TEST(a_state_that_was_there_before_is_no_news),
        TEST(a_message_three_times_in_one_range_goes_in_order),
        TEST(a_message_of_ours_that_nobody_knows_is_an_error),
        TEST(what_cannot_be_mapped_is_an_error_and_the_rest_goes_on),
        TEST(a_long_name_is_cut_between_characters),
        TEST(an_outcome_that_cannot_be_decoded_leaves_the_others),
        TEST(early_ones_are_applied_once_their_message_is_there),
        TEST(early_ones_come_before_later_ones_of_the_same_message),
        TEST(one_for_another_node_waits_for_its_message),
        TEST(after_24_hours_the_wait_is_over),
        TEST(nothing_expires_right_after_an_outage),
        TEST(many_that_wait_in_vain_do_not_keep_others_from_being_applied),
        TEST(a_range_that_is_repeated_changes_nothing),
        TEST(a_range_in_parts_is_as_the_whole),
        TEST(changes_are_noted_for_the_client_when_it_asked_for_them),
        TEST(ten_thousand_updates_in_one_outcome_are_applied),
        TEST(
            two_dispatchers_never_overwrite_a_final_state_nor_block_each_other),
        TEST(what_another_one_commits_while_we_wait_for_it_counts),
        TEST(a_parked_one_in_another_dispatcher_s_hands_is_left_to_it),
        TEST(a_database_that_refuses_is_told),
    };

    return cmocka_run_group_tests(tests, pg_fixture_start, pg_fixture_stop);
}
