/* What is written of a batch; the apply functions run on the writer's thread,
 * perhaps more than once. */
#include "dispatcher/sms_record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/sms_batch.h"
#include "shared/sms_msg.h"

/* ---- a flight ---------------------------------------------------------------
 */

struct sms_flight *
sms_flight_new(const struct uuid *id, size_t capacity)
{
    struct sms_flight *flight = calloc(1, sizeof(*flight));

    if (flight == NULL) {
        return NULL;
    }
    flight->members = calloc(capacity, sizeof(flight->members[0]));
    flight->saved = calloc(capacity, sizeof(flight->saved[0]));
    if (flight->members == NULL || flight->saved == NULL) {
        sms_flight_free(flight);
        return NULL;
    }
    flight->capacity = capacity;
    flight->batch.id = *id;
    return flight;
}

void
sms_flight_free(struct sms_flight *flight)
{
    if (flight == NULL) {
        return;
    }
    for (size_t i = 0; i < flight->capacity; i++) {
        work_free(flight->members[i]);
    }
    sms_flight_free(flight->halves[0]);
    sms_flight_free(flight->halves[1]);
    free(flight->members);
    free(flight->saved);
    text_free(&flight->body);
    text_free(&flight->outcome);
    free(flight);
}

enum rc
sms_flight_put(struct sms_flight *flight, size_t place, struct work *work)
{
    if (place >= flight->capacity || flight->members[place] != NULL) {
        return RC_FULL;
    }
    flight->members[place] = work;
    flight->count++;
    return RC_OK;
}

void
sms_flight_close(struct sms_flight *flight)
{
    size_t to = 0;

    for (size_t from = 0; from < flight->capacity; from++) {
        struct work *member = flight->members[from];

        if (member != NULL) {
            flight->members[from] = NULL;
            flight->members[to++] = member;
        }
    }
}

enum rc
sms_flight_split(struct sms_flight *flight, const struct uuid *ids,
                 size_t parts)
{
    size_t first = parts > 1 ? (flight->count + 1) / 2 : flight->count;
    size_t sizes[] = {first, flight->count - first};
    size_t from = 0;

    for (size_t i = 0; i < parts; i++) {
        flight->halves[i] = sms_flight_new(&ids[i], sizes[i]);
        if (flight->halves[i] == NULL) {
            sms_flight_join(flight);
            return RC_NOMEM;
        }
    }
    for (size_t i = 0; i < parts; i++) {
        struct sms_flight *half = flight->halves[i];

        memcpy(half->members, flight->members + from,
               sizes[i] * sizeof(half->members[0]));
        memset(flight->members + from, 0, sizes[i] * sizeof(half->members[0]));
        half->count = sizes[i];
        half->batch.size = (int64_t)sizes[i];
        from += sizes[i];
    }
    flight->count = 0;
    return RC_OK;
}

void
sms_flight_join(struct sms_flight *flight)
{
    for (size_t i = 0; i < ARRAY_COUNT(flight->halves); i++) {
        struct sms_flight *half = flight->halves[i];

        for (size_t k = 0; half != NULL && k < half->count; k++) {
            flight->members[flight->count++] = half->members[k];
            half->members[k] = NULL;
        }
        sms_flight_free(half);
        flight->halves[i] = NULL;
    }
}

static enum rc
put_message(struct text *out, const struct work *work)
{
    struct sms_msg msg;
    char id[UUID_TEXT_BYTES];
    enum rc rc = sms_msg_decode(work->body, work->body_bytes, &msg);

    if (rc == RC_OK) {
        /* Of all that comes in only the content needs escapes. */
        text_printf(
            out, "{\"message_id\":\"%s\",\"phone_number\":\"%s\",\"message\":",
            uuid_format(&work->id, id), msg.phone);
        text_json_string(out, msg.content, msg.content_bytes);
        text_putc(out, '}');
    }
    return rc;
}

enum rc
sms_flight_body(struct sms_flight *flight)
{
    enum rc rc = RC_OK;

    if (flight->body.bytes > 0) {
        return RC_OK;
    }
    for (size_t i = 0; rc == RC_OK && i < flight->count; i++) {
        text_putc(&flight->body, i == 0 ? '[' : ',');
        rc = put_message(&flight->body, flight->members[i]);
    }
    text_putc(&flight->body, ']');
    if (rc == RC_OK && text_failed(&flight->body)) {
        rc = RC_NOMEM;
    }
    if (rc != RC_OK) {
        text_reset(&flight->body);
    }
    return rc;
}

/* ---- on the writer's thread ------------------------------------------------
 */

/* The outcome with the batch's line, but for its messages. What is made anew
 * has not ended. */
