/* The journal's connection: opening, schema, statements, errors. The work is
 * in journal_accept.c (edge), journal_read.c and journal_work.c (dispatcher);
 * journal_lock.c has the writers' turn. */
#include "shared/journal_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "shared/clock.h"

#define CACHE_KIB 4096
#define WAL_BYTES_MAX INT64_C(67108864)
#define WAL_BYTES_MIN INT64_C(1048576)
#define WAL_FRAME_HEAD 24

/* The schema, version JOURNAL_SCHEMA. Once: */
static const char schema[] =
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;"
    /* bytes: what the service's rows take, dead ones and outcomes included;
     * key_bytes: its idempotency keys; received: of its newest row. */
    "CREATE TABLE counter("
    " service TEXT PRIMARY KEY,"
    " accepted INTEGER NOT NULL DEFAULT 0,"
    " final INTEGER NOT NULL DEFAULT 0,"
    " dead INTEGER NOT NULL DEFAULT 0,"
    " bytes INTEGER NOT NULL DEFAULT 0,"
    " key_bytes INTEGER NOT NULL DEFAULT 0,"
    " received INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;"
    "CREATE TABLE outcome("
    " no INTEGER PRIMARY KEY AUTOINCREMENT,"
    " service TEXT NOT NULL,"
    " body BLOB NOT NULL);"
    "CREATE INDEX outcome_service ON outcome(service, no);"
    "CREATE TABLE dead("
    " service TEXT NOT NULL,"
    " seq INTEGER NOT NULL,"
    " id BLOB NOT NULL,"
    " received INTEGER NOT NULL,"
    " died INTEGER NOT NULL,"
    " reason TEXT NOT NULL,"
    " body BLOB NOT NULL," /* what a retry puts back */
    " PRIMARY KEY(service, seq));"
    "CREATE INDEX dead_id ON dead(id);"
    "CREATE TABLE dead_item("
    " service TEXT NOT NULL,"
    " seq INTEGER NOT NULL,"
    " no INTEGER NOT NULL,"
    " item TEXT NOT NULL,"
    " reason TEXT NOT NULL,"
    " attempts INTEGER NOT NULL,"
    " PRIMARY KEY(service, seq, no)) WITHOUT ROWID;"
    "CREATE TABLE attempt("
    " service TEXT NOT NULL,"
    " item TEXT NOT NULL,"
    " attempts INTEGER NOT NULL,"
    " error TEXT NOT NULL,"
    " PRIMARY KEY(service, item)) WITHOUT ROWID;"
    "CREATE TABLE seen("
    " service TEXT NOT NULL,"
    " key BLOB NOT NULL,"
    " id BLOB NOT NULL,"
    " hash BLOB NOT NULL,"
    " until INTEGER NOT NULL,"
    " PRIMARY KEY(service, key)) WITHOUT ROWID;"
    "CREATE INDEX seen_until ON seen(until);";

/* What version 2 adds. */
static const char schema_2[] =
    "CREATE TABLE progress("
    " service TEXT NOT NULL,"
    " seq INTEGER NOT NULL,"
    " state INTEGER NOT NULL,"
    " attempts INTEGER NOT NULL,"
    " started INTEGER NOT NULL,"
    " finished INTEGER NOT NULL,"
    " error TEXT NOT NULL,"
    " PRIMARY KEY(service, seq)) WITHOUT ROWID;"
    "CREATE TABLE slot("
    " no INTEGER PRIMARY KEY,"
    " boot TEXT NOT NULL,"
    " free_at INTEGER NOT NULL);"
    "CREATE TABLE note(name TEXT PRIMARY KEY, value TEXT NOT NULL)"
    " WITHOUT ROWID;";

/* What version 3 adds. A member is named by its id, which a retry keeps. */
static const char schema_3[] =
    "CREATE TABLE batch("
    " id BLOB PRIMARY KEY,"
    " size INTEGER NOT NULL,"     /* members when it was made */
    " attempts INTEGER NOT NULL," /* requests that failed, of all rounds */
    " failures INTEGER NOT NULL," /* ... since it was made, or retried */
    " started INTEGER NOT NULL,"
    " error TEXT NOT NULL,"
    " body BLOB) WITHOUT ROWID;" /* of a dead one: the request, unchanged */
    "CREATE TABLE batch_member("
    " message BLOB PRIMARY KEY,"
    " batch BLOB NOT NULL,"
    " place INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX batch_member_batch ON batch_member(batch, place);";

/* Once a service. AUTOINCREMENT: a plain rowid starts at 1 again when the
 * queue has been empty. */
static const char schema_service[] =
    "CREATE TABLE queue_%s("
    " seq INTEGER PRIMARY KEY AUTOINCREMENT,"
    " id BLOB NOT NULL UNIQUE,"
    " received INTEGER NOT NULL,"
    " outcome INTEGER,"
    " body BLOB NOT NULL);"
    "CREATE INDEX queue_%s_outcome ON queue_%s(outcome)"
    " WHERE outcome IS NOT NULL;"
    "INSERT INTO counter(service) VALUES('%s');";

