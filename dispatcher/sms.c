/* The SMS service: the provider is paid by the request, so messages are
 * collected into batches (batcher.h), and a batch is sent whole or again.
 *
 *   request -> batcher -> batch and members on disk -> poster -> judge
 *        `-> gathering (a batch of before)  --'           |
 *                                                         +-> outcome on disk
 *                                resting <- attempt noted <+
 *                                     two halves on disk <+-> dead letters
 *
 * What an answer means:
 *   2xx              the provider has them
 *   400, 413, 422    it refuses the request as a whole: split in halves until
 *                    the message that is to blame stands alone
 *   anything else    a failed attempt: again, unchanged, under the same
 *   or none          Idempotency-Key, with full jitter; after sms.max_attempts
 *                    its messages are dead letters */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/backoff.h"
#include "dispatcher/batcher.h"
#include "dispatcher/poster.h"
#include "dispatcher/service.h"
#include "dispatcher/sms_record.h"
#include "shared/log.h"
#include "shared/sms_msg.h"

#define ROWS_MIN 4096U /* messages in our hands, if that holds all batches */
#define BYTES_MAX ((size_t)32 * 1024 * 1024)
#define ANSWER_MAX_BYTES 4096U
#define GATHER_MS 50     /* of a backlog */
#define GATHERING_MS 100 /* between looks at what has not become whole */
#define TRY_AGAIN_MS 10  /* writer full, no memory or descriptors */
#define IDLE_MS 60000

/* In order of the first member's seq. */
struct flight_list {
    struct sms_flight *first;
    size_t count;
};

struct sms_desk {
    struct service_context context; /* conf: in new() only */
    struct conf_sms conf;
    struct batcher *batcher;
    struct poster *poster;
    struct backoff backoff;
    struct uuid_source uuids;
    struct now now;                 /* of this tick */
    struct flight_list gathering;   /* recorded; not all members are here */
    struct flight_list ready;       /* recorded; to be sent */
    struct flight_list resting;     /* ... but not before due_ms */
    struct flight_list unsubmitted; /* the writer was full */
    size_t writing;                 /* the writer has them */
    struct flight_list on_line;     /* their request is under way */
    struct work *stash;   /* accepted while memory or journal failed */
    size_t rows;          /* messages in our hands */
    size_t bytes;         /* of their bodies */
    int64_t gathering_ms; /* when to look after them */
    bool look_up;         /* messages may be in batches of before */
    bool draining;
};

/* ---- lists ------------------------------------------------------------------
 */

static int64_t
order_of(const struct sms_flight *flight)
{
    for (size_t i = 0; i < flight->capacity; i++) {
        if (flight->members[i] != NULL) {
            return flight->members[i]->seq;
        }
    }
    return 0;
}

static void
list_insert(struct flight_list *list, struct sms_flight *flight)
{
    struct sms_flight **at = &list->first;
    int64_t seq = order_of(flight);

    while (*at != NULL && order_of(*at) <= seq) {
        at = &(*at)->next;
    }
    flight->next = *at;
    *at = flight;
    list->count++;
}

static struct sms_flight *
list_take(struct flight_list *list)
{
    struct sms_flight *flight = list->first;

    if (flight != NULL) {
        list->first = flight->next;
        flight->next = NULL;
        list->count--;
    }
    return flight;
}

static void
list_remove(struct flight_list *list, struct sms_flight *flight)
{
    struct sms_flight **at = &list->first;

    while (*at != flight) {
        at = &(*at)->next;
    }
    *at = flight->next;
    flight->next = NULL;
    list->count--;
}

static void
list_free(struct flight_list *list)
{
    for (struct sms_flight *flight = list_take(list); flight != NULL;
         flight = list_take(list)) {
        sms_flight_free(flight);
    }
}

/* ---- what is in our hands ---------------------------------------------------
 */

static void
count_in(struct sms_desk *desk, const struct work *work)
{
    desk->rows++;
    desk->bytes += work->body_bytes;
}

