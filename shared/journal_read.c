/* Reading the journal: pages for feed and store, look-ups, the ledger. Each
 * is one short read transaction, for a long one keeps the WAL from being
 * reused. Readers take no lock. */
#include "shared/journal_impl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Rows looked at in one read transaction. After a restart with the database
 * down, a million rows with an outcome may lie before the first without. */
#define SCAN_ROWS 4096
#define PAGE_ROWS_FIRST 64
#define PAGE_BYTES_FIRST 16384

void
journal_page_free(struct journal_page *page)
{
    free(page->rows);
    free(page->buffer);
    *page = (struct journal_page){0};
}

/* Make room for one more row of body_bytes. */
static bool
page_reserve(struct journal_page *page, size_t body_bytes)
{
    if (page->count == page->rows_capacity) {
        size_t capacity =
            page->rows_capacity > 0 ? page->rows_capacity * 2 : PAGE_ROWS_FIRST;
        struct journal_row *rows = realloc(page->rows, capacity * sizeof *rows);

        if (rows == NULL) {
            return false;
        }
        page->rows = rows;
        page->rows_capacity = capacity;
    }
    if (page->buffer == NULL ||
        page->buffer_capacity - page->buffer_bytes < body_bytes) {
        size_t capacity = page->buffer_capacity > 0 ? page->buffer_capacity * 2
                                                    : PAGE_BYTES_FIRST;
        char *buffer;

        if (capacity < page->buffer_bytes + body_bytes) {
            capacity = page->buffer_bytes + body_bytes;
        }
        buffer = realloc(page->buffer, capacity);
        if (buffer == NULL) {
            return false;
        }
        page->buffer = buffer;
        page->buffer_capacity = capacity;
    }
    return true;
}

static bool
page_append(struct journal_page *page, const struct journal_row *row)
{
    if (!page_reserve(page, row->body_bytes)) {
        return false;
    }
    if (row->body_bytes > 0) {
        memcpy(page->buffer + page->buffer_bytes, row->body, row->body_bytes);
    }
    page->buffer_bytes += row->body_bytes;
    page->rows[page->count] = *row;
    page->count++;
    return true;
}

/* The buffer moves while it grows: point the rows into it at the end. */
static void
page_finish(struct journal_page *page)
{
    size_t at = 0;

    for (size_t i = 0; i < page->count; i++) {
        page->rows[i].body = page->buffer + at;
        at += page->rows[i].body_bytes;
    }
}

/* How a page is bounded, and where reading it has come to. */
struct paging {
    size_t max_rows;
    size_t max_bytes;
    int64_t after;
    int scanned;
};

/* Is there no room for this row any more? */
static bool
page_full(const struct journal_page *page, const struct paging *p,
          size_t body_bytes)
{
    return page->count > 0 &&
           (page->count >= p->max_rows || page->buffer_bytes >= p->max_bytes ||
            p->max_bytes - page->buffer_bytes < body_bytes);
}

/* Look at up to SCAN_ROWS rows behind p->after. SQLITE_DONE: the end, or the
 * page is full; SQLITE_ROW: look at more; else an error. */
static int
queue_scan(struct journal *j, enum service service, struct paging *p,
           struct journal_page *page)
{
    sqlite3_stmt *read = journal_sql(j, SQL_QUEUE_PAGE, service);
    struct journal_row row;
    int code;

    (void)sqlite3_bind_int64(read, 1, p->after);
    (void)sqlite3_bind_int64(read, 2, SCAN_ROWS);
    p->scanned = 0;
    for (code = sqlite3_step(read); code == SQLITE_ROW;
         code = sqlite3_step(read)) {
        if (sqlite3_column_type(read, 3) != SQLITE_INTEGER) {
            journal_row_decode(read, &row);
            page->more = page_full(page, p, row.body_bytes);
            if (page->more) {
                code = SQLITE_DONE;
                break;
            }
            if (!page_append(page, &row)) {
                code = SQLITE_NOMEM;
                break;
            }
        }
        p->after = sqlite3_column_int64(read, 0);
        p->scanned++;
    }
    (void)sqlite3_reset(read);
    return code == SQLITE_DONE && p->scanned == SCAN_ROWS && !page->more
               ? SQLITE_ROW
               : code;
}

