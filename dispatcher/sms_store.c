/* How outcomes of batches get into PostgreSQL's tables sms and sms_batches. The
 * items are the messages, then the batches' lines. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/pg_arrays.h"
#include "dispatcher/store_pg.h"
#include "shared/sms_batch.h"
#include "shared/sms_msg.h"
#include "shared/sms_state.h"
#include "shared/sms_text.h"
#include "shared/text.h"

/* A row that is there stays: a repeat after a crash finds it, perhaps with a
 * status of the provider's already. */
static const char messages_sql[] =
    "INSERT INTO sms (id, phone_number, content, segments, encoding, status,"
    " seen_states, batch_id, received_at, sent_at)"
    " SELECT id, phone, content, segments, encoding, $9::text, $10::smallint,"
    " batch, timestamptz 'epoch' + received * interval '1 millisecond',"
    " timestamptz 'epoch' + nullif(sent, 0) * interval '1 millisecond'"
    " FROM unnest($1::uuid[], $2::text[], $3::text[], $4::smallint[],"
    " $5::text[], $6::uuid[], $7::bigint[], $8::bigint[])"
    " AS t (id, phone, content, segments, encoding, batch, received, sent)"
    " ON CONFLICT (id) DO NOTHING";

enum message_column {
    MESSAGE_ID,
    MESSAGE_PHONE,
    MESSAGE_CONTENT,
    MESSAGE_SEGMENTS,
    MESSAGE_ENCODING,
    MESSAGE_BATCH,
    MESSAGE_RECEIVED,
    MESSAGE_SENT,
    MESSAGE_COLUMNS,
    /* and what all of them have in common */
    MESSAGE_STATUS = MESSAGE_COLUMNS,
    MESSAGE_SEEN,
    MESSAGE_PARAMS
};

/* A batch retried from the dead letters ends once more, later and with more
 * attempts; an older end that is repeated after a crash changes nothing. One of
 * the two is enough: the wall clock may have stepped back. */
static const char batches_sql[] =
    "INSERT INTO sms_batches AS b (batch_id, size, attempts, duration_ms,"
    " started_at, finished_at, error)"
    " SELECT id, size, attempts, duration,"
    " timestamptz 'epoch' + started * interval '1 millisecond',"
    " timestamptz 'epoch' + finished * interval '1 millisecond',"
    " nullif(error, '')"
    " FROM unnest($1::uuid[], $2::int[], $3::int[], $4::bigint[], $5::bigint[],"
    " $6::bigint[], $7::text[])"
    " AS t (id, size, attempts, duration, started, finished, error)"
    " ON CONFLICT (batch_id) DO UPDATE"
    " SET size = excluded.size, attempts = excluded.attempts,"
    " duration_ms = excluded.duration_ms, started_at = excluded.started_at,"
    " finished_at = excluded.finished_at, error = excluded.error"
    " WHERE excluded.attempts > b.attempts"
    " OR excluded.finished_at > b.finished_at";

enum batch_column {
    BATCH_ID,
    BATCH_SIZE,
    BATCH_ATTEMPTS,
    BATCH_DURATION,
    BATCH_STARTED,
    BATCH_FINISHED,
    BATCH_ERROR,
    BATCH_COLUMNS
};

struct message {
    int64_t seq;
    struct uuid id;
    struct uuid batch;
    bool in_batch;
    int64_t received_unix_ms;
    int64_t sent_unix_ms; /* 0: not known to be */
    struct sms_size size;
    char phone[SMS_PHONE_BYTES];
    size_t content_at; /* in contents */
    size_t content_bytes;
};

struct sms_store {
    struct message *messages;
    size_t count;
    size_t capacity;
    struct text contents;
    struct sms_batch *batches;
    size_t batch_count;
    size_t batch_capacity;
    struct sms_msg msg; /* the one being decoded */
    struct pg_arrays *message_rows;
    struct pg_arrays *batch_rows;
};

/* ---- decoding -------------------------------------------------------------
 */

