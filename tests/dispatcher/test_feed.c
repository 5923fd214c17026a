/* dispatcher/feed.c on a real journal and a real ZeroMQ socket: the order and
 * the "once" are proved in test_lane.c; here is the thread around it. */
#include "dispatcher/feed.h"

#include <dirent.h>
#include <inttypes.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "dispatcher/work.h"
#include "shared/clock.h"
#include "shared/push.h"
#include "shared/uuid.h"

#define PATIENCE_MS 20000 /* far above what anything here takes */
#define INBOX_ROWS 32

struct bench {
    char dir[64];
    char path[128];
    char endpoint[128];
    struct journal_options journal_options;
    struct journal *edge; /* a handler's */
    struct push *push;    /* a handler's */
    struct uuid_source ids;
    struct metrics *metrics;
    struct queue *inbox;
    struct queue *others; /* the inbox of a service that is not asked */
    struct feed *feed;
    int64_t expected; /* seq that must come next */
};

static int64_t
metric(const struct bench *b, enum metric which)
{
    return metrics_get(b->metrics, which, SERVICE_CALLBACK);
}

/* Of another endpoint, if one is given. */
static struct feed_options
options_of(const struct bench *b, const char *endpoint)
{
    struct feed_options options = {
        .endpoint = endpoint != NULL ? endpoint : b->endpoint,
        .journal = &b->journal_options,
        .metrics = b->metrics,
    };

    for (unsigned s = 0; s < SERVICE_COUNT; s++) {
        options.inboxes[s] = s == SERVICE_CALLBACK ? b->inbox : b->others;
    }
    return options;
}

static void
start_feed(struct bench *b)
{
    struct feed_options options = options_of(b, NULL);

    assert_int_equal(feed_start(&b->feed, &options), RC_OK);
}

/* The dispatcher ends, and with it what was in the inbox. */
static void
stop_feed(struct bench *b)
{
    void *work;

    feed_stop(&b->feed);
    assert_null(b->feed);
    for (work = queue_pop(b->inbox); work != NULL; work = queue_pop(b->inbox)) {
        work_free(work);
    }
    b->expected = 1;
}

static int
setup(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));

    (void)snprintf(b->dir, sizeof(b->dir), "/tmp/test_feed.XXXXXX");
    if (mkdtemp(b->dir) == NULL) {
        return -1;
    }
    (void)snprintf(b->path, sizeof(b->path), "%s/journal.db", b->dir);
    (void)snprintf(b->endpoint, sizeof(b->endpoint), "ipc://%s/link.sock",
                   b->dir);
    b->journal_options = (struct journal_options){
        .path = b->path,
        .role = JOURNAL_EDGE,
        .max_bytes = INT64_C(1) << 30,
        .lock_timeout_ms = 5000,
    };
    b->expected = 1;
    uuid_source_init(&b->ids, 7);
    *state = b;
    return journal_new(&b->edge, &b->journal_options) == RC_OK &&
                   push_new(&b->push, b->endpoint) == RC_OK &&
                   metrics_new(&b->metrics) == RC_OK &&
                   queue_new(&b->inbox, INBOX_ROWS, 1 << 20) == RC_OK &&
                   queue_new(&b->others, INBOX_ROWS, 1 << 20) == RC_OK
               ? 0
               : -1;
}

static void
remove_dir(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    char name[512];

    for (entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        (void)snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        if (entry->d_name[0] != '.') {
            (void)unlink(name);
            (void)rmdir(name);
        }
    }
    (void)closedir(dir);
    (void)rmdir(path);
}

static int
teardown(void **state)
{
    struct bench *b = *state;

    feed_stop(&b->feed);
    push_free(&b->push);
    journal_free(&b->edge);
    queue_free(&b->others, work_free);
    queue_free(&b->inbox, work_free);
    metrics_free(&b->metrics);
    remove_dir(b->dir);
    free(b);
    return 0;
}

