/* The service of the provider's status updates with a writer that a test
 * commits by hand and a real journal, in which messages stand in every place
 * that there is. */
#include "tests/dispatcher/feed_fixture.h"
#include "tests/dispatcher/writer_fixture.h"
#include "tests/shared/journal_fixture.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/metrics.h"
#include "dispatcher/service.h"
#include "shared/journal_batch.h"
#include "shared/json.h"
#include "shared/log.h"
#include "shared/sms_batch.h"
#include "shared/sms_update.h"

#define MESSAGES 64
#define WRITES 64
#define IN_HAND_MAX 8

struct world {
    struct fixture *f;
    struct journal *reader;
    void *service;
    struct metrics *metrics;
    struct conf conf;
    struct now now;
    int64_t wait_ms;
    bool paused;
    struct fake_feed feed;
    struct uuid ids[MESSAGES]; /* of messages, by number from 1 */
    int numbers;
    struct uuid update_ids[WRITES]; /* of requests, by seq */
    struct fake_writer writer;
    unsigned wakes;
    unsigned allocations_to_fail;
    unsigned looks_to_fail;
};

static struct world *w;

/* ---- fakes ------------------------------------------------------------------
 */

enum rc __wrap_writer_submit(struct writer *writer, struct write *write);
enum rc __real_journal_locate(struct journal *j, enum service service,
                              const struct uuid *id, struct journal_entry *out);
enum rc __wrap_journal_locate(struct journal *j, enum service service,
                              const struct uuid *id, struct journal_entry *out);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__wrap_realloc(void *memory, size_t size);

/* The last one fails: allocations_to_fail counts down to it. */
static bool
allocation_fails(void)
{
    return w != NULL && w->allocations_to_fail > 0 &&
           --w->allocations_to_fail == 0;
}

void *
__wrap_calloc(size_t count, size_t size)
{
    return allocation_fails() ? NULL : __real_calloc(count, size);
}

void *
__wrap_realloc(void *memory, size_t size)
{
    return allocation_fails() ? NULL : __real_realloc(memory, size);
}

enum rc
__wrap_journal_locate(struct journal *j, enum service service,
                      const struct uuid *id, struct journal_entry *out)
{
    if (j == w->reader && w->looks_to_fail > 0) {
        w->looks_to_fail--;
        return RC_IO;
    }
    return __real_journal_locate(j, service, id, out);
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
        .replies = w->writer.reply_to,
        .outcome_added = wake,
        .store = (struct store_pg *)w,
    };

    w->feed =
        (struct fake_feed){.ops = &sms_status_service, .journal = w->reader};
    return sms_status_service.new(&w->service, &context);
}

static int
world_new(void **state)
{
    (void)state;
    w = calloc(1, sizeof(*w));
    assert_non_null(w);
    w->writer.max = WRITES;
    w->writer.reply_to = (struct queue *)&w->writer;
    assert_int_equal(fixture_setup((void **)&w->f), 0);
    w->reader = fixture_journal(w->f, JOURNAL_READER);
    w->now = (struct now){.ms = 1000, .unix_ms = FIXTURE_NOW};
    assert_int_equal(metrics_new(&w->metrics), RC_OK);
    assert_int_equal(service_start_again(), RC_OK);
    return 0;
}

static void
written(struct write *write, enum rc rc)
{
    write->rc = rc;
    sms_status_service.written(w->service, write, w->now);
}

