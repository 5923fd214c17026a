/* The fetcher against a real server (http_fixture.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <dlfcn.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "dispatcher/fetcher.h"
#include "shared/clock.h"
#include "shared/rc.h"
#include "tests/dispatcher/http_fixture.h"

#define PATIENCE_MS 20000 /* a test that waits this long has failed */

/* ---- the resolver -------------------------------------------------------- */

#define SLOW_NAME "slow.invalid"

/* What holds the look-ups of SLOW_NAME; read end, closed: they go on. */
static int resolver_gate[2] = {-1, -1};

typedef int resolve_fn(const char *, const char *, const struct addrinfo *,
                       struct addrinfo **);

/* In libc's place, for libcurl too: SLOW_NAME takes until the gate opens. */
int
getaddrinfo(const char *restrict node, const char *restrict service,
            const struct addrinfo *restrict hints,
            struct addrinfo **restrict out)
{
    resolve_fn *real = NULL;
    void *found = dlsym(RTLD_NEXT, "getaddrinfo");
    char end;

    if (node != NULL && strcmp(node, SLOW_NAME) == 0) {
        (void)!read(resolver_gate[0], &end, 1);
        return EAI_AGAIN;
    }
    memcpy(&real, &found, sizeof(real)); /* ISO C has no cast for it */
    return real != NULL ? real(node, service, hints, out) : EAI_SYSTEM;
}

/* ---- a fetcher and what it brought --------------------------------------- */

struct bench {
    struct http_server *server;
    struct fetcher *fetcher;
    struct fetcher_options options;
    int64_t skip_ms; /* added to the clock */
    unsigned done;
    unsigned ok;
    unsigned more;            /* GETs that the callback starts */
    uint64_t tags;            /* sum */
    struct fetch_result last; /* without its body ... */
    char body[4096];          /* ... which is here */
};

static void
start(struct bench *b, const char *path, uint64_t tag)
{
    char url[HTTP_URL_BYTES];

    (void)http_server_url(b->server, path, url);
    assert_int_equal(fetcher_start(b->fetcher, url, tag), RC_OK);
}

static void
on_done(void *arg, const struct fetch_result *result)
{
    struct bench *b = arg;

    b->done++;
    b->ok += result->ok;
    b->tags += result->tag;
    b->last = *result;
    assert_non_null(result->body);
    assert_int_equal(result->body[result->body_bytes], '\0');
    assert_true(result->body_bytes < sizeof(b->body));
    memcpy(b->body, result->body, result->body_bytes + 1);
    b->last.body = NULL;
    if (b->more > 0) {
        b->more--;
        start(b, "/echo/more", 1);
    }
}

static int
bench_new(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));

    assert_non_null(b);
    b->server = http_server_new();
    b->options = (struct fetcher_options){
        .concurrency = 4, .timeout_ms = 10000, .max_body_bytes = 1000};
    assert_int_equal(fetcher_new(&b->fetcher, &b->options, on_done, b), RC_OK);
    *state = b;
    return 0;
}

static int
bench_free(void **state)
{
    struct bench *b = *state;

    fetcher_free(&b->fetcher);
    assert_null(b->fetcher);
    http_server_free(b->server);
    free(b);
    return 0;
}

/* Until so many GETs ended. */
static void
drive_until(struct bench *b, unsigned done)
{
    int64_t end_ms = clock_now_ms() + PATIENCE_MS;

    for (;;) {
        int64_t wait_ms =
            fetcher_drive(b->fetcher, clock_now_ms() + b->skip_ms);
        struct pollfd fd = {.fd = fetcher_fd(b->fetcher), .events = POLLIN};

        if (b->done >= done) {
            return;
        }
        assert_true(clock_now_ms() < end_ms);
        (void)poll(&fd, 1, wait_ms < 0 || wait_ms > 100 ? 100 : (int)wait_ms);
    }
}