/* Of a batch b; the last: its members that wait in the queue. */
#define BATCH_COLUMNS                                                          \
    "b.id, b.size, b.attempts, b.failures, b.started, b.error,"                \
    " (SELECT count(*) FROM batch_member o JOIN queue_%s q"                    \
    "  ON q.id = o.message WHERE o.batch = b.id AND q.outcome IS NULL)"

/* Every statement, with the service's name for each %s. ?1 is the service's
 * name wherever a table has the services in one. */
static const char *const statements[SQL_STATEMENTS] = {
    [SQL_BEGIN] = "BEGIN IMMEDIATE",
    [SQL_COMMIT] = "COMMIT",
    [SQL_READ_BEGIN] = "BEGIN",
    [SQL_ROLLBACK] = "ROLLBACK",
    [SQL_PAGE_COUNT] = "PRAGMA page_count",
    [SQL_FREE_COUNT] = "PRAGMA freelist_count",
    [SQL_COUNTERS] = "SELECT service, accepted, final, dead, bytes, key_bytes,"
                     " received FROM counter",
    [SQL_COUNT] = "UPDATE counter SET accepted = accepted + ?2,"
                  " final = final + ?3, dead = dead + ?4,"
                  " bytes = max(0, bytes + ?5),"
                  " key_bytes = max(0, key_bytes + ?6),"
                  " received = max(received, ?7) WHERE service = ?1",
    [SQL_ACCEPT] = "INSERT INTO queue_%s(id, received, body) VALUES(?, ?, ?)",
    [SQL_SEEN_GET] = "SELECT id, hash, until FROM seen"
                     " WHERE service = ?1 AND key = ?2",
    [SQL_SEEN_PUT] = "INSERT INTO seen(service, key, id, hash, until)"
                     " VALUES(?1, ?2, ?3, ?4, ?5)"
                     " ON CONFLICT(service, key) DO UPDATE SET"
                     " id = excluded.id, hash = excluded.hash,"
                     " until = excluded.until",
    [SQL_SEEN_EXPIRE] =
        "DELETE FROM seen WHERE (service, key) IN"
        " (SELECT service, key FROM seen WHERE until <= ?1 LIMIT ?2)"
        " RETURNING service, length(key)",
    [SQL_QUEUE_PAGE] = "SELECT seq, id, received, outcome, body FROM queue_%s"
                       " WHERE seq > ?1 ORDER BY seq LIMIT ?2",
    [SQL_QUEUE_ROW] = "SELECT seq, id, received, outcome, body FROM queue_%s"
                      " WHERE seq = ?1",
    [SQL_QUEUE_FIND] = "SELECT seq, received, outcome FROM queue_%s"
                       " WHERE id = ?1",
    [SQL_QUEUE_AHEAD] =
        "SELECT (SELECT count(*) FROM queue_%s WHERE seq < ?1) -"
        " (SELECT count(*) FROM progress"
        "  WHERE service = '%s' AND seq < ?1 AND state <> 0)",
    [SQL_QUEUE_LEDGER] =
        "SELECT (SELECT count(*) FROM queue_%s),"
        " (SELECT received FROM queue_%s ORDER BY seq LIMIT 1)",
    [SQL_NEWEST] = "SELECT seq FROM sqlite_sequence WHERE name = 'queue_%s'",
    [SQL_OUTCOME_PAGE] = "SELECT no, body FROM outcome"
                         " WHERE service = ?1 AND no > ?2 ORDER BY no LIMIT ?3",
    [SQL_OUTCOME_ADD] = "INSERT INTO outcome(service, body) VALUES(?1, ?2)",
    [SQL_OUTCOME_COUNT] = "SELECT count(*) FROM outcome WHERE service = ?1",
    [SQL_OUTCOME_SIZE] = "SELECT coalesce(sum(length(CAST(body AS BLOB))), 0)"
                         " FROM outcome"
                         " WHERE service = ?1 AND no >= ?2 AND no <= ?3",
    [SQL_OUTCOME_DELETE] = "DELETE FROM outcome"
                           " WHERE service = ?1 AND no >= ?2 AND no <= ?3",
    [SQL_FINISH] = "UPDATE queue_%s SET outcome = ?2"
                   " WHERE seq = ?1 AND outcome IS NULL",
    [SQL_FINISHED_WITH] = "SELECT seq FROM queue_%s WHERE outcome = ?1 LIMIT 1",
    [SQL_RETIRE_EACH] = "SELECT received, length(CAST(body AS BLOB))"
                        " FROM queue_%s WHERE outcome >= ?1 AND outcome <= ?2",
    [SQL_RETIRE] = "DELETE FROM queue_%s WHERE outcome >= ?1 AND outcome <= ?2",
    [SQL_QUEUE_DELETE] = "DELETE FROM queue_%s WHERE seq = ?1",
    [SQL_DEAD_ADD] =
        "INSERT INTO dead(service, seq, id, received, died, reason, body)"
        " SELECT ?1, seq, ?3, ?4, ?5, ?6, coalesce(?7, CAST(body AS BLOB))"
        " FROM queue_%s WHERE seq = ?2",
    [SQL_DEAD_ITEM_ADD] =
        "INSERT INTO dead_item(service, seq, no, item, reason, attempts)"
        " VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
    [SQL_DEAD_FIND] = "SELECT service, seq, id, received, died, reason,"
                      " (SELECT count(*) FROM dead_item i"
                      "  WHERE i.service = d.service AND i.seq = d.seq)"
                      " FROM dead d WHERE id = ?1",
    [SQL_DEAD_LOCATE] = "SELECT service, seq, id, received, died, reason, 0"
                        " FROM dead WHERE id = ?1 AND service = ?2",
    [SQL_DEAD_EACH] = "SELECT service, seq, id, received, died, reason,"
                      " (SELECT count(*) FROM dead_item i"
                      "  WHERE i.service = d.service AND i.seq = d.seq)"
                      " FROM dead d WHERE service = ?1 AND seq > ?2"
                      " ORDER BY seq LIMIT ?3",
    [SQL_DEAD_ITEMS] = "SELECT item, reason, attempts FROM dead_item"
                       " WHERE service = ?1 AND seq = ?2 ORDER BY no",
    [SQL_DEAD_SIZE] =
        "SELECT length(CAST(body AS BLOB)),"
        " (SELECT coalesce(sum(length(CAST(item AS BLOB)) +"
        "   length(CAST(reason AS BLOB)) + 32), 0) FROM dead_item i"
        "  WHERE i.service = d.service AND i.seq = d.seq)"
        " FROM dead d WHERE service = ?1 AND seq = ?2",
    [SQL_DEAD_COUNT] = "SELECT count(*) FROM dead WHERE service = ?1",
    [SQL_DEAD_REQUEUE] =
        "INSERT INTO queue_%s(id, received, body)"
        " SELECT id, ?3, body FROM dead WHERE service = ?1 AND seq = ?2"
        " ON CONFLICT(id) DO NOTHING",
    [SQL_DEAD_DELETE] = "DELETE FROM dead WHERE service = ?1 AND seq = ?2",
    [SQL_DEAD_ITEM_DELETE] =
        "DELETE FROM dead_item WHERE service = ?1 AND seq = ?2",
    [SQL_ATTEMPT_PUT] =
        "INSERT INTO attempt(service, item, attempts, error)"
        " VALUES(?1, ?2, ?3, ?4) ON CONFLICT(service, item) DO UPDATE SET"
        " attempts = excluded.attempts, error = excluded.error",
    [SQL_ATTEMPT_DELETE] = "DELETE FROM attempt"
                           " WHERE service = ?1 AND item = ?2",
    [SQL_ATTEMPT_EACH] = "SELECT item, attempts, error FROM attempt"
                         " WHERE service = ?1",
    [SQL_CANCEL] =
        "INSERT INTO progress(service, seq, state, attempts, started,"
        " finished, error)"
        " SELECT ?1, seq, ?3, 0, 0, max(?4, received), '' FROM queue_%s"
        " WHERE id = ?2 AND outcome IS NULL"
        " ON CONFLICT(service, seq) DO UPDATE SET"
        " state = excluded.state, finished = excluded.finished"
        " WHERE state = 0",
    [SQL_PROGRESS_OF_ID] = "SELECT coalesce((SELECT state FROM progress p"
                           " WHERE p.service = ?1 AND p.seq = q.seq), 0)"
                           " FROM queue_%s q WHERE id = ?2",
    [SQL_PROGRESS_BUSY] = "SELECT count(*) FROM progress"
                          " WHERE service = ?1 AND state <> 0",
    [SQL_PROGRESS_GET] =
        "SELECT seq, state, attempts, started, finished, error FROM progress"
        " WHERE service = ?1 AND seq = ?2",
    [SQL_PROGRESS_EACH] =
        "SELECT seq, state, attempts, started, finished, error FROM progress"
        " WHERE service = ?1 ORDER BY seq",
    [SQL_PROGRESS_PUT] =
        "INSERT INTO progress(service, seq, state, attempts, started,"
        " finished, error) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)"
        " ON CONFLICT(service, seq) DO UPDATE SET state = excluded.state,"
        " attempts = excluded.attempts, started = excluded.started,"
        " finished = excluded.finished, error = excluded.error",
    [SQL_PROGRESS_BEGIN] =
        "INSERT INTO progress(service, seq, state, attempts, started,"
        " finished, error) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)"
        " ON CONFLICT(service, seq) DO UPDATE SET state = excluded.state,"
        " attempts = excluded.attempts, started = excluded.started,"
        " finished = excluded.finished, error = excluded.error"
        " WHERE state = 0",
    [SQL_PROGRESS_DELETE] = "DELETE FROM progress"
                            " WHERE service = ?1 AND seq = ?2",
    /* The first condition spares services without progress the second. */
    [SQL_PROGRESS_RETIRE] =
        "DELETE FROM progress"
        " WHERE EXISTS (SELECT 1 FROM progress WHERE service = ?1)"
        " AND service = ?1 AND seq IN (SELECT seq FROM queue_%s"
        "  WHERE outcome >= ?2 AND outcome <= ?3)",
    [SQL_SLOT_EACH] = "SELECT no, boot, free_at FROM slot ORDER BY no",
    [SQL_SLOT_PUT] = "INSERT INTO slot(no, boot, free_at) VALUES(?1, ?2, ?3)"
                     " ON CONFLICT(no) DO UPDATE SET boot = excluded.boot,"
                     " free_at = excluded.free_at",
    [SQL_NOTE_GET] = "SELECT value FROM note WHERE name = ?1",
    [SQL_NOTE_PUT] = "INSERT INTO note(name, value) VALUES(?1, ?2)"
                     " ON CONFLICT(name) DO UPDATE SET value = excluded.value",
    [SQL_BATCH_COUNT] = "SELECT count(*) FROM batch",
    [SQL_BATCH_OF] = "SELECT " BATCH_COLUMNS ", m.place"
                     " FROM batch_member m JOIN batch b ON b.id = m.batch"
                     " WHERE m.message = ?1",
    [SQL_BATCH_FIND] = "SELECT " BATCH_COLUMNS ", 0 FROM batch b"
                       " WHERE b.id = ?1",
    [SQL_BATCH_BODY] = "SELECT body FROM batch WHERE id = ?1",
    [SQL_BATCH_PUT] =
        "INSERT INTO batch(id, size, attempts, failures, started, error)"
        " VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
    [SQL_BATCH_NOTE] =
        "UPDATE batch SET size = ?2, attempts = ?3, failures = ?4,"
        " started = ?5, error = ?6, body = coalesce(?7, body) WHERE id = ?1",
    [SQL_BATCH_DELETE] = "DELETE FROM batch WHERE id = ?1",
    [SQL_BATCH_DELETE_EMPTY] = "DELETE FROM batch WHERE id = ?1 AND NOT EXISTS"
                               " (SELECT 1 FROM batch_member WHERE batch = ?1)",
    [SQL_MEMBER_PUT] =
        "INSERT INTO batch_member(message, batch, place) VALUES(?1, ?2, ?3)",
    [SQL_MEMBER_DELETE] = "DELETE FROM batch_member WHERE message = ?1"
                          " RETURNING batch",
    [SQL_MEMBERS_DELETE] = "DELETE FROM batch_member WHERE batch = ?1",
    /* Itself, or all of its batch. */
    [SQL_DEAD_TOGETHER] =
        "SELECT d.seq FROM batch_member m"
        " JOIN batch_member o ON o.batch = m.batch"
        " JOIN dead d ON d.id = o.message AND d.service = '%s'"
        " WHERE m.message = ?1 ORDER BY o.place",
    [SQL_IDENTITY] = "SELECT value FROM meta WHERE name = 'uuid'",
};

