/* How far requests have come, the call limiter's slots, and services' notes:
 * what a service that must not do a thing twice records before it does it. */
#include "shared/journal_impl.h"

/* ---- reading ---------------------------------------------------------------
 */

/* The columns seq, state, attempts, started, finished, error. */
static int64_t
progress_row(sqlite3_stmt *row, struct journal_progress *out)
{
    out->state = sqlite3_column_int(row, 1);
    out->attempts = sqlite3_column_int64(row, 2);
    out->started_unix_ms = sqlite3_column_int64(row, 3);
    out->finished_unix_ms = sqlite3_column_int64(row, 4);
    journal_column_copy(row, 5, out->error, sizeof out->error);
    return sqlite3_column_int64(row, 0);
}

int
journal_progress_read(struct journal *j, enum service service, int64_t seq,
                      struct journal_progress *out)
{
    sqlite3_stmt *get = journal_sql(j, SQL_PROGRESS_GET, service);
    int code;

    *out = (struct journal_progress){0};
    journal_bind_text(get, 1, service_name(service));
    (void)sqlite3_bind_int64(get, 2, seq);
    code = sqlite3_step(get);
    if (code == SQLITE_ROW) {
        (void)progress_row(get, out);
    }
    (void)sqlite3_reset(get);
    return code;
}

enum rc
journal_progress_get(struct journal *j, enum service service, int64_t seq,
                     struct journal_progress *out)
{
    enum rc rc = journal_ready(j);
    int code;

    *out = (struct journal_progress){0};
    if (rc != RC_OK) {
        return rc;
    }
    code = journal_progress_read(j, service, seq, out);
    return code == SQLITE_ROW || code == SQLITE_DONE ? RC_OK
                                                     : journal_failed(j, code);
}

enum rc
journal_progress_each(struct journal *j, enum service service,
                      journal_progress_fn *fn, void *arg)
{
    struct journal_progress progress;
    sqlite3_stmt *each;
    int code;
    enum rc rc = journal_ready(j);

    if (rc != RC_OK) {
        return rc;
    }
    each = journal_sql(j, SQL_PROGRESS_EACH, service);
    journal_bind_text(each, 1, service_name(service));
    for (code = sqlite3_step(each); code == SQLITE_ROW;
         code = sqlite3_step(each)) {
        int64_t seq = progress_row(each, &progress);

        if (!fn(arg, seq, &progress)) {
            code = SQLITE_DONE;
            break;
        }
    }
    (void)sqlite3_reset(each);
    return code == SQLITE_DONE ? RC_OK : journal_failed(j, code);
}

enum rc
journal_slot_each(struct journal *j, journal_slot_fn *fn, void *arg)
{
    struct journal_slot slot;
    sqlite3_stmt *each;
    int code;
    enum rc rc = journal_ready(j);

    if (rc != RC_OK) {
        return rc;
    }
    each = journal_sql(j, SQL_SLOT_EACH, SERVICE_CALL);
    for (code = sqlite3_step(each); code == SQLITE_ROW;
         code = sqlite3_step(each)) {
        slot.no = sqlite3_column_int64(each, 0);
        journal_column_copy(each, 1, slot.boot, sizeof slot.boot);
        slot.free_at_us = sqlite3_column_int64(each, 2);
        if (!fn(arg, &slot)) {
            code = SQLITE_DONE;
            break;
        }
    }
    (void)sqlite3_reset(each);
    return code == SQLITE_DONE ? RC_OK : journal_failed(j, code);
}

enum rc
journal_note_get(struct journal *j, const char *name, char *out, size_t size)
{
    sqlite3_stmt *get;
    int code;
    enum rc rc = journal_ready(j);

    out[0] = '\0';
    if (rc != RC_OK) {
        return rc;
    }
    get = journal_sql(j, SQL_NOTE_GET, SERVICE_CALL);
    journal_bind_text(get, 1, name);
    code = sqlite3_step(get);
    if (code == SQLITE_ROW) {
        journal_column_copy(get, 0, out, size);
        code = SQLITE_DONE;
    }
    (void)sqlite3_reset(get);
    return code == SQLITE_DONE ? RC_OK : journal_failed(j, code);
}

/* ---- recording --------------------------------------------------------------
 */

static void
bind_progress(sqlite3_stmt *put, enum service service, int64_t seq,
              const struct journal_progress *progress)
{
    journal_bind_text(put, 1, service_name(service));
    (void)sqlite3_bind_int64(put, 2, seq);
    (void)sqlite3_bind_int(put, 3, progress->state);
    (void)sqlite3_bind_int64(put, 4, progress->attempts);
    (void)sqlite3_bind_int64(put, 5, progress->started_unix_ms);
    (void)sqlite3_bind_int64(put, 6, progress->finished_unix_ms);
    journal_bind_text(put, 7, progress->error);
}

enum rc
journal_progress_put(struct journal *j, enum service service, int64_t seq,
                     const struct journal_progress *progress)
{
    sqlite3_stmt *put;

    if (!j->writing) {
        return RC_IO;
    }
    put = journal_sql(j, SQL_PROGRESS_PUT, service);
    bind_progress(put, service, seq, progress);
    return journal_change(j, put);
}

enum rc
journal_progress_begin(struct journal *j, enum service service, int64_t seq,
                       const struct journal_progress *progress)
{
    sqlite3_stmt *begin;

    if (!j->writing) {
        return RC_IO;
    }
    begin = journal_sql(j, SQL_PROGRESS_BEGIN, service);
    bind_progress(begin, service, seq, progress);
    return journal_change(j, begin);
}

enum rc
journal_slot_put(struct journal *j, const struct journal_slot *slot)
{
    sqlite3_stmt *put;

    if (!j->writing) {
        return RC_IO;
    }
    put = journal_sql(j, SQL_SLOT_PUT, SERVICE_CALL);
    (void)sqlite3_bind_int64(put, 1, slot->no);
    journal_bind_text(put, 2, slot->boot);
    (void)sqlite3_bind_int64(put, 3, slot->free_at_us);
    return journal_change(j, put);
}

enum rc
journal_note_put(struct journal *j, const char *name, const char *value)
{
    sqlite3_stmt *put;

    if (!j->writing) {
        return RC_IO;
    }
    put = journal_sql(j, SQL_NOTE_PUT, SERVICE_CALL);
    journal_bind_text(put, 1, name);
    journal_bind_text(put, 2, value);
    return journal_change(j, put);
}