static void
get(struct bench *b, const char *path)
{
    start(b, path, 7);
    drive_until(b, b->done + 1);
    assert_int_equal(fetcher_in_flight(b->fetcher), 0);
    assert_int_equal(b->last.tag, 7);
}

/* ---- tests --------------------------------------------------------------- */

static void
a_get_brings_status_body_and_tag(void **state)
{
    struct bench *b = *state;

    get(b, "/echo/42");
    assert_true(b->last.ok);
    assert_int_equal(b->last.status, 200);
    assert_string_equal(b->body, "/echo/42");
    assert_int_equal(b->last.body_bytes, strlen("/echo/42"));
    assert_string_equal(b->last.error, "");
    assert_false(b->last.too_long);
    assert_true(b->last.duration_ms >= 0);
}

static void
a_connection_is_used_again(void **state)
{
    struct bench *b = *state;

    for (int i = 0; i < 50; i++) {
        get(b, "/echo/1");
        assert_true(b->last.ok);
    }
    assert_int_equal(atomic_load(&b->server->accepted), 1);
    assert_int_equal(atomic_load(&b->server->requests), 50);
}

static void
a_request_that_met_a_closing_connection_is_sent_again(void **state)
{
    struct bench *b = *state;

    /* More often than curl itself would do it with one handle. */
    for (int i = 0; i < 10; i++) {
        get(b, "/once");
        assert_true(b->last.ok);
        assert_int_equal(b->last.status, 200);
    }
    assert_int_equal(atomic_load(&b->server->accepted), 10);
    assert_int_equal(atomic_load(&b->server->requests), 19);
}

static void
a_status_is_an_answer(void **state)
{
    struct bench *b = *state;

    get(b, "/404");
    assert_true(b->last.ok);
    assert_int_equal(b->last.status, 404);
    assert_string_equal(b->body, "no");
}

static void
redirects_are_not_followed(void **state)
{
    struct bench *b = *state;

    get(b, "/302");
    assert_true(b->last.ok);
    assert_int_equal(b->last.status, 302);
    assert_int_equal(atomic_load(&b->server->requests), 1);
}

static void
a_chunked_answer_is_put_together(void **state)
{
    struct bench *b = *state;

    get(b, "/chunked");
    assert_true(b->last.ok);
    assert_string_equal(b->body, "abcde");
}

static void
a_cut_answer_is_none(void **state)
{
    struct bench *b = *state;

    get(b, "/cut");
    assert_false(b->last.ok);
    assert_true(b->last.error[0] != '\0');
}

static void
garbage_is_no_answer(void **state)
{
    struct bench *b = *state;

    get(b, "/garbage");
    assert_false(b->last.ok);
    assert_true(b->last.error[0] != '\0');
}

static void
a_reset_is_no_answer(void **state)
{
    struct bench *b = *state;

    get(b, "/reset");
    assert_false(b->last.ok);
    assert_int_equal(b->last.status, 0);
    assert_true(b->last.error[0] != '\0');
}

static void
a_body_without_a_length_is_bounded(void **state)
{
    struct bench *b = *state;

    get(b, "/long");
    assert_false(b->last.ok);
    assert_true(b->last.too_long);
    assert_true(b->last.body_bytes <= b->options.max_body_bytes);
    assert_string_equal(b->last.error, "the answer is too long");
}

static void
a_body_of_exactly_the_bound_is_taken(void **state)
{
    struct bench *b = *state;

    b->options.max_body_bytes = strlen("/echo/12");
    fetcher_set(b->fetcher, &b->options);
    get(b, "/echo/12");
    assert_true(b->last.ok);
    get(b, "/echo/123");
    assert_false(b->last.ok);
    assert_true(b->last.too_long);
}

