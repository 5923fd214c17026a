/* Batches of status updates from the SMS provider: on their own queue, so that
 * they never delay sending. What an update does to its message the database
 * decides (sms_status_store.c). Here it is noted which messages the journal
 * still has, for those an update may be early; and what the provider has
 * spoken of was sent: no dead letter any more, and none in future.
 *
 * The journal is asked before the outcome is written, the database after it:
 * a message that has left the journal by then was in the database before. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/service.h"
#include "shared/journal_batch.h"
#include "shared/log.h"
#include "shared/sms_batch.h"
#include "shared/sms_update.h"

#define IN_HAND_MAX 8U /* requests, of up to 10 000 updates each */
#define TRY_AGAIN_MS 10
#define IDLE_MS 60000

/* A request of updates in our hands. */
struct updates {
    struct write write; /* first */
    struct updates *next;
    struct work *work;
    struct text outcome;
    struct uuid *spoken; /* messages to take out of the dead letters, or to keep
                            from becoming some */
    size_t spoken_count;
    size_t spoken_capacity;
    int64_t now_unix_ms;
    bool broken;
};

struct status_desk {
    struct service_context context;
    struct work *waiting[IN_HAND_MAX]; /* accepted, in order */
    size_t waiting_count;
    struct updates *unsubmitted; /* the writer was full */
    size_t writing;              /* the writer has them */
};

static void
updates_free(struct updates *u)
{
    if (u != NULL) {
        work_free(u->work);
        text_free(&u->outcome);
        free(u->spoken);
        free(u);
    }
}

/* ---- on the writer's thread ------------------------------------------------
 */

/* A dead letter back in the queue: store it like one that was sent. */
static enum rc
save(struct journal *journal, const struct journal_row *row,
     const struct text *body)
{
    const struct sms_sent sent = {
        .seq = row->seq,
        .received_unix_ms = row->received_unix_ms,
        .id = row->id,
        .body = text_cstr(body),
        .body_bytes = body->bytes,
    };
    struct text outcome = {0};
    int64_t no = 0;
    enum rc rc = RC_NOMEM;

    sms_batch_begin(NULL, &outcome);
    sms_batch_put(&sent, &outcome);
    if (!text_failed(&outcome)) {
        rc = journal_outcome_add(journal, SERVICE_SMS, text_cstr(&outcome),
                                 outcome.bytes, &no);
    }
    if (rc == RC_OK) {
        rc = journal_finish(journal, SERVICE_SMS, row->seq, no);
    }
    text_free(&outcome);
    return rc;
}

static enum rc
note_spoken(struct journal *journal, struct updates *u)
{
    struct text body = {0};
    enum rc rc = RC_OK;

    for (size_t i = 0; rc == RC_OK && i < u->spoken_count; i++) {
        struct journal_row row;

        text_reset(&body);
        rc = journal_batch_reported(journal, &u->spoken[i], u->now_unix_ms,
                                    &row, &body);
        if (rc == RC_OK) {
            rc = save(journal, &row, &body);
        }
        rc = rc == RC_AGAIN ? RC_OK : rc;
    }
    text_free(&body);
    return rc;
}

static enum rc
apply_updates(struct journal *journal, struct write *write)
{
    struct updates *u = (struct updates *)write;
    int64_t no = 0;
    enum rc rc;

    rc = journal_outcome_add(journal, SERVICE_SMS_STATUS,
                             text_cstr(&u->outcome), u->outcome.bytes, &no);
    if (rc == RC_OK) {
        rc = journal_finish(journal, SERVICE_SMS_STATUS, u->work->seq, no);
    }
    return rc == RC_OK ? note_spoken(journal, u) : rc;
}

static enum rc
apply_bury(struct journal *journal, struct write *write)
{
    const struct updates *u = (const struct updates *)write;

    return journal_bury(journal, SERVICE_SMS_STATUS, u->work->seq,
                        "record cannot be decoded: not status updates", NULL, 0,
                        NULL, 0, u->now_unix_ms);
}

