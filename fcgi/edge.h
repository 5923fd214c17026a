/* libedge: the FastCGI edge that every handler program shares.
 *
 * One loop without threads accepts every connection that waits (up to
 * edge.batch), reads and validates each request, commits those of commit
 * and cancel routes in one journal transaction, answers, then pushes the
 * frames.
 *
 *   loop: accept -> read -> route -> accept() -> journal_accept -> answer()
 *                    |         |  \     (pace)    ^   |         -> push
 *                    |         |   `-> a cancel ---'   | a cancel
 *                    |         `-> ask pool: ask() <---'
 *                    |             on a thread of its own
 *                    `-> side pool: a body that is not there yet comes back
 *                        to the loop when it is whole (408, 503 else)
 *
 * Only the loop commits. A program is a const table of routes. */
#ifndef SLUICE_FCGI_EDGE_H
#define SLUICE_FCGI_EDGE_H

#include <stdbool.h>
#include <stddef.h>

#include "fcgi/reply.h"
#include "fcgi/request.h"
#include "shared/conf.h"
#include "shared/journal.h"
#include "shared/pg.h"
#include "shared/services.h"
#include "shared/text.h"

/* What a thread of the ask pool owns, for routes that read. */
struct ask {
    const struct conf *conf;
    struct journal *journal; /* JOURNAL_READER */
    struct pg *pg;
};

/* Validate; on RC_OK body holds the journal form, else reply holds the 4xx.
 * Loop. */
typedef enum rc edge_accept_fn(const struct request *request, struct text *body,
                               struct reply *reply);
/* The request is on disk (or was, the first time): write the 2xx. Loop. */
typedef void edge_answer_fn(const struct request *request, struct reply *reply);
/* Answer from journal or database. A thread of the ask pool. */
typedef void edge_ask_fn(const struct request *request, struct ask *ask,
                         struct reply *reply);

/* Answer from what is in memory. Loop. */
typedef void edge_show_fn(const struct request *request, struct reply *reply);
/* A problem document is about to leave: it may become a page for a person.
 * Status and headers stay. What has not come of the request (408, 413, 431) is
 * "". Not asked of what an ask function said. Loop. */
typedef void edge_on_problem_fn(const struct request *request,
                                struct reply *reply);

/* For how long a request without an Idempotency-Key stands for any like it
 * (the same caller and journal form) that follows; ms, 0: not at all. Loop. */
typedef int64_t edge_once_fn(const struct conf *conf);

/* A route is of one of four kinds:
 *   commit   accept, answer  a new request
 *   cancel   cancel, ask     the request {id} becomes canceled if it waits;
 *                            whether it did, ask() tells from what is there
 *                            now (or from before, for {id} may be anything)
 *   reading  ask
 *   showing  show: needs neither journal nor database, nor a thread */
struct edge_route {
    const char *method;   /* a GET route answers HEAD too */
    const char *path;     /* "/objects/{id}": {id} matches one segment */
    enum service service; /* of a commit or cancel route */
    edge_accept_fn *accept;
    edge_answer_fn *answer;
    edge_once_fn *once; /* may be NULL: never */
    int cancel;         /* the state of a canceled one, not 0 */
    edge_ask_fn *ask;
    edge_show_fn *show;
    bool form;             /* a commit route that takes HTML forms, too */
    bool open;             /* no API key is asked (auth.keys_file) */
    size_t max_body_bytes; /* 0: edge.max_body_bytes */
};

struct edge_app {
    const char *name; /* "callback.fcgi" */
    const struct edge_route *routes;
    size_t route_count;
    edge_on_problem_fn *on_problem; /* may be NULL */
};

/* The whole program: configuration, socket (--listen PATH, LISTEN_FDS, or
 * descriptor 0), loop, clean end on SIGTERM. Returns the exit status. */
int edge_main(int argc, char **argv, const struct edge_app *app);

#endif
