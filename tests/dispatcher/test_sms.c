/* The SMS service with a fake poster, a writer that a test commits by hand, and
 * a real journal, which outlives the service: a test may kill the one and start
 * another. Whatever a test does, the fake provider sees a batch id with one
 * body only, and before that batch and members are on disk. */
#include "tests/dispatcher/feed_fixture.h"
#include "tests/dispatcher/writer_fixture.h"
#include "tests/shared/journal_fixture.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/backoff.h"
#include "dispatcher/metrics.h"
#include "dispatcher/poster.h"
#include "dispatcher/service.h"
#include "dispatcher/sms_record.h"
#include "shared/journal_batch.h"
#include "shared/json.h"
#include "shared/log.h"
#include "shared/rc.h"
#include "shared/sms_batch.h"

#define MESSAGES 4096
#define REQUESTS 4096
#define WRITES 512
#define START_UNIX_MS INT64_C(1800000000000)
#define MAX_DELAY_MS 2000

/* A request as the provider saw it. */
struct request {
    uint64_t tag; /* 0: it has ended */
    struct uuid batch;
    char *body;
    int64_t at_ms;
    bool ended; /* with the next drive */
    bool refused;
    struct post_result result;
};

/* A batch's row of statistics, as the store would write it. */
struct line {
    struct sms_batch batch;
    int64_t messages; /* that came with it */
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
    struct fake_feed feed;
    /* messages, by number from 1 */
    struct uuid ids[MESSAGES];
    int numbers;         /* given out */
    int saved[MESSAGES]; /* how often the store got it */
    struct line *lines;  /* REQUESTS */
    size_t line_count;
    /* poster */
    const struct poster_calls *calls;
    void *calls_arg;
    struct poster_options poster;
    enum rc start_rc;
    struct request *requests; /* REQUESTS, as they were started */
    size_t request_count;
    size_t on_line;
    /* backoff */
    int64_t backoff_base_ms;
    int64_t backoff_attempt; /* of the last call; 0: none */
    struct fake_writer writer;
    unsigned wakes;
    unsigned callocs_to_fail;
};

static struct world *w; /* the fakes have no argument to find it by */

/* ---- what should be ---------------------------------------------------------
 */

static int
number_of(const struct uuid *id)
{
    for (int i = 1; i <= w->numbers; i++) {
        if (memcmp(&w->ids[i], id, sizeof(*id)) == 0) {
            return i;
        }
    }
    fail();
    return 0;
}

static void
body_add(struct text *out, int message)
{
    char id[UUID_TEXT_BYTES];

    text_printf(out,
                "%c{\"message_id\":\"%s\",\"phone_number\":\"+4917612345\","
                "\"message\":\"text \\\"%d\\\"\"}",
                out->bytes == 0 ? '[' : ',', uuid_format(&w->ids[message], id),
                message);
}

/* The messages of a request, in order. */
static size_t
members_of(const struct request *request, int *messages)
{
    static const char key[] = "\"message_id\":\"";
    size_t count = 0;

    for (const char *at = strstr(request->body, key); at != NULL;
         at = strstr(at, key)) {
        char text[UUID_TEXT_BYTES];
        struct uuid id;

        at += strlen(key);
        (void)snprintf(text, sizeof(text), "%.36s", at);
        assert_int_equal(uuid_parse(text, &id), RC_OK);
        messages[count++] = number_of(&id);
    }
    return count;
}

static struct journal_ledger
ledger_of_sms(void)
{
    struct journal_ledger ledger[SERVICE_COUNT];

    assert_int_equal(journal_ledger(w->f->dispatcher, ledger), RC_OK);
    assert_true(ledger[SERVICE_SMS].balanced);
    return ledger[SERVICE_SMS];
}

static bool
batch_on_disk(const struct uuid *id, struct journal_batch *out)
{
    enum rc rc = journal_batch_find(w->f->dispatcher, id, out);

    assert_true(rc == RC_OK || rc == RC_AGAIN);
    return rc == RC_OK;
}

static struct journal_entry
located(int message)
{
    struct journal_entry entry;

    assert_int_equal(
        journal_locate(w->f->dispatcher, SERVICE_SMS, &w->ids[message], &entry),
        RC_OK);
    return entry;
}

/* ---- fakes ------------------------------------------------------------------
 */

enum rc __wrap_poster_new(struct poster **out,
                          const struct poster_options *options,
                          const struct poster_calls *calls, void *arg);
void __wrap_poster_free(struct poster **p);
void __wrap_poster_set(struct poster *p, const struct poster_options *options);
enum rc __wrap_poster_start(struct poster *p,
                            const struct poster_request *request);
int __wrap_poster_fd(const struct poster *p);
int64_t __wrap_poster_drive(struct poster *p, int64_t now_ms);
enum rc __wrap_writer_submit(struct writer *writer, struct write *write);
int64_t __wrap_backoff_ms(struct backoff *b, int64_t base_ms, int64_t attempt);
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

/* The longest that full jitter allows. */
int64_t
__wrap_backoff_ms(struct backoff *b, int64_t base_ms, int64_t attempt)
{
    assert_int_not_equal(b->random, 0);
    assert_true(attempt >= 1 && attempt < 30);
    w->backoff_base_ms = base_ms;
    w->backoff_attempt = attempt;
    return base_ms << (attempt - 1);
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
    for (size_t i = 0; i < w->request_count; i++) {
        w->requests[i].tag = 0;
    }
    w->on_line = 0;
}

void
__wrap_poster_set(struct poster *p, const struct poster_options *options)
{
    assert_ptr_equal(p, w);
    w->poster = *options;
}

/* A batch id stands for one body, for ever. */
static void
assert_as_before(const struct request *request)
{
    for (size_t i = 0; i < w->request_count; i++) {
        const struct request *before = &w->requests[i];

        if (memcmp(&before->batch, &request->batch, sizeof(struct uuid)) == 0) {
            assert_string_equal(before->body, request->body);
            assert_int_equal(before->tag, 0); /* not twice at a time */
        }
    }
}

/* Batch and members are on disk, in this order. One that the provider reported
 * on has left. */
static void
assert_on_disk(const struct request *request)
{
    int messages[JOURNAL_BATCH_MAX];
    size_t count = members_of(request, messages);
    struct text body = {0};
    struct journal_batch batch;

    assert_true(count > 0);
    assert_true(batch_on_disk(&request->batch, &batch));
    assert_int_equal(batch.size, count);
    for (size_t i = 0; i < count; i++) {
        int64_t place = -1;
        enum rc rc = journal_batch_of(w->f->dispatcher, &w->ids[messages[i]],
                                      &batch, &place);

        body_add(&body, messages[i]);
        if (rc == RC_OK) {
            assert_int_equal(place, i);
            assert_memory_equal(&batch.id, &request->batch, UUID_BYTES);
        } else {
            assert_int_equal(rc, RC_AGAIN);
        }
    }
    text_putc(&body, ']');
    assert_string_equal(request->body, text_cstr(&body));
    text_free(&body);
}

