/* GETs on curl_multi, driven by one epoll.
 *
 * curl looks for an idle connection by walking all that it has to a host, so
 * ten thousand in one multi handle cost more than the GETs themselves. They
 * are spread over SHARDS multi handles, which share the epoll and the DNS
 * cache; a slot (an easy handle) stays in its shard and finds there the
 * connection that it left.
 *
 * A started GET waits in `queued` until fetcher_drive hands it to curl, at
 * most connect_limit at a time that have no connection yet: a cold start of
 * thousands would overflow the listener's backlog (a SYN lost is a second
 * lost), and make a thread for each look-up of a name. */
#include "dispatcher/fetcher.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/log.h"

#define SHARDS 32U
#define EVENTS 256
#define ROUNDS 8 /* of EVENTS, in one drive: then the others get a turn */
#define CONNECT_MIN 32U
#define CONNECT_MAX 512U
#define RECEIVE_BYTES 1024L /* curl's smallest buffer */
#define BODY_FIRST_BYTES 128U
#define BODY_KEEP_BYTES 1024U
#define HEADER_MAX_BYTES ((size_t)32 * 1024)
#define STARVED_MS 100
#define LIFETIME_S 600L /* of a connection: a changed DNS entry is followed */

enum slot_state {
    SLOT_FREE,
    SLOT_QUEUED,     /* started, not given to curl yet */
    SLOT_CONNECTING, /* with curl, which has no connection for it yet */
    SLOT_ASKING,     /* the request was sent or is about to be */
};

struct slot {
    CURL *easy;
    struct fetcher *fetcher;
    struct slot *next; /* in free or queued */
    uint64_t tag;
    int64_t started_ms;
    char *body;
    size_t body_bytes;
    size_t body_capacity;
    size_t header_bytes;
    unsigned shard;
    enum slot_state state;
    bool too_long;
    bool no_memory;
    bool starved; /* no descriptor for its socket */
    bool worn;    /* curl may have counted a retry: see renew() */
};

struct shard {
    CURLM *multi;
    struct fetcher *fetcher;
    int64_t due_ms; /* curl wants a call then; -1 never */
};

struct fetcher {
    struct fetcher_options options;
    fetcher_done_fn *done;
    void *arg;
    int epoll;
    CURLSH *share; /* of the DNS cache */
    struct shard shards[SHARDS];
    struct slot **slots; /* all that were ever needed */
    size_t slot_count;
    size_t slot_capacity;
    struct slot *free; /* last in, first out: few connections stay warm */
    struct slot *queued_head;
    struct slot *queued_tail;
    size_t in_flight; /* all but the free ones */
    size_t connecting;
    size_t connect_limit;
    int64_t starved_until_ms; /* out of descriptors: start nothing before */
    int64_t now_ms;
    bool starved_logged;
};

/* ---- what curl calls ---------------------------------------------------- */

static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
    struct shard *shard = arg;
    struct fetcher *f = shard->fetcher;
    struct epoll_event event = {0};
    uint64_t index = (uint64_t)(shard - f->shards);
    int op = known == NULL ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        /* Fails when it is closed already, which is as good. */
        (void)epoll_ctl(f->epoll, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    event.data.u64 = index << 32 | (uint32_t)fd;
    if (what == CURL_POLL_IN || what == CURL_POLL_INOUT) {
        event.events |= EPOLLIN;
    }
    if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT) {
        event.events |= EPOLLOUT;
    }
    if (epoll_ctl(f->epoll, op, fd, &event) != 0 && errno == EEXIST) {
        (void)epoll_ctl(f->epoll, EPOLL_CTL_MOD, fd, &event);
    }
    (void)curl_multi_assign(shard->multi, fd, f); /* marks it as known */
    return 0;
}

static int
on_timer(CURLM *multi, long timeout_ms, void *arg)
{
    struct shard *shard = arg;

    (void)multi;
    shard->due_ms =
        timeout_ms < 0 ? -1 : shard->fetcher->now_ms + (int64_t)timeout_ms;
    return 0;
}