/* The process dies: what the writer had is lost. */
static void
die(void)
{
    for (size_t i = 0; i < w->writer.count; i++) { /* only to free it */
        written(w->writer.writes[i], RC_BUG);
    }
    w->writer.count = 0;
    sms_status_service.free(&w->service);
    assert_null(w->service);
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

static struct journal_ledger
ledger_of(enum service service)
{
    struct journal_ledger ledger[SERVICE_COUNT];

    assert_int_equal(journal_ledger(w->f->dispatcher, ledger), RC_OK);
    for (unsigned s = 0; s < SERVICE_COUNT; s++) {
        assert_true(ledger[s].balanced);
    }
    return ledger[service];
}

static void
tick(void)
{
    w->wait_ms = sms_status_service.tick(w->service, w->now, w->paused);
    assert_true(w->wait_ms >= 0);
}

static bool
commit(void)
{
    struct write *writes[FAKE_WRITES_MAX];
    size_t count = fake_writer_commit(&w->writer, w->f->dispatcher, writes);

    for (size_t i = 0; i < count; i++) {
        written(writes[i], RC_OK);
    }
    return count > 0;
}

static bool
feed(void)
{
    return fake_feed(&w->feed, w->service, WRITES, w->now);
}

static void
turn(void)
{
    for (int i = 0; i < 100; i++) {
        bool any = feed();

        tick();
        if (!commit() && !any) {
            return;
        }
    }
    fail();
}

/* ---- messages and updates ---------------------------------------------------
 */

static int
messages(int count)
{
    int first = w->numbers + 1;

    for (int i = 0; i < count; i++) {
        struct journal_request r;
        char body[64];

        (void)snprintf(body, sizeof(body), "+4917612345 text %d", ++w->numbers);
        r = fixture_request(w->f, body);
        r.service = SERVICE_SMS;
        assert_int_equal(
            journal_accept(w->f->edge, &r, 1, FIXTURE_NOW + FIXTURE_DAY),
            RC_OK);
        assert_true(w->numbers < MESSAGES);
        w->ids[w->numbers] = r.id;
    }
    return first;
}

/* An id that nobody was given. */
static int
stranger(void)
{
    struct journal_request r = fixture_request(w->f, "");

    w->ids[++w->numbers] = r.id;
    return w->numbers;
}

static struct journal_entry
located(int message)
{
    struct journal_entry entry;
    enum rc rc = __real_journal_locate(w->f->dispatcher, SERVICE_SMS,
                                       &w->ids[message], &entry);

    assert_int_equal(rc, RC_OK);
    return entry;
}

static void
bury(int message)
{
    struct journal *j = w->f->dispatcher;

    assert_int_equal(journal_begin(j), RC_OK);
    assert_int_equal(journal_bury(j, SERVICE_SMS, located(message).seq,
                                  "HTTP 500", NULL, 0, NULL, 0, FIXTURE_NOW),
                     RC_OK);
    assert_int_equal(journal_commit(j), RC_OK);
}

static void
finish(int message)
{
    struct journal *j = w->f->dispatcher;
    int64_t no = 0;

    assert_int_equal(journal_begin(j), RC_OK);
    assert_int_equal(journal_outcome_add(j, SERVICE_SMS, "x", 1, &no), RC_OK);
    assert_int_equal(journal_finish(j, SERVICE_SMS, located(message).seq, no),
                     RC_OK);
    assert_int_equal(journal_commit(j), RC_OK);
}

static int
progress_of(int message)
{
    struct journal_progress progress;

    assert_int_equal(journal_progress_get(w->f->dispatcher, SERVICE_SMS,
                                          located(message).seq, &progress),
                     RC_OK);
    return progress.state;
}

/* Add an update to a body. */
static void
add(struct text *body, int message, enum sms_state state)
{
    const struct sms_update update = {
        .mapped = true, .id = w->ids[message], .state = state};

    if (body->bytes == 0) {
        sms_update_begin(body);
    }
    sms_update_put(&update, body);
}

/* Commit a request with this body; frees it. Its seq. */
static int64_t
request(struct text *body)
{
    struct journal_request r = fixture_request(w->f, "");

    assert_false(text_failed(body));
    r.service = SERVICE_SMS_STATUS;
    r.body = text_cstr(body);
    r.body_bytes = body->bytes;
    assert_int_equal(
        journal_accept(w->f->edge, &r, 1, FIXTURE_NOW + FIXTURE_DAY), RC_OK);
    assert_int_equal(r.verdict, JOURNAL_ACCEPTED);
    assert_true(r.seq < WRITES);
    w->update_ids[r.seq] = r.id;
    text_free(body);
    return r.seq;
}

/* One update a request. */
static int64_t
report(int message)
{
    struct text body = {0};

    add(&body, message, SMS_CONFIRMED);
    return request(&body);
}

/* An outcome of the status service at work. */
struct outcome {
    struct journal_page page;
    struct sms_update_head head;
    struct sms_update_cursor cursor;
};

/* The no-th (from 0) outcome that waits. */
static void
outcome_open(struct outcome *o, size_t no)
{
    size_t head_bytes = 0;

    *o = (struct outcome){.page = {0}};
    assert_int_equal(journal_outcome_page(w->f->dispatcher, SERVICE_SMS_STATUS,
                                          0, WRITES, 1 << 24, &o->page),
                     RC_OK);
    assert_true(no < o->page.count);
    assert_int_equal(sms_update_head_get(o->page.rows[no].body,
                                         o->page.rows[no].body_bytes, &o->head,
                                         &head_bytes),
                     RC_OK);
    o->cursor = (struct sms_update_cursor){
        .body = o->page.rows[no].body + head_bytes,
        .bytes = o->page.rows[no].body_bytes - head_bytes};
}

static void
outcome_expect(struct outcome *o, int message, enum sms_state state, bool known)
{
    struct sms_update update;

    assert_int_equal(sms_update_next(&o->cursor, &update), RC_OK);
    assert_true(update.mapped);
    assert_memory_equal(&update.id, &w->ids[message], UUID_BYTES);
    assert_int_equal(update.state, state);
    assert_int_equal(update.known, known);
}

static void
outcome_close(struct outcome *o)
{
    struct sms_update update;

    assert_int_equal(sms_update_next(&o->cursor, &update), RC_AGAIN);
    journal_page_free(&o->page);
}

/* The messages that the outcomes of the SMS service save, which have no batch's
 * line, are these; they retire. */
static void
assert_saved(const int *saved, size_t count)
{
    struct journal_page page = {0};
    size_t n = 0;

    assert_int_equal(journal_outcome_page(w->f->dispatcher, SERVICE_SMS, 0,
                                          MESSAGES, 1 << 24, &page),
                     RC_OK);
    for (size_t i = 0; i < page.count; i++) {
        struct sms_batch batch;
        struct sms_batch_cursor cursor;
        struct sms_sent sent;
        bool has = true;
        char body[64];

        if (page.rows[i].body_bytes == 1) {
            continue; /* of finish() */
        }
        assert_int_equal(sms_batch_open(page.rows[i].body,
                                        page.rows[i].body_bytes, &batch, &has,
                                        &cursor),
                         RC_OK);
        assert_false(has);
        assert_int_equal(sms_batch_next(&cursor, &sent), RC_OK);
        assert_true(n < count);
        assert_memory_equal(&sent.id, &w->ids[saved[n]], UUID_BYTES);
        (void)snprintf(body, sizeof(body), "+4917612345 text %d", saved[n]);
        assert_int_equal(sent.body_bytes, strlen(body));
        assert_memory_equal(sent.body, body, strlen(body));
        assert_int_equal(sent.seq, located(saved[n]).seq);
        assert_int_equal(located(saved[n]).place, JOURNAL_PERSISTING);
        assert_int_equal(sms_batch_next(&cursor, &sent), RC_AGAIN);
        n++;
    }
    assert_int_equal(n, count);
    journal_page_free(&page);
}

/* ---- what becomes of updates ------------------------------------------------
 */

static void
updates_become_an_outcome_that_says_what_the_journal_knows(void **state)
{
    const struct sms_update odd = {
        .mapped = false, .name = "not-an-id", .word = "WHATEVER"};
    struct text body = {0};
    struct sms_update update;
    struct outcome o;
    int64_t seq;

    (void)state;
    (void)messages(2);
    (void)stranger();
    add(&body, 1, SMS_CONFIRMED);
    add(&body, 3, SMS_DELIVERED);
    sms_update_put(&odd, &body);
    add(&body, 2, SMS_FAILED);
    seq = request(&body);
    turn();
    assert_int_equal(ledger_of(SERVICE_SMS_STATUS).outcomes, 1);
    assert_int_equal(ledger_of(SERVICE_SMS_STATUS).pending, 1);
    outcome_open(&o, 0);
    assert_int_equal(o.head.seq, seq);
    assert_int_equal(o.head.received_unix_ms, FIXTURE_NOW);
    assert_memory_equal(&o.head.id, &w->update_ids[seq], UUID_BYTES);
    outcome_expect(&o, 1, SMS_CONFIRMED, true);
    outcome_expect(&o, 3, SMS_DELIVERED, false);
    assert_int_equal(sms_update_next(&o.cursor, &update), RC_OK);
    assert_false(update.mapped);
    assert_string_equal(update.name, "not-an-id");
    assert_string_equal(update.word, "WHATEVER");
    outcome_expect(&o, 2, SMS_FAILED, true);
    outcome_close(&o);
    assert_int_equal(w->wakes, 1);
    assert_true(sms_status_service.idle(w->service));
    assert_int_equal(w->wait_ms, 60000);
}

static void
a_pending_message_is_noted_as_reported(void **state)
{
    (void)state;
    (void)messages(2);
    (void)report(1);
    turn();
    assert_int_equal(progress_of(1), JOURNAL_SMS_REPORTED);
    assert_int_equal(progress_of(2), JOURNAL_STATE_WAITING);
    assert_int_equal(located(1).place, JOURNAL_PENDING);
    assert_saved(NULL, 0);
}

static void
one_that_persists_is_known_and_left_alone(void **state)
{
    struct outcome o;

    (void)state;
    (void)messages(1);
    finish(1);
    (void)report(1);
    turn();
    assert_int_equal(progress_of(1), JOURNAL_STATE_WAITING);
    outcome_open(&o, 0);
    outcome_expect(&o, 1, SMS_CONFIRMED, true);
    outcome_close(&o);
}

static void
a_dead_one_is_saved_after_all_and_leaves_its_batch(void **state)
{
    static const int saved[] = {2};
    struct journal_batch batch = {.id = {{9}}, .size = 3};
    int64_t retired = 0;
    int64_t place;
    struct outcome o;

    (void)state;
    (void)messages(3);
    assert_int_equal(journal_begin(w->f->dispatcher), RC_OK);
    assert_int_equal(
        journal_batch_make(w->f->dispatcher, &batch, &w->ids[1], 3), RC_OK);
    assert_int_equal(journal_commit(w->f->dispatcher), RC_OK);
    for (int i = 1; i <= 3; i++) {
        bury(i);
    }
    (void)report(2);
    turn();
    assert_saved(saved, 1);
    assert_int_equal(w->wakes, 1);
    assert_int_equal(ledger_of(SERVICE_SMS).dead, 2);
    assert_int_equal(
        journal_batch_of(w->f->dispatcher, &w->ids[2], &batch, &place),
        RC_AGAIN);
    assert_int_equal(
        journal_batch_of(w->f->dispatcher, &w->ids[3], &batch, &place), RC_OK);
    outcome_open(&o, 0);
    outcome_expect(&o, 2, SMS_CONFIRMED, true);
    outcome_close(&o);
    (void)report(2); /* once more: nothing happens to it */
    turn();
    assert_saved(saved, 1);
    assert_int_equal(journal_begin(w->f->dispatcher), RC_OK);
    assert_int_equal(
        journal_retire(w->f->dispatcher, SERVICE_SMS, 1, 99, &retired), RC_OK);
    assert_int_equal(journal_commit(w->f->dispatcher), RC_OK);
    assert_int_equal(retired, 1);
    assert_int_equal(ledger_of(SERVICE_SMS).final, 1);
}

static void
all_of_a_request_are_looked_after(void **state)
{
    static const int saved[] = {2, 4};
    struct text body = {0};

    (void)state;
    (void)messages(5);
    bury(4);
    bury(2);
    finish(5);
    for (int i = 1; i <= 5; i++) {
        add(&body, i, SMS_DELIVERED);
    }
    (void)request(&body);
    turn();
    assert_saved(saved, 2);
    assert_int_equal(progress_of(1), JOURNAL_SMS_REPORTED);
    assert_int_equal(progress_of(3), JOURNAL_SMS_REPORTED);
    assert_int_equal(ledger_of(SERVICE_SMS).dead, 0);
}

/* Between the look and the write its batch is given up. */
static void
one_that_dies_meanwhile_is_saved_too(void **state)
{
    static const int saved[] = {1};

    (void)state;
    (void)messages(1);
    (void)report(1);
    (void)feed();
    tick();
    assert_int_equal(w->writer.count, 1);
    bury(1);
    assert_true(commit());
    assert_saved(saved, 1);
}

/* ... or is retried: then it is pending, and noted. */
static void
one_that_is_retried_meanwhile_is_noted(void **state)
{
    (void)state;
    (void)messages(1);
    bury(1);
    (void)report(1);
    (void)feed();
    tick();
    assert_int_equal(journal_begin(w->f->dispatcher), RC_OK);
    assert_int_equal(
        journal_dead_retry(w->f->dispatcher, &w->ids[1], FIXTURE_NOW, NULL),
        RC_OK);
    assert_int_equal(journal_commit(w->f->dispatcher), RC_OK);
    assert_true(commit());
    assert_saved(NULL, 0);
    assert_int_equal(progress_of(1), JOURNAL_SMS_REPORTED);
}

static void
an_empty_form_is_an_outcome_of_nothing(void **state)
{
    struct text body = {0};
    struct outcome o;

    (void)state;
    sms_update_begin(&body);
    (void)request(&body);
    turn();
    outcome_open(&o, 0);
    outcome_close(&o);
}

static void
ten_thousand_updates_are_one_outcome(void **state)
{
    struct text body = {0};
    struct outcome o;

    (void)state;
    (void)messages(1);
    bury(1);
    sms_update_begin(&body);
    for (int i = 0; i < SMS_UPDATES_MAX - 1; i++) {
        const struct sms_update update = {
            .mapped = true,
            .id = {.bytes = {0xee, (uint8_t)i, (uint8_t)(i >> 8)}},
            .state = SMS_DELIVERED};

        sms_update_put(&update, &body);
    }
    add(&body, 1, SMS_FAILED);
    (void)request(&body);
    turn();
    outcome_open(&o, 0);
    for (int i = 0; i < SMS_UPDATES_MAX - 1; i++) {
        struct sms_update update;

        assert_int_equal(sms_update_next(&o.cursor, &update), RC_OK);
        assert_false(update.known);
    }
    outcome_expect(&o, 1, SMS_FAILED, true);
    outcome_close(&o);
    assert_saved((const int[]){1}, 1);
}

static void
what_cannot_be_decoded_is_buried(void **state)
{
    static const struct {
        const char *body;
        size_t bytes;
    } bad[] = {{"", 0}, {"\2", 1}, {"\1\1short", 7}, {"{}", 2}};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct text body = {0};

        text_append(&body, bad[i].body, bad[i].bytes);
        (void)request(&body);
    }
    (void)messages(1);
    (void)report(1);
    fixture_sql(w->f, "UPDATE queue_sms_status SET received = 'x'"
                      " WHERE seq = 5");
    turn();
    assert_int_equal(ledger_of(SERVICE_SMS_STATUS).dead, 5);
    assert_int_equal(ledger_of(SERVICE_SMS_STATUS).outcomes, 0);
    assert_int_equal(progress_of(1), JOURNAL_STATE_WAITING);
    assert_int_equal(
        metrics_get(w->metrics, METRIC_QUARANTINED_TOTAL, SERVICE_SMS_STATUS),
        5);
    assert_int_equal(
        metrics_get(w->metrics, METRIC_DEAD_TOTAL, SERVICE_SMS_STATUS), 5);
    assert_int_equal(w->wakes, 0);
}

