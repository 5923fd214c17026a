/* dispatcher/sms_notifier.c on a real server, and an endpoint of the client's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/sms_notifier.h"
#include "shared/clock.h"
#include "shared/signature.h"
#include "tests/dispatcher/http_fixture.h"
#include "tests/shared/pg_fixture.h"

#define PATIENCE_MS 20000 /* a test that waits this long has failed */
#define SECRET "the first secret"
#define NODE 7

struct bench {
    struct pg *pg;
    struct http_server *server;
    struct metrics *metrics;
    struct sms_notifier *notifier;
    struct conf conf;
};

static int
setup(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));

    assert_non_null(b);
    (void)snprintf(b->conf.postgres.url, sizeof(b->conf.postgres.url), "%s",
                   pg_fixture_database("s"));
    b->conf.postgres.timeout_ms = PG_FIXTURE_TIMEOUT_MS;
    b->conf.node.id = NODE;
    b->conf.sms.timeout_ms = 30000;
    b->conf.sms.max_attempts = 3;
    b->conf.sms.retry_base_ms = 1;
    b->pg = pg_fixture_pg("s");
    pg_fixture_migration(b->pg, "0003_sms.sql");
    b->server = http_server_new();
    assert_int_equal(metrics_new(&b->metrics), RC_OK);
    *state = b;
    return 0;
}

static int
teardown(void **state)
{
    struct bench *b = *state;

    sms_notifier_stop(&b->notifier);
    assert_null(b->notifier);
    sms_notifier_stop(&b->notifier); /* of NULL */
    metrics_free(&b->metrics);
    http_server_free(b->server);
    pg_free(&b->pg);
    free(b);
    return 0;
}

static void
set_url(struct bench *b, const char *path)
{
    char url[HTTP_URL_BYTES];

    (void)snprintf(b->conf.sms.status_callback_url,
                   sizeof(b->conf.sms.status_callback_url), "%s",
                   path[0] == '/' ? http_server_url(b->server, path, url)
                                  : path);
}

static void
start(struct bench *b, const char *path)
{
    set_url(b, path);
    assert_int_equal(sms_notifier_start(&b->notifier, &b->conf, b->metrics),
                     RC_OK);
}

/* Notices from..to of this node; no is event_id. */
static void
put(struct bench *b, int from, int to)
{
    char sql[512];

    (void)snprintf(
        sql, sizeof(sql),
        "INSERT INTO sms_notices (no, message_id, status, changed_at, node)"
        " SELECT n, '01890000-0000-7000-8000-0000000a0000', 'CONFIRMED',"
        " timestamptz 'epoch' + n * interval '1 millisecond', %d"
        " FROM generate_series(%d, %d) AS n",
        NODE, from, to);
    (void)pg_fixture_ask(b->pg, sql);
}

static int64_t
waiting(struct bench *b)
{
    return pg_fixture_ask(
        b->pg, "SELECT count(*) FROM sms_notices WHERE dead_at IS NULL");
}

static int64_t
dead(struct bench *b)
{
    return pg_fixture_ask(
        b->pg, "SELECT count(*) FROM sms_notices WHERE dead_at IS NOT NULL");
}

/* Until ask() = wanted. */
static void
await(struct bench *b, int64_t (*ask)(struct bench *b), int64_t wanted)
{
    int64_t until_ms = clock_now_ms() + PATIENCE_MS;

    while (ask(b) != wanted) {
        assert_true(clock_now_ms() < until_ms);
        (void)poll(NULL, 0, 5);
    }
}

static int64_t
requests(struct bench *b)
{
    return (int64_t)atomic_load(&b->server->requests);
}

static int64_t
unanswered(struct bench *b)
{
    return (int64_t)atomic_load(&b->server->late);
}

static int64_t
metric(const struct bench *b, enum metric which)
{
    return metrics_get(b->metrics, which, SERVICE_COUNT);
}

/* Counted once the rows are gone. */
static int64_t
sent(struct bench *b)
{
    return metric(b, METRIC_SMS_NOTICES_SENT_TOTAL);
}

static int64_t
given_up(struct bench *b)
{
    return metric(b, METRIC_SMS_NOTICES_DEAD_TOTAL);
}

/* The rows of the dead are gone. It may have looked before it was told of the
 * new endpoint: then they are dead once more, and ordered again. */
static int64_t
left_of_the_dead(struct bench *b)
{
    (void)pg_fixture_ask(b->pg, "UPDATE sms_notices SET dead_at = NULL"
                                " WHERE dead_at IS NOT NULL");
    return waiting(b);
}

