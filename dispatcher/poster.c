/* POSTs on one curl_multi, driven by one epoll.
 *
 * Never twice. curl (7.88: Curl_retry_request) sends a request again by itself
 * when a reused connection ended without a byte of an answer, and the peer may
 * well have acted on it. Each sending passes on_connected: the second one is
 * refused there once a byte was written, and on_open_socket refuses to connect
 * for it. If nothing was written yet, curl may try again.
 *
 * Never another's answer. curl takes an idle connection with unread bytes for
 * a living one: a 408 with which a server closes it would be the answer to the
 * next POST, and behind TLS's close_notify the next POST would be lost without
 * anybody knowing. on_connected looks for them, and the POST starts over on a
 * fresh connection.
 *
 * Warm connections. A CONNECT_ONLY connection does not go back to the cache,
 * and every request counts with the peer. So a warm transfer is an upload that
 * claims to be complete already: curl connects, finds out before the first
 * byte of the request ("File already completely uploaded",
 * CURLE_PARTIAL_FILE), and keeps the connection. A test holds curl to it. */
#include "dispatcher/poster.h"

#include <arpa/inet.h>
#include <curl/curl.h>

#include "shared/clock.h"
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 64
#define ROUNDS 8 /* of EVENTS, in one drive: then the others get a turn */
#define BODY_KEEP_BYTES ((size_t)16 * 1024)
#define HEADER_MAX_BYTES ((size_t)32 * 1024)
#define LIFETIME_S 600L /* of a connection: a changed DNS entry is followed */
#define KEEPALIVE_IDLE_S 30L
#define KEEPALIVE_EVERY_S 10L
#define ACK_POLL_MIN_MS 1
#define ACK_POLL_MAX_MS 5
/* What surely fits into one TLS record with its headers: a record that was
 * written in part says nothing to the peer. */
#define TLS_RECORD_BYTES ((size_t)8 * 1024)

/* A connection that curl has. */
struct link {
    int fd;
    in_port_t from_port; /* 0: not known yet */
    in_port_t to_port;
    char to[INET6_ADDRSTRLEN];
    bool is_used; /* a whole answer came on it */
};

enum slot_state {
    SLOT_FREE,
    SLOT_CONNECTING,
    SLOT_ASKING, /* the request is being or has been written */
    SLOT_WARMING /* no POST: opens a connection */
};

struct slot {
    CURL *easy;
    struct poster *poster;
    struct slot *next; /* in free */
    uint64_t tag;
    struct curl_slist *headers;
    size_t request_bytes; /* the body to be sent */
    size_t sent_header_bytes;
    size_t sent_body_bytes;
    int64_t written_ms; /* since when it waits for the acknowledgement */
    int64_t counted_us; /* 0: not known yet */
    char *body;
    size_t body_bytes;
    size_t body_capacity;
    size_t header_bytes;
    int64_t timeout_ms;
    size_t max_body_bytes;
    enum slot_state state;
    int fd;          /* of its connection; -1: none or not known */
    int open_errno;  /* why there is no socket for it */
    bool is_tls;     /* https */
    bool is_written; /* completely */
    bool is_told;    /* counted_us was reported */
    bool again;      /* curl wanted to send it a second time */
    bool stale;      /* its connection held bytes that nobody asked for */
    bool fresh;      /* started over because of that */
    bool too_long;
    bool no_memory;
};

struct poster {
    struct poster_options options;
    struct poster_calls calls;
    void *arg;
    int epoll;
    CURLM *multi;
    int64_t due_ms; /* curl wants a call then; -1 never */
    int64_t now_ms;
    struct slot **slots; /* all that were ever needed */
    size_t slot_count;
    size_t slot_capacity;
    struct slot *free;  /* last in, first out */
    struct link *links; /* in no order */
    size_t link_count;
    size_t link_capacity;
    size_t in_flight;
    size_t warming;
};

/* ---- connections --------------------------------------------------------- */

