/* The edge's loop: accept all that wait, look whether their requests are
 * whole, read, commit the batch, answer, push.
 *
 * In the common case a connection costs four calls beside its share of the
 * batch's: accept4, recv(MSG_PEEK), libfcgi's read, send, close. It enters the
 * epoll set only when its request is not there yet, or when it is kept.
 * Connections are in the set edge-triggered: one event for each arrival, none
 * while a pool has them. */
#include "fcgi/edge_loop.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fcgi/ask_pool.h"
#include "fcgi/conn.h"
#include "fcgi/edge_batch.h"
#include "fcgi/edge_listen.h"
#include "fcgi/edge_take.h"
#include "fcgi/edge_write.h"
#include "fcgi/pace.h"
#include "fcgi/side_pool.h"
#include "shared/clock.h"
#include "shared/log.h"

#define EVENTS_MAX 256
/* Over what a socket's buffer holds. */
#define PEEK_BYTES ((size_t)256 * 1024)
/* Of a request in part: it goes to the side pool. */
#define LARGE_BYTES ((size_t)128 * 1024)
#define PEEKS_MAX 16U     /* then its bytes trickle: to the side pool */
#define TICK_MS 50        /* how often the lists are looked through */
#define GRACE_MS 100      /* a request in part stays in the loop */
#define SIDE_WAIT_MS 1000 /* and waits so long for a full side pool */
#define LINGER_MS 2000
#define PAUSE_MS 50         /* accepting, after the system had no more for us */
#define DRAIN_FRESH_MS 1000 /* a web server that has connected will send */
#define DRAIN_MS 4000
#define LOG_EVERY_MS 1000
#define HELP_MIN_MS 1 /* how long another process' connections may wait */
#define HELP_MAX_MS 32
#define LOOK_MS 200 /* those who do not lead look so often */

struct watch {
    void (*on_ready)(void *arg);
    void *arg;
};

struct edge_loop {
    struct conf conf;
    int epoll_fd;
    int listen_fd;
    bool listen_owned;
    bool listen_is_tcp;
    bool listening; /* listen_fd is in the epoll set */
    bool accept_ready;
    bool leads;       /* takes what comes; else what is left at help_at_ms */
    bool stands_back; /* till then: does not listen */
    int64_t help_at_ms;
    int64_t help_wait_ms; /* HELP_MIN_MS..HELP_MAX_MS */
    int64_t pause_until_ms;
    int64_t pause_logged_ms;
    int64_t now_ms; /* read once a turn */
    int64_t now_unix_ms;
    int64_t next_tick_ms;
    int64_t drain_since_ms; /* 0: not draining */
    struct watch watch;
    struct conn_table *conns;
    struct edge_reader *reader;
    struct edge_taker taker;
    size_t max_body_bytes;    /* of any route: what is read */
    struct edge_batch *batch; /* NULL: the app commits nothing */
    struct push *push;
    struct pace pace;           /* of commit routes */
    struct exchange_list turns; /* wait for theirs, the next one first */
    size_t turns_max;           /* the connections left are for others */
    int64_t pace_logged_ms;
    int64_t pace_refused_count; /* since that line */
    struct mailbox *back;
    struct side_pool *side;
    struct ask_pool *ask;
    struct exchange_list stock; /* exchanges at rest */
    struct epoll_event events[EVENTS_MAX];
    uint8_t *peeked;     /* PEEK_BYTES */
    struct conn **fresh; /* edge.batch: accepted in this turn */
};

/* What an event's data.ptr may point to beside a connection. */
static char tag_listen;
static char tag_watch;
static char tag_back;

/* ---- connections ----------------------------------------------------------
 */

/* Have an event for what is there already and for all that comes. */
static void
conn_watch(struct edge_loop *loop, struct conn *conn)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET,
                                .data.ptr = conn};

    if (conn->in_epoll) {
        return;
    }
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, conn->fd, &event) == 0) {
        conn->in_epoll = true;
    } else {
        conn_close(loop->conns, conn);
    }
}

static void
conn_unwatch(struct edge_loop *loop, struct conn *conn)
{
    if (conn->in_epoll) {
        (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, conn->fd, NULL);
        conn->in_epoll = false;
    }
}

