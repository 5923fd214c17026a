/* The edge's loop, without the program around it: tests drive it too. */
#ifndef SLUICE_FCGI_EDGE_LOOP_H
#define SLUICE_FCGI_EDGE_LOOP_H

#include <stdbool.h>

#include "fcgi/auth.h"
#include "fcgi/edge.h"
#include "shared/conf.h"
#include "shared/journal.h"
#include "shared/push.h"

struct edge_loop;

struct edge_loop_options {
    const struct edge_app *app;
    const struct conf *conf; /* copied */
    int listen_fd;           /* listening and non-blocking; borrowed */
    bool listen_owned;       /* nobody else accepts from it */
    struct journal *journal; /* borrowed; NULL: the app commits nothing */
    struct push *push;       /* borrowed; may be NULL */
    const struct auth *auth; /* borrowed */
};

/* Also starts the pools. Signals must be blocked before. RC_NOMEM, RC_IO. */
enum rc edge_loop_new(struct edge_loop **out,
                      const struct edge_loop_options *options) MUST_CHECK;
/* Stops the pools, closes the connections. */
void edge_loop_free(struct edge_loop **loop);

/* Call on_ready(arg) in the loop whenever fd can be read (signalfd). */
enum rc edge_loop_watch(struct edge_loop *loop, int fd,
                        void (*on_ready)(void *arg), void *arg) MUST_CHECK;

/* Run until drained. RC_OK: everything in hand was finished; RC_TIMEOUT: some
 * was not after 4 s. */
enum rc edge_loop_run(struct edge_loop *loop) MUST_CHECK;

/* Stop accepting, finish what is in hand. The loop's own thread (a watch). */
void edge_loop_drain(struct edge_loop *loop);

/* From now on a new configuration and set of keys. The loop's own thread. */
void edge_loop_reload(struct edge_loop *loop, const struct conf *conf,
                      const struct auth *auth);

#endif
