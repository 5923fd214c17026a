/* The call service with a fake poster, a writer that a test commits by hand,
 * the real limiter and a real journal, which outlives the service: a test may
 * kill the one and start another. */
#include "tests/dispatcher/writer_fixture.h"
#include "tests/shared/journal_fixture.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/call_record.h"
#include "dispatcher/metrics.h"
#include "dispatcher/poster.h"
#include "dispatcher/service.h"
#include "shared/call_msg.h"
#include "shared/clock.h"
#include "shared/json.h"
#include "shared/rc.h"

#define CALLS 2048
#define STARTS 4096
#define BOOT_A "aaaaaaaa-0000-4000-8000-000000000001"
#define BOOT_B "bbbbbbbb-0000-4000-8000-000000000002"
#define US 1000
#define WINDOW_MS 10000
#define GUARD_MS 5 /* the least there is, with this window */
#define START_UNIX_MS INT64_C(1800000000000)

struct flight {
    uint64_t tag; /* 0: none */
    int64_t counted_us;
    bool ended; /* with the next drive */
    struct post_result result;
};

struct world {
    struct fixture *f;
    struct journal *reader;
    void *service;
    struct metrics *metrics;
    struct conf conf;
    struct now now;
    int64_t wait_ms; /* as the last tick wanted it */
    bool paused;
    const char *boot;
    /* poster */
    const struct poster_calls *calls;
    void *calls_arg;
    struct poster_options poster;
    enum rc start_rc;
    struct flight flights[CALLS]; /* by seq */
    size_t flight_count;
    size_t most_flights;
    struct {
        int64_t seq;
        int64_t at_us;
    } starts[STARTS];
    size_t start_count;
    struct fake_writer writer;
    unsigned wakes;
    unsigned callocs_to_fail;
    struct uuid ids[CALLS]; /* by seq */
};

static struct world *w; /* the fakes have no argument to find it by */

/* ---- fakes ------------------------------------------------------------------
 */

enum rc __wrap_poster_new(struct poster **out,
                          const struct poster_options *options,
                          const struct poster_calls *calls, void *arg);
void __wrap_poster_free(struct poster **p);
void __wrap_poster_set(struct poster *p, const struct poster_options *options);
enum rc __wrap_poster_start(struct poster *p,
                            const struct poster_request *request);
void __wrap_poster_warm(struct poster *p, const char *url, size_t count);
size_t __wrap_poster_in_flight(const struct poster *p);
int __wrap_poster_fd(const struct poster *p);
int64_t __wrap_poster_drive(struct poster *p, int64_t now_ms);
enum rc __wrap_writer_submit(struct writer *writer, struct write *write);
char *__wrap_clock_boot_id(char out[CLOCK_BOOT_ID_BYTES]);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);

void *
__wrap_calloc(size_t count, size_t size)
{
    if (w != NULL && w->callocs_to_fail > 0) {
        w->callocs_to_fail--;
        return NULL;
    }
    return __real_calloc(count, size);
}

char *
__wrap_clock_boot_id(char out[CLOCK_BOOT_ID_BYTES])
{
    (void)snprintf(out, CLOCK_BOOT_ID_BYTES, "%s", w->boot);
    return out;
}

enum rc
__wrap_poster_new(struct poster **out, const struct poster_options *options,
                  const struct poster_calls *calls, void *arg)
{
    w->poster = *options;
    w->calls = calls;
    w->calls_arg = arg;
    *out = (struct poster *)w;
    return RC_OK;
}

void
__wrap_poster_free(struct poster **p)
{
    *p = NULL;
    memset(w->flights, 0, sizeof(w->flights));
    w->flight_count = 0;
}

void
__wrap_poster_set(struct poster *p, const struct poster_options *options)
{
    assert_ptr_equal(p, w);
    w->poster = *options;
}

struct slot_search {
    int64_t no;
    int64_t free_at_us;
};

static bool
slot_is(void *arg, const struct journal_slot *slot)
{
    struct slot_search *search = arg;

    if (slot->no == search->no) {
        search->free_at_us = slot->free_at_us;
    }
    return true;
}

/* What the journal says of a slot; LIMITER_FREE: nothing. */
static int64_t
slot_on_disk(int64_t no)
{
    struct slot_search search = {no, LIMITER_FREE};

    assert_int_equal(journal_slot_each(w->f->dispatcher, slot_is, &search),
                     RC_OK);
    return search.free_at_us;
}

static struct journal_progress
progress_of(int64_t seq)
{
    struct journal_progress progress;

    assert_int_equal(
        journal_progress_get(w->f->dispatcher, SERVICE_CALL, seq, &progress),
        RC_OK);
    return progress;
}

enum rc
__wrap_poster_start(struct poster *p, const struct poster_request *request)
{
    const struct call *call = (const struct call *)(uintptr_t)request->tag;
    struct journal_progress progress;
    char id[UUID_TEXT_BYTES];
    char body[128];

    assert_ptr_equal(p, w);
    if (w->start_rc != RC_OK) {
        return w->start_rc;
    }
    if (w->flight_count >= w->poster.concurrency) {
        return RC_FULL;
    }
    /* Before anything may leave, it is on disk. */
    progress = progress_of(call->seq);
    assert_int_equal(progress.state, CALL_DIALING);
    assert_int_equal(progress.attempts, call->attempts);
    assert_true(progress.started_unix_ms > 0);
    assert_int_equal(slot_on_disk((int64_t)call->permit.slot), LIMITER_FLYING);
    assert_string_equal(request->url, w->conf.call.url);
    assert_string_equal(request->idempotency_key,
                        uuid_format(&w->ids[call->seq], id));
    (void)snprintf(body, sizeof(body),
                   "{\"phone_number\":\"+1555%07" PRId64
                   "\",\"virtual_agent_id\":\"agent_%" PRId64 "\"}",
                   call->seq, call->seq);
    assert_int_equal(request->body_bytes, strlen(body));
    assert_memory_equal(request->body, body, strlen(body));
    assert_int_equal(w->flights[call->seq].tag, 0);
    w->flights[call->seq] = (struct flight){.tag = request->tag};
    w->flight_count++;
    w->most_flights =
        w->flight_count > w->most_flights ? w->flight_count : w->most_flights;
    assert_true(w->start_count < STARTS);
    w->starts[w->start_count].seq = call->seq;
    w->starts[w->start_count++].at_us = w->now.boot_us;
    return RC_OK;
}

void
__wrap_poster_warm(struct poster *p, const char *url, size_t count)
{
    (void)p;
    (void)url;
    (void)count;
}

size_t
__wrap_poster_in_flight(const struct poster *p)
{
    (void)p;
    return w->flight_count;
}

int
__wrap_poster_fd(const struct poster *p)
{
    assert_ptr_equal(p, w);
    return 123;
}

int64_t
__wrap_poster_drive(struct poster *p, int64_t now_ms)
{
    assert_ptr_equal(p, w);
    assert_int_equal(now_ms, w->now.ms);
    for (size_t seq = 0; seq < CALLS && w->flight_count > 0; seq++) {
        struct flight *flight = &w->flights[seq];
        struct post_result result;

        if (flight->tag != 0 && flight->counted_us != 0) {
            w->calls->counted(w->calls_arg, flight->tag, flight->counted_us);
            flight->counted_us = 0;
        }
        if (flight->tag != 0 && flight->ended) {
            result = flight->result;
            result.tag = flight->tag;
            *flight = (struct flight){0};
            w->flight_count--;
            w->calls->done(w->calls_arg, &result);
        }
    }
    return -1;
}

enum rc
__wrap_writer_submit(struct writer *writer, struct write *write)
{
    assert_ptr_equal(writer, w);
    return fake_writer_submit(&w->writer, write);
}

static void
wake(struct store_pg *store)
{
    assert_ptr_equal(store, w);
    w->wakes++;
}