/* Drop what waits on a refused connection. Closing with unread bytes would
 * reset the answer away. */
static void
conn_discard(struct edge_loop *loop, struct conn *conn)
{
    for (int k = 0; k < 16; k++) {
        ssize_t n = recv(conn->fd, loop->peeked, PEEK_BYTES, MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (n <= 0) {
            conn_close(loop->conns, conn);
            return;
        }
    }
}

static void
conn_linger(struct edge_loop *loop, struct conn *conn)
{
    (void)shutdown(conn->fd, SHUT_WR);
    conn_move(loop->conns, conn, CONN_LINGER, loop->now_ms);
    conn_watch(loop, conn);
}

/* ---- exchanges ------------------------------------------------------------
 */

static struct exchange *
exchange_get(struct edge_loop *loop, struct conn *conn)
{
    struct exchange *ex = exchange_list_take(&loop->stock);

    if (ex == NULL && exchange_new(&ex) != RC_OK) {
        return NULL;
    }
    ex->conn = conn;
    ex->fd = conn->fd;
    ex->walk = conn->walk;
    ex->keep = conn->walk.keep;
    return ex;
}

static void
exchange_put(struct edge_loop *loop, struct exchange *ex)
{
    exchange_reset(ex);
    /* To the front: the one used last is in the cache. */
    ex->next = loop->stock.first;
    loop->stock.first = ex;
    if (loop->stock.last == NULL) {
        loop->stock.last = ex;
    }
    loop->stock.count++;
}

/* The answer has left: keep the connection, or close it. */
static void
conn_finish(struct edge_loop *loop, struct exchange *ex)
{
    struct conn *conn = ex->conn;

    if (ex->keep && !ex->extra && loop->drain_since_ms == 0) {
        conn->walk = (struct records){0};
        conn->peeks = 0;
        conn_move(loop->conns, conn, CONN_KEPT, loop->now_ms);
        conn_watch(loop, conn);
        return;
    }
    if (ex->extra) {
        conn_linger(loop, conn);
        return;
    }
    conn_close(loop->conns, conn);
}

static void
render(struct exchange *ex)
{
    edge_write_render(&ex->reply, ex->request.request_id, ex->walk.id,
                      ex->head_only, &ex->wire);
}

/* Send ex's reply and let go of its connection. The peer that takes less than
 * a small answer has not read the ones before: it is closed. */
static void
send_reply(struct edge_loop *loop, struct exchange *ex)
{
    ex->sent = 0;
    edge_take_leave(&loop->taker, ex);
    render(ex);
    if (!text_failed(&ex->wire) &&
        edge_write_now(ex->fd, &ex->wire, &ex->sent) == RC_OK) {
        conn_finish(loop, ex);
    } else {
        conn_close(loop->conns, ex->conn);
    }
}

static void
reply_and_put(struct edge_loop *loop, struct exchange *ex)
{
    send_reply(loop, ex);
    exchange_put(loop, ex);
}

/* Answer a request that was not read, whose number is known. */
static void
refuse(struct edge_loop *loop, struct exchange *ex)
{
    if (ex->walk.id == 0) {
        conn_close(loop->conns, ex->conn);
        exchange_put(loop, ex);
        return;
    }
    edge_take_id(&loop->taker, ex, loop->now_unix_ms);
    ex->extra = true;
    reply_and_put(loop, ex);
}

static void
ask(struct edge_loop *loop, struct exchange *ex)
{
    conn_unwatch(loop, ex->conn);
    if (ask_pool_put(loop->ask, ex) != RC_OK) {
        reply_unavailable(&ex->reply, "edge_busy",
                          "Too many requests wait for an answer.", 1);
        reply_and_put(loop, ex);
    }
}

/* Those that only the ask pool can answer leave last: it owns them then. */
static void
commit_batch(struct edge_loop *loop)
{
    size_t count = loop->batch != NULL ? edge_batch_count(loop->batch) : 0;

    if (count == 0) {
        return;
    }
    edge_batch_commit(loop->batch, loop->now_ms, loop->now_unix_ms);
    for (size_t k = 0; k < count; k++) {
        if (!edge_batch_asks(loop->batch, k)) {
            send_reply(loop, edge_batch_get(loop->batch, k));
        }
    }
    edge_batch_push(loop->batch);
    for (size_t k = 0; k < count; k++) {
        if (edge_batch_asks(loop->batch, k)) {
            ask(loop, edge_batch_get(loop->batch, k));
        } else {
            exchange_put(loop, edge_batch_get(loop->batch, k));
        }
    }
    edge_batch_clear(loop->batch);
}

/* Into the batch. */
static void
commit(struct edge_loop *loop, struct exchange *ex)
{
    if (edge_batch_is_full(loop->batch)) {
        commit_batch(loop);
    }
    if (edge_batch_add(loop->batch, ex) != RC_OK) {
        conn_close(loop->conns, ex->conn); /* cannot be */
        exchange_put(loop, ex);
    }
}

/* edge.max_per_s is exceeded by more than can wait. */
static void
refuse_turn(struct edge_loop *loop, struct exchange *ex, int64_t wait_ms)
{
    int64_t over_ms = wait_ms - loop->conf.edge.max_wait_ms;

    loop->pace_refused_count++;
    if (loop->now_ms - loop->pace_logged_ms >= LOG_EVERY_MS) {
        log_event(LOG_WARN, "over_max_per_s", "waiting=%zu refused=%lld",
                  loop->turns.count, (long long)loop->pace_refused_count);
        loop->pace_logged_ms = loop->now_ms;
        loop->pace_refused_count = 0;
    }
    reply_unavailable(&ex->reply, "too_many_requests",
                      "More requests come than are taken in a second.",
                      over_ms > 0 ? (int)((over_ms + 999) / 1000) : 1);
    reply_and_put(loop, ex);
}

/* Let it wait for its turn, behind all who wait already, if that is needed.
 * A loop that drains takes what it has. */
static void
take_turn(struct edge_loop *loop, struct exchange *ex)
{
    int64_t wait_ms = 0;
    enum rc rc = RC_OK;

    if (loop->drain_since_ms == 0 && ex->route->accept != NULL) {
        rc = loop->turns.count < loop->turns_max
                 ? pace_book(&loop->pace, loop->now_ms, &wait_ms)
                 : RC_FULL;
    }
    if (rc != RC_OK) {
        refuse_turn(loop, ex, wait_ms);
    } else if (wait_ms > 0 ||
               (loop->turns.count > 0 && ex->route->accept != NULL)) {
        conn_unwatch(loop,
                     ex->conn); /* as for a pool: an event would be lost */
        ex->deadline_ms = loop->now_ms + wait_ms;
        exchange_list_add(&loop->turns, ex);
    } else {
        commit(loop, ex);
    }
}

/* Whose turn has come is committed with this turn's batch. */
static void
commit_turns(struct edge_loop *loop)
{
    while (loop->turns.first != NULL &&
           (loop->turns.first->deadline_ms <= loop->now_ms ||
            loop->drain_since_ms != 0)) {
        commit(loop, exchange_list_take(&loop->turns));
    }
}

/* A request has been read: check, and pass it on. */
static void
dispatch(struct edge_loop *loop, struct exchange *ex)
{
    switch (edge_take(&loop->taker, ex, loop->now_unix_ms)) {
    case EDGE_REPLY:
        reply_and_put(loop, ex);
        break;
    case EDGE_ASK:
        ask(loop, ex);
        break;
    case EDGE_COMMIT:
        take_turn(loop, ex);
        break;
    }
}

/* ---- looking and reading ---------------------------------------------------
 */

static void
read_whole(struct edge_loop *loop, struct conn *conn, bool extra)
{
    struct exchange *ex = exchange_get(loop, conn);
    enum rc rc;

    if (ex == NULL) {
        conn_close(loop->conns, conn);
        return;
    }
    conn_move(loop->conns, conn, CONN_BUSY, loop->now_ms);
    ex->extra = extra;
    rc = edge_read_socket(loop->reader, conn->fd, conn->walk.body_bytes,
                          loop->max_body_bytes, &ex->params, &ex->body);
    if (rc == RC_OK) {
        dispatch(loop, ex);
        return;
    }
    if (rc == RC_IO) {
        conn->fd = -1; /* closed by libfcgi */
    }
    conn_close(loop->conns, conn);
    exchange_put(loop, ex);
}

/* Hand a request that is there in part to the side pool. False: it is full. */
static bool
to_side(struct edge_loop *loop, struct conn *conn)
{
    struct exchange *ex = exchange_get(loop, conn);
    uint16_t id = conn->walk.id;

    if (ex == NULL) {
        return false;
    }
    ex->walk = (struct records){.id = id}; /* it reads from the beginning */
    ex->deadline_ms = loop->now_ms + loop->conf.edge.body_timeout_ms;
    if (side_pool_put(loop->side, ex) != RC_OK) {
        exchange_put(loop, ex);
        return false;
    }
    conn_unwatch(loop, conn);
    conn_move(loop->conns, conn, CONN_BUSY, loop->now_ms);
    return true;
}

/* The walk has found something that ends the connection. */
static void
refuse_peeked(struct edge_loop *loop, struct conn *conn, int status,
              const char *code, const char *detail)
{
    struct exchange *ex = exchange_get(loop, conn);

    if (ex == NULL) {
        conn_close(loop->conns, conn);
        return;
    }
    conn_move(loop->conns, conn, CONN_BUSY, loop->now_ms);
    if (status == 503) {
        reply_unavailable(&ex->reply, code, detail, 1);
    } else {
        reply_problem(&ex->reply, status, code, detail, NULL);
    }
    refuse(loop, ex);
}

static void
look_part(struct edge_loop *loop, struct conn *conn, size_t bytes)
{
    bool first = conn->state != CONN_PART;

    if (conn->peeks < UINT16_MAX) {
        conn->peeks++;
    }
    /* A large one will not fit into the socket's buffer: waiting for the rest
     * would be in vain. */
    if ((bytes >= LARGE_BYTES || conn->peeks > PEEKS_MAX) &&
        to_side(loop, conn)) {
        return;
    }
    if (first) {
        conn_move(loop->conns, conn, CONN_PART, loop->now_ms);
    }
    conn_watch(loop, conn);
}

/* See what has arrived on a connection and act on it. */
static void
conn_look(struct edge_loop *loop, struct conn *conn)
{
    ssize_t n =
        recv(conn->fd, loop->peeked, PEEK_BYTES, MSG_PEEK | MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        conn_watch(loop, conn);
        return;
    }
    if (n <= 0) {
        conn_close(loop->conns, conn);
        return;
    }
    switch (records_walk(&conn->walk, loop->peeked, (size_t)n)) {
    case RECORDS_WHOLE:
        read_whole(loop, conn,
                   (size_t)n > conn->walk.offset || conn->walk.padded_end);
        break;
    case RECORDS_PART:
        look_part(loop, conn, (size_t)n);
        break;
    case RECORDS_ROLE:
        edge_write_unknown_role(conn->fd, conn->walk.id);
        conn_linger(loop, conn);
        break;
    case RECORDS_LARGE:
        refuse_peeked(loop, conn, 431, "headers_too_large",
                      "The request's header fields are longer than allowed.");
        break;
    case RECORDS_BAD:
        conn_close(loop->conns, conn);
        break;
    }
}

static void
conn_event(struct edge_loop *loop, struct conn *conn)
{
    switch (conn->state) {
    case CONN_FRESH:
    case CONN_KEPT:
        conn_look(loop, conn);
        break;
    case CONN_PART:
        /* One whose bytes trickle while the side pool is full is looked at
         * by the tick only: each look walks all that is there. */
        if (conn->peeks <= PEEKS_MAX) {
            conn_look(loop, conn);
        }
        break;
    case CONN_LINGER:
        conn_discard(loop, conn);
        break;
    case CONN_FREE: /* closed earlier in this turn */
    case CONN_BUSY:
    case CONN_STATES:
        break;
    }
}

/* ---- accepting --------------------------------------------------------------
 */

static void
listen_watch(struct edge_loop *loop, bool on)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE,
                                .data.ptr = &tag_listen};

    if (on == loop->listening) {
        return;
    }
    if (epoll_ctl(loop->epoll_fd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL,
                  loop->listen_fd, on ? &event : NULL) == 0) {
        loop->listening = on;
    }
    loop->accept_ready = false;
}

