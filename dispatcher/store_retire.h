/* The store's write: a page of outcomes is in the database. Buries what the
 * database refused, or what could not be decoded, and retires the rest, in
 * one transaction. */
#ifndef SLUICE_DISPATCHER_STORE_RETIRE_H
#define SLUICE_DISPATCHER_STORE_RETIRE_H

#include <stdint.h>

#include "dispatcher/metrics.h"
#include "dispatcher/queue.h"
#include "dispatcher/writer.h"
#include "shared/rc.h"
#include "shared/services.h"

struct retire;

/* An empty one, which will come back through reply_to. RC_NOMEM. */
enum rc retire_new(struct retire **out, enum service service,
                   struct queue *reply_to) MUST_CHECK;
void retire_free(struct retire **r);

/* The database refused an item of request seq with this error. RC_NOMEM. */
enum rc retire_add_poison(struct retire *r, int64_t seq, const char *item,
                          const char *error) MUST_CHECK;

/* Outcome no cannot be decoded: every request that finished with it becomes a
 * dead letter. RC_NOMEM. */
enum rc retire_add_broken(struct retire *r, int64_t no) MUST_CHECK;

/* Hand it to the writer, waiting a second for room there; *r = NULL on RC_OK.
 * All outcomes no_from..no_to are persisted but for what was added above.
 * RC_FULL, RC_NOMEM: it is still the caller's. */
enum rc retire_submit(struct retire **r, struct writer *writer, int64_t no_from,
                      int64_t no_to, int64_t now_unix_ms) MUST_CHECK;

/* It came back: log a refusal, count what it did. The store's thread. */
void retire_note(const struct retire *r, struct metrics *metrics,
                 int64_t now_unix_ms);

enum service retire_service(const struct retire *r);

#endif
