/* The ask pool: answers that need the journal or a database are made and sent
 * here, so that a slow database holds up nobody. */
#ifndef SLUICE_FCGI_ASK_POOL_H
#define SLUICE_FCGI_ASK_POOL_H

#include "fcgi/exchange.h"
#include "fcgi/mailbox.h"
#include "shared/conf.h"

#define ASK_POOL_WAITING_MAX 64U /* requests that wait, a thread */

struct ask_pool;

/* conf is copied; its edge.ask_threads threads open journal and database with
 * their first question. back gets every exchange again. RC_NOMEM. */
enum rc ask_pool_new(struct ask_pool **out, const struct conf *conf,
                     struct mailbox *back) MUST_CHECK;

/* Answer what waits, stop and join. */
void ask_pool_free(struct ask_pool **pool);

/* Hand over a request whose route has `ask`. RC_FULL. Loop. */
enum rc ask_pool_put(struct ask_pool *pool, struct exchange *ex) MUST_CHECK;

/* From the next question on, ask->conf is this (copied). Loop. */
void ask_pool_reload(struct ask_pool *pool, const struct conf *conf);

#endif
