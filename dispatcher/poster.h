/* POSTs for upstreams where it matters whether a request left and when it was
 * counted: each result says if a byte of it can have reached the peer, and no
 * request is ever sent twice. Few transfers, warm connections. Knows no
 * service. One thread.
 *
 *     poster_new(&p, &options, &calls, service);
 *     poster_warm(p, url, 64);
 *     poster_start(p, &request);
 *     for (;;) {
 *         wait_ms = poster_drive(p, clock_now_ms());  // counted, then done
 *         poll poster_fd(p) for wait_ms
 *     } */
#ifndef SLUICE_DISPATCHER_POSTER_H
#define SLUICE_DISPATCHER_POSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/rc.h"

#define POST_ERROR_BYTES 160
#define POST_KEY_BYTES 256 /* an idempotency key with its NUL, at most */
#define POST_HEADER_BYTES                                                      \
    1024 /* one more header line with its NUL, at most                         \
          */

struct poster;

struct poster_options {
    size_t concurrency;    /* POSTs at once, 1..10000; typically 64 */
    int64_t timeout_ms;    /* of one POST, from its start; > 0 */
    size_t max_body_bytes; /* of an answer; a longer one is an error */
};

struct poster_request {
    const char *url; /* "http://..." or "https://..." */
    const char *body;
    size_t body_bytes;           /* > 0; taken as application/json */
    const char *idempotency_key; /* visible ASCII; "": no such header */
    const char *header; /* one more header line, "X-Signature: ...", or NULL;
                           printable ASCII; copied */
    uint64_t tag;
};

enum post_stage {
    POST_NOT_SENT, /* certain: no byte of the request reached the peer */
    POST_SENT,     /* something was written, no whole answer came: ambiguous */
    POST_ANSWERED, /* a whole answer came, whatever its status */
};

struct post_result {
    uint64_t tag; /* as given to poster_start */
    enum post_stage stage;
    int status;       /* HTTP status, 0 = none came; may be known before the
                         answer is whole, so with POST_SENT, too */
    const char *body; /* NUL behind it; lives for the call */
    size_t body_bytes;
    bool too_long; /* the answer exceeded max_body_bytes (POST_SENT) */
    int64_t duration_ms;
    int64_t counted_us;           /* see poster_counted_fn; 0: POST_NOT_SENT */
    char error[POST_ERROR_BYTES]; /* why not POST_ANSWERED; else "" */
};

/* The latest moment (CLOCK_BOOTTIME in us) at which the network can have
 * brought the whole request to the peer. In this order: when the kernel had
 * every byte acknowledged; the first byte of an answer; the POST's end. It is
 * late by one poll (1-5 ms) and by the peer's delayed acknowledgement (40 ms).
 * What the peer's kernel has acknowledged its program may read later still:
 * that is for the limiter's guard. Behind TLS or a proxy at the peer's side it
 * is the acknowledgement of whoever ends the TCP connection.
 *
 * Called from poster_drive once for each POST that may have been sent, before
 * its poster_done_fn, mostly long before. May call poster_start. */
typedef void poster_counted_fn(void *arg, uint64_t tag, int64_t counted_us);

/* Called from poster_drive for each POST that ended. May call
 * poster_start. */
typedef void poster_done_fn(void *arg, const struct post_result *result);

struct poster_calls {
    poster_counted_fn *counted; /* NULL: nobody asks */
    poster_done_fn *done;
};

enum rc poster_new(struct poster **out, const struct poster_options *options,
                   const struct poster_calls *calls, void *arg) MUST_CHECK;
/* POSTs in flight are dropped without a call, and what the kernel still holds
 * of them is not delivered. */
void poster_free(struct poster **p);

/* New bounds; POSTs in flight go on with the old ones. */
void poster_set(struct poster *p, const struct poster_options *options);

/* Start a POST; it leaves in the next poster_drive. The request is copied.
 * RC_FULL: concurrency POSTs are in flight; RC_AGAIN: no memory just now;
 * RC_INVALID: not a URL, no body, or a key or header that is none. */
enum rc poster_start(struct poster *p,
                     const struct poster_request *request) MUST_CHECK;

/* Have count idle connections (with those in flight at most concurrency) to
 * the URL's host, so that no connect and no TLS handshake sits before a
 * request. Sends nothing, and is best effort: one that cannot be opened is not
 * missed, and a call does nothing while connections of an earlier one are
 * being opened. They are open some drives later. Call it again from time to
 * time, as peers close what is idle. All connections are taken to be the same
 * host's. */
void poster_warm(struct poster *p, const char *url, size_t count);

size_t poster_in_flight(const struct poster *p);
/* The epoll descriptor: readable when poster_drive has something to do. */
int poster_fd(const struct poster *p);
/* Drive all transfers. Returns ms until it must be called again (-1: none);
 * 1..5 while a written request is not acknowledged. */
int64_t poster_drive(struct poster *p, int64_t now_ms);

#endif
