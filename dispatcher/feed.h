/* The feed: hands every request on to its service, once and in order of seq,
 * whatever the socket loses, repeats or reorders (DESIGN section 1.4).
 *
 *   live    frames with seq = cursor + 1 go straight into the inbox
 *   behind  the journal is read, a page at a time, until a page comes back
 *           short; frames are not even received then */
#ifndef SLUICE_DISPATCHER_FEED_H
#define SLUICE_DISPATCHER_FEED_H

#include <stdint.h>

#include "dispatcher/metrics.h"
#include "dispatcher/queue.h"
#include "shared/journal.h"
#include "shared/rc.h"
#include "shared/services.h"
#include "shared/text.h"

struct feed;

struct feed_options {
    const char *endpoint;                  /* bound; its file replaced */
    const struct journal_options *journal; /* a reader is opened with it */
    struct queue *inboxes[SERVICE_COUNT];
    struct metrics *metrics;
};

/* Bind and start the thread. The first rows are those of the journal. */
enum rc feed_start(struct feed **out,
                   const struct feed_options *options) MUST_CHECK;
void feed_stop(struct feed **f);

/* Stop handing on for a service (drain), or go on. Any thread. */
void feed_hold(struct feed *f, enum service service, bool held);

#endif
