/* Recording: the dispatcher's one writer and its housekeeping. What changes a
 * queue changes its counters in the same transaction, by the rows that really
 * changed, so that a repeat after a crash counts nothing twice. */
#include "shared/journal_batch.h"
#include "shared/journal_impl.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* A pass of a checkpoint leaves what was written while it ran. Below this
 * many frames the rest may be done under the lock: about 1 MiB, a few ms. */
#define CHECKPOINT_REST_FRAMES 256
#define CHECKPOINT_PASSES 6
#define WAL_CUT_MIN_BYTES 65536
#define SHORT_WAIT_MS 5
#define LONG_WAIT_MS 50 /* the WAL is above its bound */

/* ---- the group -------------------------------------------------------------
 */

enum rc
journal_begin(struct journal *j)
{
    int code;
    enum rc rc;

    if (j->writing || j->role == JOURNAL_READER) {
        journal_note(j, "journal_begin: already begun, or a reader");
        return RC_BUG;
    }
    rc = journal_lock(j);
    if (rc == RC_OK) {
        rc = journal_open(j);
    }
    if (rc == RC_OK) {
        memset(j->delta, 0, sizeof j->delta);
        code = journal_run(journal_sql(j, SQL_BEGIN, SERVICE_CALLBACK));
        rc = code == SQLITE_DONE ? RC_OK : journal_failed(j, code);
    }
    j->writing = rc == RC_OK;
    if (rc != RC_OK) {
        journal_unlock(j);
    }
    return rc;
}

enum rc
journal_commit(struct journal *j)
{
    int code;

    if (!j->writing) {
        return RC_IO; /* a call of the group failed and undid it */
    }
    code = journal_count(j);
    if (code == SQLITE_DONE) {
        code = journal_run(journal_sql(j, SQL_COMMIT, SERVICE_CALLBACK));
    }
    if (code != SQLITE_DONE) {
        return journal_failed(j, code);
    }
    j->writing = false;
    journal_unlock(j);
    journal_relieve(j);
    return RC_OK;
}

void
journal_rollback(struct journal *j)
{
    if (j->writing) {
        int code = journal_run(journal_sql(j, SQL_ROLLBACK, SERVICE_CALLBACK));

        j->writing = false;
        if (code != SQLITE_DONE) {
            (void)!journal_failed(j, code);
        }
    }
    journal_unlock(j);
}

/* ---- progress and outcomes
 * --------------------------------------------------- */

enum rc
journal_attempt_put(struct journal *j, enum service service, const char *item,
                    int64_t attempts, const char *error)
{
    sqlite3_stmt *put;

    if (!j->writing) {
        return RC_IO;
    }
    put = journal_sql(j, SQL_ATTEMPT_PUT, service);
    journal_bind_text(put, 1, service_name(service));
    journal_bind_text(put, 2, item);
    (void)sqlite3_bind_int64(put, 3, attempts);
    journal_bind_text(put, 4, error != NULL ? error : "");
    return journal_change(j, put);
}

enum rc
journal_attempt_delete(struct journal *j, enum service service,
                       const char *item)
{
    sqlite3_stmt *delete;
    enum rc rc;

    if (!j->writing) {
        return RC_IO;
    }
    delete = journal_sql(j, SQL_ATTEMPT_DELETE, service);
    journal_bind_text(delete, 1, service_name(service));
    journal_bind_text(delete, 2, item);
    rc = journal_change(j, delete);
    return rc == RC_AGAIN ? RC_OK : rc;
}

enum rc
journal_outcome_add(struct journal *j, enum service service, const char *body,
                    size_t body_bytes, int64_t *no)
{
    sqlite3_stmt *add;
    enum rc rc;

    *no = 0;
    if (!j->writing) {
        return RC_IO;
    }
    add = journal_sql(j, SQL_OUTCOME_ADD, service);
    journal_bind_text(add, 1, service_name(service));
    journal_bind_blob(add, 2, body, body_bytes);
    rc = journal_change(j, add);
    if (rc == RC_OK) {
        *no = sqlite3_last_insert_rowid(j->db);
        j->delta[service].bytes += (int64_t)body_bytes + JOURNAL_OUTCOME_COST;
    }
    return rc;
}

