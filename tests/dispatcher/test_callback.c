/* The callback service with a fake fetcher, writer and journal. The fake
 * journal keeps what a real one would, checks it, and outlives the service, so
 * that a test may kill the one and start another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/fetcher.h"
#include "dispatcher/metrics.h"
#include "dispatcher/service.h"
#include "shared/callback_msg.h"
#include "shared/clock.h"
#include "shared/rc.h"

#define GATHER_MS 50
#define IDS 2500 /* the fake upstream's */
#define REQUESTS 8192
#define FLIGHTS 1024
#define GETS 200000

enum end { PENDING, FINISHED, DEAD };
enum answer { FLYING, DROPPED, ONLINE, OFFLINE, FAILED, FATAL };

struct get {
    int64_t id;
    enum answer answer;
    uint64_t started; /* event number */
};

struct request {
    int64_t received_unix_ms;
    uint64_t accepted; /* event number; of the last start */
    enum end end;
    char reason[JOURNAL_REASON_BYTES];
    bool own_body; /* buried without a body for the retry */
    struct callback_msg msg;
    struct callback_msg dead;               /* ids that are dead items */
    char dead_reason[JOURNAL_REASON_BYTES]; /* of the last of them */
    int64_t dead_attempts;
};

struct world {
    void *service;
    struct metrics *metrics;
    struct conf conf;
    struct now now;
    uint64_t event;
    int64_t last_wait_ms;
    bool paused;
    /* fetcher */
    fetcher_done_fn *done;
    void *done_arg;
    struct fetcher_options fetcher;
    struct {
        uint64_t tag;
        size_t get;
    } flights[FLIGHTS];
    size_t flight_count;
    struct get *gets;
    size_t get_count;
    bool flies[IDS];
    unsigned hits; /* starts refused for lack of descriptors: every nth */
    /* what the next drive delivers */
    struct {
        size_t get;
        int status;
        bool ok;
        char body[64];
        char error[64];
    } results[FLIGHTS];
    size_t result_count;
    /* writer and journal */
    struct write *write;
    unsigned writer_full; /* refuse so many submits */
    unsigned writes;
    unsigned wakes;
    int64_t newest_no;
    unsigned outcome_objects; /* of the last outcome */
    struct request *requests; /* by seq */
    int64_t newest_seq;
    int64_t seen_unix_ms[IDS]; /* 0: not stored */
    int64_t seen_seq[IDS];
    int64_t attempts[IDS]; /* recorded */
    /* model */
    int64_t model_attempts[IDS];
};

static struct world *w; /* the fakes have no argument to find it by */

/* ---- fakes
 * -------------------------------------------------------------------- */

enum rc __wrap_fetcher_new(struct fetcher **out,
                           const struct fetcher_options *options,
                           fetcher_done_fn *done, void *arg);
void __wrap_fetcher_free(struct fetcher **f);
void __wrap_fetcher_set(struct fetcher *f,
                        const struct fetcher_options *options);
enum rc __wrap_fetcher_start(struct fetcher *f, const char *url, uint64_t tag);
size_t __wrap_fetcher_in_flight(const struct fetcher *f);
int __wrap_fetcher_fd(const struct fetcher *f);
int64_t __wrap_fetcher_drive(struct fetcher *f, int64_t now_ms);
enum rc __wrap_writer_submit(struct writer *writer, struct write *write);
enum rc __wrap_journal_attempt_each(struct journal *j, enum service service,
                                    journal_attempt_fn *fn, void *arg);
enum rc __wrap_journal_attempt_put(struct journal *j, enum service service,
                                   const char *item, int64_t attempts,
                                   const char *error);
enum rc __wrap_journal_attempt_delete(struct journal *j, enum service service,
                                      const char *item);
enum rc __wrap_journal_outcome_add(struct journal *j, enum service service,
                                   const char *body, size_t body_bytes,
                                   int64_t *no);
enum rc __wrap_journal_finish(struct journal *j, enum service service,
                              int64_t seq, int64_t no);
enum rc __wrap_journal_bury(struct journal *j, enum service service,
                            int64_t seq, const char *reason,
                            const char *retry_body, size_t retry_body_bytes,
                            const struct journal_dead_item *items,
                            size_t item_count, int64_t now_unix_ms);

enum rc
__wrap_fetcher_new(struct fetcher **out, const struct fetcher_options *options,
                   fetcher_done_fn *done, void *arg)
{
    w->done = done;
    w->done_arg = arg;
    w->fetcher = *options;
    *out = (struct fetcher *)w;
    return RC_OK;
}

void
__wrap_fetcher_free(struct fetcher **f)
{
    *f = NULL;
    for (size_t i = 0; i < w->flight_count; i++) {
        struct get *get = &w->gets[w->flights[i].get];

        get->answer = DROPPED;
        w->flies[get->id] = false;
    }
    w->flight_count = 0;
    w->result_count = 0;
}

void
__wrap_fetcher_set(struct fetcher *f, const struct fetcher_options *options)
{
    (void)f;
    w->fetcher = *options;
}

enum rc
__wrap_fetcher_start(struct fetcher *f, const char *url, uint64_t tag)
{
    const char *base = w->conf.callback.objects_url;
    int64_t id = strtoll(url + strlen(base), NULL, 10);

    assert_ptr_equal(f, w);
    if (w->hits > 0 && --w->hits == 0) {
        w->hits = 7;
        return RC_AGAIN;
    }
    if (base[0] != 'h') {
        return RC_INVALID;
    }
    assert_memory_equal(url, base, strlen(base));
    assert_in_range(id, 0, IDS - 1);
    assert_false(w->flies[id]); /* one GET in flight an id */
    assert_true(w->flight_count < w->fetcher.concurrency);
    assert_false(w->paused);
    assert_true(w->get_count < GETS);
    w->flies[id] = true;
    w->flights[w->flight_count].tag = tag;
    w->flights[w->flight_count++].get = w->get_count;
    w->gets[w->get_count++] = (struct get){id, FLYING, ++w->event};
    return RC_OK;
}

size_t
__wrap_fetcher_in_flight(const struct fetcher *f)
{
    (void)f;
    return w->flight_count;
}

int
__wrap_fetcher_fd(const struct fetcher *f)
{
    (void)f;
    return 123;
}

