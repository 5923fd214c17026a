/* Transfers on curl_multi, driven by one epoll.
 *
 * curl looks for an idle connection by walking all that it has to a host, so
 * ten thousand in one multi handle cost more than the transfers themselves.
 * They are spread over shards, a multi handle each, which share the epoll and
 * the DNS cache; a transfer (an easy handle) stays in its shard and finds there
 * the connection that it left.
 *
 * A CONNECT_ONLY connection does not go back to the cache. So a transfer that
 * only connects is an upload that claims to be complete already: curl connects,
 * finds out before the first byte of the request ("File already completely
 * uploaded", CURLE_PARTIAL_FILE), and keeps the connection. The poster's tests
 * hold curl to it. */
#include "dispatcher/transfers.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define EVENTS 256
#define RECEIVE_BYTES 1024L /* curl's smallest buffer */
#define BODY_FIRST_BYTES 128U
#define BODY_KEEP_BYTES 1024U
#define HEADER_MAX_BYTES ((size_t)32 * 1024)
#define ERROR_BYTES 160
#define LIFETIME_S 600L /* of a connection: a changed DNS entry is followed */
#define KEEPALIVE_IDLE_S 30L
#define KEEPALIVE_EVERY_S 10L

struct transfer {
    struct transfers *owner;
    CURL *easy;
    struct transfer *next; /* in free */
    struct curl_slist *headers;
    char *body;
    size_t body_bytes;
    size_t body_capacity;
    size_t max_body_bytes;
    size_t header_bytes;
    int64_t timeout_ms;
    unsigned shard;
    int open_errno;    /* why there was no socket for it; 0: there was */
    bool is_running;   /* with curl */
    bool is_connected; /* the request was sent or is about to be */
    bool is_worn;      /* to be reset before it is used again: see renew() */
    bool is_short;     /* of descriptors or memory for its socket */
    bool too_long;
    bool no_memory;
    max_align_t state[]; /* the user's */
};

struct shard {
    CURLM *multi;
    struct transfers *owner;
    int64_t due_ms; /* curl wants a call then; -1 never */
};

struct transfers {
    struct transfers_options options;
    int epoll;
    CURLSH *share; /* of the DNS cache */
    struct shard *shards;
    struct transfer **all; /* that were ever needed */
    size_t count;
    size_t capacity;
    struct transfer *free; /* last in, first out: few connections stay warm */
    int64_t now_ms;
};

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

/* Make room for bytes and a NUL. */
static bool
body_reserve(struct transfer *t, size_t bytes)
{
    size_t capacity = t->body_capacity;
    char *body;

    if (bytes < capacity) {
        return true;
    }
    if (capacity == 0) {
        capacity = BODY_FIRST_BYTES;
    }
    while (capacity <= bytes) {
        capacity *= 2;
    }
    body = realloc(t->body, capacity);
    if (body == NULL) {
        return false;
    }
    t->body = body;
    t->body_capacity = capacity;
    return true;
}

static size_t
on_body(char *data, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    size_t bytes = size * count;

    if (bytes > t->max_body_bytes - t->body_bytes) {
        t->too_long = true;
        return 0; /* ends the transfer */
    }
    if (!body_reserve(t, t->body_bytes + bytes)) {
        t->no_memory = true;
        return 0;
    }
    memcpy(t->body + t->body_bytes, data, bytes);
    t->body_bytes += bytes;
    return bytes;
}

/* curl 7.88 keeps any number of header lines: count them. */
static size_t
on_header(char *data, size_t size, size_t count, void *arg)
{
    struct transfer *t = arg;
    size_t bytes = size * count;

    (void)data;
    t->header_bytes += bytes;
    if (t->header_bytes > HEADER_MAX_BYTES) {
        t->too_long = true;
        return 0;
    }
    return bytes;
}

/* A socket of our own making, to tell "no descriptors here" (not the peer's
 * fault) from "cannot connect". */
static curl_socket_t
on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct transfer *t = arg;
    const struct transfers_options *o = &t->owner->options;
    int fd;

    (void)purpose;
    if (o->calls.may_open != NULL && !o->calls.may_open(o->arg, t)) {
        return CURL_SOCKET_BAD;
    }
    fd = socket(address->family, address->socktype | SOCK_CLOEXEC,
                address->protocol);
    if (fd < 0) {
        t->open_errno = errno;
        t->is_short |= errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
                       errno == ENOMEM;
        return CURL_SOCKET_BAD;
    }
    if (o->calls.opened != NULL &&
        !o->calls.opened(o->arg, fd, &address->addr, address->addrlen)) {
        t->open_errno = ENOMEM;
        t->is_short = true;
        (void)close(fd);
        return CURL_SOCKET_BAD;
    }
    t->open_errno = 0;
    return fd;
}