enum rc
__wrap_poster_start(struct poster *p, const struct poster_request *request)
{
    struct request *r = &w->requests[w->request_count];

    assert_ptr_equal(p, w);
    if (w->start_rc != RC_OK) {
        return w->start_rc;
    }
    if (w->on_line >= w->poster.concurrency) {
        return RC_FULL;
    }
    assert_true(w->request_count < REQUESTS);
    *r = (struct request){.tag = request->tag, .at_ms = w->now.ms};
    assert_int_not_equal(request->tag, 0);
    assert_string_equal(request->url, w->conf.sms.url);
    assert_int_equal(uuid_parse(request->idempotency_key, &r->batch), RC_OK);
    assert_int_equal(strlen(request->body), request->body_bytes);
    r->body = strdup(request->body);
    assert_non_null(r->body);
    assert_as_before(r);
    assert_on_disk(r);
    w->request_count++;
    w->on_line++;
    return RC_OK;
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
    size_t count = w->request_count;

    assert_ptr_equal(p, w);
    assert_int_equal(now_ms, w->now.ms);
    for (size_t i = 0; i < count; i++) {
        struct request *request = &w->requests[i];
        struct post_result result = request->result;

        if (request->tag != 0 && request->ended) {
            result.tag = request->tag;
            request->tag = 0;
            request->refused = result.status == 400 || result.status == 413 ||
                               result.status == 422;
            w->on_line--;
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

    w->feed = (struct fake_feed){.ops = &sms_service, .journal = w->reader};
    return sms_service.new(&w->service, &context);
}

static int
world_new(void **state)
{
    (void)state;
    w = calloc(1, sizeof(*w));
    assert_non_null(w);
    w->writer.max = WRITES;
    w->writer.reply_to = (struct queue *)&w->writer;
    w->requests = calloc(REQUESTS, sizeof(w->requests[0]));
    w->lines = calloc(REQUESTS, sizeof(w->lines[0]));
    assert_non_null(w->requests);
    assert_non_null(w->lines);
    assert_int_equal(fixture_setup((void **)&w->f), 0);
    w->reader = fixture_journal(w->f, JOURNAL_READER);
    w->now = (struct now){.ms = 1000000,
                          .unix_ms = START_UNIX_MS,
                          .boot_us = INT64_C(2000000000)};
    w->conf.sms = (struct conf_sms){
        .url = "http://localhost:9012/batches",
        .batch_size = 3,
        .max_delay_ms = MAX_DELAY_MS,
        .max_attempts = 3,
        .retry_base_ms = 500,
        .timeout_ms = 30000,
        .max_in_flight = 4,
    };
    assert_int_equal(metrics_new(&w->metrics), RC_OK);
    assert_int_equal(service_start_again(), RC_OK); /* no journal yet */
    return 0;
}

/* The process dies: what the writer had is lost. */
static void
die(void)
{
    sms_service.free(&w->service);
    assert_null(w->service);
    for (size_t i = 0; i < w->writer.count; i++) {
        sms_flight_free((struct sms_flight *)w->writer.writes[i]);
    }
    w->writer.count = 0;
}

static int
world_free(void **state)
{
    (void)state;
    die();
    metrics_free(&w->metrics);
    journal_free(&w->reader);
    assert_int_equal(fixture_teardown((void **)&w->f), 0);
    for (size_t i = 0; i < w->request_count; i++) {
        free(w->requests[i].body);
    }
    free(w->requests);
    free(w->lines);
    free(w);
    w = NULL;
    return 0;
}

static void
pass(int64_t ms)
{
    w->now.ms += ms;
    w->now.unix_ms += ms;
    w->now.boot_us += ms * 1000;
}

static void
tick(void)
{
    w->wait_ms = sms_service.tick(w->service, w->now, w->paused);
    assert_true(w->wait_ms >= 0);
}

/* The writer's turn: one group, without the replies. */
static size_t
commit_silently(struct write **writes)
{
    size_t count = fake_writer_commit(&w->writer, w->f->dispatcher, writes);

    if (count > 0) {
        (void)ledger_of_sms();
    }
    return count;
}

/* ... with them. False: nothing waits. */
static bool
commit(void)
{
    struct write *writes[FAKE_WRITES_MAX];
    size_t count = commit_silently(writes);

    for (size_t i = 0; i < count; i++) {
        sms_service.written(w->service, writes[i], w->now);
    }
    return count > 0;
}

/* At most so many messages. */
static bool
feed_some(size_t most)
{
    return fake_feed(&w->feed, w->service, most, w->now);
}

static bool
feed(void)
{
    return feed_some(MESSAGES);
}

/* All that can be done at this moment. */
static void
turn(void)
{
    for (int i = 0; i < 200; i++) {
        bool any = feed();

        tick();
        if (!commit() && !any) {
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

/* The next messages, committed by a handler. The number of the first. */
static int
messages(int count)
{
    int first = w->numbers + 1;

    for (int i = 0; i < count; i++) {
        struct journal_request r;
        char body[64];

        (void)snprintf(body, sizeof(body), "+4917612345 text \"%d\"",
                       ++w->numbers);
        r = fixture_request(w->f, body);
        r.service = SERVICE_SMS;
        r.received_unix_ms = w->now.unix_ms;
        assert_int_equal(
            journal_accept(w->f->edge, &r, 1, FIXTURE_NOW + FIXTURE_DAY),
            RC_OK);
        assert_int_equal(r.verdict, JOURNAL_ACCEPTED);
        assert_true(w->numbers < MESSAGES);
        w->ids[w->numbers] = r.id;
    }
    return first;
}

static void
start(void)
{
    assert_int_equal(service_start_again(), RC_OK);
    turn();
}

/* Let the next drive end request no (from 0, as they were started). status 0:
 * no answer came. */
static void
end(size_t no, enum post_stage stage, int status, const char *error)
{
    struct request *request = &w->requests[no];

    assert_true(no < w->request_count);
    assert_int_not_equal(request->tag, 0);
    request->ended = true;
    request->result = (struct post_result){
        .stage = stage, .status = status, .body = "", .duration_ms = 50};
    (void)snprintf(request->result.error, sizeof(request->result.error), "%s",
                   error);
}

static void
answer(size_t no, int status)
{
    end(no, POST_ANSWERED, status, "");
}

/* Request no has count messages from first on. */
static void
assert_request(size_t no, int first, size_t count)
{
    int got[JOURNAL_BATCH_MAX];

    assert_true(no < w->request_count);
    assert_int_equal(members_of(&w->requests[no], got), count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(got[i], first + (int)i);
    }
}

/* b is a again. */
static void
assert_same_request(size_t a, size_t b)
{
    assert_true(b < w->request_count);
    assert_memory_equal(&w->requests[a].batch, &w->requests[b].batch,
                        UUID_BYTES);
    assert_string_equal(w->requests[a].body, w->requests[b].body);
}

static void
assert_other_batch(size_t a, size_t b)
{
    assert_memory_not_equal(&w->requests[a].batch, &w->requests[b].batch,
                            UUID_BYTES);
}

/* ---- the store and the status service, in short -----------------------------
 */

static void
store_one(const char *body, size_t bytes)
{
    struct line *line = &w->lines[w->line_count];
    struct sms_batch_cursor cursor;
    struct sms_sent sent;
    bool has = false;
    enum rc rc = sms_batch_open(body, bytes, &line->batch, &has, &cursor);

    assert_int_equal(rc, RC_OK);
    line->messages = 0;
    for (rc = sms_batch_next(&cursor, &sent); rc == RC_OK;
         rc = sms_batch_next(&cursor, &sent)) {
        char text[64];
        int message = number_of(&sent.id);

        (void)snprintf(text, sizeof(text), "+4917612345 text \"%d\"", message);
        assert_int_equal(sent.body_bytes, strlen(text));
        assert_memory_equal(sent.body, text, strlen(text));
        w->saved[message]++;
        line->messages++;
    }
    assert_int_equal(rc, RC_AGAIN);
    if (has) {
        assert_true(w->line_count < REQUESTS - 1);
        w->line_count++;
    }
}

/* The store takes all outcomes, which retire. */
static void
store(void)
{
    struct journal_page page = {0};
    int64_t retired = 0;

    assert_int_equal(journal_outcome_page(w->f->dispatcher, SERVICE_SMS, 0,
                                          REQUESTS, 1 << 24, &page),
                     RC_OK);
    for (size_t i = 0; i < page.count; i++) {
        store_one(page.rows[i].body, page.rows[i].body_bytes);
    }
    if (page.count > 0) {
        assert_int_equal(journal_begin(w->f->dispatcher), RC_OK);
        assert_int_equal(
            journal_retire(w->f->dispatcher, SERVICE_SMS, page.rows[0].seq,
                           page.rows[page.count - 1].seq, &retired),
            RC_OK);
        assert_int_equal(journal_commit(w->f->dispatcher), RC_OK);
    }
    (void)ledger_of_sms();
    journal_page_free(&page);
}

/* The provider reports on a message, as sms_status.c records it. */
static void
report(int message)
{
    struct journal *j = w->f->dispatcher;
    struct journal_row row;
    struct text body = {0};
    struct text outcome = {0};
    int64_t no = 0;
    enum rc rc;

    assert_int_equal(journal_begin(j), RC_OK);
    rc = journal_batch_reported(j, &w->ids[message], w->now.unix_ms, &row,
                                &body);
    if (rc == RC_OK) {
        const struct sms_sent sent = {.seq = row.seq,
                                      .received_unix_ms = row.received_unix_ms,
                                      .id = row.id,
                                      .body = text_cstr(&body),
                                      .body_bytes = body.bytes};

        sms_batch_begin(NULL, &outcome);
        sms_batch_put(&sent, &outcome);
        assert_int_equal(journal_outcome_add(j, SERVICE_SMS,
                                             text_cstr(&outcome), outcome.bytes,
                                             &no),
                         RC_OK);
        assert_int_equal(journal_finish(j, SERVICE_SMS, row.seq, no), RC_OK);
    }
    assert_true(rc == RC_OK || rc == RC_AGAIN);
    assert_int_equal(journal_commit(j), RC_OK);
    text_free(&body);
    text_free(&outcome);
}

static enum rc
retry(int message)
{
    enum rc rc;

    assert_int_equal(journal_begin(w->f->dispatcher), RC_OK);
    rc = journal_dead_retry(w->f->dispatcher, &w->ids[message], w->now.unix_ms,
                            NULL);
    assert_int_equal(journal_commit(w->f->dispatcher), RC_OK);
    return rc;
}

static void
drop(int message)
{
    assert_int_equal(journal_begin(w->f->dispatcher), RC_OK);
    assert_int_equal(journal_dead_drop(w->f->dispatcher, &w->ids[message]),
                     RC_OK);
    assert_int_equal(journal_commit(w->f->dispatcher), RC_OK);
}

/* Messages first..last were saved once each, and nothing of them is left. */
static void
assert_saved(int first, int last)
{
    struct journal_entry entry;

    store();
    for (int i = first; i <= last; i++) {
        assert_int_equal(w->saved[i], 1);
        assert_int_equal(
            journal_locate(w->f->dispatcher, SERVICE_SMS, &w->ids[i], &entry),
            RC_AGAIN);
    }
}

static void
assert_dead(int first, int last, const char *reason)
{
    for (int i = first; i <= last; i++) {
        struct journal_entry entry = located(i);

        assert_int_equal(entry.place, JOURNAL_DEAD);
        assert_string_equal(entry.reason, reason);
        assert_int_equal(w->saved[i], 0);
    }
}

static void
assert_batches(int64_t count)
{
    int64_t got = -1;

    assert_int_equal(journal_batch_count(w->f->dispatcher, &got), RC_OK);
    assert_int_equal(got, count);
}

/* The last statistics row. */
static void
assert_line(size_t no, size_t request, int64_t size, int64_t attempts,
            const char *error)
{
    const struct line *line = &w->lines[no];

    assert_true(no < w->line_count);
    assert_memory_equal(&line->batch.id, &w->requests[request].batch,
                        UUID_BYTES);
    assert_int_equal(line->batch.size, size);
    assert_int_equal(line->batch.attempts, attempts);
    assert_string_equal(line->batch.error, error);
    assert_true(line->batch.started_unix_ms >= START_UNIX_MS);
    assert_true(line->batch.finished_unix_ms >= line->batch.started_unix_ms);
}

static int64_t
metric(enum metric which)
{
    return metrics_get(w->metrics, which, SERVICE_COUNT);
}

static void
configure(void)
{
    sms_service.configure(w->service, &w->conf);
}

/* ---- when a batch leaves ----------------------------------------------------
 */

static void
a_full_batch_leaves_at_once(void **state)
{
    (void)state;
    (void)messages(3);
    turn();
    assert_int_equal(w->request_count, 1);
    assert_request(0, 1, 3);
    assert_int_equal(metric(METRIC_SMS_REQUESTS_TOTAL), 1);
    assert_int_equal(metric(METRIC_SMS_IN_FLIGHT), 1);
}

static void
fewer_wait_until_the_oldest_has_waited_max_delay(void **state)
{
    (void)state;
    (void)messages(1);
    turn();
    pass(500);
    (void)messages(1);
    turn();
    assert_int_equal(w->wait_ms, MAX_DELAY_MS - 500);
    assert_int_equal(metric(METRIC_SMS_WAITING), 2);
    pass(MAX_DELAY_MS - 501);
    turn();
    assert_int_equal(w->request_count, 0);
    pass(1);
    turn();
    assert_int_equal(w->request_count, 1);
    assert_request(0, 1, 2);
    assert_int_equal(metric(METRIC_SMS_WAITING), 0);
}

static void
what_it_waited_in_the_inbox_counts(void **state)
{
    (void)state;
    (void)messages(1);
    pass(700);
    turn();
    assert_int_equal(w->wait_ms, MAX_DELAY_MS - 700);
}

static void
a_backlog_is_gathered_for_50_ms(void **state)
{
    (void)state;
    die();
    (void)messages(2);
    pass(3600000);
    start();
    assert_int_equal(w->request_count, 0);
    assert_int_equal(w->wait_ms, 50);
    (void)messages(3);
    turn();
    assert_request(0, 1, 3);
    assert_int_equal(w->request_count, 1);
    pass(50);
    turn();
    assert_int_equal(w->request_count, 1); /* these came just now */
    pass(MAX_DELAY_MS - 50);
    turn();
    assert_request(1, 4, 2);
}

static void
a_drain_holds_nothing_back(void **state)
{
    (void)state;
    (void)messages(2);
    turn();
    assert_int_equal(w->request_count, 0);
    sms_service.drain(w->service, true);
    turn();
    assert_request(0, 1, 2);
    (void)messages(1);
    turn();
    assert_request(1, 3, 1);
    sms_service.drain(w->service, false);
    (void)messages(1);
    turn();
    assert_int_equal(w->request_count, 2);
}

static void
with_batch_size_1_each_goes_alone_at_once(void **state)
{
    (void)state;
    w->conf.sms.batch_size = 1;
    configure();
    (void)messages(3);
    turn();
    assert_int_equal(w->request_count, 3);
    for (int i = 0; i < 3; i++) {
        assert_request((size_t)i, i + 1, 1);
    }
}

static void
several_are_in_flight_and_no_more_than_configured(void **state)
{
    (void)state;
    (void)messages(18);
    turn();
    assert_int_equal(w->request_count, 4);
    for (int i = 0; i < 4; i++) {
        assert_request((size_t)i, 1 + 3 * i, 3);
    }
    answer(2, 200);
    turn();
    assert_int_equal(w->request_count, 5);
    assert_request(4, 13, 3);
    w->conf.sms.max_in_flight = 5;
    configure();
    turn();
    assert_int_equal(w->request_count, 6);
    assert_request(5, 16, 3);
}

static void
a_smaller_max_in_flight_is_reached_by_and_by(void **state)
{
    (void)state;
    (void)messages(18);
    turn();
    w->conf.sms.max_in_flight = 2;
    configure();
    answer(0, 200);
    answer(1, 200);
    turn();
    assert_int_equal(w->request_count, 4);
    answer(2, 200);
    turn();
    assert_int_equal(w->request_count, 5);
}

/* What waits while all are under way goes fuller. */
static void
while_all_are_under_way_the_rest_is_collected(void **state)
{
    (void)state;
    w->conf.sms.max_in_flight = 1;
    configure();
    (void)messages(1);
    turn();
    let_pass(MAX_DELAY_MS, 500);
    assert_request(0, 1, 1);
    (void)messages(1);
    turn();
    let_pass(2 * MAX_DELAY_MS, 500);
    (void)messages(1);
    turn();
    assert_int_equal(w->request_count, 1);
    answer(0, 200);
    turn();
    assert_request(1, 2, 2);
}

static void
other_keys_may_change_while_running(void **state)
{
    (void)state;
    (void)messages(2);
    turn();
    w->conf.sms.batch_size = 2;
    (void)snprintf(w->conf.sms.url, sizeof(w->conf.sms.url),
                   "http://localhost:1/other");
    w->conf.sms.timeout_ms = 777;
    configure();
    turn();
    assert_request(0, 1, 2);
    assert_int_equal(w->poster.timeout_ms, 777);
    w->conf.sms.max_attempts = 1;
    configure();
    answer(0, 500);
    turn();
    assert_dead(1, 2, "HTTP 500");
}

/* ---- how it ends ------------------------------------------------------------
 */

static void
any_2xx_ends_it(void **state)
{
    (void)state;
    for (int status = 200; status < 300; status += 33) {
        size_t no = w->request_count;
        int first = messages(3);

        turn();
        answer(no, status);
        turn();
        assert_saved(first, first + 2);
        assert_line(no, no, 3, 1, "");
        assert_int_equal(w->lines[no].messages, 3);
    }
    assert_batches(0);
    assert_int_equal(ledger_of_sms().final, 12);
    assert_int_equal(metric(METRIC_SMS_BATCHES_SENT_TOTAL), 4);
    assert_int_equal(metric(METRIC_SMS_MESSAGES_SENT_TOTAL), 12);
    assert_int_equal(w->wakes, 4);
}

static void
a_status_counts_though_its_answer_is_cut_off(void **state)
{
    (void)state;
    (void)messages(3);
    turn();
    end(0, POST_SENT, 202, "the answer was cut off");
    turn();
    assert_saved(1, 3);
}

static void
a_failure_is_repeated_unchanged_until_max_attempts(void **state)
{
    struct journal_batch batch;
    struct text body = {0};

    (void)state;
    (void)messages(3);
    turn();
    for (int64_t attempt = 1; attempt < 3; attempt++) {
        answer((size_t)attempt - 1, 500);
        turn();
        assert_int_equal(w->backoff_base_ms, 500);
        assert_int_equal(w->backoff_attempt, attempt);
        assert_true(batch_on_disk(&w->requests[0].batch, &batch));
        assert_int_equal(batch.attempts, attempt);
        assert_int_equal(batch.failures, attempt);
        assert_string_equal(batch.error, "HTTP 500");
        assert_int_equal(w->wait_ms, 500 << (attempt - 1));
        pass((500 << (attempt - 1)) - 1);
        turn();
        assert_int_equal(w->request_count, attempt);
        pass(1);
        turn();
        assert_int_equal(w->request_count, attempt + 1);
        assert_same_request(0, (size_t)attempt);
    }
    end(2, POST_SENT, 0, "no answer came");
    turn();
    let_pass(600000, 10000);
    assert_int_equal(w->request_count, 3); /* and not once more */
    assert_dead(1, 3, "no answer came");
    assert_int_equal(ledger_of_sms().dead, 3);
    store();
    assert_int_equal(w->line_count, 1);
    assert_line(0, 0, 3, 3, "no answer came");
    assert_int_equal(w->lines[0].messages, 0);
    assert_true(batch_on_disk(&w->requests[0].batch, &batch));
    assert_int_equal(batch.failures, 0);
    assert_int_equal(batch.attempts, 3);
    assert_int_equal(batch.started_unix_ms, 0); /* a retry begins anew */
    assert_int_equal(journal_batch_body(w->f->dispatcher, &batch.id, &body),
                     RC_OK);
    assert_string_equal(text_cstr(&body), w->requests[0].body);
    assert_int_equal(metric(METRIC_SMS_BATCHES_FAILED_TOTAL), 1);
    assert_int_equal(metric(METRIC_SMS_FAILURES_TOTAL), 3);
    assert_int_equal(metrics_get(w->metrics, METRIC_DEAD_TOTAL, SERVICE_SMS),
                     3);
    text_free(&body);
}

static void
anything_else_is_a_failed_attempt(void **state)
{
    static const int statuses[] = {0,   100, 301, 401, 403, 404, 408,
                                   409, 429, 499, 500, 503, 599};

    (void)state;
    w->conf.sms.max_attempts = 100;
    configure();
    (void)messages(3);
    turn();
    for (size_t i = 0; i < ARRAY_COUNT(statuses); i++) {
        assert_int_equal(w->request_count, i + 1);
        end(i, statuses[i] == 0 ? POST_NOT_SENT : POST_ANSWERED, statuses[i],
            "no connection");
        turn();
        assert_batches(1);
        pass(500 << i);
        turn();
        assert_same_request(0, i + 1);
    }
    answer(ARRAY_COUNT(statuses), 200);
    turn();
    assert_saved(1, 3);
    assert_line(0, 0, 3, (int64_t)ARRAY_COUNT(statuses) + 1, "");
}

static void
one_that_rests_leaves_its_place_to_others(void **state)
{
    (void)state;
    w->conf.sms.max_in_flight = 1;
    configure();
    (void)messages(9);
    turn();
    answer(0, 503);
    turn();
    assert_request(1, 4, 3);
    pass(500);
    turn();
    assert_int_equal(w->request_count, 2); /* it is due, but one is under way */
    answer(1, 200);
    turn();
    assert_same_request(0, 2); /* the older first */
    answer(2, 200);
    turn();
    assert_request(3, 7, 3);
    answer(3, 200);
    turn();
    assert_saved(1, 9);
}

static void
a_post_that_cannot_start_is_tried_again_without_losing_an_attempt(void **state)
{
    static const enum rc later[] = {RC_AGAIN, RC_FULL};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(later); i++) {
        struct journal_batch batch;

        (void)messages(3);
        w->start_rc = later[i];
        turn();
        assert_in_range(w->wait_ms, 1, 10);
        let_pass(1000, 10);
        w->start_rc = RC_OK;
        let_pass(10, 10);
        assert_int_equal(w->request_count, i + 1);
        assert_true(batch_on_disk(&w->requests[i].batch, &batch));
        assert_int_equal(batch.attempts, 0);
        answer(i, 200);
        turn();
    }
    assert_saved(1, 6);
}

static void
a_url_that_cannot_be_used_costs_an_attempt_each(void **state)
{
    (void)state;
    w->start_rc = RC_INVALID;
    (void)messages(3);
    turn();
    let_pass(10000, 100);
    assert_dead(1, 3, "sms.url cannot be used");
    w->start_rc = RC_OK;
    assert_int_equal(retry(3), RC_OK);
    turn();
    assert_request(0, 1, 3);
    answer(0, 200);
    turn();
    assert_saved(1, 3);
}

/* ---- dead letters that are retried ------------------------------------------
 */

/* Answer every request that is under way, in turn, for a while. */
static void
answer_all(int status, int64_t ms)
{
    for (int64_t passed = 0; passed < ms; passed += 500) {
        for (size_t i = 0; i < w->request_count; i++) {
            if (w->requests[i].tag != 0 && !w->requests[i].ended) {
                answer(i, status);
            }
        }
        turn();
        pass(500);
    }
}

static void
a_retry_of_one_sends_the_whole_batch_again_as_it_was(void **state)
{
    struct journal_batch batch;

    (void)state;
    (void)messages(3);
    turn();
    answer_all(500, 10000);
    assert_dead(1, 3, "HTTP 500");
    assert_int_equal(w->request_count, 3);
    assert_int_equal(retry(2), RC_OK);
    turn();
    assert_int_equal(w->request_count, 4); /* at once: it is whole */
    assert_same_request(0, 3);
    answer_all(502, 2500);
    assert_int_equal(w->request_count, 6); /* again, max_attempts */
    answer_all(502, 10000);
    assert_dead(1, 3, "HTTP 502");
    assert_true(batch_on_disk(&w->requests[0].batch, &batch));
    assert_int_equal(batch.attempts, 6);
    assert_int_equal(retry(1), RC_OK);
    turn();
    assert_same_request(0, 6);
    answer_all(200, 3000);
    assert_saved(1, 3);
    assert_batches(0);
    assert_int_equal(w->line_count, 3); /* each end has its row */
    assert_line(0, 0, 3, 3, "HTTP 500");
    assert_line(1, 0, 3, 6, "HTTP 502");
    assert_line(2, 0, 3, 7, "");
}

static void
a_retry_after_a_restart_sends_it_as_it_was(void **state)
{
    (void)state;
    (void)messages(3);
    turn();
    answer_all(500, 10000);
    die();
    assert_int_equal(retry(3), RC_OK); /* in the name of another process */
    w->conf.sms.batch_size = 100;
    start();
    assert_same_request(0, w->request_count - 1);
    answer_all(200, 1000);
    assert_saved(1, 3);
}

static void
after_a_drop_the_others_are_collected_anew(void **state)
{
    size_t before;

    (void)state;
    (void)messages(3);
    turn();
    answer_all(500, 10000);
    drop(2);
    before = w->request_count;
    assert_int_equal(retry(3), RC_OK);
    assert_int_equal(retry(1), RC_OK);
    turn();
    assert_int_equal(w->request_count, before);
    let_pass(MAX_DELAY_MS, 500);
    assert_int_equal(w->request_count, before + 1);
    assert_other_batch(0, before);
    answer_all(200, 1000);
    assert_saved(1, 1);
    assert_saved(3, 3);
    assert_int_equal(w->saved[2], 0);
    assert_int_equal(ledger_of_sms().final, 3);
}

static void
what_is_reported_while_it_is_dead_does_not_change_the_body(void **state)
{
    (void)state;
    (void)messages(3);
    turn();
    answer_all(500, 10000);
    report(2);
    store();
    assert_int_equal(w->saved[2], 1);
    assert_int_equal(retry(1), RC_OK);
    turn();
    assert_same_request(0, 3);
    answer_all(200, 1000);
    assert_saved(1, 3);
    assert_batches(0);
}

static void
what_is_reported_before_it_is_given_up_is_saved(void **state)
{
    (void)state;
    (void)messages(3);
    turn();
    report(3);
    report(1);
    answer_all(500, 10000);
    assert_saved(1, 1);
    assert_saved(3, 3);
    assert_dead(2, 2, "HTTP 500");
    assert_int_equal(w->line_count, 1);
    assert_line(0, 0, 3, 3, "HTTP 500");
    assert_int_equal(ledger_of_sms().final, 2);
    assert_int_equal(metrics_get(w->metrics, METRIC_DEAD_TOTAL, SERVICE_SMS),
                     1);
    assert_int_equal(retry(2), RC_OK);
    turn();
    assert_same_request(0, w->request_count - 1);
    answer_all(200, 1000);
    assert_saved(1, 3);
}

static void
when_all_were_reported_none_is_dead_and_no_batch_stays(void **state)
{
    (void)state;
    (void)messages(3);
    turn();
    for (int i = 1; i <= 3; i++) {
        report(i);
    }
    answer_all(500, 10000);
    assert_saved(1, 3);
    assert_batches(0);
    assert_int_equal(ledger_of_sms().dead, 0);
}

/* sms_status.c: "no dead letter any more, and none in future". */
static void
what_is_reported_before_it_is_refused_is_saved(void **state)
{
    (void)state;
    (void)messages(3);
    turn();
    report(2);
    answer_all(422, 10000);
    assert_dead(1, 1, "HTTP 422");
    assert_dead(3, 3, "HTTP 422");
    assert_saved(2, 2);
}

/* ---- refused as a whole -----------------------------------------------------
 */

/* Every pending message is in a batch that is on disk. */
static void
assert_all_in_batches(int64_t pending)
{
    assert_int_equal(fixture_ask(w->f,
                                 "SELECT count(*) FROM queue_sms q"
                                 " JOIN batch_member m ON m.message = q.id"
                                 " JOIN batch b ON b.id = m.batch"
                                 " WHERE q.outcome IS NULL"),
                     pending);
}

static void
a_refused_batch_is_split_until_the_poison_stands_alone(void **state)
{
    static const int refusals[] = {400, 413, 422};

    (void)state;
    w->conf.sms.batch_size = 8;
    configure();
    for (size_t k = 0; k < ARRAY_COUNT(refusals); k++) {
        size_t no = w->request_count;
        int first = messages(8);
        int poison = first + 5;
        char words[16];

        turn();
        for (; no < w->request_count; no++) {
            int in[8];
            size_t count = members_of(&w->requests[no], in);
            bool refuse = false;

            for (size_t i = 0; i < count; i++) {
                refuse = refuse || in[i] == poison;
            }
            answer(no, refuse ? refusals[k] : 200);
            turn();
        }
        (void)snprintf(words, sizeof(words), "HTTP %d", refusals[k]);
        assert_int_equal(w->request_count, 7 * (k + 1));
        assert_dead(poison, poison, words);
        assert_saved(first, poison - 1);
        assert_saved(poison + 1, first + 7);
        assert_batches(0);
        assert_line(7 * k, 7 * k, 8, 1, words);
    }
    assert_request(0, 1, 8);
    assert_request(1, 1, 4);
    assert_request(2, 5, 4);
    assert_request(3, 5, 2);
    assert_request(4, 7, 2);
    assert_request(5, 5, 1);
    assert_request(6, 6, 1);
    assert_int_equal(w->line_count, 21);
}

static void
a_split_is_one_transaction_and_nothing_leaves_before_it(void **state)
{
    struct write *writes[FAKE_WRITES_MAX];

    (void)state;
    w->conf.sms.batch_size = 5;
    configure();
    (void)messages(5);
    turn();
    answer(0, 422);
    tick();
    tick();
    assert_int_equal(w->writer.count, 1); /* the split */
    assert_int_equal(w->request_count, 1);
    assert_batches(1);
    assert_all_in_batches(5);
    assert_int_equal(commit_silently(writes), 1);
    assert_batches(2);
    assert_all_in_batches(5);
    assert_false(batch_on_disk(&w->requests[0].batch,
                               &(struct journal_batch){.size = 0}));
    sms_service.written(w->service, writes[0], w->now);
    turn();
    assert_request(1, 1, 3);
    assert_request(2, 4, 2);
    assert_other_batch(1, 2);
    assert_other_batch(0, 1);
}

static void
a_half_has_its_own_attempts(void **state)
{
    (void)state;
    (void)messages(3);
    turn();
    answer(0, 500);
    turn();
    let_pass(500, 500);
    answer(1, 500);
    turn();
    let_pass(1000, 500);
    answer(2, 422);
    turn();
    answer_all(500, 10000);
    assert_int_equal(w->request_count, 3 + 2 * 3);
    assert_dead(1, 3, "HTTP 500");
    assert_batches(2);
    store();
    assert_line(0, 0, 3, 3, "HTTP 422");
    /* a retry brings back a half, not the whole */
    assert_int_equal(retry(1), RC_OK);
    turn();
    assert_request(w->request_count - 1, 1, 2);
    assert_dead(3, 3, "HTTP 500");
}

static void
one_refused_alone_is_dead_and_in_no_batch(void **state)
{
    (void)state;
    w->conf.sms.batch_size = 1;
    configure();
    (void)messages(1);
    turn();
    answer(0, 400);
    turn();
    assert_dead(1, 1, "HTTP 400");
    assert_batches(0);
    store();
    assert_line(0, 0, 1, 1, "HTTP 400");
    assert_int_equal(retry(1), RC_OK);
    turn();
    assert_int_equal(w->request_count, 2);
    assert_other_batch(0, 1); /* it was refused: another request */
    answer(1, 200);
    turn();
    assert_saved(1, 1);
}

static void
a_batch_refused_after_a_retry_is_split_without_who_has_left(void **state)
{
    (void)state;
    (void)messages(3);
    turn();
    answer_all(500, 10000);
    report(1);
    assert_int_equal(retry(2), RC_OK);
    turn();
    assert_same_request(0, 3);
    answer(3, 422);
    turn();
    assert_request(4, 2, 1);
    assert_request(5, 3, 1);
    answer_all(200, 1000);
    assert_saved(1, 3);
}

/* ---- another process --------------------------------------------------------
 */

static void
a_batch_that_was_under_way_goes_out_again_as_it_was(void **state)
{
    (void)state;
    (void)messages(8);
    turn();
    assert_int_equal(w->request_count, 2);
    die();
    w->conf.sms.batch_size = 100;
    start();
    assert_int_equal(w->request_count, 4); /* and 7, 8 wait */
    assert_same_request(0, 2);
    assert_same_request(1, 3);
    answer_all(200, 4000);
    assert_request(4, 7, 2);
    assert_saved(1, 8);
}

static void
attempts_are_kept_over_restarts(void **state)
{
    (void)state;
    (void)messages(3);
    turn();
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(w->request_count, i + 1);
        assert_same_request(0, i);
        answer(i, 500);
        turn();
        die();
        start();
        pass(4000);
        turn();
    }
    assert_int_equal(w->request_count, 3);
    assert_dead(1, 3, "HTTP 500");
}

/* A step of the whole: feed, tick, the group, the replies. Dies at step die_at,
 * before it. */
struct crash {
    int step;
    int die_at;
};

static void
crash_maybe(struct crash *c)
{
    if (c->step++ == c->die_at) {
        die();
        assert_int_equal(service_start_again(), RC_OK);
    }
}

static void
crash_turn(struct crash *c)
{
    struct write *writes[FAKE_WRITES_MAX];
    size_t count;

    crash_maybe(c);
    (void)feed();
    crash_maybe(c);
    tick();
    crash_maybe(c);
    count = commit_silently(writes);
    if (c->step == c->die_at && count > 0) { /* on disk, without the replies */
        for (size_t i = 0; i < count; i++) {
            w->writer.writes[i] = writes[i];
        }
        w->writer.count = count;
        crash_maybe(c);
        return;
    }
    c->step++;
    for (size_t i = 0; i < count; i++) {
        sms_service.written(w->service, writes[i], w->now);
    }
}

/* Refuses what has message 5 and fails each other batch's first two requests.
 */
static void
crash_answer(void)
{
    for (size_t i = 0; i < w->request_count; i++) {
        struct request *request = &w->requests[i];
        int in[8];
        size_t count = members_of(request, in);
        int seen = 0;
        bool refuse = false;

        if (request->tag == 0 || request->ended) {
            continue;
        }
        for (size_t k = 0; k <= i; k++) {
            seen += memcmp(&w->requests[k].batch, &request->batch,
                           sizeof(struct uuid)) == 0;
        }
        for (size_t k = 0; k < count; k++) {
            refuse = refuse || in[k] == 5;
        }
        answer(i, refuse ? 422 : seen < 3 ? 500 : 200);
    }
}

/* Messages that were in a request together stay so, until it is refused. */
static void
assert_no_message_changed_its_batch_unasked(void)
{
    for (size_t i = 0; i < w->request_count; i++) {
        for (size_t k = 0; k < i; k++) {
            int a[8];
            int b[8];
            size_t a_count = members_of(&w->requests[k], a);
            size_t b_count = members_of(&w->requests[i], b);
            bool refused = false;
            bool common = false;

            for (size_t x = 0; x < a_count; x++) {
                refused = refused || a[x] == 5;
                for (size_t y = 0; y < b_count; y++) {
                    common = common || a[x] == b[y];
                }
            }
            if (common && !refused) {
                assert_same_request(k, i);
            }
        }
    }
}

static void
a_crash_between_any_two_steps_loses_nothing_and_changes_nothing(void **state)
{
    int steps = 1;

    for (int die_at = 0; die_at < steps; die_at++) {
        struct crash c = {.die_at = die_at};

        (void)world_free(state);
        (void)world_new(state);
        w->conf.sms.max_attempts = 5;
        w->conf.sms.batch_size = 4;
        configure();
        (void)messages(10);
        for (int i = 0; i < 60; i++) {
            crash_turn(&c);
            crash_answer();
            pass(250);
        }
        assert_dead(5, 5, "HTTP 422");
        assert_saved(1, 4);
        assert_saved(6, 10);
        assert_batches(0);
        assert_no_message_changed_its_batch_unasked();
        steps = c.step < 120 ? c.step : 120; /* all is done by then */
    }
}

static void
spoil(int message)
{
    char sql[128];

    (void)snprintf(sql, sizeof(sql),
                   "UPDATE queue_sms SET body = X'00' WHERE seq = %" PRId64,
                   located(message).seq);
    fixture_sql(w->f, sql);
}

static void
a_batch_that_is_no_longer_whole_is_made_anew(void **state)
{
    (void)state;
    (void)messages(3);
    turn();
    die();
    spoil(2);
    start();
    let_pass(1000, 50);
    assert_int_equal(w->request_count, 2);
    assert_other_batch(0, 1); /* its body is another one */
    {
        int in[8];

        assert_int_equal(members_of(&w->requests[1], in), 2);
        assert_int_equal(in[0], 1);
        assert_int_equal(in[1], 3);
    }
    answer_all(200, 1000);
    assert_saved(1, 1);
    assert_saved(3, 3);
    assert_int_equal(located(2).place, JOURNAL_DEAD);
    assert_int_equal(
        metrics_get(w->metrics, METRIC_QUARANTINED_TOTAL, SERVICE_SMS), 1);
    assert_batches(0);
}

/* Whichever member it is: the first and the last as well. */
static void
the_place_of_the_one_that_is_missing_is_of_no_matter(void **state)
{
    for (int missing = 1; missing <= 3; missing++) {
        (void)world_free(state);
        (void)world_new(state);
        (void)messages(3);
        turn();
        die();
        spoil(missing);
        start();
        let_pass(1000, 50);
        assert_int_equal(w->request_count, 2);
        answer_all(200, 1000);
        store();
        for (int i = 1; i <= 3; i++) {
            assert_int_equal(w->saved[i], i == missing ? 0 : 1);
        }
        assert_batches(0);
    }
}

static void
with_the_body_of_before_it_goes_out_as_it_was_without_one(void **state)
{
    (void)state;
    (void)messages(3);
    turn();
    answer_all(500, 10000);
    assert_int_equal(retry(1), RC_OK);
    die();
    spoil(3);
    start();
    let_pass(1000, 50);
    assert_same_request(0, w->request_count - 1);
    answer_all(200, 1000);
    assert_saved(1, 2);
    assert_int_equal(w->saved[3], 0);
    assert_batches(0);
}

static void
a_batch_of_which_nothing_can_be_decoded_does_no_harm(void **state)
{
    (void)state;
    (void)messages(3);
    turn();
    die();
    for (int i = 1; i <= 3; i++) {
        spoil(i);
    }
    start();
    (void)messages(3);
    let_pass(1000, 50);
    assert_int_equal(w->request_count, 2);
    assert_request(1, 4, 3);
    answer_all(200, 1000);
    assert_saved(4, 6);
    assert_int_equal(ledger_of_sms().dead, 3);
    assert_batches(0);
}

static void
a_row_that_the_journal_could_not_read_is_buried(void **state)
{
    (void)state;
    (void)messages(3);
    fixture_sql(w->f, "UPDATE queue_sms SET received = 'x' WHERE seq = 1");
    turn();
    assert_int_equal(located(1).place, JOURNAL_DEAD);
    let_pass(MAX_DELAY_MS, 500);
    assert_request(0, 2, 2);
}

/* One that was buried is in no batch any more: to drop it is nothing to those
 * who were sent with it. */
static void
a_drop_of_a_buried_member_leaves_its_batch_alone(void **state)
{
    size_t before;

    (void)state;
    (void)messages(3);
    turn();
    answer_all(500, 10000);
    assert_int_equal(retry(1), RC_OK);
    die();
    spoil(3);
    start();
    let_pass(200, 50);
    before = w->request_count;
    assert_same_request(0, before - 1);
    assert_int_equal(located(3).place, JOURNAL_DEAD);
    drop(3);
    assert_batches(1);
    die(); /* without an answer */
    start();
    let_pass(200, 50);
    assert_int_equal(w->request_count, before + 1);
    assert_same_request(0, before);
    answer_all(200, 1000);
    assert_saved(1, 2);
    assert_batches(0);
}

/* The member that has come must not wait for ever. */
static void
a_batch_that_is_dissolved_while_it_is_gathered_does_not_get_stuck(void **state)
{
    (void)state;
    (void)messages(3);
    turn();
    answer_all(500, 10000);
    die();
    assert_int_equal(retry(1), RC_OK);
    assert_int_equal(service_start_again(), RC_OK);
    assert_true(feed_some(2));
    assert_int_equal(journal_begin(w->f->dispatcher), RC_OK);
    assert_int_equal(
        journal_batch_delete(w->f->dispatcher, &w->requests[0].batch), RC_OK);
    assert_int_equal(journal_commit(w->f->dispatcher), RC_OK);
    turn();
    let_pass(10000, 50);
    answer_all(200, 3000);
    assert_saved(1, 3);
    assert_true(sms_service.has_room(w->service));
}

/* A member that was buried comes back while its batch is under way. */
static void
a_member_that_comes_back_later_than_its_batch_is_not_lost(void **state)
{
    int64_t seq;
    char sql[128];

    (void)state;
    (void)messages(3);
    turn();
    answer_all(500, 10000);
    assert_int_equal(retry(1), RC_OK);
    die();
    spoil(3);
    start(); /* 3 is buried */
    let_pass(200, 50);
    assert_same_request(0, w->request_count - 1);
    (void)snprintf(sql, sizeof(sql),
                   "UPDATE dead SET body = CAST('+4917612345 text \"3\"'"
                   " AS BLOB)");
    fixture_sql(w->f, sql);
    assert_int_equal(retry(3), RC_OK);
    seq = located(3).seq;
    turn();
    assert_true(w->feed.cursor >= seq);
    let_pass(500, 50);
    answer_all(200, 10000);
    assert_saved(1, 3);
    assert_batches(0);
}

/* ---- trouble ----------------------------------------------------------------
 */

static void
a_full_writer_loses_nothing(void **state)
{
    (void)state;
    (void)messages(3);
    w->writer.full = 3;
    turn();
    assert_false(sms_service.idle(w->service));
    assert_in_range(w->wait_ms, 1, 10);
    let_pass(100, 10);
    assert_int_equal(w->request_count, 1);
    w->writer.full = 3;
    answer(0, 500);
    let_pass(2000, 10);
    assert_int_equal(w->request_count, 2);
    w->writer.full = 3;
    answer(1, 422);
    let_pass(100, 10);
    assert_int_equal(w->request_count, 4);
    answer(2, 200);
    answer(3, 422);
    w->writer.full = 3;
    let_pass(100, 10);
    assert_saved(1, 2);
    assert_dead(3, 3, "HTTP 422");
    assert_true(sms_service.idle(w->service));
}

static void
a_full_writer_does_not_raise_what_is_in_flight(void **state)
{
    (void)state;
    (void)messages(30);
    w->writer.full = 100;
    (void)feed();
    for (int i = 0; i < 5; i++) {
        tick();
    }
    w->writer.full = 0;
    turn();
    assert_batches(4); /* none is made to wait */
    assert_int_equal(w->request_count, 4);
    for (int i = 0; i < 4; i++) {
        assert_request((size_t)i, 1 + 3 * i, 3);
    }
}

static void
without_memory_everything_waits(void **state)
{
    (void)state;
    (void)messages(3);
    for (unsigned fails = 1; fails <= 2; fails++) {
        (void)feed();
        w->callocs_to_fail = fails;
        tick();
        assert_in_range(w->wait_ms, 1, 10);
        w->callocs_to_fail = 0;
    }
    turn();
    assert_request(0, 1, 3);
    w->callocs_to_fail = 3; /* of the halves */
    answer(0, 422);
    turn();
    assert_in_range(w->wait_ms, 1, 10);
    w->callocs_to_fail = 0;
    answer_all(422, 3000);
    assert_dead(1, 3, "HTTP 422");
    assert_batches(0);
}

static void
without_memory_a_batch_of_before_waits(void **state)
{
    (void)state;
    (void)messages(3);
    turn();
    for (unsigned fails = 1; fails <= 2; fails++) {
        size_t before = w->request_count;

        die();
        assert_int_equal(service_start_again(), RC_OK);
        w->callocs_to_fail = fails;
        assert_true(feed_some(1));
        w->callocs_to_fail = 0;
        assert_false(sms_service.has_room(w->service));
        tick();
        assert_true(sms_service.has_room(w->service));
        turn();
        assert_int_equal(w->request_count, before + 1);
        assert_same_request(0, before);
    }
    /* the remake of one that is not whole */
    die();
    spoil(1);
    start();
    w->callocs_to_fail = 2;
    let_pass(100, 100);
    w->callocs_to_fail = 0;
    let_pass(1000, 50);
    answer_all(200, 1000);
    assert_saved(2, 3);
}

static void
without_memory_there_is_no_start(void **state)
{
    (void)state;
    die();
    for (unsigned fails = 1; fails <= 2; fails++) {
        w->callocs_to_fail = fails == 1 ? 1 : 0;
        if (fails == 2) {
            break;
        }
        assert_int_equal(service_start_again(), RC_NOMEM);
        assert_null(w->service);
    }
}

static void
a_write_that_the_journal_refuses_is_left_to_the_next_start(void **state)
{
    (void)state;
    (void)messages(3);
    (void)feed();
    for (int i = 0; i < 2; i++) { /* the making; then the end */
        struct write *write;

        tick();
        assert_int_equal(w->writer.count, 1);
        write = w->writer.writes[0];
        w->writer.count = 0;
        write->rc = RC_BUG;
        sms_service.written(w->service, write, w->now);
        assert_true(sms_service.idle(w->service));
        assert_true(sms_service.has_room(w->service));
        tick();
        assert_int_equal(
            metrics_get(w->metrics, METRIC_ACTIVE_REQUESTS, SERVICE_SMS), 0);
        die();
        start();
        if (i == 0) {
            let_pass(50, 50); /* a backlog */
            assert_int_equal(w->request_count, 1);
            answer(0, 422);
        }
    }
    assert_same_request(0, 1);
    answer_all(200, 1000);
    assert_saved(1, 3);
    assert_int_equal(
        metrics_get(w->metrics, METRIC_ACTIVE_REQUESTS, SERVICE_SMS), 0);
}

static void
groups_that_the_writer_repeats_leave_one_of_each(void **state)
{
    (void)state;
    w->writer.groups_to_undo = 2;
    (void)messages(3);
    turn();
    report(3);
    answer_all(500, 5000);
    assert_dead(1, 2, "HTTP 500");
    assert_saved(3, 3);
    assert_int_equal(metrics_get(w->metrics, METRIC_DEAD_TOTAL, SERVICE_SMS),
                     2);
    assert_int_equal(retry(1), RC_OK);
    turn();
    answer(w->request_count - 1, 422);
    turn();
    answer(w->request_count - 2, 200);
    answer(w->request_count - 1, 400);
    turn();
    assert_saved(1, 1);
    assert_dead(2, 2, "HTTP 400");
    assert_int_equal(w->line_count, 4);
    assert_batches(0);
}

/* apply tells of a failure, so that the writer repeats the group. */
static void
nothing_goes_on_while_the_journal_fails(void **state)
{
    static const int answers[] = {0, 500, 500, 422, 200};

    (void)state;
    (void)messages(3);
    (void)feed();
    for (size_t i = 0; i < ARRAY_COUNT(answers); i++) {
        if (i > 0) {
            answer(w->request_count - 1, answers[i]);
        }
        tick(); /* outside of a group every change fails */
        assert_int_equal(w->writer.count, 1);
        assert_int_equal(
            w->writer.writes[0]->apply(w->f->edge, w->writer.writes[0]), RC_IO);
        turn();
        let_pass(2000, 500);
    }
    answer_all(200, 1000);
    assert_saved(1, 3);
}

/* ---- paused, idle, bounds, report -------------------------------------------
 */

static void
paused_sends_nothing_but_what_is_under_way_ends(void **state)
{
    (void)state;
    (void)messages(3);
    turn();
    w->paused = true;
    (void)messages(3);
    turn();
    assert_int_equal(w->request_count, 1);
    assert_false(sms_service.idle(w->service));
    answer(0, 500);
    turn();
    assert_true(sms_service.idle(w->service));
    let_pass(10000, 500);
    assert_int_equal(w->request_count, 1);
    assert_int_equal(w->wait_ms, 60000);
    w->paused = false;
    turn();
    assert_same_request(0, 1);
    assert_request(2, 4, 3);
    w->paused = true;
    answer(1, 200);
    answer(2, 422);
    turn();
    assert_saved(1, 3);
    assert_int_equal(w->request_count, 3); /* the halves wait */
    assert_batches(2);
    w->paused = false;
    turn();
    assert_int_equal(w->request_count, 5);
}

static void
idle_means_that_nothing_is_on_its_way(void **state)
{
    (void)state;
    assert_true(sms_service.idle(w->service));
    (void)messages(3);
    (void)feed();
    assert_true(sms_service.idle(w->service)); /* in the journal, no more */
    tick();
    assert_false(sms_service.idle(w->service)); /* with the writer */
    assert_true(commit());
    tick();
    assert_false(sms_service.idle(w->service)); /* on the line */
    answer(0, 200);
    tick();
    assert_false(sms_service.idle(w->service)); /* with the writer */
    assert_true(commit());
    assert_true(sms_service.idle(w->service));
    assert_int_equal(sms_service.fd(w->service), 123);
}

/* Handed over past the journal. */
static void
hand_over(int64_t seq, const char *body, size_t bytes)
{
    const struct uuid id = {.bytes = {1, (uint8_t)seq, (uint8_t)(seq >> 8)}};
    struct work *work =
        work_new(SERVICE_SMS, seq, w->now.unix_ms, &id, body, bytes);

    assert_non_null(work);
    assert_true(sms_service.has_room(w->service));
    sms_service.accept(w->service, work, w->now);
}

static void
there_is_room_for_4096_messages_in_whole_batches(void **state)
{
    static const char body[] = "+4917612345 text";

    (void)state;
    for (int64_t seq = 1; seq <= 4098; seq++) { /* 1366 batches of three */
        hand_over(seq, body, strlen(body));
    }
    assert_false(sms_service.has_room(w->service));
    w->paused = true;
    tick();
    assert_false(sms_service.has_room(w->service));
    assert_int_equal(
        metrics_get(w->metrics, METRIC_ACTIVE_REQUESTS, SERVICE_SMS), 4098);
}

static void
there_is_room_for_all_batches_in_flight_and_two_more(void **state)
{
    static const char body[] = "+4917612345 text";

    (void)state;
    w->conf.sms.batch_size = 1000;
    w->conf.sms.max_in_flight = 5;
    configure();
    for (int64_t seq = 1; seq <= 7000; seq++) {
        hand_over(seq, body, strlen(body));
    }
    assert_false(sms_service.has_room(w->service));
}

static void
there_is_room_for_32_mib_and_the_message_that_passes_them(void **state)
{
    static char body[4096 + 12];
    const int64_t count = 32 * 1024 * 1024 / (int64_t)sizeof(body);

    (void)state;
    (void)snprintf(body, sizeof(body), "+4917612345 ");
    for (size_t i = 12; i < sizeof(body); i += 4) { /* 1024 characters */
        memcpy(body + i, "\xf0\x9f\x98\x80", 4);
    }
    w->conf.sms.batch_size = 1000;
    w->conf.sms.max_in_flight = 100;
    configure();
    for (int64_t seq = 1; seq <= count + 1; seq++) {
        hand_over(seq, body, sizeof(body));
    }
    assert_false(sms_service.has_room(w->service));
}

static void
room_comes_back_when_messages_leave(void **state)
{
    (void)state;
    (void)messages(7);
    turn();
    assert_int_equal(
        metrics_get(w->metrics, METRIC_ACTIVE_REQUESTS, SERVICE_SMS), 7);
    answer(0, 200);
    answer(1, 422);
    turn();
    tick();
    assert_int_equal(
        metrics_get(w->metrics, METRIC_ACTIVE_REQUESTS, SERVICE_SMS), 4);
    answer_all(500, 10000);
    tick();
    assert_int_equal(
        metrics_get(w->metrics, METRIC_ACTIVE_REQUESTS, SERVICE_SMS), 0);
}

static void
assert_member(const struct json *json, const char *name, int64_t value)
{
    int64_t got = -1;

    assert_int_equal(json_uint53(json, json_member(json, 0, name), &got),
                     RC_OK);
    assert_int_equal(got, value);
}

static void
the_report_is_members_of_an_object(void **state)
{
    struct text text = {0};
    struct json_token tokens[32];
    struct json json;

    (void)state;
    (void)messages(14);
    turn();
    answer(1, 500);
    turn();
    text_putc(&text, '{');
    sms_service.report(w->service, &text);
    text_putc(&text, '}');
    assert_int_equal(json_scan(text_cstr(&text), text.bytes, tokens, 32, &json),
                     RC_OK);
    assert_member(&json, "in_flight", 3);
    assert_member(&json, "waiting", 2);
    assert_member(&json, "ready", 0);
    assert_member(&json, "retrying", 1);
    assert_member(&json, "gathering", 0);
    text_free(&text);
}

static void
free_of_nothing_is_nothing(void **state)
{
    void *nothing = NULL;

    (void)state;
    sms_service.free(&nothing);
    assert_null(nothing);
}

/* ---- the whole --------------------------------------------------------------
 */

#define POISON 29 /* every so many-th message is refused */

static uint32_t random_state;
static bool spoiled[MESSAGES];

/* What a run is allowed to do. */
static struct {
    bool drops;
    bool spoils;
} allowed;

static unsigned
draw(unsigned below)
{
    random_state = random_state * 1664525U + 1013904223U;
    return (random_state >> 8) % below;
}

static bool
has_poison(const struct request *request)
{
    int in[JOURNAL_BATCH_MAX];
    size_t count = members_of(request, in);
    bool any = false;

    for (size_t i = 0; i < count; i++) {
        any = any || in[i] % POISON == 0;
    }
    return any;
}

static bool
waits_for_answer(const struct request *request)
{
    return request->tag != 0 && !request->ended;
}

/* The provider is of no certain mind; poisonous messages it never takes. */
static void
answer_somehow(void)
{
    static const int statuses[] = {200, 202, 200, 200, 500, 503, 429, 0};
    static const int refusals[] = {422, 400, 413, 500};

    for (size_t i = 0; i < w->request_count; i++) {
        int status = statuses[draw(ARRAY_COUNT(statuses))];

        if (!waits_for_answer(&w->requests[i]) || draw(2) == 0) {
            continue;
        }
        if (has_poison(&w->requests[i])) {
            status = refusals[draw(ARRAY_COUNT(refusals))];
        }
        end(i, status == 0 ? POST_SENT : POST_ANSWERED, status,
            "no answer came");
    }
}

static void
random_trouble(int message)
{
    struct write *writes[FAKE_WRITES_MAX];
    struct journal_entry entry;
    enum rc rc =
        journal_locate(w->f->dispatcher, SERVICE_SMS, &w->ids[message], &entry);

    switch (draw(6)) {
    case 0:
        if (allowed.drops && draw(5) == 0 && rc == RC_OK &&
            entry.place == JOURNAL_DEAD) {
            drop(message);
            w->saved[message] = -1; /* gone for good */
        }
        break;
    case 1:
        if (allowed.spoils && draw(3) == 0 && rc == RC_OK &&
            entry.place == JOURNAL_PENDING) {
            spoil(message);
            spoiled[message] = true;
        }
        break;
    case 2: /* committed, and nobody was told */
        w->writer.count = commit_silently(writes);
        memcpy(w->writer.writes, writes, w->writer.count * sizeof(writes[0]));
        die();
        assert_int_equal(service_start_again(), RC_OK);
        break;
    case 3:
        die();
        assert_int_equal(service_start_again(), RC_OK);
        break;
    case 4:
        w->writer.full = draw(4);
        break;
    default:
        w->callocs_to_fail = draw(3);
        tick();
        w->callocs_to_fail = 0;
        break;
    }
}

static void
random_order(void)
{
    switch (draw(4)) {
    case 0:
        w->paused = draw(3) == 0;
        break;
    case 1:
        sms_service.drain(w->service, draw(3) == 0);
        break;
    default:
        w->conf.sms.batch_size = 1 + draw(9);
        w->conf.sms.max_in_flight = 1 + draw(5);
        w->conf.sms.max_attempts = 1 + draw(5);
        configure();
        break;
    }
}

static void
random_step(void)
{
    int message = 1 + (int)draw((unsigned)w->numbers);

    switch (draw(16)) {
    case 0:
    case 1:
        (void)messages((int)draw(5));
        break;
    case 2:
    case 3:
    case 4:
        answer_somehow();
        break;
    case 5:
        pass(draw(3000));
        break;
    case 6:
        (void)!retry(message);
        break;
    case 7:
        if (!spoiled[message] && draw(3) == 0) {
            report(message);
        }
        break;
    case 8:
        random_trouble(message);
        break;
    case 9:
        store();
        break;
    case 10:
        if (draw(4) == 0) {
            random_order();
        }
        break;
    default:
        (void)feed_some(1 + draw(10));
        tick();
        if (draw(3) > 0) {
            (void)commit();
        }
        break;
    }
}

/* The end: the provider is well, and all that is dead is retried. */
static void
bring_to_an_end(void)
{
    w->writer.full = 0;
    w->paused = false;
    for (int round = 0; round < 3; round++) {
        for (int i = 1; i <= w->numbers; i++) {
            (void)!retry(i);
        }
        for (int n = 0; n < 100; n++) {
            for (size_t i = 0; i < w->request_count; i++) {
                if (waits_for_answer(&w->requests[i])) {
                    answer(i, has_poison(&w->requests[i]) ? 422 : 200);
                }
            }
            turn();
            pass(500);
        }
    }
    store();
}

/* A message changes its batch only after that was refused. */
static void
assert_batches_changed_for_a_reason(void)
{
    static size_t last[MESSAGES]; /* request, from 1, that it was in */

    memset(last, 0, sizeof(last));
    for (size_t i = 0; i < w->request_count; i++) {
        int in[JOURNAL_BATCH_MAX];
        size_t count = members_of(&w->requests[i], in);

        for (size_t k = 0; k < count; k++) {
            size_t before = last[in[k]];

            if (before > 0 &&
                memcmp(&w->requests[before - 1].batch, &w->requests[i].batch,
                       sizeof(struct uuid)) != 0) {
                assert_true(w->requests[before - 1].refused);
            }
            last[in[k]] = i + 1;
        }
    }
}

/* Each message was saved once, or is dead, as it should be. */
static void
assert_all_accounted_for(void)
{
    struct journal_ledger ledger = ledger_of_sms();
    int64_t dead = 0;

    for (int i = 1; i <= w->numbers; i++) {
        bool may_be_dead = i % POISON == 0 || spoiled[i];

        if (w->saved[i] == 0) {
            assert_true(may_be_dead);
            assert_int_equal(located(i).place, JOURNAL_DEAD);
            dead++;
        } else {
            assert_true(w->saved[i] == 1 || w->saved[i] == -1);
        }
    }
    assert_int_equal(ledger.accepted, w->numbers);
    assert_int_equal(ledger.dead, dead);
    assert_int_equal(ledger.pending, 0);
    assert_int_equal(ledger.final, w->numbers - dead);
    assert_int_equal(fixture_ask(w->f, "SELECT count(*) FROM progress"), 0);
    assert_batches(0);
    assert_int_equal(fixture_ask(w->f, "SELECT count(*) FROM batch_member"), 0);
}

static void
nothing_is_lost_or_counted_twice(void **state)
{
    const char *seeds = getenv("SMS_SEEDS");
    uint32_t last = seeds != NULL ? (uint32_t)strtoul(seeds, NULL, 10) : 6;

    for (uint32_t seed = 1; seed <= last; seed++) {
        (void)world_free(state);
        (void)world_new(state);
        memset(spoiled, 0, sizeof(spoiled));
        random_state = seed * 7919;
        allowed.drops = seed % 3 == 1;
        allowed.spoils = seed % 3 == 2;
        (void)messages(5);
        for (int i = 0; i < 700; i++) {
            random_step();
            if (i % 20 == 0) {
                (void)ledger_of_sms();
            }
        }
        bring_to_an_end();
        assert_all_accounted_for();
        if (!allowed.drops && !allowed.spoils) {
            assert_batches_changed_for_a_reason();
        }
        assert_int_equal(
            metrics_get(w->metrics, METRIC_ACTIVE_REQUESTS, SERVICE_SMS), 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_new, world_free)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_full_batch_leaves_at_once),
        TEST(fewer_wait_until_the_oldest_has_waited_max_delay),
        TEST(what_it_waited_in_the_inbox_counts),
        TEST(a_backlog_is_gathered_for_50_ms),
        TEST(a_drain_holds_nothing_back),
        TEST(with_batch_size_1_each_goes_alone_at_once),
        TEST(several_are_in_flight_and_no_more_than_configured),
        TEST(a_smaller_max_in_flight_is_reached_by_and_by),
        TEST(while_all_are_under_way_the_rest_is_collected),
        TEST(other_keys_may_change_while_running),
        TEST(any_2xx_ends_it),
        TEST(a_status_counts_though_its_answer_is_cut_off),
        TEST(a_failure_is_repeated_unchanged_until_max_attempts),
        TEST(anything_else_is_a_failed_attempt),
        TEST(one_that_rests_leaves_its_place_to_others),
        TEST(a_post_that_cannot_start_is_tried_again_without_losing_an_attempt),
        TEST(a_url_that_cannot_be_used_costs_an_attempt_each),
        TEST(a_retry_of_one_sends_the_whole_batch_again_as_it_was),
        TEST(a_retry_after_a_restart_sends_it_as_it_was),
        TEST(after_a_drop_the_others_are_collected_anew),
        TEST(what_is_reported_while_it_is_dead_does_not_change_the_body),
        TEST(what_is_reported_before_it_is_given_up_is_saved),
        TEST(when_all_were_reported_none_is_dead_and_no_batch_stays),
        TEST(what_is_reported_before_it_is_refused_is_saved),
        TEST(a_refused_batch_is_split_until_the_poison_stands_alone),
        TEST(a_split_is_one_transaction_and_nothing_leaves_before_it),
        TEST(a_half_has_its_own_attempts),
        TEST(one_refused_alone_is_dead_and_in_no_batch),
        TEST(a_batch_refused_after_a_retry_is_split_without_who_has_left),
        TEST(a_batch_that_was_under_way_goes_out_again_as_it_was),
        TEST(attempts_are_kept_over_restarts),
        TEST(a_crash_between_any_two_steps_loses_nothing_and_changes_nothing),
        TEST(a_batch_that_is_no_longer_whole_is_made_anew),
        TEST(the_place_of_the_one_that_is_missing_is_of_no_matter),
        TEST(with_the_body_of_before_it_goes_out_as_it_was_without_one),
        TEST(a_batch_of_which_nothing_can_be_decoded_does_no_harm),
        TEST(a_row_that_the_journal_could_not_read_is_buried),
        TEST(a_drop_of_a_buried_member_leaves_its_batch_alone),
        TEST(a_batch_that_is_dissolved_while_it_is_gathered_does_not_get_stuck),
        TEST(a_member_that_comes_back_later_than_its_batch_is_not_lost),
        TEST(a_full_writer_loses_nothing),
        TEST(a_full_writer_does_not_raise_what_is_in_flight),
        TEST(without_memory_everything_waits),
        TEST(without_memory_a_batch_of_before_waits),
        TEST(without_memory_there_is_no_start),
        TEST(a_write_that_the_journal_refuses_is_left_to_the_next_start),
        TEST(groups_that_the_writer_repeats_leave_one_of_each),
        TEST(nothing_goes_on_while_the_journal_fails),
        TEST(paused_sends_nothing_but_what_is_under_way_ends),
        TEST(idle_means_that_nothing_is_on_its_way),
        TEST(there_is_room_for_4096_messages_in_whole_batches),
        TEST(there_is_room_for_all_batches_in_flight_and_two_more),
        TEST(there_is_room_for_32_mib_and_the_message_that_passes_them),
        TEST(room_comes_back_when_messages_leave),
        TEST(the_report_is_members_of_an_object),
        TEST(free_of_nothing_is_nothing),
        TEST(nothing_is_lost_or_counted_twice),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
