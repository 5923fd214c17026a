/* A queue of exchanges between threads with an eventfd to wait on. Its bound
 * is its users': each pool limits what it takes. */
#ifndef SLUICE_FCGI_MAILBOX_H
#define SLUICE_FCGI_MAILBOX_H

#include "fcgi/exchange.h"

struct mailbox;
enum rc mailbox_new(struct mailbox **out) MUST_CHECK;
/* Frees what is still in it. */
void mailbox_free(struct mailbox **box);
int mailbox_fd(const struct mailbox *box);
/* ex belongs to the box. Any thread. */
void mailbox_put(struct mailbox *box, struct exchange *ex);
/* Only wake whoever waits. Any thread. */
void mailbox_wake(struct mailbox *box);
/* Everything in it; the eventfd is cleared. Any thread. */
struct exchange_list mailbox_take(struct mailbox *box);

#endif
