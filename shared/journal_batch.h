/* Batches in the journal: messages of the SMS service that go upstream as one
 * request. A batch is recorded with its members before it is sent, so that
 * after a crash it goes out again unchanged under the same id; a message is in
 * one batch at most (table batch_member, by the message's id, which survives a
 * retry from the dead letters).
 *
 *   made --finished--> deleted with its members
 *     | \--refused, split--> deleted; two halves are made in its place
 *     \--given up--> its messages are dead letters; the batch stays, with the
 *        request's body. A retry of one of them puts all back into the queue,
 *        and the body goes out once more under the same id. To drop one
 *        dissolves the batch: the others, retried, get new ones.
 *
 * Calls that change something go between journal_begin and journal_commit. */
#ifndef SLUICE_SHARED_JOURNAL_BATCH_H
#define SLUICE_SHARED_JOURNAL_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/journal.h"
#include "shared/rc.h"
#include "shared/text.h"
#include "shared/uuid.h"

#define JOURNAL_BATCH_MAX 1000 /* messages in one */

struct journal_batch {
    struct uuid id;
    int64_t size;            /* members when it was made */
    int64_t attempts;        /* requests that failed, in all */
    int64_t failures;        /* ... since it was made, or put back */
    int64_t started_unix_ms; /* of the first request; 0: none that we know */
    char error[JOURNAL_REASON_BYTES]; /* of the last one; "": none */
    int64_t waiting; /* out: members that wait in the queue now */
};

/* ---- reading ---- */

/* How many batches there are. */
enum rc journal_batch_count(struct journal *j, int64_t *count) MUST_CHECK;

/* The batch that a message is in, and its place there, from 0. RC_AGAIN: in
 * none. */
enum rc journal_batch_of(struct journal *j, const struct uuid *message,
                         struct journal_batch *out, int64_t *place) MUST_CHECK;

/* The batch of this id. RC_AGAIN: there is none. */
enum rc journal_batch_find(struct journal *j, const struct uuid *id,
                           struct journal_batch *out) MUST_CHECK;

/* Append the body of a batch that was given up. RC_AGAIN: it has none. */
enum rc journal_batch_body(struct journal *j, const struct uuid *id,
                           struct text *out) MUST_CHECK;

/* ---- recording ---- */

/* Make a batch of these messages, in this order; size is count. RC_BUG: one of
 * them is in a batch already. */
enum rc journal_batch_make(struct journal *j, const struct journal_batch *batch,
                           const struct uuid *messages,
                           size_t count) MUST_CHECK;

/* Note attempts, failures, started and error. body: what to send again, for a
 * batch that is given up; NULL: keep what is there. RC_AGAIN: no such batch. */
enum rc journal_batch_note(struct journal *j, const struct journal_batch *batch,
                           const struct text *body) MUST_CHECK;

/* Delete it with its memberships. */
enum rc journal_batch_delete(struct journal *j,
                             const struct uuid *id) MUST_CHECK;

/* Take a message out of its batch; a batch without members goes, too. Nothing
 * happens to one that is in none. */
enum rc journal_batch_leave(struct journal *j,
                            const struct uuid *message) MUST_CHECK;

/* The provider has spoken of message id, whatever became of its batch here.
 * If it is a dead letter, it goes back into the queue, out of its batch, and
 * *row is its new row (body appended to body): for the caller to add an
 * outcome and finish it. If it is pending, JOURNAL_SMS_REPORTED is noted as its
 * progress: RC_AGAIN. Else RC_AGAIN, too. */
enum rc journal_batch_reported(struct journal *j, const struct uuid *id,
                               int64_t now_unix_ms, struct journal_row *row,
                               struct text *body) MUST_CHECK;

/* State of progress of a pending message that the provider has spoken of. */
#define JOURNAL_SMS_REPORTED 1

#endif
