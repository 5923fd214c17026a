/* Look-ups of calls for GET and DELETE /calls/{id}: in the journal while they
 * are there, else in PostgreSQL's table calls (conf/migrations). */
#ifndef SLUICE_SHARED_CALLS_H
#define SLUICE_SHARED_CALLS_H

#include <stdint.h>

#include "shared/call_msg.h"
#include "shared/conf.h"
#include "shared/journal.h"
#include "shared/lookup.h"
#include "shared/rc.h"
#include "shared/text.h"
#include "shared/uuid.h"

struct call_entry {
    struct uuid id;
    enum call_state state;
    int64_t attempts; /* -1: not known, of a dead letter */
    int64_t created_unix_ms;
    int64_t dialed_unix_ms;           /* of the last attempt; 0: never */
    int64_t finished_unix_ms;         /* 0: not yet */
    int64_t position;                 /* of a queued one, from 1; else 0 */
    char error[JOURNAL_REASON_BYTES]; /* UTF-8; "" for none */
};

/* What is known of a call. RC_AGAIN: there is no such call. RC_IO: it cannot be
 * known now, for a place does not answer, or the call is another node's and
 * not yet in the database. */
enum rc calls_find(const struct lookup *places, const struct uuid *id,
                   struct call_entry *out) MUST_CHECK;

/* Append the document: {"call_id", "status", "attempts", "created_at",
 * "dialed_at", "finished_at", "last_error"}; null for what there is not. Of a
 * queued one also "position" and "eta_s". */
void calls_json(const struct call_entry *entry, const struct conf_call *conf,
                struct text *out);

/* Seconds, rounded up, until the call at this position (from 1) can be dialed
 * at the configured rate. */
int64_t calls_eta_s(const struct conf_call *conf, int64_t position);

#endif