static size_t
flight_of(size_t get)
{
    for (size_t i = 0; i < w->flight_count; i++) {
        if (w->flights[i].get == get) {
            return i;
        }
    }
    fail();
    return 0;
}

int64_t
__wrap_fetcher_drive(struct fetcher *f, int64_t now_ms)
{
    (void)f;
    assert_int_equal(now_ms, w->now.ms);
    for (size_t i = 0; i < w->result_count; i++) {
        size_t flight = flight_of(w->results[i].get);
        struct fetch_result result = {
            .tag = w->flights[flight].tag,
            .status = w->results[i].status,
            .ok = w->results[i].ok,
            .body = w->results[i].body,
            .body_bytes = strlen(w->results[i].body),
            .duration_ms = 5,
        };

        (void)snprintf(result.error, sizeof(result.error), "%s",
                       w->results[i].error);
        w->flies[w->gets[w->results[i].get].id] = false;
        w->flights[flight] = w->flights[--w->flight_count];
        w->done(w->done_arg, &result);
    }
    w->result_count = 0;
    return -1;
}

enum rc
__wrap_writer_submit(struct writer *writer, struct write *write)
{
    assert_ptr_equal(writer, w);
    if (w->writer_full > 0) {
        w->writer_full--;
        return RC_FULL;
    }
    assert_null(w->write); /* one at a time */
    assert_non_null(write->apply);
    assert_ptr_equal(write->reply_to, &w->write);
    w->write = write;
    w->writes++;
    return RC_OK;
}

enum rc
__wrap_journal_attempt_each(struct journal *j, enum service service,
                            journal_attempt_fn *fn, void *arg)
{
    (void)j;
    (void)service;
    for (int64_t id = IDS - 1; id >= 0; id--) {
        char item[24];

        (void)snprintf(item, sizeof(item), "%" PRId64, id);
        if (w->attempts[id] > 0 && !fn(arg, item, w->attempts[id], "why")) {
            break;
        }
    }
    return RC_OK;
}

enum rc
__wrap_journal_attempt_put(struct journal *j, enum service service,
                           const char *item, int64_t attempts,
                           const char *error)
{
    int64_t id = strtoll(item, NULL, 10);

    (void)j;
    assert_int_equal(service, SERVICE_CALLBACK);
    assert_in_range(id, 0, IDS - 1);
    assert_true(attempts > 0);
    assert_true(error[0] != '\0');
    w->attempts[id] = attempts;
    return RC_OK;
}

enum rc
__wrap_journal_attempt_delete(struct journal *j, enum service service,
                              const char *item)
{
    (void)j;
    (void)service;
    w->attempts[strtoll(item, NULL, 10)] = 0;
    return RC_OK;
}

enum rc
__wrap_journal_outcome_add(struct journal *j, enum service service,
                           const char *body, size_t body_bytes, int64_t *no)
{
    struct callback_object objects[CALLBACK_OUTCOME_MAX];
    unsigned count;

    (void)j;
    assert_int_equal(service, SERVICE_CALLBACK);
    assert_int_equal(callback_outcome_decode(body, body_bytes, objects, &count),
                     RC_OK);
    for (unsigned i = 0; i < count; i++) {
        int64_t id = objects[i].id;

        assert_in_range(id, 0, IDS - 1);
        assert_int_equal(w->requests[objects[i].seq].received_unix_ms,
                         objects[i].last_seen_unix_ms);
        if (objects[i].last_seen_unix_ms > w->seen_unix_ms[id]) {
            w->seen_unix_ms[id] = objects[i].last_seen_unix_ms;
            w->seen_seq[id] = objects[i].seq;
        }
    }
    w->outcome_objects = count;
    *no = ++w->newest_no;
    return RC_OK;
}

/* How the first GET of id that could serve the request ended. */
static enum answer
fate(const struct request *request, int64_t id)
{
    for (size_t i = 0; i < w->get_count; i++) {
        const struct get *get = &w->gets[i];

        if (get->id == id && get->started > request->accepted &&
            (get->answer == ONLINE || get->answer == OFFLINE ||
             get->answer == FATAL)) {
            return get->answer;
        }
    }
    return FLYING;
}

enum rc
__wrap_journal_finish(struct journal *j, enum service service, int64_t seq,
                      int64_t no)
{
    struct request *request = &w->requests[seq];

    (void)j;
    (void)service;
    assert_in_range(seq, 1, w->newest_seq);
    assert_int_equal(no, w->newest_no);
    assert_int_equal(request->end, PENDING);
    for (unsigned i = 0; i < request->msg.count; i++) {
        int64_t id = request->msg.ids[i];
        enum answer answer = fate(request, id);

        assert_true(answer == ONLINE || answer == OFFLINE);
        if (answer == ONLINE) { /* never later than its request's end */
            assert_true(w->seen_unix_ms[id] >= request->received_unix_ms);
        }
    }
    request->end = FINISHED;
    return RC_OK;
}

enum rc
__wrap_journal_bury(struct journal *j, enum service service, int64_t seq,
                    const char *reason, const char *retry_body,
                    size_t retry_body_bytes,
                    const struct journal_dead_item *items, size_t item_count,
                    int64_t now_unix_ms)
{
    struct request *request = &w->requests[seq];

    (void)j;
    (void)service;
    assert_in_range(seq, 1, w->newest_seq);
    assert_int_equal(request->end, PENDING);
    assert_true(now_unix_ms > 0);
    request->end = DEAD;
    (void)snprintf(request->reason, sizeof(request->reason), "%s", reason);
    request->own_body = retry_body == NULL;
    if (retry_body == NULL) {
        assert_int_equal(item_count, 0);
        return RC_OK;
    }
    assert_int_equal(
        callback_msg_decode(retry_body, retry_body_bytes, &request->dead),
        RC_OK);
    assert_int_equal(request->dead.count, item_count);
    for (size_t i = 0, at = 0; i < request->msg.count; i++) {
        char item[24];
        enum answer answer = fate(request, request->msg.ids[i]);

        assert_int_not_equal(answer, FLYING);
        if (answer != FATAL) {
            continue;
        }
        (void)snprintf(item, sizeof(item), "%" PRId64, request->msg.ids[i]);
        assert_true(at < item_count);
        assert_string_equal(items[at].item, item);
        assert_int_equal(request->dead.ids[at], request->msg.ids[i]);
        (void)snprintf(request->dead_reason, sizeof(request->dead_reason), "%s",
                       items[at].reason);
        request->dead_attempts = items[at].attempts;
        at++;
        assert_true(i + 1 < request->msg.count || at == item_count);
    }
    return RC_OK;
}

