/* The call service: calls are started in order of arrival, as fast as the
 * provider's limit can allow and no faster (limiter.h).
 *
 *   request -> waiting -> limiter_take -> DIALING and slot on disk -> poster
 *           -> judge -> final state and outcome on disk
 *                    `-> 429, or nothing left: QUEUED on disk -> waiting
 *
 * What an answer means:
 *   200 (any 2xx)         ANSWERED
 *   429                   the limiter's episode; again, no attempt is lost
 *   5xx, 408              a failed attempt: again with full jitter, FAILED
 *                         after call.max_attempts
 *   anything else         FAILED: the provider's no
 *   nothing was sent      as 5xx, and its slot is free again
 *   sent, and no answer   UNKNOWN, for it may have been dialled; again only
 *                         with call.on_unknown = redial */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/backoff.h"
#include "dispatcher/call_record.h"
#include "dispatcher/limiter.h"
#include "dispatcher/poster.h"
#include "dispatcher/service.h"
#include "shared/call_msg.h"
#include "shared/clock.h"
#include "shared/log.h"

#define CALLS_MAX 1024U
#define ANSWER_MAX_BYTES 4096U
#define TRY_AGAIN_MS 10 /* writer full, no memory or descriptors */
#define IDLE_MS 60000
#define US_PER_MS 1000
#define BODY_BYTES (CALL_PHONE_BYTES + CALL_AGENT_BYTES + 64)

/* In order of seq. */
struct call_list {
    struct call *first;
    size_t count;
};

/* Progress that was recorded before this start. */
struct recorded {
    int64_t seq;
    struct journal_progress progress;
};

struct call_desk {
    struct service_context context; /* conf and journal: in new() only */
    struct conf_call conf;
    struct limiter *limiter;
    struct poster *poster;
    struct backoff backoff;
    struct now now;               /* of this tick */
    struct call_list waiting;     /* to be dialled */
    struct call_list resting;     /* ... but not before due_ms */
    struct call_list unsubmitted; /* the writer was full */
    size_t writing;               /* the writer has them */
    struct call_list on_line;     /* their request is under way */
    struct work *stash;           /* accepted while there was no memory */
    struct recorded *recorded;    /* in order of seq */
    size_t recorded_count;
    size_t recorded_capacity;
    char boot[CLOCK_BOOT_ID_BYTES];
    char noted[CALL_NOTE_BYTES]; /* of the limiter, as last recorded */
};

/* ---- lists ------------------------------------------------------------------
 */

static void
list_insert(struct call_list *list, struct call *call)
{
    struct call **at = &list->first;

    while (*at != NULL && (*at)->seq < call->seq) {
        at = &(*at)->next;
    }
    call->next = *at;
    *at = call;
    list->count++;
}

static struct call *
list_take(struct call_list *list)
{
    struct call *call = list->first;

    if (call != NULL) {
        list->first = call->next;
        call->next = NULL;
        list->count--;
    }
    return call;
}

static void
list_remove(struct call_list *list, struct call *call)
{
    struct call **at = &list->first;

    while (*at != call) {
        at = &(*at)->next;
    }
    *at = call->next;
    call->next = NULL;
    list->count--;
}

static void
list_free(struct call_list *list)
{
    for (struct call *call = list_take(list); call != NULL;
         call = list_take(list)) {
        call_free(call);
    }
}

/* ---- what is recorded -------------------------------------------------------
 */

/* The limiter's state but for the slots, for a restart. */
static void
note_limiter(struct call_desk *desk, struct call *call)
{
    struct limiter_state state = {0};
    char note[CALL_NOTE_BYTES];

    call->note[0] = '\0';
    if (limiter_save(desk->limiter, desk->now.boot_us, &state) != RC_OK) {
        return;
    }
    (void)snprintf(note, sizeof(note),
                   "%s %" PRId64 " %" PRId64 " %" PRId64 " %d %u %" PRId64,
                   desk->boot, state.window_us, state.guard_us,
                   state.guard_at_us, (int)state.phase, state.step,
                   state.end_us);
    if (strcmp(note, desk->noted) != 0) {
        memcpy(call->note, note, sizeof(note));
        memcpy(desk->noted, note, sizeof(note));
    }
}

