/* The journal: what was accepted and has not yet reached its end, in one
 * SQLite file (WAL, synchronous=FULL) that handlers and dispatcher share.
 *
 *   queue_<service>  one row a pending request; seq (AUTOINCREMENT) is the
 *                    order of arrival, given at commit
 *   outcome          what the store has yet to persist, in the order `no`
 *   dead, dead_item  requests that ended without their result, with reasons
 *   attempt          how often a piece of work was tried
 *   progress         how far a request has come, of services that tell
 *   slot             of the call limiter, and in note what it has learned
 *   batch            messages that go upstream as one request (journal_batch.h)
 *   seen             idempotency keys with their verdicts
 *   counter          accepted, final, dead, bytes: changed in the transaction
 *                    that changes what they count
 *   meta             uuid of this journal, schema in PRAGMA user_version
 *
 * Conservation: accepted = final + pending + dead, always, per service.
 *
 * Every writer first takes flock(2) on <path>.lock (fair between processes).
 * One struct journal is one connection and belongs to one thread; several in
 * one process exclude each other like processes do. The connection is opened
 * by the first use, and again by the next use after an I/O error. */
#ifndef SLUICE_SHARED_JOURNAL_H
#define SLUICE_SHARED_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/conf.h"
#include "shared/hash.h"
#include "shared/rc.h"
#include "shared/services.h"
#include "shared/uuid.h"

#define JOURNAL_KEY_BYTES_MAX 512 /* an idempotency key with its scope */
#define JOURNAL_REASON_BYTES 256
#define JOURNAL_ITEM_BYTES 64

struct journal;

enum journal_role {
    JOURNAL_EDGE,       /* journal_accept; creates the file if it must */
    JOURNAL_DISPATCHER, /* everything; creates the file if it must */
    JOURNAL_READER,     /* the reading half; RC_AGAIN while no file is there */
};

struct journal_options {
    const char *path; /* copied */
    enum journal_role role;
    int64_t max_bytes;       /* used pages and WAL; see DESIGN "Space" */
    int64_t reserve_bytes;   /* free disk that handlers leave alone */
    int64_t lock_timeout_ms; /* how long a writer waits for its turn */
};

/* Options of a connection in this role, as configured; path is borrowed. */
struct journal_options journal_options_of(const struct conf_journal *conf,
                                          enum journal_role role);

/* Allocate; touches no file. RC_NOMEM. */
enum rc journal_new(struct journal **out,
                    const struct journal_options *options) MUST_CHECK;
void journal_free(struct journal **j);

/* Text of the last error of this connection ("database or disk is full"),
 * for the log. Valid until the next call. Never NULL. */
const char *journal_error(const struct journal *j);

/* ---- accepting: the edge's loop ---------------------------------------- */

enum journal_verdict {
    JOURNAL_ACCEPTED, /* seq and received_unix_ms are set */
    JOURNAL_REPLAYED, /* key seen with the same body: id is the first one's */
    JOURNAL_MISMATCH, /* key seen with another body: 422, nothing stored */
    JOURNAL_REFUSED,  /* this service's or the keys' share of max_bytes is
                         spent: 503, nothing stored */
    JOURNAL_CANCELED, /* the request to cancel is, now or already */
    JOURNAL_LATE,     /* it is beyond canceling */
    JOURNAL_ABSENT,   /* it is not in the queue (any more) */
};

enum journal_op {
    JOURNAL_ADD,    /* a new request */
    JOURNAL_CANCEL, /* of the request `id`, if its progress is
                       JOURNAL_STATE_WAITING: it becomes `state` */
};

/* The state of progress that a request begins with; all others are its
 * service's own. */
#define JOURNAL_STATE_WAITING 0

struct journal_request {
    /* in */
    enum journal_op op;
    int state; /* of a cancel */
    enum service service;
    const char *body; /* journal form; borrowed */
    size_t body_bytes;
    const char *key; /* idempotency key with its scope, or NULL; borrowed */
    size_t key_bytes;
    uint8_t hash[HASH_BYTES];  /* of the client's body; only with a key */
    int64_t key_until_unix_ms; /* when this key is forgotten; 0: with those of
                                  its batch */
    /* in and out */
    struct uuid id;           /* replaced by the first one's on a replay */
    int64_t received_unix_ms; /* raised to the previous row's at least */
    /* out */
    enum journal_verdict verdict;
    int64_t seq;  /* > 0 when accepted */
    int64_t rank; /* when accepted: its place among those that nobody works
                     on, from 1 (where no progress is recorded: among the
                     pending) */
};