void
journal_note(struct journal *j, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(j->error, sizeof j->error, format, args);
    va_end(args);
}

const char *
journal_error(const struct journal *j)
{
    return j->error;
}

sqlite3_stmt *
journal_sql(struct journal *j, enum journal_sql which, enum service service)
{
    return j->sql[which][service];
}

int
journal_run(sqlite3_stmt *statement)
{
    int code = sqlite3_step(statement);
    int reset = sqlite3_reset(statement);

    return code == SQLITE_ROW || code == SQLITE_DONE || reset == SQLITE_OK
               ? code
               : reset;
}

void
journal_bind_text(sqlite3_stmt *statement, int at, const char *text)
{
    (void)sqlite3_bind_text(statement, at, text, -1, SQLITE_STATIC);
}

void
journal_bind_blob(sqlite3_stmt *statement, int at, const void *data,
                  size_t bytes)
{
    (void)sqlite3_bind_blob64(statement, at, bytes > 0 ? data : "", bytes,
                              SQLITE_STATIC);
}

/* ---- errors ----------------------------------------------------------------
 */

static void
disconnect(struct journal *j)
{
    for (int i = 0; i < SQL_STATEMENTS; i++) {
        for (int s = 0; s < SERVICE_COUNT; s++) {
            (void)sqlite3_finalize(j->sql[i][s]);
            j->sql[i][s] = NULL;
        }
    }
    (void)sqlite3_close(j->db);
    j->db = NULL;
    j->wal_frames = 0;
}