/* Its messages leave our hands. */
static void
let_go(struct sms_desk *desk, struct sms_flight *flight)
{
    for (size_t i = 0; i < flight->capacity; i++) {
        if (flight->members[i] != NULL) {
            desk->rows--;
            desk->bytes -= flight->members[i]->body_bytes;
        }
    }
    sms_flight_free(flight);
}

static void
submit(struct sms_desk *desk, struct sms_flight *flight)
{
    if (writer_submit(desk->context.writer, &flight->write) == RC_OK) {
        desk->writing++;
    } else {
        list_insert(&desk->unsubmitted, flight);
    }
}

static void
record(struct sms_desk *desk, struct sms_flight *flight, enum sms_record what)
{
    sms_record_prepare(flight, what, desk->context.replies, desk->now.unix_ms);
    if (what == SMS_RECORD_GIVE_UP) {
        /* Before it is on disk: a retry, which brings the batch back, may be
         * written together with it, and be here first. */
        desk->look_up = true;
    }
    submit(desk, flight);
}

/* ---- how a request ended ----------------------------------------------------
 */

static void
note_error(struct sms_flight *flight, const char *error)
{
    (void)snprintf(flight->batch.error, sizeof(flight->batch.error), "%s",
                   error);
}

static void
attempt_failed(struct sms_desk *desk, struct sms_flight *flight,
               const char *error)
{
    metrics_add(desk->context.metrics, METRIC_SMS_FAILURES_TOTAL, SERVICE_COUNT,
                1);
    flight->batch.attempts++;
    flight->batch.failures++;
    note_error(flight, error);
    if (flight->batch.failures >= desk->conf.max_attempts) {
        record(desk, flight, SMS_RECORD_GIVE_UP);
        return;
    }
    flight->due_ms =
        desk->now.ms + backoff_ms(&desk->backoff, desk->conf.retry_base_ms,
                                  flight->batch.failures);
    record(desk, flight, SMS_RECORD_NOTE);
}

/* Put others in its place: two halves, or one that holds what is left of it.
 * Without memory it waits in the list, to be tried again. */
static void
replace(struct sms_desk *desk, struct sms_flight *flight, size_t parts,
        struct flight_list *list)
{
    struct uuid ids[2];
    enum rc rc = RC_OK;

    for (size_t i = 0; rc == RC_OK && i < parts; i++) {
        rc = uuid_next(&desk->uuids, desk->now.unix_ms, &ids[i]);
    }
    if (rc == RC_OK) {
        rc = sms_flight_split(flight, ids, parts);
    }
    if (rc == RC_OK) {
        record(desk, flight, parts > 1 ? SMS_RECORD_SPLIT : SMS_RECORD_REMAKE);
    } else {
        flight->due_ms = desk->now.ms + TRY_AGAIN_MS;
        list_insert(list, flight);
    }
}

/* It refuses the request for what is in it. */
static void
refused(struct sms_desk *desk, struct sms_flight *flight, const char *error)
{
    flight->batch.attempts++;
    note_error(flight, error);
    if (flight->count > 1) {
        replace(desk, flight, 2, &desk->resting);
    } else {
        record(desk, flight, SMS_RECORD_REFUSE);
    }
}

static void
post_done(void *arg, const struct post_result *result)
{
    struct sms_desk *desk = arg;
    struct sms_flight *flight = (struct sms_flight *)(uintptr_t)result->tag;
    char words[32];

    list_remove(&desk->on_line, flight);
    (void)snprintf(words, sizeof(words), "HTTP %d", result->status);
    if (result->status >= 200 && result->status < 300) {
        flight->batch.attempts++;
        record(desk, flight, SMS_RECORD_FINISH);
    } else if (result->status == 400 || result->status == 413 ||
               result->status == 422) {
        refused(desk, flight, words);
    } else {
        attempt_failed(desk, flight,
                       result->status != 0 ? words : result->error);
    }
}

static const struct poster_calls post_calls = {
    .counted = NULL,
    .done = post_done,
};

/* ---- sending ----------------------------------------------------------------
 */

