/* A batch of messages in the dispatcher's hands, and what is written of it to
 * the journal, each in one transaction.
 *
 *   MAKE     it and its members, before its first request
 *   NOTE     an attempt that failed
 *   FINISH   the provider took it: outcome, its messages end, batch deleted
 *   GIVE_UP  no attempt is left: its messages become dead letters; the batch
 *            stays with its request's body, for their retry
 *   SPLIT    the provider refuses it: two halves in its place
 *   REFUSE   the same, of a message that stands alone: a dead letter, unless
 *            the provider has reported on it
 *   REMAKE   it is no longer whole: the rest as a new batch
 *   BURY     its one member cannot be decoded, and leaves the batch that it may
 *            be in; the flight itself is no batch
 *
 * A message that the provider has reported on meanwhile was sent, whatever we
 * saw: in place of a dead letter, or of a second request under another id, it
 * is stored. */
#ifndef SLUICE_DISPATCHER_SMS_RECORD_H
#define SLUICE_DISPATCHER_SMS_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dispatcher/queue.h"
#include "dispatcher/work.h"
#include "dispatcher/writer.h"
#include "shared/journal_batch.h"
#include "shared/rc.h"
#include "shared/text.h"

enum sms_record {
    SMS_RECORD_MAKE,
    SMS_RECORD_NOTE,
    SMS_RECORD_FINISH,
    SMS_RECORD_GIVE_UP,
    SMS_RECORD_SPLIT,
    SMS_RECORD_REFUSE,
    SMS_RECORD_REMAKE,
    SMS_RECORD_BURY,
};

struct sms_flight {
    struct write write;      /* first: the writer knows no more of it */
    struct sms_flight *next; /* in the one list that has it */
    struct journal_batch batch;
    struct work **members; /* in the order of the request */
    bool *saved;           /* of each place: its message was stored meanwhile */
    size_t count;
    size_t capacity;
    struct text body; /* of the request; empty: not made yet */
    int64_t due_ms;   /* monotonic: not sent before */
    /* the write under way */
    enum sms_record record;
    int64_t now_unix_ms;
    struct sms_flight *halves[2]; /* of a split; a REMAKE has one */
    struct text outcome;
    int64_t buried; /* of a GIVE_UP, a REFUSE: messages that are dead now */
};

/* An empty one with room for capacity members (> 0). NULL: no memory. */
struct sms_flight *sms_flight_new(const struct uuid *id, size_t capacity);
/* With its members and halves. */
void sms_flight_free(struct sms_flight *flight);

/* Put a member to its place (from 0). Owns work on RC_OK. RC_FULL: beyond
 * capacity, or the place is taken. */
enum rc sms_flight_put(struct sms_flight *flight, size_t place,
                       struct work *work) MUST_CHECK;
/* All have come that will: close the gaps of those that have not. */
void sms_flight_close(struct sms_flight *flight);

/* Move its members, which keep their order, into halves[0] and halves[1] (of
 * one: only halves[0]) with these ids. RC_NOMEM: nothing was moved. */
enum rc sms_flight_split(struct sms_flight *flight, const struct uuid *ids,
                         size_t parts) MUST_CHECK;
/* The members of the halves, which are freed, are its own again. */
void sms_flight_join(struct sms_flight *flight);

/* Make the request's body, unless it is there: [{"message_id", "phone_number",
 * "message"}, ...]. RC_INVALID: a member cannot be decoded; RC_NOMEM. */
enum rc sms_flight_body(struct sms_flight *flight) MUST_CHECK;

/* Make its write ready: for writer_submit(&flight->write). It is the writer's
 * until it comes back to replies. */
void sms_record_prepare(struct sms_flight *flight, enum sms_record record,
                        struct queue *replies, int64_t now_unix_ms);

#endif