/* Commit all requests (count 1..1024) in one transaction with one fsync, in
 * array order. RC_OK: every verdict is set and what was accepted is on disk.
 * Otherwise nothing was stored:
 * RC_TIMEOUT: no lock within lock_timeout_ms. From then on the lock is only
 *   tried, so that the next calls fail at once until one succeeds.
 * RC_FULL: max_bytes, the reserve or the disk is reached.
 * RC_IO: SQLite or the file system failed; the connection is closed.
 * RC_NOMEM.  keys_until_unix_ms: when keys of this batch are forgotten.
 * When the WAL has grown past 64 MiB it also checkpoints. Edge's loop. */
enum rc journal_accept(struct journal *j, struct journal_request *requests,
                       size_t count, int64_t keys_until_unix_ms) MUST_CHECK;

/* Pid that holds the lock on <path>.lock now (from /proc/locks), 0 when
 * nobody does or it cannot be told. Any thread. */
pid_t journal_lock_holder(const char *path);

/* ---- reading: feed, store, look-ups ------------------------------------ */

struct journal_row {
    int64_t seq; /* of an outcome: its no */
    struct uuid id;
    int64_t received_unix_ms;
    const char *body; /* inside the page's buffer */
    size_t body_bytes;
    bool broken; /* columns of the wrong type or size: to quarantine */
};

/* A bounded page of rows; {0} is an empty one. Reused from call to call. */
struct journal_page {
    struct journal_row *rows;
    size_t count;
    size_t rows_capacity;
    char *buffer;
    size_t buffer_bytes;
    size_t buffer_capacity;
    bool more; /* a bound was hit: there may be more rows behind the last */
};
void journal_page_free(struct journal_page *page);

/* Rows of a service's queue without an outcome, seq > after, in order, at most
 * max_rows and about max_bytes of bodies (at least one row). One short read
 * transaction. RC_OK also when empty; RC_AGAIN: no file yet; RC_IO. */
enum rc journal_queue_page(struct journal *j, enum service service,
                           int64_t after, size_t max_rows, size_t max_bytes,
                           struct journal_page *page) MUST_CHECK;

/* Newest seq ever given out in a service's queue; 0 for none. */
enum rc journal_newest(struct journal *j, enum service service,
                       int64_t *seq) MUST_CHECK;

/* Outcomes of a service with no > after, in order (row.seq = no; id unused). */
enum rc journal_outcome_page(struct journal *j, enum service service,
                             int64_t after, size_t max_rows, size_t max_bytes,
                             struct journal_page *page) MUST_CHECK;

/* How far a request has come. All 0 and "" for one that nobody has begun. */
struct journal_progress {
    int state; /* JOURNAL_STATE_WAITING, or the service's own */
    int64_t attempts;
    int64_t started_unix_ms;  /* of the last attempt; 0: none */
    int64_t finished_unix_ms; /* 0: not yet */
    char error[JOURNAL_REASON_BYTES];
};

enum journal_place {
    JOURNAL_PENDING,    /* in the queue, work not finished */
    JOURNAL_PERSISTING, /* finished, outcome waits for the store */
    JOURNAL_DEAD,
};

struct journal_entry {
    enum journal_place place;
    enum service service;
    int64_t seq;
    struct uuid id;
    int64_t received_unix_ms;
    int64_t outcome_no;                /* 0 when none */
    int64_t dead_unix_ms;              /* 0 when not dead */
    char reason[JOURNAL_REASON_BYTES]; /* of a dead one; else "" */
    int64_t items;                     /* of a dead one: rows in dead_item */
    int64_t ahead; /* of a pending one: rows before it that wait */
    struct journal_progress progress; /* of one in the queue */
};

/* What the journal knows of an id. RC_AGAIN: nothing (never seen here, or
 * already retired). */
enum rc journal_find(struct journal *j, const struct uuid *id,
                     struct journal_entry *out) MUST_CHECK;

/* The same for one service without what takes time: ahead, items and progress
 * are 0. */