enum rc
journal_finish(struct journal *j, enum service service, int64_t seq, int64_t no)
{
    sqlite3_stmt *finish;

    if (!j->writing) {
        return RC_IO;
    }
    finish = journal_sql(j, SQL_FINISH, service);
    (void)sqlite3_bind_int64(finish, 1, seq);
    (void)sqlite3_bind_int64(finish, 2, no);
    return journal_change(j, finish);
}

/* Run a statement that answers one number. */
static enum rc
ask_int(struct journal *j, sqlite3_stmt *ask, int64_t *out)
{
    int code = sqlite3_step(ask);

    *out = code == SQLITE_ROW ? sqlite3_column_int64(ask, 0) : 0;
    (void)sqlite3_reset(ask);
    return code == SQLITE_ROW ? RC_OK : journal_failed(j, code);
}

/* Tell fn of each request that finished with what the statement is bound to;
 * *bytes = of their bodies. */
static enum rc
retire_tell(struct journal *j, sqlite3_stmt *each, journal_retired_fn *fn,
            void *arg, int64_t *bytes)
{
    int code;

    *bytes = 0;
    for (code = sqlite3_step(each); code == SQLITE_ROW;
         code = sqlite3_step(each)) {
        *bytes += sqlite3_column_int64(each, 1);
        if (fn != NULL) {
            fn(arg, sqlite3_column_int64(each, 0));
        }
    }
    (void)sqlite3_reset(each);
    return code == SQLITE_DONE ? RC_OK : journal_failed(j, code);
}

static enum rc
progress_retire(struct journal *j, enum service service, int64_t no_from,
                int64_t no_to)
{
    sqlite3_stmt *retire = journal_sql(j, SQL_PROGRESS_RETIRE, service);
    enum rc rc;

    journal_bind_text(retire, 1, service_name(service));
    (void)sqlite3_bind_int64(retire, 2, no_from);
    (void)sqlite3_bind_int64(retire, 3, no_to);
    rc = journal_change(j, retire);
    return rc == RC_AGAIN ? RC_OK : rc;
}

static enum rc
progress_delete(struct journal *j, enum service service, int64_t seq)
{
    sqlite3_stmt *delete = journal_sql(j, SQL_PROGRESS_DELETE, service);
    enum rc rc;

    journal_bind_text(delete, 1, service_name(service));
    (void)sqlite3_bind_int64(delete, 2, seq);
    rc = journal_change(j, delete);
    return rc == RC_AGAIN ? RC_OK : rc;
}

enum rc
journal_retire_each(struct journal *j, enum service service, int64_t no_from,
                    int64_t no_to, journal_retired_fn *fn, void *arg,
                    int64_t *retired)
{
    struct journal_delta *delta = &j->delta[service];
    sqlite3_stmt *by_service[] = {NULL, NULL};
    sqlite3_stmt *by_outcome[] = {NULL, NULL};
    int64_t row_bytes = 0;
    int64_t outcome_bytes = 0;
    enum rc rc;

    *retired = 0;
    if (!j->writing) {
        return RC_IO;
    }
    by_service[0] = journal_sql(j, SQL_OUTCOME_SIZE, service);
    by_service[1] = journal_sql(j, SQL_OUTCOME_DELETE, service);
    by_outcome[0] = journal_sql(j, SQL_RETIRE_EACH, service);
    by_outcome[1] = journal_sql(j, SQL_RETIRE, service);
    for (int i = 0; i < 2; i++) {
        journal_bind_text(by_service[i], 1, service_name(service));
        (void)sqlite3_bind_int64(by_service[i], 2, no_from);
        (void)sqlite3_bind_int64(by_service[i], 3, no_to);
        (void)sqlite3_bind_int64(by_outcome[i], 1, no_from);
        (void)sqlite3_bind_int64(by_outcome[i], 2, no_to);
    }
    rc = ask_int(j, by_service[0], &outcome_bytes);
    if (rc == RC_OK) {
        rc = progress_retire(j, service, no_from, no_to);
    }
    if (rc == RC_OK) {
        rc = retire_tell(j, by_outcome[0], fn, arg, &row_bytes);
    }
    if (rc == RC_OK) {
        rc = journal_change(j, by_service[1]);
    }
    if (rc == RC_OK || rc == RC_AGAIN) {
        if (rc == RC_OK) {
            delta->bytes -=
                outcome_bytes + JOURNAL_OUTCOME_COST * sqlite3_changes(j->db);
        }
        rc = journal_change(j, by_outcome[1]);
    }
    if (rc == RC_OK) {
        *retired = sqlite3_changes(j->db);
        delta->final += *retired;
        delta->bytes -= row_bytes + JOURNAL_ROW_COST * *retired;
    }
    return rc == RC_AGAIN ? RC_OK : rc;
}

