/* What can be told from the journal alone, as JSON and as Prometheus text:
 * used by the dispatcher's control socket, by status.fcgi, and by sluicectl
 * while no dispatcher runs. cJSON builds the documents (its one home). */
#ifndef SLUICE_SHARED_REPORT_H
#define SLUICE_SHARED_REPORT_H

#include <stddef.h>
#include <stdint.h>

#include "shared/journal.h"
#include "shared/rc.h"
#include "shared/text.h"

/* All of these append to out, and append nothing when they fail. RC_AGAIN: no
 * journal is there; RC_IO, RC_NOMEM. Any thread that owns j. */

/* {"services": {"callback": {"accepted", "final", "dead", "pending",
 * "outcomes", "balanced", "oldest_age_s", "queue_bytes"}}, "journal":
 * {"used_bytes", "max_bytes"}} */
enum rc report_ledger(struct journal *j, int64_t max_bytes, int64_t now_unix_ms,
                      struct text *out) MUST_CHECK;

/* The same as metrics: sluice_accepted_total{service="callback"} ... with
 * HELP and TYPE lines, and sluice_ledger_balanced. */
enum rc report_ledger_metrics(struct journal *j, int64_t now_unix_ms,
                              struct text *out) MUST_CHECK;

/* {"queue": [{"service", "pending", "oldest_age_s", "queue_bytes", "next":
 * [{"id", "seq", "received_at", "body_bytes"}]}]}: of one service, or of all
 * (SERVICE_COUNT), with at most limit (0..1000) of the rows that come next. */
enum rc report_queue(struct journal *j, enum service service, size_t limit,
                     int64_t now_unix_ms, struct text *out) MUST_CHECK;

/* {"dead": [{"id", "service", "seq", "received_at", "dead_at", "reason",
 * "items": [{"item", "reason", "attempts"}]}], "next": seq or null}: those
 * with seq > after, at most limit (1..1000). Of all services (SERVICE_COUNT):
 * limit of each, after is not used, and "next" is null, or {"<service>": seq,
 * ...} of those that have more. */
enum rc report_dead(struct journal *j, enum service service, int64_t after,
                    size_t limit, struct text *out) MUST_CHECK;

/* {"id", "node", "created_at" (both from the id), "service", "state":
 * "pending|persisting|dead", "seq", "received_at"} and of a pending one
 * "ahead", of a persisting one "outcome", of a dead one "dead_at", "reason",
 * "items"; of a message in a batch "batch", "batch_size", "batch_place" (from
 * 1), "failed_attempts", "last_error". RC_AGAIN: the journal does not know it
 * (or is not there), and out =
 * {"id", "node", "created_at", "state": "unknown"}. */
enum rc report_explain(struct journal *j, const struct uuid *id,
                       struct text *out) MUST_CHECK;

#endif
