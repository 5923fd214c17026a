/* Accepting: the edge's batch in one transaction with one fsync.
 *
 * This is the hot path: per request one prepared INSERT with borrowed
 * buffers; counters, shares and the previous received time are read once and
 * written once a batch. */
#include "shared/journal_impl.h"

#include <string.h>
#include <sys/stat.h>

#include "shared/clock.h"

#define COUNT_MAX 1024
#define DISK_ASK_MS 100
#define DISK_ASK_PART 16
/* max_bytes: this much for idempotency keys, the rest for the services in
 * equal parts. */
#define KEYS_PERCENT 10
/* Pages that a batch writes besides those of its rows, to the WAL: counters,
 * index, inner pages and the ones begun by the batch before. */
#define PAGES_MORE 12

/* A batch at work. */
struct batch {
    struct journal *j;
    int64_t keys_until_unix_ms;
    int64_t service_max_bytes;
    int64_t keys_max_bytes;
    int64_t key_bytes;               /* of all services, with this batch */
    int64_t bytes[SERVICE_COUNT];    /* likewise, of rows */
    int64_t received[SERVICE_COUNT]; /* of the newest row */
    int64_t waiting[SERVICE_COUNT];  /* rows that nobody works on */
    bool key_replaces; /* the key looked up last is there, but over */
    int sql;           /* SQLite's code of what failed */
};

static int64_t
row_cost(const struct journal_request *r)
{
    return (int64_t)r->body_bytes + JOURNAL_ROW_COST;
}

static int64_t
key_cost(const struct journal_request *r)
{
    return r->key == NULL ? 0 : 2 * (int64_t)r->key_bytes + JOURNAL_KEY_COST;
}

/* Is the file system below the reserve that is kept for the dispatcher? Asked
 * when the last answer is old, or this process alone may since have written a
 * good part of the reserve. */
static enum rc
disk_check(struct journal *j)
{
    int64_t now_ms = clock_now_ms();

    if (j->disk_asked_ms == 0 || now_ms - j->disk_asked_ms >= DISK_ASK_MS ||
        j->disk_written_bytes > j->reserve_bytes / DISK_ASK_PART) {
        j->disk_asked_ms = now_ms;
        j->disk_written_bytes = 0;
        j->disk_low = journal_disk_low(j);
        if (j->disk_low && journal_ready(j) == RC_OK &&
            journal_checkpoint_passes(j) == RC_OK) {
            /* Not if only the WAL had yet to find its room, or the file has
             * unused pages. */
            j->disk_low = journal_disk_low(j);
        }
    }
    if (j->disk_low) {
        journal_note(j, "%s: less free disk than the reserve of %lld bytes",
                     j->path, (long long)j->reserve_bytes);
        return RC_FULL;
    }
    return RC_OK;
}

/* One number of a PRAGMA. */
static int
pragma_int(struct journal *j, enum journal_sql which, int64_t *out)
{
    sqlite3_stmt *ask = journal_sql(j, which, SERVICE_CALLBACK);
    int code = sqlite3_step(ask);

    *out = code == SQLITE_ROW ? sqlite3_column_int64(ask, 0) : 0;
    (void)sqlite3_reset(ask);
    return code == SQLITE_ROW ? SQLITE_OK : code;
}

/* Used pages, the WAL and what this batch adds, against max_bytes. */
static enum rc
space_check(struct batch *b, const struct journal_request *requests,
            size_t count)
{
    struct journal *j = b->j;
    struct stat wal;
    int64_t pages = 0;
    int64_t unused = 0;
    int64_t more = PAGES_MORE * j->page_bytes;
    int64_t used = 0;

    b->sql = pragma_int(j, SQL_PAGE_COUNT, &pages);
    if (b->sql == SQLITE_OK) {
        b->sql = pragma_int(j, SQL_FREE_COUNT, &unused);
    }
    if (b->sql != SQLITE_OK) {
        return RC_IO;
    }
    used = (pages - unused) * j->page_bytes;
    if (stat(j->wal_path, &wal) == 0) {
        used += wal.st_size;
    }
    for (size_t i = 0; i < count; i++) { /* in the file and in the WAL */
        more += 2 * (row_cost(&requests[i]) + key_cost(&requests[i]));
    }
    j->disk_written_bytes += more;
    used += more;
    if (used > j->max_bytes) {
        journal_note(j, "%s: journal.max_bytes is reached", j->path);
        return RC_FULL;
    }
    return RC_OK;
}