static bool
add_link(struct poster *p, int fd, const struct curl_sockaddr *address)
{
    struct link *link;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } to;

    if (p->link_count == p->link_capacity) {
        size_t capacity = p->link_capacity == 0 ? 64 : p->link_capacity * 2;

        link = realloc(p->links, capacity * sizeof(*link));
        if (link == NULL) {
            return false;
        }
        p->links = link;
        p->link_capacity = capacity;
    }
    link = &p->links[p->link_count++];
    *link = (struct link){.fd = fd};
    memset(&to, 0, sizeof(to));
    memcpy(&to, &address->addr,
           address->addrlen < sizeof(to) ? address->addrlen : sizeof(to));
    if (address->family == AF_INET) {
        link->to_port = ntohs(to.v4.sin_port);
        (void)inet_ntop(AF_INET, &to.v4.sin_addr, link->to, sizeof(link->to));
    } else {
        link->to_port = ntohs(to.v6.sin6_port);
        (void)inet_ntop(AF_INET6, &to.v6.sin6_addr, link->to, sizeof(link->to));
    }
    return true;
}

static in_port_t
local_port(int fd)
{
    struct sockaddr_storage from = {0};
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    socklen_t bytes = sizeof(from);

    if (getsockname(fd, (struct sockaddr *)&from, &bytes) != 0) {
        return 0;
    }
    memcpy(&v4, &from, sizeof(v4));
    memcpy(&v6, &from, sizeof(v6));
    return ntohs(from.ss_family == AF_INET ? v4.sin_port : v6.sin6_port);
}

/* A connection by its ends: a local port alone may serve several addresses.
 * NULL: not ours. */
static const struct link *
find_link(struct poster *p, const char *to, int to_port, int from_port)
{
    for (size_t i = 0; i < p->link_count; i++) {
        struct link *link = &p->links[i];

        if (link->from_port == 0) {
            link->from_port = local_port(link->fd);
        }
        if (link->from_port == from_port && link->to_port == to_port &&
            strcmp(link->to, to) == 0) {
            return link;
        }
    }
    return NULL;
}

/* It brought an answer. */
static void
mark_used(struct poster *p, int fd)
{
    for (size_t i = 0; i < p->link_count; i++) {
        if (p->links[i].fd == fd) {
            p->links[i].is_used = true;
        }
    }
}

/* The peer closed it, if only its half; curl finds out when it needs it. */
static bool
has_ended(const struct link *link)
{
    struct pollfd fd = {.fd = link->fd, .events = POLLRDHUP};

    return poll(&fd, 1, 0) > 0;
}

/* True: bytes, an end or an error wait on a connection that should be idle.
 * On a new one TLS has its own to send (session tickets). */
static bool
is_stale(const struct link *link, bool is_tls)
{
    struct pollfd fd = {.fd = link->fd, .events = POLLIN | POLLRDHUP};

    if (poll(&fd, 1, 0) <= 0) {
        return false;
    }
    return (fd.revents & ~POLLIN) != 0 || !is_tls || link->is_used;
}

/* Can a byte of the request have reached the peer? */
static bool
may_be_sent(const struct slot *slot)
{
    return slot->sent_header_bytes > 0 ||
           (slot->is_tls && slot->state == SLOT_ASKING &&
            slot->request_bytes > TLS_RECORD_BYTES);
}

/* ---- what curl calls ----------------------------------------------------- */

static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
    struct poster *p = arg;
    struct epoll_event event = {.data.fd = fd};
    int op = known == NULL ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        /* Fails when it is closed already, which is as good. */
        (void)epoll_ctl(p->epoll, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    if (what == CURL_POLL_IN || what == CURL_POLL_INOUT) {
        event.events |= EPOLLIN;
    }
    if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT) {
        event.events |= EPOLLOUT;
    }
    if (epoll_ctl(p->epoll, op, fd, &event) != 0 && errno == EEXIST) {
        (void)epoll_ctl(p->epoll, EPOLL_CTL_MOD, fd, &event);
    }
    (void)curl_multi_assign(p->multi, fd, p); /* marks it as known */
    return 0;
}

static int
on_timer(CURLM *multi, long timeout_ms, void *arg)
{
    struct poster *p = arg;

    (void)multi;
    p->due_ms = timeout_ms < 0 ? -1 : p->now_ms + (int64_t)timeout_ms;
    return 0;
}

/* A socket that forgets what is unsent when it is closed, so that a killed
 * process delivers nothing more. None for a second sending. */