static int
on_close_socket(void *arg, curl_socket_t fd)
{
    const struct transfers *ts = arg;

    if (ts->options.calls.closed != NULL) {
        ts->options.calls.closed(ts->options.arg, fd);
    }
    return close(fd);
}

static int
on_connected(void *arg, char *to, char *from, int to_port, int from_port)
{
    struct transfer *t = arg;
    const struct transfers_options *o = &t->owner->options;

    (void)from;
    t->is_worn |= t->is_connected; /* curl's own second try */
    if (o->calls.connected != NULL &&
        !o->calls.connected(o->arg, t, to, to_port, from_port)) {
        return CURL_PREREQFUNC_ABORT;
    }
    t->is_connected = true;
    return CURL_PREREQFUNC_OK;
}

/* curl says here what it wrote and read, as soon as it did. */
static int
on_debug(CURL *easy, curl_infotype type, char *data, size_t bytes, void *arg)
{
    struct transfer *t = arg;
    const struct transfers_options *o = &t->owner->options;

    (void)easy;
    (void)data;
    if (type == CURLINFO_HEADER_OUT) {
        o->calls.moved(o->arg, t, TRANSFER_HEADER_SENT, bytes);
    } else if (type == CURLINFO_DATA_OUT) {
        o->calls.moved(o->arg, t, TRANSFER_BODY_SENT, bytes);
    } else if (type == CURLINFO_HEADER_IN) {
        o->calls.moved(o->arg, t, TRANSFER_HEADER_CAME, bytes);
    }
    return 0;
}

/* Of one that only connects: "the file is at its end". */
static int
on_seek(void *arg, curl_off_t offset, int origin)
{
    (void)arg;
    (void)offset;
    (void)origin;
    return CURL_SEEKFUNC_OK;
}

/* Never called; or nothing is read from stdin. */
static size_t
on_read(char *data, size_t size, size_t count, void *arg)
{
    (void)data;
    (void)size;
    (void)count;
    (void)arg;
    return CURL_READFUNC_ABORT;
}

/* ---- an easy handle's options -------------------------------------------- */

/* In what follows, bad stays CURLE_OK (0) only if every option is taken. */
static CURLcode
set_calls(struct transfer *t)
{
    CURL *easy = t->easy;
    CURLcode bad = CURLE_OK;

    bad |= curl_easy_setopt(easy, CURLOPT_PRIVATE, t);
    bad |= curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    bad |= curl_easy_setopt(easy, CURLOPT_WRITEDATA, t);
    bad |= curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    bad |= curl_easy_setopt(easy, CURLOPT_HEADERDATA, t);
    bad |= curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
    bad |= curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    bad |= curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, t);
    bad |= curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
    bad |= curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, t->owner);
    bad |= curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_connected);
    bad |= curl_easy_setopt(easy, CURLOPT_PREREQDATA, t);
    if (t->owner->options.calls.moved != NULL) {
        bad |= curl_easy_setopt(easy, CURLOPT_DEBUGFUNCTION, on_debug);
        bad |= curl_easy_setopt(easy, CURLOPT_DEBUGDATA, t);
        bad |= curl_easy_setopt(easy, CURLOPT_VERBOSE, 1L); /* for on_debug */
    }
    return bad;
}

static bool
set_options(struct transfer *t)
{
    CURL *easy = t->easy;
    CURLcode bad = set_calls(t);

    bad |= curl_easy_setopt(easy, CURLOPT_SHARE, t->owner->share);
    bad |= curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    /* Else a transfer that ends while its name is looked up waits for the
     * resolver, and with it everybody else: getaddrinfo takes as long as it
     * likes. */
    bad |= curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    bad |= curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
                            (long)CURL_HTTP_VERSION_1_1);
    bad |= curl_easy_setopt(easy, CURLOPT_PROXY, ""); /* none, whatever the
                                                         environment says */
    bad |= curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    bad |= curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    bad |= curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, RECEIVE_BYTES);
    bad |= curl_easy_setopt(easy, CURLOPT_MAXLIFETIME_CONN, LIFETIME_S);
    bad |= curl_easy_setopt(easy, CURLOPT_USERAGENT, "sluice");
    if (t->owner->options.stays_warm) {
        bad |= curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
        bad |= curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
        bad |= curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_EVERY_S);
        bad |= curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, LIFETIME_S);
    }
    return bad == CURLE_OK;
}

/* A request that met a closing connection is sent again by curl, but only five
 * times in the life of an easy handle (7.88 clears the count in
 * curl_easy_reset only): one that is reused for days would then fail at each
 * such meeting. Nor is what only one request set to stay. The connections are
 * the multi handle's, and do. */
static bool
renew(struct transfer *t)
{
    if (t->is_worn) {
        curl_easy_reset(t->easy);
        t->is_worn = !set_options(t);
    }
    return !t->is_worn;
}

