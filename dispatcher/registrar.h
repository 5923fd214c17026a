/* The registrar gives out places. It owns the connections to MongoDB for them,
 * serves turns of people in the order in which they are handed in, and sweeps
 * once a second: what came free goes to those who wait.
 *
 * A turn goes through two stages, its places and its mails, each a thread of
 * its own. MongoDB may be away for as long as it likes: each stage repeats its
 * part of a turn with back-off until it is done, and whatever is behind it
 * waits. A turn that comes back has both. */
#ifndef SLUICE_DISPATCHER_REGISTRAR_H
#define SLUICE_DISPATCHER_REGISTRAR_H

#include <stddef.h>
#include <stdint.h>

#include "dispatcher/allocator.h"
#include "dispatcher/mailer.h"
#include "dispatcher/metrics.h"
#include "dispatcher/queue.h"
#include "shared/conf.h"
#include "shared/rc.h"

#define REGISTRAR_TURN_MAX 500U

/* People who asked, in the order of their seq, and what became of each. */
struct registrar_turn {
    size_t count;
    struct person people[REGISTRAR_TURN_MAX];
    struct allocator_outcome outcomes[REGISTRAR_TURN_MAX];
};

struct registrar;

struct registrar_options {
    const struct conf *conf; /* copied */
    struct queue *served;    /* turns come back here; has room for them */
    struct metrics *metrics;
    struct mailer *mailer; /* told of new mails */
};

/* Start its threads. RC_NOMEM, RC_IO. */
enum rc registrar_start(struct registrar **out,
                        const struct registrar_options *options) MUST_CHECK;

/* End it, after the step that each stage is at: at most a command, or a sweep's
 * commands. Turns that have not come back are freed: their requests are in the
 * journal, and served again they get the same. */
void registrar_stop(struct registrar **r);

/* Hand in a turn, from malloc, which the registrar owns until it is in
 * `served`. RC_FULL: two wait for their places. One thread. */
enum rc registrar_give(struct registrar *r,
                       struct registrar_turn *turn) MUST_CHECK;

#endif