enum rc journal_locate(struct journal *j, enum service service,
                       const struct uuid *id,
                       struct journal_entry *out) MUST_CHECK;

/* Progress of a request in the queue. RC_OK also when none was recorded. */
enum rc journal_progress_get(struct journal *j, enum service service,
                             int64_t seq,
                             struct journal_progress *out) MUST_CHECK;

/* Called for each row; return false to stop. Pointers live for the call. */
typedef bool journal_dead_fn(void *arg, const struct journal_entry *entry);
typedef bool journal_item_fn(void *arg, const char *item, const char *reason,
                             int64_t attempts);
typedef bool journal_attempt_fn(void *arg, const char *item, int64_t attempts,
                                const char *error);

typedef bool journal_progress_fn(void *arg, int64_t seq,
                                 const struct journal_progress *progress);
/* All recorded progress of a service, in order of seq. */
enum rc journal_progress_each(struct journal *j, enum service service,
                              journal_progress_fn *fn, void *arg) MUST_CHECK;

/* A slot of the call limiter, as limiter_slot_state tells it: a moment of
 * CLOCK_BOOTTIME of boot, or INT64_MAX. */
struct journal_slot {
    int64_t no; /* >= 0 */
    int64_t free_at_us;
    char boot[UUID_TEXT_BYTES];
};
typedef bool journal_slot_fn(void *arg, const struct journal_slot *slot);
enum rc journal_slot_each(struct journal *j, journal_slot_fn *fn,
                          void *arg) MUST_CHECK;

/* A service's own note, as journal_note_put wrote it; "" when there is none.
 */
enum rc journal_note_get(struct journal *j, const char *name, char *out,
                         size_t size) MUST_CHECK;

/* Dead letters of a service with seq > after, in order, at most limit. */
enum rc journal_dead_each(struct journal *j, enum service service,
                          int64_t after, size_t limit, journal_dead_fn *fn,
                          void *arg) MUST_CHECK;
/* Items of one dead letter. */
enum rc journal_dead_items_each(struct journal *j, const struct uuid *id,
                                journal_item_fn *fn, void *arg) MUST_CHECK;
/* Recorded attempts of a service. */
enum rc journal_attempt_each(struct journal *j, enum service service,
                             journal_attempt_fn *fn, void *arg) MUST_CHECK;

struct journal_ledger {
    int64_t accepted; /* counters ... */
    int64_t final;
    int64_t dead;
    int64_t pending; /* ... and rows counted independently */
    int64_t dead_rows;
    int64_t outcomes;                /* rows waiting for the store */
    int64_t oldest_received_unix_ms; /* of the pending; 0 when none */
    int64_t queue_bytes;
    bool balanced; /* accepted = final + pending + dead, dead = dead_rows */
};

/* All services in one snapshot. */
enum rc journal_ledger(struct journal *j,
                       struct journal_ledger ledger[SERVICE_COUNT]) MUST_CHECK;

/* Bytes in use (pages without the free ones, plus the WAL). */
enum rc journal_used_bytes(struct journal *j, int64_t *used) MUST_CHECK;

/* This journal's own uuid, made with the schema. */
enum rc journal_identity(struct journal *j, struct uuid *out) MUST_CHECK;

/* ---- recording: the dispatcher's one writer ----------------------------- */

/* Take the lock and begin / commit with one fsync / undo. RC_TIMEOUT, RC_FULL,
 * RC_IO as above. After journal_commit failed nothing of the group is stored.
 * journal_rollback never fails. */
enum rc journal_begin(struct journal *j) MUST_CHECK;
enum rc journal_commit(struct journal *j) MUST_CHECK;
void journal_rollback(struct journal *j);

/* All of these between begin and commit. Each is harmless when repeated. */

/* Remember that item of a service failed attempts times, lastly with error. */
enum rc journal_attempt_put(struct journal *j, enum service service,
                            const char *item, int64_t attempts,
                            const char *error) MUST_CHECK;
enum rc journal_attempt_delete(struct journal *j, enum service service,
                               const char *item) MUST_CHECK;

/* Add an outcome for the store. *no gets its number (> 0, growing). */
enum rc journal_outcome_add(struct journal *j, enum service service,
                            const char *body, size_t body_bytes,
                            int64_t *no) MUST_CHECK;

