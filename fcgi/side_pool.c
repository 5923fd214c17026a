/* Threads that read slow requests, see side_pool.h. */
#include "fcgi/side_pool.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "fcgi/edge_write.h"
#include "shared/clock.h"

#define SCRATCH_BYTES 65536U
/* Records may be small and padded: a body may come in up to twice its size. */
#define WIRE_SLACK_BYTES ((size_t)RECORDS_PARAMS_MAX * 2)

struct side_thread {
    struct side_pool *pool;
    pthread_t thread;
    bool started;
    struct mailbox *inbox;
    struct edge_reader *reader;
    atomic_uint load; /* in the inbox and being read */
    struct exchange *reading[SIDE_POOL_PER_THREAD];
    size_t count;
    char scratch[SCRATCH_BYTES];
};

struct side_pool {
    size_t max_body;
    struct mailbox *back;
    atomic_bool stop;
    size_t thread_count;
    struct side_thread threads[];
};

/* Its parameters may be there, and tell in which form to refuse it: read them
 * as those of a request without a body. */
static void
read_params(struct side_thread *t, struct exchange *ex)
{
    size_t bytes = ex->walk.params_end;
    uint8_t end[RECORDS_HEAD_BYTES];

    if (bytes == 0 || bytes > ex->wire.bytes || text_failed(&ex->wire)) {
        return;
    }
    ex->wire.bytes = bytes; /* what it sent of the body is not wanted */
    records_head(end, RECORDS_STDIN, ex->walk.id, 0, 0);
    text_append(&ex->wire, (const char *)end, sizeof(end));
    ex->has_params =
        !text_failed(&ex->wire) &&
        edge_read_memory(t->reader, ex->wire.data, ex->wire.bytes, 0,
                         t->pool->max_body, &ex->params, &ex->body) == RC_OK;
}

static void
refuse(struct side_thread *t, struct exchange *ex, int status, const char *code,
       const char *detail)
{
    ex->outcome = EXCHANGE_REFUSED;
    read_params(t, ex);
    reply_problem(&ex->reply, status, code, detail, NULL);
}

static void
refuse_large_body(struct side_thread *t, struct exchange *ex)
{
    refuse(t, ex, 413, "body_too_large", "The body is longer than allowed.");
}

static void
parse(struct side_thread *t, struct exchange *ex)
{
    size_t whole = ex->walk.offset;
    enum rc rc;

    ex->extra = ex->wire.bytes > whole;
    rc = edge_read_memory(t->reader, ex->wire.data, whole, ex->walk.body_bytes,
                          t->pool->max_body, &ex->params, &ex->body);
    if (rc == RC_OK) {
        ex->outcome = EXCHANGE_READ;
    } else {
        ex->outcome = EXCHANGE_REFUSED;
        reply_unavailable(&ex->reply, "edge_unavailable",
                          "The request could not be read; try again.", 1);
    }
}

/* Look at what has come. True when the exchange is finished here. */
static bool
look(struct side_thread *t, struct exchange *ex)
{
    ex->outcome = EXCHANGE_GONE;
    if (text_failed(&ex->wire)) {
        refuse_large_body(t, ex);
        return true;
    }
    switch (records_walk(&ex->walk, (const uint8_t *)ex->wire.data,
                         ex->wire.bytes)) {
    case RECORDS_PART:
        if (ex->walk.body_bytes > t->pool->max_body) {
            refuse_large_body(t, ex);
            return true;
        }
        return false;
    case RECORDS_WHOLE:
        parse(t, ex);
        return true;
    case RECORDS_LARGE:
        refuse(t, ex, 431, "headers_too_large",
               "The request's header fields are longer than allowed.");
        return true;
    case RECORDS_ROLE:
        edge_write_unknown_role(ex->fd, ex->walk.id);
        return true;
    case RECORDS_BAD:
        return true;
    }
    return true;
}

/* Read what waits. True when the exchange is finished here. */
static bool
advance(struct side_thread *t, struct exchange *ex)
{
    ssize_t n = recv(ex->fd, t->scratch, sizeof(t->scratch), MSG_DONTWAIT);

    if (n < 0) {
        ex->outcome = EXCHANGE_GONE;
        return errno != EAGAIN && errno != EINTR;
    }
    if (n == 0) {
        ex->outcome = EXCHANGE_GONE;
        return true;
    }
    text_append(&ex->wire, t->scratch, (size_t)n);
    return look(t, ex);
}

static void
give_back(struct side_thread *t, size_t k)
{
    struct exchange *ex = t->reading[k];

    t->reading[k] = t->reading[--t->count];
    atomic_fetch_sub(&t->load, 1);
    mailbox_put(t->pool->back, ex);
}

