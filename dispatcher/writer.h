/* The dispatcher's one journal writer: a thread that takes all writes that
 * wait, applies them in one transaction with one fsync, and reports each.
 * A write is never lost: while disk or lock fail, the group is repeated with
 * back-off. A write whose apply returns RC_INVALID or RC_BUG is reported with
 * that code and leaves nothing behind; the others of its group go on. */
#ifndef SLUICE_DISPATCHER_WRITER_H
#define SLUICE_DISPATCHER_WRITER_H

#include "dispatcher/metrics.h"
#include "dispatcher/queue.h"
#include "shared/journal.h"
#include "shared/rc.h"

struct writer;

/* Embed as the first member of what apply needs. */
struct write {
    /* Runs on the writer's thread between journal_begin and journal_commit,
     * perhaps more than once. RC_AGAIN counts as RC_OK (already so). */
    enum rc (*apply)(struct journal *journal, struct write *write);
    /* Gets the write back when it is on disk (or refused); has room for it. */
    struct queue *reply_to;
    enum rc rc; /* RC_OK, RC_INVALID or RC_BUG, set before the reply */
};

/* Starts the thread. journal (JOURNAL_DISPATCHER) becomes the writer's. */
enum rc writer_new(struct writer **out, struct journal *journal,
                   struct metrics *metrics) MUST_CHECK;
/* Applies what waits (gives up after 5 s of failures), ends the thread. */
void writer_free(struct writer **w);

/* Hand in a write, which the writer owns until it replies. RC_FULL: 4096
 * writes wait. Any thread. */
enum rc writer_submit(struct writer *w, struct write *write) MUST_CHECK;

/* Submit and wait for the reply (reply_to is ignored); for threads that may
 * block: store and control. Returns the write's rc. */
enum rc writer_call(struct writer *w, struct write *write) MUST_CHECK;

/* Wait until all that was submitted before has been replied. RC_TIMEOUT: not
 * within timeout_ms; RC_NOMEM. Any thread that may block. */
enum rc writer_flush(struct writer *w, int64_t timeout_ms) MUST_CHECK;

#endif