/* The work of request seq is done; it retires with outcome no. RC_AGAIN: no
 * such pending row (already finished or dead). */
enum rc journal_finish(struct journal *j, enum service service, int64_t seq,
                       int64_t no) MUST_CHECK;

/* Record how far request seq has come. */
enum rc
journal_progress_put(struct journal *j, enum service service, int64_t seq,
                     const struct journal_progress *progress) MUST_CHECK;
/* The same if it waits (JOURNAL_STATE_WAITING, or nothing recorded). RC_AGAIN:
 * it does not, and nothing was changed. */
enum rc
journal_progress_begin(struct journal *j, enum service service, int64_t seq,
                       const struct journal_progress *progress) MUST_CHECK;

enum rc journal_slot_put(struct journal *j,
                         const struct journal_slot *slot) MUST_CHECK;
enum rc journal_note_put(struct journal *j, const char *name,
                         const char *value) MUST_CHECK;

struct journal_dead_item {
    char item[JOURNAL_ITEM_BYTES];
    char reason[JOURNAL_REASON_BYTES];
    int64_t attempts;
};

/* Move request seq (pending, or persisting: its row may already name an
 * outcome) to the dead letters with its reason and items. retry_body is what
 * goes back into the queue on retry (NULL: its body as it is, also for a record
 * that cannot be decoded). RC_AGAIN: no such row. */
enum rc journal_bury(struct journal *j, enum service service, int64_t seq,
                     const char *reason, const char *retry_body,
                     size_t retry_body_bytes,
                     const struct journal_dead_item *items, size_t item_count,
                     int64_t now_unix_ms) MUST_CHECK;

/* Outcome no cannot be decoded: bury every request that finished with it.
 * *buried = how many. The outcome itself goes when it is retired. */
enum rc journal_bury_outcome(struct journal *j, enum service service,
                             int64_t no, const char *reason,
                             int64_t now_unix_ms, int64_t *buried) MUST_CHECK;

/* The outcomes no_from..no_to of a service are durable in the database: delete
 * them and the requests that finished with them; count those as final.
 * *retired = requests deleted. */
enum rc journal_retire(struct journal *j, enum service service, int64_t no_from,
                       int64_t no_to, int64_t *retired) MUST_CHECK;

/* The same, and tell fn of each request that is about to be deleted. */
typedef void journal_retired_fn(void *arg, int64_t received_unix_ms);
enum rc journal_retire_each(struct journal *j, enum service service,
                            int64_t no_from, int64_t no_to,
                            journal_retired_fn *fn, void *arg,
                            int64_t *retired) MUST_CHECK;

/* Put a dead letter back into its queue under a new seq (same id, received =
 * now) / give it up for good (counts as final). RC_AGAIN: no such one. Those
 * of one batch (journal_batch.h) go back together: *retried (may be NULL) is
 * how many. */
enum rc journal_dead_retry(struct journal *j, const struct uuid *id,
                           int64_t now_unix_ms, int64_t *retried) MUST_CHECK;
enum rc journal_dead_drop(struct journal *j, const struct uuid *id) MUST_CHECK;

/* ---- housekeeping: the dispatcher ---------------------------------------- */

/* PASSIVE checkpoint without the lock. Once the WAL has half of its bound (64
 * MiB, an eighth of max_bytes, or half of reserve_bytes), or the disk is low,
 * the remainder under the lock, so that the WAL is begun anew: it waits there
 * for readers to leave their page, at most 5 ms, or 50 ms above the bound.
 * *wal_bytes = size of the WAL file afterwards. */
enum rc journal_checkpoint(struct journal *j, int64_t *wal_bytes) MUST_CHECK;

/* What the last checkpoint copied from the WAL to the file. */
int64_t journal_copied_bytes(const struct journal *j);

/* Forget at most limit idempotency keys whose time is over. */
enum rc journal_expire_keys(struct journal *j, int64_t now_unix_ms,
                            size_t limit, int64_t *forgotten) MUST_CHECK;

/* Become the one dispatcher of this journal: flock on <path>.dispatcher,
 * without waiting. RC_AGAIN: another one runs, *holder = its pid. *fd is
 * closed by the caller at the end. */
enum rc journal_dispatcher_lock(const char *path, int *fd,
                                pid_t *holder) MUST_CHECK;

#endif