static void
begin_outcome(struct sms_flight *flight)
{
    struct sms_batch line = {
        .id = flight->batch.id,
        .size = flight->batch.size,
        .attempts = flight->batch.attempts,
        .started_unix_ms = flight->batch.started_unix_ms,
        .finished_unix_ms = flight->now_unix_ms,
    };

    (void)snprintf(line.error, sizeof(line.error), "%s",
                   flight->record == SMS_RECORD_FINISH ? ""
                                                       : flight->batch.error);
    text_reset(&flight->outcome);
    sms_batch_begin(flight->record == SMS_RECORD_REMAKE ? NULL : &line,
                    &flight->outcome);
}

static void
put_sent(struct sms_flight *flight, const struct work *work)
{
    const struct sms_sent sent = {
        .seq = work->seq,
        .received_unix_ms = work->received_unix_ms,
        .id = work->id,
        .body = work->body,
        .body_bytes = work->body_bytes,
    };

    sms_batch_put(&sent, &flight->outcome);
}

static enum rc
add_outcome(struct journal *journal, const struct sms_flight *flight,
            int64_t *no)
{
    if (text_failed(&flight->outcome)) {
        return RC_NOMEM;
    }
    return journal_outcome_add(journal, SERVICE_SMS,
                               text_cstr(&flight->outcome),
                               flight->outcome.bytes, no);
}

/* Already finished is as good. */
static enum rc
finish_member(struct journal *journal, const struct work *work, int64_t no)
{
    enum rc rc = journal_finish(journal, SERVICE_SMS, work->seq, no);

    return rc == RC_AGAIN ? RC_OK : rc;
}

static enum rc
make_batch(struct journal *journal, const struct sms_flight *flight)
{
    struct uuid ids[JOURNAL_BATCH_MAX];
    size_t count = 0;

    if (flight->count > JOURNAL_BATCH_MAX) {
        return RC_BUG;
    }
    for (size_t i = 0; i < flight->count; i++) {
        if (!flight->saved[i]) {
            ids[count++] = flight->members[i]->id;
        }
    }
    return journal_batch_make(journal, &flight->batch, ids, count);
}

static enum rc
apply_make(struct journal *journal, struct write *write)
{
    return make_batch(journal, (const struct sms_flight *)write);
}

static enum rc
apply_note(struct journal *journal, struct write *write)
{
    const struct sms_flight *flight = (const struct sms_flight *)write;

    return journal_batch_note(journal, &flight->batch, NULL);
}

static enum rc
apply_finish(struct journal *journal, struct write *write)
{
    struct sms_flight *flight = (struct sms_flight *)write;
    int64_t no = 0;
    enum rc rc;

    begin_outcome(flight);
    for (size_t i = 0; i < flight->count; i++) {
        put_sent(flight, flight->members[i]);
    }
    rc = add_outcome(journal, flight, &no);
    for (size_t i = 0; rc == RC_OK && i < flight->count; i++) {
        rc = finish_member(journal, flight->members[i], no);
    }
    return rc == RC_OK ? journal_batch_delete(journal, &flight->batch.id) : rc;
}

/* Has the provider spoken of it? Then it was sent, whatever we saw. */
static enum rc
was_reported(struct journal *journal, const struct work *work, bool *reported)
{
    struct journal_progress progress;
    enum rc rc =
        journal_progress_get(journal, SERVICE_SMS, work->seq, &progress);

    *reported = rc == RC_OK && progress.state == JOURNAL_SMS_REPORTED;
    return rc;
}

/* Find those that it has spoken of, and put them into flight's outcome. *count
 * = of them; those is flight itself, or a half of it. */
static enum rc
find_saved(struct journal *journal, struct sms_flight *flight,
           struct sms_flight *those, size_t *count)
{
    enum rc rc = RC_OK;

    *count = 0;
    for (size_t i = 0; rc == RC_OK && i < those->count; i++) {
        rc = was_reported(journal, those->members[i], &those->saved[i]);
        if (rc == RC_OK && those->saved[i]) {
            put_sent(flight, those->members[i]);
            (*count)++;
        }
    }
    return rc;
}

/* They end with outcome no. */
static enum rc
finish_saved(struct journal *journal, const struct sms_flight *those,
             int64_t no)
{
    enum rc rc = RC_OK;

    for (size_t i = 0; rc == RC_OK && i < those->count; i++) {
        if (those->saved[i]) {
            rc = journal_batch_leave(journal, &those->members[i]->id);
        }
        if (rc == RC_OK && those->saved[i]) {
            rc = finish_member(journal, those->members[i], no);
        }
    }
    return rc;
}

