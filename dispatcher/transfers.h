/* HTTP transfers on curl_multi and one epoll: what the fetcher and the poster
 * have in common. It owns curl (no other file includes it), the sockets' epoll,
 * curl's timers, and the transfers, which are used again and again with all
 * that they have allocated. What a transfer is for, which may start, and what
 * an end means is its user's. Knows no service. One thread; no call blocks.
 *
 *     transfers_new(&ts, &options);             // options.calls: see below
 *     t = transfers_take(ts);                   // mine, with transfers_state
 *     transfers_prepare(t, &request);           // everything is copied
 *     transfers_start(t, &bounds);              // with curl from here on
 *     do more = transfers_run(ts, now_ms);      // calls.ended(arg, t, &result)
 *     while (more, but not without end);
 *     poll transfers_fd(ts) for transfers_wait_ms(ts)
 *
 * calls.ended gives t back: it calls transfers_release(t), or transfers_start
 * for another try, then or later. Nothing is followed (no redirect), and
 * nothing is taken from the environment (no proxy, no .netrc). */
#ifndef SLUICE_DISPATCHER_TRANSFERS_H
#define SLUICE_DISPATCHER_TRANSFERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "shared/rc.h"

struct transfers;
struct transfer;

struct transfer_request {
    const char *url;            /* transfers_is_url */
    const char *const *headers; /* "Name: value" lines without CR or LF, and
                                   NULL behind them; NULL: no more */
    const char *body;           /* a POST of it; NULL: a GET */
    size_t body_bytes;
    bool only_connects; /* neither: opens a connection, sends nothing, and
                           leaves it idle; its end is no answer (!ok) */
};

struct transfer_bounds {
    int64_t timeout_ms;    /* from transfers_start to its end; > 0 */
    size_t max_body_bytes; /* of the answer */
    bool is_fresh;         /* on a new connection, whatever is idle */
};

struct transfer_result {
    bool ok;           /* a whole answer came, whatever its status */
    bool too_long;     /* more than max_body_bytes, or than 32 KiB of headers */
    bool is_short;     /* of descriptors or memory for a socket here: nothing
                          was asked, and it is not the peer's fault */
    int status;        /* of the last HTTP header that came; 0: none did */
    const char *body;  /* never NULL; NUL behind it; lives for the call */
    size_t body_bytes; /* 0..max_body_bytes */
    int64_t duration_ms;
    const char *error; /* why not ok, < 160 bytes, in words that repeat from
                          transfer to transfer; else ""; lives for the call */
};

enum transfer_part {
    TRANSFER_HEADER_SENT,
    TRANSFER_BODY_SENT,
    TRANSFER_HEADER_CAME /* of the answer */
};

/* All are called from transfers_run, and closed from transfers_start and
 * transfers_free, too. All but ended may be NULL, and may call no more than
 * transfers_state. */
struct transfers_calls {
    /* A socket is wanted. False: no, and so the transfer ends. */
    bool (*may_open)(void *arg, struct transfer *t);
    /* fd was made, and will be connected to the address. False: no memory. */
    bool (*opened)(void *arg, int fd, const struct sockaddr *to,
                   size_t to_bytes);
    /* fd is about to be closed. */
    void (*closed)(void *arg, int fd);
    /* There is a connection, new or idle before, to the address `to`, and the
     * request is written next: a second time when curl sends it again, as it
     * does if an idle connection ends without a byte of an answer. False: no,
     * and so the transfer ends. */
    bool (*connected)(void *arg, struct transfer *t, const char *to,
                      int to_port, int from_port);
    /* bytes were written or read, at once and in order. Costs curl the writing
     * of a log; NULL where it must be fast. */
    void (*moved)(void *arg, struct transfer *t, enum transfer_part part,
                  size_t bytes);
    /* It ended. May take, start and release this one and others. */
    void (*ended)(void *arg, struct transfer *t,
                  const struct transfer_result *result);
};

struct transfers_options {
    unsigned shards;    /* curl multi handles, 1..256; hundreds of transfers
                           to one host want more than one: see transfers.c */
    size_t state_bytes; /* of the user's own in each transfer */
    bool stays_warm;    /* idle connections stay open for 10 minutes by TCP
                           keepalive; else they are used for 2 */
    struct transfers_calls calls;
    void *arg; /* handed to each call */
};

/* RC_NOMEM, or RC_IO: no epoll. */
enum rc transfers_new(struct transfers **out,
                      const struct transfers_options *options) MUST_CHECK;
/* Started ones are dropped without calls.ended, connections are closed. */
void transfers_free(struct transfers **ts);

/* Keep at most count idle connections, rounded up to the same number in each
 * shard. */
void transfers_keep(struct transfers *ts, size_t count);

/* "http://host..." or "https://host...", without blanks and controls? Any
 * thread. */
bool transfers_is_url(const char *url);

/* One to prepare, the last that was released, its state all zeros. NULL: no
 * memory. It is ts's memory, and the caller's to use until it is released. */
struct transfer *transfers_take(struct transfers *ts);
/* Not one that is started. */
void transfers_release(struct transfer *t);

/* The user's state_bytes, aligned for anything, at this place until
 * transfers_free. */
void *transfers_state(struct transfer *t);
/* How many transfers there are, released ones, too: a number that only grows;
 * and the state of each, 0 <= i < count. */
size_t transfers_count(const struct transfers *ts);
void *transfers_state_at(struct transfers *ts, size_t i);

/* What it is to ask; copied. RC_AGAIN: no memory just now; release it. */
enum rc transfers_prepare(struct transfer *t,
                          const struct transfer_request *request) MUST_CHECK;
/* Hand it to curl; it connects or is sent in the next transfers_run. RC_AGAIN:
 * no memory just now; it is not started, and calls.ended is not called. */
enum rc transfers_start(struct transfer *t,
                        const struct transfer_bounds *bounds) MUST_CHECK;

/* The epoll descriptor: readable when transfers_run has something to do. */
int transfers_fd(const struct transfers *ts);
/* Drive what is due or readable at monotonic now_ms, some hundred sockets at
 * most. True: more waits already. */
bool transfers_run(struct transfers *ts, int64_t now_ms);
/* ms from the last now_ms until transfers_run must be called whatever happens;
 * -1: never. */
int64_t transfers_wait_ms(const struct transfers *ts);

#endif