static void
note_slot(struct call_desk *desk, struct call *call)
{
    call->slot.no = -1;
    if (call->has_permit) {
        call->slot.no = (int64_t)call->permit.slot;
        call->slot.free_at_us =
            limiter_slot_state(desk->limiter, call->permit.slot);
        (void)snprintf(call->slot.boot, sizeof(call->slot.boot), "%s",
                       desk->boot);
    }
}

/* Slot and limiter go as they are now, also in a write that had to wait: what
 * others have written of them meanwhile must not become old again. */
static void
submit(struct call_desk *desk, struct call *call)
{
    note_slot(desk, call);
    if (call->record != CALL_RECORD_BURY) {
        note_limiter(desk, call);
    }
    if (writer_submit(desk->context.writer, &call->write) == RC_OK) {
        desk->writing++;
    } else {
        desk->noted[0] = '\0'; /* the next write's */
        list_insert(&desk->unsubmitted, call);
    }
}

static void
record(struct call_desk *desk, struct call *call, enum call_record what)
{
    call_record_prepare(call, what, desk->context.replies, desk->now.unix_ms);
    submit(desk, call);
}

static void
finish(struct call_desk *desk, struct call *call, enum call_state state,
       const char *error)
{
    call->state = state;
    (void)snprintf(call->error, sizeof(call->error), "%s", error);
    record(desk, call, CALL_RECORD_FINISH);
}

/* Back into the queue, not to be dialled before due_ms. */
static void
requeue(struct call_desk *desk, struct call *call, int64_t due_ms,
        const char *error)
{
    call->state = CALL_QUEUED;
    call->due_ms = due_ms;
    (void)snprintf(call->error, sizeof(call->error), "%s", error);
    record(desk, call, CALL_RECORD_REQUEUE);
}

static void
attempt_failed(struct call_desk *desk, struct call *call, const char *error)
{
    metrics_add(desk->context.metrics, METRIC_CALL_FAILURES_TOTAL,
                SERVICE_COUNT, 1);
    if (call->attempts >= desk->conf.max_attempts) {
        finish(desk, call, CALL_FAILED, error);
        return;
    }
    requeue(desk, call,
            desk->now.ms + backoff_ms(&desk->backoff, desk->conf.retry_base_ms,
                                      call->attempts),
            error);
}

/* The request may have reached the provider, and nobody knows what it did. */
static void
outcome_unknown(struct call_desk *desk, struct call *call, const char *error)
{
    if (strcmp(desk->conf.on_unknown, "redial") == 0) {
        attempt_failed(desk, call, error);
    } else {
        finish(desk, call, CALL_UNKNOWN, error);
    }
}

/* ---- answers ----------------------------------------------------------------
 */

static void
refused(struct call_desk *desk, struct call *call)
{
    metrics_add(desk->context.metrics, METRIC_CALL_429_TOTAL, SERVICE_COUNT, 1);
    (void)limiter_refused(desk->limiter, &call->permit, desk->now.boot_us);
    log_event(LOG_WARN, "call_limit_exceeded",
              "seq=%" PRId64 " guard_us=%" PRId64 " next_ms=%" PRId64,
              call->seq, limiter_guard_us(desk->limiter, desk->now.boot_us),
              (limiter_next_us(desk->limiter, desk->now.boot_us) -
               desk->now.boot_us) /
                  US_PER_MS);
    call->attempts--;
    requeue(desk, call, desk->now.ms, "HTTP 429");
}