static enum rc
add_message(struct sms_store *s, const struct sms_sent *sent,
            const struct sms_batch *batch)
{
    struct message *m;
    enum rc rc = sms_msg_decode(sent->body, sent->body_bytes, &s->msg);

    if (rc != RC_OK) {
        return rc;
    }
    if (s->count == s->capacity) {
        size_t capacity = s->capacity * 2 + 64;
        struct message *grown =
            realloc(s->messages, capacity * sizeof(s->messages[0]));

        if (grown == NULL) {
            return RC_NOMEM;
        }
        s->messages = grown;
        s->capacity = capacity;
    }
    m = &s->messages[s->count];
    *m = (struct message){.seq = sent->seq,
                          .id = sent->id,
                          .received_unix_ms = sent->received_unix_ms,
                          .content_at = s->contents.bytes,
                          .content_bytes = s->msg.content_bytes};
    if (batch != NULL) {
        m->in_batch = true;
        m->batch = batch->id;
        m->sent_unix_ms = batch->error[0] == '\0' ? batch->finished_unix_ms : 0;
    }
    (void)snprintf(m->phone, sizeof(m->phone), "%s", s->msg.phone);
    text_append(&s->contents, s->msg.content, s->msg.content_bytes);
    rc = sms_text_size(s->msg.content, s->msg.content_bytes, &m->size);
    if (rc == RC_OK && text_failed(&s->contents)) {
        rc = RC_NOMEM;
    }
    s->count += rc == RC_OK ? 1 : 0;
    return rc;
}

static enum rc
add_batch(struct sms_store *s, const struct sms_batch *batch)
{
    if (s->batch_count == s->batch_capacity) {
        size_t capacity = s->batch_capacity * 2 + 16;
        struct sms_batch *grown =
            realloc(s->batches, capacity * sizeof(s->batches[0]));

        if (grown == NULL) {
            return RC_NOMEM;
        }
        s->batches = grown;
        s->batch_capacity = capacity;
    }
    s->batches[s->batch_count++] = *batch;
    return RC_OK;
}

static enum rc
decode(struct sms_store *s, const struct journal_row *outcome)
{
    struct sms_batch batch;
    struct sms_batch_cursor cursor;
    struct sms_sent sent;
    bool has = false;
    enum rc rc = sms_batch_open(outcome->body, outcome->body_bytes, &batch,
                                &has, &cursor);

    if (rc != RC_OK) {
        return rc;
    }
    rc = sms_batch_next(&cursor, &sent);
    while (rc == RC_OK) {
        rc = add_message(s, &sent, has ? &batch : NULL);
        if (rc == RC_OK) {
            rc = sms_batch_next(&cursor, &sent);
        }
    }
    if (rc == RC_AGAIN) {
        rc = has ? add_batch(s, &batch) : RC_OK;
    }
    return rc;
}

static enum rc
store_decode(void *self, const struct journal_row *outcome)
{
    struct sms_store *s = self;
    size_t count = s->count;
    size_t bytes = s->contents.bytes;
    enum rc rc = outcome->broken ? RC_INVALID : decode(s, outcome);

    if (rc != RC_OK) { /* all of an outcome or nothing */
        s->count = count;
        s->contents.bytes = bytes;
    }
    return rc;
}

static void
store_release(void *self)
{
    struct sms_store *s = self;

    s->count = 0;
    s->batch_count = 0;
    text_reset(&s->contents);
}

/* ---- items ----------------------------------------------------------------
 */

static size_t
store_count(const void *self)
{
    const struct sms_store *s = self;

    return s->count + s->batch_count;
}

/* A batch's line is no request's: were it refused, nothing is to be buried (no
 * seq is 0), for the messages are stored. */
static struct store_item
store_get(const void *self, size_t index)
{
    const struct sms_store *s = self;

    if (index < s->count) {
        return (struct store_item){.seq = s->messages[index].seq,
                                   .data = &s->messages[index]};
    }
    return (struct store_item){.seq = 0, .data = &s->batches[index - s->count]};
}

static void
store_name(const void *self, size_t index, char out[JOURNAL_ITEM_BYTES])
{
    const struct sms_store *s = self;

    (void)uuid_format(index < s->count ? &s->messages[index].id
                                       : &s->batches[index - s->count].id,
                      out);
}

/* ---- persisting -----------------------------------------------------------
 */

static void
put_message(struct sms_store *s, const struct message *m)
{
    struct pg_arrays *rows = s->message_rows;
    const char *encoding = sms_encoding_name(m->size.encoding);

    pg_arrays_uuid(rows, MESSAGE_ID, &m->id);
    pg_arrays_text(rows, MESSAGE_PHONE, m->phone, strlen(m->phone));
    pg_arrays_text(rows, MESSAGE_CONTENT,
                   text_cstr(&s->contents) + m->content_at, m->content_bytes);
    pg_arrays_int(rows, MESSAGE_SEGMENTS, m->size.segments);
    pg_arrays_text(rows, MESSAGE_ENCODING, encoding, strlen(encoding));
    if (m->in_batch) {
        pg_arrays_uuid(rows, MESSAGE_BATCH, &m->batch);
    } else {
        pg_arrays_null(rows, MESSAGE_BATCH);
    }
    pg_arrays_int(rows, MESSAGE_RECEIVED, m->received_unix_ms);
    pg_arrays_int(rows, MESSAGE_SENT, m->sent_unix_ms);
}