/* A form that breaks off behind good updates does nothing at all. */
static void
a_form_that_breaks_off_touches_no_message(void **state)
{
    struct text body = {0};

    (void)state;
    (void)messages(2);
    bury(2);
    add(&body, 1, SMS_CONFIRMED);
    add(&body, 2, SMS_CONFIRMED);
    text_puts(&body, "\1");
    (void)request(&body);
    turn();
    assert_int_equal(ledger_of(SERVICE_SMS_STATUS).dead, 1);
    assert_int_equal(progress_of(1), JOURNAL_STATE_WAITING);
    assert_int_equal(located(2).place, JOURNAL_DEAD);
}

/* ---- trouble ----------------------------------------------------------------
 */

static void
a_full_writer_loses_nothing(void **state)
{
    (void)state;
    (void)messages(3);
    bury(2);
    for (int i = 1; i <= 3; i++) {
        (void)report(i);
    }
    w->writer.full = 5;
    (void)feed();
    tick();
    assert_false(sms_status_service.idle(w->service));
    assert_in_range(w->wait_ms, 1, 10);
    tick();
    tick();
    turn();
    assert_int_equal(ledger_of(SERVICE_SMS_STATUS).outcomes, 3);
    assert_saved((const int[]){2}, 1);
    assert_true(sms_status_service.idle(w->service));
}