static void
answered(struct call_desk *desk, struct call *call,
         const struct post_result *result)
{
    char words[32];

    if (result->status == 429) {
        refused(desk, call);
        return;
    }
    (void)limiter_answered(desk->limiter, &call->permit, desk->now.boot_us);
    if (result->status >= 200 && result->status < 300) {
        finish(desk, call, CALL_ANSWERED, "");
        return;
    }
    (void)snprintf(words, sizeof(words), "HTTP %d", result->status);
    if (result->status >= 500 || result->status == 408) {
        attempt_failed(desk, call, words);
    } else {
        finish(desk, call, CALL_FAILED, words);
    }
}

static void
post_done(void *arg, const struct post_result *result)
{
    struct call_desk *desk = arg;
    struct call *call = (struct call *)(uintptr_t)result->tag;

    list_remove(&desk->on_line, call);
    metrics_observe_ms(desk->context.metrics, METRIC_CALL_MS, SERVICE_COUNT,
                       result->duration_ms);
    if (result->status != 0) { /* that much is known, be it whole or not */
        answered(desk, call, result);
        return;
    }
    switch (result->stage) {
    case POST_NOT_SENT:
        (void)limiter_return(desk->limiter, &call->permit);
        attempt_failed(desk, call, result->error);
        break;
    case POST_ANSWERED: /* cannot be, without a status */
    case POST_SENT:
        (void)limiter_lost(desk->limiter, &call->permit, desk->now.boot_us);
        outcome_unknown(desk, call, result->error);
        break;
    }
}

static void
post_counted(void *arg, uint64_t tag, int64_t counted_us)
{
    struct call_desk *desk = arg;
    const struct call *call = (const struct call *)(uintptr_t)tag;

    if (strcmp(desk->conf.count_at, "arrival") == 0) {
        (void)limiter_counted(desk->limiter, &call->permit, counted_us);
    }
}

static const struct poster_calls post_calls = {
    .counted = post_counted,
    .done = post_done,
};

/* ---- dialling ---------------------------------------------------------------
 */

/* The attempt that was begun is none: nothing has left. */
static void
take_back(struct call_desk *desk, struct call *call)
{
    (void)limiter_return(desk->limiter, &call->permit);
    call->attempts--;
    call->dialed_unix_ms = call->dialed_before_unix_ms;
}

/* DIALING and the slot are on disk. */
static void
dial(struct call_desk *desk, struct call *call)
{
    char body[BODY_BYTES];
    char id[UUID_TEXT_BYTES];
    struct poster_request request = {
        .url = desk->conf.url,
        .body = body,
        .idempotency_key = uuid_format(&call->id, id),
        .tag = (uint64_t)(uintptr_t)call,
    };
    enum rc rc = RC_AGAIN;

    /* Neither needs escapes: call_msg has checked them. */
    request.body_bytes = (size_t)snprintf(
        body, sizeof(body),
        "{\"phone_number\":\"%s\",\"virtual_agent_id\":\"%s\"}",
        call->msg.phone, call->msg.agent);
    if (limiter_may_send(desk->limiter, &call->permit)) {
        rc = poster_start(desk->poster, &request);
    }
    if (rc == RC_OK) {
        list_insert(&desk->on_line, call);
        metrics_add(desk->context.metrics, METRIC_CALLS_DIALED_TOTAL,
                    SERVICE_COUNT, 1);
        return;
    }
    if (rc == RC_INVALID) {
        (void)limiter_return(desk->limiter, &call->permit);
        attempt_failed(desk, call, "call.url cannot be used");
    } else {
        take_back(desk, call);
        requeue(desk, call, desk->now.ms + TRY_AGAIN_MS, "");
    }
}

/* Is there a call to dial, and may one more be in flight? */
static bool
wants_slot(const struct call_desk *desk)
{
    return desk->waiting.first != NULL &&
           desk->unsubmitted.count + desk->writing + desk->on_line.count <
               (size_t)desk->conf.max_in_flight;
}

