/* The poster against a real server (http_fixture.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dispatcher/poster.h"
#include "shared/clock.h"
#include "shared/rc.h"
#include "tests/dispatcher/http_fixture.h"

#define PATIENCE_MS 20000 /* a test that waits this long has failed */
#define LARGE_BYTES ((size_t)300 * 1024)      /* more than curl sends at once */
#define HUGE_BYTES ((size_t)32 * 1024 * 1024) /* more than sockets hold */

/* ---- a poster and what it brought ---------------------------------------- */

struct bench {
    struct http_server *server;
    struct poster *poster;
    struct poster_options options;
    unsigned counted;
    int64_t counted_us; /* the last */
    uint64_t counted_tags;
    unsigned done;
    unsigned answered;
    unsigned more; /* POSTs that the calls start */
    uint64_t tags;
    struct post_result last; /* without its body ... */
    char body[4096];         /* ... which is here */
};

static int64_t
boot_us(void)
{
    struct timespec now;

    assert_int_equal(clock_gettime(CLOCK_BOOTTIME, &now), 0);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static enum rc
try_start(struct bench *b, const char *path, uint64_t tag)
{
    char url[HTTP_URL_BYTES];
    struct poster_request request = {
        .url = url,
        .body = "{\"to\": 1}",
        .body_bytes = strlen("{\"to\": 1}"),
        .idempotency_key = "key-1",
        .tag = tag,
    };

    (void)http_server_url(b->server, path, url);
    return poster_start(b->poster, &request);
}

static void
start(struct bench *b, const char *path, uint64_t tag)
{
    assert_int_equal(try_start(b, path, tag), RC_OK);
}

static void
on_counted(void *arg, uint64_t tag, int64_t counted_us)
{
    struct bench *b = arg;

    assert_true(counted_us > 0);
    b->counted++;
    b->counted_us = counted_us;
    b->counted_tags += tag;
}

static void
on_done(void *arg, const struct post_result *result)
{
    struct bench *b = arg;

    b->done++;
    b->answered += result->stage == POST_ANSWERED;
    b->tags += result->tag;
    b->last = *result;
    assert_non_null(result->body);
    assert_int_equal(result->body[result->body_bytes], '\0');
    assert_true(result->body_bytes < sizeof(b->body));
    memcpy(b->body, result->body, result->body_bytes + 1);
    b->last.body = NULL;
    assert_int_equal(result->stage == POST_ANSWERED, result->error[0] == '\0');
    assert_int_equal(result->stage == POST_NOT_SENT, result->counted_us == 0);
    if (b->more > 0) {
        b->more--;
        start(b, "/200", 1);
    }
}

static int
bench_new(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));
    const struct poster_calls calls = {.counted = on_counted, .done = on_done};

    assert_non_null(b);
    b->server = http_server_new();
    b->options = (struct poster_options){
        .concurrency = 4, .timeout_ms = 10000, .max_body_bytes = 1000};
    assert_int_equal(poster_new(&b->poster, &b->options, &calls, b), RC_OK);
    *state = b;
    return 0;
}

static int
bench_free(void **state)
{
    struct bench *b = *state;

    poster_free(&b->poster);
    assert_null(b->poster);
    http_server_free(b->server);
    free(b);
    return 0;
}

static int64_t
drive_once(struct bench *b)
{
    int64_t wait_ms = poster_drive(b->poster, clock_now_ms());
    struct pollfd fd = {.fd = poster_fd(b->poster), .events = POLLIN};

    (void)poll(&fd, 1, wait_ms < 0 || wait_ms > 20 ? 20 : (int)wait_ms);
    return wait_ms;
}

static void
drive_until(struct bench *b, const unsigned *figure, unsigned reached)
{
    int64_t end_ms = clock_now_ms() + PATIENCE_MS;

    while (*figure < reached) {
        assert_true(clock_now_ms() < end_ms);
        (void)drive_once(b);
    }
}

static void
post(struct bench *b, const char *path)
{
    unsigned counted = b->counted;

    start(b, path, 7);
    drive_until(b, &b->done, b->done + 1);
    assert_int_equal(poster_in_flight(b->poster), 0);
    assert_int_equal(b->last.tag, 7);
    assert_int_equal(b->counted, counted + (b->last.stage != POST_NOT_SENT));
    if (b->last.stage != POST_NOT_SENT) {
        assert_true(b->last.counted_us == b->counted_us);
    }
}

