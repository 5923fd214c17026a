/* A heap of events: see simulate_run.h. Two sides meet only in packets: the
 * provider knows when requests arrived, our side when it heard of it. */
#include "dispatcher/simulate_run.h"

#include <stdlib.h>

#define DOWN_MIN_US 50000 /* from kill -9 to the new process's first word */
#define DOWN_MAX_US 500000

enum event_kind {
    EVENT_ARRIVAL, /* at the provider: a request */
    EVENT_END,     /* at the provider: it has worked on the request */
    EVENT_OTHER,   /* at the provider: somebody else's request */
    EVENT_ACK,     /* at our side */
    EVENT_ANSWER,
    EVENT_REFUSAL,
    EVENT_WAKE, /* the moment that the limiter named */
    EVENT_KILL,
    EVENT_UP,
};

struct event {
    int64_t at_us;
    uint64_t order; /* of those at the same moment */
    enum event_kind kind;
    uint32_t process; /* that sent the request; another one hears nothing */
    struct limiter_permit permit;
};

/* A growing list of moments, in order. */
struct moments {
    int64_t *us;
    size_t count;
    size_t capacity;
    size_t first; /* those before have left the window */
};

struct simulation {
    const struct simulate_options *o;
    struct simulate_result *result;
    uint64_t random;
    int64_t now_us;
    bool failed; /* out of memory */

    struct event *events; /* a binary heap */
    size_t event_count;
    size_t event_capacity;
    uint64_t order;

    /* our side */
    struct limiter_options limiter_options;
    struct limiter *limiter; /* NULL while no process runs */
    uint32_t process;
    size_t in_flight;
    int64_t wake_us; /* the earliest EVENT_WAKE that is planned, or MAX */
    struct limiter_state saved;

    /* the provider */
    struct moments counted; /* requests that it took, within the window */
    struct moments seen;    /* all requests */
    int64_t locked_until_us;
    size_t fixed_count; /* in the fixed window fixed_index */
    int64_t fixed_index;
};

/* ---- chance ---------------------------------------------------------------
 */

