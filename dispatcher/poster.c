/* POSTs on the transfers' engine.
 *
 * Never twice. curl (7.88: Curl_retry_request) sends a request again by itself
 * when a reused connection ended without a byte of an answer, and the peer may
 * well have acted on it. Each sending passes on_connected: the second one is
 * refused there once a byte was written, and may_open refuses to connect for
 * it. If nothing was written yet, curl may try again.
 *
 * Never another's answer. curl takes an idle connection with unread bytes for
 * a living one: a 408 with which a server closes it would be the answer to the
 * next POST, and behind TLS's close_notify the next POST would be lost without
 * anybody knowing. on_connected looks for them, and the POST starts over on a
 * fresh connection.
 *
 * Warm connections. Every request counts with the peer, so a warm transfer
 * only connects. */
#include "dispatcher/poster.h"

#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "dispatcher/poster_links.h"
#include "dispatcher/transfers.h"
#include "shared/clock.h"

#define ROUNDS 8 /* of events, in one drive: then the others get a turn */
#define ACK_POLL_MIN_MS 1
#define ACK_POLL_MAX_MS 5
/* What surely fits into one TLS record with its headers: a record that was
 * written in part says nothing to the peer. */
#define TLS_RECORD_BYTES ((size_t)8 * 1024)

enum slot_state {
    SLOT_FREE,
    SLOT_CONNECTING,
    SLOT_ASKING, /* the request is being or has been written */
    SLOT_WARMING /* no POST: opens a connection */
};

struct slot {
    struct transfer *transfer;
    struct transfer_bounds bounds;
    uint64_t tag;
    size_t request_bytes; /* the body to be sent */
    size_t sent_header_bytes;
    size_t sent_body_bytes;
    int64_t written_ms; /* since when it waits for the acknowledgement */
    int64_t counted_us; /* 0: not known yet */
    enum slot_state state;
    int fd;          /* of its connection; -1: none or not known */
    bool is_tls;     /* https */
    bool is_written; /* completely */
    bool is_told;    /* counted_us was reported */
    bool again;      /* curl wanted to send it a second time */
    bool stale;      /* its connection held bytes that nobody asked for */
};

struct poster {
    struct poster_options options;
    struct poster_calls calls;
    void *arg;
    struct transfers *transfers;
    struct poster_links links;
    int64_t now_ms;
    size_t in_flight;
    size_t warming;
};

/* Can a byte of the request have reached the peer? */
static bool
may_be_sent(const struct slot *slot)
{
    return slot->sent_header_bytes > 0 ||
           (slot->is_tls && slot->state == SLOT_ASKING &&
            slot->request_bytes > TLS_RECORD_BYTES);
}

/* A free slot as if new; NULL: no memory. */
static struct slot *
take_slot(struct poster *p)
{
    struct transfer *t = transfers_take(p->transfers);
    struct slot *slot;

    if (t == NULL) {
        return NULL;
    }
    slot = transfers_state(t);
    slot->transfer = t;
    slot->bounds =
        (struct transfer_bounds){.timeout_ms = p->options.timeout_ms,
                                 .max_body_bytes = p->options.max_body_bytes};
    slot->fd = -1;
    return slot;
}

static void
release(struct slot *slot)
{
    slot->state = SLOT_FREE;
    slot->fd = -1;
    transfers_release(slot->transfer);
}

/* ---- what the engine calls ----------------------------------------------- */

/* None for a second sending. */
static bool
may_open(void *arg, struct transfer *t)
{
    struct slot *slot = transfers_state(t);

    (void)arg;
    slot->again |= may_be_sent(slot);
    return !slot->again;
}

/* It forgets what is unsent when it is closed, so that a killed process
 * delivers nothing more. */
static bool
on_opened(void *arg, int fd, const struct sockaddr *to, size_t to_bytes)
{
    struct poster *p = arg;
    struct linger forget = {.l_onoff = 1, .l_linger = 0};

    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &forget, sizeof(forget));
    return poster_links_add(&p->links, fd, to, to_bytes);
}

static void
on_closed(void *arg, int fd)
{
    struct poster *p = arg;
    struct slot *slot = poster_links_remove(&p->links, fd);

    /* It may be at another connection by now. */
    if (slot != NULL && slot->fd == fd) {
        slot->fd = -1;
    }
}