/* ---- a world and its handles ------------------------------------------------
 */

static enum rc
service_start_again(void)
{
    struct service_context context = {
        .conf = &w->conf,
        .writer = (struct writer *)w,
        .metrics = w->metrics,
        .journal = w->reader,
        .boot_us = w->now.boot_us,
        .replies = w->writer.reply_to,
        .outcome_added = wake,
        .store = (struct store_pg *)w,
    };

    return call_service.new(&w->service, &context);
}

static int
world_new(void **state)
{
    (void)state;
    w = calloc(1, sizeof(*w));
    assert_non_null(w);
    w->writer.max = CALLS;
    w->writer.reply_to = (struct queue *)&w->writer;
    assert_int_equal(fixture_setup((void **)&w->f), 0);
    w->reader = fixture_journal(w->f, JOURNAL_READER);
    w->boot = BOOT_A;
    w->now = (struct now){.ms = 1000000,
                          .unix_ms = START_UNIX_MS,
                          .boot_us = INT64_C(2000000000)};
    w->conf.call = (struct conf_call){
        .url = "http://localhost:9011/originate_call",
        .rate_count = 3,
        .rate_window_ms = WINDOW_MS,
        .backoff_ms = 30000,
        .max_backoff_ms = 120000,
        .max_in_flight = 10,
        .max_attempts = 3,
        .retry_base_ms = 500,
        .guard_ms = 5,
        .timeout_ms = 30000,
        .count_at = "arrival",
        .on_unknown = "report",
    };
    assert_int_equal(metrics_new(&w->metrics), RC_OK);
    assert_int_equal(service_start_again(), RC_OK); /* no journal yet */
    return 0;
}

static void
pass(int64_t ms)
{
    w->now.ms += ms;
    w->now.unix_ms += ms;
    w->now.boot_us += ms * US;
}

static void
tick(void)
{
    w->wait_ms = call_service.tick(w->service, w->now, w->paused);
    assert_true(w->wait_ms >= 0);
}

/* The writer's turn: one group, then the replies. False: nothing waits. */
static bool
commit(void)
{
    struct write *writes[FAKE_WRITES_MAX];
    size_t count = fake_writer_commit(&w->writer, w->f->dispatcher, writes);

    for (size_t i = 0; i < count; i++) {
        call_service.written(w->service, writes[i], w->now);
    }
    return count > 0;
}

/* All that can be done at this moment. */
static void
turn(void)
{
    for (int i = 0; i < 100; i++) {
        tick();
        if (!commit()) {
            return;
        }
    }
    fail();
}

/* Time passes in steps, with a turn after each. */
static void
let_pass(int64_t ms, int64_t step_ms)
{
    while (ms > 0) {
        int64_t next_ms = ms < step_ms ? ms : step_ms;

        pass(next_ms);
        turn();
        ms -= next_ms;
    }
}

static void
hand_over(int64_t seq, int64_t received_unix_ms, const char *body, size_t bytes)
{
    struct work *work = work_new(SERVICE_CALL, seq, received_unix_ms,
                                 &w->ids[seq], body, bytes);

    assert_non_null(work);
    assert_true(call_service.has_room(w->service));
    call_service.accept(w->service, work, w->now);
}

static int64_t
accept_body(const char *body)
{
    struct journal_request r = fixture_request(w->f, body);

    r.service = SERVICE_CALL;
    r.received_unix_ms = w->now.unix_ms;
    assert_int_equal(
        journal_accept(w->f->edge, &r, 1, FIXTURE_NOW + FIXTURE_DAY), RC_OK);
    assert_int_equal(r.verdict, JOURNAL_ACCEPTED);
    assert_in_range(r.seq, 1, CALLS - 1);
    w->ids[r.seq] = r.id;
    return r.seq;
}

/* The next call, committed by a handler. Its seq. */
static int64_t
call_committed(void)
{
    char body[64];
    int64_t seq =
        fixture_ask(w->f, "SELECT count(*) FROM sqlite_schema") == 0
            ? 1
            : 1 + fixture_ask(w->f, "SELECT coalesce(max(seq), 0) FROM"
                                    " sqlite_sequence WHERE name ="
                                    " 'queue_call'");

    (void)snprintf(body, sizeof(body), "+1555%07" PRId64 " agent_%" PRId64, seq,
                   seq);
    assert_int_equal(accept_body(body), seq);
    return seq;
}

/* ... and handed over by the feed. */
static int64_t
call(void)
{
    int64_t seq = call_committed();
    char body[64];

    (void)snprintf(body, sizeof(body), "+1555%07" PRId64 " agent_%" PRId64, seq,
                   seq);
    hand_over(seq, w->now.unix_ms, body, strlen(body));
    return seq;
}

static enum journal_verdict
cancel(int64_t seq)
{
    struct journal_request r = {.op = JOURNAL_CANCEL,
                                .state = CALL_CANCELED,
                                .service = SERVICE_CALL,
                                .id = w->ids[seq],
                                .received_unix_ms = w->now.unix_ms};

    assert_int_equal(
        journal_accept(w->f->edge, &r, 1, FIXTURE_NOW + FIXTURE_DAY), RC_OK);
    return r.verdict;
}

/* The process dies: what the writer had is lost. */
static void
die(void)
{
    call_service.free(&w->service);
    assert_null(w->service);
    for (size_t i = 0; i < w->writer.count; i++) {
        call_free((struct call *)w->writer.writes[i]);
    }
    w->writer.count = 0;
}

/* Another process, to which the feed hands what is in the queue. */
static void
start(void)
{
    struct journal_page page = {0};
    enum rc rc;

    assert_int_equal(service_start_again(), RC_OK);
    rc = journal_queue_page(w->reader, SERVICE_CALL, 0, CALLS, 1 << 20, &page);
    assert_true(rc == RC_OK || rc == RC_AGAIN); /* no journal yet */
    for (size_t i = 0; i < page.count; i++) {
        hand_over(page.rows[i].seq, page.rows[i].received_unix_ms,
                  page.rows[i].body, page.rows[i].body_bytes);
    }
    journal_page_free(&page);
}

static int
world_free(void **state)
{
    (void)state;
    die();
    metrics_free(&w->metrics);
    journal_free(&w->reader);
    assert_int_equal(fixture_teardown((void **)&w->f), 0);
    free(w);
    w = NULL;
    return 0;
}

/* Let the next drive end the request of seq. status 0: none came. */
static void
end(int64_t seq, enum post_stage stage, int status, const char *error)
{
    struct flight *flight = &w->flights[seq];

    assert_int_not_equal(flight->tag, 0);
    flight->ended = true;
    flight->result = (struct post_result){
        .stage = stage,
        .status = status,
        .body = "",
        .duration_ms = 5000,
    };
    (void)snprintf(flight->result.error, sizeof(flight->result.error), "%s",
                   error);
}

static void
answer(int64_t seq, int status)
{
    end(seq, POST_ANSWERED, status, "");
}

static bool
on_line(int64_t seq)
{
    return w->flights[seq].tag != 0;
}

static void
count_now(int64_t seq)
{
    assert_true(on_line(seq));
    w->flights[seq].counted_us = w->now.boot_us;
}

/* The outcome of seq: false when there is none; there is never a second. */
static bool
outcome_of(int64_t seq, struct call_outcome *out)
{
    struct journal_page page = {0};
    struct call_outcome outcome;
    unsigned found = 0;

    assert_int_equal(journal_outcome_page(w->f->dispatcher, SERVICE_CALL, 0,
                                          CALLS, 1 << 20, &page),
                     RC_OK);
    for (size_t i = 0; i < page.count; i++) {
        assert_int_equal(call_outcome_decode(page.rows[i].body,
                                             page.rows[i].body_bytes, &outcome),
                         RC_OK);
        if (outcome.seq == seq) {
            *out = outcome;
            found++;
        }
    }
    journal_page_free(&page);
    assert_true(found <= 1);
    return found == 1;
}

