/* Transfers on curl_multi, driven by one epoll.
 *
 * curl looks for an idle connection by walking all that it has to a host, so
 * ten thousand in one multi handle cost more than the transfers themselves.
 * They are spread over shards, a multi handle each, which share the epoll and
 * the DNS cache; a transfer (an easy handle) stays in its shard and finds there
 * the connection that it left. */
#include "dispatcher/transfers_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS 256
#define BODY_KEEP_BYTES 1024U

/* ---- what curl calls ----------------------------------------------------- */

static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
    struct shard *shard = arg;
    struct transfers *ts = shard->owner;
    struct epoll_event event = {0};
    uint64_t index = (uint64_t)(shard - ts->shards);
    int op = known == NULL ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        /* Fails when it is closed already, which is as good. */
        (void)epoll_ctl(ts->epoll, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    event.data.u64 = index << 32 | (uint32_t)fd;
    if (what == CURL_POLL_IN || what == CURL_POLL_INOUT) {
        event.events |= EPOLLIN;
    }
    if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT) {
        event.events |= EPOLLOUT;
    }
    if (epoll_ctl(ts->epoll, op, fd, &event) != 0 && errno == EEXIST) {
        (void)epoll_ctl(ts->epoll, EPOLL_CTL_MOD, fd, &event);
    }
    (void)curl_multi_assign(shard->multi, fd, ts); /* marks it as known */
    return 0;
}

static int
on_timer(CURLM *multi, long timeout_ms, void *arg)
{
    struct shard *shard = arg;

    (void)multi;
    shard->due_ms =
        timeout_ms < 0 ? -1 : shard->owner->now_ms + (int64_t)timeout_ms;
    return 0;
}

/* ---- taking, starting, releasing ----------------------------------------- */

/* What transfers_free frees last, as curl closes connections before that and
 * the user may look at states then. */
static void
end_easy(struct transfer *t)
{
    curl_easy_cleanup(t->easy);
    t->easy = NULL;
    curl_slist_free_all(t->headers);
    t->headers = NULL;
}

/* A new one in the list of free ones; false when there is no memory. */
static bool
add(struct transfers *ts)
{
    struct transfer *t;

    if (ts->count == ts->capacity) {
        size_t capacity = ts->capacity == 0 ? 64 : ts->capacity * 2;
        struct transfer **all = realloc(ts->all, capacity * sizeof(*all));

        if (all == NULL) {
            return false;
        }
        ts->all = all;
        ts->capacity = capacity;
    }
    t = calloc(1, sizeof(*t) + ts->options.state_bytes);
    if (t == NULL) {
        return false;
    }
    t->easy = curl_easy_init();
    if (t->easy == NULL) {
        free(t);
        return false;
    }
    t->owner = ts;
    t->shard = (unsigned)(ts->count % ts->options.shards);
    t->is_worn = true;
    ts->all[ts->count++] = t;
    t->next = ts->free;
    ts->free = t;
    return true;
}

struct transfer *
transfers_take(struct transfers *ts)
{
    struct transfer *t;

    if (ts->free == NULL && !add(ts)) {
        return NULL;
    }
    t = ts->free;
    ts->free = t->next;
    t->next = NULL;
    memset(t->state, 0, ts->options.state_bytes);
    return t;
}

void
transfers_release(struct transfer *t)
{
    struct transfers *ts = t->owner;

    if (t->body_capacity > BODY_KEEP_BYTES) {
        free(t->body);
        t->body = NULL;
        t->body_capacity = 0;
    }
    if (t->headers != NULL) {
        /* The handle points into the list. */
        (void)curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, NULL);
        curl_slist_free_all(t->headers);
        t->headers = NULL;
    }
    t->next = ts->free;
    ts->free = t;
}

enum rc
transfers_start(struct transfer *t, const struct transfer_bounds *bounds)
{
    CURLcode bad = CURLE_OK;

    t->body_bytes = 0;
    t->header_bytes = 0;
    t->timeout_ms = bounds->timeout_ms;
    t->max_body_bytes = bounds->max_body_bytes;
    t->open_errno = 0;
    t->is_connected = false;
    t->is_short = false;
    t->too_long = false;
    t->no_memory = false;
    bad |=
        curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS, (long)bounds->timeout_ms);
    if (bounds->is_fresh) {
        t->is_worn = true;
        bad |= curl_easy_setopt(t->easy, CURLOPT_FRESH_CONNECT, 1L);
    }
    if (bad != CURLE_OK ||
        curl_multi_add_handle(t->owner->shards[t->shard].multi, t->easy) !=
            CURLM_OK) {
        return RC_AGAIN;
    }
    t->is_running = true;
    return RC_OK;
}

void *
transfers_state(struct transfer *t)
{
    return t->state;
}

size_t
transfers_count(const struct transfers *ts)
{
    return ts->count;
}

void *
transfers_state_at(struct transfers *ts, size_t i)
{
    return ts->all[i]->state;
}

/* ---- driving ------------------------------------------------------------- */

static void
reap(struct shard *shard)
{
    for (;;) {
        int left = 0;
        CURLMsg *message = curl_multi_info_read(shard->multi, &left);
        struct transfer *t = NULL;
        CURL *easy;
        CURLcode code;

        if (message == NULL) {
            break;
        }
        if (message->msg != CURLMSG_DONE) {
            continue;
        }
        easy = message->easy_handle;
        code = message->data.result; /* message dies with the removal */
        (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&t);
        (void)curl_multi_remove_handle(shard->multi, easy);
        t->is_running = false;
        transfers_end(t, code);
    }
}