/* Commit count requests in one batch; requests (if any) keeps them. */
static void
commit(struct bench *b, size_t count, struct journal_request *requests)
{
    static const char body[] = "[1,2,3]";
    struct journal_request *mine = calloc(count, sizeof(*mine));

    for (size_t i = 0; i < count; i++) {
        mine[i].service = SERVICE_CALLBACK;
        mine[i].body = body;
        mine[i].body_bytes = strlen(body);
        mine[i].received_unix_ms = clock_now_unix_ms();
        assert_int_equal(
            uuid_next(&b->ids, mine[i].received_unix_ms, &mine[i].id), RC_OK);
    }
    assert_int_equal(journal_accept(b->edge, mine, count, 0), RC_OK);
    if (requests != NULL) {
        memcpy(requests, mine, count * sizeof(*mine));
    }
    free(mine);
}

static void
send_frame(struct push *push, const struct journal_request *request)
{
    struct frame frame = {
        .service = request->service,
        .seq = request->seq,
        .received_unix_ms = request->received_unix_ms,
        .id = request->id,
        .body = request->body,
        .body_bytes = request->body_bytes,
    };

    push_send(push, &frame);
}

static struct work *
next_work(struct bench *b)
{
    struct pollfd p = {.fd = queue_ready_fd(b->inbox), .events = POLLIN};
    struct work *work = queue_pop(b->inbox);

    while (work == NULL) {
        if (poll(&p, 1, PATIENCE_MS) != 1) {
            fail_msg("seq %" PRId64 " does not come", b->expected);
        }
        work = queue_pop(b->inbox);
    }
    return work;
}

/* The next count works must come in order and whole. */
static void
expect(struct bench *b, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct work *work = next_work(b);

        assert_int_equal(work->seq, b->expected);
        assert_int_equal(work->service, SERVICE_CALLBACK);
        assert_string_equal(work->body, "[1,2,3]");
        assert_int_equal(work->body_bytes, 7);
        assert_int_equal(uuid_node(&work->id), 7);
        assert_true(work->received_unix_ms > 0);
        assert_false(work->broken);
        b->expected++;
        work_free(work);
    }
}

/* Wait for a state of the feed's thread, which tells nobody of it. */
static void
wait_for_metric(struct bench *b, enum metric which, int64_t value)
{
    for (int ms = 0; metric(b, which) != value; ms++) {
        assert_true(ms < PATIENCE_MS);
        (void)poll(NULL, 0, 1);
    }
}

/* Send until the first frame goes through: the connection is there. */
static void
go_live(struct bench *b)
{
    struct journal_request request;

    /* Without a file there is nothing that it could be up to date with. */
    commit(b, 1, NULL);
    expect(b, 1);
    wait_for_metric(b, METRIC_FEED_BEHIND, 0);
    while (push_sent_count(b->push) == 0) {
        commit(b, 1, &request);
        send_frame(b->push, &request);
        expect(b, 1);
    }
}

static void
what_was_accepted_before_comes_from_the_journal(void **state)
{
    struct bench *b = *state;

    for (int i = 0; i < 10; i++) {
        commit(b, 100, NULL);
    }
    start_feed(b);
    expect(b, 1000);
    wait_for_metric(b, METRIC_FEED_BEHIND, 0);
    assert_int_equal(metric(b, METRIC_FEED_JOURNAL_TOTAL), 1000);
    assert_int_equal(metric(b, METRIC_FEED_LIVE_TOTAL), 0);
    wait_for_metric(b, METRIC_FEED_CURSOR, 1000);
}

static void
frames_go_straight_through_while_it_is_live(void **state)
{
    struct bench *b = *state;
    struct journal_request requests[20];
    int64_t live;

    start_feed(b);
    go_live(b);
    live = metric(b, METRIC_FEED_LIVE_TOTAL);
    for (int i = 0; i < 10; i++) {
        commit(b, 20, requests);
        for (size_t k = 0; k < 20; k++) {
            send_frame(b->push, &requests[k]);
        }
        expect(b, 20);
    }
    /* A pause of this machine may send some of them through the journal. */
    assert_true(metric(b, METRIC_FEED_LIVE_TOTAL) > live);
}