static void
assert_ended(int64_t seq, enum call_state state, int64_t attempts,
             const char *error)
{
    struct call_outcome outcome = {0};

    assert_true(outcome_of(seq, &outcome));
    assert_string_equal(call_state_name(outcome.state), call_state_name(state));
    assert_int_equal(outcome.attempts, attempts);
    assert_string_equal(outcome.error, error);
    assert_memory_equal(&outcome.id, &w->ids[seq], sizeof(outcome.id));
    assert_true(outcome.finished_unix_ms >= outcome.created_unix_ms);
    assert_int_equal(progress_of(seq).state, state);
    assert_int_equal(progress_of(seq).finished_unix_ms,
                     outcome.finished_unix_ms);
    assert_false(on_line(seq));
}

static void
assert_pending(int64_t seq)
{
    struct call_outcome outcome;

    assert_false(outcome_of(seq, &outcome));
}

static void
assert_phase(const char *phase)
{
    struct text report = {0};
    char member[64];

    (void)snprintf(member, sizeof(member), "\"phase\":\"%s\"", phase);
    call_service.report(w->service, &report);
    assert_non_null(strstr(text_cstr(&report), member));
    text_free(&report);
}

/* ---- dialling ---------------------------------------------------------------
 */

static void
a_call_is_dialled_at_once_from_idle(void **state)
{
    int64_t seq;
    struct call_outcome outcome = {0};

    (void)state;
    tick();
    assert_int_equal(w->wait_ms, 60000); /* nothing to do */
    seq = call();
    tick();
    assert_int_equal(w->start_count, 0); /* not before it is on disk */
    assert_int_equal(w->writer.count, 1);
    commit();
    assert_int_equal(w->start_count, 1);
    assert_true(on_line(seq));
    pass(7000);
    answer(seq, 200);
    turn();
    assert_ended(seq, CALL_ANSWERED, 1, "");
    assert_true(outcome_of(seq, &outcome));
    assert_int_equal(outcome.created_unix_ms, START_UNIX_MS);
    assert_int_equal(outcome.dialed_unix_ms, START_UNIX_MS);
    assert_int_equal(outcome.finished_unix_ms, START_UNIX_MS + 7000);
    assert_int_equal(w->wakes, 1);
    assert_true(call_service.idle(w->service));
    assert_int_equal(call_service.fd(w->service), 123);
    assert_int_equal(
        metrics_get(w->metrics, METRIC_CALLS_DIALED_TOTAL, SERVICE_COUNT), 1);
}

static void
no_more_than_rate_count_leave_and_the_next_when_its_slot_is_free(void **state)
{
    int64_t first = 0;

    (void)state;
    for (int i = 0; i < 5; i++) {
        int64_t seq = call();

        first = first == 0 ? seq : first;
    }
    turn();
    assert_int_equal(w->start_count, 3);
    assert_int_equal(w->wait_ms, 60000); /* only news can tell */
    pass(100);
    count_now(first);
    pass(100);
    count_now(first + 1);
    turn();
    /* the first was counted 100 ms ago, the second now */
    assert_int_equal(w->wait_ms, WINDOW_MS + GUARD_MS - 100);
    pass(w->wait_ms - 1);
    turn();
    assert_int_equal(w->start_count, 3);
    assert_int_equal(w->wait_ms, 1);
    pass(1);
    turn();
    assert_int_equal(w->start_count, 4);
    assert_int_equal(w->starts[3].seq, first + 3);
    assert_int_equal(w->wait_ms, 100);
    pass(100);
    turn();
    assert_int_equal(w->start_count, 5);
    assert_int_equal(w->starts[4].seq, first + 4);
}

/* Else the last millisecond would be spent in turns. */
static void
a_wait_is_rounded_up(void **state)
{
    int64_t first = call();

    (void)state;
    for (int i = 0; i < 3; i++) {
        (void)call();
    }
    turn();
    pass(100);
    count_now(first);
    w->flights[first].counted_us -= 1;
    turn();
    assert_int_equal(w->wait_ms, WINDOW_MS + GUARD_MS);
    pass(w->wait_ms);
    turn();
    assert_int_equal(w->start_count, 4);
}

static void
with_count_at_answer_the_arrival_does_not_count(void **state)
{
    int64_t seq;

    (void)state;
    w->conf.call.rate_count = 1;
    (void)snprintf(w->conf.call.count_at, sizeof(w->conf.call.count_at),
                   "answer");
    die();
    start();
    seq = call();
    (void)call();
    turn();
    count_now(seq);
    let_pass(9000, 3000);
    answer(seq, 200);
    let_pass(WINDOW_MS, 2000);
    assert_int_equal(w->start_count, 1);
    let_pass(2000 + GUARD_MS, 2000);
    assert_int_equal(w->start_count, 2);
}

static void
calls_are_dialled_in_order_of_arrival_also_those_that_come_back(void **state)
{
    int64_t seq[6];

    (void)state;
    for (int i = 0; i < 6; i++) {
        seq[i] = call();
    }
    turn();
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(w->starts[i].seq, seq[i]);
    }
    /* two certainly never left: their slots are free, they come later */
    end(seq[2], POST_NOT_SENT, 0, "refused");
    end(seq[1], POST_NOT_SENT, 0, "refused");
    w->paused = true;
    let_pass(3000, 1000); /* both have rested */
    w->paused = false;
    turn();
    assert_int_equal(w->start_count, 5);
    assert_int_equal(w->starts[3].seq, seq[1]);
    assert_int_equal(w->starts[4].seq, seq[2]);
}

static void
while_one_rests_the_next_is_dialled(void **state)
{
    int64_t first;
    int64_t second;

    (void)state;
    w->conf.call.rate_count = 1;
    w->conf.call.retry_base_ms = 600000;
    die();
    start();
    first = call();
    second = call();
    turn();
    end(first, POST_NOT_SENT, 0, "refused");
    turn();
    if (!on_line(first)) { /* full jitter may be 0 */
        assert_true(on_line(second));
        assert_int_equal(progress_of(first).state, CALL_QUEUED);
    }
    assert_true(w->wait_ms <= 30000);
}

static void
max_in_flight_is_kept_and_may_change(void **state)
{
    struct conf conf = w->conf;
    int64_t seq = 0;

    (void)state;
    w->conf.call.rate_count = 100;
    w->conf.call.max_in_flight = 2;
    die();
    start();
    assert_int_equal(w->poster.concurrency, 2);
    assert_int_equal(w->poster.timeout_ms, 30000);
    for (int i = 0; i < 8; i++) {
        seq = call();
    }
    turn();
    assert_int_equal(w->flight_count, 2);
    answer(seq - 7, 200);
    turn();
    assert_int_equal(w->flight_count, 2);
    assert_int_equal(w->start_count, 3);
    conf.call = w->conf.call;
    conf.call.max_in_flight = 5;
    conf.call.timeout_ms = 7000;
    call_service.configure(w->service, &conf);
    assert_int_equal(w->poster.concurrency, 5);
    assert_int_equal(w->poster.timeout_ms, 7000);
    turn();
    assert_int_equal(w->flight_count, 5);
    assert_int_equal(w->most_flights, 5);
}

static void
at_max_in_flight_only_an_end_is_waited_for(void **state)
{
    (void)state;
    w->conf.call.rate_count = 100;
    w->conf.call.max_in_flight = 2;
    die();
    start();
    for (int i = 0; i < 3; i++) {
        (void)call();
    }
    turn();
    assert_int_equal(w->flight_count, 2);
    assert_int_equal(w->wait_ms, 60000); /* the limiter would let it go now */
}

static void
a_configured_number_of_attempts_is_in_force_at_once(void **state)
{
    struct conf conf = w->conf;
    int64_t seq = call();

    (void)state;
    turn();
    conf.call.max_attempts = 1;
    call_service.configure(w->service, &conf);
    answer(seq, 500);
    turn();
    assert_ended(seq, CALL_FAILED, 1, "HTTP 500");
}