static void
notices_are_posted_in_order_and_then_gone(void **state)
{
    struct bench *b = *state;
    char *request;

    put(b, 8, 9);
    start(b, "/in");
    await(b, waiting, 0);
    request = http_server_last(b->server);
    assert_non_null(strstr(request, "POST /in HTTP/1.1\r\n"));
    assert_non_null(strstr(request, "Idempotency-Key: sms-notices-7-8-9\r\n"));
    assert_null(strstr(request, "X-Signature"));
    assert_string_equal(
        strstr(request, "\r\n\r\n") + 4,
        "[{\"event_id\":8,\"id\":\"01890000-0000-7000-8000-0000000a0000\","
        "\"status\":\"CONFIRMED\",\"changed_at\":\"1970-01-01T00:00:00.008Z\"},"
        "{\"event_id\":9,\"id\":\"01890000-0000-7000-8000-0000000a0000\","
        "\"status\":\"CONFIRMED\",\"changed_at\":\"1970-01-01T00:00:00.009Z\"}"
        "]");
    free(request);
    assert_int_equal(requests(b), 1);
    await(b, sent, 2);
}

static void
a_thousand_at_most_go_at_once(void **state)
{
    struct bench *b = *state;
    char *request;

    put(b, 1, 2001);
    start(b, "/in");
    await(b, waiting, 0);
    assert_int_equal(requests(b), 3);
    request = http_server_last(b->server);
    assert_non_null(
        strstr(request, "Idempotency-Key: sms-notices-7-2001-2001\r\n"));
    free(request);
}

static void
the_first_secret_signs(void **state)
{
    struct bench *b = *state;
    char value[SIGNATURE_BYTES] = "";
    char *request;
    const char *at;
    const char *body;

    (void)snprintf(b->conf.sms.webhook_secrets,
                   sizeof(b->conf.sms.webhook_secrets), "%s,the second one",
                   SECRET);
    put(b, 1, 1);
    start(b, "/in");
    await(b, waiting, 0);
    request = http_server_last(b->server);
    at = strstr(request, "X-Signature: ");
    assert_non_null(at);
    at += strlen("X-Signature: ");
    (void)snprintf(value, sizeof(value), "%.*s", (int)strcspn(at, "\r"), at);
    body = strstr(request, "\r\n\r\n") + 4;
    assert_int_equal(signature_check(value, SECRET, body, strlen(body),
                                     clock_now_unix_ms() / 1000),
                     SIGNATURE_GOOD);
    free(request);
}

static void
other_nodes_notices_are_left_alone(void **state)
{
    struct bench *b = *state;

    (void)pg_fixture_ask(
        b->pg, "INSERT INTO sms_notices (no, message_id, status, changed_at,"
               " node) VALUES (1, gen_random_uuid(), 'FAILED', now(), 8)");
    put(b, 2, 2);
    start(b, "/in");
    await(b, waiting, 1);
    assert_int_equal(requests(b), 1);
}

static void
what_is_refused_is_repeated_and_then_dead(void **state)
{
    struct bench *b = *state;

    put(b, 1, 2);
    start(b, "/503");
    await(b, dead, 2);
    assert_int_equal(requests(b), 3);
    assert_int_equal(pg_fixture_ask(b->pg, "SELECT count(*) FROM sms_notices"
                                           " WHERE last_error = 'HTTP 503'"),
                     2);
    await(b, given_up, 2);
    assert_int_equal(metric(b, METRIC_SMS_NOTICES_SENT_TOTAL), 0);
}

static void
a_url_that_cannot_be_used_leaves_dead_notices(void **state)
{
    struct bench *b = *state;

    put(b, 1, 1);
    start(b, "http://[nonsense/");
    await(b, dead, 1);
    assert_int_equal(requests(b), 0);
}

static void
the_dead_are_sent_again_by_order(void **state)
{
    struct bench *b = *state;

    b->conf.sms.max_attempts = 1;
    put(b, 1, 1);
    start(b, "/503");
    await(b, dead, 1);
    set_url(b, "/in");
    sms_notifier_configure(b->notifier, &b->conf);
    await(b, left_of_the_dead, 0);
    assert_int_equal(dead(b), 0);
}

static void
without_an_endpoint_nothing_is_asked_for_until_there_is_one(void **state)
{
    struct bench *b = *state;

    put(b, 1, 1);
    start(b, "");
    assert_int_equal(waiting(b), 1);
    set_url(b, "/in");
    sms_notifier_configure(b->notifier, &b->conf);
    await(b, waiting, 0);
    assert_int_equal(requests(b), 1);
}

static void
an_endpoint_that_hangs_does_not_hold_up_the_end(void **state)
{
    struct bench *b = *state;
    int64_t begun_ms;

    put(b, 1, 1);
    start(b, "/never");
    await(b, requests, 1);
    begun_ms = clock_now_ms();
    sms_notifier_stop(&b->notifier);
    assert_true(clock_now_ms() - begun_ms < 5000);
    assert_int_equal(waiting(b), 1); /* it comes again, under its event_id */
    start(b, "/in");
    await(b, waiting, 0);
    assert_int_equal(requests(b), 2);
}

