/* What the journal's own files share: the connection, its statements, its
 * lock. Included by shared/journal*.c, and by the fuzzer of its row reader;
 * everybody else uses shared/journal.h. */
#ifndef SLUICE_SHARED_JOURNAL_IMPL_H
#define SLUICE_SHARED_JOURNAL_IMPL_H

#include <sqlite3.h>

#include "shared/journal.h"

#define JOURNAL_SCHEMA 4
#define JOURNAL_APPLICATION_ID 0x534c4a31 /* "SLJ1" */

/* Only recovery and the last close exclude others without flock; both are
 * short. */
#define JOURNAL_BUSY_TIMEOUT_MS 1000

/* A body in a row may not be larger: no frame could carry it. */
#define JOURNAL_BODY_BYTES_MAX (1024 * 1024)

/* Nothing was received after the year 9999. What is larger would spoil the
 * outcome, and the statement, that it shares with others. */
#define JOURNAL_RECEIVED_MAX INT64_C(253402300799999)

/* What a row takes besides its body, index entries included. Estimates, used
 * for the shares of max_bytes only; pages are what is really counted. */
#define JOURNAL_ROW_COST 96
#define JOURNAL_OUTCOME_COST 64
#define JOURNAL_KEY_COST 128 /* and the key twice: table and index */

enum journal_sql {
    SQL_BEGIN,
    SQL_COMMIT,
    SQL_READ_BEGIN,
    SQL_ROLLBACK,
    SQL_PAGE_COUNT,
    SQL_FREE_COUNT,
    SQL_COUNTERS,
    SQL_COUNT,
    SQL_ACCEPT,
    SQL_SEEN_GET,
    SQL_SEEN_PUT,
    SQL_SEEN_EXPIRE,
    SQL_QUEUE_PAGE,
    SQL_QUEUE_ROW,
    SQL_QUEUE_FIND,
    SQL_QUEUE_AHEAD,
    SQL_QUEUE_LEDGER,
    SQL_NEWEST,
    SQL_OUTCOME_PAGE,
    SQL_OUTCOME_ADD,
    SQL_OUTCOME_COUNT,
    SQL_OUTCOME_SIZE,
    SQL_OUTCOME_DELETE,
    SQL_FINISH,
    SQL_FINISHED_WITH,
    SQL_RETIRE_EACH,
    SQL_RETIRE,
    SQL_QUEUE_DELETE,
    SQL_DEAD_ADD,
    SQL_DEAD_ITEM_ADD,
    SQL_DEAD_FIND,
    SQL_DEAD_LOCATE,
    SQL_DEAD_EACH,
    SQL_DEAD_ITEMS,
    SQL_DEAD_SIZE,
    SQL_DEAD_COUNT,
    SQL_DEAD_REQUEUE,
    SQL_DEAD_DELETE,
    SQL_DEAD_ITEM_DELETE,
    SQL_ATTEMPT_PUT,
    SQL_ATTEMPT_DELETE,
    SQL_ATTEMPT_EACH,
    SQL_CANCEL,
    SQL_PROGRESS_OF_ID,
    SQL_PROGRESS_BUSY,
    SQL_PROGRESS_GET,
    SQL_PROGRESS_EACH,
    SQL_PROGRESS_PUT,
    SQL_PROGRESS_BEGIN,
    SQL_PROGRESS_DELETE,
    SQL_PROGRESS_RETIRE,
    SQL_SLOT_EACH,
    SQL_SLOT_PUT,
    SQL_NOTE_GET,
    SQL_NOTE_PUT,
    SQL_BATCH_COUNT,
    SQL_BATCH_OF,
    SQL_BATCH_FIND,
    SQL_BATCH_BODY,
    SQL_BATCH_PUT,
    SQL_BATCH_NOTE,
    SQL_BATCH_DELETE,
    SQL_BATCH_DELETE_EMPTY,
    SQL_MEMBER_PUT,
    SQL_MEMBER_DELETE,
    SQL_MEMBERS_DELETE,
    SQL_DEAD_TOGETHER,
    SQL_IDENTITY,
    SQL_STATEMENTS /* how many there are */
};

/* Changes of a service's counters that the open transaction has yet to
 * write: once a transaction, not once a row. */
struct journal_delta {
    int64_t accepted;
    int64_t final;
    int64_t dead;
    int64_t bytes;
    int64_t key_bytes;
    int64_t received_unix_ms; /* of the newest row; 0 = unchanged */
};

