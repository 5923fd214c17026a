/* GETs on the transfers' engine.
 *
 * A started GET waits in `queued` until fetcher_drive hands it over, at most
 * connect_limit at a time that have no connection yet: a cold start of
 * thousands would overflow the listener's backlog (a SYN lost is a second
 * lost), and make a thread for each look-up of a name. */
#include "dispatcher/fetcher.h"

#include <stdio.h>
#include <stdlib.h>

#include "dispatcher/transfers.h"
#include "shared/log.h"

#define SHARDS 32U
#define ROUNDS 8 /* of events, in one drive: then the others get a turn */
#define CONNECT_MIN 32U
#define CONNECT_MAX 512U
#define STARVED_MS 100

struct slot {
    struct transfer *transfer;
    struct slot *next; /* in queued */
    uint64_t tag;
    bool is_connecting; /* started, and has no connection yet */
};

struct fetcher {
    struct fetcher_options options;
    fetcher_done_fn *done;
    void *arg;
    struct transfers *transfers;
    struct slot *queued_head;
    struct slot *queued_tail;
    size_t in_flight; /* queued or started */
    size_t connecting;
    size_t connect_limit;
    int64_t starved_until_ms; /* out of descriptors: start nothing before */
    int64_t now_ms;
    bool starved_logged;
};

static void
queue_last(struct fetcher *f, struct slot *slot)
{
    slot->next = NULL;
    if (f->queued_tail == NULL) {
        f->queued_head = slot;
    } else {
        f->queued_tail->next = slot;
    }
    f->queued_tail = slot;
}

static struct slot *
queue_first(struct fetcher *f)
{
    struct slot *slot = f->queued_head;

    f->queued_head = slot->next;
    if (f->queued_head == NULL) {
        f->queued_tail = NULL;
    }
    slot->next = NULL;
    return slot;
}

/* One waits, and what connects leaves room for it. */
static bool
has_room(const struct fetcher *f)
{
    return f->queued_head != NULL && f->connecting < f->connect_limit;
}

/* ---- what the engine calls ----------------------------------------------- */

static bool
on_connected(void *arg, struct transfer *t, const char *to, int to_port,
             int from_port)
{
    struct fetcher *f = arg;
    struct slot *slot = transfers_state(t);

    (void)to;
    (void)to_port;
    (void)from_port;
    if (slot->is_connecting) { /* else it is curl's own second try */
        slot->is_connecting = false;
        f->connecting--;
        if (f->connect_limit < CONNECT_MAX) {
            f->connect_limit++;
        }
    }
    return true;
}

/* Not the upstream's fault: as if it had not been started. */
static void
wait_for_descriptors(struct fetcher *f, struct slot *slot)
{
    f->starved_until_ms = f->now_ms + STARVED_MS;
    if (!f->starved_logged) {
        f->starved_logged = true;
        log_event(LOG_WARN, "fetch_no_descriptors",
                  "in_flight=%zu concurrency=%zu", f->in_flight,
                  f->options.concurrency);
    }
    queue_last(f, slot);
}

static void
on_ended(void *arg, struct transfer *t, const struct transfer_result *got)
{
    struct fetcher *f = arg;
    struct slot *slot = transfers_state(t);
    struct fetch_result result = {.tag = slot->tag,
                                  .status = got->status,
                                  .ok = got->ok,
                                  .too_long = got->too_long,
                                  .body = got->body,
                                  .body_bytes = got->body_bytes,
                                  .duration_ms = got->duration_ms};

    if (slot->is_connecting) {
        slot->is_connecting = false;
        f->connecting--;
        f->connect_limit = f->connect_limit / 2 > CONNECT_MIN
                               ? f->connect_limit / 2
                               : CONNECT_MIN;
    }
    if (got->is_short) {
        wait_for_descriptors(f, slot);
        return;
    }
    (void)snprintf(result.error, sizeof(result.error), "%s", got->error);
    f->in_flight--; /* so that done may start the next one */
    f->done(f->arg, &result);
    transfers_release(t);
}