/* It is on disk. */
static void
post(struct sms_desk *desk, struct sms_flight *flight)
{
    char key[UUID_TEXT_BYTES];
    struct poster_request request = {
        .url = desk->conf.url,
        .idempotency_key = uuid_format(&flight->batch.id, key),
        .tag = (uint64_t)(uintptr_t)flight,
    };
    enum rc rc = sms_flight_body(flight);

    if (rc == RC_OK) {
        request.body = text_cstr(&flight->body);
        request.body_bytes = flight->body.bytes;
        rc = poster_start(desk->poster, &request);
    }
    if (rc == RC_OK) {
        list_insert(&desk->on_line, flight);
        metrics_add(desk->context.metrics, METRIC_SMS_REQUESTS_TOTAL,
                    SERVICE_COUNT, 1);
    } else if (rc == RC_INVALID) {
        attempt_failed(desk, flight, "sms.url cannot be used");
    } else {
        flight->due_ms = desk->now.ms + TRY_AGAIN_MS;
        list_insert(&desk->resting, flight);
    }
}

/* Members that are due as a batch of their own. False: not now. */
static bool
make_batch(struct sms_desk *desk)
{
    void *members[JOURNAL_BATCH_MAX];
    struct uuid id;
    struct sms_flight *flight;
    size_t count;

    if (batcher_due_ms(desk->batcher, desk->now.ms) > desk->now.ms &&
        !(desk->draining && batcher_count(desk->batcher) > 0)) {
        return false;
    }
    count = batcher_count(desk->batcher);
    count = count < JOURNAL_BATCH_MAX ? count : JOURNAL_BATCH_MAX;
    flight = uuid_next(&desk->uuids, desk->now.unix_ms, &id) == RC_OK
                 ? sms_flight_new(&id, count)
                 : NULL;
    if (flight == NULL) {
        return false;
    }
    count = batcher_take(desk->batcher, desk->now.ms, desk->draining, members,
                         count);
    for (size_t i = 0; i < count; i++) {
        flight->members[i] = members[i];
    }
    flight->count = count;
    flight->batch.size = (int64_t)count;
    flight->batch.started_unix_ms = desk->now.unix_ms;
    record(desk, flight, SMS_RECORD_MAKE);
    return true;
}

/* Those that failed leave their place to others while they rest. */
static bool
may_send(const struct sms_desk *desk)
{
    return desk->writing + desk->unsubmitted.count + desk->on_line.count <
           (size_t)desk->conf.max_in_flight;
}

static void
send_what_is_due(struct sms_desk *desk)
{
    while (desk->ready.first != NULL &&
           desk->on_line.count < (size_t)desk->conf.max_in_flight) {
        post(desk, list_take(&desk->ready));
    }
    while (desk->ready.first == NULL && may_send(desk) && make_batch(desk)) {
    }
}

/* ---- on disk ----------------------------------------------------------------
 */

static void
note_end(struct sms_desk *desk, const struct sms_flight *flight)
{
    struct metrics *metrics = desk->context.metrics;
    bool sent = flight->record == SMS_RECORD_FINISH;

    metrics_add(metrics,
                sent ? METRIC_SMS_BATCHES_SENT_TOTAL
                     : METRIC_SMS_BATCHES_FAILED_TOTAL,
                SERVICE_COUNT, 1);
    metrics_observe_ms(metrics, METRIC_SMS_BATCH_MS, SERVICE_COUNT,
                       flight->now_unix_ms - flight->batch.started_unix_ms);
    if (sent) {
        metrics_add(metrics, METRIC_SMS_MESSAGES_SENT_TOTAL, SERVICE_COUNT,
                    flight->batch.size);
    } else {
        char id[UUID_TEXT_BYTES];
        char quoted[JOURNAL_REASON_BYTES * 2];

        log_event(LOG_WARN, "sms_batch_failed",
                  "batch=%s size=%" PRId64 " attempts=%" PRId64 " error=%s",
                  uuid_format(&flight->batch.id, id), flight->batch.size,
                  flight->batch.attempts,
                  log_quote(flight->batch.error, quoted, sizeof(quoted)));
    }
    desk->context.outcome_added(desk->context.store);
}