enum rc
journal_retire(struct journal *j, enum service service, int64_t no_from,
               int64_t no_to, int64_t *retired)
{
    return journal_retire_each(j, service, no_from, no_to, NULL, NULL, retired);
}

/* ---- dead letters
 * -------------------------------------------------------------- */

/* The id of a row that has none: a dead letter must have a name by which it
 * can be retried or dropped. 00000000-0000-0001-... and the seq. */
static struct uuid
id_for(enum service service, int64_t seq)
{
    struct uuid id = {{0}};

    id.bytes[7] = (uint8_t)(service + 1);
    for (int i = 0; i < 8; i++) {
        id.bytes[15 - i] = (uint8_t)((uint64_t)seq >> (8 * i));
    }
    return id;
}

/* What a dead letter takes. RC_AGAIN: there is none. */
static enum rc
dead_size(struct journal *j, enum service service, int64_t seq, int64_t *bytes)
{
    sqlite3_stmt *ask = journal_sql(j, SQL_DEAD_SIZE, service);
    int code;

    journal_bind_text(ask, 1, service_name(service));
    (void)sqlite3_bind_int64(ask, 2, seq);
    *bytes = 0;
    code = sqlite3_step(ask);
    if (code == SQLITE_ROW) {
        *bytes = JOURNAL_ROW_COST + sqlite3_column_int64(ask, 0) +
                 sqlite3_column_int64(ask, 1);
    }
    (void)sqlite3_reset(ask);
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        return journal_failed(j, code);
    }
    return code == SQLITE_ROW ? RC_OK : RC_AGAIN;
}

/* A row of the queue, pending or persisting, and what it takes. RC_AGAIN: no
 * such row. The body is not kept. */
static enum rc
queue_row(struct journal *j, enum service service, int64_t seq,
          struct journal_row *row, int64_t *bytes)
{
    sqlite3_stmt *ask = journal_sql(j, SQL_QUEUE_ROW, service);
    int code;

    (void)sqlite3_bind_int64(ask, 1, seq);
    *bytes = 0;
    code = sqlite3_step(ask);
    if (code == SQLITE_ROW) {
        journal_row_decode(ask, row);
        *bytes = sqlite3_column_bytes(ask, 4) + JOURNAL_ROW_COST;
        if (sqlite3_column_type(ask, 1) != SQLITE_BLOB ||
            sqlite3_column_bytes(ask, 1) != UUID_BYTES) {
            row->id = id_for(service, seq);
        }
    }
    row->body = NULL;
    (void)sqlite3_reset(ask);
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        return journal_failed(j, code);
    }
    return code == SQLITE_ROW ? RC_OK : RC_AGAIN;
}

