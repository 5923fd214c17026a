/* The thread that runs a service: one loop that takes orders, hands written
 * writes back, lets requests in while the service has room, and gives it its
 * turn. What the service does is in its ops; when it does it is here. */
#include "dispatcher/service.h"

#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/store_pg.h"
#include "shared/clock.h"
#include "shared/log.h"

/* A turn is bounded, so that orders and timers are never far away. */
#define ACCEPTS_PER_TURN 64
#define REPLIES_PER_TURN 512
#define ORDERS_MAX 16
/* More than the writer can hold of one service: 4096 waiting and a group. */
#define REPLIES_MAX 16384
#define WAIT_MAX_MS 1000
/* Writes that come back at the end may bring forth others. */
#define SETTLE_ROUNDS 16
#define SETTLE_MS 1500

enum order_kind {
    ORDER_PAUSE,
    ORDER_RESUME,
    ORDER_DRAIN,
    ORDER_CONFIGURE,
    ORDER_REPORT,
    ORDER_STOP,
};

/* On the caller's stack, who waits until it is done. */
struct order {
    enum order_kind kind;
    const struct conf *conf; /* ORDER_CONFIGURE */
    struct text *out;        /* ORDER_REPORT */
    int64_t timeout_ms;      /* ORDER_STOP */
    bool draining;           /* ORDER_DRAIN */
};

struct service_thread {
    const struct service_ops *ops;
    void *self;
    struct writer *writer;
    struct metrics *metrics;
    struct journal *journal;
    struct queue *inbox; /* borrowed */
    struct queue *replies;
    struct queue *orders;
    struct queue *done;     /* orders that were carried out */
    pthread_mutex_t caller; /* one order at a time */
    pthread_t thread;
    atomic_bool paused;
    bool stopping;
    bool settled; /* no write of ours is with the writer any more */
    int64_t stop_at_ms;
};

/* ---- the thread -----------------------------------------------------------
 */

static void
carry_out(struct service_thread *t, const struct order *order, struct now now)
{
    switch (order->kind) {
    case ORDER_PAUSE:
        atomic_store(&t->paused, true);
        break;
    case ORDER_RESUME:
        atomic_store(&t->paused, false);
        break;
    case ORDER_DRAIN:
        if (t->ops->drain != NULL) {
            t->ops->drain(t->self, order->draining);
        }
        break;
    case ORDER_CONFIGURE:
        t->ops->configure(t->self, order->conf);
        break;
    case ORDER_REPORT:
        t->ops->report(t->self, order->out);
        break;
    case ORDER_STOP:
        t->stopping = true;
        t->stop_at_ms = now.ms + order->timeout_ms;
        break;
    }
}

static void
take_orders(struct service_thread *t, struct now now)
{
    struct order *order = queue_pop(t->orders);
    while (order != NULL) {
        carry_out(t, order, now);
        /* One caller at a time and room for many: it is always taken. */
        enum rc rc = queue_push(t->done, order, 0);
        if (rc != RC_OK) {
            log_event(LOG_ERROR, "order_reply_lost", "rc=%s", rc_name(rc));
        }
        order = queue_pop(t->orders);
    }
}

static bool
take_replies(struct service_thread *t, struct now now)
{
    for (int k = 0; k < REPLIES_PER_TURN; k++) {
        struct write *write = queue_pop(t->replies);
        if (write == NULL) {
            return k > 0;
        }
        t->ops->written(t->self, write, now);
    }
    return true;
}

static void
take_requests(struct service_thread *t, struct now now)
{
    for (int k = 0; k < ACCEPTS_PER_TURN && t->ops->has_room(t->self); k++) {
        struct work *work = queue_pop(t->inbox);
        if (work == NULL) {
            break;
        }
        t->ops->accept(t->self, work, now);
    }
}

static void
wait_for_something(struct service_thread *t, int64_t wait_ms)
{
    bool open = !t->stopping && t->ops->has_room(t->self);
    struct pollfd fds[] = {
        {.fd = queue_ready_fd(t->orders), .events = POLLIN},
        {.fd = queue_ready_fd(t->replies), .events = POLLIN},
        {.fd = open ? queue_ready_fd(t->inbox) : -1, .events = POLLIN},
        {.fd = t->ops->fd(t->self), .events = POLLIN},
    };
    if (wait_ms < 0 || wait_ms > WAIT_MAX_MS) {
        wait_ms = WAIT_MAX_MS;
    }
    (void)poll(fds, ARRAY_COUNT(fds), (int)wait_ms);
}

/* The writer may still hold writes that point to us: take them back before
 * the service is freed. */
static bool
settle(struct service_thread *t)
{
    for (int k = 0; k < SETTLE_ROUNDS; k++) {
        if (writer_flush(t->writer, SETTLE_MS) != RC_OK) {
            return false;
        }
        struct now now = {clock_now_ms(), clock_now_unix_ms(),
                          clock_now_boot_us()};
        if (!take_replies(t, now)) {
            return true;
        }
    }
    return false;
}

static void *
run(void *arg)
{
    struct service_thread *t = arg;
    enum service service = t->ops->service;
    for (;;) {
        struct now now = {clock_now_ms(), clock_now_unix_ms(),
                          clock_now_boot_us()};
        take_orders(t, now);
        (void)take_replies(t, now);
        if (!t->stopping) {
            take_requests(t, now);
        }
        bool paused = atomic_load(&t->paused);
        int64_t wait_ms = t->ops->tick(t->self, now, paused || t->stopping);
        metrics_set(t->metrics, METRIC_INBOX_ROWS, service,
                    (int64_t)queue_count(t->inbox));
        metrics_set(t->metrics, METRIC_PAUSED, service, paused ? 1 : 0);
        if (t->stopping) {
            if (t->ops->idle(t->self) || now.ms >= t->stop_at_ms) {
                break;
            }
            int64_t left_ms = t->stop_at_ms - now.ms;
            wait_ms = wait_ms < left_ms ? wait_ms : left_ms;
        }
        wait_for_something(t, wait_ms);
    }
    t->settled = settle(t);
    return NULL;
}