static void
a_lost_frame_is_found_in_the_journal(void **state)
{
    struct bench *b = *state;
    struct journal_request requests[3];

    start_feed(b);
    go_live(b);
    commit(b, 3, requests);
    send_frame(b->push, &requests[0]);
    send_frame(b->push, &requests[2]);
    expect(b, 3);
    commit(b, 1, NULL); /* and one that was never sent */
    expect(b, 1);
}

static void
frames_in_any_order_from_handlers_that_die_come_out_in_order(void **state)
{
    struct bench *b = *state;
    struct push *pushes[3];
    struct journal_request batch[24];
    unsigned seed = 1;

    start_feed(b);
    for (size_t h = 0; h < ARRAY_COUNT(pushes); h++) {
        assert_int_equal(push_new(&pushes[h], b->endpoint), RC_OK);
    }
    for (int round = 0; round < 60; round++) {
        commit(b, ARRAY_COUNT(batch), batch);
        for (size_t k = 0; k < ARRAY_COUNT(batch); k++) {
            size_t other = (size_t)rand_r(&seed) % ARRAY_COUNT(batch);
            struct journal_request swap = batch[k];

            batch[k] = batch[other];
            batch[other] = swap;
        }
        for (size_t k = 0; k < ARRAY_COUNT(batch); k++) {
            send_frame(pushes[(size_t)rand_r(&seed) % ARRAY_COUNT(pushes)],
                       &batch[k]);
        }
        if (round % 7 == 0) { /* what it has not delivered is lost */
            struct push **victim = &pushes[(size_t)round % ARRAY_COUNT(pushes)];

            push_free(victim);
            assert_int_equal(push_new(victim, b->endpoint), RC_OK);
        }
        expect(b, ARRAY_COUNT(batch));
    }
    for (size_t h = 0; h < ARRAY_COUNT(pushes); h++) {
        push_free(&pushes[h]);
    }
}

static void
a_new_dispatcher_starts_from_the_oldest_row(void **state)
{
    struct bench *b = *state;
    struct journal_request requests[10];

    start_feed(b);
    go_live(b);
    commit(b, 10, requests);
    for (size_t k = 0; k < 10; k++) {
        send_frame(b->push, &requests[k]);
    }
    expect(b, 10);
    for (int i = 0; i < 3; i++) {
        int64_t newest = b->expected - 1;

        stop_feed(b);
        start_feed(b);
        for (size_t k = 0; k < 10; k++) {
            send_frame(b->push, &requests[k]); /* a repeat, if it arrives */
        }
        expect(b, (size_t)newest);
        commit(b, 1, NULL);
        expect(b, 1);
    }
}

/* ms of processor time of this process. */
static int64_t
cpu_ms(void)
{
    struct timespec used;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return used.tv_sec * 1000 + used.tv_nsec / 1000000;
}

static void
a_full_inbox_costs_nothing_and_loses_nothing(void **state)
{
    struct bench *b = *state;
    struct journal_request requests[100];
    size_t total = 40 * 100;
    int64_t used;

    start_feed(b);
    go_live(b);
    for (int i = 0; i < 40; i++) {
        commit(b, 100, requests);
        for (size_t k = 0; k < 100; k++) {
            send_frame(b->push, &requests[k]);
        }
    }
    wait_for_metric(b, METRIC_INBOX_ROWS, INBOX_ROWS);
    wait_for_metric(b, METRIC_FEED_BEHIND, 1);
    /* Nobody takes anything now: nothing may happen, for a while. */
    used = cpu_ms();
    for (int i = 0; i < 100; i++) {
        send_frame(b->push, &requests[99]);
        (void)poll(NULL, 0, 3);
    }
    used = cpu_ms() - used;
    assert_true(used < 150);
    assert_int_equal(queue_count(b->inbox), INBOX_ROWS);
    expect(b, total);
    wait_for_metric(b, METRIC_FEED_BEHIND, 0);
    commit(b, 1, requests);
    send_frame(b->push, &requests[0]);
    expect(b, 1);
}

