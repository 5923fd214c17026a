/* What is written of a call; the apply functions run on the writer's thread,
 * perhaps more than once. */
#include "dispatcher/call_record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct call *
call_new(const struct work *work)
{
    struct call *call = calloc(1, sizeof(*call));

    if (call == NULL) {
        return NULL;
    }
    call->seq = work->seq;
    call->received_unix_ms = work->received_unix_ms;
    call->id = work->id;
    call->slot.no = -1;
    if (work->broken ||
        call_msg_decode(work->body, work->body_bytes, &call->msg) != RC_OK) {
        call->msg.phone[0] = '\0';
    }
    return call;
}

void
call_free(struct call *call)
{
    if (call != NULL) {
        text_free(&call->outcome);
        free(call);
    }
}

/* ---- on the writer's thread ------------------------------------------------
 */

static struct journal_progress
progress_of(const struct call *call)
{
    struct journal_progress progress = {
        .state = (int)call->state,
        .attempts = call->attempts,
        .started_unix_ms = call->dialed_unix_ms,
        .finished_unix_ms =
            call->record == CALL_RECORD_FINISH ? call->now_unix_ms : 0,
    };

    (void)snprintf(progress.error, sizeof(progress.error), "%s", call->error);
    return progress;
}

/* A dial that found the call canceled took no slot. */
static enum rc
apply_limiter(struct journal *journal, const struct call *call)
{
    bool taken = call->record != CALL_RECORD_DIAL || call->begun;
    enum rc rc = RC_OK;

    if (call->slot.no >= 0 && taken) {
        rc = journal_slot_put(journal, &call->slot);
    }
    if ((rc == RC_OK || rc == RC_AGAIN) && call->note[0] != '\0') {
        rc = journal_note_put(journal, "limiter", call->note);
    }
    return rc == RC_AGAIN ? RC_OK : rc;
}

static enum rc
apply_dial(struct journal *journal, struct write *write)
{
    struct call *call = (struct call *)write;
    const struct journal_progress progress = progress_of(call);
    enum rc rc =
        journal_progress_begin(journal, SERVICE_CALL, call->seq, &progress);

    call->begun = rc == RC_OK;
    return rc == RC_OK || rc == RC_AGAIN ? apply_limiter(journal, call) : rc;
}

static enum rc
apply_requeue(struct journal *journal, struct write *write)
{
    const struct call *call = (const struct call *)write;
    const struct journal_progress progress = progress_of(call);
    enum rc rc =
        journal_progress_put(journal, SERVICE_CALL, call->seq, &progress);

    return rc == RC_OK || rc == RC_AGAIN ? apply_limiter(journal, call) : rc;
}

/* The handler has noted when it was canceled. */
static enum rc
read_canceled(struct journal *journal, struct journal_progress *progress,
              int64_t seq)
{
    struct journal_progress noted;
    enum rc rc = journal_progress_get(journal, SERVICE_CALL, seq, &noted);

    if (rc == RC_OK && noted.finished_unix_ms > 0) {
        progress->finished_unix_ms = noted.finished_unix_ms;
    }
    return rc;
}

static enum rc
encode_outcome(struct call *call, const struct journal_progress *progress)
{
    struct call_outcome outcome = {
        .id = call->id,
        .msg = call->msg,
        .state = call->state,
        .seq = call->seq,
        .attempts = call->attempts,
        .created_unix_ms = call->received_unix_ms,
        .dialed_unix_ms = call->dialed_unix_ms,
        .finished_unix_ms = progress->finished_unix_ms,
    };

    (void)snprintf(outcome.error, sizeof(outcome.error), "%s", call->error);
    text_reset(&call->outcome);
    call_outcome_encode(&outcome, &call->outcome);
    return text_failed(&call->outcome) ? RC_NOMEM : RC_OK;
}

static enum rc
apply_finish(struct journal *journal, struct write *write)
{
    struct call *call = (struct call *)write;
    struct journal_progress progress = progress_of(call);
    int64_t no = 0;
    enum rc rc = RC_OK;

    if (call->state == CALL_CANCELED) {
        rc = read_canceled(journal, &progress, call->seq);
    }
    if (rc == RC_OK) {
        rc = journal_progress_put(journal, SERVICE_CALL, call->seq, &progress);
    }
    if (rc == RC_OK || rc == RC_AGAIN) {
        rc = encode_outcome(call, &progress);
    }
    if (rc == RC_OK) {
        rc = journal_outcome_add(journal, SERVICE_CALL,
                                 text_cstr(&call->outcome), call->outcome.bytes,
                                 &no);
    }
    if (rc == RC_OK) {
        rc = journal_finish(journal, SERVICE_CALL, call->seq, no);
    }
    return rc == RC_OK || rc == RC_AGAIN ? apply_limiter(journal, call) : rc;
}

static enum rc
apply_bury(struct journal *journal, struct write *write)
{
    const struct call *call = (const struct call *)write;

    return journal_bury(journal, SERVICE_CALL, call->seq,
                        "record cannot be decoded: not a call", NULL, 0, NULL,
                        0, call->now_unix_ms);
}

/* ---- on the service's thread ------------------------------------------------
 */

void
call_record_prepare(struct call *call, enum call_record record,
                    struct queue *replies, int64_t now_unix_ms)
{
    static enum rc (*const apply[])(struct journal *, struct write *) = {
        [CALL_RECORD_DIAL] = apply_dial,
        [CALL_RECORD_REQUEUE] = apply_requeue,
        [CALL_RECORD_FINISH] = apply_finish,
        [CALL_RECORD_BURY] = apply_bury,
    };

    call->record = record;
    call->now_unix_ms = now_unix_ms;
    call->begun = false;
    call->write = (struct write){.apply = apply[record], .reply_to = replies};
}
