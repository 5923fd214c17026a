/* One transfer: what its easy handle is told, what that calls, and what its end
 * says.
 *
 * A CONNECT_ONLY connection does not go back to the cache. So a transfer that
 * only connects is an upload that claims to be complete already: curl connects,
 * finds out before the first byte of the request ("File already completely
 * uploaded", CURLE_PARTIAL_FILE), and keeps the connection. The poster's tests
 * hold curl to it. */
#include "dispatcher/transfers_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RECEIVE_BYTES 1024L /* curl's smallest buffer */
#define BODY_FIRST_BYTES 128U
#define HEADER_MAX_BYTES ((size_t)32 * 1024)
#define ERROR_BYTES 160
#define LIFETIME_S 600L /* of a connection: a changed DNS entry is followed */
#define KEEPALIVE_IDLE_S 30L
#define KEEPALIVE_EVERY_S 10L

/* ---- what curl calls ----------------------------------------------------- */

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

/* A transfer that failed before it had a connection (a URL that curl cannot
 * take apart) leaves its buffer in the handle, which survives curl_easy_reset
 * and from then on refuses CURLOPT_BUFFERSIZE (7.88). */
static bool
replace_easy(struct transfer *t)
{
    CURL *fresh = curl_easy_init();

    if (fresh == NULL) {
        return false;
    }
    curl_easy_cleanup(t->easy);
    t->easy = fresh;
    return set_options(t);
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
    if (t->is_worn) {
        t->is_worn = !replace_easy(t);
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

/* ---- its end ---------------------------------------------------------------
 */

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

void
transfers_end(struct transfer *t, CURLcode code)
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