static enum rc
dead_items_add(struct journal *j, enum service service, int64_t seq,
               const struct journal_dead_item *items, size_t item_count)
{
    sqlite3_stmt *add = journal_sql(j, SQL_DEAD_ITEM_ADD, service);
    enum rc rc = RC_OK;

    for (size_t i = 0; rc == RC_OK && i < item_count; i++) {
        journal_bind_text(add, 1, service_name(service));
        (void)sqlite3_bind_int64(add, 2, seq);
        (void)sqlite3_bind_int64(add, 3, (int64_t)i);
        journal_bind_text(add, 4, items[i].item);
        journal_bind_text(add, 5, items[i].reason);
        (void)sqlite3_bind_int64(add, 6, items[i].attempts);
        rc = journal_change(j, add);
    }
    return rc;
}

static enum rc
queue_delete(struct journal *j, enum service service, int64_t seq)
{
    sqlite3_stmt *delete = journal_sql(j, SQL_QUEUE_DELETE, service);

    (void)sqlite3_bind_int64(delete, 1, seq);
    return journal_change(j, delete);
}

enum rc
journal_bury(struct journal *j, enum service service, int64_t seq,
             const char *reason, const char *retry_body,
             size_t retry_body_bytes, const struct journal_dead_item *items,
             size_t item_count, int64_t now_unix_ms)
{
    struct journal_row row = {0};
    sqlite3_stmt *add;
    int64_t row_bytes = 0;
    int64_t dead_bytes = 0;
    enum rc rc;

    if (!j->writing) {
        return RC_IO;
    }
    rc = queue_row(j, service, seq, &row, &row_bytes);
    if (rc != RC_OK) {
        return rc;
    }
    add = journal_sql(j, SQL_DEAD_ADD, service);
    journal_bind_text(add, 1, service_name(service));
    (void)sqlite3_bind_int64(add, 2, seq);
    journal_bind_blob(add, 3, row.id.bytes, UUID_BYTES);
    (void)sqlite3_bind_int64(add, 4, row.received_unix_ms);
    (void)sqlite3_bind_int64(add, 5, now_unix_ms);
    journal_bind_text(add, 6, reason);
    if (retry_body != NULL) {
        journal_bind_blob(add, 7, retry_body, retry_body_bytes);
    } else {
        (void)sqlite3_bind_null(add, 7);
    }
    rc = journal_change(j, add);
    if (rc == RC_OK) {
        rc = dead_items_add(j, service, seq, items, item_count);
    }
    if (rc == RC_OK) {
        rc = queue_delete(j, service, seq);
    }
    if (rc == RC_OK) {
        rc = progress_delete(j, service, seq);
    }
    if (rc == RC_OK) {
        rc = dead_size(j, service, seq, &dead_bytes);
    }
    if (rc == RC_OK) {
        j->delta[service].dead++;
        j->delta[service].bytes += dead_bytes - row_bytes;
    }
    return rc;
}

enum rc
journal_bury_outcome(struct journal *j, enum service service, int64_t no,
                     const char *reason, int64_t now_unix_ms, int64_t *buried)
{
    enum rc rc = RC_OK;

    *buried = 0;
    while (rc == RC_OK) {
        sqlite3_stmt *ask;
        int64_t seq;
        int code;

        if (!j->writing) {
            return RC_IO;
        }
        ask = journal_sql(j, SQL_FINISHED_WITH, service);
        (void)sqlite3_bind_int64(ask, 1, no);
        code = sqlite3_step(ask);
        seq = code == SQLITE_ROW ? sqlite3_column_int64(ask, 0) : 0;
        (void)sqlite3_reset(ask);
        if (code != SQLITE_ROW) {
            return code == SQLITE_DONE ? RC_OK : journal_failed(j, code);
        }
        rc = journal_bury(j, service, seq, reason, NULL, 0, NULL, 0,
                          now_unix_ms);
        *buried += rc == RC_OK ? 1 : 0;
    }
    return rc;
}