static void
wake(struct store_pg *store)
{
    assert_ptr_equal(store, w);
    w->wakes++;
}

/* ---- a world and its handles
 * ---------------------------------------------------- */

static void
service_up(void)
{
    struct service_context context = {
        .conf = &w->conf,
        .writer = (struct writer *)w,
        .metrics = w->metrics,
        .journal = (struct journal *)w,
        .replies = (struct queue *)&w->write,
        .outcome_added = wake,
        .store = (struct store_pg *)w,
    };

    memcpy(w->model_attempts, w->attempts, sizeof(w->attempts));
    assert_int_equal(callback_service.new(&w->service, &context), RC_OK);
}

static int
world_new(void **state)
{
    (void)state;
    w = calloc(1, sizeof(*w));
    assert_non_null(w);
    w->gets = calloc(GETS, sizeof(*w->gets));
    w->requests = calloc(REQUESTS, sizeof(*w->requests));
    assert_non_null(w->gets);
    assert_non_null(w->requests);
    w->now = (struct now){.ms = 1000, .unix_ms = 1700000000000};
    w->conf.callback = (struct conf_callback){
        .objects_url = "http://localhost:9010/objects/",
        .concurrency = 10,
        .timeout_ms = 5000,
        .max_attempts = 3,
        .retry_base_ms = 200,
    };
    assert_int_equal(metrics_new(&w->metrics), RC_OK);
    service_up();
    return 0;
}

static void
tick(void)
{
    w->last_wait_ms = callback_service.tick(w->service, w->now, w->paused);
    assert_true(w->last_wait_ms >= 0);
}

static void
pass(int64_t ms)
{
    w->now.ms += ms;
    w->now.unix_ms += ms;
}

/* The writer's turn. Batches are gathered for GATHER_MS: the clock goes on so
 * far if one is. */
static void
commit(void)
{
    struct write *write;

    if (w->write == NULL && w->last_wait_ms > 0 &&
        w->last_wait_ms <= GATHER_MS) {
        pass(w->last_wait_ms);
        tick();
    }
    write = w->write;
    if (write == NULL) {
        return;
    }
    w->write = NULL;
    write->rc = write->apply((struct journal *)w, write);
    assert_int_equal(write->rc, RC_OK);
    callback_service.written(w->service, write, w->now);
}

static int
world_free(void **state)
{
    (void)state;
    commit(); /* a batch that the writer has would be left to it */
    callback_service.free(&w->service);
    assert_null(w->service);
    metrics_free(&w->metrics);
    free(w->gets);
    free(w->requests);
    free(w);
    w = NULL;
    return 0;
}

static void
hand_over(int64_t seq)
{
    struct request *request = &w->requests[seq];
    struct uuid id = {{0}};
    struct text body = {0};
    struct work *work;

    callback_msg_encode(&request->msg, &body);
    work = work_new(SERVICE_CALLBACK, seq, request->received_unix_ms, &id,
                    text_cstr(&body), body.bytes);
    assert_non_null(work);
    text_free(&body);
    request->accepted = ++w->event;
    assert_true(callback_service.has_room(w->service));
    callback_service.accept(w->service, work, w->now);
}

/* A callback with these ids, ended by -1. Returns its seq. */
static int64_t
callback(int64_t first, ...)
{
    int64_t seq = ++w->newest_seq;
    struct request *request = &w->requests[seq];
    va_list ids;

    assert_true(seq < REQUESTS);
    *request = (struct request){.received_unix_ms = w->now.unix_ms};
    va_start(ids, first);
    for (int64_t id = first; id >= 0; id = va_arg(ids, int)) {
        request->msg.ids[request->msg.count++] = id;
    }
    va_end(ids);
    hand_over(seq);
    return seq;
}

/* A callback with ids from, from + 1, ... */
static int64_t
callback_of_many(int64_t from, unsigned count)
{
    int64_t seq = ++w->newest_seq;
    struct request *request = &w->requests[seq];

    assert_true(seq < REQUESTS);
    *request = (struct request){.received_unix_ms = w->now.unix_ms};
    for (unsigned i = 0; i < count; i++) {
        request->msg.ids[request->msg.count++] = from + i;
    }
    hand_over(seq);
    return seq;
}

static size_t
get_in_flight(int64_t id)
{
    for (size_t i = 0; i < w->flight_count; i++) {
        if (w->gets[w->flights[i].get].id == id) {
            return w->flights[i].get;
        }
    }
    fail();
    return 0;
}

/* Let the next drive bring this. error: no answer. */
static void
reply(int64_t id, int status, const char *body, const char *error)
{
    size_t get = get_in_flight(id);
    size_t n = w->result_count++;
    bool permanent =
        status >= 400 && status < 500 && status != 408 && status != 429;

    w->results[n].get = get;
    w->results[n].status = status;
    w->results[n].ok = error == NULL;
    (void)snprintf(w->results[n].body, sizeof(w->results[n].body), "%s", body);
    (void)snprintf(w->results[n].error, sizeof(w->results[n].error), "%s",
                   error != NULL ? error : "");
    w->model_attempts[id]++;
    if (permanent || w->model_attempts[id] >= w->conf.callback.max_attempts) {
        w->gets[get].answer = FATAL;
        w->model_attempts[id] = 0;
    } else {
        w->gets[get].answer = FAILED;
    }
}

static void
reply_online(int64_t id, bool online)
{
    char body[64];
    size_t get = get_in_flight(id);

    (void)snprintf(body, sizeof(body), "{\"id\":%" PRId64 ",\"online\":%s}", id,
                   online ? "true" : "false");
    reply(id, 200, body, NULL);
    w->gets[get].answer = online ? ONLINE : OFFLINE;
    w->model_attempts[id] = 0;
}

/* Everything that flies is online; write until nothing is left. */
static void
settle_all(void)
{
    for (int i = 0; i < 1000; i++) {
        tick();
        commit();
        if (w->flight_count == 0 && callback_service.idle(w->service)) {
            return;
        }
        for (size_t f = 0; f < w->flight_count; f++) {
            reply_online(w->gets[w->flights[f].get].id, true);
        }
    }
    fail();
}