static enum rc
persist_messages(struct sms_store *s, struct pg *pg, size_t from, size_t to)
{
    const char *params[MESSAGE_PARAMS];
    char seen[24];
    enum rc rc;

    if (from >= to) {
        return RC_OK;
    }
    pg_arrays_begin(s->message_rows);
    for (size_t i = from; i < to; i++) {
        put_message(s, &s->messages[i]);
    }
    rc = pg_arrays_end(s->message_rows, params);
    (void)snprintf(seen, sizeof(seen), "%u", 1U << SMS_ACCEPTED);
    params[MESSAGE_STATUS] = sms_state_name(SMS_ACCEPTED);
    params[MESSAGE_SEEN] = seen;
    return rc == RC_OK ? pg_exec(pg, messages_sql, MESSAGE_PARAMS, params, NULL)
                       : rc;
}

static void
put_batch(struct sms_store *s, const struct sms_batch *b)
{
    struct pg_arrays *rows = s->batch_rows;
    int64_t duration_ms = b->finished_unix_ms - b->started_unix_ms;

    pg_arrays_uuid(rows, BATCH_ID, &b->id);
    pg_arrays_int(rows, BATCH_SIZE, b->size);
    pg_arrays_int(rows, BATCH_ATTEMPTS, b->attempts);
    pg_arrays_int(rows, BATCH_DURATION, duration_ms > 0 ? duration_ms : 0);
    pg_arrays_int(rows, BATCH_STARTED, b->started_unix_ms);
    pg_arrays_int(rows, BATCH_FINISHED, b->finished_unix_ms);
    pg_arrays_text(rows, BATCH_ERROR, b->error, strlen(b->error));
}

/* Is there a later end of the same batch among these? One statement may not
 * change a row twice. */
static bool
ends_again(const struct sms_store *s, size_t index, size_t to)
{
    const struct uuid *id = &s->batches[index].id;

    for (size_t i = index + 1; i < to; i++) {
        if (memcmp(s->batches[i].id.bytes, id->bytes, UUID_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

static enum rc
persist_batches(struct sms_store *s, struct pg *pg, size_t from, size_t to)
{
    const char *params[BATCH_COLUMNS];
    enum rc rc;

    if (from >= to) {
        return RC_OK;
    }
    pg_arrays_begin(s->batch_rows);
    for (size_t i = from; i < to; i++) {
        if (!ends_again(s, i, to)) {
            put_batch(s, &s->batches[i]);
        }
    }
    rc = pg_arrays_end(s->batch_rows, params);
    return rc == RC_OK ? pg_exec(pg, batches_sql, BATCH_COLUMNS, params, NULL)
                       : rc;
}

static enum rc
store_persist(void *self, struct pg *pg, size_t from, size_t to)
{
    struct sms_store *s = self;
    enum rc rc = persist_messages(s, pg, from, to < s->count ? to : s->count);

    if (rc == RC_OK && to > s->count) {
        rc = persist_batches(s, pg, from > s->count ? from - s->count : 0,
                             to - s->count);
    }
    return rc;
}

/* ---- new and free ---------------------------------------------------------
 */

static void
store_configure(void *self, const struct conf *conf)
{
    (void)self;
    (void)conf;
}

static void
store_free(void **self)
{
    struct sms_store *s = *self;

    *self = NULL;
    if (s == NULL) {
        return;
    }
    pg_arrays_free(&s->message_rows);
    pg_arrays_free(&s->batch_rows);
    text_free(&s->contents);
    free(s->messages);
    free(s->batches);
    free(s);
}

static enum rc
store_new(void **self, const struct conf *conf, struct metrics *metrics)
{
    struct sms_store *s = calloc(1, sizeof(*s));

    (void)conf;
    (void)metrics;
    *self = s;
    if (s == NULL ||
        pg_arrays_new(&s->message_rows, MESSAGE_COLUMNS) != RC_OK ||
        pg_arrays_new(&s->batch_rows, BATCH_COLUMNS) != RC_OK) {
        store_free(self);
        return RC_NOMEM;
    }
    return RC_OK;
}

const struct store_persister sms_persister = {
    .service = SERVICE_SMS,
    .decode = store_decode,
    .count = store_count,
    .item = store_get,
    .persist = store_persist,
    .name = store_name,
    .release = store_release,
    .every_second = NULL,
    .new = store_new,
    .configure = store_configure,
    .free = store_free,
};
