/* Threads that answer from journal and database, see ask_pool.h. */
#include "fcgi/ask_pool.h"

#include <pthread.h>
#include <stdlib.h>

#include "fcgi/edge_write.h"
#include "shared/clock.h"

#define SEND_TIMEOUT_MS 10000 /* for a page to leave */

struct ask_thread {
    struct ask_pool *pool;
    pthread_t thread;
    bool started;
    unsigned conf_version; /* of the copy below */
    struct conf conf;
    struct ask ask;
};

struct ask_pool {
    struct mailbox *back;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    /* Under the mutex: */
    struct exchange_list waiting;
    bool stop;
    unsigned conf_version;
    struct conf conf;
    /* Constant: */
    size_t thread_count;
    struct ask_thread threads[];
};

static enum rc
ask_open(struct ask_thread *t)
{
    const struct journal_options options =
        journal_options_of(&t->conf.journal, JOURNAL_READER);
    enum rc rc = RC_OK;

    t->ask.conf = &t->conf;
    if (t->ask.journal == NULL) {
        rc = journal_new(&t->ask.journal, &options);
    }
    if (rc == RC_OK && t->ask.pg == NULL) {
        rc = pg_new(&t->ask.pg, t->conf.postgres.url,
                    t->conf.postgres.timeout_ms);
    }
    return rc;
}

static void
answer(struct ask_thread *t, struct exchange *ex)
{
    reply_reset(&ex->reply);
    if (ask_open(t) == RC_OK) {
        ex->route->ask(&ex->request, &t->ask, &ex->reply);
    }
    if (ex->reply.status == 0 || text_failed(&ex->reply.body)) {
        reply_unavailable(&ex->reply, "out_of_memory",
                          "The answer could not be made.", 1);
    }
    edge_write_render(&ex->reply, ex->request.request_id, ex->walk.id,
                      ex->head_only, &ex->wire);
    ex->outcome = EXCHANGE_GONE;
    if (!text_failed(&ex->wire) &&
        edge_write_wait(ex->fd, &ex->wire, &ex->sent,
                        clock_now_ms() + SEND_TIMEOUT_MS) == RC_OK) {
        ex->outcome = EXCHANGE_SENT;
    }
}

/* Wait for a request; NULL at the end. Takes over a new configuration. */
static struct exchange *
next_exchange(struct ask_thread *t)
{
    struct ask_pool *pool = t->pool;
    struct exchange *ex;

    pthread_mutex_lock(&pool->mutex);
    while (pool->waiting.count == 0 && !pool->stop) {
        pthread_cond_wait(&pool->wake, &pool->mutex);
    }
    ex = exchange_list_take(&pool->waiting);
    if (t->conf_version != pool->conf_version) {
        t->conf_version = pool->conf_version;
        t->conf = pool->conf;
    }
    pthread_mutex_unlock(&pool->mutex);
    return ex;
}

static void *
run(void *arg)
{
    struct ask_thread *t = arg;

    for (struct exchange *ex = next_exchange(t); ex != NULL;
         ex = next_exchange(t)) {
        answer(t, ex);
        mailbox_put(t->pool->back, ex);
    }
    journal_free(&t->ask.journal);
    pg_free(&t->ask.pg);
    return NULL;
}

enum rc
ask_pool_new(struct ask_pool **out, const struct conf *conf,
             struct mailbox *back)
{
    size_t threads = (size_t)conf->edge.ask_threads;
    struct ask_pool *pool =
        calloc(1, sizeof(*pool) + threads * sizeof(pool->threads[0]));

    *out = NULL;
    if (pool == NULL) {
        return RC_NOMEM;
    }
    pool->back = back;
    pool->conf = *conf;
    pool->conf_version = 1;
    pool->thread_count = threads;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    for (size_t k = 0; k < threads; k++) {
        struct ask_thread *t = &pool->threads[k];

        t->pool = pool;
        t->started = pthread_create(&t->thread, NULL, run, t) == 0;
        if (!t->started) {
            ask_pool_free(&pool);
            return RC_NOMEM;
        }
    }
    *out = pool;
    return RC_OK;
}

void
ask_pool_free(struct ask_pool **pool)
{
    struct ask_pool *p = *pool;

    if (p == NULL) {
        return;
    }
    pthread_mutex_lock(&p->mutex);
    p->stop = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mutex);
    for (size_t k = 0; k < p->thread_count; k++) {
        if (p->threads[k].started) {
            pthread_join(p->threads[k].thread, NULL);
        }
    }
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->mutex);
    free(p);
    *pool = NULL;
}

enum rc
ask_pool_put(struct ask_pool *pool, struct exchange *ex)
{
    enum rc rc = RC_FULL;

    pthread_mutex_lock(&pool->mutex);
    if (pool->waiting.count < pool->thread_count * ASK_POOL_WAITING_MAX) {
        exchange_list_add(&pool->waiting, ex);
        pthread_cond_signal(&pool->wake);
        rc = RC_OK;
    }
    pthread_mutex_unlock(&pool->mutex);
    return rc;
}

void
ask_pool_reload(struct ask_pool *pool, const struct conf *conf)
{
    pthread_mutex_lock(&pool->mutex);
    pool->conf = *conf;
    pool->conf_version++;
    pthread_mutex_unlock(&pool->mutex);
}