static size_t
gets_of(int64_t id)
{
    size_t count = 0;

    for (size_t i = 0; i < w->get_count; i++) {
        count += w->gets[i].id == id;
    }
    return count;
}

/* ---- merging
 * ---------------------------------------------------------------------- */

static void
one_fetch_serves_all_that_came_before_it(void **state)
{
    int64_t a = callback(7, 8, -1);
    int64_t b;

    (void)state;
    pass(5);
    b = callback(7, -1);
    tick();
    assert_int_equal(w->flight_count, 2);
    reply_online(7, true);
    tick();
    commit();
    assert_int_equal(gets_of(7), 1);
    assert_int_equal(w->requests[b].end, FINISHED);
    assert_int_equal(w->requests[a].end, PENDING);
    /* newest of the two */
    assert_int_equal(w->seen_seq[7], b);
    assert_int_equal(w->seen_unix_ms[7], w->requests[b].received_unix_ms);
    reply_online(8, false);
    tick();
    commit();
    assert_int_equal(w->requests[a].end, FINISHED);
    assert_int_equal(w->seen_unix_ms[8], 0);
    assert_int_equal(
        metrics_get(w->metrics, METRIC_FETCHES_TOTAL, SERVICE_COUNT), 2);
    assert_int_equal(
        metrics_get(w->metrics, METRIC_FETCH_MERGED_TOTAL, SERVICE_COUNT), 1);
}

static void
who_comes_during_a_fetch_waits_for_the_next(void **state)
{
    int64_t a = callback(7, -1);
    int64_t b;
    int64_t c;

    (void)state;
    tick();
    pass(1);
    b = callback(7, -1);
    c = callback(7, -1);
    tick();
    assert_int_equal(gets_of(7), 1);
    reply_online(7, true);
    tick();
    commit();
    assert_int_equal(w->requests[a].end, FINISHED);
    assert_int_equal(w->requests[b].end, PENDING);
    assert_int_equal(w->seen_seq[7], a);
    assert_int_equal(gets_of(7), 2); /* one for both */
    reply_online(7, false);
    tick();
    commit();
    assert_int_equal(w->requests[b].end, FINISHED);
    assert_int_equal(w->requests[c].end, FINISHED);
    assert_true(callback_service.idle(w->service));
}

static void
first_come_first_served(void **state)
{
    static const int64_t expected[] = {1, 5, 9, 2, 3, 4};

    (void)state;
    w->conf.callback.concurrency = 1;
    callback_service.configure(w->service, &w->conf);
    callback(1, 5, 9, -1);
    callback(2, 1, -1);
    tick();
    callback(3, 2, -1);
    callback(4, -1);
    settle_all();
    /* 1 was asked for by the second during no flight: merged. */
    assert_int_equal(w->get_count, ARRAY_COUNT(expected));
    for (size_t i = 0; i < ARRAY_COUNT(expected); i++) {
        assert_int_equal(w->gets[i].id, expected[i]);
    }
}

/* What waited for a flight to end is as old as its request, not as its turn. */
static void
a_follow_up_keeps_its_place(void **state)
{
    (void)state;
    w->conf.callback.concurrency = 1;
    callback_service.configure(w->service, &w->conf);
    callback(1, -1);
    tick(); /* 1 flies */
    callback(1, -1);
    callback(2, -1);
    settle_all();
    assert_int_equal(w->gets[1].id, 1);
    assert_int_equal(w->gets[2].id, 2);
}

static void
an_empty_callback_finishes_at_once(void **state)
{
    int64_t seq = callback(-1);

    (void)state;
    tick();
    assert_non_null(w->write);
    assert_false(callback_service.idle(w->service));
    commit();
    assert_int_equal(w->requests[seq].end, FINISHED);
    assert_int_equal(w->newest_no, 1); /* with it, it retires */
    assert_int_equal(w->outcome_objects, 0);
    assert_int_equal(w->wakes, 1);
    assert_true(callback_service.idle(w->service));
}

static void
object_0_is_as_good_as_any(void **state)
{
    (void)state;
    callback(0, -1);
    settle_all();
    assert_true(w->seen_unix_ms[0] > 0);
}

static void
a_flood_of_the_same_ids_is_one_fetch_each(void **state)
{
    (void)state;
    for (int i = 0; i < 4096; i++) {
        callback_of_many(0, 200);
    }
    assert_false(callback_service.has_room(w->service));
    w->conf.callback.concurrency = 200;
    callback_service.configure(w->service, &w->conf);
    settle_all();
    assert_int_equal(w->get_count, 200);
    for (int64_t seq = 1; seq <= 4096; seq++) {
        assert_int_equal(w->requests[seq].end, FINISHED);
    }
    assert_true(callback_service.has_room(w->service));
}

/* ---- what cannot be decoded
 * --------------------------------------------------------- */

static void
accept_raw(const char *body, bool broken)
{
    struct uuid id = {{0}};
    int64_t seq = ++w->newest_seq;
    struct work *work =
        work_new(SERVICE_CALLBACK, seq, 1, &id, body, strlen(body));

    assert_non_null(work);
    work->broken = broken;
    callback_service.accept(w->service, work, w->now);
}

static void
a_record_that_cannot_be_decoded_is_quarantined(void **state)
{
    static const char *const bad[] = {"",         "{",        "[1]",   "\1\1",
                                      "\1\1\200", "\1\1\7\7", "\2\1\7"};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        accept_raw(bad[i], false);
    }
    accept_raw("\1\1\7", true);
    tick();
    commit();
    assert_int_equal(w->get_count, 0);
    for (int64_t seq = 1; seq <= w->newest_seq; seq++) {
        assert_int_equal(w->requests[seq].end, DEAD);
        assert_true(w->requests[seq].own_body);
        assert_memory_equal(w->requests[seq].reason,
                            "record cannot be decoded: ", 26);
    }
    assert_int_equal(
        metrics_get(w->metrics, METRIC_QUARANTINED_TOTAL, SERVICE_CALLBACK),
        w->newest_seq);
    assert_int_equal(
        metrics_get(w->metrics, METRIC_DEAD_TOTAL, SERVICE_CALLBACK),
        w->newest_seq);
    assert_true(callback_service.idle(w->service));
}