static curl_socket_t
on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct slot *slot = arg;
    struct linger forget = {.l_onoff = 1, .l_linger = 0};
    int fd;

    (void)purpose;
    if (may_be_sent(slot)) {
        slot->again = true;
        return CURL_SOCKET_BAD;
    }
    fd = socket(address->family, address->socktype | SOCK_CLOEXEC,
                address->protocol);
    if (fd < 0) {
        slot->open_errno = errno;
        return CURL_SOCKET_BAD;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &forget, sizeof(forget));
    if (!add_link(slot->poster, fd, address)) {
        slot->open_errno = ENOMEM;
        (void)close(fd);
        return CURL_SOCKET_BAD;
    }
    return fd;
}

static int
on_close_socket(void *arg, curl_socket_t fd)
{
    struct poster *p = arg;

    for (size_t i = 0; i < p->link_count; i++) {
        if (p->links[i].fd == fd) {
            p->links[i] = p->links[--p->link_count];
            break;
        }
    }
    for (size_t i = 0; i < p->slot_count; i++) {
        if (p->slots[i]->fd == fd) {
            p->slots[i]->fd = -1;
        }
    }
    return close(fd);
}

/* The connection is there, new or reused; the request is written next. */
static int
on_connected(void *arg, char *to, char *from, int to_port, int from_port)
{
    struct slot *slot = arg;
    const struct link *link;

    (void)from;
    if (slot->state == SLOT_WARMING) {
        return CURL_PREREQFUNC_OK;
    }
    if (may_be_sent(slot)) {
        slot->again = true;
        return CURL_PREREQFUNC_ABORT;
    }
    link = find_link(slot->poster, to, to_port, from_port);
    if (link != NULL && is_stale(link, slot->is_tls)) {
        slot->stale = true;
        return CURL_PREREQFUNC_ABORT;
    }
    slot->fd = link == NULL ? -1 : link->fd;
    slot->state = SLOT_ASKING;
    return CURL_PREREQFUNC_OK;
}

/* curl says here what it wrote and read, as soon as it did. */
static int
on_debug(CURL *easy, curl_infotype type, char *data, size_t bytes, void *arg)
{
    struct slot *slot = arg;

    (void)easy;
    (void)data;
    if (type == CURLINFO_HEADER_OUT) {
        slot->sent_header_bytes += bytes;
    } else if (type == CURLINFO_DATA_OUT) {
        slot->sent_body_bytes += bytes;
        if (!slot->is_written && slot->sent_body_bytes >= slot->request_bytes) {
            slot->is_written = true;
            slot->written_ms = slot->poster->now_ms;
        }
    } else if (type == CURLINFO_HEADER_IN && slot->counted_us == 0) {
        slot->counted_us = clock_now_boot_us();
    }
    return 0;
}

static size_t
on_body(char *data, size_t size, size_t count, void *arg)
{
    struct slot *slot = arg;
    size_t bytes = size * count;
    size_t need;

    if (bytes > slot->max_body_bytes - slot->body_bytes) {
        slot->too_long = true;
        return 0; /* ends the transfer */
    }
    need = slot->body_bytes + bytes + 1;
    if (need > slot->body_capacity) {
        char *body = realloc(slot->body, need * 2);

        if (body == NULL) {
            slot->no_memory = true;
            return 0;
        }
        slot->body = body;
        slot->body_capacity = need * 2;
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

/* Of a warm transfer: "the file is at its end". */
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

/* ---- slots --------------------------------------------------------------- */

/* From scratch for each transfer: curl counts its own retries over the life of
 * a handle and then fails. The connections are the multi handle's. */
static bool
set_options(struct slot *slot, const char *url)
{
    CURL *easy = slot->easy;
    CURLcode bad = CURLE_OK;

    curl_easy_reset(easy);
    /* Stays CURLE_OK (0) only if every one is taken. */
    bad |= curl_easy_setopt(easy, CURLOPT_URL, url);
    bad |= curl_easy_setopt(easy, CURLOPT_PRIVATE, slot);
    bad |= curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    /* Else a transfer that ends while its name is looked up waits for the
     * resolver. */
    bad |= curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    bad |= curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
                            (long)CURL_HTTP_VERSION_1_1);
    bad |= curl_easy_setopt(easy, CURLOPT_PROXY, ""); /* none, whatever the
                                                         environment says */
    bad |= curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    bad |= curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    bad |= curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)slot->timeout_ms);
    bad |= curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    bad |= curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_EVERY_S);
    bad |= curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, LIFETIME_S);
    bad |= curl_easy_setopt(easy, CURLOPT_MAXLIFETIME_CONN, LIFETIME_S);
    bad |= curl_easy_setopt(easy, CURLOPT_USERAGENT, "sluice");
    bad |= curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    bad |= curl_easy_setopt(easy, CURLOPT_WRITEDATA, slot);
    bad |= curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    bad |= curl_easy_setopt(easy, CURLOPT_HEADERDATA, slot);
    bad |= curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
    bad |= curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    bad |= curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, slot);
    bad |= curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
    bad |= curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, slot->poster);
    bad |= curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_connected);
    bad |= curl_easy_setopt(easy, CURLOPT_PREREQDATA, slot);
    bad |= curl_easy_setopt(easy, CURLOPT_DEBUGFUNCTION, on_debug);
    bad |= curl_easy_setopt(easy, CURLOPT_DEBUGDATA, slot);
    bad |= curl_easy_setopt(easy, CURLOPT_VERBOSE, 1L); /* for on_debug */
    return bad == CURLE_OK;
}