/* Make room for bytes and a NUL. */
static bool
body_reserve(struct slot *slot, size_t bytes)
{
    size_t capacity = slot->body_capacity;
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
    body = realloc(slot->body, capacity);
    if (body == NULL) {
        return false;
    }
    slot->body = body;
    slot->body_capacity = capacity;
    return true;
}

static size_t
on_body(char *data, size_t size, size_t count, void *arg)
{
    struct slot *slot = arg;
    size_t bytes = size * count;

    if (bytes > slot->fetcher->options.max_body_bytes - slot->body_bytes) {
        slot->too_long = true;
        return 0; /* ends the transfer */
    }
    if (!body_reserve(slot, slot->body_bytes + bytes)) {
        slot->no_memory = true;
        return 0;
    }
    memcpy(slot->body + slot->body_bytes, data, bytes);
    slot->body_bytes += bytes;
    return bytes;
}

/* curl 7.88 keeps any number of header lines: count them. */
static size_t
on_header(char *data, size_t size, size_t count, void *arg)
{
    struct slot *slot = arg;
    size_t bytes = size * count;

    (void)data;
    slot->header_bytes += bytes;
    if (slot->header_bytes > HEADER_MAX_BYTES) {
        slot->too_long = true;
        return 0;
    }
    return bytes;
}

/* A socket of our own making, to tell "no descriptors here" (not the
 * upstream's fault) from "cannot connect". */
static curl_socket_t
on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct slot *slot = arg;
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC,
                    address->protocol);

    (void)purpose;
    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
                   errno == ENOMEM)) {
        slot->starved = true;
    }
    return fd < 0 ? CURL_SOCKET_BAD : fd;
}

/* The connection is there, new or reused; the request is written next. */
static int
on_connected(void *arg, char *to, char *from, int to_port, int from_port)
{
    struct slot *slot = arg;
    struct fetcher *f = slot->fetcher;

    (void)to;
    (void)from;
    (void)to_port;
    (void)from_port;
    if (slot->state != SLOT_CONNECTING) { /* curl's own second try */
        slot->worn = true;
        return CURL_PREREQFUNC_OK;
    }
    slot->state = SLOT_ASKING;
    f->connecting--;
    if (f->connect_limit < CONNECT_MAX) {
        f->connect_limit++;
    }
    return CURL_PREREQFUNC_OK;
}

/* ---- slots --------------------------------------------------------------- */

static bool
set_options(struct slot *slot)
{
    CURL *easy = slot->easy;
    CURLcode bad = CURLE_OK;

    /* Stays CURLE_OK (0) only if every one is taken. */
    bad |= curl_easy_setopt(easy, CURLOPT_PRIVATE, slot);
    bad |= curl_easy_setopt(easy, CURLOPT_SHARE, slot->fetcher->share);
    bad |= curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    /* Else a GET that ends while its name is looked up waits for the resolver,
     * and with it everybody else: getaddrinfo takes as long as it likes. */
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
    bad |= curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    bad |= curl_easy_setopt(easy, CURLOPT_WRITEDATA, slot);
    bad |= curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    bad |= curl_easy_setopt(easy, CURLOPT_HEADERDATA, slot);
    bad |= curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    bad |= curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, slot);
    bad |= curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_connected);
    bad |= curl_easy_setopt(easy, CURLOPT_PREREQDATA, slot);
    return bad == CURLE_OK;
}

/* A request that met a closing connection is sent again by curl, but only five
 * times in the life of an easy handle (7.88 clears the count in
 * curl_easy_reset only): one that is reused for days would then fail at each
 * such meeting. The connections stay. */
static bool
renew(struct slot *slot)
{
    if (slot->worn) {
        curl_easy_reset(slot->easy);
        slot->worn = !set_options(slot);
    }
    return !slot->worn;
}

static void
slot_free(struct slot *slot)
{
    if (slot->easy != NULL) {
        curl_easy_cleanup(slot->easy);
    }
    free(slot->body);
    free(slot);
}