/* ---- requests ---------------------------------------------------------------
 */

static enum rc
remember_spoken(struct updates *u, const struct uuid *id)
{
    if (u->spoken_count == u->spoken_capacity) {
        size_t capacity = u->spoken_capacity * 2 + 16;
        struct uuid *grown =
            realloc(u->spoken, capacity * sizeof(u->spoken[0]));

        if (grown == NULL) {
            return RC_NOMEM;
        }
        u->spoken = grown;
        u->spoken_capacity = capacity;
    }
    u->spoken[u->spoken_count++] = *id;
    return RC_OK;
}

static enum rc
look_up(struct status_desk *desk, struct updates *u, struct sms_update *update)
{
    struct journal_entry entry;
    enum rc rc =
        journal_locate(desk->context.journal, SERVICE_SMS, &update->id, &entry);

    update->known = rc == RC_OK;
    if (rc == RC_OK && entry.place != JOURNAL_PERSISTING) {
        rc = remember_spoken(u, &update->id);
    }
    return rc == RC_AGAIN ? RC_OK : rc;
}

/* The outcome: the updates with what the journal knows. RC_INVALID: they cannot
 * be decoded. */
static enum rc
make_outcome(struct status_desk *desk, struct updates *u)
{
    struct sms_update_cursor cursor = {.body = u->work->body,
                                       .bytes = u->work->body_bytes};
    const struct sms_update_head head = {
        .seq = u->work->seq,
        .received_unix_ms = u->work->received_unix_ms,
        .id = u->work->id,
    };
    struct sms_update update;
    enum rc rc;

    sms_update_head_put(&head, &u->outcome);
    sms_update_begin(&u->outcome);
    for (rc = sms_update_next(&cursor, &update); rc == RC_OK;
         rc = sms_update_next(&cursor, &update)) {
        if (update.mapped) {
            rc = look_up(desk, u, &update);
        }
        if (rc != RC_OK) {
            return rc;
        }
        sms_update_put(&update, &u->outcome);
    }
    if (rc == RC_AGAIN) {
        rc = text_failed(&u->outcome) ? RC_NOMEM : RC_OK;
    }
    return rc;
}

/* Where an update stands in the outcomes is of no matter: the database takes
 * them by what may follow what. */
static void
submit(struct status_desk *desk, struct updates *u)
{
    if (writer_submit(desk->context.writer, &u->write) == RC_OK) {
        desk->writing++;
    } else {
        u->next = desk->unsubmitted;
        desk->unsubmitted = u;
    }
}

/* Owns work on RC_OK. */
static enum rc
take(struct status_desk *desk, struct work *work, int64_t now_unix_ms)
{
    struct updates *u = calloc(1, sizeof(*u));
    enum rc rc = RC_INVALID;

    if (u == NULL) {
        return RC_NOMEM;
    }
    u->work = work;
    u->now_unix_ms = now_unix_ms;
    if (!work->broken) {
        rc = make_outcome(desk, u);
    }
    if (rc != RC_OK && rc != RC_INVALID) {
        u->work = NULL;
        updates_free(u);
        return rc;
    }
    u->broken = rc == RC_INVALID;
    u->write = (struct write){.apply = u->broken ? apply_bury : apply_updates,
                              .reply_to = desk->context.replies};
    submit(desk, u);
    return RC_OK;
}

/* In order, until memory or the journal fails. */
static void
take_all(struct status_desk *desk, int64_t now_unix_ms)
{
    size_t taken = 0;

    while (taken < desk->waiting_count &&
           take(desk, desk->waiting[taken], now_unix_ms) == RC_OK) {
        taken++;
    }
    desk->waiting_count -= taken;
    memmove(desk->waiting, desk->waiting + taken,
            desk->waiting_count * sizeof(desk->waiting[0]));
}