static bool
add_header(struct transfer *t, const char *line)
{
    struct curl_slist *longer = curl_slist_append(t->headers, line);

    if (longer == NULL) {
        return false;
    }
    t->headers = longer;
    return true;
}

static bool
set_headers(struct transfer *t, const struct transfer_request *request)
{
    const char *const *line = request->headers;

    if (request->body != NULL && !add_header(t, "Expect:")) {
        return false; /* no waiting for a 100 */
    }
    for (; line != NULL && *line != NULL; line++) {
        if (!add_header(t, *line)) {
            return false;
        }
    }
    if (t->headers == NULL) {
        return true;
    }
    t->is_worn = true;
    return curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers) ==
           CURLE_OK;
}

static bool
set_body(struct transfer *t, const struct transfer_request *request)
{
    CURLcode bad = CURLE_OK;

    t->is_worn = true;
    bad |= curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE,
                            (curl_off_t)request->body_bytes);
    bad |= curl_easy_setopt(t->easy, CURLOPT_COPYPOSTFIELDS, request->body);
    return bad == CURLE_OK;
}

/* An upload of 1 byte that resumes behind it. */
static bool
set_only_connects(struct transfer *t)
{
    CURL *easy = t->easy;
    CURLcode bad = CURLE_OK;

    t->is_worn = true;
    bad |= curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)1);
    bad |= curl_easy_setopt(easy, CURLOPT_RESUME_FROM_LARGE, (curl_off_t)1);
    bad |= curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
    return bad == CURLE_OK;
}

enum rc
transfers_prepare(struct transfer *t, const struct transfer_request *request)
{
    if (!renew(t) ||
        curl_easy_setopt(t->easy, CURLOPT_URL, request->url) != CURLE_OK ||
        !set_headers(t, request) ||
        (request->body != NULL && !set_body(t, request)) ||
        (request->only_connects && !set_only_connects(t))) {
        return RC_AGAIN;
    }
    return RC_OK;
}

/* "http://host..." or "https://host...", without blanks and controls. */
bool
transfers_is_url(const char *url)
{
    const char *host = strstr(url, "://");

    if ((strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0) ||
        host[3] == '\0' || host[3] == '/') {
        return false;
    }
    for (const char *c = url; *c != '\0'; c++) {
        if ((unsigned char)*c <= ' ' || *c == 0x7f) {
            return false;
        }
    }
    return true;
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

/* ---- a transfer's end ---------------------------------------------------- */

/* Why it failed, in words that repeat from transfer to transfer (curl's own
 * carry timings): they are kept, counted and compared. */
static void
say_error(const struct transfer *t, CURLcode code, char out[ERROR_BYTES])
{
    long os_errno = t->open_errno;
    char text[80];

    if (t->too_long) {
        (void)snprintf(out, ERROR_BYTES, "the answer is too long");
        return;
    }
    if (t->no_memory) {
        (void)snprintf(out, ERROR_BYTES, "out of memory");
        return;
    }
    if (code == CURLE_OPERATION_TIMEDOUT) {
        (void)snprintf(out, ERROR_BYTES, "%s within %lld ms",
                       t->is_connected ? "no whole answer" : "no connection",
                       (long long)t->timeout_ms);
        return;
    }
    if (os_errno == 0) {
        (void)curl_easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &os_errno);
    }
    if (code == CURLE_COULDNT_CONNECT && os_errno != 0) {
        (void)snprintf(out, ERROR_BYTES, "cannot connect: %s",
                       strerror_r((int)os_errno, text, sizeof(text)));
        return;
    }
    (void)snprintf(out, ERROR_BYTES, "%s", curl_easy_strerror(code));
}

static void
end(struct transfer *t, CURLcode code)
{
    const struct transfers_options *o = &t->owner->options;
    struct transfer_result result = {
        .ok = code == CURLE_OK, .too_long = t->too_long, .body = ""};
    char error[ERROR_BYTES] = "";
    curl_off_t total_us = 0;
    long status = 0;

    if (code != CURLE_OK) {
        t->is_worn = true; /* curl may have counted a retry */
        result.is_short = t->is_short && !t->is_connected;
        say_error(t, code, error);
    }
    (void)curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(t->easy, CURLINFO_TOTAL_TIME_T, &total_us);
    result.status = (int)status;
    result.duration_ms = (int64_t)total_us / 1000;
    result.error = error;
    if (t->body != NULL) {
        t->body[t->body_bytes] = '\0';
        result.body = t->body;
        result.body_bytes = t->body_bytes;
    }
    o->calls.ended(o->arg, t, &result);
}

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
        end(t, code);
    }
}

/* ---- driving ------------------------------------------------------------- */

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
