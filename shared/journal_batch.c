/* Batches of messages: which go upstream together, under which id. */
#include "shared/journal_batch.h"

#include <string.h>

#include "shared/journal_impl.h"

/* ---- reading ---------------------------------------------------------------
 */

enum rc
journal_batch_count(struct journal *j, int64_t *count)
{
    sqlite3_stmt *ask;
    int code;
    enum rc rc = journal_ready(j);

    *count = 0;
    if (rc != RC_OK) {
        return rc;
    }
    ask = journal_sql(j, SQL_BATCH_COUNT, SERVICE_SMS);
    code = sqlite3_step(ask);
    if (code == SQLITE_ROW) {
        *count = sqlite3_column_int64(ask, 0);
    }
    (void)sqlite3_reset(ask);
    return code == SQLITE_ROW ? RC_OK : journal_failed(j, code);
}

/* Ask for one batch; *place: the last column. */
static enum rc
ask_batch(struct journal *j, enum journal_sql which, const struct uuid *id,
          struct journal_batch *out, int64_t *place)
{
    sqlite3_stmt *ask;
    int code;
    enum rc rc = journal_ready(j);

    *out = (struct journal_batch){0};
    *place = 0;
    if (rc != RC_OK) {
        return rc;
    }
    ask = journal_sql(j, which, SERVICE_SMS);
    journal_bind_blob(ask, 1, id->bytes, UUID_BYTES);
    code = sqlite3_step(ask);
    if (code == SQLITE_ROW && sqlite3_column_bytes(ask, 0) == UUID_BYTES) {
        memcpy(out->id.bytes, sqlite3_column_blob(ask, 0), UUID_BYTES);
        out->size = sqlite3_column_int64(ask, 1);
        out->attempts = sqlite3_column_int64(ask, 2);
        out->failures = sqlite3_column_int64(ask, 3);
        out->started_unix_ms = sqlite3_column_int64(ask, 4);
        journal_column_copy(ask, 5, out->error, sizeof out->error);
        out->waiting = sqlite3_column_int64(ask, 6);
        *place = sqlite3_column_int64(ask, 7);
    }
    (void)sqlite3_reset(ask);
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        return journal_failed(j, code);
    }
    return code == SQLITE_ROW ? RC_OK : RC_AGAIN;
}

enum rc
journal_batch_of(struct journal *j, const struct uuid *message,
                 struct journal_batch *out, int64_t *place)
{
    return ask_batch(j, SQL_BATCH_OF, message, out, place);
}

enum rc
journal_batch_find(struct journal *j, const struct uuid *id,
                   struct journal_batch *out)
{
    int64_t place;

    return ask_batch(j, SQL_BATCH_FIND, id, out, &place);
}

enum rc
journal_batch_body(struct journal *j, const struct uuid *id, struct text *out)
{
    sqlite3_stmt *ask;
    size_t before = out->bytes;
    int code;
    enum rc rc = journal_ready(j);

    if (rc != RC_OK) {
        return rc;
    }
    ask = journal_sql(j, SQL_BATCH_BODY, SERVICE_SMS);
    journal_bind_blob(ask, 1, id->bytes, UUID_BYTES);
    code = sqlite3_step(ask);
    if (code == SQLITE_ROW && sqlite3_column_type(ask, 0) == SQLITE_BLOB) {
        text_append(out, sqlite3_column_blob(ask, 0),
                    (size_t)sqlite3_column_bytes(ask, 0));
    }
    (void)sqlite3_reset(ask);
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        return journal_failed(j, code);
    }
    if (text_failed(out)) {
        return RC_NOMEM;
    }
    return out->bytes > before ? RC_OK : RC_AGAIN;
}

enum rc
journal_batch_dead(struct journal *j, const struct uuid *id, int64_t *seqs,
                   size_t max, size_t *count)
{
    sqlite3_stmt *each = journal_sql(j, SQL_DEAD_TOGETHER, SERVICE_SMS);
    int code;

    *count = 0;
    journal_bind_blob(each, 1, id->bytes, UUID_BYTES);
    for (code = sqlite3_step(each); code == SQLITE_ROW && *count < max;
         code = sqlite3_step(each)) {
        seqs[(*count)++] = sqlite3_column_int64(each, 0);
    }
    (void)sqlite3_reset(each);
    return code == SQLITE_ROW || code == SQLITE_DONE ? RC_OK
                                                     : journal_failed(j, code);
}

/* ---- recording --------------------------------------------------------------
 */

/* A change that may find nothing to change. */
static enum rc
change_any(struct journal *j, sqlite3_stmt *statement)
{
    enum rc rc = journal_change(j, statement);

    return rc == RC_AGAIN ? RC_OK : rc;
}

static void
bind_batch(sqlite3_stmt *put, const struct journal_batch *batch)
{
    journal_bind_blob(put, 1, batch->id.bytes, UUID_BYTES);
    (void)sqlite3_bind_int64(put, 2, batch->size);
    (void)sqlite3_bind_int64(put, 3, batch->attempts);
    (void)sqlite3_bind_int64(put, 4, batch->failures);
    (void)sqlite3_bind_int64(put, 5, batch->started_unix_ms);
    journal_bind_text(put, 6, batch->error);
}