/* A failed fsync marks its pages clean, so that the frames may never reach the
 * disk. This connection knows that they are not committed, and the next commit
 * writes over them. Were it the last one and closed, the next one to open would
 * find them whole in the page cache, take them for committed, and append to
 * what the next crash of the system may cut off. */
static bool
stays_open(int code)
{
    int primary = code & 0xff;

    return primary == SQLITE_BUSY || primary == SQLITE_LOCKED ||
           code == SQLITE_IOERR_FSYNC;
}

enum rc
journal_failed(struct journal *j, int code)
{
    int primary = code & 0xff;

    if (j->db != NULL) {
        bool ours = (sqlite3_errcode(j->db) & 0xff) == primary;

        journal_note(j, "%s: %s (%d)", j->path,
                     ours ? sqlite3_errmsg(j->db) : sqlite3_errstr(code), code);
        if (sqlite3_get_autocommit(j->db) == 0) {
            (void)sqlite3_exec(j->db, "ROLLBACK", NULL, NULL, NULL);
        }
        /* Busy is somebody else's doing, the rest may have left this
         * connection with a wrong idea of the file: begin anew. */
        if (!stays_open(code) || sqlite3_get_autocommit(j->db) == 0) {
            disconnect(j);
        }
    } else {
        journal_note(j, "%s: %s (%d)", j->path, sqlite3_errstr(code), code);
    }
    j->writing = false;
    journal_unlock(j);
    switch (primary) {
    case SQLITE_FULL:
        return RC_FULL;
    case SQLITE_NOMEM:
        return RC_NOMEM;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return RC_TIMEOUT;
    case SQLITE_CONSTRAINT:
    case SQLITE_MISUSE:
    case SQLITE_RANGE:
        return RC_BUG;
    default:
        return RC_IO;
    }
}