static void
begin_dials(struct call_desk *desk)
{
    while (wants_slot(desk)) {
        struct limiter_permit permit;
        struct call *call;

        if (limiter_take(desk->limiter, desk->now.boot_us, &permit) != RC_OK) {
            return;
        }
        call = list_take(&desk->waiting);
        call->permit = permit;
        call->has_permit = true;
        call->state = CALL_DIALING;
        call->attempts++;
        call->dialed_before_unix_ms = call->dialed_unix_ms;
        call->dialed_unix_ms = desk->now.unix_ms;
        record(desk, call, CALL_RECORD_DIAL);
    }
}

/* A dial that found the call canceled has taken nothing. */
static void
canceled(struct call_desk *desk, struct call *call)
{
    take_back(desk, call);
    call->has_permit = false;
    finish(desk, call, CALL_CANCELED, "");
}

static void
queue_again(struct call_desk *desk, struct call *call)
{
    call->has_permit = false;
    list_insert(call->due_ms > desk->now.ms ? &desk->resting : &desk->waiting,
                call);
}

static void
call_written(void *arg, struct write *write, struct now now)
{
    struct call_desk *desk = arg;
    struct call *call = (struct call *)write;

    desk->now = now;
    desk->writing--;
    if (write->rc != RC_OK) {
        log_event(LOG_ERROR, "call_record_refused", "seq=%" PRId64 " rc=%s",
                  call->seq, rc_name(write->rc));
        desk->noted[0] = '\0'; /* the next write's */
        if (call->record == CALL_RECORD_DIAL) {
            (void)limiter_return(desk->limiter, &call->permit);
        }
        call_free(call); /* it is in the journal for the next start */
        return;
    }
    switch (call->record) {
    case CALL_RECORD_DIAL:
        if (call->begun) {
            dial(desk, call);
        } else {
            canceled(desk, call);
        }
        break;
    case CALL_RECORD_REQUEUE:
        queue_again(desk, call);
        break;
    case CALL_RECORD_FINISH:
        desk->context.outcome_added(desk->context.store);
        call_free(call);
        break;
    case CALL_RECORD_BURY:
        metrics_add(desk->context.metrics, METRIC_DEAD_TOTAL, SERVICE_CALL, 1);
        metrics_add(desk->context.metrics, METRIC_QUARANTINED_TOTAL,
                    SERVICE_CALL, 1);
        log_event(LOG_ERROR, "record_quarantined", "service=%s seq=%" PRId64,
                  service_name(SERVICE_CALL), call->seq);
        call_free(call);
        break;
    }
}

/* ---- requests ---------------------------------------------------------------
 */

static int
by_seq(const void *key, const void *member)
{
    int64_t seq = *(const int64_t *)key;
    const struct recorded *recorded = member;

    return (seq > recorded->seq) - (seq < recorded->seq);
}

/* A call that a former process has begun. */
static void
resume(struct call_desk *desk, struct call *call,
       const struct journal_progress *progress)
{
    call->attempts = progress->attempts;
    call->dialed_unix_ms = progress->started_unix_ms;
    (void)snprintf(call->error, sizeof(call->error), "%.*s",
                   CALL_ERROR_BYTES - 1, progress->error);
    if (progress->state == CALL_QUEUED) {
        list_insert(&desk->waiting, call);
    } else if (progress->state == CALL_CANCELED) {
        finish(desk, call, CALL_CANCELED, "");
    } else {
        outcome_unknown(desk, call, "the dispatcher ended while it dialled");
    }
}

/* False: no memory. */
static bool
take(struct call_desk *desk, const struct work *work)
{
    const struct recorded *recorded = NULL;
    struct call *call = call_new(work);

    if (call == NULL) {
        return false;
    }
    if (call->msg.phone[0] == '\0') {
        record(desk, call, CALL_RECORD_BURY);
        return true;
    }
    if (desk->recorded_count > 0) {
        recorded = bsearch(&call->seq, desk->recorded, desk->recorded_count,
                           sizeof(desk->recorded[0]), by_seq);
    }
    if (recorded != NULL) {
        resume(desk, call, &recorded->progress);
    } else {
        list_insert(&desk->waiting, call);
    }
    return true;
}