/* A new slot in the list of free ones; false when there is no memory. */
static bool
add_slot(struct fetcher *f)
{
    struct slot *slot;

    if (f->slot_count == f->slot_capacity) {
        size_t capacity = f->slot_capacity == 0 ? 64 : f->slot_capacity * 2;
        struct slot **slots = realloc(f->slots, capacity * sizeof(*slots));

        if (slots == NULL) {
            return false;
        }
        f->slots = slots;
        f->slot_capacity = capacity;
    }
    slot = calloc(1, sizeof(*slot));
    if (slot == NULL) {
        return false;
    }
    slot->fetcher = f;
    slot->shard = (unsigned)(f->slot_count % SHARDS);
    slot->easy = curl_easy_init();
    if (slot->easy == NULL || !set_options(slot)) {
        slot_free(slot);
        return false;
    }
    f->slots[f->slot_count++] = slot;
    slot->next = f->free;
    f->free = slot;
    return true;
}

static void
queue_last(struct fetcher *f, struct slot *slot)
{
    slot->state = SLOT_QUEUED;
    slot->next = NULL;
    if (f->queued_tail == NULL) {
        f->queued_head = slot;
    } else {
        f->queued_tail->next = slot;
    }
    f->queued_tail = slot;
}

static void
release(struct fetcher *f, struct slot *slot)
{
    if (slot->body_capacity > BODY_KEEP_BYTES) {
        free(slot->body);
        slot->body = NULL;
        slot->body_capacity = 0;
    }
    slot->state = SLOT_FREE;
    slot->next = f->free;
    f->free = slot;
}

/* ---- a GET's end --------------------------------------------------------- */

/* Why it failed, in words that repeat from GET to GET (curl's own carry
 * timings): they are kept, counted and compared. */
static void
say_error(const struct slot *slot, CURLcode code, bool connected,
          char out[FETCH_ERROR_BYTES])
{
    long os_errno = 0;
    char text[80];

    if (slot->too_long) {
        (void)snprintf(out, FETCH_ERROR_BYTES, "the answer is too long");
        return;
    }
    if (slot->no_memory) {
        (void)snprintf(out, FETCH_ERROR_BYTES, "out of memory");
        return;
    }
    if (code == CURLE_OPERATION_TIMEDOUT) {
        (void)snprintf(out, FETCH_ERROR_BYTES, "%s within %lld ms",
                       connected ? "no whole answer" : "no connection",
                       (long long)slot->fetcher->options.timeout_ms);
        return;
    }
    (void)curl_easy_getinfo(slot->easy, CURLINFO_OS_ERRNO, &os_errno);
    if (code == CURLE_COULDNT_CONNECT && os_errno != 0) {
        (void)snprintf(out, FETCH_ERROR_BYTES, "cannot connect: %s",
                       strerror_r((int)os_errno, text, sizeof(text)));
        return;
    }
    (void)snprintf(out, FETCH_ERROR_BYTES, "%s", curl_easy_strerror(code));
}

static void
finish(struct fetcher *f, struct slot *slot, CURLcode code)
{
    struct fetch_result result = {0};
    bool connected = slot->state == SLOT_ASKING;
    long status = 0;

    if (code != CURLE_OK) {
        slot->worn = true;
    }
    if (slot->state == SLOT_CONNECTING) {
        f->connecting--;
        f->connect_limit = f->connect_limit / 2 > CONNECT_MIN
                               ? f->connect_limit / 2
                               : CONNECT_MIN;
    }
    if (slot->starved && !connected && code != CURLE_OK) {
        /* Not the upstream's fault: as if it had not been started. */
        f->starved_until_ms = f->now_ms + STARVED_MS;
        if (!f->starved_logged) {
            f->starved_logged = true;
            log_event(LOG_WARN, "fetch_no_descriptors",
                      "in_flight=%zu concurrency=%zu", f->in_flight,
                      f->options.concurrency);
        }
        queue_last(f, slot);
        return;
    }
    if (curl_easy_getinfo(slot->easy, CURLINFO_RESPONSE_CODE, &status) ==
        CURLE_OK) {
        result.status = (int)status;
    }
    result.tag = slot->tag;
    result.ok = code == CURLE_OK && !slot->too_long;
    result.too_long = slot->too_long;
    result.duration_ms = f->now_ms - slot->started_ms;
    if (!result.ok) {
        say_error(slot, code, connected, result.error);
    }
    result.body = "";
    if (slot->body != NULL) {
        slot->body[slot->body_bytes] = '\0';
        result.body = slot->body;
        result.body_bytes = slot->body_bytes;
    }
    f->in_flight--; /* so that done may start the next one */
    f->done(f->arg, &result);
    release(f, slot);
}