static void
post_is_answered(struct bench *b, const char *path, int status)
{
    post(b, path);
    assert_int_equal(b->last.stage, POST_ANSWERED);
    assert_int_equal(b->last.status, status);
}

/* Requests, connections. */
static void
server_saw(struct bench *b, unsigned requests, unsigned accepted)
{
    assert_int_equal(atomic_load(&b->server->requests), requests);
    assert_int_equal(atomic_load(&b->server->accepted), accepted);
}

/* Until count connections are there, and nothing is to be done. */
static void
warm(struct bench *b, unsigned count)
{
    char url[HTTP_URL_BYTES];
    int64_t end_ms = clock_now_ms() + PATIENCE_MS;
    unsigned before = atomic_load(&b->server->accepted);

    (void)http_server_url(b->server, "/x", url);
    poster_warm(b->poster, url, count);
    while (drive_once(b) >= 0 ||
           atomic_load(&b->server->accepted) < before + count) {
        assert_true(clock_now_ms() < end_ms);
    }
}

/* ---- tests: answers ------------------------------------------------------ */

static void
a_post_brings_status_body_and_tag(void **state)
{
    struct bench *b = *state;

    post_is_answered(b, "/200", 200);
    assert_string_equal(b->body, "/200");
    assert_int_equal(b->last.body_bytes, 4);
    assert_false(b->last.too_long);
    assert_true(b->last.duration_ms >= 0);
}

