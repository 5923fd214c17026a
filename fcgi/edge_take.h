/* What to do with a request that has been read: the checks that every route
 * shares, in one order, and then the route's own. */
#ifndef SLUICE_FCGI_EDGE_TAKE_H
#define SLUICE_FCGI_EDGE_TAKE_H

#include "fcgi/auth.h"
#include "fcgi/exchange.h"
#include "shared/uuid.h"

enum edge_take {
    EDGE_REPLY,  /* reply is complete: a refusal, or a page to show */
    EDGE_COMMIT, /* record, key and hash, or the id to cancel, are ready for
                    the journal */
    EDGE_ASK,    /* for the ask pool */
};

struct edge_taker {
    const struct edge_app *app;
    const struct auth *auth;
    const struct conf *conf; /* that requests see */
    struct uuid_source uuids;
    int64_t max_body_bytes; /* of routes that do not say */
};

/* How much of a body must be read: the most that any route takes, where one
 * that does not say takes max_body_bytes. Any thread. */
size_t edge_take_max_body(const struct edge_app *app, int64_t max_body_bytes);

/* ex->params and ex->body are set; fills request, route and the rest. now =
 * wall time at which it arrived. Loop. */
enum edge_take edge_take(struct edge_taker *taker, struct exchange *ex,
                         int64_t now_unix_ms);

/* Give an exchange that was refused before its body was read a request with an
 * id, for its problem document: empty but for what has_params allows to say.
 * Loop. */
void edge_take_id(struct edge_taker *taker, struct exchange *ex,
                  int64_t now_unix_ms);

/* The reply is about to leave: what it says may be the app's business. Loop. */
void edge_take_leave(const struct edge_taker *taker, struct exchange *ex);

#endif