static void
a_post_that_cannot_start_is_tried_again_without_losing_an_attempt(void **state)
{
    int64_t seq = call();

    (void)state;
    w->start_rc = RC_AGAIN;
    turn();
    assert_int_equal(w->start_count, 0);
    assert_int_equal(progress_of(seq).state, CALL_QUEUED);
    assert_int_equal(progress_of(seq).attempts, 0);
    assert_int_equal(progress_of(seq).started_unix_ms, 0);
    assert_in_range(w->wait_ms, 1, 10);
    let_pass(200, 10); /* many times */
    w->start_rc = RC_FULL;
    let_pass(20, 10);
    w->start_rc = RC_OK;
    let_pass(10, 10);
    assert_int_equal(w->start_count, 1);
    answer(seq, 204);
    turn();
    assert_ended(seq, CALL_ANSWERED, 1, "");
}

static void
a_url_that_cannot_be_used_fails_the_call_after_its_attempts(void **state)
{
    int64_t seq = call();

    (void)state;
    w->start_rc = RC_INVALID;
    turn();
    let_pass(5000, 100);
    assert_ended(seq, CALL_FAILED, 3, "call.url cannot be used");
    w->start_rc = RC_OK;
    for (int i = 0; i < 3; i++) { /* no slot was used up */
        (void)call();
    }
    turn();
    assert_int_equal(w->start_count, 3);
}

/* ---- answers ----------------------------------------------------------------
 */

static void
any_2xx_is_answered_and_any_refusal_is_final(void **state)
{
    static const int statuses[] = {200, 204, 301, 400, 404, 422, 100};

    (void)state;
    w->conf.call.rate_count = 100;
    die();
    start();
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        int64_t seq = call();
        char words[32];
        bool well = statuses[i] / 100 == 2;

        turn();
        answer(seq, statuses[i]);
        turn();
        (void)snprintf(words, sizeof(words), "HTTP %d", statuses[i]);
        assert_ended(seq, well ? CALL_ANSWERED : CALL_FAILED, 1,
                     well ? "" : words);
    }
}

static void
a_status_counts_though_its_answer_is_cut_off(void **state)
{
    int64_t answered = call();
    int64_t refused = call();

    (void)state;
    turn();
    end(answered, POST_SENT, 200, "cut off");
    end(refused, POST_SENT, 400, "cut off");
    turn();
    assert_ended(answered, CALL_ANSWERED, 1, "");
    assert_ended(refused, CALL_FAILED, 1, "HTTP 400");
}

/* Attempts with full jitter: each delay is below 500 ms * 2^n. */
static void
fails_after_three(int status, enum post_stage stage, const char *error)
{
    int64_t seq = call();

    turn();
    for (int attempt = 1; attempt <= 3; attempt++) {
        assert_true(on_line(seq));
        end(seq, stage, status, error);
        turn();
        if (attempt < 3 && !on_line(seq)) {
            struct journal_progress progress = progress_of(seq);

            assert_int_equal(progress.state, CALL_QUEUED);
            assert_int_equal(progress.attempts, attempt);
            assert_true(progress.error[0] != '\0');
            assert_pending(seq);
            let_pass(500 << attempt, 50);
        }
    }
}

static void
a_5xx_and_a_408_are_tried_again_until_max_attempts(void **state)
{
    (void)state;
    w->conf.call.rate_count = 100;
    die();
    start();
    fails_after_three(500, POST_ANSWERED, "");
    assert_ended(1, CALL_FAILED, 3, "HTTP 500");
    fails_after_three(503, POST_ANSWERED, "");
    assert_ended(2, CALL_FAILED, 3, "HTTP 503");
    fails_after_three(408, POST_ANSWERED, "");
    assert_ended(3, CALL_FAILED, 3, "HTTP 408");
    assert_int_equal(
        metrics_get(w->metrics, METRIC_CALL_FAILURES_TOTAL, SERVICE_COUNT), 9);
}

static void
what_was_not_sent_is_tried_again_and_gives_its_slot_back(void **state)
{
    (void)state;
    w->conf.call.rate_count = 1;
    die();
    start();
    fails_after_three(0, POST_NOT_SENT, "Could not connect");
    assert_ended(1, CALL_FAILED, 3, "Could not connect");
    (void)call(); /* the one slot is free */
    turn();
    assert_true(on_line(2));
}

static void
a_later_success_leaves_no_error(void **state)
{
    int64_t seq = call();

    (void)state;
    turn();
    answer(seq, 500);
    turn();
    let_pass(1000, 100);
    answer(seq, 200);
    turn();
    assert_ended(seq, CALL_ANSWERED, 2, "");
}

static void
what_was_sent_without_an_answer_is_unknown(void **state)
{
    int64_t seq;

    (void)state;
    w->conf.call.rate_count = 1;
    die();
    start();
    seq = call();
    (void)call();
    turn();
    end(seq, POST_SENT, 0, "timeout");
    turn();
    assert_ended(seq, CALL_UNKNOWN, 1, "timeout");
    /* it may have been counted: bytes may travel for another second */
    assert_int_equal(w->wait_ms, WINDOW_MS + 1000 + GUARD_MS);
    let_pass(WINDOW_MS + 1000 + GUARD_MS - 1, 4000);
    assert_int_equal(w->start_count, 1);
    let_pass(1, 1);
    assert_int_equal(w->start_count, 2);
}

static void
with_redial_what_was_sent_without_an_answer_is_an_attempt(void **state)
{
    (void)state;
    w->conf.call.rate_count = 100;
    (void)snprintf(w->conf.call.on_unknown, sizeof(w->conf.call.on_unknown),
                   "redial");
    die();
    start();
    fails_after_three(0, POST_SENT, "timeout");
    assert_ended(1, CALL_FAILED, 3, "timeout");
}

/* ---- 429 --------------------------------------------------------------------
 */

static void
a_429_stops_everything_then_one_probe_then_a_refill(void **state)
{
    int64_t first = call();
    size_t starts;

    (void)state;
    for (int i = 0; i < 7; i++) {
        (void)call();
    }
    turn();
    assert_int_equal(w->start_count, 3);
    pass(100);
    count_now(first);
    count_now(first + 1);
    count_now(first + 2);
    pass(4900);
    answer(first, 429);
    turn();
    assert_phase("paused");
    assert_int_equal(progress_of(first).state, CALL_QUEUED);
    assert_int_equal(progress_of(first).attempts, 0);
    assert_int_equal(w->wait_ms, 30000);
    assert_int_equal(
        metrics_get(w->metrics, METRIC_CALL_429_TOTAL, SERVICE_COUNT), 1);
    /* a second one belongs to the episode, which now ends later */
    pass(1000);
    answer(first + 1, 429);
    turn();
    assert_int_equal(w->wait_ms, 30000);
    answer(first + 2, 200);
    for (int i = 0; i < 29; i++) {
        let_pass(1000, 1000);
        assert_int_equal(w->start_count, 3);
    }
    let_pass(999, 999);
    assert_int_equal(w->start_count, 3);
    let_pass(1, 1);
    assert_int_equal(w->start_count, 4); /* the probe: the head of the queue */
    assert_int_equal(w->starts[3].seq, first);
    assert_phase("probing");
    let_pass(8000, 1000);
    assert_int_equal(w->start_count, 4);
    answer(first, 200);
    turn();
    assert_phase("refilling");
    assert_ended(first, CALL_ANSWERED, 1, "");
    starts = w->start_count;
    let_pass(WINDOW_MS / 3 - 1, 1000);
    assert_true(w->start_count <= starts + 1);
    let_pass(2 * WINDOW_MS, 500);
    assert_phase("open");
    for (size_t i = 1; i < w->start_count; i++) { /* in order again */
        if (i != 3) {
            assert_true(w->starts[i].seq > w->starts[i - 1].seq);
        }
    }
}