/* splitmix64 */
static uint64_t
next_random(struct simulation *s)
{
    uint64_t z = s->random += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static double
next_share(struct simulation *s)
{
    return (double)(next_random(s) >> 11) / (double)(UINT64_C(1) << 53);
}

static int64_t
within(struct simulation *s, const struct simulate_range *range)
{
    uint64_t span = (uint64_t)(range->max_us - range->min_us) + 1;

    return range->min_us + (int64_t)(next_random(s) % span);
}

/* A packet's way. */
static int64_t
way_us(struct simulation *s, const struct simulate_range *range)
{
    int64_t us = within(s, range);

    return next_share(s) < s->o->late_share ? us + s->o->late_us : us;
}

/* ---- events ---------------------------------------------------------------
 */

static bool
comes_before(const struct event *a, const struct event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

/* event->at_us is from now. */
static void
plan(struct simulation *s, int64_t in_us, struct event event)
{
    size_t at = s->event_count;

    if (at == s->event_capacity) {
        size_t capacity = s->event_capacity == 0 ? 256 : 2 * at;
        struct event *more = realloc(s->events, capacity * sizeof(*more));

        if (more == NULL) {
            s->failed = true;
            return;
        }
        s->events = more;
        s->event_capacity = capacity;
    }
    event.at_us = s->now_us + in_us;
    event.order = s->order++;
    s->event_count++;
    while (at > 0 && comes_before(&event, &s->events[(at - 1) / 2])) {
        s->events[at] = s->events[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    s->events[at] = event;
}

/* The same request, another event of it. */
static void
plan_as(struct simulation *s, int64_t in_us, struct event event,
        enum event_kind kind)
{
    event.kind = kind;
    plan(s, in_us, event);
}

static struct event
next_event(struct simulation *s)
{
    struct event top = s->events[0];
    struct event last = s->events[--s->event_count];
    size_t at = 0;

    for (size_t child = 1; child < s->event_count; child = 2 * at + 1) {
        if (child + 1 < s->event_count &&
            comes_before(&s->events[child + 1], &s->events[child])) {
            child++;
        }
        if (comes_before(&last, &s->events[child])) {
            break;
        }
        s->events[at] = s->events[child];
        at = child;
    }
    s->events[at] = last;
    return top;
}

/* ---- the provider ---------------------------------------------------------
 */

/* Add now; returns how many there are in the window that ends now. */
static size_t
moments_add(struct simulation *s, struct moments *m)
{
    if (m->count == m->capacity) {
        size_t capacity = m->capacity == 0 ? 1024 : 2 * m->capacity;
        int64_t *more = realloc(m->us, capacity * sizeof(*more));

        if (more == NULL) {
            s->failed = true;
            return 0;
        }
        m->us = more;
        m->capacity = capacity;
    }
    m->us[m->count++] = s->now_us;
    while (m->us[m->first] <= s->now_us - s->o->window_us) {
        m->first++;
    }
    return m->count - m->first;
}

/* Is there room for one more in the limit now? Then it is counted. */
static bool
provider_counts(struct simulation *s)
{
    const struct simulate_options *o = s->o;
    struct moments *m = &s->counted;

    if (o->fixed_window) {
        int64_t index = s->now_us / o->window_us;

        s->fixed_count = index == s->fixed_index ? s->fixed_count : 0;
        s->fixed_index = index;
        if (s->fixed_count == o->count) {
            return false;
        }
        s->fixed_count++;
        return true;
    }
    while (m->first < m->count && m->us[m->first] <= s->now_us - o->window_us) {
        m->first++;
    }
    if (m->count - m->first >= o->count) {
        return false;
    }
    (void)moments_add(s, m);
    return true;
}

static void
provider_sees(struct simulation *s)
{
    size_t in_window = moments_add(s, &s->seen);

    if (in_window > s->result->max_in_window) {
        s->result->max_in_window = in_window;
    }
}

/* Count one of our requests, or answer it with 429. */
static bool
provider_takes(struct simulation *s, const struct event *e)
{
    provider_sees(s);
    if (s->now_us >= s->locked_until_us && provider_counts(s)) {
        s->result->calls++;
        return true;
    }
    s->locked_until_us = s->now_us + s->o->lockout_us;
    s->result->refused++;
    plan_as(s, way_us(s, &s->o->jitter), *e, EVENT_REFUSAL);
    return false;
}

static void
provider_arrival(struct simulation *s, const struct event *e)
{
    /* The kernel acknowledges whatever the application thinks of it. */
    if (s->o->count_at == LIMITER_ARRIVAL) {
        plan_as(s, way_us(s, &s->o->ack), *e, EVENT_ACK);
        if (!provider_takes(s, e)) {
            return;
        }
    }
    plan_as(s, within(s, &s->o->answer), *e, EVENT_END);
}

static void
provider_end(struct simulation *s, const struct event *e)
{
    if (s->o->count_at == LIMITER_ARRIVAL || provider_takes(s, e)) {
        plan_as(s, way_us(s, &s->o->jitter), *e, EVENT_ANSWER);
    }
}

/* Others take from the limit, but it is not them who are locked out. */
static void
provider_other(struct simulation *s)
{
    double mean_us = 60e6 / s->o->others_per_minute;
    struct simulate_range gap = {0, (int64_t)(2 * mean_us)};

    provider_sees(s);
    (void)provider_counts(s);
    plan(s, within(s, &gap), (struct event){.kind = EVENT_OTHER});
}

/* ---- our side -------------------------------------------------------------
 */

/* Write what may be written, and plan to come back. */
static void
send_calls(struct simulation *s)
{
    struct event e = {.kind = EVENT_ARRIVAL, .process = s->process};
    int64_t next_us;

    if (s->limiter == NULL) {
        return;
    }
    while (s->in_flight < s->o->max_in_flight &&
           limiter_take(s->limiter, s->now_us, &e.permit) == RC_OK) {
        s->in_flight++;
        plan(s, way_us(s, &s->o->jitter), e);
    }
    next_us = limiter_next_us(s->limiter, s->now_us);
    if (s->in_flight < s->o->max_in_flight && next_us < s->wake_us) {
        s->wake_us = next_us;
        plan(s, next_us - s->now_us, (struct event){.kind = EVENT_WAKE});
    }
}

/* A news of a request of this process. */
static void
hear(struct simulation *s, const struct event *e)
{
    enum limiter_phase before = limiter_phase(s->limiter, s->now_us);
    int64_t guard_us;

    if (e->kind == EVENT_ACK) {
        (void)limiter_counted(s->limiter, &e->permit, s->now_us);
        return;
    }
    s->in_flight--;
    if (e->kind == EVENT_ANSWER) {
        (void)limiter_answered(s->limiter, &e->permit, s->now_us);
        return;
    }
    (void)limiter_refused(s->limiter, &e->permit, s->now_us);
    s->result->episodes +=
        before == LIMITER_OPEN || before == LIMITER_REFILLING;
    guard_us = limiter_guard_us(s->limiter, s->now_us);
    if (guard_us > s->result->worst_guard_us) {
        s->result->worst_guard_us = guard_us;
    }
}

/* The journal has all that the limiter said; what is under way goes on, and
 * nobody hears of it any more. */
static void
kill_process(struct simulation *s)
{
    static const struct simulate_range down = {DOWN_MIN_US, DOWN_MAX_US};

    s->saved.slot_count = s->o->count;
    if (limiter_save(s->limiter, s->now_us, &s->saved) != RC_OK) {
        s->failed = true;
    }
    limiter_free(&s->limiter);
    s->process++;
    s->in_flight = 0;
    s->wake_us = INT64_MAX;
    plan(s, within(s, &down), (struct event){.kind = EVENT_UP});
}

static enum rc
start_process(struct simulation *s, const struct limiter_state *saved)
{
    enum rc rc =
        limiter_new(&s->limiter, &s->limiter_options, saved, true, s->now_us);

    if (rc == RC_OK && s->o->restart_every_us > 0) {
        plan(s, s->o->restart_every_us, (struct event){.kind = EVENT_KILL});
    }
    return rc;
}

/* ---- the run --------------------------------------------------------------
 */

static void
happen(struct simulation *s, const struct event *e)
{
    switch (e->kind) {
    case EVENT_ARRIVAL:
        provider_arrival(s, e);
        return;
    case EVENT_END:
        provider_end(s, e);
        return;
    case EVENT_OTHER:
        provider_other(s);
        return;
    case EVENT_ACK:
    case EVENT_ANSWER:
    case EVENT_REFUSAL:
        if (s->limiter != NULL && e->process == s->process) {
            hear(s, e);
        }
        break;
    case EVENT_WAKE:
        s->wake_us = s->wake_us <= s->now_us ? INT64_MAX : s->wake_us;
        break;
    case EVENT_KILL:
        kill_process(s);
        break;
    case EVENT_UP:
        s->failed = start_process(s, &s->saved) != RC_OK || s->failed;
        break;
    }
    send_calls(s);
}

static void
begin(struct simulation *s, uint64_t seed)
{
    const struct simulate_options *o = s->o;

    s->random = seed;
    s->wake_us = INT64_MAX;
    s->limiter_options = o->limiter;
    s->limiter_options.count = o->count;
    s->limiter_options.window_us = o->window_us;
    s->fixed_index = -1;
    if (o->others_per_minute > 0) {
        plan(s, 0, (struct event){.kind = EVENT_OTHER});
    }
}

enum rc
simulate_run(const struct simulate_options *options, uint64_t seed,
             struct simulate_result *out)
{
    struct simulation s = {.o = options, .result = out};
    enum rc rc = RC_NOMEM;

    *out = (struct simulate_result){0};
    s.saved.free_at_us = calloc(options->count, sizeof(int64_t));
    if (s.saved.free_at_us == NULL) {
        goto out;
    }
    begin(&s, seed);
    rc = start_process(&s, NULL);
    if (rc != RC_OK) {
        goto out;
    }
    out->worst_guard_us = limiter_guard_us(s.limiter, 0);
    send_calls(&s);
    while (s.event_count > 0 && !s.failed) {
        struct event e = next_event(&s);

        if (e.at_us >= options->duration_us) {
            break;
        }
        s.now_us = e.at_us;
        happen(&s, &e);
    }
    out->share = (double)out->calls * (double)options->window_us /
                 ((double)options->count * (double)options->duration_us);
    rc = s.failed ? RC_NOMEM : RC_OK;
out:
    limiter_free(&s.limiter);
    free(s.saved.free_at_us);
    free(s.counted.us);
    free(s.seen.us);
    free(s.events);
    return rc;
}