static void
note_dead(struct sms_desk *desk, int64_t count)
{
    metrics_add(desk->context.metrics, METRIC_DEAD_TOTAL, SERVICE_SMS, count);
}

/* Those of a new batch that the provider has spoken of are not sent again. */
static void
leave_out_saved(struct sms_desk *desk, struct sms_flight *flight)
{
    for (size_t i = 0; i < flight->capacity; i++) {
        if (flight->saved[i]) {
            desk->rows--;
            desk->bytes -= flight->members[i]->body_bytes;
            work_free(flight->members[i]);
            flight->members[i] = NULL;
            flight->saved[i] = false;
            flight->count--;
        }
    }
    sms_flight_close(flight);
}

static void
send_halves(struct sms_desk *desk, struct sms_flight *flight)
{
    for (size_t i = 0; i < ARRAY_COUNT(flight->halves); i++) {
        struct sms_flight *half = flight->halves[i];

        flight->halves[i] = NULL;
        if (half != NULL) {
            leave_out_saved(desk, half);
        }
        if (half != NULL && half->count > 0) {
            half->batch.started_unix_ms = desk->now.unix_ms;
            list_insert(&desk->ready, half);
        } else {
            sms_flight_free(half);
        }
    }
}

static void
carry_on(struct sms_desk *desk, struct sms_flight *flight)
{
    switch (flight->record) {
    case SMS_RECORD_MAKE:
        list_insert(&desk->ready, flight);
        return;
    case SMS_RECORD_NOTE:
        list_insert(&desk->resting, flight);
        return;
    case SMS_RECORD_FINISH:
        note_end(desk, flight);
        break;
    case SMS_RECORD_SPLIT:
        note_end(desk, flight);
        send_halves(desk, flight);
        break;
    case SMS_RECORD_REMAKE:
        desk->context.outcome_added(desk->context.store);
        send_halves(desk, flight);
        break;
    case SMS_RECORD_GIVE_UP:
    case SMS_RECORD_REFUSE:
        note_end(desk, flight);
        note_dead(desk, flight->buried);
        break;
    case SMS_RECORD_BURY:
        note_dead(desk, 1);
        metrics_add(desk->context.metrics, METRIC_QUARANTINED_TOTAL,
                    SERVICE_SMS, 1);
        log_event(LOG_ERROR, "record_quarantined", "service=%s seq=%" PRId64,
                  service_name(SERVICE_SMS), order_of(flight));
        break;
    }
    let_go(desk, flight);
}

static void
sms_written(void *arg, struct write *write, struct now now)
{
    struct sms_desk *desk = arg;
    struct sms_flight *flight = (struct sms_flight *)write;

    desk->now = now;
    desk->writing--;
    if (write->rc == RC_OK) {
        carry_on(desk, flight);
        return;
    }
    log_event(LOG_ERROR, "sms_record_refused", "seq=%" PRId64 " rc=%s",
              order_of(flight), rc_name(write->rc));
    sms_flight_join(flight);
    let_go(desk, flight); /* they are in the journal for the next start */
}

/* ---- requests ---------------------------------------------------------------
 */

/* A batch of before, of which this is the first member that comes. */
static enum rc
gather_begin(struct sms_desk *desk, const struct journal_batch *batch,
             struct sms_flight **out)
{
    struct sms_flight *flight = sms_flight_new(&batch->id, JOURNAL_BATCH_MAX);
    enum rc rc = flight == NULL ? RC_NOMEM : RC_OK;

    *out = NULL;
    if (rc == RC_OK) {
        flight->batch = *batch;
        rc = journal_batch_body(desk->context.journal, &batch->id,
                                &flight->body);
    }
    if (rc != RC_OK && rc != RC_AGAIN) {
        sms_flight_free(flight);
        return rc;
    }
    if (flight->batch.started_unix_ms == 0) {
        flight->batch.started_unix_ms = desk->now.unix_ms;
    }
    *out = flight;
    return RC_OK;
}

