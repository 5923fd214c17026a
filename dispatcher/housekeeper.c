/* Checkpoints as often as the load asks for, the rest in turns of TURN_MS.
 * Nothing here is needed for correctness, so that a failure is logged and tried
 * again in the next turn. */
#include "dispatcher/housekeeper.h"

#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/log.h"

#define TURN_MS 1000
/* An edge's fsync waits for what a checkpoint is just writing. So these are
 * small: what one of 12 MB a second kept waiting for 8 ms, twenty of them do
 * for 0.5 ms each (p99 of accepting 12 ms against 6). While little is written
 * they are rare. */
#define CHECKPOINT_MIN_MS 20
#define CHECKPOINT_MAX_MS 250
#define CHECKPOINT_BYTES 524288
#define LEDGER_TURNS 10 /* counting a million rows is not for every second */
/* A transaction each, so that the edge gets its turn in between: as many keys
 * a second as can have come in a day before. */
#define KEYS_PER_ROUND 2000
#define KEY_ROUNDS 25

enum task { TASK_CHECKPOINT, TASK_KEYS, TASK_BYTES, TASK_LEDGER, TASK_COUNT };

static const char *const task_names[TASK_COUNT] = {
    [TASK_CHECKPOINT] = "checkpoint",
    [TASK_KEYS] = "expire_keys",
    [TASK_BYTES] = "used_bytes",
    [TASK_LEDGER] = "ledger",
};

struct housekeeper {
    struct journal *journal;
    struct metrics *metrics;
    pthread_t thread;
    int stop_fd;
    bool failing[TASK_COUNT]; /* logged once an episode */
    bool unbalanced;          /* likewise */
};

static void
note(struct housekeeper *h, enum task task, enum rc rc)
{
    char quoted[300];
    bool failed = rc != RC_OK && rc != RC_AGAIN;

    if (failed && !h->failing[task]) {
        log_event(LOG_WARN, "housekeeping_failed", "task=%s rc=%s error=%s",
                  task_names[task], rc_name(rc),
                  log_quote(journal_error(h->journal), quoted, sizeof quoted));
    }
    h->failing[task] = failed;
}

static enum rc
checkpoint(struct housekeeper *h, int64_t *copied_bytes)
{
    int64_t wal_bytes = 0;
    enum rc rc = journal_checkpoint(h->journal, &wal_bytes);

    *copied_bytes = 0;
    if (rc == RC_OK) {
        *copied_bytes = journal_copied_bytes(h->journal);
        metrics_set(h->metrics, METRIC_WAL_BYTES, SERVICE_COUNT, wal_bytes);
    }
    return rc;
}

/* When the next one finds about CHECKPOINT_BYTES, if as much is written. */
static int64_t
next_checkpoint_ms(int64_t last_ms, int64_t copied_bytes)
{
    int64_t next_ms = CHECKPOINT_MAX_MS;

    if (copied_bytes > 0) {
        next_ms = last_ms * CHECKPOINT_BYTES / copied_bytes;
    }
    if (next_ms > CHECKPOINT_MAX_MS) {
        next_ms = CHECKPOINT_MAX_MS;
    }
    return next_ms < CHECKPOINT_MIN_MS ? CHECKPOINT_MIN_MS : next_ms;
}

static enum rc
expire_keys(struct housekeeper *h)
{
    int64_t forgotten = KEYS_PER_ROUND;
    enum rc rc = RC_OK;

    for (int i = 0; i < KEY_ROUNDS && rc == RC_OK; i++) {
        if (forgotten < KEYS_PER_ROUND) {
            break;
        }
        rc = journal_expire_keys(h->journal, clock_now_unix_ms(),
                                 KEYS_PER_ROUND, &forgotten);
    }
    return rc;
}

static enum rc
used_bytes(struct housekeeper *h)
{
    int64_t used = 0;
    enum rc rc = journal_used_bytes(h->journal, &used);

    if (rc == RC_OK) {
        metrics_set(h->metrics, METRIC_JOURNAL_USED_BYTES, SERVICE_COUNT, used);
    }
    return rc;
}

static enum rc
check_ledger(struct housekeeper *h)
{
    struct journal_ledger ledger[SERVICE_COUNT];
    enum rc rc = journal_ledger(h->journal, ledger);
    bool unbalanced = false;

    if (rc != RC_OK) {
        return rc;
    }
    for (unsigned s = 0; s < SERVICE_COUNT; s++) {
        const struct journal_ledger *l = &ledger[s];

        unbalanced |= !l->balanced;
        if (!l->balanced && !h->unbalanced) {
            log_event(LOG_ERROR, "ledger_unbalanced",
                      "service=%s accepted=%" PRId64 " final=%" PRId64
                      " pending=%" PRId64 " dead=%" PRId64
                      " dead_rows=%" PRId64,
                      service_name((enum service)s), l->accepted, l->final,
                      l->pending, l->dead, l->dead_rows);
        }
    }
    h->unbalanced = unbalanced;
    return RC_OK;
}

static void *
run(void *arg)
{
    struct housekeeper *h = arg;
    struct pollfd stop = {.fd = h->stop_fd, .events = POLLIN};

    int64_t checkpoint_ms = CHECKPOINT_MAX_MS;
    int64_t turn_ms = clock_now_ms() + TURN_MS;
    unsigned turn = 0;

    while (poll(&stop, 1, (int)checkpoint_ms) <= 0) {
        int64_t copied_bytes;

        note(h, TASK_CHECKPOINT, checkpoint(h, &copied_bytes));
        checkpoint_ms = next_checkpoint_ms(checkpoint_ms, copied_bytes);
        if (clock_now_ms() < turn_ms) {
            continue;
        }
        turn_ms = clock_now_ms() + TURN_MS;
        note(h, TASK_KEYS, expire_keys(h));
        note(h, TASK_BYTES, used_bytes(h));
        if (turn++ % LEDGER_TURNS == 0) {
            note(h, TASK_LEDGER, check_ledger(h));
        }
    }
    return NULL;
}

enum rc
housekeeper_start(struct housekeeper **out, struct journal *journal,
                  struct metrics *metrics)
{
    struct housekeeper *h = calloc(1, sizeof *h);

    *out = NULL;
    if (h == NULL) {
        return RC_NOMEM;
    }
    h->metrics = metrics;
    h->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (h->stop_fd < 0) {
        free(h);
        return RC_IO;
    }
    h->journal = journal;
    if (pthread_create(&h->thread, NULL, run, h) != 0) {
        (void)close(h->stop_fd);
        free(h);
        return RC_IO;
    }
    *out = h;
    return RC_OK;
}

void
housekeeper_stop(struct housekeeper **h_out)
{
    struct housekeeper *h = *h_out;

    *h_out = NULL;
    if (h == NULL) {
        return;
    }
    (void)eventfd_write(h->stop_fd, 1);
    (void)pthread_join(h->thread, NULL);
    (void)close(h->stop_fd);
    journal_free(&h->journal);
    free(h);
}