/* Which dead letter has this id? */
static enum rc
dead_find(struct journal *j, const struct uuid *id, enum service *service,
          int64_t *seq)
{
    sqlite3_stmt *find = journal_sql(j, SQL_DEAD_FIND, SERVICE_CALLBACK);
    bool found = false;
    int code;

    journal_bind_blob(find, 1, id->bytes, UUID_BYTES);
    for (code = sqlite3_step(find); code == SQLITE_ROW && !found;
         code = sqlite3_step(find)) {
        const char *name = (const char *)sqlite3_column_text(find, 0);

        found = name != NULL && service_parse(name, service) == RC_OK;
        *seq = sqlite3_column_int64(find, 1);
    }
    (void)sqlite3_reset(find);
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        return journal_failed(j, code);
    }
    return found ? RC_OK : RC_AGAIN;
}

/* Delete a dead letter with its items and what they count. */
static enum rc
dead_delete(struct journal *j, enum service service, int64_t seq)
{
    sqlite3_stmt *dead = journal_sql(j, SQL_DEAD_DELETE, service);
    sqlite3_stmt *items = journal_sql(j, SQL_DEAD_ITEM_DELETE, service);
    int64_t bytes = 0;
    enum rc rc = dead_size(j, service, seq, &bytes);

    if (rc == RC_OK) {
        journal_bind_text(items, 1, service_name(service));
        (void)sqlite3_bind_int64(items, 2, seq);
        rc = journal_change(j, items);
        rc = rc == RC_AGAIN ? RC_OK : rc;
    }
    if (rc == RC_OK) {
        journal_bind_text(dead, 1, service_name(service));
        (void)sqlite3_bind_int64(dead, 2, seq);
        rc = journal_change(j, dead);
    }
    if (rc == RC_OK) {
        j->delta[service].dead--;
        j->delta[service].bytes -= bytes;
    }
    return rc;
}

/* Received time of a service's newest row, this group's included. */
static enum rc
newest_received(struct journal *j, enum service service, int64_t *received)
{
    sqlite3_stmt *ask = journal_sql(j, SQL_COUNTERS, service);
    int code;

    *received = j->delta[service].received_unix_ms;
    for (code = sqlite3_step(ask); code == SQLITE_ROW;
         code = sqlite3_step(ask)) {
        const char *name = (const char *)sqlite3_column_text(ask, 0);

        if (name != NULL && strcmp(name, service_name(service)) == 0 &&
            sqlite3_column_int64(ask, 6) > *received) {
            *received = sqlite3_column_int64(ask, 6);
        }
    }
    (void)sqlite3_reset(ask);
    return code == SQLITE_DONE ? RC_OK : journal_failed(j, code);
}

enum rc
journal_dead_requeue(struct journal *j, enum service service, int64_t seq,
                     int64_t now_unix_ms, int64_t *requeued)
{
    sqlite3_stmt *requeue = journal_sql(j, SQL_DEAD_REQUEUE, service);
    sqlite3_stmt *size = journal_sql(j, SQL_DEAD_SIZE, service);
    int64_t received = 0;
    int64_t body_bytes = 0;
    enum rc rc = newest_received(j, service, &received);

    *requeued = 0;
    if (rc != RC_OK) {
        return rc;
    }
    received = now_unix_ms > received ? now_unix_ms : received;
    journal_bind_text(requeue, 1, service_name(service));
    (void)sqlite3_bind_int64(requeue, 2, seq);
    (void)sqlite3_bind_int64(requeue, 3, received);
    rc = journal_change(j, requeue);
    if (rc == RC_OK) {
        *requeued = sqlite3_last_insert_rowid(j->db);
        journal_bind_text(size, 1, service_name(service));
        (void)sqlite3_bind_int64(size, 2, seq);
        rc = ask_int(j, size, &body_bytes);
    }
    if (rc == RC_OK) {
        rc = dead_delete(j, service, seq);
    }
    if (rc == RC_OK) {
        j->delta[service].received_unix_ms = received;
        j->delta[service].bytes += body_bytes + JOURNAL_ROW_COST;
    }
    return rc;
}