enum rc
journal_batch_make(struct journal *j, const struct journal_batch *batch,
                   const struct uuid *messages, size_t count)
{
    sqlite3_stmt *put = journal_sql(j, SQL_BATCH_PUT, SERVICE_SMS);
    sqlite3_stmt *member = journal_sql(j, SQL_MEMBER_PUT, SERVICE_SMS);
    enum rc rc;

    if (!j->writing) {
        return RC_IO;
    }
    bind_batch(put, batch);
    rc = journal_change(j, put);
    for (size_t i = 0; rc == RC_OK && i < count; i++) {
        journal_bind_blob(member, 1, messages[i].bytes, UUID_BYTES);
        journal_bind_blob(member, 2, batch->id.bytes, UUID_BYTES);
        (void)sqlite3_bind_int64(member, 3, (int64_t)i);
        rc = journal_change(j, member);
    }
    return rc;
}

enum rc
journal_batch_note(struct journal *j, const struct journal_batch *batch,
                   const struct text *body)
{
    sqlite3_stmt *note = journal_sql(j, SQL_BATCH_NOTE, SERVICE_SMS);

    if (!j->writing) {
        return RC_IO;
    }
    bind_batch(note, batch);
    if (body != NULL) {
        journal_bind_blob(note, 7, text_cstr(body), body->bytes);
    } else {
        (void)sqlite3_bind_null(note, 7);
    }
    return journal_change(j, note);
}

enum rc
journal_batch_delete(struct journal *j, const struct uuid *id)
{
    sqlite3_stmt *members = journal_sql(j, SQL_MEMBERS_DELETE, SERVICE_SMS);
    sqlite3_stmt *batch = journal_sql(j, SQL_BATCH_DELETE, SERVICE_SMS);
    enum rc rc;

    if (!j->writing) {
        return RC_IO;
    }
    journal_bind_blob(members, 1, id->bytes, UUID_BYTES);
    journal_bind_blob(batch, 1, id->bytes, UUID_BYTES);
    rc = change_any(j, members);
    return rc == RC_OK ? change_any(j, batch) : rc;
}

/* Delete a membership; *batch = whose. RC_AGAIN: there is none. */
static enum rc
member_delete(struct journal *j, const struct uuid *message, struct uuid *batch)
{
    sqlite3_stmt *member = journal_sql(j, SQL_MEMBER_DELETE, SERVICE_SMS);
    bool found = false;
    int code;

    journal_bind_blob(member, 1, message->bytes, UUID_BYTES);
    for (code = sqlite3_step(member); code == SQLITE_ROW;
         code = sqlite3_step(member)) {
        found = sqlite3_column_bytes(member, 0) == UUID_BYTES;
        if (found) {
            memcpy(batch->bytes, sqlite3_column_blob(member, 0), UUID_BYTES);
        }
    }
    (void)sqlite3_reset(member);
    if (code != SQLITE_DONE) {
        return journal_failed(j, code);
    }
    return found ? RC_OK : RC_AGAIN;
}

enum rc
journal_batch_dissolve(struct journal *j, const struct uuid *message)
{
    struct uuid batch;
    enum rc rc = member_delete(j, message, &batch);

    if (rc == RC_OK) {
        rc = journal_batch_delete(j, &batch);
    }
    return rc == RC_AGAIN ? RC_OK : rc;
}

enum rc
journal_batch_leave(struct journal *j, const struct uuid *message)
{
    sqlite3_stmt *empty = journal_sql(j, SQL_BATCH_DELETE_EMPTY, SERVICE_SMS);
    struct uuid batch;
    enum rc rc;

    if (!j->writing) {
        return RC_IO;
    }
    rc = member_delete(j, message, &batch);
    if (rc == RC_OK) {
        journal_bind_blob(empty, 1, batch.bytes, UUID_BYTES);
        rc = change_any(j, empty);
    }
    return rc == RC_AGAIN ? RC_OK : rc;
}

/* A dead letter goes back into the queue as row, out of its batch: that one is
 * sent again, if ever, as it was. */
static enum rc
take_dead(struct journal *j, const struct journal_entry *dead,
          int64_t now_unix_ms, struct journal_row *row, struct text *body)
{
    sqlite3_stmt *ask = journal_sql(j, SQL_QUEUE_ROW, SERVICE_SMS);
    int64_t seq = 0;
    int code;
    enum rc rc =
        journal_dead_requeue(j, SERVICE_SMS, dead->seq, now_unix_ms, &seq);

    if (rc == RC_OK) {
        rc = journal_batch_leave(j, &dead->id);
    }
    if (rc != RC_OK) {
        return rc;
    }
    (void)sqlite3_bind_int64(ask, 1, seq);
    code = sqlite3_step(ask);
    if (code == SQLITE_ROW) {
        journal_row_decode(ask, row);
        text_append(body, row->body, row->body_bytes);
    }
    row->body = NULL;
    (void)sqlite3_reset(ask);
    if (code != SQLITE_ROW) {
        return journal_failed(j, code);
    }
    return text_failed(body) ? RC_NOMEM : RC_OK;
}

enum rc
journal_batch_reported(struct journal *j, const struct uuid *id,
                       int64_t now_unix_ms, struct journal_row *row,
                       struct text *body)
{
    const struct journal_progress reported = {.state = JOURNAL_SMS_REPORTED};
    struct journal_entry entry;
    enum rc rc;

    *row = (struct journal_row){0};
    if (!j->writing) {
        return RC_IO;
    }
    rc = journal_locate(j, SERVICE_SMS, id, &entry);
    if (rc == RC_OK && entry.place == JOURNAL_DEAD) {
        return take_dead(j, &entry, now_unix_ms, row, body);
    }
    if (rc == RC_OK && entry.place == JOURNAL_PENDING) {
        rc = journal_progress_put(j, SERVICE_SMS, entry.seq, &reported);
    }
    return rc == RC_OK ? RC_AGAIN : rc;
}
