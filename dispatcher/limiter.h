/* At most `count` requests in any window at the provider, whatever the network
 * does: the caller asks for a slot before it writes a request, and says later
 * what became of it. No clock, no I/O, no threads; every moment is in
 * microseconds of CLOCK_BOOTTIME, handed in. All calls: one thread.
 *
 * A slot is free, FLYING (the request may be anywhere between us and the
 * provider), or counted: it comes free one window and the guard after the
 * latest moment at which the provider can have counted the request. So two
 * requests of the same slot are counted more than a window apart, however they
 * were delayed, and all slots together count at most `count` in a window. A log
 * of the times of sending promises nothing of the kind: a delayed request and a
 * quick one come closer than they were sent.
 *
 * Worked example, 2 in 10 s, guard 5 ms:
 *   take at 0.0 -> slot 0; take at 0.0 -> slot 1; take -> RC_AGAIN, and
 *   limiter_next_us is INT64_MAX: nobody knows when those two arrive.
 *   slot 1 was counted at 0.1 at the latest -> free at 10.105
 *   slot 0 was counted at 3.0 at the latest -> free at 13.005
 *   take at 10.104 -> RC_AGAIN; take at 10.105 -> slot 1 again.
 *
 * The guard covers what cannot be seen: the provider's clock, and the time from
 * its kernel's acknowledgement to its counting. Never below 1/4000 of the
 * window (clocks that differ by 250 ppm). A 429 in spite of all shows that it
 * was too small: it doubles, by 50 ms at least, up to a quarter of the window;
 * what is above the minimum halves every hour. */
#ifndef SLUICE_DISPATCHER_LIMITER_H
#define SLUICE_DISPATCHER_LIMITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dispatcher/limiter_episode.h"
#include "shared/rc.h"

#define LIMITER_COUNT_MAX 10000
#define LIMITER_WINDOW_MAX_US INT64_C(86400000000)
#define LIMITER_GUARD_MIN_US 50000 /* a busy provider may look so late */
#define LIMITER_BACKOFF_US 30000000
#define LIMITER_MAX_BACKOFF_US 120000000
#define LIMITER_FLIGHT_US 1000000

/* What a slot holds instead of the moment at which it comes free. */
#define LIMITER_FREE INT64_MIN   /* never used, or returned before any use */
#define LIMITER_FLYING INT64_MAX /* taken; when it was counted is unknown */

/* When the provider counts a request. It is the caller's matter, the limiter
 * is only told: with ARRIVAL call limiter_counted when the kernel reports that
 * the request's bytes were acknowledged; with ANSWER do not, because
 * limiter_answered and limiter_refused count a flying request themselves. */
enum limiter_count_at { LIMITER_ARRIVAL, LIMITER_ANSWER };

struct limiter;

struct limiter_options {
    size_t count;           /* 1..LIMITER_COUNT_MAX */
    int64_t window_us;      /* 1..LIMITER_WINDOW_MAX_US */
    int64_t guard_min_us;   /* >= 0 */
    int64_t backoff_us;     /* > 0: the first pause after a 429 */
    int64_t max_backoff_us; /* backoff_us..LIMITER_WINDOW_MAX_US */
    int64_t flight_us; /* >= 0: so long may bytes still travel whose connection
                          has ended; nobody sees them arrive */
};

/* A taken slot. The generation is unique in the limiter and grows: a slot that
 * was taken anew does not listen to its former holder. */
struct limiter_permit {
    size_t slot; /* 0..count-1 */
    uint64_t generation;
};

/* All that must survive a restart. The slots are journaled one by one, as they
 * change; the rest when limiter_phase changes (also to PROBING, when a probe is
 * taken), and after every 429. A slot that the journal does not know is FREE.
 */
struct limiter_state {
    int64_t saved_us;
    int64_t window_us; /* in force when it was saved */
    int64_t guard_us;
    int64_t guard_at_us; /* when the guard had this value */
    enum limiter_phase phase;
    unsigned step;
    int64_t end_us; /* of the pause or the refill */
    size_t slot_count;
    int64_t *free_at_us; /* the caller's: slot_count moments, or FREE, FLYING */
};

/* saved: NULL starts empty. Slots that were FLYING count from now_us; after
 * another boot (!same_boot) its moments mean nothing any more: every slot that
 * was ever used counts from now_us, and a pause lasts as long again as was left
 * of it. A probe under way is lost. With another count, slots keep their number
 * unless there are fewer: then the last to come free remain; so save all of
 * them. saved is not kept. RC_INVALID (options, or no such phase), RC_NOMEM. */
enum rc limiter_new(struct limiter **out, const struct limiter_options *options,
                    const struct limiter_state *saved, bool same_boot,
                    int64_t now_us) MUST_CHECK;
void limiter_free(struct limiter **lp);

/* Take a slot for one request. RC_OK: journal limiter_slot_state, then write
 * the request, and then say once what became of it: limiter_return, _answered,
 * _refused or _lost. RC_AGAIN: not before limiter_next_us. */
enum rc limiter_take(struct limiter *l, int64_t now_us,
                     struct limiter_permit *out) MUST_CHECK;
/* When a slot may be taken, as far as is known: now_us or later; INT64_MAX when
 * only news of a request under way can tell. */
int64_t limiter_next_us(const struct limiter *l, int64_t now_us);
/* Between the taking and the writing time may pass. False: a 429 came in it;
 * return the permit. */
bool limiter_may_send(const struct limiter *l,
                      const struct limiter_permit *permit);

/* What became of a request. These may come in any order and late: a slot that
 * has a new holder, or has been counted, is left alone. True: the slot's state
 * changed, so journal it. */

/* The provider counted it at at_us at the latest; an answer will follow. */
bool limiter_counted(struct limiter *l, const struct limiter_permit *permit,
                     int64_t at_us);
/* Certain that it never left (connect failed, canceled): free at once. */
bool limiter_return(struct limiter *l, const struct limiter_permit *permit);
/* Its arrival will not be seen any more, an answer may follow: it counts from
 * now_us + flight_us. */
bool limiter_unknown(struct limiter *l, const struct limiter_permit *permit,
                     int64_t now_us);
/* There will be no answer (timeout, connection died): as limiter_unknown. */
bool limiter_lost(struct limiter *l, const struct limiter_permit *permit,
                  int64_t now_us);
/* Any answer but 429. */
bool limiter_answered(struct limiter *l, const struct limiter_permit *permit,
                      int64_t now_us);
/* 429: every send stops; see limiter_episode.h. Journal the whole state, but
 * for the slots. */
bool limiter_refused(struct limiter *l, const struct limiter_permit *permit,
                     int64_t now_us);

int64_t limiter_guard_us(const struct limiter *l, int64_t now_us);
enum limiter_phase limiter_phase(const struct limiter *l, int64_t now_us);
size_t limiter_flying_count(const struct limiter *l);

/* The moment at which slot (below count) comes or came free, or FREE, FLYING.
 */
int64_t limiter_slot_state(const struct limiter *l, size_t slot);

/* Write the state; out->free_at_us has room for out->slot_count moments (which
 * becomes count), or is NULL: then all but the slots. RC_FULL: too few. */
enum rc limiter_save(const struct limiter *l, int64_t now_us,
                     struct limiter_state *out) MUST_CHECK;

#endif