static void
what_is_in_flight_keeps_its_bounds(void **state)
{
    struct bench *b = *state;
    int64_t end_ms = clock_now_ms() + PATIENCE_MS;

    start(b, "/late", 7);
    while (atomic_load(&b->server->requests) == 0) {
        assert_true(clock_now_ms() < end_ms);
        (void)fetcher_drive(b->fetcher, clock_now_ms());
        (void)poll(NULL, 0, 1);
    }
    b->options.max_body_bytes = 1;
    b->options.timeout_ms = 1;
    fetcher_set(b->fetcher, &b->options);
    http_server_order(b->server, HTTP_ANSWER);
    drive_until(b, 1);
    assert_true(b->last.ok);
    assert_string_equal(b->body, "late");
}

static void
headers_without_end_are_bounded(void **state)
{
    struct bench *b = *state;

    get(b, "/headers");
    assert_false(b->last.ok);
    assert_true(b->last.too_long);
}

static void
silence_ends_at_the_timeout(void **state)
{
    struct bench *b = *state;

    b->options.timeout_ms = 60;
    fetcher_set(b->fetcher, &b->options);
    get(b, "/never");
    assert_false(b->last.ok);
    assert_int_equal(b->last.status, 0);
    assert_true(b->last.duration_ms >= 50);
    assert_string_equal(b->last.error, "no whole answer within 60 ms");
}

static void
a_closed_port_says_why(void **state)
{
    struct bench *b = *state;
    char url[HTTP_URL_BYTES];
    struct http_server *gone = http_server_new();

    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u/", gone->port);
    http_server_free(gone);
    assert_int_equal(fetcher_start(b->fetcher, url, 3), RC_OK);
    drive_until(b, 1);
    assert_false(b->last.ok);
    assert_string_equal(b->last.error, "cannot connect: Connection refused");
}

static void
at_most_concurrency_gets_fly(void **state)
{
    struct bench *b = *state;
    char url[HTTP_URL_BYTES];

    (void)http_server_url(b->server, "/echo/1", url);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(fetcher_start(b->fetcher, url, i), RC_OK);
    }
    assert_int_equal(fetcher_in_flight(b->fetcher), 4);
    assert_int_equal(fetcher_start(b->fetcher, url, 4), RC_FULL);
    drive_until(b, 4);
    assert_int_equal(fetcher_in_flight(b->fetcher), 0);
    assert_int_equal(b->tags, 0 + 1 + 2 + 3);
    assert_int_equal(fetcher_start(b->fetcher, url, 5), RC_OK);
}

static void
the_callback_may_start_the_next_one(void **state)
{
    struct bench *b = *state;

    b->options.concurrency = 1;
    fetcher_set(b->fetcher, &b->options);
    b->more = 20;
    start(b, "/echo/first", 1);
    drive_until(b, 21);
    assert_int_equal(b->ok, 21);
    assert_int_equal(fetcher_in_flight(b->fetcher), 0);
}

static void
what_is_no_http_url_is_refused(void **state)
{
    struct bench *b = *state;
    static const char *const bad[] = {
        "",      "http://",       "http:///x",       "ftp://localhost/",
        "/only", "file:///etc/x", "http://local ho", "http://a/\r\nX: y",
    };

    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_int_equal(fetcher_start(b->fetcher, bad[i], 1), RC_INVALID);
    }
    assert_int_equal(fetcher_in_flight(b->fetcher), 0);
}

static void
a_proxy_in_the_environment_is_ignored(void **state)
{
    struct bench *b = *state;

    assert_int_equal(setenv("http_proxy", "http://127.0.0.1:1/", 1), 0);
    get(b, "/echo/1");
    assert_int_equal(unsetenv("http_proxy"), 0);
    assert_true(b->last.ok);
}

static void
what_is_in_flight_is_dropped_without_a_call(void **state)
{
    struct bench *b = *state;

    start(b, "/never", 1);
    start(b, "/never", 2);
    (void)fetcher_drive(b->fetcher, clock_now_ms());
    start(b, "/never", 3); /* not given to curl */
    fetcher_free(&b->fetcher);
    assert_int_equal(b->done, 0);
    fetcher_free(&b->fetcher); /* of NULL */
}