static void
while_the_journal_cannot_be_read_requests_wait_in_order(void **state)
{
    struct outcome o;

    (void)state;
    (void)messages(2);
    (void)report(2);
    (void)report(1);
    w->looks_to_fail = 2;
    (void)feed();
    tick();
    tick();
    assert_int_equal(w->writer.count, 0);
    assert_in_range(w->wait_ms, 1, 10);
    turn();
    assert_int_equal(ledger_of(SERVICE_SMS_STATUS).outcomes, 2);
    outcome_open(&o, 0);
    assert_int_equal(o.head.seq, 1);
    outcome_expect(&o, 2, SMS_CONFIRMED, true);
    outcome_close(&o);
}

/* Whichever allocation fails. */
static void
without_memory_requests_wait(void **state)
{
    (void)state;
    (void)messages(40);
    for (unsigned nth = 1; nth <= 12; nth++) {
        struct text body = {0};

        for (int i = 1; i <= 40; i++) {
            add(&body, i, SMS_CONFIRMED);
        }
        (void)request(&body);
        (void)feed();
        w->allocations_to_fail = nth;
        tick();
        w->allocations_to_fail = 0;
        turn();
        assert_int_equal(ledger_of(SERVICE_SMS_STATUS).outcomes, nth);
        assert_int_equal(ledger_of(SERVICE_SMS_STATUS).dead, 0);
    }
    die();
    w->allocations_to_fail = 1;
    assert_int_equal(service_start_again(), RC_NOMEM);
    assert_null(w->service);
}

