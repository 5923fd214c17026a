/* Look-ups of messages for GET /sms/{id}, and the statistics of batches. The
 * journal comes first: what has left it was persisted before it left. */
#ifndef SLUICE_SHARED_SMS_LOOKUP_H
#define SLUICE_SHARED_SMS_LOOKUP_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/journal.h"
#include "shared/lookup.h"
#include "shared/pg.h"
#include "shared/rc.h"
#include "shared/sms_state.h"
#include "shared/text.h"
#include "shared/uuid.h"

struct sms_entry {
    struct uuid id;
    enum sms_state state;
    bool dead;                        /* in the dead letters; ACCEPTED then */
    char error[JOURNAL_REASON_BYTES]; /* of a dead one; else "" */
    int64_t received_unix_ms;
    int64_t sent_unix_ms;    /* 0: not known to be */
    int64_t updated_unix_ms; /* of the state; 0: never */
};

/* What is known of a message. RC_AGAIN: there is none. RC_IO: it cannot be
 * known now, for a place does not answer, or it is another node's and not yet
 * in the database. */
enum rc sms_find(const struct lookup *places, const struct uuid *id,
                 struct sms_entry *out) MUST_CHECK;

/* Append {"id", "status", "dead", "last_error", "received_at", "sent_at",
 * "updated_at"}; null for what there is not. */
void sms_json(const struct sms_entry *entry, struct text *out);

/* Numbers of the finished batches of a time. */
struct sms_statistics {
    int64_t batches_sent;   /* the provider took them */
    int64_t batches_failed; /* last error is not null */
    int64_t messages;       /* in those that were sent */
    int64_t attempts;       /* requests made, for all of them */
    int64_t p50_ms;         /* duration, first request to end; -1: no batch */
    int64_t p99_ms;
};

/* Ask the database for all time and for the last hour before now. RC_IO. */
enum rc sms_statistics_read(struct pg *pg, int64_t now_unix_ms,
                            struct sms_statistics *all,
                            struct sms_statistics *last_hour) MUST_CHECK;

/* Append {"batches_sent", "batches_failed", "success_percent" (two decimals,
 * rounded down; null without a batch), "messages", "mean_fill" (likewise),
 * "attempts", "p50_ms", "p99_ms" (null without a batch), "requests_saved"
 * (messages - attempts)}. */
void sms_statistics_json(const struct sms_statistics *statistics,
                         struct text *out);

#endif