static void
headers_and_body_arrive_as_given(void **state)
{
    struct bench *b = *state;
    char *in;

    post_is_answered(b, "/200", 200);
    in = http_server_last(b->server);
    assert_memory_equal(in, "POST /200 HTTP/1.1\r\n", 20);
    assert_non_null(strstr(in, "\r\nIdempotency-Key: key-1\r\n"));
    assert_non_null(strstr(in, "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(in, "\r\nContent-Length: 9\r\n"));
    assert_null(strstr(in, "Expect"));
    assert_string_equal(strstr(in, "\r\n\r\n"), "\r\n\r\n{\"to\": 1}");
    free(in);
}

static void
one_more_header_arrives_as_given(void **state)
{
    struct bench *b = *state;
    char url[HTTP_URL_BYTES];
    char line[POST_HEADER_BYTES];
    char expected[POST_HEADER_BYTES + 4];
    struct poster_request request = {
        .url = http_server_url(b->server, "/200", url),
        .body = "{}",
        .body_bytes = 2,
        .idempotency_key = "key-1",
        .header = line};
    char *in;

    memset(line, 'a', sizeof(line)); /* as long as it may be */
    memcpy(line, "X-Signature: t=1 v1=", 20);
    line[sizeof(line) - 1] = '\0';
    (void)snprintf(expected, sizeof(expected), "\r\n%s\r\n", line);
    assert_int_equal(poster_start(b->poster, &request), RC_OK);
    memset(line, 'b', sizeof(line)); /* it was copied */
    drive_until(b, &b->done, 1);
    in = http_server_last(b->server);
    assert_non_null(strstr(in, expected));
    assert_non_null(strstr(in, "\r\nIdempotency-Key: key-1\r\n"));
    assert_non_null(strstr(in, "\r\nContent-Type: application/json\r\n"));
    free(in);
    post_is_answered(b, "/200", 200); /* and not in the next one */
    in = http_server_last(b->server);
    assert_null(strstr(in, "X-Signature"));
    free(in);
}

static void
what_is_no_header_is_refused(void **state)
{
    struct bench *b = *state;
    static const char *const bad[] = {
        "",        "X-Signature",   "X-Signature:",   "X-Signature:  ",
        ": v",     "X Y: v",        "X-Signature; v", "X-A: v\r\nX-B: v",
        "X: a\nb", "X-A: \xc3\xa9", "X-A: v\tw\x7f",
    };
    char line[POST_HEADER_BYTES + 1];
    struct poster_request request = {.url = "http://localhost:1/",
                                     .body = "{}",
                                     .body_bytes = 2,
                                     .idempotency_key = ""};

    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        request.header = bad[i];
        assert_int_equal(poster_start(b->poster, &request), RC_INVALID);
    }
    memset(line, 'a', sizeof(line));
    line[1] = ':';
    line[POST_HEADER_BYTES] = '\0';
    request.header = line;
    assert_int_equal(poster_start(b->poster, &request), RC_INVALID);
    assert_int_equal(poster_in_flight(b->poster), 0);
}

static void
post_large(struct bench *b, size_t bytes, const char *path)
{
    char *body = malloc(bytes);
    char url[HTTP_URL_BYTES];
    struct poster_request request = {
        .url = url, .body = body, .body_bytes = bytes, .idempotency_key = ""};

    assert_non_null(body);
    for (size_t i = 0; i < bytes; i++) {
        body[i] = (char)('a' + i % 23);
    }
    (void)http_server_url(b->server, path, url);
    assert_int_equal(poster_start(b->poster, &request), RC_OK);
    free(body); /* it was copied */
    drive_until(b, &b->done, b->done + 1);
}

static void
a_large_body_arrives_without_asking_first(void **state)
{
    struct bench *b = *state;
    const char *body;
    char *in;

    post_large(b, LARGE_BYTES, "/200");
    assert_int_equal(b->last.stage, POST_ANSWERED);
    assert_int_equal(b->counted, 1);
    in = http_server_last(b->server);
    body = strstr(in, "\r\n\r\n");
    assert_null(strstr(in, "Expect"));
    assert_null(strstr(in, "Idempotency-Key"));
    assert_int_equal(strlen(body + 4), LARGE_BYTES);
    for (size_t i = 0; i < LARGE_BYTES; i++) {
        assert_int_equal(body[4 + i], (char)('a' + i % 23));
    }
    free(in);
}

static void
any_status_is_an_answer(void **state)
{
    struct bench *b = *state;

    post_is_answered(b, "/400", 400);
    assert_string_equal(b->body, "no");
    post_is_answered(b, "/429", 429);
    post_is_answered(b, "/503", 503);
    post_is_answered(b, "/interim", 200);
    server_saw(b, 4, 1);
}

static void
redirects_are_not_followed(void **state)
{
    struct bench *b = *state;

    post_is_answered(b, "/301", 301);
    post_is_answered(b, "/307", 307);
    server_saw(b, 2, 1);
}

static void
an_answer_in_pieces_is_put_together(void **state)
{
    struct bench *b = *state;

    post_is_answered(b, "/split", 200);
    assert_string_equal(b->body, "split");
    post_is_answered(b, "/chunked", 200);
    assert_string_equal(b->body, "abcde");
    post_is_answered(b, "/to-the-end", 200);
    assert_string_equal(b->body, "all");
}

static void
an_answer_is_bounded(void **state)
{
    struct bench *b = *state;

    b->options.max_body_bytes = strlen("/123456");
    poster_set(b->poster, &b->options);
    post_is_answered(b, "/123456", 200);
    post(b, "/1234567");
    assert_int_equal(b->last.stage, POST_SENT);
    assert_int_equal(b->last.status, 200);
    assert_true(b->last.too_long);
    assert_string_equal(b->last.error, "the answer is too long");
    post(b, "/headers");
    assert_int_equal(b->last.stage, POST_SENT);
    assert_true(b->last.too_long);
}

/* ---- tests: how far it came ---------------------------------------------- */

static void
refused_is_not_sent(void **state)
{
    struct bench *b = *state;
    struct http_server *gone = http_server_new();
    struct poster_request request = {
        .body = "{}", .body_bytes = 2, .idempotency_key = ""};
    char url[HTTP_URL_BYTES];

    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/", gone->port);
    request.url = url;
    http_server_free(gone);
    assert_int_equal(poster_start(b->poster, &request), RC_OK);
    drive_until(b, &b->done, 1);
    assert_int_equal(b->last.stage, POST_NOT_SENT);
    assert_int_equal(b->last.status, 0);
    assert_int_equal(b->counted, 0);
    assert_string_equal(b->last.error, "cannot connect: Connection refused");
}

/* Who is first, the request or the reset, is open; a whole request never
 * comes to the server, and an answer never to us. */
static void
a_reset_before_the_request_is_no_answer(void **state)
{
    struct bench *b = *state;
    unsigned accepted;

    atomic_store(&b->server->rejects, true);
    for (int i = 0; i < 20; i++) {
        post(b, "/200");
        assert_int_not_equal(b->last.stage, POST_ANSWERED);
    }
    assert_int_equal(atomic_load(&b->server->requests), 0);
    /* A reset that is seen before anything is written: once more. */
    accepted = atomic_load(&b->server->accepted);
    assert_in_range(accepted, 20, 40);
}

static void
what_ends_behind_the_request_is_ambiguous(void **state)
{
    struct bench *b = *state;
    static const char *const paths[] = {"/reset", "/close", "/cut",
                                        "/cut-early", "/garbage"};

    for (unsigned i = 0; i < ARRAY_COUNT(paths); i++) {
        post(b, paths[i]);
        assert_int_equal(b->last.stage, POST_SENT);
        assert_int_equal(b->last.status,
                         strcmp(paths[i], "/cut") == 0 ? 200 : 0);
        assert_true(b->last.error[0] != '\0');
        server_saw(b, i + 1, i + 1);
    }
}

static void
silence_ends_at_the_timeout(void **state)
{
    struct bench *b = *state;

    b->options.timeout_ms = 60;
    poster_set(b->poster, &b->options);
    post(b, "/never");
    assert_int_equal(b->last.stage, POST_SENT);
    assert_int_equal(b->last.status, 0);
    assert_true(b->last.duration_ms >= 50);
    assert_string_equal(b->last.error, "no whole answer within 60 ms");
}

/* ---- tests: connections -------------------------------------------------- */

static void
a_connection_is_used_again(void **state)
{
    struct bench *b = *state;

    for (int i = 0; i < 30; i++) {
        post_is_answered(b, "/200", 200);
    }
    server_saw(b, 30, 1);
}

/* curl would send it again on a new connection, and it would be counted
 * twice. */
static void
a_request_that_met_a_closing_connection_is_not_sent_again(void **state)
{
    struct bench *b = *state;

    /* More often than the five times that curl tries in a handle's life. */
    for (unsigned i = 0; i < 10; i++) {
        post_is_answered(b, "/once", 200);
        post(b, "/once");
        assert_int_equal(b->last.stage, POST_SENT);
        assert_string_equal(b->last.error,
                            "the connection ended without an answer");
        server_saw(b, 2 * i + 2, i + 1);
    }
}

static void
nor_is_it_on_another_idle_connection(void **state)
{
    struct bench *b = *state;

    warm(b, 3);
    post_is_answered(b, "/200", 200);
    post_is_answered(b, "/200", 200);
    post_is_answered(b, "/200", 200);
    /* One of the three has been used, or more. */
    for (int i = 0; i < 3; i++) {
        post(b, "/reset");
        assert_int_equal(b->last.stage, POST_SENT);
    }
    assert_int_equal(atomic_load(&b->server->requests), 6);
}

static void
an_idle_connection_that_was_closed_is_not_used(void **state)
{
    struct bench *b = *state;

    for (unsigned i = 0; i < 10; i++) {
        post_is_answered(b, "/200", 200);
        server_saw(b, i + 1, i + 1);
        http_server_order(b->server, HTTP_CLOSE);
    }
}

static void
what_an_idle_connection_said_is_no_answer(void **state)
{
    struct bench *b = *state;

    for (unsigned i = 0; i < 10; i++) {
        post_is_answered(b, "/200", 200);
        server_saw(b, i + 1, i + 1);
        http_server_order(b->server, HTTP_SPEAK); /* 408 */
    }
}

static void
warm_connections_send_nothing_and_are_used(void **state)
{
    struct bench *b = *state;

    warm(b, 3);
    server_saw(b, 0, 3);
    assert_true(atomic_load(&b->server->bytes) == 0);
    assert_int_equal(b->done, 0);
    for (uint64_t i = 0; i < 3; i++) {
        start(b, "/late", i);
    }
    drive_until(b, &b->counted, 3);
    http_server_order(b->server, HTTP_ANSWER);
    drive_until(b, &b->done, 3);
    server_saw(b, 3, 3);
    assert_int_equal(b->answered, 3);
}

static void
what_is_warm_already_is_not_opened_again(void **state)
{
    struct bench *b = *state;
    char url[HTTP_URL_BYTES];

    (void)http_server_url(b->server, "/x", url);
    warm(b, 3);
    poster_warm(b->poster, url, 3);
    poster_warm(b->poster, url, 0);
    poster_warm(b->poster, "nonsense", 3);
    assert_int_equal(drive_once(b), -1);
    poster_warm(b->poster, url, 100); /* concurrency is 4 */
    warm(b, 0);
    post_is_answered(b, "/200", 200);
    server_saw(b, 1, 4);
}

static void
warm_connections_that_were_closed_are_opened_again(void **state)
{
    struct bench *b = *state;

    warm(b, 3);
    http_server_order(b->server, HTTP_CLOSE);
    warm(b, 3);
    post_is_answered(b, "/200", 200);
    server_saw(b, 1, 6);
    start(b, "/late", 1);
    start(b, "/late", 2);
    start(b, "/late", 3);
    drive_until(b, &b->counted, 4);
    http_server_order(b->server, HTTP_ANSWER);
    drive_until(b, &b->done, 4);
    server_saw(b, 4, 6);
}

/* ---- tests: when it was counted ------------------------------------------ */

static void
counted_is_told_long_before_a_late_answer(void **state)
{
    struct bench *b = *state;
    int64_t before_us = boot_us();
    int64_t counted_us;
    int64_t told_us;

    for (unsigned i = 1; i <= 3; i++) { /* on one connection */
        start(b, "/late", 5);
        drive_until(b, &b->counted, i);
        told_us = boot_us();
        counted_us = b->counted_us;
        assert_int_equal(b->done, i - 1);
        assert_true(before_us <= counted_us && counted_us <= told_us);
        while (atomic_load(&b->server->requests) < i) {
            (void)poll(NULL, 0, 1);
        }
        http_server_order(b->server, HTTP_ANSWER);
        drive_until(b, &b->done, i);
        assert_int_equal(b->last.stage, POST_ANSWERED);
        assert_string_equal(b->body, "late");
        assert_true(b->last.counted_us == counted_us);
        assert_int_equal(b->counted, i);
        before_us = told_us;
    }
    server_saw(b, 3, 1);
}

static void
it_is_looked_for_every_few_ms(void **state)
{
    struct bench *b = *state;
    int64_t end_ms = clock_now_ms() + PATIENCE_MS;

    start(b, "/late", 1);
    while (b->counted == 0) {
        int64_t wait_ms = drive_once(b);

        assert_true(clock_now_ms() < end_ms);
        if (b->counted == 0 && atomic_load(&b->server->requests) > 0) {
            assert_in_range(wait_ms, 0, 5);
        }
    }
    assert_true(poster_drive(b->poster, clock_now_ms()) > 5);
}

static void
what_the_peer_does_not_take_is_not_counted_before_its_end(void **state)
{
    struct bench *b = *state;
    int64_t before_us = boot_us();

    http_server_order(b->server, HTTP_DEAF);
    b->options.timeout_ms = 300;
    poster_set(b->poster, &b->options);
    post_large(b, HUGE_BYTES, "/200");
    assert_int_equal(b->last.stage, POST_SENT);
    assert_int_equal(b->counted, 1);
    assert_true(b->last.counted_us >= before_us + 250000);
}

/* ---- tests: the pool ----------------------------------------------------- */

static void
at_most_concurrency_posts_fly(void **state)
{
    struct bench *b = *state;

    for (uint64_t i = 0; i < 4; i++) {
        start(b, "/late", i);
    }
    assert_int_equal(poster_in_flight(b->poster), 4);
    assert_int_equal(try_start(b, "/late", 4), RC_FULL);
    drive_until(b, &b->counted, 4);
    assert_int_equal(b->counted_tags, 0 + 1 + 2 + 3);
    while (atomic_load(&b->server->requests) < 4) {
        (void)poll(NULL, 0, 1);
    }
    assert_int_equal(atomic_load(&b->server->late), 4);
    assert_int_equal(try_start(b, "/late", 4), RC_FULL);
    http_server_order(b->server, HTTP_ANSWER);
    drive_until(b, &b->done, 4);
    assert_int_equal(poster_in_flight(b->poster), 0);
    assert_int_equal(b->tags, 0 + 1 + 2 + 3);
    assert_int_equal(try_start(b, "/200", 5), RC_OK);
}

static void
the_call_may_start_the_next_one(void **state)
{
    struct bench *b = *state;

    b->options.concurrency = 1;
    poster_set(b->poster, &b->options);
    b->more = 20;
    start(b, "/200", 1);
    drive_until(b, &b->done, 21);
    assert_int_equal(b->answered, 21);
    assert_int_equal(b->counted, 21);
    assert_int_equal(poster_in_flight(b->poster), 0);
}

static void
what_is_no_request_is_refused(void **state)
{
    struct bench *b = *state;
    static const char *const urls[] = {
        "",      "http://",       "http:///x",       "ftp://localhost/",
        "/only", "file:///etc/x", "http://local ho", "http://a/\r\nX: y",
    };
    static const char *const keys[] = {"a b", "a\r\nX: y", "\x7f", "\xc3\xa9"};
    char key[POST_KEY_BYTES + 1];
    struct poster_request good = {.url = "http://localhost:1/",
                                  .body = "{}",
                                  .body_bytes = 2,
                                  .idempotency_key = "k"};
    struct poster_request bad = good;

    for (size_t i = 0; i < ARRAY_COUNT(urls); i++) {
        bad.url = urls[i];
        assert_int_equal(poster_start(b->poster, &bad), RC_INVALID);
    }
    bad = good;
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++) {
        bad.idempotency_key = keys[i];
        assert_int_equal(poster_start(b->poster, &bad), RC_INVALID);
    }
    memset(key, 'k', sizeof(key));
    key[POST_KEY_BYTES] = '\0';
    bad.idempotency_key = key;
    assert_int_equal(poster_start(b->poster, &bad), RC_INVALID);
    bad = good;
    bad.body_bytes = 0;
    assert_int_equal(poster_start(b->poster, &bad), RC_INVALID);
    assert_int_equal(poster_in_flight(b->poster), 0);
    key[POST_KEY_BYTES - 1] = '\0';
    good.idempotency_key = key;
    assert_int_equal(poster_start(b->poster, &good), RC_OK);
}