static bool
call_has_room(const void *arg)
{
    const struct call_desk *desk = arg;

    return desk->stash == NULL && desk->waiting.count + desk->resting.count +
                                          desk->unsubmitted.count +
                                          desk->writing + desk->on_line.count <
                                      CALLS_MAX;
}

static void
call_accept(void *arg, struct work *work, struct now now)
{
    struct call_desk *desk = arg;

    desk->now = now;
    if (take(desk, work)) {
        work_free(work);
    } else {
        desk->stash = work;
    }
}

/* ---- the turn ---------------------------------------------------------------
 */

static void
submit_again(struct call_desk *desk)
{
    size_t count = desk->unsubmitted.count;

    while (count-- > 0) {
        submit(desk, list_take(&desk->unsubmitted));
    }
}

/* Calls that have rested go back to their place. Returns when the next is due,
 * -1: none. */
static int64_t
wake_rested(struct call_desk *desk)
{
    struct call **at = &desk->resting.first;
    int64_t due_ms = -1;

    while (*at != NULL) {
        struct call *call = *at;

        if (call->due_ms <= desk->now.ms) {
            *at = call->next;
            desk->resting.count--;
            list_insert(&desk->waiting, call);
            continue;
        }
        if (due_ms < 0 || call->due_ms < due_ms) {
            due_ms = call->due_ms;
        }
        at = &call->next;
    }
    return due_ms;
}

static void
show(struct call_desk *desk)
{
    struct metrics *metrics = desk->context.metrics;

    metrics_set(metrics, METRIC_ACTIVE_REQUESTS, SERVICE_CALL,
                (int64_t)(desk->waiting.count + desk->resting.count +
                          desk->unsubmitted.count + desk->writing +
                          desk->on_line.count));
    metrics_set(metrics, METRIC_CALLS_IN_FLIGHT, SERVICE_COUNT,
                (int64_t)desk->on_line.count);
    metrics_set(metrics, METRIC_CALL_GUARD_US, SERVICE_COUNT,
                limiter_guard_us(desk->limiter, desk->now.boot_us));
    metrics_set(metrics, METRIC_CALL_PHASE, SERVICE_COUNT,
                (int64_t)limiter_phase(desk->limiter, desk->now.boot_us));
}

static void
lower(int64_t *wait_ms, int64_t ms)
{
    if (ms >= 0 && ms < *wait_ms) {
        *wait_ms = ms;
    }
}

static int64_t
call_tick(void *arg, struct now now, bool paused)
{
    struct call_desk *desk = arg;
    int64_t wait_ms = IDLE_MS;
    int64_t due_ms;

    desk->now = now;
    if (desk->stash != NULL && take(desk, desk->stash)) {
        work_free(desk->stash);
        desk->stash = NULL;
    }
    submit_again(desk);
    lower(&wait_ms, poster_drive(desk->poster, now.ms));
    due_ms = wake_rested(desk);
    if (!paused) {
        begin_dials(desk);
        lower(&wait_ms, due_ms < 0 ? -1 : due_ms - now.ms);
    }
    if (!paused && wants_slot(desk)) {
        int64_t next_us = limiter_next_us(desk->limiter, now.boot_us);

        if (next_us != INT64_MAX) {
            lower(&wait_ms,
                  (next_us - now.boot_us + US_PER_MS - 1) / US_PER_MS);
        }
    }
    if (desk->stash != NULL || desk->unsubmitted.first != NULL) {
        lower(&wait_ms, TRY_AGAIN_MS);
    }
    show(desk);
    return wait_ms > 0 ? wait_ms : 0;
}

static bool
call_idle(const void *arg)
{
    const struct call_desk *desk = arg;

    return desk->writing == 0 && desk->on_line.count == 0 &&
           desk->stash == NULL && desk->unsubmitted.first == NULL;
}

static int
call_fd(const void *arg)
{
    const struct call_desk *desk = arg;

    return poster_fd(desk->poster);
}

