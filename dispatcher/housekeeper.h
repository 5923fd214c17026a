/* The dispatcher's housekeeping of the journal: checkpoints, idempotency keys
 * whose time is over, gauges, and the ledger's conservation alarm. */
#ifndef SLUICE_DISPATCHER_HOUSEKEEPER_H
#define SLUICE_DISPATCHER_HOUSEKEEPER_H

#include "dispatcher/metrics.h"
#include "shared/journal.h"
#include "shared/rc.h"

struct housekeeper;

/* Start the thread. journal (JOURNAL_DISPATCHER, a connection of its own)
 * becomes the housekeeper's. RC_NOMEM, RC_IO. */
enum rc housekeeper_start(struct housekeeper **out, struct journal *journal,
                          struct metrics *metrics) MUST_CHECK;
/* Ends the thread; at most one checkpoint is waited for. */
void housekeeper_stop(struct housekeeper **h);

#endif