static struct sms_flight *
gathering_of(const struct sms_desk *desk, const struct uuid *id)
{
    struct sms_flight *flight = desk->gathering.first;

    while (flight != NULL && memcmp(&flight->batch.id, id, sizeof(*id)) != 0) {
        flight = flight->next;
    }
    return flight;
}

/* All of its members are here that wait in the queue. Whole, or with the body
 * of before, it goes out as it was. */
static void
gathered(struct sms_desk *desk, struct sms_flight *flight)
{
    list_remove(&desk->gathering, flight);
    sms_flight_close(flight);
    if (flight->body.bytes > 0 || flight->count == (size_t)flight->batch.size) {
        list_insert(&desk->ready, flight);
    } else {
        replace(desk, flight, 1, &desk->gathering);
    }
}

/* RC_AGAIN: it is in no batch. */
static enum rc
join_batch(struct sms_desk *desk, struct work *work)
{
    struct journal_batch batch;
    struct sms_flight *flight;
    int64_t place = 0;
    enum rc rc =
        journal_batch_of(desk->context.journal, &work->id, &batch, &place);

    if (rc != RC_OK) {
        return rc;
    }
    flight = gathering_of(desk, &batch.id);
    if (flight == NULL) {
        rc = gather_begin(desk, &batch, &flight);
        if (rc == RC_OK) {
            rc = sms_flight_put(flight, (size_t)place, work);
        }
        if (rc != RC_OK) {
            sms_flight_free(flight);
            return rc;
        }
        list_insert(&desk->gathering, flight);
    } else {
        rc = sms_flight_put(flight, (size_t)place, work);
    }
    if (rc == RC_OK && (int64_t)flight->count >= flight->batch.waiting) {
        gathered(desk, flight);
    }
    return rc;
}

static enum rc
collect(struct sms_desk *desk, struct work *work)
{
    int64_t waited_ms = desk->now.unix_ms - work->received_unix_ms;

    return batcher_add(desk->batcher, work, waited_ms > 0 ? waited_ms : 0,
                       desk->now.ms);
}

static enum rc
bury(struct sms_desk *desk, struct work *work)
{
    struct sms_flight *flight = sms_flight_new(&work->id, 1);

    if (flight == NULL) {
        return RC_NOMEM;
    }
    flight->members[0] = work;
    flight->count = 1;
    note_error(flight, "record cannot be decoded: not a message");
    record(desk, flight, SMS_RECORD_BURY);
    return RC_OK;
}

/* Owns work on RC_OK. */
static enum rc
take(struct sms_desk *desk, struct work *work)
{
    struct sms_msg msg;
    enum rc rc = RC_AGAIN;

    if (work->broken ||
        sms_msg_decode(work->body, work->body_bytes, &msg) != RC_OK) {
        rc = bury(desk, work);
    } else {
        if (desk->look_up) {
            rc = join_batch(desk, work);
        }
        if (rc == RC_AGAIN || rc == RC_FULL) {
            rc = collect(desk, work);
        }
    }
    return rc;
}

/* So many messages at most: whole batches, or a backlog behind those that rest
 * would leave one that is not full, and is sent so. */
static size_t
rows_max(const struct conf_sms *conf)
{
    size_t size = (size_t)conf->batch_size;
    size_t batches = (size_t)conf->max_in_flight + 2;
    size_t least = (ROWS_MIN + size - 1) / size;

    return size * (batches > least ? batches : least);
}

static bool
sms_has_room(const void *arg)
{
    const struct sms_desk *desk = arg;

    if (desk->stash != NULL) {
        return false;
    }
    /* A batch of before must become whole, or it would be in the way. */
    return desk->gathering.first != NULL ||
           (desk->bytes < BYTES_MAX && desk->rows < rows_max(&desk->conf));
}

static void
sms_accept(void *arg, struct work *work, struct now now)
{
    struct sms_desk *desk = arg;

    desk->now = now;
    count_in(desk, work);
    if (take(desk, work) != RC_OK) {
        desk->stash = work;
    }
}

/* ---- the turn ---------------------------------------------------------------
 */