static void
call_report(const void *arg, struct text *out)
{
    const struct call_desk *desk = arg;
    int64_t now_us = desk->now.boot_us;
    int64_t next_us = limiter_next_us(desk->limiter, now_us);

    text_printf(out,
                "\"in_flight\":%zu,\"waiting\":%zu,\"retrying\":%zu,"
                "\"limiter\":{\"phase\":\"%s\",\"guard_us\":%" PRId64
                ",\"next_ms\":%" PRId64 "}",
                desk->on_line.count, desk->waiting.count, desk->resting.count,
                limiter_phase_name(limiter_phase(desk->limiter, now_us)),
                limiter_guard_us(desk->limiter, now_us),
                next_us == INT64_MAX ? -1 : (next_us - now_us) / US_PER_MS);
}

/* ---- made and freed ---------------------------------------------------------
 */

static bool
remember(void *arg, int64_t seq, const struct journal_progress *progress)
{
    struct call_desk *desk = arg;

    /* One that has ended waits for the store, and is not handed on again. */
    if (progress->state == CALL_ANSWERED || progress->state == CALL_FAILED ||
        progress->state == CALL_UNKNOWN) {
        return true;
    }
    if (desk->recorded_count == desk->recorded_capacity) {
        size_t capacity = desk->recorded_capacity * 2 + 64;
        struct recorded *grown =
            realloc(desk->recorded, capacity * sizeof(desk->recorded[0]));

        if (grown == NULL) {
            desk->recorded_capacity = SIZE_MAX; /* told by load() */
            return false;
        }
        desk->recorded = grown;
        desk->recorded_capacity = capacity;
    }
    desk->recorded[desk->recorded_count++] =
        (struct recorded){.seq = seq, .progress = *progress};
    return true;
}

/* The slots that were recorded, with the number of each as its place. */
struct saved {
    struct limiter_state state;
    int64_t *moments;
    size_t capacity;
    bool same_boot;
    const char *boot;
};

static bool
remember_slot(void *arg, const struct journal_slot *slot)
{
    struct saved *saved = arg;

    if (slot->no >= 0 && (uint64_t)slot->no < saved->capacity) {
        size_t no = (size_t)slot->no;

        saved->moments[no] = slot->free_at_us;
        saved->state.slot_count =
            no + 1 > saved->state.slot_count ? no + 1 : saved->state.slot_count;
        saved->same_boot =
            saved->same_boot && strcmp(slot->boot, saved->boot) == 0;
    }
    return true;
}

static void
read_note(const struct call_desk *desk, const char *note, struct saved *saved)
{
    char boot[CLOCK_BOOT_ID_BYTES] = "";
    int phase = 0;
    struct limiter_state *s = &saved->state;

    if (sscanf(note, "%36s %" SCNd64 " %" SCNd64 " %" SCNd64 " %d %u %" SCNd64,
               boot, &s->window_us, &s->guard_us, &s->guard_at_us, &phase,
               &s->step, &s->end_us) != 7 ||
        s->window_us < 1 || s->window_us > LIMITER_WINDOW_MAX_US ||
        phase < LIMITER_OPEN || phase > LIMITER_REFILLING) {
        s->window_us = desk->conf.rate_window_ms * US_PER_MS;
        s->guard_us = 0;
        s->step = 0;
        return;
    }
    s->phase = (enum limiter_phase)phase;
    saved->same_boot = saved->same_boot && strcmp(boot, saved->boot) == 0;
}