static void
a_held_service_gets_nothing(void **state)
{
    struct bench *b = *state;
    struct journal_request requests[5];

    start_feed(b);
    go_live(b);
    feed_hold(b->feed, SERVICE_CALLBACK, true);
    commit(b, 5, requests);
    for (size_t k = 0; k < 5; k++) {
        send_frame(b->push, &requests[k]);
    }
    wait_for_metric(b, METRIC_FEED_BEHIND, 1);
    (void)poll(NULL, 0, 120); /* two comparisons */
    assert_int_equal(queue_count(b->inbox), 0);
    feed_hold(b->feed, SERVICE_CALLBACK, false);
    expect(b, 5);
}

static void
it_waits_for_a_journal_that_is_not_there_yet(void **state)
{
    struct bench *b = *state;

    start_feed(b);
    wait_for_metric(b, METRIC_FEED_BEHIND, 1);
    (void)poll(NULL, 0, 60);
    commit(b, 3, NULL); /* makes the file */
    expect(b, 3);
}

static void
it_survives_a_journal_that_cannot_be_read(void **state)
{
    struct bench *b = *state;

    /* No test wants to see this in its output, but a log line may come. */
    assert_int_equal(mkdir(b->path, 0700), 0);
    start_feed(b);
    (void)poll(NULL, 0, 200);
    assert_int_equal(rmdir(b->path), 0);
    commit(b, 3, NULL);
    expect(b, 3);
}

static void
garbage_on_the_socket_is_ignored(void **state)
{
    struct bench *b = *state;
    struct journal_request request;
    struct frame bad = {.service = (enum service)200, .seq = 1, .body = ""};

    start_feed(b);
    go_live(b);
    commit(b, 1, &request);
    push_send(b->push, &bad);
    bad.service = SERVICE_CALLBACK;
    bad.seq = -1;
    push_send(b->push, &bad);
    bad.seq = 1;
    push_send(b->push, &bad); /* handed on long ago */
    send_frame(b->push, &request);
    expect(b, 1);
}

static void
it_stops_quickly(void **state)
{
    struct bench *b = *state;
    int64_t before;

    commit(b, 100, NULL); /* more than the inbox takes */
    start_feed(b);
    wait_for_metric(b, METRIC_INBOX_ROWS, INBOX_ROWS);
    before = clock_now_ms();
    stop_feed(b);
    assert_true(clock_now_ms() - before < 500);
    start_feed(b);
    expect(b, 100);
    wait_for_metric(b, METRIC_FEED_BEHIND, 0);
    before = clock_now_ms();
    stop_feed(b);
    assert_true(clock_now_ms() - before < 500);
}

static void
an_endpoint_that_cannot_be_bound_is_refused(void **state)
{
    struct bench *b = *state;
    struct feed_options options = options_of(b, "ipc:///nowhere/at/all.sock");

    assert_int_equal(feed_start(&b->feed, &options), RC_IO);
    assert_null(b->feed);
}

#define WITH_FEED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FEED(what_was_accepted_before_comes_from_the_journal),
        WITH_FEED(frames_go_straight_through_while_it_is_live),
        WITH_FEED(a_lost_frame_is_found_in_the_journal),
        WITH_FEED(frames_in_any_order_from_handlers_that_die_come_out_in_order),
        WITH_FEED(a_new_dispatcher_starts_from_the_oldest_row),
        WITH_FEED(a_full_inbox_costs_nothing_and_loses_nothing),
        WITH_FEED(a_held_service_gets_nothing),
        WITH_FEED(it_waits_for_a_journal_that_is_not_there_yet),
        WITH_FEED(it_survives_a_journal_that_cannot_be_read),
        WITH_FEED(garbage_on_the_socket_is_ignored),
        WITH_FEED(it_stops_quickly),
        WITH_FEED(an_endpoint_that_cannot_be_bound_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