static enum rc
bury_member(struct journal *journal, const struct sms_flight *flight,
            const struct work *work)
{
    enum rc rc =
        journal_bury(journal, SERVICE_SMS, work->seq, flight->batch.error, NULL,
                     0, NULL, 0, flight->now_unix_ms);

    return rc == RC_AGAIN ? RC_OK : rc;
}

/* The outcome of a batch that failed: its line and those that were sent all the
 * same. The others are buried. */
static enum rc
bury_members(struct journal *journal, struct sms_flight *flight)
{
    size_t saved = 0;
    int64_t no = 0;
    enum rc rc;

    flight->buried = 0;
    begin_outcome(flight);
    rc = find_saved(journal, flight, flight, &saved);
    if (rc == RC_OK) {
        rc = add_outcome(journal, flight, &no);
    }
    if (rc == RC_OK) {
        rc = finish_saved(journal, flight, no);
    }
    for (size_t i = 0; rc == RC_OK && i < flight->count; i++) {
        if (!flight->saved[i]) {
            rc = bury_member(journal, flight, flight->members[i]);
            flight->buried++;
        }
    }
    return rc;
}

static enum rc
apply_give_up(struct journal *journal, struct write *write)
{
    struct sms_flight *flight = (struct sms_flight *)write;
    struct journal_batch again = flight->batch;
    enum rc rc;

    again.failures = 0; /* a retry begins anew */
    again.started_unix_ms = 0;
    rc = journal_batch_note(journal, &again, &flight->body);
    return rc == RC_OK || rc == RC_AGAIN ? bury_members(journal, flight) : rc;
}

static enum rc
make_half(struct journal *journal, struct sms_flight *half, size_t saved,
          int64_t no)
{
    enum rc rc = RC_OK;

    half->batch.size = (int64_t)(half->count - saved);
    if (half->batch.size > 0) {
        rc = make_batch(journal, half);
    }
    return rc == RC_OK ? finish_saved(journal, half, no) : rc;
}

static enum rc
apply_split(struct journal *journal, struct write *write)
{
    struct sms_flight *flight = (struct sms_flight *)write;
    size_t saved[ARRAY_COUNT(flight->halves)] = {0};
    int64_t no = 0;
    enum rc rc = journal_batch_delete(journal, &flight->batch.id);

    begin_outcome(flight);
    for (size_t i = 0; rc == RC_OK && i < ARRAY_COUNT(saved); i++) {
        if (flight->halves[i] != NULL) {
            rc = find_saved(journal, flight, flight->halves[i], &saved[i]);
        }
    }
    if (rc == RC_OK &&
        (flight->record == SMS_RECORD_SPLIT || saved[0] + saved[1] > 0)) {
        rc = add_outcome(journal, flight, &no);
    }
    for (size_t i = 0; rc == RC_OK && i < ARRAY_COUNT(saved); i++) {
        if (flight->halves[i] != NULL) {
            rc = make_half(journal, flight->halves[i], saved[i], no);
        }
    }
    return rc;
}

static enum rc
apply_refuse(struct journal *journal, struct write *write)
{
    struct sms_flight *flight = (struct sms_flight *)write;
    enum rc rc = journal_batch_delete(journal, &flight->batch.id);

    return rc == RC_OK ? bury_members(journal, flight) : rc;
}

static enum rc
apply_bury(struct journal *journal, struct write *write)
{
    const struct sms_flight *flight = (const struct sms_flight *)write;
    const struct work *work = flight->members[0];
    enum rc rc = bury_member(journal, flight, work);

    /* Its batch goes on without it, whatever becomes of it. */
    return rc == RC_OK ? journal_batch_leave(journal, &work->id) : rc;
}

/* ---- on the service's thread ------------------------------------------------
 */

void
sms_record_prepare(struct sms_flight *flight, enum sms_record record,
                   struct queue *replies, int64_t now_unix_ms)
{
    static enum rc (*const apply[])(struct journal *, struct write *) = {
        [SMS_RECORD_MAKE] = apply_make,
        [SMS_RECORD_NOTE] = apply_note,
        [SMS_RECORD_FINISH] = apply_finish,
        [SMS_RECORD_GIVE_UP] = apply_give_up,
        [SMS_RECORD_SPLIT] = apply_split,
        [SMS_RECORD_REFUSE] = apply_refuse,
        [SMS_RECORD_REMAKE] = apply_split,
        [SMS_RECORD_BURY] = apply_bury,
    };

    flight->record = record;
    flight->now_unix_ms = now_unix_ms;
    flight->buried = 0;
    flight->write = (struct write){.apply = apply[record], .reply_to = replies};
}