static void
hundreds_at_once_are_all_answered(void **state)
{
    struct bench *b = *state;

    b->options.concurrency = 500;
    fetcher_set(b->fetcher, &b->options);
    for (uint64_t i = 0; i < 500; i++) {
        start(b, "/echo/1", i);
    }
    assert_int_equal(fetcher_in_flight(b->fetcher), 500);
    drive_until(b, 500);
    assert_int_equal(b->ok, 500);
    assert_int_equal(b->tags, 499 * 500 / 2);
}

static unsigned
threads_of_this_process(void)
{
    DIR *dir = opendir("/proc/self/task");
    unsigned count = 0;

    assert_non_null(dir);
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        count += e->d_name[0] != '.';
    }
    closedir(dir);
    return count;
}

static void
localhost_needs_no_resolver_thread(void **state)
{
    struct bench *b = *state;
    unsigned before = threads_of_this_process();

    for (uint64_t i = 0; i < 4; i++) {
        start(b, "/never", i);
    }
    (void)fetcher_drive(b->fetcher, clock_now_ms());
    assert_int_equal(threads_of_this_process(), before);
}

static void
a_slow_resolver_holds_up_nobody(void **state)
{
    struct bench *b = *state;
    int64_t start_ms = clock_now_ms();

    assert_int_equal(pipe(resolver_gate), 0);
    b->options.timeout_ms = 60;
    fetcher_set(b->fetcher, &b->options);
    assert_int_equal(fetcher_start(b->fetcher, "http://" SLOW_NAME "/1", 1),
                     RC_OK);
    alarm(PATIENCE_MS / 1000); /* a look-up waited for never ends */
    drive_until(b, 1);
    alarm(0);
    assert_false(b->last.ok);
    assert_string_equal(b->last.error, "no connection within 60 ms");
    assert_true(clock_now_ms() - start_ms < PATIENCE_MS);
    get(b, "/echo/1");
    assert_true(b->last.ok);
    (void)close(resolver_gate[1]); /* the thread ends, whoever owns it */
}

/* An attempt that could not get a socket is none: it waits, and goes on when
 * descriptors are there again. */
static void
without_descriptors_a_get_waits(void **state)
{
    struct bench *b = *state;
    struct rlimit limit;
    struct rlimit low;
    int64_t now_ms = clock_now_ms();

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    start(b, "/echo/1", 1);
    low = limit;
    low.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    for (int i = 0; i < 20; i++) {
        now_ms += 50;
        (void)fetcher_drive(b->fetcher, now_ms);
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(b->done, 0);
    assert_int_equal(fetcher_in_flight(b->fetcher), 1);
    b->skip_ms = now_ms + 1000 - clock_now_ms();
    drive_until(b, 1);
    assert_true(b->last.ok);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, bench_new, bench_free)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_get_brings_status_body_and_tag),
        TEST(a_connection_is_used_again),
        TEST(a_request_that_met_a_closing_connection_is_sent_again),
        TEST(a_status_is_an_answer),
        TEST(redirects_are_not_followed),
        TEST(a_chunked_answer_is_put_together),
        TEST(a_cut_answer_is_none),
        TEST(garbage_is_no_answer),
        TEST(a_reset_is_no_answer),
        TEST(a_body_without_a_length_is_bounded),
        TEST(a_body_of_exactly_the_bound_is_taken),
        TEST(what_is_in_flight_keeps_its_bounds),
        TEST(headers_without_end_are_bounded),
        TEST(silence_ends_at_the_timeout),
        TEST(a_closed_port_says_why),
        TEST(at_most_concurrency_gets_fly),
        TEST(the_callback_may_start_the_next_one),
        TEST(what_is_no_http_url_is_refused),
        TEST(a_proxy_in_the_environment_is_ignored),
        TEST(what_is_in_flight_is_dropped_without_a_call),
        TEST(hundreds_at_once_are_all_answered),
        TEST(localhost_needs_no_resolver_thread),
        TEST(without_descriptors_a_get_waits),
        TEST(a_slow_resolver_holds_up_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