/* ---- opening ---------------------------------------------------------------
 */

/* Pages of the file that the next rows will use before it grows. */
static int64_t
unused_bytes(const struct journal *j)
{
    sqlite3_stmt *ask = j->sql[SQL_FREE_COUNT][SERVICE_CALLBACK];
    int64_t pages = 0;

    if (ask == NULL) { /* not open */
        return 0;
    }
    if (sqlite3_step(ask) == SQLITE_ROW) {
        pages = sqlite3_column_int64(ask, 0);
    }
    (void)sqlite3_reset(ask);
    return pages * j->page_bytes;
}

bool
journal_disk_low(const struct journal *j)
{
    struct statvfs fs;
    int64_t wal_bytes = j->wal_frames * (j->page_bytes + WAL_FRAME_HEAD);

    if (j->reserve_bytes == 0) {
        return false;
    }
    /* The file never shrinks: what was retired from it counts as room. What is
     * in the WAL has yet to find room in the file: else the checkpoint would
     * use up the reserve, or fail, and nothing could ever be retired.
     * The lock file is there when there is a journal. */
    return statvfs(j->lock_path, &fs) == 0 &&
           (int64_t)(fs.f_bavail * fs.f_frsize) + unused_bytes(j) <
               j->reserve_bytes + wal_bytes;
}

/* The first column of a statement's first row as a number. */
static int
ask_int(sqlite3 *db, const char *text, int64_t *out)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(db, text, -1, &statement, NULL);

    *out = 0;
    if (code == SQLITE_OK) {
        code = sqlite3_step(statement);
        if (code == SQLITE_ROW) {
            *out = sqlite3_column_int64(statement, 0);
            code = SQLITE_OK;
        }
    }
    (void)sqlite3_finalize(statement);
    return code;
}

static int
schema_service_create(sqlite3 *db, enum service service)
{
    const char *name = service_name(service);
    char *text = sqlite3_mprintf(schema_service, name, name, name, name);
    int code = SQLITE_NOMEM;

    if (text != NULL) {
        code = sqlite3_exec(db, text, NULL, NULL, NULL);
    }
    sqlite3_free(text);
    return code;
}

static int
schema_identity_create(sqlite3 *db)
{
    struct uuid_source source;
    struct uuid id = {{0}};
    sqlite3_stmt *insert = NULL;
    int code;

    uuid_source_init(&source, 0);
    if (uuid_next(&source, clock_now_unix_ms(), &id) != RC_OK) {
        return SQLITE_IOERR;
    }
    code = sqlite3_prepare_v2(db, "INSERT INTO meta VALUES('uuid', ?)", -1,
                              &insert, NULL);
    if (code == SQLITE_OK) {
        journal_bind_blob(insert, 1, id.bytes, sizeof id.bytes);
        code = sqlite3_step(insert);
    }
    (void)sqlite3_finalize(insert);
    return code == SQLITE_DONE ? SQLITE_OK : code;
}

/* What each version added, from 1. */
static const struct {
    const char *tables;
    enum service services[2];
    unsigned service_count;
} versions[JOURNAL_SCHEMA] = {
    {schema, {SERVICE_CALLBACK}, 1},
    {schema_2, {SERVICE_CALL}, 1},
    {schema_3, {SERVICE_SMS, SERVICE_SMS_STATUS}, 2},
    {"", {SERVICE_INVITATION}, 1},
};

static int
schema_add(sqlite3 *db, unsigned version)
{
    int code = sqlite3_exec(db, versions[version - 1].tables, NULL, NULL, NULL);

    for (unsigned i = 0;
         code == SQLITE_OK && i < versions[version - 1].service_count; i++) {
        code = schema_service_create(db, versions[version - 1].services[i]);
    }
    return code;
}