enum rc
journal_queue_page(struct journal *j, enum service service, int64_t after,
                   size_t max_rows, size_t max_bytes, struct journal_page *page)
{
    struct paging p = {max_rows, max_bytes, after, 0};
    int code = SQLITE_ROW;
    enum rc rc;

    page->count = 0;
    page->buffer_bytes = 0;
    page->more = false;
    rc = journal_ready(j);
    if (rc != RC_OK) {
        return rc;
    }
    while (code == SQLITE_ROW) {
        code = queue_scan(j, service, &p, page);
    }
    if (code != SQLITE_DONE) {
        page->count = 0;
        page->more = false;
        return journal_failed(j, code);
    }
    page_finish(page);
    return RC_OK;
}

enum rc
journal_outcome_page(struct journal *j, enum service service, int64_t after,
                     size_t max_rows, size_t max_bytes,
                     struct journal_page *page)
{
    struct paging p = {max_rows, max_bytes, after, 0};
    sqlite3_stmt *read;
    int code;
    enum rc rc;

    page->count = 0;
    page->buffer_bytes = 0;
    page->more = false;
    rc = journal_ready(j);
    if (rc != RC_OK) {
        return rc;
    }
    read = journal_sql(j, SQL_OUTCOME_PAGE, service);
    journal_bind_text(read, 1, service_name(service));
    (void)sqlite3_bind_int64(read, 2, after);
    (void)sqlite3_bind_int64(
        read, 3, max_rows < SCAN_ROWS ? (int64_t)max_rows + 1 : SCAN_ROWS + 1);
    for (code = sqlite3_step(read); code == SQLITE_ROW;
         code = sqlite3_step(read)) {
        struct journal_row row = {.seq = sqlite3_column_int64(read, 0),
                                  .body = ""};

        row.broken = sqlite3_column_type(read, 1) != SQLITE_BLOB;
        if (!row.broken && sqlite3_column_bytes(read, 1) > 0) {
            row.body = sqlite3_column_blob(read, 1);
            row.body_bytes = (size_t)sqlite3_column_bytes(read, 1);
        }
        page->more =
            page->count >= SCAN_ROWS || page_full(page, &p, row.body_bytes);
        if (page->more) {
            code = SQLITE_DONE;
            break;
        }
        if (row.body == NULL || !page_append(page, &row)) {
            code = SQLITE_NOMEM;
            break;
        }
    }
    (void)sqlite3_reset(read);
    if (code != SQLITE_DONE) {
        page->count = 0;
        return journal_failed(j, code);
    }
    page_finish(page);
    return RC_OK;
}

enum rc
journal_newest(struct journal *j, enum service service, int64_t *seq)
{
    sqlite3_stmt *ask;
    int code;
    enum rc rc = journal_ready(j);

    *seq = 0;
    if (rc != RC_OK) {
        return rc;
    }
    ask = journal_sql(j, SQL_NEWEST, service);
    code = sqlite3_step(ask);
    if (code == SQLITE_ROW) {
        *seq = sqlite3_column_int64(ask, 0);
    }
    (void)sqlite3_reset(ask);
    return code == SQLITE_ROW || code == SQLITE_DONE ? RC_OK
                                                     : journal_failed(j, code);
}

/* ---- one request ------------------------------------------------------------
 */

/* SQL_DEAD_FIND's or SQL_DEAD_EACH's row. false: of no service we know. */
static bool
dead_read(sqlite3_stmt *s, struct journal_entry *out)
{
    const char *name = (const char *)sqlite3_column_text(s, 0);

    *out = (struct journal_entry){.place = JOURNAL_DEAD};
    if (name == NULL || service_parse(name, &out->service) != RC_OK) {
        return false;
    }
    out->seq = sqlite3_column_int64(s, 1);
    if (sqlite3_column_bytes(s, 2) == UUID_BYTES) {
        memcpy(out->id.bytes, sqlite3_column_blob(s, 2), UUID_BYTES);
    }
    out->received_unix_ms = sqlite3_column_int64(s, 3);
    out->dead_unix_ms = sqlite3_column_int64(s, 4);
    journal_column_copy(s, 5, out->reason, sizeof out->reason);
    out->items = sqlite3_column_int64(s, 6);
    return true;
}

/* SQLITE_ROW: found; SQLITE_DONE: not; else an error. */
static int
locate_queued(struct journal *j, enum service service, const struct uuid *id,
              struct journal_entry *out)
{
    sqlite3_stmt *find = journal_sql(j, SQL_QUEUE_FIND, service);
    int code;