static void
reap(struct fetcher *f, struct shard *shard)
{
    for (;;) {
        int left = 0;
        CURLMsg *message = curl_multi_info_read(shard->multi, &left);
        struct slot *slot = NULL;
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
        (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&slot);
        (void)curl_multi_remove_handle(shard->multi, easy);
        finish(f, slot, code);
    }
}

/* ---- driving --------------------------------------------------------------
 */

/* Hand queued GETs to curl as far as new connections are allowed. */
static void
admit(struct fetcher *f)
{
    while (f->queued_head != NULL && f->connecting < f->connect_limit &&
           f->now_ms >= f->starved_until_ms) {
        struct slot *slot = f->queued_head;
        struct shard *shard = &f->shards[slot->shard];

        f->queued_head = slot->next;
        if (f->queued_head == NULL) {
            f->queued_tail = NULL;
        }
        slot->next = NULL;
        slot->state = SLOT_CONNECTING;
        slot->started_ms = f->now_ms;
        slot->body_bytes = 0;
        slot->header_bytes = 0;
        slot->too_long = false;
        slot->no_memory = false;
        slot->starved = false;
        f->connecting++;
        (void)curl_easy_setopt(slot->easy, CURLOPT_TIMEOUT_MS,
                               (long)f->options.timeout_ms);
        if (curl_multi_add_handle(shard->multi, slot->easy) != CURLM_OK) {
            finish(f, slot, CURLE_OUT_OF_MEMORY);
        }
    }
}

static void
run_timers(struct fetcher *f)
{
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *shard = &f->shards[i];
        int running = 0;

        if (shard->due_ms >= 0 && shard->due_ms <= f->now_ms) {
            shard->due_ms = -1;
            (void)curl_multi_socket_action(shard->multi, CURL_SOCKET_TIMEOUT, 0,
                                           &running);
            reap(f, shard);
        }
    }
}

static int
run_sockets(struct fetcher *f)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(f->epoll, events, EVENTS, 0);

    for (int i = 0; i < count; i++) {
        struct shard *shard = &f->shards[events[i].data.u64 >> 32];
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
        reap(f, shard);
    }
    return count;
}

/* ms until the earliest of what only time brings about. */
static int64_t
next_due(const struct fetcher *f)
{
    int64_t due_ms = -1;

    for (unsigned i = 0; i < SHARDS; i++) {
        int64_t shard_ms = f->shards[i].due_ms;

        if (shard_ms >= 0 && (due_ms < 0 || shard_ms < due_ms)) {
            due_ms = shard_ms;
        }
    }
    /* Queued ones that may not connect yet are woken by those that do. */
    if (f->queued_head != NULL && f->connecting < f->connect_limit &&
        (due_ms < 0 || f->starved_until_ms < due_ms)) {
        due_ms = f->starved_until_ms;
    }
    if (due_ms < 0) {
        return -1;
    }
    return due_ms > f->now_ms ? due_ms - f->now_ms : 0;
}

int64_t
fetcher_drive(struct fetcher *f, int64_t now_ms)
{
    f->now_ms = now_ms;
    for (int round = 0; round < ROUNDS; round++) {
        int count;

        admit(f);
        run_timers(f); /* starts what was admitted, too */
        count = run_sockets(f);
        if (count < EVENTS &&
            (f->queued_head == NULL || f->connecting >= f->connect_limit)) {
            break;
        }
    }
    if (f->starved_logged && now_ms > f->starved_until_ms) {
        f->starved_logged = f->queued_head != NULL;
    }
    return next_due(f);
}