/* Bring the schema from version from (0: nothing is there) to ours. Under the
 * lock, so that of several processes that start at once one does it; in one
 * transaction, so that a kill leaves all or nothing. */
static int
schema_raise(sqlite3 *db, int64_t from)
{
    char version[96];
    int code = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);

    for (unsigned v = (unsigned)from + 1;
         code == SQLITE_OK && v <= JOURNAL_SCHEMA; v++) {
        code = schema_add(db, v);
    }
    if (code == SQLITE_OK && from < 1) {
        code = schema_identity_create(db);
    }
    if (code == SQLITE_OK) {
        (void)snprintf(version, sizeof version,
                       "PRAGMA application_id=%d; PRAGMA user_version=%d",
                       JOURNAL_APPLICATION_ID, JOURNAL_SCHEMA);
        code = sqlite3_exec(db, version, NULL, NULL, NULL);
    }
    return code == SQLITE_OK ? sqlite3_exec(db, "COMMIT", NULL, NULL, NULL)
                             : code;
}

/* Is the file ours, of our version or an older one? *found: which; 0: there is
 * no schema in it yet. In one snapshot, for another process may just be making
 * it. */
static enum rc
schema_check(struct journal *j, int64_t *found)
{
    int64_t version = 0;
    int64_t tables = 0;
    int64_t application = 0;
    int code = sqlite3_exec(j->db, "BEGIN", NULL, NULL, NULL);

    if (code == SQLITE_OK) {
        code = ask_int(j->db, "PRAGMA user_version", &version);
    }
    *found = version;
    if (code == SQLITE_OK) {
        code = ask_int(j->db, "PRAGMA application_id", &application);
    }
    if (code == SQLITE_OK && version == 0) {
        code = ask_int(j->db, "SELECT count(*) FROM sqlite_schema", &tables);
    }
    if (code == SQLITE_OK) {
        code = sqlite3_exec(j->db, "COMMIT", NULL, NULL, NULL);
    }
    if (code != SQLITE_OK) {
        return journal_failed(j, code);
    }
    if (version > JOURNAL_SCHEMA && application == JOURNAL_APPLICATION_ID) {
        journal_note(j,
                     "%s: has schema %lld, this program knows %d: it was "
                     "written by a newer version",
                     j->path, (long long)version, JOURNAL_SCHEMA);
        return RC_IO;
    }
    if (tables > 0 || (version != 0 && application != JOURNAL_APPLICATION_ID)) {
        journal_note(j, "%s: is a database, but not a journal", j->path);
        return RC_IO;
    }
    return RC_OK;
}

static int
on_commit(void *arg, sqlite3 *db, const char *name, int frames)
{
    struct journal *j = arg;

    (void)db;
    (void)name;
    j->wal_frames = frames;
    return SQLITE_OK;
}

static int
settings(struct journal *j)
{
    char text[512];
    int64_t wal_bytes;
    int code;

    j->wal_keep_bytes =
        j->max_bytes / 16 < WAL_BYTES_MAX ? j->max_bytes / 16 : WAL_BYTES_MAX;

    /* Debian's SQLite overwrites what is deleted with zeros unless told not to:
     * each retired page would go through the WAL once more, and a retirement
     * would not fit into the reserve of a full disk.
     * The size limit cuts a WAL that has grown past it when it is next
     * reused: it counts against max_bytes. */
    (void)snprintf(text, sizeof text,
                   "PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0;"
                   "PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY;"
                   "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON;"
                   "PRAGMA secure_delete=OFF;"
                   "PRAGMA cache_size=-%d; PRAGMA journal_size_limit=%lld;"
                   "PRAGMA query_only=%d",
                   CACHE_KIB, (long long)j->wal_keep_bytes,
                   j->role == JOURNAL_READER ? 1 : 0);
    code = sqlite3_exec(j->db, text, NULL, NULL, NULL);
    if (code == SQLITE_OK) {
        code = ask_int(j->db, "PRAGMA page_size", &j->page_bytes);
    }
    if (j->page_bytes < 512) {
        j->page_bytes = 4096;
    }
    wal_bytes =
        j->max_bytes / 8 < WAL_BYTES_MAX ? j->max_bytes / 8 : WAL_BYTES_MAX;
    if (j->reserve_bytes > 0 && j->reserve_bytes / 2 < wal_bytes) {
        /* Half of the reserve for the WAL, half for what its checkpoint adds
         * to the file. */
        wal_bytes = j->reserve_bytes / 2 > WAL_BYTES_MIN ? j->reserve_bytes / 2
                                                         : WAL_BYTES_MIN;
    }
    j->wal_frames_full = (int)(wal_bytes / (j->page_bytes + WAL_FRAME_HEAD));
    j->wal_frames_checkpoint = j->wal_frames_full;
    return code;
}

