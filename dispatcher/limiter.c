/* Slots and guard: see limiter.h. Every slot that is not flying is in a binary
 * heap, the first to come free on top; so taking and counting are O(log n), in
 * whatever order news comes. */
#include "dispatcher/limiter.h"

#include <stdlib.h>
#include <string.h>

#define GUARD_STEP_US 50000
#define GUARD_HALF_LIFE_US INT64_C(3600000000)
#define WINDOW_PER_DRIFT 4000

struct slot {
    int64_t free_at_us; /* of the request before, while this one is flying */
    int64_t taken_us;
    uint64_t generation; /* of the newest holder; 0: none yet */
    bool flying;
};

struct limiter {
    struct slot *slots;
    size_t count;
    size_t *heap; /* slots that are not flying, by free_at_us */
    size_t heap_count;
    int64_t window_us;
    int64_t flight_us;
    uint64_t newest; /* generation */
    int64_t guard_min_us;
    int64_t guard_max_us;
    int64_t guard_us; /* its value at guard_at_us; it shrinks from then on */
    int64_t guard_at_us;
    struct limiter_episode episode;
};

static int64_t
clamp(int64_t value, int64_t min, int64_t max)
{
    return value < min ? min : value > max ? max : value;
}

/* ---- the heap -----------------------------------------------------------
 */

/* Of slots that come free together the lower number first, so that a run can
 * be repeated. */
static bool
comes_before(const struct limiter *l, size_t a, size_t b)
{
    int64_t a_us = l->slots[a].free_at_us;
    int64_t b_us = l->slots[b].free_at_us;

    return a_us != b_us ? a_us < b_us : a < b;
}