    journal_bind_blob(find, 1, id->bytes, UUID_BYTES);
    code = sqlite3_step(find);
    if (code == SQLITE_ROW) {
        out->service = service;
        out->seq = sqlite3_column_int64(find, 0);
        out->received_unix_ms = sqlite3_column_int64(find, 1);
        out->outcome_no = sqlite3_column_int64(find, 2);
        out->place = out->outcome_no > 0 ? JOURNAL_PERSISTING : JOURNAL_PENDING;
    }
    (void)sqlite3_reset(find);
    return code;
}

/* The same, and its place in the queue and its progress. */
static int
find_queued(struct journal *j, enum service service, const struct uuid *id,
            struct journal_entry *out)
{
    sqlite3_stmt *ahead = journal_sql(j, SQL_QUEUE_AHEAD, service);
    int code = locate_queued(j, service, id, out);

    if (code == SQLITE_ROW) {
        (void)sqlite3_bind_int64(ahead, 1, out->seq);
        code = sqlite3_step(ahead);
        if (code == SQLITE_ROW) {
            out->ahead = sqlite3_column_int64(ahead, 0);
        }
        (void)sqlite3_reset(ahead);
    }
    if (code == SQLITE_ROW) {
        int read = journal_progress_read(j, service, out->seq, &out->progress);

        code = read == SQLITE_DONE ? SQLITE_ROW : read;
    }
    return code;
}

static int
find_dead(struct journal *j, const struct uuid *id, struct journal_entry *out)
{
    sqlite3_stmt *find = journal_sql(j, SQL_DEAD_FIND, SERVICE_CALLBACK);
    int code;

    journal_bind_blob(find, 1, id->bytes, UUID_BYTES);
    code = sqlite3_step(find);
    while (code == SQLITE_ROW && !dead_read(find, out)) {
        code = sqlite3_step(find);
    }
    (void)sqlite3_reset(find);
    return code;
}

/* Begin a snapshot of several statements, unless a group is open anyway.
 * *began tells snapshot_end what to do. */
static int
snapshot_begin(struct journal *j, bool *began)
{
    int code = SQLITE_DONE;

    *began = sqlite3_get_autocommit(j->db) != 0;
    if (*began) {
        code = journal_run(journal_sql(j, SQL_READ_BEGIN, SERVICE_CALLBACK));
    }
    return code;
}

static enum rc
snapshot_end(struct journal *j, bool began)
{
    int code = SQLITE_DONE;

    if (began) {
        code = journal_run(journal_sql(j, SQL_ROLLBACK, SERVICE_CALLBACK));
    }
    return code == SQLITE_DONE ? RC_OK : journal_failed(j, code);
}

enum rc
journal_find(struct journal *j, const struct uuid *id,
             struct journal_entry *out)
{
    bool began = false;
    int code;
    enum rc rc = journal_ready(j);

    *out = (struct journal_entry){.id = *id};
    if (rc != RC_OK) {
        return rc;
    }
    code = snapshot_begin(j, &began);
    for (unsigned s = 0; code == SQLITE_DONE && s < SERVICE_COUNT; s++) {
        code = find_queued(j, (enum service)s, id, out);
    }
    if (code == SQLITE_DONE) {
        code = find_dead(j, id, out);
    }
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        return journal_failed(j, code);
    }
    rc = snapshot_end(j, began);
    return rc == RC_OK && code == SQLITE_DONE ? RC_AGAIN : rc;
}

/* The id's dead letter of this service, without its items. */
static int
locate_dead(struct journal *j, enum service service, const struct uuid *id,
            struct journal_entry *out)
{
    sqlite3_stmt *locate = journal_sql(j, SQL_DEAD_LOCATE, service);
    int code;

    journal_bind_blob(locate, 1, id->bytes, UUID_BYTES);
    journal_bind_text(locate, 2, service_name(service));
    code = sqlite3_step(locate);
    if (code == SQLITE_ROW) {
        (void)dead_read(locate, out);
    }
    (void)sqlite3_reset(locate);
    return code;
}

enum rc
journal_locate(struct journal *j, enum service service, const struct uuid *id,
               struct journal_entry *out)
{
    bool began = false;
    int code;
    enum rc rc = journal_ready(j);

    *out = (struct journal_entry){.id = *id, .service = service};
    if (rc != RC_OK) {
        return rc;
    }
    code = snapshot_begin(j, &began);
    if (code == SQLITE_DONE) {
        code = locate_queued(j, service, id, out);
    }
    if (code == SQLITE_DONE) {
        code = locate_dead(j, service, id, out);
    }
    if (code != SQLITE_ROW && code != SQLITE_DONE) {
        return journal_failed(j, code);
    }
    rc = snapshot_end(j, began);
    return rc == RC_OK && code == SQLITE_DONE ? RC_AGAIN : rc;
}