static void
take_new(struct side_thread *t)
{
    struct exchange_list list = mailbox_take(t->inbox);

    for (struct exchange *ex = exchange_list_take(&list); ex != NULL;
         ex = exchange_list_take(&list)) {
        ex->wire.max_bytes = t->pool->max_body * 2 + WIRE_SLACK_BYTES;
        text_reset(&ex->wire);
        t->reading[t->count++] = ex; /* `load` keeps count within bounds */
    }
}

/* Build the poll set; returns the time to wait. */
static int
prepare(struct side_thread *t, struct pollfd *set)
{
    int64_t now_ms = clock_now_ms();
    int64_t wait_ms = 60000;

    set[0] = (struct pollfd){.fd = mailbox_fd(t->inbox), .events = POLLIN};
    for (size_t k = 0; k < t->count; k++) {
        int64_t left_ms = t->reading[k]->deadline_ms - now_ms;

        set[k + 1] = (struct pollfd){.fd = t->reading[k]->fd, .events = POLLIN};
        wait_ms = left_ms < wait_ms ? left_ms : wait_ms;
    }
    return wait_ms < 0 ? 0 : (int)wait_ms;
}

static void
turn(struct side_thread *t)
{
    struct pollfd set[SIDE_POOL_PER_THREAD + 1];
    size_t watched = t->count;
    int wait_ms = prepare(t, set);
    int64_t now_ms;

    if (poll(set, watched + 1, wait_ms) < 0 && errno != EINTR) {
        return; /* out of memory for a moment */
    }
    now_ms = clock_now_ms();
    /* From the end, for give_back() fills the gap with the last one. */
    for (size_t k = watched; k-- > 0;) {
        struct exchange *ex = t->reading[k];

        if (set[k + 1].revents != 0 && advance(t, ex)) {
            give_back(t, k);
        } else if (now_ms >= ex->deadline_ms) {
            refuse(t, ex, 408, "request_timeout",
                   "The request did not arrive in time.");
            give_back(t, k);
        }
    }
    if ((set[0].revents & POLLIN) != 0) {
        take_new(t);
    }
}

static void *
run(void *arg)
{
    struct side_thread *t = arg;

    while (!atomic_load(&t->pool->stop)) {
        turn(t);
    }
    take_new(t);
    while (t->count > 0) {
        t->reading[t->count - 1]->outcome = EXCHANGE_GONE;
        give_back(t, t->count - 1);
    }
    return NULL;
}

enum rc
side_pool_new(struct side_pool **out, size_t threads, size_t max_body,
              struct mailbox *back)
{
    struct side_pool *pool =
        calloc(1, sizeof(*pool) + threads * sizeof(pool->threads[0]));
    enum rc rc = RC_OK;

    *out = NULL;
    if (pool == NULL) {
        return RC_NOMEM;
    }
    pool->max_body = max_body;
    pool->back = back;
    pool->thread_count = threads;
    for (size_t k = 0; k < threads && rc == RC_OK; k++) {
        struct side_thread *t = &pool->threads[k];

        t->pool = pool;
        rc = mailbox_new(&t->inbox);
        if (rc == RC_OK) {
            rc = edge_read_new(&t->reader);
        }
        if (rc == RC_OK) {
            t->started = pthread_create(&t->thread, NULL, run, t) == 0;
            rc = t->started ? RC_OK : RC_NOMEM;
        }
    }
    if (rc != RC_OK) {
        side_pool_free(&pool);
    }
    *out = pool;
    return rc;
}

void
side_pool_free(struct side_pool **pool)
{
    struct side_pool *p = *pool;

    if (p == NULL) {
        return;
    }
    atomic_store(&p->stop, true);
    for (size_t k = 0; k < p->thread_count; k++) {
        struct side_thread *t = &p->threads[k];

        if (t->started) {
            mailbox_wake(t->inbox);
            pthread_join(t->thread, NULL);
        }
        mailbox_free(&t->inbox);
        edge_read_free(&t->reader);
    }
    free(p);
    *pool = NULL;
}

enum rc
side_pool_put(struct side_pool *pool, struct exchange *ex)
{
    struct side_thread *best = NULL;
    unsigned best_load = SIDE_POOL_PER_THREAD;

    for (size_t k = 0; k < pool->thread_count; k++) {
        unsigned load = atomic_load(&pool->threads[k].load);

        if (load < best_load) {
            best = &pool->threads[k];
            best_load = load;
        }
    }
    if (best == NULL) {
        return RC_FULL;
    }
    atomic_fetch_add(&best->load, 1);
    mailbox_put(best->inbox, ex);
    return RC_OK;
}