static void
a_probe_that_is_refused_doubles_the_pause(void **state)
{
    int64_t seq = call();

    (void)state;
    turn();
    for (int64_t pause_ms = 30000; pause_ms <= 240000; pause_ms *= 2) {
        int64_t capped_ms = pause_ms > 120000 ? 120000 : pause_ms;
        size_t starts = w->start_count;

        answer(seq, 429);
        turn();
        assert_int_equal(w->wait_ms, capped_ms < 60000 ? capped_ms : 60000);
        let_pass(capped_ms - 1, 10000);
        assert_int_equal(w->start_count, starts);
        let_pass(1, 1);
        assert_int_equal(w->start_count, starts + 1);
    }
    answer(seq, 200);
    turn();
    assert_ended(seq, CALL_ANSWERED, 1, ""); /* no attempt was lost */
}

static void
a_429_between_the_permit_and_the_start_holds_the_start_back(void **state)
{
    int64_t first = call();
    int64_t second;

    (void)state;
    turn();
    second = call();
    tick(); /* it has a permit, and is on its way to the disk */
    assert_int_equal(w->writer.count, 1);
    answer(first, 429);
    tick();
    turn();
    assert_false(on_line(second));
    assert_int_equal(w->start_count, 1);
    assert_int_equal(progress_of(second).state, CALL_QUEUED);
    assert_int_equal(progress_of(second).attempts, 0);
    assert_true(slot_on_disk(1) != LIMITER_FLYING); /* its slot is given back */
    let_pass(29000, 1000);
    assert_int_equal(w->start_count, 1);
    let_pass(1000, 1000);
    assert_int_equal(w->start_count, 2);
    assert_int_equal(w->starts[1].seq, first);
}

/* ---- canceled ---------------------------------------------------------------
 */

static void
a_call_canceled_before_it_is_dialled_takes_no_slot(void **state)
{
    int64_t canceled;
    int64_t next;
    struct call_outcome outcome = {0};

    (void)state;
    w->conf.call.rate_count = 1;
    die();
    start();
    canceled = call();
    next = call();
    pass(1500);
    assert_int_equal(cancel(canceled), JOURNAL_CANCELED);
    pass(500);
    turn();
    assert_ended(canceled, CALL_CANCELED, 0, "");
    assert_true(outcome_of(canceled, &outcome));
    assert_int_equal(outcome.finished_unix_ms, START_UNIX_MS + 1500);
    assert_int_equal(outcome.dialed_unix_ms, 0);
    assert_true(on_line(next)); /* with the one slot there is */
    assert_int_equal(w->start_count, 1);
    assert_int_equal(cancel(next), JOURNAL_LATE);
}

static void
a_canceled_call_leaves_no_slot_on_disk(void **state)
{
    int64_t seq = call();

    (void)state;
    assert_int_equal(cancel(seq), JOURNAL_CANCELED);
    turn();
    assert_ended(seq, CALL_CANCELED, 0, "");
    assert_int_equal(fixture_ask(w->f, "SELECT count(*) FROM slot"), 0);
}

static void
a_call_may_be_canceled_between_two_attempts(void **state)
{
    int64_t seq = call();
    struct call_outcome outcome = {0};

    (void)state;
    turn();
    answer(seq, 500);
    w->paused = true;
    turn();
    assert_int_equal(cancel(seq), JOURNAL_CANCELED);
    w->paused = false;
    let_pass(1000, 100);
    assert_ended(seq, CALL_CANCELED, 1, "");
    assert_true(outcome_of(seq, &outcome));
    assert_int_equal(outcome.dialed_unix_ms, START_UNIX_MS); /* the one made */
    assert_int_equal(w->start_count, 1);
}

static void
a_canceled_probe_leaves_the_probe_to_the_next(void **state)
{
    int64_t first = call();
    int64_t second = call();

    (void)state;
    turn();
    answer(first, 429);
    answer(second, 429);
    turn();
    assert_int_equal(cancel(first), JOURNAL_CANCELED);
    let_pass(30000, 10000);
    assert_ended(first, CALL_CANCELED, 0, "");
    assert_int_equal(w->start_count, 3);
    assert_int_equal(w->starts[2].seq, second);
    assert_phase("probing");
}

/* ---- another start ----------------------------------------------------------
 */

static void
a_call_that_was_being_dialled_is_unknown_after_a_restart(void **state)
{
    int64_t seq = call();
    struct call_outcome outcome = {0};

    (void)state;
    turn();
    die();
    pass(60000);
    start();
    turn();
    assert_ended(seq, CALL_UNKNOWN, 1, "the dispatcher ended while it dialled");
    assert_true(outcome_of(seq, &outcome));
    assert_int_equal(outcome.dialed_unix_ms, START_UNIX_MS);
    assert_int_equal(w->start_count, 1);
}

static void
with_redial_it_is_dialled_again_after_a_restart(void **state)
{
    int64_t seq;

    (void)state;
    (void)snprintf(w->conf.call.on_unknown, sizeof(w->conf.call.on_unknown),
                   "redial");
    die();
    start();
    seq = call();
    turn();
    die();
    start();
    turn();
    let_pass(1000, 100);
    assert_int_equal(w->start_count, 2);
    assert_int_equal(progress_of(seq).attempts, 2);
    answer(seq, 200);
    turn();
    assert_ended(seq, CALL_ANSWERED, 2, "");
}

static void
a_dial_that_was_not_committed_never_was(void **state)
{
    int64_t seq = call();

    (void)state;
    tick();
    assert_int_equal(w->writer.count, 1);
    die();
    start();
    turn();
    assert_true(on_line(seq));
    assert_int_equal(progress_of(seq).attempts, 1);
}

static void
a_queued_call_keeps_its_attempts_over_a_restart(void **state)
{
    int64_t seq = call();

    (void)state;
    turn();
    answer(seq, 503);
    w->paused = true;
    turn();
    die();
    w->paused = false;
    start();
    assert_string_equal(progress_of(seq).error, "HTTP 503");
    turn();
    assert_true(on_line(seq));
    assert_int_equal(progress_of(seq).attempts, 2);
    answer(seq, 503);
    turn();
    let_pass(2000, 100);
    answer(seq, 503);
    turn();
    assert_ended(seq, CALL_FAILED, 3, "HTTP 503");
}

static void
a_call_canceled_while_nobody_ran_is_finished_by_the_next(void **state)
{
    int64_t seq;
    struct call_outcome outcome = {0};

    (void)state;
    die();
    seq = call_committed();
    pass(2000);
    assert_int_equal(cancel(seq), JOURNAL_CANCELED);
    pass(2000);
    start();
    turn();
    assert_ended(seq, CALL_CANCELED, 0, "");
    assert_true(outcome_of(seq, &outcome));
    assert_int_equal(outcome.finished_unix_ms, START_UNIX_MS + 2000);
    assert_int_equal(w->start_count, 0);
}

static void
slots_of_the_same_boot_still_count_after_a_restart(void **state)
{
    int64_t first = call();

    (void)state;
    (void)call();
    (void)call();
    turn();
    count_now(first);
    turn();
    pass(4000);
    answer(first, 200); /* counted 4 s ago, says the journal now */
    turn();
    die();
    start(); /* the other two count from here, a second later at the most */
    turn();
    (void)call();
    (void)call();
    turn();
    assert_int_equal(w->start_count, 3);
    let_pass(6000 + GUARD_MS - 1, 500);
    assert_int_equal(w->start_count, 3);
    let_pass(1, 1);
    assert_int_equal(w->start_count, 4);
    let_pass(4000 - 1 + 1000, 500);
    assert_int_equal(w->start_count, 4);
    let_pass(1, 1);
    assert_int_equal(w->start_count, 5);
}

