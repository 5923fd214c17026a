/* Between transfers.c and transfers_easy.c, and nobody else. */
#ifndef SLUICE_DISPATCHER_TRANSFERS_IMPL_H
#define SLUICE_DISPATCHER_TRANSFERS_IMPL_H

#include <curl/curl.h>

#include "dispatcher/transfers.h"

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

/* It is no longer with curl, which says code: tell its user. */
void transfers_end(struct transfer *t, CURLcode code);

#endif