static void
groups_that_the_writer_repeats_leave_one_of_each(void **state)
{
    struct text body = {0};

    (void)state;
    w->writer.groups_to_undo = 2;
    (void)messages(2);
    bury(1);
    add(&body, 1, SMS_CONFIRMED);
    add(&body, 2, SMS_CONFIRMED);
    (void)request(&body);
    text_puts(&body, "nonsense");
    (void)request(&body);
    turn();
    assert_saved((const int[]){1}, 1);
    assert_int_equal(ledger_of(SERVICE_SMS_STATUS).outcomes, 1);
    assert_int_equal(ledger_of(SERVICE_SMS_STATUS).dead, 1);
    assert_int_equal(fixture_ask(w->f, "SELECT count(*) FROM progress"), 1);
}

/* apply tells of a failure, so that the writer repeats the group. */
static void
nothing_is_noted_while_the_journal_fails(void **state)
{
    (void)state;
    (void)messages(1);
    bury(1);
    (void)report(1);
    (void)feed();
    tick();
    assert_int_equal(
        w->writer.writes[0]->apply(w->f->edge, w->writer.writes[0]), RC_IO);
    turn();
    assert_saved((const int[]){1}, 1);
}

static void
a_write_that_the_journal_refuses_is_left_to_the_next_start(void **state)
{
    (void)state;
    (void)messages(1);
    bury(1);
    (void)report(1);
    (void)feed();
    tick();
    die();
    assert_int_equal(ledger_of(SERVICE_SMS_STATUS).outcomes, 0);
    assert_int_equal(service_start_again(), RC_OK);
    turn();
    assert_saved((const int[]){1}, 1);
    assert_int_equal(ledger_of(SERVICE_SMS_STATUS).outcomes, 1);
}