static void
after_another_boot_every_used_slot_counts_for_a_window(void **state)
{
    int64_t first = call();

    (void)state;
    (void)call();
    turn();
    count_now(first);
    answer(first, 200);
    answer(first + 1, 200);
    turn();
    die();
    w->boot = BOOT_B;
    w->now.boot_us = 5000000;
    start();
    for (int i = 0; i < 3; i++) {
        (void)call();
    }
    turn();
    assert_int_equal(w->start_count, 3); /* with the slot never used */
    let_pass(WINDOW_MS + 1000 + GUARD_MS - 1, 500);
    assert_int_equal(w->start_count, 3);
    let_pass(1, 1);
    assert_int_equal(w->start_count, 5);
}

static void
without_its_note_the_slots_tell_of_another_boot(void **state)
{
    int64_t seq = call();

    (void)state;
    w->conf.call.rate_count = 1;
    turn();
    count_now(seq);
    answer(seq, 200);
    turn();
    die();
    assert_int_equal(journal_begin(w->f->dispatcher), RC_OK);
    assert_int_equal(journal_note_put(w->f->dispatcher, "limiter", ""), RC_OK);
    assert_int_equal(journal_commit(w->f->dispatcher), RC_OK);
    w->boot = BOOT_B;
    w->now.boot_us = INT64_C(3000000000); /* on this clock it were free */
    start();
    (void)call();
    turn();
    assert_int_equal(w->start_count, 1);
    let_pass(WINDOW_MS + 1000 + GUARD_MS, 1000);
    assert_int_equal(w->start_count, 2);
}

static void
a_pause_goes_on_after_a_restart(void **state)
{
    int64_t first = call();

    (void)state;
    turn();
    answer(first, 429);
    turn();
    pass(10000);
    die();
    start();
    assert_phase("paused");
    turn();
    assert_int_equal(w->wait_ms, 20000);
    let_pass(19999, 5000);
    assert_int_equal(w->start_count, 1);
    let_pass(1, 1);
    assert_int_equal(w->start_count, 2);
    assert_phase("probing");
    /* the probe's end is not seen: another pause, as long */
    die();
    start();
    assert_phase("paused");
}

static void
a_pause_goes_on_after_another_boot(void **state)
{
    int64_t first = call();

    (void)state;
    turn();
    answer(first, 429);
    turn();
    die();
    w->boot = BOOT_B;
    w->now.boot_us = 1000000;
    start();
    assert_phase("paused");
    turn();
    assert_in_range(w->wait_ms, 30000, 120000);
}

static void
the_limiter_is_noted_when_it_changes(void **state)
{
    int64_t first = call();

    (void)state;
    tick();
    assert_true(((struct call *)w->writer.writes[0])->note[0] != '\0');
    turn();
    (void)call();
    tick();
    assert_string_equal(((struct call *)w->writer.writes[0])->note, "");
    turn();
    answer(first, 429);
    tick();
    assert_true(((struct call *)w->writer.writes[0])->note[0] != '\0');
}

static void
a_note_that_is_no_note_does_not_stop_the_start(void **state)
{
    static const char *const notes[] = {
        "",
        "nonsense",
        BOOT_A " 10000000 5000 1 9 0 0",
        BOOT_A " 10000000 5000 1 -1 0 0",
        BOOT_A " 10000000 5000",
        BOOT_A " 0 5000 1 0 0 0",
        BOOT_A " -1 5000 1 0 0 0",
        BOOT_A " 86400000001 5000 1 0 0 0",
        BOOT_A " 99999999999999999999 5000 1 0 0 0",
        BOOT_A " 10000000 -1 -1 0 4294967295 -1",
    };
    int64_t seq = call();

    (void)state;
    turn();
    answer(seq, 200);
    turn();
    for (size_t i = 0; i < sizeof(notes) / sizeof(notes[0]); i++) {
        die();
        assert_int_equal(journal_begin(w->f->dispatcher), RC_OK);
        assert_int_equal(
            journal_note_put(w->f->dispatcher, "limiter", notes[i]), RC_OK);
        assert_int_equal(journal_commit(w->f->dispatcher), RC_OK);
        start();
        assert_phase("open");
    }
    (void)call(); /* it works */
    turn();
    assert_int_equal(w->start_count, 2);
}

static void
slots_out_of_range_do_not_stop_the_start(void **state)
{
    struct journal_slot slot = {.free_at_us = 1, .boot = BOOT_A};

    (void)state;
    die();
    assert_int_equal(journal_begin(w->f->dispatcher), RC_OK);
    slot.no = INT64_MAX;
    assert_int_equal(journal_slot_put(w->f->dispatcher, &slot), RC_OK);
    slot.no = LIMITER_COUNT_MAX;
    assert_int_equal(journal_slot_put(w->f->dispatcher, &slot), RC_OK);
    slot.no = 1;
    slot.free_at_us = INT64_MAX - 1;
    assert_int_equal(journal_slot_put(w->f->dispatcher, &slot), RC_OK);
    assert_int_equal(journal_commit(w->f->dispatcher), RC_OK);
    start();
    for (int i = 0; i < 4; i++) {
        (void)call();
    }
    turn();
    assert_int_equal(w->start_count, 2);
    let_pass(WINDOW_MS + 1000 + GUARD_MS, 1000); /* never for good */
    assert_int_equal(w->start_count, 3);
}

static void
a_journal_that_cannot_be_read_stops_the_start(void **state)
{
    (void)state;
    (void)call();
    turn();
    die();
    fixture_sql(w->f, "ALTER TABLE slot RENAME TO gone");
    journal_free(&w->reader);
    w->reader = fixture_journal(w->f, JOURNAL_READER);
    assert_int_not_equal(service_start_again(), RC_OK);
    assert_null(w->service);
}

/* ---- what goes wrong --------------------------------------------------------
 */

static void
a_record_that_is_no_call_is_buried(void **state)
{
    static const char bad[] = "no phone";
    int64_t seq = accept_body(bad);
    int64_t next;

    (void)state;
    hand_over(seq, w->now.unix_ms, bad, strlen(bad));
    next = call();
    turn();
    assert_int_equal(fixture_ask(w->f, "SELECT count(*) FROM dead"
                                       " WHERE service = 'call' AND reason ="
                                       " 'record cannot be decoded: not a"
                                       " call'"),
                     1);
    assert_pending(seq);
    assert_int_equal(w->start_count, 1);
    assert_true(on_line(next));
    assert_int_equal(
        metrics_get(w->metrics, METRIC_QUARANTINED_TOTAL, SERVICE_CALL), 1);
    assert_int_equal(metrics_get(w->metrics, METRIC_DEAD_TOTAL, SERVICE_CALL),
                     1);
}

static void
a_row_that_the_journal_could_not_read_is_buried(void **state)
{
    int64_t seq = call_committed();
    static const char good[] = "+15550000001 agent_1";
    struct work *work = work_new(SERVICE_CALL, seq, w->now.unix_ms,
                                 &w->ids[seq], good, strlen(good));

    (void)state;
    assert_non_null(work);
    work->broken = true;
    call_service.accept(w->service, work, w->now);
    turn();
    assert_int_equal(fixture_ask(w->f, "SELECT count(*) FROM dead"), 1);
    assert_int_equal(w->start_count, 0);
}

static void
a_full_writer_loses_nothing(void **state)
{
    int64_t seq = call();

    (void)state;
    w->writer.full = 3;
    tick();
    assert_false(call_service.idle(w->service));
    assert_in_range(w->wait_ms, 1, 10);
    let_pass(100, 10);
    assert_true(on_line(seq));
    w->writer.full = 3;
    answer(seq, 500);
    tick();
    assert_false(call_service.idle(w->service));
    let_pass(2000, 10);
    assert_true(on_line(seq));
    w->writer.full = 3;
    answer(seq, 200);
    let_pass(100, 10);
    assert_ended(seq, CALL_ANSWERED, 2, "");
    assert_true(call_service.idle(w->service));
}