enum rc
journal_dead_retry(struct journal *j, const struct uuid *id,
                   int64_t now_unix_ms, int64_t *retried)
{
    enum service service = SERVICE_CALLBACK;
    int64_t seqs[JOURNAL_BATCH_MAX];
    size_t count = 0;
    int64_t requeued = 0;
    enum rc rc;

    if (retried != NULL) {
        *retried = 0;
    }
    if (!j->writing) {
        return RC_IO;
    }
    rc = dead_find(j, id, &service, &seqs[0]);
    if (rc == RC_OK && service == SERVICE_SMS) {
        rc = journal_batch_dead(j, id, seqs, JOURNAL_BATCH_MAX, &count);
    }
    count = count > 0 ? count : 1; /* in no batch: itself */
    for (size_t i = 0; rc == RC_OK && i < count; i++) {
        rc = journal_dead_requeue(j, service, seqs[i], now_unix_ms, &requeued);
    }
    if (retried != NULL && rc == RC_OK) {
        *retried = (int64_t)count;
    }
    return rc;
}

enum rc
journal_dead_drop(struct journal *j, const struct uuid *id)
{
    enum service service = SERVICE_CALLBACK;
    int64_t seq = 0;
    enum rc rc;

    if (!j->writing) {
        return RC_IO;
    }
    rc = dead_find(j, id, &service, &seq);
    if (rc == RC_OK) {
        rc = dead_delete(j, service, seq);
    }
    if (rc == RC_OK) {
        j->delta[service].final++;
    }
    if (rc == RC_OK && service == SERVICE_SMS) {
        rc = journal_batch_dissolve(j, id);
    }
    return rc;
}

/* ---- housekeeping
 * ----------------------------------------------------------------- */

/* One pass. *frames = in the WAL, *done = of these copied. Busy means that
 * another connection is doing the same, or a reader in the way. */
static int
pass(struct journal *j, int mode, int *frames, int *done)
{
    int in_wal = -1;
    int copied = -1;
    int code = sqlite3_wal_checkpoint_v2(j->db, NULL, mode, &in_wal, &copied);

    if (in_wal >= 0 && copied >= 0) {
        *frames = in_wal;
        *done = copied;
    }
    return (code & 0xff) == SQLITE_BUSY ? SQLITE_OK : code;
}

/* Under the lock: copy what is left, and let the next commit begin the WAL
 * anew. It does so by itself if no reader is at an older page at that very
 * moment, which under a steady load may never be. So wait for the readers that
 * are in a page already: those who come now do not need it. The wait is
 * bounded, for everybody who accepts waits as well (with a busy timeout of
 * seconds RESTART stops them for seconds).
 * A file that a burst has blown up is cut, and any while the disk is low: it
 * counts against max_bytes and the reserve, and if the next commit were the
 * edge's, which refuses because of it, it never would be. */
static int
last_pass(struct journal *j, int *frames, int *done)
{
    struct stat wal;
    int mode = SQLITE_CHECKPOINT_RESTART;
    int wait_ms = *frames > j->wal_frames_full ? LONG_WAIT_MS : SHORT_WAIT_MS;
    int code;

    if (stat(j->wal_path, &wal) == 0 && wal.st_size > WAL_CUT_MIN_BYTES &&
        (wal.st_size > j->wal_keep_bytes || journal_disk_low(j))) {
        mode = SQLITE_CHECKPOINT_TRUNCATE;
    }
    (void)sqlite3_busy_timeout(j->db, wait_ms);
    code = pass(j, mode, frames, done);
    (void)sqlite3_busy_timeout(j->db, JOURNAL_BUSY_TIMEOUT_MS);
    return code;
}

/* done of the WAL's frames are in the file now; fewer than the last time when
 * it has been begun anew since. */
static void
note_copied(struct journal *j, int done)
{
    j->copied_frames += done < j->done_frames ? done : done - j->done_frames;
    j->done_frames = done;
}