/* ---- lists
 * ------------------------------------------------------------------- */

enum rc
journal_dead_each(struct journal *j, enum service service, int64_t after,
                  size_t limit, journal_dead_fn *fn, void *arg)
{
    struct journal_entry entry;
    sqlite3_stmt *each;
    int code;
    enum rc rc = journal_ready(j);

    if (rc != RC_OK) {
        return rc;
    }
    each = journal_sql(j, SQL_DEAD_EACH, service);
    journal_bind_text(each, 1, service_name(service));
    (void)sqlite3_bind_int64(each, 2, after);
    (void)sqlite3_bind_int64(each, 3, (int64_t)limit);
    for (code = sqlite3_step(each); code == SQLITE_ROW;
         code = sqlite3_step(each)) {
        if (dead_read(each, &entry) && !fn(arg, &entry)) {
            code = SQLITE_DONE;
            break;
        }
    }
    (void)sqlite3_reset(each);
    return code == SQLITE_DONE ? RC_OK : journal_failed(j, code);
}

enum rc
journal_dead_items_each(struct journal *j, const struct uuid *id,
                        journal_item_fn *fn, void *arg)
{
    struct journal_entry entry;
    sqlite3_stmt *each;
    bool began = false;
    int code;
    enum rc rc = journal_ready(j);

    if (rc != RC_OK) {
        return rc;
    }
    code = snapshot_begin(j, &began);
    if (code == SQLITE_DONE) {
        code = find_dead(j, id, &entry);
    }
    if (code == SQLITE_ROW) {
        each = journal_sql(j, SQL_DEAD_ITEMS, entry.service);
        journal_bind_text(each, 1, service_name(entry.service));
        (void)sqlite3_bind_int64(each, 2, entry.seq);
        for (code = sqlite3_step(each); code == SQLITE_ROW;
             code = sqlite3_step(each)) {
            struct journal_dead_item item;

            journal_column_copy(each, 0, item.item, sizeof item.item);
            journal_column_copy(each, 1, item.reason, sizeof item.reason);
            if (!fn(arg, item.item, item.reason,
                    sqlite3_column_int64(each, 2))) {
                code = SQLITE_DONE;
                break;
            }
        }
        (void)sqlite3_reset(each);
    }
    if (code != SQLITE_DONE) {
        return journal_failed(j, code);
    }
    return snapshot_end(j, began);
}

enum rc
journal_attempt_each(struct journal *j, enum service service,
                     journal_attempt_fn *fn, void *arg)
{
    char item[JOURNAL_ITEM_BYTES];
    char error[JOURNAL_REASON_BYTES];
    sqlite3_stmt *each;
    int code;
    enum rc rc = journal_ready(j);

    if (rc != RC_OK) {
        return rc;
    }
    each = journal_sql(j, SQL_ATTEMPT_EACH, service);
    journal_bind_text(each, 1, service_name(service));
    for (code = sqlite3_step(each); code == SQLITE_ROW;
         code = sqlite3_step(each)) {
        journal_column_copy(each, 0, item, sizeof item);
        journal_column_copy(each, 2, error, sizeof error);
        if (!fn(arg, item, sqlite3_column_int64(each, 1), error)) {
            code = SQLITE_DONE;
            break;
        }
    }
    (void)sqlite3_reset(each);
    return code == SQLITE_DONE ? RC_OK : journal_failed(j, code);
}

/* ---- the whole
 * ----------------------------------------------------------------- */

static int
ledger_counters(struct journal *j, struct journal_ledger *ledger)
{
    sqlite3_stmt *ask = journal_sql(j, SQL_COUNTERS, SERVICE_CALLBACK);
    int code;

    for (code = sqlite3_step(ask); code == SQLITE_ROW;
         code = sqlite3_step(ask)) {
        const char *name = (const char *)sqlite3_column_text(ask, 0);
        enum service service;

        if (name != NULL && service_parse(name, &service) == RC_OK) {
            ledger[service].accepted = sqlite3_column_int64(ask, 1);
            ledger[service].final = sqlite3_column_int64(ask, 2);
            ledger[service].dead = sqlite3_column_int64(ask, 3);
            ledger[service].queue_bytes = sqlite3_column_int64(ask, 4);
        }
    }
    (void)sqlite3_reset(ask);
    return code;
}