/* "http://host..." or "https://host...", without blanks and controls. */
static bool
is_url(const char *url)
{
    const char *host = strstr(url, "://");

    if ((strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0) ||
        host[3] == '\0' || host[3] == '/') {
        return false;
    }
    for (const char *p = url; *p != '\0'; p++) {
        if ((unsigned char)*p <= ' ' || *p == 0x7f) {
            return false;
        }
    }
    return true;
}

enum rc
fetcher_start(struct fetcher *f, const char *url, uint64_t tag)
{
    struct slot *slot;

    if (!is_url(url)) {
        return RC_INVALID;
    }
    if (f->in_flight >= f->options.concurrency) {
        return RC_FULL;
    }
    if (f->free == NULL && !add_slot(f)) {
        return RC_AGAIN;
    }
    slot = f->free;
    if (!renew(slot)) {
        return RC_AGAIN;
    }
    if (curl_easy_setopt(slot->easy, CURLOPT_URL, url) != CURLE_OK) {
        return RC_AGAIN;
    }
    f->free = slot->next;
    slot->tag = tag;
    f->in_flight++;
    queue_last(f, slot);
    return RC_OK;
}

/* ---- life -----------------------------------------------------------------
 */

static bool
shard_new(struct fetcher *f, struct shard *shard)
{
    CURLM *multi = curl_multi_init();
    CURLMcode bad = CURLM_OK;

    shard->fetcher = f;
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
fetcher_set(struct fetcher *f, const struct fetcher_options *options)
{
    size_t share = (options->concurrency + SHARDS - 1) / SHARDS;

    f->options = *options;
    for (unsigned i = 0; i < SHARDS; i++) {
        (void)curl_multi_setopt(f->shards[i].multi, CURLMOPT_MAXCONNECTS,
                                (long)share);
    }
}

enum rc
fetcher_new(struct fetcher **out, const struct fetcher_options *options,
            fetcher_done_fn *done, void *arg)
{
    struct fetcher *f = NULL;
    enum rc rc = RC_NOMEM;

    *out = NULL;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return RC_NOMEM;
    }
    f = calloc(1, sizeof(*f));
    if (f == NULL) {
        curl_global_cleanup();
        goto out;
    }
    f->done = done;
    f->arg = arg;
    f->connect_limit = CONNECT_MIN;
    f->epoll = epoll_create1(EPOLL_CLOEXEC);
    f->share = curl_share_init();
    if (f->epoll < 0 || f->share == NULL ||
        curl_share_setopt(f->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_DNS) !=
            CURLSHE_OK) {
        rc = f->epoll < 0 ? RC_IO : RC_NOMEM;
        goto out;
    }
    for (unsigned i = 0; i < SHARDS; i++) {
        if (!shard_new(f, &f->shards[i])) {
            goto out;
        }
    }
    fetcher_set(f, options);
    *out = f;
    f = NULL;
    rc = RC_OK;
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
    for (size_t i = 0; i < f->slot_count; i++) {
        struct slot *slot = f->slots[i];

        if (slot->state == SLOT_CONNECTING || slot->state == SLOT_ASKING) {
            (void)curl_multi_remove_handle(f->shards[slot->shard].multi,
                                           slot->easy);
        }
        slot_free(slot);
    }
    for (unsigned i = 0; i < SHARDS; i++) {
        if (f->shards[i].multi != NULL) {
            (void)curl_multi_cleanup(f->shards[i].multi);
        }
    }
    if (f->share != NULL) {
        (void)curl_share_cleanup(f->share);
    }
    if (f->epoll >= 0) {
        (void)close(f->epoll);
    }
    free(f->slots);
    free(f);
    curl_global_cleanup();
}

size_t
fetcher_in_flight(const struct fetcher *f)
{
    return f->in_flight;
}

int
fetcher_fd(const struct fetcher *f)
{
    return f->epoll;
}