int64_t
journal_copied_bytes(const struct journal *j)
{
    return j->copied_frames * j->page_bytes;
}

enum rc
journal_checkpoint_passes(struct journal *j)
{
    int frames = 0;
    int done = 0;
    int before = 0;
    int code = SQLITE_OK;
    enum rc rc;

    j->copied_frames = 0;
    for (int i = 0; code == SQLITE_OK && i < CHECKPOINT_PASSES; i++) {
        code = pass(j, SQLITE_CHECKPOINT_PASSIVE, &frames, &done);
        note_copied(j, done);
        if (done < frames || frames - before < CHECKPOINT_REST_FRAMES) {
            break; /* a reader is in the way, or little is left */
        }
        before = frames;
    }
    if (code != SQLITE_OK) {
        return journal_failed(j, code);
    }
    j->wal_frames = done >= frames ? 0 : frames;
    if (frames < j->wal_frames_full / 2 && !journal_disk_low(j)) {
        return RC_OK;
    }
    rc = journal_lock(j);
    if (rc == RC_OK) {
        code = last_pass(j, &frames, &done);
        note_copied(j, done);
        if (code != SQLITE_OK) {
            return journal_failed(j, code);
        }
        j->wal_frames = done >= frames ? 0 : frames;
        journal_unlock(j);
    }
    return rc;
}

void
journal_relieve(struct journal *j)
{
    int frames = j->wal_frames;

    if (frames <= j->wal_frames_checkpoint) {
        return;
    }
    if (journal_checkpoint_passes(j) == RC_OK) {
        /* A reader may keep the WAL from being reused: then not again before
         * it has grown by as much. */
        j->wal_frames_checkpoint = j->wal_frames_full;
        if (j->wal_frames != 0) {
            j->wal_frames_checkpoint += frames;
        }
    }
}

enum rc
journal_checkpoint(struct journal *j, int64_t *wal_bytes)
{
    struct stat wal;
    enum rc rc;

    *wal_bytes = 0;
    if (j->writing || j->role == JOURNAL_READER) {
        journal_note(j, "journal_checkpoint: in a group, or a reader");
        return RC_BUG;
    }
    rc = journal_ready(j);
    if (rc == RC_OK) {
        rc = journal_checkpoint_passes(j);
    }
    if (stat(j->wal_path, &wal) == 0) {
        *wal_bytes = wal.st_size;
    }
    return rc;
}

/* Delete the keys and note what they counted. */
static enum rc
keys_delete(struct journal *j, int64_t now_unix_ms, size_t limit,
            int64_t *forgotten)
{
    sqlite3_stmt *expire = journal_sql(j, SQL_SEEN_EXPIRE, SERVICE_CALLBACK);
    int code;

    (void)sqlite3_bind_int64(expire, 1, now_unix_ms);
    (void)sqlite3_bind_int64(expire, 2, (int64_t)limit);
    for (code = sqlite3_step(expire); code == SQLITE_ROW;
         code = sqlite3_step(expire)) {
        const char *name = (const char *)sqlite3_column_text(expire, 0);
        enum service service;

        if (name != NULL && service_parse(name, &service) == RC_OK) {
            j->delta[service].key_bytes -=
                2 * sqlite3_column_int64(expire, 1) + JOURNAL_KEY_COST;
        }
        (*forgotten)++;
    }
    (void)sqlite3_reset(expire);
    return code == SQLITE_DONE ? RC_OK : journal_failed(j, code);
}

enum rc
journal_expire_keys(struct journal *j, int64_t now_unix_ms, size_t limit,
                    int64_t *forgotten)
{
    bool own = !j->writing;
    enum rc rc = own ? journal_begin(j) : RC_OK;

    *forgotten = 0;
    if (rc == RC_OK) {
        rc = keys_delete(j, now_unix_ms, limit, forgotten);
    }
    if (rc == RC_OK && own) {
        rc = journal_commit(j);
    }
    if (rc != RC_OK) {
        *forgotten = 0;
    }
    return rc;
}