/* ---- judging answers
 * ------------------------------------------------------------------ */

static void
an_answer_that_is_not_about_the_object_is_a_failed_attempt(void **state)
{
    static const char *const bad[] = {
        "",
        "{}",
        "null",
        "[]",
        "\"online\"",
        "{\"id\":7}",
        "{\"online\":true}",
        "{\"id\":8,\"online\":true}",
        "{\"id\":\"7\",\"online\":true}",
        "{\"id\":7.0,\"online\":true}",
        "{\"id\":null,\"online\":true}",
        "{\"id\":7,\"online\":1}",
        "{\"id\":7,\"online\":\"true\"}",
        "{\"id\":7,\"online\":null}",
        "{\"id\":7,\"online\":true",
        "{\"id\":7,\"online\":true}x",
        "{\"id\":7,\"id\":7,\"online\":true}",
        "{\"id\":7,\"online\":true,\"online\":false}",
        "{\"id\":7,\"online\":[true]}",
        "<html>",
    };

    (void)state;
    w->conf.callback.max_attempts = 1;
    callback_service.configure(w->service, &w->conf);
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        int64_t seq = callback(7, -1);

        tick();
        reply(7, 200, bad[i], NULL);
        tick();
        commit();
        assert_int_equal(w->requests[seq].end, DEAD);
        assert_true(w->requests[seq].dead_reason[0] != '\0');
    }
    assert_int_equal(w->seen_unix_ms[7], 0);
    assert_int_equal(
        metrics_get(w->metrics, METRIC_FETCH_FAILURES_TOTAL, SERVICE_COUNT),
        ARRAY_COUNT(bad));
}

static void
an_answer_may_say_more_than_asked(void **state)
{
    int64_t seq = callback(7, -1);
    size_t get;

    (void)state;
    tick();
    get = get_in_flight(7);
    reply(7, 200, " {\"a\":{\"id\":1},\"online\":true,\"id\":7,\"b\":[2]}\n",
          NULL);
    w->gets[get].answer = ONLINE;
    tick();
    commit();
    assert_int_equal(w->requests[seq].end, FINISHED);
    assert_true(w->seen_unix_ms[7] > 0);
}

static void
a_no_from_the_upstream_is_final(void **state)
{
    static const int statuses[] = {400, 401, 403, 404, 410, 422, 499};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(statuses); i++) {
        int64_t seq = callback(7, -1);
        char reason[16];

        tick();
        reply(7, statuses[i], "", NULL);
        tick();
        commit();
        (void)snprintf(reason, sizeof(reason), "HTTP %d", statuses[i]);
        assert_int_equal(w->requests[seq].end, DEAD);
        assert_string_equal(w->requests[seq].dead_reason, reason);
        assert_int_equal(w->requests[seq].dead_attempts, 1);
        assert_string_equal(w->requests[seq].reason, "1 of 1 objects failed");
    }
}

static void
what_may_pass_is_tried_max_attempts_times(void **state)
{
    static const struct {
        int status;
        const char *error;
        const char *reason;
    } cases[] = {
        {500, NULL, "HTTP 500"},
        {503, NULL, "HTTP 503"},
        {429, NULL, "HTTP 429"},
        {408, NULL, "HTTP 408"},
        {302, NULL, "HTTP 302"},
        {204, NULL, "HTTP 204"},
        {0, "refused", "refused"},
        {200, "cut off", "cut off"}, /* whatever had come */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        size_t before = w->get_count;
        int64_t seq = callback(7, -1);

        for (int attempt = 1; attempt <= 3; attempt++) {
            pass(30000);
            tick();
            reply(7, cases[i].status, "{\"id\":7,\"online\":true}",
                  cases[i].error);
            tick();
            commit();
            assert_int_equal(w->attempts[7], attempt % 3);
        }
        assert_int_equal(w->get_count - before, 3);
        assert_int_equal(w->requests[seq].end, DEAD);
        assert_string_equal(w->requests[seq].dead_reason, cases[i].reason);
        assert_int_equal(w->requests[seq].dead_attempts, 3);
        assert_true(callback_service.idle(w->service));
    }
    assert_int_equal(w->seen_unix_ms[7], 0);
}

static void
an_objects_url_that_is_none_kills_no_one_but_the_object(void **state)
{
    int64_t seq;

    (void)state;
    (void)snprintf(w->conf.callback.objects_url, CONF_URL_BYTES, "nonsense");
    callback_service.configure(w->service, &w->conf);
    seq = callback(7, -1);
    w->gets[w->get_count++] = (struct get){7, FATAL, w->event + 1};
    tick();
    commit();
    assert_int_equal(w->requests[seq].end, DEAD);
}

/* ---- the dead and the living
 * ------------------------------------------------------------ */

static void
the_rest_of_a_dead_letter_is_stored(void **state)
{
    int64_t a = callback(1, 2, 3, 4, -1);
    int64_t b = callback(2, 3, -1);
    int64_t c = callback(3, -1);

    (void)state;
    tick();
    reply(2, 404, "", NULL);
    reply_online(1, true);
    reply_online(4, true);
    tick();
    commit();
    assert_int_equal(w->requests[a].end, PENDING); /* 3 may yet come */
    reply_online(3, true);
    tick();
    commit();
    assert_int_equal(w->requests[a].end, DEAD);
    assert_string_equal(w->requests[a].reason, "1 of 4 objects failed");
    assert_int_equal(w->requests[a].dead.count, 1);
    assert_int_equal(w->requests[b].end, DEAD);
    assert_string_equal(w->requests[b].reason, "1 of 2 objects failed");
    assert_int_equal(w->requests[c].end, FINISHED);
    assert_true(w->seen_unix_ms[1] > 0 && w->seen_unix_ms[3] > 0 &&
                w->seen_unix_ms[4] > 0);
    assert_int_equal(w->seen_unix_ms[2], 0);
    assert_int_equal(
        metrics_get(w->metrics, METRIC_DEAD_TOTAL, SERVICE_CALLBACK), 2);
}

static void
who_came_during_the_last_attempt_begins_anew(void **state)
{
    int64_t a = callback(7, -1);
    int64_t b;

    (void)state;
    tick();
    b = callback(7, -1);
    reply(7, 404, "", NULL);
    tick();
    commit();
    assert_int_equal(w->requests[a].end, DEAD);
    assert_int_equal(w->requests[b].end, PENDING);
    reply_online(7, true);
    tick();
    commit();
    assert_int_equal(w->requests[b].end, FINISHED);
}

