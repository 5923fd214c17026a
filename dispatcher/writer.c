/* Group commit: whatever waits goes into one transaction. While its fsync is
 * under way the next group gathers, so that groups grow with the load. */
#include "dispatcher/writer.h"

#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/log.h"

#define WAITING_MAX 4096
#define GROUP_MAX 512
#define BACKOFF_MIN_MS 10
#define BACKOFF_MAX_MS 1000
#define STOP_PATIENCE_MS 5000

struct writer {
    struct journal *journal; /* owned; the thread's */
    struct metrics *metrics;
    struct queue *waiting; /* of struct write */
    int stop_fd;           /* readable for ever once the end has come */
    atomic_bool stopping;
    pthread_t thread;
    /* The thread's own from here on. */
    struct write *group[GROUP_MAX];
    size_t group_count;
    int64_t failing_since_ms; /* start of an episode of failures; 0 none */
    int64_t stop_since_ms;    /* when the thread noticed; 0 not yet */
    int64_t backoff_ms;
};

/* ---- a group --------------------------------------------------------------
 */

/* Apply what is not refused. RC_OK: all of it is in the transaction.
 * RC_INVALID: one more was refused, and the transaction is spoilt. Anything
 * else: the journal failed. */
static enum rc
apply_group(struct writer *w, size_t *applied)
{
    *applied = 0;
    for (size_t k = 0; k < w->group_count; k++) {
        struct write *write = w->group[k];
        if (write->rc != RC_OK) {
            continue;
        }
        enum rc rc = write->apply(w->journal, write);
        switch (rc) {
        case RC_OK:
        case RC_AGAIN:
            (*applied)++;
            break;
        case RC_INVALID:
        case RC_BUG:
            write->rc = rc;
            return RC_INVALID;
        case RC_FULL:
        case RC_TIMEOUT:
        case RC_IO:
        case RC_NOMEM:
            return rc;
        }
    }
    return RC_OK;
}

/* One transaction with all that are not refused. A refused one may have left
 * half of its work behind, so the transaction is undone and the others go
 * again: at most once for each refusal. */
static enum rc
commit_group(struct writer *w, size_t *applied)
{
    for (;;) {
        enum rc rc = journal_begin(w->journal);
        if (rc != RC_OK) {
            return rc;
        }
        rc = apply_group(w, applied);
        if (rc == RC_OK) {
            return journal_commit(w->journal);
        }
        journal_rollback(w->journal);
        if (rc != RC_INVALID) {
            return rc;
        }
    }
}

static void
note_failure(struct writer *w, enum rc rc, int64_t now_ms)
{
    metrics_add(w->metrics, METRIC_WRITER_FAILED_TOTAL, SERVICE_COUNT, 1);
    if (w->failing_since_ms == 0) {
        char quoted[256];
        w->failing_since_ms = now_ms;
        w->backoff_ms = BACKOFF_MIN_MS;
        log_event(LOG_ERROR, "writer_failing", "rc=%s writes=%zu error=%s",
                  rc_name(rc), w->group_count,
                  log_quote(journal_error(w->journal), quoted, sizeof(quoted)));
    }
}

static void
note_success(struct writer *w, size_t applied, int64_t start_ms, int64_t now_ms)
{
    metrics_add(w->metrics, METRIC_WRITER_GROUPS_TOTAL, SERVICE_COUNT, 1);
    metrics_add(w->metrics, METRIC_WRITER_WRITES_TOTAL, SERVICE_COUNT,
                (int64_t)applied);
    metrics_observe_ms(w->metrics, METRIC_WRITER_MS, SERVICE_COUNT,
                       now_ms - start_ms);
    if (w->failing_since_ms != 0) {
        log_event(LOG_INFO, "writer_recovered", "failed_ms=%" PRId64,
                  now_ms - w->failing_since_ms);
        w->failing_since_ms = 0;
    }
}

/* True when the end has come and the journal has failed for too long. */
static bool
is_hopeless(struct writer *w, int64_t now_ms)
{
    if (!atomic_load(&w->stopping)) {
        return false;
    }
    if (w->stop_since_ms == 0) {
        w->stop_since_ms = now_ms;
    }
    return now_ms - w->stop_since_ms >= STOP_PATIENCE_MS;
}

/* Until the next try. Not cut short by the end: a stop_fd that is readable
 * for ever would make this a busy loop. */
static void
back_off(struct writer *w)
{
    (void)poll(NULL, 0, (int)w->backoff_ms);
    w->backoff_ms *= 2;
    if (w->backoff_ms > BACKOFF_MAX_MS) {
        w->backoff_ms = BACKOFF_MAX_MS;
    }
}

/* Repeat until the group is on disk. False: given up at the end. */
static bool
write_group(struct writer *w)
{
    for (;;) {
        size_t applied = 0;
        int64_t start_ms = clock_now_ms();
        enum rc rc = commit_group(w, &applied);
        int64_t now_ms = clock_now_ms();
        if (rc == RC_OK) {
            note_success(w, applied, start_ms, now_ms);
            return true;
        }
        note_failure(w, rc, now_ms);
        if (is_hopeless(w, now_ms)) {
            return false;
        }
        back_off(w);
    }
}

/* ---- the thread -----------------------------------------------------------
 */