static void
a_long_rest_does_not_hold_up_the_end(void **state)
{
    struct bench *b = *state;
    int64_t begun_ms;

    b->conf.sms.retry_base_ms = 600000;
    b->conf.sms.max_attempts = 100;
    put(b, 1, 1);
    start(b, "/503");
    await(b, requests, 1);
    begun_ms = clock_now_ms();
    sms_notifier_stop(&b->notifier);
    assert_true(clock_now_ms() - begun_ms < 5000);
    assert_int_equal(waiting(b), 1);
}

/* An update arrives while a post fails: the post stays what it was. */
static void
a_post_that_failed_is_repeated_as_it_was(void **state)
{
    struct bench *b = *state;
    char *request;

    b->conf.sms.max_attempts = 100;
    put(b, 1, 2);
    start(b, "/late");
    await(b, unanswered, 1);
    put(b, 3, 3);
    http_server_order(b->server, HTTP_CLOSE);
    await(b, requests, 2);
    request = http_server_last(b->server);
    assert_non_null(strstr(request, "Idempotency-Key: sms-notices-7-1-2\r\n"));
    free(request);
    http_server_order(b->server, HTTP_ANSWER);
    await(b, waiting, 1);
    await(b, requests, 3);
    request = http_server_last(b->server);
    assert_non_null(strstr(request, "Idempotency-Key: sms-notices-7-3-3\r\n"));
    free(request);
}

static void
a_table_that_is_not_there_yet_is_waited_for(void **state)
{
    struct bench *b = *state;

    (void)pg_fixture_ask(b->pg, "ALTER TABLE sms_notices RENAME TO later");
    start(b, "/in");
    (void)pg_fixture_ask(b->pg, "ALTER TABLE later RENAME TO sms_notices");
    put(b, 1, 1);
    await(b, waiting, 0);
    assert_int_equal(requests(b), 1);
}

/* What may be read but not written: nothing is posted over and over. */
static void
what_was_taken_is_written_down_before_the_next_post(void **state)
{
    struct bench *b = *state;

    (void)pg_fixture_ask(
        b->pg, "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
               " $$BEGIN PERFORM nextval('refused');"
               " RAISE EXCEPTION 'disk full'; END$$");
    (void)pg_fixture_ask(b->pg, "CREATE SEQUENCE refused");
    (void)pg_fixture_ask(b->pg,
                         "CREATE TRIGGER refuse BEFORE DELETE OR UPDATE ON"
                         " sms_notices EXECUTE FUNCTION refuse()");
    put(b, 1, 1);
    start(b, "/in");
    int64_t until_ms = clock_now_ms() + PATIENCE_MS;
    while (pg_fixture_ask(b->pg, "SELECT last_value FROM refused") < 3) {
        assert_true(clock_now_ms() < until_ms);
        (void)poll(NULL, 0, 5);
    }
    assert_int_equal(requests(b), 1);
    (void)pg_fixture_ask(b->pg, "DROP TRIGGER refuse ON sms_notices");
    await(b, waiting, 0);
    assert_int_equal(requests(b), 1);
    await(b, sent, 1);
}

static void
without_a_database_it_waits_and_ends(void **state)
{
    struct bench *b = *state;
    int64_t begun_ms;

    (void)snprintf(b->conf.postgres.url, sizeof(b->conf.postgres.url),
                   "postgresql://localhost:1/none");
    start(b, "/in");
    begun_ms = clock_now_ms();
    sms_notifier_stop(&b->notifier);
    assert_true(clock_now_ms() - begun_ms < 5000);
    assert_int_equal(requests(b), 0);
}

#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SERVER(notices_are_posted_in_order_and_then_gone),
        WITH_SERVER(a_thousand_at_most_go_at_once),
        WITH_SERVER(the_first_secret_signs),
        WITH_SERVER(other_nodes_notices_are_left_alone),
        WITH_SERVER(what_is_refused_is_repeated_and_then_dead),
        WITH_SERVER(a_url_that_cannot_be_used_leaves_dead_notices),
        WITH_SERVER(the_dead_are_sent_again_by_order),
        WITH_SERVER(
            without_an_endpoint_nothing_is_asked_for_until_there_is_one),
        WITH_SERVER(an_endpoint_that_hangs_does_not_hold_up_the_end),
        WITH_SERVER(a_long_rest_does_not_hold_up_the_end),
        WITH_SERVER(a_post_that_failed_is_repeated_as_it_was),
        WITH_SERVER(a_table_that_is_not_there_yet_is_waited_for),
        WITH_SERVER(what_was_taken_is_written_down_before_the_next_post),
        WITH_SERVER(without_a_database_it_waits_and_ends),
    };

    return cmocka_run_group_tests(tests, pg_fixture_start, pg_fixture_stop);
}
