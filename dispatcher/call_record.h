/* A call in the dispatcher's hands, and what is written of it to the journal.
 *
 *   QUEUED --dial--> DIALING --finish--> ANSWERED | FAILED | UNKNOWN
 *     ^  \             |
 *     |   \            `--requeue (429, or nothing left): QUEUED again
 *     |    `--(the handler set CANCELED: dial finds it) finish--> CANCELED
 *
 * DIALING and the slot are on disk before the request may leave; QUEUED again
 * before it is dialled again. */
#ifndef SLUICE_DISPATCHER_CALL_RECORD_H
#define SLUICE_DISPATCHER_CALL_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "dispatcher/limiter.h"
#include "dispatcher/queue.h"
#include "dispatcher/work.h"
#include "dispatcher/writer.h"
#include "shared/call_msg.h"
#include "shared/journal.h"
#include "shared/rc.h"
#include "shared/text.h"

#define CALL_NOTE_BYTES 256

enum call_record {
    CALL_RECORD_DIAL,    /* DIALING where QUEUED, and the slot */
    CALL_RECORD_REQUEUE, /* QUEUED, attempts as they are now */
    CALL_RECORD_FINISH,  /* its final state, and the outcome */
    CALL_RECORD_BURY,    /* it cannot be decoded */
};

struct call {
    struct write write; /* first: the writer knows no more of it */
    struct call *next;  /* in the one list that has it */
    int64_t seq;
    int64_t received_unix_ms;
    struct uuid id;
    struct call_msg msg;
    enum call_state state; /* as the last write has it, or the next will */
    int64_t attempts;      /* with the one under way */
    int64_t dialed_unix_ms;
    int64_t dialed_before_unix_ms; /* by the attempt before; 0: none */
    int64_t due_ms;                /* monotonic: not dialled again before */
    char error[CALL_ERROR_BYTES];
    struct limiter_permit permit;
    bool has_permit;
    /* the write under way */
    enum call_record record;
    int64_t now_unix_ms;
    struct journal_slot slot;   /* no < 0: none to write */
    char note[CALL_NOTE_BYTES]; /* the limiter's; "": not to write */
    struct text outcome;
    bool begun; /* of a dial: was QUEUED, is DIALING now */
};

/* NULL: no memory. A body that cannot be decoded gives msg.phone "". */
struct call *call_new(const struct work *work);
void call_free(struct call *call);

/* Make its write ready: for writer_submit(&call->write). It is the writer's
 * until it comes back to replies. */
void call_record_prepare(struct call *call, enum call_record record,
                         struct queue *replies, int64_t now_unix_ms);

#endif
