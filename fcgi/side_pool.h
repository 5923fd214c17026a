/* The side pool: requests that have arrived in part are read here to their
 * end, so that a slow client holds up nobody. A thread watches many of them;
 * each has until its deadline in all, however its bytes trickle. */
#ifndef SLUICE_FCGI_SIDE_POOL_H
#define SLUICE_FCGI_SIDE_POOL_H

#include "fcgi/exchange.h"
#include "fcgi/mailbox.h"

#define SIDE_POOL_PER_THREAD 32U /* slow requests that a thread watches */

struct side_pool;

/* back gets every exchange again. threads 1..64. max_body: of a body in bytes;
 * a longer one is refused (413). RC_NOMEM, RC_IO. */
enum rc side_pool_new(struct side_pool **out, size_t threads, size_t max_body,
                      struct mailbox *back) MUST_CHECK;

/* Stop and join; what is still being read goes back as EXCHANGE_GONE. */
void side_pool_free(struct side_pool **pool);

/* Hand over a connection (fd, walk = {0} and deadline_ms are set; nothing is
 * read from it yet). RC_FULL: every thread has its share. Loop. */
enum rc side_pool_put(struct side_pool *pool, struct exchange *ex) MUST_CHECK;

#endif
