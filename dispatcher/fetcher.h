/* A pool of HTTP GETs: bounded concurrency, reused connections, bounded
 * answers. Knows no service. One thread. */
#ifndef SLUICE_DISPATCHER_FETCHER_H
#define SLUICE_DISPATCHER_FETCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/rc.h"

#define FETCH_ERROR_BYTES 160

struct fetcher;

struct fetcher_options {
    size_t concurrency;    /* GETs at once, 1..20000 */
    int64_t timeout_ms;    /* of one GET, from its start */
    size_t max_body_bytes; /* a longer answer is an error */
};

struct fetch_result {
    uint64_t tag;     /* as given to fetcher_start */
    int status;       /* HTTP status; 0 = no answer */
    bool ok;          /* a whole answer came (any status) */
    bool too_long;    /* the answer exceeded max_body_bytes */
    const char *body; /* NUL behind it; lives for the call */
    size_t body_bytes;
    int64_t duration_ms;
    char error[FETCH_ERROR_BYTES]; /* why not ok; else "" */
};

/* Called from fetcher_drive for each GET that ended. May call
 * fetcher_start. */
typedef void fetcher_done_fn(void *arg, const struct fetch_result *result);

enum rc fetcher_new(struct fetcher **out, const struct fetcher_options *options,
                    fetcher_done_fn *done, void *arg) MUST_CHECK;
/* GETs in flight are dropped without a call. */
void fetcher_free(struct fetcher **f);

/* New bounds; GETs in flight above a lower concurrency go on, and those that
 * were driven already keep their old bounds. */
void fetcher_set(struct fetcher *f, const struct fetcher_options *options);

/* Start a GET. RC_FULL: concurrency GETs are in flight; RC_AGAIN: no
 * descriptors or memory just now; RC_INVALID: not a URL. */
enum rc fetcher_start(struct fetcher *f, const char *url,
                      uint64_t tag) MUST_CHECK;

size_t fetcher_in_flight(const struct fetcher *f);
/* The epoll descriptor: readable when fetcher_drive has something to do. */
int fetcher_fd(const struct fetcher *f);
/* Drive all transfers. Returns ms until it must be called again (-1: none). */
int64_t fetcher_drive(struct fetcher *f, int64_t now_ms);

#endif