/* The first columns of a statement's one row as numbers. */
static int
row_ints(sqlite3_stmt *ask, int64_t *first, int64_t *second)
{
    int code = sqlite3_step(ask);

    if (code == SQLITE_ROW) {
        *first = sqlite3_column_int64(ask, 0);
        if (second != NULL) {
            *second = sqlite3_column_int64(ask, 1);
        }
        code = SQLITE_DONE;
    }
    (void)sqlite3_reset(ask);
    return code;
}

static int
ledger_rows(struct journal *j, enum service service,
            struct journal_ledger *ledger)
{
    sqlite3_stmt *outcomes = journal_sql(j, SQL_OUTCOME_COUNT, service);
    sqlite3_stmt *dead = journal_sql(j, SQL_DEAD_COUNT, service);
    int code = row_ints(journal_sql(j, SQL_QUEUE_LEDGER, service),
                        &ledger->pending, &ledger->oldest_received_unix_ms);

    if (code == SQLITE_DONE) {
        journal_bind_text(outcomes, 1, service_name(service));
        code = row_ints(outcomes, &ledger->outcomes, NULL);
    }
    if (code == SQLITE_DONE) {
        journal_bind_text(dead, 1, service_name(service));
        code = row_ints(dead, &ledger->dead_rows, NULL);
    }
    ledger->balanced =
        ledger->accepted == ledger->final + ledger->pending + ledger->dead &&
        ledger->dead == ledger->dead_rows;
    return code;
}

enum rc
journal_ledger(struct journal *j, struct journal_ledger ledger[SERVICE_COUNT])
{
    bool began = false;
    int code;
    enum rc rc = journal_ready(j);

    memset(ledger, 0, SERVICE_COUNT * sizeof *ledger);
    if (rc != RC_OK) {
        return rc;
    }
    code = snapshot_begin(j, &began);
    if (code == SQLITE_DONE && j->writing) {
        code = journal_count(j);
    }
    if (code == SQLITE_DONE) {
        code = ledger_counters(j, ledger);
    }
    for (unsigned s = 0; code == SQLITE_DONE && s < SERVICE_COUNT; s++) {
        code = ledger_rows(j, (enum service)s, &ledger[s]);
    }
    if (code != SQLITE_DONE) {
        memset(ledger, 0, SERVICE_COUNT * sizeof *ledger);
        return journal_failed(j, code);
    }
    return snapshot_end(j, began);
}

enum rc
journal_used_bytes(struct journal *j, int64_t *used)
{
    struct stat wal;
    int64_t pages = 0;
    int64_t unused = 0;
    bool began = false;
    int code;
    enum rc rc = journal_ready(j);

    *used = 0;
    if (rc != RC_OK) {
        return rc;
    }
    code = snapshot_begin(j, &began);
    if (code == SQLITE_DONE) {
        code = row_ints(journal_sql(j, SQL_PAGE_COUNT, SERVICE_CALLBACK),
                        &pages, NULL);
    }
    if (code == SQLITE_DONE) {
        code = row_ints(journal_sql(j, SQL_FREE_COUNT, SERVICE_CALLBACK),
                        &unused, NULL);
    }
    if (code != SQLITE_DONE) {
        return journal_failed(j, code);
    }
    rc = snapshot_end(j, began);
    if (rc != RC_OK) {
        return rc;
    }
    *used = (pages - unused) * j->page_bytes;
    if (stat(j->wal_path, &wal) == 0) {
        *used += wal.st_size;
    }
    return RC_OK;
}

enum rc
journal_identity(struct journal *j, struct uuid *out)
{
    sqlite3_stmt *ask;
    int code;
    enum rc rc = journal_ready(j);

    *out = (struct uuid){{0}};
    if (rc != RC_OK) {
        return rc;
    }
    ask = journal_sql(j, SQL_IDENTITY, SERVICE_CALLBACK);
    code = sqlite3_step(ask);
    if (code == SQLITE_ROW && sqlite3_column_bytes(ask, 0) == UUID_BYTES) {
        memcpy(out->bytes, sqlite3_column_blob(ask, 0), UUID_BYTES);
    } else if (code == SQLITE_ROW || code == SQLITE_DONE) {
        code = SQLITE_CORRUPT;
    }
    (void)sqlite3_reset(ask);
    return code == SQLITE_ROW ? RC_OK : journal_failed(j, code);
}