static bool
add_header(struct slot *slot, const char *line)
{
    struct curl_slist *longer = curl_slist_append(slot->headers, line);

    if (longer == NULL) {
        return false;
    }
    slot->headers = longer;
    return true;
}

static bool
set_request(struct slot *slot, const struct poster_request *request)
{
    CURL *easy = slot->easy;
    CURLcode bad = CURLE_OK;
    char key[POST_KEY_BYTES + 32];

    (void)snprintf(key, sizeof(key), "Idempotency-Key: %s",
                   request->idempotency_key);
    if (!set_options(slot, request->url) ||
        !add_header(slot, "Content-Type: application/json") ||
        !add_header(slot, "Expect:") || /* no waiting for a 100 */
        (request->idempotency_key[0] != '\0' && !add_header(slot, key))) {
        return false;
    }
    bad |= curl_easy_setopt(easy, CURLOPT_HTTPHEADER, slot->headers);
    bad |= curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                            (curl_off_t)request->body_bytes);
    bad |= curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, request->body);
    return bad == CURLE_OK;
}

/* An upload of 1 byte that resumes behind it. */
static bool
set_warm(struct slot *slot, const char *url)
{
    CURL *easy = slot->easy;
    CURLcode bad = CURLE_OK;

    if (!set_options(slot, url)) {
        return false;
    }
    bad |= curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)1);
    bad |= curl_easy_setopt(easy, CURLOPT_RESUME_FROM_LARGE, (curl_off_t)1);
    bad |= curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
    /* Else it finds the idle one that the warm transfer before it left. */
    bad |= curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    return bad == CURLE_OK;
}

static void
slot_free(struct slot *slot)
{
    if (slot->easy != NULL) {
        curl_easy_cleanup(slot->easy);
    }
    curl_slist_free_all(slot->headers);
    free(slot->body);
    free(slot);
}

/* A new slot in the list of free ones; false when there is no memory. */
static bool
add_slot(struct poster *p)
{
    struct slot *slot;

    if (p->slot_count == p->slot_capacity) {
        size_t capacity = p->slot_capacity == 0 ? 64 : p->slot_capacity * 2;
        struct slot **slots = realloc(p->slots, capacity * sizeof(*slots));

        if (slots == NULL) {
            return false;
        }
        p->slots = slots;
        p->slot_capacity = capacity;
    }
    slot = calloc(1, sizeof(*slot));
    if (slot == NULL) {
        return false;
    }
    slot->poster = p;
    slot->fd = -1;
    slot->easy = curl_easy_init();
    if (slot->easy == NULL) {
        slot_free(slot);
        return false;
    }
    p->slots[p->slot_count++] = slot;
    slot->next = p->free;
    p->free = slot;
    return true;
}

/* A free slot as if new, not in the list any more; NULL: no memory. */
static struct slot *
take_slot(struct poster *p)
{
    struct slot *slot;

    if (p->free == NULL && !add_slot(p)) {
        return NULL;
    }
    slot = p->free;
    p->free = slot->next;
    *slot = (struct slot){.easy = slot->easy,
                          .poster = p,
                          .body = slot->body,
                          .body_capacity = slot->body_capacity,
                          .timeout_ms = p->options.timeout_ms,
                          .max_body_bytes = p->options.max_body_bytes,
                          .fd = -1};
    return slot;
}