static void
what_the_full_writer_refused_goes_in_order_of_arrival(void **state)
{
    int64_t first = call();

    (void)state;
    (void)call();
    (void)call();
    w->writer.full = 3;
    tick();
    turn();
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(w->starts[i].seq, first + (int64_t)i);
    }
}

static void
what_a_full_writer_refused_counts_as_in_flight(void **state)
{
    (void)state;
    w->conf.call.rate_count = 100;
    w->conf.call.max_in_flight = 2;
    die();
    start();
    for (int i = 0; i < 8; i++) {
        (void)call();
    }
    w->writer.full = 100;
    tick();
    w->writer.full = 0;
    turn();
    assert_int_equal(w->writer.submits, 2); /* no DIALING without a dial */
    assert_int_equal(w->start_count, 2);
}

/* The journal must never say that a slot is free whose request is under way:
 * the next start would send another. */
static void
a_write_that_waited_does_not_free_a_slot_taken_since(void **state)
{
    int64_t first;
    int64_t second;

    (void)state;
    w->conf.call.rate_count = 1;
    die();
    start();
    first = call();
    second = call();
    turn();
    count_now(first);
    turn();
    pass(WINDOW_MS + GUARD_MS);
    answer(first, 200);
    w->writer.full = 1; /* its end waits, the dial of the second does not */
    tick();
    commit();
    assert_true(on_line(second));
    assert_int_equal(slot_on_disk(0), LIMITER_FLYING);
    turn();
    assert_ended(first, CALL_ANSWERED, 1, "");
    assert_int_equal(slot_on_disk(0), LIMITER_FLYING);
}

static void
without_memory_a_request_waits_and_nothing_else_is_taken(void **state)
{
    int64_t seq;
    int64_t next;

    (void)state;
    seq = call_committed();
    w->callocs_to_fail = 1;
    hand_over(seq, w->now.unix_ms, "+15550000001 agent_1",
              strlen("+15550000001 agent_1"));
    assert_int_equal(w->callocs_to_fail, 0);
    assert_false(call_service.has_room(w->service));
    assert_false(call_service.idle(w->service));
    w->callocs_to_fail = 1;
    tick();
    assert_false(call_service.has_room(w->service));
    assert_in_range(w->wait_ms, 1, 10);
    turn();
    assert_true(call_service.has_room(w->service));
    assert_true(on_line(seq));
    next = call();
    turn();
    assert_true(on_line(next));
    /* and a service that ends with one in its hands leaks nothing */
    seq = call_committed();
    w->callocs_to_fail = 1;
    hand_over(seq, w->now.unix_ms, "+15550000003 agent_3",
              strlen("+15550000003 agent_3"));
}

static void
without_memory_there_is_no_start(void **state)
{
    (void)state;
    die();
    for (unsigned fails = 1; fails < 3; fails++) {
        w->callocs_to_fail = fails;
        assert_int_equal(service_start_again(), RC_NOMEM);
        assert_null(w->service);
        w->callocs_to_fail = 0;
    }
}

static void
a_write_that_the_journal_refuses_is_left_to_the_next_start(void **state)
{
    int64_t seq = call();
    struct write *write;

    (void)state;
    tick();
    assert_int_equal(w->writer.count, 1);
    write = w->writer.writes[0];
    w->writer.count = 0;
    write->rc = RC_INVALID;
    call_service.written(w->service, write, w->now);
    assert_true(call_service.idle(w->service));
    turn();
    assert_int_equal(w->start_count, 0);
    for (int i = 0; i < 3; i++) { /* its slot is free */
        (void)call();
    }
    turn();
    assert_int_equal(w->start_count, 3);
    die();
    start();
    turn();
    let_pass(2 * WINDOW_MS, 1000);
    assert_true(on_line(seq));
}

/* ---- paused, idle, bounds, report -------------------------------------------
 */

static void
groups_that_the_writer_repeats_leave_one_of_each(void **state)
{
    static const char bad[] = "no phone";
    int64_t broken = accept_body(bad);
    int64_t again;
    int64_t canceled;

    (void)state;
    w->writer.groups_to_undo = 2;
    hand_over(broken, w->now.unix_ms, bad, strlen(bad));
    again = call();
    canceled = call();
    assert_int_equal(cancel(canceled), JOURNAL_CANCELED);
    turn();
    answer(again, 500);
    turn();
    let_pass(1000, 100);
    assert_int_equal(progress_of(again).attempts, 2);
    answer(again, 200);
    turn();
    assert_ended(again, CALL_ANSWERED, 2, "");
    assert_ended(canceled, CALL_CANCELED, 0, "");
    assert_int_equal(w->start_count, 2);
    assert_int_equal(fixture_ask(w->f, "SELECT count(*) FROM outcome"), 2);
    assert_int_equal(fixture_ask(w->f, "SELECT count(*) FROM dead"), 1);
}

/* apply tells of a failure, so that the writer repeats the group. */
static void
nothing_is_dialled_or_ended_while_the_journal_fails(void **state)
{
    int64_t seq = call();

    (void)state;
    tick(); /* outside of a group every change fails */
    assert_int_equal(
        w->writer.writes[0]->apply(w->f->edge, w->writer.writes[0]), RC_IO);
    turn();
    assert_true(on_line(seq));
    answer(seq, 503);
    tick();
    assert_int_equal(
        w->writer.writes[0]->apply(w->f->edge, w->writer.writes[0]), RC_IO);
    turn();
    let_pass(1000, 100);
    answer(seq, 200);
    tick();
    assert_int_equal(
        w->writer.writes[0]->apply(w->f->edge, w->writer.writes[0]), RC_IO);
    turn();
    assert_ended(seq, CALL_ANSWERED, 2, "");
}

static void
what_a_refused_write_had_to_note_is_noted_by_the_next(void **state)
{
    int64_t first = call();
    int64_t second = call();
    struct write *write;

    (void)state;
    turn();
    answer(first, 429);
    tick();
    assert_int_equal(w->writer.count, 1); /* QUEUED again, and the pause */
    write = w->writer.writes[0];
    w->writer.count = 0;
    write->rc = RC_BUG;
    call_service.written(w->service, write, w->now);
    answer(second, 200);
    turn();
    die();
    start();
    assert_phase("paused");
}

static void
paused_starts_nothing_but_what_is_on_the_line_ends(void **state)
{
    int64_t seq = call();
    int64_t next;

    (void)state;
    turn();
    w->paused = true;
    next = call();
    turn();
    assert_false(on_line(next));
    assert_int_equal(w->wait_ms, 60000); /* no need to look at the limiter */
    assert_false(call_service.idle(w->service));
    answer(seq, 200);
    turn();
    assert_ended(seq, CALL_ANSWERED, 1, "");
    assert_true(call_service.idle(w->service)); /* what waits may wait */
    w->paused = false;
    turn();
    assert_true(on_line(next));
}

static void
idle_means_that_nothing_is_on_its_way(void **state)
{
    int64_t seq;

    (void)state;
    assert_true(call_service.idle(w->service));
    seq = call();
    assert_true(call_service.idle(w->service)); /* in the journal, no more */
    tick();
    assert_false(call_service.idle(w->service)); /* with the writer */
    commit();
    assert_false(call_service.idle(w->service)); /* on the line */
    answer(seq, 200);
    tick();
    assert_false(call_service.idle(w->service)); /* with the writer */
    commit();
    assert_true(call_service.idle(w->service));
}