struct journal {
    char *path;
    char *wal_path;
    char *lock_path;
    enum journal_role role;
    int64_t max_bytes;
    int64_t reserve_bytes;
    int64_t lock_timeout_ms;
    sqlite3 *db; /* NULL: opened by the next use */
    sqlite3_stmt *sql[SQL_STATEMENTS][SERVICE_COUNT];
    int lock_fd;          /* -1 until the first lock */
    bool locked;          /* flock is held */
    bool lock_only_tried; /* after a timeout, until the next success */
    bool writing;         /* between journal_begin and its end */
    struct journal_delta delta[SERVICE_COUNT];
    int64_t page_bytes;
    int64_t wal_keep_bytes; /* a larger WAL file is cut when it is empty */
    int wal_frames;      /* in the WAL after this connection's commit; 0 when a
                            checkpoint has done with all of them */
    int wal_frames_full; /* an edge leaves fewer to the dispatcher */
    int done_frames;     /* of the WAL, in the file since the last pass */
    int64_t copied_frames;      /* by the last checkpoint */
    int wal_frames_checkpoint;  /* an edge checkpoints when there are more */
    int64_t disk_written_bytes; /* about, since ... */
    int64_t disk_asked_ms;      /* monotonic: when free disk was looked up */
    bool disk_low;              /* ... and was below the reserve */
    char error[256];
};

/* ---- journal.c: connection, statements, errors --------------------------- */

/* Remember a text for journal_error(). */
void journal_note(struct journal *j, const char *format, ...) PRINTF_LIKE(2, 3);

/* A SQLite call answered code: note its text, roll back, give the lock back,
 * and close the connection when it cannot be trusted any more. */
enum rc journal_failed(struct journal *j, int code) MUST_CHECK;

/* Is less disk free than the reserve? */
bool journal_disk_low(const struct journal *j);

/* Open the connection if it is not; the writers' roles hold the lock. */
enum rc journal_open(struct journal *j) MUST_CHECK;

/* Open for reading; takes and returns the lock when a writer's role must
 * open. */
enum rc journal_ready(struct journal *j) MUST_CHECK;

/* Statement of a service (of none: SERVICE_CALLBACK); never NULL while open. */
sqlite3_stmt *journal_sql(struct journal *j, enum journal_sql which,
                          enum service service);

/* Step once and reset: SQLITE_DONE, SQLITE_ROW or an error. */
int journal_run(sqlite3_stmt *statement);

void journal_bind_text(sqlite3_stmt *statement, int at, const char *text);
/* An empty blob, not NULL, when bytes = 0. */
void journal_bind_blob(sqlite3_stmt *statement, int at, const void *data,
                       size_t bytes);

/* Decode the columns seq, id, received, outcome, body of the current row.
 * row->body points into the statement until its next step; a row that is not
 * as journal_accept writes it gets row->broken, and what could be read. */
void journal_row_decode(sqlite3_stmt *statement, struct journal_row *row);

/* A text column, "" when it is none, cut between two characters. */
void journal_column_copy(sqlite3_stmt *statement, int column, char *out,
                         size_t size);

/* Run a statement of the group. RC_AGAIN: it changed no row. */
enum rc journal_change(struct journal *j, sqlite3_stmt *statement) MUST_CHECK;

/* Write the deltas into the counters. A SQLite code. */
int journal_count(struct journal *j);

/* ---- journal_progress.c ---------------------------------------------------
 */

/* Progress of a request, all 0 when none is recorded: SQLITE_ROW, SQLITE_DONE
 * (none) or an error. The connection is open. */
int journal_progress_read(struct journal *j, enum service service, int64_t seq,
                          struct journal_progress *out);

/* ---- journal_lock.c -------------------------------------------------------
 */

/* Take the writers' lock: RC_OK, RC_TIMEOUT or RC_IO. */
enum rc journal_lock(struct journal *j) MUST_CHECK;
void journal_unlock(struct journal *j);
/* Open path, made with mode 0660 whatever the umask. The descriptor or -1. */
int journal_create(const char *path, int flags);

/* ---- journal_batch.c ------------------------------------------------------
 */

/* The dead letters that are retried with message id, as they are of one batch,
 * in its order: at most max. *count = 0: it is in none. */
enum rc journal_batch_dead(struct journal *j, const struct uuid *id,
                           int64_t *seqs, size_t max, size_t *count) MUST_CHECK;

/* Dissolve the batch that a message is in, if it is in one. */
enum rc journal_batch_dissolve(struct journal *j,
                               const struct uuid *message) MUST_CHECK;

/* ---- journal_work.c -------------------------------------------------------
 */

/* Put the dead letter seq of a service back into its queue; *requeued = its new
 * seq. RC_AGAIN: none, or its id is in the queue as well. */
enum rc journal_dead_requeue(struct journal *j, enum service service,
                             int64_t seq, int64_t now_unix_ms,
                             int64_t *requeued) MUST_CHECK;

/* The passes of journal_checkpoint; the connection is open and unlocked.
 * wal_frames = 0 when the next commit will reuse the WAL from its start. */
enum rc journal_checkpoint_passes(struct journal *j) MUST_CHECK;

/* After a commit, unlocked: checkpoint if the WAL has grown past its bound,
 * because the housekeeper is away or cannot keep up. What goes wrong here is
 * not the commit's failure. */
void journal_relieve(struct journal *j);

#endif