static int
counters_read(struct batch *b)
{
    sqlite3_stmt *ask = journal_sql(b->j, SQL_COUNTERS, SERVICE_CALLBACK);
    int code = sqlite3_step(ask);

    while (code == SQLITE_ROW) {
        enum service service;
        const char *name = (const char *)sqlite3_column_text(ask, 0);

        b->key_bytes += sqlite3_column_int64(ask, 5);
        if (name != NULL && service_parse(name, &service) == RC_OK) {
            b->bytes[service] = sqlite3_column_int64(ask, 4);
            b->received[service] = sqlite3_column_int64(ask, 6);
            b->waiting[service] = sqlite3_column_int64(ask, 1) -
                                  sqlite3_column_int64(ask, 2) -
                                  sqlite3_column_int64(ask, 3);
        }
        code = sqlite3_step(ask);
    }
    (void)sqlite3_reset(ask);
    return code;
}

/* Those that are worked on do not wait. Only asked for services of this batch:
 * the count walks what is recorded. */
static int
subtract_busy(struct batch *b, const struct journal_request *requests,
              size_t count)
{
    bool asked[SERVICE_COUNT] = {false};
    int code = SQLITE_DONE;

    for (size_t i = 0; code == SQLITE_DONE && i < count; i++) {
        enum service service = requests[i].service;
        sqlite3_stmt *ask;

        if (asked[service] || requests[i].op != JOURNAL_ADD) {
            continue;
        }
        asked[service] = true;
        ask = journal_sql(b->j, SQL_PROGRESS_BUSY, service);
        journal_bind_text(ask, 1, service_name(service));
        code = sqlite3_step(ask);
        if (code == SQLITE_ROW) {
            b->waiting[service] -= sqlite3_column_int64(ask, 0);
            code = SQLITE_DONE;
        }
        (void)sqlite3_reset(ask);
    }
    return code;
}

/* Has the request's key been seen? RC_OK: its verdict is set. RC_AGAIN: no. */
static enum rc
key_look_up(struct batch *b, struct journal_request *r)
{
    sqlite3_stmt *get = journal_sql(b->j, SQL_SEEN_GET, r->service);
    enum rc rc = RC_AGAIN;
    int code;

    journal_bind_text(get, 1, service_name(r->service));
    journal_bind_blob(get, 2, r->key, r->key_bytes);
    code = sqlite3_step(get);
    b->key_replaces = code == SQLITE_ROW; /* unless it turns out to hold */
    /* One that is over, or damaged, is as if it had not been: it is replaced.
     */
    if (code == SQLITE_ROW &&
        sqlite3_column_int64(get, 2) > r->received_unix_ms &&
        sqlite3_column_bytes(get, 0) == UUID_BYTES &&
        sqlite3_column_bytes(get, 1) == HASH_BYTES) {
        rc = RC_OK;
        r->verdict = JOURNAL_MISMATCH;
        if (memcmp(sqlite3_column_blob(get, 1), r->hash, HASH_BYTES) == 0) {
            r->verdict = JOURNAL_REPLAYED;
            memcpy(r->id.bytes, sqlite3_column_blob(get, 0), UUID_BYTES);
        }
    } else if (code != SQLITE_ROW && code != SQLITE_DONE) {
        b->sql = code;
        rc = RC_IO;
    }
    (void)sqlite3_reset(get);
    return rc;
}

