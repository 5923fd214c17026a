/* The one place where threads meet: a bounded FIFO of pointers with a mutex,
 * an eventfd that is readable while something waits, and one that becomes
 * readable when a queue that refused a push has room again. */
#ifndef SLUICE_DISPATCHER_QUEUE_H
#define SLUICE_DISPATCHER_QUEUE_H

#include <stddef.h>

#include "shared/rc.h"

struct queue;

/* At most max_count items (> 0) of at most max_bytes together (0: no bound;
 * one item always fits into an empty queue). RC_NOMEM, RC_IO. */
enum rc queue_new(struct queue **out, size_t max_count,
                  size_t max_bytes) MUST_CHECK;
/* Items still inside are given to drop (may be NULL when there are none). */
void queue_free(struct queue **q, void (*drop)(void *item));

/* Takes ownership on RC_OK only. RC_FULL: a bound is reached. Any thread. */
enum rc queue_push(struct queue *q, void *item, size_t bytes) MUST_CHECK;

/* Oldest item, or NULL when empty. Any thread. */
void *queue_pop(struct queue *q);

/* Descriptors to poll for POLLIN (never read them): ready = an item waits;
 * room = there is room after a refused push (level; cleared by the next
 * refused push). */
int queue_ready_fd(const struct queue *q);
int queue_room_fd(const struct queue *q);

size_t queue_count(struct queue *q);
size_t queue_bytes(struct queue *q);

#endif