static void
submit_again(struct sms_desk *desk)
{
    size_t count = desk->unsubmitted.count;

    while (count-- > 0) {
        submit(desk, list_take(&desk->unsubmitted));
    }
}

/* A member that could not be decoded does not come; nor does any when the batch
 * was dissolved, or has ended, meanwhile: those that came get another one. */
static void
look_after_gathering(struct sms_desk *desk)
{
    struct sms_flight *flight = desk->gathering.first;

    if (flight == NULL || desk->now.ms < desk->gathering_ms) {
        return;
    }
    desk->gathering_ms = desk->now.ms + GATHERING_MS;
    while (flight != NULL) {
        struct sms_flight *next = flight->next;
        struct journal_batch batch;
        enum rc rc = journal_batch_find(desk->context.journal,
                                        &flight->batch.id, &batch);

        if (rc == RC_AGAIN) {
            text_reset(&flight->body);
            flight->batch.size = 0;
        }
        if (rc == RC_AGAIN ||
            (rc == RC_OK && (int64_t)flight->count >= batch.waiting)) {
            gathered(desk, flight);
        }
        flight = next;
    }
}

/* Batches that have rested are to be sent again. */
static void
wake_rested(struct sms_desk *desk)
{
    struct sms_flight *flight = desk->resting.first;

    while (flight != NULL) {
        struct sms_flight *next = flight->next;

        if (flight->due_ms <= desk->now.ms) {
            list_remove(&desk->resting, flight);
            list_insert(&desk->ready, flight);
        }
        flight = next;
    }
}

/* Time until the next one has rested; -1: none rests. */
static int64_t
rest_ms(const struct sms_desk *desk)
{
    int64_t ms = -1;

    for (const struct sms_flight *flight = desk->resting.first; flight != NULL;
         flight = flight->next) {
        int64_t left_ms = flight->due_ms - desk->now.ms;

        left_ms = left_ms > 0 ? left_ms : 0;
        ms = ms < 0 || left_ms < ms ? left_ms : ms;
    }
    return ms;
}

static void
show(struct sms_desk *desk)
{
    struct metrics *metrics = desk->context.metrics;

    metrics_set(metrics, METRIC_ACTIVE_REQUESTS, SERVICE_SMS,
                (int64_t)desk->rows);
    metrics_set(metrics, METRIC_SMS_IN_FLIGHT, SERVICE_COUNT,
                (int64_t)desk->on_line.count);
    metrics_set(metrics, METRIC_SMS_WAITING, SERVICE_COUNT,
                (int64_t)batcher_count(desk->batcher));
}

static void
lower(int64_t *wait_ms, int64_t ms)
{
    if (ms >= 0 && ms < *wait_ms) {
        *wait_ms = ms;
    }
}

static int64_t
sms_tick(void *arg, struct now now, bool paused)
{
    struct sms_desk *desk = arg;
    int64_t wait_ms = IDLE_MS;
    int64_t due_ms;

    desk->now = now;
    if (desk->stash != NULL && take(desk, desk->stash) == RC_OK) {
        desk->stash = NULL;
    }
    submit_again(desk);
    look_after_gathering(desk);
    lower(&wait_ms, poster_drive(desk->poster, now.ms));
    wake_rested(desk);
    if (!paused) {
        send_what_is_due(desk);
        /* What was started leaves with the next drive. */
        lower(&wait_ms, poster_drive(desk->poster, now.ms));
        lower(&wait_ms, rest_ms(desk)); /* those that could not start, too */
    }
    if (!paused && may_send(desk) && batcher_count(desk->batcher) > 0) {
        due_ms = batcher_due_ms(desk->batcher, now.ms);
        lower(&wait_ms, due_ms > now.ms ? due_ms - now.ms : TRY_AGAIN_MS);
    }
    if (desk->stash != NULL || desk->unsubmitted.first != NULL) {
        lower(&wait_ms, TRY_AGAIN_MS);
    }
    if (desk->gathering.first != NULL) {
        lower(&wait_ms, GATHERING_MS);
    }
    show(desk);
    return wait_ms;
}

