/* One request with its reply, on its way through the edge: taken from the
 * loop's stock, passed between loop and pools, and put back. Whoever holds the
 * pointer owns all of it; queues pass it on. */
#ifndef SLUICE_FCGI_EXCHANGE_H
#define SLUICE_FCGI_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fcgi/edge.h"
#include "fcgi/edge_read.h"
#include "fcgi/records.h"
#include "shared/hash.h"

struct conn;

/* What a pool has made of it. */
enum exchange_outcome {
    EXCHANGE_READ,    /* side pool: whole; params and body are set */
    EXCHANGE_REFUSED, /* side pool: reply says why (408, 413, 431) */
    EXCHANGE_SENT,    /* ask pool: answered */
    EXCHANGE_GONE,    /* the peer is gone or broke the protocol */
};

struct exchange {
    struct exchange *next; /* in a list or queue */
    struct conn *conn;     /* the loop's; others leave it alone */
    int fd;                /* of the connection */
    int64_t deadline_ms;   /* side pool: the request must be whole by then;
                              behind edge.max_per_s: its turn comes then */
    enum exchange_outcome outcome;
    struct records walk;
    bool keep;       /* the connection serves more requests afterwards */
    bool extra;      /* unread bytes stand behind the request */
    bool head_only;  /* HEAD */
    bool has_params; /* side pool: of a refused request: params are set */

    struct edge_params params;
    struct edge_body body;
    char path[REQUEST_PATH_BYTES];
    struct request request;
    const struct edge_route *route;
    struct reply reply;
    struct text wire; /* incoming in the side pool, outgoing later */
    size_t sent;      /* of wire */

    struct text record; /* journal form */
    char key[JOURNAL_KEY_BYTES_MAX];
    size_t key_bytes;    /* 0: none */
    int64_t key_kept_ms; /* 0: as long as any */
    uint8_t hash[HASH_BYTES];
};

enum rc exchange_new(struct exchange **out) MUST_CHECK;
void exchange_free(struct exchange **ex);

/* Ready for the next request; large buffers are given back. */
void exchange_reset(struct exchange *ex);

/* First in, first out; {0} is empty. */
struct exchange_list {
    struct exchange *first;
    struct exchange *last;
    size_t count;
};
void exchange_list_add(struct exchange_list *list, struct exchange *ex);
struct exchange *exchange_list_take(struct exchange_list *list);

#endif