/* ---- paused, bounds, report -------------------------------------------------
 */

static void
paused_takes_up_nothing(void **state)
{
    (void)state;
    (void)messages(1);
    (void)report(1);
    w->paused = true;
    turn();
    assert_int_equal(ledger_of(SERVICE_SMS_STATUS).outcomes, 0);
    assert_int_equal(w->wait_ms, 60000);
    assert_true(sms_status_service.idle(w->service));
    w->paused = false;
    turn();
    assert_int_equal(ledger_of(SERVICE_SMS_STATUS).outcomes, 1);
}

static void
there_is_room_for_8_requests(void **state)
{
    (void)state;
    (void)messages(1);
    for (int i = 0; i < IN_HAND_MAX + 3; i++) {
        (void)report(1);
    }
    assert_true(feed());
    assert_int_equal(w->feed.cursor, IN_HAND_MAX);
    assert_false(sms_status_service.has_room(w->service));
    w->writer.full = 3;
    tick(); /* with the writer, or before it: still in its hands */
    assert_int_equal(w->writer.count, IN_HAND_MAX - 3);
    assert_false(sms_status_service.has_room(w->service));
    assert_int_equal(
        metrics_get(w->metrics, METRIC_ACTIVE_REQUESTS, SERVICE_SMS_STATUS),
        IN_HAND_MAX);
    assert_true(commit());
    assert_true(sms_status_service.has_room(w->service));
    turn();
    assert_int_equal(ledger_of(SERVICE_SMS_STATUS).outcomes, IN_HAND_MAX + 3);
}