static void
a_retry_serves_also_those_who_came_since(void **state)
{
    int64_t a = callback(7, -1);
    int64_t b;
    int64_t c;

    (void)state;
    tick();
    b = callback(7, -1); /* during the flight */
    reply(7, 500, "", NULL);
    tick();
    commit();
    pass(1);
    c = callback(7, -1); /* during the wait */
    pass(30000);
    tick();
    assert_int_equal(gets_of(7), 2);
    reply_online(7, true);
    tick();
    commit();
    assert_int_equal(w->requests[a].end, FINISHED);
    assert_int_equal(w->requests[b].end, FINISHED);
    assert_int_equal(w->requests[c].end, FINISHED);
    assert_int_equal(w->seen_seq[7], c);
}

static void
a_retry_comes_within_its_backoff(void **state)
{
    (void)state;
    w->conf.callback.max_attempts = 100;
    callback_service.configure(w->service, &w->conf);
    callback(7, -1);
    tick();
    for (int attempt = 1; attempt <= 40; attempt++) {
        int64_t most = attempt > 8 ? 30000 : (int64_t)200 << (attempt - 1);

        reply(7, 500, "", NULL);
        tick();
        commit();
        if (w->flight_count == 0) { /* else the dice said "at once" */
            assert_true(w->last_wait_ms <= most);
            pass(w->last_wait_ms);
            tick();
            commit();
        }
        assert_int_equal(w->flight_count, 1); /* not a ms too late */
    }
}

static void
attempts_survive_a_restart_and_death_costs_none(void **state)
{
    int64_t seq = callback(7, -1);

    (void)state;
    tick();
    reply(7, 500, "", NULL);
    tick();
    commit();
    assert_int_equal(w->attempts[7], 1);
    pass(30000);
    tick(); /* the second flies, and we die */
    assert_int_equal(gets_of(7), 2);
    callback_service.free(&w->service);
    service_up();
    hand_over(seq);
    for (int attempt = 2; attempt <= 3; attempt++) {
        assert_int_equal(w->requests[seq].end, PENDING);
        pass(30000);
        tick();
        reply(7, 500, "", NULL);
        tick();
        commit();
    }
    assert_int_equal(w->requests[seq].end, DEAD);
    assert_int_equal(w->requests[seq].dead_attempts, 3);
    assert_int_equal(w->attempts[7], 0);
    /* and another one starts from nothing */
    callback(7, -1);
    pass(30000);
    tick();
    reply(7, 500, "", NULL);
    tick();
    commit();
    assert_int_equal(w->attempts[7], 1);
}

/* ---- batches
 * ------------------------------------------------------------------------------
 */

static void
while_a_batch_is_written_the_next_one_gathers(void **state)
{
    (void)state;
    callback(1, -1);
    callback(2, -1);
    callback(3, -1);
    tick();
    reply_online(1, true);
    tick();
    assert_int_equal(w->writes, 1);
    reply_online(2, true);
    tick();
    reply_online(3, true);
    tick();
    assert_int_equal(w->writes, 1);
    commit();
    assert_int_equal(w->outcome_objects, 1);
    tick();
    assert_int_equal(w->writes, 1); /* more may come */
    assert_int_equal(w->last_wait_ms, GATHER_MS);
    pass(GATHER_MS);
    tick();
    assert_int_equal(w->writes, 2);
    commit();
    assert_int_equal(w->outcome_objects, 2);
    assert_int_equal(w->wakes, 2);
    tick();
    assert_int_equal(w->writes, 2); /* nothing left to write */
}

static void
more_objects_than_an_outcome_holds_are_split(void **state)
{
    (void)state;
    w->conf.callback.concurrency = 1000;
    callback_service.configure(w->service, &w->conf);
    for (int i = 0; i < 6; i++) {
        callback_of_many(i * 200, 200);
    }
    tick();
    assert_int_equal(w->flight_count, 1000);
    callback(1, -1);
    for (int64_t id = 0; id < 1000; id++) {
        if (id != 1) {
            reply_online(id, true);
        }
    }
    tick(); /* the last 200 fly now; a batch of 999 is under way */
    assert_non_null(w->write);
    for (int64_t id = 1000; id < 1200; id++) {
        reply_online(id, true);
    }
    reply_online(1, true);
    tick(); /* 201 gather */
    reply_online(1, false);
    tick();
    commit();
    assert_int_equal(w->outcome_objects, 999);
    assert_int_equal(w->requests[1].end, PENDING); /* 1 is not in it */
    assert_int_equal(w->requests[2].end, FINISHED);
    tick();
    commit();
    assert_int_equal(w->outcome_objects, 201);
    for (int64_t seq = 1; seq <= 7; seq++) {
        assert_int_equal(w->requests[seq].end, FINISHED);
    }
}

/* A thousand at most in one outcome: the rest, and who waits for the rest,
 * comes with the next. */
static void
a_request_never_ends_before_its_last_object(void **state)
{
    int64_t last;

    (void)state;
    w->conf.callback.concurrency = 1000;
    callback_service.configure(w->service, &w->conf);
    callback(2400, -1);
    for (int i = 0; i < 5; i++) {
        callback_of_many(i * 200, 200);
    }
    tick();
    reply_online(2400, true);
    tick(); /* a batch of one is under way from here on */
    last = callback_of_many(1000, 50);
    for (int64_t id = 0; id < 1000; id++) {
        if (w->flies[id]) {
            reply_online(id, true);
        }
    }
    tick();
    for (int64_t id = 1000; id < 1050; id++) {
        reply_online(id, true);
    }
    tick();
    assert_int_equal(w->flight_count, 0);
    commit();
    assert_int_equal(w->outcome_objects, 1);
    tick();
    commit();
    assert_int_equal(w->outcome_objects, 1000);
    assert_int_equal(w->requests[last].end, PENDING);
    tick();
    commit();
    assert_int_equal(w->outcome_objects, 50);
    assert_int_equal(w->requests[last].end, FINISHED);
    assert_true(callback_service.idle(w->service));
}

