/* The transfers' engine against a real server (http_fixture.h): what is its
 * own, and not a fetcher's or poster's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/transfers.h"
#include "shared/clock.h"
#include "shared/rc.h"
#include "tests/dispatcher/http_fixture.h"

#define PATIENCE_MS 20000 /* a test that waits this long has failed */

struct state {
    uint64_t tag;
    unsigned tries; /* more that it gets when it ends */
};

struct bench {
    struct http_server *server;
    struct transfers *transfers;
    struct transfer_bounds bounds;
    unsigned done;
    unsigned ok;
    unsigned opened;
    unsigned closed;
    unsigned connected;
    size_t moved_bytes[TRANSFER_HEADER_CAME + 1];
    uint64_t tags;
    struct transfer_result last; /* without what lives for the call */
    char body[256];
    bool no_sockets; /* may_open says */
};

/* ---- what the engine calls ----------------------------------------------- */

static bool
may_open(void *arg, struct transfer *t)
{
    const struct bench *b = arg;

    assert_non_null(t);
    return !b->no_sockets;
}

static bool
on_opened(void *arg, int fd, const struct sockaddr *to, size_t to_bytes)
{
    struct bench *b = arg;

    assert_true(fd >= 0 && to_bytes >= sizeof(*to));
    b->opened++;
    return true;
}

static void
on_closed(void *arg, int fd)
{
    struct bench *b = arg;

    assert_true(fd >= 0);
    b->closed++;
}

static bool
on_connected(void *arg, struct transfer *t, const char *to, int to_port,
             int from_port)
{
    struct bench *b = arg;

    assert_non_null(t);
    assert_true(to[0] != '\0' && from_port > 0);
    assert_int_equal(to_port, b->server->port);
    b->connected++;
    return true;
}

static void
on_moved(void *arg, struct transfer *t, enum transfer_part part, size_t bytes)
{
    struct bench *b = arg;

    assert_non_null(t);
    b->moved_bytes[part] += bytes;
}

static void
on_ended(void *arg, struct transfer *t, const struct transfer_result *result)
{
    struct bench *b = arg;
    struct state *state = transfers_state(t);

    assert_int_equal(result->body[result->body_bytes], '\0');
    assert_int_equal(result->ok, result->error[0] == '\0');
    if (state->tries > 0) {
        state->tries--;
        assert_int_equal(transfers_start(t, &b->bounds), RC_OK);
        return;
    }
    b->done++;
    b->ok += result->ok;
    b->tags += state->tag;
    b->last = *result;
    assert_true(result->body_bytes < sizeof(b->body));
    memcpy(b->body, result->body, result->body_bytes + 1);
    transfers_release(t);
}

/* ---- an engine ----------------------------------------------------------- */

static int
bench_new(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));
    const struct transfers_options options = {
        .shards = 3,
        .state_bytes = sizeof(struct state),
        .calls = {.may_open = may_open,
                  .opened = on_opened,
                  .closed = on_closed,
                  .connected = on_connected,
                  .moved = on_moved,
                  .ended = on_ended},
        .arg = b};

    assert_non_null(b);
    b->server = http_server_new();
    b->bounds =
        (struct transfer_bounds){.timeout_ms = 10000, .max_body_bytes = 100};
    assert_int_equal(transfers_new(&b->transfers, &options), RC_OK);
    transfers_keep(b->transfers, 30);
    *state = b;
    return 0;
}

static int
bench_free(void **state)
{
    struct bench *b = *state;

    transfers_free(&b->transfers);
    assert_null(b->transfers);
    transfers_free(&b->transfers); /* of NULL */
    assert_int_equal(b->opened, b->closed);
    http_server_free(b->server);
    free(b);
    return 0;
}

static struct transfer *
take(struct bench *b, const char *path, struct state state)
{
    struct transfer *t = transfers_take(b->transfers);
    char url[HTTP_URL_BYTES];
    const struct transfer_request request = {
        .url = http_server_url(b->server, path, url)};

    assert_non_null(t);
    assert_int_equal(transfers_prepare(t, &request), RC_OK);
    memset(url, 0, sizeof(url)); /* it was copied */
    *(struct state *)transfers_state(t) = state;
    return t;
}

static void
start(struct bench *b, const char *path, struct state state)
{
    assert_int_equal(transfers_start(take(b, path, state), &b->bounds), RC_OK);
}

static void
drive_once(struct bench *b)
{
    struct pollfd fd = {.fd = transfers_fd(b->transfers), .events = POLLIN};
    int64_t wait_ms;

    (void)transfers_run(b->transfers, clock_now_ms());
    wait_ms = transfers_wait_ms(b->transfers);
    (void)poll(&fd, 1, wait_ms < 0 || wait_ms > 20 ? 20 : (int)wait_ms);
}

static void
drive_until(struct bench *b, unsigned done)
{
    int64_t end_ms = clock_now_ms() + PATIENCE_MS;

    while (b->done < done) {
        assert_true(clock_now_ms() < end_ms);
        drive_once(b);
    }
}

/* ---- tests --------------------------------------------------------------- */