/* The system (descriptors, memory) or our table has no room: give up the
 * oldest idle connection, and let others wait in the backlog for a moment. */
static void
accept_pause(struct edge_loop *loop, const char *reason)
{
    struct conn *idle = conn_oldest(loop->conns, CONN_KEPT);

    if (idle != NULL) {
        conn_close(loop->conns, idle);
    }
    listen_watch(loop, false);
    loop->pause_until_ms = loop->now_ms + (idle != NULL ? 0 : PAUSE_MS);
    if (loop->now_ms - loop->pause_logged_ms >= LOG_EVERY_MS) {
        loop->pause_logged_ms = loop->now_ms;
        log_event(LOG_WARN, "accept_paused", "reason=\"%s\" connections=%zu",
                  reason, conn_open_count(loop->conns));
    }
}

/* Take one connection. NULL: none waits, or accepting pauses. */
static struct conn *
accept_one(struct edge_loop *loop)
{
    struct conn *conn;
    int fd;

    if (conn_oldest(loop->conns, CONN_FREE) == NULL) {
        accept_pause(loop, "edge.max_connections");
        return NULL;
    }
    do {
        fd = accept4(loop->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    } while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (fd < 0) {
        if (errno != EAGAIN) {
            accept_pause(loop, strerror(errno));
        }
        return NULL;
    }
    if (loop->listen_is_tcp) {
        const int on = 1;

        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    }
    conn = conn_add(loop->conns, fd, loop->now_ms);
    if (conn == NULL) {
        close(fd);
    }
    return conn;
}

/* Take connections until none waits or a batch of them is there. Looking at
 * them comes second: by then their requests have mostly arrived. Returns how
 * many. */
static size_t
accept_waiting(struct edge_loop *loop)
{
    size_t max = (size_t)loop->conf.edge.batch;
    size_t count = 0;

    while (count < max) {
        struct conn *conn = accept_one(loop);

        if (conn == NULL) {
            loop->accept_ready = false;
            break;
        }
        loop->fresh[count++] = conn;
    }
    for (size_t k = 0; k < count; k++) {
        conn_look(loop, loop->fresh[k]);
    }
    return count;
}

/* Of the processes that share the socket one leads: it takes what comes. The
 * kernel would spread connections over all that sleep, in batches of a few,
 * and each commit makes the other processes' page caches invalid (HACKING has
 * the figures). The others stand back for some ms and take what waits then: the
 * leader may be frozen, in a slow commit, or not fast enough. */
static void
stand_back(struct edge_loop *loop)
{
    listen_watch(loop, false);
    loop->stands_back = true;
    loop->help_at_ms = loop->now_ms + loop->help_wait_ms;
}

/* Whose turn to help it is looks whether it could lead, too. It also comes
 * round when nothing has happened: the kernel may have told a frozen leader,
 * and nobody else, of the one connection that waits. */
static void
help(struct edge_loop *loop)
{
    /* Fewer do not pay for the pages that the leader must read again. */
    size_t worth = ((size_t)loop->conf.edge.batch + 1) / 2;
    size_t count;

    loop->leads = edge_listen_lead(loop->listen_fd);
    count = accept_waiting(loop);
    if (loop->stands_back) {
        loop->stands_back = false;
        if (count < worth && loop->help_wait_ms < HELP_MAX_MS) {
            loop->help_wait_ms *= 2;
        } else if (count >= worth && loop->help_wait_ms > HELP_MIN_MS) {
            loop->help_wait_ms /= 2;
        }
        if (loop->now_ms >= loop->pause_until_ms) {
            listen_watch(loop, true);
        }
    }
    loop->help_at_ms = loop->now_ms + LOOK_MS;
}

/* What waits to be accepted is for us, for another process, or for us because
 * that one has not taken it. A loop that commits nothing has no batches: there
 * each is its own leader. */
static void
accept_turn(struct edge_loop *loop)
{
    if (!loop->leads && loop->now_ms >= loop->help_at_ms &&
        loop->drain_since_ms == 0) {
        help(loop);
        return;
    }
    if (loop->accept_ready && !loop->leads) {
        loop->leads = edge_listen_lead(loop->listen_fd);
        if (!loop->leads) {
            stand_back(loop);
        }
    }
    if (loop->accept_ready) {
        (void)accept_waiting(loop);
    }
}

/* ---- what the pools give back
 * ------------------------------------------------ */

static void
take_back(struct edge_loop *loop, struct exchange *ex)
{
    struct conn *conn = ex->conn;

    switch (ex->outcome) {
    case EXCHANGE_READ:
        ex->keep = ex->walk.keep;
        dispatch(loop, ex);
        return;
    case EXCHANGE_REFUSED:
        refuse(loop, ex);
        return;
    case EXCHANGE_SENT:
        conn_finish(loop, ex);
        break;
    case EXCHANGE_GONE:
        conn_close(loop->conns, conn);
        break;
    }
    exchange_put(loop, ex);
}

static void
take_all_back(struct edge_loop *loop)
{
    struct exchange_list list = mailbox_take(loop->back);

    for (struct exchange *ex = exchange_list_take(&list); ex != NULL;
         ex = exchange_list_take(&list)) {
        take_back(loop, ex);
    }
}

/* ---- time
 * --------------------------------------------------------------------- */

static struct conn *
oldest_since(const struct edge_loop *loop, enum conn_state state,
             int64_t age_ms)
{
    struct conn *conn = conn_oldest(loop->conns, state);

    return conn != NULL && loop->now_ms - conn->since_ms >= age_ms ? conn
                                                                   : NULL;
}

/* Requests that have been there in part for a while go to the side pool; when
 * it stays full they are refused. */
static void
tick_parts(struct edge_loop *loop)
{
    struct conn *next;

    for (struct conn *conn = conn_oldest(loop->conns, CONN_PART);
         conn != NULL && loop->now_ms - conn->since_ms >= GRACE_MS;
         conn = next) {
        next = conn->next;
        if (conn->peeks > PEEKS_MAX) {
            conn->peeks = 0; /* what events would have done */
            conn_look(loop, conn);
            if (conn->state != CONN_PART) {
                continue;
            }
        }
        if (to_side(loop, conn)) {
            continue;
        }
        if (loop->now_ms - conn->since_ms >= SIDE_WAIT_MS) {
            refuse_peeked(loop, conn, 503, "edge_busy",
                          "Too many requests arrive slowly.");
        }
    }
}

static void
tick_lingering(struct edge_loop *loop)
{
    struct conn *next;

    for (struct conn *conn = conn_oldest(loop->conns, CONN_LINGER);
         conn != NULL; conn = next) {
        next = conn->next;
        if (loop->now_ms - conn->since_ms >= LINGER_MS) {
            conn_close(loop->conns, conn);
        } else {
            conn_discard(loop, conn); /* what was there before its watch */
        }
    }
}

static void
tick(struct edge_loop *loop)
{
    int64_t fresh_ms = loop->drain_since_ms != 0
                           ? DRAIN_FRESH_MS
                           : loop->conf.edge.body_timeout_ms;
    struct conn *conn;

    tick_parts(loop);
    for (conn = oldest_since(loop, CONN_FRESH, fresh_ms); conn != NULL;
         conn = oldest_since(loop, CONN_FRESH, fresh_ms)) {
        conn_close(loop->conns, conn);
    }
    tick_lingering(loop);
    if (loop->drain_since_ms == 0 && !loop->listening && !loop->stands_back &&
        loop->now_ms >= loop->pause_until_ms) {
        listen_watch(loop, true);
    }
    loop->next_tick_ms = loop->now_ms + TICK_MS;
}

/* The lists are looked through only while there is something in them. */
static int
wait_ms(const struct edge_loop *loop)
{
    bool ticks = conn_oldest(loop->conns, CONN_FRESH) != NULL ||
                 conn_oldest(loop->conns, CONN_PART) != NULL ||
                 conn_oldest(loop->conns, CONN_LINGER) != NULL ||
                 (!loop->listening && !loop->stands_back);
    int64_t until_ms = loop->now_ms + LOOK_MS;

    if (loop->accept_ready) {
        return 0;
    }
    if (loop->leads && !ticks) {
        if (loop->turns.first == NULL) {
            return -1;
        }
        until_ms = INT64_MAX;
    }
    if (loop->turns.first != NULL &&
        loop->turns.first->deadline_ms < until_ms) {
        until_ms = loop->turns.first->deadline_ms;
    }
    if (ticks && loop->next_tick_ms < until_ms) {
        until_ms = loop->next_tick_ms;
    }
    if (!loop->leads && loop->help_at_ms < until_ms) {
        until_ms = loop->help_at_ms;
    }
    return until_ms <= loop->now_ms ? 0 : (int)(until_ms - loop->now_ms);
}

static void
read_clocks(struct edge_loop *loop)
{
    loop->now_ms = clock_now_ms();
    loop->now_unix_ms = clock_now_unix_ms();
}

static void
turn(struct edge_loop *loop)
{
    int n = epoll_wait(loop->epoll_fd, loop->events, EVENTS_MAX, wait_ms(loop));
    bool back = false;

    read_clocks(loop);
    for (int k = 0; k < n; k++) {
        void *what = loop->events[k].data.ptr;

        if (what == &tag_listen) {
            loop->accept_ready = true;
        } else if (what == &tag_back) {
            back = true;
        } else if (what == &tag_watch) {
            loop->watch.on_ready(loop->watch.arg);
        } else {
            conn_event(loop, what);
        }
    }
    if (back) {
        take_all_back(loop);
    }
    accept_turn(loop);
    if (loop->now_ms >= loop->next_tick_ms) {
        tick(loop);
    }
    commit_turns(loop);
    commit_batch(loop); /* last: the tick may have read a request as well */
}

/* ---- draining
 * ------------------------------------------------------------------- */

void
edge_loop_drain(struct edge_loop *loop)
{
    struct conn *conn;
    struct conn *next;

    if (loop->drain_since_ms != 0) {
        return;
    }
    log_event(LOG_INFO, "draining", "connections=%zu",
              conn_open_count(loop->conns));
    loop->drain_since_ms = loop->now_ms;
    listen_watch(loop, false);
    loop->stands_back = false;
    edge_listen_resign(loop->listen_fd);
    if (loop->listen_owned) {
        /* Nobody else will answer those that wait. */
        for (conn = accept_one(loop); conn != NULL; conn = accept_one(loop)) {
            conn_look(loop, conn);
        }
    }
    for (conn = conn_oldest(loop->conns, CONN_KEPT); conn != NULL;
         conn = next) {
        next = conn->next;
        conn_look(loop, conn); /* what has come by now is in hand */
        if (conn->state == CONN_KEPT) {
            conn_close(loop->conns, conn);
        }
    }
}

enum rc
edge_loop_run(struct edge_loop *loop)
{
    read_clocks(loop);
    loop->next_tick_ms = loop->now_ms;
    listen_watch(loop, true);
    while (loop->drain_since_ms == 0 || conn_open_count(loop->conns) > 0) {
        if (loop->drain_since_ms != 0 &&
            loop->now_ms - loop->drain_since_ms >= DRAIN_MS) {
            log_event(LOG_WARN, "drain_incomplete", "connections=%zu",
                      conn_open_count(loop->conns));
            return RC_TIMEOUT;
        }
        turn(loop);
    }
    return RC_OK;
}

void
edge_loop_reload(struct edge_loop *loop, const struct conf *conf,
                 const struct auth *auth)
{
    /* The bounds of what is allocated stay as they were at the start. */
    loop->conf.callback = conf->callback;
    loop->conf.call = conf->call;
    loop->conf.sms = conf->sms;
    loop->taker.auth = auth;
    ask_pool_reload(loop->ask, conf);
}

/* ---- made and freed
 * -------------------------------------------------------------- */

static bool
is_tcp(int fd)
{
    struct sockaddr_storage address;
    socklen_t bytes = sizeof(address);

    return getsockname(fd, (struct sockaddr *)&address, &bytes) == 0 &&
           (address.ss_family == AF_INET || address.ss_family == AF_INET6);
}

static enum rc
watch_fd(struct edge_loop *loop, int fd, void *tag)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = tag};

    return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? RC_OK
                                                                     : RC_IO;
}