static void
reply(struct write *write)
{
    /* Read once: from the push on the write is its owner's again. */
    struct queue *to = write->reply_to;
    if (to == NULL) {
        log_event(LOG_ERROR, "write_without_owner", "rc=%s",
                  rc_name(write->rc));
        return;
    }
    while (queue_push(to, write, 0) != RC_OK) {
        struct pollfd fd = {.fd = queue_room_fd(to), .events = POLLIN};
        (void)poll(&fd, 1, BACKOFF_MIN_MS);
    }
}

static void
take_group(struct writer *w)
{
    w->group_count = 0;
    while (w->group_count < GROUP_MAX) {
        struct write *write = queue_pop(w->waiting);
        if (write == NULL) {
            break;
        }
        write->rc = RC_OK;
        w->group[w->group_count++] = write;
    }
}

static void *
run(void *arg)
{
    struct writer *w = arg;
    for (;;) {
        take_group(w);
        if (w->group_count == 0) {
            if (atomic_load(&w->stopping)) {
                break;
            }
            struct pollfd fds[] = {
                {.fd = queue_ready_fd(w->waiting), .events = POLLIN},
                {.fd = w->stop_fd, .events = POLLIN},
            };
            (void)poll(fds, ARRAY_COUNT(fds), -1);
            continue;
        }
        bool written = write_group(w);
        for (size_t k = 0; k < w->group_count; k++) {
            if (!written && w->group[k]->rc == RC_OK) {
                w->group[k]->rc = RC_IO;
            }
            reply(w->group[k]);
        }
        if (!written) {
            log_event(LOG_ERROR, "writer_gave_up", "writes=%zu",
                      w->group_count);
        }
    }
    return NULL;
}

/* ---- new and free ---------------------------------------------------------
 */

static void
destroy(struct writer **w)
{
    queue_free(&(*w)->waiting, NULL);
    if ((*w)->stop_fd >= 0) {
        close((*w)->stop_fd);
    }
    free(*w);
    *w = NULL;
}

enum rc
writer_new(struct writer **out, struct journal *journal,
           struct metrics *metrics)
{
    *out = NULL;
    struct writer *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        return RC_NOMEM;
    }
    w->journal = journal;
    w->metrics = metrics;
    atomic_init(&w->stopping, false);
    w->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    enum rc rc =
        w->stop_fd < 0 ? RC_IO : queue_new(&w->waiting, WAITING_MAX, 0);
    if (rc == RC_OK && pthread_create(&w->thread, NULL, run, w) != 0) {
        rc = RC_NOMEM;
    }
    if (rc != RC_OK) {
        destroy(&w);
        return rc;
    }
    *out = w;
    return RC_OK;
}

void
writer_free(struct writer **w)
{
    if (*w == NULL) {
        return;
    }
    atomic_store(&(*w)->stopping, true);
    (void)eventfd_write((*w)->stop_fd, 1);
    pthread_join((*w)->thread, NULL);
    journal_free(&(*w)->journal);
    destroy(w);
}

/* ---- handing in -----------------------------------------------------------
 */

enum rc
writer_submit(struct writer *w, struct write *write)
{
    return queue_push(w->waiting, write, 0);
}

/* Submit, waiting for room until deadline_ms (< 0: none). */
static enum rc
submit_patiently(struct writer *w, struct write *write, int64_t deadline_ms)
{
    enum rc rc = writer_submit(w, write);
    while (rc == RC_FULL) {
        if (deadline_ms >= 0 && clock_now_ms() >= deadline_ms) {
            return RC_TIMEOUT;
        }
        struct pollfd fd = {.fd = queue_room_fd(w->waiting), .events = POLLIN};
        (void)poll(&fd, 1, BACKOFF_MIN_MS);
        rc = writer_submit(w, write);
    }
    return rc;
}

enum rc
writer_call(struct writer *w, struct write *write)
{
    struct queue *reply_to = NULL;
    enum rc rc = queue_new(&reply_to, 1, 0);
    if (rc != RC_OK) {
        return rc;
    }
    write->reply_to = reply_to;
    rc = submit_patiently(w, write, -1);
    if (rc == RC_OK) {
        struct pollfd fd = {.fd = queue_ready_fd(reply_to), .events = POLLIN};
        while (queue_pop(reply_to) == NULL) {
            (void)poll(&fd, 1, -1);
        }
        rc = write->rc;
    }
    write->reply_to = NULL;
    queue_free(&reply_to, NULL);
    return rc;
}

static enum rc
apply_nothing(struct journal *journal, struct write *write)
{
    (void)journal;
    (void)write;
    return RC_OK;
}

enum rc
writer_flush(struct writer *w, int64_t timeout_ms)
{
    int64_t deadline_ms = clock_now_ms() + timeout_ms;
    struct queue *reply_to = NULL;
    struct write *last = calloc(1, sizeof(*last));
    enum rc rc = last == NULL ? RC_NOMEM : queue_new(&reply_to, 1, 0);
    if (rc == RC_OK) {
        *last = (struct write){.apply = apply_nothing, .reply_to = reply_to};
        rc = submit_patiently(w, last, deadline_ms);
    }
    if (rc == RC_OK) {
        struct pollfd fd = {.fd = queue_ready_fd(reply_to), .events = POLLIN};
        int64_t left_ms = deadline_ms - clock_now_ms();
        while (left_ms > 0 && poll(&fd, 1, (int)left_ms) <= 0) {
            left_ms = deadline_ms - clock_now_ms();
        }
        if (queue_pop(reply_to) == NULL) {
            /* Both stay with the writer, which will reply one day. */
            return RC_TIMEOUT;
        }
    }
    queue_free(&reply_to, NULL);
    free(last);
    return rc;
}