static void
a_proxy_in_the_environment_is_ignored(void **state)
{
    struct bench *b = *state;

    assert_int_equal(setenv("http_proxy", "http://127.0.0.1:1/", 1), 0);
    post(b, "/200");
    assert_int_equal(unsetenv("http_proxy"), 0);
    assert_int_equal(b->last.stage, POST_ANSWERED);
}

/* An operator's slip, mended by a reload. */
static void
a_url_that_curl_cannot_take_apart_spoils_no_later_post(void **state)
{
    struct bench *b = *state;
    const struct poster_request request = {.url = "http://[nonsense/",
                                           .body = "x",
                                           .body_bytes = 1,
                                           .idempotency_key = ""};

    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(poster_start(b->poster, &request), RC_OK);
        drive_until(b, &b->done, i + 1);
        assert_int_equal(b->last.stage, POST_NOT_SENT);
        assert_non_null(strstr(b->last.error, "URL"));
    }
    post_is_answered(b, "/200", 200);
}

static void
what_is_in_flight_is_dropped_without_a_call(void **state)
{
    struct bench *b = *state;
    char url[HTTP_URL_BYTES];

    (void)http_server_url(b->server, "/x", url);
    start(b, "/never", 1);
    start(b, "/never", 2);
    drive_until(b, &b->counted, 2);
    start(b, "/never", 3); /* not driven */
    poster_warm(b->poster, url, 4);
    poster_free(&b->poster);
    assert_int_equal(b->done, 0);
    assert_int_equal(b->counted, 2);
    poster_free(&b->poster); /* of NULL */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_new, bench_free)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_post_brings_status_body_and_tag),
        TEST(headers_and_body_arrive_as_given),
        TEST(a_url_that_curl_cannot_take_apart_spoils_no_later_post),
        TEST(one_more_header_arrives_as_given),
        TEST(what_is_no_header_is_refused),
        TEST(a_large_body_arrives_without_asking_first),
        TEST(any_status_is_an_answer),
        TEST(redirects_are_not_followed),
        TEST(an_answer_in_pieces_is_put_together),
        TEST(an_answer_is_bounded),
        TEST(refused_is_not_sent),
        TEST(a_reset_before_the_request_is_no_answer),
        TEST(what_ends_behind_the_request_is_ambiguous),
        TEST(silence_ends_at_the_timeout),
        TEST(a_connection_is_used_again),
        TEST(a_request_that_met_a_closing_connection_is_not_sent_again),
        TEST(nor_is_it_on_another_idle_connection),
        TEST(an_idle_connection_that_was_closed_is_not_used),
        TEST(what_an_idle_connection_said_is_no_answer),
        TEST(warm_connections_send_nothing_and_are_used),
        TEST(what_is_warm_already_is_not_opened_again),
        TEST(warm_connections_that_were_closed_are_opened_again),
        TEST(counted_is_told_long_before_a_late_answer),
        TEST(it_is_looked_for_every_few_ms),
        TEST(what_the_peer_does_not_take_is_not_counted_before_its_end),
        TEST(at_most_concurrency_posts_fly),
        TEST(the_call_may_start_the_next_one),
        TEST(what_is_no_request_is_refused),
        TEST(a_proxy_in_the_environment_is_ignored),
        TEST(what_is_in_flight_is_dropped_without_a_call),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