static enum rc
make_parts(struct edge_loop *loop, const struct edge_loop_options *o)
{
    const struct conf_edge *edge = &loop->conf.edge;
    enum rc rc = conn_table_new(&loop->conns, (size_t)edge->max_connections);

    if (rc == RC_OK && o->journal != NULL) {
        rc = edge_batch_new(&loop->batch, (size_t)edge->batch, o->journal,
                            o->push, loop->conf.journal.path);
    }
    if (rc == RC_OK) {
        rc = edge_read_new(&loop->reader);
    }
    if (rc == RC_OK) {
        rc = mailbox_new(&loop->back);
    }
    if (rc == RC_OK) {
        rc = watch_fd(loop, mailbox_fd(loop->back), &tag_back);
    }
    if (rc == RC_OK) {
        rc = side_pool_new(&loop->side, (size_t)edge->side_threads,
                           loop->max_body_bytes, loop->back);
    }
    if (rc == RC_OK) {
        rc = ask_pool_new(&loop->ask, &loop->conf, loop->back);
    }
    return rc;
}

enum rc
edge_loop_new(struct edge_loop **out, const struct edge_loop_options *o)
{
    struct edge_loop *loop = calloc(1, sizeof(*loop));
    enum rc rc = RC_OK;

    *out = NULL;
    if (loop == NULL) {
        return RC_NOMEM;
    }
    loop->conf = *o->conf;
    loop->listen_fd = o->listen_fd;
    loop->listen_owned = o->listen_owned;
    loop->listen_is_tcp = is_tcp(o->listen_fd);
    loop->pause_logged_ms = -LOG_EVERY_MS;
    loop->help_wait_ms = HELP_MIN_MS;
    loop->leads = o->journal == NULL;
    loop->taker.app = o->app;
    loop->taker.auth = o->auth;
    loop->taker.conf = &loop->conf;
    loop->taker.max_body_bytes = loop->conf.edge.max_body_bytes;
    loop->max_body_bytes =
        edge_take_max_body(o->app, loop->conf.edge.max_body_bytes);
    uuid_source_init(&loop->taker.uuids, (uint16_t)loop->conf.node.id);
    pace_init(&loop->pace, loop->conf.edge.max_per_s,
              loop->conf.edge.max_wait_ms);
    loop->turns_max = (size_t)loop->conf.edge.max_connections / 2;
    loop->pace_logged_ms = -LOG_EVERY_MS;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->peeked = malloc(PEEK_BYTES);
    loop->fresh = calloc((size_t)o->conf->edge.batch, sizeof(struct conn *));
    if (loop->epoll_fd < 0 || loop->peeked == NULL || loop->fresh == NULL) {
        rc = RC_NOMEM;
    }
    if (rc == RC_OK) {
        rc = make_parts(loop, o);
    }
    if (rc != RC_OK) {
        edge_loop_free(&loop);
    }
    *out = loop;
    return rc;
}

enum rc
edge_loop_watch(struct edge_loop *loop, int fd, void (*on_ready)(void *arg),
                void *arg)
{
    loop->watch = (struct watch){.on_ready = on_ready, .arg = arg};
    return watch_fd(loop, fd, &tag_watch);
}

static void
free_list(struct exchange_list *list)
{
    for (struct exchange *ex = exchange_list_take(list); ex != NULL;
         ex = exchange_list_take(list)) {
        exchange_free(&ex);
    }
}

void
edge_loop_free(struct edge_loop **loop)
{
    struct edge_loop *l = *loop;

    if (l == NULL) {
        return;
    }
    side_pool_free(&l->side);
    ask_pool_free(&l->ask);
    mailbox_free(&l->back);
    edge_batch_free(&l->batch);
    free_list(&l->turns);
    free_list(&l->stock);
    edge_read_free(&l->reader);
    conn_table_free(&l->conns);
    if (l->epoll_fd >= 0) {
        close(l->epoll_fd);
    }
    free(l->peeked);
    free(l->fresh);
    free(l);
    *loop = NULL;
}