static void
release(struct poster *p, struct slot *slot)
{
    if (slot->body_capacity > BODY_KEEP_BYTES) {
        free(slot->body);
        slot->body = NULL;
        slot->body_capacity = 0;
    }
    /* The handle points into the list. */
    (void)curl_easy_setopt(slot->easy, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(slot->headers);
    slot->headers = NULL;
    slot->state = SLOT_FREE;
    slot->fd = -1;
    slot->next = p->free;
    p->free = slot;
}

/* ---- a POST's end -------------------------------------------------------- */

static void
tell_counted(struct poster *p, struct slot *slot)
{
    slot->is_told = true;
    if (p->calls.counted != NULL) {
        p->calls.counted(p->arg, slot->tag, slot->counted_us);
    }
}

/* Why it failed, in words that repeat from POST to POST: they are kept,
 * counted and compared. */
static void
say_error(const struct slot *slot, CURLcode code, char out[POST_ERROR_BYTES])
{
    long os_errno = slot->open_errno;
    char text[80];

    if (slot->too_long) {
        (void)snprintf(out, POST_ERROR_BYTES, "the answer is too long");
        return;
    }
    if (slot->no_memory) {
        (void)snprintf(out, POST_ERROR_BYTES, "out of memory");
        return;
    }
    if (slot->again) {
        (void)snprintf(out, POST_ERROR_BYTES,
                       "the connection ended without an answer");
        return;
    }
    if (slot->stale) {
        (void)snprintf(out, POST_ERROR_BYTES,
                       "the peer closed or spoke before the request");
        return;
    }
    if (code == CURLE_OPERATION_TIMEDOUT) {
        (void)snprintf(out, POST_ERROR_BYTES, "%s within %lld ms",
                       slot->state == SLOT_ASKING ? "no whole answer"
                                                  : "no connection",
                       (long long)slot->timeout_ms);
        return;
    }
    if (os_errno == 0) {
        (void)curl_easy_getinfo(slot->easy, CURLINFO_OS_ERRNO, &os_errno);
    }
    if (code == CURLE_COULDNT_CONNECT && os_errno != 0) {
        (void)snprintf(out, POST_ERROR_BYTES, "cannot connect: %s",
                       strerror_r((int)os_errno, text, sizeof(text)));
        return;
    }
    (void)snprintf(out, POST_ERROR_BYTES, "%s", curl_easy_strerror(code));
}

static void
fill_result(struct slot *slot, CURLcode code, struct post_result *result)
{
    curl_off_t total_us = 0;
    long status = 0;

    (void)curl_easy_getinfo(slot->easy, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_getinfo(slot->easy, CURLINFO_TOTAL_TIME_T, &total_us);
    result->tag = slot->tag;
    result->status = status < 200 ? 0 : (int)status;
    result->too_long = slot->too_long;
    result->duration_ms = (int64_t)total_us / 1000;
    if (code == CURLE_OK) {
        result->stage = POST_ANSWERED;
        mark_used(slot->poster, slot->fd);
    } else {
        result->stage = may_be_sent(slot) ? POST_SENT : POST_NOT_SENT;
        say_error(slot, code, result->error);
    }
    result->body = "";
    if (slot->body != NULL) {
        slot->body[slot->body_bytes] = '\0';
        result->body = slot->body;
        result->body_bytes = slot->body_bytes;
    }
}

/* Its connection was good for nothing, and nothing was written: once more, and
 * not on the next idle one. */
static bool
starts_over(struct poster *p, struct slot *slot)
{
    if (!slot->stale || slot->fresh) {
        return false;
    }
    slot->stale = false;
    slot->fresh = true;
    slot->fd = -1;
    slot->state = SLOT_CONNECTING;
    return curl_easy_setopt(slot->easy, CURLOPT_FRESH_CONNECT, 1L) ==
               CURLE_OK &&
           curl_multi_add_handle(p->multi, slot->easy) == CURLM_OK;
}

static void
finish(struct poster *p, struct slot *slot, CURLcode code)
{
    struct post_result result = {0};

    if (slot->state == SLOT_WARMING) {
        p->warming--;
        release(p, slot);
        return;
    }
    if (starts_over(p, slot)) {
        return;
    }
    fill_result(slot, code, &result);
    p->in_flight--; /* so that the calls may start the next one */
    if (result.stage != POST_NOT_SENT) {
        if (slot->counted_us == 0) {
            slot->counted_us = clock_now_boot_us();
        }
        result.counted_us = slot->counted_us;
        if (!slot->is_told) {
            tell_counted(p, slot);
        }
    }
    p->calls.done(p->arg, &result);
    release(p, slot);
}

static void
reap(struct poster *p)
{
    for (;;) {
        int left = 0;
        CURLMsg *message = curl_multi_info_read(p->multi, &left);
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
        (void)curl_multi_remove_handle(p->multi, easy);
        finish(p, slot, code);
    }
}

/* ---- driving ------------------------------------------------------------- */

/* Everything was written: did the peer's kernel take it? */
static bool
is_acknowledged(const struct slot *slot)
{
    int unacknowledged_bytes = 0;

    return slot->fd >= 0 &&
           ioctl(slot->fd, SIOCOUTQ, &unacknowledged_bytes) == 0 &&
           unacknowledged_bytes == 0;
}

/* Tell what is known of the requests under way. Returns ms until the next
 * look, -1: none waits. Out of curl's callbacks: those told may start POSTs. */
static int64_t
look_at_acknowledgements(struct poster *p)
{
    int64_t look_ms = -1;

    for (size_t i = 0; i < p->slot_count && p->in_flight > 0; i++) {
        struct slot *slot = p->slots[i];
        int64_t wait_ms;

        if (slot->state != SLOT_ASKING || slot->is_told) {
            continue;
        }
        if (slot->counted_us == 0 && slot->is_written &&
            is_acknowledged(slot)) {
            slot->counted_us = clock_now_boot_us();
        }
        if (slot->counted_us != 0) {
            tell_counted(p, slot);
            continue;
        }
        if (!slot->is_written || slot->fd < 0) {
            continue;
        }
        /* Often at first, as a peer that is gone may take minutes. */
        wait_ms = (p->now_ms - slot->written_ms) / 16;
        wait_ms = wait_ms < ACK_POLL_MIN_MS ? ACK_POLL_MIN_MS : wait_ms;
        wait_ms = wait_ms > ACK_POLL_MAX_MS ? ACK_POLL_MAX_MS : wait_ms;
        look_ms = look_ms < 0 || wait_ms < look_ms ? wait_ms : look_ms;
    }
    return look_ms;
}

static void
run_timer(struct poster *p)
{
    int running = 0;

    if (p->due_ms >= 0 && p->due_ms <= p->now_ms) {
        p->due_ms = -1;
        (void)curl_multi_socket_action(p->multi, CURL_SOCKET_TIMEOUT, 0,
                                       &running);
    }
}

static int
run_sockets(struct poster *p)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(p->epoll, events, EVENTS, 0);

    for (int i = 0; i < count; i++) {
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
        (void)curl_multi_socket_action(p->multi, events[i].data.fd, what,
                                       &running);
    }
    return count;
}

int64_t
poster_drive(struct poster *p, int64_t now_ms)
{
    int64_t look_ms;
    int64_t due_ms;

    p->now_ms = now_ms;
    for (int round = 0; round < ROUNDS; round++) {
        int count;

        run_timer(p); /* starts what is new, too */
        count = run_sockets(p);
        reap(p);
        if (count < EVENTS && (p->due_ms < 0 || p->due_ms > now_ms)) {
            break;
        }
    }
    look_ms = look_at_acknowledgements(p); /* may start some */
    if (p->due_ms < 0) {
        return look_ms;
    }
    due_ms = p->due_ms > now_ms ? p->due_ms - now_ms : 0;
    return look_ms >= 0 && look_ms < due_ms ? look_ms : due_ms;
}

/* ---- starting ------------------------------------------------------------ */

/* "http://host..." or "https://host...", without blanks and controls. */
static bool
is_url(const char *url)
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

/* "" or visible ASCII: no header can be smuggled in. */
static bool
is_key(const char *key)
{
    size_t bytes = strlen(key);

    for (size_t i = 0; i < bytes; i++) {
        if (key[i] <= ' ' || key[i] > '~') {
            return false;
        }
    }
    return bytes < POST_KEY_BYTES;
}

enum rc
poster_start(struct poster *p, const struct poster_request *request)
{
    struct slot *slot;

    if (!is_url(request->url) || !is_key(request->idempotency_key) ||
        request->body_bytes == 0) {
        return RC_INVALID;
    }
    if (p->in_flight >= p->options.concurrency) {
        return RC_FULL;
    }
    slot = take_slot(p);
    if (slot == NULL) {
        return RC_AGAIN;
    }
    slot->tag = request->tag;
    slot->request_bytes = request->body_bytes;
    slot->is_tls = request->url[4] == 's';
    if (!set_request(slot, request) ||
        curl_multi_add_handle(p->multi, slot->easy) != CURLM_OK) {
        release(p, slot);
        return RC_AGAIN;
    }
    slot->state = SLOT_CONNECTING;
    p->in_flight++;
    return RC_OK;
}

void
poster_warm(struct poster *p, const char *url, size_t count)
{
    size_t most = p->options.concurrency - p->in_flight;
    size_t have = 0;

    if (!is_url(url) || p->in_flight > p->options.concurrency ||
        p->warming > 0) {
        return;
    }
    for (size_t i = 0; i < p->link_count; i++) {
        have += !has_ended(&p->links[i]);
    }
    /* Those in flight use a connection each, or will. */
    have = have > p->in_flight ? have - p->in_flight : 0;
    count = count < most ? count : most;
    for (; have < count; have++) {
        struct slot *slot = take_slot(p);

        if (slot == NULL) {
            return;
        }
        if (!set_warm(slot, url) ||
            curl_multi_add_handle(p->multi, slot->easy) != CURLM_OK) {
            release(p, slot);
            return;
        }
        slot->state = SLOT_WARMING;
        p->warming++;
    }
}

/* ---- life ---------------------------------------------------------------- */

void
poster_set(struct poster *p, const struct poster_options *options)
{
    p->options = *options;
    (void)curl_multi_setopt(p->multi, CURLMOPT_MAXCONNECTS,
                            (long)options->concurrency);
}

static bool
set_multi(struct poster *p)
{
    CURLMcode bad = CURLM_OK;

    bad |= curl_multi_setopt(p->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    bad |= curl_multi_setopt(p->multi, CURLMOPT_SOCKETDATA, p);
    bad |= curl_multi_setopt(p->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    bad |= curl_multi_setopt(p->multi, CURLMOPT_TIMERDATA, p);
    bad |= curl_multi_setopt(p->multi, CURLMOPT_PIPELINING,
                             (long)CURLPIPE_NOTHING);
    return bad == CURLM_OK;
}

enum rc
poster_new(struct poster **out, const struct poster_options *options,
           const struct poster_calls *calls, void *arg)
{
    struct poster *p = NULL;
    enum rc rc = RC_NOMEM;

    *out = NULL;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return RC_NOMEM;
    }
    p = calloc(1, sizeof(*p));
    if (p == NULL) {
        curl_global_cleanup();
        goto out;
    }
    p->calls = *calls;
    p->arg = arg;
    p->due_ms = -1;
    p->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (p->epoll < 0) {
        rc = RC_IO;
        goto out;
    }
    p->multi = curl_multi_init();
    if (p->multi == NULL || !set_multi(p)) {
        goto out;
    }
    poster_set(p, options);
    *out = p;
    p = NULL;
    rc = RC_OK;
out:
    poster_free(&p);
    return rc;
}

void
poster_free(struct poster **p_out)
{
    struct poster *p = *p_out;

    *p_out = NULL;
    if (p == NULL) {
        return;
    }
    for (size_t i = 0; i < p->slot_count; i++) {
        struct slot *slot = p->slots[i];

        if (slot->state != SLOT_FREE) {
            (void)curl_multi_remove_handle(p->multi, slot->easy);
        }
    }
    while (p->slot_count > 0) {
        slot_free(p->slots[--p->slot_count]);
    }
    if (p->multi != NULL) {
        (void)curl_multi_cleanup(p->multi); /* closes through p */
    }
    if (p->epoll >= 0) {
        (void)close(p->epoll);
    }
    free(p->slots);
    free(p->links);
    free(p);
    curl_global_cleanup();
}

size_t
poster_in_flight(const struct poster *p)
{
    return p->in_flight;
}

int
poster_fd(const struct poster *p)
{
    return p->epoll;
}