static void
run_timers(struct transfers *ts)
{
    for (unsigned i = 0; i < ts->options.shards; i++) {
        struct shard *shard = &ts->shards[i];
        int running = 0;

        if (shard->due_ms >= 0 && shard->due_ms <= ts->now_ms) {
            shard->due_ms = -1;
            (void)curl_multi_socket_action(shard->multi, CURL_SOCKET_TIMEOUT, 0,
                                           &running);
            reap(shard);
        }
    }
}

static int
run_sockets(struct transfers *ts)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(ts->epoll, events, EVENTS, 0);

    for (int i = 0; i < count; i++) {
        struct shard *shard = &ts->shards[events[i].data.u64 >> 32];
        int fd = (int)(uint32_t)events[i].data.u64;
        int what = 0;
        int running = 0;

        if ((events[i].events & (EPOLLIN | EPOLLHUP)) != 0) {
            what |= CURL_CSELECT_IN;
        }
        if ((events[i].events & EPOLLOUT) != 0) {
            what |= CURL_CSELECT_OUT;
        }
        if ((events[i].events & EPOLLERR) != 0) {
            what |= CURL_CSELECT_ERR;
        }
        (void)curl_multi_socket_action(shard->multi, fd, what, &running);
        reap(shard);
    }
    return count;
}

bool
transfers_run(struct transfers *ts, int64_t now_ms)
{
    ts->now_ms = now_ms;
    run_timers(ts); /* starts what is new, too */
    return run_sockets(ts) == EVENTS || transfers_wait_ms(ts) == 0;
}

int64_t
transfers_wait_ms(const struct transfers *ts)
{
    int64_t due_ms = -1;

    for (unsigned i = 0; i < ts->options.shards; i++) {
        int64_t shard_ms = ts->shards[i].due_ms;

        if (shard_ms >= 0 && (due_ms < 0 || shard_ms < due_ms)) {
            due_ms = shard_ms;
        }
    }
    if (due_ms < 0) {
        return -1;
    }
    return due_ms > ts->now_ms ? due_ms - ts->now_ms : 0;
}

int
transfers_fd(const struct transfers *ts)
{
    return ts->epoll;
}

/* ---- life ---------------------------------------------------------------- */

static bool
shard_new(struct transfers *ts, struct shard *shard)
{
    CURLM *multi = curl_multi_init();
    CURLMcode bad = CURLM_OK;

    shard->owner = ts;
    shard->multi = multi;
    shard->due_ms = -1;
    if (multi == NULL) {
        return false;
    }
    bad |= curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    bad |= curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, shard);
    bad |= curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, on_timer);
    bad |= curl_multi_setopt(multi, CURLMOPT_TIMERDATA, shard);
    bad |=
        curl_multi_setopt(multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    return bad == CURLM_OK;
}

void
transfers_keep(struct transfers *ts, size_t count)
{
    size_t shards = ts->options.shards;
    size_t share = (count + shards - 1) / shards;

    for (size_t i = 0; i < shards; i++) {
        (void)curl_multi_setopt(ts->shards[i].multi, CURLMOPT_MAXCONNECTS,
                                (long)share);
    }
}

enum rc
transfers_new(struct transfers **out, const struct transfers_options *options)
{
    struct transfers *ts = NULL;
    enum rc rc = RC_NOMEM;

    *out = NULL;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return RC_NOMEM;
    }
    ts = calloc(1, sizeof(*ts));
    if (ts == NULL) {
        curl_global_cleanup();
        goto out;
    }
    ts->options = *options;
    ts->epoll = epoll_create1(EPOLL_CLOEXEC);
    ts->share = curl_share_init();
    ts->shards = calloc(options->shards, sizeof(*ts->shards));
    if (ts->epoll < 0 || ts->share == NULL || ts->shards == NULL ||
        curl_share_setopt(ts->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS) !=
            CURLSHE_OK) {
        rc = ts->epoll < 0 ? RC_IO : RC_NOMEM;
        goto out;
    }
    for (unsigned i = 0; i < options->shards; i++) {
        if (!shard_new(ts, &ts->shards[i])) {
            goto out;
        }
    }
    *out = ts;
    ts = NULL;
    rc = RC_OK;
out:
    transfers_free(&ts);
    return rc;
}

void
transfers_free(struct transfers **ts_out)
{
    struct transfers *ts = *ts_out;

    *ts_out = NULL;
    if (ts == NULL) {
        return;
    }
    for (size_t i = 0; i < ts->count; i++) {
        struct transfer *t = ts->all[i];

        if (t->is_running) {
            (void)curl_multi_remove_handle(ts->shards[t->shard].multi, t->easy);
        }
        end_easy(t);
    }
    for (unsigned i = 0; ts->shards != NULL && i < ts->options.shards; i++) {
        if (ts->shards[i].multi != NULL) {
            (void)curl_multi_cleanup(ts->shards[i].multi); /* closes */
        }
    }
    if (ts->share != NULL) {
        (void)curl_share_cleanup(ts->share);
    }
    if (ts->epoll >= 0) {
        (void)close(ts->epoll);
    }
    while (ts->count > 0) {
        struct transfer *t = ts->all[--ts->count];

        free(t->body);
        free(t);
    }
    free(ts->all);
    free(ts->shards);
    free(ts);
    curl_global_cleanup();
}
