/* The handler's end of the link: a ZeroMQ PUSH socket that never waits and may
 * lose anything at any time, for what counts is the commit before it. */
#ifndef SLUICE_SHARED_PUSH_H
#define SLUICE_SHARED_PUSH_H

#include <stdint.h>

#include "shared/frame.h"
#include "shared/rc.h"

struct push;

/* Connect to endpoint ("ipc:///..."), whether or not somebody is there.
 * Create after fork. RC_INVALID: no such endpoint; RC_NOMEM. Edge's loop. */
enum rc push_new(struct push **out, const char *endpoint) MUST_CHECK;
void push_free(struct push **p);

/* Send without waiting; the result is not looked at (but counted). */
void push_send(struct push *p, const struct frame *frame);

/* Frames handed to ZeroMQ, and frames that it did not take. */
int64_t push_sent_count(const struct push *p);
int64_t push_dropped_count(const struct push *p);

#endif