/* The journal mode stays in the file, so that only the first one sets it. */
static int
wal_mode(struct journal *j)
{
    sqlite3_stmt *ask = NULL;
    int code =
        sqlite3_prepare_v2(j->db, "PRAGMA journal_mode=WAL", -1, &ask, NULL);

    if (code == SQLITE_OK) {
        code = sqlite3_step(ask);
    }
    if (code == SQLITE_ROW) {
        const char *mode = (const char *)sqlite3_column_text(ask, 0);

        /* Without shared memory (a network's file system) it says "delete". */
        code = mode != NULL && strcmp(mode, "wal") == 0 ? SQLITE_OK
                                                        : SQLITE_IOERR_SHMMAP;
    }
    (void)sqlite3_finalize(ask);
    return code;
}

static int
prepare(struct journal *j)
{
    int code = SQLITE_OK;

    for (int i = 0; code == SQLITE_OK && i < SQL_STATEMENTS; i++) {
        for (unsigned s = 0; code == SQLITE_OK && s < SERVICE_COUNT; s++) {
            const char *name = service_name((enum service)s);
            char *text = sqlite3_mprintf(statements[i], name, name);

            code = text == NULL ? SQLITE_NOMEM
                                : sqlite3_prepare_v3(j->db, text, -1,
                                                     SQLITE_PREPARE_PERSISTENT,
                                                     &j->sql[i][s], NULL);
            sqlite3_free(text);
        }
    }
    return code;
}

/* SQLite would make the file under the umask, and -wal and -shm like it. An
 * existing one is never opened here: closing any descriptor of a file drops
 * the POSIX locks that SQLite holds on it in this process. */
static enum rc
file_create(struct journal *j)
{
    struct stat st;
    int fd;

    if (stat(j->path, &st) == 0) {
        return st.st_size == 0 && j->role == JOURNAL_READER ? RC_AGAIN : RC_OK;
    }
    if (errno == ENOENT && j->role == JOURNAL_READER) {
        return RC_AGAIN;
    }
    if (errno == ENOENT) {
        fd = journal_create(j->path, 0);
        if (fd >= 0) {
            (void)close(fd);
            return RC_OK;
        }
    }
    journal_note(j, "%s: %s", j->path, strerror(errno));
    return RC_IO;
}

/* The rest of opening, once SQLite has the file. */
static enum rc
connect_finish(struct journal *j)
{
    int64_t version = 0;
    int code = settings(j);
    enum rc rc;

    if (code != SQLITE_OK) {
        return journal_failed(j, code);
    }
    rc = schema_check(j, &version);
    if (rc != RC_OK) {
        return rc;
    }
    if (j->role != JOURNAL_READER) {
        code = wal_mode(j);
        if (code == SQLITE_OK && version < JOURNAL_SCHEMA) {
            code = schema_raise(j->db, version);
        }
    } else if (version < JOURNAL_SCHEMA) {
        return RC_AGAIN; /* somebody is just making it, or will at the start */
    }
    if (code == SQLITE_OK) {
        code = prepare(j);
    }
    return code == SQLITE_OK ? RC_OK : journal_failed(j, code);
}