static void
there_is_room_for_1024_calls(void **state)
{
    char body[64];

    (void)state;
    /* Seen by the service alone: the journal is not asked for those that wait.
     */
    for (int64_t seq = 1; seq <= 1024; seq++) {
        (void)snprintf(body, sizeof(body), "+1555%07" PRId64 " agent_%" PRId64,
                       seq, seq);
        hand_over(seq, w->now.unix_ms, body, strlen(body));
    }
    assert_false(call_service.has_room(w->service));
    tick(); /* three go to the writer, and still are in its hands */
    assert_int_equal(w->writer.count, 3);
    assert_false(call_service.has_room(w->service));
    assert_int_equal(
        metrics_get(w->metrics, METRIC_ACTIVE_REQUESTS, SERVICE_CALL), 1024);
    commit();
    assert_false(call_service.has_room(w->service));
    answer(2, 400);
    turn();
    assert_true(call_service.has_room(w->service));
}

/* One object made of the report's members. */
static void
assert_report(int64_t in_flight, int64_t waiting, int64_t retrying)
{
    struct text report = {0};
    struct json_token tokens[32];
    struct json json;
    int64_t value = 0;
    uint32_t limiter;

    text_putc(&report, '{');
    call_service.report(w->service, &report);
    text_putc(&report, '}');
    assert_false(text_failed(&report));
    assert_int_equal(
        json_scan(text_cstr(&report), report.bytes, tokens, 32, &json), RC_OK);
    assert_int_equal(
        json_uint53(&json, json_member(&json, 0, "in_flight"), &value), RC_OK);
    assert_int_equal(value, in_flight);
    assert_int_equal(
        json_uint53(&json, json_member(&json, 0, "waiting"), &value), RC_OK);
    assert_int_equal(value, waiting);
    assert_int_equal(
        json_uint53(&json, json_member(&json, 0, "retrying"), &value), RC_OK);
    assert_int_equal(value, retrying);
    limiter = json_member(&json, 0, "limiter");
    assert_int_equal(
        json_uint53(&json, json_member(&json, limiter, "guard_us"), &value),
        RC_OK);
    assert_int_equal(value, GUARD_MS * US);
    text_free(&report);
}

static void
the_report_is_members_of_an_object(void **state)
{
    (void)state;
    assert_report(0, 0, 0);
    for (int i = 0; i < 5; i++) {
        (void)call();
    }
    turn();
    assert_report(3, 2, 0);
}

static void
free_of_nothing_is_nothing(void **state)
{
    void *nothing = NULL;

    (void)state;
    call_service.free(&nothing);
    assert_null(nothing);
}

/* ---- the whole --------------------------------------------------------------
 */

/* A provider that counts each request up to half a second after its start, and
 * answers it 5 to 10 s later. */
static void
the_provider_never_counts_more_than_its_limit_in_a_window(void **state)
{
    static int64_t counted_us[64];
    int64_t end_ms[64] = {0};
    size_t seen = 0;
    uint32_t random = 12345;
    size_t count = 30;

    (void)state;
    for (size_t i = 0; i < count; i++) {
        (void)call();
    }
    for (int i = 0; i < 3000 && w->start_count < count; i++) {
        turn();
        for (; seen < w->start_count; seen++) {
            random = random * 1664525 + 1013904223;
            counted_us[seen] =
                w->starts[seen].at_us + (random >> 16) % 500 * US;
            w->flights[w->starts[seen].seq].counted_us = counted_us[seen];
            end_ms[w->starts[seen].seq] =
                w->now.ms + 5000 + (random >> 8) % 5000;
        }
        for (int64_t seq = 1; seq <= (int64_t)count; seq++) {
            if (on_line(seq) && w->now.ms >= end_ms[seq]) {
                answer(seq, 200);
            }
        }
        pass(w->wait_ms < 250 && w->wait_ms > 0 ? w->wait_ms : 250);
    }
    assert_int_equal(w->start_count, count);
    for (size_t a = 0; a < count; a++) {
        unsigned in_window = 0;

        for (size_t b = 0; b < count; b++) {
            in_window += counted_us[b] >= counted_us[a] &&
                         counted_us[b] <= counted_us[a] + WINDOW_MS * US;
        }
        assert_true(in_window <= 3);
        assert_int_equal(w->starts[a].seq, (int64_t)a + 1);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_new, world_free)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_call_is_dialled_at_once_from_idle),
        TEST(no_more_than_rate_count_leave_and_the_next_when_its_slot_is_free),
        TEST(a_wait_is_rounded_up),
        TEST(with_count_at_answer_the_arrival_does_not_count),
        TEST(calls_are_dialled_in_order_of_arrival_also_those_that_come_back),
        TEST(while_one_rests_the_next_is_dialled),
        TEST(max_in_flight_is_kept_and_may_change),
        TEST(at_max_in_flight_only_an_end_is_waited_for),
        TEST(a_configured_number_of_attempts_is_in_force_at_once),
        TEST(a_post_that_cannot_start_is_tried_again_without_losing_an_attempt),
        TEST(a_url_that_cannot_be_used_fails_the_call_after_its_attempts),
        TEST(any_2xx_is_answered_and_any_refusal_is_final),
        TEST(a_status_counts_though_its_answer_is_cut_off),
        TEST(a_5xx_and_a_408_are_tried_again_until_max_attempts),
        TEST(what_was_not_sent_is_tried_again_and_gives_its_slot_back),
        TEST(a_later_success_leaves_no_error),
        TEST(what_was_sent_without_an_answer_is_unknown),
        TEST(with_redial_what_was_sent_without_an_answer_is_an_attempt),
        TEST(a_429_stops_everything_then_one_probe_then_a_refill),
        TEST(a_probe_that_is_refused_doubles_the_pause),
        TEST(a_429_between_the_permit_and_the_start_holds_the_start_back),
        TEST(a_call_canceled_before_it_is_dialled_takes_no_slot),
        TEST(a_canceled_call_leaves_no_slot_on_disk),
        TEST(a_call_may_be_canceled_between_two_attempts),
        TEST(a_canceled_probe_leaves_the_probe_to_the_next),
        TEST(a_call_that_was_being_dialled_is_unknown_after_a_restart),
        TEST(with_redial_it_is_dialled_again_after_a_restart),
        TEST(a_dial_that_was_not_committed_never_was),
        TEST(a_queued_call_keeps_its_attempts_over_a_restart),
        TEST(a_call_canceled_while_nobody_ran_is_finished_by_the_next),
        TEST(slots_of_the_same_boot_still_count_after_a_restart),
        TEST(after_another_boot_every_used_slot_counts_for_a_window),
        TEST(without_its_note_the_slots_tell_of_another_boot),
        TEST(a_pause_goes_on_after_a_restart),
        TEST(a_pause_goes_on_after_another_boot),
        TEST(the_limiter_is_noted_when_it_changes),
        TEST(a_note_that_is_no_note_does_not_stop_the_start),
        TEST(slots_out_of_range_do_not_stop_the_start),
        TEST(a_journal_that_cannot_be_read_stops_the_start),
        TEST(a_record_that_is_no_call_is_buried),
        TEST(a_row_that_the_journal_could_not_read_is_buried),
        TEST(a_full_writer_loses_nothing),
        TEST(what_the_full_writer_refused_goes_in_order_of_arrival),
        TEST(what_a_full_writer_refused_counts_as_in_flight),
        TEST(a_write_that_waited_does_not_free_a_slot_taken_since),
        TEST(without_memory_a_request_waits_and_nothing_else_is_taken),
        TEST(without_memory_there_is_no_start),
        TEST(a_write_that_the_journal_refuses_is_left_to_the_next_start),
        TEST(groups_that_the_writer_repeats_leave_one_of_each),
        TEST(nothing_is_dialled_or_ended_while_the_journal_fails),
        TEST(what_a_refused_write_had_to_note_is_noted_by_the_next),
        TEST(paused_starts_nothing_but_what_is_on_the_line_ends),
        TEST(idle_means_that_nothing_is_on_its_way),
        TEST(there_is_room_for_1024_calls),
        TEST(the_report_is_members_of_an_object),
        TEST(free_of_nothing_is_nothing),
        TEST(the_provider_never_counts_more_than_its_limit_in_a_window),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