static enum rc
make_limiter(struct call_desk *desk, struct journal *journal, int64_t now_us)
{
    const struct conf_call *conf = &desk->conf;
    const struct limiter_options options = {
        .count = (size_t)conf->rate_count,
        .window_us = conf->rate_window_ms * US_PER_MS,
        .guard_min_us = conf->guard_ms * US_PER_MS,
        .backoff_us = conf->backoff_ms * US_PER_MS,
        .max_backoff_us = US_PER_MS * (conf->max_backoff_ms > conf->backoff_ms
                                           ? conf->max_backoff_ms
                                           : conf->backoff_ms),
        .flight_us = LIMITER_FLIGHT_US,
    };
    struct saved saved = {.same_boot = true, .boot = desk->boot};
    char note[CALL_NOTE_BYTES];
    enum rc rc;

    saved.capacity = LIMITER_COUNT_MAX;
    saved.moments = malloc(saved.capacity * sizeof(saved.moments[0]));
    if (saved.moments == NULL) {
        return RC_NOMEM;
    }
    for (size_t i = 0; i < saved.capacity; i++) {
        saved.moments[i] = LIMITER_FREE;
    }
    rc = journal_slot_each(journal, remember_slot, &saved);
    if (rc == RC_OK) {
        rc = journal_note_get(journal, "limiter", note, sizeof(note));
    }
    if (rc == RC_AGAIN) { /* no journal yet */
        note[0] = '\0';
        rc = RC_OK;
    }
    if (rc == RC_OK) {
        saved.state.free_at_us = saved.moments;
        saved.state.saved_us = now_us;
        read_note(desk, note, &saved);
        rc = limiter_new(&desk->limiter, &options,
                         saved.state.slot_count > 0 ? &saved.state : NULL,
                         saved.same_boot, now_us);
    }
    free(saved.moments);
    return rc;
}

static void
poster_bounds(const struct conf_call *conf, struct poster_options *out)
{
    *out = (struct poster_options){
        .concurrency = (size_t)conf->max_in_flight,
        .timeout_ms = conf->timeout_ms,
        .max_body_bytes = ANSWER_MAX_BYTES,
    };
}

static void
call_configure(void *arg, const struct conf *conf)
{
    struct call_desk *desk = arg;
    struct poster_options options;

    desk->conf = conf->call;
    poster_bounds(&desk->conf, &options);
    poster_set(desk->poster, &options);
}

static void
call_desk_free(void **arg)
{
    struct call_desk *desk = *arg;

    *arg = NULL;
    if (desk == NULL) {
        return;
    }
    poster_free(&desk->poster); /* before the calls that it names */
    limiter_free(&desk->limiter);
    list_free(&desk->waiting);
    list_free(&desk->resting);
    list_free(&desk->unsubmitted);
    list_free(&desk->on_line);
    work_free(desk->stash);
    free(desk->recorded);
    free(desk);
}

static enum rc
load(struct call_desk *desk, struct journal *journal)
{
    enum rc rc = journal_progress_each(journal, SERVICE_CALL, remember, desk);

    if (desk->recorded_capacity == SIZE_MAX) {
        return RC_NOMEM;
    }
    return rc == RC_AGAIN ? RC_OK : rc; /* no journal yet: nothing recorded */
}

static enum rc
call_desk_new(void **out, const struct service_context *context)
{
    struct call_desk *desk = calloc(1, sizeof(*desk));
    struct poster_options options;
    enum rc rc;

    *out = NULL;
    if (desk == NULL) {
        return RC_NOMEM;
    }
    desk->context = *context;
    desk->conf = context->conf->call;
    desk->context.conf = NULL;
    desk->context.journal = NULL;
    (void)clock_boot_id(desk->boot);
    backoff_init(&desk->backoff);
    poster_bounds(&desk->conf, &options);
    rc = load(desk, context->journal);
    if (rc == RC_OK) {
        rc = make_limiter(desk, context->journal, context->boot_us);
    }
    if (rc == RC_OK) {
        rc = poster_new(&desk->poster, &options, &post_calls, desk);
    }
    if (rc != RC_OK) {
        void *self = desk;

        call_desk_free(&self);
        return rc;
    }
    *out = desk;
    return RC_OK;
}

const struct service_ops call_service = {
    .service = SERVICE_CALL,
    .new = call_desk_new,
    .free = call_desk_free,
    .fd = call_fd,
    .has_room = call_has_room,
    .accept = call_accept,
    .written = call_written,
    .tick = call_tick,
    .idle = call_idle,
    .configure = call_configure,
    .report = call_report,
};