static void
a_full_writer_is_asked_again(void **state)
{
    int64_t seq = callback(-1);

    (void)state;
    w->writer_full = 3;
    for (int i = 0; i < 3; i++) {
        tick();
        assert_true(w->last_wait_ms <= 10);
        assert_false(callback_service.idle(w->service));
    }
    tick();
    commit();
    assert_int_equal(w->requests[seq].end, FINISHED);
}

static void
a_repeated_apply_does_no_harm(void **state)
{
    int64_t seq = callback(1, 2, -1);

    (void)state;
    tick();
    reply_online(1, true);
    reply(2, 404, "", NULL);
    tick();
    assert_int_equal(w->write->apply((struct journal *)w, w->write), RC_OK);
    w->requests[seq].end = PENDING; /* rolled back */
    commit();
    assert_int_equal(w->requests[seq].end, DEAD);
    assert_int_equal(w->requests[seq].dead.count, 1);
}

static void
a_refused_batch_leaves_its_requests_in_the_journal(void **state)
{
    int64_t seq = callback(1, -1);
    struct write *write;

    (void)state;
    tick();
    reply(1, 404, "", NULL);
    tick();
    write = w->write;
    w->write = NULL;
    write->rc = RC_BUG;
    callback_service.written(w->service, write, w->now);
    assert_int_equal(w->requests[seq].end, PENDING);
    assert_int_equal(
        metrics_get(w->metrics, METRIC_DEAD_TOTAL, SERVICE_CALLBACK), 0);
    assert_true(callback_service.idle(w->service));
    assert_int_equal(w->wakes, 0);
}

/* ---- bounds
 * ----------------------------------------------------------------------------------
 */

static void
ids_are_bounded_by_concurrency(void **state)
{
    int64_t from = 0;

    (void)state;
    /* 4 * 10 + 2000 ids, of which 200 must fit */
    while (callback_service.has_room(w->service)) {
        callback_of_many(from, 200);
        from += 200;
    }
    assert_int_equal(from, 2000);
    settle_all();
    assert_true(callback_service.has_room(w->service));
}

static void
requests_are_bounded(void **state)
{
    (void)state;
    for (int i = 0; i < 4095; i++) {
        callback(1, -1);
    }
    assert_true(callback_service.has_room(w->service));
    callback(1, -1);
    assert_false(callback_service.has_room(w->service));
    settle_all();
    assert_true(callback_service.has_room(w->service));
}

static void
a_stuck_disk_bounds_what_is_fetched(void **state)
{
    size_t rounds = 0;

    (void)state;
    callback(1, -1);
    tick();
    reply_online(1, true);
    tick(); /* this batch never comes back */
    for (int64_t from = 0; callback_service.has_room(w->service);) {
        callback_of_many(from, 200);
        from = (from + 200) % 2400;
        tick();
        while (w->flight_count > 0) {
            for (size_t f = 0; f < w->flight_count; f++) {
                reply_online(w->gets[w->flights[f].get].id, true);
            }
            tick();
        }
        assert_true(++rounds < 100);
    }
    assert_true(w->get_count <= 2040 + 1);
    commit();
    settle_all();
}

static void
no_more_than_concurrency_fly(void **state)
{
    (void)state;
    callback_of_many(0, 100);
    tick();
    assert_int_equal(w->flight_count, 10);
    w->conf.callback.concurrency = 25;
    callback_service.configure(w->service, &w->conf);
    tick();
    assert_int_equal(w->flight_count, 25);
    assert_int_equal(metrics_get(w->metrics, METRIC_FETCH_LIMIT, SERVICE_COUNT),
                     25);
    assert_int_equal(
        metrics_get(w->metrics, METRIC_FETCH_IN_FLIGHT, SERVICE_COUNT), 25);
    w->conf.callback.concurrency = 5; /* those in flight go on */
    callback_service.configure(w->service, &w->conf);
    for (int i = 0; i < 20; i++) {
        reply_online(w->gets[w->flights[i].get].id, true);
    }
    tick();
    assert_int_equal(w->flight_count, 5);
}

static void
without_descriptors_it_asks_again_soon(void **state)
{
    (void)state;
    w->hits = 1;
    callback(1, -1);
    tick();
    assert_int_equal(w->flight_count, 0);
    assert_true(w->last_wait_ms <= 10);
    tick();
    assert_int_equal(w->flight_count, 1);
}

static void
starts_keep_to_the_rate(void **state)
{
    size_t before;

    (void)state;
    w->conf.callback.concurrency = 1000;
    w->conf.callback.rate_per_s = 50;
    callback_service.configure(w->service, &w->conf);
    for (int i = 0; i < 5; i++) {
        callback_of_many(i * 200, 200);
    }
    tick();
    assert_int_equal(w->get_count, 1);
    for (int i = 0; i < 500; i++) {
        assert_true(w->last_wait_ms > 0 && w->last_wait_ms <= 20);
        pass(w->last_wait_ms);
        tick();
    }
    /* exactly one in 20 ms */
    assert_int_equal(w->get_count, 501);
    /* a pause is not saved up beyond a tenth of a second */
    before = w->get_count;
    pass(60000);
    tick();
    assert_int_equal(w->get_count - before, 5);
    w->conf.callback.rate_per_s = 0;
    callback_service.configure(w->service, &w->conf);
    tick();
    assert_int_equal(w->flight_count, 1000);
}

/* ---- orders
 * ------------------------------------------------------------------------------------
 */

static void
paused_it_starts_nothing_but_ends_what_flies(void **state)
{
    int64_t a = callback(1, -1);
    int64_t b;

    (void)state;
    tick();
    w->paused = true;
    b = callback(2, -1);
    tick();
    assert_int_equal(w->flight_count, 1);
    assert_false(callback_service.idle(w->service));
    reply_online(1, true);
    tick();
    commit();
    tick();
    assert_int_equal(w->requests[a].end, FINISHED);
    assert_true(callback_service.idle(w->service));
    assert_int_equal(w->get_count, 1);
    w->paused = false;
    settle_all();
    assert_int_equal(w->requests[b].end, FINISHED);
}

