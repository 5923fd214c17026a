/* Collects members into batches. A batch is due when it holds size members,
 * when its oldest has waited max_delay_ms, or on drain. Pure: it has no clock
 * and no thread, and knows nothing of its members.
 *
 *   size 3, max_delay_ms 2000
 *   t = 0    add a                -> due at 2000
 *   t = 100  add b, then c        -> due now: take gives a b c
 *   t = 300  add d                -> due at 2300; take at 2299 gives nothing
 *   t = 300  add e, waited 1900   -> d is the oldest: due at 2300 still
 *   t = 2300                      -> take gives d e
 *
 * None is due before it has been here for gather_ms, though it waited for long
 * before it came (a backlog after a restart): others like it are about to
 * come, and each request costs money. */
#ifndef SLUICE_DISPATCHER_BATCHER_H
#define SLUICE_DISPATCHER_BATCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/rc.h"

struct batcher;

struct batcher_options {
    size_t size;          /* of a full batch; 0 or 1: each member at once */
    int64_t max_delay_ms; /* >= 0 */
    int64_t gather_ms;    /* >= 0; at most max_delay_ms counts */
};

/* RC_NOMEM. */
enum rc batcher_new(struct batcher **out,
                    const struct batcher_options *options) MUST_CHECK;
/* The members stay the caller's. */
void batcher_free(struct batcher **b);

/* Other bounds, for those who wait as well. */
void batcher_set(struct batcher *b, const struct batcher_options *options);

/* Add a member that had waited for waited_ms (>= 0) before now_ms. RC_NOMEM. */
enum rc batcher_add(struct batcher *b, void *member, int64_t waited_ms,
                    int64_t now_ms) MUST_CHECK;

/* Members that wait. */
size_t batcher_count(const struct batcher *b);

/* When the next batch is due: at most now_ms if it is; INT64_MAX when nothing
 * waits. */
int64_t batcher_due_ms(const struct batcher *b, int64_t now_ms);

/* Take the next batch if it is due, or in any case on drain: its members in
 * the order in which they came, at most min(size, max). 0: none is due. */
size_t batcher_take(struct batcher *b, int64_t now_ms, bool drain,
                    void **members, size_t max);

#endif