static bool
sms_idle(const void *arg)
{
    const struct sms_desk *desk = arg;

    return desk->writing == 0 && desk->on_line.count == 0 &&
           desk->stash == NULL && desk->unsubmitted.first == NULL;
}

static void
sms_drain(void *arg, bool draining)
{
    struct sms_desk *desk = arg;

    desk->draining = draining;
}

static int
sms_fd(const void *arg)
{
    const struct sms_desk *desk = arg;

    return poster_fd(desk->poster);
}

static void
sms_report(const void *arg, struct text *out)
{
    const struct sms_desk *desk = arg;

    text_printf(out,
                "\"in_flight\":%zu,\"waiting\":%zu,\"ready\":%zu,"
                "\"retrying\":%zu,\"gathering\":%zu",
                desk->on_line.count, batcher_count(desk->batcher),
                desk->ready.count, desk->resting.count, desk->gathering.count);
}

/* ---- made and freed ---------------------------------------------------------
 */

static void
bounds(const struct conf_sms *conf, struct poster_options *poster,
       struct batcher_options *batcher)
{
    *poster = (struct poster_options){
        .concurrency = (size_t)conf->max_in_flight,
        .timeout_ms = conf->timeout_ms,
        .max_body_bytes = ANSWER_MAX_BYTES,
    };
    *batcher = (struct batcher_options){
        .size = (size_t)conf->batch_size,
        .max_delay_ms = conf->max_delay_ms,
        .gather_ms = GATHER_MS,
    };
}

static void
sms_configure(void *arg, const struct conf *conf)
{
    struct sms_desk *desk = arg;
    struct poster_options poster;
    struct batcher_options batcher;

    desk->conf = conf->sms;
    bounds(&desk->conf, &poster, &batcher);
    poster_set(desk->poster, &poster);
    batcher_set(desk->batcher, &batcher);
}

static void
sms_desk_free(void **arg)
{
    struct sms_desk *desk = *arg;
    void *member;

    *arg = NULL;
    if (desk == NULL) {
        return;
    }
    poster_free(&desk->poster); /* before the batches that it names */
    list_free(&desk->gathering);
    list_free(&desk->ready);
    list_free(&desk->resting);
    list_free(&desk->unsubmitted);
    list_free(&desk->on_line);
    while (desk->batcher != NULL &&
           batcher_take(desk->batcher, 0, true, &member, 1) > 0) {
        work_free(member);
    }
    batcher_free(&desk->batcher);
    work_free(desk->stash);
    free(desk);
}

static enum rc
sms_desk_new(void **out, const struct service_context *context)
{
    struct sms_desk *desk = calloc(1, sizeof(*desk));
    struct poster_options poster;
    struct batcher_options batcher;
    int64_t batches = 0;
    enum rc rc;

    *out = NULL;
    if (desk == NULL) {
        return RC_NOMEM;
    }
    desk->context = *context;
    desk->conf = context->conf->sms;
    desk->context.conf = NULL;
    uuid_source_init(&desk->uuids, (uint16_t)context->conf->node.id);
    backoff_init(&desk->backoff);
    bounds(&desk->conf, &poster, &batcher);
    rc = journal_batch_count(context->journal, &batches);
    rc = rc == RC_AGAIN ? RC_OK : rc; /* no journal yet */
    desk->look_up = batches > 0;
    if (rc == RC_OK) {
        rc = batcher_new(&desk->batcher, &batcher);
    }
    if (rc == RC_OK) {
        rc = poster_new(&desk->poster, &poster, &post_calls, desk);
    }
    if (rc != RC_OK) {
        void *self = desk;

        sms_desk_free(&self);
        return rc;
    }
    *out = desk;
    return RC_OK;
}

const struct service_ops sms_service = {
    .service = SERVICE_SMS,
    .new = sms_desk_new,
    .free = sms_desk_free,
    .fd = sms_fd,
    .has_room = sms_has_room,
    .accept = sms_accept,
    .written = sms_written,
    .tick = sms_tick,
    .idle = sms_idle,
    .drain = sms_drain,
    .configure = sms_configure,
    .report = sms_report,
};