enum rc
journal_open(struct journal *j)
{
    enum rc rc;
    int code;

    if (j->db != NULL) {
        return RC_OK;
    }
    rc = file_create(j);
    if (rc != RC_OK) {
        return rc;
    }
    /* No mutex: a connection belongs to one thread. */
    code = sqlite3_open_v2(j->path, &j->db,
                           SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    if (code == SQLITE_OK) {
        (void)sqlite3_extended_result_codes(j->db, 1);
        (void)sqlite3_busy_timeout(j->db, JOURNAL_BUSY_TIMEOUT_MS);
        /* The last one to close must not checkpoint, for it would do so
         * without the lock. */
        (void)sqlite3_db_config(j->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1,
                                NULL);
        rc = connect_finish(j);
    } else {
        rc = journal_failed(j, code);
    }
    if (rc != RC_OK) {
        disconnect(j);
        return rc;
    }
    (void)sqlite3_wal_hook(j->db, on_commit, j);
    return RC_OK;
}

enum rc
journal_ready(struct journal *j)
{
    enum rc rc;

    if (j->db != NULL) {
        return RC_OK;
    }
    if (j->role == JOURNAL_READER) {
        return journal_open(j);
    }
    rc = journal_lock(j);
    if (rc == RC_OK) {
        rc = journal_open(j);
    }
    journal_unlock(j);
    return rc;
}

/* ---- rows and counters ------------------------------------------------------
 */

void
journal_row_decode(sqlite3_stmt *statement, struct journal_row *row)
{
    int outcome = sqlite3_column_type(statement, 3);

    *row = (struct journal_row){.seq = sqlite3_column_int64(statement, 0),
                                .body = ""};
    row->broken = outcome != SQLITE_NULL && outcome != SQLITE_INTEGER;
    if (sqlite3_column_type(statement, 1) == SQLITE_BLOB &&
        sqlite3_column_bytes(statement, 1) == UUID_BYTES) {
        memcpy(row->id.bytes, sqlite3_column_blob(statement, 1), UUID_BYTES);
    } else {
        row->broken = true;
    }
    if (sqlite3_column_type(statement, 2) == SQLITE_INTEGER &&
        sqlite3_column_int64(statement, 2) >= 0 &&
        sqlite3_column_int64(statement, 2) <= JOURNAL_RECEIVED_MAX) {
        row->received_unix_ms = sqlite3_column_int64(statement, 2);
    } else {
        row->broken = true;
    }
    if (sqlite3_column_type(statement, 4) != SQLITE_BLOB ||
        sqlite3_column_bytes(statement, 4) > JOURNAL_BODY_BYTES_MAX) {
        row->broken = true;
    } else if (sqlite3_column_bytes(statement, 4) > 0) {
        row->body = sqlite3_column_blob(statement, 4);
        row->body_bytes = (size_t)sqlite3_column_bytes(statement, 4);
        if (row->body == NULL) { /* out of memory */
            row->body = "";
            row->body_bytes = 0;
            row->broken = true;
        }
    }
}

void
journal_column_copy(sqlite3_stmt *statement, int column, char *out, size_t size)
{
    const char *text = (const char *)sqlite3_column_text(statement, column);
    size_t bytes = text != NULL ? strlen(text) : 0;

    if (bytes >= size) {
        bytes = size - 1;
        while (bytes > 0 && ((unsigned char)text[bytes] & 0xc0) == 0x80) {
            bytes--;
        }
    }
    if (bytes > 0) {
        memcpy(out, text, bytes);
    }
    out[bytes] = '\0';
}

enum rc
journal_change(struct journal *j, sqlite3_stmt *statement)
{
    int code = journal_run(statement);

    if (code != SQLITE_DONE) {
        return journal_failed(j, code);
    }
    return sqlite3_changes(j->db) > 0 ? RC_OK : RC_AGAIN;
}

int
journal_count(struct journal *j)
{
    int code = SQLITE_DONE;

    for (unsigned s = 0; code == SQLITE_DONE && s < SERVICE_COUNT; s++) {
        struct journal_delta *d = &j->delta[s];
        sqlite3_stmt *count = journal_sql(j, SQL_COUNT, (enum service)s);

        if (d->accepted == 0 && d->final == 0 && d->dead == 0 &&
            d->bytes == 0 && d->key_bytes == 0 && d->received_unix_ms == 0) {
            continue;
        }
        journal_bind_text(count, 1, service_name((enum service)s));
        (void)sqlite3_bind_int64(count, 2, d->accepted);
        (void)sqlite3_bind_int64(count, 3, d->final);
        (void)sqlite3_bind_int64(count, 4, d->dead);
        (void)sqlite3_bind_int64(count, 5, d->bytes);
        (void)sqlite3_bind_int64(count, 6, d->key_bytes);
        (void)sqlite3_bind_int64(count, 7, d->received_unix_ms);
        code = journal_run(count);
        *d = (struct journal_delta){0};
    }
    return code;
}

/* ---- new and free
 * ------------------------------------------------------------ */

static char *
path_with(const char *path, const char *suffix)
{
    size_t bytes = strlen(path) + strlen(suffix) + 1;
    char *out = malloc(bytes);

    if (out != NULL) {
        (void)snprintf(out, bytes, "%s%s", path, suffix);
    }
    return out;
}

struct journal_options
journal_options_of(const struct conf_journal *conf, enum journal_role role)
{
    return (struct journal_options){
        .path = conf->path,
        .role = role,
        .max_bytes = conf->max_bytes,
        .reserve_bytes = conf->reserve_bytes,
        .lock_timeout_ms = conf->lock_timeout_ms,
    };
}

enum rc
journal_new(struct journal **out, const struct journal_options *options)
{
    struct journal *j = calloc(1, sizeof *j);

    *out = NULL;
    if (j == NULL) {
        return RC_NOMEM;
    }
    j->lock_fd = -1;
    j->role = options->role;
    j->max_bytes = options->max_bytes;
    j->reserve_bytes = options->reserve_bytes;
    j->lock_timeout_ms = options->lock_timeout_ms;
    j->path = path_with(options->path, "");
    j->wal_path = path_with(options->path, "-wal");
    j->lock_path = path_with(options->path, ".lock");
    if (j->path == NULL || j->wal_path == NULL || j->lock_path == NULL) {
        journal_free(&j);
        return RC_NOMEM;
    }
    *out = j;
    return RC_OK;
}

void
journal_free(struct journal **j)
{
    struct journal *old = *j;

    if (old == NULL) {
        return;
    }
    *j = NULL;
    disconnect(old); /* an open transaction is rolled back by it */
    journal_unlock(old);
    if (old->lock_fd >= 0) {
        (void)close(old->lock_fd);
    }
    free(old->path);
    free(old->wal_path);
    free(old->lock_path);
    free(old);
}