/* ---- driving ------------------------------------------------------------- */

/* Hand queued GETs over as far as new connections are allowed. */
static void
admit(struct fetcher *f)
{
    static const struct transfer_result no_memory = {.body = "",
                                                     .error = "out of memory"};
    const struct transfer_bounds bounds = {.timeout_ms = f->options.timeout_ms,
                                           .max_body_bytes =
                                               f->options.max_body_bytes};

    while (has_room(f) && f->now_ms >= f->starved_until_ms) {
        struct slot *slot = queue_first(f);

        slot->is_connecting = true;
        f->connecting++;
        if (transfers_start(slot->transfer, &bounds) != RC_OK) {
            on_ended(f, slot->transfer, &no_memory);
        }
    }
}

int64_t
fetcher_drive(struct fetcher *f, int64_t now_ms)
{
    int64_t wait_ms;
    int64_t starved_ms;

    f->now_ms = now_ms;
    for (int round = 0; round < ROUNDS; round++) {
        admit(f);
        if (!transfers_run(f->transfers, now_ms) && !has_room(f)) {
            break;
        }
    }
    if (f->starved_logged && now_ms > f->starved_until_ms) {
        f->starved_logged = f->queued_head != NULL;
    }
    wait_ms = transfers_wait_ms(f->transfers);
    if (!has_room(f)) { /* what connects wakes those that wait */
        return wait_ms;
    }
    starved_ms =
        f->starved_until_ms > now_ms ? f->starved_until_ms - now_ms : 0;
    return wait_ms < 0 || starved_ms < wait_ms ? starved_ms : wait_ms;
}

enum rc
fetcher_start(struct fetcher *f, const char *url, uint64_t tag)
{
    const struct transfer_request request = {.url = url};
    struct transfer *t;
    struct slot *slot;

    if (!transfers_is_url(url)) {
        return RC_INVALID;
    }
    if (f->in_flight >= f->options.concurrency) {
        return RC_FULL;
    }
    t = transfers_take(f->transfers);
    if (t == NULL) {
        return RC_AGAIN;
    }
    if (transfers_prepare(t, &request) != RC_OK) {
        transfers_release(t);
        return RC_AGAIN;
    }
    slot = transfers_state(t);
    slot->transfer = t;
    slot->tag = tag;
    f->in_flight++;
    queue_last(f, slot);
    return RC_OK;
}

/* ---- life ---------------------------------------------------------------- */

void
fetcher_set(struct fetcher *f, const struct fetcher_options *options)
{
    f->options = *options;
    transfers_keep(f->transfers, options->concurrency);
}

enum rc
fetcher_new(struct fetcher **out, const struct fetcher_options *options,
            fetcher_done_fn *done, void *arg)
{
    struct fetcher *f = calloc(1, sizeof(*f));
    const struct transfers_options engine = {
        .shards = SHARDS,
        .state_bytes = sizeof(struct slot),
        .calls = {.connected = on_connected, .ended = on_ended},
        .arg = f};
    enum rc rc = RC_NOMEM;

    *out = NULL;
    if (f == NULL) {
        goto out;
    }
    f->done = done;
    f->arg = arg;
    f->connect_limit = CONNECT_MIN;
    rc = transfers_new(&f->transfers, &engine);
    if (rc != RC_OK) {
        goto out;
    }
    fetcher_set(f, options);
    *out = f;
    f = NULL;
out:
    fetcher_free(&f);
    return rc;
}

void
fetcher_free(struct fetcher **f_out)
{
    struct fetcher *f = *f_out;

    *f_out = NULL;
    if (f == NULL) {
        return;
    }
    transfers_free(&f->transfers);
    free(f);
}

size_t
fetcher_in_flight(const struct fetcher *f)
{
    return f->in_flight;
}

int
fetcher_fd(const struct fetcher *f)
{
    return transfers_fd(f->transfers);
}