static void
heap_push(struct limiter *l, size_t slot)
{
    size_t at = l->heap_count++;

    while (at > 0 && comes_before(l, slot, l->heap[(at - 1) / 2])) {
        l->heap[at] = l->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    l->heap[at] = slot;
}

static size_t
heap_pop(struct limiter *l)
{
    size_t top = l->heap[0];
    size_t last = l->heap[--l->heap_count];
    size_t at = 0;

    for (size_t child = 1; child < l->heap_count; child = 2 * at + 1) {
        if (child + 1 < l->heap_count &&
            comes_before(l, l->heap[child + 1], l->heap[child])) {
            child++;
        }
        if (comes_before(l, last, l->heap[child])) {
            break;
        }
        l->heap[at] = l->heap[child];
        at = child;
    }
    l->heap[at] = last;
    return top;
}

/* ---- the guard ------------------------------------------------------------
 */

/* Whole half-lives by shifts, and a straight line within one: that is at most
 * 6 % above the true curve, hence on the safe side, and needs no libm. */
int64_t
limiter_guard_us(const struct limiter *l, int64_t now_us)
{
    int64_t above_us = l->guard_us - l->guard_min_us;
    int64_t age_us = now_us > l->guard_at_us ? now_us - l->guard_at_us : 0;
    int64_t halvings = age_us / GUARD_HALF_LIFE_US;

    if (halvings >= 62) {
        return l->guard_min_us;
    }
    above_us >>= halvings;
    /* In doubles: the product does not fit 64 bits for long windows. */
    above_us -=
        (int64_t)((double)above_us / 2 * (double)(age_us % GUARD_HALF_LIFE_US) /
                  (double)GUARD_HALF_LIFE_US);
    return l->guard_min_us + above_us;
}

static void
grow_guard(struct limiter *l, int64_t now_us)
{
    int64_t guard_us = limiter_guard_us(l, now_us);
    int64_t more_us = guard_us > GUARD_STEP_US ? guard_us : GUARD_STEP_US;

    l->guard_us = clamp(guard_us + more_us, l->guard_min_us, l->guard_max_us);
    l->guard_at_us = now_us;
}

/* ---- new, save, free ------------------------------------------------------
 */

static bool
options_valid(const struct limiter_options *o)
{
    return o->count >= 1 && o->count <= LIMITER_COUNT_MAX &&
           o->window_us >= 1 && o->window_us <= LIMITER_WINDOW_MAX_US &&
           o->guard_min_us >= 0 && o->guard_min_us <= LIMITER_WINDOW_MAX_US &&
           o->backoff_us > 0 && o->max_backoff_us >= o->backoff_us &&
           o->max_backoff_us <= LIMITER_WINDOW_MAX_US && o->flight_us >= 0 &&
           o->flight_us <= LIMITER_WINDOW_MAX_US;
}

static enum rc
make(struct limiter **out, const struct limiter_options *o)
{
    struct limiter *l = calloc(1, sizeof(*l));
    int64_t drift_us = o->window_us / WINDOW_PER_DRIFT + 1;

    *out = l;
    if (l == NULL) {
        return RC_NOMEM;
    }
    l->slots = calloc(o->count, sizeof(*l->slots));
    l->heap = calloc(o->count, sizeof(*l->heap));
    if (l->slots == NULL || l->heap == NULL) {
        return RC_NOMEM;
    }
    l->count = o->count;
    l->window_us = o->window_us;
    l->flight_us = o->flight_us;
    l->guard_min_us = o->guard_min_us > drift_us ? o->guard_min_us : drift_us;
    l->guard_max_us = clamp(o->window_us / 4, l->guard_min_us, INT64_MAX);
    l->guard_us = l->guard_min_us;
    l->episode = (struct limiter_episode){
        .backoff_us = o->backoff_us,
        .max_backoff_us = o->max_backoff_us,
        .window_us = o->window_us,
        .spacing_us =
            (o->window_us + (int64_t)o->count - 1) / (int64_t)o->count,
    };
    return RC_OK;
}

/* The moments of before mean something only on the same boot. */
static void
restore_guard(struct limiter *l, const struct limiter_state *saved,
              bool same_boot, int64_t now_us)
{
    l->guard_us = clamp(saved->guard_us, l->guard_min_us, l->guard_max_us);
    l->guard_at_us = same_boot ? clamp(saved->guard_at_us, 0, now_us) : now_us;
}

static void
restore_episode(struct limiter *l, const struct limiter_state *saved,
                bool same_boot, int64_t now_us)
{
    struct limiter_episode *e = &l->episode;
    int64_t from_us = same_boot             ? now_us
                      : saved->saved_us > 0 ? saved->saved_us
                                            : 0;
    int64_t left_us = saved->end_us > from_us ? saved->end_us - from_us : 0;

    e->phase = saved->phase;
    e->step = saved->step;
    switch (saved->phase) {
    case LIMITER_OPEN:
        break;
    case LIMITER_PROBING:
        e->end_us = now_us;
        limiter_episode_lost(e, e->probe, now_us);
        break;
    case LIMITER_PAUSED:
        e->end_us = now_us + clamp(left_us, 0, e->max_backoff_us);
        break;
    case LIMITER_REFILLING:
        e->end_us = now_us + clamp(left_us, 0, e->window_us);
        e->next_us = now_us + e->spacing_us;
        break;
    }
}

/* Nothing comes free later than a request that was under way until now: what a
 * damaged journal says cannot stop the calls for good. */
static int64_t
restored_us(const struct limiter *l, const struct limiter_state *saved,
            size_t slot, int64_t latest_us)
{
    int64_t free_at_us = saved->free_at_us[slot];

    if (free_at_us == LIMITER_FREE) {
        return LIMITER_FREE;
    }
    if (free_at_us > latest_us) { /* FLYING, too */
        return latest_us;
    }
    if (free_at_us < 0) {
        free_at_us = 0;
    }
    free_at_us += l->window_us - saved->window_us;
    return free_at_us < latest_us ? free_at_us : latest_us;
}

static int
latest_first(const void *a, const void *b)
{
    int64_t a_us = *(const int64_t *)a;
    int64_t b_us = *(const int64_t *)b;

    return (a_us < b_us) - (a_us > b_us);
}

static enum rc
restore_slots(struct limiter *l, const struct limiter_state *saved,
              bool same_boot, int64_t now_us)
{
    int64_t taken_us = now_us + l->window_us + limiter_guard_us(l, now_us);
    size_t count = saved->slot_count;
    int64_t *all = calloc(count + 1, sizeof(*all));

    if (all == NULL) {
        return RC_NOMEM;
    }
    for (size_t i = 0; i < count; i++) {
        all[i] = restored_us(l, saved, i, taken_us + l->flight_us);
        if (!same_boot && all[i] != LIMITER_FREE) {
            all[i] = taken_us + l->flight_us;
        }
    }
    if (count > l->count) {
        qsort(all, count, sizeof(*all), latest_first);
        count = l->count;
    }
    for (size_t i = 0; i < count; i++) {
        l->slots[i].free_at_us = all[i];
    }
    /* What was sent in a longer window is more than a smaller log knows. */
    for (size_t i = count; i < l->count && l->window_us > saved->window_us;
         i++) {
        l->slots[i].free_at_us = taken_us;
    }
    free(all);
    return RC_OK;
}

static enum rc
restore(struct limiter *l, const struct limiter_state *saved, bool same_boot,
        int64_t now_us)
{
    if ((unsigned)saved->phase > LIMITER_REFILLING || saved->window_us < 1 ||
        saved->window_us > LIMITER_WINDOW_MAX_US ||
        saved->slot_count > LIMITER_COUNT_MAX) {
        return RC_INVALID;
    }
    restore_guard(l, saved, same_boot, now_us);
    restore_episode(l, saved, same_boot, now_us);
    return restore_slots(l, saved, same_boot, now_us);
}

enum rc
limiter_new(struct limiter **out, const struct limiter_options *options,
            const struct limiter_state *saved, bool same_boot, int64_t now_us)
{
    struct limiter *l = NULL;
    enum rc rc = RC_INVALID;

    *out = NULL;
    if (!options_valid(options)) {
        goto out;
    }
    rc = make(&l, options);
    if (rc != RC_OK) {
        goto out;
    }
    l->guard_at_us = now_us;
    for (size_t i = 0; i < l->count; i++) {
        l->slots[i].free_at_us = LIMITER_FREE;
    }
    if (saved != NULL) {
        rc = restore(l, saved, same_boot, now_us);
        if (rc != RC_OK) {
            goto out;
        }
    }
    for (size_t i = 0; i < l->count; i++) {
        heap_push(l, i);
    }
    *out = l;
    l = NULL;
out:
    limiter_free(&l);
    return rc;
}

void
limiter_free(struct limiter **lp)
{
    struct limiter *l = *lp;

    if (l == NULL) {
        return;
    }
    free(l->heap);
    free(l->slots);
    free(l);
    *lp = NULL;
}

int64_t
limiter_slot_state(const struct limiter *l, size_t slot)
{
    const struct slot *s = &l->slots[slot];

    return s->flying ? LIMITER_FLYING : s->free_at_us;
}

enum rc
limiter_save(const struct limiter *l, int64_t now_us, struct limiter_state *out)
{
    if (out->free_at_us != NULL && out->slot_count < l->count) {
        return RC_FULL;
    }
    out->saved_us = now_us;
    out->window_us = l->window_us;
    out->guard_us = l->guard_us;
    out->guard_at_us = l->guard_at_us;
    out->phase = limiter_phase(l, now_us);
    out->step = l->episode.step;
    out->end_us = l->episode.end_us;
    out->slot_count = l->count;
    for (size_t i = 0; out->free_at_us != NULL && i < l->count; i++) {
        out->free_at_us[i] = limiter_slot_state(l, i);
    }
    return RC_OK;
}

/* ---- taking ---------------------------------------------------------------
 */

int64_t
limiter_next_us(const struct limiter *l, int64_t now_us)
{
    int64_t allowed_us = limiter_episode_next_us(&l->episode, now_us);
    int64_t free_at_us;

    if (l->heap_count == 0) {
        return INT64_MAX;
    }
    free_at_us = l->slots[l->heap[0]].free_at_us;
    return clamp(free_at_us > allowed_us ? free_at_us : allowed_us, now_us,
                 INT64_MAX);
}

enum rc
limiter_take(struct limiter *l, int64_t now_us, struct limiter_permit *out)
{
    struct slot *s;

    *out = (struct limiter_permit){0};
    if (limiter_next_us(l, now_us) > now_us) {
        return RC_AGAIN;
    }
    out->slot = heap_pop(l);
    out->generation = ++l->newest;
    s = &l->slots[out->slot];
    s->generation = out->generation;
    s->taken_us = now_us;
    s->flying = true;
    limiter_episode_sent(&l->episode, out->generation, now_us);
    return RC_OK;
}

bool
limiter_may_send(const struct limiter *l, const struct limiter_permit *permit)
{
    return limiter_episode_may_send(&l->episode, permit->generation);
}

/* ---- what became of it ----------------------------------------------------
 */

/* The permit's slot, if it is flying for this permit; else NULL. */
static struct slot *
flying_slot(struct limiter *l, const struct limiter_permit *permit)
{
    struct slot *s = permit->slot < l->count ? &l->slots[permit->slot] : NULL;

    return s != NULL && s->flying && s->generation == permit->generation ? s
                                                                         : NULL;
}

static void
land(struct limiter *l, struct slot *s)
{
    s->flying = false;
    heap_push(l, (size_t)(s - l->slots));
}

bool
limiter_counted(struct limiter *l, const struct limiter_permit *permit,
                int64_t at_us)
{
    struct slot *s = flying_slot(l, permit);

    if (s == NULL) {
        return false;
    }
    if (at_us < s->taken_us) {
        at_us = s->taken_us; /* nothing is counted before it is sent */
    }
    s->free_at_us = at_us + l->window_us + limiter_guard_us(l, at_us);
    land(l, s);
    return true;
}

bool
limiter_return(struct limiter *l, const struct limiter_permit *permit)
{
    struct slot *s = flying_slot(l, permit);

    if (s == NULL) {
        return false;
    }
    limiter_episode_returned(&l->episode, permit->generation);
    land(l, s);
    return true;
}

bool
limiter_unknown(struct limiter *l, const struct limiter_permit *permit,
                int64_t now_us)
{
    return limiter_counted(l, permit, now_us + l->flight_us);
}

bool
limiter_lost(struct limiter *l, const struct limiter_permit *permit,
             int64_t now_us)
{
    limiter_episode_lost(&l->episode, permit->generation, now_us);
    return limiter_unknown(l, permit, now_us);
}

bool
limiter_answered(struct limiter *l, const struct limiter_permit *permit,
                 int64_t now_us)
{
    limiter_episode_answered(&l->episode, permit->generation, now_us);
    return limiter_counted(l, permit, now_us);
}

bool
limiter_refused(struct limiter *l, const struct limiter_permit *permit,
                int64_t now_us)
{
    if (limiter_episode_refused(&l->episode, permit->generation, l->newest,
                                now_us)) {
        grow_guard(l, now_us);
    }
    return limiter_counted(l, permit, now_us);
}

enum limiter_phase
limiter_phase(const struct limiter *l, int64_t now_us)
{
    return limiter_episode_phase(&l->episode, now_us);
}

size_t
limiter_flying_count(const struct limiter *l)
{
    return l->count - l->heap_count;
}