/* The connection is there, new or reused; the request is written next. */
static bool
on_connected(void *arg, struct transfer *t, const char *to, int to_port,
             int from_port)
{
    struct poster *p = arg;
    struct slot *slot = transfers_state(t);
    struct poster_link *link;

    if (slot->state == SLOT_WARMING) {
        return true;
    }
    if (may_be_sent(slot)) {
        slot->again = true;
        return false;
    }
    slot->fd = -1;
    link = poster_links_find(&p->links, to, to_port, from_port);
    if (link != NULL) {
        if (poster_links_is_stale(link, slot->is_tls)) {
            slot->stale = true;
            return false;
        }
        link->user = slot;
        slot->fd = link->fd;
    }
    slot->state = SLOT_ASKING;
    return true;
}

static void
on_moved(void *arg, struct transfer *t, enum transfer_part part, size_t bytes)
{
    const struct poster *p = arg;
    struct slot *slot = transfers_state(t);

    switch (part) {
    case TRANSFER_HEADER_SENT:
        slot->sent_header_bytes += bytes;
        break;
    case TRANSFER_BODY_SENT:
        slot->sent_body_bytes += bytes;
        if (!slot->is_written && slot->sent_body_bytes >= slot->request_bytes) {
            slot->is_written = true;
            slot->written_ms = p->now_ms;
        }
        break;
    case TRANSFER_HEADER_CAME:
        if (slot->counted_us == 0) {
            slot->counted_us = clock_now_boot_us();
        }
        break;
    }
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

static const char *
say_error(const struct slot *slot, const struct transfer_result *got)
{
    if (got->ok || got->too_long) {
        return got->error;
    }
    if (slot->again) {
        return "the connection ended without an answer";
    }
    if (slot->stale) {
        return "the peer closed or spoke before the request";
    }
    return got->error;
}

static enum post_stage
stage_of(const struct slot *slot, const struct transfer_result *got)
{
    if (got->ok) {
        return POST_ANSWERED;
    }
    return may_be_sent(slot) ? POST_SENT : POST_NOT_SENT;
}

/* Its connection was good for nothing, and nothing was written: once more, and
 * not on the next idle one. */
static bool
starts_over(struct slot *slot)
{
    if (!slot->stale || slot->bounds.is_fresh) {
        return false;
    }
    slot->stale = false;
    slot->bounds.is_fresh = true;
    slot->fd = -1;
    slot->state = SLOT_CONNECTING;
    return transfers_start(slot->transfer, &slot->bounds) == RC_OK;
}

static void
end_post(struct poster *p, struct slot *slot, const struct transfer_result *got)
{
    struct post_result result = {.tag = slot->tag,
                                 .stage = stage_of(slot, got),
                                 .status = got->status < 200 ? 0 : got->status,
                                 .body = got->body,
                                 .body_bytes = got->body_bytes,
                                 .too_long = got->too_long,
                                 .duration_ms = got->duration_ms};

    (void)snprintf(result.error, sizeof(result.error), "%s",
                   say_error(slot, got));
    if (got->ok) {
        poster_links_used(&p->links, slot->fd);
    }
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
    release(slot);
}

static void
on_ended(void *arg, struct transfer *t, const struct transfer_result *got)
{
    struct poster *p = arg;
    struct slot *slot = transfers_state(t);

    if (slot->state == SLOT_WARMING) {
        p->warming--;
        release(slot);
    } else if (!starts_over(slot)) {
        end_post(p, slot, got);
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

    for (size_t i = 0; p->in_flight > 0 && i < transfers_count(p->transfers);
         i++) {
        struct slot *slot = transfers_state_at(p->transfers, i);
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

int64_t
poster_drive(struct poster *p, int64_t now_ms)
{
    int64_t look_ms;
    int64_t wait_ms;

    p->now_ms = now_ms;
    for (int round = 0; round < ROUNDS; round++) {
        if (!transfers_run(p->transfers, now_ms)) {
            break;
        }
    }
    look_ms = look_at_acknowledgements(p); /* may start some */
    wait_ms = transfers_wait_ms(p->transfers);
    if (wait_ms < 0) {
        return look_ms;
    }
    return look_ms >= 0 && look_ms < wait_ms ? look_ms : wait_ms;
}

/* ---- starting ------------------------------------------------------------ */

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

/* NULL or one "Name: value" of ASCII. Without a value it would tell curl to
 * leave its own header of that name out. */
static bool
is_header(const char *line)
{
    size_t name_bytes;
    const char *value;

    if (line == NULL) {
        return true;
    }
    name_bytes = strcspn(line, ": ");
    if (name_bytes == 0 || line[name_bytes] != ':') {
        return false;
    }
    value = line + name_bytes + 1;
    for (const char *c = line; *c != '\0'; c++) {
        if (*c < ' ' || *c > '~') {
            return false;
        }
    }
    return value[strspn(value, " ")] != '\0' &&
           strlen(line) < POST_HEADER_BYTES;
}

static enum rc
prepare(struct slot *slot, const struct poster_request *request)
{
    char key[POST_KEY_BYTES + 32];
    const char *headers[4] = {"Content-Type: application/json"};
    size_t count = 1;
    const struct transfer_request post = {.url = request->url,
                                          .headers = headers,
                                          .body = request->body,
                                          .body_bytes = request->body_bytes};

    if (request->idempotency_key[0] != '\0') {
        (void)snprintf(key, sizeof(key), "Idempotency-Key: %s",
                       request->idempotency_key);
        headers[count++] = key;
    }
    headers[count] = request->header;
    return transfers_prepare(slot->transfer, &post);
}

enum rc
poster_start(struct poster *p, const struct poster_request *request)
{
    struct slot *slot;

    if (!transfers_is_url(request->url) || !is_key(request->idempotency_key) ||
        !is_header(request->header) || request->body_bytes == 0) {
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
    if (prepare(slot, request) != RC_OK ||
        transfers_start(slot->transfer, &slot->bounds) != RC_OK) {
        release(slot);
        return RC_AGAIN;
    }
    slot->state = SLOT_CONNECTING;
    p->in_flight++;
    return RC_OK;
}

void
poster_warm(struct poster *p, const char *url, size_t count)
{
    const struct transfer_request request = {.url = url, .only_connects = true};
    size_t most = p->options.concurrency - p->in_flight;
    size_t have;

    if (!transfers_is_url(url) || p->in_flight > p->options.concurrency ||
        p->warming > 0) {
        return;
    }
    have = poster_links_alive(&p->links);
    /* Those in flight use a connection each, or will. */
    have = have > p->in_flight ? have - p->in_flight : 0;
    count = count < most ? count : most;
    for (; have < count; have++) {
        struct slot *slot = take_slot(p);

        if (slot == NULL) {
            return;
        }
        /* Else it finds the idle one that the one before it left. */
        slot->bounds.is_fresh = true;
        if (transfers_prepare(slot->transfer, &request) != RC_OK ||
            transfers_start(slot->transfer, &slot->bounds) != RC_OK) {
            release(slot);
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
    transfers_keep(p->transfers, options->concurrency);
}

enum rc
poster_new(struct poster **out, const struct poster_options *options,
           const struct poster_calls *calls, void *arg)
{
    struct poster *p = calloc(1, sizeof(*p));
    const struct transfers_options engine = {
        .shards = 1,
        .state_bytes = sizeof(struct slot),
        .stays_warm = true,
        .calls = {.may_open = may_open,
                  .opened = on_opened,
                  .closed = on_closed,
                  .connected = on_connected,
                  .moved = on_moved,
                  .ended = on_ended},
        .arg = p};
    enum rc rc = RC_NOMEM;

    *out = NULL;
    if (p == NULL) {
        goto out;
    }
    p->calls = *calls;
    p->arg = arg;
    rc = transfers_new(&p->transfers, &engine);
    if (rc != RC_OK) {
        goto out;
    }
    poster_set(p, options);
    *out = p;
    p = NULL;
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
    transfers_free(&p->transfers); /* closes through p */
    poster_links_free(&p->links);
    free(p);
}

size_t
poster_in_flight(const struct poster *p)
{
    return p->in_flight;
}

int
poster_fd(const struct poster *p)
{
    return transfers_fd(p->transfers);
}