static void
it_reports_what_it_holds(void **state)
{
    struct text out = {0};

    (void)state;
    callback_of_many(0, 15);
    callback(3, -1);
    tick();
    reply(0, 500, "", NULL);
    pass(1);
    tick();
    callback_service.report(w->service, &out);
    if (w->flight_count == 10) { /* else 0 was retried at once */
        assert_string_equal(text_cstr(&out),
                            "\"in_flight\":10,\"waiting\":4,\"retrying\":1,"
                            "\"active_requests\":2,\"active_ids\":15");
    }
    text_free(&out);
    assert_int_equal(callback_service.fd(w->service), 123);
    assert_int_equal(
        metrics_get(w->metrics, METRIC_ACTIVE_REQUESTS, SERVICE_CALLBACK), 2);
}

/* ---- the model
 * ----------------------------------------------------------------------------------
 */

static uint64_t dice;

static unsigned
roll(unsigned sides)
{
    dice = dice * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (unsigned)(dice >> 33) % sides;
}

static void
random_callback(unsigned ids)
{
    int64_t seq = ++w->newest_seq;
    struct request *request = &w->requests[seq];
    unsigned count = roll(8) == 0 ? 0 : roll(6);

    *request = (struct request){.received_unix_ms = w->now.unix_ms};
    while (request->msg.count < count) {
        int64_t id = roll(ids);
        bool there = false;

        for (unsigned i = 0; i < request->msg.count; i++) {
            there = there || request->msg.ids[i] == id;
        }
        if (!there) {
            request->msg.ids[request->msg.count++] = id;
        }
    }
    hand_over(seq);
}

static void
random_reply(void)
{
    size_t get = w->flights[roll((unsigned)w->flight_count)].get;
    int64_t id = w->gets[get].id;

    if (w->gets[get].answer != FLYING) {
        return; /* answered, not delivered */
    }
    switch (roll(8)) {
    case 0:
        reply(id, 503, "", NULL);
        break;
    case 1:
        reply(id, 0, "", "timed out");
        break;
    case 2:
        reply(id, roll(3) == 0 ? 404 : 429, "", NULL);
        break;
    case 3:
        reply(id, 200, "{\"id\":9999,\"online\":true}", NULL);
        break;
    case 4:
    case 5:
        reply_online(id, false);
        break;
    default:
        reply_online(id, true);
        break;
    }
}

/* kill -9 and a new start: what the journal has not ended comes again. */
static void
restart(void)
{
    assert_null(w->write); /* the writer outlives the service */
    callback_service.free(&w->service);
    service_up();
    for (int64_t seq = 1; seq <= w->newest_seq; seq++) {
        if (w->requests[seq].end == PENDING) {
            hand_over(seq);
        }
    }
}

static void
one_random_life(unsigned seed)
{
    void *state = NULL;
    unsigned ids = 6 + seed % 20;

    (void)world_new(&state);
    dice = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    w->conf.callback.concurrency = 1 + roll(6);
    w->conf.callback.max_attempts = 1 + roll(4);
    callback_service.configure(w->service, &w->conf);
    w->hits = 7;
    for (int step = 0; step < 1500; step++) {
        switch (roll(12)) {
        case 0:
        case 1:
            if (w->newest_seq < 300) {
                random_callback(ids);
            }
            break;
        case 2:
        case 3:
        case 4:
            if (w->flight_count > 0) {
                random_reply();
            }
            break;
        case 5:
        case 6:
            commit();
            break;
        case 7:
            pass(roll(300));
            break;
        case 8:
            w->writer_full = roll(2);
            w->paused = roll(10) == 0;
            break;
        case 9:
            if (roll(40) == 0 && w->write == NULL) {
                restart();
            }
            break;
        default:
            tick();
            break;
        }
    }
    w->paused = false;
    w->writer_full = 0;
    for (int i = 0; i < 5000; i++) {
        pass(1000);
        tick();
        commit();
        while (w->flight_count > w->result_count) {
            random_reply();
        }
    }
    assert_true(callback_service.idle(w->service));
    for (int64_t seq = 1; seq <= w->newest_seq; seq++) {
        assert_int_not_equal(w->requests[seq].end, PENDING);
    }
    for (int64_t id = 0; id < IDS; id++) {
        assert_int_equal(w->attempts[id], 0);
    }
    (void)world_free(&state);
}

/* No id lost, each request ended exactly once and as its GETs did, one GET in
 * flight an id, each GET after what it serves: the fakes check it. */
static void
whatever_happens_every_request_ends_once_and_rightly(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 150; seed++) {
        one_random_life(seed);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_new, world_free)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_fetch_serves_all_that_came_before_it),
        TEST(who_comes_during_a_fetch_waits_for_the_next),
        TEST(first_come_first_served),
        TEST(a_follow_up_keeps_its_place),
        TEST(an_empty_callback_finishes_at_once),
        TEST(object_0_is_as_good_as_any),
        TEST(a_flood_of_the_same_ids_is_one_fetch_each),
        TEST(a_record_that_cannot_be_decoded_is_quarantined),
        TEST(an_answer_that_is_not_about_the_object_is_a_failed_attempt),
        TEST(an_answer_may_say_more_than_asked),
        TEST(a_no_from_the_upstream_is_final),
        TEST(what_may_pass_is_tried_max_attempts_times),
        TEST(an_objects_url_that_is_none_kills_no_one_but_the_object),
        TEST(the_rest_of_a_dead_letter_is_stored),
        TEST(who_came_during_the_last_attempt_begins_anew),
        TEST(a_retry_serves_also_those_who_came_since),
        TEST(a_retry_comes_within_its_backoff),
        TEST(attempts_survive_a_restart_and_death_costs_none),
        TEST(while_a_batch_is_written_the_next_one_gathers),
        TEST(more_objects_than_an_outcome_holds_are_split),
        TEST(a_request_never_ends_before_its_last_object),
        TEST(a_full_writer_is_asked_again),
        TEST(a_repeated_apply_does_no_harm),
        TEST(a_refused_batch_leaves_its_requests_in_the_journal),
        TEST(ids_are_bounded_by_concurrency),
        TEST(requests_are_bounded),
        TEST(a_stuck_disk_bounds_what_is_fetched),
        TEST(no_more_than_concurrency_fly),
        TEST(without_descriptors_it_asks_again_soon),
        TEST(starts_keep_to_the_rate),
        TEST(paused_it_starts_nothing_but_ends_what_flies),
        TEST(it_reports_what_it_holds),
        cmocka_unit_test(whatever_happens_every_request_ends_once_and_rightly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