static void
transfers_of_all_shards_end(void **state)
{
    struct bench *b = *state;

    assert_int_equal(transfers_wait_ms(b->transfers), -1);
    for (uint64_t i = 0; i < 20; i++) {
        start(b, "/x", (struct state){.tag = i});
    }
    assert_int_equal(transfers_wait_ms(b->transfers), 0);
    drive_until(b, 20);
    assert_int_equal(b->ok, 20);
    assert_int_equal(b->tags, 19 * 20 / 2);
    assert_int_equal(b->connected, 20);
    assert_int_equal(transfers_count(b->transfers), 20);
}

static void
what_is_released_is_taken_first_and_as_if_new(void **state)
{
    struct bench *b = *state;
    struct transfer *first = take(b, "/never", (struct state){.tag = 1});
    struct transfer *second = take(b, "/x", (struct state){.tag = 2});
    struct state *place = transfers_state(first);

    assert_int_equal(transfers_count(b->transfers), 2);
    assert_ptr_equal(transfers_state_at(b->transfers, 0), place);
    assert_ptr_equal(transfers_state_at(b->transfers, 1),
                     transfers_state(second));
    transfers_release(first);
    assert_ptr_equal(transfers_take(b->transfers), first);
    assert_ptr_equal(transfers_state(first), place);
    assert_int_equal(place->tag, 0);
    assert_int_equal(transfers_count(b->transfers), 2);
    transfers_release(first);
    transfers_release(second);
}

static void
one_that_ended_may_be_started_again(void **state)
{
    struct bench *b = *state;

    start(b, "/cut", (struct state){.tag = 5, .tries = 7});
    drive_until(b, 1);
    assert_false(b->last.ok);
    assert_int_equal(b->last.status, 200);
    assert_string_equal(b->body, "abc");
    assert_int_equal(b->tags, 5);
    assert_int_equal(atomic_load(&b->server->requests), 8);
}

static void
nothing_of_a_request_stays_for_the_next(void **state)
{
    struct bench *b = *state;
    static const char *const headers[] = {"X-One: 1", "X-Two: 2", NULL};
    struct transfer *t = transfers_take(b->transfers);
    char url[HTTP_URL_BYTES];
    const struct transfer_request post = {
        .url = http_server_url(b->server, "/x", url),
        .headers = headers,
        .body = "four",
        .body_bytes = 4};
    char *in;

    assert_non_null(t);
    assert_int_equal(transfers_prepare(t, &post), RC_OK);
    assert_int_equal(transfers_start(t, &b->bounds), RC_OK);
    drive_until(b, 1);
    in = http_server_last(b->server);
    assert_memory_equal(in, "POST /x HTTP/1.1\r\n", 18);
    assert_non_null(strstr(in, "\r\nX-One: 1\r\n"));
    assert_non_null(strstr(in, "\r\nX-Two: 2\r\n"));
    assert_string_equal(strstr(in, "\r\n\r\n"), "\r\n\r\nfour");
    assert_int_equal(b->moved_bytes[TRANSFER_HEADER_SENT] +
                         b->moved_bytes[TRANSFER_BODY_SENT],
                     strlen(in));
    assert_int_equal(b->moved_bytes[TRANSFER_BODY_SENT], 4);
    assert_true(b->moved_bytes[TRANSFER_HEADER_CAME] > 0);
    free(in);
    start(b, "/y", (struct state){0});
    drive_until(b, 2);
    assert_int_equal(transfers_count(b->transfers), 1);
    in = http_server_last(b->server);
    assert_memory_equal(in, "GET /y HTTP/1.1\r\n", 17);
    assert_null(strstr(in, "X-One"));
    free(in);
}

static void
a_fresh_one_leaves_the_idle_connection_alone(void **state)
{
    struct bench *b = *state;

    for (unsigned i = 0; i < 4; i++) { /* each second one */
        b->bounds.is_fresh = i % 2 == 1;
        start(b, "/x", (struct state){0});
        drive_until(b, i + 1);
        assert_int_equal(b->opened, 1 + (i + 1) / 2);
    }
    assert_int_equal(b->ok, 4);
}

static void
who_may_open_no_socket_ends(void **state)
{
    struct bench *b = *state;

    b->no_sockets = true;
    start(b, "/x", (struct state){0});
    drive_until(b, 1);
    assert_false(b->last.ok);
    assert_false(b->last.is_short);
    assert_int_equal(b->last.status, 0);
    assert_int_equal(b->opened, 0);
    assert_int_equal(b->connected, 0);
}

static void
what_is_started_is_dropped_without_a_call(void **state)
{
    struct bench *b = *state;
    int64_t end_ms = clock_now_ms() + PATIENCE_MS;

    start(b, "/never", (struct state){0});
    start(b, "/never", (struct state){0});
    while (atomic_load(&b->server->requests) < 2) {
        assert_true(clock_now_ms() < end_ms);
        drive_once(b);
    }
    start(b, "/never", (struct state){0});      /* not driven */
    (void)take(b, "/never", (struct state){0}); /* not started */
    transfers_free(&b->transfers);
    assert_int_equal(b->done, 0);
    assert_int_equal(b->opened, b->closed);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_new, bench_free)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(transfers_of_all_shards_end),
        TEST(what_is_released_is_taken_first_and_as_if_new),
        TEST(one_that_ended_may_be_started_again),
        TEST(nothing_of_a_request_stays_for_the_next),
        TEST(a_fresh_one_leaves_the_idle_connection_alone),
        TEST(who_may_open_no_socket_ends),
        TEST(what_is_started_is_dropped_without_a_call),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