static size_t
in_hand(const struct status_desk *desk)
{
    size_t count = desk->waiting_count + desk->writing;

    for (const struct updates *u = desk->unsubmitted; u != NULL; u = u->next) {
        count++;
    }
    return count;
}

static bool
status_has_room(const void *arg)
{
    return in_hand(arg) < IN_HAND_MAX;
}

static void
status_accept(void *arg, struct work *work, struct now now)
{
    struct status_desk *desk = arg;

    (void)now;
    desk->waiting[desk->waiting_count++] = work;
}

static void
status_written(void *arg, struct write *write, struct now now)
{
    struct status_desk *desk = arg;
    struct updates *u = (struct updates *)write;

    (void)now;
    desk->writing--;
    if (write->rc != RC_OK) {
        log_event(LOG_ERROR, "sms_status_record_refused",
                  "seq=%" PRId64 " rc=%s", u->work->seq, rc_name(write->rc));
    } else if (u->broken) {
        metrics_add(desk->context.metrics, METRIC_DEAD_TOTAL,
                    SERVICE_SMS_STATUS, 1);
        metrics_add(desk->context.metrics, METRIC_QUARANTINED_TOTAL,
                    SERVICE_SMS_STATUS, 1);
        log_event(LOG_ERROR, "record_quarantined", "service=%s seq=%" PRId64,
                  service_name(SERVICE_SMS_STATUS), u->work->seq);
    } else {
        desk->context.outcome_added(desk->context.store);
    }
    updates_free(u);
}

/* ---- the turn ---------------------------------------------------------------
 */

static int64_t
status_tick(void *arg, struct now now, bool paused)
{
    struct status_desk *desk = arg;
    struct updates *u = desk->unsubmitted;

    desk->unsubmitted = NULL;
    while (u != NULL) {
        struct updates *next = u->next;

        submit(desk, u);
        u = next;
    }
    if (!paused) {
        take_all(desk, now.unix_ms);
    }
    metrics_set(desk->context.metrics, METRIC_ACTIVE_REQUESTS,
                SERVICE_SMS_STATUS, (int64_t)in_hand(desk));
    return desk->unsubmitted != NULL || (!paused && desk->waiting_count > 0)
               ? TRY_AGAIN_MS
               : IDLE_MS;
}

static bool
status_idle(const void *arg)
{
    const struct status_desk *desk = arg;

    return desk->writing == 0 && desk->unsubmitted == NULL;
}

static int
status_fd(const void *arg)
{
    (void)arg;
    return -1;
}

static void
status_configure(void *arg, const struct conf *conf)
{
    (void)arg;
    (void)conf;
}

static void
status_report(const void *arg, struct text *out)
{
    const struct status_desk *desk = arg;

    text_printf(out, "\"in_hand\":%zu", in_hand(desk));
}

static void
status_free(void **arg)
{
    struct status_desk *desk = *arg;

    *arg = NULL;
    while (desk != NULL && desk->unsubmitted != NULL) {
        struct updates *u = desk->unsubmitted;

        desk->unsubmitted = u->next;
        updates_free(u);
    }
    for (size_t i = 0; desk != NULL && i < desk->waiting_count; i++) {
        work_free(desk->waiting[i]);
    }
    free(desk);
}

static enum rc
status_new(void **out, const struct service_context *context)
{
    struct status_desk *desk = calloc(1, sizeof(*desk));

    *out = desk;
    if (desk == NULL) {
        return RC_NOMEM;
    }
    desk->context = *context;
    desk->context.conf = NULL;
    return RC_OK;
}

const struct service_ops sms_status_service = {
    .service = SERVICE_SMS_STATUS,
    .new = status_new,
    .free = status_free,
    .fd = status_fd,
    .has_room = status_has_room,
    .accept = status_accept,
    .written = status_written,
    .tick = status_tick,
    .idle = status_idle,
    .configure = status_configure,
    .report = status_report,
};