static void
the_report_is_members_of_an_object(void **state)
{
    struct text text = {0};
    struct json_token tokens[8];
    struct json json;
    int64_t value = -1;

    (void)state;
    (void)messages(1);
    (void)report(1);
    (void)feed();
    text_putc(&text, '{');
    sms_status_service.report(w->service, &text);
    text_putc(&text, '}');
    assert_int_equal(json_scan(text_cstr(&text), text.bytes, tokens, 8, &json),
                     RC_OK);
    assert_int_equal(
        json_uint53(&json, json_member(&json, 0, "in_hand"), &value), RC_OK);
    assert_int_equal(value, 1);
    assert_int_equal(sms_status_service.fd(w->service), -1);
    sms_status_service.configure(w->service, &w->conf);
    text_free(&text);
}

static void
free_of_nothing_is_nothing(void **state)
{
    void *nothing = NULL;

    (void)state;
    sms_status_service.free(&nothing);
    assert_null(nothing);
}

static void
what_is_in_its_hands_at_the_end_is_freed(void **state)
{
    (void)state;
    (void)messages(1);
    for (int i = 0; i < 6; i++) {
        (void)report(1);
    }
    w->writer.full = 2;
    (void)feed();
    tick();
    w->looks_to_fail = 100;
    (void)report(1);
    (void)feed();
    tick();
    die();
    w->looks_to_fail = 0;
    assert_int_equal(service_start_again(), RC_OK);
    turn();
    assert_int_equal(ledger_of(SERVICE_SMS_STATUS).outcomes, 7);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_new, world_free)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(updates_become_an_outcome_that_says_what_the_journal_knows),
        TEST(a_pending_message_is_noted_as_reported),
        TEST(one_that_persists_is_known_and_left_alone),
        TEST(a_dead_one_is_saved_after_all_and_leaves_its_batch),
        TEST(all_of_a_request_are_looked_after),
        TEST(one_that_dies_meanwhile_is_saved_too),
        TEST(one_that_is_retried_meanwhile_is_noted),
        TEST(an_empty_form_is_an_outcome_of_nothing),
        TEST(ten_thousand_updates_are_one_outcome),
        TEST(what_cannot_be_decoded_is_buried),
        TEST(a_form_that_breaks_off_touches_no_message),
        TEST(a_full_writer_loses_nothing),
        TEST(while_the_journal_cannot_be_read_requests_wait_in_order),
        TEST(without_memory_requests_wait),
        TEST(groups_that_the_writer_repeats_leave_one_of_each),
        TEST(nothing_is_noted_while_the_journal_fails),
        TEST(a_write_that_the_journal_refuses_is_left_to_the_next_start),
        TEST(paused_takes_up_nothing),
        TEST(there_is_room_for_8_requests),
        TEST(the_report_is_members_of_an_object),
        TEST(free_of_nothing_is_nothing),
        TEST(what_is_in_its_hands_at_the_end_is_freed),
    };

    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
