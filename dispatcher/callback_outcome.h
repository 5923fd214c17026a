/* What the callback service writes: one batch at a time, in one transaction,
 * while the next one gathers in the pool. So a slow disk makes batches larger,
 * not queues longer.
 *
 * A batch holds the objects found online (an outcome for the store), the
 * requests that ended, those of them that died, and attempts to remember or to
 * forget. */
#ifndef SLUICE_DISPATCHER_CALLBACK_OUTCOME_H
#define SLUICE_DISPATCHER_CALLBACK_OUTCOME_H

#include <stdbool.h>
#include <stdint.h>

#include "dispatcher/callback_pool.h"
#include "dispatcher/queue.h"
#include "dispatcher/service.h"
#include "dispatcher/writer.h"
#include "shared/rc.h"

struct callback_outcome;

/* What a batch did, once it is on disk. */
struct callback_written {
    unsigned objects;       /* in its outcome */
    unsigned finished;      /* requests that ended well */
    unsigned dead;          /* requests buried, the next ones too */
    unsigned quarantined;   /* ... because they could not be decoded */
    int64_t first_dead_seq; /* 0: none */
};

/* All in the service's thread. */
enum rc callback_outcome_new(struct callback_outcome **out,
                             struct callback_pool *pool, struct writer *writer,
                             struct queue *replies) MUST_CHECK;
/* A batch that the writer still has is left to it: the writer may be using it
 * until the process ends. */
void callback_outcome_free(struct callback_outcome **o);

/* Gather a batch and hand it to the writer, unless there is nothing to write,
 * one is under way, or the last one was only just gathered: it is worth while
 * to wait for more. Returns in how many ms to call again, -1: there is no need
 * to. */
int64_t callback_outcome_submit(struct callback_outcome *o, struct now now);
/* The writer replied: its rc. The batch is over in any case: when it was
 * refused (a bug), its requests stay in the journal for the next start. */
enum rc callback_outcome_written(struct callback_outcome *o,
                                 const struct write *write,
                                 struct callback_written *out) MUST_CHECK;
/* No batch gathered or under way? */
bool callback_outcome_idle(const struct callback_outcome *o);

#endif