/* ---- orders ---------------------------------------------------------------
 */

static void
give_order(struct service_thread *t, struct order *order)
{
    pthread_mutex_lock(&t->caller);
    enum rc rc = queue_push(t->orders, order, 0);
    if (rc == RC_OK) {
        struct pollfd fd = {.fd = queue_ready_fd(t->done), .events = POLLIN};
        while (queue_pop(t->done) == NULL) {
            (void)poll(&fd, 1, -1);
        }
    } else {
        log_event(LOG_ERROR, "order_lost", "rc=%s", rc_name(rc));
    }
    pthread_mutex_unlock(&t->caller);
}

void
service_pause(struct service_thread *t, bool paused)
{
    struct order order = {.kind = paused ? ORDER_PAUSE : ORDER_RESUME};
    give_order(t, &order);
}

void
service_drain(struct service_thread *t, bool draining)
{
    struct order order = {.kind = ORDER_DRAIN, .draining = draining};
    give_order(t, &order);
}

bool
service_is_paused(struct service_thread *t)
{
    return atomic_load(&t->paused);
}

void
service_configure(struct service_thread *t, const struct conf *conf)
{
    struct order order = {.kind = ORDER_CONFIGURE, .conf = conf};
    give_order(t, &order);
}

void
service_report(struct service_thread *t, struct text *out)
{
    struct order order = {.kind = ORDER_REPORT, .out = out};
    give_order(t, &order);
}

/* ---- new and free ---------------------------------------------------------
 */

/* GCC does not warn of a member that was left out (STYLE 23). */
static bool
is_complete(const struct service_ops *ops)
{
    return (unsigned)ops->service < SERVICE_COUNT && ops->new != NULL &&
           ops->free != NULL && ops->fd != NULL && ops->has_room != NULL &&
           ops->accept != NULL && ops->written != NULL && ops->tick != NULL &&
           ops->idle != NULL && ops->configure != NULL && ops->report != NULL;
}

static void
destroy(struct service_thread **t)
{
    if ((*t)->self != NULL) {
        (*t)->ops->free(&(*t)->self);
    }
    journal_free(&(*t)->journal);
    queue_free(&(*t)->replies, NULL);
    queue_free(&(*t)->orders, NULL);
    queue_free(&(*t)->done, NULL);
    pthread_mutex_destroy(&(*t)->caller);
    free(*t);
    *t = NULL;
}

static enum rc
make_parts(struct service_thread *t, const struct conf *conf)
{
    const struct journal_options options =
        journal_options_of(&conf->journal, JOURNAL_READER);
    enum rc rc = journal_new(&t->journal, &options);
    if (rc == RC_OK) {
        rc = queue_new(&t->replies, REPLIES_MAX, 0);
    }
    if (rc == RC_OK) {
        rc = queue_new(&t->orders, ORDERS_MAX, 0);
    }
    if (rc == RC_OK) {
        rc = queue_new(&t->done, ORDERS_MAX, 0);
    }
    return rc;
}

enum rc
service_start(struct service_thread **out, const struct service_ops *ops,
              const struct conf *conf, struct writer *writer,
              struct store_pg *store, struct metrics *metrics,
              struct queue *inbox)
{
    *out = NULL;
    if (!is_complete(ops)) {
        log_event(LOG_ERROR, "service_incomplete", "service=%d",
                  (int)ops->service);
        return RC_BUG;
    }
    struct service_thread *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        return RC_NOMEM;
    }
    t->ops = ops;
    t->writer = writer;
    t->metrics = metrics;
    t->inbox = inbox;
    atomic_init(&t->paused, false);
    pthread_mutex_init(&t->caller, NULL);
    enum rc rc = make_parts(t, conf);
    if (rc == RC_OK) {
        const struct service_context context = {
            .conf = conf,
            .writer = writer,
            .metrics = metrics,
            .journal = t->journal,
            .boot_us = clock_now_boot_us(),
            .replies = t->replies,
            .outcome_added = store_pg_wake,
            .store = store,
        };
        /* Here, where a failure can still be told; the thread gets it whole. */
        rc = ops->new (&t->self, &context);
    }
    if (rc == RC_OK && pthread_create(&t->thread, NULL, run, t) != 0) {
        rc = RC_NOMEM;
    }
    if (rc != RC_OK) {
        destroy(&t);
        return rc;
    }
    *out = t;
    return RC_OK;
}

void
service_stop(struct service_thread **t, int64_t timeout_ms)
{
    if (*t == NULL) {
        return;
    }
    struct order order = {.kind = ORDER_STOP, .timeout_ms = timeout_ms};
    give_order(*t, &order);
    pthread_join((*t)->thread, NULL);
    if (!(*t)->settled) {
        /* The disk has failed for seconds and the writer still holds our
         * writes: they must outlive us. The process is about to end. */
        log_event(LOG_WARN, "service_stopped_unwritten", "service=%s",
                  service_name((*t)->ops->service));
        if ((*t)->ops->halt != NULL) {
            (*t)->ops->halt((*t)->self);
        }
        *t = NULL;
        return;
    }
    destroy(t);
}
