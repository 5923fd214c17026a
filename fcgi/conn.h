/* Connections of the loop. Every state is a list, oldest first, and
 * conn_move() is the one function that moves a connection between them. */
#ifndef SLUICE_FCGI_CONN_H
#define SLUICE_FCGI_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fcgi/records.h"
#include "shared/rc.h"

enum conn_state {
    CONN_FREE,   /* no connection */
    CONN_FRESH,  /* accepted, nothing has come */
    CONN_PART,   /* a part of a request waits in the socket */
    CONN_BUSY,   /* its request is in the batch or in a pool */
    CONN_KEPT,   /* answered; the web server may send another request */
    CONN_LINGER, /* refused; what it still sends is dropped */
    CONN_STATES
};

struct conn {
    struct conn *next;
    struct conn *prev;
    int fd; /* -1 when free */
    enum conn_state state;
    bool in_epoll;
    uint16_t peeks;   /* looks at the request that is there in part */
    int64_t since_ms; /* in this state */
    struct records walk;
};

struct conn_list {
    struct conn *first;
    struct conn *last;
    size_t count;
};

struct conn_table {
    struct conn_list lists[CONN_STATES];
    struct conn *all;
    size_t max;
};

enum rc conn_table_new(struct conn_table **out, size_t max) MUST_CHECK;
/* Closes what is open. */
void conn_table_free(struct conn_table **table);

/* Take over fd as CONN_FRESH; NULL when all are in use. */
struct conn *conn_add(struct conn_table *table, int fd, int64_t now_ms);

/* To the end of another state's list (or of the same one). */
void conn_move(struct conn_table *table, struct conn *conn,
               enum conn_state state, int64_t now_ms);

/* Close fd (unless it is -1: then somebody has) and free the place. */
void conn_close(struct conn_table *table, struct conn *conn);

/* Oldest of a state, NULL when there is none. */
struct conn *conn_oldest(const struct conn_table *table, enum conn_state state);

/* Connections that are open. */
size_t conn_open_count(const struct conn_table *table);

#endif