static int
key_remember(struct batch *b, const struct journal_request *r)
{
    sqlite3_stmt *put = journal_sql(b->j, SQL_SEEN_PUT, r->service);

    journal_bind_text(put, 1, service_name(r->service));
    journal_bind_blob(put, 2, r->key, r->key_bytes);
    journal_bind_blob(put, 3, r->id.bytes, UUID_BYTES);
    journal_bind_blob(put, 4, r->hash, HASH_BYTES);
    (void)sqlite3_bind_int64(put, 5,
                             r->key_until_unix_ms > 0 ? r->key_until_unix_ms
                                                      : b->keys_until_unix_ms);
    if (!b->key_replaces) {
        b->key_bytes += key_cost(r);
        b->j->delta[r->service].key_bytes += key_cost(r);
    }
    return journal_run(put);
}

static int
row_insert(struct batch *b, struct journal_request *r)
{
    sqlite3_stmt *insert = journal_sql(b->j, SQL_ACCEPT, r->service);
    struct journal_delta *delta = &b->j->delta[r->service];
    int code;

    if (r->received_unix_ms < b->received[r->service]) {
        r->received_unix_ms = b->received[r->service];
    }
    b->received[r->service] = r->received_unix_ms;
    b->bytes[r->service] += row_cost(r);
    delta->accepted++;
    delta->bytes += row_cost(r);
    delta->received_unix_ms = r->received_unix_ms;
    journal_bind_blob(insert, 1, r->id.bytes, UUID_BYTES);
    (void)sqlite3_bind_int64(insert, 2, r->received_unix_ms);
    journal_bind_blob(insert, 3, r->body, r->body_bytes);
    code = journal_run(insert);
    r->seq = sqlite3_last_insert_rowid(b->j->db);
    r->rank = ++b->waiting[r->service];
    r->verdict = JOURNAL_ACCEPTED;
    return code;
}

/* The request's row becomes canceled if it waits. The id alone decides: no
 * answer of before is asked. */
static int
cancel_one(struct batch *b, struct journal_request *r)
{
    sqlite3_stmt *cancel = journal_sql(b->j, SQL_CANCEL, r->service);
    sqlite3_stmt *ask = journal_sql(b->j, SQL_PROGRESS_OF_ID, r->service);
    int code;

    journal_bind_text(cancel, 1, service_name(r->service));
    journal_bind_blob(cancel, 2, r->id.bytes, UUID_BYTES);
    (void)sqlite3_bind_int(cancel, 3, r->state);
    (void)sqlite3_bind_int64(cancel, 4, r->received_unix_ms);
    code = journal_run(cancel);
    if (code != SQLITE_DONE) {
        return code;
    }
    r->verdict = JOURNAL_CANCELED;
    if (sqlite3_changes(b->j->db) > 0) {
        return code;
    }
    journal_bind_text(ask, 1, service_name(r->service));
    journal_bind_blob(ask, 2, r->id.bytes, UUID_BYTES);
    code = sqlite3_step(ask);
    if (code == SQLITE_DONE) {
        r->verdict = JOURNAL_ABSENT;
    } else if (code == SQLITE_ROW) {
        code = SQLITE_DONE;
        if (sqlite3_column_int(ask, 0) != r->state) {
            r->verdict = JOURNAL_LATE;
        }
    }
    (void)sqlite3_reset(ask);
    return code;
}

/* SQLITE_DONE, or what failed. */
static int
accept_one(struct batch *b, struct journal_request *r)
{
    int code = SQLITE_DONE;

    if (r->op == JOURNAL_CANCEL) {
        return cancel_one(b, r);
    }
    if (r->key != NULL) {
        enum rc rc = key_look_up(b, r);

        if (rc != RC_AGAIN) {
            return rc == RC_OK ? SQLITE_DONE : b->sql;
        }
    }
    r->verdict = JOURNAL_REFUSED;
    if (b->bytes[r->service] + row_cost(r) > b->service_max_bytes ||
        (r->key != NULL && b->key_bytes + key_cost(r) > b->keys_max_bytes)) {
        return SQLITE_DONE;
    }
    code = row_insert(b, r);
    if (code == SQLITE_DONE && r->key != NULL) {
        code = key_remember(b, r);
    }
    return code;
}

