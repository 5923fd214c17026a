/* Tells the client's own endpoint (sms.status_callback_url; none: nothing
 * happens) of messages' new states. The statement that changes a state also
 * puts a row into PostgreSQL's table sms_notices; this thread posts the rows of
 * its node, oldest first, and deletes what was taken:
 *
 *   POST [{"event_id": 17, "id": "0193...", "status": "DELIVERED",
 *          "changed_at": "2026-11-21T11:00:00.000Z"}, ...]
 *   Idempotency-Key: sms-notices-<node>-<first event_id>-<last event_id>
 *   X-Signature: as status updates are signed, if there are secrets
 *
 * At least once: after a crash the same event_ids may come again. A post that
 * fails is repeated unchanged with full jitter; after sms.max_attempts its rows
 * stay in the table with dead_at and last_error, and the next ones go on. */
#ifndef SLUICE_DISPATCHER_SMS_NOTIFIER_H
#define SLUICE_DISPATCHER_SMS_NOTIFIER_H

#include "dispatcher/metrics.h"
#include "shared/conf.h"
#include "shared/rc.h"

struct sms_notifier;

/* Start the thread; conf is copied. RC_NOMEM, RC_IO. */
enum rc sms_notifier_start(struct sms_notifier **out, const struct conf *conf,
                           struct metrics *metrics) MUST_CHECK;
/* End it; a post under way is not waited for. */
void sms_notifier_stop(struct sms_notifier **n);

/* New values of the keys of [sms]. Main. */
void sms_notifier_configure(struct sms_notifier *n, const struct conf *conf);

#endif