/* The transaction, under the lock. On failure it is undone. */
static enum rc
accept_all(struct batch *b, struct journal_request *requests, size_t count)
{
    struct journal *j = b->j;
    enum rc rc;

    memset(j->delta, 0, sizeof j->delta);
    b->sql = journal_run(journal_sql(j, SQL_BEGIN, SERVICE_CALLBACK));
    if (b->sql == SQLITE_DONE) {
        b->sql = counters_read(b);
    }
    if (b->sql == SQLITE_DONE) {
        rc = space_check(b, requests, count);
        if (rc == RC_FULL) {
            b->sql =
                journal_run(journal_sql(j, SQL_ROLLBACK, SERVICE_CALLBACK));
            return b->sql == SQLITE_DONE ? rc : journal_failed(j, b->sql);
        }
        b->sql = rc == RC_OK ? SQLITE_DONE : b->sql;
    }
    if (b->sql == SQLITE_DONE) {
        b->sql = subtract_busy(b, requests, count);
    }
    for (size_t i = 0; b->sql == SQLITE_DONE && i < count; i++) {
        b->sql = accept_one(b, &requests[i]);
    }
    if (b->sql == SQLITE_DONE) {
        b->sql = journal_count(j);
    }
    if (b->sql == SQLITE_DONE) {
        b->sql = journal_run(journal_sql(j, SQL_COMMIT, SERVICE_CALLBACK));
    }
    return b->sql == SQLITE_DONE ? RC_OK : journal_failed(j, b->sql);
}

/* Are these requests that the edge may hand in? Empties the outputs. */
static bool
requests_valid(struct journal_request *requests, size_t count)
{
    bool valid = count > 0 && count <= COUNT_MAX;

    for (size_t i = 0; valid && i < count; i++) {
        struct journal_request *r = &requests[i];

        r->verdict = JOURNAL_REFUSED;
        r->seq = 0;
        r->rank = 0;
        valid = (unsigned)r->service < SERVICE_COUNT &&
                r->body_bytes <= JOURNAL_BODY_BYTES_MAX &&
                r->received_unix_ms >= 0 &&
                (r->key == NULL || r->key_bytes <= JOURNAL_KEY_BYTES_MAX);
    }
    return valid;
}

enum rc
journal_accept(struct journal *j, struct journal_request *requests,
               size_t count, int64_t keys_until_unix_ms)
{
    struct batch b = {.j = j, .keys_until_unix_ms = keys_until_unix_ms};
    enum rc rc;

    if (j->role == JOURNAL_READER || j->writing ||
        !requests_valid(requests, count)) {
        journal_note(j, "journal_accept: not a batch that can be accepted");
        return RC_BUG;
    }
    b.keys_max_bytes = j->max_bytes / 100 * KEYS_PERCENT;
    b.service_max_bytes = (j->max_bytes - b.keys_max_bytes) / SERVICE_COUNT;
    rc = disk_check(j);
    if (rc == RC_OK) {
        rc = journal_lock(j);
    }
    if (rc == RC_OK) {
        rc = journal_open(j);
    }
    if (rc == RC_OK) {
        rc = accept_all(&b, requests, count);
    }
    journal_unlock(j);
    if (rc == RC_OK) {
        journal_relieve(j);
        return RC_OK;
    }
    for (size_t i = 0; i < count; i++) {
        requests[i].verdict = JOURNAL_REFUSED;
        requests[i].seq = 0;
        requests[i].rank = 0;
    }
    return rc;
}
